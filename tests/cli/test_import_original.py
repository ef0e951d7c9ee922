"""`deployer import --from-original` as its users run it: from a running etcd with both stores, onto a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.sandbox import Sandbox
from plugins.test_env_etcd import PREFIX
from support import originals
from support.command import Deployer
from support.etcd import Etcd, with_both_stores
from support.original_records import SECRET, Records, deployment, descriptor
from support.world import World

LIVE = "6a1c7a0e-0000-4000-8000-000000000041"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """With both stores."""
    with with_both_stores(tmp_path / "etcd") as server:
        yield server


def write(etcd: Etcd, records: Records) -> None:
    for key, value in records.keys.items():
        etcd.put_v2(f"/deployer/{key}", value)


@pytest.mark.slow
def test_the_whole_of_it(deployer: Deployer, cluster: Sandbox, world: World, etcd: Etcd, tmp_path: Path) -> None:
    """`world` is here for its namespace and its eyes."""
    world.stop()
    host = f"{world.namespace}.example.com"
    originals.leave(world.eyes, world.namespace, host, world.image, deployment=LIVE)
    of = descriptor(world.namespace, image=world.image, frontend=host, healthCheckPort=9999)
    records = Records().descriptor(of).deployment(deployment("d40", "40", "UNDEPLOYED", of))
    records.deployment(deployment(LIVE, "41", "DEPLOYED", of), "2017-10-12T14:30:32Z Blue-green\n")
    write(etcd, records.put("environment/db-url", SECRET).put("environment/other", "theirs").put("proxy/x", "y"))
    with etcd.client() as client:
        client.put(f"{PREFIX}other", "ours")
    data, file = tmp_path / "nothing", tmp_path / "deployer.toml"
    file.write_text(
        '[plugins.ingress_nginx]\nrevision_header = true\ncontroller = "ingress-nginx/ingress-nginx-controller"\n'
    )
    # The records of this one go where those of the original were, into etcd's other store.
    flags = [
        f"--config={file}",
        "--kubernetes",
        cluster.api,
        "--loopback-pods",
        "--etcd",
        etcd.url,
        f"--data-dir={data}",
    ]

    def run(*more: str) -> list[str]:
        done = deployer.run("import", "--from-original", etcd.url, *flags, *more)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr and "theirs" not in done.stdout
        return done.stdout.splitlines()

    whose = f"{world.namespace}/shop"
    would = run("--dry-run")
    assert would[-1].startswith("would bring ") and would[-1].endswith("; nothing was written")
    with etcd.client() as client:
        assert [pair.key for pair in client.get_prefix_response("/").kvs] == [f"{PREFIX}other".encode()]
    done = run()
    assert done[:-1] == would[:-1]
    assert f"descriptor descriptor-of-shop of {whose}: dropped healthCheckPort: which the original never used" in done
    assert f"{whose}: version 41 is live (deployment {LIVE})" in done
    assert "environment: other: has another value in etcd's v3 store, which stays" in done
    for part in ("1 descriptor", "2 deployments", "1 app", "1 host claim", "1 variable of the environment"):
        assert part in done[-1] and part in would[-1]
    with etcd.client() as client:
        assert client.get(f"{PREFIX}db-url")[0].decode() == SECRET
        assert client.get(f"{PREFIX}other")[0] == b"ours"
    assert run()[-1].startswith("brought nothing new into ")

    process, rest = deployer.serve("serve", *flags)
    rest.namespace = world.namespace
    status, found = rest.call("GET", f"/deployments/{LIVE}/")
    assert (status, found["status"], found["version"]) == (200, "DEPLOYED", "41")
    assert SECRET not in json.dumps(found)
    status, app = rest.call("GET", "/apps/shop")
    assert status == 200 and app["live"]["version"] == "41"
    # One that is in use is looked at all the same.
    assert run("--dry-run")[-1].startswith("would bring nothing into ")
    assert rest.call("POST", "/deployments/", query="&descriptorId=descriptor-of-shop")[0] == 202
    assert process.end() == 0
    assert not data.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name either FILE or --from-original"),
        (("x", "--from-original=y"), "name either FILE or --from-original"),
        (("x", "--dry-run"), "--dry-run goes with --from-original"),
    ],
)
def test_what_goes_together(deployer: Deployer, arguments: tuple[str, ...], said: str) -> None:
    run = deployer.run("import", *arguments)
    assert run.returncode == 2 and said in run.stderr


def test_a_cluster_that_does_not_answer_ends_it(deployer: Deployer, tmp_path: Path) -> None:
    (tmp_path / "saved.json").write_text(json.dumps(Records().descriptor(descriptor("default")).answer()))
    data: Any = tmp_path / "data"
    arguments = (
        "--from-original",
        str(tmp_path / "saved.json"),
        "--kubernetes=http://127.0.0.1:1",
        f"--data-dir={data}",
    )
    run = deployer.run("import", *arguments)
    assert run.returncode == 1 and "http://127.0.0.1:1 cannot be reached" in run.stderr
    assert run.stderr.count("\n") == 1 and not data.exists()

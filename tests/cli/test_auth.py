"""`deployer serve` with authentication, as the guide has it, and what is said at the start."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.api.routes import ROUTES, Permission
from support.issuer import ISSUER, Issuer

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "authentication.md"
RBAC = GUIDE.parents[1] / "deploy" / "rbac"
NOBODY = "http://127.0.0.1:1"


def flags(tmp_path: Path, issuer: Issuer) -> list[str]:
    file = tmp_path / "key.pem"
    file.write_bytes(issuer.pem)
    return [
        "serve", "--kubernetes", NOBODY, "--data-dir", str(tmp_path / "data"), "--auth=jwt", "--jwt-algorithm=ES256",
        f"--jwt-issuer={ISSUER}", "--jwt-audience=kube-deployer", f"--jwt-key-file={file}",
    ]  # fmt: skip


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("curl")), reason="needs openssl and curl")
def test_the_guide_to_jwt(deployer: Any, tmp_path: Path) -> None:
    [part] = re.findall(r"<!-- jwt -->(.*)<!-- /jwt -->", GUIDE.read_text(), re.DOTALL)
    [toml] = re.findall(r"```toml\n(.*?)```", part, re.DOTALL)
    keys, calls = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    environment = deployer.environment | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def shell(script: str, **more: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout

    shell(keys)
    (tmp_path / "deployer.toml").write_text(toml.replace("issuer.pem", str(tmp_path / "issuer.pem")))
    arguments = ["--config", str(tmp_path / "deployer.toml"), "--kubernetes", NOBODY]
    process, rest = deployer.serve("serve", *arguments, "--data-dir", str(tmp_path / "data"))
    said = shell(calls, API=rest.url.rstrip("/"))
    assert re.findall(r"^HTTP/1.1 (\d+)", said, re.MULTILINE) == ["401", "200", "403"]
    assert process.end() == 0


def test_changes_and_refusals_are_audited_whatever_the_log_level_is(deployer: Any, tmp_path: Path) -> None:
    issuer = Issuer()
    process, rest = deployer.serve(*flags(tmp_path, issuer), "--log-level=error")
    assert rest.call("GET", "/deployments/")[0] == 401
    rest.headers = {"Authorization": f"Bearer {issuer.token(namespaces=['default'])}"}
    body = {
        "namespace": "default",
        "appName": "shop",
        "newVersion": "1",
        "podspec": {"containers": [{"name": "a", "image": "b"}]},
    }
    assert rest.call("POST", "/descriptors/", body)[0] == 201
    assert rest.call("GET", "/descriptors/")[0] == 200
    assert process.end() == 0
    lines = [json.loads(line) for line in process.rest("err").splitlines()]
    assert [(line["who"], line["outcome"], line["status"]) for line in lines] == [
        (None, "refused", 401),
        ("ann", "ok", 201),
    ]


def test_plain_http_on_other_addresses_is_warned_of(deployer: Any, tmp_path: Path) -> None:
    process, _ = deployer.serve(*flags(tmp_path, Issuer()), "--deployhost=0.0.0.0")
    assert "UNENCRYPTED" in process.line("plain HTTP", "err")
    assert process.end() == 0


def test_a_provider_that_is_away_holds_up_no_start(deployer: Any, tmp_path: Path) -> None:
    arguments = [f for f in flags(tmp_path, Issuer()) if not f.startswith("--jwt-key-file")]
    began = time.monotonic()
    process, rest = deployer.serve(*arguments, "--jwt-jwks-url=https://127.0.0.1:1/keys")
    assert time.monotonic() - began < 20
    assert "the issuer's keys cannot be had from https://127.0.0.1:1/keys" in process.line("keys cannot be had", "err")
    rest.headers = {"Authorization": f"Bearer {Issuer().token()}"}
    assert rest.call("GET", "/deployments/")[0] == 503
    assert process.end() == 0
    assert "Traceback" not in process.rest("err")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--auth=jwt"], "--auth jwt also needs --jwt-issuer, --jwt-audience"),
        (["serve", "--auth=kubernetes", "--insecure-no-auth"], "contradict each other"),
        (["sandbox", "--auth=kubernetes"], "the sandbox has no accounts to ask about"),
        (
            [
                "serve",
                "--auth=jwt",
                "--jwt-issuer=i",
                "--jwt-audience=a",
                "--jwt-key-file=/nowhere",
                "--kubernetes",
                NOBODY,
            ],
            "the key file /nowhere cannot be read: No such file or directory",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(deployer: Any, arguments: list[str], said: str) -> None:
    done = deployer.run(*arguments)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert said in line


def granted(file: str, kind: str = "Role") -> dict[str, set[tuple[str, str]]]:
    """The resources and verbs of each role in a file."""
    found: dict[str, set[tuple[str, str]]] = {}
    for role in yaml.safe_load_all((RBAC / file).read_text()):
        if role["kind"] == kind:
            assert all(rule["apiGroups"] == ["kube-deployer"] for rule in role["rules"])
            pairs = {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
            found[role["metadata"]["name"]] = pairs
    return found


def test_the_example_of_rights_gives_exactly_what_the_routes_demand() -> None:
    demanded = {p for route in ROUTES for p in route.methods.values() if isinstance(p, Permission)}
    reads = {(p.resource, p.verb) for p in demanded if p.reads}
    freezes = {(p.resource, p.verb) for p in demanded if p.resource == "freezes"}
    approve = {("deployments", "approve")}
    rollback = {("deployments", "rollback")}
    verbs = {p.verb for p in demanded} - {"approve", "rollback"}
    writes = {(r, v) for r in ("descriptors", "deployments") for v in verbs}
    assert {(p.resource, p.verb) for p in demanded} <= writes | freezes | approve | rollback
    assert granted("users.yaml") == {"kube-deployer-deploy": writes | reads, "kube-deployer-read": reads}
    override = {("freezes", "override")}
    assert {(p.resource, p.verb) for route in ROUTES for p in route.parameters.values()} == override
    looks = {("deployments", verb) for verb in ("get", "list")}
    assert granted("approve.yaml") == {"kube-deployer-approve": approve | looks}
    assert granted("rollback.yaml") == {"kube-deployer-rollback": rollback | looks}
    assert granted("freezes.yaml") == {
        "kube-deployer-freeze": freezes,
        "kube-deployer-override-freeze": override,
    }
    assert granted("freezes-everywhere.yaml", "ClusterRole") == {"kube-deployer-freeze": freezes}
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", GUIDE.read_text(), re.MULTILINE))
    for route in ROUTES:
        for method, permission in route.methods.items():
            if isinstance(permission, Permission) and not route.stream and route.path.count("/") < 3:
                said = f"{method} {route.path}" if not route.dry else route.path
                assert f"`{said}`" in table[permission.verb], said

"""`deployer export`, `import` and `backup`, beside a service that runs."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from deployer.core.model.records import App
from deployer.core.ports.store import Create, Replica
from deployer.store.sqlite import SqliteStore
from deployer.store.transfer import export_file
from support.command import Deployer, Rest
from support.etcd import Etcd
from support.memory_store import MemoryStore
from support.world import describe

NOWHERE = "--kubernetes=http://127.0.0.1:1"
"""A cluster that does not answer: the service starts, and deployments wait."""


def stored(rest: Rest, *apps: str) -> list[str]:
    """The ids of descriptors of those apps."""
    ids = []
    for app in apps:
        status, made = rest.call("POST", "/descriptors/", describe("default", app))
        assert status == 201, made
        ids.append(str(made["id"]))
    return ids


def ids(rest: Rest, what: str) -> list[str]:
    status, found = rest.call("GET", f"/{what}/")
    assert status == 200
    return sorted(one["id"] for one in found)


def told(run: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """What it said: on success to those who read its output, else one line for those who read its errors."""
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return run.stdout if code == 0 else run.stderr


@pytest.mark.slow
def test_a_store_moves_while_it_is_used(deployer: Deployer, tmp_path: Path) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "export.gz"
    process, rest = deployer.serve("serve", NOWHERE, f"--data-dir={old}")
    made = stored(rest, "one", "two", "three")
    assert rest.call("PUT", "/freezes/default", {"reason": "moving"})[0] in (200, 201)
    said = told(deployer.run("export", str(file), f"--data-dir={old}"))
    assert said.startswith("exported 0 deployments, 4 other records and 0 log lines")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    stored(rest, "late")
    assert "is in use by process" in told(deployer.run("import", str(file), f"--data-dir={old}"), 2)
    assert process.end() == 0
    assert "is not empty" in told(deployer.run("import", str(file), f"--data-dir={old}"), 2)

    assert "imported 0 deployments" in told(deployer.run("import", str(file), f"--data-dir={new}"))
    assert "nothing to do" in told(deployer.run("import", str(file), f"--data-dir={new}"))
    process, rest = deployer.serve("serve", NOWHERE, f"--data-dir={new}")
    assert ids(rest, "descriptors") == sorted(made)
    status, freeze = rest.call("GET", "/freezes/default")
    assert status == 200 and "moving" in json.dumps(freeze)
    assert process.end() == 0


@pytest.mark.slow
def test_an_import_that_is_killed_goes_on(deployer: Deployer, tmp_path: Path) -> None:
    new, file = tmp_path / "new", tmp_path / "export.gz"
    with closing(MemoryStore(clock=lambda: 0.0)) as old:
        for number in range(250):  # three batches
            old.commit(Create(App(namespace="shop", app=f"app{number}")))
        with old.dump() as items:
            export_file.write(file, items)
    arguments = ("import", str(file), f"--data-dir={new}")
    for at in ("store.before:2", "store.after:4"):
        assert deployer.run(*arguments, DEPLOYER_FAILPOINT=at).returncode == 137
    refused = told(deployer.run("serve", NOWHERE, f"--data-dir={new}", "--deployport=0"), 2)
    assert "holds a part of an export only" in refused and "run `deployer import` with the same file" in refused
    assert "went on with the import" in told(deployer.run(*arguments))
    process, _ = deployer.serve("serve", NOWHERE, f"--data-dir={new}")
    assert process.end() == 0
    with closing(SqliteStore(new / "deployer.db")) as store:
        assert [app.app for app in store.find(App)] == [f"app{number}" for number in range(250)]


@pytest.mark.slow
def test_a_backup_of_a_service_that_is_killed_afterwards(deployer: Deployer, tmp_path: Path) -> None:
    old, new, copies = tmp_path / "old", tmp_path / "new", tmp_path / "copies"
    copies.mkdir()
    process, rest = deployer.serve("serve", NOWHERE, f"--data-dir={old}")
    made = stored(rest, "one", "two")
    said = told(deployer.run("backup", str(copies), f"--data-dir={old}"))
    (copy,) = copies.iterdir()
    assert str(copy) in said and stat.S_IMODE(copy.stat().st_mode) == 0o600
    stored(rest, "late")
    process.end(signal.SIGKILL)
    new.mkdir()
    copy.rename(new / "deployer.db")
    process, rest = deployer.serve("serve", NOWHERE, f"--data-dir={new}")
    assert ids(rest, "descriptors") == sorted(made)
    assert process.end() == 0


@pytest.mark.parametrize("command", ["export", "backup"])
def test_what_is_not_there_is_one_sentence(deployer: Deployer, tmp_path: Path, command: str) -> None:
    said = told(deployer.run(command, str(tmp_path / "file"), f"--data-dir={tmp_path / 'none'}"), 2)
    assert said == (
        f"deployer: there is no store {tmp_path / 'none' / 'deployer.db'}; name the directory that has it with "
        "--data-dir\n"
    )
    assert not (tmp_path / "file").exists() and not (tmp_path / "none").exists()


def test_a_backup_is_of_the_embedded_store(deployer: Deployer, tmp_path: Path) -> None:
    said = told(deployer.run("backup", str(tmp_path), "--etcd=http://127.0.0.1:1", f"--data-dir={tmp_path}"), 2)
    assert "use `etcdctl snapshot save`, or `deployer export`" in said and not list(tmp_path.glob("*.db"))


def test_an_import_of_nothing_makes_no_store(deployer: Deployer, tmp_path: Path) -> None:
    said = told(deployer.run("import", str(tmp_path / "file"), f"--data-dir={tmp_path / 'none'}"), 1)
    assert said == f"deployer: {tmp_path / 'file'} cannot be read (No such file or directory)\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_store_moves_into_etcd_and_out_of_it(deployer: Deployer, one_etcd: Etcd, tmp_path: Path) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "export.gz"
    with closing(SqliteStore(old / "deployer.db")) as store:
        for number in range(20):
            store.commit(Create(App(namespace="shop", app=f"app{number}", highest=number)))
        lease = store.acquire("shop", "app1", "somebody", 1.0)
        assert lease is not None
    (url,) = one_etcd.endpoints
    etcd = [f"--etcd={url}", f"--etcd-prefix=/{tmp_path.name}/"]
    told(deployer.run("export", str(file), "--store=sqlite", f"--data-dir={old}", *etcd))
    said = told(deployer.run("import", str(file), f"--data-dir={old}", *etcd))
    assert said.startswith(f"imported 0 deployments, 20 other records and 0 log lines into etcd ({url}, ")
    assert "nothing to do" in told(deployer.run("import", str(file), f"--data-dir={old}", *etcd))

    with closing(one_etcd.store(f"/{tmp_path.name}/")) as used:
        used.join(Replica("somebody", {}), 60.0)
        refused = told(deployer.run("import", str(file), f"--data-dir={old}", *etcd), 2)
        assert "is in use by 1 replica of the service; stop all of them first" in refused
        told(deployer.run("export", str(file), *etcd))
        used.leave("somebody")

    told(deployer.run("import", str(file), f"--data-dir={new}"))
    with closing(SqliteStore(new / "deployer.db")) as store:
        assert [(app.app, app.highest) for app in store.find(App)] == [(f"app{n}", n) for n in range(20)]
        again = store.acquire("shop", "app1", "another", 1.0)
        assert again is not None and again.token > lease.token

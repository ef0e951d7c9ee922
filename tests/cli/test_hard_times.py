"""`deployer serve` on a disk that is full, read-only or damaged: sentences, nothing lost, and well again by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.cli.sandbox import sample
from deployer.core.model.kind import SERVICE
from deployer.sandbox import Sandbox
from deployer.store import reserve
from deployer.store.sqlite import SqliteStore
from support.command import COMMAND, Rest, awaited
from support.small_disk import SmallDisk, small_disk
from support.world import World

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Of 64 MiB, on which a reserve is as large as anywhere."""
    with small_disk(tmp_path / "disk", 64) as made:
        yield made


def ready(rest: Rest) -> str:
    """Empty when it is; else why not."""
    code, answer = rest.call("GET", "/readyz")
    return "" if code == 200 else str(answer["detail"])


def test_with_not_one_byte_free(deployer: Any, cluster: Sandbox, world: World, disk: SmallDisk, tmp_path: Path) -> None:
    """`world` is here for its namespace and its eyes; its own engine sleeps."""
    world.stop()
    data = disk.path / "data"
    flags = ["--kubernetes", cluster.api, "--loopback-pods", "--ingress=none", "--proxysleep=0", f"--data-dir={data}"]
    process, rest = deployer.serve("serve", *flags)
    rest.namespace = world.namespace
    app = {**sample.descriptor(), "namespace": world.namespace, "frontend": None, "replicas": 1}
    old = rest.deploy({**app, "appName": "old"})
    awaited(lambda: rest.status(old) == "DEPLOYED", "the first version")
    unused = rest.call("POST", "/descriptors/", {**app, "appName": "unused"})[1]["id"]
    slow = {"env": [{"name": "SLOW_START", "value": "3"}]}
    container = app["podspec"]["containers"][0] | slow
    under_way = rest.deploy({**app, "appName": "new", "podspec": {**app["podspec"], "containers": [container]}})
    awaited(lambda: "created" in rest.call("GET", f"/deployments/{under_way}/logs")[1], "its pods to be created")

    disk.fill()
    refused = awaited(lambda: _until_refused(rest, app), "a refusal")
    assert "deployer.db is full: free 16 MB there; until then only what ends or deletes" in refused["detail"]
    assert "is full" in ready(rest)
    assert rest.call("PUT", f"/descriptors/{unused}/", {**app, "appName": "unused"})[0] == 503
    assert rest.call("PUT", f"/deployments/{old}/")[0] == 503
    assert awaited(lambda: rest.status(under_way) != "DEPLOYING" and rest.status(under_way), "its end") == "DEPLOYED"
    assert rest.call("DELETE", f"/descriptors/{unused}/")[0] == 200
    assert rest.call("DELETE", f"/deployments/{old}/", query="&deleteDeployment=true")[0] == 202
    awaited(lambda: rest.status(old) == "404", "the old version to be deleted")
    assert set(world.objects(SERVICE)) == {"new", "new-1"}
    assert os.statvfs(disk.path).f_bavail * 4096 < 8_500_000
    assert "is full" in ready(rest)

    disk.empty()
    awaited(lambda: not ready(rest), "readiness, without any help")
    assert rest.call("POST", "/descriptors/", {**app, "appName": "after"})[0] == 201
    log = rest.call("GET", f"/deployments/{under_way}/logs")[1]
    assert process.end() == 0
    said = process.rest("err")
    assert "Traceback" not in said
    assert {file.name for file in data.iterdir()} == {"deployer.db", "deployer.db.lock", "deployer.db.reserve"}
    with contextlib.closing(sqlite3.connect(data / "deployer.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    # What somebody would do for a backup: copy the file alone, and start it elsewhere.
    (tmp_path / "copy").mkdir()
    shutil.copy(data / "deployer.db", tmp_path / "copy")
    process, rest = deployer.serve("serve", *flags[:-1], f"--data-dir={tmp_path}/copy")
    rest.namespace = world.namespace
    assert rest.status(under_way) == "DEPLOYED"
    assert rest.call("GET", f"/deployments/{under_way}/logs")[1] == log
    assert process.end() == 0


def _until_refused(rest: Rest, app: dict[str, Any]) -> Any:
    """What REST answers once the files that are there have no more room."""
    padding = [{"key": "k" * 200, "description": "x" * 500}] * 100
    code, answer = rest.call("POST", "/descriptors/", {**app, "appName": "filler", "webhooks": padding})
    assert code in (201, 503), answer
    return answer if code == 503 else None


# --- beginnings ------------------------------------------------------------------------------------------------------


def refused(deployer: Any, data: Path) -> str:
    """The one sentence with which a start ends."""
    done = deployer.run("serve", "--kubernetes", NOBODY, "--deployport=0", "--ingress=none", f"--data-dir={data}")
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("deployer: "), done.stderr
    return str(done.stderr)


def a_store(data: Path) -> Path:
    """One that was left in order."""
    file = data / "deployer.db"
    SqliteStore(file, reserve=reserve.SIZE).close()
    return file


def test_on_a_read_only_disk(deployer: Any, disk: SmallDisk) -> None:
    a_store(disk.path / "data")
    disk.read_only()
    said = refused(deployer, disk.path / "data")
    assert str(disk.path / "data" / "deployer.db") in said
    assert "its disk is mounted read-only: choose a directory that this user may write" in said


def test_on_a_full_disk(deployer: Any, disk: SmallDisk) -> None:
    disk.fill()
    assert "deployer.db cannot be opened: its disk is full; free space there" in refused(deployer, disk.path / "data")
    disk.empty()
    a_store(disk.path / "data")
    disk.fill()
    process, rest = deployer.serve("serve", "--kubernetes", NOBODY, "--ingress=none", f"--data-dir={disk.path}/data")
    awaited(lambda: "deployer.db is full" in ready(rest), "the reason in /readyz")
    assert rest.call("GET", "/healthz")[0] == 200
    disk.empty()
    awaited(lambda: "is full" not in ready(rest), "room")
    assert process.end() == 0
    assert "Traceback" not in process.rest("err")


def test_a_database_that_cannot_be_used(deployer: Any, tmp_path: Path) -> None:
    file = a_store(tmp_path / "data")
    whole = file.read_bytes()
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    newer = file.read_bytes()
    said = refused(deployer, tmp_path / "data")
    assert "newer release (schema 99" in said and "start that release, or restore a backup" in said
    assert file.read_bytes() == newer
    file.write_bytes(whole[:5000])
    assert "it is damaged: stop the service and restore the newest backup" in refused(deployer, tmp_path / "data")
    assert file.read_bytes() == whole[:5000]


def test_a_sandbox_on_a_full_disk(deployer: Any, disk: SmallDisk) -> None:
    disk.fill()
    done = deployer.run("sandbox", f"--data-dir={disk.path}/data", "--deployport=0", "--ingress-port=0")
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert str(disk.path / "data") in said and "No space left on device" in said and "free space on its disk" in said


def test_what_cannot_be_printed(deployer: Any, tmp_path: Path) -> None:
    """`deployer plugins > file` on a full disk."""
    with Path("/dev/full").open("wb") as full:
        for arguments in (["plugins"], ["--version"]):
            command = [COMMAND, *arguments]
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, env=deployer.environment, timeout=60, check=False
            )
            assert done.returncode == 1
            said = done.stderr.decode()
            assert said == "deployer: standard output cannot be used (No space left on device); check its disk\n"

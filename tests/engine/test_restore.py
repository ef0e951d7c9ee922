"""A store that was restored from a backup, or moved while the cluster went on: what agrees works, the rest says so."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from deployer.core.model.records import Status
from deployer.kube.ownership import ANNOTATION_FENCING_TOKEN
from deployer.sdk.kube import CONTROLLER, SERVICE
from deployer.store.sqlite import SqliteStore
from deployer.store.transfer import export_file, importing
from deployer.store.transfer.sqlite import SqliteFile
from support.world import HEALTHY, PATIENCE, World


def file_of(world: World) -> Path:
    return world.settings.data_dir / "deployer.db"


def restored(world: World, backup: Path) -> None:
    """The service runs on the backup, as the documentation has it: in a directory of its own."""
    world.stop()
    for old in world.settings.data_dir.glob("deployer.db*"):
        old.unlink()
    backup.rename(file_of(world))
    world.start()


def token_of(world: World, app: str = "shop") -> int:
    return int(world.objects(SERVICE)[app]["metadata"]["annotations"][ANNOTATION_FENCING_TOKEN])


def test_a_store_that_is_older_than_the_cluster_goes_on_above_its_fencing_tokens(world: World, tmp_path: Path) -> None:
    world.deployed(**HEALTHY)
    SqliteFile(file_of(world)).backup(tmp_path / "backup.db")
    for _ in range(3):
        world.restart()
        world.ended(world.deploy(**HEALTHY, deploymentType="blue-green", newVersion="1"), Status.FAILURE)
    before = token_of(world)
    assert before > 3
    restored(world, tmp_path / "backup.db")
    assert world.deployed(**HEALTHY).version == "2"
    assert token_of(world) > before


def serves(world: World, app: str) -> bool:
    """Does the version that the app's Service selects have its controller, and a pod that is ready?"""
    version = world.live_version(app)
    controller = world.objects(CONTROLLER).get(f"{app}-{version}", {})
    return bool(controller.get("status", {}).get("readyReplicas"))


@pytest.mark.parametrize("which", [0.0, 0.4, 0.8])
def test_a_backup_under_a_load_of_deployments_is_restored(world: World, tmp_path: Path, which: float) -> None:
    """The drill of the documentation: nothing that serves ends, and an app that went on since says so."""
    apps = ("one", "two", "three")
    for app in apps[:2]:
        world.deployed(app, **HEALTHY)
    copies: list[Path] = []
    wake = threading.Event()
    forget = world.store.subscribe(lambda *_: wake.set())
    begun = [world.deploy(app, **HEALTHY) for app in apps]

    def done() -> bool:
        return all(world.record(deployment.id).status is Status.DEPLOYED for deployment in begun)

    while not done():
        wake.clear()
        copies.append(tmp_path / f"{len(copies)}.db")
        SqliteFile(file_of(world)).backup(copies[-1])
        assert wake.wait(PATIENCE)
    forget()
    world.quiet()
    assert len(copies) > 5
    restored(world, copies[int(len(copies) * which)])
    world.quiet()
    assert all(serves(world, app) for app in apps)
    for app in apps:
        ended = world.ended(world.deploy(app, **HEALTHY))
        disagrees = ended.failure is not None and ended.failure["reason"] == "StoreDisagrees"
        assert ended.status is Status.DEPLOYED or disagrees, ended.failure
    world.quiet()
    assert all(serves(world, app) for app in apps)


def test_operations_that_were_open_go_on_in_the_store_that_they_were_moved_to(world: World, tmp_path: Path) -> None:
    old = world.deployed(**HEALTHY)
    new = world.deployed(**HEALTHY, keepWarm=3600)
    assert world.record(old.id).status is Status.UNDEPLOYING  # for an hour
    with SqliteFile(file_of(world)).dump() as items:
        export_file.write(tmp_path / "export.gz", items)
    log = world.log(new.id)
    world.stop()
    for file in world.settings.data_dir.glob("deployer.db*"):
        file.unlink()
    with closing(SqliteStore(file_of(world))) as store:
        importing.run(store, "new", export_file.ExportFile(tmp_path / "export.gz"))
    world.start()
    assert world.log(new.id) == log
    world.service.undeploy(world.namespace, new.id)
    world.quiet()
    assert [world.record(d.id).status for d in (old, new)] == [Status.UNDEPLOYED, Status.UNDEPLOYED]
    assert (world.names(), world.pods()) == ({}, {})

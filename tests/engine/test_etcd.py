"""The service from end to end with its records in etcd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer import sandbox
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.errors import StoreUnavailable
from deployer.core.model.records import App, Deployment, Operation, Status
from deployer.store.etcd.store import EtcdStore
from support.etcd import Etcd
from support.gates import awaited, decide, gated
from support.world import HEALTHY, World

HOST = "shop.example.com"


@pytest.fixture
def world(cluster: sandbox.Sandbox, one_etcd: Etcd, tmp_path: Path, namespace: str) -> Iterator[World]:
    """A Deployer whose records are in etcd, below a prefix of its own."""
    etcd = ",".join(one_etcd.endpoints)
    made = World(cluster, tmp_path, namespace, etcd=etcd, etcd_prefix=f"/test/{namespace}/", proxysleep=120.0).start()
    yield made
    made.close()


def live(world: World) -> str:
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app is not None
    return app.live


def test_deploy_redeploy_roll_back_and_undeploy(world: World) -> None:
    assert isinstance(world.store, EtcdStore)
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend=HOST)
    assert live(world) == second.id
    RollbackCommands(world.service).roll_back(world.namespace, "shop")
    world.until(lambda: live(world) == first.id, "the first version to be live")
    assert world.answer(HOST)[1].startswith("version 1 ")

    numbers = [line.number for line in world.deployment_log.read(first.id)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 5
    world.undeploy(first.id)
    world.await_status(first.id, Status.UNDEPLOYED)
    assert not (world.settings.data_dir / "deployer.db").exists()


def test_an_outage_in_the_middle_of_a_deployment(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> None:
    etcd = Etcd(tmp_path / "etcd")
    settings = {"etcd": etcd.endpoints[0], "etcd_timeout": 1.0}
    world = World(cluster, tmp_path / "data", namespace, **settings).start()
    try:
        deployment = world.deploy(**HEALTHY, frontend=HOST)
        world.until(lambda: len(world.deployment_log.read(deployment.id)) >= 2, "the deployment to begin")
        etcd.members[0].stop()
        with pytest.raises(StoreUnavailable, match=etcd.endpoints[0]):
            world.store.get(Deployment, deployment.id)
        with pytest.raises(StoreUnavailable):
            world.deploy("other")
        etcd.members[0].resume()
        world.ended(deployment, Status.DEPLOYED)
        numbers = [line.number for line in world.deployment_log.read(deployment.id)]
        assert numbers == list(range(1, len(numbers) + 1))
    finally:
        etcd.members[0].resume()
        world.close()
        etcd.close()


@pytest.mark.parametrize("point", ["beforeStart", "afterSwitch"])
def test_an_etcd_that_is_brought_back_from_a_copy_while_the_service_runs(
    cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, point: str
) -> None:
    """The service goes on with what is open in the copy, and forgets what is open no more."""
    etcd = Etcd(tmp_path / "etcd")
    (member,) = etcd.members
    world = World(cluster, tmp_path / "data", namespace, etcd=member.url, etcd_timeout=1.0, proxysleep=120.0).start()
    try:
        first = world.deployed(**HEALTHY, frontend=HOST)
        second = world.deploy(**HEALTHY, frontend=HOST, **gated(point, type="approval"))
        awaited(world, second)
        member.kill()
        copy = member.keep()
        etcd.restart(member)
        world.until(world.store.replicas, "the service to be there")
        decide(world, second)
        world.ended(second, Status.DEPLOYED)
        waits = world.deploy("other", **HEALTHY, **gated(point, type="approval"))
        awaited(world, waits)
        before = world.store.changed(namespace)
        member.kill()
        member.bring_back(copy)
        etcd.restart(member)
        world.until(lambda: world.store.changed(namespace) > before, "the service to notice")
        assert world.store.get(Deployment, waits.id) is None
        assert world.how_far.open(namespace).keys() == {"shop"}
        decide(world, second)
        world.ended(second, Status.DEPLOYED)
        assert live(world) == second.id
        assert world.answer(HOST)[1].startswith("version 2 ")
        world.undeploy(second.id)
        world.ended(second, Status.UNDEPLOYED)
        world.undeploy(first.id)
        world.ended(first, Status.UNDEPLOYED)
        world.until(lambda: not any("shop" in name for name in world.names()), "everything of the app to be gone")
        world.until(lambda: not any(q.operations for q in world.engine._apps.values()), "nothing to be open any more")
    finally:
        world.close()
        etcd.close()


@pytest.mark.parametrize("write", [3, 8])
def test_a_service_that_dies_is_resumed(world: World, write: int) -> None:
    first = world.deployed(**HEALTHY, frontend=HOST)
    world.kill(at=write)
    second = world.deploy(**HEALTHY, frontend=HOST)
    assert world.died.wait(30)
    world.restart()
    world.ended(second, Status.DEPLOYED)
    assert live(world) == second.id
    assert world.answer(HOST)[1].startswith("version 2 ")
    kept = world.store.get(Deployment, first.id)
    assert kept is not None
    assert [o.deployment for o in world.store.find(Operation, tag="open") if o.kind == "deploy"] == []

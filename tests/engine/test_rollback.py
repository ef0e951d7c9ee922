"""Rollback in one call, to a warm version and to one that is gone; and by itself, when the new version fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.commands.rollback_commands import RollbackCommands
from deployer.core.errors import Conflict, NotFound
from deployer.core.model.records import Deployment, Operation, OperationKind, Status
from support.world import HEALTHY, World

HOST = "shop.example.com"


@pytest.fixture
def make_world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[Any]:
    """A running Deployer with these settings in an empty namespace."""
    with contextlib.ExitStack() as made:

        def make(**settings: Any) -> World:
            world = World(cluster, tmp_path, namespace, **settings).start()
            made.callback(world.close)
            return world

        yield make


@pytest.fixture
def warm(make_world: Any) -> World:
    """A service that keeps the old version for a long time."""
    world: World = make_world(proxysleep=120.0)
    return world


def rollbacks(world: World) -> RollbackCommands:
    return RollbackCommands(world.service)


def record(world: World, id: str) -> Deployment:
    found = world.store.get(Deployment, id)
    assert found is not None
    return found


def two_versions(world: World) -> tuple[Deployment, Deployment]:
    """The first one is warm, the second one live."""
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend=HOST)
    assert world.answer(HOST)[1].startswith("version 2 ")
    return first, second


def test_a_warm_version_is_switched_back_to_with_the_pods_that_run(warm: World) -> None:
    first, second = two_versions(warm)
    pods = {name for name in warm.pods() if name.startswith("shop-1-")}
    asked = rollbacks(warm).roll_back(warm.namespace, "shop", by="ann")
    assert (asked.deployment.id, asked.warm) == (first.id, True)
    warm.ended(first, Status.DEPLOYED)
    assert warm.answer(HOST)[1].startswith("version 1 ")
    assert warm.live_version() == "1"
    assert pods <= set(warm.pods())
    gone = record(warm, second.id)
    assert (gone.status, (gone.failure or {})["reason"]) == (Status.FAILURE, "RolledBack")
    assert "rolled back to version 1 by ann" in (gone.failure or {})["message"]


def test_the_version_that_goes_is_retired_and_leaves_nothing(make_world: Any) -> None:
    world: World = make_world(proxysleep=3.0)
    first, _ = two_versions(world)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(first, Status.DEPLOYED)
    world.quiet()
    names = world.names()
    assert (names["replicationcontrollers"], names["services"]) == ({"shop-1"}, {"shop", "shop-1"})
    assert world.answer(HOST)[1].startswith("version 1 ")
    third = world.deployed(**HEALTHY, frontend=HOST)
    assert third.version == "3"


def test_a_version_that_is_gone_is_deployed_as_it_was(make_world: Any) -> None:
    world: World = make_world(proxysleep=0.0)
    first, second = two_versions(world)
    world.quiet()
    assert record(world, first.id).status is Status.UNDEPLOYED
    asked = rollbacks(world).roll_back(world.namespace, "shop")
    assert not asked.warm
    world.ended(asked.deployment, Status.DEPLOYED)
    assert record(world, asked.deployment.id).rollback_of == first.id
    assert world.answer(HOST)[1].startswith("version 1 ")
    world.quiet()
    assert record(world, second.id).status is Status.UNDEPLOYED


def test_what_is_live_and_what_never_was_is_refused(warm: World) -> None:
    first, second = two_versions(warm)
    with pytest.raises(Conflict, match="is live already"):
        rollbacks(warm).roll_back(warm.namespace, "shop", second.id)
    with pytest.raises(NotFound):
        rollbacks(warm).roll_back(warm.namespace, "shop", "00000000-0000-4000-8000-000000000000")
    failed = warm.deploy(**HEALTHY, frontend=HOST, env={"FAIL": "1"})
    warm.ended(failed, Status.FAILURE)
    with pytest.raises(Conflict, match="never live"):
        rollbacks(warm).roll_back(warm.namespace, "shop", failed.id)
    assert record(warm, first.id).status is Status.UNDEPLOYING


def test_two_at_once_are_one(warm: World) -> None:
    first, _ = two_versions(warm)
    rollbacks(warm).roll_back(warm.namespace, "shop")
    with pytest.raises(Conflict):
        rollbacks(warm).roll_back(warm.namespace, "shop", first.id)
    warm.ended(first, Status.DEPLOYED)


def test_a_rollback_survives_a_restart_at_every_write(warm: World) -> None:
    first, _ = two_versions(warm)
    for write in range(1, 6):
        if record(warm, first.id).status is Status.DEPLOYED:
            break
        warm.kill(at=write)
        if write == 1:
            rollbacks(warm).roll_back(warm.namespace, "shop")
        warm.until(lambda: warm.died.is_set() or warm.engine.idle() or None, "the service to die")
        warm.restart()
    warm.ended(first, Status.DEPLOYED)
    assert warm.answer(HOST)[1].startswith("version 1 ")


# --- by itself ----------------------------------------------------------------------------------------------------


def test_a_version_that_crashes_after_the_switch_is_rolled_back(warm: World) -> None:
    first = warm.deployed(**HEALTHY, frontend=HOST)
    second = warm.deployed(**HEALTHY, frontend=HOST, env={"CRASH_AFTER": "2"})
    warm.ended(first, Status.DEPLOYED)
    gone = record(warm, second.id)
    assert (gone.status, (gone.failure or {})["reason"]) == (Status.FAILURE, "RolledBack")
    assert warm.answer(HOST)[1].startswith("version 1 ")
    assert not [o for o in warm.store.find(Operation, tag="open") if o.kind is OperationKind.WATCH]

"""Retention beside real deployments: what runs, runs on, and rollbacks go to what was kept."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.errors import NotFound
from deployer.core.model.records import Deployment, Operation, Status
from deployer.sandbox import Sandbox
from deployer.store.retention import Retention, Rules
from support.world import World

DAY = 86_400.0


def sweep_in_a_year(world: World, least: int) -> tuple[int, int]:
    """As if everything had ended long ago."""
    rules = Rules(age=90 * DAY, least=least)
    return Retention(world.store, rules, clock=lambda: time.time() + 365 * DAY, pause=0.0).sweep()


def test_rollbacks_go_to_what_is_kept_and_say_what_is_not(world: World) -> None:
    first, second, live = (world.deployed(newVersion="#", frontend=None) for _ in range(3))
    world.quiet()
    assert sweep_in_a_year(world, least=1)[0] == 1
    assert {d.id for d in world.store.find(Deployment)} == {second.id, live.id}
    assert {o.deployment for o in world.store.find(Operation)} == {second.id, live.id}

    rollbacks = RollbackCommands(world.service)
    with pytest.raises(NotFound) as refused:
        rollbacks.roll_back(world.namespace, "shop", to=first.id)
    assert "it may have been deleted, by somebody or after its time (history_days, history_limit)" in str(refused.value)
    assert "GET /apps/shop/history lists what is known" in str(refused.value)
    back = rollbacks.roll_back(world.namespace, "shop").deployment
    assert world.ended(back, Status.DEPLOYED).version == "2"
    assert world.live_version() == "2"
    history, _ = world.apps.history(world.namespace, "shop")
    assert [entry["version"] for entry in history] == ["2", "3", "2"]
    # Versions are counted on, whatever is forgotten.
    assert world.deployed(newVersion="#", frontend=None).version == "4"


def test_what_is_warm_stays_so(cluster: Sandbox, tmp_path: Path, namespace: str) -> None:
    world = World(cluster, tmp_path, namespace, keep_warm=600.0).start()
    try:
        old = world.deployed(newVersion="1", frontend=None)
        new = world.deployed(newVersion="2", frontend=None)
        failed = world.ended(world.deploy(newVersion="2", frontend=None), Status.FAILURE)
        assert sweep_in_a_year(world, least=1)[0] == 1
        assert {d.id for d in world.store.find(Deployment)} == {old.id, new.id}
        assert world.store.get(Deployment, failed.id) is None
        back = RollbackCommands(world.service).roll_back(world.namespace, "shop")
        assert back.warm
        assert world.ended(back.deployment.id, Status.DEPLOYED).id == old.id
    finally:
        world.close()

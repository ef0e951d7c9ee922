"""What `/metrics` says of deployments on the sandbox: how long what took, and what waits for whom."""

from __future__ import annotations

import functools
import re

import pytest

from deployer.api.metrics import Metrics
from deployer.cli.figures import STATES, open_operations
from deployer.core.model.records import Event, Status
from deployer.plugin_manager.observers import Observers
from deployer.testing import service
from support.gates import awaited, decide
from support.world import HEALTHY, World

APPROVAL = {"gates": {"beforeSwitch": [{"type": "approval", "name": "g"}]}}


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch, world: World) -> Metrics:
    """What a service counts that is started from here on."""
    metrics = Metrics()
    monkeypatch.setattr(service.Observers, "of", functools.partial(Observers.of, watch=metrics.told))
    return metrics


def parts(metrics: Metrics, figure: str = "count") -> dict[str, float]:
    """By part."""
    name = rf'^deployer_deployment_part_duration_seconds_{figure}{{namespace=".*?",part="(\w+)"}} (\S+)$'
    return {part: float(value) for part, value in re.findall(name, metrics.render().decode(), re.MULTILINE)}


def told(world: World) -> None:
    world.until(lambda: world.store.count(Event) == 0, "everything to be told")


def test_what_waits_for_a_person_says_so_and_its_times_are_right_after_a_restart(
    world: World, metrics: Metrics
) -> None:
    deployment = world.deploy(**APPROVAL, **HEALTHY)
    awaited(world, deployment)
    label = metrics.namespace
    expected = {(world.namespace, state): float(state == "waiting_for_person") for state in STATES}
    assert open_operations(world.store, label) == expected
    world.stop()
    world.start()
    awaited(world, deployment)
    assert open_operations(world.store, label) == expected
    decide(world, deployment, by="otto")
    world.ended(deployment, Status.DEPLOYED)
    told(world)
    assert parts(metrics) == dict.fromkeys(("queue", "start", "verify", "approval", "switch"), 1)
    assert all(seconds > 0 for seconds in parts(metrics, "sum").values())
    assert open_operations(world.store, lambda _: "other") == {}


def test_how_long_the_version_before_drained_is_counted_once_it_is_removed(world: World, metrics: Metrics) -> None:
    world.deployed()
    told(world)
    world.stop()
    world.start()
    world.deployed()
    states = open_operations(world.store, metrics.namespace)
    world.until(lambda: world.store.count(Event) == 0 and "remove" in parts(metrics), "the old version to be removed")
    assert set(states) <= {(world.namespace, state) for state in STATES}
    assert parts(metrics)["drain"] == parts(metrics)["remove"] == 1
    assert parts(metrics, "sum")["drain"] >= world.settings.proxysleep - 0.05

"""How requests fare while traffic moves: counted by whoever confirms the switch, kept with its step, and said."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.records import Deployment, Status
from support.gates import awaited, decide, gated
from support.strategies import Stop, VisitedBlueGreen, restart_with
from support.world import GATEWAY, HEALTHY, NGINX, World

STABLE = {**NGINX, "mode": "stable-service", "version_header": "X-Version"}
SAID = re.compile(r" answers with version \S+ after [\d.]+ s; of (\d+) requests to 1 address while traffic moved, (.*)")


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


def restart(world: World, ingress: str, table: dict[str, Any]) -> World:
    world.stop()
    world.settings = dataclasses.replace(world.settings, ingress=ingress, plugins={f"ingress_{ingress}": table})
    return world.start()


def counted(world: World, id: str) -> dict[str, dict[str, Any]]:
    """What the steps of a deployment that has ended tell of requests."""
    found = world.store.get(Deployment, id)
    assert found is not None
    return {step["id"]: step["requests"] for step in found.steps if "requests" in step}


@pytest.mark.parametrize(
    ("ingress", "table", "step"),
    [
        pytest.param("nginx", NGINX, "confirm-route", id="nginx"),
        pytest.param("nginx", STABLE, "move-service", id="stable-service"),
        pytest.param("gateway", GATEWAY, "confirm-route", id="gateway"),
    ],
)
def test_a_switch_tells_how_many_requests_were_sent_and_lost(
    world: World, host: str, ingress: str, table: dict[str, Any], step: str
) -> None:
    restart(world, ingress, table)
    first = world.deployed(**HEALTHY, frontend=host)
    assert counted(world, first.id) == {}  # nobody served the host before, so nobody's requests could be lost
    assert not SAID.search(world.log(first.id))
    second = world.deployed(**HEALTHY, frontend=host)
    ((where, requests),) = counted(world, second.id).items()
    assert where == step
    assert (requests["lost"], requests["addresses"]) == (0, 1)
    assert requests["asked"] >= 3 and requests["seconds"] > 0
    said = SAID.search(world.log(second.id))
    assert said and said.groups() == (str(requests["asked"]), "none was lost")
    RollbackCommands(world.service).roll_back(world.namespace, "shop", by="ann")
    world.ended(first, Status.DEPLOYED)
    assert set(counted(world, first.id)) == {step}


def test_what_waited_for_a_person_before_the_switch_is_counted(world: World, host: str) -> None:
    world.deployed(**HEALTHY, frontend=host)
    waits = world.deploy(**HEALTHY, frontend=host, **gated("beforeSwitch", type="approval", timeoutSeconds=600))
    awaited(world, waits)
    decide(world, waits)
    world.ended(waits, Status.DEPLOYED)
    assert set(counted(world, waits.id)) == {"confirm-route"}


@pytest.mark.parametrize("point", ["switch-route:after", "confirm-route:before", "confirm-route:after"])
def test_a_switch_that_another_process_goes_on_with_is_not_counted_in_part(world: World, host: str, point: str) -> None:
    stop = Stop(point)
    restart_with(world, VisitedBlueGreen(stop))
    fields: dict[str, Any] = {**HEALTHY, "frontend": host, "deploymentType": "visited"}
    stop.go.set()
    world.deployed(**fields)
    stop.go.clear()
    second = world.deploy(**fields)
    stop.reached()
    world.stop()
    stop.go.set()
    restart_with(world, VisitedBlueGreen(stop))
    world.ended(second, Status.DEPLOYED)
    assert counted(world, second.id) == {}
    third = world.deployed(**fields)
    assert set(counted(world, third.id)) == {"confirm-route"}

"""The strategy `canary` through a real ingress controller: its part of 1,000 requests, and the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.records import Deployment, Status
from deployer.sdk.kube import CONTROLLER, HTTP_ROUTE, INGRESS
from support.real import RealWorld
from support.switching import ADDRESS, TABLES, missing
from support.world import HEALTHY

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=list(TABLES))
def world(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """Version 1 of the shop is live."""
    if why := missing(request.param):
        pytest.skip(why)
    provider, table = TABLES[request.param]
    plugins = {f"ingress_{provider}": {**table, "minimum_hold": 2.0, "propagation_seconds": 3.0}}
    made = RealWorld(None, tmp_path, namespace, ingress=provider, plugins=plugins)
    made.start()
    made.deployed(**HEALTHY, frontend=host(made), replicas=2)
    made.quiet()
    yield made
    made.close()


def host(world: RealWorld) -> str:
    return f"{world.namespace}.example.com"


def versions(world: RealWorld, times: int, **headers: str) -> Counter[str]:
    """Which versions answer, on one connection."""
    found: Counter[str] = Counter()
    connection = HTTPConnection(ADDRESS, timeout=10)
    for _ in range(times):
        connection.request("GET", "/", headers={"Host": host(world), **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        found[text.split()[1] if answer.status == 200 else f"HTTP {answer.status}"] += 1
    connection.close()
    return found


def in_pause(world: RealWorld, deployment: Deployment, line: str) -> None:
    world.until(lambda: line in (log := world.log(deployment.id)) and "next step in" in log, line, 90)


def test_a_canary_gets_its_part_and_everybody_the_old_version_when_it_is_cancelled(world: RealWorld) -> None:
    before = {kind.plural: set(world.objects(kind)) for kind in (INGRESS, HTTP_ROUTE, CONTROLLER)}
    options = {
        "steps": [{"weight": 20, "pause": 600}],
        "match": {"header": "X-Try", "value": "new"},
    }
    deployment = world.deploy(
        **HEALTHY, frontend=host(world), replicas=2, deploymentType="canary", strategyOptions=options
    )
    in_pause(world, deployment, "20 % of the requests and the requests that match")
    got = versions(world, 1000)
    assert abs(got["2"] / 10 - 20) < 3 and set(got) == {"1", "2"}, got
    assert versions(world, 30, **{"X-Try": "new"}) == {"2": 30}
    world.service.undeploy(world.namespace, deployment.id)
    world.until(lambda: "go to version 1 again" in world.log(deployment.id), "the way back", 90)
    assert versions(world, 200) == versions(world, 200, **{"X-Try": "new"}) == {"1": 200}
    world.ended(deployment, Status.UNDEPLOYED)
    world.quiet()
    assert versions(world, 200) == {"1": 200}
    assert {kind.plural: set(world.objects(kind)) for kind in (INGRESS, HTTP_ROUTE, CONTROLLER)} == before


@pytest.mark.parametrize("world", ["nginx versioned"], indirect=True)
def test_a_canary_takes_over_and_loses_nothing(world: RealWorld) -> None:
    options = {"steps": [{"weight": 30, "pause": 1}]}
    deployment = world.deploy(
        **HEALTHY, frontend=host(world), replicas=2, deploymentType="canary", strategyOptions=options
    )
    in_pause(world, deployment, "30 % of the requests")
    found: Counter[str] = Counter()
    while world.service.deployment(world.namespace, deployment.id).status is Status.DEPLOYING:
        found += versions(world, 20)
    world.ended(deployment, Status.DEPLOYED)
    assert set(found) <= {"1", "2"}, found
    world.quiet()
    assert versions(world, 100) == {"2": 100}


def test_nothing_of_a_canary_that_went_live_gets_traffic_after_the_way_back(world: RealWorld) -> None:
    """Its part of the route is there until its predecessor is drained, which is not over when it is rolled back."""
    options = {"steps": [{"weight": 30, "pause": 0.5}], "match": {"header": "X-Try", "value": "new"}}
    fields = {**HEALTHY, "frontend": host(world), "replicas": 2, "keepWarm": 600}
    world.deployed(**fields, deploymentType="canary", strategyOptions=options)
    asked = RollbackCommands(world.service).roll_back(world.namespace, "shop")
    assert asked.warm
    world.ended(asked.deployment, Status.DEPLOYED)
    assert versions(world, 300) == {"1": 300}
    assert versions(world, 30, **{"X-Try": "new"}) == {"1": 30}

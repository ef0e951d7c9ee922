"""The life of an app: first deployment, next ones, failing ones, undeployment."""

from __future__ import annotations

from deployer.core.records import App, HealthData, Status
from support.world import HEALTHY, World


def test_first_second_failing_and_undeployment(world: World) -> None:
    first = world.deployed(**HEALTHY)
    assert world.live_version() == "1"
    second = world.deployed(**HEALTHY)
    assert world.live_version() == "2"
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}
    assert world.ended(first).status is Status.UNDEPLOYED

    third = world.ended(world.deploy(**HEALTHY, image="sample/web:missing"), Status.FAILURE)
    assert third.failure and third.failure["reason"]
    assert world.live_version() == "2"
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}

    data = world.store.get(HealthData, second.id)
    assert data and [entry["value"] for entry in data.entries] == ['{"healthy": true, "version": "2"}']

    world.service.undeploy(world.namespace, second.id)
    world.quiet()
    assert world.ended(second).status is Status.UNDEPLOYED
    assert (world.names(), world.pods()) == ({}, {})
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app and (app.live, app.held, app.highest) == ("", "", 3)

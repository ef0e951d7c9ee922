"""The life of an app: first deployment, next ones, failing ones, undeployment."""

from __future__ import annotations

import dataclasses

import pytest

from deployer.core.model.records import App, Document, HealthData, Status
from deployer.sdk.kube import CONTROLLER, SERVICE, Kind
from support.contract import Contract, Running
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


def test_objects_are_as_the_contract_says(world: World) -> None:
    restart_without_headers(world)
    contract = Contract(world.eyes, world.namespace, routes=True)
    ports = [{"containerPort": 8080}, {"containerPort": 8080, "protocol": "UDP"}, {"containerPort": 81, "name": "http"}]
    first = world.deployed(**HEALTHY, replicas=2, ports=ports, frontend="shop.example.com", env={"APP_NAME": "mine"})
    contract.check(Running(first.descriptor, first.public()))
    second = world.deployed(newVersion="b-2")
    world.quiet()
    contract.check(Running(second.descriptor, second.public()))
    world.service.undeploy(world.namespace, second.id)
    world.quiet()
    contract.nothing_left()


@pytest.mark.parametrize(
    ("kind", "name", "patch", "told"),
    [
        (
            SERVICE,
            "shop",
            {"spec": {"sessionAffinity": "ClientIP"}},
            ".sessionAffinity is 'ClientIP'",
        ),
        (SERVICE, "shop", {"spec": {"selector": {"x": "y"}}}, "Service shop .spec .selector .x is not expected: 'y'"),
        (
            SERVICE,
            "shop-1",
            {"metadata": {"labels": {"app": None}}},
            ".metadata .labels .app is missing",
        ),
        (CONTROLLER, "shop-1", {"spec": {"minReadySeconds": 1}}, ".minReadySeconds is not expected"),
        (CONTROLLER, "shop-1", {"spec": {"replicas": 2}}, "shop-1 .spec .replicas is 2 instead of 1"),
        (CONTROLLER, "shop-1", {"metadata": {"annotations": {"deploymentTs": "2020-01-01T00:00:00Z"}}}, "not after"),
        (SERVICE, "another", {}, "Service another is left over"),
    ],
)
def test_whatever_is_not_as_the_contract_says_is_found(
    world: World, kind: Kind, name: str, patch: Document, told: str
) -> None:
    """The comparison itself, which other tests rely on."""
    first = world.deployed()
    if patch:
        world.eyes.patch(kind, name, patch, world.namespace)
    else:
        spec = {"selector": {"app": "another"}, "ports": [{"port": 80}]}
        body = {"apiVersion": "v1", "kind": kind.kind, "metadata": {"name": name}, "spec": spec}
        world.eyes.create(kind, body, world.namespace)
    with pytest.raises(AssertionError) as caught:
        Contract(world.eyes, world.namespace).check(Running(first.descriptor, first.public()))
    assert told in str(caught.value)


def restart_without_headers(world: World) -> None:
    """No ConfigMap of headers beside the route."""
    world.stop()
    table = {**world.settings.plugins["ingress_nginx"], "revision_header": False, "propagation_seconds": 0.1}
    world.settings = dataclasses.replace(world.settings, plugins={"ingress_nginx": table})
    world.start()


@pytest.mark.parametrize("health", [{}, {**HEALTHY, "ignoreHealthCheck": True}])
def test_an_app_without_any_probe_that_ends_as_it_starts_never_goes_live(world: World, health: Document) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, min_ready=0.5)
    world.start()
    started = world.deployed(**health)
    assert "1 of 1 pods ready" in world.log(started.id)
    deployment = world.ended(world.deploy(image="sample/web:crash", **health), Status.FAILURE)
    assert deployment.failure and deployment.failure["reason"] == "CrashLoop"
    assert world.live_version() == "1"

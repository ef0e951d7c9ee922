"""An app that the original deployer exposed is taken over with its Ingress."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

from deployer.core import CONTROLLER, INGRESS, SERVICE
from deployer.core.hookspecs import ENTRY_POINT_GROUP
from deployer.core.records import Document, Status
from deployer.sandbox import Load
from support import late
from support.world import HEALTHY, World

STAYS = {"app": "shop", "name": "shop", "persistent": "true"}


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


@pytest.fixture
def load(world: World, host: str) -> Load:
    """Version 41 of the original is live, and under load."""
    world.stop()
    world.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    world.start()
    labels = {"name": "shop-41", "app": "shop", "version": "41"}
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    container = {"name": "web", "image": world.image, "env": [{"name": "APP_VERSION", "value": "41"}]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    template = {"metadata": {"labels": labels}, "spec": spec}
    selector = {"app": "shop", "version": "41"}
    backend = {"service": {"name": "shop-41", "port": {"number": 8080}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    bodies: list[tuple[Any, str, dict[str, str], Document]] = [
        (CONTROLLER, "shop-41", labels, {"replicas": 1, "selector": labels, "template": template}),
        (SERVICE, "shop-41", labels, {"selector": labels, "ports": ports}),
        (SERVICE, "shop", STAYS, {"selector": selector, "ports": ports}),
        (INGRESS, "shop", STAYS, {"ingressClassName": "nginx", "rules": [rule]}),
    ]
    for kind, name, own, body in bodies:
        made = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, "labels": own}}
        world.eyes.create(kind, {**made, "spec": body}, world.namespace)
    running = Load(world.cluster.ingress, host=host, rate=100).start()
    running.wait_for(lambda report: report.by_version.get("41", 0) > 0, 30)
    return running


def led_to(world: World) -> str:
    (rule,) = world.objects(INGRESS)["shop"]["spec"]["rules"]
    return str(rule["http"]["paths"][0]["backend"]["service"]["name"])


def test_it_is_switched_without_a_loss_and_ours_from_then_on(world: World, load: Load, host: str) -> None:
    before = load.wait_for(lambda report: True, 1).failed
    made = world.deployed(**HEALTHY, frontend=host)
    assert made.version == "42"
    report = load.wait_for(lambda report: report.by_version.get("42", 0) > 20, 20)
    assert load.stop().failed == before == report.failed
    world.quiet()
    assert world.names()["ingresses"] == {"shop"} and led_to(world) == "shop-42"
    assert world.names()["replicationcontrollers"] == {"shop-42"}
    world.service.undeploy(world.namespace, made.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_a_late_failure_leads_back_to_it(world: World, load: Load, host: str) -> None:
    before = load.wait_for(lambda report: True, 1).failed
    fails: dict[str, Any] = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}
    world.ended(world.deploy(**HEALTHY, frontend=host, **fails), Status.FAILURE)
    world.quiet()
    assert load.stop().failed == before
    assert (led_to(world), world.live_version()) == ("shop-41", "41")
    assert world.deployed(**HEALTHY, frontend=host).version == "43"


def test_its_ingress_goes_with_it_when_there_is_no_frontend_any_more(world: World, load: Load) -> None:
    load.stop()
    world.deployed(**HEALTHY)
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-42"}, "services": {"shop", "shop-42"}}

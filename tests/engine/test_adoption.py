"""An app that the original deployer exposed is taken over with its Ingresses, and nobody else's are."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

from deployer.core.model.records import Status
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.sandbox import Load
from deployer.sdk.kube import INGRESS
from support import late, originals
from support.world import HEALTHY, World

GZIP = {"affinity": "cookie", "configuration_snippet": "gzip on;\ngzip_comp_level 5;\n"}


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


@pytest.fixture
def load(world: World, host: str) -> Load:
    """Version 41 of the original is live, and under load."""
    world.stop()
    world.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    world.start()
    originals.leave(world.eyes, world.namespace, host, world.image, www=True, **GZIP)
    running = Load(world.cluster.ingress, host=host, rate=100).start()
    running.wait_for(lambda report: report.by_version.get("41", 0) > 0, 30)
    return running


def led_to(world: World) -> str:
    (rule,) = world.objects(INGRESS)["shop"]["spec"]["rules"]
    return str(rule["http"]["paths"][0]["backend"]["service"]["name"])


@pytest.mark.parametrize("redirect", [False, True])
def test_it_is_switched_without_a_loss_and_ours_from_then_on(
    world: World, load: Load, host: str, redirect: bool
) -> None:
    before = load.wait_for(lambda report: True, 1).failed
    made = world.deployed(**HEALTHY, frontend=host, redirectWww=redirect)
    assert made.version == "42"
    report = load.wait_for(lambda report: report.by_version.get("42", 0) > 20, 20)
    assert load.stop().failed == before == report.failed
    world.quiet()
    assert world.names()["ingresses"] == {"shop"} and led_to(world) == "shop-42"
    found = world.objects(INGRESS)["shop"]
    assert found["spec"]["tls"] == [{"hosts": [host], "secretName": "shop-tls"}]
    assert found["spec"]["ingressClassName"] == "nginx"
    notes = found["metadata"]["annotations"]
    assert [key for key in notes if key.startswith(("ingress.", "kubernetes.io/"))] == []
    assert notes.get("nginx.ingress.kubernetes.io/from-to-www-redirect") == ("true" if redirect else None)
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
    # What it had, TLS and the redirect of www., is there, in the words of today.
    (found,) = world.objects(INGRESS).values()
    assert found["spec"]["tls"] == [{"hosts": [host], "secretName": "shop-tls"}]
    assert found["metadata"]["annotations"]["nginx.ingress.kubernetes.io/from-to-www-redirect"] == "true"
    assert world.deployed(**HEALTHY, frontend=host).version == "43"


def test_its_ingress_goes_with_it_when_there_is_no_frontend_any_more(world: World, load: Load) -> None:
    load.stop()
    world.deployed(**HEALTHY)
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-42"}, "services": {"shop", "shop-42"}}


def test_one_that_merely_looks_like_it_stops_the_deployment_and_stays(world: World, host: str) -> None:
    originals.leave(world.eyes, world.namespace, host, world.image)
    found = world.objects(INGRESS)["shop"]
    found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "other-1"
    world.eyes.replace(INGRESS, "shop", found, world.namespace)
    failed = world.ended(world.deploy(frontend=host), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "ForeignObject"
    assert world.objects(INGRESS)["shop"]["spec"] == found["spec"]
    assert world.live_version() == "41"

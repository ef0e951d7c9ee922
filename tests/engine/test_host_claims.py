"""Hosts that objects of a kind have which only the ingress provider knows: who has one is found before the switch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer import sandbox
from deployer.core.model.kind import NAMESPACE, Kind
from deployer.core.model.records import Deployment, Status
from deployer.sdk.ingress import RouteClaim
from deployer.sdk.plugin import Document
from support.ingressroutes import IngressRoutes, defined, route
from support.world import World


@pytest.fixture
def plugin() -> IngressRoutes:
    """The provider; its kind is known once the world is there."""
    return IngressRoutes(Kind("", "", "", ""))


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, plugin: IngressRoutes) -> Iterator[World]:
    made = World(cluster, tmp_path, namespace, ingress="ingressroutes", plugins={})
    made.providers = [plugin]
    with defined(made.eyes, f"{namespace}.example") as kind:
        plugin.kind = kind
        made.start()
        yield made
        made.close()


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


def refused(world: World, deployment: Deployment) -> Document:
    """The failure; nothing of the deployment is left."""
    failed = world.ended(deployment, Status.FAILURE)
    world.quiet()
    assert world.names() == {}
    return failed.failure or {}


def test_another_ones_object_of_the_providers_kind_stops_the_deployment(
    world: World, plugin: IngressRoutes, host: str
) -> None:
    elsewhere = f"{world.namespace}-other"
    space = world.eyes.create(NAMESPACE, {"metadata": {"name": elsewhere}})
    theirs = world.eyes.create(plugin.kind, route(plugin.kind, "theirs", host, "web"), elsewhere)
    failure = refused(world, world.deploy(frontend=host))
    assert failure["reason"] == "HostTaken"
    assert failure["message"].startswith(f"{host} is already served by IngressRoute theirs in namespace {elsewhere}, ")
    # Of another host it is nobody's business, nor is the app's own, and a second deployment goes the same way.
    theirs["spec"]["routes"][0]["match"] = "Host(`other.example.com`)"
    world.eyes.replace(plugin.kind, "theirs", theirs, elsewhere)
    for service in ("shop-2", "shop-3"):
        world.deployed(frontend=host)
        (rule,) = world.eyes.get(plugin.kind, "shop", world.namespace)["spec"]["routes"]
        assert rule["services"] == [{"name": service, "port": 8080}]
    world.quiet()
    world.eyes.delete(NAMESPACE, elsewhere, uid=space["metadata"]["uid"])


def test_many_others_are_named_in_one_short_sentence(world: World, plugin: IngressRoutes, host: str) -> None:
    for number in range(6):
        world.eyes.create(plugin.kind, route(plugin.kind, f"theirs-{number}", host, "web"), world.namespace)
    message = refused(world, world.deploy(frontend=host))["message"]
    assert message.count("IngressRoute ") == 3 and " and 3 more, which " in message


def test_a_provider_that_is_wrong_about_hosts_fails_the_deployment_by_name(
    world: World, plugin: IngressRoutes, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IngressRoutes, "host_claims", lambda self, kube: kube.nothing)
    failure = refused(world, world.deploy(frontend=host))
    words = "ingress provider ingressroutes raised AttributeError in host_claims(); the service's log has the details"
    assert (failure["reason"], failure["message"]) == ("StepFailed", words)


def test_a_kind_that_the_cluster_does_not_know_is_in_nobodys_way(
    world: World, plugin: IngressRoutes, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Kind("missing.example", "v1", "ingressroutes", "IngressRoute")
    monkeypatch.setattr(
        IngressRoutes,
        "host_claims",
        lambda self, kube: [RouteClaim(o, ["x"]) for o in kube.visible(missing)],
    )
    world.deployed(frontend=host)

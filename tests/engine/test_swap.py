"""Another ingress provider in the settings: the next deployment takes the host over, and back, and loses nothing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Collection
from typing import Any

import pytest

from deployer.core.model.kind import HTTP_ROUTE
from deployer.core.model.records import Status
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.sandbox import Load
from deployer.sdk.kube import CONFIG_MAP, INGRESS, SERVICE
from support import late, originals
from support.original_import import bring
from support.original_records import Records, deployment, descriptor
from support.world import GATEWAY, HEALTHY, NGINX, World

TABLES = {"ingress_nginx": NGINX, "ingress_gateway": GATEWAY}
KINDS = {"nginx": INGRESS, "gateway": HTTP_ROUTE}
STABLE = {**NGINX, "mode": "stable-service", "version_header": "X-Version", "propagation_seconds": 0.5}
WAYS = [("nginx", "gateway"), ("gateway", "nginx")]
HEADERS = [{"Header": "X-Frame-Options", "Value": "DENY"}]


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


def use(world: World, provider: str, *, without: Collection[str] = (), tables: Any = None) -> World:
    """Restart the service with that provider in its settings, and `without` these plugins."""
    world.stop()
    found = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    world.entry_points = [*(point for point in found if point.name not in without), late.ENTRY_POINT]
    given = {name: table for name, table in (tables or TABLES).items() if name not in without}
    world.settings = dataclasses.replace(world.settings, ingress=provider, plugins=given)
    return world.start()


def routes(world: World) -> dict[str, list[str]]:
    """Names of the objects that route, by provider."""
    found = {provider: sorted(world.objects(kind)) for provider, kind in KINDS.items()}
    return {provider: names for provider, names in found.items() if names}


def loaded(world: World, host: str, version: str) -> Load:
    """Constant load, once `version` answers."""
    load = Load(world.cluster.ingress, host=host, rate=100).start()
    load.wait_for(lambda report: report.by_version.get(version, 0) > 0, 20)
    return load


def lost_nothing(load: Load, version: str, *versions: str) -> None:
    report = load.wait_for(lambda report: report.by_version.get(version, 0) > 20, 20)
    load.stop()
    assert (report.failed, report.failures, set(report.by_version)) == (0, {}, {version, *versions})


@pytest.mark.parametrize("imported", [False, True])
def test_what_the_original_exposed_is_taken_over_by_routes_of_another_kind(
    world: World, host: str, imported: bool
) -> None:
    use(world, "gateway")
    originals.leave(world.eyes, world.namespace, host, world.image, version="1", www=True, deployment="d1")
    if imported:
        world.stop()
        of = descriptor(world.namespace, image=world.image, frontend=host, redirectWww=True)
        bring(world, Records().deployment(deployment("d1", "1", "DEPLOYED", of)))
        world.start()
    load = loaded(world, host, "1")
    before = load.wait_for(lambda report: True, 1).failed  # as it was not there from the start
    second = world.deployed(**HEALTHY, frontend=host)
    assert f"removed the route of ingress provider nginx for {host}" in world.log(second.id)
    world.quiet()
    assert routes(world) == {"gateway": ["shop"]}
    report = load.stop()
    assert (report.failed, set(report.by_version)) == (before, {"1", "2"})


def test_a_failure_gives_it_back_as_it_was_led_before(world: World, host: str) -> None:
    use(world, "gateway")
    originals.leave(world.eyes, world.namespace, host, world.image, version="1", www=True)
    load = loaded(world, host, "1")
    before = load.wait_for(lambda report: True, 1).failed
    fails: dict[str, Any] = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}
    world.ended(world.deploy(**HEALTHY, frontend=host, **fails), Status.FAILURE)
    world.quiet()
    assert routes(world) == {"nginx": ["shop"]}
    found = world.objects(INGRESS)["shop"]
    assert found["spec"]["tls"] == [{"hosts": [host], "secretName": "shop-tls"}]
    assert found["metadata"]["annotations"]["nginx.ingress.kubernetes.io/from-to-www-redirect"] == "true"
    assert load.stop().failed == before


@pytest.mark.parametrize(("before", "after"), WAYS)
def test_the_next_deployment_takes_the_host_over(world: World, host: str, before: str, after: str) -> None:
    use(world, before)
    world.deployed(**HEALTHY, frontend=host, additionHttpHeaders=HEADERS)
    world.quiet()
    load = loaded(world, host, "1")
    use(world, after)
    second = world.deployed(**HEALTHY, frontend=host, additionHttpHeaders=HEADERS)
    log = world.log(second.id)
    for line in (
        f"ingress provider {after} will take over from {before}",
        f"removed the route of ingress provider {before} for {host}",
        f"{host} answers with version 2 after",
    ):
        assert line in log
    assert before not in routes(world)
    world.quiet()
    assert routes(world) == {after: ["shop"]}
    assert world.objects(HTTP_ROUTE).get("shop", {}).get("spec", {}).get("hostnames", [host]) == [host]
    assert len(world.objects(CONFIG_MAP)) == (after == "nginx")
    world.deployed(**HEALTHY, frontend=host)  # and the one after that is like any other
    world.quiet()
    lost_nothing(load, "3", "1", "2")
    world.service.delete_deployments(world.namespace, "shop", undeploy=True)
    world.quiet()
    assert (routes(world), world.names(), world.pods()) == ({}, {}, {})


@pytest.mark.parametrize(("before", "after"), WAYS)
def test_whatever_fails_afterwards_gives_it_back(world: World, host: str, before: str, after: str) -> None:
    use(world, before)
    world.deployed(**HEALTHY, frontend=host, additionHttpHeaders=HEADERS, redirectWww=True)
    world.quiet()
    names, was = routes(world), {n: o["spec"] for n, o in world.objects(KINDS[before]).items()}
    load = loaded(world, host, "1")
    use(world, after)
    failed = world.ended(
        world.deploy(**HEALTHY, frontend=host, deploymentType="late", strategyOptions={"end": "fails"}), Status.FAILURE
    )
    log = world.log(failed.id)
    assert f"putting back the route of ingress provider {before} for {host}" in log
    assert f"moving {host} back to version 1, and to ingress provider {before}" in log
    world.quiet()
    assert routes(world) == names
    assert {n: o["spec"] for n, o in world.objects(KINDS[before]).items()} == was
    assert world.live_version() == "1"
    lost_nothing(load, "1", "2")
    use(world, before)  # as if nothing had happened
    third = world.deployed(**HEALTHY, frontend=host)
    assert "take over" not in world.log(third.id)


@pytest.mark.parametrize(("before", "after"), WAYS)
def test_a_deployment_that_fails_before_the_switch_takes_nothing(
    world: World, host: str, before: str, after: str
) -> None:
    use(world, before)
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    names, was = routes(world), world.objects(KINDS[before])
    world.settings = dataclasses.replace(world.settings, timeout=0.5)
    use(world, after)
    world.ended(world.deploy(**HEALTHY, frontend=host, env={"FAIL": "1"}), Status.FAILURE)
    assert routes(world) == names
    assert world.objects(KINDS[before])["shop"]["spec"] == was["shop"]["spec"]


def test_from_a_stable_service_to_the_gateway_and_back(world: World, host: str) -> None:
    stable = {**TABLES, "ingress_nginx": STABLE}
    use(world, "nginx", tables=stable)
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    load = loaded(world, host, "1")
    use(world, "gateway", tables=stable)
    world.deployed(**HEALTHY, frontend=host)
    assert routes(world) == {"gateway": ["shop"]}
    fields = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}
    use(world, "nginx", tables=stable)
    world.ended(world.deploy(**HEALTHY, frontend=host, **fields), Status.FAILURE)
    assert routes(world) == {"gateway": ["shop"]}
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    assert routes(world) == {"nginx": ["shop"]}
    lost_nothing(load, "4", "1", "2", "3")


def test_the_frontend_may_change_at_the_same_time(world: World, host: str) -> None:
    use(world, "nginx")
    world.deployed(**HEALTHY, frontend=host)
    use(world, "gateway")
    failing = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}
    world.ended(world.deploy(**HEALTHY, frontend=f"new.{host}", **failing), Status.FAILURE)
    assert world.objects(INGRESS)["shop"]["spec"]["rules"][0]["host"] == host
    world.deployed(**HEALTHY, frontend=f"new.{host}")
    world.quiet()
    assert routes(world) == {"gateway": ["shop"]}
    assert world.objects(HTTP_ROUTE)["shop"]["spec"]["hostnames"] == [f"new.{host}"]


@pytest.mark.parametrize("provider", ["nginx", "gateway"])
def test_none_takes_the_route_away_and_a_provider_brings_one_again(world: World, host: str, provider: str) -> None:
    use(world, provider)
    world.deployed(**HEALTHY, frontend=host)
    use(world, "none")
    second = world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    assert f"no ingress provider is configured: {host} is not routed anywhere" in world.log(second.id)
    assert (routes(world), world.live_version()) == ({}, "2")
    use(world, provider)
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    assert routes(world) == {provider: ["shop"]}


@pytest.mark.parametrize("new", ["gateway", "none"])
def test_without_the_old_provider_nothing_is_begun(world: World, host: str, new: str) -> None:
    use(world, "nginx")
    first = world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    use(world, new, without=["ingress_nginx"])
    failed = world.ended(world.deploy(**HEALTHY, frontend=host), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "ProviderGone"
    assert "routed to version 1 by ingress provider nginx, which is not there any more" in failed.failure["message"]
    assert "ingress_nginx" in failed.failure["hint"]
    assert (routes(world), world.live_version()) == ({"nginx": ["shop"]}, "1")
    use(world, new)
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    assert world.ended(first).status is Status.UNDEPLOYED
    assert routes(world) == ({} if new == "none" else {new: ["shop"]})


def test_an_old_provider_that_goes_on_the_way_is_waited_for(world: World, host: str) -> None:
    """Its route is gone by then, and only it can put it back: everything stays as it is until it is there again."""
    use(world, "nginx")
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    load = loaded(world, host, "1")
    use(world, "gateway")
    waiting = world.deploy(**HEALTHY, frontend=host, deploymentType="late", strategyOptions={"end": "waits"})
    world.until(lambda: late.WAITING in world.log(waiting.id), "the last step")
    use(world, "gateway", without=["ingress_nginx"])
    world.service.undeploy(world.namespace, waiting.id)
    said = "ingress provider nginx, which led"
    world.until(lambda: said in world.log(waiting.id), "the hold")
    assert routes(world)["gateway"] == ["shop"]
    assert world.objects(SERVICE).keys() >= {"shop-1", "shop-2"}
    use(world, "gateway")
    assert world.ended(waiting).status is Status.UNDEPLOYED
    world.quiet()
    assert (routes(world), world.live_version()) == ({"nginx": ["shop"]}, "1")
    lost_nothing(load, "1", "2")


def test_nobody_relies_on_who_wins_while_both_are_there(world: World, host: str) -> None:
    """The private host tells that a route is loaded, also when the other one's answers under the public host."""
    use(world, "gateway")
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    use(world, "nginx")
    waiting = world.deploy(**HEALTHY, frontend=host, deploymentType="late", strategyOptions={"end": "waits"})
    world.until(lambda: late.WAITING in world.log(waiting.id), "the last step")
    rules = world.objects(INGRESS)["shop"]["spec"]["rules"]
    assert [rule["host"].rpartition(".")[2] for rule in rules] == ["com", "invalid"]
    world.service.undeploy(world.namespace, waiting.id)
    assert world.ended(waiting).status is Status.UNDEPLOYED
    world.deployed(**HEALTHY, frontend=host)
    world.quiet()
    (rule,) = world.objects(INGRESS)["shop"]["spec"]["rules"]
    assert rule["host"] == host

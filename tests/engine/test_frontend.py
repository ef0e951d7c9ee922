"""What a host leads to: which port and path, what is found out about it before the switch, and what is said."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import pytest

from deployer.core.model.records import Plan, Status
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.sdk.kube import CONFIG_MAP, HTTP_ROUTE, INGRESS
from deployer.sdk.strategy import AwaitReady, Done, MoveService, Outcome, Phase, StartWorkload, Step, Work
from support import late
from support.strategies import Steps, VisitedBlueGreen, restart_with
from support.world import GATEWAY, HEALTHY, NGINX, World

PORTS = [{"containerPort": 5778, "name": "admin"}, {"containerPort": 8080, "name": "ui"}]
"""Nothing listens on the first."""


def restart(world: World, table: Mapping[str, Any] | None = None, **settings: Any) -> None:
    """With other settings."""
    world.stop()
    plugins = {"ingress_nginx": NGINX if table is None else table}
    world.settings = dataclasses.replace(world.settings, plugins=plugins, **settings)
    world.start()


def test_a_port_on_which_nothing_listens_is_named_with_the_way_out(world: World) -> None:
    restart(world, expose_timeout=4.0)
    host = f"{world.namespace}.example.com"
    first = world.deployed(frontend=host, ports=PORTS, frontendPort="ui")
    assert f"{host} will route to port 8080 (ui) of version 1, whose pods answer / with HTTP 200" in world.log(first.id)
    failed = world.ended(world.deploy(frontend=host, ports=PORTS), Status.FAILURE)
    assert failed.failure == {
        "reason": "RouteNotConfirmed",
        "message": f"nothing answers on port 5778 (admin) of the version's pods, the port for {host}",
        "hint": "if the app listens on another port, choose that with frontendPort (8080 (ui)); if on this one, let it "
        "listen on all addresses, not only on 127.0.0.1",
    }
    assert "not confirmed yet: nothing answers on port 5778 of the version's pods" in world.log(failed.id)
    world.quiet()
    rules = world.objects(INGRESS)["shop"]["spec"]["rules"]
    assert [rule["http"]["paths"][0]["backend"]["service"]["name"] for rule in rules] == ["shop-1"]
    assert world.names()["ingresses"] == {"shop"}
    assert len(world.objects(CONFIG_MAP)) == 1


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_an_app_that_answers_503_itself_is_deployed(world: World, live: bool, header: bool) -> None:
    """Because of the revision, and without one because its pods were asked."""
    restart(world, {**NGINX, "revision_header": header, "propagation_seconds": 0.2})
    host = f"{world.namespace}.example.com"
    fields: dict[str, Any] = {"frontend": host, "ports": [{"containerPort": 9999}], "frontendPath": "simple"}
    if live:
        world.deployed(**fields)
    made = world.deployed(**fields, env={"FAIL": "1"})
    log = world.log(made.id)
    assert f"of version {made.version}, whose pods answer /simple with HTTP 503" in log
    confirmed = f"{host} answers with version {made.version} after"
    waited = f"{host} should answer with version {made.version} now: waited"
    assert (confirmed in log, waited in log) == (header, not header)


def test_nobody_says_that_a_version_answers_when_nothing_could_be_asked(world: World) -> None:
    restart(world, {"propagation_seconds": 0.2})
    host = f"{world.namespace}.example.com"
    log = world.log(world.deployed(frontend=host).id)
    assert f"{host} answers with version" not in log
    assert f"{host}: waiting 0.2 s for the route to version 1, as nothing can be asked: no addresses of the" in log
    assert "no response header names the version (set revision_header in [plugins.ingress_nginx])" in log
    assert f"{host} should answer with version 1 now: waited 0.2" in log


# --- what is warmed up --------------------------------------------------------------------------------------------

HEADERS = [{"Header": "X-Frame-Options", "Value": "DENY"}]
CHANGES: Mapping[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "only the version": ({}, {}, False),
    "the same headers": ({}, {"additionHttpHeaders": HEADERS}, False),
    "the setting": ({"warm_up": "always"}, {}, True),
    "other headers": ({}, {"additionHttpHeaders": [{**HEADERS[0], "Value": "SAMEORIGIN"}]}, True),
    "an option": ({}, {"ingressOptions": {"proxy-body-size": "8m"}}, True),
    "the port": ({}, {"frontendPort": 9999}, True),
    "the protocol": ({}, {"ingressOptions": {"backend-protocol": "GRPC"}}, True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_warm_up_comes_first_when_more_than_the_version_changes(world: World, change: str) -> None:
    table, fields, expected = CHANGES[change]
    restart(world, {**NGINX, **table})
    seen: dict[str, set[str]] = {}

    def visit(work: Work, at: str) -> None:
        if work.plan.version == "2":
            kinds = (INGRESS, CONFIG_MAP)
            seen[at] = {f"{kind.kind} {name}" for kind in kinds for name in world.objects(kind)}

    restart_with(world, VisitedBlueGreen(visit))
    ports = [{"containerPort": 8080}, {"containerPort": 9999}]
    common: dict[str, Any] = {"deploymentType": "visited", "frontend": f"{world.namespace}.example.com", "ports": ports}
    same = {"additionHttpHeaders": HEADERS} if change.endswith("headers") else {}
    world.deployed(**common, **same)
    world.quiet()
    world.deployed(**common, **fields)
    warmed = {name.split(".")[1] for name in seen["prepare-route:after"] if name.startswith("Ingress shop.")}
    assert warmed == ({"warm-up"} if expected else set())
    # The headers come early, so that the controller knows them by then; they cost it nothing.
    assert len([name for name in seen["await-ready:before"] if name.startswith("ConfigMap ")]) == 2
    world.quiet()
    rules = world.objects(INGRESS)["shop"]["spec"]["rules"]
    assert [rule["http"]["paths"][0]["backend"]["service"]["name"] for rule in rules] == ["shop-2"]
    assert len(world.objects(CONFIG_MAP)) == 1


def test_a_version_that_fails_before_the_switch_costs_the_data_plane_nothing(world: World) -> None:
    """No Ingress of it is ever seen."""
    fields: dict[str, Any] = {**HEALTHY, "frontend": f"{world.namespace}.example.com"}
    world.deployed(**fields)
    world.quiet()
    before = {name: made["metadata"]["generation"] for name, made in world.objects(INGRESS).items()}
    world.stop()
    world.settings = dataclasses.replace(world.settings, timeout=1.0)
    world.start()
    world.ended(world.deploy(**fields, env={"FAIL": "1"}), Status.FAILURE)
    world.quiet()
    after = {name: made["metadata"]["generation"] for name, made in world.objects(INGRESS).items()}
    assert after == before
    assert len(world.objects(CONFIG_MAP)) == 1


def test_a_plan_of_an_earlier_release_leads_to_the_root(world: World) -> None:
    made = world.deployed(frontend=f"{world.namespace}.example.com")
    plan = world.store.get(Plan, made.id)
    assert plan is not None and plan.route is not None
    document = plan.to_document()
    del document["route"]["path"]
    earlier = Plan.from_document(document, revision=plan.revision, sequence=plan.sequence)
    assert earlier == plan
    assert earlier.route is not None and earlier.route.path == "/"


def test_the_gateway_needs_no_preview_when_only_the_version_changes(world: World) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, ingress="gateway", plugins={"ingress_gateway": GATEWAY})
    world.start()
    rules: dict[str, int] = {}

    def visit(work: Work, at: str) -> None:
        rules[f"{work.plan.version} {at}"] = sum(len(r["spec"]["rules"]) for r in world.objects(HTTP_ROUTE).values())

    restart_with(world, VisitedBlueGreen(visit))
    common: dict[str, Any] = {"deploymentType": "visited", "frontend": f"{world.namespace}.example.com"}
    for more in ({}, {}, {"additionHttpHeaders": HEADERS}):
        world.deployed(**common, **more)
        world.quiet()
    assert [rules[f"{version} prepare-route:after"] for version in "123"] == [1, 1, 2]


@pytest.mark.parametrize("header", [True, False])
def test_the_way_back_ends_whatever_the_version_answers_that_was_there_before(world: World, header: bool) -> None:
    world.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    restart(world, {**NGINX, "revision_header": header, "propagation_seconds": 0.2})
    host = f"{world.namespace}.example.com"
    fields: dict[str, Any] = {"frontend": host, "ports": [{"containerPort": 9999}], "frontendPath": "/simple"}
    first = world.deployed(**fields, env={"FAIL": "1"})
    failing = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}
    failed = world.ended(world.deploy(**fields, **failing), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "Late"
    log = world.log(failed.id)
    assert f"moving {host} back to version 1" in log
    assert "undoing" not in log
    world.quiet()
    assert world.live_version() == first.version


class OwnSwitch(Step):
    """What `SwitchRoute` does, in a stranger's words."""

    id = "own-switch"
    phase = Phase.EXPOSE
    disturbs = exposes = True
    fulfils = ("route",)

    def run(self, work: Work) -> Outcome:
        assert work.ingress
        work.ingress.switch(work.route())
        return Done()


def test_a_strategy_that_would_leave_the_host_where_it_is_is_refused_before_anything_starts(
    world: World,
) -> None:
    host = f"{world.namespace}.example.com"
    hostless = Steps("hostless", lambda plan: [StartWorkload(), AwaitReady(), MoveService()])
    own = Steps("own", lambda plan: [StartWorkload(), AwaitReady(), OwnSwitch(), MoveService()])
    restart_with(world, hostless, own)
    failed = world.ended(world.deploy(frontend=host, deploymentType="hostless"), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "BadStrategy"
    assert f"strategy hostless has no step that leads {host} to the new version" in failed.failure["message"]
    failed = world.ended(world.deploy(**HEALTHY, deploymentType="hostless"), Status.FAILURE)
    assert failed.failure and "asks health checker probe" in failed.failure["message"]
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})
    world.deployed(deploymentType="hostless")
    world.deployed(frontend=host, deploymentType="own")
    world.quiet()
    assert world.live_version() == "2"

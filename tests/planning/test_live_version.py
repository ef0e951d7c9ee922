"""What counts as live, for every combination of what store, Service, controller and route say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import RouteState
from deployer.core.errors import StepFailed
from deployer.core.model.plan import Backend, ProviderRef, Route, Workload
from deployer.core.model.records import App, Plan
from deployer.planning.live_version import LiveVersion, LiveVersions
from deployer.planning.versions import Running, Selection

NAMESPACE = "shops"
HERE = ("", "1", "2")
"""What Service or route say: nothing is there, or they go to that version. The store's live version is 1."""

ALL = list(itertools.product(HERE, (True, False), HERE, (True, False)))


def find(service: str, runs: bool, route: str, *, live: str, routed: bool, original: bool) -> LiveVersion | None:
    """Ask about a cluster like that. `routed`: the plan of version 1 had a route."""
    said: list[str] = []
    versions = SimpleNamespace(
        selection=lambda *_: Selection(service, original, {"kind": "Service"}) if service else None,
        running=lambda *_: Running(3, original) if runs else None,
    )
    provider = SimpleNamespace(
        name="door",
        state=lambda _: RouteState((Backend(f"shop-{route}", 80),), "shop.example") if route else None,
    )
    registry = SimpleNamespace(
        ingress_providers={"door": None},
        ref=lambda _, name: {"name": name, "source": "tests", "version": "1"},
    )
    plan = None
    if live:
        way = Route(
            namespace=NAMESPACE, app="shop", host="h", version="1", deployment="a", backend=Backend("shop-1", 80)
        )
        plan = Plan(
            namespace=NAMESPACE,
            app="shop",
            deployment="a",
            version="1",
            ingress=ProviderRef("door", "tests", "1"),
            route=way if routed else None,
            objects=Workload(service={"kind": "Service"}),
        )
    app = App(namespace=NAMESPACE, app="shop", live="a" if live else "", live_version=live)
    asked: Mapping[str, Any] = {"registry": registry, "versions": versions, "kube": None}
    return LiveVersions(**asked, log=said.append, scope=CancelScope()).find(app, plan, cast(Any, provider))


@pytest.mark.parametrize(("service", "runs", "route", "routed"), ALL)
def test_with_a_live_version_in_the_store(service: str, runs: bool, route: str, routed: bool) -> None:
    agree = service == "1" and route in (("1",) if routed else ("", "1"))
    gone = not (service or runs or route)
    try:
        found = find(service, runs, route, live="1", routed=routed, original=False)
    except StepFailed as error:
        assert not agree and not gone
        assert error.reason == "StoreDisagrees" and "version 1 was deployed last" in str(error)
        # No hint ends what serves, or goes back to what is not there.
        assert ("undeploy version 1" in error.hint) <= ("1" not in (service, route))
        assert ("go to version 1 again" in error.hint) == runs
        return
    if gone:
        assert found is None
        return
    assert agree and found is not None
    assert (found.deployment, found.version) == ("a", "1")
    pinned = found.pinned()
    assert (pinned.service, pinned.controller) == ("shop-1", "shop-1" if runs else "")
    assert pinned.original_route is None


@pytest.mark.parametrize(("service", "runs", "route", "original"), ALL)
def test_without_one_only_what_the_original_made_is_taken_over(
    service: str, runs: bool, route: str, original: bool
) -> None:
    if service and not original:
        with pytest.raises(StepFailed, match="knows of no live version"):
            find(service, runs, route, live="", routed=False, original=original)
        return
    found = find(service, runs, route, live="", routed=False, original=original)
    if not service:
        assert found is None
        return
    assert found is not None and (found.deployment, found.version, found.plan) == ("", service, None)
    pinned = found.pinned()
    assert pinned.service_object == {"kind": "Service"}
    assert (pinned.original_route.backend.service if pinned.original_route else "") == (
        f"shop-{route}" if route else ""
    )

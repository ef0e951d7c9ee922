"""Another ingress provider in the settings, under load through a real controller that serves both."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core.hookspecs import ENTRY_POINT_GROUP
from deployer.core.kube.client import KubeClient
from deployer.core.kube.kinds import HTTP_ROUTE, INGRESS
from deployer.core.records import Status
from support import late
from support.real import RealWorld
from support.switching import ADDRESS, TABLES, driving, missing, site
from support.traffic import KINDS, Traffic
from support.world import HEALTHY

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

HOLD = 8.0
"""Seconds for which an old version stays: longer than a download takes."""

FAILS = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}


@pytest.fixture(autouse=True)
def controller() -> None:
    """Both providers must be served."""
    for mode in TABLES:
        if os.environ.get("KUBECONFIG") and (why := missing(mode)):
            pytest.skip(why)


def routes(eyes: KubeClient, namespace: str) -> dict[str, set[str]]:
    found = {kind: {o["metadata"]["name"] for o in eyes.list(kind, namespace)[0]} for kind in (INGRESS, HTTP_ROUTE)}
    return {kind.kind: names for kind, names in found.items() if names}


@pytest.mark.parametrize("mode", ["nginx versioned", "nginx stable-service"])
def test_there_and_back_nothing_is_lost(tmp_path: Path, mode: str) -> None:
    with site(tmp_path, mode, minimum_hold=HOLD) as made:
        with driving(made) as drive:
            for now, route in (("gateway", "HTTPRoute"), (mode, "Ingress")):
                made.use(now, minimum_hold=HOLD)
                drive.deploy()
                made.quiet()
                assert routes(made.eyes, made.name) == {route: {"shop"}}
            report = drive.traffic.stop()
        assert drive.problems(report) == []
        assert report.closed == 0


@pytest.fixture
def world(tmp_path: Path, namespace: str) -> Iterator[Callable[[str], RealWorld]]:
    """Starts a service, or starts it again, with the provider of a mode and a strategy that fails late."""
    tables = {f"ingress_{provider}": {**table, "minimum_hold": HOLD} for provider, table in TABLES.values()}
    tables["ingress_nginx"] = {**TABLES["nginx versioned"][1], "minimum_hold": HOLD}
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins=tables)
    made.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]

    def use(provider: str) -> RealWorld:
        made.stop()
        made.settings = dataclasses.replace(made.settings, ingress=provider)
        made.start()
        return made

    yield use
    made.close()


@pytest.mark.parametrize(("before", "after"), [("nginx", "gateway"), ("gateway", "nginx")])
def test_a_swap_that_fails_afterwards_is_taken_back_and_nothing_is_lost(
    world: Callable[[str], RealWorld], before: str, after: str
) -> None:
    made = world(before)
    fields: dict[str, Any] = {**HEALTHY, "frontend": f"{made.namespace}.example.com"}
    made.deployed(**fields)
    had = routes(made.eyes, made.namespace)
    # Without ballast in its environment there is nothing to download.
    kinds = [kind for kind in KINDS if not kind.stall]
    with contextlib.closing(Traffic((ADDRESS, 80), fields["frontend"], kinds)) as traffic:
        world(after)
        failed = made.ended(made.deploy(**fields, **FAILS), Status.FAILURE)
        report = traffic.stop()
    assert report.failed == 0, report.explain()
    assert report.closed == 0
    assert f"moving {fields['frontend']} back to version 1, and to ingress provider {before}" in made.log(failed.id)
    assert {version for _, version in report.fresh} == {"1", "2"}
    assert report.fresh[-1][1] == "1"
    assert routes(made.eyes, made.namespace) == had

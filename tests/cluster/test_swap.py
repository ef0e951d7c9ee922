"""Another ingress provider in the settings, under load through a real controller that serves both."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployer.core.model.kind import HTTP_ROUTE, INGRESS
from deployer.core.model.records import Status
from deployer.kube.client import KubeClient
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.sdk.ingress import ask
from deployer.sdk.plugin import CancelScope
from deployer.toolkit.dataplane.probe import parse_address
from support import late, originals
from support.real import IMAGE, RealWorld
from support.switching import ADDRESS, TABLES, driving, missing, site
from support.traffic import CALM, Traffic
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


def test_providers_take_over_from_each_other_and_nothing_is_lost(tmp_path: Path, namespace: str) -> None:
    """There and back again, from both modes, and what fails at the very end is given back; all at the same time."""
    with ThreadPoolExecutor() as tenants:
        living = [
            tenants.submit(there_and_back, tmp_path / mode, mode)
            for mode in ("nginx versioned", "nginx stable-service")
        ]
        for before, after in (("nginx", "gateway"), ("gateway", "nginx")):
            living.append(tenants.submit(given_back, tmp_path / before, f"{namespace}-{before}", before, after))
        for one in living:
            one.result()


def await_answer(host: str) -> None:
    """Until the controller leads it to an app."""
    scope = CancelScope(time.monotonic() + 30)
    while ask(parse_address(f"{ADDRESS}:80", tls=False), host, "", scope).status != 200:
        scope.pause(0.1)


def there_and_back(path: Path, mode: str) -> None:
    path.mkdir()
    with site(path, mode, minimum_hold=HOLD) as made:
        with driving(made, CALM) as drive:
            for now, route in (("gateway", "HTTPRoute"), (mode, "Ingress")):
                made.use(now, minimum_hold=HOLD)
                drive.deploy()
                made.quiet()
                assert routes(made.eyes, made.name) == {route: {"shop"}}
            report = drive.traffic.stop()
        assert drive.problems(report) == []
        assert report.closed == 0


def test_what_the_original_exposed_is_taken_over_by_the_other_kind(tmp_path: Path) -> None:
    """Its Ingress goes once the HTTPRoute is known."""
    with site(tmp_path, "gateway", minimum_hold=HOLD) as made:
        originals.leave(made.eyes, made.name, made.host, IMAGE, version="1", port_name="http", www=True)
        # As operators did where nobody has certificates.
        plain = {"metadata": {"annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"}}}
        made.eyes.patch(INGRESS, "shop", plain, made.name)
        await_answer(made.host)
        traffic = Traffic((ADDRESS, 80), made.host, [kind for kind in CALM if kind.path == "/"])
        try:
            switch = made.deployed(made.descriptor())
            made.quiet()
            report = traffic.stop()
        finally:
            traffic.close()
        assert (report.failed, report.late("2", switch.at)) == (0, []), report.explain()
        assert {version for account in report.kinds.values() for version in account.versions} == {"1", "2"}
        assert routes(made.eyes, made.name) == {"HTTPRoute": {"shop"}}


@contextlib.contextmanager
def worlds(path: Path, namespace: str) -> Iterator[Callable[[str], RealWorld]]:
    """Starts a service, or starts it again, with the provider of a mode and a strategy that fails late."""
    tables = {f"ingress_{provider}": {**table, "minimum_hold": HOLD} for provider, table in TABLES.values()}
    tables["ingress_nginx"] = {**TABLES["nginx versioned"][1], "minimum_hold": HOLD}
    made = RealWorld(None, path, namespace, ingress="none", plugins=tables)
    made.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]

    def use(provider: str) -> RealWorld:
        made.stop()
        made.settings = dataclasses.replace(made.settings, ingress=provider)
        made.start()
        return made

    try:
        yield use
    finally:
        made.close()


def given_back(path: Path, namespace: str, before: str, after: str) -> None:
    path.mkdir()
    with worlds(path, namespace) as world:
        made = world(before)
        fields: dict[str, Any] = {**HEALTHY, "frontend": f"{made.namespace}.example.com"}
        made.deployed(**fields)
        had = routes(made.eyes, made.namespace)
        # Without ballast in its environment there is nothing to download.
        kinds = [kind for kind in CALM if not kind.stall]
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

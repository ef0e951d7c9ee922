"""Nobody who uses an app notices its deployments: constant load through a real ingress controller loses nothing.

A short version of `make bench-switch`, for each provider and mode; see `support/switching.py` for what it needs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployer.core.contract.strategy import Done
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import Deployment
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.strategy import Outcome, Phase, Plan, Step, Work
from support.late import Late
from support.real import RealWorld
from support.strategies import Steps, restart_with
from support.switching import ADDRESS, DOWNLOAD, SLOW, TABLES, Neighbour, driving, missing, site
from support.traffic import CALM, Report, Traffic
from support.world import HEALTHY

pytestmark = pytest.mark.timeout(300)

HOLD = 4.0
"""Seconds. Enough for this controller and requests of 2 s."""


def test_deployments_lose_nothing(tmp_path: Path) -> None:
    """Every provider and mode at the same time: each is another tenant of the same controller to the others."""
    missed = {mode: why for mode in TABLES if (why := missing(mode))}
    if len(missed) == len(TABLES):
        pytest.skip("; ".join(missed.values()))
    with ThreadPoolExecutor() as tenants:
        living = [tenants.submit(live, tmp_path / mode, mode) for mode in TABLES if mode not in missed]
        problems = [problem for one in living for problem in one.result()]
    assert not problems, "\n".join(problems)


def live(path: Path, mode: str) -> list[str]:
    """A redeployment, a failing one, slow pods and a neighbour who changes routes all the time, another app that is
    undeployed, the way back to the first version, the service killed while traffic moves. What was lost, in words."""
    path.mkdir()
    with site(path, mode) as made, driving(made, CALM) as drive:
        drive.deploy()
        with ThreadPoolExecutor() as others:
            another = others.submit(drive.undeploy_another)
            drive.fail()
            neighbour = Neighbour(made)
            drive.deploy(SLOW_START="2")
            another.result()
        drive.go_back()
        neighbour.stop()
        assert neighbour.changes > 5
        # When nothing is left to retire, these are the deployment's own writes. A stable route makes five, the last of
        # which is the switch; of the others the sixth is under way or near it.
        made.quiet()
        number = 5 if mode == "nginx stable-service" else 6
        assert drive.kill(f"kube.after:{number}"), "the service outlived its failpoint"
        made.quiet()
        report = drive.traffic.stop()
    assert [switch.version for switch in drive.switches] == ["2", "4", "5", "6"]
    closed = [f"{report.closed} connections were closed\n{report.explain()}"] if report.closed else []
    return [f"{mode}: {problem}" for problem in drive.problems(report) + closed]


class DeleteOld(Step):
    """What must not be done: the old version goes as soon as the route is switched."""

    id = "delete-old"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        previous = work.plan.previous
        if previous:
            work.kube.delete(CONTROLLER, previous.controller, deployment=previous.deployment)
        return Done()


@pytest.fixture
def world(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """A Deployer in this process, with strategies for tests and the provider `gateway`; version 1 is live."""
    if why := missing("gateway"):
        pytest.skip(why)
    provider, table = TABLES["gateway"]

    def hasty(plan: Plan) -> list[Step]:
        usual = deploy_steps(plan)
        place = [step.id for step in usual].index("switch-route") + 1
        return [*usual[:place], DeleteOld(), *usual[place:]]

    # The controller applies a first change at once and the next one later: with a warm-up, the switch is the next one.
    plugins = {f"ingress_{provider}": {**table, "minimum_hold": HOLD, "warm_up": "always"}}
    made = RealWorld(None, tmp_path, namespace, ingress=provider, plugins=plugins)
    try:
        restart_with(made, Steps("hasty", hasty), Late())
        made.deployed(frontend=f"{namespace}.example.com", **HEALTHY)
        yield made
    finally:
        made.close()


def under_load(world: RealWorld, **fields: Any) -> tuple[Deployment, Report]:
    """What becomes of a deployment, and of the requests until nothing is left to do."""
    host = f"{world.namespace}.example.com"
    # Requests to pods that were deleted hang: nobody needs to wait long for those.
    kinds = [dataclasses.replace(kind, limit=5.0) for kind in CALM if kind.name != DOWNLOAD]
    traffic = Traffic((ADDRESS, 80), host, kinds)
    try:
        while not all(account.answered for account in traffic.report().kinds.values()):
            time.sleep(0.1)
        ended = world.ended(world.deploy(frontend=host, **HEALTHY, **fields))
        world.quiet()
        return ended, traffic.stop()
    finally:
        traffic.close()


def test_the_way_back_loses_nothing_and_a_hasty_strategy_does(world: RealWorld) -> None:
    """A deployment that fails at the very end was live for a moment. One that deletes the old version as soon as the
    route is switched shows that what is counted here can be lost: long requests when the pods go, the others when
    nobody waits until the controller has followed."""
    failed, report = under_load(world, deploymentType="late", strategyOptions={"end": "fails"})
    assert failed.failure and failed.failure["reason"] == "Late"
    assert (report.failed, report.closed) == (0, 0), report.explain()
    assert {version for _, version in report.fresh} == {"1", "2"}
    assert report.fresh[-1][1] == "1"

    hasty, report = under_load(world, deploymentType="hasty")
    assert hasty.version == "3"
    for name in ("keep-alive GET", "fresh GET", "fresh POST", SLOW):
        assert report.kinds[name].failed, report.explain()

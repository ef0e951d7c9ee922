"""Nobody who uses an app notices its deployments: constant load through a real ingress controller loses nothing.

A short version of `make bench-switch`, for each provider and mode; see `support/switching.py` for what it needs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployer.core import Outcome, Phase, Plan, Step, Work, deploy_steps
from deployer.core.kube.kinds import CONTROLLER
from deployer.core.providers import Done
from support.real import RealWorld
from support.strategies import Steps, restart_with
from support.switching import ADDRESS, DOWNLOAD, SLOW, TABLES, Neighbour, driving, missing, site
from support.traffic import KINDS, Traffic
from support.world import HEALTHY

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("mode", TABLES)
def test_deployments_lose_nothing(tmp_path: Path, mode: str) -> None:
    """A redeployment, a failing one, slow pods and a neighbour who changes routes all the time, another app that is
    undeployed, the way back to the first version with the service killed right after traffic moved."""
    if why := missing(mode):
        pytest.skip(why)
    with site(tmp_path, mode) as made, driving(made) as drive:
        drive.deploy()
        with ThreadPoolExecutor() as others:
            another = others.submit(drive.undeploy_another)
            drive.fail()
            neighbour = Neighbour(made)
            drive.deploy(SLOW_START="2")
            another.result()
        drive.go_back()
        neighbour.stop()
        assert drive.kill("kube.after:6"), "the service outlived its failpoint"
        made.quiet()
        report = drive.traffic.stop()
        assert not (problems := drive.problems(report)), "\n".join(problems)
        assert {account.closed for account in report.kinds.values()} == {0}, report.explain()
        assert [switch.version for switch in drive.switches] == ["2", "4", "5", "6"]
        assert neighbour.changes > 5


class DeleteOld(Step):
    """What must not be done: the old version goes as soon as the route is switched."""

    id = "delete-old"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        previous = work.plan.previous
        if previous:
            work.kube.delete(CONTROLLER, previous["controller"], deployment=previous["deployment"])
        return Done()


def test_a_strategy_that_keeps_nothing_loses_requests(tmp_path: Path, namespace: str) -> None:
    """So what the other tests count can be lost: long requests when the old pods go, the others when nobody waits until
    the controller has followed."""
    if why := missing("gateway"):
        pytest.skip(why)
    provider, table = TABLES["gateway"]
    host = f"{namespace}.example.com"

    def steps(plan: Plan) -> list[Step]:
        usual = deploy_steps(plan)
        place = [step.id for step in usual].index("switch-route") + 1
        return [*usual[:place], DeleteOld(), *usual[place:]]

    world = RealWorld(None, tmp_path, namespace, ingress=provider, plugins={f"ingress_{provider}": table})
    try:
        restart_with(world, Steps("hasty", steps))
        world.deployed(frontend=host, **HEALTHY)
        traffic = Traffic((ADDRESS, 80), host, [kind for kind in KINDS if kind.name != DOWNLOAD])
        try:
            while not all(account.answered for account in traffic.report().kinds.values()):
                pass
            world.ended(world.deploy(frontend=host, deploymentType="hasty", **HEALTHY))
            report = traffic.stop()
        finally:
            traffic.close()
        assert report.kinds[SLOW].failed and report.kinds["fresh GET"].failed, report.explain()
        assert report.kinds["keep-alive GET"].failed and report.kinds["fresh POST"].failed, report.explain()
        world.quiet()
    finally:
        world.close()

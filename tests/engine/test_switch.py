"""The switch under load: nothing is lost, and the load is one that would notice."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from deployer.core.model.records import Status
from deployer.core.registry import Entry
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sandbox import Load, Report
from deployer.sdk.kube import CONFIG_MAP, CONTROLLER, INGRESS
from deployer.sdk.strategy import Done, Outcome, Phase, Plan, Step, Strategy, Work
from support.world import HEALTHY, World

HOST = "shop.example.com"


@contextlib.contextmanager
def load(world: World, version: str) -> Iterator[Load]:
    """Constant load on the shop, from when `version` answers on."""
    running = Load(world.cluster.ingress, host=HOST, rate=200).start()
    try:
        running.wait_for(lambda report: report.by_version.get(version, 0) > 0, 20)
        yield running
    finally:
        running.stop()


def after(load: Load, version: str) -> Report:
    """The account once `version` has answered for a while."""
    return load.wait_for(lambda report: report.by_version.get(version, 0) > 50, 20)


def test_no_request_is_lost_when_a_version_takes_over(world: World) -> None:
    world.deployed(**HEALTHY, frontend=HOST, replicas=2)
    with load(world, "1") as running:
        for version in ("2", "3"):
            world.deployed(**HEALTHY, frontend=HOST, replicas=2)
            world.quiet()
            report = after(running, version)
            assert (report.failed, report.failures) == (0, {})
        assert set(report.by_version) == {"1", "2", "3"}
    assert running.stop().failed == 0
    assert world.names() == {
        "replicationcontrollers": {"shop-3"},
        "services": {"shop", "shop-3"},
        "ingresses": {"shop"},
        "configmaps": set(world.objects(CONFIG_MAP)),
    }
    assert len(world.objects(CONFIG_MAP)) == 1


def test_a_failing_version_is_never_seen_and_nothing_is_lost(world: World) -> None:
    world.deployed(**HEALTHY, frontend=HOST)
    with load(world, "1") as running:
        failed = world.ended(world.deploy(frontend=HOST, image="sample/web:missing"), Status.FAILURE)
        assert failed.version == "2"
        report = running.stop()
        assert (report.failed, set(report.by_version)) == (0, {"1"})
    world.quiet()
    assert world.names()["replicationcontrollers"] == {"shop-1"}
    assert world.names()["ingresses"] == {"shop"}


class RemoveOld(Step):
    """What a deployer in a hurry does: the old version goes before the route has moved."""

    id = "remove-old"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        previous = work.plan.previous
        if previous:
            work.kube.delete(CONTROLLER, previous.controller, deployment=previous.deployment)
        return Done()


class Hasty(Strategy):
    """Blue-green in the wrong order."""

    name = "hasty"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        steps = deploy_steps()
        return [*steps[:4], RemoveOld(), *steps[4:]]


def test_the_load_notices_when_the_old_version_goes_before_the_switch(world: World) -> None:
    """Zero lost requests mean something only because this order, in the same place, loses some."""
    world.stop()
    registry = load_plugins(world.settings)
    strategies = {**registry.strategies, "hasty": Entry(Hasty(), "tests", "1", "hasty")}
    world.start(dataclasses.replace(registry, strategies=strategies))
    world.deployed(**HEALTHY, frontend=HOST)
    with load(world, "1") as running:
        world.deployed(**HEALTHY, frontend=HOST, deploymentType="hasty")
        assert after(running, "2").failed > 0


def test_an_undeployment_removes_the_route_with_all_that_belongs_to_it(world: World) -> None:
    deployment = world.deployed(**HEALTHY, frontend=HOST, additionHttpHeaders=[{"Header": "X-Demo", "Value": "yes"}])
    assert world.objects(INGRESS)["shop"]["spec"]["rules"][0]["host"] == HOST
    world.service.undeploy(world.namespace, deployment.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_a_route_goes_when_no_ingress_provider_is_configured_any_more(world: World) -> None:
    world.deployed(**HEALTHY, frontend=HOST)
    world.stop()
    world.settings = dataclasses.replace(world.settings, ingress="none")
    world.start()
    world.deployed(**HEALTHY, frontend=HOST)
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}

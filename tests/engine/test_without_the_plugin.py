"""What a step says of itself decides what becomes of it when its plugin is gone, and how long it may take."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from deployer.core.model.records import Deployment, Plan, Status
from deployer.core.operations import machine
from deployer.core.registry import Entry
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.kube import CONFIG_MAP, CONTROLLER, INGRESS
from deployer.sdk.strategy import AwaitReady, Done, MoveService, Outcome, Park, Phase, StartWorkload, Step, Work
from support.strategies import Steps, restart_with
from support.world import HEALTHY, World

BOTH = {"replicationcontrollers": {"shop-1", "shop-2"}, "services": {"shop", "shop-1", "shop-2"}}
OLD = {"replicationcontrollers": {"shop-1"}, "services": {"shop", "shop-1"}}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "HOLD_INTERVAL", 0.1)


class Own(Step):
    """A step that does what a test wants."""

    def __init__(
        self,
        id: str,
        run: Callable[[Work], Any] = lambda work: None,
        undo: Callable[[Work], None] = lambda work: None,
        **fields: Any,
    ) -> None:
        self.id = id
        self.phase = Phase.START
        self._run = run
        self._undo = undo
        for name, value in fields.items():
            setattr(self, name, value)

    def run(self, work: Work) -> Outcome:
        return self._run(work) or Done()

    def undo(self, work: Work) -> None:
        self._undo(work)


def waits(work: Work) -> Outcome:
    """Long enough for somebody to uninstall the plugin."""
    return Park(work.now() + 600, "waiting")


def uninstalled(world: World, steps: Callable[[Plan], Sequence[Step]]) -> Deployment:
    """Version 2 is deployed by a strategy with these steps, which is gone after a restart in the middle of it."""
    restart_with(world, Steps("own", steps))
    world.deployed()
    second = world.deploy(deploymentType="own")
    world.until(lambda: "waiting" in world.log(second.id), "the step that waits")
    world.until(lambda: not world.engine.running, "parking")
    world.stop()
    world.start()
    return second


def scale(world: World, replicas: int) -> Callable[[Work], None]:
    """Stop or bring back the old version, and wait until its pods are that many."""

    def run(work: Work) -> None:
        world.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": replicas}}, world.namespace)
        for _ in range(200):
            if sum(name.startswith("shop-1-") for name in world.pods()) == replicas:
                return
            work.scope.pause(0.05)

    return run


def replicas_of(world: World, name: str) -> int:
    replicas: int = world.objects(CONTROLLER)[name]["spec"]["replicas"]
    return replicas


def test_the_old_version_that_was_stopped_is_not_forgotten(world: World) -> None:
    """Nothing says FAILURE while nobody serves; with the plugin back the old version is, too."""

    def recreate(plan: Plan) -> Sequence[Step]:
        stop = Own("stop-old", scale(world, 0), scale(world, 1), disturbs=True)
        return [stop, StartWorkload(), Own("wait", waits), AwaitReady(), MoveService()]

    second = uninstalled(world, recreate)
    held = (
        "step stop-old may have taken traffic or capacity from the version before, and only the plugin can take that "
        "back (there is no strategy 'own'"
    )
    world.until(lambda: held in world.log(second.id), "the hold")
    log = world.log(second.id)
    assert "everything is kept as it is until the plugin is back (tests:own)" in log
    assert "undoing without the plugin" not in log
    found = world.store.get(Deployment, second.id)
    assert found is not None and found.status is Status.DEPLOYING
    assert (world.names(), replicas_of(world, "shop-1"), world.live_version()) == (BOTH, 0, "1")

    restart_with(world, Steps("own", recreate))
    world.ended(second, Status.FAILURE)
    world.quiet()
    assert (world.names(), replicas_of(world, "shop-1"), world.live_version()) == (OLD, 1, "1")
    assert world.log(second.id).count(held) == 1


def test_a_route_of_the_plugins_own_is_not_left_leading_to_nothing(world: World) -> None:
    """The core does not know of a second Ingress that gives the new version a share: neither goes."""
    host = f"{world.namespace}.example.com"

    def share(work: Work) -> None:
        backend = {"service": {"name": "shop-2", "port": {"number": 8080}}}
        paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
        metadata = {
            "name": "shop-canary",
            "annotations": {
                **work.kube.annotations("versioned-canary"),
                "nginx.ingress.kubernetes.io/canary": "true",
                "nginx.ingress.kubernetes.io/canary-weight": "20",
            },
        }
        spec = {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": paths}}]}
        work.kube.create(
            INGRESS, {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}
        )

    def unshare(work: Work) -> None:
        work.kube.delete(INGRESS, "shop-canary")

    def canary(plan: Plan) -> Sequence[Step]:
        sharing = Own("share", share, unshare, phase=Phase.EXPOSE, exposes=True)
        return [StartWorkload(), AwaitReady(), sharing, Own("wait", waits, phase=Phase.EXPOSE), MoveService()]

    second = uninstalled(world, canary)
    held = "step share may have given traffic to version 2, and only the plugin can take that back"
    world.until(lambda: held in world.log(second.id), "the hold")
    assert set(world.objects(INGRESS)) == {"shop-canary"}
    assert set(world.objects(CONTROLLER)) == {"shop-1", "shop-2"}
    assert any(name.startswith("shop-2-") for name in world.pods())

    restart_with(world, Steps("own", canary))
    world.ended(second, Status.FAILURE)
    world.quiet()
    assert (world.names(), world.live_version()) == (OLD, "1")


def test_what_neither_disturbs_nor_exposes_is_undone_without_the_plugin(world: World) -> None:
    def note(work: Work) -> None:
        metadata = {"name": "shop-note", "annotations": work.kube.annotations("versioned-note")}
        work.kube.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    def careful(plan: Plan) -> Sequence[Step]:
        # What was not started did nothing, whatever it says.
        return [Own("note", note), StartWorkload(), AwaitReady(), Own("wait", waits), MoveService()]

    second = uninstalled(world, careful)
    world.ended(second, Status.FAILURE)
    world.quiet()
    assert "undoing without the plugin: there is no strategy 'own'" in world.log(second.id)
    assert (world.names(), world.live_version()) == (OLD, "1")


def test_traffic_that_a_step_moved_without_saying_so_is_seen_as_well(world: World) -> None:
    class Silent(MoveService):
        disturbs = exposes = False

    second = uninstalled(
        world,
        lambda plan: [StartWorkload(), AwaitReady(), Silent(), Own("wait", waits, phase=Phase.CONFIRM)],
    )
    world.until(lambda: "version 2 may have traffic already" in world.log(second.id), "the hold")
    assert (world.names(), world.live_version()) == (BOTH, "2")


@pytest.mark.parametrize("says", ["disturbs", "exposes"])
def test_a_step_about_traffic_that_has_no_undo_is_not_forgotten(world: World, says: str) -> None:
    """Steps without an undo only look, and begin anew after a crash, but for these."""

    class Blunt(Step):
        id = "blunt"
        phase = Phase.START

        def run(self, work: Work) -> Outcome:
            work.log("waiting")
            work.scope.pause(600)
            return Done()

    setattr(Blunt, says, True)
    restart_with(world, Steps("own", lambda plan: [Blunt(), StartWorkload(), MoveService()]))
    world.deployed()
    second = world.deploy(deploymentType="own")
    world.until(lambda: "waiting" in world.log(second.id), "the step")
    world.stop()
    world.start()
    world.until(lambda: "step blunt may have" in world.log(second.id), "the hold")


def test_a_health_checker_that_is_gone_holds_nothing_up_on_the_way_back(world: World) -> None:
    """The strategy is there, and going back asks nobody for their health."""
    steps = Steps("own", lambda plan: [*deploy_steps(plan), Own("wait", waits, phase=Phase.CONFIRM)])
    restart_with(world, steps)
    world.deployed(**HEALTHY)
    second = world.deploy(**HEALTHY, deploymentType="own")
    world.until(lambda: "waiting" in world.log(second.id), "the step that waits")
    world.until(lambda: not world.engine.running, "parking")
    world.stop()
    registry = load_plugins(world.settings)
    strategies = {**registry.strategies, "own": Entry(steps, "tests", "1", "own")}
    world.start(dataclasses.replace(registry, strategies=strategies, health_checkers={}))
    ended = world.ended(second, Status.FAILURE)
    assert ended.failure and "there is no health checker 'probe'" in ended.failure["message"]
    world.quiet()
    assert (world.names(), world.live_version()) == (OLD, "1")


@pytest.mark.parametrize("says", ["disturbs", "exposes"])
def test_an_undo_that_keeps_failing_is_not_skipped_when_it_is_about_traffic(world: World, says: str) -> None:
    heals: list[str] = []

    def fail(work: Work) -> None:
        raise ValueError("of the plugin")

    def undo(work: Work) -> None:
        if not heals:
            raise ValueError("still broken")

    own = Own("own", fail, undo, **{says: True})
    restart_with(world, Steps("own", lambda plan: [StartWorkload(), own, MoveService()]))
    world.deployed()
    second = world.deploy(deploymentType="own")
    world.until(lambda: "undoing step own keeps failing: " in world.log(second.id), "the hold", 60)
    assert (world.names(), world.live_version()) == (BOTH, "1")
    heals.append("now")
    world.ended(second, Status.FAILURE)
    world.quiet()
    assert (world.names(), world.live_version()) == (OLD, "1")


# --- pinned -------------------------------------------------------------------------------------------------------


def test_a_newer_release_of_the_plugin_serves_a_plan_as_it_was_pinned(world: World) -> None:
    """It sees the pinned steps, and none while the deployment is decided."""
    added: list[str] = []

    def old(plan: Plan) -> Sequence[Step]:
        return [
            StartWorkload(),
            AwaitReady(),
            Own("wait", lambda work: Done() if added else waits(work)),
            MoveService(),
        ]

    def new(plan: Plan) -> Sequence[Step]:
        pinned = [step.id for step in plan.steps]
        mine = [Own("added", lambda work: added.append(work.plan.version))] if not pinned or "added" in pinned else []
        return [StartWorkload(), AwaitReady(), *mine, Own("wait"), MoveService()]

    restart_with(world, Steps("own", old))
    second = world.deploy(deploymentType="own")
    world.until(lambda: "waiting" in world.log(second.id), "the step that waits")
    world.until(lambda: not world.engine.running, "parking")
    restart_with(world, Steps("own", new))
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    world.quiet()
    assert (world.names(), added) == ({}, [])
    third = world.deployed(deploymentType="own")
    assert added == [third.version]


def test_what_steps_say_is_pinned(world: World) -> None:
    first = world.deployed(**HEALTHY, frontend=f"{world.namespace}.example.com")
    plan = world.store.get(Plan, first.id)
    assert plan is not None
    assert [step.id for step in plan.steps] == [step.id for step in deploy_steps(plan)]
    about_traffic = {step.id for step in plan.steps if step.disturbs and step.exposes}
    assert about_traffic == {"switch-route", "move-service"}
    assert not [step.id for step in plan.steps if step.disturbs != step.exposes or step.budget is not None]


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_budget_of_its_own_outlasts_the_phases(world: World) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, timeout=0.5)
    slow = Own("slow", lambda work: work.scope.pause(1.0), phase=Phase.VERIFY, budget=30)
    quick = Own("quick", phase=Phase.VERIFY)
    restart_with(world, Steps("own", lambda plan: [StartWorkload(), AwaitReady(), slow, quick, MoveService()]))
    world.deployed(deploymentType="own")


def test_a_budget_of_its_own_ends_a_step_before_its_phase_does(world: World) -> None:
    slow = Own("slow", lambda work: work.scope.pause(30.0), phase=Phase.VERIFY, budget=0.3)
    restart_with(world, Steps("own", lambda plan: [StartWorkload(), slow, MoveService()]))
    found = world.ended(world.deploy(deploymentType="own"), Status.FAILURE)
    assert found.failure is not None
    assert found.failure["message"] == "step slow did not finish within the 0.3 s that it may take"


# --- a plan of a newer release ------------------------------------------------------------------------------------


def test_a_plan_of_a_newer_release_is_held_and_others_go_on(world: World) -> None:
    def set_format(format: int) -> None:
        with closing(sqlite3.connect(world.settings.data_dir / "deployer.db")) as database, database:
            done = database.execute(
                "UPDATE records SET document = json_set(document, '$.format', ?) WHERE kind = 'plan' AND app = 'shop'",
                (format,),
            )
            assert done.rowcount == 1

    steps = Steps("own", lambda plan: [StartWorkload(), AwaitReady(), Own("wait", waits), MoveService()])
    restart_with(world, steps)
    second = world.deploy(deploymentType="own")
    world.until(lambda: "waiting" in world.log(second.id), "the step that waits")
    world.until(lambda: not world.engine.running, "parking")
    world.stop()
    set_format(99)
    restart_with(world, steps)
    held = "has format 99 and this release reads formats up to 2, so its objects are kept as they are: install"
    world.until(lambda: held in world.log(second.id), "the hold")
    assert world.deployed("other").version == "1"
    assert set(world.objects(CONTROLLER)) == {"shop-1", "other-1"}
    world.stop()
    set_format(2)
    restart_with(world, steps)
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    assert set(world.objects(CONTROLLER)) == {"other-1"}

"""What happens at once, one after the other, in between and too late: order, cancellation, undeployment, versions."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.errors import NotFound
from deployer.core.model.records import App, Deployment, HealthData, Operation, OperationKind, Status
from deployer.core.model.records import Plan as PlanRecord
from deployer.core.operations import machine
from deployer.core.operations.execution.transactions import Transactions
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.kube import CONTROLLER, INGRESS, POD
from deployer.sdk.strategy import (
    AwaitReady,
    Done,
    MoveService,
    Outcome,
    Park,
    Phase,
    Plan,
    StartWorkload,
    Step,
    Work,
)
from support.strategies import Steps, Stop, VisitedBlueGreen, restart_with
from support.world import HEALTHY, PATIENCE, World

HOST = "shop.example.com"
VISITED = {**HEALTHY, "deploymentType": "visited"}
ROUTED = {**VISITED, "frontend": HOST}
CUSTOM_HEADERS = "nginx.ingress.kubernetes.io/custom-headers"
EFFECTIVE = 1.0
"""Seconds within which a cancellation takes a step's handles away (contract, section 3)."""


def status(world: World, deployment: Deployment) -> Status:
    found = world.store.get(Deployment, deployment.id)
    assert found
    return found.status


def objects_of(*versions: str, route: bool = False) -> dict[str, set[str]]:
    """Names of the objects of the shop's versions, the last of which is live."""
    names = {f"shop-{version}" for version in versions}
    found = {"replicationcontrollers": names, "services": {"shop", *names}}
    return {**found, "ingresses": {"shop"}, "configmaps": {"headers"}} if route else found


def names(world: World) -> dict[str, set[str]]:
    """All objects by name; the one ConfigMap that the route refers to is `headers`."""
    found = world.names()
    if route := world.objects(INGRESS).get("shop"):
        used = route["metadata"]["annotations"][CUSTOM_HEADERS].rpartition("/")[2]
        found["configmaps"] = {"headers" if name == used else name for name in found["configmaps"]}
    return found


def only_first(world: World, pods: set[str], *, route: bool = False) -> None:
    """Version 1 serves as if nothing had been, and nothing else is there."""
    world.quiet()
    assert (names(world), world.live_version()) == (objects_of("1", route=route), "1")
    assert set(world.pods()) == pods
    if route:
        rule = world.objects(INGRESS)["shop"]["spec"]["rules"][0]
        assert rule["http"]["paths"][0]["backend"]["service"]["name"] == "shop-1"
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app and (app.live_version, app.held) == ("1", "")
    assert [plan.deployment for plan in world.store.find(PlanRecord)] == [app.live]


def patched(world: World, name: str, patch: dict[str, Any]) -> None:
    """Somebody edits a ReplicationController."""
    world.eyes.patch(CONTROLLER, name, patch, world.namespace)


def failing(world: World) -> None:
    """A first failed image pull is enough to make a deployment fail."""
    world.stop()
    world.settings = dataclasses.replace(world.settings, image_pull_attempts=1)
    world.start()


# --- at once ------------------------------------------------------------------------------------------------------


def test_deployments_of_one_app_at_once_go_one_after_the_other(world: World) -> None:
    visits: list[str] = []
    restart_with(world, VisitedBlueGreen(lambda work, point: visits.append(work.plan.version)))
    stored = world.descriptor(**VISITED)
    together = threading.Barrier(3)

    def deploy(_: int) -> Deployment:
        together.wait(PATIENCE)
        return world.service.deploy(world.namespace, stored.id)

    with ThreadPoolExecutor(3) as pool:
        asked = list(pool.map(deploy, range(3)))
    world.quiet()
    assert visits == sorted(visits) and set(visits) == {"1", "2", "3"}
    found = sorted(world.store.find(Deployment), key=lambda d: d.version)
    # In the order of arrival.
    assert [d.id for d in found] == [d.id for d in sorted(asked, key=lambda d: d.sequence)]
    assert [d.status for d in found] == [Status.UNDEPLOYED, Status.UNDEPLOYED, Status.DEPLOYED]
    assert all(f"DEPLOYED: version {d.version} is live" in world.log(d.id) for d in found)
    assert (names(world), world.live_version()) == (objects_of("3"), "3")


class Meet(Step):
    """Ends only when all apps are in it at the same time."""

    id = "meet"
    phase = Phase.VERIFY

    def __init__(self, place: threading.Barrier) -> None:
        self._place = place

    def run(self, work: Work) -> Outcome:
        self._place.wait(PATIENCE)
        return Done()


def test_ten_apps_do_not_wait_for_each_other(world: World) -> None:
    place = threading.Barrier(10)
    world.settings = dataclasses.replace(world.settings, timeout=PATIENCE)
    restart_with(world, Steps("meeting", lambda plan: [StartWorkload(), AwaitReady(), Meet(place), MoveService()]))
    asked = [world.deploy(f"app-{i}", deploymentType="meeting") for i in range(10)]
    for deployment in asked:
        world.ended(deployment, Status.DEPLOYED)
    assert {world.live_version(f"app-{i}") for i in range(10)} == {"1"}


def test_an_app_that_takes_long_holds_up_no_other(world: World) -> None:
    stop = Stop("await-ready:before")
    restart_with(world, VisitedBlueGreen(lambda work, point: stop(work, point) if work.plan.app == "shop" else None))
    slow = world.deploy(**VISITED)
    stop.reached()
    world.deployed("other", **VISITED)
    assert status(world, slow) is Status.DEPLOYING
    stop.go.set()
    world.ended(slow, Status.DEPLOYED)


# --- cancelling ---------------------------------------------------------------------------------------------------

POINTS = [f"{step.id}:{when}" for step in deploy_steps() for when in ("before", "after")]


def cancelled_at(world: World, point: str) -> None:
    """Version 1 is live, version 2 is cancelled at that point."""
    host = f"{world.namespace}.example"
    stop = Stop(point)
    restart_with(world, VisitedBlueGreen(stop))
    world.deployed(**HEALTHY, frontend=host)
    pods = set(world.pods())
    second = world.deploy(**VISITED, frontend=host)
    stop.reached()
    asked = time.monotonic()
    world.service.undeploy(world.namespace, second.id)
    assert stop.shut.wait(PATIENCE)
    assert stop.closed - asked < EFFECTIVE
    world.ended(second, Status.UNDEPLOYED)
    only_first(world, pods, route=True)
    assert "UNDEPLOYED: the deployment was cancelled" in world.log(second.id)


def test_cancel_in_every_step(cluster: sandbox.Sandbox, tmp_path: Path) -> None:
    """Before and after each; several services at a time, each with a namespace of its own."""

    def case(point: str) -> str:
        path = tmp_path / point.replace(":", "-")
        world = World(cluster, path, f"t-{uuid.uuid4().hex[:12]}").start()
        try:
            cancelled_at(world, point)
        except AssertionError as error:
            return f"{point}: {error}"
        finally:
            world.close()
        return ""

    with ThreadPoolExecutor(4) as pool:
        failures = [failure for failure in pool.map(case, POINTS) if failure]
    assert not failures, "\n\n".join(failures)


def slow_pod(**probe: Any) -> dict[str, Any]:
    """A podspec whose container is never ready."""
    ports = [{"containerPort": 8080, "name": "http"}]
    probe = {"readinessProbe": {"tcpSocket": {"port": 7}, "periodSeconds": 1}}
    container = {"name": "web", "image": "sample/web:1", "ports": ports, **probe}
    return {"podspec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}


WAITS: dict[str, dict[str, Any]] = {
    "await-ready": {**VISITED, **slow_pod()},
    "verify-health, which says no": {**VISITED, "env": {"FAIL": "1"}},
    "verify-health, which does not answer": {**VISITED, "env": {"HEALTH_HANG": "60"}},
}


@pytest.mark.parametrize("case", WAITS)
def test_cancel_while_a_step_really_waits(world: World, case: str) -> None:
    """The steps' own waiting ends, not only that of a test."""
    world.settings = dataclasses.replace(world.settings, timeout=600.0)
    closed: list[float] = []
    there = threading.Event()

    def visit(work: Work, point: str) -> None:
        if point == f"{case.partition(',')[0]}:before" and work.plan.version == "2":
            work.scope.on_close(lambda: closed.append(time.monotonic()))
            there.set()

    restart_with(world, VisitedBlueGreen(visit))
    world.deployed(**HEALTHY)
    pods = set(world.pods())
    second = world.deploy(**WAITS[case])
    assert there.wait(PATIENCE)
    asked = time.monotonic()
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    assert closed[0] - asked < EFFECTIVE
    # The step came back by itself; nothing was left behind.
    assert world.engine.hung.count() == 0
    only_first(world, pods)


@pytest.mark.parametrize("step", ["prepare-route", "confirm-route"])
def test_cancel_while_the_data_plane_does_not_answer(world: World, step: str) -> None:
    """Nothing listens where the ingress is said to be, so that neither preparing nor confirming can end."""
    live = step == "prepare-route"
    if live:
        world.deployed(**HEALTHY, frontend=HOST)
    pods = set(world.pods())
    deaf = {"addresses": ["127.0.0.1:9"], "revision_header": True, "minimum_hold": 0.1}
    world.settings = dataclasses.replace(world.settings, plugins={"ingress_nginx": deaf}, expose_timeout=600.0)
    closed: list[float] = []
    there = threading.Event()

    def visit(work: Work, point: str) -> None:
        if point == f"{step}:before":
            work.scope.on_close(lambda: closed.append(time.monotonic()))
            there.set()

    restart_with(world, VisitedBlueGreen(visit))
    second = world.deploy(**ROUTED)
    assert there.wait(PATIENCE)
    asked = time.monotonic()
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    assert closed[0] - asked < EFFECTIVE
    assert world.engine.hung.count() == 0
    if live:
        only_first(world, pods, route=True)
    else:
        world.quiet()
        assert (world.names(), world.pods()) == ({}, {})


def test_cancel_while_it_waits_behind_another_one(world: World) -> None:
    stop = Stop("await-ready:before")
    restart_with(world, VisitedBlueGreen(stop))
    first = world.deploy(**VISITED)
    stop.reached()
    second, third = world.deploy(**VISITED), world.deploy(**VISITED)
    world.service.undeploy(world.namespace, second.id)
    # At once, although the first one is still in the way.
    found = world.ended(second, Status.UNDEPLOYED)
    assert (found.version, status(world, first)) == ("", Status.DEPLOYING)
    assert "UNDEPLOYED: cancelled before it began" in world.log(second.id)
    stop.go.set()
    world.ended(third, Status.DEPLOYED)
    world.quiet()
    assert (names(world), world.live_version()) == (objects_of("2"), "2")


class Rest(Step):
    """Parks for ten minutes."""

    id = "rest"
    phase = Phase.VERIFY

    def run(self, work: Work) -> Outcome:
        left = work.left("rested", 600)
        return Park(work.now() + left, "resting") if left else Done()


def resting(plan: Plan) -> Sequence[Step]:
    return [StartWorkload(), AwaitReady(), Rest(), MoveService()]


def parked(world: World, deployment: Deployment) -> Operation | None:
    """Its operation, when it is parked."""
    found = [o for o in world.store.find(Operation, tag="open") if o.deployment == deployment.id]
    return next((o for o in found if o.begun and o.due), None)


class Impatient(Step):
    """Parks until a moment that is over, twice; `at` has when it was called."""

    id = "impatient"
    phase = Phase.VERIFY

    def __init__(self) -> None:
        self.at: list[float] = []

    def run(self, work: Work) -> Outcome:
        self.at.append(work.now())
        work.log("looking out of the window")
        work.log(f"looked {len(self.at)} times")
        return Done() if len(self.at) > 2 else Park(work.now() - 5, "waiting for better weather")


def test_a_step_that_parks_for_no_time_is_called_once_a_second_and_logged_once(world: World) -> None:
    step = Impatient()
    restart_with(world, Steps("impatient", lambda plan: [StartWorkload(), AwaitReady(), step, MoveService()]))
    deployment = world.deployed(deploymentType="impatient")
    assert all(later - earlier >= machine.PARK_LEAST - 0.001 for earlier, later in itertools.pairwise(step.at))
    log = world.log(deployment.id)
    assert log.count("waiting for better weather") == 1
    # Nor is what it says itself said at each poll, but for what is new.
    assert log.count("looking out of the window") == 1
    assert [log.count(f"looked {number} times") for number in (1, 2, 3)] == [1, 1, 1]
    assert "resumed" not in log  # being taken up again is no news


class Deluded(Step):
    """Parks for the end of something that was never there."""

    id = "deluded"
    phase = Phase.VERIFY

    def __init__(self) -> None:
        self.calls = 0

    def run(self, work: Work) -> Outcome:
        self.calls += 1
        left = work.left("waited", 2.5)
        return Park(work.now() + left, "waiting", work.kube.gone(POD, {"app": "nobody"})) if left else Done()


def test_an_event_that_has_come_already_makes_no_loop(world: World) -> None:
    step = Deluded()
    restart_with(world, Steps("deluded", lambda plan: [StartWorkload(), AwaitReady(), step, MoveService()]))
    world.deployed(deploymentType="deluded")
    assert step.calls <= 10  # two a second, and not hundreds


def test_cancel_while_it_is_parked(world: World) -> None:
    restart_with(world, Steps("resting", resting))
    world.deployed()
    pods = set(world.pods())
    second = world.deploy(deploymentType="resting")
    world.until(lambda: parked(world, second), "the deployment to park")
    # It holds neither thread nor lease, but the app's order.
    for thread in [t for t in threading.enumerate() if t.name == "operation-shop"]:
        thread.join(PATIENCE)
    assert world.store.acquire(world.namespace, "shop", "somebody else", ttl=0.0)
    third = world.deploy()
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    world.ended(third, Status.DEPLOYED)
    world.quiet()
    assert world.live_version() == "3"
    assert not pods & set(world.pods())


def test_cancel_at_the_moment_at_which_it_parks(world: World) -> None:
    """The step has returned, its lease is being given back: neither running nor parked."""
    restart_with(world, Steps("resting", resting))
    world.deployed()
    pods = set(world.pods())
    release, asked = world.store.release, threading.Event()

    def cancel_first(lease: Any) -> None:
        if parked(world, second) and not asked.is_set():
            asked.set()
            world.service.undeploy(world.namespace, second.id)
            # The dispatcher has heard of it before the operation is given back.
            world.engine._take_in()
        release(lease)

    world.store.release = cancel_first  # type: ignore[method-assign]
    second = world.deploy(deploymentType="resting")
    assert asked.wait(PATIENCE)
    world.ended(second, Status.UNDEPLOYED)
    only_first(world, pods)


@pytest.mark.parametrize("where", ["committed", "follow_up"])
def test_cancel_between_the_last_step_and_the_commit(world: World, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Before the commit has looked at the deployment, and after that: whoever is first wins, and the other sees it."""
    world.deployed(**HEALTHY, frontend=HOST)
    pods = set(world.pods())
    original = getattr(Transactions, where)

    def cancel_first(self: Transactions, plan: Plan) -> Any:
        found = world.store.get(Deployment, plan.deployment)
        if found and found.status is Status.DEPLOYING:
            world.service.undeploy(world.namespace, plan.deployment)
        return original(self, plan)

    monkeypatch.setattr(Transactions, where, cancel_first)
    second = world.deploy(**HEALTHY, frontend=HOST)
    world.ended(second, Status.UNDEPLOYED)
    only_first(world, pods, route=True)
    assert "DEPLOYED: version 2" not in world.log(second.id)


def test_cancel_of_a_first_deployment_leaves_nothing(world: World) -> None:
    stop = Stop("move-service:after")
    restart_with(world, VisitedBlueGreen(stop))
    first = world.deploy(**ROUTED)
    stop.reached()
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_a_cancellation_survives_a_restart(world: World) -> None:
    stop = Stop("await-ready:before")
    restart_with(world, VisitedBlueGreen(stop))
    world.deployed()
    pods = set(world.pods())
    second = world.deploy(**VISITED)
    stop.reached()
    world.engine.stop()
    world.service.undeploy(world.namespace, second.id)
    restart_with(world, VisitedBlueGreen(Stop("never")))
    world.ended(second, Status.UNDEPLOYED)
    only_first(world, pods)


# --- undeploying --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True], ids=["which succeeds", "which fails"])
def test_undeploy_the_live_one_while_a_new_one_is_deployed(world: World, fails: bool) -> None:
    stop = Stop("verify-health:before")
    restart_with(world, VisitedBlueGreen(stop))
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deploy(**ROUTED)
    stop.reached()
    world.service.undeploy(world.namespace, first.id)
    if fails:
        uid = world.objects(CONTROLLER)["shop-2"]["metadata"]["uid"]
        world.eyes.delete(CONTROLLER, "shop-2", world.namespace, uid=uid)
    stop.go.set()
    world.ended(second, Status.FAILURE if fails else Status.DEPLOYED)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    if fails:
        assert (world.names(), world.pods()) == ({}, {})
    else:
        assert (names(world), world.live_version()) == (objects_of("2", route=True), "2")
        assert all(name.startswith("shop-2-") for name in world.pods())


def test_undeploy_first_then_deploy_is_a_first_deployment(world: World) -> None:
    first = world.deployed()
    world.service.undeploy(world.namespace, first.id)
    second = world.deploy()
    world.ended(second, Status.DEPLOYED)
    world.ended(first, Status.UNDEPLOYED)
    assert "replacing" not in world.log(second.id)
    world.quiet()
    assert (names(world), world.live_version()) == (objects_of("2"), "2")


def held(world: World) -> tuple[Deployment, Deployment]:
    """Version 2 is live, version 1 is held for ten minutes."""
    world.stop()
    world.settings = dataclasses.replace(world.settings, proxysleep=600.0)
    world.start()
    first, second = world.deployed(frontend=HOST), world.deployed(frontend=HOST)
    assert status(world, first) is Status.UNDEPLOYING
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app and (app.live, app.held) == (second.id, first.id)
    return first, second


def test_undeploy_a_held_version_leaves_the_live_one_alone(world: World) -> None:
    first, second = held(world)
    before = names(world)
    world.service.undeploy(world.namespace, first.id, purge=True)
    # It has its retirement already, and the requests under way their time.
    assert [o.kind for o in world.store.find(Operation, tag="open") if o.target.previous] == [OperationKind.RETIRE]
    assert (status(world, second), names(world), world.live_version()) == (Status.DEPLOYED, before, "2")
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    world.quiet()
    assert world.store.get(Deployment, first.id) is None
    assert (world.names(), world.pods()) == ({}, {})


def test_undeploy_right_after_the_switch_takes_the_held_one_along(world: World) -> None:
    first, second = held(world)
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app and (app.live, app.held, app.highest) == ("", "", 2)


def test_two_versions_may_be_held_at_once(world: World) -> None:
    first, second = held(world)
    third = world.deployed(frontend=HOST)
    assert {status(world, first), status(world, second)} == {Status.UNDEPLOYING}
    assert (world.names()["replicationcontrollers"], world.live_version()) == ({"shop-1", "shop-2", "shop-3"}, "3")
    world.service.undeploy(world.namespace, third.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})
    assert {d.status for d in world.store.find(Deployment)} == {Status.UNDEPLOYED}


def test_delete_with_purge_takes_the_record_and_all_that_hangs_on_it(world: World) -> None:
    failing(world)
    failed = world.ended(world.deploy(image="sample/web:missing"), Status.FAILURE)
    live = world.deployed(**HEALTHY)
    stop = Stop("await-ready:before")
    restart_with(world, VisitedBlueGreen(stop))
    moving = world.deploy(**VISITED)
    stop.reached()
    for deployment in (failed, moving, live):
        world.service.undeploy(world.namespace, deployment.id, purge=True)
    world.quiet()
    assert not world.store.find(Deployment) and not world.store.find(PlanRecord) and not world.store.find(HealthData)
    assert not world.store.read_log(live.id)
    assert (world.names(), world.pods()) == ({}, {})
    # The number of a record that is gone is not given again.
    assert world.deployed().version == "4"


def test_bulk_delete(world: World) -> None:
    failing(world)
    failed = world.ended(world.deploy(image="sample/web:missing"), Status.FAILURE)
    live, other = world.deployed(), world.deployed("other")
    assert world.service.delete_deployments(world.namespace, "shop")[0] == 1
    assert {d.id for d in world.store.find(Deployment)} == {live.id, other.id}
    assert world.live_version() == "2"
    with pytest.raises(NotFound):
        world.service.deployment(world.namespace, failed.id)
    assert world.service.delete_deployments(world.namespace, "shop", undeploy=True)[0] == 1
    world.quiet()
    assert {d.id for d in world.store.find(Deployment)} == {other.id}
    assert world.names() == {"replicationcontrollers": {"other-1"}, "services": {"other", "other-1"}}


def test_undeploying_what_has_ended_touches_nothing_of_the_live_one(world: World) -> None:
    first, second = world.deployed(newVersion="a"), world.deployed(newVersion="b")
    world.quiet()
    third = world.deployed(newVersion="a")
    world.quiet()
    pods = set(world.pods())
    # Of the same name as the live version, but not the same deployment.
    for ended in (first, second):
        world.service.undeploy(world.namespace, ended.id)
    world.quiet()
    assert (names(world), world.live_version(), set(world.pods())) == (objects_of("a"), "a", pods)
    assert status(world, third) is Status.DEPLOYED


# --- versions -----------------------------------------------------------------------------------------------------


def test_failed_versions_count(world: World) -> None:
    failing(world)
    world.deployed()
    assert world.ended(world.deploy(image="sample/web:missing"), Status.FAILURE).version == "2"
    assert world.deployed().version == "3"
    assert world.deployed(newVersion="17").version == "17"
    assert world.deployed().version == "18"


def test_numbers_that_only_the_cluster_knows_count(world: World) -> None:
    labels = {"app": "shop", "name": "shop-41", "version": "41"}
    body = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "shop-41", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": labels,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "sample/web:1"}]},
            },
        },
    }
    world.eyes.create(CONTROLLER, body, world.namespace)
    assert world.deployed().version == "42"


def test_redeploy_counts_on_but_a_named_version_comes_back_under_its_name(world: World) -> None:
    first = world.deployed()
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)
    again = world.ended(world.service.redeploy(world.namespace, first.id), Status.DEPLOYED)
    assert again.version == "2"
    named = world.deployed(newVersion="blue")
    world.deployed(newVersion="green")
    # At once: it is still draining, which is awaited.
    back = world.ended(world.service.redeploy(world.namespace, named.id), Status.DEPLOYED)
    assert (back.version, back.id != named.id) == ("blue", True)
    world.quiet()
    assert (names(world), world.live_version()) == (objects_of("blue"), "blue")


def test_counting_on_from_a_version_that_is_no_number_fails(world: World) -> None:
    world.deployed(newVersion="blue")
    found = world.ended(world.deploy(), Status.FAILURE)
    assert found.failure and found.failure["reason"] == "VersionNotANumber"
    assert "blue is not a number" in found.failure["message"] and found.version == ""
    assert (names(world), world.live_version()) == (objects_of("blue"), "blue")


def test_a_version_in_use_is_refused(world: World) -> None:
    stop = Stop("await-ready:before")
    world.settings = dataclasses.replace(world.settings, proxysleep=600.0)
    restart_with(world, VisitedBlueGreen(stop))
    world.deployed(newVersion="1")
    second = world.deployed(newVersion="2")
    found = world.ended(world.deploy(newVersion="2", replicas=2), Status.FAILURE)
    assert found.failure and found.failure["reason"] == "VersionInUse"
    assert found.failure["message"] == f"version 2 of shop is live (deployment {second.id})"
    assert "choose another newVersion" in found.failure["hint"]
    third = world.deploy(**VISITED, newVersion="3")
    stop.reached()
    fourth = world.deploy(newVersion="3")  # of another deploymentType
    stop.go.set()
    world.ended(third, Status.DEPLOYED)
    assert world.ended(fourth, Status.FAILURE).failure == {
        "reason": "VersionInUse",
        "message": f"version 3 of shop is live (deployment {third.id})",
        "hint": "choose another newVersion, or '#' to count on",
    }
    assert (world.names()["replicationcontrollers"], world.live_version()) == ({"shop-1", "shop-2", "shop-3"}, "3")


def test_a_version_that_is_live_from_the_same_descriptor_is_told_apart(world: World) -> None:
    """Whether it was stored anew or redeployed: a client may take it for a success."""
    first = world.deployed(newVersion="2")
    before = world.objects(CONTROLLER)
    for again in (world.deploy(newVersion="2"), world.service.redeploy(world.namespace, first.id)):
        assert world.ended(again, Status.FAILURE).failure == {
            "reason": "AlreadyLive",
            "message": f"version 2 of shop is live already, from the same descriptor (deployment {first.id})",
            "hint": "nothing is left to do; choose another newVersion, or '#' to count on, to start it anew",
        }
    assert world.objects(CONTROLLER) == before
    assert world.live_version() == "2"


def test_of_two_of_one_version_the_first_is_deployed(world: World) -> None:
    stored = [world.descriptor(newVersion="1") for _ in range(2)]
    first, second = (world.service.deploy(world.namespace, s.id) for s in stored)
    world.ended(first, Status.DEPLOYED)
    failure = world.ended(second, Status.FAILURE).failure
    assert failure and failure["reason"] == "AlreadyLive" and first.id in failure["message"]


# --- what is carried over, and what is dropped --------------------------------------------------------------------


def replicas(world: World, name: str) -> int:
    number: int = world.objects(CONTROLLER)[name]["spec"]["replicas"]
    return number


def test_replicas_are_carried_over_when_somebody_scaled(world: World) -> None:
    world.deployed(replicas=1)
    patched(world, "shop-1", {"spec": {"replicas": 3}})
    second = world.deployed(replicas=1)
    assert replicas(world, "shop-2") == 3
    assert "carrying over 3 replicas from version 1" in world.log(second.id)
    # The descriptor says something new: that counts.
    world.deployed(replicas=2)
    assert replicas(world, "shop-3") == 2
    patched(world, "shop-3", {"spec": {"replicas": 0}})
    world.until(lambda: not any(n.startswith("shop-3-") for n in world.pods()), "the pods of version 3 to go")
    world.deployed(replicas=2)
    assert replicas(world, "shop-4") == 1


ROUTE = {"services": {"shop", "shop-2"}, "ingresses": {"shop"}, "configmaps": {"headers"}}


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        ({"frontend": HOST}, {}, {"services": {"shop", "shop-2"}}),
        ({"frontend": HOST}, {"ports": []}, {}),
        ({}, {"ports": []}, {}),
        ({"ports": []}, {}, {"services": {"shop", "shop-2"}}),
        ({"ports": []}, {"frontend": HOST}, ROUTE),
    ],
    ids=["the frontend", "frontend and ports", "the ports", "a port is new", "port and frontend are new"],
)
def test_what_a_new_descriptor_drops_goes(
    world: World, before: dict[str, Any], after: dict[str, Any], left: dict[str, set[str]]
) -> None:
    first = world.deployed(**before)
    second = world.deployed(**after)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert names(world) == {"replicationcontrollers": {"shop-2"}, **left}
    # The next one finds its way from there, and so does the undeployment.
    third = world.deployed(**before)
    world.ended(second, Status.UNDEPLOYED)
    world.service.undeploy(world.namespace, third.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_what_is_dropped_goes_at_once_and_not_with_the_held_version(world: World) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, proxysleep=600.0)
    world.start()
    first = world.deployed(frontend=HOST)
    world.deployed(ports=[])
    dropped = world.until(lambda: not any(o.target.drop for o in world.store.find(Operation, tag="open")), "the drop")
    assert dropped and status(world, first) is Status.UNDEPLOYING
    assert world.names() == {"replicationcontrollers": {"shop-1", "shop-2"}, "services": {"shop-1"}}


def test_an_app_without_ports(world: World) -> None:
    failing(world)
    first = world.deployed(ports=[])
    assert world.names() == {"replicationcontrollers": {"shop-1"}}
    second = world.deployed(ports=[])
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-2"}}
    world.ended(world.deploy(ports=[], image="sample/web:missing"), Status.FAILURE)
    assert world.names() == {"replicationcontrollers": {"shop-2"}}
    world.service.undeploy(world.namespace, second.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


# --- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["start-workload:after", "verify-health:before", "switch-route:after"])
def test_a_service_that_is_stopped_goes_on_where_it_was(world: World, point: str) -> None:
    stop = Stop(point)
    restart_with(world, VisitedBlueGreen(stop))
    world.deployed(**HEALTHY, frontend=HOST)
    second = world.deploy(**ROUTED)
    stop.reached()
    world.stop()
    assert stop.shut.is_set()
    restart_with(world, VisitedBlueGreen(Stop("never")))
    world.ended(second, Status.DEPLOYED)
    assert "resumed" in world.log(second.id)
    world.quiet()
    assert (names(world), world.live_version()) == (objects_of("2", route=True), "2")


def test_a_service_that_is_stopped_while_it_undoes_goes_on_undoing(world: World) -> None:
    stop = Stop("switch-route:undo")

    def visit(work: Work, point: str) -> None:
        if point == "move-service:before" and work.plan.version == "2":
            raise ValueError("of the plugin")
        stop(work, point)

    restart_with(world, VisitedBlueGreen(visit))
    world.deployed(**HEALTHY, frontend=HOST)
    pods = set(world.pods())
    second = world.deploy(**ROUTED)
    stop.reached()
    world.stop()
    restart_with(world, VisitedBlueGreen(Stop("never")))
    world.ended(second, Status.FAILURE)
    only_first(world, pods, route=True)


def test_a_retirement_that_waits_is_waited_for_after_a_restart(world: World) -> None:
    first, second = held(world)
    world.stop()
    world.settings = dataclasses.replace(world.settings, proxysleep=0.0)
    world.start()
    retire = next(o for o in world.store.find(Operation, tag="open") if o.kind is OperationKind.RETIRE)
    assert (retire.deployment, retire.due > time.time() + 500) == (first.id, True)
    world.deployed(frontend=HOST)
    world.ended(second, Status.UNDEPLOYED)
    assert status(world, first) is Status.UNDEPLOYING


def test_a_queue_survives_a_restart(world: World) -> None:
    stop = Stop("await-ready:before")
    restart_with(world, VisitedBlueGreen(stop))
    asked = [world.deploy(**VISITED) for _ in range(3)]
    stop.reached()
    world.stop()
    restart_with(world, VisitedBlueGreen(Stop("never")))
    world.quiet()
    found = [world.store.get(Deployment, d.id) for d in asked]
    assert [(d.version, d.status) for d in found if d] == [
        ("1", Status.UNDEPLOYED),
        ("2", Status.UNDEPLOYED),
        ("3", Status.DEPLOYED),
    ]
    assert world.live_version() == "3"

"""Rollback in one call, to a warm version and to one that is gone; and by itself, when the new version fails."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.clock import SteadyClock
from deployer.core.errors import Conflict, NotFound, QueueFull
from deployer.core.model.kind import CONTROLLER, EVENT, HTTP_ROUTE, INGRESS, POD, SERVICE
from deployer.core.model.records import Deployment, Operation, OperationKind, OperationState, Status
from deployer.core.ports.store import Change, Lease, Update
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.sandbox import Load
from support import late
from support.world import GATEWAY, HEALTHY, NGINX, World

HOST = "shop.example.com"


@pytest.fixture
def make_world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[Any]:
    """A running Deployer with these settings in an empty namespace."""
    with contextlib.ExitStack() as made:

        def make(entry_points: Sequence[importlib.metadata.EntryPoint] | None = None, **settings: Any) -> World:
            world = World(cluster, tmp_path, namespace, **settings)
            world.entry_points = entry_points
            world.start()
            made.callback(world.close)
            return world

        yield make


@pytest.fixture
def warm(make_world: Any) -> World:
    """A service that keeps the old version for a long time."""
    world: World = make_world(proxysleep=120.0)
    return world


def rollbacks(world: World) -> RollbackCommands:
    return RollbackCommands(world.service)


def record(world: World, id: str) -> Deployment:
    found = world.store.get(Deployment, id)
    assert found is not None
    return found


def two_versions(world: World) -> tuple[Deployment, Deployment]:
    """The first one is warm, the second one live."""
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend=HOST)
    assert world.answer(HOST)[1].startswith("version 2 ")
    return first, second


def test_a_warm_version_is_switched_back_to_with_the_pods_that_run(warm: World) -> None:
    first, second = two_versions(warm)
    pods = {name for name in warm.pods() if name.startswith("shop-1-")}
    asked = rollbacks(warm).roll_back(warm.namespace, "shop", by="ann")
    assert (asked.deployment.id, asked.warm) == (first.id, True)
    warm.ended(first, Status.DEPLOYED)
    assert warm.answer(HOST)[1].startswith("version 1 ")
    assert warm.live_version() == "1"
    assert pods <= set(warm.pods())
    gone = record(warm, second.id)
    assert (gone.status, (gone.failure or {})["reason"]) == (Status.FAILURE, "RolledBack")
    assert "rolled back to version 1 by ann" in (gone.failure or {})["message"]


def test_the_version_that_goes_is_retired_and_leaves_nothing(make_world: Any) -> None:
    world: World = make_world(proxysleep=3.0)
    first, _ = two_versions(world)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(first, Status.DEPLOYED)
    world.quiet()
    names = world.names()
    assert (names["replicationcontrollers"], names["services"]) == ({"shop-1"}, {"shop", "shop-1"})
    assert world.answer(HOST)[1].startswith("version 1 ")
    third = world.deployed(**HEALTHY, frontend=HOST)
    assert third.version == "3"


def test_a_version_that_is_gone_is_deployed_as_it_was(make_world: Any) -> None:
    world: World = make_world(proxysleep=0.0)
    first, second = two_versions(world)
    world.quiet()
    assert record(world, first.id).status is Status.UNDEPLOYED
    asked = rollbacks(world).roll_back(world.namespace, "shop")
    assert not asked.warm
    world.ended(asked.deployment, Status.DEPLOYED)
    assert record(world, asked.deployment.id).rollback_of == first.id
    assert world.answer(HOST)[1].startswith("version 1 ")
    world.quiet()
    assert record(world, second.id).status is Status.UNDEPLOYED


def test_what_is_live_and_what_never_was_is_refused(warm: World) -> None:
    first, second = two_versions(warm)
    with pytest.raises(Conflict, match="is live already"):
        rollbacks(warm).roll_back(warm.namespace, "shop", second.id)
    with pytest.raises(NotFound):
        rollbacks(warm).roll_back(warm.namespace, "shop", "00000000-0000-4000-8000-000000000000")
    failed = warm.deploy(**HEALTHY, frontend=HOST, env={"FAIL": "1"})
    warm.ended(failed, Status.FAILURE)
    with pytest.raises(Conflict, match="never live"):
        rollbacks(warm).roll_back(warm.namespace, "shop", failed.id)
    assert record(warm, first.id).status is Status.UNDEPLOYING


def test_two_at_once_are_one(warm: World) -> None:
    first, _ = two_versions(warm)
    rollbacks(warm).roll_back(warm.namespace, "shop")
    with pytest.raises(Conflict):
        rollbacks(warm).roll_back(warm.namespace, "shop", first.id)
    warm.ended(first, Status.DEPLOYED)


def test_a_rollback_survives_a_restart_at_every_write(warm: World) -> None:
    first, _ = two_versions(warm)
    for write in range(1, 6):
        if record(warm, first.id).status is Status.DEPLOYED:
            break
        warm.kill(at=write)
        if write == 1:
            rollbacks(warm).roll_back(warm.namespace, "shop")
        warm.until(lambda: warm.died.is_set() or warm.engine.idle() or None, "the service to die")
        warm.restart()
    warm.ended(first, Status.DEPLOYED)
    assert warm.answer(HOST)[1].startswith("version 1 ")


# --- half-way -----------------------------------------------------------------------------------------------------

STABLE = {**NGINX, "mode": "stable-service"}
IN_VAIN = {"deploymentType": "late", "strategyOptions": {"end": "succeeds", "back": "fails"}}
"""A version to which no rollback succeeds: everything leads to it again when that fails."""


@pytest.mark.parametrize("table", [NGINX, STABLE], ids=["versioned", "stable"])
def test_a_rollback_that_fails_is_undone_and_the_version_is_as_warm_as_before(
    make_world: Any, table: dict[str, Any]
) -> None:
    late_too = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    world: World = make_world(entry_points=late_too, plugins={"ingress_nginx": table})
    first = world.deployed(**HEALTHY, **IN_VAIN, frontend=HOST)
    world.quiet()
    second = world.deployed(**HEALTHY, frontend=HOST, keepWarm=600.0)
    (retirement,) = retirements(world)
    before, pods = leads_to(world), set(world.pods())
    rollbacks(world).roll_back(world.namespace, "shop")
    world.until(lambda: rolled_back(world), "the rollback to end")

    assert (record(world, first.id).status, record(world, second.id).status) == (Status.UNDEPLOYING, Status.DEPLOYED)
    for id in (first.id, second.id):
        assert "the rollback to version 1 failed, and nothing has changed: the last step fails" in world.log(id)
    assert (leads_to(world), world.live_version(), set(world.pods())) == (before, "2", pods)
    assert world.answer(HOST)[1].startswith("version 2 ")
    failed = record(world, first.id).failure or {}
    assert (failed["reason"], "the last step fails" in failed["message"]) == ("RollbackFailed", True)
    entry = world.apps.history(world.namespace, "shop", limit=9)[0][0]
    assert (entry["what"], entry["outcome"]) == ("rollback", "rollbackfailed")
    assert "the last step fails" in entry["failure"]["message"]
    world.until(lambda: "RollbackFailed" in {e["reason"] for e in world.objects(EVENT).values()}, "an Event of it")
    (again,) = retirements(world)
    assert (again.deployment, again.target) == (retirement.deployment, retirement.target)
    assert again.due == pytest.approx(retirement.due, abs=1.0)

    world.service.undeploy(world.namespace, second.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})
    assert record(world, first.id).status is Status.UNDEPLOYED


def test_with_a_stable_route_only_the_service_moves_back(make_world: Any) -> None:
    world: World = make_world(proxysleep=120.0, plugins={"ingress_nginx": STABLE})
    first, _ = two_versions(world)
    before = world.objects(INGRESS)["shop"]
    load = Load(world.cluster.ingress, host=HOST, rate=100).start()
    load.wait_for(lambda report: report.by_version.get("2", 0) > 0, 20)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(first, Status.DEPLOYED)
    load.wait_for(lambda report: report.by_version.get("1", 0) > 20, 20)
    report = load.stop()
    assert (report.failed, set(report.by_version)) == (0, {"1", "2"})
    after = world.objects(INGRESS)["shop"]
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
    assert world.live_version() == "1"


@pytest.mark.parametrize("ends", [Status.DEPLOYED, Status.UNDEPLOYING])
def test_recreate_starts_the_version_once_more_from_its_objects(make_world: Any, ends: Status) -> None:
    """Within its drain time, which is as long as what kept it warm; or the live one is started again when it fails."""
    world: World = make_world(proxysleep=120.0, timeout=3.0)
    fields = {**HEALTHY, "deploymentType": "recreate", "frontend": HOST}
    first = world.deployed(**fields)
    second = world.deployed(**fields)
    assert {name.rsplit("-", 1)[0] for name in world.pods()} == {"shop-2"}
    assert {o.deployment for o in retirements(world)} == {first.id}
    if ends is not Status.DEPLOYED:
        fault(world)
    asked = rollbacks(world).roll_back(world.namespace, "shop")
    assert asked.warm
    world.until(lambda: rolled_back(world), "the rollback to end")
    assert record(world, first.id).status is ends
    serves = "1" if ends is Status.DEPLOYED else "2"
    assert (world.live_version(), world.answer(HOST)[1].split()[:2]) == (serves, ["version", serves])
    world.until(lambda: {name.rsplit("-", 1)[0] for name in world.pods()} == {f"shop-{serves}"}, "the others to end")
    gone = record(world, second.id)
    assert gone.status is (Status.FAILURE if ends is Status.DEPLOYED else Status.DEPLOYED)


def rolled_back(world: World) -> bool:
    """Is no rollback left to do?"""
    return not any(o.kind is OperationKind.ROLLBACK for o in world.store.find(Operation, tag="open"))


def retirements(world: World) -> list[Operation]:
    """Those that are left to do, of versions."""
    found = world.store.find(Operation, tag="open")
    return [o for o in found if o.kind is OperationKind.RETIRE and o.target.previous is not None]


def leads_to(world: World) -> list[Any]:
    """What the Ingress leads to in public, and of which deployments it and the Service are."""
    route, service = world.objects(INGRESS)["shop"], world.objects(SERVICE)["shop"]
    rules = [rule for rule in route["spec"]["rules"] if not rule["host"].endswith(".hold.invalid")]
    owners = [found["metadata"]["annotations"]["kube-deployer/deployment"] for found in (route, service)]
    return [rules, service["spec"]["selector"], *owners]


def fault(world: World) -> None:
    """Version 1 would not be healthy any more: its image is one that crashes."""
    controller = world.objects(CONTROLLER)["shop-1"]
    controller["spec"]["template"]["spec"]["containers"][0]["image"] = "sample/web:crash"
    world.eyes.replace(CONTROLLER, "shop-1", controller, world.namespace)


# --- by itself ----------------------------------------------------------------------------------------------------


def test_a_version_that_crashes_after_the_switch_is_rolled_back(warm: World) -> None:
    first = warm.deployed(**HEALTHY, frontend=HOST)
    second = warm.deployed(**HEALTHY, frontend=HOST, env={"CRASH_AFTER": "2"})
    warm.ended(first, Status.DEPLOYED)
    gone = record(warm, second.id)
    assert (gone.status, (gone.failure or {})["reason"]) == (Status.FAILURE, "RolledBack")
    assert warm.answer(HOST)[1].startswith("version 1 ")
    assert not [o for o in warm.store.find(Operation, tag="open") if o.kind is OperationKind.WATCH]


# --- what comes after it, while the version that was rolled back still drains ---------------------------------------


def test_what_was_rolled_back_leaves_nothing_when_its_record_is_deleted_meanwhile(make_world: Any) -> None:
    world: World = make_world(proxysleep=3.0)
    first, second = two_versions(world)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(first, Status.DEPLOYED)
    world.service.delete_deployments(world.namespace, "shop")
    assert any(name.startswith("shop-2-") for name in world.pods())
    world.quiet()
    assert world.names()["replicationcontrollers"] == {"shop-1"}
    assert world.store.get(Deployment, second.id) is None
    assert world.answer(HOST)[1].startswith("version 1 ")


def test_a_deletion_asked_for_at_the_very_end_of_draining_is_not_lost(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: World = make_world(proxysleep=0.5)
    first, second = two_versions(world)
    commit, asked = world.store.commit, threading.Event()

    def late(*changes: Change, fence: Lease | None = None) -> int:
        ends = any(
            isinstance(change, Update)
            and isinstance(change.record, Operation)
            and change.record.deployment == second.id
            and change.record.kind is OperationKind.RETIRE
            and change.record.state is OperationState.DONE
            for change in changes
        )
        if ends and not asked.is_set():
            asked.set()  # everything was read for the commit by now
            world.service.delete_deployments(world.namespace, "shop")
        return commit(*changes, fence=fence)

    monkeypatch.setattr(world.store, "commit", late)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(first, Status.DEPLOYED)
    world.quiet()
    assert asked.is_set()
    assert world.store.get(Deployment, second.id) is None
    assert world.answer(HOST)[1].startswith("version 1 ")


def test_what_was_rolled_back_drains_although_its_deletion_is_asked_for(warm: World) -> None:
    first, second = two_versions(warm)
    rollbacks(warm).roll_back(warm.namespace, "shop")
    warm.ended(first, Status.DEPLOYED)
    warm.service.undeploy(warm.namespace, second.id, purge=True)
    opened = [o.kind for o in warm.store.find(Operation, tag="open") if o.deployment == second.id]
    assert OperationKind.UNDEPLOY not in opened
    assert record(warm, second.id).purge


def test_a_named_version_is_deployed_again_after_its_rollback(make_world: Any) -> None:
    world: World = make_world(proxysleep=3.0)
    first = world.deployed(**HEALTHY, frontend=HOST, newVersion="1.0")
    world.deployed(**HEALTHY, frontend=HOST, newVersion="2.0")
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(first, Status.DEPLOYED)
    world.deployed(**HEALTHY, frontend=HOST, newVersion="2.0")
    assert world.answer(HOST)[1].startswith("version 2-0 ")


def test_asking_twice_for_a_version_that_is_gone_does_not_cancel_the_rollback(make_world: Any) -> None:
    world: World = make_world(proxysleep=0.0)
    first, second = two_versions(world)
    world.quiet()
    asked = rollbacks(world).roll_back(world.namespace, "shop")
    with pytest.raises(Conflict, match="a rollback of shop is under way already"):
        rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(asked.deployment, Status.DEPLOYED)
    assert record(world, second.id).status is not Status.DEPLOYED
    assert record(world, asked.deployment.id).rollback_of == first.id


def test_a_second_rollback_goes_on_to_the_version_before(make_world: Any) -> None:
    """Not to what was rolled back, whose pods still run."""
    world: World = make_world(proxysleep=0.0, keep_warm=0.0)
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend=HOST)
    world.quiet()
    third = world.deployed(**HEALTHY, frontend=HOST, keepWarm=120)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(second, Status.DEPLOYED)
    with pytest.raises(Conflict, match="version 3 of shop was rolled back and still drains"):
        rollbacks(world).roll_back(world.namespace, "shop", third.id)
    asked = rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(asked.deployment, Status.DEPLOYED)
    assert record(world, asked.deployment.id).rollback_of == first.id
    assert world.answer(HOST)[1].startswith("version 1 ")


def test_what_was_cancelled_before_it_was_live_is_refused(warm: World) -> None:
    two_versions(warm)
    cancelled = warm.deploy(**HEALTHY, frontend=HOST, env={"SLOW_START": "30"})
    warm.service.undeploy(warm.namespace, cancelled.id)
    warm.ended(cancelled, Status.UNDEPLOYED)
    with pytest.raises(Conflict, match="never live"):
        rollbacks(warm).roll_back(warm.namespace, "shop", cancelled.id)


def test_a_version_that_is_being_undeployed_cannot_be_gone_back_from(warm: World) -> None:
    first, second = two_versions(warm)
    warm.kill(at=1)
    warm.service.undeploy(warm.namespace, second.id)
    for to in ("", first.id, second.id):
        with pytest.raises(Conflict, match="version 2 of shop is being undeployed"):
            rollbacks(warm).roll_back(warm.namespace, "shop", to)
    again = rollbacks(warm).redeploy(warm.namespace, first.id)
    assert again.id != first.id
    warm.restart()
    warm.ended(again, Status.DEPLOYED)


@pytest.mark.parametrize("scaled", [False, True], ids=["deleted", "scaled to 0"])
def test_a_version_that_is_not_there_any_more_is_deployed_anew_at_the_next_call(warm: World, scaled: bool) -> None:
    first, second = two_versions(warm)
    if scaled:
        warm.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": 0}}, warm.namespace)
    else:
        uid = warm.eyes.get(CONTROLLER, "shop-1", warm.namespace)["metadata"]["uid"]
        warm.eyes.delete(CONTROLLER, "shop-1", warm.namespace, uid=uid, propagation="Background")
    rollbacks(warm).roll_back(warm.namespace, "shop")
    warm.ended(first, Status.UNDEPLOYED)
    assert record(warm, second.id).status is Status.DEPLOYED
    asked = rollbacks(warm).roll_back(warm.namespace, "shop")
    assert not asked.warm
    warm.ended(asked.deployment, Status.DEPLOYED)
    assert warm.answer(HOST)[1].startswith("version 1 ")


def test_a_version_whose_removal_has_begun_is_not_gone_back_to(warm: World) -> None:
    first, second = two_versions(warm)
    warm.kill(at=1)
    retirement = next(o for o in warm.store.find(Operation, tag="open") if o.deployment == first.id)
    warm.store.commit(Update(dataclasses.replace(retirement, state=OperationState.RUNNING)))
    with pytest.raises(Conflict, match="version 1 of shop is being removed"):
        rollbacks(warm).roll_back(warm.namespace, "shop")
    again = rollbacks(warm).redeploy(warm.namespace, first.id)
    assert again.id != first.id
    warm.restart()
    warm.ended(again, Status.DEPLOYED)
    assert record(warm, second.id).status is not Status.FAILURE


def test_a_service_that_comes_back_late_looks_before_it_removes_the_old_version(make_world: Any) -> None:
    """The new version is down, and the time for which the old one was to be kept is over."""
    world: World = make_world(proxysleep=4.0)
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend=HOST, env={"CRASH_AFTER": "1"})
    world.stop()
    world.until(lambda: crashed(world) or None, "the new version to wait for its next restart")
    world.clock = lambda: SteadyClock(wall=lambda: time.time() + 60.0)
    world.start()
    world.ended(first, Status.DEPLOYED)
    assert (record(world, second.id).failure or {})["reason"] == "RolledBack"
    assert world.answer(HOST)[1].startswith("version 1 ")


def crashed(world: World) -> bool:
    """Does version 2 wait to be started again, not for the first time?"""
    for pod in world.eyes.list(POD, world.namespace, {"version": "2"})[0]:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            if "waiting" in (status.get("state") or {}) and status["restartCount"]:
                return True
    return False


def test_a_rollback_that_cannot_be_queued_cancels_nothing(make_world: Any) -> None:
    """To a version that is gone, while another one is being deployed and the queue is full."""
    world: World = make_world(proxysleep=0.0, queue_limit=1)
    first, _ = two_versions(world)
    world.quiet()
    third = world.deploy(**HEALTHY, frontend=HOST, env={"SLOW_START": "3"})
    with pytest.raises(QueueFull):
        rollbacks(world).roll_back(world.namespace, "shop", first.id)
    assert record(world, third.id).status is Status.DEPLOYING
    world.ended(third, Status.DEPLOYED)


# --- cancelled ------------------------------------------------------------------------------------------------------


def test_a_rollback_is_cancelled_like_a_deployment(make_world: Any) -> None:
    """At its last step, when everything leads to the version that should have come back; a restart forgets nothing."""
    late_too = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    world: World = make_world(entry_points=late_too, proxysleep=120.0)
    waits = {"deploymentType": "late", "strategyOptions": {"end": "succeeds", "back": "waits"}}
    first = world.deployed(**HEALTHY, **waits, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend=HOST)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.until(lambda: late.WAITING in world.log(first.id), "the last step of the rollback")
    assert world.answer(HOST)[1].startswith("version 1 ")
    world.kill()
    world.service.undeploy(world.namespace, first.id)
    world.restart()
    world.until(lambda: rolled_back(world), "the rollback to end")
    ended = record(world, first.id)
    assert (ended.status, ended.failure, ended.unwanted) == (Status.UNDEPLOYING, None, False)
    assert record(world, second.id).status is Status.DEPLOYED
    assert world.answer(HOST)[1].startswith("version 2 ")
    for id in (first.id, second.id):
        assert "the rollback to version 1 was cancelled, and nothing has changed" in world.log(id)
    assert [o.deployment for o in retirements(world)] == [first.id]


def test_deleting_all_of_an_app_ends_a_rollback_too(make_world: Any) -> None:
    late_too = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    world: World = make_world(entry_points=late_too, proxysleep=120.0)
    waits = {"deploymentType": "late", "strategyOptions": {"end": "succeeds", "back": "waits"}}
    first = world.deployed(**HEALTHY, **waits, frontend=HOST)
    world.deployed(**HEALTHY, frontend=HOST)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.until(lambda: late.WAITING in world.log(first.id), "the last step of the rollback")
    world.service.delete_deployments(world.namespace, "shop", undeploy=True)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})
    assert world.store.find(Deployment, namespace=world.namespace) == []


# --- what has changed since -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [True, False])
def test_with_another_ingress_provider_by_now_the_route_goes_over(make_world: Any, warm: bool) -> None:
    plugins = {"ingress_nginx": NGINX, "ingress_gateway": GATEWAY}
    world: World = make_world(proxysleep=120.0 if warm else 0.0, plugins=plugins)
    _, second = two_versions(world)
    if not warm:
        world.quiet()
    world.stop()
    world.settings = dataclasses.replace(world.settings, ingress="gateway")
    world.start()
    asked = rollbacks(world).roll_back(world.namespace, "shop")
    assert asked.warm is warm
    world.ended(asked.deployment, Status.DEPLOYED)
    assert world.answer(HOST)[1].startswith("version 1 ")
    assert set(world.objects(HTTP_ROUTE)) == {"shop"}
    assert record(world, second.id).status in (Status.FAILURE, Status.UNDEPLOYING, Status.UNDEPLOYED)


def test_a_host_that_another_app_took_since_is_not_taken_back(make_world: Any) -> None:
    world: World = make_world(proxysleep=0.0)
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend="other.example.com")
    world.quiet()
    world.service.descriptors.delete(world.namespace, first.descriptor_id)
    world.deployed("cart", **HEALTHY, frontend=HOST)
    asked = rollbacks(world).roll_back(world.namespace, "shop")
    failed = world.ended(asked.deployment, Status.FAILURE).failure or {}
    assert (failed["reason"], f"host {HOST} belongs to app cart" in failed["message"]) == ("HostTaken", True)
    assert record(world, second.id).status is Status.DEPLOYED
    assert world.answer("other.example.com")[1].startswith("version 2 ")


def test_what_was_purged_is_not_known_any_more(make_world: Any) -> None:
    world: World = make_world(proxysleep=0.0)
    first, _ = two_versions(world)
    world.quiet()
    world.service.delete_deployments(world.namespace, "shop")
    with pytest.raises(NotFound):
        rollbacks(world).roll_back(world.namespace, "shop", first.id)
    with pytest.raises(Conflict, match="no earlier version of shop is known that was live"):
        rollbacks(world).roll_back(world.namespace, "shop")


@pytest.mark.parametrize("mode", ["versioned", "stable-service", "gateway"])
def test_nothing_of_a_canary_that_went_live_gets_traffic_after_the_way_back(make_world: Any, mode: str) -> None:
    """Its part of the route is there until its predecessor is drained, which is not over when it is rolled back."""
    nginx = STABLE if mode == "stable-service" else NGINX
    plugins = {"ingress_nginx": nginx, "ingress_gateway": GATEWAY}
    world: World = make_world(proxysleep=120.0, plugins=plugins, ingress="gateway" if mode == "gateway" else "nginx")
    canary = {"deploymentType": "canary", "strategyOptions": {"steps": [{"weight": 30, "pause": 0.1}]}}
    first = world.deployed(**HEALTHY, frontend=HOST)
    world.deployed(**HEALTHY, **canary, frontend=HOST)
    rollbacks(world).roll_back(world.namespace, "shop")
    world.ended(first, Status.DEPLOYED)
    assert {world.answer(HOST)[1].split()[1] for _ in range(60)} == {"1"}


# --- by itself, with every strategy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["recreate", "canary"])
def test_whatever_the_strategy_a_version_that_fails_is_rolled_back(warm: World, strategy: str) -> None:
    options = {"strategyOptions": {"steps": [{"weight": 50, "pause": 0.1}]}} if strategy == "canary" else {}
    probe = {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1}
    fields = {
        **HEALTHY,
        "deploymentType": strategy,
        **options,
        "probe": probe,
        "frontend": HOST,
        "replicas": 2,
        "keepWarm": 600,
    }
    first = warm.deployed(**fields)
    second = warm.deployed(**fields, env={"CRASH_AFTER": "6"})
    warm.ended(first, Status.DEPLOYED)
    assert (record(warm, second.id).failure or {})["reason"] == "RolledBack"
    assert warm.answer(HOST)[1].startswith("version 1 ")


def test_health_that_turns_bad_while_nothing_restarts_is_enough(make_world: Any) -> None:
    late_too = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    world: World = make_world(entry_points=late_too, proxysleep=120.0, watch_interval=1.0)
    first = world.deployed(**HEALTHY, frontend=HOST)
    sick = world.settings.data_dir / "sick"
    fields = {**HEALTHY, "healthCheckType": "late", "healthCheckOptions": {"sick": str(sick)}}
    second = world.deployed(**fields, frontend=HOST)
    sick.touch()
    world.ended(first, Status.DEPLOYED)
    assert "1 of 1 pods are not healthy any more: it is ill" in (record(world, second.id).failure or {})["message"]


def test_what_was_rolled_back_leaves_the_route_before_its_service_goes(make_world: Any) -> None:
    """Also when the version that came back has been replaced, and come back again, since."""
    plugins = {"ingress_nginx": NGINX, "ingress_gateway": GATEWAY}
    world: World = make_world(proxysleep=4.0, ingress="gateway", plugins=plugins)
    first = world.deployed(**HEALTHY, frontend=HOST)
    for _ in range(2):
        second = world.deployed(**HEALTHY, frontend=HOST)
        rollbacks(world).roll_back(world.namespace, "shop")
        world.ended(first, Status.DEPLOYED)
    assert second.version == "3"
    world.deployed(**HEALTHY, frontend=HOST)  # while both drain
    for service in ("shop-2", "shop-3"):
        world.until(lambda name=service: name not in world.objects(SERVICE) or None, f"{service} to go")
        rules = world.objects(HTTP_ROUTE)["shop"]["spec"]["rules"]
        assert service not in {backend["name"] for rule in rules for backend in rule["backendRefs"]}

"""Pods that take their time to end after an undo or an undeployment: they end beside whatever comes next."""

from __future__ import annotations

import dataclasses
import time

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.model.kind import CONTROLLER, POD, SERVICE
from deployer.core.model.records import App, Deployment, Operation, OperationKind, Plan, Status
from deployer.core.operations.execution import clearing
from deployer.kube.informer import Informers
from deployer.toolkit.steps import removal, start
from support.world import HEALTHY, PATIENCE, World, describe

HOLD = "example.com/hold"
SICK = {**HEALTHY, "env": {"FAIL": "1"}}


@pytest.fixture(autouse=True)
def impatient(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sick stays so, and pods with a finalizer do not end, however long anybody waits."""
    monkeypatch.setattr(clearing, "PODS_PATIENCE", 0.3)
    world.stop()
    world.settings = dataclasses.replace(world.settings, timeout=1.5)
    world.start()


def keep_pods(world: World, version: str, *finalizers: str) -> None:
    """Somebody's finalizers on a version's pods keep them from ending; none lets them go."""
    for name, pod in world.pods().items():
        if pod["metadata"]["labels"]["version"] == version:
            patch = {"metadata": {"finalizers": list(finalizers) or None}}
            world.eyes.patch(POD, name, patch, world.namespace)


def versions(world: World) -> set[str]:
    return {pod["metadata"]["labels"]["version"] for pod in world.pods().values()}


def said(world: World, deployment: Deployment, line: str) -> None:
    world.until(lambda: line in world.log(deployment.id), f"the line {line!r}")


def begun(world: World, **fields: object) -> Deployment:
    """A deployment whose pods are held by a finalizer before its health check fails."""
    deployment = world.deploy(**fields)
    said(world, deployment, "not healthy yet")
    version = world.store.get(Deployment, deployment.id).version  # type: ignore[union-attr]
    keep_pods(world, version, HOLD)
    return deployment


def end_pods(world: World, version: str) -> None:
    """Let them go, and wait until nothing is left to do."""
    keep_pods(world, version)
    world.quiet()


def test_a_failed_version_whose_pods_take_their_time_holds_nobody_up(world: World) -> None:
    world.deployed(**HEALTHY)
    failed = world.ended(begun(world, **SICK), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "Unhealthy"
    assert world.names() == {"replicationcontrollers": {"shop-1"}, "services": {"shop", "shop-1"}}
    third = world.deployed(**HEALTHY)
    assert third.version == "3" and "2" in versions(world)
    said(world, failed, "waiting for its pods to end, 1 left")
    end_pods(world, "2")
    assert versions(world) == {"3"}
    assert world.log(failed.id).endswith("its pods have ended\n")
    assert world.store.get(Plan, failed.id) is None


def test_a_cancelled_one_is_undeployed_when_its_pods_have_ended(world: World) -> None:
    world.deployed(**HEALTHY)
    cancelled = begun(world, **SICK)
    world.service.undeploy(world.namespace, cancelled.id, purge=True)
    said(world, cancelled, "waiting for its pods to end, 1 left")
    world.deployed(**HEALTHY)
    found = world.store.get(Deployment, cancelled.id)
    assert found is not None and found.status is Status.UNDEPLOYING
    end_pods(world, "2")
    assert world.store.get(Deployment, cancelled.id) is None
    assert versions(world) == {"3"}


def test_what_still_ends_survives_a_restart_and_is_said_once(world: World) -> None:
    failed = world.ended(begun(world, **SICK), Status.FAILURE)
    said(world, failed, "waiting for its pods to end, 1 left")
    world.stop()
    world.start()
    world.deployed(**HEALTHY)
    end_pods(world, "1")
    assert world.log(failed.id).count("waiting for its pods to end, 1 left") == 1
    assert versions(world) == {"2"}


def test_pods_that_never_end_after_a_failure_are_told_of_and_never_forced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PODS_GONE", 0.5)
    failed = world.ended(begun(world, **SICK), Status.FAILURE)
    said(world, failed, "and 1 have not, like shop-1-")
    assert "check whether a finalizer" in world.log(failed.id)
    end_pods(world, "1")
    assert world.pods() == {}


@pytest.mark.parametrize("how", ["one", "all"])
def test_a_failed_one_can_be_deleted_while_its_pods_end(world: World, how: str) -> None:
    failed = world.ended(begun(world, **SICK), Status.FAILURE)
    said(world, failed, "waiting for its pods to end, 1 left")
    if how == "one":
        world.service.undeploy(world.namespace, failed.id, purge=True)
    else:
        world.service.delete_deployments(world.namespace, "shop")
    world.until(lambda: world.store.get(Deployment, failed.id) is None, "the record to be gone")
    world.deployed(**HEALTHY)
    end_pods(world, "1")
    assert world.log(failed.id).count("its pods have ended") <= (how == "one")
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}


def test_an_undeployed_version_whose_pods_take_their_time_holds_nobody_up(world: World) -> None:
    first = world.deployed(**HEALTHY)
    keep_pods(world, "1", HOLD)
    world.service.undeploy(world.namespace, first.id)
    said(world, first, "waiting for its pods to end, 1 left")
    second = world.deployed(**HEALTHY)
    assert (second.version, world.live_version()) == ("2", "2")
    assert "replacing" not in world.log(second.id)
    assert world.store.get(Deployment, first.id).status is Status.UNDEPLOYING  # type: ignore[union-attr]
    # A version's Service goes after its pods, and nothing of the new one goes with them.
    assert set(world.objects(SERVICE)) == {"shop", "shop-1", "shop-2"}
    end_pods(world, "1")
    assert world.ended(first, Status.UNDEPLOYED)
    assert world.live_version() == "2" and versions(world) == {"2"}
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app and (app.live, app.held) == (second.id, "")


def test_an_undeployment_that_failed_to_end_its_pods_touches_nothing_of_the_next_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PODS_GONE", 0.5)
    first = world.deployed(**HEALTHY)
    keep_pods(world, "1", HOLD)
    world.service.undeploy(world.namespace, first.id)
    said(world, first, "waiting for its pods to end, 1 left")
    second = world.deployed(**HEALTHY)
    said(world, first, "undeploying is not finished: its pods were asked to end")
    world.stop()
    world.start()
    keep_pods(world, "1")
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert world.live_version() == second.version
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}


@pytest.mark.parametrize("why", ["failed", "cancelled", "undeployed"])
def test_a_version_name_is_used_again_only_when_its_pods_are_gone(world: World, why: str) -> None:
    if why == "undeployed":
        first = world.deployed(newVersion="blue", **HEALTHY)
        keep_pods(world, "blue", HOLD)
    else:
        first = begun(world, newVersion="blue", **SICK)
    if why != "failed":
        world.service.undeploy(world.namespace, first.id)
    said(world, first, "waiting for its pods to end, 1 left")
    (old,) = world.pods()
    again = world.deploy(newVersion="blue", **HEALTHY)
    # What has not ended yet is awaited by its name, what has failed by its pods.
    cancelled = f"version blue is still draining (deployment {first.id})"
    said(world, again, cancelled if why == "cancelled" else "waiting for the pods of an earlier version blue to end")
    assert list(world.pods()) == [old] and world.objects(CONTROLLER) == {}
    keep_pods(world, "blue")
    world.ended(again, Status.DEPLOYED)
    world.quiet()
    assert old not in world.pods() and world.live_version() == "blue"
    assert world.names() == {"replicationcontrollers": {"shop-blue"}, "services": {"shop", "shop-blue"}}
    assert world.store.get(Deployment, first.id).status in (Status.FAILURE, Status.UNDEPLOYED)  # type: ignore[union-attr]


def test_waiting_for_an_earlier_version_of_the_name_can_be_cancelled(world: World) -> None:
    world.ended(begun(world, newVersion="blue", **SICK), Status.FAILURE)
    again = world.deploy(newVersion="blue", **HEALTHY)
    said(world, again, "waiting for the pods of an earlier version blue to end, 1 left")
    world.service.undeploy(world.namespace, again.id)
    said(world, again, "stopping, and removing what was started")
    keep_pods(world, "blue")
    world.ended(again, Status.UNDEPLOYED)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_waiting_for_an_earlier_version_of_the_name_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ended(begun(world, newVersion="blue", **SICK), Status.FAILURE)
    monkeypatch.setattr(start, "PODS_GONE", -1.0)  # its grace time is over at once
    again = world.ended(world.deploy(newVersion="blue", **HEALTHY), Status.FAILURE)
    assert again.failure and again.failure["reason"] == "PodsLeft" and "finalizer" in again.failure["hint"]
    end_pods(world, "blue")
    assert (world.names(), world.pods()) == ({}, {})


def test_nobody_waits_for_the_pods_of_somebody_else(world: World) -> None:
    labels = {"name": "shop-9", "app": "shop", "version": "9"}
    template = {"metadata": {"labels": labels}, "spec": describe(world.namespace)["podspec"]}
    about = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "shop-9"}}
    body = {**about, "spec": {"replicas": 1, "selector": labels, "template": template}}
    world.eyes.create(CONTROLLER, body, world.namespace)
    wait_for = Informers(world.eyes)
    wait_for.get(POD, world.namespace).wait(bool, CancelScope(time.monotonic() + PATIENCE), labels=labels)
    wait_for.close()
    failed = world.ended(world.deploy(newVersion="9", **HEALTHY), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "ForeignObject"
    world.quiet()
    assert versions(world) == {"9"} and "waiting for" not in world.log(failed.id)


def test_nothing_is_left_to_wait_for_when_pods_end_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "PODS_PATIENCE", 30.0)
    failed = world.ended(world.deploy(**SICK), Status.FAILURE)
    assert (world.names(), world.pods()) == ({}, {})
    assert not [o for o in world.store.find(Operation, tag="open") if o.kind is OperationKind.RETIRE]
    assert "waiting for its pods" not in world.log(failed.id)

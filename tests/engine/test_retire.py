"""Old versions whose pods take their time: nobody waits for them, nothing forgets them, nobody ends them by force."""

from __future__ import annotations

import threading
import time

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.model.kind import CONTROLLER, POD, SERVICE
from deployer.core.model.records import Deployment, Operation, OperationKind, Status
from deployer.toolkit.steps import removal
from support.world import HEALTHY, PATIENCE, World

HOLD = "example.com/hold"


def keep_pods(world: World, *finalizers: str, version: str = "1") -> None:
    """Somebody's finalizers on a version's pods keep them from ending."""
    for name, pod in world.pods().items():
        if pod["metadata"]["labels"]["version"] == version:
            patch = {"metadata": {"finalizers": list(finalizers) or None}}
            world.eyes.patch(POD, name, patch, world.namespace)


def replaced(world: World) -> Deployment:
    """Version 2 has replaced version 1, whose pod does not end."""
    first = world.deployed(**HEALTHY)
    keep_pods(world, HOLD)
    world.deployed(**HEALTHY)
    world.until(lambda: "waiting for its pods to end, 1 left" in world.log(first.id), "version 1 to be waited for")
    return first


def statuses(world: World) -> dict[str, Status]:
    return {d.version: d.status for d in world.store.find(Deployment, namespace=world.namespace)}


def test_the_next_deployment_does_not_wait_for_pods_that_take_their_time(world: World) -> None:
    replaced(world)
    world.deployed(**HEALTHY)
    assert statuses(world)["1"] is Status.UNDEPLOYING
    # The controller is gone, so nothing replaces its pods; the Service goes last.
    assert "shop-1" not in world.objects(CONTROLLER) and "shop-1" in world.objects(SERVICE)
    keep_pods(world)
    world.quiet()
    assert statuses(world) == {"1": Status.UNDEPLOYED, "2": Status.UNDEPLOYED, "3": Status.DEPLOYED}
    assert world.names() == {"replicationcontrollers": {"shop-3"}, "services": {"shop", "shop-3"}}


def test_waiting_costs_no_request_and_no_thread(world: World) -> None:
    first = replaced(world)
    world.until(lambda: parked(world), "the retirement to be parked")
    before = world.client.requests
    (name,) = [name for name, pod in world.pods().items() if pod["metadata"]["labels"]["version"] == "1"]
    informer = world.informers.get(POD, world.namespace)
    for turn in ("1", "2", "3"):
        world.eyes.patch(POD, name, {"metadata": {"labels": {"turn": turn}}}, world.namespace)
        informer.wait(bool, CancelScope(time.monotonic() + PATIENCE), labels={"turn": turn})
    assert world.client.requests == before
    # Its record says that it is parked a moment before its thread ends.
    world.until(lambda: "operation-shop" not in {t.name for t in threading.enumerate()}, "its thread to end")
    keep_pods(world)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()


def parked(world: World) -> bool:
    found = [o for o in world.store.find(Operation, tag="open") if o.kind is OperationKind.RETIRE]
    return bool(found) and not found[0].begun and found[0].steps.get("remove-workload") == "started"


def test_a_late_notice_that_it_was_parked_does_not_hide_that_its_pods_have_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replaced(world)
    world.until(lambda: parked(world), "the retirement to be parked")
    (retire,) = [o for o in world.store.find(Operation, tag="open") if o.kind is OperationKind.RETIRE]
    engine, take_in = world.engine, world.engine._take_in

    def late() -> None:
        if engine._woken:
            engine._changed.add((Operation.KIND, retire.id))
        take_in()

    monkeypatch.setattr(engine, "_take_in", late)
    keep_pods(world)
    world.ended(first, Status.UNDEPLOYED)


def test_what_ends_while_the_service_is_down_is_noticed_at_its_start(world: World) -> None:
    first = replaced(world)
    world.stop()
    keep_pods(world)
    world.start()
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}


def test_what_still_waits_after_a_restart_goes_on_waiting(world: World) -> None:
    first = replaced(world)
    world.stop()
    world.start()
    world.deployed(**HEALTHY)
    assert statuses(world)["1"] is Status.UNDEPLOYING
    keep_pods(world)
    world.ended(first, Status.UNDEPLOYED)
    assert world.log(first.id).count("waiting for its pods to end, 1 left") == 1


def test_pods_that_never_end_are_told_of_and_never_forced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "PODS_GONE", 0.5)
    first = replaced(world)
    world.until(lambda: "retiring is not finished" in world.log(first.id), "the log to say so")
    (pod,) = [name for name, found in world.pods().items() if found["metadata"]["labels"]["version"] == "1"]
    assert f"s ago and 1 have not, like {pod}: check whether a finalizer" in world.log(first.id)
    keep_pods(world)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}


def test_a_burst_of_deployments_does_not_pile_up_old_versions(world: World) -> None:
    stored = world.descriptor(**HEALTHY)
    burst = [world.service.deploy(world.namespace, stored.id) for _ in range(4)]
    for deployment in burst:
        world.ended(deployment)
        here = {c["metadata"]["labels"]["version"] for c in world.objects(CONTROLLER).values()}
        assert len(here) <= 3, here
    world.quiet()
    assert statuses(world) == {
        "1": Status.UNDEPLOYED,
        "2": Status.UNDEPLOYED,
        "3": Status.UNDEPLOYED,
        "4": Status.DEPLOYED,
    }

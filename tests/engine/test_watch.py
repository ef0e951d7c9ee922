"""Watching the live version while the one before is warm: what counts as failing, and what follows when nobody can
take over."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.cli import figures
from deployer.core.model.kind import CONTROLLER, EVENT, POD
from deployer.core.model.records import Deployment, HostClaim, Operation, OperationKind, Status
from deployer.core.operations import machine
from deployer.core.operations.machine import HELD, SAID
from deployer.core.ports.store import Update
from support.strategies import Stop, VisitedBlueGreen, restart_with
from support.world import HEALTHY, World

HOST = "shop.example.com"
READY = {"probe": {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1}}
CRASHES = "sample/web:crash"


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A Deployer that keeps the old version for a long time, and looks more often at what is held."""
    monkeypatch.setattr(machine, "HOLD_INTERVAL", 2.0)
    made = World(cluster, tmp_path, namespace, proxysleep=120.0, watch_interval=1.0)
    made.start()
    yield made
    made.close()


def two_versions(world: World, **fields: Any) -> tuple[Deployment, Deployment]:
    """The first one is warm, the second one live."""
    first, second = (world.deployed(**HEALTHY, frontend=HOST, **fields) for _ in range(2))
    return first, second


def scale(world: World, version: str, replicas: int) -> None:
    """As somebody does by hand."""
    world.eyes.patch(CONTROLLER, f"shop-{version}", {"spec": {"replicas": replicas}}, world.namespace)


def template(world: World, version: str, image: str = "", **env: str) -> str:
    """New pods of that version have this image, if any, and these variables. Returns the image until now."""
    controller = world.objects(CONTROLLER)[f"shop-{version}"]
    container = controller["spec"]["template"]["spec"]["containers"][0]
    before: str = container["image"]
    container["image"] = image or before
    container.setdefault("env", []).extend({"name": name, "value": value} for name, value in env.items())
    world.eyes.replace(CONTROLLER, f"shop-{version}", controller, world.namespace)
    return before


def pods_of(world: World, version: str) -> list[dict[str, Any]]:
    """Those of that version that are not ending."""
    found = world.eyes.list(POD, world.namespace, {"version": version})[0]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def delete_pods(world: World, version: str, most: int = 100) -> None:
    """As by a drained node: the controller makes others."""
    for pod in pods_of(world, version)[:most]:
        world.eyes.delete(POD, pod["metadata"]["name"], world.namespace, uid=pod["metadata"]["uid"])


def breaks(world: World, version: str = "2") -> str:
    """All pods of that version go, and none of the new ones will be ready. Returns the image until now."""
    before = template(world, version, CRASHES)
    delete_pods(world, version)
    return before


def watch(world: World) -> Operation | None:
    """What looks after the live version."""
    found = world.store.find(Operation, tag="open")
    return next((operation for operation in found if operation.kind is OperationKind.WATCH), None)


def looked(world: World, times: int = 3) -> None:
    """Wait until it was looked at so often from now on."""
    seen: set[int] = set()

    def enough() -> bool:
        if (operation := watch(world)) is not None:
            seen.add(operation.revision)
        return len(seen) > times

    world.until(enough, f"{times} looks at the live version")


def held(world: World) -> Operation | None:
    """The watch, once it is held."""
    operation = watch(world)
    return operation if operation is not None and HELD in operation.memory else None


def held_with_no_way_back(world: World) -> tuple[Deployment, Deployment]:
    """Version 2 fails while one of the pods of version 1, which is warm, is not ready."""
    first, second = two_versions(world, **READY)
    template(world, "1", SLOW_START="600")
    scale(world, "1", 2)
    breaks(world, "2")
    operation = world.until(lambda: held(world), "the watch to be held")
    assert operation.memory[HELD] == "NoWayBack"
    assert figures.held(world.store)["NoWayBack"] == 1
    assert (operation.timeline.held, operation.timeline.waits) == (True, operation.memory[SAID])
    return first, second


# --- when nobody can take over --------------------------------------------------------------------------------------


def test_it_is_held_while_the_old_version_is_not_ready_and_goes_on_once_it_is(world: World) -> None:
    first, second = held_with_no_way_back(world)
    why = (watch(world) or pytest.fail("it is not watched")).memory[SAID]
    assert why == (
        "version 2 fails, and version 1 cannot take over, as not all of its pods are ready: everything is kept as it "
        "is: repair one of the two versions, or deploy another one"
    )
    assert world.record(first.id).status is Status.UNDEPLOYING
    assert world.record(second.id).status is Status.DEPLOYED
    assert world.log(second.id).count(why) == 1
    assert "the live version fails: " in world.log(second.id)
    world.until(lambda: [e for e in told(world) if e["reason"] == "Held"], "an Event that says so")
    scale(world, "1", 1)
    world.ended(first, Status.DEPLOYED)
    assert "no longer held" in world.log(second.id)
    assert (world.record(second.id).failure or {})["reason"] == "RolledBack"
    assert watch(world) is None
    assert set(figures.held(world.store).values()) == {0.0}


def told(world: World) -> list[dict[str, Any]]:
    """Events on the controllers of the namespace."""
    found = world.eyes.list(EVENT, world.namespace)[0]
    return [event for event in found if event["involvedObject"]["kind"] == "ReplicationController"]


def test_it_is_watched_on_when_it_has_recovered_while_it_was_held(world: World) -> None:
    first, second = two_versions(world, **READY)
    template(world, "1", SLOW_START="600")
    scale(world, "1", 2)
    image = breaks(world, "2")
    world.until(lambda: held(world), "the watch to be held")
    template(world, "2", image)
    delete_pods(world, "2")
    world.until(lambda: not held(world), "the watch to go on")
    assert watch(world) is not None
    assert "no longer held" in world.log(second.id)
    assert world.record(first.id).status is Status.UNDEPLOYING


def test_the_old_version_is_kept_for_as_long_as_it_is_held(world: World) -> None:
    """Its time is over before; a service that is started anew keeps it, too."""
    world.settings = dataclasses.replace(world.settings, proxysleep=3.0)
    world.restart()
    first, _ = held_with_no_way_back(world)
    retirement = next(o for o in world.store.find(Operation, tag="open") if o.deployment == first.id)
    world.restart()
    looked(world, 1)
    clock = world.engine._dependencies.clock
    world.until(lambda: clock() > retirement.due + 1.0, "the time of the old version to be over")
    assert "shop-1" in world.objects(CONTROLLER)
    scale(world, "1", 1)
    world.ended(first, Status.DEPLOYED)


def test_a_version_whose_rollback_fails_is_held(world: World) -> None:
    """It is not tried again and again: nobody knows whether that does any good."""
    first, second = two_versions(world)
    claim = world.store.get(HostClaim, HOST)
    assert claim is not None
    world.store.commit(Update(dataclasses.replace(claim, app="other")))
    image = breaks(world, "2")
    operation = world.until(lambda: held(world), "the watch to be held")
    assert operation.memory[HELD] == "RollbackFailed"
    looked(world, 1)
    log = world.log(second.id)
    assert log.count("the rollback to version 1 failed, and nothing has changed") == 1
    assert log.count("last lines of container web") <= 1
    assert world.record(second.id).status is Status.DEPLOYED
    template(world, "2", image)
    delete_pods(world, "2")
    world.until(lambda: not held(world), "the watch to go on")
    assert world.record(first.id).status is Status.UNDEPLOYING


# --- while the next one is deployed ---------------------------------------------------------------------------------


def test_the_live_version_is_watched_while_the_next_one_starts(world: World) -> None:
    first, second = two_versions(world)
    third = world.deploy(**HEALTHY, frontend=HOST, env={"SLOW_START": "60"})
    world.until(lambda: "created shop-3" in world.log(third.id), "version 3 to start")
    fourth = world.deploy(**HEALTHY, frontend=HOST)
    breaks(world, "2")
    world.ended(first, Status.DEPLOYED)
    assert (world.record(second.id).failure or {})["reason"] == "RolledBack"
    world.ended(third, Status.UNDEPLOYED)
    assert "cancelled: the live version fails and is rolled back; deploy again" in world.log(third.id)
    world.ended(fourth, Status.DEPLOYED)  # which had not begun
    assert world.answer(HOST)[1].startswith("version 4 ")


def test_a_version_that_is_taking_over_is_let(world: World) -> None:
    first, second = two_versions(world)
    stop = Stop("confirm-route:after")
    restart_with(world, VisitedBlueGreen(stop))
    third = world.deploy(**HEALTHY, frontend=HOST, deploymentType="visited")
    stop.reached()
    breaks(world, "2")
    looked(world)
    assert world.record(third.id).status is Status.DEPLOYING
    stop.go.set()
    world.ended(third, Status.DEPLOYED)
    assert world.record(second.id).status is Status.UNDEPLOYING
    assert world.record(first.id).status in (Status.UNDEPLOYING, Status.UNDEPLOYED)
    assert world.answer(HOST)[1].startswith("version 3 ")


def test_undeploying_it_is_no_failure(world: World) -> None:
    first, second = two_versions(world)
    world.service.undeploy(world.namespace, second.id)
    world.quiet()
    assert world.names() == {}
    assert world.record(first.id).status is world.record(second.id).status is Status.UNDEPLOYED
    assert "rolling back" not in world.log(second.id)


# --- what counts as failing -----------------------------------------------------------------------------------------


def test_a_version_that_is_scaled_to_none_by_hand_is_no_failure_nor_is_scaling_it_up_again(world: World) -> None:
    first, second = two_versions(world)
    template(world, "2", SLOW_START="4")
    scale(world, "2", 0)
    world.until(lambda: not pods_of(world, "2"), "no pods")
    looked(world, 1)
    scale(world, "2", 2)
    ready(world, "2", 2)
    assert world.record(second.id).status is Status.DEPLOYED
    assert world.record(first.id).status is Status.UNDEPLOYING
    # Pods that go may be heard of before the number that is wanted: "0 of 1" may be said, and late.
    assert "of 2 pods are ready\n" not in world.log(second.id)


def test_pods_that_come_later_and_are_slow_are_no_failure(world: World) -> None:
    _, second = two_versions(world, **READY)
    template(world, "2", SLOW_START="4")
    scale(world, "2", 5)
    ready(world, "2", 5)
    assert world.record(second.id).status is Status.DEPLOYED


def ready(world: World, version: str, count: int) -> None:
    """Wait until so many pods are ready."""

    def enough() -> bool:
        found = world.objects(CONTROLLER)[f"shop-{version}"].get("status") or {}
        return int(found.get("readyReplicas") or 0) >= count

    world.until(enough, f"{count} pods of version {version}")


@pytest.mark.parametrize(("bad", "fails"), [(2, False), (3, True)])
def test_half_of_the_pods_are_enough(world: World, bad: int, fails: bool) -> None:
    first, second = two_versions(world, **READY, replicas=4)
    template(world, "2", SLOW_START="600")
    delete_pods(world, "2", bad)
    if fails:
        world.ended(first, Status.DEPLOYED)
        assert f"{4 - bad} of 4 pods are ready" in (world.record(second.id).failure or {})["message"]
        return
    looked(world, 5)  # which takes longer than it may be down
    assert world.record(second.id).status is Status.DEPLOYED
    assert world.record(first.id).status is Status.UNDEPLOYING


# --- before the commit ----------------------------------------------------------------------------------------------

SERVES = "has to serve for"
STRATEGIES: dict[str, dict[str, Any]] = {
    "blue-green": {},
    "recreate": {"deploymentType": "recreate"},
    "canary": {"deploymentType": "canary", "strategyOptions": {"steps": [{"weight": 50, "pause": 0.1}]}},
}


def hasty(world: World) -> None:
    """On the way back nobody waits for those who are still led to the failed version."""
    world.settings = dataclasses.replace(world.settings, proxysleep=1.0)
    world.restart()


def test_a_version_soaks_before_it_is_committed_over_a_restart(world: World) -> None:
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deploy(**HEALTHY, frontend=HOST, soakSeconds=3)
    world.until(lambda: SERVES in world.log(second.id), "version 2 to serve")
    began = world.engine._dependencies.clock()
    assert world.answer(HOST)[1].startswith("version 2 ")
    assert (world.record(first.id).status, world.record(second.id).status) == (Status.DEPLOYED, Status.DEPLOYING)
    world.restart()
    world.ended(second, Status.DEPLOYED)
    assert world.engine._dependencies.clock() - began >= 3.0
    assert world.log(second.id).count(SERVES) == 1
    assert world.record(first.id).status is Status.UNDEPLOYING
    assert watch(world) is not None  # which goes on


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_version_that_fails_while_it_soaks_gives_its_traffic_back(world: World, strategy: str) -> None:
    hasty(world)
    fields = {**HEALTHY, **READY, **STRATEGIES[strategy], "frontend": HOST, "replicas": 2}
    first = world.deployed(**fields)
    second = world.deploy(**fields, soakSeconds=3600)
    world.until(lambda: SERVES in world.log(second.id), "version 2 to serve")
    breaks(world, "2")
    ended = world.ended(second, Status.FAILURE)
    # Whichever is seen first: that its pods are not there, that they crash, or that nobody answers the health check.
    assert (ended.failure or {})["reason"] in ("CrashLoop", "NotReady", "Unhealthy")
    assert world.record(first.id).status is Status.DEPLOYED
    assert world.live_version() == "1"
    assert world.answer(HOST)[1].startswith("version 1 ")


def test_a_soak_is_cancelled_at_once(world: World) -> None:
    hasty(world)
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deploy(**HEALTHY, frontend=HOST, soakSeconds=3600)
    world.until(lambda: SERVES in world.log(second.id), "version 2 to serve")
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    assert world.record(first.id).status is Status.DEPLOYED
    assert world.answer(HOST)[1].startswith("version 1 ")

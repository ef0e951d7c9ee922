"""The system's clock is set by an hour, either way: what waits, waits as long as it should, over a restart too."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.clock import SteadyClock, bounded
from deployer.core.model.kind import CONTROLLER, POD
from deployer.core.model.records import Deployment, Operation, OperationKind, OperationState, Status
from deployer.core.ports.store import Update
from deployer.store.sqlite import SqliteStore
from support.world import HEALTHY, NGINX, PATIENCE, World

HOUR = 3600.0
HOLD, LEAST = 20.0, 5.0


class Hands:
    """What the machine's two clocks show. They stand still unless a test moves them or lets them run."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1.8e9, 5000.0
        self._since: float | None = None

    def steady(self) -> SteadyClock:
        """A clock as a process that starts now makes it."""
        return SteadyClock(lambda: self.wall + self._ran(), lambda: self.monotonic + self._ran())

    def run(self) -> None:
        """Go on by themselves from now on, twenty times as fast as they should."""
        self._since = time.monotonic()

    def _ran(self) -> float:
        return 0.0 if self._since is None else 20 * (time.monotonic() - self._since)

    def go_on(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def held(world: World, hands: Hands, namespace: str) -> Iterator[World]:
    """Version 2 has just replaced version 1."""
    world.stop()
    tables = {"ingress_nginx": {**NGINX, "minimum_hold": LEAST}}
    world.settings = dataclasses.replace(world.settings, proxysleep=HOLD, plugins=tables)
    world.clock = hands.steady
    world.start()
    for _ in range(2):
        world.deployed(**HEALTHY, frontend=f"{namespace}.example.com")
    yield world


def looked(world: World) -> None:
    """The engine has gone through everything that is due: something that came later has been done."""
    world.engine._wake.set()
    world.deployed("other")
    world.service.delete_deployments(world.namespace, "other", undeploy=True)
    world.until(lambda: not [d for d in world.store.find(Deployment) if d.app == "other"] or None, "the other to go")


def is_kept(world: World) -> bool:
    looked(world)
    (first,) = [d for d in world.store.find(Deployment) if d.app == "shop" and d.version == "1"]
    there = "shop-1" in world.objects(CONTROLLER)
    assert there == (first.status is Status.UNDEPLOYING)
    return there


def goes(world: World, hands: Hands) -> None:
    """It is removed now, or when version 2 was looked at for some seconds after a time without a service."""
    hands.run()
    world.engine._wake.set()
    (first,) = [d for d in world.store.find(Deployment) if d.app == "shop" and d.version == "1"]
    world.ended(first, Status.UNDEPLOYED)
    assert set(world.objects(CONTROLLER)) == {"shop-2"}


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 0.0])
def test_the_hold_lasts_as_long_as_it_should(held: World, hands: Hands, jump: float) -> None:
    hands.go_on(1)
    hands.wall += jump
    assert is_kept(held)
    hands.go_on(HOLD - 1.1)
    assert is_kept(held)
    hands.go_on(0.2)
    goes(held, hands)


@pytest.mark.parametrize(
    ("jump", "more"),
    [
        (0.0, HOLD - 10),  # what is left
        (-HOUR, HOLD),  # never longer than the whole hold again
        (HOUR, LEAST),  # never shorter than what the ingress needs, as the service may have been down that long
        (HOLD - 11, LEAST),
    ],
)
def test_over_a_restart_it_keeps_to_its_bounds(held: World, hands: Hands, jump: float, more: float) -> None:
    hands.go_on(10)
    held.stop()
    hands.wall += jump
    held.start()
    hands.go_on(more - 0.1)
    assert is_kept(held)
    hands.go_on(0.2)
    goes(held, hands)


def test_restarting_again_does_not_begin_the_hold_anew(held: World, hands: Hands) -> None:
    hands.wall -= HOUR
    for _ in range(3):
        held.stop()
        held.start()
        hands.go_on(HOLD / 3 - 0.1)
        assert is_kept(held)
    hands.go_on(0.4)
    goes(held, hands)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_an_attempt_that_is_made_again_waits_its_pause(held: World, hands: Hands, jump: float) -> None:
    """Retries, parks and what is held up: after a restart no longer than the pause that was meant."""
    (retire,) = [o for o in held.store.find(Operation, tag="open") if o.kind is OperationKind.RETIRE]
    held.stop()
    store = SqliteStore(held.settings.data_dir / "deployer.db")
    pause = dataclasses.replace(retire, due=hands.wall + 60.0, period=60.0, least=0.0)
    store.commit(Update(pause))
    store.close()
    hands.wall += jump
    held.start()
    (found,) = [o for o in held.store.find(Operation, tag="open") if o.id == retire.id]
    assert found.due == hands.wall + (60.0 if jump < 0 else 0.0)


def test_what_an_earlier_release_left_is_due_when_it_said(held: World, hands: Hands) -> None:
    """Its records do not say how long the period was."""
    (retire,) = [o for o in held.store.find(Operation, tag="open") if o.kind is OperationKind.RETIRE]
    held.stop()
    store = SqliteStore(held.settings.data_dir / "deployer.db")
    store.commit(Update(dataclasses.replace(retire, due=hands.wall + 300.0, period=0.0, least=0.0)))
    store.close()
    held.start()
    (found,) = [o for o in held.store.find(Operation, tag="open") if o.id == retire.id]
    assert found.due == hands.wall + 300.0 and found.state is OperationState.QUEUED


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@pytest.mark.parametrize("restarted", [False, True])
def test_pods_that_do_not_end_have_their_time(world: World, hands: Hands, jump: float, restarted: bool) -> None:
    """Their grace time of 1 s and 30 s more, then the log says so: not because of the clock."""
    world.stop()
    world.clock = hands.steady
    world.start()
    first = world.deployed(**HEALTHY)
    (pod,) = world.pods()
    world.eyes.patch(POD, pod, {"metadata": {"finalizers": ["example.com/keep"]}}, world.namespace)
    world.deployed(**HEALTHY)
    world.until(lambda: "waiting for its pods to end, 1 left" in world.log(first.id), "version 1 to be waited for")
    world.until(lambda: parked(world), "the retirement to be parked")
    hands.wall += jump if not restarted or jump < 0 else 0.0
    if restarted:
        world.stop()
        world.start()
        world.until(lambda: parked(world, began=hands.wall), "the retirement to be parked again")
    hands.go_on(30.5)
    looked(world)
    assert "have not" not in world.log(first.id)
    hands.go_on(1)
    world.engine._wake.set()
    world.until(lambda: "asked to end more than 31 s ago and 1 have not" in world.log(first.id), "it to be said")
    world.eyes.patch(POD, pod, {"metadata": {"finalizers": None}}, world.namespace)
    informer = world.informers.get(POD, world.namespace)
    informer.wait(
        lambda pods: pod not in {p["metadata"]["name"] for p in pods}, CancelScope(time.monotonic() + PATIENCE)
    )
    hands.go_on(61)
    world.engine._wake.set()
    world.ended(first, Status.UNDEPLOYED)


def parked(world: World, began: float = 2e9) -> bool:
    """Is the retirement parked, with a wait that began by then?"""
    found = [o for o in world.store.find(Operation, tag="open") if o.kind is OperationKind.RETIRE and o.app == "shop"]
    waits = bool(found) and not found[0].begun and found[0].steps.get("remove-workload") == "started"
    return waits and found[0].memory["remove-workload/began"] <= began


# --- the clock itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_lease_lasts_as_long_as_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    ahead, monotonic = [0.0], [5000.0]
    monkeypatch.setattr("deployer.core.clock.time.time", lambda: 1.8e9 + ahead[0])
    store = SqliteStore(tmp_path / "deployer.db", clock=SteadyClock(time.time, lambda: monotonic[0]))
    assert store.acquire("ns", "shop", "one", 10.0) is not None
    ahead[0] += jump
    monotonic[0] += 9.9
    assert store.acquire("ns", "shop", "two", 10.0) is None
    monotonic[0] += 0.2
    assert store.acquire("ns", "shop", "two", 10.0) is not None
    store.close()


def test_a_clock_goes_on_evenly(hands: Hands) -> None:
    clock = hands.steady()
    assert clock() == hands.wall
    hands.go_on(5)
    hands.wall -= HOUR
    assert clock() == 1.8e9 + 5
    assert hands.steady()() == hands.wall


@pytest.mark.parametrize(("due", "expected"), [(90, 105), (103, 105), (115, 115), (120, 120), (4000, 120)])
def test_bounds(due: float, expected: float) -> None:
    assert bounded(due, 100, least=5, most=20) == expected

"""Who else is there: what replicas say of themselves, and what they make of what they hear."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from deployer.core.clock import SteadyClock
from deployer.core.errors import StoreUnavailable
from deployer.core.model.operation.timeline import StepTime, Timeline
from deployer.core.model.records import Operation, OperationKind, OperationState
from deployer.core.operations.activity import Activities, Activity
from deployer.core.ports.store import Replica
from deployer.replicas import membership as module
from deployer.replicas.membership import Membership
from support.memory_store import MemoryStore

PATIENCE = 20.0


class Told:
    """What the engine of one replica is told."""

    def __init__(self) -> None:
        self.gone: list[bool] = []
        self.handed: list[str] = []
        self._came = threading.Condition()

    def moved(self, gone: bool) -> None:
        with self._came:
            self.gone.append(gone)
            self._came.notify_all()

    def hand_over(self, why: str) -> None:
        with self._came:
            self.handed.append(why)
            self._came.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():  # some of it nobody is told
            assert time.monotonic() < end
            with self._came:
                self._came.wait(0.05)


class One:
    """One replica."""

    def __init__(self, store: MemoryStore, name: str, slots: int = 8, ahead: float = 0.0) -> None:
        self.problem = ""
        self.activities = Activities()
        self.told = Told()
        clock = SteadyClock()
        self.replicas = Membership(
            store,
            holder=f"holder-{name}",
            name=name,
            slots=slots,
            activities=self.activities,
            problem=lambda: self.problem,
            clock=lambda: clock() + ahead,
        )
        self.replicas.start(self.told.moved, self.told.hand_over)

    def knows(self, *names: str) -> None:
        self.told.until(lambda: [member.name for member in self.replicas.members()] == list(names))

    def stop(self) -> None:
        for thread in self.replicas.stop():
            thread.join(PATIENCE)
            assert not thread.is_alive()


Start = Callable[..., One]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    monkeypatch.setattr(module, "LEASE", 0.6)
    monkeypatch.setattr(module, "BEAT", 0.2)
    monkeypatch.setattr(module, "AT_MOST", 0.01)
    monkeypatch.setattr(module, "UNFIT_AFTER", 0.5)
    return MemoryStore(clock=SteadyClock())


@pytest.fixture
def start(store: MemoryStore) -> Iterator[Start]:
    made: list[One] = []

    def one_more(name: str, **more: float) -> One:
        made.append(One(store, name, **more))  # type: ignore[arg-type]
        return made[-1]

    yield one_more
    for each in made:
        each.stop()


def an_operation(revision: int = 7) -> Operation:
    timeline = Timeline(steps=(StepTime(id="await-ready", phase="START", began=1.0),))
    return Operation(
        namespace="shop",
        app="cart",
        id="o1",
        kind=OperationKind.DEPLOY,
        deployment="d1",
        revision=revision,
        state=OperationState.RUNNING,
        steps={"await-ready": "started"},
        timeline=timeline,
        memory={"secret": "x"},
    )


def test_they_hear_of_each_other_and_of_who_leaves(start: Start) -> None:
    one = start("one")
    assert one.replicas.alone
    assert one.replicas.patience("shop", "cart") == 0.0
    two = start("two")
    assert not two.replicas.alone
    one.knows("one", "two")
    assert sorted(r.replicas.patience("shop", "cart") for r in (one, two)) == [0.0, 1.0]
    two.stop()
    one.knows("one")
    assert one.told.gone[-1] is True
    assert one.replicas.alone


def test_one_that_gives_no_sign_of_life_is_gone(start: Start, store: MemoryStore) -> None:
    one = start("one")
    store.join(Replica("dead", {"name": "dead", "slots": 8}), 0.5)
    one.knows("dead", "one")
    one.knows("one")
    assert one.told.gone[-1] is True


def test_the_others_see_what_one_does(start: Start) -> None:
    one, two = start("one"), start("two")
    stored = an_operation()
    begun = dataclasses.replace(stored, revision=6, steps={})
    before = two.replicas.others.moved("shop")
    one.activities.put(Activity(operation=stored, step="await-ready", since=1.0, deadline=9.0, waits="pods"))
    two.told.until(lambda: two.replicas.others.of(stored) is not None)
    seen = two.replicas.others.of(stored)
    assert seen is not None
    assert (seen.step, seen.since, seen.deadline, seen.waits, seen.held) == ("await-ready", 1.0, 9.0, "pods", "")
    assert (seen.operation.steps, seen.operation.timeline) == (stored.steps, stored.timeline)
    assert seen.operation.memory == stored.memory  # that of whoever asks: nothing of it is said
    assert two.replicas.others.moved("shop") > before
    assert two.replicas.others.moved("other") == 0
    older = two.replicas.others.of(begun)  # of another revision: only what is done is known
    assert older is not None and older.operation == begun
    one.activities.drop(stored)
    two.told.until(lambda: two.replicas.others.of(stored) is None)


def test_nothing_that_a_step_remembers_is_said(start: Start, store: MemoryStore) -> None:
    one = start("one")
    one.activities.put(Activity(operation=an_operation(), step="await-ready"))
    one.told.until(lambda: store.replicas()[0].says["activities"])
    assert "secret" not in str(store.replicas())


def test_one_that_does_not_reach_the_cluster_hands_over_to_those_who_do(start: Start) -> None:
    one, two = start("one"), start("two")
    one.knows("one", "two")
    one.problem = "the API server does not answer"
    one.told.until(lambda: one.told.handed)
    assert "the API server does not answer" in one.told.handed[0]
    assert one.replicas.patience("shop", "cart") == math.inf
    two.told.until(lambda: two.replicas.patience("shop", "cart") == 0.0)
    assert not two.told.handed
    assert [(m["name"], m["self"], m["reachesCluster"]) for m in two.replicas.shown()] == [
        ("one", False, False),
        ("two", True, True),
    ]
    one.problem = ""
    one.told.until(lambda: one.replicas.patience("shop", "cart") < math.inf)


def test_when_nobody_reaches_the_cluster_nobody_hands_over(start: Start) -> None:
    one, two = start("one"), start("two")
    one.knows("one", "two")
    one.problem = two.problem = "the API server does not answer"
    one.told.until(lambda: not any(member.fit for member in one.replicas.members()))
    two.told.until(lambda: sorted(r.replicas.patience("shop", "cart") for r in (one, two)) == [0.0, 1.0])
    threading.Event().wait(0.8)  # beyond the time after which one would
    assert not one.told.handed and not two.told.handed


def test_a_store_that_cannot_be_reached_is_said_once(
    start: Start, store: MemoryStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start("one")
    asked: list[int] = []

    def fail() -> list[Replica]:
        asked.append(1)
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(store, "replicas", fail)
    one.told.until(lambda: len(asked) > 3)
    assert caplog.text.count("nothing is known of other replicas: the store is away") == 1


def test_a_clock_that_differs_is_said(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    one = start("one")
    start("early", ahead=60.0)
    one.knows("early", "one")
    one.told.until(lambda: "replica early is 60 s ahead of that of one" in caplog.text)
    assert "replica one is" not in caplog.text  # who is new cannot know when that was said

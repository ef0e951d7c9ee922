"""Observers: each has a durable queue, a thread and a deadline of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployer.core.clock import SteadyClock
from deployer.core.contract.observer import Notification
from deployer.core.errors import PluginError, SettingsError, StoreUnavailable
from deployer.core.model.records import Event, new_id
from deployer.core.ports.store import Change, Create, Delete, Lease
from deployer.plugin_manager import observers as module
from deployer.plugin_manager.observers import Observers
from deployer.redaction.redactor import Redactor
from deployer.replicas.leases import Leases
from deployer.store.sqlite import SqliteStore

PATIENCE = 20.0
ALL = frozenset({"deployment_started", "deployment_changed", "deployment_finished"})


class Told:
    """An observer that keeps what it was told, and does what a test wants first."""

    def __init__(self, key: str, act: Callable[[], None] = lambda: None, hooks: frozenset[str] = ALL) -> None:
        self.key = key
        self.hooks = hooks
        self.heard: list[str] = []
        self.ids: list[str] = []
        self._act = act
        self._came = threading.Condition()

    def tell(self, told: Notification) -> None:
        with self._came:
            self.heard.append(f"{told.hook} {told.deployment['id']}")
            self.ids.append(told.id)
            self._came.notify_all()
        self._act()

    def await_heard(self, *wanted: str) -> None:
        with self._came:
            assert self._came.wait_for(lambda: self.heard == list(wanted), PATIENCE), self.heard


class Bench:
    """A store with events, and observers that are told of them."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.hung: list[threading.Thread] = []
        self.watched: list[str] = []
        self.clock = SteadyClock()
        self._came = threading.Condition()

    @contextlib.contextmanager
    def telling(self, *observers: Told) -> Iterator[Observers]:
        found = Observers(
            self.store,
            observers,
            redactor=Redactor(),
            secrets=lambda deployment: set(),
            clock=self.clock,
            hung=self.hung.append,
            watch=self.watch,
        )
        forget = self.store.subscribe(lambda kind, key: found.wake())
        found.start()
        yield found
        forget()
        for thread in found.stop():
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def happen(self, id: str, name: str = "deployment_started") -> None:
        at = self.clock()
        event = Event(namespace="ns", app="shop", id=new_id(), name=name, deployment={"id": id}, at=at)
        self.store.commit(Create(event))

    def await_told(self) -> None:
        """Until nothing waits for anybody."""
        self.until(lambda: not self.store.count(Event))

    def until(self, condition: Callable[[], bool]) -> None:
        changed = threading.Event()
        forget = self.store.subscribe(lambda kind, key: changed.set())
        while not condition():
            assert changed.wait(PATIENCE), self.store.find(Event)
            changed.clear()
        forget()

    def watch(self, event: Event) -> None:
        with self._came:
            self.watched.append(f"{event.name} {event.deployment['id']}")
            self._came.notify_all()

    def await_watched(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.watched) == count, PATIENCE)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    store = SqliteStore(tmp_path / "deployer.db")
    yield Bench(store)
    store.close()


def test_each_is_told_in_order_and_nothing_is_left(bench: Bench) -> None:
    one, two = Told("one"), Told("two", hooks=frozenset({"deployment_finished"}))
    with bench.telling(one, two):
        bench.happen("1")
        bench.happen("1", "deployment_finished")
        one.await_heard("deployment_started 1", "deployment_finished 1")
        two.await_heard("deployment_finished 1")
        bench.await_told()
    assert bench.watched == ["deployment_started 1", "deployment_finished 1"]


def test_without_observers_events_end_at_once(bench: Bench) -> None:
    bench.happen("1")
    with bench.telling():
        bench.await_told()
    assert bench.watched == ["deployment_started 1"]


def test_one_that_hangs_delays_nobody_and_is_counted_once(bench: Bench, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.05)
    go, back = threading.Event(), threading.Event()
    slow, quick = Told("slow", lambda: go.wait(PATIENCE) and back.set()), Told("quick")
    with bench.telling(slow, quick) as telling:
        bench.happen("1")
        bench.happen("2")
        quick.await_heard("deployment_started 1", "deployment_started 2")
        assert slow.heard == ["deployment_started 1"]
        assert [sorted({*event.told} - {module.COUNTED}) for event in bench.store.find(Event)] in (
            [["quick"], ["quick"]],
            [["quick"], []],
        )
        go.set()
        # It came back late, but it came back: it is not told the same again.
        bench.await_told()
        slow.await_heard("deployment_started 1", "deployment_started 2")
        assert telling.errors["slow"] == len(bench.hung) <= 1
    assert back.is_set()


def test_a_thread_that_hangs_is_one_whatever_waits_behind_it(bench: Bench, monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.01)
    monkeypatch.setattr(module, "RETRY_FOR", 0.1)
    go = threading.Event()
    stuck = Told("stuck", lambda: go.wait(PATIENCE) and None)
    with bench.telling(stuck) as telling:
        for id in "123":
            bench.happen(id)
        bench.await_told()  # given up, one after the other
        assert telling.dropped == {"stuck": 3}
        assert stuck.heard == ["deployment_started 1"]
        assert len(bench.hung) == 1
        go.set()
    assert caplog.text.count("hangs in deployment_started") == 1
    assert "observer stuck is not told of deployment_started of deployment 3: it failed for 0.1 s" in caplog.text


def test_one_that_fails_is_told_again_until_it_takes_it_in_order(bench: Bench, caplog) -> None:
    left = [1, 2, 3]

    def fail() -> None:
        if left:
            left.pop()
            raise PluginError("observer flaky of acme 1.0: its deployment_started raised OSError")

    caplog.set_level("INFO")
    flaky = Told("flaky", fail)
    with bench.telling(flaky) as telling:
        bench.happen("1")
        bench.happen("2")
        bench.await_told()
        assert telling.errors == {"flaky": 3}
    assert flaky.heard == [*["deployment_started 1"] * 4, "deployment_started 2"]
    assert len(set(flaky.ids[:4])) == 1 != len(set(flaky.ids))  # whoever it is passed on to can drop what came twice
    # Why it fails is said once, and that it does no more.
    assert caplog.text.count("its deployment_started raised OSError; it is told again later") == 1
    assert caplog.text.count("observer flaky takes what it is told again") == 1
    assert not telling.dropped


@pytest.mark.parametrize("error", [SettingsError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_one_raises_its_queue_goes_on(bench: Bench, caplog, error: BaseException) -> None:
    left = [error]

    def fail() -> None:
        if left:
            raise left.pop()

    odd = Told("odd", fail)
    with bench.telling(odd) as telling:
        bench.happen("1")
        bench.await_told()
        assert telling.errors == {"odd": 1}
    assert odd.heard == ["deployment_started 1"] * 2
    assert f"observer odd raised {type(error).__name__} in deployment_started" in caplog.text


def test_what_was_not_told_is_told_after_a_restart_and_to_nobody_else(bench: Bench, monkeypatch) -> None:
    def fail() -> None:
        raise PluginError("no")

    monkeypatch.setattr(module, "PAUSE", 60.0)
    with bench.telling(Told("failing", fail), quick := Told("quick")):
        bench.happen("1")
        quick.await_heard("deployment_started 1")
        bench.until(lambda: any(event.told for event in bench.store.find(Event)))
    with bench.telling(again := Told("failing"), quick := Told("quick")):
        again.await_heard("deployment_started 1")
        bench.await_told()
        assert quick.heard == []


def test_what_waits_for_a_plugin_that_is_gone_ends(bench: Bench) -> None:
    bench.happen("1")
    with bench.telling(Told("other", hooks=frozenset({"deployment_finished"}))):
        bench.await_told()


def test_of_progress_a_slow_one_hears_the_newest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    go, began = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        go.wait(PATIENCE)

    slow = Told("slow", wait)
    with bench.telling(slow) as telling:
        telling.changed({"id": "0"})
        assert began.wait(PATIENCE)
        for _ in range(1000):
            telling.changed({"id": "1"})
        telling.changed({"id": "2"})
        monkeypatch.setattr(module, "CHANGES_KEPT", 2)
        telling.changed({"id": "3"})
        bench.happen("2", "deployment_finished")
        bench.await_watched(1)
        go.set()
        slow.await_heard("deployment_changed 0", "deployment_finished 2", "deployment_changed 3")


def test_what_the_store_does_not_let_go_of_is_let_go_of_later_and_nothing_behind_it_waits_for_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails, commit = [StoreUnavailable("the disk is full"), StoreUnavailable("the disk is full")], bench.store.commit

    def refuse(*changes: Change, fence: Lease | None = None) -> int:
        if fails and any(isinstance(change, Delete) for change in changes):
            raise fails.pop()
        return commit(*changes, fence=fence)

    monkeypatch.setattr(bench.store, "commit", refuse)
    bench.happen("1")
    bench.happen("2", "deployment_finished")
    with bench.telling(last := Told("last", hooks=frozenset({"deployment_finished"}))):
        last.await_heard("deployment_finished 2")
        bench.await_told()
    assert not fails
    assert bench.watched == ["deployment_started 1", "deployment_finished 2"]


# --- several replicas -------------------------------------------------------------------------------------------------


class Sides:
    """Two replicas on one store, each with an observer of its own that has the same name."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LEASE", 0.3)
        self.bench = bench
        self.told = [Told("one"), Told("one")]
        self.leases = [Leases(bench.store), Leases(bench.store)]
        self.counted: list[str] = []
        self.all = [self._observers(told, leases) for told, leases in zip(self.told, self.leases, strict=True)]

    def _observers(self, told: Told, leases: Leases) -> Observers:
        return Observers(
            self.bench.store,
            [told],
            redactor=Redactor(),
            secrets=lambda deployment: set(),
            clock=self.bench.clock,
            hung=self.bench.hung.append,
            watch=lambda event: self.counted.append(event.deployment["id"]),
            leases=leases,
        )

    def __enter__(self) -> Sides:
        self._forget = [self.bench.store.subscribe(lambda *_, o=o: o.wake()) for o in self.all]
        for observers in self.all:
            observers.start()
        return self

    def __exit__(self, *_: object) -> None:
        for forget in self._forget:
            forget()
        for observers in self.all:
            for thread in observers.stop():
                thread.join(PATIENCE)


def test_of_several_replicas_one_tells_each_event_and_counts_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sides(bench, monkeypatch) as sides:
        for number in range(20):
            bench.happen(str(number))
        bench.await_told()
        heard = [told.heard for told in sides.told]
        assert sorted(heard, key=len) == [[], [f"deployment_started {number}" for number in range(20)]]
        assert sides.counted == [str(number) for number in range(20)]


def test_another_replica_goes_on_where_one_stopped_telling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sides(bench, monkeypatch) as sides:
        bench.happen("1")
        bench.await_told()
        first = next(number for number in (0, 1) if sides.told[number].heard)
        for thread in sides.all[first].stop():
            thread.join(PATIENCE)
        bench.happen("2")
        bench.happen("3")
        sides.told[1 - first].await_heard("deployment_started 2", "deployment_started 3")
        assert sides.told[first].heard == ["deployment_started 1"]
        assert sides.counted == ["1", "2", "3"]


def test_a_replica_that_lost_its_lease_tells_nothing_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sides(bench, monkeypatch) as sides:
        bench.happen("1")
        bench.await_told()
        first = next(number for number in (0, 1) if sides.told[number].heard)
        (held,) = sides.leases[first].held()
        bench.store.release(held.lease)
        successor = bench.store.acquire(held.lease.namespace, held.lease.app, "successor", 60.0)
        assert successor is not None
        held.end("it is another one's")
        bench.happen("2")
        bench.until(lambda: bench.store.count(Event) == 1)
        bench.store.release(successor)
        bench.await_told()
        assert sorted(sides.counted) == ["1", "2"]
        assert sum(told.heard.count("deployment_started 2") for told in sides.told) == 1

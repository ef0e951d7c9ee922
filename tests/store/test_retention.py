"""Retention: what is deleted, what never is, and that it is one process at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployer.commands.idempotency import IdempotencyKey
from deployer.core.model.gates import GateDecision
from deployer.core.model.operation.target import Target
from deployer.core.model.operation.timeline import Timeline
from deployer.core.model.plan import Previous
from deployer.core.model.records import (
    App,
    Deployment,
    HealthData,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Release,
    Status,
    StoredDescriptor,
    timestamp_of,
)
from deployer.core.ports.store import Create, Store, Update
from deployer.store import retention
from deployer.store.retention import Retention, Rules

DAY = 86_400.0
NOW = 1_800_000_000.0
NOON = "2026-01-01T12:00:00.000Z"


def sweep(store: Store, now: float = NOW, **rules: float) -> tuple[int, int]:
    return Retention(store, Rules(**rules), holder="me", clock=lambda: now, pause=0.0).sweep()  # type: ignore[arg-type]


def ended(
    store: Store, id: str, days: float, status: Status = Status.FAILURE, *, app: str = "cart", live: bool = False
) -> Deployment:
    """One that ended so many days ago, with its closed operation, its log and its health data."""
    at = NOW - days * DAY
    deployment = Deployment(
        namespace="shop",
        app=app,
        id=id,
        descriptor={},
        created=timestamp_of(at),
        last_modified=timestamp_of(at),
        status=status,
        went_live=timestamp_of(at) if live else "",
    )
    store.commit(
        Create(deployment),
        Create(HealthData(namespace="shop", app=app, deployment=id)),
        Create(operation(f"{id}-deploy", id, app=app, ended=at)),
    )
    store.append_log(id, [(NOON, "a line")])
    return deployment


def operation(id: str, deployment: str, *, app: str = "cart", ended: float = 0.0, **more: Any) -> Operation:
    known = {"kind": OperationKind.DEPLOY, "state": OperationState.DONE if ended else OperationState.QUEUED}
    timeline = Timeline(ended=ended)
    return Operation(namespace="shop", app=app, id=id, deployment=deployment, timeline=timeline, **{**known, **more})


def left(store: Store, app: str = "cart") -> list[str]:
    return [deployment.id for deployment in store.find(Deployment, namespace="shop", app=app)]


def operations(store: Store) -> set[str]:
    return {found.id for found in store.find(Operation)}


def test_what_ended_long_ago_goes_with_all_that_hangs_on_it(store: Store) -> None:
    old = ended(store, "old", 91)
    ended(store, "new", 89)
    plan = Plan(namespace="shop", app="cart", deployment="old", version="1")
    release = Release(namespace="shop", app="cart", deployment="old", version="1", replicas=1)
    store.commit(Create(plan), Create(release), Create(StoredDescriptor(**_descriptor())))
    assert sweep(store, age=90 * DAY) == (1, 1)
    assert left(store) == ["new"]
    assert operations(store) == {"new-deploy"}
    assert [store.get(kind, old.id) for kind in (Plan, Release, HealthData)] == [None] * 3
    assert store.read_log("old") == []
    assert len(store.read_log("new")) == 1
    assert store.count(StoredDescriptor) == 1  # descriptors are their users'
    assert sweep(store, age=90 * DAY) == (0, 0)


def _descriptor() -> dict[str, Any]:
    return {
        "namespace": "shop",
        "app": "cart",
        "id": "descriptor",
        "document": {},
        "created": timestamp_of(NOW - 900 * DAY),
        "last_modified": timestamp_of(NOW - 900 * DAY),
    }


def test_of_each_app_the_newest_are_kept(store: Store) -> None:
    for number in range(6):
        ended(store, f"cart-{number}", 1)
        ended(store, f"blog-{number}", 1, app="blog")
    ended(store, "wiki-0", 1, app="wiki")
    assert sweep(store, limit=4) == (4, 4)
    assert left(store) == ["cart-2", "cart-3", "cart-4", "cart-5"]
    assert left(store, "blog") == ["blog-2", "blog-3", "blog-4", "blog-5"]
    assert left(store, "wiki") == ["wiki-0"]


def test_what_a_rollback_can_go_back_to_is_kept(store: Store) -> None:
    for number in range(5):
        ended(store, f"live-{number}", 400 - number, Status.UNDEPLOYED, live=True)
        ended(store, f"failed-{number}", 400 - number)
    sweep(store, age=90 * DAY, limit=1, least=2)
    assert left(store) == ["live-3", "live-4"]


@pytest.mark.parametrize("rules", [{"age": DAY}, {"age": DAY, "limit": 1}])
def test_what_is_in_use_is_never_deleted(store: Store, rules: dict[str, float]) -> None:
    """By its status, by the app, by what waits, by what is being rolled back to."""
    for status in (Status.DEPLOYED, Status.UNDEPLOYING, Status.DEPLOYING):
        ended(store, status.value, 400, status)
    for id in ("held", "retired", "winner", "before", "target", "doomed"):
        ended(store, id, 400)
    store.commit(Create(App(namespace="shop", app="cart", live="DEPLOYED", held="held")))
    target = Target(by="winner", previous=Previous(version="1", deployment="before"))
    store.commit(Create(operation("open", "retired", kind=OperationKind.RETIRE, target=target)))
    back = store.get(Deployment, "DEPLOYING")
    assert back is not None
    store.commit(Update(dataclasses.replace(back, rollback_of="target")))
    assert sweep(store, **rules) == (1, 1)
    assert set(left(store)) == {"DEPLOYED", "UNDEPLOYING", "DEPLOYING", "held", "retired", "winner", "before", "target"}
    assert "open" in operations(store)


def test_nothing_is_deleted_that_somebody_changes_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a rollback to it, which touches it."""
    ended(store, "old", 400, Status.UNDEPLOYED, live=True)
    purge_changes = retention.purge_changes

    def later(store: Store, deployment: Deployment) -> list[Any]:
        changes = purge_changes(store, deployment)
        store.commit(Update(deployment))
        return changes

    monkeypatch.setattr(retention, "purge_changes", later)
    assert sweep(store, age=DAY) == (0, 0)
    assert left(store) == ["old"]
    monkeypatch.undo()
    assert sweep(store, age=DAY) == (1, 1)


def test_operations_of_what_somebody_deleted_go_too(store: Store) -> None:
    ended(store, "here", 1)
    store.commit(
        Create(operation("of-nobody", "gone", ended=NOW - 1)),
        Create(operation("aside", "gone", ended=NOW - 1, kind=OperationKind.RETIRE)),
        Create(operation("open", "gone", kind=OperationKind.UNDEPLOY)),
    )
    assert sweep(store, age=90 * DAY) == (0, 2)
    assert operations(store) == {"here-deploy", "open"}


def test_what_was_done_to_a_version_that_stays_live_does_not_pile_up(store: Store) -> None:
    ended(store, "live", 400, Status.DEPLOYED)
    for number in range(6):
        at = NOW - (200 - number) * DAY if number < 2 else NOW - DAY
        for kind in (OperationKind.ROLLBACK, OperationKind.WATCH):
            store.commit(Create(operation(f"{kind}-{number}", "live", ended=at, kind=kind)))
    assert sweep(store, age=90 * DAY, limit=3) == (0, 6)
    kept = {f"{kind}-{number}" for kind in ("rollback", "watch") for number in (3, 4, 5)}
    assert operations(store) == {"live-deploy", *kept}  # how it came to be live is always told


def test_zero_keeps_all_for_ever(store: Store) -> None:
    for number in range(3):
        ended(store, f"d{number}", 10_000)
    assert sweep(store, least=1) == (0, 0)
    assert len(left(store)) == 3


def test_decisions_about_gates_go_with_their_deployment(store: Store) -> None:
    ended(store, "old", 400)
    store.commit(
        Create(GateDecision(namespace="shop", app="cart", deployment="old", step="s", gate="approval", approve=True))
    )
    assert sweep(store, age=DAY)[0] == 1
    assert store.count(GateDecision) == 0


def test_what_has_expired_goes_whatever_the_rules_say(store: Store) -> None:
    for number in range(4):
        record = IdempotencyKey(
            namespace="shop", app="cart", digest=f"k{number}", request="", result="", expires=NOW - 1.5 + number
        )
        store.commit(Create(record))
    Retention(store, Rules(), expiring=[IdempotencyKey], clock=lambda: NOW, pause=0.0).sweep()
    assert [found.digest for found in store.find(IdempotencyKey)] == ["k2", "k3"]


def test_one_process_at_a_time(store: Store, clock: Any) -> None:
    ended(store, "old", 400)
    first = Retention(store, Rules(age=DAY), clock=lambda: NOW, pause=0.0)
    second = Retention(store, Rules(age=DAY), clock=lambda: NOW, pause=0.0)
    assert first.sweep() == (1, 1)
    ended(store, "another", 400)
    assert second.sweep() == (0, 0)
    assert first.sweep() == (1, 1)
    ended(store, "third", 400)
    clock.advance(retention.PERIOD * 2)  # the first one is gone
    assert second.sweep() == (1, 1)


def test_one_that_was_held_up_deletes_nothing_more(store: Store, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        ended(store, f"d{number}", 400)
    second = Retention(store, Rules(age=10_000 * DAY), clock=lambda: NOW, pause=0.0)
    purge_changes = retention.purge_changes

    def held_up(store: Store, deployment: Deployment) -> list[Any]:
        clock.advance(retention.PERIOD * 2)
        second.sweep()
        return purge_changes(store, deployment)

    monkeypatch.setattr(retention, "purge_changes", held_up)
    assert sweep(store, age=DAY) == (0, 0)
    assert len(left(store)) == 3


def test_it_begins_by_itself_and_stops_in_between(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FIRST", 0.0)
    monkeypatch.setattr(retention, "_STOPPING", 60.0)  # on a busy machine too
    for number in range(300):
        ended(store, f"d{number}", 400)
    ticking = Retention(store, Rules(age=DAY), clock=lambda: NOW, pause=0.005)
    some = _some_deleted(store)
    ticking.start()
    while len(left(store)) == 300:  # a store may tell of the creations only now
        assert some.wait(20)
        some.clear()
    ticking.stop()
    count = len(left(store))
    assert 0 < count < 300
    # The lease was given back: another process goes on at once.
    assert sweep(store, age=DAY)[0] == count
    assert left(store) == [] and operations(store) == set()


def _some_deleted(store: Store) -> Any:
    import threading

    event = threading.Event()
    store.subscribe(lambda kind, _: event.set() if kind == Deployment.KIND else None)
    return event

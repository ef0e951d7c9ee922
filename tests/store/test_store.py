"""The store: a contract for every store (the `store` fixture), then what only the SQLite store promises."""

from __future__ import annotations

import dataclasses
import os
import queue
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deployer.core import failpoints
from deployer.core.errors import Fenced, SettingsError, StaleRevision, StoreUnavailable
from deployer.core.model import json_codec
from deployer.core.model.records import App, Deployment, Event, HostClaim, Status
from deployer.core.ports.store import REPLICA, Append, Create, Delete, Expect, Replica, Store, Update
from deployer.store import sqlite, writer
from deployer.store.sqlite import SqliteStore
from deployer.store.transfer.port import Item, Lines, Row, Token, Transferable, numbered
from support.memory_store import MemoryStore

from .conftest import Clock

NOON = "2026-01-01T12:00:00.000Z"


sqlite_only = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def a_deployment(
    id: str, *, namespace: str = "shop", app: str = "cart", status: Status = Status.DEPLOYING, size: int = 1
) -> Deployment:
    return Deployment(
        namespace=namespace,
        app=app,
        id=id,
        descriptor={"appName": app, "text": "ä" * size},
        created="2026-01-01T00:00:00Z",
        last_modified="2026-01-01T00:00:00Z",
        status=status,
    )


def ids(found: list[Deployment]) -> list[str]:
    return [record.id for record in found]


# --- records --------------------------------------------------------------------------------------------------------


def test_created_record_comes_back_with_its_revision(store: Store) -> None:
    revision = store.commit(Create(a_deployment("d1")))
    stored = store.get(Deployment, "d1")
    assert stored is not None
    assert stored.sequence > 0
    assert stored == dataclasses.replace(a_deployment("d1"), revision=revision, sequence=stored.sequence)


def test_what_is_not_there_is_none(store: Store) -> None:
    store.commit(Create(a_deployment("d1")))
    assert store.get(Deployment, "d2") is None
    assert store.get(Event, "d1") is None
    assert store.find(Event) == []
    assert store.count(Event) == 0


def test_update_keeps_the_place_in_the_order_of_arrival(store: Store) -> None:
    first = store.commit(Create(a_deployment("d1")))
    store.commit(Create(a_deployment("d2")))
    stored = store.get(Deployment, "d1")
    assert stored is not None
    second = store.commit(Update(stored.to(Status.FAILURE)))
    assert second > first
    again = store.get(Deployment, "d1")
    assert again is not None
    assert (again.status, again.revision, again.sequence) == (Status.FAILURE, second, stored.sequence)
    assert ids(store.find(Deployment)) == ["d1", "d2"]


def test_every_commit_raises_the_revision_and_its_records_share_it(store: Store) -> None:
    one = store.commit(Create(a_deployment("b")), Create(a_deployment("a")))
    found = store.find(Deployment)
    assert [(r.id, r.revision) for r in found] == [("a", one), ("b", one)]
    assert store.commit(Expect(found[0])) > one
    assert store.get(Deployment, "a") == found[0]


@pytest.mark.parametrize("change", [Update, Delete, Expect])
def test_a_change_with_an_old_revision_is_refused(store: Store, change: type[Update | Delete | Expect]) -> None:
    first = dataclasses.replace(a_deployment("d1"), revision=store.commit(Create(a_deployment("d1"))))
    store.commit(Update(first))
    current = store.get(Deployment, "d1")
    with pytest.raises(StaleRevision, match="d1"):
        store.commit(change(first))
    assert store.get(Deployment, "d1") == current


@pytest.mark.parametrize("change", [Update, Delete, Expect])
def test_a_change_of_what_is_gone_is_refused(store: Store, change: type[Update | Delete | Expect]) -> None:
    stored = dataclasses.replace(a_deployment("d1"), revision=store.commit(Create(a_deployment("d1"))))
    store.commit(Delete(stored))
    with pytest.raises(StaleRevision, match="not there"):
        store.commit(change(stored))
    assert store.get(Deployment, "d1") is None


def test_a_host_is_claimed_once(store: Store) -> None:
    store.commit(Create(HostClaim(namespace="shop", app="cart", host="shop.example")))
    with pytest.raises(StaleRevision, match=r"shop\.example exists"):
        store.commit(Create(HostClaim(namespace="other", app="blog", host="shop.example")))
    claim = store.get(HostClaim, "shop.example")
    assert claim is not None
    assert claim.app == "cart"


def test_one_refused_change_undoes_the_whole_commit(store: Store) -> None:
    stored = dataclasses.replace(a_deployment("d1"), revision=store.commit(Create(a_deployment("d1"))))
    with pytest.raises(StaleRevision):
        store.commit(
            Create(App(namespace="shop", app="cart")),
            Update(stored.to(Status.DEPLOYED)),
            Delete(dataclasses.replace(a_deployment("d1"), revision=99)),
        )
    assert store.get(App, "shop/cart") is None
    again = store.get(Deployment, "d1")
    assert again is not None
    assert again == dataclasses.replace(stored, sequence=again.sequence)


def test_a_record_moves_between_lists_when_its_tag_changes(store: Store) -> None:
    for number in range(4):
        store.commit(Create(a_deployment(f"d{number}")))
    moved = store.get(Deployment, "d1")
    assert moved is not None
    store.commit(Update(moved.to(Status.DEPLOYED)))
    assert ids(store.find(Deployment, tag="DEPLOYING")) == ["d0", "d2", "d3"]
    assert ids(store.find(Deployment, tag="DEPLOYED")) == ["d1"]
    assert store.count(Deployment) == 4
    assert store.count(Deployment, tag="DEPLOYING") == 3


def test_find_narrows_to_namespace_app_and_tag(store: Store) -> None:
    store.commit(Create(a_deployment("a", namespace="one", app="x")))
    store.commit(Create(a_deployment("b", namespace="one", app="y")))
    store.commit(Create(a_deployment("c", namespace="two", app="x")))
    store.commit(Create(a_deployment("d", namespace="one", app="x", status=Status.DEPLOYED)))
    assert ids(store.find(Deployment, namespace="one")) == ["a", "b", "d"]
    assert ids(store.find(Deployment, namespace="one", app="x", newest_first=True)) == ["d", "a"]
    assert ids(store.find(Deployment, namespace="one", app="x", tag="DEPLOYING")) == ["a"]
    assert ids(store.find(Deployment, namespace="none")) == []
    with pytest.raises(ValueError, match="namespace"):
        store.find(Deployment, app="x")


def test_limit_per_app_keeps_the_newest_of_each(store: Store) -> None:
    for number in range(4):
        for app in ("x", "y"):
            store.commit(Create(a_deployment(f"{app}{number}", app=app)))
    store.commit(Create(a_deployment("other", app="x", namespace="else")))
    assert ids(store.find(Deployment, namespace="shop", limit_per_app=2)) == ["x2", "y2", "x3", "y3"]
    newest = store.find(Deployment, limit_per_app=1, newest_first=True)
    assert ids(newest) == ["other", "y3", "x3"]
    assert ids(store.find(Deployment, namespace="shop", app="x", limit_per_app=3, newest_first=True)) == [
        "x3",
        "x2",
        "x1",
    ]
    assert store.find(Deployment, limit_per_app=0) == []


NARROWED: list[dict[str, Any]] = [
    {},
    {"namespace": "one"},
    {"namespace": "one", "app": "x"},
    {"namespace": "one", "tag": "DEPLOYED"},
    {"namespace": "one", "app": "x", "tag": "DEPLOYED"},
    {"tag": "DEPLOYED"},
    {"namespace": "one", "limit_per_app": 2},
]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("narrowed", NARROWED, ids=lambda filters: "-".join(filters) or "all")
def test_pages_are_the_list_in_pieces(store: Store, narrowed: dict[str, Any], newest_first: bool) -> None:
    for number in range(4):
        # Records of one commit share their sequence: the key decides.
        store.commit(
            *(
                Create(a_deployment(f"{namespace}{app}{number}", namespace=namespace, app=app, status=status))
                for namespace, app, status in (
                    ("one", "y", Status.DEPLOYED),
                    ("one", "x", Status.DEPLOYED if number % 2 else Status.FAILURE),
                    ("two", "x", Status.DEPLOYED),
                )
            )
        )
    whole = store.find(Deployment, **narrowed, newest_first=newest_first)
    assert len(whole) >= 2
    for limit in (1, 2, 3, 100):
        pages: list[Deployment] = []
        after = None
        while page := store.find(Deployment, **narrowed, newest_first=newest_first, limit=limit, after=after):
            assert len(page) <= limit
            pages += page
            after = (page[-1].sequence, page[-1].key)
        assert pages == whole
    assert store.find(Deployment, **narrowed, limit=0) == []


def test_a_page_goes_on_where_the_last_one_ended_whatever_became_of_that_record(store: Store) -> None:
    for number in range(4):
        store.commit(Create(a_deployment(f"d{number}")))
    first = store.find(Deployment, namespace="shop", newest_first=True, limit=2)
    assert ids(first) == ["d3", "d2"]
    store.commit(Delete(first[-1]))
    store.commit(Create(a_deployment("d4")))
    after = (first[-1].sequence, first[-1].key)
    assert ids(store.find(Deployment, namespace="shop", newest_first=True, limit=2, after=after)) == ["d1", "d0"]


def test_a_page_may_end_with_the_record_that_is_enough(store: Store) -> None:
    for number in range(6):
        store.commit(Create(a_deployment(f"d{number}", size=1000)))
    seen: list[str] = []
    after, pages = None, 0
    while page := store.find(Deployment, namespace="shop", size=1, after=after):
        seen += ids(page)
        after, pages = (page[-1].sequence, page[-1].key), pages + 1
    assert seen == [f"d{number}" for number in range(6)]
    assert len(store.find(Deployment, namespace="shop", size=10**6)) == 6


def test_records_are_counted_by_namespace_app_and_tag(store: Store) -> None:
    for number, (namespace, status) in enumerate(
        [("one", Status.DEPLOYING), ("one", Status.DEPLOYED), ("two", Status.DEPLOYING)]
    ):
        store.commit(Create(a_deployment(f"d{number}", namespace=namespace, status=status)))
    assert store.count(Deployment, namespace="one") == 2
    assert store.count(Deployment, namespace="one", tag="DEPLOYING") == 1
    assert store.count(Deployment, tag="DEPLOYING") == 2
    assert store.count(Deployment, namespace="three") == 0
    app = store.find(Deployment, namespace="two")[0].app
    assert store.count(Deployment, namespace="two", app=app) == 1
    assert store.count(Deployment, namespace="two", app=app, tag="DEPLOYED") == 0
    assert store.count(Deployment, namespace="two", app=app[:-1]) == 0
    with pytest.raises(ValueError, match="in its namespace only"):
        store.count(Deployment, app=app)


def test_the_bytes_of_a_namespace_are_those_of_its_records_and_logs(store: Store) -> None:
    """Whatever was stored, changed, said and deleted."""

    def right() -> bool:
        for namespace in ("one", "two", "none"):
            records = store.find(Deployment, namespace=namespace)
            size = sum(len(json_codec.dumps(record.to_document()).encode()) for record in records)
            lines = sum(len(line.text.encode()) for record in records for line in store.read_log(record.id))
            if store.usage(namespace) != (size, lines):
                return False
        return True

    assert right()
    for number in range(4):
        namespace = "one" if number % 2 else "two"
        store.commit(
            Create(a_deployment(f"d{number}", namespace=namespace, size=1000 * number)), Append(f"d{number}", NOON, "ü")
        )
        store.append_log(f"d{number}", [(NOON, "x" * 10), (NOON, "€" * 10)])
    assert right() and store.usage("one")[0] > 8000
    for id in ("d1", "d2"):
        grown = store.get(Deployment, id)
        assert grown is not None
        store.commit(Update(dataclasses.replace(grown, descriptor={"text": "y" * 99})))
    assert right()
    for id in ("d0", "d3"):
        gone = store.get(Deployment, id)
        assert gone is not None
        store.commit(Delete(gone))
    store.append_log("d3", [(NOON, "after its end")])
    assert store.last_line("d3") and right()


def test_the_namespaces_are_those_that_have_records(store: Store) -> None:
    assert store.namespaces() == []
    store.commit(Create(a_deployment("a", namespace="two")), Create(a_deployment("b", namespace="one")))
    store.commit(Create(a_deployment("c", namespace="one")))
    assert store.namespaces() == ["one", "two"]
    kept = store.get(Deployment, "a")
    assert kept is not None
    store.commit(Delete(kept))
    assert store.namespaces() == ["one"]


def test_any_text_survives(store: Store) -> None:
    text = "ä\x00\u2028\U0001f600 \ud800 'quote' \"double\" \\"
    record = dataclasses.replace(a_deployment("d1"), descriptor={"text": text})
    store.commit(Create(record))
    stored = store.get(Deployment, "d1")
    assert stored is not None
    assert stored.descriptor == {"text": text}


def test_a_record_that_is_no_json_fails_alone(store: Store) -> None:
    with pytest.raises(TypeError):
        store.commit(Create(dataclasses.replace(a_deployment("d1"), descriptor={"no": object()})))
    store.commit(Create(a_deployment("d1")))
    assert store.count(Deployment) == 1


# --- logs -----------------------------------------------------------------------------------------------------------


def test_lines_are_numbered_from_one_per_deployment(store: Store) -> None:
    store.append_log("d1", [(NOON, "a"), (NOON, "b\nmore of b")])
    store.append_log("d2", [(NOON, "x")])
    store.append_log("d1", [(NOON, "c")])
    assert [(line.number, line.time, line.text) for line in store.read_log("d1")] == [
        (1, NOON, "a"),
        (2, NOON, "b\nmore of b"),
        (3, NOON, "c"),
    ]
    assert [line.number for line in store.read_log("d2")] == [1]
    assert store.read_log("d3") == []


def test_reading_goes_on_after_a_number(store: Store) -> None:
    store.append_log("d1", [(NOON, str(number)) for number in range(1, 26)])
    seen: list[str] = []
    while lines := store.read_log("d1", after=len(seen), limit=10):
        assert len(lines) <= 10
        seen += [line.text for line in lines]
    assert seen == [str(number) for number in range(1, 26)]
    assert store.read_log("d1", limit=0) == []


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 1), (10, 1), (11, 2), (30, 3), (31, 4), (1000, 5)])
def test_reading_ends_with_the_line_that_is_enough(store: Store, size: int, count: int) -> None:
    store.append_log("d1", [(NOON, "x" * 10)] * 5)
    assert [line.number for line in store.read_log("d1", size=size)] == [1, 2, 3, 4, 5][:count]
    assert [line.number for line in store.read_log("d1", after=3, size=size)] == [4, 5][:count]


def test_the_last_line_is_the_count_of_lines(store: Store) -> None:
    assert store.last_line("d1") == 0
    for count in range(1, 4):
        store.append_log("d1", [(NOON, "x")])
        store.append_log("d2", [(NOON, "x")] * 9)
        assert store.last_line("d1") == count


def test_a_commit_that_is_refused_takes_no_number(store: Store) -> None:
    store.commit(Create(a_deployment("d1")), Append("d1", NOON, "first"))
    with pytest.raises(StaleRevision):
        store.commit(Append("d1", NOON, "never said"), Create(a_deployment("d1")))
    store.append_log("d1", [(NOON, "second")])
    assert [(line.number, line.text) for line in store.read_log("d1")] == [(1, "first"), (2, "second")]


def test_a_lone_surrogate_does_not_stop_the_log(store: Store) -> None:
    store.append_log("d1", [(NOON, "bad \ud800 text")])
    store.append_log("d1", [(NOON, "good")])
    assert [line.text for line in store.read_log("d1")] == ["bad \\ud800 text", "good"]


def test_deleting_a_deployment_takes_its_log(store: Store) -> None:
    stored = dataclasses.replace(a_deployment("d1"), revision=store.commit(Create(a_deployment("d1"))))
    store.append_log("d1", [(NOON, "mine")])
    store.append_log("d2", [(NOON, "not mine")])
    store.commit(Delete(stored))
    assert store.read_log("d1") == []
    assert [line.text for line in store.read_log("d2")] == ["not mine"]


def test_appending_never_raises_even_after_close(store: Store) -> None:
    store.close()
    store.append_log("d1", [(NOON, "late")])


# --- leases ---------------------------------------------------------------------------------------------------------


def test_a_lease_is_refused_until_it_expires_and_its_token_grows(store: Store, clock: Clock) -> None:
    lease = store.acquire("shop", "cart", "one", 10)
    assert lease is not None
    assert (lease.holder, lease.token) == ("one", 1)
    assert store.acquire("shop", "cart", "two", 10) is None
    assert store.acquire("shop", "blog", "two", 10) is not None
    clock.advance(10.1)
    taken = store.acquire("shop", "cart", "two", 10)
    assert taken is not None
    assert (taken.holder, taken.token) == ("two", 2)
    back = store.acquire("shop", "cart", "one", 10)
    assert back is None


def test_renewing_extends_and_acquiring_again_keeps_the_token(store: Store, clock: Clock) -> None:
    lease = store.acquire("shop", "cart", "one", 10)
    assert lease is not None
    clock.advance(8)
    renewed = store.renew(lease, 10)
    assert renewed.expires > lease.expires
    clock.advance(8)
    assert store.acquire("shop", "cart", "two", 10) is None
    again = store.acquire("shop", "cart", "one", 10)
    assert again is not None
    assert again.token == lease.token


def test_a_released_lease_is_free_at_once(store: Store) -> None:
    lease = store.acquire("shop", "cart", "one", 1000)
    assert lease is not None
    store.release(lease)
    taken = store.acquire("shop", "cart", "two", 1000)
    assert taken is not None
    assert taken.token == lease.token + 1
    store.release(lease)  # of a stale holder: without effect
    assert store.acquire("shop", "cart", "three", 10) is None
    with pytest.raises(Fenced):
        store.renew(lease, 10)


def test_the_writes_of_a_stale_holder_are_refused(store: Store, clock: Clock) -> None:
    old = store.acquire("shop", "cart", "one", 10)
    assert old is not None
    store.commit(Create(a_deployment("d1")), fence=old)
    clock.advance(20)
    store.commit(Create(a_deployment("d2")), fence=old)  # late, but nobody else has it: still the current token
    new = store.acquire("shop", "cart", "two", 10)
    assert new is not None
    with pytest.raises(Fenced, match="two with token 2"):
        store.commit(Create(a_deployment("d3")), fence=old)
    store.commit(Create(a_deployment("d4")), fence=new)
    clock.advance(20)
    back = store.acquire("shop", "cart", "one", 10)
    assert back is not None
    assert back.token == 3
    with pytest.raises(Fenced):  # the same holder, but of an earlier term
        store.commit(Create(a_deployment("d5")), fence=old)
    assert ids(store.find(Deployment)) == ["d1", "d2", "d4"]


def test_a_fence_of_a_lease_that_was_never_given_is_refused(store: Store) -> None:
    lease = store.acquire("shop", "cart", "one", 10)
    assert lease is not None
    with pytest.raises(Fenced, match="nobody"):
        store.commit(Create(a_deployment("d1")), fence=dataclasses.replace(lease, app="blog"))


def test_a_lease_that_nobody_has_any_more_is_said_to_be_nobodys(store: Store) -> None:
    lease = store.acquire("shop", "cart", "one", 10)
    assert lease is not None
    store.release(lease, above=7)
    with pytest.raises(Fenced, match="belongs to nobody, not to one with token 1"):
        store.commit(Create(a_deployment("d1")), fence=lease)


def test_a_lease_that_was_given_back_cannot_be_renewed(store: Store) -> None:
    """A renewal may be under way when it is given back; it must not keep others waiting afterwards."""
    lease = store.acquire("shop", "cart", "one", 15.0)
    assert lease is not None
    store.release(lease)
    with pytest.raises(Fenced, match="given back"):
        store.renew(lease, 15.0)
    assert store.acquire("shop", "cart", "two", 15.0) is not None


# --- moving ---------------------------------------------------------------------------------------------------------


def everything(store: Store) -> list[Item]:
    assert isinstance(store, Transferable)
    with store.dump() as items:
        return list(items)


def filled(store: Store) -> None:
    """Two records of one transaction, one that was changed, one that is gone, lines, and a lease that changed hands."""
    store.commit(Create(a_deployment("b")), Create(a_deployment("a", status=Status.DEPLOYED)))
    store.commit(Create(HostClaim(namespace="shop", app="cart", host="shop.example")))
    store.append_log("b", [(NOON, "one"), (NOON, "two\nof it")])
    stored = store.get(Deployment, "b")
    assert stored is not None
    store.commit(Update(stored.to(Status.FAILURE)))
    store.commit(Create(a_deployment("gone")))
    stored = store.get(Deployment, "gone")
    assert stored is not None
    store.append_log("gone", [(NOON, "never mind")])
    store.commit(Delete(stored))
    for holder in ("x", "y"):
        lease = store.acquire("shop", "cart", holder, 10)
        assert lease is not None
        store.release(lease)


def test_a_dump_has_everything_in_order_of_arrival(store: Store) -> None:
    filled(store)
    found = everything(store)
    assert [(row.kind, row.key, row.tag) for row in found if isinstance(row, Row)] == [
        ("deployment", "a", "DEPLOYED"),
        ("deployment", "b", "FAILURE"),
        ("host", "shop.example", ""),
    ]
    assert [item for item in found if isinstance(item, Token)] == [Token("shop", "cart", 2)]
    lines = [line for item in found if isinstance(item, Lines) for line in item.lines]
    assert [(line.number, line.text) for line in lines] == [(1, "one"), (2, "two\nof it")]


def test_a_dump_is_of_one_moment(store: Store) -> None:
    filled(store)
    before = everything(store)
    assert isinstance(store, Transferable)
    with store.dump() as items:
        first = next(items)
        store.commit(Create(a_deployment("later")))
        store.append_log("b", [(NOON, "three")])
        assert store.last_line("b") == 3
        assert [first, *items] == before


def test_what_is_loaded_is_there_and_may_be_loaded_again(store: Store, clock: Clock) -> None:
    other = MemoryStore(clock=clock)
    filled(other)
    assert isinstance(store, Transferable)
    for _ in range(2):
        for item in numbered(everything(other)):
            store.load([item])
    assert [(d.id, d.status) for d in store.find(Deployment)] == [("a", Status.DEPLOYED), ("b", Status.FAILURE)]
    assert [(line.number, line.text) for line in store.read_log("b")] == [(1, "one"), (2, "two\nof it")]
    assert store.read_log("gone") == []
    assert [(r.kind, r.key, r.text) for r in everything(store) if isinstance(r, Row)] == [
        (r.kind, r.key, r.text) for r in everything(other) if isinstance(r, Row)
    ]


def test_life_goes_on_with_what_was_loaded(store: Store, clock: Clock) -> None:
    other = MemoryStore(clock=clock)
    filled(other)
    assert isinstance(store, Transferable)
    store.load(list(numbered(everything(other))))
    stored = store.get(Deployment, "a")
    assert stored is not None
    store.commit(Update(stored.to(Status.UNDEPLOYING)))
    store.commit(Create(a_deployment("new")))
    store.append_log("b", [(NOON, "three")])
    assert ids(store.find(Deployment)) == ["a", "b", "new"]
    assert [line.number for line in store.read_log("b")] == [1, 2, 3]


def test_a_fencing_token_is_never_lowered_by_loading(store: Store) -> None:
    filled(store)
    assert isinstance(store, Transferable)
    store.load([Token("shop", "cart", 1), Token("shop", "other", 7)])
    tokens = {(item.app, item.token) for item in everything(store) if isinstance(item, Token)}
    assert tokens == {("cart", 2), ("other", 7)}
    for app, least in (("cart", 2), ("other", 7)):
        lease = store.acquire("shop", app, "me", 10)
        assert lease is not None and lease.token > least


def test_a_lease_that_is_behind_the_cluster_is_given_back_for_a_higher_token(store: Store) -> None:
    lease = store.acquire("shop", "cart", "me", 1000)
    assert lease is not None
    store.release(lease, above=7)
    with pytest.raises(Fenced):
        store.renew(lease, 10)
    again = store.acquire("shop", "cart", "me", 1000)
    assert again is not None and again.token == 8
    store.release(again, above=3)
    same = store.acquire("shop", "cart", "me", 10)
    assert same is not None and same.token == 8


def test_who_lost_the_lease_raises_no_token(store: Store) -> None:
    old = store.acquire("shop", "cart", "one", 1000)
    assert old is not None
    store.release(old)
    new = store.acquire("shop", "cart", "two", 1000)
    assert new is not None
    store.release(old, above=7)
    assert store.renew(new, 1000).token == new.token


# --- replicas ---------------------------------------------------------------------------------------------------------


def test_replicas_are_those_that_joined_and_say_what_they_said_last(store: Store) -> None:
    assert store.replicas() == []
    store.join(Replica("two", {"slots": 1}), 15.0)
    store.join(Replica("one", {"slots": 2}), 15.0)
    store.join(Replica("two", {"slots": 3, "name": "é"}), 15.0)
    assert store.replicas() == [Replica("one", {"slots": 2}), Replica("two", {"slots": 3, "name": "é"})]
    store.leave("two")
    store.leave("two")
    assert store.replicas() == [Replica("one", {"slots": 2})]


def test_a_replica_that_does_not_join_again_is_gone_when_its_time_is_up(store: Store, clock: Clock) -> None:
    store.join(Replica("dies", {}), 15.0)
    store.join(Replica("lives", {}), 15.0)
    clock.advance(10)
    store.join(Replica("lives", {}), 15.0)
    assert [replica.holder for replica in store.replicas()] == ["dies", "lives"]
    clock.advance(6)
    assert [replica.holder for replica in store.replicas()] == ["lives"]
    store.join(Replica("dies", {"again": True}), 15.0)
    assert [replica.holder for replica in store.replicas()] == ["dies", "lives"]


def test_subscribers_hear_of_replicas_that_come_say_something_new_and_go(store: Store) -> None:
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    forget = store.subscribe(lambda *notice: heard.put(notice))
    for act in (
        lambda: store.join(Replica("one", {}), 15.0),
        lambda: store.join(Replica("one", {"busy": 1}), 15.0),
        lambda: store.leave("one"),
    ):
        act()
        assert heard.get(timeout=20.0) == (REPLICA, "one")
    store.join(Replica("two", {}), 15.0)
    assert heard.get(timeout=20.0) == (REPLICA, "two")
    store.join(Replica("two", {}), 15.0)  # it only stays
    forget()
    store.leave("two")
    store.commit(Create(a_deployment("d1")))
    store.last_line("d1")
    assert heard.empty()


# --- subscriptions, closing -----------------------------------------------------------------------------------------


def test_subscribers_hear_of_each_commit_and_of_lines(store: Store) -> None:
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    unsubscribe = store.subscribe(lambda kind, key: heard.put((kind, key)))
    revision = store.commit(Create(a_deployment("d1")), Create(App(namespace="shop", app="cart")))
    assert {heard.get(timeout=5), heard.get(timeout=5)} == {("deployment", "d1"), ("app", "shop/cart")}
    store.append_log("d1", [(NOON, "a"), (NOON, "b")])
    assert heard.get(timeout=5) == ("log", "d1")
    assert [line.text for line in store.read_log("d1")] == ["a", "b"]
    with pytest.raises(StaleRevision):
        store.commit(Create(a_deployment("d1")))
    store.commit(Delete(dataclasses.replace(a_deployment("d1"), revision=revision)))
    assert heard.get(timeout=5) == ("deployment", "d1")
    unsubscribe()
    unsubscribe()
    store.commit(Create(a_deployment("d2")))
    store.close()
    assert heard.empty()


def test_a_subscriber_that_fails_does_not_disturb_the_others(store: Store) -> None:
    heard: queue.Queue[str] = queue.Queue()

    def broken(kind: str, key: str) -> None:
        raise RuntimeError("a viewer's loop is closed")

    store.subscribe(broken)
    store.subscribe(lambda kind, key: heard.put(key))
    store.commit(Create(a_deployment("d1")))
    assert heard.get(timeout=5) == "d1"
    store.commit(Create(a_deployment("d2")))
    assert heard.get(timeout=5) == "d2"


def test_a_closed_store_says_so(store: Store) -> None:
    lease = store.acquire("shop", "cart", "one", 10)
    assert lease is not None
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.get(Deployment, "d1"),
        lambda: store.find(Deployment),
        lambda: store.count(Deployment),
        lambda: store.commit(Create(a_deployment("d1"))),
        lambda: store.read_log("d1"),
        lambda: store.acquire("shop", "cart", "one", 10),
        lambda: store.renew(lease, 10),
        lambda: store.release(lease),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed"):
            call()


def test_racing_writers_lose_no_update(store: Store) -> None:
    """Optimistic counters: every StaleRevision means that somebody else's increment is in, and none gets lost."""
    store.commit(Create(App(namespace="shop", app="cart")))

    def increment() -> None:
        for _ in range(10):
            for _attempt in range(10_000):
                app = store.get(App, "shop/cart")
                assert app is not None
                try:
                    store.commit(Update(dataclasses.replace(app, highest=app.highest + 1)))
                    break
                except StaleRevision:
                    continue

    in_threads(8, lambda number: increment())
    final = store.get(App, "shop/cart")
    assert final is not None
    assert final.highest == 80


def in_threads(number: int, work: Callable[[int], object]) -> None:
    """Run work(0..number-1) at once; the first error is raised here."""
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


# --- a model --------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c", "d"])


class AgainstModel(RuleBasedStateMachine):
    """Random commits, logs and restarts, compared with dictionaries after each."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()
        self.store = SqliteStore(self.folder / "model.db")
        self.records: dict[str, Deployment] = {}
        self.revision = 0
        self.lines: dict[str, list[str]] = {}

    @rule(key=KEYS, app=st.sampled_from(["x", "y"]))
    def create(self, key: str, app: str) -> None:
        record = a_deployment(key, app=app)
        if key in self.records:
            with pytest.raises(StaleRevision):
                self.store.commit(Create(record))
            return
        self.revision += 1
        assert self.store.commit(Create(record)) == self.revision
        self.records[key] = dataclasses.replace(record, revision=self.revision, sequence=self.revision)

    @rule(key=KEYS, other=KEYS, behind=st.integers(0, 1), status=st.sampled_from(list(Status)))
    def update_and_expect(self, key: str, other: str, behind: int, status: Status) -> None:
        mine, seen = self.records.get(key), self.records.get(other)
        if mine is None or seen is None:
            return
        changed = dataclasses.replace(mine, status=status)
        changes = (Expect(dataclasses.replace(seen, revision=seen.revision - behind)), Update(changed))
        if behind:
            with pytest.raises(StaleRevision):
                self.store.commit(*changes)
            return
        self.revision += 1
        assert self.store.commit(*changes) == self.revision
        self.records[key] = dataclasses.replace(changed, revision=self.revision)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        record = self.records.pop(key, None)
        if record is not None:
            self.revision += 1
            assert self.store.commit(Delete(record)) == self.revision
            self.lines.pop(key, None)

    @rule(key=KEYS, texts=st.lists(st.text(max_size=5), min_size=1, max_size=3))
    def log(self, key: str, texts: list[str]) -> None:
        if key in self.records:
            self.store.append_log(key, [(NOON, text) for text in texts])
            self.lines.setdefault(key, []).extend(texts)

    @precondition(lambda self: self.revision % 4 == 3)
    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = SqliteStore(self.folder / "model.db")

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        in_order = sorted(self.records.values(), key=lambda r: (r.sequence, r.key))
        assert self.store.find(Deployment) == in_order
        for app in ("x", "y"):
            mine = [r for r in reversed(in_order) if r.app == app]
            assert self.store.find(Deployment, namespace="shop", app=app, newest_first=True) == mine
        for status in Status:
            assert self.store.count(Deployment, tag=status) == sum(r.status is status for r in in_order)
        for key in "abcd":
            assert [(n.number, n.text) for n in self.store.read_log(key)] == list(enumerate(self.lines.get(key, []), 1))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def test_against_a_model(tmp_path: Path) -> None:
    AgainstModel.folder = tmp_path
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        AgainstModel,
        settings=settings(
            max_examples=25, stateful_step_count=20, deadline=None, database=None, suppress_health_check=checks
        ),
    )


# --- SQLite: opening ------------------------------------------------------------------------------------------------

OPEN_ELSEWHERE = """
import sys
from pathlib import Path
from deployer.core.errors import SettingsError
from deployer.store.sqlite import SqliteStore
try:
    SqliteStore(Path(sys.argv[1])).close()
except SettingsError as error:
    sys.exit(str(error))
"""


def test_a_second_process_is_told_who_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    opened = SqliteStore(path)
    command = [sys.executable, "-c", OPEN_ELSEWHERE, str(path)]
    try:
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert str(path) in refused.stderr
        assert f"process {os.getpid()}" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        with pytest.raises(SettingsError, match="in use"):
            SqliteStore(path)
    finally:
        opened.close()
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    SqliteStore(path).close()
    with_sqlite(path, "PRAGMA user_version = 99")
    for _ in range(2):  # the second time shows that the first let go of the lock
        with pytest.raises(SettingsError, match="newer release"):
            SqliteStore(path)
    assert with_sqlite(path, "PRAGMA user_version") == [(99,)]


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    foreign, garbage = tmp_path / "foreign.db", tmp_path / "garbage.db"
    with_sqlite(foreign, "CREATE TABLE theirs (a)")
    garbage.write_bytes(b"not a database, though long enough to look like one\n" * 100)
    for path in (foreign, garbage, tmp_path, garbage / "below-a-file.db"):
        with pytest.raises(SettingsError, match=path.name):
            SqliteStore(path)
    assert with_sqlite(foreign, "SELECT name FROM sqlite_master") == [("theirs",)]
    assert garbage.read_bytes().startswith(b"not a database")


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    opened = SqliteStore(tmp_path / "new" / "deployer.db")
    opened.commit(Create(a_deployment("d1")))
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()}
    opened.close()
    assert modes.keys() >= {"deployer.db", "deployer.db-wal", "deployer.db.lock"}
    assert set(modes.values()) == {0o600}


def test_opening_again_finds_everything_and_ends_the_leases_of_the_dead(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "deployer.db"
    first = SqliteStore(path, clock=clock)
    revision = first.commit(Create(a_deployment("d1")))
    first.append_log("d1", [(NOON, "kept")])
    first.append_log("gone", [(NOON, "of a deployment that has no record")])
    lease = first.acquire("shop", "cart", "one", 1000)
    assert lease is not None
    first.close()

    second = SqliteStore(path, clock=clock)
    try:
        assert ids(second.find(Deployment)) == ["d1"]
        assert [line.text for line in second.read_log("d1")] == ["kept"]
        assert second.read_log("gone") == []
        second.append_log("d1", [(NOON, "next")])
        assert [line.number for line in second.read_log("d1")] == [1, 2]
        successor = second.acquire("shop", "cart", "two", 10)
        assert successor is not None
        assert successor.token == lease.token + 1
        with pytest.raises(Fenced):
            second.commit(Create(a_deployment("d2")), fence=lease)
        assert second.commit(Create(a_deployment("d2")), fence=successor) == revision + 1
    finally:
        second.close()


def test_the_bytes_of_a_database_of_before_are_counted_at_its_first_opening(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    store = SqliteStore(path)
    store.commit(Create(a_deployment("d1", size=500)), Append("d1", NOON, "ü" * 7))
    store.commit(Create(a_deployment("d2", namespace="other")))
    expected = store.usage("shop"), store.usage("other")
    store.close()
    assert expected[0][1] == 14 and expected[1][1] == 0
    for name in ("TRIGGER usage_insert", "TRIGGER usage_update", "TRIGGER usage_delete", "TRIGGER usage_log"):
        with_sqlite(path, f"DROP {name}")
    with_sqlite(path, "DROP TABLE usage")
    store = SqliteStore(path)
    assert (store.usage("shop"), store.usage("other")) == expected
    gone = store.get(Deployment, "d1")
    assert gone is not None
    store.commit(Delete(gone))
    assert store.usage("shop") == (0, 0)
    store.close()


def test_closing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    opened = SqliteStore(tmp_path / "deployer.db")
    opened.commit(Create(a_deployment("d1")))
    in_threads(20, lambda number: [opened.get(Deployment, "d1") for _ in range(20)])
    opened.append_log("d1", [(NOON, "written by close")])
    opened.close()
    assert set(Path("/proc/self/fd").iterdir()) <= before
    assert with_sqlite(tmp_path / "deployer.db", "SELECT text FROM log") == [("written by close",)]


def with_sqlite(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement).fetchall()
    finally:
        connection.close()


# --- SQLite: speed by construction ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ((sqlite._GET, ["deployment", "d1"]), "records_key"),
        *(
            (sqlite._find_query({"kind": "k", **filters}, newest_first, None, limit, after), index)
            for filters, index in (
                ({}, "records_all"),
                ({"namespace": "n"}, "records_namespace"),
                ({"namespace": "n", "app": "a"}, "records_app"),
                ({"namespace": "n", "tag": "t"}, "records_tagged"),
                ({"namespace": "n", "tag": "t", "app": "a"}, "records_state"),
                ({"tag": "t"}, "records_tag"),
            )
            for newest_first in (False, True)
            for limit, after in ((None, None), (100, (7, "d7")))
        ),
        ((writer.LAST_LINE, ["d1"]), "PRIMARY KEY"),
    ],
)
def test_queries_use_an_index_and_need_no_sorting(tmp_path: Path, query: tuple[str, list[object]], index: str) -> None:
    path = tmp_path / "deployer.db"
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    try:
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query[0], query[1])]
    finally:
        connection.close()
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH")
    assert index in plan[0]
    assert ("(?, ?)" in query[0]) == ("(sequence,key)" in plan[0])


def test_the_limit_per_app_reads_documents_only_of_what_it_keeps(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    SqliteStore(path).close()
    sql, values = sqlite._find_query({"kind": "k", "namespace": "n"}, True, 3)
    connection = sqlite3.connect(path)
    try:
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, values)]
    finally:
        connection.close()
    assert any("COVERING INDEX records_app" in line for line in plan)
    assert not any(line.startswith("SCAN records") for line in plan)


# --- SQLite: group commit -------------------------------------------------------------------------------------------


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[None]:
    failpoints.configure({"DEPLOYER_FAILPOINT_COUNT": str(tmp_path / "counts.json")})
    yield
    failpoints.configure({})


@sqlite_only
def test_sixteen_threads_share_commits(store: Store, counted: None) -> None:
    def work(index: int) -> None:
        for number in range(20):
            store.commit(Create(a_deployment(f"{index}-{number}")))

    in_threads(16, work)
    assert store.count(Deployment) == 320
    assert len({record.revision for record in store.find(Deployment)}) == 320
    commits = failpoints.counts()
    assert commits["store.before"] == commits["store.after"] < 320


@sqlite_only
def test_lines_alone_pass_no_failpoint(store: Store, counted: None) -> None:
    store.append_log("d1", [(NOON, "a")])
    assert len(store.read_log("d1")) == 1
    store.acquire("shop", "cart", "one", 10)
    assert failpoints.counts() == {}
    with pytest.raises(StaleRevision):
        store.commit(Update(a_deployment("d1")))
    assert failpoints.counts() == {}


class Held:
    """Keeps the writer's thread busy (in a subscriber), so that what a test queues stays queued."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._busy = threading.Event()
        self._go_on = threading.Event()

    def __enter__(self) -> None:
        self._unsubscribe = self._store.subscribe(self._hold)
        self._store.commit(Create(Event(namespace="", app="", id="held", name="", deployment={})))
        assert self._busy.wait(10)

    def _hold(self, kind: str, key: str) -> None:
        self._busy.set()
        assert self._go_on.wait(60)

    def __exit__(self, *_: object) -> None:
        self._unsubscribe()
        self._go_on.set()


@sqlite_only
def test_a_caller_does_not_wait_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with Held(store):
        monkeypatch.setattr(writer, "WAIT", 0.05)
        with pytest.raises(StoreUnavailable, match="nothing was written"):
            store.commit(Create(a_deployment("d1")))
        monkeypatch.undo()
    store.commit(Create(a_deployment("d2")))
    assert ids(store.find(Deployment)) == ["d2"]


@sqlite_only
def test_lines_beyond_the_buffer_are_counted_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_LOG_BUFFER", 1000)
    with Held(store):
        for number in range(20):
            store.append_log("d1", [(NOON, f"{number} " + "x" * 100)])
    store.commit(Create(a_deployment("d1")))
    store.append_log("d1", [(NOON, "after")])
    texts = [line.text for line in store.read_log("d1")]
    kept = len(texts) - 2
    assert 0 < kept < 20
    assert texts[kept:] == [f"[{20 - kept} lines were lost: the store could not record them in time]", "after"]


# --- SQLite: crashes ------------------------------------------------------------------------------------------------

WRITE_ONE_AFTER_ANOTHER = """
import sys
from pathlib import Path
from deployer.core.model.records import Event
from deployer.core.ports.store import Create
from deployer.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
for number in range(20):
    store.append_log("d1", [("t", str(number))])
    store.commit(Create(Event(namespace="n", app="a", id=f"e{number:02}", name="x", deployment={})))
    print(f"e{number:02}", flush=True)
"""

WRITE_FROM_EIGHT_THREADS = """
import sys, threading
from pathlib import Path
from deployer.core.model.records import Event
from deployer.core.ports.store import Create
from deployer.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
def work(index):
    for number in range(100_000):
        store.commit(Create(Event(namespace="n", app="a", id=f"{index}-{number}", name="x" * 500, deployment={})))
        sys.stdout.write(f"{index}-{number}\\n")
        sys.stdout.flush()
threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize(("point", "written"), [("store.before", 6), ("store.after", 7)])
def test_killed_around_a_commit(tmp_path: Path, point: str, written: int) -> None:
    path = tmp_path / "deployer.db"
    killed = subprocess.run(
        [sys.executable, "-c", WRITE_ONE_AFTER_ANOTHER, str(path)],
        env={**os.environ, "DEPLOYER_FAILPOINT": f"{point}:7"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == failpoints.EXIT_CODE, killed.stderr
    assert killed.stdout.split() == [f"e{number:02}" for number in range(6)]
    assert with_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
    opened = SqliteStore(path)
    try:
        assert [event.id for event in opened.find(Event)] == [f"e{number:02}" for number in range(written)]
        assert opened.commit(Create(a_deployment("d9"))) == written + 1
    finally:
        opened.close()


def test_a_line_is_durable_before_a_later_commit_returns(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    subprocess.run(
        [sys.executable, "-c", WRITE_ONE_AFTER_ANOTHER, str(path)],
        env={**os.environ, "DEPLOYER_FAILPOINT": "store.after:4"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert with_sqlite(path, "SELECT number, text FROM log ORDER BY number") == [(n + 1, str(n)) for n in range(4)]


def test_killed_in_the_middle_of_group_commits(tmp_path: Path) -> None:
    path = tmp_path / "deployer.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FROM_EIGHT_THREADS, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(300)]
        child.send_signal(signal.SIGKILL)
        *rest, _cut = child.stdout.read().split("\n")
    assert with_sqlite(path, "PRAGMA integrity_check") == [("ok",)]
    opened = SqliteStore(path)
    try:
        stored = [event.id for event in opened.find(Event)]
    finally:
        opened.close()
    assert set(acknowledged + rest) <= set(stored)
    for index in range(8):  # nothing half-written either: each thread's events without a gap
        mine = [int(id.partition("-")[2]) for id in stored if id.startswith(f"{index}-")]
        assert mine == list(range(len(mine)))


LOG_FROM_EIGHT_THREADS = """
import sys, threading
from pathlib import Path
from deployer.core.errors import StaleRevision
from deployer.core.model.records import Deployment, Event
from deployer.core.ports.store import Append, Create
from deployer.store.sqlite import SqliteStore
store, run = SqliteStore(Path(sys.argv[1])), sys.argv[2]
for id in "ab" if run == "0" else "":
    store.commit(Create(Deployment(namespace="n", app="a", id=id, descriptor={}, created="c", last_modified="m")))
def work(index):
    deployment = "ab"[index % 2]
    for number in range(100_000):
        store.append_log(deployment, [("t", "one"), ("t", "x" * 500)])
        event = Event(namespace="n", app="a", id=f"{run}-{index}-{number}", name="x", deployment={})
        store.commit(Create(event), Append(deployment, "t", "said with it"))
        try:
            store.commit(Append(deployment, "t", "never said"), Create(event))
        except StaleRevision:
            sys.stdout.write("refused\\n")
            sys.stdout.flush()
threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_numbers_have_no_gaps_after_a_crash_and_go_on(tmp_path: Path) -> None:
    """A viewer's place in a log is the count of lines that it got: nothing but this makes that true."""
    path = tmp_path / "deployer.db"
    lines = dict.fromkeys("ab", 0)
    for run in range(2):
        command = [sys.executable, "-c", LOG_FROM_EIGHT_THREADS, str(path), str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert {child.stdout.readline().strip() for _ in range(200)} == {"refused"}
            child.send_signal(signal.SIGKILL)
        for deployment in "ab":
            rows = with_sqlite(path, f"SELECT number, text FROM log WHERE deployment = '{deployment}' ORDER BY number")
            assert len(rows) > lines[deployment] + 100
            lines[deployment] = len(rows)
            assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
            assert "never said" not in {text for _, text in rows}


# --- SQLite: a disk that refuses ------------------------------------------------------------------------------------


def fill_until_refused(store: SqliteStore) -> list[str]:
    """Commit until the store refuses; returns what it acknowledged."""
    acknowledged: list[str] = []
    for number in range(500):
        try:
            store.commit(Create(a_deployment(f"d{number:03}", size=20_000)))
        except StoreUnavailable as error:
            assert "\n" not in str(error)
            assert "cannot record anything now" in str(error)
            return acknowledged
        acknowledged.append(f"d{number:03}")
    pytest.fail("the store never ran out of space")


def refuses_then_recovers(
    path: Path, make_full: Callable[[SqliteStore], object], make_room: Callable[[], object]
) -> None:
    store = SqliteStore(path)
    try:
        make_full(store)
        try:
            acknowledged = fill_until_refused(store)
            assert ids(store.find(Deployment)) == acknowledged  # reads go on, and nothing is half-written
            with pytest.raises(StoreUnavailable):  # the first change fits, the second does not
                store.commit(Create(a_deployment("no half")), Create(a_deployment("of this", size=200_000)))
            assert ids(store.find(Deployment)) == acknowledged
            store.append_log("d000", [(NOON, "x" * 300_000), (NOON, "while the disk was full")])
            with pytest.raises(StoreUnavailable):
                store.read_log("d000")
        finally:
            make_room()
        store.commit(Create(a_deployment("room again")))
        assert ids(store.find(Deployment)) == [*acknowledged, "room again"]
        assert [line.text for line in store.read_log("d000")] == ["x" * 300_000, "while the disk was full"]
    finally:
        store.close()
    assert with_sqlite(path, "PRAGMA integrity_check") == [("ok",)]


def test_database_full(tmp_path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def make_full(store: SqliteStore) -> None:
        connection = store._writer._connection
        assert connection is not None
        opened.append(connection)
        connection.execute("PRAGMA max_page_count = 60")

    refuses_then_recovers(
        tmp_path / "deployer.db", make_full, lambda: opened[0].execute("PRAGMA max_page_count = 1000000")
    )


def test_write_refused_by_the_system(tmp_path: Path) -> None:
    """A file size limit: write(2) itself fails, as it does on a broken disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    refuses_then_recovers(
        tmp_path / "deployer.db",
        lambda store: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1])),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before),
    )


def test_no_space_left_on_device(tmp_path: Path) -> None:
    if shutil.which("mount") is None:
        pytest.skip("there is no mount program")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {mounted.stderr.strip()}")
    ballast = folder / "ballast"
    try:
        ballast.write_bytes(bytes(1_000_000))
        refuses_then_recovers(folder / "deployer.db", lambda store: None, ballast.unlink)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_an_error_that_leaves_the_transaction_open_writes_nothing(tmp_path: Path) -> None:
    """SQLite rolls back by itself when the disk is full, but not after every error; this one is a value of no type."""
    store = SqliteStore(tmp_path / "deployer.db")
    wrong: Any = ["not", "a", "name"]
    try:
        with pytest.raises(StoreUnavailable):
            store.commit(Create(a_deployment("no half")), Create(a_deployment("of this", namespace=wrong)))
        assert store.find(Deployment) == []
        assert store.commit(Create(a_deployment("d1"))) == 1
        assert ids(store.find(Deployment)) == ["d1"]
    finally:
        store.close()


def test_the_retry_writes_waiting_lines_without_another_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_RETRY", 0.05)
    store = SqliteStore(tmp_path / "deployer.db")
    written = threading.Event()
    store.subscribe(lambda kind, key: written.set() if kind == "log" else None)
    connection = store._writer._connection
    assert connection is not None
    try:
        connection.execute("PRAGMA max_page_count = 20")
        store.append_log("d1", [(NOON, "x" * 200_000)])
        with pytest.raises(StoreUnavailable):
            store.read_log("d1")
        connection.execute("PRAGMA max_page_count = 1000000")
        assert written.wait(10)
        assert len(store.read_log("d1")) == 1
    finally:
        store.close()


def test_a_record_of_another_namespace_is_not_there(store: Store) -> None:
    store.commit(Create(Deployment(namespace="a", app="shop", id="1", descriptor={}, created="", last_modified="")))
    assert store.get(Deployment, "1", namespace="b") is None
    assert store.get(Deployment, "1", namespace="a") == store.get(Deployment, "1")

"""What the store in etcd promises beyond the contract: several processes, lost answers, compaction, large documents."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import Fenced, SettingsError, StaleRevision, StoreError, StoreUnavailable
from deployer.core.model import json_codec
from deployer.core.model.records import App, Deployment, Event, HostClaim, Status
from deployer.core.ports.store import Append, Create, Delete, Update
from deployer.redaction.redactor import Redactor
from deployer.store.etcd import paging
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.messages import Nothing, Range
from deployer.store.etcd.counters import usage
from deployer.store.etcd.layout import end_of
from deployer.store.etcd.notices import ANYTHING
from deployer.store.etcd.store import EtcdStore
from support.etcd import Etcd
from support.etcd_link import Link

from .test_store import NOON, a_deployment, ids, in_threads

pytestmark = pytest.mark.slow


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4().hex}"


@pytest.fixture
def opened(one_etcd: Etcd, prefix: str) -> Iterator[Callable[..., EtcdStore]]:
    """Open a store below the test's prefix, each as a process of its own would; all are closed in the end."""
    stores: list[EtcdStore] = []

    def open_store(*, wall: Callable[[], float] = time.time, **access: Any) -> EtcdStore:
        store = EtcdStore(one_etcd.access(**access), prefix=prefix, wall=wall)
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def link(one_etcd: Etcd) -> Iterator[Link]:
    """A connection to etcd that a test can spoil."""
    made = Link(one_etcd.endpoints[0])
    yield made
    made.close()


def keys(store: EtcdStore, below: str = "") -> list[str]:
    begin = store._layout.prefix + below.encode()
    found = store._gateway.call("kv/range", operations.span(begin, end_of(begin))["request_range"], Range)
    return [kv.key.decode().removeprefix(store._layout.prefix.decode()) for kv in found.kvs]


def hear(store: EtcdStore) -> queue.Queue[tuple[str, str]]:
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    store.subscribe(lambda *notice: heard.put(notice))
    return heard


# --- several processes ----------------------------------------------------------------------------------------------


def test_one_process_hears_of_what_another_one_writes(opened: Callable[..., EtcdStore]) -> None:
    here, there = opened(), opened()
    heard, before = hear(here), here.changed("shop")
    there.commit(Create(a_deployment("d1")), Append("d1", NOON, "said"))
    assert {heard.get(timeout=10), heard.get(timeout=10)} == {("deployment", "d1"), ("log", "d1")}
    assert here.changed("shop") > before
    assert here.changed("other") == before
    there.append_log("d1", [(NOON, "more")])
    assert heard.get(timeout=10) == ("log", "d1")
    assert [line.text for line in here.read_log("d1")] == ["said", "more"]


def test_changed_grows_at_once_with_ones_own_commit(opened: Callable[..., EtcdStore], link: Link) -> None:
    store = opened(endpoints=(link.url,))
    before = store.changed("shop")
    store.commit(Create(a_deployment("d1")))
    assert store.changed("shop") > before


def test_lines_of_several_processes_have_no_gaps(opened: Callable[..., EtcdStore]) -> None:
    stores = [opened() for _ in range(3)]
    stores[0].commit(Create(a_deployment("d1")))

    def write(index: int) -> None:
        store = stores[index % 3]
        for number in range(15):
            store.append_log("d1", [(NOON, f"{index} {number} a " + "x" * 300), (NOON, f"{index} {number} b")])
            event = Event(namespace="shop", app="cart", id=f"{index}-{number}", name="x", deployment={})
            store.commit(Create(event), Append("d1", NOON, f"{index} {number} c"))

    in_threads(6, write)
    lines = stores[1].read_log("d1")
    assert [line.number for line in lines] == list(range(1, 6 * 15 * 3 + 1))
    for index in range(6):  # each writer's own lines are in its order
        mine = [line.text.split()[:3] for line in lines if line.text.startswith(f"{index} ")]
        assert mine == [[str(index), str(number), which] for number in range(15) for which in "abc"]
    after = stores[2].read_log("d1", after=100, limit=7)
    assert [line.number for line in after] == list(range(101, 108))
    assert stores[2].last_line("d1") == 270


def test_no_update_of_several_processes_is_lost(opened: Callable[..., EtcdStore]) -> None:
    stores = [opened() for _ in range(3)]
    stores[0].commit(Create(App(namespace="shop", app="cart")))

    def increment(index: int) -> None:
        store = stores[index % 3]
        for _ in range(10):
            while True:
                app = store.get(App, "shop/cart")
                assert app is not None
                try:
                    store.commit(Update(dataclasses.replace(app, highest=app.highest + 1)))
                    break
                except StaleRevision:
                    continue

    in_threads(6, increment)
    final = stores[0].get(App, "shop/cart")
    assert final is not None
    assert final.highest == 60


def test_a_clock_that_is_behind_does_not_change_the_order_of_arrival(opened: Callable[..., EtcdStore]) -> None:
    late = opened(wall=lambda: time.time() - 3600)
    early = opened(wall=lambda: time.time() + 3600)
    for number in range(6):
        (early, late)[number % 2].commit(Create(a_deployment(f"d{number}")))
    assert ids(late.find(Deployment, namespace="shop", app="cart")) == [f"d{number}" for number in range(6)]
    assert ids(early.find(Deployment, newest_first=True, limit=2)) == ["d5", "d4"]


def test_a_lease_is_taken_over_when_its_holder_is_gone(opened: Callable[..., EtcdStore]) -> None:
    """By etcd's own clock, in whole seconds, of which it takes two at least."""
    here, there = opened(), opened()
    old = here.acquire("shop", "cart", "one", 2)
    assert old is not None
    assert old.token == 1
    end = time.monotonic() + 3
    while time.monotonic() < end:  # it is kept for as long as it is renewed
        here.renew(old, 2)
        assert there.acquire("shop", "cart", "two", 2) is None
    began = time.monotonic()
    while (new := there.acquire("shop", "cart", "two", 2)) is None:
        assert time.monotonic() - began < 15
    assert 1 < time.monotonic() - began < 10
    assert new.token == 2
    with pytest.raises(Fenced):
        here.renew(old, 2)
    with pytest.raises(Fenced):
        here.commit(Create(a_deployment("d1")), fence=old)


# --- cost -----------------------------------------------------------------------------------------------------------


def test_questions_cost_the_same_however_many_records_there_are(opened: Callable[..., EtcdStore]) -> None:
    """Requests, keys in their answers, and none that etcd can only answer by reading a whole range."""
    store = opened()
    call, counted = store._gateway.call, [0, 0]

    def count(path: str, body: Any, answer: Any, **more: Any) -> Any:
        found = call(path, body, answer, **more)
        assert "sort_order" not in repr(body)
        ranges = (
            [found] if isinstance(found, Range) else [r.response_range for r in found.responses if r.response_range]
        )
        counted[0] += 1
        counted[1] += sum(len(one.kvs) for one in ranges)
        return found

    def costs() -> dict[str, list[int]]:
        page = store.find(Deployment, namespace="shop", newest_first=True, limit=7)
        after = (page[-1].sequence, page[-1].key)
        oldest = store.find(Deployment, namespace="shop", limit=1)[0]
        behind = (oldest.sequence, oldest.key)
        questions: dict[str, Callable[[], object]] = {
            "get": lambda: store.get(Deployment, page[0].id),
            "newest": lambda: store.find(Deployment, namespace="shop", newest_first=True, limit=7),
            "next": lambda: store.find(Deployment, namespace="shop", newest_first=True, limit=7, after=after),
            "oldest": lambda: store.find(Deployment, namespace="shop", limit=7, after=behind),
            "of all": lambda: store.find(Deployment, newest_first=True, limit=7),
            "of an app": lambda: store.find(Deployment, namespace="shop", app="a1", newest_first=True, limit=3),
            "of each app": lambda: store.find(Deployment, namespace="shop", limit_per_app=2),
            "in a state": lambda: store.find(Deployment, namespace="shop", tag="DEPLOYED", newest_first=True, limit=3),
            "apps": lambda: store.apps(Deployment, "shop"),
            "pages by size": lambda: store.find(Deployment, namespace="shop", size=1, newest_first=True, limit=7),
            "log": lambda: store.read_log("d0", after=1, limit=1),
            "bytes": lambda: store.usage("shop"),
        }
        found = {}
        store._gateway.call = count  # type: ignore[method-assign]
        for name, ask in questions.items():
            counted[:] = [0, 0]
            ask()
            found[name] = list(counted)
        store._gateway.call = call  # type: ignore[method-assign]
        return found

    def fill(first: int, last: int) -> None:
        for start in range(first, last, 30):
            some = range(start, start + 30)
            store.commit(
                *(Create(a_deployment(f"d{n}", app=f"a{n % 3}", status=Status.DEPLOYED)) for n in some),
                Append("d0", NOON, "said"),
            )

    fill(0, 30)
    few = costs()
    fill(30, 600)
    assert costs() == few
    assert all(requests <= 3 for requests, _ in few.values())


def test_etcd_walks_no_further_than_a_page_however_long_an_index_is(
    opened: Callable[..., EtcdStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts every key of a range, whatever the limit, and says how many there were."""
    monkeypatch.setattr(paging, "WHOLE", 40)
    wall = [1_000_000.0]
    store = opened(wall=lambda: wall[0])
    for start in range(0, 600, 30):
        wall[0] += 3600 if start == 300 else 1  # in two heaps, far from each other
        store.commit(*(Create(a_deployment(f"d{n:03}", app=f"a{n % 3}")) for n in range(start, start + 30)))
    expected = [f"d{n:03}" for n in range(600)]
    call, walked = store._gateway.call, []

    def watched(path: str, body: Any, answer: Any, **more: Any) -> Any:
        found = call(path, body, answer, **more)
        if isinstance(found, Range):
            walked.append(found.count)
        return found

    monkeypatch.setattr(store._gateway, "call", watched)
    for newest_first in (True, False):
        seen: list[str] = []
        store.find(Deployment, namespace="shop", newest_first=newest_first, limit=10)  # finds out that it is long
        after = None
        walked.clear()
        while page := store.find(Deployment, namespace="shop", newest_first=newest_first, limit=10, after=after):
            seen += ids(page)
            after = (page[-1].sequence, page[-1].key)
            if len(seen) == 290:
                assert sum(walked) < 3_000 and len(walked) < 60
        assert seen == (expected[::-1] if newest_first else expected)
    store.commit(*(Create(a_deployment(f"e{n:03}")) for n in range(20)))
    walked.clear()
    newest = store.find(Deployment, namespace="shop", newest_first=True, limit=30)
    assert ids(newest) == [*(f"e{n:03}" for n in reversed(range(20))), *expected[:-11:-1]]
    assert sum(walked) < 200


# --- bytes of a namespace -------------------------------------------------------------------------------------------


def stored(store: EtcdStore, namespace: str) -> tuple[int, int]:
    """What `usage` counts, counted by reading everything."""
    deployments = store.find(Deployment, namespace=namespace)
    apps = store.find(App, namespace=namespace)
    documents = [json_codec.dumps(record.to_document()) for record in (*deployments, *apps)]
    logs = [line.text.encode() for record in deployments for line in store.read_log(record.id)]
    return sum(map(len, documents)), sum(map(len, logs))


def test_bytes_stay_right_while_processes_write_the_same_and_answers_are_lost(
    opened: Callable[..., EtcdStore], link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes and their threads create, change, write to the log of and delete the same deployments."""
    monkeypatch.setattr(usage, "SHARDS", 2)  # so few that all meet there
    unlucky = opened(endpoints=(link.url,), timeout=4.0)
    stores = [opened(), unlucky]
    ends = threading.Event()

    def lose_answers() -> None:
        while not ends.wait(0.1):
            link.deaf = True
            ends.wait(0.02)
            link.cut()
            link.deaf = False

    def work(number: int) -> None:
        store, random = stores[number % 2], Random(number)
        for turn in range(25):
            id, namespace = f"d{random.randrange(4)}", random.choice(("one", "two"))
            with contextlib.suppress(StaleRevision, StoreUnavailable):  # both answers of one commit may be lost
                found = store.get(Deployment, id)
                if found is None:
                    new = a_deployment(id, namespace=namespace, app=f"a{number}", size=random.randrange(900))
                    store.commit(Create(new), *([Append(id, NOON, "made")] if turn % 2 else []))
                elif turn % 5 == 0:
                    store.commit(Delete(found))
                elif turn % 5 == 1:
                    store.append_log(id, [(NOON, "€" * random.randrange(2000))])
                else:
                    changed = dataclasses.replace(found, descriptor={"text": "x" * random.randrange(900)})
                    store.commit(Update(changed), Append(id, NOON, f"changed by {number}"))

    loser = threading.Thread(target=lose_answers)
    loser.start()
    try:
        in_threads(6, work)
    finally:
        ends.set()
        loser.join()
    for store in stores:
        store.commit(Create(a_deployment(f"last-{uuid.uuid4().hex}", namespace="one")))  # after all lines
    for namespace in ("one", "two"):
        assert stores[0].usage(namespace) == stores[1].usage(namespace) == stored(stores[0], namespace)
    assert stores[0].usage("one")[0] > 0
    for record in stores[0].find(Deployment):
        stores[0].commit(Delete(record))
    assert stores[1].usage("one") == stores[1].usage("two") == (0, 0)


def test_lines_before_their_deployment_count_once_it_is_there(opened: Callable[..., EtcdStore]) -> None:
    store, other = opened(), opened()
    store.append_log("d1", [(NOON, "early")])
    assert store.last_line("d1") == 1 and store.usage("shop") == (0, 0)
    other.commit(Create(a_deployment("d1")))
    store.append_log("d1", [(NOON, "late")])
    assert store.last_line("d1") == 2
    assert store.usage("shop") == stored(store, "shop")


def test_counting_makes_nobody_wait(opened: Callable[..., EtcdStore]) -> None:
    """Threads of two processes that write in one namespace seldom have to try again because of what they count."""
    stores = [opened(), opened()]
    sent = []

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def twice(path: str, body: Any, answer: Any, **more: Any) -> Any:
            sent.append(path)
            return call(path, body, answer, **more)

        return twice

    for store in stores:
        store._gateway.call_twice = counted(store._gateway.call_twice)  # type: ignore[method-assign]

    def work(number: int) -> None:
        for turn in range(25):
            stores[number % 2].commit(Create(App(namespace="shop", app=f"a{number}-{turn}")))

    in_threads(8, work)
    assert stores[0].usage("shop") == stored(stores[0], "shop")
    assert 200 <= sent.count("kv/txn") <= 260


# --- large documents ------------------------------------------------------------------------------------------------


def incompressible(size: int) -> str:
    return os.urandom(size // 2).hex()


def test_documents_larger_than_a_transaction_come_back_whole(opened: Callable[..., EtcdStore]) -> None:
    store, other = opened(), opened()
    texts = {f"d{number}": incompressible(2_000_000) for number in range(3)}
    records = [dataclasses.replace(a_deployment(id), descriptor={"text": text}) for id, text in texts.items()]
    store.commit(*map(Create, records))
    for found in (*other.find(Deployment, namespace="shop"), other.get(Deployment, "d1")):
        assert found is not None
        assert found.descriptor == {"text": texts[found.id]}
    pieces = keys(store, "blob/")
    assert pieces
    stored = other.get(Deployment, "d1")
    assert stored is not None
    other.commit(Update(stored.to(Status.DEPLOYED)))
    assert len(keys(store, "blob/")) == len(pieces)  # the earlier pieces are gone
    for record in store.find(Deployment):
        store.commit(Delete(record))
    assert keys(store, "blob/") == []
    assert keys(store, "index/") == []


def test_a_commit_of_many_records_is_one_transaction(opened: Callable[..., EtcdStore]) -> None:
    store = opened()
    count = 40
    revision = store.commit(
        *(Create(a_deployment(f"d{number:02}", app=f"a{number % 3}")) for number in range(count)),
        *(Append(f"d{number:02}", NOON, "first") for number in range(5)),
    )
    assert [line.text for line in store.read_log("d04")] == ["first"]
    found = store.find(Deployment, namespace="shop")
    assert ids(found) == [f"d{number:02}" for number in range(count)]
    assert {record.revision for record in found} == {revision}
    store.commit(*(Update(record.to(Status.DEPLOYED)) for record in found))
    assert store.count(Deployment, tag="DEPLOYED") == count
    store.commit(*map(Delete, store.find(Deployment)))
    assert keys(store, "index/") == keys(store, "log/") == keys(store, "record/") == []
    with pytest.raises(StoreError, match="too much for one transaction"):
        store.commit(*(Create(a_deployment(f"d{number}")) for number in range(200)))


def test_pieces_without_a_transaction_go_by_themselves(opened: Callable[..., EtcdStore]) -> None:
    store = opened()
    large = dataclasses.replace(a_deployment("d1"), descriptor={"text": incompressible(2_000_000)})
    store.commit(Create(a_deployment("d1")))
    with pytest.raises(StaleRevision):
        store.commit(Create(large))
    begin = store._layout.prefix + b"blob/"
    found = store._gateway.call("kv/range", operations.span(begin, end_of(begin))["request_range"], Range)
    assert found.kvs
    assert all(kv.lease for kv in found.kvs)
    store.commit(Update(dataclasses.replace(large, revision=store.find(Deployment)[0].revision)))
    kept = store._gateway.call("kv/range", operations.span(begin, end_of(begin))["request_range"], Range).kvs
    assert sum(not kv.lease for kv in kept) == len(found.kvs)


def test_a_process_that_stood_still_for_longer_than_its_own_lease_goes_on(opened: Callable[..., EtcdStore]) -> None:
    store = opened()
    store.commit(Create(a_deployment("d1")))
    store._gateway.call("lease/revoke", {"ID": store._transactions._session.lease()}, Nothing)
    store.append_log("d1", [(NOON, "a")])
    assert [line.text for line in store.read_log("d1")] == ["a"]
    large = dataclasses.replace(a_deployment("d2"), descriptor={"text": incompressible(2_000_000)})
    store._gateway.call("lease/revoke", {"ID": store._transactions._session.lease()}, Nothing)
    store.commit(Create(large))
    assert ids(store.find(Deployment)) == ["d1", "d2"]


# --- answers that are lost ------------------------------------------------------------------------------------------


def test_a_commit_whose_answer_is_lost_happens_once(opened: Callable[..., EtcdStore], link: Link) -> None:
    store = opened(endpoints=(link.url,), timeout=4.0)
    store.commit(Create(a_deployment("d1")))  # a connection, and the lease of this process
    asked: list[bytes] = []

    def lose_the_first(piece: bytes) -> None:
        if b"/v3/kv/txn" in piece:
            asked.append(piece)
            link.deaf = len(asked) == 1
            if len(asked) == 1:
                threading.Timer(0.3, link.cut).start()

    link.on_request = lose_the_first
    revision = store.commit(
        Create(HostClaim(namespace="shop", app="cart", host="a.example")), Append("d1", NOON, "once")
    )
    assert len(asked) >= 2
    link.on_request = lambda piece: None
    claim = store.get(HostClaim, "a.example")
    assert claim is not None
    assert claim.revision == revision
    assert [line.text for line in store.read_log("d1")] == ["once"]
    store.append_log("d1", [(NOON, "next")])
    assert [line.number for line in store.read_log("d1")] == [1, 2]


def test_what_arrives_late_has_no_effect(opened: Callable[..., EtcdStore], one_etcd: Etcd, link: Link) -> None:
    """A claim that was refused must not appear when the host is free again, because a member that slept wakes up."""
    store, other = opened(endpoints=(link.url, *one_etcd.endpoints), timeout=2.0), opened()
    while store._gateway._order()[0] != link.url:
        store._gateway.avoid(one_etcd.endpoints[0])
    assert store.get(HostClaim, "shop.example") is None
    store.commit(Create(a_deployment("d0")))
    link.hold = True
    taken = HostClaim(namespace="shop", app="blog", host="shop.example")
    other.commit(Create(taken))
    with pytest.raises(StaleRevision):
        store.commit(Create(HostClaim(namespace="shop", app="cart", host="shop.example")))
    found = other.get(HostClaim, "shop.example")
    assert found is not None
    assert found.app == "blog"
    other.commit(Delete(found))
    answers, end = link.answers, time.monotonic() + 10
    assert any(b"/v3/kv/txn" in piece for piece in link.release())
    while link.answers == answers and time.monotonic() < end:
        threading.Event().wait(0.02)
    assert link.answers > answers
    assert other.get(HostClaim, "shop.example") is None


def test_lines_whose_answer_is_lost_are_there_once(opened: Callable[..., EtcdStore], link: Link) -> None:
    store = opened(endpoints=(link.url,), timeout=0.6)
    store.commit(Create(a_deployment("d1")))
    link.deaf = True
    store.append_log("d1", [(NOON, "once")])
    with pytest.raises(StoreUnavailable):
        store.commit(Create(a_deployment("d2")))
    link.deaf = False
    store.append_log("d1", [(NOON, "next")])
    assert [line.text for line in store.read_log("d1")] == ["once", "next"]
    store.commit(Create(a_deployment("d3")))
    assert ids(store.find(Deployment)) == ["d1", "d3"]


def test_nobody_knows_is_said_as_that(opened: Callable[..., EtcdStore], link: Link) -> None:
    store = opened(endpoints=(link.url,), timeout=0.6)
    store.commit(Create(a_deployment("d1")))
    link.deaf = True
    with pytest.raises(StoreUnavailable, match=f"{link.url} gave no answer.*unknown whether this was written") as said:
        store.commit(Create(a_deployment("d2")))
    assert "\n" not in str(said.value)
    link.deaf = False
    assert ids(store.find(Deployment)) == ["d1", "d2"]
    link.refuse = True
    link.cut()
    with pytest.raises(StoreUnavailable, match=r"check that it runs and has a quorum"):
        store.get(Deployment, "d1")
    link.refuse = False
    assert store.get(Deployment, "d1") is not None


def test_silence_ends_by_a_deadline(opened: Callable[..., EtcdStore], link: Link) -> None:
    store = opened(endpoints=(link.url,), timeout=0.5)
    link.dark = True
    lease = dataclasses.replace(opened().acquire("shop", "cart", "one", 10))  # type: ignore[type-var]
    calls: list[Callable[[], object]] = [
        lambda: store.get(Deployment, "d1"),
        lambda: store.find(Deployment, namespace="shop"),
        lambda: store.commit(Create(a_deployment("d1"))),
        lambda: store.acquire("shop", "blog", "one", 10),
        lambda: store.renew(lease, 10),
        lambda: store.read_log("d1"),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - began < 5
    link.dark = False
    link.cut()
    assert store.get(Deployment, "d1") is None


# --- what is missed -------------------------------------------------------------------------------------------------


def test_what_was_missed_is_told_later(opened: Callable[..., EtcdStore], link: Link) -> None:
    store, other = opened(endpoints=(link.url,)), opened()
    heard = hear(store)
    other.commit(Create(a_deployment("d0")))
    assert heard.get(timeout=10) == ("deployment", "d0")
    link.refuse = True
    link.cut()
    for number in range(1, 4):
        other.commit(Create(a_deployment(f"d{number}")))
    link.refuse = False
    assert [heard.get(timeout=10) for _ in range(3)] == [("deployment", f"d{number}") for number in range(1, 4)]


def test_after_a_compaction_everything_that_may_have_changed_is_told(
    opened: Callable[..., EtcdStore], link: Link
) -> None:
    store, other = opened(endpoints=(link.url,)), opened()
    old = dataclasses.replace(a_deployment("old"), revision=other.commit(Create(a_deployment("old"))))
    heard = hear(store)
    other.commit(Create(a_deployment("d0")))
    while heard.get(timeout=10) != ("deployment", "d0"):
        pass
    link.refuse = True
    link.cut()
    other.commit(Create(a_deployment("d1")))
    other.append_log("d1", [(NOON, "a")])
    before = store.changed("shop"), store.changed("other")
    revision = other.commit(Update(old.to(Status.DEPLOYED)))
    other._gateway.call("kv/compaction", {"revision": revision}, Nothing)
    link.refuse = False
    told = [heard.get(timeout=15) for _ in range(4)]
    assert set(told[:3]) == {("deployment", "d1"), ("log", "d1"), ("deployment", "old")}
    assert told[3] == ANYTHING
    assert store.changed("shop") > before[0] and store.changed("other") > before[1]
    other.commit(Create(a_deployment("d2")))
    assert heard.get(timeout=10) == ("deployment", "d2")


def test_a_list_survives_a_compaction_in_the_middle(opened: Callable[..., EtcdStore]) -> None:
    store = opened()
    for number in range(3):
        store.commit(Create(a_deployment(f"d{number}")))
    call, lists = store._gateway.call, []

    def compact_first(path: str, body: Any, answer: Any, **more: Any) -> Any:
        if path == "kv/txn" and not lists:  # the index is read, and no document yet
            lists.append(path)
            call("kv/compaction", {"revision": store.commit(Create(a_deployment("d3")))}, Nothing)
        return call(path, body, answer, **more)

    store._gateway.call = compact_first  # type: ignore[method-assign]
    assert ids(store.find(Deployment, namespace="shop")) == ["d0", "d1", "d2", "d3"]


def test_viewers_wake_when_nobody_can_say_what_changed(opened: Callable[..., EtcdStore]) -> None:
    store = opened()
    log = DeploymentLog(store, Redactor())
    woken: queue.Queue[str] = queue.Queue()
    for id in ("d1", "d2"):
        log.watch(id, lambda id=id: woken.put(id))  # type: ignore[misc]
    store._notices.anything([])
    assert {woken.get(timeout=10), woken.get(timeout=10)} == {"d1", "d2"}
    log.close()


# --- opening --------------------------------------------------------------------------------------------------------


def test_a_newer_format_is_refused_and_left_alone(opened: Callable[..., EtcdStore]) -> None:
    store = opened()
    store._gateway.call("kv/put", {"key": store._layout.format, "value": b'{"format":99}'}, Nothing)
    with pytest.raises(SettingsError, match="newer release"):
        opened()
    assert keys(store) == ["format"]


def test_prefixes_are_stores_of_their_own(one_etcd: Etcd, prefix: str) -> None:
    stores = [one_etcd.store(f"{prefix}/{name}") for name in ("a", "ab")]
    stores[0].commit(Create(a_deployment("d1")))
    assert [ids(store.find(Deployment)) for store in stores] == [["d1"], []]
    assert [ids(store.find(Deployment, namespace="shop")) for store in stores] == [["d1"], []]
    for store in stores:
        store.close()


def test_lines_of_a_deployment_that_is_gone_are_swept_away(opened: Callable[..., EtcdStore]) -> None:
    store = opened()
    for id in ("kept", "gone"):
        store.commit(Create(a_deployment(id)), Append(id, NOON, "first"))
    gone = store.get(Deployment, "gone")
    assert gone is not None
    store.commit(Delete(gone))
    store.append_log("gone", [(NOON, "late")])
    store.append_log("kept", [(NOON, "second")])
    assert [line.text for line in store.read_log("gone")] == ["late"]
    store.close()
    again = opened()
    assert again.read_log("gone") == []
    assert [line.text for line in again.read_log("kept")] == ["first", "second"]
    assert {key for key in keys(again) if "gone" in key} == set()
    assert keys(again, "orphan/") == []


def test_closing_leaves_neither_thread_nor_connection(opened: Callable[..., EtcdStore]) -> None:
    before = set(threading.enumerate()), set(Path("/proc/self/fd").iterdir())
    store = opened()
    store.commit(Create(a_deployment("d1")))
    store.subscribe(lambda *notice: None)
    in_threads(8, lambda number: store.get(Deployment, "d1"))
    store.append_log("d1", [(NOON, "written by close")])
    store.close()
    assert set(threading.enumerate()) <= before[0]
    assert set(Path("/proc/self/fd").iterdir()) <= before[1]
    with pytest.raises(StoreUnavailable, match="closed"):
        store.last_line("d1")
    assert [line.text for line in opened().read_log("d1")] == ["written by close"]

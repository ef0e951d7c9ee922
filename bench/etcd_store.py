"""How fast the store in etcd is, and whether it stays so: `.venv/bin/python bench/etcd_store.py ENDPOINTS [NUMBER]`.

Fills a prefix of its own up to NUMBER deployments (100,000) and asks the same at each power of ten from 1,000 on. The
prefix is deleted in the end.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable

from deployer.core.model.records import Deployment, Status
from deployer.core.ports.store import Append, Create, Update
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Access
from deployer.store.etcd.client.messages import Nothing, Range
from deployer.store.etcd.layout import end_of
from deployer.store.etcd.store import EtcdStore
from store import deployment, rate

ONE_COMMIT = 40  # records that fit into a transaction
NAMESPACES = 50  # among which `deployment` deals them out, by turns
WRITERS = 4
LINE = ("2026-01-01T00:00:00.000Z", "pod cart-1-x7k2p is ready, 1 of 2; waiting for the other one")


def fill(store: EtcdStore, first: int, last: int) -> None:
    """Deployments from number `first` to before `last`, those of one commit in one namespace."""
    batches = iter(
        [
            some[at : at + ONE_COMMIT]
            for some in (range(first + namespace, last, NAMESPACES) for namespace in range(NAMESPACES))
            for at in range(0, len(some), ONE_COMMIT)
        ]
    )
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                batch = next(batches, None)
            if batch is None:
                return
            store.commit(*(Create(deployment(number)) for number in batch))

    threads = [threading.Thread(target=work) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def quick(work: Callable[[], object], times: int = 30) -> float:
    """Milliseconds that a tenth of all took at most: what else the machine does makes the others longer."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.quantiles(taken, n=10)[0]


def questions(store: EtcdStore) -> dict[str, float]:
    """What is asked most, in milliseconds."""
    newest = store.find(Deployment, namespace="team-7", newest_first=True, limit=50)
    middle = store.find(Deployment, namespace="team-7", newest_first=True)
    place = middle[len(middle) // 2]
    after = (place.sequence, place.key)
    app = newest[0].app
    mine = store.get(Deployment, newest[0].id)
    assert mine is not None
    moving = dataclasses.replace(mine, status=Status.DEPLOYING)
    revisions = [mine.revision]

    def journal() -> None:
        revisions[0] = store.commit(Update(dataclasses.replace(moving, revision=revisions[0])), Append(mine.id, *LINE))

    return {
        "get": quick(lambda: store.get(Deployment, newest[7].id)),
        "commit of one record and a line": quick(journal),
        "newest 50 of a namespace": quick(
            lambda: store.find(Deployment, namespace="team-7", newest_first=True, limit=50)
        ),
        "50 from the middle on": quick(
            lambda: store.find(Deployment, namespace="team-7", newest_first=True, limit=50, after=after)
        ),
        "50 from the middle on, oldest first": quick(
            lambda: store.find(Deployment, namespace="team-7", limit=50, after=after)
        ),
        "newest 50 of all": quick(lambda: store.find(Deployment, newest_first=True, limit=50)),
        "newest 5 of one app": quick(
            lambda: store.find(Deployment, namespace="team-7", app=app, newest_first=True, limit_per_app=5)
        ),
        "newest of each of 20 apps": quick(lambda: store.find(Deployment, namespace="team-7", limit_per_app=1)),
        "names of 20 apps": quick(lambda: store.apps(Deployment, "team-7")),
        "bytes of a namespace": quick(lambda: store.usage("team-7")),
        "those that are deploying": quick(lambda: store.find(Deployment, tag="DEPLOYING")),
    }


def main() -> None:
    last = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    prefix = f"/bench/{uuid.uuid4().hex}/"
    store = EtcdStore(Access(endpoints=tuple(sys.argv[1].split(",")), timeout=30.0), prefix=prefix)
    table: dict[int, dict[str, float]] = {}
    have, number = 0, 1_000
    try:
        while number <= last:
            began = time.perf_counter()
            fill(store, have, number)
            taken = time.perf_counter() - began
            table[number] = questions(store) | {"creations/s while filling": (number - have) / taken}
            have, number = number, number * 10
        table[have] |= throughput(store)
    finally:
        show(table)
        remove(store, prefix.encode())
        store.close()


def remove(store: EtcdStore, begin: bytes) -> None:
    """Everything below the prefix, by and by: etcd takes long for a million keys at once."""
    end = end_of(begin)
    while True:
        span = operations.span(begin, end, limit=10_000, keys_only=True)["request_range"]
        found = store._gateway.call("kv/range", span, Range)
        if not found.kvs:
            return
        last = found.kvs[-1].key + b"\0"
        store._gateway.call("kv/deleterange", {"key": begin, "range_end": last}, Nothing)


def show(table: dict[int, dict[str, float]]) -> None:
    """A column for each number of deployments."""
    print(f"{'ms':<40}", *(f"{number:>10,}" for number in table))
    for name in dict.fromkeys(name for column in table.values() for name in column):
        print(f"{name:<40}", *(f"{column[name]:>10,.1f}" if name in column else " " * 10 for column in table.values()))


def throughput(store: EtcdStore) -> dict[str, float]:
    """Of several threads together, a second."""
    found: dict[str, float] = {}
    for threads in (1, 16):
        mine = [deployment(number) for number in range(threads)]
        revisions = [store.commit(Create(record)) for record in mine]

        def update(index: int, mine: list[Deployment] = mine, revisions: list[int] = revisions) -> None:
            revisions[index] = store.commit(Update(dataclasses.replace(mine[index], revision=revisions[index])))

        found[f"commits/s, {threads} threads"] = rate(threads, update)
        found[f"get/s, {threads} threads"] = rate(
            threads, lambda index, mine=mine: store.get(Deployment, mine[index].id)
        )
    began, total = time.perf_counter(), 20_000
    for _ in range(total):
        store.append_log("bench", [LINE])
    store.read_log("bench", after=total)
    found["log lines/s"] = total / (time.perf_counter() - began)
    return found


if __name__ == "__main__":
    main()

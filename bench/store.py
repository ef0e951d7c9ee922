"""How fast the embedded store is on this machine: commits, log lines, reads. `.venv/bin/python bench/store.py [DIR]`.

DIR is where the database goes (default: the system's temporary directory); what is measured is mostly its fsync.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from deployer.core.model.records import Deployment, Status, new_id, timestamp
from deployer.core.ports.store import Create, Update
from deployer.store.retention import Retention, Rules
from deployer.store.sqlite import SqliteStore

SECONDS = 2.0
DESCRIPTOR = {
    "namespace": "shop",
    "appName": "cart",
    "newVersion": "#",
    "replicas": 2,
    "podspec": {"containers": [{"name": "main", "image": "registry.example/cart:1", "env": [{"name": "A"}] * 10}]},
}


def deployment(number: int) -> Deployment:
    now = timestamp()
    return Deployment(
        namespace=f"team-{number % 50}",
        app=f"app-{number % 1000}",
        id=new_id(),
        descriptor=DESCRIPTOR,
        created=now,
        last_modified=now,
        status=Status.UNDEPLOYED,
    )


def rate(threads: int, work: Callable[[int], None]) -> float:
    """How often `threads` threads together ran `work(thread)` in a second."""
    done = [0] * threads
    end = time.perf_counter() + SECONDS

    def run(index: int) -> None:
        while time.perf_counter() < end:
            work(index)
            done[index] += 1

    began = time.perf_counter()
    crew = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


def commits(store: SqliteStore, threads: int) -> float:
    """Each thread writes one record of its own again and again, as the engine does with its journal."""
    mine = [deployment(i) for i in range(threads)]
    revisions = [store.commit(Create(record)) for record in mine]

    def update(index: int) -> None:
        revisions[index] = store.commit(Update(dataclasses.replace(mine[index], revision=revisions[index])))

    return rate(threads, update)


def log_lines(store: SqliteStore) -> float:
    """One line at a time, one deployment, until all of them are on disk."""
    total, line = 20_000, ("2026-01-01T00:00:00.000Z", "pod cart-1-x7k2p is ready, 1 of 2; waiting for the other one")
    began = time.perf_counter()
    for _ in range(total):
        store.append_log("bench", [line])
    store.read_log("bench", after=total)
    return total / (time.perf_counter() - began)


def fill(store: SqliteStore, number: int) -> list[str]:
    records = [deployment(i) for i in range(number)]
    for start in range(0, number, 1000):
        store.commit(*(Create(record) for record in records[start : start + 1000]))
    return [record.id for record in records]


def gets(store: SqliteStore, keys: list[str], threads: int) -> float:
    places = [0] * threads

    def read(index: int) -> None:
        places[index] = (places[index] + 7919) % len(keys)
        if store.get(Deployment, keys[places[index]]) is None:
            raise SystemExit("a record is missing")

    return rate(threads, read)


def main() -> None:
    rows: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        store = SqliteStore(Path(folder) / "bench.db")
        try:
            for threads in (1, 16):
                rows.append((f"commits/s, {threads} threads", commits(store, threads)))
            rows.append(("log lines/s", log_lines(store)))
            keys: list[str] = []
            for number in (100, 100_000):
                keys += fill(store, number - len(keys))
                for threads in (1, 8):
                    rows.append((f"get/s, {number} records, {threads} threads", gets(store, keys, threads)))
            began = time.perf_counter()
            found = store.find(Deployment, namespace="team-7", app="app-7", newest_first=True)
            rows.append((f"find of one app ({len(found)} of 100000), ms", (time.perf_counter() - began) * 1000))
            used = time.process_time()
            Retention(store, Rules(age=10 * 365 * 86_400.0, limit=1_000_000), pause=0.0).sweep()
            used = time.process_time() - used
            rows.append(("retention that finds nothing, µs of processor each", used / len(keys) * 1e6))
        finally:
            store.close()
    for name, value in rows:
        print(f"{name:<45} {value:>12,.1f}")


if __name__ == "__main__":
    main()

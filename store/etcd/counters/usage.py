"""How many bytes a namespace stores, counted in the transactions that change it, so that no crash makes it wrong.

If that were one key, all who write in a namespace would wait for each other. So the number is the sum of several keys,
the shards of a counter: each transaction adds to one that no other thread of this process uses now, and compares its
revision in case another process does. A process keeps to those that it used before, which are its alone most of the
time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Gateway
from deployer.store.etcd.client.messages import KeyValue, Range
from deployer.store.etcd.layout import Layout, end_of

SHARDS = 64
"""Keys for each namespace: how many transactions of one process may write there at once without waiting."""


class Bytes(NamedTuple):
    """What records take as JSON, and logs as text; negative for what goes."""

    records: int = 0
    logs: int = 0

    def plus(self, records: int = 0, logs: int = 0) -> Bytes:
        """With so many more."""
        return Bytes(self.records + records, self.logs + logs)


class _Known(NamedTuple):
    """A shard as it was written at a revision; 0: there is none."""

    revision: int
    bytes: Bytes


@dataclass(slots=True)
class _Counter:
    """A namespace's shards. free: those that no thread uses, the best one last. known: what they were last."""

    free: list[int] = field(default_factory=lambda: random.sample(range(SHARDS), SHARDS))
    freed: threading.Condition = field(default_factory=threading.Condition)
    known: dict[int, _Known] = field(default_factory=dict)


@dataclass(slots=True)
class Share:
    """What a transaction adds to a shard. contested: another process changed that one."""

    key: bytes
    before: _Known
    after: Bytes
    outcome: _Known | None = None
    contested: bool = False

    @property
    def compare(self) -> operations.Part:
        """Nobody has changed it since."""
        return operations.revision_is(self.key, self.before.revision)

    @property
    def put(self) -> operations.Part:
        return operations.put(self.key, msgspec.json.encode(self.after))

    @property
    def get(self) -> operations.Part:
        return operations.get(self.key)

    def happened(self, revision: int) -> None:
        """The transaction did."""
        self.outcome = _Known(revision, self.after)

    def found(self, kvs: Sequence[KeyValue]) -> None:
        """The transaction did not happen, and this is what the key is now."""
        self.outcome = _known(kvs)
        self.contested = self.outcome.revision != self.before.revision


class Usage:
    """Counts for `Transactions`. Thread-safe."""

    def __init__(self, gateway: Gateway, layout: Layout) -> None:
        self._gateway = gateway
        self._layout = layout
        self._lock = threading.Lock()
        self._counters: dict[str, _Counter] = {}

    def total(self, namespace: str) -> Bytes:
        """What it stores now. Raises StoreUnavailable."""
        begin = self._layout.usage(namespace)
        shards = [_known([stored]).bytes for stored in self._range(operations.span(begin, end_of(begin)))]
        return Bytes(sum(shard.records for shard in shards), sum(shard.logs for shard in shards))

    def namespaces(self) -> list[str]:
        """Those that store records now, sorted. Raises StoreUnavailable."""
        begin = self._layout.usages
        totals: dict[str, int] = {}
        for stored in self._range(operations.span(begin, end_of(begin))):
            namespace = self._layout.used_by(stored.key)
            totals[namespace] = totals.get(namespace, 0) + _known([stored]).bytes.records
        return sorted(namespace for namespace, records in totals.items() if namespace and records > 0)

    @contextmanager
    def adding(self, more: Mapping[str, Bytes]) -> Iterator[list[Share]]:
        """A share for each namespace in which something changes; no other thread has their shards meanwhile.

        Each one is told `happened` or `found`; without either its shard is read anew the next time. Raises
        StoreUnavailable.
        """
        with ExitStack() as stack:
            # Always in this order, so that nobody waits for somebody who waits for them.
            changed = sorted(namespace for namespace, bytes in more.items() if any(bytes))
            yield [stack.enter_context(self._adding(namespace, more[namespace])) for namespace in changed]

    @contextmanager
    def _adding(self, namespace: str, more: Bytes) -> Iterator[Share]:
        with self._lock:
            counter = self._counters.setdefault(namespace, _Counter())
        with counter.freed:
            counter.freed.wait_for(lambda: counter.free)
            number = counter.free.pop()
            known = counter.known.pop(number, None)
        share = None
        try:
            key = self._layout.shard(namespace, number)
            known = known or _known(self._range(operations.get(key)))
            share = Share(key, known, known.bytes.plus(*more))
            yield share
        finally:
            with counter.freed:
                if share and share.outcome:
                    counter.known[number] = share.outcome
                counter.free.insert(0 if share and share.contested else len(counter.free), number)
                counter.freed.notify()

    def _range(self, part: operations.Part) -> list[KeyValue]:
        return self._gateway.call("kv/range", part["request_range"], Range).kvs


def _known(kvs: Sequence[KeyValue]) -> _Known:
    """What a shard is, as it was read."""
    if not kvs:
        return _Known(0, Bytes())
    return _Known(kvs[0].mod_revision, Bytes(*msgspec.json.decode(kvs[0].value, type=tuple[int, int])))

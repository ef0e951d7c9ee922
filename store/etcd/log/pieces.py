"""Logs in etcd: lines are added to the end of a log, which is one key, and go into pieces of their own as it grows.

Whoever adds lines names the revision of that key, so numbers have no gaps however many processes write at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import msgspec

from deployer.core.model.records import Deployment
from deployer.core.ports.store import LogLine
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Gateway
from deployer.store.etcd.client.messages import KeyValue, Range, Txn
from deployer.store.etcd.layout import Layout, end_of

HEAD = 4 * 1024
"""Bytes of lines that stay in the head; with each line it is written anew."""

PIECE = 128 * 1024
"""Bytes of lines in one piece, unless one line alone has more."""

_PIECES = 16  # read at once
_KNOWN = 2_000  # logs whose end is remembered
_LOCKS = 64

Line = tuple[str, str]


class Head(msgspec.Struct, array_like=True):
    """The end of a log: how many lines are in pieces, and those that follow.

    size       bytes of the text of all lines
    namespace  where they are counted; empty as long as nobody saw a deployment of that log
    """

    sealed: int = 0
    lines: list[Line] = []
    size: int = 0
    namespace: str = ""

    @property
    def counted(self) -> int:
        """Bytes that its namespace has of it."""
        return self.size if self.namespace else 0


class Known(NamedTuple):
    """The end of a log as it was written at a revision; 0: there is none."""

    revision: int
    head: Head


NO_LOG = Known(0, Head())


class Addition(NamedTuple):
    """What adds lines to a log, if its end is still the one that is known."""

    compare: operations.Part
    operations: list[operations.Part]
    head: Head


class Logs:
    """Ends of logs, and reading. Lines are written by `Transactions`."""

    def __init__(self, gateway: Gateway, layout: Layout) -> None:
        self._gateway = gateway
        self._layout = layout
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    @contextmanager
    def writing(self, deployments: Iterable[str]) -> Iterator[None]:
        """Keep other threads of this process from adding lines to these logs, which would only make both try again."""
        with ExitStack() as stack:
            for place in sorted({hash(deployment) % _LOCKS for deployment in deployments}):
                stack.enter_context(self._locks[place])
            yield

    def ends(self, deployments: Iterable[str]) -> dict[str, Known]:
        """The ends of logs, perhaps old ones. Raises StoreUnavailable."""
        with self._lock:
            found = {deployment: self._known.get(deployment) for deployment in deployments}
        unknown = [deployment for deployment, known in found.items() if known is None]
        if unknown:
            parts = [operations.get(self._layout.head(deployment)) for deployment in unknown]
            answer = self._gateway.call("kv/txn", {"success": parts}, Txn).ranges()
            found |= {deployment: self._learn(deployment, kvs) for deployment, kvs in zip(unknown, answer, strict=True)}
        return {deployment: known or NO_LOG for deployment, known in found.items()}

    def forget(self, deployment: str) -> None:
        """Read its end anew the next time."""
        with self._lock:
            self._known.pop(deployment, None)

    def forget_all(self) -> None:
        """Of all logs."""
        with self._lock:
            self._known.clear()

    def remember(self, deployment: str, revision: int, head: Head) -> None:
        """This is the end now."""
        with self._lock:
            self._known[deployment] = Known(revision, head)
            self._known.move_to_end(deployment)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def unchanged(self, deployment: str, known: Known) -> operations.Part:
        """Compare: this is its end still."""
        return operations.revision_is(self._layout.head(deployment), known.revision)

    def addition(self, deployment: str, known: Known, lines: Sequence[Line], namespace: str) -> Addition:
        """How to add lines to that end. namespace: that of its deployment; empty when there is none."""
        sealed, kept = known.head.sealed, [*known.head.lines, *lines]
        size = known.head.size + sum(len(text.encode()) for _, text in lines)
        parts = []
        if _size(kept) > HEAD:
            for piece in _pieces(kept):
                sealed += len(piece)
                parts.append(operations.put(self._layout.piece(deployment, sealed), msgspec.json.encode(piece)))
            kept = []
        head = Head(sealed, kept, size, namespace)
        parts.append(operations.put(self._layout.head(deployment), msgspec.json.encode(head)))
        if not known.revision and not namespace:  # of a deployment that is deleted: the log is swept away later
            parts.append(operations.put(self._layout.orphan(deployment), b""))
        return Addition(self.unchanged(deployment, known), parts, head)

    def read(self, deployment: str, after: int, limit: int, size: int | None) -> list[LogLine]:
        """Lines with a number above `after`."""
        out: list[LogLine] = []
        begin, end = self._layout.piece(deployment, after + 1), end_of(self._layout.log(deployment))
        head = self._layout.head(deployment)
        while len(out) < limit:
            body = operations.span(begin, end, limit=_PIECES)["request_range"]
            answer = self._gateway.call("kv/range", body, Range)
            for found in answer.kvs:
                for line in lines_of(found, head):
                    if line.number > after:
                        out.append(line)
                        size = None if size is None else size - len(line.text)
                        if len(out) == limit or (size is not None and size <= 0):
                            return out
            if not answer.more:
                break
            begin = answer.kvs[-1].key + b"\0"
        return out

    def last(self, deployment: str) -> int:
        """The number of the last line."""
        head = self._read_end(deployment).head
        return head.sealed + len(head.lines)

    def sweep(self) -> None:
        """Remove logs that were written after their deployment was deleted. Raises StoreUnavailable."""
        begin = self._layout.orphans
        body = operations.span(begin, end_of(begin), keys_only=True)["request_range"]
        for found in self._gateway.call("kv/range", body, Range).kvs:
            deployment = found.key[len(begin) :].decode()
            record = operations.revision_is(self._layout.record(Deployment.KIND, deployment), 0)
            rest = [operations.when(record, operations.delete_all(self._layout.log(deployment)))]
            self._gateway.call("kv/txn", {"success": [*rest, operations.delete(found.key)]}, Txn)

    def _read_end(self, deployment: str) -> Known:
        body = operations.get(self._layout.head(deployment))["request_range"]
        return self._learn(deployment, self._gateway.call("kv/range", body, Range).kvs)

    def _learn(self, deployment: str, kvs: Sequence[KeyValue]) -> Known:
        """The end of a log as it was read."""
        if not kvs:
            return NO_LOG
        known = Known(kvs[0].mod_revision, msgspec.json.decode(kvs[0].value, type=Head))
        self.remember(deployment, *known)
        return known


def lines_of(found: KeyValue, head: bytes) -> list[LogLine]:
    """The lines of one key of a log, whose `head` is that key."""
    if found.key == head:
        end = msgspec.json.decode(found.value, type=Head)
        return [LogLine(number, *line) for number, line in enumerate(end.lines, end.sealed + 1)]
    lines = msgspec.json.decode(found.value, type=list[Line])
    first = int(found.key.rpartition(b"/")[2]) - len(lines) + 1
    return [LogLine(number, *line) for number, line in enumerate(lines, first)]


def _size(lines: Sequence[Line]) -> int:
    """Bytes that they take as JSON."""
    return sum(len(msgspec.json.encode(line)) + 1 for line in lines)


def _pieces(lines: Sequence[Line]) -> Iterator[list[Line]]:
    piece: list[Line] = []
    size = 0
    for line in lines:
        own = _size([line])
        if piece and size + own > PIECE:
            yield piece
            piece, size = [], 0
        piece.append(line)
        size += own
    if piece:
        yield piece

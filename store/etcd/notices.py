"""Who is told of what changed: once for each transaction, whether this process made it or heard of it from etcd."""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec

Subscriber = Callable[[str, str], None]
Notice = tuple[str, str]

LOG = "log"
ANYTHING: Notice = ("", "")
"""Told when nobody can say what changed."""

_REMEMBERED = 10_000  # transactions that were told from one side
_log = logging.getLogger(__name__)


class Changes(msgspec.Struct, array_like=True):
    """What a transaction changed: namespaces of records, (kind, key) of records and logs, the highest new sequence."""

    namespaces: list[str] = []
    notices: list[Notice] = []
    sequence: int = 0


class Notices:
    """Tells subscribers in a thread of its own. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed: dict[str, int] = {}
        self._floor = self._count = 0
        self._told: OrderedDict[str, None] = OrderedDict()
        self._subscribers: tuple[Subscriber, ...] = ()
        self._queue: queue.SimpleQueue[Sequence[Notice] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-notices", daemon=True)
        self._thread.start()

    def changed(self, namespace: str) -> int:
        """The number of the last change in a namespace, counted here: etcd's own revisions go back with a snapshot."""
        return max(self._changed.get(namespace, 0), self._floor)

    def happened(self, id: str, changes: Changes) -> None:
        """A transaction happened; of each this hears once or twice, and tells once."""
        with self._lock:
            if id in self._told:
                del self._told[id]
                return
            self._told[id] = None
            if len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
            self._count += 1
            for namespace in changes.namespaces:
                self._changed[namespace] = self._count
        self._queue.put(changes.notices)

    def anything(self, notices: Sequence[Notice]) -> None:
        """Much may have changed: these, and what nobody can name."""
        with self._lock:
            self._count += 1
            self._floor = self._count
        self._queue.put([*notices, ANYTHING])

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with each notice; returns the way to stop it."""

        def entry(kind: str, key: str) -> None:  # one per subscription, even if a callback is given twice
            callback(kind, key)

        with self._lock:
            self._subscribers += (entry,)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not entry)

        return unsubscribe

    def close(self, seconds: float) -> None:
        """Tell what is waiting, then nobody any more."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (notices := self._queue.get()) is not None:
            for kind, key in dict.fromkeys(map(tuple, notices)):
                for callback in self._subscribers:
                    try:
                        callback(kind, key)
                    except Exception:  # noqa: BLE001 - logged with its traceback
                        _log.exception("a subscriber failed on %s %s", kind, key)

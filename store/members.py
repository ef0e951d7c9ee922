"""The replicas that share a store within one process: kept in memory, as such a store is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from deployer.core.errors import StoreUnavailable
from deployer.core.ports.store import REPLICA, Replica, Store


class Members:
    """Who joined, until when. Thread-safe. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._joined: dict[str, tuple[Replica, float]] = {}
        self._subscribers: dict[object, Callable[[str, str], None]] = {}
        self._closed = False

    def join(self, replica: Replica, ttl: float) -> None:
        """`Store.join`."""
        with self._opened():
            before = self._joined.get(replica.holder)
            self._joined[replica.holder] = (replica, self._clock() + ttl)
        if before is None or before[0] != replica:
            self._tell(replica.holder)

    def leave(self, holder: str) -> None:
        """`Store.leave`."""
        with self._opened():
            before = self._joined.pop(holder, None)
        if before is not None:
            self._tell(holder)

    def replicas(self) -> list[Replica]:
        """`Store.replicas`."""
        with self._opened():
            now = self._clock()
            self._joined = {holder: (r, until) for holder, (r, until) in self._joined.items() if until > now}
            return [self._joined[holder][0] for holder in sorted(self._joined)]

    def subscribe(self, callback: Callable[[str, str], None], also: Callable[[], None]) -> Callable[[], None]:
        """Tell of those that come, go, or say something else. Returns the function that stops it, and does `also`."""
        token = object()
        with self._lock:
            self._subscribers[token] = callback

        def stop() -> None:
            with self._lock:
                self._subscribers.pop(token, None)
            also()

        return stop

    def close(self) -> None:
        """Take no more."""
        self._closed = True

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            yield

    def _tell(self, holder: str) -> None:
        with self._lock:
            subscribers = list(self._subscribers.values())
        for callback in subscribers:
            callback(REPLICA, holder)


class StoreOfOneProcess(Store):
    """A store that no other process can open: whoever shares it is in this one."""

    _members: Members

    def join(self, replica: Replica, ttl: float) -> None:
        self._members.join(replica, ttl)

    def leave(self, holder: str) -> None:
        self._members.leave(holder)

    def replicas(self) -> list[Replica]:
        return self._members.replicas()

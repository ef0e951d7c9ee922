"""A bounded memory of answers that are good for a limited time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Up to `most` answers; the one that was used longest ago goes first. Thread-safe."""

    def __init__(self, most: int, clock: Callable[[], float] = time.time) -> None:
        """`clock` is what the times of `put` are measured with."""
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[V, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> V | None:
        """The answer, if there is one that is still good."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._clock() >= entry[1]:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: V, until: float) -> None:
        """Keep an answer until that time."""
        with self._lock:
            self._entries[key] = (value, until)
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)


def digest(token: str) -> bytes:
    """What stands for a token in memory, so that no token stays there."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()

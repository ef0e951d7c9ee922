"""The order of arrival: a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014), in microseconds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from deployer.core.clock import wall_clock


class Sequence:
    """Numbers that only grow, near the system's clock, and above every number that was seen. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = wall_clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def take(self, count: int) -> int:
        """The first of so many new numbers."""
        with self._lock:
            first = max(self._last + 1, int(self._clock() * 1_000_000))
            self._last = first + count - 1
            return first

    def saw(self, number: int) -> None:
        """Somebody else took that one."""
        if number > self._last:
            with self._lock:
                self._last = max(self._last, number)

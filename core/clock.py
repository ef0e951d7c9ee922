"""The clock by which the core waits: seconds since the epoch that no correction of the system's clock moves."""

from __future__ import annotations

import time
from collections.abc import Callable


def wall_clock() -> float:
    """The system's clock, in seconds since the epoch: for people to read, never to wait by."""
    return time.time()


class SteadyClock:
    """Calling it gives seconds since the epoch as they were when it was made, counted on by the monotonic clock.

    So what is due in 20 s comes in 20 s, although somebody, or NTP, sets the system's clock by an hour meanwhile. What
    is persisted in these seconds outlives the process, and the next one begins with the system's clock as it is then:
    a period that crosses a restart needs bounds (`bounded`). Two processes' clocks differ by what was corrected while
    they ran. Thread-safe.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._start = wall() - monotonic()

    def __call__(self) -> float:
        return self._start + self._monotonic()


def bounded(due: float, now: float, *, least: float, most: float) -> float:
    """When something is due whose period of `most` seconds began before a restart at `now`.

    The system's clock may have been set in between. Nothing waits longer than the whole period again, nor shorter than
    `least`, which is what it may never be cut to.
    """
    return min(max(due, now + least), now + most)

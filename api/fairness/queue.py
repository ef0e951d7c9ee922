"""Requests that wait for a thread: of each kind so many at once and a second, in turns among its tenants.

Not thread-safe: whoever has the lock of the dispatcher uses it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Task(Protocol):
    """A connection with a request, as waitress hands it on."""

    def service(self) -> None: ...

    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Share:
    """What one kind of requests gets.

    most   threads that work on them at once
    each   those on requests of one tenant
    rate   how many are begun in a second, on average; 0 for as many as come
    burst  how many are begun at once after a quiet time
    """

    most: int
    each: int
    rate: float = 0.0
    burst: int = 1


@dataclass(slots=True)
class _Kind:
    share: Share
    waiting: dict[str, deque[tuple[int, Task]]] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)
    credit: float = 0.0
    counted: float = 0.0

    def earn(self, now: float) -> None:
        """Add what has come together since."""
        share = self.share
        self.credit = min(share.burst, self.credit + (now - self.counted) * share.rate) if share.rate else 1.0
        self.counted = now

    def next(self) -> str | None:
        """The tenant whose turn it is, if one may have a thread, apart from the rate."""
        if not self.waiting or self.running.total() >= self.share.most:
            return None
        name = min(self.waiting, key=lambda tenant: (self.running[tenant], self.waiting[tenant][0][0]))
        return name if self.running[name] < self.share.each else None


class FairQueue:
    """What `ThreadedTaskDispatcher` of waitress needs of its queue; its length is 0 while nothing may be begun."""

    def __init__(
        self,
        shares: Mapping[str, Share],
        sort: Callable[[Task], tuple[str, str]],
        over: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        shares  of each kind, the most urgent first
        sort    gives a task's kind and tenant
        over    is told of both when a task has been worked on, in its thread and without the lock
        """
        now = clock()
        self._kinds = {name: _Kind(share, credit=float(share.burst), counted=now) for name, share in shares.items()}
        self._sort = sort
        self._over = over
        self._clock = clock
        self._arrived = 0

    def waiting(self, kind: str, tenant: str) -> int:
        """How many wait."""
        return len(self._kinds[kind].waiting.get(tenant, ()))

    def append(self, task: Task) -> None:
        """Queue it."""
        kind, tenant = self._sort(task)
        self._arrived += 1
        self._kinds[kind].waiting.setdefault(tenant, deque()).append((self._arrived, task))

    def popleft(self) -> Task:
        """The next one; it counts as running until `leave`. Raises IndexError when none may be begun."""
        found = self._next()
        if found is None:
            raise IndexError("nothing may be begun now")
        kind, tenant = found
        state = self._kinds[kind]
        _, task = state.waiting[tenant].popleft()
        if not state.waiting[tenant]:
            del state.waiting[tenant]
        state.credit -= 1.0
        state.running[tenant] += 1
        return _Turn(task, lambda: self._over(kind, tenant))

    def leave(self, kind: str, tenant: str) -> None:
        """One of them has been worked on."""
        running = self._kinds[kind].running
        running[tenant] -= 1
        if not running[tenant]:
            del running[tenant]

    def pause(self) -> float | None:
        """Seconds until one may be begun that only its rate holds back; None when there is none."""
        found: list[float] = []
        for kind in self._kinds.values():
            if kind.share.rate and kind.next() is not None:
                kind.earn(self._clock())
                found.append((1.0 - kind.credit) / kind.share.rate)
        return max(0.0, min(found)) if found else None

    def __len__(self) -> int:
        return 0 if self._next() is None else 1

    def _next(self) -> tuple[str, str] | None:
        now = self._clock()
        for name, kind in self._kinds.items():
            kind.earn(now)
            if kind.credit >= 1.0 and (tenant := kind.next()) is not None:
                return name, tenant
        return None


class _Turn:
    """A task that says when it is over."""

    def __init__(self, task: Task, over: Callable[[], None]) -> None:
        self._task = task
        self._over = over

    def service(self) -> None:
        try:
            self._task.service()
        finally:
            self._over()

    def cancel(self) -> None:
        self._task.cancel()

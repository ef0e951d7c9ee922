"""The threads of REST."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import Error

from deployer.api.fairness.callers import BACKLOG, REFUSED, UNKNOWN, Callers, shares
from deployer.api.fairness.queue import FairQueue

# waitress warns whenever a request waits for a thread, which is what its queue is for.
_queue_log = logging.getLogger(__name__)
_queue_log.setLevel(logging.ERROR)


class TooMany(Error):
    """What waitress is to answer without asking the application."""

    code, reason = 429, "Too Many Requests"


class Workers(ThreadedTaskDispatcher):
    """The threads, of which nobody gets all."""

    queue_logger = _queue_log
    queue: FairQueue  # type: ignore[assignment]

    def __init__(self, threads: int, callers: Callers, refused: Callable[[str], None]) -> None:
        super().__init__()
        self.count = threads
        self._callers = callers
        self._refused = refused
        self.queue = FairQueue(shares(threads), self._sort, self._over)
        self.set_thread_count(threads)

    def _sort(self, task: Any) -> tuple[str, str]:
        request, address = task.requests[0], str(task.addr[0])
        kind, tenant = self._callers.sort(request, address)
        if kind == UNKNOWN and self.queue.waiting(kind, tenant) >= BACKLOG:
            # The cheapest of answers: the request is not even routed.
            request.error = request.error or TooMany("")
            self._refused(address)
            return REFUSED, tenant
        return kind, tenant

    def _over(self, kind: str, tenant: str) -> None:
        with self.lock:
            self.queue.leave(kind, tenant)
            self.queue_cv.notify()

    def waits(self) -> float | None:
        """Seconds until somebody may be served whom only time holds back."""
        with self.lock:
            return self.queue.pause()

    def wake(self) -> None:
        """Have an idle thread look whether somebody may be served by now."""
        with self.lock:
            if self.queue:
                self.queue_cv.notify()

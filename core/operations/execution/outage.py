"""What the log says while an operation waits for an API server that does not answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from deployer.core.errors import StoreError

SAY_AFTER = 2.0
"""Seconds for which it may not answer before the log says so: most of what is in the way passes at once."""


STALE = 3.0
"""Seconds after which who does not report any more is no longer waiting."""


class OutageNotice:
    """Of one operation: says once that the API server does not answer, and once that it does again."""

    def __init__(self, log: Callable[[str], None], shown: Callable[[str], None] = lambda _: None) -> None:
        """`shown` is told why it does not answer, and an empty text when it does again."""
        self._log = log
        self._shown = shown
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[float, float]] = {}
        self._said: float | None = None

    def report(self, source: str, why: str, since: float, left: float) -> None:
        """What stands in the way of `source` (empty: nothing any more) since that moment on `time.monotonic()`'s clock,
        and for how many seconds it is waited."""
        with self._lock:
            line = self._line(source, why, since, left)
        if line:
            self._shown(why)
            # A store that cannot take it must not fail the request that it is about, which may have been sent.
            with contextlib.suppress(StoreError):
                self._log(line)

    def _line(self, source: str, why: str, since: float, left: float) -> str:
        now = time.monotonic()
        if not why:
            self._waiting.pop(source, None)
            if self._said is None or any(now - last < STALE for _, last in self._waiting.values()):
                return ""
            seconds, self._said = now - self._said, None
            return f"the API server answers again, after {seconds:.0f} s"
        began, last = self._waiting.get(source, (since, now))
        since = began if now - last < STALE else since
        self._waiting[source] = since, now
        if self._said is not None or now - since < SAY_AFTER:
            return ""
        self._said = since
        limit = f"up to {left:.0f} s " if left < float("inf") else ""
        return f"waiting {limit}for the API server: {why}"

"""Log lines on their way into etcd: queued by whoever says them, written by one thread, each log's in order."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deployer.core.errors import StoreError, StoreUnavailable
from deployer.store.etcd.log.pieces import Line
from deployer.store.etcd.transactions import Attempt, storable

_RETRY = 1.0  # seconds between attempts to write lines that etcd did not take
_WAIT = 30.0  # seconds that a caller waits for its lines; the deadline of each request is shorter
_LOGS = 32  # logs in one transaction
_SIZE = 256 * 1024  # characters in one transaction, unless one line alone has more
_BUFFER = 16 * 1024 * 1024  # characters that may wait before lines are dropped (and counted)

_log = logging.getLogger(__name__)

Write = Callable[[dict[str, list[Line]], Attempt], object]


@dataclass(slots=True)
class _Batch:
    """Lines that are being written; whether they were may be unknown."""

    lines: dict[str, list[Line]] = field(default_factory=dict)
    attempt: Attempt = field(default_factory=Attempt)


class LineQueue:
    """Lines by deployment. `append` returns at once, `flush` when all that was queued before is in etcd."""

    def __init__(self, write: Write, where: str) -> None:
        self._write = write
        self._where = where
        self._wake = threading.Condition()
        self._waiting: dict[str, deque[tuple[int, Line]]] = {}
        self._tickets = itertools.count(1)
        self._size = 0
        self._lost: dict[str, int] = {}
        self._last = 0
        self._failures = 0
        self._problem: StoreError | None = None
        self._urgent = self._closing = False
        self._thread = threading.Thread(target=self._run, name="store-log", daemon=True)
        self._thread.start()

    def append(self, deployment: str, lines: Sequence[Line]) -> None:
        """Queue lines, or count them as lost when too much is waiting already."""
        clean = [(storable(moment), storable(text)) for moment, text in lines]
        with self._wake:
            if self._closing:
                _log.warning("%d log lines of deployment %s came after the store was closed", len(clean), deployment)
            elif self._size + _size(clean) > _BUFFER:
                self._lost[storable(deployment)] = self._lost.get(deployment, 0) + len(clean)
            else:
                self._put(storable(deployment), clean)
                self._wake.notify_all()

    def holds(self, deployment: str) -> bool:
        """True while lines of this deployment are queued or being written."""
        with self._wake:
            return deployment in self._waiting

    def flush(self, deployment: str | None = None) -> None:
        """Return when what was queued before, of one deployment or of all, is in etcd. Raises StoreUnavailable."""
        end = time.monotonic() + _WAIT
        with self._wake:
            last, failures = self._last, self._failures

            def over() -> bool:
                return not self._older(last, deployment) or self._failures != failures or not self._thread.is_alive()

            if not self._waiting:
                return
            self._urgent = True
            self._wake.notify_all()
            self._wake.wait_for(over, timeout=end - time.monotonic())
            if self._older(last, deployment):
                why = self._problem or f"the store in etcd ({self._where}) did not take log lines in time"
                raise StoreUnavailable(str(why))

    def problem(self) -> str:
        """Why lines were not taken the last time; empty when they were."""
        problem = self._problem
        return "" if problem is None else str(problem)

    def close(self) -> None:
        """Write what is queued, if etcd takes it at once."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(_WAIT)
        lost = sum(map(len, self._waiting.values())) + sum(self._lost.values())
        if lost:
            _log.error("%d log lines were lost: the store in etcd (%s) could not record them", lost, self._where)

    def _older(self, ticket: int, deployment: str | None) -> bool:
        """Whether lines up to that ticket are not in etcd."""
        of = self._waiting.values() if deployment is None else (self._waiting.get(deployment, ()),)
        return any(lines and lines[0][0] <= ticket for lines in of)

    def _put(self, deployment: str, lines: Sequence[Line]) -> None:
        if lines:
            self._size += _size(lines)
            self._last = next(self._tickets)
            self._waiting.setdefault(deployment, deque()).extend((self._last, line) for line in lines)

    # Runs in the queue's thread.

    def _run(self) -> None:
        batch = _Batch()
        last = False  # closing, and one attempt was made since
        while True:
            with self._wake:
                self._wake.wait_for(self._has_work, timeout=_RETRY if self._problem else None)
                if self._closing and (last or not self._waiting):
                    return
                last = self._closing and self._problem is not None
                self._urgent = False
                batch.lines = batch.lines or self._some()
            if not batch.lines:
                continue
            try:
                self._write(batch.lines, batch.attempt)
            except Exception as error:  # noqa: BLE001 - told to who waits, and tried again
                self._failed(error)
                last = self._closing
            else:
                self._written(batch)
                batch = _Batch()

    def _has_work(self) -> bool:
        return self._closing or (bool(self._waiting) and (self._urgent or self._problem is None))

    def _some(self) -> dict[str, list[Line]]:
        """The oldest lines, as many as go into one transaction."""
        size = 0
        out: dict[str, list[Line]] = {}
        for deployment, lines in sorted(self._waiting.items(), key=lambda item: item[1][0][0])[:_LOGS]:
            for _, line in lines:
                size += _size([line])
                if out and size > _SIZE:
                    return out
                out.setdefault(deployment, []).append(line)
        return out

    def _written(self, batch: _Batch) -> None:
        with self._wake:
            for deployment, lines in batch.lines.items():
                waiting = self._waiting[deployment]
                for _ in lines:
                    waiting.popleft()
                if not waiting:
                    del self._waiting[deployment]
                self._size -= _size(lines)
            self._problem = None
            lost, self._lost = self._lost, {}
            for deployment, number in lost.items():
                moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
                self._put(
                    deployment, [(moment, f"[{number} lines were lost: the store could not record them in time]")]
                )
            self._wake.notify_all()

    def _failed(self, error: Exception) -> None:
        expected = isinstance(error, StoreError)
        if self._problem is None or not expected:
            _log.error("log lines cannot be recorded: %s", error, exc_info=not expected)
        with self._wake:
            self._failures += 1
            self._problem = error if isinstance(error, StoreError) else StoreUnavailable("log lines cannot be recorded")
            self._wake.notify_all()


def _size(lines: Sequence[Line]) -> int:
    return sum(len(text) + 64 for _, text in lines)

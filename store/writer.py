"""The SQLite store's writer: one connection in one thread, with group commit.

It takes whatever is waiting, runs each member in a savepoint of its own, and pays one COMMIT (one fsync) for all. A
member's own refusal undoes only that member; an error of SQLite fails the whole batch, of which nothing is written.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from deployer.core import failpoints
from deployer.core.errors import StoreUnavailable

WAIT = 30.0  # seconds that a caller waits for the writer; a local disk that needs longer is as good as gone
_MAX_BATCH = 256  # members of one COMMIT; bounds how long the first of them waits for the last
_RETRY = 1.0  # seconds between attempts to write log lines that a full disk refused
_LOG_BUFFER = 16 * 1024 * 1024  # bytes of log text that may wait for the disk before lines are dropped (and counted)
_WAL_SIZE = 64 * 1024 * 1024  # bytes to which the WAL file is cut back after a checkpoint
LAST_LINE = "SELECT coalesce(max(number), 0) FROM log WHERE deployment = ?"

T = TypeVar("T")
Subscriber = Callable[[str, str], None]
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Transaction:
    """What a member of a batch works on: the revision before it, and what subscribers will be told.

    changed   the revision of the last write in each namespace that was written to
    """

    connection: sqlite3.Connection
    revision: int
    notices: dict[tuple[str, str], None] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    work: Callable[[Transaction], T]
    commit: bool
    future: Future[T] = field(default_factory=Future)
    outcome: tuple[T] | Exception | None = None

    def settle(self) -> None:
        if isinstance(self.outcome, tuple):
            self.future.set_result(self.outcome[0])
        else:
            self.future.set_exception(self.outcome)


class LogBuffer:
    """Lines on their way to the disk, in order by deployment. They stay until `written`, so a failed batch loses none.

    Not locked: the writer's condition guards it.
    """

    def __init__(self) -> None:
        self._queued: dict[str, list[tuple[str, str]]] = {}
        self._taken: dict[str, list[tuple[str, str]]] = {}
        self._size = self._taken_size = 0
        self._lost: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queued or self._taken)

    def __contains__(self, deployment: str) -> bool:
        return deployment in self._queued or deployment in self._taken

    def put(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        """Queue lines, or count them as lost when too much is waiting already."""
        size = sum(len(text) + 64 for _, text in lines)
        if self._size + self._taken_size + size > _LOG_BUFFER:
            self._lost[deployment] = self._lost.get(deployment, 0) + len(lines)
        elif lines:
            self._size += size
            self._queued.setdefault(deployment, []).extend(lines)

    def take(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Everything that is not written yet, including what an earlier batch failed to write."""
        for deployment, lines in self._queued.items():
            self._taken.setdefault(deployment, []).extend(lines)
        self._queued = {}
        self._taken_size += self._size
        self._size = 0
        return self._taken

    def written(self) -> None:
        """What was taken is durable. A log that lost lines says so in its next one."""
        self._taken = {}
        self._taken_size = 0
        lost, self._lost = self._lost, {}
        for deployment, number in lost.items():
            moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
            self.put(deployment, [(moment, f"[{number} lines were lost: the store could not record them in time]")])

    def waiting(self) -> int:
        """How many lines are not durable, lost ones included."""
        return sum(map(len, self._queued.values())) + sum(map(len, self._taken.values())) + sum(self._lost.values())


class Writer:
    """The only connection that writes, its thread, and group commit."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._wake = threading.Condition()
        self._jobs: deque[_Job[Any]] = deque()
        self._lines = LogBuffer()
        self._closing = False
        self._failed = False
        self._subscribers: tuple[Subscriber, ...] = ()
        self.changed: dict[str, int] = {}
        """The revision of the last commit in each namespace, for those of this process."""
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    # Called from any thread.

    def call(self, work: Callable[[Transaction], T], *, commit: bool = False) -> T:
        """Run `work` in the next batch and return its result once that is durable. Raises what `work` raises."""
        job = _Job(work, commit)
        with self._wake:
            if self._closing:
                raise closed(self._path)
            self._jobs.append(job)
            self._wake.notify()
        try:
            return job.future.result(timeout=WAIT)
        except TimeoutError as error:
            outcome = "nothing was written" if job.future.cancel() else "it is unknown whether this was written"
            raise StoreUnavailable(f"the store {self._path} did not answer for {WAIT:.0f} s; {outcome}") from error

    def flush(self) -> None:
        """Return when everything that was queued before is durable. Raises StoreUnavailable."""

        def nothing(_: Transaction) -> None:
            return

        self.call(nothing)

    def append(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        """Queue log lines for the next batch; they are in it before any job that comes later."""
        # A line that cannot be written would stand in the way of all later batches: only clean text gets in.
        clean = [(_storable(moment), _storable(text)) for moment, text in lines]
        with self._wake:
            if self._closing:
                _log.warning("%d log lines of deployment %s came after the store was closed", len(clean), deployment)
                return
            self._lines.put(_storable(deployment), clean)
            self._wake.notify()

    def holds_lines_of(self, deployment: str) -> bool:
        """True while lines of this deployment are queued or being written."""
        with self._wake:
            return deployment in self._lines

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with what a batch changed, after its callers were released; returns the way to stop it."""

        def entry(kind: str, key: str) -> None:  # one per subscription, even if a callback is given twice
            callback(kind, key)

        with self._wake:
            self._subscribers += (entry,)

        def unsubscribe() -> None:
            with self._wake:
                self._subscribers = tuple(s for s in self._subscribers if s is not entry)

        return unsubscribe

    def close(self) -> bool:
        """Finish what is queued and end the thread; False when that took too long."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(WAIT)
        return not self._thread.is_alive()

    # Runs in the writer's thread.

    def _run(self) -> None:
        last = False  # closing, and one attempt was made since
        while True:
            with self._wake:
                # After a failure the next batch follows within a second, if only to find out whether the disk is back.
                self._wake.wait_for(self._has_work, timeout=_RETRY if self._failed else None)
                if self._closing and not self._jobs and (last or not self._lines):
                    break
                last = self._closing
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _MAX_BATCH))]
                # Taken after the jobs, hence with every line that was queued before any of them.
                lines = self._lines.take()
            self._batch([job for job in jobs if job.future.set_running_or_notify_cancel()], lines)
        if waiting := self._lines.waiting():
            _log.error("%d log lines were lost: the store %s could not record them", waiting, self._path)
        if self._connection is not None:
            self._connection.close()

    def _has_work(self) -> bool:
        return bool(self._jobs or self._closing or (self._lines and not self._failed))

    def _batch(self, jobs: list[_Job[Any]], lines: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        try:
            notices = self._transact(jobs, lines)
        except Exception as error:  # noqa: BLE001 - given to everybody who waits for this batch
            self._abandon(error)
            message = f"the store {self._path} cannot record anything now ({error}); check its disk, then try again"
            for job in jobs:
                job.future.set_exception(StoreUnavailable(message))
            return
        if lines:
            notices.update((("log", deployment), None) for deployment in lines)
        with self._wake:
            self._failed = False
            self._lines.written()
        for job in jobs:
            job.settle()
        for notice in notices:
            self._tell(*notice)

    def _transact(
        self, jobs: list[_Job[Any]], lines: Mapping[str, Sequence[tuple[str, str]]]
    ) -> dict[tuple[str, str], None]:
        """Everything up to and including COMMIT; an exception means that nothing of it counts."""
        if self._connection is None:
            self._connection = connect(self._path)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        (before,) = connection.execute("SELECT revision FROM meta").fetchone()
        tx = Transaction(connection, before)
        write_lines(connection, lines)
        for job in jobs:
            self._member(tx, job)
        if tx.revision != before:
            connection.execute("UPDATE meta SET revision = ?", (tx.revision,))
        commits = any(job.commit and isinstance(job.outcome, tuple) for job in jobs)
        if commits:
            failpoints.hit("store.before")
        connection.execute("COMMIT")
        # Once it can be read, and before anybody hears of it.
        self.changed |= tx.changed
        if commits:
            failpoints.hit("store.after")
        return tx.notices

    @staticmethod
    def _member(tx: Transaction, job: _Job[Any]) -> None:
        """One job in its savepoint. Its own refusal is undone alone; SQLite's errors are the whole batch's."""
        tx.connection.execute("SAVEPOINT member")
        try:
            job.outcome = (job.work(tx),)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - given to the caller, who waits for it
            tx.connection.execute("ROLLBACK TO member")
            job.outcome = error
        tx.connection.execute("RELEASE member")

    def _abandon(self, error: Exception) -> None:
        expected = isinstance(error, (sqlite3.Error, OSError))
        if not expected or not self._failed:
            _log.error("the store %s cannot record anything: %s", self._path, error, exc_info=not expected)
        with self._wake:
            self._failed = True
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The connection is no good any more; the next batch opens another one.
            _log.exception("the store %s could not roll back", self._path)
            self._connection.close()
            self._connection = None

    def _tell(self, kind: str, key: str) -> None:
        for callback in self._subscribers:
            try:
                callback(kind, key)
            except Exception:  # noqa: BLE001 - logged with its traceback
                # A subscriber's fault must not end the thread that all writes go through.
                _log.exception("a subscriber failed on %s %s", kind, key)


def write_lines(connection: sqlite3.Connection, lines: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Add `(time, text)` lines to logs, numbered on from the last."""
    for deployment, entries in lines.items():
        (last,) = connection.execute(LAST_LINE, (deployment,)).fetchone()
        connection.executemany(
            "INSERT INTO log (deployment, number, time, text) VALUES (?, ?, ?, ?)",
            ((deployment, number, moment, text) for number, (moment, text) in enumerate(entries, last + 1)),
        )


def _storable(text: str) -> str:
    """The text with what UTF-8 cannot hold (lone surrogates) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def closed(path: Path) -> StoreUnavailable:
    """What every call after `close` raises."""
    return StoreUnavailable(f"the store {path} is closed")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes durably: WAL, and an fsync with every COMMIT. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError("this file system offers no shared memory for SQLite's WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE}")
    except BaseException:
        connection.close()
        raise
    return connection

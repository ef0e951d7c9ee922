"""The SQLite store's writer: one connection in one thread, with group commit.

It takes whatever is waiting, runs each member in a savepoint of its own, and pays one COMMIT (one fsync) for all. A
member's own refusal undoes only that member; an error of SQLite fails the whole batch, of which nothing is written.

On a full disk the room of `reserve.py` is given up: what ends or deletes something is recorded with that, and what
would begin something is refused until the disk has room again.
"""

from __future__ import annotations

import contextlib
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
from deployer.store.advice import advice
from deployer.store.reserve import Reserve

WAIT = 30.0  # seconds that a caller waits for the writer; a local disk that needs longer is as good as gone
_MAX_BATCH = 256  # members of one COMMIT; bounds how long the first of them waits for the last
_RETRY = 1.0  # seconds between attempts to find out whether a disk that refused takes what is waiting
_QUIET = 30.0  # seconds after which the last write says nothing about the disk any more
_SLOW = 10.0  # seconds after which a write that is under way is a problem
_PATIENCE = 1.0  # seconds that the writer waits for readers when the WAL has grown too large
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
    begins: bool
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

    @property
    def overdue(self) -> bool:
        """Has some of it been taken, and not been written?"""
        return bool(self._taken)

    def waiting(self) -> int:
        """How many lines are not durable, lost ones included."""
        return sum(map(len, self._queued.values())) + sum(map(len, self._taken.values())) + sum(self._lost.values())


class Writer:
    """The only connection that writes, its thread, and group commit."""

    def __init__(self, path: Path, connection: sqlite3.Connection, reserve: Reserve) -> None:
        self._path = path
        self._reserve = reserve
        self._wal = path.with_name(f"{path.name}-wal")
        self._wal_limit = _WAL_SIZE
        self._connection: sqlite3.Connection | None = connection
        self._wake = threading.Condition()
        self._jobs: deque[_Job[Any]] = deque()
        self._lines = LogBuffer()
        self._closing = False
        self._failed = False
        self._probing = False
        self._trouble = ""
        self._wrote = time.monotonic()
        self._began: float | None = None  # when what is being written was begun
        self._subscribers: tuple[Subscriber, ...] = ()
        self.changed: dict[str, int] = {}
        """The revision of the last commit in each namespace, for those of this process."""
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    # Called from any thread.

    def call(self, work: Callable[[Transaction], T], *, commit: bool = False, begins: bool = False) -> T:
        """Run `work` in the next batch and return its result once that is durable. Raises what `work` raises.

        `begins`: it is the beginning of something, for which there is no room on a full disk.
        """
        job = _Job(work, commit, begins)
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

    def problem(self) -> str:
        """Why not everything can be recorded, by what was met last; empty when it can. Returns at once.

        When nothing was written for a while it has something written, so that the next answer is right.
        """
        began, now = self._began, time.monotonic()
        if began is not None and now - began > _SLOW:
            return f"the store {self._path} has not answered for {now - began:.0f} s; check its disk"
        if now - self._wrote > _QUIET:
            with self._wake:
                self._probing = True
                self._wake.notify()
        return self._trouble

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
                again = self._failed or not self._reserve.held
                self._wake.wait_for(self._has_work, timeout=_RETRY if again else None)
                if self._closing and not self._jobs and (last or not self._lines):
                    break
                last = self._closing
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _MAX_BATCH))]
                # Taken after the jobs, hence with every line that was queued before any of them.
                lines = self._lines.take()
            self._began = time.monotonic()
            self._batch([job for job in jobs if job.future.set_running_or_notify_cancel()], lines)
            self._began = None
        if waiting := self._lines.waiting():
            _log.error("%d log lines were lost: the store %s could not record them", waiting, self._path)
        if self._connection is not None:
            self._connection.close()

    def _has_work(self) -> bool:
        return bool(self._jobs or self._closing or self._probing or (self._lines and not self._failed))

    def _batch(
        self, jobs: list[_Job[Any]], lines: Mapping[str, Sequence[tuple[str, str]]], *, again: bool = False
    ) -> None:
        """Write it, on a full disk once more with the room that can be made there, and without what begins."""
        full = "" if self._reserve.take() or self._has_free_pages() else self._full()
        if full:
            self._fail([job for job in jobs if job.begins], full)
            jobs = [job for job in jobs if not job.begins]
        if not (jobs or lines or self._failed or self._probing):
            self._trouble = full
            return
        self._probing = False
        try:
            notices = self._transact(jobs, lines)
        except Exception as error:  # noqa: BLE001 - given to everybody who waits for this batch
            self._roll_back()
            missed = self._reserve.missed_by(error)
            if missed and not again:
                self._make_room()
                self._batch(jobs, lines, again=True)
                return
            self._say(error)
            vital = [job for job in jobs if job.commit] if missed and lines else []
            self._fail([job for job in jobs if job not in vital], self._trouble)
            if vital:  # lines that find no room must not keep back what would make some
                self._batch(vital, {}, again=True)
            return
        if lines:
            notices.update((("log", deployment), None) for deployment in lines)
        with self._wake:
            if lines:
                self._lines.written()
            self._failed = self._lines.overdue
        self._trouble = full or (self._full() if self._failed else "")
        self._wrote = time.monotonic()
        for job in jobs:
            job.settle()
        for notice in notices:
            self._tell(*notice)
        self._bound_wal()

    def _fail(self, jobs: list[_Job[Any]], why: str) -> None:
        for job in jobs:
            job.future.set_exception(StoreUnavailable(why))

    def _full(self) -> str:
        return (
            f"the disk of the store {self._path} is full: free {max(1, 2 * self._reserve.size // 1_000_000)} MB there; "
            "until then only what ends or deletes something is recorded"
        )

    def _has_free_pages(self) -> bool:
        """Is there as much room within the database, where what is deleted leaves it?"""
        try:
            if self._connection is None:
                return False
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        except sqlite3.Error:
            return False
        return bool(free * size >= self._reserve.size)

    def _make_room(self) -> None:
        """Free the reserve, and have the WAL written from its beginning again: before others take what was freed, all
        that is in it gets its place in the database."""
        if self._reserve.give_up():
            _log.error("%s", self._full())
        self._checkpoint()

    def _checkpoint(self) -> None:
        # Not TRUNCATE, which would give the space to whoever comes first.
        if self._connection is None:
            return
        with contextlib.suppress(sqlite3.Error):
            (usual,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
            self._connection.execute(f"PRAGMA busy_timeout = {round(_PATIENCE * 1000)}")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {usual}")

    def _bound_wal(self) -> None:
        """A WAL is written from its beginning again when nobody reads it. Where somebody always does, it grows, unless
        those who begin to read meanwhile find nothing in it: https://sqlite.org/wal.html, "checkpoint starvation"."""
        try:
            size = self._wal.stat().st_size
        except OSError:
            return
        if size > self._wal_limit:
            self._checkpoint()
            # One that reads on and on is waited for now and then only.
            self._wal_limit = size + _WAL_SIZE // 4
        elif size <= _WAL_SIZE:
            self._wal_limit = _WAL_SIZE

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
        if tx.revision != before or not (jobs or lines):  # only a real write shows whether one can be made
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

    def _say(self, error: Exception) -> None:
        """Log it, once for as long as it fails, and have it known to who asks whether all is well."""
        expected = isinstance(error, (sqlite3.Error, OSError))
        self._trouble = f"the store {self._path} cannot record anything now ({error}); {advice(error)}"
        if not expected or not self._failed:
            _log.error("%s", self._trouble, exc_info=not expected)
        with self._wake:
            self._failed = True

    def _roll_back(self) -> None:
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

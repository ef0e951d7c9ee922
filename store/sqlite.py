"""The embedded store: records, logs and leases in one SQLite file, for one process.

All writes go through the one connection of `writer.py`. Reads use read-only connections beside it: in WAL mode they see
every finished COMMIT and never wait for the writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployer.core.clock import SteadyClock
from deployer.core.errors import Fenced, SettingsError, StaleRevision, StoreUnavailable
from deployer.core.model import json_codec
from deployer.core.model.records import Deployment, LogLine, Record
from deployer.core.ports.store import Append, Change, Create, Delete, Expect, Lease, R, Store, Update
from deployer.store.writer import (
    LAST_LINE,
    WAIT,
    Subscriber,
    Transaction,
    Writer,
    closed,
    connect,
    write_lines,
)

SCHEMA_VERSION = 1
_IDLE_READERS = 16  # connections kept open, one for each thread of REST; two file descriptors each
_LINES_PER_READ = 10_000

_SCHEMA = (
    "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL)",
    "INSERT INTO meta VALUES (1, 0)",
    # An ordinary rowid table: documents are large, and a WITHOUT ROWID tree would carry them in its inner pages.
    """CREATE TABLE records (
         id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, namespace TEXT NOT NULL, app TEXT NOT NULL,
         tag TEXT NOT NULL, revision INTEGER NOT NULL, sequence INTEGER NOT NULL, document TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX records_key ON records (kind, key)",
    "CREATE INDEX records_app ON records (kind, namespace, app, sequence, key)",
    "CREATE INDEX records_tag ON records (kind, tag, sequence, key)",
    """CREATE TABLE log (
         deployment TEXT NOT NULL, number INTEGER NOT NULL, time TEXT NOT NULL, text TEXT NOT NULL,
         PRIMARY KEY (deployment, number)) WITHOUT ROWID""",
    """CREATE TABLE leases (
         namespace TEXT NOT NULL, app TEXT NOT NULL, holder TEXT NOT NULL, token INTEGER NOT NULL,
         expires REAL NOT NULL, PRIMARY KEY (namespace, app)) WITHOUT ROWID""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_GET = "SELECT document, revision, sequence FROM records WHERE kind = ? AND key = ?"
_GET_IN = f"{_GET} AND namespace = ?"
# Deployments that have a log, found by one seek each rather than by reading every line.
_LOGS_WITHOUT_DEPLOYMENT = """
    WITH RECURSIVE logged(deployment) AS (
      SELECT min(deployment) FROM log
      UNION ALL
      SELECT (SELECT min(deployment) FROM log WHERE log.deployment > logged.deployment)
      FROM logged WHERE logged.deployment IS NOT NULL)
    SELECT deployment FROM logged WHERE deployment IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM records WHERE kind = ? AND key = logged.deployment)"""

_log = logging.getLogger(__name__)


class SqliteStore(Store):
    """A store in the file `path`, which this process owns (`<path>.lock`) until `close`.

    Raises SettingsError when the file is in use, cannot be opened, is none of ours, or was written by a newer release.
    `clock` gives seconds since the epoch, for leases. Opening expires the leases of earlier processes (the lock proves
    that they are gone; tokens go on growing) and removes log lines that were written after their deployment's deletion.

    Subscribers are called after the callers that waited for the commit were released.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] | None = None) -> None:
        self._path = path
        self._clock = clock or SteadyClock()
        self._lock = _take_lock(path)
        try:
            connection = _open(path)
        except BaseException:
            os.close(self._lock)
            raise
        self._readers = _Readers(path)
        self._writer = Writer(path, connection)

    # --- records ---------------------------------------------------------------------------------------------

    def get(self, kind: type[R], key: str, *, namespace: str | None = None) -> R | None:
        if namespace is None:
            rows = self._readers.fetch(_GET, (kind.KIND, key))
        else:
            rows = self._readers.fetch(_GET_IN, (kind.KIND, key, namespace))
        return _record(kind, rows[0]) if rows else None

    def find(
        self,
        kind: type[R],
        *,
        namespace: str | None = None,
        app: str | None = None,
        tag: str | None = None,
        newest_first: bool = False,
        limit_per_app: int | None = None,
    ) -> list[R]:
        """Records in order of arrival. `limit_per_app` keeps the newest of each app, whichever way they are listed."""
        if app is not None and namespace is None:
            raise ValueError("find: an app's name means something in its namespace only; give that too")
        filters = {"kind": kind.KIND, "namespace": namespace, "app": app, "tag": tag}
        sql, values = _find_query(filters, newest_first, limit_per_app)
        return [_record(kind, row) for row in self._readers.fetch(sql, values)]

    def count(self, kind: type[Record], *, tag: str | None = None) -> int:
        sql, values = "SELECT count(*) FROM records WHERE kind = ?", [kind.KIND]
        if tag is not None:
            sql, values = sql + " AND tag = ?", [kind.KIND, tag]
        number: int = self._readers.fetch(sql, values)[0][0]
        return number

    def commit(self, *changes: Change, fence: Lease | None = None) -> int:
        # JSON is made here, in the caller's thread: the writer's time is everybody's.
        prepared = [(change, _document(change)) for change in changes]

        def work(tx: Transaction) -> int:
            if fence is not None:
                _check_fence(tx.connection, fence)
            revision = tx.revision + 1
            for change, document in prepared:
                _apply(tx.connection, change, document, revision)
            tx.revision = revision
            tx.notices.update(dict.fromkeys(_notice(change) for change in changes if not isinstance(change, Expect)))
            return revision

        return self._writer.call(work, commit=True)

    # --- logs ------------------------------------------------------------------------------------------------

    def append_log(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        self._writer.append(deployment, lines)

    def read_log(self, deployment: str, *, after: int = 0, limit: int = 1000, size: int | None = None) -> list[LogLine]:
        """Lines with a number above `after`, in order, at most 10,000 whatever `limit` says."""
        if self._writer.holds_lines_of(deployment):
            self._writer.flush()
        lines = self._readers.fetch(
            "SELECT number, time, text FROM log WHERE deployment = ? AND number > ? ORDER BY number LIMIT ?",
            (deployment, after, max(0, min(limit, _LINES_PER_READ))),
            take=lambda rows: _up_to(size, rows),
        )
        return [LogLine(*line) for line in lines]

    def last_line(self, deployment: str) -> int:
        if self._writer.holds_lines_of(deployment):
            self._writer.flush()
        number: int = self._readers.fetch(LAST_LINE, (deployment,))[0][0]
        return number

    # --- leases ----------------------------------------------------------------------------------------------

    def acquire(self, namespace: str, app: str, holder: str, ttl: float) -> Lease | None:
        def work(tx: Transaction) -> Lease | None:
            now = self._clock()
            row = _lease_row(tx.connection, namespace, app)
            if row is None:
                token = 1
            elif row[0] == holder:
                token = row[1]
            elif row[2] > now:
                return None
            else:
                token = row[1] + 1
            lease = Lease(namespace, app, holder, token, now + ttl)
            _write_lease(tx.connection, lease)
            return lease

        return self._writer.call(work)

    def renew(self, lease: Lease, ttl: float) -> Lease:
        def work(tx: Transaction) -> Lease:
            _check_fence(tx.connection, lease)
            renewed = Lease(lease.namespace, lease.app, lease.holder, lease.token, self._clock() + ttl)
            _write_lease(tx.connection, renewed)
            return renewed

        return self._writer.call(work)

    def release(self, lease: Lease) -> None:
        def work(tx: Transaction) -> None:
            # The row stays: it remembers the token.
            tx.connection.execute(
                "UPDATE leases SET expires = 0 WHERE namespace = ? AND app = ? AND holder = ? AND token = ?",
                (lease.namespace, lease.app, lease.holder, lease.token),
            )

        self._writer.call(work)

    # --- the rest --------------------------------------------------------------------------------------------

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        return self._writer.subscribe(callback)

    def close(self) -> None:
        if self._lock < 0:
            return
        # The lock is let go last, and not at all while a hung disk keeps the writer: its write may still arrive.
        if self._writer.close():
            self._readers.close()
            os.close(self._lock)
            self._lock = -1
        else:
            self._readers.close()
            _log.error("the store %s did not finish within %.0f s and stays locked until exit", self._path, WAIT)


# --- opening --------------------------------------------------------------------------------------------------------


def _take_lock(path: Path) -> int:
    """The descriptor that holds `<path>.lock`. The kernel lets go of it when the process ends, however it ends."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"the store {path} cannot be opened ({error.strerror}); choose a directory that this user may write"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise SettingsError(f"{lock} cannot be locked ({error.strerror}); put the store on a local disk") from error
        who = f"process {owner}" if owner else "another process"
        raise SettingsError(
            f"the store {path} is in use by {who}; stop that one, or give this one a data directory of its own"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _open(path: Path) -> sqlite3.Connection:
    """The writer's connection to a store of the current schema, ready for this process."""
    try:
        # Made by us so that nobody else can read it: descriptors may hold secrets. WAL files take over these rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = connect(path)
    except (sqlite3.Error, OSError) as error:
        raise SettingsError(f"the store {path} cannot be opened ({error}); name another file, or restore it") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise SettingsError(f"the store {path} cannot be opened ({error}); free space, or restore it") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create what is missing, and clear up after earlier processes, in one transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise SettingsError(
            f"the store {path} was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}); "
            "start that release, or restore a backup"
        )
    connection.execute("BEGIN IMMEDIATE")
    if version == 0:
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise SettingsError(f"{path} is a database of another program; name another file")
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("UPDATE leases SET expires = 0 WHERE expires > 0")
    orphans = connection.execute(_LOGS_WITHOUT_DEPLOYMENT, (Deployment.KIND,)).fetchall()
    connection.executemany("DELETE FROM log WHERE deployment = ?", orphans)
    connection.execute("COMMIT")


# --- reading --------------------------------------------------------------------------------------------------------


class _Readers:
    """Read-only connections: one in use per reading thread, a few kept idle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._idle: deque[sqlite3.Connection] = deque()  # its append and pop are atomic
        self._closed = False

    def fetch(self, sql: str, values: Sequence[Any], take: Callable[[Iterable[Any]], list[Any]] = list) -> list[Any]:
        """All rows, or those that `take` takes. Raises StoreUnavailable."""
        if self._closed:
            raise closed(self._path)
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = sqlite3.connect(self._uri, uri=True, isolation_level=None, check_same_thread=False)
            try:
                cursor = connection.execute(sql, values)
                rows = take(cursor)
                # Rows that nobody takes would keep the read transaction open, and the WAL from being reset.
                cursor.close()
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store {self._path} cannot be read now ({error})") from error
        self._idle.append(connection)
        if self._closed or len(self._idle) > _IDLE_READERS:
            self._drop(keep=0 if self._closed else _IDLE_READERS)
        return rows

    def close(self) -> None:
        self._closed = True
        self._drop(keep=0)

    def _drop(self, keep: int) -> None:
        with contextlib.suppress(IndexError):
            while len(self._idle) > keep:
                self._idle.popleft().close()


def _up_to(size: int | None, rows: Iterable[Any]) -> list[Any]:
    """The lines up to the one that brings their text to `size` characters."""
    if size is None:
        return list(rows)
    taken: list[Any] = []
    for row in rows:
        taken.append(row)
        size -= len(row[2])
        if size <= 0:
            break
    return taken


def _find_query(
    filters: Mapping[str, str | None], newest_first: bool, limit_per_app: int | None
) -> tuple[str, list[Any]]:
    where = " AND ".join(f"{name} = ?" for name, value in filters.items() if value is not None)
    values: list[Any] = [value for value in filters.values() if value is not None]
    if limit_per_app is not None:
        # The window runs over the index alone; documents are read only for the rows that stay.
        where = f"""id IN (SELECT id FROM (SELECT id, row_number()
            OVER (PARTITION BY namespace, app ORDER BY sequence DESC, key DESC) AS place
            FROM records WHERE {where}) WHERE place <= ?)"""
        values.append(limit_per_app)
    order = "DESC" if newest_first else "ASC"
    return (
        f"SELECT document, revision, sequence FROM records WHERE {where} ORDER BY sequence {order}, key {order}",
        values,
    )


def _record(kind: type[R], row: tuple[str, int, int]) -> R:
    return kind.from_document(json_codec.loads(row[0]), revision=row[1], sequence=row[2])


# --- statements of the writer ---------------------------------------------------------------------------------------


def _document(change: Change) -> str:
    if isinstance(change, (Create, Update)):
        return json_codec.dumps(change.record.to_document())
    return ""


def _notice(change: Change) -> tuple[str, str]:
    """What subscribers are told of it."""
    return ("log", change.deployment) if isinstance(change, Append) else (change.record.KIND, change.record.key)


def _apply(connection: sqlite3.Connection, change: Change, document: str, revision: int) -> None:
    """One change at its new revision. Raises StaleRevision."""
    if isinstance(change, Append):
        write_lines(connection, {change.deployment: [(change.time, change.text)]})
        return
    record = change.record
    name = (record.KIND, record.key)
    match change:
        case Create():
            done = connection.execute(
                "INSERT INTO records (kind, key, namespace, app, tag, revision, sequence, document) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (*name, record.namespace, record.app, record.tag, revision, revision, document),
            ).rowcount
        case Update():
            done = connection.execute(
                "UPDATE records SET namespace = ?, app = ?, tag = ?, revision = ?, document = ? "
                "WHERE kind = ? AND key = ? AND revision = ?",
                (record.namespace, record.app, record.tag, revision, document, *name, record.revision),
            ).rowcount
        case Delete():
            done = connection.execute(
                "DELETE FROM records WHERE kind = ? AND key = ? AND revision = ?", (*name, record.revision)
            ).rowcount
            if done and isinstance(record, Deployment):
                connection.execute("DELETE FROM log WHERE deployment = ?", (record.id,))
        case Expect():
            query = "SELECT 1 FROM records WHERE kind = ? AND key = ? AND revision = ?"
            done = len(connection.execute(query, (*name, record.revision)).fetchall())
    if not done:
        raise _stale(connection, change, record)


def _stale(connection: sqlite3.Connection, change: Change, record: Record) -> StaleRevision:
    what = f"{record.KIND} {record.key}"
    row = connection.execute(
        "SELECT revision FROM records WHERE kind = ? AND key = ?", (record.KIND, record.key)
    ).fetchone()
    if row is None:
        return StaleRevision(f"{what} is not there any more; read again")
    if isinstance(change, Create):
        return StaleRevision(f"{what} exists already (revision {row[0]}); read again")
    return StaleRevision(f"{what} was changed by somebody else (revision {row[0]}, not {record.revision}); read again")


def _lease_row(connection: sqlite3.Connection, namespace: str, app: str) -> tuple[str, int, float] | None:
    row: tuple[str, int, float] | None = connection.execute(
        "SELECT holder, token, expires FROM leases WHERE namespace = ? AND app = ?", (namespace, app)
    ).fetchone()
    return row


def _write_lease(connection: sqlite3.Connection, lease: Lease) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO leases (namespace, app, holder, token, expires) VALUES (?, ?, ?, ?, ?)",
        (lease.namespace, lease.app, lease.holder, lease.token, lease.expires),
    )


def _check_fence(connection: sqlite3.Connection, lease: Lease) -> None:
    row = _lease_row(connection, lease.namespace, lease.app)
    if row is None or row[:2] != (lease.holder, lease.token):
        now = f"{row[0]} with token {row[1]}" if row else "nobody"
        raise Fenced(
            f"the lease of {lease.namespace}/{lease.app} belongs to {now}, "
            f"not to {lease.holder} with token {lease.token}; nothing was written"
        )

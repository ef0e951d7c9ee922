"""The embedded store: records, logs and leases in one SQLite file, for one process.

All writes go through the one connection of `writer.py`. Reads use read-only connections beside it: in WAL mode they see
every finished COMMIT and never wait for the writer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from deployer.core.clock import SteadyClock
from deployer.core.errors import Fenced, StaleRevision, StoreUnavailable
from deployer.core.model import json_codec
from deployer.core.model.records import Deployment, Record, StoredDescriptor
from deployer.core.ports.store import (
    Append,
    Change,
    Create,
    Delete,
    Expect,
    Lease,
    LogLine,
    Place,
    R,
    Update,
    require_namespace,
)
from deployer.store.members import Members, StoreOfOneProcess
from deployer.store.opening import open_file, take_lock
from deployer.store.readers import Readers
from deployer.store.reserve import Reserve
from deployer.store.transfer import sqlite as transfer
from deployer.store.transfer.port import Item, Transferable
from deployer.store.writer import (
    LAST_LINE,
    WAIT,
    Subscriber,
    Transaction,
    Writer,
    write_lines,
)

_LINES_PER_READ = 10_000

_GET = "SELECT document, revision, sequence FROM records WHERE kind = ? AND key = ?"
_GET_IN = f"{_GET} AND namespace = ?"
# By one seek in the index for each app.
_APPS = """
    WITH RECURSIVE names(app) AS (
      SELECT min(app) FROM records WHERE kind = ? AND namespace = ? AND app > ?
      UNION ALL
      SELECT (SELECT min(app) FROM records WHERE kind = ? AND namespace = ? AND app > names.app)
      FROM names WHERE names.app IS NOT NULL)
    SELECT app FROM names WHERE app IS NOT NULL LIMIT ?"""
_log = logging.getLogger(__name__)


class SqliteStore(StoreOfOneProcess, Transferable):
    """A store in the file `path`, which this process owns (`<path>.lock`) until `close`.

    Raises SettingsError when the file is in use, cannot be opened, is none of ours, or was written by a newer release.
    `clock` gives seconds since the epoch, for leases. Opening expires the leases of earlier processes (the lock proves
    that they are gone; tokens go on growing) and removes log lines that were written after their deployment's deletion.

    `reserve` is how many bytes are kept free for a full disk, on which what ends or deletes something can still be
    recorded.

    Subscribers are called after the callers that waited for the commit were released.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] | None = None, reserve: int = 0) -> None:
        self._path = path
        self._clock = clock or SteadyClock()
        self._members = Members(self._clock)
        self._lock = take_lock(path)
        kept = Reserve(path, reserve)
        try:
            connection = open_file(path, kept)
        except BaseException:
            os.close(self._lock)
            raise
        kept.take()
        self._readers = Readers(path)
        self._writer = Writer(path, connection, kept)

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
        limit: int | None = None,
        after: Place | None = None,
        size: int | None = None,
    ) -> list[R]:
        require_namespace(namespace, app)
        filters = {"kind": kind.KIND, "namespace": namespace, "app": app, "tag": tag}
        sql, values = _find_query(filters, newest_first, limit_per_app, limit, after)
        rows = self._readers.fetch(sql, values, take=lambda rows: _up_to(size, rows, text=0))
        return [_record(kind, row) for row in rows]

    def apps(self, kind: type[Record], namespace: str, *, after: str = "", limit: int | None = None) -> list[str]:
        place = (kind.KIND, namespace)
        return [row[0] for row in self._readers.fetch(_APPS, (*place, after, *place, -1 if limit is None else limit))]

    def count(
        self, kind: type[Record], *, namespace: str | None = None, app: str | None = None, tag: str | None = None
    ) -> int:
        require_namespace(namespace, app)
        where, values = _narrowed({"kind": kind.KIND, "namespace": namespace, "app": app, "tag": tag})
        number: int = self._readers.fetch(f"SELECT count(*) FROM records WHERE {where}", values)[0][0]
        return number

    def namespaces(self) -> list[str]:
        sql = "SELECT namespace FROM usage WHERE what = 'records' AND bytes > 0 AND namespace != '' ORDER BY namespace"
        return [row[0] for row in self._readers.fetch(sql, ())]

    def usage(self, namespace: str) -> tuple[int, int]:
        found = dict(self._readers.fetch("SELECT what, bytes FROM usage WHERE namespace = ?", (namespace,)))
        return found.get("records", 0), found.get("logs", 0)

    def changed(self, namespace: str) -> int:
        return self._writer.changed.get(namespace, 0)

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
            tx.changed |= {
                change.record.namespace: revision for change, _ in prepared if not isinstance(change, Append)
            }
            tx.notices.update(dict.fromkeys(_notice(change) for change in changes if not isinstance(change, Expect)))
            return revision

        return self._writer.call(work, commit=True, begins=any(map(_begins, changes)))

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
            take=lambda rows: _up_to(size, rows, text=2),
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
            row = _lease_row(tx.connection, lease.namespace, lease.app)
            if row is not None and not row[2]:
                raise Fenced(f"the lease of {lease.namespace}/{lease.app} was given back")
            renewed = Lease(lease.namespace, lease.app, lease.holder, lease.token, self._clock() + ttl)
            _write_lease(tx.connection, renewed)
            return renewed

        return self._writer.call(work)

    def release(self, lease: Lease, *, above: int = 0) -> None:
        # The row stays: it remembers the token. One that is raised is nobody's.
        raised = "token = ?, holder = '', " if above > lease.token else ""
        values = (*([above] if raised else []), lease.namespace, lease.app, lease.holder, lease.token)
        where = "namespace = ? AND app = ? AND holder = ? AND token = ?"

        def work(tx: Transaction) -> None:
            tx.connection.execute(f"UPDATE leases SET {raised}expires = 0 WHERE {where}", values)

        self._writer.call(work)

    # --- moving ----------------------------------------------------------------------------------------------

    def dump(self) -> contextlib.AbstractContextManager[Iterator[Item]]:
        self._writer.flush()
        return transfer.SqliteFile(self._path).dump()

    def load(self, items: Sequence[Item]) -> None:
        self._writer.call(lambda tx: transfer.load(tx, items), commit=True)

    # --- the rest --------------------------------------------------------------------------------------------

    def problem(self) -> str:
        return self._writer.problem()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        return self._members.subscribe(callback, self._writer.subscribe(callback))

    def close(self) -> None:
        if self._lock < 0:
            return
        self._members.close()
        self._readers.close()
        # The lock is let go last, and not at all while a hung disk keeps the writer: its write may still arrive.
        if self._writer.close():
            os.close(self._lock)
            self._lock = -1
        else:
            _log.error("the store %s did not finish within %.0f s and stays locked until exit", self._path, WAIT)


# --- reading --------------------------------------------------------------------------------------------------------


def _up_to(size: int | None, rows: Iterable[Any], *, text: int) -> list[Any]:
    """The rows up to the one that brings what they have in the column `text` to `size` characters."""
    if size is None:
        return list(rows)
    taken: list[Any] = []
    for row in rows:
        taken.append(row)
        size -= len(row[text])
        if size <= 0:
            break
    return taken


def _narrowed(filters: Mapping[str, str | None]) -> tuple[str, list[Any]]:
    """A condition and its values, of those that are given."""
    given = {name: value for name, value in filters.items() if value is not None}
    return " AND ".join(f"{name} = ?" for name in given), list(given.values())


def _find_query(
    filters: Mapping[str, str | None],
    newest_first: bool,
    limit_per_app: int | None = None,
    limit: int | None = None,
    after: Place | None = None,
) -> tuple[str, list[Any]]:
    where, values = _narrowed(filters)
    if limit_per_app is not None:
        # The window runs over the index alone; documents are read only for the rows that stay.
        where = f"""id IN (SELECT id FROM (SELECT id, row_number()
            OVER (PARTITION BY namespace, app ORDER BY sequence DESC, key DESC) AS place
            FROM records WHERE {where}) WHERE place <= ?)"""
        values.append(limit_per_app)
    order, behind = ("DESC", "<") if newest_first else ("ASC", ">")
    if after is not None:
        where += f" AND (sequence, key) {behind} (?, ?)"
        values += after
    sql = f"SELECT document, revision, sequence FROM records WHERE {where} ORDER BY sequence {order}, key {order}"
    if limit is not None:
        sql, values = f"{sql} LIMIT ?", [*values, max(0, limit)]
    return sql, values


def _record(kind: type[R], row: tuple[str, int, int]) -> R:
    """Raises StoreUnavailable when what is stored is none."""
    try:
        return kind.from_document(json_codec.loads(row[0]), revision=row[1], sequence=row[2])
    except (ValueError, TypeError, LookupError, AttributeError, msgspec.MsgspecError) as error:
        said = f"revision {row[1]} in the store, of a {kind.KIND}, cannot be read ({type(error).__name__})"
        raise StoreUnavailable(f"{said}: the store is damaged; restore the newest backup") from error


# --- statements of the writer ---------------------------------------------------------------------------------------


def _document(change: Change) -> str:
    if isinstance(change, (Create, Update)):
        return json_codec.dumps(change.record.to_document())
    return ""


def _begins(change: Change) -> bool:
    """Is it the beginning of something, and not of what brings something to its end? Going back is none."""
    if isinstance(change, Create) and isinstance(change.record, Deployment):
        return not change.record.rollback_of
    return isinstance(change, (Create, Update)) and isinstance(change.record, StoredDescriptor)


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
        now = f"{row[0]} with token {row[1]}" if row and row[0] else "nobody"
        raise Fenced(
            f"the lease of {lease.namespace}/{lease.app} belongs to {now}, "
            f"not to {lease.holder} with token {lease.token}; nothing was written"
        )

"""Moving a SQLite store: reading it beside the process that has it, writing it through its own writer, and a backup."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model.records import Deployment
from deployer.core.ports.store import LogLine
from deployer.store.opening import SCHEMA_VERSION
from deployer.store.transfer.files import replacing
from deployer.store.transfer.port import Grouped, Item, Lines, Row, Token
from deployer.store.transfer.state import ImportState
from deployer.store.writer import Transaction

_COLUMNS = "kind, key, namespace, app, tag, sequence, document"
_IN_ORDER = "SELECT id FROM records WHERE kind != ? ORDER BY sequence, kind, key"
_LOGGED = "SELECT key FROM records WHERE kind = ? ORDER BY sequence, key"
_LINES = "SELECT number, time, text FROM log WHERE deployment = ? ORDER BY number"


class SqliteFile:
    """A store's file, whether or not a process has it: nothing here takes its lock, or writes to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def dump(self) -> Iterator[Iterator[Item]]:
        """See `Transferable.dump`. Raises SettingsError for what is no store of this release or an earlier one."""
        with self._open() as connection:
            connection.execute("BEGIN")
            yield self._items(connection)

    def backup(self, target: Path) -> int:
        """Copy the whole file, as it is at one moment, to `target`, and return its size in bytes.

        `target` is for its owner only, and is either complete and sound or what it was before. Raises SettingsError,
        StoreUnavailable.
        """
        with self._open() as connection, replacing(target) as draft:
            copy = sqlite3.connect(draft, isolation_level=None)
            try:
                # In one step: between two a write of the service would make it begin anew. WAL lets that go on.
                connection.backup(copy)
                # One file, which needs no other: what opens it next decides about its journal.
                copy.execute("PRAGMA journal_mode = DELETE")
                (said,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
                if said != "ok":
                    raise StoreUnavailable(f"the store {self._path} is damaged ({said}): restore an earlier backup")
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the backup of the store {self._path} failed ({error})") from error
            finally:
                copy.close()
            return draft.stat().st_size

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self._path.is_file():
            raise SettingsError(f"there is no store {self._path}; name the directory that has it with --data-dir")
        try:
            connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            try:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if not 1 <= version <= SCHEMA_VERSION:
                    raise SettingsError(
                        f"the store {self._path} was written by a newer release (schema {version}, this one knows "
                        f"{SCHEMA_VERSION}); use that release"
                        if version
                        else f"{self._path} is a database of another program; name another directory with --data-dir"
                    )
                yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store {self._path} cannot be read ({error})") from error

    def _items(self, connection: sqlite3.Connection) -> Iterator[Item]:
        try:
            for row in connection.execute("SELECT namespace, app, token FROM leases ORDER BY namespace, app"):
                yield Token(*row)
            # Numbers of rows take less memory than sorting documents.
            for (id,) in connection.execute(_IN_ORDER, (ImportState.KIND,)).fetchall():
                yield Row(*connection.execute(f"SELECT {_COLUMNS} FROM records WHERE id = ?", (id,)).fetchone())
            for (deployment,) in connection.execute(_LOGGED, (Deployment.KIND,)).fetchall():
                lines = (LogLine(*line) for line in connection.execute(_LINES, (deployment,)))
                yield from Grouped(deployment, lines)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store {self._path} cannot be read ({error})") from error


def load(tx: Transaction, items: Sequence[Item]) -> None:
    """See `Transferable.load`: the work of one member of the writer's batch."""
    for item in items:
        match item:
            case Row():
                tx.connection.execute(
                    f"INSERT INTO records ({_COLUMNS}, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT DO NOTHING",
                    (item.kind, item.key, item.namespace, item.app, item.tag, item.sequence, item.text, item.sequence),
                )
                # What is written from now on comes later.
                tx.revision = max(tx.revision, item.sequence)
            case Lines():
                tx.connection.executemany(
                    "INSERT INTO log (deployment, number, time, text) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    ((item.deployment, line.number, line.time, line.text) for line in item.lines),
                )
            case Token():
                # Nobody's, and over: whoever comes next gets the one after it.
                tx.connection.execute(
                    "INSERT INTO leases (namespace, app, holder, token, expires) VALUES (?, ?, '', ?, 0) "
                    "ON CONFLICT DO UPDATE SET token = max(token, excluded.token), holder = ''",
                    (item.namespace, item.app, item.token),
                )

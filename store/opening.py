"""Opening the embedded store's file: its lock, its schema, and what a process that died has left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

from deployer.core.errors import SettingsError
from deployer.core.model.records import Deployment
from deployer.store.advice import advice
from deployer.store.reserve import Reserve
from deployer.store.writer import connect

SCHEMA_VERSION = 1
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
# What is open of an app, or what state its deployments are in, is found without reading all that ever was. Earlier
# releases, which know nothing of it, keep it up to date all the same.
_LATER = (
    "CREATE INDEX IF NOT EXISTS records_state ON records (kind, namespace, tag, app, sequence, key)",
    # A page of a list is found by one seek, whatever the list is narrowed to.
    "CREATE INDEX IF NOT EXISTS records_all ON records (kind, sequence, key)",
    "CREATE INDEX IF NOT EXISTS records_namespace ON records (kind, namespace, sequence, key)",
    "CREATE INDEX IF NOT EXISTS records_tagged ON records (kind, namespace, tag, sequence, key)",
)
# How many bytes a namespace takes. The database itself counts: an earlier release, which knows nothing of it, does too.
# A log goes with its deployment's record, which knows the namespace; lines that come after that are nobody's.
_SIZE, _TEXT = "length(CAST({}.document AS BLOB))", "length(CAST(text AS BLOB))"
_ADD = "ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"
_USAGE = (
    """CREATE TABLE usage (
         namespace TEXT NOT NULL, what TEXT NOT NULL, bytes INTEGER NOT NULL,
         PRIMARY KEY (namespace, what)) WITHOUT ROWID""",
    f"""INSERT INTO usage SELECT namespace, 'records', sum({_SIZE.format("records")}) FROM records
        GROUP BY namespace""",
    f"""INSERT INTO usage SELECT namespace, 'logs', sum({_TEXT}) FROM log JOIN records ON kind = '{Deployment.KIND}'
        AND key = deployment GROUP BY namespace""",
    f"""CREATE TRIGGER usage_insert AFTER INSERT ON records BEGIN
        INSERT INTO usage VALUES (NEW.namespace, 'records', {_SIZE.format("NEW")}) {_ADD}; END""",
    f"""CREATE TRIGGER usage_update AFTER UPDATE OF document ON records BEGIN
        UPDATE usage SET bytes = bytes + {_SIZE.format("NEW")} - {_SIZE.format("OLD")}
        WHERE namespace = NEW.namespace AND what = 'records'; END""",
    f"""CREATE TRIGGER usage_delete AFTER DELETE ON records BEGIN
        UPDATE usage SET bytes = bytes - {_SIZE.format("OLD")} WHERE namespace = OLD.namespace AND what = 'records';
        UPDATE usage SET bytes = bytes - (SELECT coalesce(sum({_TEXT}), 0) FROM log WHERE deployment = OLD.key)
        WHERE namespace = OLD.namespace AND what = 'logs' AND OLD.kind = '{Deployment.KIND}'; END""",
    f"""CREATE TRIGGER usage_log AFTER INSERT ON log BEGIN
        INSERT INTO usage SELECT namespace, 'logs', {_TEXT.replace("text", "NEW.text")} FROM records
        WHERE kind = '{Deployment.KIND}' AND key = NEW.deployment {_ADD}; END""",
)

# Deployments that have a log, found by one seek each rather than by reading every line.
_LOGS_WITHOUT_DEPLOYMENT = """
    WITH RECURSIVE logged(deployment) AS (
      SELECT min(deployment) FROM log
      UNION ALL
      SELECT (SELECT min(deployment) FROM log WHERE log.deployment > logged.deployment)
      FROM logged WHERE logged.deployment IS NOT NULL)
    SELECT deployment FROM logged WHERE deployment IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM records WHERE kind = ? AND key = logged.deployment)"""


def take_lock(path: Path) -> int:
    """The descriptor that holds `<path>.lock`. The kernel lets go of it when the process ends, however it ends."""
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"the store {path} cannot be opened ({error.strerror}); {advice(error)}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise SettingsError(f"{lock} cannot be locked ({error.strerror}); {advice(error)}") from error
        who = f"process {owner}" if owner else "another process"
        raise SettingsError(
            f"the store {path} is in use by {who}, and is for one process: stop that one, give this one a data "
            "directory of its own, or let several replicas share an etcd (--etcd)"
        ) from None
    with contextlib.suppress(OSError):  # on a full disk nobody is told who has it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def open_file(path: Path, reserve: Reserve) -> sqlite3.Connection:
    """The writer's connection to a store of the current schema, ready for this process."""
    try:
        return _open_now(path)
    except SettingsError as error:
        cause = error.__cause__
        if not isinstance(cause, Exception) or not reserve.missed_by(cause):
            raise
    if reserve.give_up():
        return _open_now(path)
    raise SettingsError(f"the store {path} cannot be opened: its disk is full; free space there")


def _open_now(path: Path) -> sqlite3.Connection:
    try:
        # Made by us so that nobody else can read it: descriptors may hold secrets. WAL files take over these rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = connect(path)
    except (sqlite3.Error, OSError) as error:
        raise SettingsError(f"the store {path} cannot be opened ({error}); {advice(error)}") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise SettingsError(f"the store {path} cannot be opened ({error}); {advice(error)}") from error
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
    for statement in _LATER:
        connection.execute(statement)
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'usage'").fetchone():
        for statement in _USAGE:
            connection.execute(statement)
    connection.execute("UPDATE meta SET revision = revision")  # shows at once whether it can be written
    connection.execute("UPDATE leases SET expires = 0 WHERE expires > 0")
    orphans = connection.execute(_LOGS_WITHOUT_DEPLOYMENT, (Deployment.KIND,)).fetchall()
    connection.executemany("DELETE FROM log WHERE deployment = ?", orphans)
    connection.execute("COMMIT")

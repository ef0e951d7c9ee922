"""Which store the settings name, and opening it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from deployer.core.errors import SettingsError
from deployer.core.ports.store import Store
from deployer.settings import Settings
from deployer.store.etcd.client.gateway import Access
from deployer.store.etcd.store import EtcdStore
from deployer.store.sqlite import SqliteStore

STORE_FILE = "deployer.db"
"""Name of the embedded store in the data directory."""


def in_etcd(settings: Settings) -> bool:
    """Whether records are kept in etcd."""
    return settings.store == "etcd" or (settings.store == "auto" and bool(settings.etcd))


def name_of(settings: Settings) -> str:
    """What sentences call the store that the settings name."""
    return (
        f"etcd ({settings.etcd}, {settings.etcd_prefix})" if in_etcd(settings) else str(settings.data_dir / STORE_FILE)
    )


def open_store(settings: Settings, *, reserve: int = 0) -> Store:
    """The store that the settings name. `reserve` is that of `SqliteStore`.

    Raises SettingsError when it cannot be used, or when the choice was nobody's and records are in the other one; and
    StoreUnavailable when etcd does not answer.
    """
    file = settings.data_dir / STORE_FILE
    if not in_etcd(settings):
        return SqliteStore(file, reserve=reserve)
    store = open_etcd(settings)
    if settings.store == "auto" and _has_records(file) and store.empty():
        store.close()
        raise SettingsError(
            f"{file} has records and etcd ({settings.etcd}, {settings.etcd_prefix}) has none, where --etcd now keeps "
            "them: move them by `deployer export` and `deployer import`, as docs/etcd.md says; or give --store sqlite "
            "to leave them where they are, or --store etcd to begin without them"
        )
    return store


def open_etcd(settings: Settings) -> EtcdStore:
    """The store in etcd, whatever `store` says. Raises SettingsError and StoreUnavailable."""
    return EtcdStore(access_of(settings), prefix=settings.etcd_prefix)


def access_of(settings: Settings) -> Access:
    """How the settings say that etcd is reached."""
    return Access(
        endpoints=tuple(part.strip().rstrip("/") for part in settings.etcd.split(",") if part.strip()),
        ca_file=settings.etcd_ca_file,
        cert_file=settings.etcd_cert_file,
        key_file=settings.etcd_key_file,
        username=settings.etcd_username,
        password=settings.etcd_password,
        timeout=settings.etcd_timeout,
    )


def _has_records(file: Path) -> bool:
    """Whether a file of the embedded store holds any; a file that cannot be read does not keep anybody from etcd."""
    if not file.exists():
        return False
    uri = f"{file.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            return database.execute("SELECT 1 FROM records LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return False

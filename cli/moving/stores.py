"""The store that the settings name, for those who move what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from deployer.core.errors import SettingsError
from deployer.settings import Settings
from deployer.store.etcd.transfer import EtcdContent
from deployer.store.selection import STORE_FILE, access_of, in_etcd, name_of, open_etcd
from deployer.store.sqlite import SqliteStore
from deployer.store.transfer.port import Item, Transferable
from deployer.store.transfer.sqlite import SqliteFile

Content = AbstractContextManager[Iterator[Item]]


def embedded(settings: Settings) -> Path:
    """The file of the embedded store."""
    return settings.data_dir / STORE_FILE


def source(settings: Settings) -> Content:
    """The content of the store at one moment, whoever uses it. Raises DeployerError."""
    if in_etcd(settings):
        return EtcdContent(access_of(settings), settings.etcd_prefix).dump()
    return SqliteFile(embedded(settings)).dump()


def content(settings: Settings) -> Content:
    """The same, and nothing for a store that is not there yet."""
    there = in_etcd(settings) or embedded(settings).exists()
    return source(settings) if there else nullcontext(iter(()))


def target(settings: Settings) -> Transferable:
    """The store, which no service uses; it has to be closed. Raises DeployerError."""
    if not in_etcd(settings):
        return SqliteStore(embedded(settings))
    store = open_etcd(settings)
    try:
        if replicas := store.replicas():
            raise SettingsError(
                f"the store {name_of(settings)} is in use by {len(replicas)} replica"
                f"{'' if len(replicas) == 1 else 's'} of the service; stop all of them first"
            )
    except BaseException:
        store.close()
        raise
    return store

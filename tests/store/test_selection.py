"""Which store the settings name, and that no records vanish when `--etcd` begins to keep them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model.records import App
from deployer.core.ports.store import Create
from deployer.settings import Settings
from deployer.store.etcd.store import EtcdStore
from deployer.store.selection import STORE_FILE, open_store
from deployer.store.sqlite import SqliteStore
from support.etcd import Etcd, free_ports


@pytest.fixture
def opened(one_etcd: Etcd, tmp_path: Path) -> Any:
    """Open the store of these settings; closed by the test."""
    prefix = f"/test/{uuid.uuid4().hex}/"

    def open_with(**settings: Any) -> Any:
        etcd = ",".join(one_etcd.endpoints)
        return open_store(Settings(own_namespace="", data_dir=tmp_path, etcd=etcd, etcd_prefix=prefix, **settings))

    return open_with


def write(store: Any) -> None:
    store.commit(Create(App(namespace="shop", app="cart")))
    store.close()


def test_without_etcd_records_are_in_a_file(tmp_path: Path) -> None:
    store = open_store(Settings(own_namespace="", data_dir=tmp_path))
    assert isinstance(store, SqliteStore)
    store.close()
    assert (tmp_path / STORE_FILE).exists()


def test_with_etcd_they_are_there_and_no_file_is_made(opened: Any, tmp_path: Path) -> None:
    store = opened()
    assert isinstance(store, EtcdStore)
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_records_in_the_file_do_not_vanish_silently(opened: Any, tmp_path: Path) -> None:
    write(SqliteStore(tmp_path / STORE_FILE))
    with pytest.raises(SettingsError, match=r"deployer import.*--store sqlite") as refused:
        opened()
    assert str(tmp_path / STORE_FILE) in str(refused.value)
    assert "\n" not in str(refused.value)

    kept = opened(store="sqlite")
    assert kept.get(App, "shop/cart") is not None
    kept.close()
    chosen = opened(store="etcd")
    assert chosen.get(App, "shop/cart") is None
    write(chosen)
    later = opened()  # both have records, so somebody has moved them
    assert later.get(App, "shop/cart") is not None
    later.close()


def test_a_file_without_records_is_no_reason(opened: Any, tmp_path: Path) -> None:
    SqliteStore(tmp_path / STORE_FILE).close()
    opened().close()


def test_etcd_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(StoreUnavailable, match=f"{url} cannot be reached.*--etcd") as refused:
        open_store(Settings(own_namespace="", data_dir=tmp_path, etcd=url, etcd_timeout=0.5))
    assert "\n" not in str(refused.value)

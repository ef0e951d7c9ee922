"""Stores of every kind, each empty, and the passing of time for their leases."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core.ports.store import Store
from deployer.store.etcd.client.gateway import Refused
from deployer.store.etcd.client.messages import Nothing
from deployer.store.etcd.store import EtcdStore
from deployer.store.sqlite import SqliteStore
from support.etcd import Etcd
from support.memory_store import MemoryStore


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.passes: list[Callable[[], None]] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass, everywhere."""
        self.now += seconds
        for passes in self.passes:
            passes()


@pytest.fixture
def clock() -> Clock:
    return Clock()


STORES = ["sqlite", "memory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("one_etcd", "three_etcds"))]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """Whatever keeps the contract: the stores of the service, and that of the simulation."""
    opened: Store
    if request.param == "sqlite":
        opened = SqliteStore(tmp_path / "deployer.db", clock=clock)
    elif request.param == "memory":
        opened = MemoryStore(clock=clock)
    else:
        etcd: Etcd = request.getfixturevalue(request.param)
        opened = etcd.store(f"/test/{uuid.uuid4().hex}")
        Expiry(opened, clock)
    yield opened
    opened.close()


class Expiry:
    """Ends the leases in etcd whose time has passed by a test's clock, as etcd itself does by its own."""

    def __init__(self, store: EtcdStore, clock: Clock) -> None:
        self._clock = clock
        self._gateway = store._gateway
        self._call = self._gateway.call
        self._ends: dict[int, float] = {}
        self._gateway.call = self._seen  # type: ignore[method-assign]
        clock.passes.append(self._pass)

    def _seen(self, path: str, body: Any, answer: Any, **more: Any) -> Any:
        given = self._call(path, body, answer, **more)
        if path == "lease/grant":
            self._ends[given.ID] = self._clock.now + given.TTL
        elif path == "lease/keepalive" and given.result.TTL:
            self._ends[body["ID"]] = self._clock.now + given.result.TTL
        return given

    def _pass(self) -> None:
        for lease in [lease for lease, end in self._ends.items() if end <= self._clock.now]:
            del self._ends[lease]
            with contextlib.suppress(Refused):  # it is gone already
                self._call("lease/revoke", {"ID": lease}, Nothing)

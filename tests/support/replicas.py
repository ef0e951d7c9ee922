"""Several Deployers on one store, in one process: each may die, or be cut off from the store or from the cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from deployer import sandbox
from deployer.core.errors import StoreUnavailable
from deployer.core.model.records import Deployment, Document, Record
from deployer.core.operations import dispatcher
from deployer.core.ports.store import Change, Lease, LogLine, Replica, Store
from deployer.core.registry import Registry
from deployer.kube.http.transport import NotSent
from deployer.plugin_manager import observers
from deployer.replicas import leases, membership
from support.world import World

R = TypeVar("R", bound=Record)


def hasten(monkeypatch: pytest.MonkeyPatch, lease: float) -> None:
    """Leases that last only so many seconds, and all that is measured by them."""
    for module in (leases, membership, dispatcher, observers):
        monkeypatch.setattr(module, "LEASE", lease)
    monkeypatch.setattr(leases, "GOOD", lease * 0.8)
    monkeypatch.setattr(membership, "BEAT", lease / 3)
    monkeypatch.setattr(membership, "AT_MOST", min(membership.AT_MOST, lease / 15))
    monkeypatch.setattr(membership, "UNFIT_AFTER", lease * 2 / 3)


class Reach:
    """What one replica reaches, as a test wants it."""

    def __init__(self) -> None:
        self.store = True
        self.cluster = True
        self.before: Callable[[str, str], None] = lambda method, target: None
        """Called before each request to the cluster."""
        self.after: Callable[[str, str], None] = lambda method, target: None


class SeenStore(Store):
    """The store that all share, as one replica sees it; and what that one did with it."""

    def __init__(self, shared: Store, reach: Reach, died: threading.Event) -> None:
        self._shared, self._reach, self._died = shared, reach, died
        self.carried: set[str] = set()
        """Apps of which it has written something under a lease."""
        self.acquired: dict[str, float] = {}
        """When it got the lease of an app for the first time, on `time.monotonic()`'s clock."""

    @property
    def _real(self) -> Store:
        if self._died.is_set() or not self._reach.store:
            raise StoreUnavailable("the store cannot be reached")
        return self._shared

    def get(self, kind: type[R], key: str, *, namespace: str | None = None) -> R | None:
        return self._real.get(kind, key, namespace=namespace)

    def find(self, kind: type[R], **filters: Any) -> list[R]:
        return self._real.find(kind, **filters)

    def apps(self, kind: type[Record], namespace: str, **more: Any) -> list[str]:
        return self._real.apps(kind, namespace, **more)

    def count(self, kind: type[Record], **filters: Any) -> int:
        return self._real.count(kind, **filters)

    def namespaces(self) -> list[str]:
        return self._real.namespaces()

    def usage(self, namespace: str) -> tuple[int, int]:
        return self._real.usage(namespace)

    def changed(self, namespace: str) -> int:
        return self._shared.changed(namespace)

    def commit(self, *changes: Change, fence: Lease | None = None) -> int:
        revision = self._real.commit(*changes, fence=fence)
        if fence is not None:
            self.carried.add(fence.app)
        return revision

    def append_log(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        if not self._died.is_set() and self._reach.store:
            self._shared.append_log(deployment, lines)

    def read_log(self, deployment: str, **place: Any) -> list[LogLine]:
        return self._real.read_log(deployment, **place)

    def last_line(self, deployment: str) -> int:
        return self._real.last_line(deployment)

    def acquire(self, namespace: str, app: str, holder: str, ttl: float) -> Lease | None:
        lease = self._real.acquire(namespace, app, holder, ttl)
        if lease is not None:
            self.acquired.setdefault(app, time.monotonic())
        return lease

    def renew(self, lease: Lease, ttl: float) -> Lease:
        return self._real.renew(lease, ttl)

    def release(self, lease: Lease, *, above: int = 0) -> None:
        self._real.release(lease, above=above)

    def join(self, replica: Replica, ttl: float) -> None:
        self._real.join(replica, ttl)

    def leave(self, holder: str) -> None:
        self._real.leave(holder)

    def replicas(self) -> list[Replica]:
        return self._real.replicas()

    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        def tell(kind: str, key: str) -> None:
            if self._reach.store and not self._died.is_set():
                callback(kind, key)

        return self._shared.subscribe(tell)

    def problem(self) -> str:
        return self._shared.problem()

    def close(self) -> None:
        """Others still use it."""


class _SeenTransport:
    """The way to the API server, as one replica has it."""

    def __init__(self, transport: Any, reach: Reach) -> None:
        self._transport, self._reach = transport, reach

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send(self, *args: Any, **more: Any) -> Any:
        if not self._reach.cluster:
            raise NotSent("the cluster cannot be reached")
        self._reach.before(args[0], args[1])
        answer = self._transport.send(*args, **more)
        self._reach.after(args[0], args[1])
        return answer


class OneOfSeveral(World):
    """A Deployer on a store that it shares."""

    def __init__(self, shared: Store, cluster: sandbox.Sandbox, path: Path, namespace: str, **settings: Any) -> None:
        super().__init__(cluster, path, namespace, **settings)
        self.shared = shared
        self.reach = Reach()
        self.problem = lambda: "" if self.reach.cluster else "the cluster cannot be reached"
        self.seen: SeenStore

    def _open_store(self, life: Any) -> Store:
        self.seen = SeenStore(self.shared, self.reach, life.died)
        return self.seen

    def start(self, registry: Registry | None = None, *, kill_at: int = 0) -> OneOfSeveral:
        super().start(registry, kill_at=kill_at)
        self.client._transport = _SeenTransport(self.client._transport, self.reach)  # type: ignore[assignment]
        return self

    def carries(self, app: str) -> bool:
        """Does it carry out something for that app now?"""
        queue = self.engine._apps.get((self.namespace, app))
        return queue is not None and queue.executor is not None

    def progress(self, deployment: Deployment) -> Document:
        """How far it is, as this one shows it."""
        found = self.shared.get(Deployment, deployment.id)
        assert found is not None
        return self.how_far.of(found)

    def moved(self) -> tuple[int, int, int]:
        """What this one's answers depend on."""
        return self.how_far.moved(self.namespace)

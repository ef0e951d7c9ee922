"""Quotas: what a namespace may have at most, counted in the store, so for all replicas together.

It is counted before, not in the transaction: requests of the same moment may each find room, and so pass a limit by as
many as there are threads of REST. Nothing that ends something or deletes is ever refused, and a rollback needs room in
the queue alone.
"""

from __future__ import annotations

from collections.abc import Callable

from deployer.core.errors import DeployerError, QueueFull
from deployer.core.model import json_codec
from deployer.core.model.records import Deployment, Document, Status, StoredDescriptor
from deployer.core.ports.store import Store

_AGAIN = 5.0
"""Seconds until a deployment may have ended."""

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


class QuotaExceeded(DeployerError):
    """Waiting does not help: something must be deleted, or the quota raised.

    quota   the name of the limit
    used    how much of it is used; bytes, or a number
    limit   how much there is
    """

    def __init__(self, message: str, quota: str, used: int, limit: int) -> None:
        super().__init__(message)
        self.quota = quota
        self.used = used
        self.limit = limit


class Quotas:
    """Asks whether there is room. Thread-safe."""

    def __init__(self, store: Store, limit: Callable[[str, str], int]) -> None:
        """`limit` gives that of a namespace, by its name in `LIMITS` of the settings."""
        self._store = store
        self.limit = limit

    def descriptor(self, namespace: str, document: Document, instead_of: Document | None = None) -> None:
        """May it be stored? One that does not grow may always be replaced. Raises QuotaExceeded."""
        size = _size(document)
        if instead_of is not None:
            if size > _size(instead_of):
                self._bytes(namespace, size - _size(instead_of))
            return
        stored, limit = self._store.count(StoredDescriptor, namespace=namespace), self.limit(namespace, "descriptors")
        if stored >= limit:
            said = f"namespace {namespace} has {stored} descriptors already, of {limit} that it may have; delete some"
            raise QuotaExceeded(said, "descriptors", stored, limit)
        self._bytes(namespace, size)

    def deployment(self, namespace: str, document: Document, *, rollback: bool = False) -> None:
        """May one be queued? A rollback needs room in the queue only. Raises QueueFull, QuotaExceeded."""
        waiting = self._store.count(Deployment, namespace=namespace, tag=Status.DEPLOYING.value)
        limit = self.limit(namespace, "deployments")
        if waiting >= limit:
            said = f"{waiting} deployments wait or run in namespace {namespace} already, of {limit} that may"
            raise QueueFull(f"{said}; try again in a while", _AGAIN)
        if rollback:
            return
        self._bytes(namespace, _size(document))
        (_, logs), limit = self._store.usage(namespace), self.limit(namespace, "log_bytes")
        if logs >= limit:
            said = f"the logs of namespace {namespace} have {_text(logs)} already, of {_text(limit)} that they may"
            raise QuotaExceeded(f"{said}; delete deployments that have ended", "log_bytes", logs, limit)

    def _bytes(self, namespace: str, more: int) -> None:
        (records, _), limit = self._store.usage(namespace), self.limit(namespace, "stored_bytes")
        if records + more > limit:
            said = f"namespace {namespace} stores {_text(records)} already, of {_text(limit)} that it may store"
            what = "delete descriptors, or deployments that have ended"
            raise QuotaExceeded(f"{said}; {what}", "stored_bytes", records, limit)


def _size(document: Document) -> int:
    return len(json_codec.dumps(document).encode())


def _text(size: int) -> str:
    """The bytes for people."""
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit), (1, "bytes"))
    return f"{size / unit:.4g} {name}"

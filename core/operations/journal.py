"""An operation's journal: what is durable of it before the next thing happens."""

from __future__ import annotations

import dataclasses
import threading

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Fenced, StaleRevision
from deployer.core.model.records import Json, Operation
from deployer.core.ports.store import Change, Lease, Store, Update


class Journal:
    """An operation's record, written under its lease. Everything in it is durable before the next thing happens."""

    def __init__(self, store: Store, operation: Operation, lease: Lease) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._lease = lease
        self.operation = operation

    def write(self, *changes: Change, **fields: Json) -> None:
        """Change the record and apply `changes` in one transaction. Raises Fenced when the lease is lost, or somebody
        else ended the operation; StaleRevision when one of `changes` came too late.
        """
        with self._lock:
            new = dataclasses.replace(self.operation, **fields)
            try:
                revision = self._store.commit(Update(new), *changes, fence=self._lease)
            except StaleRevision:
                stored = self._store.get(Operation, new.id)
                if stored is None or stored.revision != new.revision:
                    raise Fenced(f"operation {new.id} was ended or taken over by somebody else") from None
                raise
            self.operation = dataclasses.replace(new, revision=revision)

    def remember(self, step: str, key: str, value: Json, scope: CancelScope) -> None:
        """Keep what a step asks for."""
        with scope.writing():
            self.write(memory={**self.operation.memory, f"{step}/{key}": value})

    def recall(self, step: str, key: str, default: Json) -> Json:
        """What it asked for earlier."""
        return self.operation.memory.get(f"{step}/{key}", default)

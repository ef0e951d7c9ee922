"""The leases that a process holds: a port, so that operations know whether they may act, and nothing of renewing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from deployer.core.errors import Interrupted, Revoked
from deployer.core.ports.store import Lease

LEASE = 15.0
"""Seconds for which a lease is good without being renewed; a successor waits that long after a crash."""


@dataclass(eq=False, slots=True)
class Held:
    """A lease that this process may act on until `until`, on `time.monotonic()`'s clock. `lost` is told when it may not
    any more."""

    lease: Lease
    until: float
    lost: Callable[[Interrupted], None]
    over: bool = False

    @property
    def good(self) -> bool:
        """May this process act on it?"""
        return not self.over and time.monotonic() < self.until

    def end(self, why: str) -> None:
        """It is lost."""
        self.over = True
        self.lost(Revoked(f"the lease of {self.lease.namespace}/{self.lease.app} is lost: {why}"))


class Leases(Protocol):
    """Of one process. Thread-safe."""

    holder: str
    """The name of this process as a holder, another one at each start."""

    def start(self) -> None:
        """Renew what is held, until `stop`."""

    def stop(self) -> list[threading.Thread]:
        """Renew nothing more, and return the threads that end now."""

    def take(self, namespace: str, app: str, lost: Callable[[Interrupted], None] = ...) -> Held | None:
        """The lease, or None while another holder has it. Raises StoreUnavailable."""

    def give_back(self, held: Held) -> None:
        """Let the next one have it at once; when the store cannot be told, it has to wait."""

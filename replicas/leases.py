"""The leases of this process: renewed while it works, and let go of before another process can take them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from deployer.core.errors import Fenced, Interrupted, StoreError
from deployer.core.model.records import new_id
from deployer.core.ports import leases as port
from deployer.core.ports.leases import LEASE, Held
from deployer.core.ports.store import Store

logger = logging.getLogger(__name__)

GOOD = LEASE - 3.0
"""Seconds for which this process acts on a lease after it last asked the store for it, and got it. What it has sent by
then has the rest to arrive, before somebody else can have the lease."""

RENEWING = 4
"""Threads that renew, so that many leases are renewed in time at a store that is slow."""


class Leases(port.Leases):
    """On a store."""

    def __init__(self, store: Store) -> None:
        self.holder = new_id()
        self._store = store
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], Held] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        jobs = [self._watch, *(lambda number=number: self._renew(number) for number in range(RENEWING))]
        for job in jobs:
            thread = threading.Thread(target=job, name="leases", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> list[threading.Thread]:
        self._stopping.set()
        return self._threads

    def take(self, namespace: str, app: str, lost: Callable[[Interrupted], None] = lambda _: None) -> Held | None:
        asked = time.monotonic()
        lease = self._store.acquire(namespace, app, self.holder, LEASE)
        if lease is None:
            return None
        held = Held(lease, asked + GOOD, lost)
        with self._lock:
            self._held[namespace, app] = held
        return held

    def give_back(self, held: Held) -> None:
        lease = held.lease
        with self._lock:
            self._held.pop((lease.namespace, lease.app), None)
        try:
            self._store.release(lease)
        except StoreError as error:
            logger.warning("the lease of %s/%s could not be given back: %s", lease.namespace, lease.app, error)

    def held(self) -> list[Held]:
        """What is not given back."""
        with self._lock:
            return list(self._held.values())

    def _renew(self, number: int) -> None:
        while not self._stopping.wait(LEASE / 3):
            for held in [held for held in self.held() if not held.over][number::RENEWING]:
                lease, asked = held.lease, time.monotonic()
                try:
                    self._store.renew(lease, LEASE)
                except Fenced as error:
                    if held in self.held():
                        held.end(str(error))
                except StoreError as error:
                    logger.error("the lease of %s/%s could not be renewed: %s", lease.namespace, lease.app, error)
                else:
                    held.until = asked + GOOD

    def _watch(self) -> None:
        """End what could not be renewed in time. A lease that is taken meanwhile is good for longer than it sleeps."""
        left = GOOD
        while not self._stopping.wait(left):
            now = time.monotonic()
            for held in self.held():
                if not held.over and held.until <= now:
                    held.end(f"it could not be renewed for {GOOD:g} s")
            left = max(0.0, min([GOOD, *(held.until - now for held in self.held() if not held.over)]))

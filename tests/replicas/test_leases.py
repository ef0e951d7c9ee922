"""Leases: renewed while they are needed, and let go of by this process before anybody else can have them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.clock import SteadyClock
from deployer.core.errors import Interrupted, Revoked, StoreUnavailable
from deployer.core.ports.store import Lease
from deployer.replicas import leases as module
from deployer.replicas.leases import Leases
from support.memory_store import MemoryStore

PATIENCE = 20.0
LEASE = 0.5


class Faulty(MemoryStore):
    """Cannot be reached while `away`; a call that hangs then does so until it is back."""

    def __init__(self) -> None:
        super().__init__(clock=SteadyClock())
        self.back = threading.Event()
        self.back.set()
        self.hangs = False
        self.renewed = threading.Event()

    def renew(self, lease: Lease, ttl: float) -> Lease:
        if not self.back.is_set():
            if self.hangs:
                self.back.wait(PATIENCE)
            raise StoreUnavailable("the store cannot be reached")
        renewed = super().renew(lease, ttl)
        self.renewed.set()
        return renewed


class Lost:
    """What an operation is told."""

    def __init__(self) -> None:
        self.reasons: list[Interrupted] = []
        self.at = 0.0
        self.told = threading.Event()

    def __call__(self, reason: Interrupted) -> None:
        self.at = time.monotonic()
        self.reasons.append(reason)
        self.told.set()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    monkeypatch.setattr(module, "LEASE", LEASE)
    monkeypatch.setattr(module, "GOOD", LEASE * 0.8)
    return Faulty()


@pytest.fixture
def leases(store: Faulty) -> Iterator[Leases]:
    made = Leases(store)
    made.start()
    yield made
    store.back.set()
    for thread in made.stop():
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_lease_is_renewed_until_it_is_given_back(store: Faulty, leases: Leases) -> None:
    lost = Lost()
    held = leases.take("shop", "cart", lost)
    assert held is not None
    other = Leases(store)
    for _ in range(5):
        store.renewed.clear()
        assert store.renewed.wait(PATIENCE)
        assert held.good
        assert other.take("shop", "cart") is None
    leases.give_back(held)
    assert other.take("shop", "cart") is not None
    assert not lost.told.is_set()


@pytest.mark.parametrize("hangs", [False, True])
def test_one_that_cannot_be_renewed_is_lost_before_another_process_can_have_it(
    store: Faulty, leases: Leases, hangs: bool
) -> None:
    """Also while the call that should renew it hangs."""
    lost, other = Lost(), Leases(store)
    held = leases.take("shop", "cart", lost)
    assert held is not None
    store.hangs = hangs
    store.back.clear()
    while other.take("shop", "cart") is None:
        time.sleep(0.005)  # nobody tells that a lease has run out
    taken = time.monotonic()
    assert not held.good
    assert lost.told.wait(PATIENCE)
    assert lost.at < taken
    assert "could not be renewed for" in str(lost.reasons[0])


def test_one_that_another_process_has_is_lost_at_once(store: Faulty, leases: Leases) -> None:
    lost = Lost()
    held = leases.take("shop", "cart", lost)
    assert held is not None
    store.release(held.lease)
    assert store.acquire("shop", "cart", "somebody", 60.0) is not None
    assert lost.told.wait(PATIENCE)
    assert "belongs to somebody" in str(lost.reasons[0])
    assert not held.good


def test_a_process_that_was_stopped_is_refused_before_anybody_tells_it(store: Faulty) -> None:
    """Nothing runs that could close the scope: what was stopped for too long finds out by itself."""
    leases = Leases(store)  # not started: no thread of it is awake
    held = leases.take("shop", "cart")
    assert held is not None
    scope = CancelScope(permit=lambda: held.good)
    with scope.writing():
        pass
    held.until = time.monotonic()
    with pytest.raises(Revoked, match="could not be renewed in time"), scope.writing():
        pytest.fail("it may write")
    with scope.earlier(1.0) as child, pytest.raises(Revoked):
        child.check()

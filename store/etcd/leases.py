"""Leases in etcd. Whether one has expired is for etcd to say: it deletes a key when its lease runs out.

Two keys for each app: one says who had the lease last and with which token, and stays; the other one exists as long as
that has not expired. etcd counts whole seconds, and no lease lasts less than about two (its election time-out and a
half).
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable

import msgspec

from deployer.core.errors import Fenced, StoreUnavailable
from deployer.core.ports.store import Lease
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Gateway, Refused
from deployer.store.etcd.client.messages import Granted, KeyValue, Nothing, StreamedKeptAlive, Txn
from deployer.store.etcd.layout import Layout

NOT_FOUND = 5
"""gRPC's code for a lease that is not there."""

SESSION = 60
"""Seconds for which etcd remembers that a transaction happened, at least two thirds of them."""

_TRIES = 20

Seen = tuple[KeyValue | None, KeyValue | None]
"""The two keys of a lease, as they were read."""


class Term(msgspec.Struct, frozen=True):
    """Who had a lease last."""

    holder: str
    token: int


def grant(gateway: Gateway, ttl: float) -> int:
    """A new lease of etcd's. Raises StoreUnavailable."""
    id = secrets.randbits(62) + 1  # ours, so that a request that is sent twice makes one lease
    try:
        gateway.call("lease/grant", {"TTL": max(1, math.ceil(ttl)), "ID": id}, Granted)
    except Refused as error:
        if "already exists" not in str(error):
            raise StoreUnavailable(f"etcd grants no lease: {error}") from error
    return id


def keep_alive(gateway: Gateway, lease: int, ttl: float) -> bool:
    """Let a lease last for `ttl` seconds from now on; False when it has ended, or was granted for less."""
    kept = gateway.call("lease/keepalive", {"ID": lease}, StreamedKeptAlive).result
    return math.ceil(ttl) <= kept.TTL


def revoke(gateway: Gateway, lease: int) -> None:
    """End a lease now, if that can be done at once; else it ends by itself."""
    if lease:
        with contextlib.suppress(StoreUnavailable):
            gateway.call("lease/revoke", {"ID": lease}, Nothing)


class Session:
    """The lease of what this process writes for a while only."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._lock = threading.Lock()
        self._id = 0
        self._granted = float("-inf")

    def lease(self) -> int:
        """One that lasts for two thirds of `SESSION` at least."""
        with self._lock:
            now = time.monotonic()
            if now - self._granted > SESSION / 3:
                self._id = grant(self._gateway, SESSION)
                self._granted = now
            return self._id

    def lost(self, lease: int) -> None:
        """That one is no more."""
        with self._lock:
            if self._id == lease:
                self._granted = float("-inf")


class Leases:
    """The right to run an app's operations."""

    def __init__(self, gateway: Gateway, layout: Layout, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch, for `Lease.expires` alone."""
        self._gateway = gateway
        self._layout = layout
        self._clock = clock

    def acquire(self, namespace: str, app: str, holder: str, ttl: float) -> Lease | None:
        """As the port has it."""
        for _ in range(_TRIES):
            began = self._clock()
            term, held = self._read(namespace, app)
            known = _term(term)
            if held is not None and (known is None or known.holder != holder):
                return None
            if known is None:
                new = Term(holder, 1)
            else:
                new = Term(holder, known.token if known.holder == holder else known.token + 1)
            if self._write((namespace, app), (term, held), new, ttl):
                return Lease(namespace, app, holder, new.token, began + ttl)
        raise StoreUnavailable(f"the lease of {namespace}/{app} changes faster than it can be taken; try again")

    def renew(self, lease: Lease, ttl: float) -> Lease:
        """As the port has it."""
        for _ in range(_TRIES):
            began = self._clock()
            term, held = self._read(lease.namespace, lease.app)
            known = _term(term)
            if known is None or (known.holder, known.token) != (lease.holder, lease.token):
                raise Fenced(refusal(lease, known))
            if held is None:
                raise Fenced(f"the lease of {lease.namespace}/{lease.app} was given back, or has expired")
            renewed = Lease(lease.namespace, lease.app, lease.holder, lease.token, began + ttl)
            if keep_alive(self._gateway, held.lease, ttl):
                return renewed
            if self._write((lease.namespace, lease.app), (term, held), known, ttl):
                return renewed
        raise StoreUnavailable(f"the lease of {lease.namespace}/{lease.app} changes faster than it can be renewed")

    def release(self, lease: Lease, above: int = 0) -> None:
        """As the port has it."""
        key = self._layout.lease(lease.namespace, lease.app)
        held = self._layout.held(lease.namespace, lease.app)
        done = [operations.get(held), operations.delete(held)]
        if above > lease.token:
            done.append(operations.put(key, msgspec.json.encode(Term("", above))))
        body = {"compare": [operations.value_is(key, term_of(lease))], "success": done}
        answer = self._gateway.call("kv/txn", body, Txn)
        for kvs in answer.ranges():
            for found in kvs:
                revoke(self._gateway, found.lease)

    def _read(self, namespace: str, app: str) -> Seen:
        keys = (self._layout.lease(namespace, app), self._layout.held(namespace, app))
        answer = self._gateway.call("kv/txn", {"success": [operations.get(key) for key in keys]}, Txn)
        term, held = answer.ranges()
        return (term[0] if term else None), (held[0] if held else None)

    def _write(self, place: tuple[str, str], seen: Seen, new: Term, ttl: float) -> bool:
        """Whether the lease is ours now. False: something changed since it was read, or nobody knows."""
        lease, mark = self._layout.lease(*place), self._layout.held(*place)
        term, held = seen
        value = msgspec.json.encode(new)
        id = grant(self._gateway, ttl)
        body = {
            "compare": [
                operations.revision_is(lease, term.mod_revision if term else 0),
                operations.revision_is(mark, held.mod_revision if held else 0),
            ],
            "success": [operations.put(mark, value, id)],
        }
        if term is None or term.value != value:
            body["success"].append(operations.put(lease, value))
        try:
            done = self._gateway.call("kv/txn", body, Txn).succeeded
        except Refused as error:
            if error.code != NOT_FOUND:
                raise StoreUnavailable(f"etcd refuses a lease: {error}") from error
            return False
        revoke(self._gateway, id if not done else held.lease if held else 0)
        return done


def term_of(lease: Lease) -> bytes:
    """The value of the key that says who had the lease last, as long as it is this one."""
    return msgspec.json.encode(Term(lease.holder, lease.token))


def refusal(lease: Lease, now: Term | None) -> str:
    """The sentence for who writes under another's lease."""
    whose = f"{now.holder} with token {now.token}" if now and now.holder else "nobody"
    return (
        f"the lease of {lease.namespace}/{lease.app} belongs to {whose}, "
        f"not to {lease.holder} with token {lease.token}; nothing was written"
    )


def read_term(value: bytes) -> Term:
    return msgspec.json.decode(value, type=Term)


def _term(stored: KeyValue | None) -> Term | None:
    return None if stored is None else read_term(stored.value)

"""Which replicas share the store: a key for each, which goes with its lease."""

from __future__ import annotations

import threading
from typing import NamedTuple

from deployer.core.model import json_codec
from deployer.core.ports.store import REPLICA, Replica
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Gateway
from deployer.store.etcd.client.messages import Range
from deployer.store.etcd.layout import Layout, end_of
from deployer.store.etcd.leases import grant, keep_alive, revoke
from deployer.store.etcd.transactions import Transactions


class _Joined(NamedTuple):
    lease: int
    ttl: float
    value: bytes


class Members:
    """Joining, leaving and looking who is there. Thread-safe."""

    def __init__(self, gateway: Gateway, layout: Layout, transactions: Transactions) -> None:
        self._gateway = gateway
        self._layout = layout
        self._transactions = transactions
        self._lock = threading.Lock()
        self._joined: dict[str, _Joined] = {}

    def join(self, replica: Replica, ttl: float) -> None:
        """`Store.join`."""
        value = json_codec.dumps(replica.says).encode("ascii")
        with self._lock:
            before = self._joined.get(replica.holder)
            # Also when something new is to be said: who cannot write, because etcd is full, is there all the same.
            new = before is None or before[1:] != (ttl, value) or bool(self._gateway.full)
            if before and keep_alive(self._gateway, before.lease, ttl) and not new:
                return
            lease = grant(self._gateway, ttl)
            part = operations.put(self._layout.member(replica.holder), value, lease)
            self._transactions.announce([part], [(REPLICA, replica.holder)])
            self._joined[replica.holder] = _Joined(lease, ttl, value)
            if before:
                revoke(self._gateway, before.lease)

    def leave(self, holder: str) -> None:
        """`Store.leave`."""
        key = self._layout.member(holder)
        with self._lock:
            before = self._joined.pop(holder, None)
            if self._gateway.call("kv/range", operations.get(key)["request_range"], Range).kvs:
                self._transactions.announce([operations.delete(key)], [(REPLICA, holder)])
            if before:
                revoke(self._gateway, before.lease)

    def replicas(self) -> list[Replica]:
        """`Store.replicas`."""
        begin = self._layout.members
        answer = self._gateway.call("kv/range", operations.span(begin, end_of(begin))["request_range"], Range)
        return [Replica(self._layout.holder(kv.key), json_codec.loads(kv.value.decode("ascii"))) for kv in answer.kvs]

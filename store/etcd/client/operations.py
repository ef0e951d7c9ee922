"""Parts of requests to etcd's v3 API, as its JSON has them (etcd-io/etcd, api/etcdserverpb/rpc.proto)."""

from __future__ import annotations

from typing import Any

from deployer.store.etcd.layout import end_of

Part = dict[str, Any]


def put(key: bytes, value: bytes, lease: int = 0) -> Part:
    """Write a key; with a lease it goes when that does."""
    return {"request_put": {"key": key, "value": value, "lease": lease}}


def keep(key: bytes) -> Part:
    """Let go of a key's lease; refused when the key is gone."""
    return {"request_put": {"key": key, "ignore_value": True}}


def delete(key: bytes) -> Part:
    return {"request_delete_range": {"key": key}}


def delete_all(prefix: bytes) -> Part:
    return {"request_delete_range": {"key": prefix, "range_end": end_of(prefix)}}


def together(parts: list[Part]) -> Part:
    """Several operations as one."""
    return {"request_txn": {"success": parts}}


def when(compare: Part, part: Part) -> Part:
    """Do it only if that was so before the transaction."""
    return {"request_txn": {"compare": [compare], "success": [part]}}


def get(key: bytes, revision: int = 0, *, keys_only: bool = False) -> Part:
    """Read a key, as it was at a revision when one is given."""
    return {"request_range": {"key": key, "revision": revision, "keys_only": keys_only}}


def span(begin: bytes, end: bytes, *, limit: int = 0, revision: int = 0, keys_only: bool = False) -> Part:
    """Read the keys from `begin` to before `end`, at most `limit`."""
    body = {"key": begin, "range_end": end, "limit": limit, "revision": revision, "keys_only": keys_only}
    return {"request_range": body}


def revision_is(key: bytes, revision: int) -> Part:
    """Compare: the key was last written at that revision; 0: it does not exist."""
    return {"target": "MOD", "key": key, "result": "EQUAL", "mod_revision": revision}


def exists(key: bytes) -> Part:
    """Compare: the key exists."""
    return {"target": "CREATE", "key": key, "result": "GREATER", "create_revision": 0}


def value_is(key: bytes, value: bytes) -> Part:
    return {"target": "VALUE", "key": key, "result": "EQUAL", "value": value}


def none_in(begin: bytes, end: bytes) -> Part:
    """Compare: there is no key from `begin` to before `end`."""
    return {"target": "CREATE", "key": begin, "range_end": end, "result": "EQUAL", "create_revision": 0}

"""Which key holds what in etcd. Everything is below one prefix, and everything that is listed has an index.

    format                                   the version of this layout
    record/<kind>/<key>                      a record: a line of JSON about it, then its document
    index/<kind>/<which>/<place>/<order>/<key>   empty; `order` counts backwards, so that the newest come first,
                                             and forwards in those that are called oldest-
    app/<kind>/<namespace>/<app>             empty; such records may exist
    blob/<id>/<number>                       a piece of a document that is too large for a transaction
    log/<deployment>/head                    how many lines there are, and the last ones
    log/<deployment>/<last line>             earlier lines, in pieces
    orphan/<deployment>                      lines of it were logged when it had no record
    usage/<namespace>/<number>               a part of how many bytes it stores, records and logs: the sum counts
    lease/<namespace>/<app>                  who had the lease last, with which token; stays for ever
    member/<holder>                          what a replica says; exists as long as its lease has not expired
    held/<namespace>/<app>                   exists as long as that lease has not expired
    commit/<id>                              that this transaction happened, and what it changed; goes after a while

etcd reads a range backwards, or in another order than that of keys, only by reading all of it (its
`server/etcdserver/txn/range.go`): hence the order in the index is that in which people ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from deployer.core.model.records import Deployment, Operation, StoredDescriptor

FORMAT = 1
MOST = 10**16 - 1
"""The highest sequence; microseconds since the epoch stay below it until 2286."""

ORDERED = frozenset({Deployment.KIND, Operation.KIND, StoredDescriptor.KIND})
"""Kinds that are listed in pages, by namespace and all together."""


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """What an index knows of a record. blob: the key and the number of pieces of its document; empty when it is here.

    zipped   the document is compressed
    size     bytes of the document as JSON
    """

    namespace: str
    app: str
    tag: str
    sequence: int
    zipped: bool = False
    blob: str = ""
    pieces: int = 0
    size: int = 0


class Entry(NamedTuple):
    """One record in an index."""

    sequence: int
    key: str


class Index(NamedTuple):
    """Where the keys of an index are. They are in the order of arrival, or backwards: the newest first."""

    prefix: bytes
    backwards: bool = True

    @property
    def span(self) -> tuple[bytes, bytes]:
        """From which key to before which one it is."""
        return self.prefix, end_of(self.prefix)

    def entry(self, entry: Entry) -> bytes:
        """The key of a record."""
        order = MOST - entry.sequence if self.backwards else entry.sequence
        return b"%s%016d/%s" % (self.prefix, order, entry.key.encode("utf-8", "surrogatepass"))

    def entries(self, keys: Iterable[bytes], *, below: int = 0) -> list[Entry]:
        """The records of keys, in which `below` parts of the place come before the order."""
        found = []
        for key in keys:
            order, name = key[len(self.prefix) :].split(b"/", below + 1)[below:]
            number = MOST - int(order) if self.backwards else int(order)
            found.append(Entry(number, name.decode("utf-8", "surrogatepass")))
        return found


class Layout:
    """Keys below `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.rstrip("/").encode() + b"/"
        self.format = self.prefix + b"format"
        self.commits = self.prefix + b"commit/"
        self.records = self.prefix + b"record/"
        self.logs = self.prefix + b"log/"
        self.orphans = self.prefix + b"orphan/"
        self.members = self.prefix + b"member/"
        self.leases = self.prefix + b"lease/"
        self.indexes = self.prefix + b"index/"

    def record(self, kind: str, key: str) -> bytes:
        """The key of a record."""
        return self._key("record", kind) + key.encode("utf-8", "surrogatepass")

    def app(self, kind: str, namespace: str, app: str) -> bytes:
        """The key that says that an app may have such records."""
        return self.apps(kind, namespace) + app.encode()

    def apps(self, kind: str, namespace: str | None = None) -> bytes:
        """The prefix of those of a kind, or of a kind in a namespace."""
        return self._key("app", kind) if namespace is None else self._key("app", kind, namespace)

    def named(self, key: bytes) -> tuple[str, str]:
        """What subscribers are told of a key of a record, or of a log."""
        first, second, rest = key[len(self.prefix) :].decode("utf-8", "surrogatepass").split("/", 2)
        return (_plain(second), rest) if first == "record" else ("log", _plain(second))

    def place(self, key: bytes) -> tuple[str, str]:
        """The namespace and the app of a key that `app` made."""
        _, namespace, app = key[len(self.prefix) + len("app/") :].decode().split("/", 2)
        return _plain(namespace), app

    def index(self, kind: str, which: str, *place: str) -> Index:
        """The index of that name, or the part of it at a place."""
        return Index(self._key("index", kind, which, *place), backwards=not which.startswith("oldest-"))

    def entries(self, kind: str, key: str, meta: Meta) -> set[bytes]:
        """The keys of a record in all indexes in which it is."""
        places: list[tuple[str, ...]] = [("app", meta.namespace, meta.app)]
        if kind in ORDERED:
            places += [("all",), ("oldest-all",)]
            places += [("namespace", meta.namespace), ("oldest-namespace", meta.namespace)]
        if meta.tag:
            places += [
                ("tag", meta.tag),
                ("namespace-tag", meta.namespace, meta.tag),
                ("app-tag", meta.namespace, meta.app, meta.tag),
            ]
        return {self.index(kind, *place).entry(Entry(meta.sequence, key)) for place in places}

    def blob(self, blob: str, number: int) -> bytes:
        """The key of a piece of a document."""
        return b"%s%04d" % (self.blobs(blob), number)

    def blobs(self, blob: str) -> bytes:
        """The prefix of all pieces of a document."""
        return self._key("blob", blob)

    def log(self, deployment: str) -> bytes:
        """The prefix of everything of a log."""
        return self._key("log", deployment)

    def head(self, deployment: str) -> bytes:
        """The key of the end of a log. It sorts behind all its pieces."""
        return self.log(deployment) + b"head"

    def piece(self, deployment: str, last: int) -> bytes:
        """The key of lines up to number `last`."""
        return b"%s%012d" % (self.log(deployment), last)

    def orphan(self, deployment: str) -> bytes:
        """The key that says that a log may have no deployment."""
        return self.orphans + deployment.encode()

    @property
    def usages(self) -> bytes:
        """The prefix of what counts the bytes of all namespaces."""
        return self._key("usage")

    def used_by(self, key: bytes) -> str:
        """The namespace of a key that `shard` made."""
        return _plain(key[len(self.usages) :].decode().split("/", 1)[0])

    def usage(self, namespace: str) -> bytes:
        """The prefix of what counts the bytes of a namespace."""
        return self._key("usage", namespace)

    def shard(self, namespace: str, number: int) -> bytes:
        """The key of a part of that."""
        return b"%s%02d" % (self.usage(namespace), number)

    def lease(self, namespace: str, app: str) -> bytes:
        """The key that says who had a lease last."""
        return self._key("lease", namespace) + app.encode()

    def lessee(self, key: bytes) -> tuple[str, str]:
        """The namespace and the app of a key that `lease` made."""
        namespace, app = key[len(self.leases) :].decode().split("/", 1)
        return _plain(namespace), app

    def arrivals(self, keys: Iterable[bytes]) -> Iterator[tuple[int, str, str]]:
        """Sequence, kind and key of every record once, of the keys of all indexes."""
        for key in keys:
            # The key of a record may have any character.
            kind, which, _, _, *rest = key[len(self.indexes) :].decode("utf-8", "surrogatepass").split("/", 5)
            if which == "app":
                yield MOST - int(rest[0]), _plain(kind), rest[1]

    def held(self, namespace: str, app: str) -> bytes:
        """The key that exists while it has not expired."""
        return self._key("held", namespace) + app.encode()

    def member(self, holder: str) -> bytes:
        """The key of a replica."""
        return self.members + holder.encode()

    def holder(self, key: bytes) -> str:
        """The replica of a key that `member` made."""
        return key[len(self.members) :].decode()

    def commit(self, id: str) -> bytes:
        """The key that says that a transaction happened."""
        return self.commits + id.encode()

    def _key(self, *parts: str) -> bytes:
        return self.prefix + "".join(f"{_escaped(part)}/" for part in parts).encode("utf-8", "surrogatepass")


def end_of(prefix: bytes) -> bytes:
    """The first key behind all that begin with `prefix`."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def _escaped(part: str) -> str:
    return part.replace("%", "%25").replace("/", "%2F") if "/" in part or "%" in part else part


def _plain(part: str) -> str:
    return part.replace("%2F", "/").replace("%25", "%")

"""Reading records from etcd. Every read is linearizable; one that takes several requests sees one revision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from deployer.core.errors import StoreUnavailable
from deployer.core.ports.store import Place, R, require_namespace
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Gateway, Refused
from deployer.store.etcd.client.messages import KeyValue, Range, Txn
from deployer.store.etcd.documents import read_meta, read_record, unpacked
from deployer.store.etcd.layout import ORDERED, Entry, Index, Layout, Meta, end_of
from deployer.store.etcd.paging import Pages

OPERATIONS = 128
"""Operations in one transaction, by etcd's default (`--max-txn-ops`)."""

_FEW = 16  # documents read at once when only so many bytes of them are wanted
_PAGE = 5_000  # keys in one answer
_OUT_OF_RANGE, _RESOURCE_EXHAUSTED = 11, 8
_TRIES = 5

T = TypeVar("T")


class Found(NamedTuple):
    """A record as it is stored."""

    revision: int
    meta: Meta
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What `Store.find` is asked for."""

    namespace: str | None
    app: str | None
    tag: str | None
    newest_first: bool
    limit_per_app: int | None
    limit: int | None
    after: Place | None
    size: int | None


class Reader:
    """Reads for `EtcdStore`. `seen` is told each record's (kind, key, revision, meta)."""

    def __init__(self, gateway: Gateway, layout: Layout, seen: Callable[[str, str, int, Meta], None]) -> None:
        self._gateway = gateway
        self._layout = layout
        self._seen = seen
        self._pages = Pages(
            lambda begin, end, limit, revision: self._range(
                operations.span(begin, end, limit=limit, revision=revision, keys_only=True)
            )
        )

    def get(self, kind: type[R], key: str, namespace: str | None) -> R | None:
        """The record of that key, or None."""

        def read() -> R | None:
            answer = self._range(operations.get(self._layout.record(kind.KIND, key)))
            if not answer.kvs:
                return None
            found = self.found(kind.KIND, key, answer.kvs[0])
            if namespace is not None and found.meta.namespace != namespace:
                return None
            text = unpacked(found.meta, self.whole(found, answer.header.revision))
            return read_record(kind, found.revision, found.meta, text)

        return _not_compacted(read)

    def metas(self, names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Found]:
        """What is stored of records by (kind, key), without pieces; those that are not there are left out."""
        names = list(names)
        keys = [self._layout.record(*name) for name in names]
        out: dict[tuple[str, str], Found] = {}
        for name, kvs in zip(names, self.each([operations.get(key) for key in keys]), strict=True):
            if kvs:
                out[name] = self.found(*name, kvs[0])
        return out

    def find(self, kind: type[R], query: Query) -> list[R]:
        """Records in order of arrival, or the other way round."""
        require_namespace(query.namespace, query.app)
        if query.limit is not None and query.limit <= 0:
            return []
        return _not_compacted(lambda: self._find(kind, query))

    def _find(self, kind: type[R], query: Query) -> list[R]:
        limit = query.limit
        if query.size is not None:  # more would only be found in vain
            limit = min(limit or OPERATIONS, OPERATIONS)
        index = self._index(kind.KIND, query.namespace, query.app, query.tag)
        if query.limit_per_app is not None:
            entries, revision = self._of_each_app(kind.KIND, query, query.limit_per_app)
        elif index is not None:
            entries, revision = self._ordered(kind.KIND, index, query, limit)
            return self._records(kind, entries, revision, query.size)
        else:
            place = () if query.namespace is None else (query.namespace,)
            index = self._layout.index(kind.KIND, "app", *place)
            keys, revision = self._keys(*index.span, None)
            entries = index.entries(keys, below=2 - len(place))
        entries.sort(reverse=query.newest_first)
        if query.after is not None:
            mark = Entry(*query.after)
            entries = [entry for entry in entries if (entry < mark if query.newest_first else entry > mark)]
        return self._records(kind, entries[:limit], revision, query.size)

    def _index(self, kind: str, namespace: str | None, app: str | None, tag: str | None) -> Index | None:
        """The index that has exactly these, in order; None when there is none."""
        index = self._layout.index
        if tag is not None:
            if namespace is None:
                return index(kind, "tag", tag)
            return index(kind, *(("namespace-tag", namespace) if app is None else ("app-tag", namespace, app)), tag)
        if namespace is not None and app is not None:
            return index(kind, "app", namespace, app)
        if kind not in ORDERED:
            return None
        return index(kind, "all") if namespace is None else index(kind, "namespace", namespace)

    def _ordered(self, kind: str, index: Index, query: Query, limit: int | None) -> tuple[list[Entry], int]:
        """What an index has, as far as it is asked for."""
        if limit is None:
            keys, revision = self._keys(*_after(index, query), None)
            entries = index.entries(keys)
            return (entries if query.newest_first else entries[::-1]), revision
        if query.newest_first:
            keys, revision = self._pages.keys(index, *_after(index, query), limit)
            return index.entries(keys), revision
        if kind in ORDERED and query.app is None and query.tag is None:
            place = () if query.namespace is None else (query.namespace,)
            forwards = self._layout.index(kind, "oldest-namespace" if place else "oldest-all", *place)
            keys, revision = self._pages.keys(forwards, *_after(forwards, query), limit)
            return forwards.entries(keys), revision
        # Of one app, or in one state, the oldest ones first, which nobody asks for: etcd reads all of these keys, and
        # sends what is wanted.
        part = operations.span(*_after(index, query), limit=limit, keys_only=True)
        part["request_range"] |= {"sort_order": "DESCEND", "sort_target": "KEY"}
        answer = self._range(part)
        return index.entries(found.key for found in answer.kvs), answer.header.revision

    def _of_each_app(self, kind: str, query: Query, most: int) -> tuple[list[Entry], int]:
        """The newest ones of each app."""
        revision = 0
        if query.namespace is not None and query.app is not None:
            places = [(query.namespace, query.app)]
        else:
            prefix = self._layout.apps(kind, query.namespace)
            keys, revision = self._keys(prefix, end_of(prefix), None)
            places = [self._layout.place(key) for key in keys]
        if most <= 0:
            return [], revision
        which, tag = ("app", ()) if query.tag is None else ("app-tag", (query.tag,))
        indexes = [self._layout.index(kind, which, *place, *tag) for place in places]
        spans = [operations.span(*index.span, limit=most, revision=revision, keys_only=True) for index in indexes]
        entries: list[Entry] = []
        for index, kvs in zip(indexes, self.each(spans), strict=True):
            entries += index.entries(found.key for found in kvs)
        return entries, revision

    def apps(self, kind: str, namespace: str, after: str, limit: int | None) -> list[str]:
        """The names of the apps that have such records, sorted."""
        prefix = self._layout.apps(kind, namespace)
        names: list[str] = []
        begin = self._layout.app(kind, namespace, after) + (b"\0" if after else b"")
        while limit is None or len(names) < limit:
            page = OPERATIONS if limit is None else min(OPERATIONS, limit - len(names))
            answer = self._range(operations.span(begin, end_of(prefix), limit=page, keys_only=True))
            found = [self._layout.place(kv.key)[1] for kv in answer.kvs]
            indexes = [self._layout.index(kind, "app", namespace, app) for app in found]
            some = self.each([operations.span(*index.span, limit=1, keys_only=True) for index in indexes])
            names += [app for app, kvs in zip(found, some, strict=True) if kvs]
            if not answer.more:
                break
            begin = answer.kvs[-1].key + b"\0"
        return names

    def count(self, kind: str, namespace: str | None, app: str | None, tag: str | None) -> int:
        """How many there are."""
        require_namespace(namespace, app)
        index = self._index(kind, namespace, app, tag) if app is not None or tag is not None else None
        if index is None:
            place = () if namespace is None else (namespace,)
            index = self._layout.index(kind, "app", *place)
        part = operations.span(*index.span)
        part["request_range"]["count_only"] = True
        return self._range(part).count

    def empty(self) -> bool:
        """Whether there is no record at all."""
        begin = self._layout.records
        return not self._range(operations.span(begin, end_of(begin), limit=1, keys_only=True)).kvs

    # --- requests --------------------------------------------------------------------------------------------

    def _range(self, part: operations.Part) -> Range:
        return self._gateway.call("kv/range", part["request_range"], Range)

    def _keys(self, begin: bytes, end: bytes, limit: int | None) -> tuple[list[bytes], int]:
        """Keys in their order, at one revision."""
        keys: list[bytes] = []
        revision = 0
        while limit is None or len(keys) < limit:
            page = _PAGE if limit is None else min(_PAGE, limit - len(keys))
            answer = self._range(operations.span(begin, end, limit=page, revision=revision, keys_only=True))
            revision = revision or answer.header.revision
            keys += [found.key for found in answer.kvs]
            if not answer.more:
                break
            begin = keys[-1] + b"\0"
        return keys, revision

    def each(self, parts: Sequence[operations.Part], most: int = OPERATIONS) -> Iterator[list[KeyValue]]:
        """What each of these ranges has, by as few requests as etcd takes and answers, of at most so many at once."""
        at = 0
        while at < len(parts):
            try:
                answer = self._gateway.call("kv/txn", {"success": parts[at : at + most]}, Txn)
            except Refused as error:
                if error.code != _RESOURCE_EXHAUSTED or most == 1:
                    raise
                most //= 2  # together they are larger than a message may be
                continue
            yield from answer.ranges()
            at += most

    def _records(self, kind: type[R], entries: Sequence[Entry], revision: int, size: int | None) -> list[R]:
        """The records, up to the one that brings their JSON to `size` bytes."""
        keys = [self._layout.record(kind.KIND, entry.key) for entry in entries]
        parts = [operations.get(key, revision) for key in keys]
        out: list[R] = []
        for entry, kvs in zip(entries, self.each(parts, OPERATIONS if size is None else _FEW), strict=True):
            if kvs:
                found = self.found(kind.KIND, entry.key, kvs[0])
                text = unpacked(found.meta, self.whole(found, revision))
                out.append(read_record(kind, found.revision, found.meta, text))
                if size is not None and (size := size - len(text)) <= 0:
                    break
        return out

    def found(self, kind: str, key: str, stored: KeyValue) -> Found:
        """A record as it was read."""
        meta, data = read_meta(stored)
        self._seen(kind, key, stored.mod_revision, meta)
        return Found(stored.mod_revision, meta, data)

    def whole(self, found: Found, revision: int) -> bytes:
        """Its document, wherever it is."""
        if not found.meta.blob:
            return found.data
        keys = [self._layout.blob(found.meta.blob, number) for number in range(found.meta.pieces)]
        pieces = [kvs[0].value for kvs in self.each([operations.get(key, revision) for key in keys]) if kvs]
        if len(pieces) != len(keys):
            raise StoreUnavailable("a document in etcd has lost a piece: restore a snapshot of etcd")
        return b"".join(pieces)


def _after(index: Index, query: Query) -> tuple[bytes, bytes]:
    """The span of an index in which what is asked for begins, or ends."""
    begin, end = index.span
    if query.after is None:
        return begin, end
    mark = index.entry(Entry(*query.after))
    return (mark + b"\0", end) if index.backwards == query.newest_first else (begin, mark)


def _not_compacted(read: Callable[[], T]) -> T:
    """What it reads; once more when the revision that it reads at is compacted in the middle of it."""
    for _ in range(_TRIES):
        try:
            return read()
        except Refused as error:
            if error.code != _OUT_OF_RANGE:
                raise StoreUnavailable(f"etcd refuses to be read: {error}") from error
    raise StoreUnavailable("etcd is compacted faster than it can be read: compact it less often")

"""Moving a store in etcd: everything of it at one revision, and writing it as it comes from another store."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model.records import Deployment, Document, Record
from deployer.core.ports.store import Create, LogLine
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Access, Gateway, Refused
from deployer.store.etcd.client.messages import KeyValue, Range, Txn
from deployer.store.etcd.documents import unpacked
from deployer.store.etcd.layout import FORMAT, Layout, end_of
from deployer.store.etcd.leases import Term, read_term
from deployer.store.etcd.log.pieces import lines_of
from deployer.store.etcd.reading import Reader
from deployer.store.etcd.transactions import Attempt, Name, Transactions
from deployer.store.transfer.port import Grouped, Item, Lines, Row, Token
from deployer.store.transfer.state import ImportState

ROWS = 8
"""Records in one transaction: each takes up to a dozen operations, of which etcd takes 128 by default."""

_PAGE = 5_000  # keys in one answer
_DOCUMENTS = 32  # in one answer
_TRIES = 10


class EtcdContent:
    """What is below a prefix, read and never written, whoever uses it."""

    def __init__(self, access: Access, prefix: str) -> None:
        self._access = access
        self._layout = Layout(prefix)

    @contextlib.contextmanager
    def dump(self) -> Iterator[Iterator[Item]]:
        """See `Transferable.dump`. Raises SettingsError for what a newer release wrote."""
        gateway = Gateway(self._access)
        try:
            yield self._items(gateway)
        finally:
            gateway.close()

    def _items(self, gateway: Gateway) -> Iterator[Item]:
        try:
            yield from _Snapshot(gateway, self._layout, self._access.where).items()
        except Refused as error:
            raise StoreUnavailable(
                f"the store in etcd ({self._access.where}) cannot be read at one moment ({error}): try again, and let "
                "etcd keep its history for longer (--auto-compaction-retention)"
            ) from error


class _Snapshot:
    """One revision. Raises Refused, also when it is compacted meanwhile."""

    def __init__(self, gateway: Gateway, layout: Layout, where: str) -> None:
        self._gateway = gateway
        self._layout = layout
        self._reader = Reader(gateway, layout, lambda *_: None)
        begin = self._range(operations.get(layout.format))
        self._revision = begin.header.revision
        if begin.kvs:
            found = msgspec.json.decode(begin.kvs[0].value)["format"]
            if type(found) is not int or found > FORMAT:
                raise SettingsError(
                    f"the store in etcd ({where}) was written by a newer release (format {found}, this one knows "
                    f"{FORMAT}): use that release"
                )

    def items(self) -> Iterator[Item]:
        """All of it, in the order of `Transferable.dump`."""
        leases = self._layout.leases
        for stored in self._all(leases):
            namespace, app = self._layout.lessee(stored.key)
            yield Token(namespace, app, read_term(stored.value).token)
        names = self._names()
        for at in range(0, len(names), _DOCUMENTS):
            yield from self._rows(names[at : at + _DOCUMENTS])
        for kind, key in names:
            if kind == Deployment.KIND:
                yield from Grouped(key, self._log(key))

    def _names(self) -> list[Name]:
        """Kind and key of every record, in order of arrival."""
        found = self._layout.arrivals(stored.key for stored in self._all(self._layout.indexes, keys_only=True))
        return [(kind, key) for _, kind, key in sorted(found) if kind != ImportState.KIND]

    def _rows(self, names: Sequence[Name]) -> Iterator[Row]:
        parts = [operations.get(self._layout.record(*name), self._revision) for name in names]
        for name, kvs in zip(names, self._reader.each(parts, _DOCUMENTS), strict=True):
            found = self._reader.found(*name, kvs[0])
            text = unpacked(found.meta, self._reader.whole(found, self._revision)).decode("ascii")
            meta = found.meta
            yield Row(*name, meta.namespace, meta.app, meta.tag, meta.sequence, text)

    def _log(self, deployment: str) -> Iterator[LogLine]:
        head = self._layout.head(deployment)
        for stored in self._all(self._layout.log(deployment), page=16):
            yield from lines_of(stored, head)

    def _all(self, prefix: bytes, *, keys_only: bool = False, page: int = _PAGE) -> Iterator[KeyValue]:
        begin, end = prefix, end_of(prefix)
        while True:
            part = operations.span(begin, end, limit=page, revision=self._revision, keys_only=keys_only)
            answer = self._range(part)
            yield from answer.kvs
            if not answer.more:
                return
            begin = answer.kvs[-1].key + b"\0"

    def _range(self, part: operations.Part) -> Range:
        return self._gateway.call("kv/range", part["request_range"], Range)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raw(Record):
    """A record of any kind, as it is, for writing. The classes of the kinds are made when they come."""

    KIND = ""
    row: Row

    @property
    def key(self) -> str:
        return self.row.key

    @property
    def tag(self) -> str:
        return self.row.tag

    def to_document(self) -> Document:
        return self.row.document


class Loader:
    """Writes for `EtcdStore.load`."""

    def __init__(self, gateway: Gateway, layout: Layout, transactions: Transactions) -> None:
        self._gateway = gateway
        self._layout = layout
        self._transactions = transactions
        self._kinds: dict[str, type[_Raw]] = {}

    def load(self, items: Sequence[Item]) -> None:
        """See `Transferable.load`."""
        rows = [item for item in items if isinstance(item, Row)]
        for at in range(0, len(rows), ROWS):
            self._write_rows(rows[at : at + ROWS])
        for item in items:
            if isinstance(item, Lines):
                self._write_lines(item)
            elif isinstance(item, Token):
                self._raise_token(item)

    def _write_rows(self, rows: Sequence[Row]) -> None:
        there = self._transactions.reader.metas((row.kind, row.key) for row in rows)
        new = [row for row in rows if (row.kind, row.key) not in there]
        if new:
            places = {(row.kind, row.key): row.sequence for row in new}
            self._transactions.commit([Create(self._raw(row)) for row in new], None, places)

    def _raw(self, row: Row) -> _Raw:
        kind = self._kinds.get(row.kind)
        if kind is None:
            kind = self._kinds[row.kind] = dataclasses.make_dataclass(
                "Raw", (), bases=(_Raw,), namespace={"KIND": row.kind}, frozen=True, slots=True, kw_only=True
            )
        return kind(namespace=row.namespace, app=row.app, row=row)

    def _write_lines(self, item: Lines) -> None:
        last = self._transactions.logs.last(item.deployment)
        new = [(line.time, line.text) for line in item.lines if line.number > last]
        if new:
            self._transactions.append({item.deployment: new}, Attempt())

    def _raise_token(self, item: Token) -> None:
        key = self._layout.lease(item.namespace, item.app)
        for _ in range(_TRIES):
            (kvs,) = self._gateway.call("kv/txn", {"success": [operations.get(key)]}, Txn).ranges()
            if kvs and read_term(kvs[0].value).token >= item.token:
                return
            value = msgspec.json.encode(Term("", item.token))
            revision = kvs[0].mod_revision if kvs else 0
            body = {"compare": [operations.revision_is(key, revision)], "success": [operations.put(key, value)]}
            if self._gateway.call("kv/txn", body, Txn).succeeded:
                return
        raise StoreUnavailable(f"the lease of {item.namespace}/{item.app} changes faster than it can be written")

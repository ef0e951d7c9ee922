"""Commits: one transaction of etcd each, guarded by the revisions of its records and by the lease under which it is.

Each transaction writes a key of its own, and only if that does not exist. So it takes effect once, however often it is
sent; whether it did can be read back when the answer was lost; and the key's value tells everybody what changed.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from deployer.core import failpoints
from deployer.core.errors import Fenced, StaleRevision, StoreError, StoreUnavailable
from deployer.core.model.records import Deployment, Record
from deployer.core.ports.store import Append, Change, Create, Delete, Lease, Update
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Gateway, Refused, Unanswered
from deployer.store.etcd.client.messages import KeyValue, Nothing, Txn
from deployer.store.etcd.counters.sequence import Sequence as Clock
from deployer.store.etcd.counters.usage import Bytes, Share, Usage
from deployer.store.etcd.documents import Packed, meta_of, pack, spread, value_of
from deployer.store.etcd.layout import Entry, Index, Layout, Meta
from deployer.store.etcd.leases import NOT_FOUND, Session, read_term, refusal, term_of
from deployer.store.etcd.log.pieces import Head, Known, Line, Logs
from deployer.store.etcd.notices import LOG, Changes, Notices
from deployer.store.etcd.reading import OPERATIONS, Reader

_WITHIN = 10.0  # seconds in which a commit is tried again when others write the same log
_KNOWN = 20_000  # records of which what indexes say is remembered
_INVALID = 3  # gRPC's code for a key that is gone
_NEVER = -1  # a revision that no key has

Name = tuple[str, str]


@dataclass(slots=True)
class _Slot:
    """What a commit does to one record. expected: its revision; 0 when it must not exist."""

    change: Change
    expected: int
    written: bool = False
    record: Record | None = None
    old: Meta | None = None
    new: Meta | None = None


@dataclass(slots=True)
class Attempt:
    """The name of a transaction, for trying again what may have happened."""

    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def failed(self) -> None:
        """It did not happen, and another try is another transaction."""
        self.id = secrets.token_hex(8)


@dataclass(slots=True)
class _Work:
    """What a transaction is to do."""

    slots: Mapping[Name, _Slot]
    lines: Mapping[str, Sequence[Line]]
    changed: Changes
    attempt: Attempt
    documents: Mapping[Name, Packed] = field(default_factory=dict)
    places: Mapping[Name, int] = field(default_factory=dict)
    fence: Lease | None = None
    parts: Sequence[operations.Part] = ()
    pieces: int = 0
    """How many pieces of documents are written."""


@dataclass(slots=True)
class _Draft:
    """A transaction before it is sent.

    ends     the ends of logs on which it relies
    heads    what it makes of them
    owners   records on whose being there, or not, it relies
    orders   the indexes to which it adds records, and the lowest sequence of these
    apps     keys of apps that have such records now
    usage    bytes that namespaces store from then on, or no longer
    """

    compares: list[operations.Part] = field(default_factory=list)
    operations: list[operations.Part] = field(default_factory=list)
    ends: dict[str, Known] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    owners: list[Name] = field(default_factory=list)
    orders: dict[Index, int] = field(default_factory=dict)
    apps: set[bytes] = field(default_factory=set)
    usage: dict[str, Bytes] = field(default_factory=dict)

    def count(self, namespace: str, *, records: int = 0, logs: int = 0) -> None:
        """A namespace stores so many bytes more."""
        self.usage[namespace] = self.usage.get(namespace, Bytes()).plus(records, logs)


class Transactions:
    """Writes for `EtcdStore`."""

    def __init__(self, gateway: Gateway, layout: Layout, logs: Logs, notices: Notices, clock: Clock) -> None:
        self._gateway = gateway
        self._layout = layout
        self.logs = self._logs = logs
        self._notices = notices
        self._clock = clock
        self.usage = Usage(gateway, layout)
        self._session = Session(gateway)
        self._lock = threading.Lock()
        self._metas: OrderedDict[Name, tuple[int, Meta]] = OrderedDict()
        self.reader = Reader(gateway, layout, self.saw)

    def saw(self, kind: str, key: str, revision: int, meta: Meta) -> None:
        """What indexes say of a record at a revision."""
        self._clock.saw(meta.sequence)
        with self._lock:
            self._metas[kind, key] = (revision, meta)
            self._metas.move_to_end((kind, key))
            if len(self._metas) > _KNOWN:
                self._metas.popitem(last=False)

    def forget_all(self) -> None:
        """What was seen of records and logs is of another history."""
        with self._lock:
            self._metas.clear()
        self._logs.forget_all()

    def commit(self, changes: Sequence[Change], fence: Lease | None, places: Mapping[Name, int] | None = None) -> int:
        """As the port has it; lines that were queued before are in the store already.

        `places`: those of all new records in the order of arrival, for what comes from another store.
        """
        slots, lines = _fold(changes)
        records = [slot.record for slot in slots.values() if slot.record is not None]
        documents = dict(zip(map(_name, records), spread([pack(record) for record in records]), strict=True))
        self._look_up(slots, fence)
        changed = Changes(
            namespaces=list({c.record.namespace: None for c in changes if not isinstance(c, Append)}),
            notices=[name for name, slot in slots.items() if slot.written] + [(LOG, log) for log in lines],
        )
        return self._run(_Work(slots, lines, changed, Attempt(), documents, places or {}, fence))

    def append(self, lines: Mapping[str, Sequence[Line]], attempt: Attempt) -> None:
        """Add lines to logs. After StoreUnavailable it can be called again with the same: they are added once."""
        self._run(_Work({}, lines, Changes(notices=[(LOG, log) for log in lines]), attempt))

    def announce(self, parts: Sequence[operations.Part], notices: Sequence[Name]) -> None:
        """Write what is not a record, and tell everybody."""
        self._run(_Work({}, {}, Changes(notices=list(notices)), Attempt(), parts=parts))

    def _run(self, work: _Work) -> int:
        end = time.monotonic() + _WITHIN
        with self._logs.writing(work.lines):
            while time.monotonic() < end:
                if revision := self._try(work):
                    return revision
        raise StoreUnavailable("etcd changes faster than this can be written; nothing was written, try again")

    def _try(self, work: _Work) -> int:
        """The revision; 0 when it has to be tried again. Raises StaleRevision, Fenced and StoreUnavailable."""
        lease = self._session.lease()
        try:
            self._write_pieces(work, lease)
            self._number(work)
            draft = self._draft(work)
            with self.usage.adding(draft.usage) as shares:
                revision = self._send(work, draft, shares, lease)
        except Refused as error:
            if error.code == NOT_FOUND:  # this process was stopped, or cut off, for longer than its lease lasts
                self._session.lost(lease)
            elif error.code != _INVALID or not any(document.blob for document in work.documents.values()):
                raise StoreError(f"etcd refuses a transaction: {error}") from error
            work.pieces = 0  # they have gone with the lease
            return 0
        if revision:
            self._remember(work, draft, revision)
        return revision

    # --- before ----------------------------------------------------------------------------------------------

    def _look_up(self, slots: Mapping[Name, _Slot], fence: Lease | None) -> None:
        """Find what is in the indexes of each record that is replaced or removed. Raises StaleRevision and Fenced."""
        unknown = []
        for name, slot in slots.items():
            if slot.expected and (slot.written or slot.expected == _NEVER):
                known = self._metas.get(name)
                if known is not None and known[0] == slot.expected:
                    slot.old = known[1]
                else:
                    unknown.append(name)
        found = self.reader.metas(unknown) if unknown else {}
        for name in unknown:
            slot = slots[name]
            stored = found.get(name)
            if stored is None or stored.revision != slot.expected:
                if fence is not None:
                    self._check(fence)
                raise _stale(slot, stored.revision if stored else 0)
            slot.old = stored.meta

    def _check(self, fence: Lease) -> None:
        key = self._layout.lease(fence.namespace, fence.app)
        (kvs,) = self._gateway.call("kv/txn", {"success": [operations.get(key)]}, Txn).ranges()
        _check_fence(fence, kvs)

    def _write_pieces(self, work: _Work, lease: int) -> None:
        """Write what is too large, unless it is there. It goes with the lease if the transaction does not happen."""
        pieces = [
            operations.put(self._layout.blob(document.blob, number), piece, lease)["request_put"]
            for document in work.documents.values()
            for number, piece in enumerate(document.pieces)
        ]
        for piece in pieces[work.pieces :]:
            self._gateway.call("kv/put", piece, Nothing)
            work.pieces += 1

    def _number(self, work: _Work) -> None:
        """Give new records their places in the order of arrival."""
        new = sorted(name for name, slot in work.slots.items() if slot.record is not None and slot.old is None)
        first = self._clock.take(len(new)) if new and not work.places else 0
        places = work.places or {name: first + number for number, name in enumerate(new)}
        for name, slot in work.slots.items():
            if slot.record is not None:
                sequence = slot.old.sequence if slot.old is not None else places[name]
                slot.new = meta_of(slot.record, sequence, work.documents[name])
        work.changed.sequence = max((places[name] for name in new), default=0)

    def _draft(self, work: _Work) -> _Draft:
        deleted = [key for (kind, key), slot in work.slots.items() if kind == Deployment.KIND and _deletes(slot)]
        draft = _Draft(operations=list(work.parts), ends=self._logs.ends([*work.lines, *deleted]))
        for (kind, key), slot in work.slots.items():
            draft.compares.append(operations.revision_is(self._layout.record(kind, key), slot.expected))
            if slot.written:
                self._draft_record(draft, kind, key, slot, work.documents.get((kind, key)))
        draft.operations += [operations.put(app, b"") for app in sorted(draft.apps)]
        draft.compares += [
            operations.none_in(index.prefix, index.entry(Entry(first, ""))) for index, first in draft.orders.items()
        ]
        for deployment, new in work.lines.items():
            known = draft.ends[deployment]
            namespace = known.head.namespace or self._owner(work, draft, deployment)
            addition = self._logs.addition(deployment, known, new, namespace)
            draft.compares.append(addition.compare)
            draft.operations += addition.operations
            draft.heads[deployment] = addition.head
            draft.count(namespace, logs=addition.head.counted - known.head.counted)
        if (fence := work.fence) is not None:
            draft.compares.append(operations.value_is(self._layout.lease(fence.namespace, fence.app), term_of(fence)))
        return draft

    def _owner(self, work: _Work, draft: _Draft, deployment: str) -> str:
        """The namespace of a log that was in none so far; empty when it still has no deployment."""
        name = (Deployment.KIND, deployment)
        slot = work.slots.get(name)
        if slot is not None and slot.new is not None:
            return slot.new.namespace
        known = self._metas.get(name)
        if known is None:
            known = next(((found.revision, found.meta) for found in self.reader.metas([name]).values()), None)
        key = self._layout.record(*name)
        draft.compares.append(operations.revision_is(key, 0) if known is None else operations.exists(key))
        draft.owners.append(name)
        return "" if known is None else known[1].namespace

    def _draft_record(self, draft: _Draft, kind: str, key: str, slot: _Slot, document: Packed | None) -> None:
        name, old, new = self._layout.record(kind, key), slot.old, slot.new
        before = self._layout.entries(kind, key, old) if old else set()
        after = self._layout.entries(kind, key, new) if new else set()
        draft.operations += [operations.delete(entry) for entry in sorted(before - after)]
        draft.operations += [operations.put(entry, b"") for entry in sorted(after - before)]
        if old and old.blob:
            draft.operations.append(operations.delete_all(self._layout.blobs(old.blob)))
        if old:
            draft.count(old.namespace, records=-old.size)
        if new:
            draft.count(new.namespace, records=new.size)
        if new is None or document is None:
            draft.operations.append(operations.delete(name))
            if kind == Deployment.KIND:
                end = draft.ends[key]
                draft.compares.append(self._logs.unchanged(key, end))
                draft.operations.append(operations.delete_all(self._layout.log(key)))
                draft.count(end.head.namespace, logs=-end.head.counted)
            return
        draft.operations.append(operations.put(name, value_of(new, document)))
        draft.operations += [operations.keep(self._layout.blob(new.blob, number)) for number in range(new.pieces)]
        if old is None or (old.namespace, old.app) != (new.namespace, new.app):
            draft.apps.add(self._layout.app(kind, new.namespace, new.app))
        if old is None:
            # Nobody's clock may put it before what its app has already.
            index = self._layout.index(kind, "app", new.namespace, new.app)
            draft.orders[index] = min(new.sequence, draft.orders.get(index, new.sequence))

    # --- sending ---------------------------------------------------------------------------------------------

    def _send(self, work: _Work, draft: _Draft, shares: Sequence[Share], lease: int) -> int:
        """The revision; 0 when it has to be drafted anew. Raises StaleRevision, Fenced, StoreUnavailable, Refused."""
        id, key = work.attempt.id, self._layout.commit(work.attempt.id)
        failure = [operations.get(key), *(share.get for share in shares)]
        failure += [operations.get(self._layout.record(*name), keys_only=True) for name in work.slots]
        failure += [operations.span(*index.span, limit=1, keys_only=True) for index in draft.orders]
        if work.fence is not None:
            failure.append(operations.get(self._layout.lease(work.fence.namespace, work.fence.app)))
        compare = [operations.revision_is(key, 0), *draft.compares, *(share.compare for share in shares)]
        success = [*draft.operations, *(share.put for share in shares)]
        success = [*success, operations.put(key, msgspec.json.encode(work.changed), lease)]
        success = _nested(success, max(len(compare), len(failure)))
        body = {"compare": compare, "success": success, "failure": failure}
        if work.slots:
            failpoints.hit("store.before")
        try:
            answer, doubtful = self._gateway.call_twice("kv/txn", body, Txn)
        except Unanswered as error:
            known = "it is unknown whether this was written" if error.sent else "nothing was written"
            raise StoreUnavailable(f"{error}; {known}") from error
        revision = answer.header.revision
        if not answer.succeeded:
            found = answer.ranges()
            mine = found[0] or (self._never(key, lease) if doubtful else [])
            self._forget(draft)
            if not mine:
                work.attempt.failed()
                for share, kvs in zip(shares, found[1:], strict=False):
                    share.found(kvs)
                self._explain(work, draft, found[1 + len(shares) :])
                return 0
            revision = mine[0].mod_revision
        else:
            for share in shares:
                share.happened(revision)
        if work.slots:
            failpoints.hit("store.after")
        self._notices.happened(id, work.changed)
        return revision

    def _never(self, key: bytes, lease: int) -> list[KeyValue]:
        """Keep a transaction that may still be on its way from happening; the key, if it has happened after all."""
        body = {
            "compare": [operations.revision_is(key, 0)],
            "success": [operations.put(key, b"", lease)],
            "failure": [operations.get(key)],
        }
        answer = self._gateway.call("kv/txn", body, Txn)
        found = answer.ranges()
        # Without a value it is this very request, sent twice.
        return [stored for stored in found[0] if stored.value] if found else []

    def _explain(self, work: _Work, draft: _Draft, found: Sequence[Sequence[KeyValue]]) -> None:
        """Why the comparisons failed. Raises StaleRevision and Fenced; returns when it was a log or the order."""
        looked = iter(found)
        stored = {name: next(looked) for name in work.slots}
        newest = {index: next(looked) for index in draft.orders}
        if work.fence is not None:
            _check_fence(work.fence, next(looked))
        for name, slot in work.slots.items():
            revision = stored[name][0].mod_revision if stored[name] else 0
            if revision != slot.expected:
                raise _stale(slot, revision)
        for index, kvs in newest.items():
            for entry in index.entries(one.key for one in kvs):
                self._clock.saw(entry.sequence)

    def _forget(self, draft: _Draft) -> None:
        """Somebody wrote these logs, perhaps an earlier attempt, or made or deleted a deployment."""
        for log in draft.ends:
            self._logs.forget(log)
        draft.heads = {}
        with self._lock:
            for name in draft.owners:
                self._metas.pop(name, None)

    def _remember(self, work: _Work, draft: _Draft, revision: int) -> None:
        for name, slot in work.slots.items():
            if slot.new is not None:
                self.saw(*name, revision, slot.new)
            elif slot.written:
                with self._lock:
                    self._metas.pop(name, None)
                if name[0] == Deployment.KIND:
                    self._logs.forget(name[1])
        for log, head in draft.heads.items():
            self._logs.remember(log, revision, head)


def _fold(changes: Sequence[Change]) -> tuple[dict[Name, _Slot], dict[str, list[Line]]]:
    """What all changes together do to each record and log. Raises StaleRevision when they contradict each other."""
    slots: dict[Name, _Slot] = {}
    lines: dict[str, list[Line]] = {}
    for change in changes:
        if isinstance(change, Append):
            lines.setdefault(change.deployment, []).append((change.time, storable(change.text)))
            continue
        record, creates = change.record, isinstance(change, Create)
        name = _name(record)
        slot = slots.get(name)
        if slot is None:
            expected = 0 if creates else record.revision or _NEVER
            slot = slots[name] = _Slot(change, expected)
        else:
            exists = slot.record is not None if slot.written else slot.expected != 0
            if creates == exists or (exists and (slot.written or record.revision != slot.expected)):
                raise _stale(_Slot(change, _NEVER), slot.expected if exists else 0)
        if isinstance(change, (Create, Update, Delete)):
            slot.written = True
            slot.record = None if isinstance(change, Delete) else record
    for kind, key in [name for name, slot in slots.items() if _deletes(slot)]:
        if kind == Deployment.KIND:
            lines.pop(key, None)  # the log goes with it
    return slots, lines


def _nested(parts: list[operations.Part], others: int) -> list[operations.Part]:
    """The same operations, of which etcd takes 128 in one transaction, and in each transaction inside of it as many
    less as the outer one has of operations, comparisons or alternatives. Raises StoreError for what is too much.
    """
    if max(len(parts), others) <= OPERATIONS:
        return parts
    size = (OPERATIONS - others) // 2
    if size < 2 or len(parts) / size > max(others, OPERATIONS // 2):
        raise StoreError(f"this is too much for one transaction of etcd ({len(parts)} operations on {others} keys)")
    return [operations.together(parts[at : at + size]) for at in range(0, len(parts), size)]


def storable(text: str) -> str:
    """The text with what UTF-8 cannot hold (lone surrogates) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _deletes(slot: _Slot) -> bool:
    return slot.written and slot.record is None


def _name(record: Record) -> Name:
    return (record.KIND, record.key)


def _stale(slot: _Slot, revision: int) -> StaleRevision:
    assert not isinstance(slot.change, Append)
    record = slot.change.record
    what = f"{record.KIND} {record.key}"
    if not revision:
        return StaleRevision(f"{what} is not there any more; read again")
    if isinstance(slot.change, Create):
        return StaleRevision(f"{what} exists already (revision {revision}); read again")
    return StaleRevision(
        f"{what} has changed since you read it (revision {revision}, not {record.revision}); read again"
    )


def _check_fence(fence: Lease, kvs: Sequence[KeyValue]) -> None:
    now = read_term(kvs[0].value) if kvs else None
    if now is None or (now.holder, now.token) != (fence.holder, fence.token):
        raise Fenced(refusal(fence, now))

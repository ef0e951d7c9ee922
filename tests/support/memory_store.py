"""A store that forgets: dictionaries under the store's contract, quick enough for a million transactions."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from deployer.core.errors import Fenced, StaleRevision, StoreUnavailable
from deployer.core.model import json_codec
from deployer.core.model.records import Deployment, Record
from deployer.core.ports.store import (
    Append,
    Change,
    Create,
    Delete,
    Expect,
    Lease,
    LogLine,
    Place,
    R,
    Update,
    require_namespace,
)
from deployer.store.members import Members, StoreOfOneProcess
from deployer.store.transfer.port import Grouped, Item, Lines, Row, Token, Transferable
from deployer.store.transfer.state import ImportState


class MemoryStore(StoreOfOneProcess, Transferable):
    """Keeps the contract of `Store` for one process. Records go through JSON, as they do in a real one."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch, for leases."""
        self._clock = clock
        self._lock = threading.RLock()
        self._revision = 0
        self._records: dict[str, dict[str, Record]] = defaultdict(dict)
        self._lines: dict[str, list[LogLine]] = defaultdict(list)
        self._leases: dict[tuple[str, str], Lease] = {}
        self._subscribers: dict[object, Callable[[str, str], None]] = {}
        self._closed = False
        self._members = Members(clock)

    # --- records ---------------------------------------------------------------------------------------------

    def get(self, kind: type[R], key: str, *, namespace: str | None = None) -> R | None:
        self._open()
        found = self._records[kind.KIND].get(key)
        return found if found and namespace in (None, found.namespace) else None  # type: ignore[return-value]

    def find(
        self,
        kind: type[R],
        *,
        namespace: str | None = None,
        app: str | None = None,
        tag: str | None = None,
        newest_first: bool = False,
        limit_per_app: int | None = None,
        limit: int | None = None,
        after: Place | None = None,
        size: int | None = None,
    ) -> list[R]:
        require_namespace(namespace, app)
        self._open()
        with self._lock:
            found = [
                record
                for record in self._records[kind.KIND].values()
                if namespace in (None, record.namespace) and app in (None, record.app) and tag in (None, record.tag)
            ]
        found.sort(key=lambda record: (record.sequence, record.key))
        if limit_per_app is not None:
            found = _newest_of_each(found, limit_per_app)
        if newest_first:
            found.reverse()
        if after is not None:
            found = [r for r in found if ((r.sequence, r.key) < after if newest_first else (r.sequence, r.key) > after)]
        if size is not None:
            found = _up_to(size, found)
        return found if limit is None else found[: max(0, limit)]  # type: ignore[return-value]

    def apps(self, kind: type[Record], namespace: str, *, after: str = "", limit: int | None = None) -> list[str]:
        self._open()
        records = list(self._records[kind.KIND].values())
        names = sorted({record.app for record in records if record.namespace == namespace and record.app > after})
        return names if limit is None else names[:limit]

    def count(
        self, kind: type[Record], *, namespace: str | None = None, app: str | None = None, tag: str | None = None
    ) -> int:
        return len(self.find(kind, namespace=namespace, app=app, tag=tag))

    def namespaces(self) -> list[str]:
        self._open()
        return sorted({r.namespace for kind in self._records.values() for r in list(kind.values())} - {""})

    def usage(self, namespace: str) -> tuple[int, int]:
        self._open()
        records = [r for kind in self._records.values() for r in list(kind.values()) if r.namespace == namespace]
        logs = [line for r in records if isinstance(r, Deployment) for line in self._lines.get(r.id, ())]
        documents = sum(len(json_codec.dumps(record.to_document()).encode()) for record in records)
        return documents, sum(len(line.text.encode()) for line in logs)

    def changed(self, namespace: str) -> int:
        return self._revision

    def commit(self, *changes: Change, fence: Lease | None = None) -> int:
        self._open()
        texts = [json_codec.dumps(c.record.to_document()) if isinstance(c, Create | Update) else "" for c in changes]
        with self._lock:
            if fence is not None:
                self._check(fence)
            revision = self._revision + 1
            new: dict[tuple[str, str], Record | None] = {}
            for change, text in zip(changes, texts, strict=True):
                self._prepare(change, text, revision, new)
            self._revision = revision
            for (kind, key), record in new.items():
                if record is not None:
                    self._records[kind][key] = record
                elif self._records[kind].pop(key, None) is not None and kind == Deployment.KIND:
                    self._lines.pop(key, None)
            for change in changes:
                if isinstance(change, Append):
                    self._write(change.deployment, [(change.time, change.text)])
        notices = [("log", c.deployment) if isinstance(c, Append) else (c.record.KIND, c.record.key) for c in changes]
        self._tell(notices)
        return revision

    def _prepare(self, change: Change, text: str, revision: int, new: dict[tuple[str, str], Record | None]) -> None:
        """What one change makes of its record, seen after those before it. Raises StaleRevision."""
        if isinstance(change, Append):
            return
        record = change.record
        name = (record.KIND, record.key)
        stored = new[name] if name in new else self._records[record.KIND].get(record.key)
        what = f"{record.KIND} {record.key}"
        if isinstance(change, Create):
            if stored is not None:
                raise StaleRevision(f"{what} exists already (revision {stored.revision}); read again")
        elif stored is None:
            raise StaleRevision(f"{what} is not there any more; read again")
        elif stored.revision != record.revision:
            raise StaleRevision(f"{what} has revision {stored.revision}, not {record.revision}; read again")
        if isinstance(change, Delete):
            new[name] = None
        elif not isinstance(change, Expect):
            sequence = stored.sequence if stored is not None else revision
            document = json_codec.loads(text)
            new[name] = type(record).from_document(document, revision=revision, sequence=sequence)

    # --- logs ------------------------------------------------------------------------------------------------

    def append_log(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        if not self._closed:
            with self._lock:
                self._write(deployment, lines)
            self._tell([("log", deployment)])

    def _write(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        kept = self._lines[deployment]
        for time, text in lines:
            kept.append(LogLine(len(kept) + 1, time, text.encode("utf-8", "backslashreplace").decode()))

    def read_log(self, deployment: str, *, after: int = 0, limit: int = 1000, size: int | None = None) -> list[LogLine]:
        self._open()
        lines = self._lines.get(deployment, [])[after : after + max(0, limit)]
        if size is None:
            return lines
        taken: list[LogLine] = []
        for line in lines:
            taken.append(line)
            size -= len(line.text)
            if size <= 0:
                break
        return taken

    def last_line(self, deployment: str) -> int:
        self._open()
        return len(self._lines.get(deployment, ()))

    # --- leases ----------------------------------------------------------------------------------------------

    def acquire(self, namespace: str, app: str, holder: str, ttl: float) -> Lease | None:
        self._open()
        with self._lock:
            now = self._clock()
            known = self._leases.get((namespace, app))
            if known is None:
                token = 1
            elif known.holder == holder:
                token = known.token
            elif known.expires > now:
                return None
            else:
                token = known.token + 1
            return self._lend(Lease(namespace, app, holder, token, now + ttl))

    def renew(self, lease: Lease, ttl: float) -> Lease:
        self._open()
        with self._lock:
            self._check(lease)
            if not self._leases[lease.namespace, lease.app].expires:
                raise Fenced(f"the lease of {lease.namespace}/{lease.app} was given back")
            return self._lend(Lease(lease.namespace, lease.app, lease.holder, lease.token, self._clock() + ttl))

    def release(self, lease: Lease, *, above: int = 0) -> None:
        self._open()
        with self._lock:
            known = self._leases.get((lease.namespace, lease.app))
            if known is not None and (known.holder, known.token) == (lease.holder, lease.token):
                raised = above > lease.token
                holder, token = ("", above) if raised else (lease.holder, lease.token)
                self._lend(Lease(lease.namespace, lease.app, holder, token, 0.0))

    def holds(self, namespace: str, app: str, token: int) -> bool:
        """Is that the token of the app's lease? For tests."""
        known = self._leases.get((namespace, app))
        return known is not None and known.token == token

    def _lend(self, lease: Lease) -> Lease:
        self._leases[lease.namespace, lease.app] = lease
        return lease

    def _check(self, lease: Lease) -> None:
        known = self._leases.get((lease.namespace, lease.app))
        if known is None or (known.holder, known.token) != (lease.holder, lease.token):
            now = f"{known.holder} with token {known.token}" if known and known.holder else "nobody"
            raise Fenced(
                f"the lease of {lease.namespace}/{lease.app} belongs to {now}, "
                f"not to {lease.holder} with token {lease.token}; nothing was written"
            )

    # --- moving ----------------------------------------------------------------------------------------------

    @contextmanager
    def dump(self) -> Iterator[Iterator[Item]]:
        self._open()
        with self._lock:
            items: list[Item] = [Token(lease.namespace, lease.app, lease.token) for lease in self._leases.values()]
            records = [r for found in self._records.values() for r in found.values() if r.KIND != ImportState.KIND]
            records.sort(key=lambda record: (record.sequence, record.KIND, record.key))
            items += map(Row.of, records)
            for record in records:
                if record.KIND == Deployment.KIND:
                    items += Grouped(record.key, iter(self._lines.get(record.key, ())))
        yield iter(items)

    def load(self, items: Sequence[Item]) -> None:
        self._open()
        kinds = {kind.KIND: kind for kind in Record.__subclasses__()}
        with self._lock:
            for item in items:
                match item:
                    case Row():
                        record = kinds[item.kind].from_document(
                            item.document, revision=item.sequence, sequence=item.sequence
                        )
                        self._records[item.kind].setdefault(item.key, record)
                        self._revision = max(self._revision, item.sequence)
                    case Lines():
                        kept = self._lines[item.deployment]
                        kept += [line for line in item.lines if line.number > len(kept)]
                    case Token(namespace, app, token):
                        known = self._leases.get((namespace, app))
                        self._lend(Lease(namespace, app, "", max(token, known.token if known else 0), 0.0))

    # --- the rest --------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        token = object()
        self._subscribers[token] = callback
        return self._members.subscribe(callback, lambda: self._subscribers.pop(token, None) and None)

    def _tell(self, notices: Sequence[tuple[str, str]]) -> None:
        for callback in list(self._subscribers.values()):
            for kind, key in dict.fromkeys(notices):
                try:
                    callback(kind, key)
                except Exception:  # noqa: BLE001 - one that fails keeps nobody else from hearing of it
                    break

    def close(self) -> None:
        self._closed = True
        self._members.close()

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


def _up_to(size: int, found: list[Record]) -> list[Record]:
    """The records up to the one that brings their JSON to `size` characters."""
    for number, record in enumerate(found, 1):
        size -= len(json_codec.dumps(record.to_document()))
        if size <= 0:
            return found[:number]
    return found


def _newest_of_each(found: list[Record], limit: int) -> list[Record]:
    """Of records in order of arrival, the last ones of each app."""
    left: dict[tuple[str, str], int] = defaultdict(lambda: limit)
    kept = []
    for record in reversed(found):
        app = (record.namespace, record.app)
        if left[app] > 0:
            left[app] -= 1
            kept.append(record)
    return kept[::-1]

"""A store that forgets: dictionaries under the store's contract, quick enough for a million transactions."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

from deployer.core.errors import Fenced, StaleRevision, StoreUnavailable
from deployer.core.model import json_codec
from deployer.core.model.records import Deployment, LogLine, Record
from deployer.core.ports.store import Append, Change, Create, Delete, Expect, Lease, R, Store, Update


class MemoryStore(Store):
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
    ) -> list[R]:
        if app is not None and namespace is None:
            raise ValueError("find: an app's name means something in its namespace only; give that too")
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
        return found[::-1] if newest_first else found  # type: ignore[return-value]

    def count(self, kind: type[Record], *, tag: str | None = None) -> int:
        self._open()
        return sum(tag in (None, record.tag) for record in list(self._records[kind.KIND].values()))

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
            return self._lend(Lease(lease.namespace, lease.app, lease.holder, lease.token, self._clock() + ttl))

    def release(self, lease: Lease) -> None:
        self._open()
        with self._lock:
            known = self._leases.get((lease.namespace, lease.app))
            if known is not None and (known.holder, known.token) == (lease.holder, lease.token):
                self._lend(Lease(lease.namespace, lease.app, lease.holder, lease.token, 0.0))

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
            now = f"{known.holder} with token {known.token}" if known else "nobody"
            raise Fenced(f"the lease of {lease.namespace}/{lease.app} belongs to {now}; nothing was written")

    # --- the rest --------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        token = object()
        self._subscribers[token] = callback
        return lambda: self._subscribers.pop(token, None) and None

    def _tell(self, notices: Sequence[tuple[str, str]]) -> None:
        for callback in list(self._subscribers.values()):
            for kind, key in dict.fromkeys(notices):
                try:
                    callback(kind, key)
                except Exception:  # noqa: BLE001 - one that fails keeps nobody else from hearing of it
                    break

    def close(self) -> None:
        self._closed = True

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


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

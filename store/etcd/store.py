"""The store in etcd, for any number of processes: `deployer.core.ports.store` on etcd's v3 API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import msgspec

from deployer.core.clock import SteadyClock, wall_clock
from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.core.model.records import Record
from deployer.core.ports.store import Change, Lease, LogLine, Place, R, Replica
from deployer.store.etcd.client import operations
from deployer.store.etcd.client.gateway import Access, Gateway, Refused
from deployer.store.etcd.client.messages import Txn
from deployer.store.etcd.counters.sequence import Sequence as Clock
from deployer.store.etcd.layout import FORMAT, Layout
from deployer.store.etcd.leases import Leases
from deployer.store.etcd.log.pieces import Logs
from deployer.store.etcd.log.queue import LineQueue
from deployer.store.etcd.members import Members
from deployer.store.etcd.notices import Notices
from deployer.store.etcd.reading import Query
from deployer.store.etcd.transactions import Transactions
from deployer.store.etcd.transfer import EtcdContent, Loader
from deployer.store.etcd.watch import Watch
from deployer.store.transfer.port import Item, Transferable

PREFIX = "/deployer/store/"
"""Below this is everything; `/deployer/environment/`, which the plugin env_etcd reads, is not ours."""

_LINES_PER_READ = 10_000
_log = logging.getLogger(__name__)


class EtcdStore(Transferable):
    """A store below `prefix` in etcd, which several processes share.

    Raises SettingsError when a newer release wrote it, or TLS files cannot be used, and StoreUnavailable when etcd does
    not answer. `clock` gives seconds since the epoch, for `Lease.expires`; etcd says when leases expire. `wall` gives
    them for the order of arrival.

    Subscribers are called in a thread of their own, also for what other processes commit, and may hear of one change
    twice. After an interruption in which etcd was compacted they hear of everything written since, and of `("", "")`:
    what was deleted meanwhile has no name. When etcd was brought back from a snapshot they hear of `("", "")` alone.
    """

    def __init__(
        self,
        access: Access,
        *,
        prefix: str = PREFIX,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        self._access = access
        self._closed = False
        self._prefix = prefix
        layout = self._layout = Layout(prefix)
        self._gateway = Gateway(access)
        self._logs = Logs(self._gateway, layout)
        try:
            revision = _open(self._gateway, layout, access.where)
            self._logs.sweep()
        except BaseException:
            self._gateway.close()
            raise
        sequence = Clock(wall)
        self._notices = Notices()
        self._transactions = Transactions(self._gateway, layout, self._logs, self._notices, sequence)
        self._reader = self._transactions.reader
        self._loader = Loader(self._gateway, layout, self._transactions)
        self._leases = Leases(self._gateway, layout, clock or SteadyClock())
        self._members = Members(self._gateway, layout, self._transactions)
        self._lines = LineQueue(self._transactions.append, access.where)
        self._watch = Watch(
            self._gateway, layout, self._notices, revision, saw=sequence.saw, forget=self._transactions.forget_all
        )

    # --- records ---------------------------------------------------------------------------------------------

    def get(self, kind: type[R], key: str, *, namespace: str | None = None) -> R | None:
        return self._reader.get(kind, key, namespace)

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
        query = Query(
            namespace=namespace,
            app=app,
            tag=tag,
            newest_first=newest_first,
            limit_per_app=limit_per_app,
            limit=limit,
            after=after,
            size=size,
        )
        return self._reader.find(kind, query)

    def apps(self, kind: type[Record], namespace: str, *, after: str = "", limit: int | None = None) -> list[str]:
        return self._reader.apps(kind.KIND, namespace, after, limit)

    def count(
        self, kind: type[Record], *, namespace: str | None = None, app: str | None = None, tag: str | None = None
    ) -> int:
        return self._reader.count(kind.KIND, namespace, app, tag)

    def namespaces(self) -> list[str]:
        return self._transactions.usage.namespaces()

    def usage(self, namespace: str) -> tuple[int, int]:
        return self._transactions.usage.total(namespace)

    def changed(self, namespace: str) -> int:
        return self._notices.changed(namespace)

    def commit(self, *changes: Change, fence: Lease | None = None) -> int:
        self._lines.flush()
        return self._transactions.commit(changes, fence)

    # --- logs ------------------------------------------------------------------------------------------------

    def append_log(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        self._lines.append(deployment, lines)

    def read_log(self, deployment: str, *, after: int = 0, limit: int = 1000, size: int | None = None) -> list[LogLine]:
        """Lines with a number above `after`, in order, at most 10,000 whatever `limit` says."""
        if self._lines.holds(deployment):
            self._lines.flush(deployment)
        self._check_open()
        return self._logs.read(deployment, after, min(limit, _LINES_PER_READ), size)

    def last_line(self, deployment: str) -> int:
        if self._lines.holds(deployment):
            self._lines.flush(deployment)
        return self._logs.last(deployment)

    # --- leases ----------------------------------------------------------------------------------------------

    def acquire(self, namespace: str, app: str, holder: str, ttl: float) -> Lease | None:
        return self._leases.acquire(namespace, app, holder, ttl)

    def renew(self, lease: Lease, ttl: float) -> Lease:
        return self._leases.renew(lease, ttl)

    def release(self, lease: Lease, *, above: int = 0) -> None:
        self._leases.release(lease, above)

    # --- moving ----------------------------------------------------------------------------------------------

    def dump(self) -> AbstractContextManager[Iterator[Item]]:
        self._lines.flush()
        return EtcdContent(self._access, self._prefix).dump()

    def load(self, items: Sequence[Item]) -> None:
        self._loader.load(items)

    # --- replicas --------------------------------------------------------------------------------------------

    def join(self, replica: Replica, ttl: float) -> None:
        self._members.join(replica, ttl)

    def leave(self, holder: str) -> None:
        self._members.leave(holder)

    def replicas(self) -> list[Replica]:
        return self._members.replicas()

    # --- the rest --------------------------------------------------------------------------------------------

    def problem(self) -> str:
        return self._gateway.full or self._lines.problem()

    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        return self._notices.subscribe(callback)

    def empty(self) -> bool:
        """Whether it holds no record at all. Raises StoreUnavailable."""
        return self._reader.empty()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._lines.close()
        self._watch.close()
        self._notices.close(self._access.timeout)
        self._gateway.close()
        self._watch.join(self._access.timeout)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store in etcd ({self._access.where}) is closed")


def _open(gateway: Gateway, layout: Layout, where: str) -> int:
    """The revision of the store. Raises SettingsError and StoreUnavailable."""
    body = {
        "compare": [operations.revision_is(layout.format, 0)],
        "success": [operations.put(layout.format, msgspec.json.encode({"format": FORMAT}))],
        "failure": [operations.get(layout.format)],
    }
    try:
        answer = gateway.call("kv/txn", body, Txn)
    except Refused as error:
        raise StoreUnavailable(f"the store in etcd ({where}) cannot be opened: {error}") from error
    for kvs in answer.ranges():
        try:
            found = msgspec.json.decode(kvs[0].value)["format"]
        except (msgspec.MsgspecError, LookupError, TypeError):
            found = None
        if type(found) is not int or found > FORMAT:
            name = layout.format.decode()
            raise SettingsError(
                f"the store in etcd ({where}) was written by a newer release (format {found} in {name}, this one knows "
                f"{FORMAT}): start that release, or give this one a prefix of its own"
            )
    return answer.header.revision

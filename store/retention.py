"""Deletes what has ended long ago, in the background, on any store and one process at a time."""

from __future__ import annotations

import datetime
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from deployer.core.clock import wall_clock
from deployer.core.errors import Fenced, StaleRevision, StoreError
from deployer.core.model.records import App, Deployment, Operation, OperationKind, Record, Status, new_id
from deployer.core.operations.host_claims import purge_changes
from deployer.core.ports.store import Change, Delete, Lease, Place, R, Store

PERIOD = 3600.0
"""Seconds between two sweeps."""

FIRST = 60.0
"""Seconds after the start until the first one: a service that starts has better things to do."""

NAMESPACE, NAME = "!service", "!retention"
"""Whose lease it is; no app can have that name."""

_PAGE = 100  # records that are read at once,
_PAGE_SIZE = 1024 * 1024  # and how many bytes of them
_PAUSE = 0.02  # seconds between two pages, and between two transactions: others come first
_STOPPING = 2.0  # seconds
_LEASE = 60.0  # seconds beyond a period, after which another process takes over
_BATCH = 10  # records that one transaction deletes; etcd takes 128 operations in one, of which each may need ten

_ENDED = frozenset({Status.FAILURE, Status.UNDEPLOYED})
_log = logging.getLogger(__name__)

AppName = tuple[str, str]
"""Namespace and name of an app."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept of each app. What is live, warm, under way or waited for is kept in any case.

    age    seconds after its end for which something is kept; 0: for ever
    limit  ended deployments that are kept at most, the newest; 0: all
    least  versions that were live and are kept however old, the newest: a rollback can go back to them
    """

    age: float = 0.0
    limit: int = 0
    least: int = 0


class Retention:
    """Sweeps from `start` to `stop`; or whenever `sweep` is called."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        *,
        expiring: Sequence[type[Record]] = (),
        holder: str = "",
        clock: Callable[[], float] = wall_clock,
        pause: float = _PAUSE,
    ) -> None:
        """
        expiring  kinds of records that are of no use after the moment in their field `expires`
        holder    this process, among those that share the store
        clock     gives the system's time in seconds since the epoch, which records have, too
        pause     seconds between two steps of a sweep
        """
        self._store = store
        self._rules = rules
        self._expiring = expiring
        self._clock = clock
        self._pause = pause
        self._holder = holder or new_id()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Sweep now and then, in a thread."""
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sweep no more; returns when nothing is under way, or the store does not answer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOPPING)

    def _run(self) -> None:
        pause = FIRST
        while not self._stopping.wait(pause):
            pause = PERIOD
            try:
                self.sweep()
            except StoreError as error:
                _log.warning("what ended long ago is deleted later: %s", error)
            except Exception:  # noqa: BLE001 - logged; the next time may go well
                _log.exception("what ended long ago is deleted later")

    def sweep(self) -> tuple[int, int]:
        """Delete what the rules do not keep, and what has expired; returns how many deployments and operations that is.
        Raises StoreError.

        Nothing is deleted while another process does it.
        """
        lease = self._store.acquire(NAMESPACE, NAME, self._holder, PERIOD + _LEASE)
        if lease is None:
            return 0, 0
        try:
            sweep = _Sweep(self._store, self._rules, self._clock(), lease, self._goes_on)
            for kind in self._expiring:
                sweep.expired(kind)
            deployments = sweep.deployments()
            operations = sweep.operations()
        except Fenced:
            return 0, 0  # this process was held up, and another one is at it
        finally:
            # Whoever sweeps keeps the lease until its next turn; a process that stops leaves it to the others.
            if self._stopping.is_set():
                self._store.release(lease)
        if deployments or operations:
            _log.info("%d deployments and %d operations that ended long ago were deleted", deployments, operations)
        return deployments, operations

    def _goes_on(self) -> bool:
        """Give way to others; false when the service stops."""
        return not self._stopping.wait(self._pause)


class _Sweep:
    """One pass over the whole store, page by page, the newest first."""

    def __init__(self, store: Store, rules: Rules, now: float, lease: Lease, goes_on: Callable[[], bool]) -> None:
        self._store = store
        self._rules = rules
        self._lease = lease
        self._goes_on = goes_on
        self._now = now
        self._oldest = now - rules.age if rules.age else float("-inf")
        self._ended: Counter[AppName] = Counter()
        self._returns: Counter[AppName] = Counter()
        self._asides: Counter[tuple[AppName, bool]] = Counter()
        self._known: set[str] = set()

    def deployments(self) -> int:
        """Delete those that are not to be kept, each with all that hangs on it; how many."""
        count = 0
        for page in self._pages(Deployment):
            self._known.update(deployment.id for deployment in page)
            doomed = [deployment for deployment in page if self._is_doomed(deployment)]
            for app in {_app(deployment) for deployment in doomed}:
                count += self._delete_of(app, [deployment for deployment in doomed if _app(deployment) == app])
        return count

    def _is_doomed(self, deployment: Deployment) -> bool:
        if deployment.status not in _ENDED:
            return False
        app = _app(deployment)
        self._ended[app] += 1
        # Releases that did not say what was live: of what they ended, everything but a failure may have been.
        if deployment.went_live or (deployment.status is Status.UNDEPLOYED and deployment.version):
            self._returns[app] += 1
            if self._returns[app] <= self._rules.least:
                return False
        return self._is_beyond(self._ended[app], _seconds(deployment.last_modified))

    def _is_beyond(self, place: int, ended: float) -> bool:
        return ended < self._oldest or 0 < self._rules.limit < place

    def _delete_of(self, app: AppName, doomed: Sequence[Deployment]) -> int:
        needed = set(self._needed(*app))
        count = 0
        for deployment in doomed:
            if deployment.id not in needed and self._commit(purge_changes(self._store, deployment)):
                self._known.discard(deployment.id)
                count += 1
        return count

    def _needed(self, namespace: str, name: str) -> Iterator[str]:
        """Ids of deployments that something refers to which is not over."""
        app = self._store.get(App, f"{namespace}/{name}")
        if app is not None:
            yield from (app.live, app.held)
        for operation in self._store.find(Operation, namespace=namespace, app=name, tag="open"):
            yield from (operation.deployment, operation.target.by)
            if operation.target.previous is not None:
                yield operation.target.previous.deployment
        for status in Status:
            if status not in _ENDED:
                for deployment in self._store.find(Deployment, namespace=namespace, app=name, tag=status.value):
                    yield deployment.rollback_of

    def operations(self) -> int:
        """Delete those that are over and of use to nobody: of deployments that are gone, and old ones, of which
        what has long been live may have many."""
        count = 0
        for tag in ("ended", "closed"):
            for page in self._pages(Operation, tag):
                count += self._delete([operation for operation in page if self._is_useless(operation)])
        return count

    def _is_useless(self, operation: Operation) -> bool:
        if operation.deployment not in self._known and self._store.get(Deployment, operation.deployment) is None:
            return True
        if operation.kind is OperationKind.DEPLOY:
            return False
        name = (_app(operation), operation.aside)
        self._asides[name] += 1
        times = operation.timeline
        return self._is_beyond(self._asides[name], times.ended or times.asked or float("inf"))

    def expired(self, kind: type[Record]) -> None:
        """Delete what is of no use any more."""
        for page in self._pages(kind):
            self._delete([record for record in page if getattr(record, "expires", float("inf")) <= self._now])

    def _delete(self, records: Sequence[Record]) -> int:
        count = 0
        for first in range(0, len(records), _BATCH):
            batch = records[first : first + _BATCH]
            count += len(batch) if self._commit([Delete(record) for record in batch]) else 0
        return count

    # --- reading and writing -------------------------------------------------------------------------------------

    def _pages(self, kind: type[R], tag: str | None = None) -> Iterator[list[R]]:
        after: Place | None = None
        while self._goes_on():
            self._lease = self._store.renew(self._lease, PERIOD + _LEASE)
            page = self._store.find(kind, tag=tag, newest_first=True, limit=_PAGE, size=_PAGE_SIZE, after=after)
            if not page:
                return
            after = (page[-1].sequence, page[-1].key)
            yield page

    def _commit(self, changes: Iterable[Change]) -> bool:
        """False when somebody was quicker to change something, or the service stops: then it is for the next time."""
        if not self._goes_on():
            return False
        try:
            self._store.commit(*changes, fence=self._lease)
        except StaleRevision:
            return False
        return True


def _app(record: Deployment | Operation) -> AppName:
    return record.namespace, record.app


def _seconds(moment: str) -> float:
    """RFC 3339 as seconds since the epoch; a text that is none counts as new."""
    try:
        return datetime.datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return float("inf")

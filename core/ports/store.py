"""The store's interface. One global revision counts commits; every record knows the revision that last wrote it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deployer.core.model.records import Document, Record

R = TypeVar("R", bound=Record)

REPLICA = "replica"
"""What subscribers are told, instead of a record's kind, when a replica comes, goes, or says something else."""


def require_namespace(namespace: str | None, app: str | None) -> None:
    """Raises ValueError for an app without its namespace."""
    if app is not None and namespace is None:
        raise ValueError("an app's name means something in its namespace only; give that too")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a deployment's log. `number` counts from 1 without gaps; `time` is RFC 3339 with milliseconds."""

    number: int
    time: str
    text: str


@dataclass(frozen=True, slots=True)
class Create:
    """Write a record that must not exist yet."""

    record: Record


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a record; the stored one must still have `record.revision`."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record; the stored one must still have `record.revision`. A Deployment takes its log with it."""

    record: Record


@dataclass(frozen=True, slots=True)
class Expect:
    """Write nothing, but refuse the commit unless the stored record still has `record.revision`."""

    record: Record


@dataclass(frozen=True, slots=True)
class Append:
    """Add a line to a deployment's log, if the commit comes about: for what must not be said when it did not happen."""

    deployment: str
    time: str
    text: str


Change = Create | Update | Delete | Expect | Append

Place = tuple[int, str]
"""Where a record stands in the order of arrival: its sequence and its key."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run an app's operations. `token` is the fencing token (epoch): it only ever grows for an app."""

    namespace: str
    app: str
    holder: str
    token: int
    expires: float


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that works on this store: `holder` as in its leases, and what it says of itself to the others, as JSON
    of at most 512 KiB."""

    holder: str
    says: Document


class Store(ABC):
    """Durable records, logs and leases. Safe to call from any thread.

    Every method but `append_log` and `subscribe` may raise StoreUnavailable.
    """

    # --- records ---------------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, kind: type[R], key: str, *, namespace: str | None = None) -> R | None:
        """The record of that key, or None. Cost does not depend on how many there are.

        With a `namespace` a record of another one is not there: it takes no longer than one that does not exist.
        """

    @abstractmethod
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
        """Records in order of arrival. `app` goes with `namespace`. Whatever they are narrowed to, a page of them costs
        the same wherever it begins.

        limit_per_app  keeps the newest of each app, whichever way they are listed
        limit          how many at most, of those that come after `after`
        after          the last record of the page before, in the order that is asked for; it may be gone by now
        size           may end the page early, with the record that brings the JSON to so many bytes: of one record at
                       least. Whoever gives it goes on until a page is empty.
        """

    @abstractmethod
    def apps(self, kind: type[Record], namespace: str, *, after: str = "", limit: int | None = None) -> list[str]:
        """The names of the apps that have such records, sorted, from behind `after` on, at most `limit`. The cost
        depends on how many apps there are, not on how many records."""

    @abstractmethod
    def count(
        self, kind: type[Record], *, namespace: str | None = None, app: str | None = None, tag: str | None = None
    ) -> int:
        """How many records of a kind (and namespace, and app of it, and tag) there are. Of an app it costs no more than
        that has records."""

    @abstractmethod
    def namespaces(self) -> list[str]:
        """Those that have records, sorted. The cost does not depend on how many records there are."""

    @abstractmethod
    def usage(self, namespace: str) -> tuple[int, int]:
        """Bytes that the records of a namespace take as JSON, and its logs as text, but for lines that wait in
        `append_log`. The cost does not depend on how many there are."""

    @abstractmethod
    def changed(self, namespace: str) -> int:
        """A number that grows with each commit that writes a record of the namespace; it costs nothing. Of use to one
        process only: another one, or a restart, may begin with any number."""

    @abstractmethod
    def commit(self, *changes: Change, fence: Lease | None = None) -> int:
        """Apply all changes or none, durably, and return the new revision, which every written record now has.

        Raises StaleRevision when one of them meets another revision than it names, and Fenced when `fence` is given
        and the app's lease has another token or holder by now.
        """

    # --- logs ------------------------------------------------------------------------------------------------

    @abstractmethod
    def append_log(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        """Queue `(time, text)` lines and return at once. They are durable before any later `commit` returns."""

    @abstractmethod
    def read_log(self, deployment: str, *, after: int = 0, limit: int = 1000, size: int | None = None) -> list[LogLine]:
        """Lines with a number above `after`, in order; includes what `append_log` queued before this call.

        Numbers begin with 1 and have no gaps, whatever crashes: the number of a line is the count of lines up to it.
        `size` ends the list with the line that brings its text to so many characters, so it has one line at least.
        """

    @abstractmethod
    def last_line(self, deployment: str) -> int:
        """The number of the last line, 0 when there is none; includes what was queued before this call."""

    # --- leases ----------------------------------------------------------------------------------------------

    @abstractmethod
    def acquire(self, namespace: str, app: str, holder: str, ttl: float) -> Lease | None:
        """The lease, or None while another holder's has not expired (`ttl` seconds after its last renewal).

        A holder that acquires again what it last held gets the same token; a change of holder raises it.
        """

    @abstractmethod
    def renew(self, lease: Lease, ttl: float) -> Lease:
        """The lease with a later expiry. Raises Fenced when it is not the current one, or was given back; and perhaps
        when it has expired, although nobody else has it."""

    @abstractmethod
    def release(self, lease: Lease, *, above: int = 0) -> None:
        """Give it back: the next `acquire` need not wait. Does nothing when it is not the current one.

        The app's later leases have tokens above `above`, whoever gets them: that is one which was found in the cluster,
        since the store is a copy of earlier times.
        """

    # --- replicas --------------------------------------------------------------------------------------------

    @abstractmethod
    def join(self, replica: Replica, ttl: float) -> None:
        """Be among `replicas` for `ttl` seconds from now on; again: for longer, and with what it says then."""

    @abstractmethod
    def leave(self, holder: str) -> None:
        """Be among them no more. Does nothing when it is not."""

    @abstractmethod
    def replicas(self) -> list[Replica]:
        """Those that joined and whose time is not up, by holder."""

    # --- the rest --------------------------------------------------------------------------------------------

    def problem(self) -> str:
        """Why it cannot record everything now, a sentence by what it met last; empty when it can. Returns at once."""
        return ""

    @abstractmethod
    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        """Call `callback(kind, key)` after each committed change, and `("log", deployment)` after appended lines;
        `(REPLICA, holder)` after `join` and `leave`, but need not when a replica's time runs out; `("", "")` when more
        may have changed than anybody can name.

        Whoever else writes to this store, it is told. Runs in a thread that others need: it must only set a flag or an
        event. Returns the function that unsubscribes.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish what was queued and let go of everything. Later calls raise StoreUnavailable."""

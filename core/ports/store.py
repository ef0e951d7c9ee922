"""The store's interface. One global revision counts commits; every record knows the revision that last wrote it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deployer.core.model.records import LogLine, Record

R = TypeVar("R", bound=Record)


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


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run an app's operations. `token` is the fencing token (epoch): it only ever grows for an app."""

    namespace: str
    app: str
    holder: str
    token: int
    expires: float


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
    ) -> list[R]:
        """Records in order of arrival. `app` goes with `namespace`. Indexed by (namespace, app) and by tag."""

    @abstractmethod
    def count(self, kind: type[Record], *, tag: str | None = None) -> int:
        """How many records of a kind (and tag) there are."""

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
        """The lease with a later expiry. Raises Fenced when it is not the current one."""

    @abstractmethod
    def release(self, lease: Lease) -> None:
        """Give it back: the next `acquire` need not wait. Does nothing when it is not the current one."""

    # --- the rest --------------------------------------------------------------------------------------------

    @abstractmethod
    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        """Call `callback(kind, key)` after each committed change, and `("log", deployment)` after appended lines.

        Runs in the store's thread: it must only set a flag or an event. Returns the function that unsubscribes.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish what was queued and let go of everything. Later calls raise StoreUnavailable."""

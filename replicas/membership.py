"""Who else works on the same store: this process joins them, says how it is and what it does, and listens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from deployer.core.clock import SteadyClock
from deployer.core.errors import StoreError
from deployer.core.model.records import Document
from deployer.core.operations.activity import Activities
from deployer.core.ports import replicas as port
from deployer.core.ports.leases import LEASE
from deployer.core.ports.store import REPLICA, Replica, Store
from deployer.replicas import balance
from deployer.replicas.activities import OthersActivities, said

logger = logging.getLogger(__name__)

BEAT = LEASE / 3
"""Seconds between two signs of life; a replica that gave none for `LEASE` seconds is gone."""

AT_MOST = 1.0
"""Seconds between two writes to the store, however much happens."""

SKEW = 5.0
"""Seconds by which another replica's clock may be wrong, or hearing of its start may take, before it is said."""

UNFIT_AFTER = 10.0
"""Seconds without the cluster after which a replica leaves its operations to others, if these have it."""


@dataclass(frozen=True, slots=True)
class Member:
    """A replica as people see it.

    name     of its machine or pod
    slots    operations that it may carry out at a time
    running  that it does carry out
    fit      it reaches the cluster
    """

    holder: str
    name: str
    slots: int
    running: int
    fit: bool

    @classmethod
    def of(cls, replica: Replica) -> Member:
        """What a replica said. It may be of another release: what is missing is nothing."""
        says = replica.says
        running, slots = int(says.get("running", 0)), int(says.get("slots", 1))
        return cls(replica.holder, str(says.get("name", "")), slots, running, bool(says.get("fit", True)))


class Membership(port.Replicas):
    """This process among the others on `store`.

    holder      its name in leases
    name        its name for people
    slots       operations that it may carry out at a time
    activities  what it does
    problem     why it cannot reach the cluster, empty when it can; may take a few seconds
    clock       by which operations wait, in seconds since the epoch
    """

    def __init__(
        self,
        store: Store,
        *,
        holder: str,
        name: str,
        slots: int,
        activities: Activities,
        problem: Callable[[], str] = lambda: "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._store = store
        self._holder, self._name, self._slots = holder, name, slots
        self._activities = activities
        self._problem = problem
        self._clock = clock or SteadyClock()
        self._started = 0.0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._moved: Callable[[bool], None] = lambda _: None
        self._hand_over: Callable[[str], None] = lambda _: None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._members: dict[str, Member] = {}
        self._weights: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._looked = float("-inf")
        self._lost_since: float | None = None
        self._why = ""
        self._failing = False
        self.others = OthersActivities()
        """What the others do."""

    # --- the port ------------------------------------------------------------------------------------------------

    def start(self, moved: Callable[[bool], None], hand_over: Callable[[str], None]) -> None:
        self._started = self._clock()
        self._announce()
        self._listen()
        self._moved, self._hand_over = moved, hand_over
        self._activities.tell = self._wake.set
        self._unsubscribe = self._store.subscribe(self._told)
        self._thread = threading.Thread(target=self._run, name="replicas", daemon=True)
        self._thread.start()

    def stop(self) -> list[threading.Thread]:
        self._stopping.set()
        self._wake.set()
        self._unsubscribe()
        return [self._thread] if self._thread else []

    @property
    def alone(self) -> bool:
        return set(self._members) <= {self._holder}

    def patience(self, namespace: str, app: str) -> float:
        return 0.0 if self.alone else balance.patience(self._holder, self._weights, namespace, app)

    # --- for people ----------------------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """All of them, this one included."""
        return sorted(self._members.values(), key=lambda member: (member.name, member.holder))

    def shown(self) -> list[Document]:
        """The same as REST shows it."""
        return [
            {
                "name": member.name,
                "self": member.holder == self._holder,
                "reachesCluster": member.fit,
                "running": member.running,
                "workers": member.slots,
            }
            for member in self.members()
        ]

    # --- the thread ----------------------------------------------------------------------------------------------

    def _told(self, kind: str, key: str) -> None:
        if kind == REPLICA and key != self._holder:
            self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(BEAT)
            self._wake.clear()
            try:
                self._look_at_cluster()
                self._announce()
                self._listen()
                self._failing = False
            except StoreError as error:
                if not self._failing:
                    logger.error("nothing is known of other replicas: %s", error)
                self._failing = True
            except Exception:
                logger.exception("looking at other replicas failed")
            self._stopping.wait(AT_MOST)
        try:
            self._store.leave(self._holder)
        except StoreError as error:
            logger.warning("the others learn later that this replica is gone: %s", error)

    def _look_at_cluster(self) -> None:
        if time.monotonic() - self._looked < BEAT / 2:
            return
        self._why, self._looked = self._problem(), time.monotonic()
        if not self._why:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = time.monotonic()

    def _announce(self) -> None:
        doing = said(self._activities.all())
        says: Document = {
            "name": self._name,
            "slots": self._slots,
            "fit": self._lost_since is None,
            "running": len(doing),
            "started": self._started,
        }
        self._store.join(Replica(self._holder, says | {"activities": doing}), LEASE)

    def _listen(self) -> None:
        """Learn who is there and what they do."""
        found = self._store.replicas()
        before, self._members = self._members, {replica.holder: Member.of(replica) for replica in found}
        fit = {holder: member.slots for holder, member in self._members.items() if member.fit}
        # When nobody reaches the cluster, everybody waits for it with what they have.
        weights = fit or {holder: member.slots for holder, member in self._members.items()}
        changed, self._weights = weights != self._weights, weights
        self.others.hear([r.says.get("activities", []) for r in found if r.holder != self._holder])
        if before:  # who is new has just said what time it is
            self._compare_clocks([replica for replica in found if replica.holder not in before])
        gone = before.keys() - self._members.keys()
        if gone:
            logger.info("replicas are gone: %s", ", ".join(before[holder].name for holder in sorted(gone)))
        if changed or gone:
            self._moved(bool(gone))
        lost = 0.0 if self._lost_since is None else time.monotonic() - self._lost_since
        # By then the others have said how it is with them since.
        if fit and self._holder not in fit and lost >= UNFIT_AFTER:
            self._hand_over(f"the cluster cannot be reached from {self._name} ({self._why}); another replica goes on")

    def _compare_clocks(self, new: Iterable[Replica]) -> None:
        for replica in new:
            started = replica.says.get("started")
            ahead = float(started) - self._clock() if started else 0.0
            if abs(ahead) > SKEW:
                logger.error(
                    "the clock of replica %s is %.0f s %s that of %s: what begins to wait on one of them ends at the "
                    "wrong time on the other; have NTP set the clocks, then restart the replica whose was wrong",
                    *(replica.says.get("name"), abs(ahead), "ahead of" if ahead > 0 else "behind", self._name),
                )

"""Tells observers of deployments: each plugin in order from a durable queue of its own, and none waits for another.

Of several replicas one does it, under a lease. What it did not record of what it told, its successor tells again.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Protocol

from deployer.core import log_context
from deployer.core.backoff import Backoff
from deployer.core.calls import Invocation
from deployer.core.clock import SteadyClock
from deployer.core.contract.observer import Notification
from deployer.core.errors import PluginError, StaleRevision, StoreError
from deployer.core.model.records import Document, Event, new_id
from deployer.core.model.secrets import secrets_of
from deployer.core.operations.dependencies import Dependencies
from deployer.core.ports import observers as port
from deployer.core.ports.leases import LEASE, Held, Leases
from deployer.core.ports.redactor import Redactor
from deployer.core.ports.store import Delete, Store, Update

logger = logging.getLogger(__name__)

DEADLINE = 30.0
"""Seconds that an observer has for one call; a thread that goes on counts as hung."""

RETRY_FOR = 3600.0
"""Seconds for which an event is told again to an observer that fails, before it is dropped."""

PAUSE = 1.0
"""The first pause, in seconds, after an observer failed; doubled up to `PAUSE_MOST`."""

PAUSE_MOST = 60.0

CHANGES_KEPT = 1000
"""Deployments whose progress waits for an observer that is slow; the oldest is forgotten for another one."""

DUTY = ("!observers", "!observers")
"""Under which lease they are told: no namespace and no app has such a name."""

COUNTED = "!counted"
"""Among those who were told: whoever counts what happened, of which one replica is enough."""

STOPPING = 1.0
"""Seconds that a call under way gets when the service stops; what did not return is told again at the next start."""


class Observer(Protocol):
    """Whoever is told: a plugin with hooks for observers, or one of the observers that a plugin handed in."""

    @property
    def key(self) -> str:
        """Its name in logs, metrics and the store: `distribution:plugin`, perhaps with `/name`."""

    @property
    def hooks(self) -> frozenset[str]:
        """Of which it is told."""

    @property
    def tell(self) -> Callable[[Notification], None]:
        """Tells it. Raises PluginError, which says who raised what."""


class Observers(port.Observers):
    """The queues of all observers. What waits is in the store: an `Event` is there until every observer was told."""

    def __init__(
        self,
        store: Store,
        observers: Iterable[Observer],
        *,
        redactor: Redactor,
        secrets: Callable[[str], set[str] | None],
        clock: SteadyClock,
        hung: Callable[[threading.Thread], None],
        watch: Callable[[Event], None] | None = None,
        leases: Leases | None = None,
    ) -> None:
        """
        secrets   what must not be said of a deployment, as far as it is stored; may raise StoreError
        hung      is told of a thread that goes on past its deadline
        watch     is told everything too, at once and at least once; it neither fails nor waits
        leases    of this process; None when it is the only one
        """
        self._store = store
        self._watch = watch
        self._leases = leases
        self._held: Held | None = None
        self.redactor, self.secrets, self.clock, self.hung = redactor, secrets, clock, hung
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._events: dict[str, Event] = {}
        self._threads: list[threading.Thread] = []
        self.errors: Counter[str] = Counter()
        """Calls that failed, by observer."""
        self.dropped: Counter[str] = Counter()
        """Events that were given up, by observer."""
        self._queues = [_Queue(observer, self) for observer in observers]

    @classmethod
    def of(cls, needed: Dependencies, watch: Callable[[Event], None] | None = None) -> Observers:
        """Those of the plugins that are installed, for a service that is made of these parts."""
        return cls(
            needed.store,
            needed.registry.observers,
            redactor=needed.redactor,
            secrets=needed.deployment_log.secrets,
            clock=needed.clock,
            hung=needed.hung.add,
            watch=watch,
            leases=needed.leases,
        )

    def start(self) -> None:
        """Tell what is waiting, and whatever comes."""
        for name, target in [("observers", self._run), *((f"observer-{q.key}", q.run) for q in self._queues)]:
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._wake.set()

    def stop(self) -> list[threading.Thread]:
        """Tell no more, and return the threads that end now."""
        self._stopping.set()
        self._wake.set()
        for queue in self._queues:
            queue.stop()
        return self._threads

    def wake(self) -> None:
        """There may be something to tell. Returns at once."""
        self._wake.set()

    def changed(self, deployment: Document) -> None:
        """Tell of progress: transient, and of each deployment only the newest, when an observer is slow."""
        if not self.on_duty:
            return
        progress = Notification(new_id(), "deployment_changed", "", self.clock(), "", deployment)
        for queue in self._queues:
            queue.change(progress)

    @property
    def wanted(self) -> frozenset[str]:
        """The hooks that somebody implements."""
        return frozenset().union(*(queue.hooks for queue in self._queues))

    # --- the store -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(LEASE / 3 if self._leases is not None and not self.on_duty else None)
            self._wake.clear()
            try:
                if self._begin():
                    self._take_in()
            except StoreError as error:
                logger.error("observers are told later: %s", error)
                self._stopping.wait(PAUSE)
                self._wake.set()
        for thread in self._threads[1:]:
            thread.join(2 * STOPPING)
        if self._leases is not None and self._held is not None:
            self._leases.give_back(self._held)

    @property
    def on_duty(self) -> bool:
        """Is it this process that tells them?"""
        return self._leases is None or (self._held is not None and self._held.good)

    def _begin(self) -> bool:
        """Tell them from now on, if nobody else does. Raises StoreUnavailable."""
        if self.on_duty or self._leases is None:
            return True
        for queue in self._queues:
            queue.forget()
        with self._lock:
            self._events = {}
        if self._held is not None:
            self._leases.give_back(self._held)
        self._held = self._leases.take(*DUTY, lambda _: self._wake.set())
        return self._held is not None

    def _take_in(self) -> None:
        """Hand what is new to the observers that implement its hook; what nobody waits for is over."""
        found = self._store.find(Event)
        with self._lock:
            new = [event for event in found if event.id not in self._events]
            self._events = {e.id: self._events.get(e.id, e) for e in found}
            known = list(self._events.values())
        for event in new:
            for queue in self._queues:
                if queue.waits_for(event):
                    queue.put(event)
            if self._watch is not None and COUNTED not in event.told:
                self._watch(event)
        # All of them each time: one that the store would not let go of is tried again, not left until a restart.
        for event in known:
            if not self._pending(event):
                self._settle(event)

    def _pending(self, event: Event) -> bool:
        return any(queue.waits_for(event) for queue in self._queues)

    def told(self, event: Event, key: str) -> None:
        """Record that an observer needs it no more. Raises StoreError."""
        self._settle(event, key)

    def _settle(self, event: Event, key: str = "") -> None:
        """Add who was told, and delete the event when that were all."""
        with self._lock:
            while (current := self._events.get(event.id)) is not None:
                known = {*current.told, COUNTED, *([key] if key else [])}
                new = dataclasses.replace(current, told=sorted(known))
                try:
                    if self._pending(new):
                        new = dataclasses.replace(new, revision=self._store.commit(Update(new)))
                    else:
                        self._store.commit(Delete(new))
                except StaleRevision:  # another process was quicker
                    stored = self._store.get(Event, event.id)
                    if stored is None:
                        self._events.pop(event.id)
                    else:
                        self._events[event.id] = stored
                    continue
                self._events[event.id] = new
                return


class _Queue:
    """What one observer has yet to be told, in order."""

    def __init__(self, observer: Observer, owner: Observers) -> None:
        self._observer = observer
        self._owner = owner
        self._ready = threading.Condition()
        self._stopping = threading.Event()
        self._events: deque[Event] = deque()
        self._changes: dict[str, Notification] = {}
        self._call: Invocation[None] | None = None
        self._hanging: tuple[Notification, Invocation[None]] | None = None
        self._failing_since: float | None = None
        self._said = ""

    @property
    def key(self) -> str:
        return self._observer.key

    @property
    def hooks(self) -> frozenset[str]:
        return self._observer.hooks

    def waits_for(self, event: Event) -> bool:
        return event.name in self.hooks and self.key not in event.told

    def put(self, event: Event) -> None:
        """Tell it in its turn."""
        with self._ready:
            self._events.append(event)
            # What it has not heard yet of the progress until here is of no use any more.
            self._changes.pop(event.deployment["id"], None)
            self._ready.notify()

    def change(self, progress: Notification) -> None:
        """Tell of progress, after the events, unless something newer comes first."""
        if progress.hook in self.hooks:
            with self._ready:
                self._changes[progress.deployment["id"]] = progress
                if len(self._changes) > CHANGES_KEPT:
                    del self._changes[next(iter(self._changes))]
                self._ready.notify()

    def forget(self) -> None:
        """Another replica tells it."""
        with self._ready:
            self._events.clear()
            self._changes.clear()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()
        with self._ready:
            self._ready.notify()
            if self._call is not None:
                self._call.wake()

    def run(self) -> None:
        """Tell whatever comes until `stop`."""
        while not self._stopping.is_set():
            with self._ready:
                self._ready.wait_for(lambda: self._stopping.is_set() or self._events or self._changes)
                event = self._events[0] if self._events else None
                change = None if event or not self._changes else self._changes.pop(next(iter(self._changes)))
            if event is not None:
                over = self._deliver(event)
                with self._ready:
                    if over and self._events and self._events[0] is event:
                        self._events.popleft()
                if not over:  # another replica tells it now
                    self._stopping.wait(PAUSE)
            elif change is not None:
                self._once(change)

    def _tell(self, event: Event) -> bool:
        """Tell it until that succeeds or is given up, and record that. False when the service stops before."""
        again, failures = Backoff(PAUSE, PAUSE_MOST), 0
        told = Notification(
            event.id, event.name, event.occurrence, event.at, event.previous, event.deployment, event.operation
        )
        while not self._stopping.is_set() and self._owner.on_duty:
            if self._once(told):
                self._failing_since = None
                return self._record(event)
            now = self._owner.clock()
            self._failing_since = self._failing_since or now
            if now - max(self._failing_since, event.at) >= RETRY_FOR:
                self._owner.dropped[self.key] += 1
                logger.error(
                    "observer %s is not told of %s of deployment %s: it failed for %.3g s",
                    *(self.key, event.name, event.deployment["id"], RETRY_FOR),
                )
                return self._record(event)
            failures += 1
            self._stopping.wait(again.after(failures))
        return False

    def _deliver(self, event: Event) -> bool:
        ids = {key: str(event.operation.get(id) or "") for key, id in (("operation", "id"), ("request", "request"))}
        with log_context.about(namespace=event.namespace, app=event.app, deployment=event.deployment["id"], **ids):
            return self._tell(event)

    def _record(self, event: Event) -> bool:
        while not self._stopping.is_set() and self._owner.on_duty:
            try:
                self._owner.told(event, self.key)
            except StoreError as error:
                logger.error("that %s was told cannot be recorded yet: %s", self.key, error)
                self._stopping.wait(PAUSE)
            else:
                return True
        return False

    def _once(self, what: Notification) -> bool:
        """One call, if none hangs. True when it returned; of one that hung before, when it was the same call."""
        while not self._stopping.is_set():
            started, call = self._hanging or (what, self._start(what))
            if call is None:
                return False
            if not call.wait(DEADLINE):
                if self._stopping.is_set():
                    return call.done.wait(STOPPING) and self._succeeded(call)
                if self._hanging is None:
                    self._owner.hung(call.thread)
                    self._owner.errors[self.key] += 1
                    logger.error(
                        "observer %s hangs in %s; it is told nothing more until that returns", self.key, what.hook
                    )
                self._hanging = (started, call)
                return False
            self._hanging = None
            told = self._succeeded(call)
            if started == what:
                return told
        return False

    def _start(self, what: Notification) -> Invocation[None] | None:
        """None when it is not known what must not be said, or the service stops."""
        id = what.deployment["id"]
        try:
            secrets = secrets_of(what.deployment.get("descriptor", {}))  # also when its record is gone by now
            secrets |= self._owner.secrets(id) or set()
        except StoreError as error:
            logger.error("observer %s is told later: %s", self.key, error)
            return None

        def tell() -> None:
            with self._owner.redactor.about(id, secrets):
                try:
                    self._observer.tell(dataclasses.replace(what, deployment=copy.deepcopy(what.deployment)))
                except PluginError as error:
                    # Here, where it is known what must not be said: the traceback may quote the deployment.
                    self._say(str(error))
                    raise
                except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, its queue goes on
                    said = f"observer {self.key} raised {type(error).__name__} in {what.hook}"
                    self._say(said)
                    raise PluginError(said) from None
                if self._said:
                    self._said = ""
                    logger.info("observer %s takes what it is told again", self.key)

        with self._ready:
            if not self._stopping.is_set():
                self._call = Invocation(tell, f"observer-{self.key}")
                return self._call
        return None

    def _say(self, error: str) -> None:
        """Log why it failed, once for as long as it fails of the same."""
        if error != self._said:
            self._said = error
            logger.error("%s; it is told again later", error)

    def _succeeded(self, call: Invocation[None]) -> bool:
        try:
            call.result()
        except PluginError:
            self._owner.errors[self.key] += 1
            return False
        return True

"""Shared list-watch informers: what is in a namespace, kept up to date by one watch, and waiting for it to change.

The official client's informers are not used: they retry without a pause, hang on a silent stream and stop at the first
event that they cannot decode.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from deployer.core.backoff import Backoff
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import CONTROLLED_BY, ClusterEvent
from deployer.core.errors import (
    DeadlineExceeded,
    KubeError,
    KubeExpired,
    KubeUnavailable,
    Revoked,
)
from deployer.core.model.kind import Kind
from deployer.core.model.records import Document
from deployer.kube.client import REFUSALS_BORNE, SILENT, WATCH_SILENCE, KubeClient

T = TypeVar("T")
Pair = tuple[str, str]
Key = tuple[str, str]


INVOLVED = "@involved"
"""In an informer's selector for Events: the object that the Event is about, by uid or as `Kind/name`."""

IDLE = 60.0
"""Seconds after the last use for which an informer goes on watching."""

RECONNECT = Backoff(first=0.1, most=1.0, spread=(0.8, 1.2))
"""Pauses before connecting again: the first ones are quick, then about one a second."""

RELIST = Backoff(first=0.1, most=5.0, spread=(0.8, 1.2))
"""Pauses before listing again, when the server forgot (410), sent what cannot be read, or nothing."""

RETRY_AFTER_MOST = 60.0
"""A server that asks for more than this many seconds is asked again after as many."""

SAY_AGAIN = 1.0
"""Seconds after which whoever waits for an informer that is not up to date says so again to its scope."""

SETTLED = 5.0
"""A watch that lasted this many seconds counts as working, even when nothing happened."""

_log = logging.getLogger(__name__)


class _Undecodable(Exception):
    """A line of the watch could not be read: it is skipped, and listing again makes up for what it said."""


Met = Callable[[Sequence[Document]], bool]


class _Waiter:
    """Who waits for objects that match a selector: for any change of them, or until they are as `met` wants.

    `wake` is called under the informer's lock.
    """

    def __init__(self, selector: Mapping[str, str], wake: Callable[[], None], met: Met | None = None) -> None:
        self.selector = dict(selector)
        self.met = met
        self.anchor = next(iter(self.selector.items()), None)
        self.wake = wake
        self.error: KubeError | None = None


class Informer:
    """The objects of one kind in one namespace (None: in all). Watches while it is used, and a minute longer.

    The dicts that it gives are shared by everybody: never change them. `skipped` counts undecodable events, `problem`
    is why it is not up to date now (empty when it is).
    """

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        namespace: str | None,
        *,
        silence: float = WATCH_SILENCE,
        idle: float = IDLE,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.skipped = 0
        self.problem = ""
        self._client = client
        self._silence = silence
        self._idle = idle
        self._lock = threading.Lock()
        self._scope = CancelScope()
        self._thread: threading.Thread | None = None
        self._used = 0.0
        self._waiting = 0
        self._synced = False
        self._moves = 0
        self._failed: tuple[float, KubeError] | None = None
        self._version = ""
        self._objects: dict[Key, Document] = {}
        self._index: defaultdict[Pair, dict[Key, Document]] = defaultdict(dict)
        self._waiters: defaultdict[Pair | None, set[_Waiter]] = defaultdict(set)

    # --- using ----------------------------------------------------------------------------------------------------

    def items(self, labels: Mapping[str, str] | None = None, scope: CancelScope | None = None) -> list[Document]:
        """What is known now; blocks only until the first list is there. Raises KubeError, and what the scope raises."""
        scope = scope or CancelScope(time.monotonic() + 30.0)
        return self.wait(lambda found: (found,), scope, labels=labels)[0]

    def known(self, labels: Mapping[str, str] | None = None) -> list[Document]:
        """Like `items`, but at once: nothing until the first list is there. Raises KubeError when it may not look, or
        might not a few seconds ago."""
        with self._lock:
            if self._failed is not None and time.monotonic() - self._failed[0] < SETTLED:
                raise self._failed[1]
            self._start()
            return self._select(labels or {}) if self._synced else []

    @property
    def listed(self) -> bool:
        """Is the first list there?"""
        return self._synced

    @property
    def moved(self) -> tuple[int, bool, str]:
        """What differs whenever what is known does. Asking counts as use."""
        self._used = time.monotonic()
        return self._moves, self._synced, self.problem

    def synced(self, scope: CancelScope) -> None:
        """Wait for the first list."""
        self.items({CONTROLLED_BY: ""}, scope)

    def wait(
        self,
        condition: Callable[[list[Document]], T | None],
        scope: CancelScope,
        *,
        labels: Mapping[str, str] | None = None,
        recheck: float | None = None,
        event: threading.Event | None = None,
    ) -> T:
        """The first truthy answer of `condition`, which is asked about the matching objects, first once the informer
        is synced and then whenever one of them appears, changes or goes; also every `recheck` seconds, for conditions
        in which time plays a part, and when somebody sets `event`, for those that look at more than these objects
        (`waking`). Raises KubeError when the informer may not look, and what the scope raises.
        """
        event = event or threading.Event()
        try:
            with self.waking(event, labels) as waiter:
                woken = True
                while True:
                    scope.check()
                    event.clear()
                    with self._lock:
                        if waiter.error is not None:
                            raise waiter.error
                        self._start()
                        found = self._select(waiter.selector) if self._synced else None
                        problem = self.problem
                    scope.report(f"{self.kind.plural} in {self.namespace}", problem)
                    # Time that passes while nothing is heard says nothing about the objects.
                    if found is not None and (woken or not problem) and (answer := condition(found)):
                        return answer
                    pause = float("inf") if recheck is None or found is None else recheck
                    woken = scope.wait(event, min(pause, SAY_AGAIN) if problem else pause)
        except DeadlineExceeded as over:
            if self.problem:
                raise DeadlineExceeded(f"{over}; {self.problem}") from KubeUnavailable(self.problem)
            raise

    @contextlib.contextmanager
    def waking(self, event: threading.Event, labels: Mapping[str, str] | None = None) -> Iterator[_Waiter]:
        """Set `event` whenever one of the matching objects appears, changes or goes."""
        waiter = _Waiter(labels or {}, event.set)
        with self._lock:
            self._add(waiter)
        try:
            yield waiter
        finally:
            self._forget(waiter)

    def on_event(self, event: ClusterEvent, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when the event has come (at once if that is so already, and with each change of the objects as
        long as it is), or the informer may not look. Returns the function that unsubscribes. `wake` must only set a
        flag: it runs under the informer's lock.
        """
        waiter = _Waiter(event.labels, wake, event.has_come)
        with self._lock:
            self._add(waiter)
            self._start()
            self._tell(waiter)
        return lambda: self._forget(waiter)

    def _add(self, waiter: _Waiter) -> None:
        self._waiters[waiter.anchor].add(waiter)
        self._waiting += 1

    def _forget(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter not in self._waiters.get(waiter.anchor, ()):
                return
            self._waiting -= 1
            self._used = time.monotonic()
            self._waiters[waiter.anchor].discard(waiter)
            if not self._waiters[waiter.anchor]:
                del self._waiters[waiter.anchor]

    def stop(self) -> None:
        """Begin to end; `close` waits for it."""
        self._scope.close(Revoked("the service is stopping"))

    def close(self) -> None:
        """End the watch and everybody's waiting."""
        self.stop()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(15.0)
        with self._lock:
            self._fail(KubeUnavailable("the service is stopping"))

    # --- the state, under the lock --------------------------------------------------------------------------------

    def _select(self, selector: Mapping[str, str]) -> list[Document]:
        if not selector:
            return list(self._objects.values())
        sets = [self._index.get(pair, {}) for pair in selector.items()]
        smallest, *others = sorted(sets, key=len)
        return [found for key, found in smallest.items() if all(key in other for other in others)]

    def _put(self, key: Key, found: Document | None) -> None:
        """Store the object (None: it is gone) and wake who waits for what it was or has become. Raises _Undecodable."""
        self._moves += 1
        after = _pairs(found) if found is not None else frozenset()
        old = self._objects.pop(key, None)
        before = _pairs(old) if old is not None else frozenset()
        for pair in before:
            self._index[pair].pop(key, None)
            if not self._index[pair]:
                del self._index[pair]
        if found is not None:
            self._objects[key] = found
            for pair in after:
                self._index[pair][key] = found
        for anchor in (None, *(before | after)):
            for waiter in self._waiters.get(anchor, ()):
                wanted = waiter.selector.items()
                if wanted <= before or wanted <= after:
                    self._tell(waiter)

    def _replace(self, items: Iterable[Document], version: str) -> None:
        """Make a list the state."""
        with self._lock:
            gone = set(self._objects)
            for item in items:
                try:
                    key = _key(item)
                    known = self._objects.get(key)
                    if known is None or _version(known) != _version(item):
                        self._put(key, item)
                    gone.discard(key)
                except _Undecodable:
                    self.skipped += 1
            for key in gone:
                self._put(key, None)
            self._version, self.problem = version, ""

    def _opened(self) -> None:
        """The watch is granted. A list alone does not count: what nobody may watch would be out of date for ever."""
        with self._lock:
            self.problem, self._failed = "", None
            if not self._synced:
                self._synced = True
                for waiter in self._everybody():
                    self._tell(waiter)

    def _fail(self, error: KubeError) -> None:
        """Let everybody who waits now raise it. Who comes later asks the server, which may think otherwise by then."""
        self._reset()
        self._failed = (time.monotonic(), error)
        for waiter in self._everybody():
            waiter.error = error
            waiter.wake()

    def _everybody(self) -> Iterator[_Waiter]:
        for waiters in self._waiters.values():
            yield from waiters

    def _tell(self, waiter: _Waiter) -> None:
        """Wake it, unless it waits for something that has not come."""
        if waiter.met is None or (self._synced and waiter.met(self._select(waiter.selector))):
            waiter.wake()

    # --- the thread -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._used = time.monotonic()
        if self._thread is None:
            self._scope.check()
            name = f"mirror-{self.kind.plural}-{self.namespace or 'all'}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def _rest(self) -> bool:
        """Stop when nobody has used it for a while."""
        with self._lock:
            if self._waiting or time.monotonic() - self._used < self._idle:
                return False
            self._reset()
            return True

    def _reset(self) -> None:
        self._thread = None
        self._synced, self._version, self.problem = False, "", ""
        self._objects.clear()
        self._index.clear()

    def _run(self) -> None:
        try:
            self._keep_up()
        except Revoked:
            return
        except KubeError as error:
            with self._lock:
                self._fail(error)
        except Exception as error:  # noqa: BLE001
            # A defect must not leave waiters hanging until their deadlines without a word.
            _log.exception("the mirror of %s in %s broke", self.kind.plural, self.namespace)
            with self._lock:
                self._fail(KubeUnavailable(f"the mirror of {self.kind.plural} broke: {error}"))

    def _keep_up(self) -> None:
        """List, watch, and begin again after a pause, until it is closed or idle. Raises KubeError when it may not."""
        failures = 0
        while True:
            began, wait = time.monotonic(), 0.0
            try:
                if not self._version:
                    items, version = self._client.list(self.kind, self.namespace, scope=self._scope, retry=False)
                    self._replace(items, version)
                if self._follow():
                    return
            except (KubeError, _Undecodable) as error:
                wait = self._after(error, failures)
            failures = 1 if time.monotonic() - began >= SETTLED else min(failures + 1, 20)
            backoff = RECONNECT if self._version else RELIST
            self._scope.pause(max(wait, backoff.after(failures)))
            if self._rest():
                return

    def _follow(self) -> bool:
        """Apply one watch's events until it ends; True when the informer has gone to rest meanwhile."""
        events = self._client.watch(
            self.kind, self.namespace, self._version, scope=self._scope, silence=self._silence, opened=self._opened
        )
        with contextlib.closing(events):
            for type_, found in events:
                if type_ not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
                    raise _Undecodable
                key, version = ("", "") if type_ == "BOOKMARK" else _key(found), _version(found)
                with self._lock:
                    if type_ != "BOOKMARK":
                        self._put(key, None if type_ == "DELETED" else found)
                    self._version, self.problem = version, ""
                if self._rest():
                    return True
        return False

    def _after(self, error: Exception, failures: int) -> float:
        """What an error means for the state; seconds to wait at least. Raises it when waiting does not help."""
        if isinstance(error, _Undecodable):
            self.skipped += 1
            self._version = ""
            _log.warning("skipped an event of %s in %s that cannot be read", self.kind.plural, self.namespace)
            return 0.0
        assert isinstance(error, KubeError)
        if isinstance(error, KubeExpired):
            # It may watch; and what the last list said is as good as a list can be.
            self._opened()
            self._version = ""
        elif error.reason == SILENT:
            # Perhaps nothing happened; but a server that is cut off from its store says nothing either, and a new
            # watch would wait as long for what a list tells at once.
            self._version = ""
            self._obstructed(str(error))
        elif isinstance(error, KubeUnavailable) or (error.status == 401 and self._bears_refusals(failures)):
            self._obstructed(str(error))
        else:
            raise error
        return min(error.retry_after or 0.0, RETRY_AFTER_MOST)

    def _obstructed(self, problem: str) -> None:
        """It is not up to date from now on: who waits for objects wakes up to say so."""
        with self._lock:
            before, self.problem = self.problem, problem
            if not before:
                for waiter in self._everybody():
                    self._tell(waiter)

    def _bears_refusals(self, failures: int) -> bool:
        """Is a 401 a token that changes hands, not a missing right?"""
        return failures <= REFUSALS_BORNE or self._client.changing_hands


class Informers:
    """One informer for each kind and namespace that somebody looks at."""

    def __init__(self, client: KubeClient, *, silence: float = WATCH_SILENCE, idle: float = IDLE) -> None:
        self._client = client
        self._silence = silence
        self._idle = idle
        self._lock = threading.Lock()
        self._informers: dict[tuple[Kind, str | None], Informer] = {}
        self._closed = False

    def get(self, kind: Kind, namespace: str | None) -> Informer:
        """The shared informer. It begins to watch when it is first asked something. Raises Revoked after `close`."""
        with self._lock:
            if self._closed:
                raise Revoked("the service is stopping")
            key = (kind, namespace)
            if key not in self._informers:
                self._informers[key] = Informer(self._client, kind, namespace, silence=self._silence, idle=self._idle)
            return self._informers[key]

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            self._closed = True
            informers = list(self._informers.values())
        for informer in informers:
            informer.stop()
        for informer in informers:
            informer.close()


def _key(found: Document) -> Key:
    metadata = found.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str):
        raise _Undecodable
    return str(metadata.get("namespace", "")), name


def _version(found: Document) -> str:
    metadata = found.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise _Undecodable
    return version


def _pairs(found: Document) -> frozenset[Pair]:
    """What the object can be selected by."""
    try:
        metadata = found["metadata"]
        pairs = set((metadata.get("labels") or {}).items())
        for owner in metadata.get("ownerReferences") or ():
            if owner.get("controller"):
                pairs.add((CONTROLLED_BY, owner["uid"]))
        if "involvedObject" in found:
            about = found["involvedObject"]
            pairs.add((INVOLVED, about.get("uid", "")))
            pairs.add((INVOLVED, f"{about.get('kind', '')}/{about.get('name', '')}"))
        return frozenset(pairs)
    except (KeyError, TypeError, AttributeError) as error:
        raise _Undecodable from error

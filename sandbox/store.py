"""Objects in memory, one revision counter for all of them, and the recent history that watches start from.

Everything runs on one event loop, so there are no locks. Objects are replaced whole, never changed in place.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

from deployer.sandbox.kinds import KINDS, Key, Kind, Object, key_of, owner_references
from deployer.sandbox.status import not_found

HISTORY = 2000
"""Changes that a watch can start from, over all kinds; older ones are answered with 410."""


@dataclass(frozen=True)
class Change:
    """One write; `old` is None for ADDED, `obj` is the last state for DELETED."""

    revision: int
    kind: Kind
    type: str
    obj: Object
    old: Object | None


Listener = Callable[[Change], None]


class Store:
    """All objects. Listeners are called within the write: they note what to do and never write themselves."""

    def __init__(self) -> None:
        # Starts from the clock so that a version from an earlier sandbox counts as too old, not as one of this sandbox.
        self.revision = int(time.time()) * 1000
        self.compacted = self.revision
        self.history: deque[Change] = deque()
        self._objects: dict[Kind, dict[str, dict[str, Object]]] = {kind: {} for kind in KINDS}
        self._places: dict[str, tuple[Kind, Key]] = {}
        self._dependents: dict[str, set[str]] = {}
        self._listeners: list[Listener] = []

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Raises the 404."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise not_found(kind, name)
        return found

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self._objects.get(kind, {}).get(namespace, {}).get(name)

    def find_uid(self, uid: str) -> tuple[Kind, Object] | None:
        if uid not in self._places:
            return None
        kind, key = self._places[uid]
        return kind, self.get(kind, *key)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Those that are always there, and all others that ever had an object."""
        return tuple(self._objects)

    def list(self, kind: Kind, namespace: str = "") -> list[Object]:
        """In order of creation; every namespace when none is given."""
        spaces = self._objects.get(kind, {})
        chosen = [spaces.get(namespace, {})] if namespace else spaces.values()
        return [obj for space in chosen for obj in space.values()]

    def dependents(self, uid: str) -> Iterator[tuple[Kind, Object]]:
        """Objects with an owner reference to this uid."""
        for dependent in sorted(self._dependents.get(uid, ())):
            if place := self.find_uid(dependent):
                yield place

    def write(self, kind: Kind, obj: Object) -> Object:
        """Adds or replaces; gives the object its resourceVersion."""
        namespace, name = key_of(obj)
        old = self.find(kind, namespace, name)
        self._objects.setdefault(kind, {}).setdefault(namespace, {})[name] = obj
        self._index(kind, obj, old)
        return self._commit(kind, "MODIFIED" if old else "ADDED", obj, old)

    def change(self, kind: Kind, key: Key, edit: Callable[[Object], None]) -> Object | None:
        """Applies an edit to a copy and writes it if it changed something; None when the object is gone.

        An object that is being deleted goes for good when the edit removes its last finalizer.
        """
        old = self.find(kind, *key)
        if old is None:
            return None
        new = deepcopy(old)
        edit(new)
        if new == old:
            return old
        had, has = (bool(obj["metadata"].get("finalizers")) for obj in (old, new))
        written = self.write(kind, new)
        if (
            had
            and not has
            and "deletionTimestamp" in new["metadata"]
            and not new["metadata"].get("deletionGracePeriodSeconds")
        ):
            self.remove(kind, key)
        return written

    def remove(self, kind: Kind, key: Key) -> Object | None:
        space = self._objects.get(kind, {}).get(key[0], {})
        old = space.pop(key[1], None)
        if old is None:
            return None
        if not space:
            self._objects[kind].pop(key[0], None)
        self._index(kind, None, old)
        return self._commit(kind, "DELETED", old | {"metadata": dict(old["metadata"])}, old)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def compact(self) -> None:
        """Forgets the history: every older revision is then too old for a watch."""
        self.history.clear()
        self.compacted = self.revision

    def _commit(self, kind: Kind, event: str, obj: Object, old: Object | None) -> Object:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        change = Change(self.revision, kind, event, obj, old)
        self.history.append(change)
        if len(self.history) > HISTORY:
            self.compacted = self.history.popleft().revision
        for listener in list(self._listeners):
            listener(change)
        return obj

    def _index(self, kind: Kind, new: Object | None, old: Object | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        for reference in owner_references(old) if old else ():
            self._dependents.get(reference["uid"], set()).discard(uid)
            if not self._dependents.get(reference["uid"], True):
                del self._dependents[reference["uid"]]
        if new is None:
            self._places.pop(uid, None)
            return
        self._places[uid] = (kind, key_of(new))
        for reference in owner_references(new):
            self._dependents.setdefault(reference["uid"], set()).add(uid)

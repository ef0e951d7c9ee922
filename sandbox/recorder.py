"""Events, counted up when they repeat, as the controllers and the kubelet of a cluster write them."""

import time
import uuid

from deployer.sandbox.kinds import EVENT, NAMESPACE, Kind, Object, timestamp
from deployer.sandbox.store import Store

KEPT = 3600.0
"""Seconds that an event is kept; the real server's default."""


class Recorder:
    """Writes the events of one component."""

    def __init__(self, store: Store, component: str) -> None:
        self._store, self._component = store, component
        self._seen: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._swept = time.monotonic()

    def normal(self, kind: Kind, obj: Object, reason: str, message: str, field: str = "") -> None:
        self._record("Normal", kind, obj, reason=reason, message=message, field=field)

    def warning(self, kind: Kind, obj: Object, reason: str, message: str, field: str = "") -> None:
        self._record("Warning", kind, obj, reason=reason, message=message, field=field)

    def _record(self, level: str, kind: Kind, obj: Object, *, reason: str, message: str, field: str) -> None:
        meta, now = obj["metadata"], timestamp()
        namespace = meta.get("namespace", "default")
        seen = (meta["uid"], reason, message)
        if (key := self._seen.get(seen)) and (known := self._store.find(EVENT, *key)):
            again = known | {"metadata": dict(known["metadata"]), "count": known["count"] + 1, "lastTimestamp": now}
            self._store.write(EVENT, again)
            return
        self._sweep()
        space = self._store.find(NAMESPACE, "", namespace)
        if space is None or "deletionTimestamp" in space["metadata"]:
            return  # nothing can be created there any more
        name = f"{meta['name']}.{uuid.uuid4().hex[:16]}"
        involved = {"kind": kind.name, "namespace": meta.get("namespace"), "name": meta["name"], "uid": meta["uid"]}
        involved |= {"apiVersion": kind.api_version, "resourceVersion": meta.get("resourceVersion"), "fieldPath": field}
        event: Object = {"apiVersion": "v1", "kind": "Event"}
        event["metadata"] = {"name": name, "namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now}
        event["involvedObject"] = {key: value for key, value in involved.items() if value}
        event |= {"reason": reason, "message": message, "source": {"component": self._component}, "type": level}
        event |= {"firstTimestamp": now, "lastTimestamp": now, "count": 1, "eventTime": None}
        event |= {"reportingComponent": self._component, "reportingInstance": ""}
        self._store.write(EVENT, event)
        self._seen[seen] = (namespace, name)

    def _sweep(self) -> None:
        if time.monotonic() < self._swept + 60:
            return
        self._swept, limit = time.monotonic(), timestamp(time.time() - KEPT)
        for seen, key in list(self._seen.items()):
            event = self._store.find(EVENT, *key)
            if event is None or event["lastTimestamp"] < limit:
                self._store.remove(EVENT, key)
                del self._seen[seen]

"""What other replicas do at this moment: said by them with each sign of life, for people who ask this one."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from deployer.core.model.operation.timeline import Timeline
from deployer.core.model.records import Document, Operation, OperationState
from deployer.core.operations.activity import Activity

AHEAD = ("state", "due", "attempts")
"""Fields of an operation which whoever carries it out may know before they are durable, as they are in JSON."""


def said(activities: Iterable[Activity]) -> list[Document]:
    """What this process says of what it does. Nothing of what steps remember is in it."""
    return [_said(activity) for activity in activities]


def _said(activity: Activity) -> Document:
    operation = activity.operation
    document: Document = {"operation": operation.id, "namespace": operation.namespace, "revision": operation.revision}
    document |= {name: getattr(operation, name) for name in AHEAD}
    document |= {"steps": dict(operation.steps), "timeline": operation.timeline.to_document()}
    own = ("step", "since", "deadline", "waits", "held")
    return document | {name: getattr(activity, name) for name in own}


class OthersActivities:
    """Of the other replicas, as they said last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, Document] = {}
        self._moved: Counter[str] = Counter()

    def hear(self, of_each: Sequence[Sequence[Document]]) -> None:
        """This is what all of them do now."""
        heard = {document["operation"]: document for documents in of_each for document in documents}
        with self._lock:
            ids = {*heard, *self._now}
            for id in {id for id in ids if heard.get(id) != self._now.get(id)}:
                self._moved[(heard.get(id) or self._now[id])["namespace"]] += 1
            self._now = heard

    def of(self, operation: Operation) -> Activity | None:
        """What one of them does for it; None when that is nothing."""
        known = self._now.get(operation.id)
        if known is None:
            return None
        if known["revision"] == operation.revision:
            operation = dataclasses.replace(operation, **_ahead(known))
        own: dict[str, Any] = {name: known[name] for name in ("step", "since", "deadline", "waits", "held")}
        return Activity(operation=operation, **own)

    def moved(self, namespace: str) -> int:
        """A number that grows with every change in that namespace."""
        return self._moved[namespace]


def _ahead(known: Document) -> dict[str, Any]:
    fields = {name: known[name] for name in AHEAD}
    fields["state"] = OperationState(fields["state"])
    return fields | {"steps": known["steps"], "timeline": Timeline.from_document(known["timeline"])}

"""Lanes: what is open of one app, which of it comes next, and when this process may take that up."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from deployer.core.model.records import Operation, OperationKind
from deployer.core.operations.execution.executor import Executor

Lane = tuple[str, str]
"""Whose operations take turns, under one lease: a namespace, and an app, or `WATCHING` an app."""

WATCHING = "!watch"
"""At the end of an app's name, where no app can have it. A watch changes nothing, so it goes on beside whatever is done
to the app meanwhile: a version may fail while the next one is started."""


def app_of(lane: Lane) -> tuple[str, str]:
    """Namespace and app."""
    return lane[0], lane[1].removesuffix(WATCHING)


def lane_of(operation: Operation) -> Lane:
    """In which it takes its turn."""
    watches = operation.kind is OperationKind.WATCH
    return operation.namespace, operation.app + (WATCHING if watches else "")


@dataclass(slots=True)
class Queue:
    """What is open in one lane, by operation id, and what is running. `early`: ids to take up before they are due.

    seen   of what comes next, the id and revision, and since when it is as it is
    """

    operations: dict[str, Operation] = field(default_factory=dict)
    early: set[str] = field(default_factory=set)
    executor: Executor | None = None
    busy: bool = False
    not_before: float = 0.0
    failures: int = 0
    seen: tuple[str, int, float] = ("", 0, 0.0)

    def next(self, now: float, watched: Collection[str] = ()) -> Operation | None:
        """What has begun comes first, alone; else the lowest that is due, old versions' retirements before the others.

        So a burst of deployments does not pile up old versions, and what a new version dropped is out of the way. Of
        the others only the one that came first, which may wait for a retirement: nobody overtakes it, but a rollback,
        which may be one that nobody asked for. `watched`: ids of deployments for which the version before is kept.
        """
        if self.busy:
            return None
        ordered = sorted(
            (o for o in self.operations.values() if not _is_kept(o, watched)),
            key=lambda o: (not o.aside, not o.target.drop, o.kind is not OperationKind.ROLLBACK, o.sequence, o.id),
        )
        if not ordered:
            return None
        begun = next((o for o in ordered if o.begun), None)
        if begun is not None:
            return begun
        others = [o for o in ordered if not o.aside]
        ordered = [*(o for o in ordered if o.aside), *others[:1]]
        return next((o for o in ordered if self._due(o) <= now), min(ordered, key=self._due))

    def due(self, operation: Operation) -> float:
        """When it may be taken up, by the engine's clock."""
        return max(self._due(operation), self.not_before)

    def mine(self, operation: Operation, now: float, patience: float) -> float:
        """When this process may take it up, if nobody else has done anything about it for `patience` seconds."""
        if self.seen[:2] != (operation.id, operation.revision):
            self.seen = (operation.id, operation.revision, now)
        return max(self.due(operation), self.seen[2]) + patience

    def _due(self, operation: Operation) -> float:
        awaited = operation.target.awaits
        ready = operation.id in self.early or (bool(awaited) and awaited not in self.operations)
        return 0.0 if ready else operation.due


def _is_kept(operation: Operation, watched: Collection[str]) -> bool:
    """Is it the retirement, not begun yet, of a version to which one of the watched may have to go back? Without a time
    it is of one to which nobody can."""
    retires = operation.kind is OperationKind.RETIRE and operation.target.previous and not operation.target.drop
    begun = operation.begun or operation.steps or operation.attempts
    return bool(retires and operation.due) and not begun and operation.target.by in watched

"""How far a deployment is, for people to read: from what is durable, and from what the process knows besides that
carries it out, be it this one or another replica.

Reading it writes nothing. After a restart all that is durable is still there: phase, step, times, what is waited for;
what only the process knew (how long a step may still take, what it waits for within itself) comes with the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from deployer.core.clock import SteadyClock, wall_clock
from deployer.core.model.operation import timeline
from deployer.core.model.records import Deployment, Document, Operation, OperationKind, OperationState, Status
from deployer.core.operations.activity import Activities, Activity
from deployer.core.ports.store import Store

QUEUED, DECIDE, UNDO, WATCH, DRAIN = "QUEUED", "DECIDE", "UNDO", "WATCH", "DRAIN"
"""Phases beside those of steps: waiting for its turn; being decided; going back; live, and looked after; replaced, and
still warm."""

WHAT = {
    OperationKind.DEPLOY: "the deployment",
    OperationKind.ROLLBACK: "the rollback to",
    OperationKind.UNDEPLOY: "the undeployment of",
    OperationKind.RETIRE: "the removal of",
    OperationKind.WATCH: "the watch over",
}
"""How an operation is called in front of a deployment's id."""

_FIRST = (
    OperationKind.ROLLBACK,
    OperationKind.DEPLOY,
    OperationKind.UNDEPLOY,
    OperationKind.WATCH,
    OperationKind.RETIRE,
)
"""Of several operations of a deployment, the one that people want to know of."""

_DRIFT = 1.5
"""Seconds by which the system's clock must differ from the service's own for times to be shown by the former."""


class Others(Protocol):
    """What other replicas do."""

    def of(self, operation: Operation) -> Activity | None:
        """As `Activities.of`."""

    def moved(self, namespace: str) -> int:
        """As `Activities.moved`."""


class Progress:
    """Of deployments. `activities` and `clock` are the engine's; `wall` is the system's clock; `others` are what other
    replicas do."""

    def __init__(
        self,
        store: Store,
        activities: Activities | None = None,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] = wall_clock,
        others: Others | None = None,
    ) -> None:
        self._store = store
        self._activities = activities or Activities()
        self._others = others or Activities()
        self._clock = clock or SteadyClock(wall)
        self._wall = wall

    def moved(self, namespace: str) -> tuple[int, int, int]:
        """What differs whenever anything in the namespace may be shown differently."""
        moved = self._activities.moved(namespace) + self._others.moved(namespace)
        return self._store.changed(namespace), moved, self._drift()

    def of(self, deployment: Deployment) -> Document:
        """`phase`, `step`, `since`, `deadline`, `waitingFor`, `held` as far as there is anything to say; `steps`."""
        return self.among(deployment, self.open(deployment.namespace, deployment.app))

    def open(self, namespace: str, app: str | None = None) -> dict[str, list[Operation]]:
        """What is not ended, by app."""
        found: dict[str, list[Operation]] = {}
        for operation in self._store.find(Operation, tag="open", namespace=namespace, app=app):
            found.setdefault(operation.app, []).append(operation)
        return found

    def among(self, deployment: Deployment, waiting: Mapping[str, Sequence[Operation]]) -> Document:
        """The same, where the open operations are known."""
        of_app = waiting.get(deployment.app, ())
        mine = [operation for operation in of_app if operation.deployment == deployment.id]
        if not mine:
            return {"steps": deployment.steps}
        # A watch notices a moment later that its version was replaced.
        over = () if deployment.status is Status.DEPLOYED else (OperationKind.WATCH,)
        stored = min(mine, key=lambda o: (o.kind in over, not o.begun, _FIRST.index(o.kind)))
        activity = self._activities.of(stored) or self._others.of(stored)
        operation = stored
        if activity is not None and activity.operation.revision >= stored.revision:
            operation = activity.operation  # as its process has it, which is written with what comes next
        said = _Said(deployment, operation, activity, of_app)
        took_over = self._store.get(Deployment, operation.target.by) if said.phase == DRAIN else None
        document: Document = {"phase": said.phase}
        document |= {"step": said.step} if said.step else {}
        since = said.since if isinstance(said.since, str) else self._written(said.since) if said.since else ""
        since = took_over.went_live or since if took_over is not None else since
        document |= {"since": since} if since else {}
        document |= {"deadline": self._written(said.deadline)} if said.deadline else {}
        document |= {"held": said.held} if said.held else {}
        waits = "" if said.held else said.waits
        document |= {"waitingFor": waits} if waits else {}
        return document | {"steps": [*deployment.steps, *operation.timeline.shown(self._written)]}

    # --- times ---------------------------------------------------------------------------------------------------

    def _drift(self) -> int:
        """Whole seconds by which the system's clock is ahead, since somebody has set it."""
        drift = self._wall() - self._clock()
        return round(drift) if abs(drift) >= _DRIFT else 0

    def _written(self, seconds: float) -> str:
        """A moment by the engine's clock, as the system's clock shows it."""
        return timeline.written(seconds + self._drift())


class _Said:
    """What there is to say of one operation; times by the engine's clock, 0 where there is none."""

    def __init__(
        self, deployment: Deployment, operation: Operation, activity: Activity | None, of_app: Sequence[Operation]
    ) -> None:
        self._deployment = deployment
        self._operation = operation
        self._activity = activity
        self._of_app = of_app
        self._current = operation.timeline.current
        doing = activity is not None and bool(activity.step) and activity.step == self.step
        self._doing = activity if doing else None
        """What is done for that very step."""

    @property
    def _retires(self) -> bool:
        """It will be removed, and is warm until then."""
        operation = self._operation
        removes = operation.kind is OperationKind.RETIRE and operation.target.previous and not operation.target.drop
        return bool(removes) and not operation.begun and not operation.steps and not operation.attempts

    @property
    def phase(self) -> str:
        """Never empty."""
        operation = self._operation
        if operation.state is OperationState.UNDOING:
            return UNDO
        if operation.kind is OperationKind.WATCH:
            return WATCH
        if self._retires:
            return DRAIN
        if operation.state is OperationState.QUEUED and not operation.aside:
            decides = self._activity is not None and not operation.target.awaits and not self._activity.held
            return DECIDE if decides and operation.kind is not OperationKind.UNDEPLOY else QUEUED
        steps = operation.timeline.steps
        comes = self._current or next((step for step in steps if not step.began), None) or next(iter(steps[-1:]), None)
        if comes and comes.phase:
            return comes.phase
        return "START" if operation.kind in (OperationKind.DEPLOY, OperationKind.ROLLBACK) else "RETIRE"

    @property
    def step(self) -> str:
        """Empty between two."""
        if self._operation.state is OperationState.UNDOING:
            return self._activity.step if self._activity else ""
        return self._current.id if self._current else ""

    @property
    def since(self) -> float | str:
        """When that began; as text what a record has by the system's clock."""
        operation = self._operation
        if operation.state is OperationState.UNDOING:
            return max((step.ended for step in operation.timeline.steps), default=0.0)
        if self.phase == WATCH:
            return self._deployment.went_live
        if self.phase == DRAIN:
            return self._deployment.last_modified
        if self._current is not None:
            return self._current.began
        if self.phase in (QUEUED, DECIDE):
            asked = operation.timeline.asked
            return timeline.written(asked) if asked else self._deployment.created
        return max((step.ended for step in operation.timeline.steps), default=0.0)

    @property
    def deadline(self) -> float:
        """When it ends, or is given up, at the latest."""
        operation = self._operation
        if self.held:
            return 0.0
        if self.phase == WATCH:
            return operation.target.until
        if self._doing is not None:
            return self._doing.deadline
        return 0.0 if operation.attempts else operation.timeline.until or operation.due

    @property
    def held(self) -> str:
        """Why nobody can go on."""
        if self._activity is not None and self._activity.held:
            return self._activity.held
        return self._operation.timeline.waits if self._operation.timeline.held else ""

    @property
    def waits(self) -> str:
        """What follows "waiting for"."""
        operation, known = self._operation, self._operation.timeline.waits
        if operation.attempts and known:
            return f"the next attempt: {known}"
        if said := (self._doing.waits if self._doing else "") or known:
            return said
        if self.phase == DRAIN:
            kept = f"the end of the time for which version {self._deployment.version} is kept"
            goes = self._deployment.status is Status.FAILURE  # it was rolled back
            return kept if goes else f"{kept}; until then a rollback to it is one switch"
        if self.phase == WATCH:
            return self._watched()
        if self.phase == QUEUED:
            return self._behind()
        parked = self._activity is None and self._current is not None and operation.due
        return f"the time for which step {self.step} waits" if parked else ""

    def _watched(self) -> str:
        waits = f"version {self._deployment.version} to prove itself"
        for o in self._of_app:
            begun = o.begun or o.steps or o.attempts
            if o.target.by == self._deployment.id and (before := o.target.previous) and not o.target.drop and not begun:
                warm = f"until then version {before.version} is kept warm, and a rollback to it is one switch"
                return f"{waits}; {warm}"
        return waits

    def _behind(self) -> str:
        """What must end before its turn comes; all of it is of the same app."""
        me = self._operation
        others = [o for o in self._of_app if o.id != me.id]
        ahead = [o for o in others if o.begun or (not o.aside and o.sequence < me.sequence)]
        if not ahead:
            return "its turn"
        ahead.sort(key=lambda o: (not o.begun, o.sequence))
        first, more = ahead[0], len(ahead) - 1
        said = f"{WHAT[first.kind]} {first.deployment} of this app".replace("  ", " ")
        return f"{said}, and {more} more that came before it" if more else said

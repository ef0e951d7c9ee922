"""What people see of an operation that is carried out: its timeline, which is durable, and what is done right now."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec

from deployer.core.deployment_log import printable
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.operation import timeline
from deployer.core.model.operation.timeline import Requests, StepState, Timeline
from deployer.core.model.records import Document, Event, OperationKind, OperationState, Plan
from deployer.core.operations.actions import Transition
from deployer.core.operations.activity import Activity
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.journal import Journal
from deployer.core.operations.machine import SWITCHING
from deployer.core.ports.store import Change, Create

MOST_SHOWN = 500
"""Characters of what an operation waits for."""


class Reporter:
    """Of one operation. Entered, it tells `Activities` what is done; nothing of that is written.

    clean  hides what must not be shown of a text
    """

    def __init__(self, dependencies: Dependencies, journal: Journal, clean: Callable[[str], str]) -> None:
        self._clock = dependencies.clock
        self._activities = dependencies.activities
        self._journal = journal
        self._clean = clean
        self._outage = ""
        self._until = 0.0
        self._counted = Requests(0, 0, 0)
        self._doing = Activity(operation=journal.operation)

    def __enter__(self) -> None:
        self.publish()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._activities.drop(self._journal.operation)

    # --- what is durable -----------------------------------------------------------------------------------------

    def timeline(self, transition: Transition, told: str) -> Timeline:
        """As it is after a transition, of which `told` may be shown."""
        before, fields, now = self._journal.operation, transition.fields, self._clock()
        steps = before.timeline.steps
        facts = transition.progress.steps or ()
        if before.steps and not steps:
            steps = timeline.found(((step.id, step.phase) for step in facts), before.steps, now)
        if fields.get("state") is OperationState.UNDOING and before.state is not OperationState.UNDOING:
            failed = StepState.FAILED if fields.get("failure") else StepState.CANCELLED
            steps = timeline.stopped(steps, failed, now)
        phases = {step.id: step.phase for step in facts}
        notes = fields.get("steps", before.steps)
        steps = timeline.noted(steps, before.steps, notes, lambda id: phases.get(id, ""), now)
        if self._counted.asked:
            mine, counted = self._doing.step, self._counted
            steps = tuple(dataclasses.replace(s, requests=counted) if s.id == mine else s for s in steps)
        new = dataclasses.replace(before.timeline, steps=steps)
        if transition.until is not None:
            held = transition.tells is Occurrence.HELD
            waits = _shown(told) or self._doing.waits
            return dataclasses.replace(new, waits=waits, until=self._until, held=held)
        # What is only taken up again waits for the same as before.
        went_on = notes != before.steps or fields.get("state", before.state) is not before.state
        return dataclasses.replace(new, waits="", until=0.0, held=False) if went_on else new

    def waiting(self, reason: str) -> Timeline:
        """As it is once the operation waits for that."""
        return dataclasses.replace(self._journal.operation.timeline, waits=_shown(reason), until=0.0, held=False)

    def ended(self, changes: Sequence[Change], plan: Plan | None, *, failed: bool) -> tuple[Sequence[Change], Timeline]:
        """The changes that make its end, whose event tells observers of it, and the timeline. Most tell observers how
        it ended; `failed`: for those that do not."""
        operation = self._journal.operation
        told = (c.record for c in changes if isinstance(c, Create) and isinstance(c.record, Event))
        outcome = next((event.occurrence for event in told if event.deployment["id"] == operation.deployment), "")
        if not outcome and operation.kind in SWITCHING:
            back = operation.kind is OperationKind.ROLLBACK  # which leaves its deployment as it was when it fails
            outcome = Occurrence.FAILED if back and failed else Occurrence.CANCELLED
        times = timeline.over(operation.timeline, outcome or Occurrence.REMOVED, self._clock())
        return self._telling(changes, times, plan), times

    def _telling(self, changes: Sequence[Change], times: Timeline, plan: Plan | None) -> list[Change]:
        operation, told = self._journal.operation, list(changes)
        gates = {gate.step: gate.type for gate in plan.gates} if plan else {}
        steps = [msgspec.to_builtins(step) | {"gate": gates.get(step.id, "")} for step in times.steps if step.began]
        document: Document = {"id": operation.id, "kind": operation.kind.value, "request": operation.request}
        document |= {"asked": times.asked, "ended": times.ended, "steps": steps}
        for n, change in enumerate(told):
            match change:
                case Create(Event() as event) if event.deployment["id"] == operation.deployment:
                    told[n] = Create(dataclasses.replace(event, operation=document))
        return told

    # --- what only this process knows ----------------------------------------------------------------------------

    def doing(self, step: str, seconds: float) -> None:
        """A step is run, or undone, within that time."""
        now = self._clock()
        same = step == self._doing.step
        self._until = self._until if same else 0.0
        self._counted = self._counted if same else Requests(0, 0, 0)
        since, waits = (self._doing.since, self._doing.waits) if same else (now, "")
        self._doing = dataclasses.replace(self._doing, step=step, since=since, deadline=now + seconds, waits=waits)
        self.publish()

    def waits(self, reason: str, until: float | None = None) -> None:
        """What `Work.waiting` is."""
        known = self._doing
        if not isinstance(reason, str):
            raise TypeError(f"what a step waits for is a text, not {type(reason).__name__}")
        said = _shown(self._clean(reason))
        self._until = 0.0 if until is None else float(until)
        if not math.isfinite(self._until):
            raise ValueError(f"{until} is no time in seconds since the epoch")
        deadline = known.deadline if until is None else float(until)
        if (said, deadline) != (known.waits, known.deadline):
            self._doing = dataclasses.replace(known, waits=said, deadline=deadline)
            self.publish()

    def count(self, requests: Requests) -> None:
        """What `Work.count` is. Raises msgspec.ValidationError for what could not be read back."""
        new, known = msgspec.convert(dataclasses.asdict(requests), Requests), self._counted
        self._counted = Requests(known.asked + new.asked, known.lost + new.lost, new.addresses, new.seconds)

    def outage(self, why: str) -> None:
        """The API server does not answer; empty: it does again."""
        self._outage = _shown(f"the API server: {self._clean(why)}") if why else ""
        self.publish()

    def publish(self) -> None:
        """Have it seen as it is now."""
        doing = dataclasses.replace(self._doing, operation=self._journal.operation)
        self._doing = doing
        self._activities.put(dataclasses.replace(doing, waits=self._outage) if self._outage else doing)


def _shown(text: str) -> str:
    """The beginning of a text, safe for a terminal."""
    return printable(text[:MOST_SHOWN])

"""When an operation got how far, and what it waits for: for people to read. It rides on what is written anyway."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec


class StepState(StrEnum):
    """How a step is. A step that failed, or was cancelled, stays that when it is undone."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Requests:
    """What the data plane was asked for the public host while traffic moved.

    asked      how many requests
    lost       those without an answer, or with a 502, 503 or 504 that the app itself did not give
    addresses  how many addresses were asked
    seconds    from the first request until every address answered with the new version; None: one never did
    """

    asked: int
    lost: int
    addresses: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """A step with its times, in seconds since the epoch; 0: not yet.

    phase     name of a `Phase`
    requests  those that were counted while it moved traffic, or confirmed that; None: they were not
    """

    id: str
    phase: str = ""
    state: StepState = StepState.PENDING
    began: float = 0.0
    ended: float = 0.0
    requests: Requests | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Of one operation, by `clock.SteadyClock`.

    asked    when it was asked for, or another one left it to do; 0 for those of older releases
    ended    when it ended; 0 before
    outcome  how it ended, an `Occurrence`; empty before
    waits    what it waits for, or why it is tried again, in words without secrets
    until    the end of that wait, where a step has said it; 0: as the operation has it
    held     that is something about which only a person can decide
    steps    in order, those to come included as far as they are known
    """

    asked: float = 0.0
    ended: float = 0.0
    outcome: str = ""
    waits: str = ""
    until: float = 0.0
    held: bool = False
    steps: tuple[StepTime, ...] = ()

    def shown(self, clock: Callable[[float], str]) -> list[dict[str, Any]]:
        """The steps as REST shows them; `clock` writes a time."""
        return [_shown(step, clock) for step in self.steps]

    @property
    def current(self) -> StepTime | None:
        """The step that is under way, or waits."""
        return next((step for step in reversed(self.steps) if step.state is StepState.RUNNING), None)

    @property
    def began(self) -> float:
        """When its first step began; 0 before."""
        return min((step.began for step in self.steps if step.began), default=0.0)

    def to_document(self) -> dict[str, Any]:
        """As JSON; what is not given is left out."""
        steps = [{k: v for k, v in msgspec.to_builtins(step).items() if v} for step in self.steps]
        return {k: v for k, v in (msgspec.to_builtins(self) | {"steps": steps}).items() if v}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Timeline:
        """The inverse of `to_document`. Raises msgspec.ValidationError."""
        return msgspec.convert(document, cls) if document else NO_TIMELINE


NO_TIMELINE = Timeline()

# As in `records.py`: learnt here, by one thread, and not by two at the first use.
msgspec.json.Decoder(Timeline)


MOST_KEPT = 100
"""Steps that an operation tells of, and that a deployment keeps of all of them: the newest."""


def kept(before: list[dict[str, Any]], known: Timeline) -> list[dict[str, Any]]:
    """The steps of a deployment, with those of an operation that ends."""
    begun = dataclasses.replace(known, steps=tuple(step for step in known.steps if step.began))
    return [*before, *begun.shown(written)][-MOST_KEPT:]


_LAST = 253_402_300_799.0
"""Seconds from the epoch to the last moment that RFC 3339 can write."""


def written(seconds: float) -> str:
    """A moment in RFC 3339 with milliseconds, from seconds since the epoch."""
    moment = datetime.datetime.fromtimestamp(min(max(seconds, 0.0), _LAST), datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp_of(seconds: float) -> str:
    """The same in whole seconds."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(step: StepTime, clock: Callable[[float], str]) -> dict[str, Any]:
    out: dict[str, Any] = {"id": step.id, "phase": step.phase, "state": step.state.value}
    times = {"began": step.began, "ended": step.ended}
    counted = {"requests": dataclasses.asdict(step.requests)} if step.requests else {}
    return out | {name: clock(seconds) for name, seconds in times.items() if seconds} | counted


def planned(steps: Iterable[tuple[str, str]]) -> tuple[StepTime, ...]:
    """Steps that are still to come, each an id and the name of its phase; the first `MOST_KEPT`."""
    return tuple(StepTime(id=id, phase=phase) for id, phase in itertools.islice(steps, MOST_KEPT))


def found(steps: Iterable[tuple[str, str]], notes: Mapping[str, str], now: float) -> tuple[StepTime, ...]:
    """The steps of an operation that an earlier release began: nobody knows when what was done."""
    states = {"started": StepState.RUNNING, "done": StepState.DONE, "undone": StepState.UNDONE}
    at = {StepState.RUNNING: now}
    known = ((step, states.get(notes.get(step.id, ""), StepState.PENDING)) for step in planned(steps))
    return tuple(dataclasses.replace(step, state=state, began=at.get(state, 0.0)) for step, state in known)


def noted(
    steps: tuple[StepTime, ...],
    before: Mapping[str, str],
    after: Mapping[str, str],
    phase: Callable[[str], str],
    now: float,
) -> tuple[StepTime, ...]:
    """The same, once the journal's notes have moved from `before` to `after` (`Operation.steps`).

    phase  the name of a step's phase, by its id, for steps that were not known before
    """
    moved = {id: note for id, note in after.items() if before.get(id) != note}
    if not moved:
        return steps
    known = {step.id for step in steps}
    steps = (steps + planned((id, phase(id)) for id in moved if id not in known))[-MOST_KEPT:]
    return tuple(_moved(step, moved[step.id], now) if step.id in moved else step for step in steps)


def _moved(step: StepTime, note: str, now: float) -> StepTime:
    began = step.began or now
    ended = max(began, now)  # the system's clock may have been set before a restart
    match note:
        case "started":
            return dataclasses.replace(step, state=StepState.RUNNING, began=began, ended=0.0)
        case "done":
            return dataclasses.replace(step, state=StepState.DONE, began=began, ended=ended)
        case _ if step.state is StepState.RUNNING:
            return dataclasses.replace(step, state=StepState.UNDONE, began=began, ended=ended)
        case _ if step.state is StepState.DONE:
            return dataclasses.replace(step, state=StepState.UNDONE)
    return step


def stopped(steps: tuple[StepTime, ...], state: StepState, now: float) -> tuple[StepTime, ...]:
    """The same, when the step that is under way came to that end."""
    return tuple(
        dataclasses.replace(step, state=state, ended=max(step.began, now)) if step.state is StepState.RUNNING else step
        for step in steps
    )


def over(known: Timeline, outcome: str, now: float) -> Timeline:
    """The timeline of an operation that has ended."""
    return dataclasses.replace(known, outcome=outcome, ended=max(known.began, now), waits="", until=0.0, held=False)

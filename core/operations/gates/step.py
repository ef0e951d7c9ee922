"""A gate's step: has the gate look, records what it says, and lets the deployment on only for a recorded pass."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.gate import (
    CHECK_SECONDS,
    Decision,
    Failed,
    Gate,
    GateContext,
    Inconclusive,
    Measurement,
    Missing,
    Outcome,
    Passed,
    Pending,
    Point,
    Verdict,
    VersionUnreachable,
    wrong_outcome,
)
from deployer.core.contract.health import PodUnreachable
from deployer.core.contract.kube import ClusterEvent, is_event
from deployer.core.contract.strategy import Done, Park, Phase, Signal, Step, Work
from deployer.core.contract.strategy import Outcome as StepOutcome
from deployer.core.errors import (
    DeployerError,
    Interrupted,
    KubeConflict,
    KubeUnavailable,
    PluginError,
    Revoked,
    StaleRevision,
    StepFailed,
    StoreError,
    unanswered,
)
from deployer.core.model.gates import GateDecision, GateResult, GateResults, decision_key
from deployer.core.model.plan import PlannedGate, PlannedStep
from deployer.core.model.records import Document, Json, Plan, timestamp_of
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.execution.handles import Handles
from deployer.core.operations.execution.invocation import GRACE, SETTLE, BoundedInvoker
from deployer.core.operations.journal import Journal
from deployer.core.operations.steps import GATE_MISSING
from deployer.core.ports.store import Update

T = TypeVar("T")

AGAIN = 5.0
"""Seconds until a gate looks again after an error that passes."""

END_SECONDS = 5.0
"""Seconds that a gate has for ending what it began: traffic may be waiting to go back."""

MOST_READ = 16_384
"""Characters of a text of a gate's that are looked at."""

MOST_REASON = 1000
"""Characters of a gate's reason, and of its hint."""

MOST_AT_ONCE = 100
"""Measurements of one call; of more, the last."""

MOST_VALUE, MOST_WORDS = 500, 200
"""Characters of what was measured, when that is a text, and of a measurement's name and threshold."""

FAILED, TIMED_OUT, BROKEN = "GateFailed", "GateTimedOut", "GateBroken"
"""Reasons of failures: the gate, or a person, says no; its time is up; it made a mistake of its own."""

PASSING = (KubeUnavailable, KubeConflict, VersionUnreachable, PodUnreachable)
"""Errors that pass."""


@dataclasses.dataclass(frozen=True, slots=True)
class GateSteps:
    """Makes the steps of one operation's gates."""

    dependencies: Dependencies
    journal: Journal
    handles: Handles

    def among(self, steps: Sequence[Step], plan: Plan) -> list[Step]:
        """The strategy's steps with those of the gates, in the order of the plan."""
        own = iter(steps)
        gates = {gate.step: gate for gate in plan.gates}
        return [GateStep(s, gates[s.id], self) if s.id in gates else next(own) for s in plan.steps]


class GateStep(Step):
    """Runs until the gate has its verdict, parked in between. Undoing it ends what the gate may have begun."""

    def __init__(self, planned: PlannedStep, gate: PlannedGate, owner: GateSteps) -> None:
        self.id, self.phase = planned.id, Phase[planned.phase]
        self._gate = gate
        self._owner = owner
        self._seconds = CHECK_SECONDS
        with contextlib.suppress(PluginError):
            entry = owner.dependencies.registry.entry("gate", gate.type)
            self._seconds = entry.declared.check_seconds
        # Its own time-out is not this one's business, but the gate's: that counts while it is parked, too.
        self.budget = self._seconds + GRACE + 2 * SETTLE + 10.0

    def run(self, work: Work) -> StepOutcome:
        return _Look(self._gate, self._installed(), self._owner, work, self._seconds).run()

    def undo(self, work: Work) -> None:
        _Look(self._gate, self._installed(), self._owner, work, self._seconds).stop()

    def _installed(self) -> Gate | None:
        try:
            return self._owner.dependencies.registry.gate(self._gate.type)
        except PluginError:
            return None


class _Look:
    """One call of a gate's step."""

    def __init__(self, gate: PlannedGate, provider: Gate | None, owner: GateSteps, work: Work, seconds: float) -> None:
        self._gate = gate
        self._provider = provider
        self._owner = owner
        self._store = owner.dependencies.store
        self._work = work
        self._seconds = seconds
        self._results = self._read()

    def run(self) -> StepOutcome:
        """Go on from what is recorded. Raises StepFailed when the gate does not let the deployment on."""
        while True:
            try:
                return self._run()
            except StaleRevision:  # somebody decided about it meanwhile, which counts
                self._results = self._read()

    def _run(self) -> StepOutcome:
        result = self._result()
        if result.ended:
            return self._over(result)
        now = self._work.now()
        if not 0 < result.began <= now:  # never, or before the system's clock was set back
            result = dataclasses.replace(result, began=now, deadline=now + self._gate.timeout)
            self._record(result, f"{self._title} is asked, for at most {self._gate.timeout:g} s")
        decision = self._store.get(GateDecision, decision_key(self._work.plan.deployment, self._gate.step))
        if now >= result.deadline and not decision:  # that came in time, or it would not be there
            return self._timed_out(result)
        if result.verdict:  # inconclusive, or there is no evidence: a person decides
            return self._decided(result, decision) if decision else self._wait(result)
        try:
            outcome = self._ask(result, decision)
        except PASSING as error:
            return self._again(result, error)
        return self._settle(result, outcome, decision)

    def stop(self) -> None:
        """The deployment is taken back. Whatever the plugin does here must not keep it from that."""
        result = self._result()
        if not result.began:
            return
        if not result.ended:
            now = self._work.now()
            said = "not finished: the deployment was stopped"
            self._record(dataclasses.replace(result, ended=now, asks=False, reason=result.reason or said))
        self._close()

    # --- asking it -----------------------------------------------------------------------------------------------

    def _ask(self, result: GateResult, decision: GateDecision | None) -> _Said:
        """What the gate says; of an error that does not pass, that it failed. Raises PASSING, StoreError, and what the
        scope raises."""
        gate = self._provider
        if gate is None:
            return _Said(Missing, f"no plugin provides gates of type {self._gate.type} any more")
        given = None if decision is None else Decision(decision.approve, decision.by, decision.at, decision.comment)
        left = self._seconds if decision else result.deadline - self._work.now()
        seconds = max(0.01, min(self._seconds, left))
        try:
            return self._call(seconds, lambda scope: _said(gate.check(self._context(scope, result, given)), self._work))
        except (StoreError, *PASSING):
            raise
        except StepFailed as error:
            return _Said(Failed, str(error), hint=error.hint)
        except Interrupted as error:
            if (silent := unanswered(error)) is not None:
                raise KubeUnavailable(str(silent)) from error
            if seconds < self._seconds:  # it was the gate's own time that was up
                return _Said(Pending, result.reason)
            return _Said(Failed, f"{self._type} did not come back from check() within {seconds:.3g} s", code=BROKEN)
        except DeployerError as error:  # StepCrashed, for what is none of ours
            return _Said(Failed, f"{self._type}: {error}", code=BROKEN)

    def _call(self, seconds: float, function: Callable[[CancelScope], T]) -> T:
        """The result of one of the gate's methods, in a thread that can be left behind. Raises what the step's scope
        raises, before anything else."""
        invoker = BoundedInvoker(f"gate-{self._work.plan.app}", self._owner.dependencies.hung)
        forget = self._work.scope.on_close(lambda: invoker.stop(Revoked("the gate's step is over")))
        try:
            return invoker.call(seconds, function)
        finally:
            forget()
            self._work.scope.check()

    def _context(self, scope: CancelScope, result: GateResult, decision: Decision | None = None) -> GateContext:
        work, kube = self._work, self._work.kube.with_scope(scope)

        def remember(key: str, value: Json) -> None:
            with scope.writing():
                work.remember(key, value)

        return GateContext(
            name=self._gate.name,
            point=Point(self._gate.point),
            plan=work.plan,
            options=copy.deepcopy(dict(self._gate.options)),
            kube=kube,
            version=self._owner.dependencies.cluster.version(work.plan, kube, work.ingress, work.log),
            log=work.log,
            remember=remember,
            recall=work.recall,
            scope=scope,
            now=work.now,
            began=result.began,
            deadline=result.deadline,
            decision=decision,
        )

    # --- what follows --------------------------------------------------------------------------------------------

    def _settle(self, result: GateResult, said: _Said, decision: GateDecision | None) -> StepOutcome:
        result, lines = self._measured(result, said.measurements)
        said = dataclasses.replace(said, reason=self._short(said.reason))
        if decision is not None:
            result = dataclasses.replace(result, decision=self._words(decision))
        if said.kind is Failed:
            return self._end(result, Verdict.FAILED, said.reason, lines, code=said.code, hint=said.hint)
        in_time = bool(decision) and said.kind is not Pending
        if self._work.now() >= result.deadline and not in_time:  # what passes now has passed too late
            return self._timed_out(result, lines)
        if said.kind is Passed:
            return self._end(result, Verdict.PASSED, said.reason, lines)
        if said.kind is Pending:
            return self._pending(result, said, lines)
        return self._without_verdict(result, said, lines)

    def _without_verdict(self, result: GateResult, said: _Said, lines: list[str]) -> StepOutcome:
        """Inconclusive, or without evidence."""
        if said.kind is Missing and self._gate.on_missing == "fail":
            return self._end(result, Verdict.FAILED, said.reason, lines, code=GATE_MISSING)
        if self._gate.dry_run:
            return self._end(result, Verdict.INCONCLUSIVE, said.reason, lines)
        return self._wait(dataclasses.replace(result, verdict=Verdict.INCONCLUSIVE.value, reason=said.reason), lines)

    def _pending(self, result: GateResult, said: _Said, lines: list[str]) -> StepOutcome:
        asks = said.event == Signal()
        if asks and self._gate.dry_run:
            return self._end(result, Verdict.INCONCLUSIVE, "nobody is asked in a dry run", lines)
        new = dataclasses.replace(result, asks=asks, reason=said.reason)
        if new != self._result():
            self._record(new, *lines)
        waits = f"{said.reason} (gate {self._gate.name})" if said.reason else self._title
        return Park(min(said.until, result.deadline), waits, said.event)

    def _again(self, result: GateResult, error: Exception) -> StepOutcome:
        if self._work.now() >= result.deadline:
            return self._timed_out(result)
        why = f"it cannot look, and tries again: {self._short(str(error))}"
        if result.reason != why:
            self._record(dataclasses.replace(result, reason=why))
        until = min(self._work.now() + AGAIN, result.deadline)
        return Park(until, f"{self._title}: {why}")

    def _wait(self, result: GateResult, lines: Sequence[str] = ()) -> StepOutcome:
        """Have a person decide: the gate itself is not asked any more."""
        if not result.asks:
            result = dataclasses.replace(result, asks=True)
            until = timestamp_of(result.deadline)
            said = f"{self._title} is inconclusive: {result.reason}; a person may decide about it until {until}"
            self._record(result, *lines, said)
        return Park(result.deadline, f"approval by a person (gate {self._gate.name})", Signal())

    def _decided(self, result: GateResult, decision: GateDecision) -> StepOutcome:
        who = decision.by or "a person"
        words = f": {decision.comment}" if decision.comment else ""
        result = dataclasses.replace(result, decision=self._words(decision))
        if decision.approve:
            return self._end(result, Verdict.PASSED, f"approved by {who}{words} (it was inconclusive: {result.reason})")
        return self._end(result, Verdict.FAILED, f"refused by {who}{words}")

    def _timed_out(self, result: GateResult, lines: Sequence[str] = ()) -> StepOutcome:
        waited = f"; it waited for: {result.reason}" if result.reason and not result.verdict else ""
        if result.verdict:
            waited = f", and nobody approved it; it was inconclusive: {result.reason}"
        said = f"did not pass within {self._gate.timeout:g} s{waited}"
        return self._end(result, Verdict.FAILED, said, lines, code=TIMED_OUT)

    def _end(
        self,
        result: GateResult,
        verdict: Verdict,
        reason: str,
        lines: Sequence[str] = (),
        *,
        code: str = FAILED,
        hint: str = "",
    ) -> StepOutcome:
        """Record the verdict, durably, and do what follows from it."""
        result = dataclasses.replace(
            result,
            verdict=verdict.value,
            reason=self._short(reason),
            hint=self._short(hint),
            code=code if verdict is not Verdict.PASSED else "",
            ended=self._work.now(),
            asks=False,
        )
        passed = verdict is Verdict.PASSED
        said = f"{self._title} {'passed' if passed else f'is {verdict}'}: {result.reason}"
        if self._gate.dry_run and not passed:
            self._record(result, *lines, f"{said} (a dry run, so the deployment goes on)")
        else:  # a failure is said when the deployment turns back
            self._record(result, *lines, *([said] if passed else []))
        return self._over(result)

    def _over(self, result: GateResult) -> StepOutcome:
        """Go on, or not, by the recorded verdict."""
        self._close()
        if result.verdict == Verdict.PASSED or self._gate.dry_run:
            return Done()
        what = "was not passed" if result.code == TIMED_OUT else "failed"
        message = f"{self._title} {what}: {result.reason}"
        raise StepFailed(message, reason=result.code or FAILED, hint=result.hint)

    def _close(self) -> None:
        """Tell the plugin that the gate is over. What it makes of that is its own affair."""
        result = self._result()
        gate = self._provider
        if result.closed or gate is None or type(gate).end is Gate.end:
            return
        try:
            self._call(min(self._seconds, END_SECONDS), lambda scope: gate.end(self._context(scope, result)))
        except (StoreError, Revoked):
            raise
        except DeployerError as error:
            self._work.log(f"{self._title} could not be ended: {self._type}: {error}")
        self._record(dataclasses.replace(self._result(), closed=True))

    # --- what is kept --------------------------------------------------------------------------------------------

    @property
    def _title(self) -> str:
        return f"gate {self._gate.name}"

    @property
    def _type(self) -> str:
        return self._owner.dependencies.registry.title("gate", self._gate.type)

    def _read(self) -> GateResults:
        plan = self._work.plan
        found = self._store.get(GateResults, plan.deployment)
        if found is None:
            raise StoreError(f"what became of the gates of deployment {plan.deployment} is missing from the store")
        return found

    def _result(self) -> GateResult:
        return self._results.of(self._gate.step)

    def _record(self, result: GateResult, *lines: str) -> None:
        """Make it durable, with these lines of the log. Raises StaleRevision when somebody decided about the gate since
        it was read."""
        new = self._results.with_entry(result)
        changes = [self._owner.handles.line(line) for line in lines]
        with self._work.scope.writing():
            self._owner.journal.write(Update(new), *changes)
        self._results = dataclasses.replace(new, revision=self._owner.journal.operation.revision)

    def _measured(self, result: GateResult, found: Sequence[Document]) -> tuple[GateResult, list[str]]:
        """The result with these measurements, and what the log says of each."""
        cleaned: list[Document] = []
        for one in found:
            value = one["value"]
            texts = {name: self._owner.handles.clean(one[name])[:MOST_WORDS] for name in ("name", "threshold")}
            if isinstance(value, str):
                value = self._owner.handles.clean(value)[:MOST_VALUE]
            cleaned.append({**one, **texts, "value": value})
        lines = [f"{self._title} measured {_words(one)}" for one in cleaned]
        return result.with_measurements(cleaned, self._results.room), lines

    def _words(self, decision: GateDecision) -> Document:
        return {**decision.said, "comment": self._owner.handles.clean(decision.comment)}

    def _short(self, text: str) -> str:
        """As it may be shown, which also holds for what is only recorded."""
        return self._owner.handles.clean(text)[:MOST_REASON]


@dataclasses.dataclass(frozen=True, slots=True)
class _Said:
    """An outcome as plain data; `code` is the reason of the failure, if it is one."""

    kind: type[Outcome]
    reason: str
    hint: str = ""
    until: float = 0.0
    event: ClusterEvent | Signal | None = None
    measurements: tuple[Document, ...] = ()
    code: str = FAILED


def _said(outcome: object, work: Work) -> _Said:
    """What the gate answered, checked; asked in the gate's thread, as it may be anything."""
    wrong = wrong_outcome(outcome)
    if not wrong and isinstance(outcome, Pending):
        fits = outcome.event is None or type(outcome.event) is Signal or is_event(outcome.event)
        wrong = "" if fits else f"waits for {type(outcome.event).__name__}, which is no event"
    if wrong:
        return _Said(Failed, f"its check() {wrong}", hint="ask the plugin's author", code=BROKEN)
    assert isinstance(outcome, Passed | Failed | Inconclusive | Missing | Pending)
    kind = next(kind for kind in (Passed, Failed, Inconclusive, Missing, Pending) if isinstance(outcome, kind))
    now = work.now()
    measured = tuple(_document(found, now) for found in outcome.measurements[-MOST_AT_ONCE:])
    return _Said(
        kind,
        _text(outcome.reason),
        _text(outcome.hint) if isinstance(outcome, Failed) else "",
        float(outcome.until) if isinstance(outcome, Pending) else 0.0,
        outcome.event if isinstance(outcome, Pending) else None,
        measured,
    )


def _text(text: str) -> str:
    """The beginning of it, as a text of Python's own: what a plugin gives may only look like one."""
    return str.__getitem__(text, slice(MOST_READ))


def _document(found: Measurement, now: float) -> Document:
    value = found.value
    return {
        "time": float(found.time) if 0 < found.time <= now else now,
        "name": _text(found.name),
        "value": _text(value) if isinstance(value, str) else None if value is None else float(value),
        "threshold": _text(found.threshold),
        "verdict": found.verdict.value,
    }


def _words(found: Document) -> str:
    value = found["value"]
    shown = "nothing" if value is None else f"{value:g}" if isinstance(value, float) else value
    what = f"{found['name']} " if found["name"] else ""
    return f"{what}{shown}{' against ' + found['threshold'] if found['threshold'] else ''}: {found['verdict']}"

"""What an operation does next: pure functions of its records, which the executor carries out.

`next_action` says what to do, the executor does it, and `settle` says what the result makes of the operation. Neither
touches the store or the cluster, so a crash, a cancellation or a lost lease is an input like others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from deployer.core.backoff import Backoff
from deployer.core.contract.strategy import Park, Phase
from deployer.core.errors import OPERATOR_NEEDED, StoreError
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.plan import PlannedStep
from deployer.core.model.records import (
    Deployment,
    Failure,
    Json,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Status,
)
from deployer.core.operations.actions import (
    Action,
    Await,
    Begin,
    Cause,
    Clear,
    Close,
    Commit,
    Conclude,
    Condemn,
    Decide,
    End,
    Failed,
    Fence,
    GiveUpUndo,
    Hold,
    LoadSteps,
    Progress,
    Rest,
    Result,
    Resume,
    Run,
    StepFacts,
    Succeeded,
    Transition,
    TurnBack,
    Undo,
)

STARTED, DONE, UNDONE = "started", "done", "undone"
"""States of a step in `Operation.steps`."""

AWAITS = "engine/awaits"
"""In an operation's memory while a step is parked: it waits for an event, too, which does not outlive the process."""

TOLD = "engine/told"
"""In an operation's memory: what the log has already and need not have at each attempt."""

SAID = "engine/said"
"""In an operation's memory: what it waits for, or why it is tried again, as the log has it already."""

LINES = "engine/lines"
"""In an operation's memory while a step is parked: what it has put into the log, as digests."""

HELD = "engine/held"
"""In an operation's memory while it is held: the reason, one CamelCase word. Why in a sentence is under `SAID`."""

CONDEMNED = "engine/condemned"
"""In the memory of a watch: id of the rollback that it has queued."""

UNDO_ATTEMPTS = 3
"""How often an undo that fails for its own reasons is tried before the core removes the objects itself."""

HOLD_INTERVAL = 15.0
"""Seconds between two looks at something that can neither go on nor back."""

CONDEMNED_INTERVAL = 2.0
"""Seconds between two looks at a live version that fails, while something else is to end first."""

PARK_LEAST = 1.0
"""The shortest time, in seconds, for which a step is parked, whatever it asks for; an event may come earlier."""

OPERATION_AGAIN = Backoff(first=1.0, most=60.0)
"""Pauses between two attempts at an undo, an undeployment or a retirement."""

REMOVING = {
    OperationKind.RETIRE: "retiring",
    OperationKind.UNDEPLOY: "undeploying",
    OperationKind.WATCH: "watching",
}
"""What an operation is doing that moves no traffic."""

SWITCHING = {OperationKind.DEPLOY: Status.DEPLOYING, OperationKind.ROLLBACK: Status.UNDEPLOYING}
"""The kinds that move traffic, and the status of the deployment meanwhile."""


# --- what comes next ----------------------------------------------------------------------------------------------


def next_action(
    operation: Operation, deployment: Deployment | None, plan: Plan | None, progress: Progress, now: float
) -> Action:
    """What to do now. `now`: seconds since the epoch. Raises StoreError for records that cannot be."""
    if operation.kind not in SWITCHING:
        return _removing(operation, progress)
    if deployment is None:
        return Close()
    if operation.state is OperationState.QUEUED:
        return _queued(operation, deployment, progress, now)
    if not progress.fenced:
        return Fence()
    if plan is None:
        raise StoreError(f"the plan of deployment {operation.deployment} is missing from the store")
    if operation.state is OperationState.RUNNING:
        return _going_on(operation, deployment, progress, now)
    return _going_back(operation, plan, progress)


def _queued(operation: Operation, deployment: Deployment, progress: Progress, now: float) -> Action:
    if is_cancelled(operation, deployment):
        return End(None)
    if progress.verdict is not None:
        return End(progress.verdict.failure)
    blocker = progress.blocker
    if blocker is not None and operation.target.awaits != blocker.retirement:
        return Await(blocker)
    if blocker is not None and now < operation.due:
        return Rest(operation.due)
    return Decide() if progress.fenced else Fence()


def is_cancelled(operation: Operation, deployment: Deployment) -> bool:
    """Does somebody want to be rid of the deployment that it makes the live one?"""
    if operation.kind is OperationKind.ROLLBACK:
        return deployment.unwanted
    return operation.kind is OperationKind.DEPLOY and deployment.status is Status.UNDEPLOYING


def _going_on(operation: Operation, deployment: Deployment, progress: Progress, now: float) -> Action:
    if progress.steps is None:
        return LoadSteps()
    if progress.cancelled or deployment.status is not SWITCHING[operation.kind] or deployment.unwanted:
        return TurnBack()
    if operation.due > now and not operation.memory.get(AWAITS):
        return Rest(operation.due)  # only looked at early: parked, and everything that it needs is still there
    # Being taken up again is no news for what was parked, or for what the log says that it waits for.
    if progress.resumed and not {AWAITS, SAID} & operation.memory.keys():
        return Resume()
    step = _to_do(operation, progress.steps)
    return Commit() if step is None else Run(step.id)


def _going_back(operation: Operation, plan: Plan, progress: Progress) -> Action:
    if progress.cleared:
        return End(Failure(**operation.failure) if operation.failure else None, progress.ending)
    if progress.abandoned:
        return Clear()
    if progress.unloadable:
        return _without_undo(operation, plan, "", progress.unloadable)
    if progress.steps is None:
        return LoadSteps()
    step = next((s.id for s in reversed(progress.steps) if operation.steps.get(s.id) in (STARTED, DONE)), "")
    return _undo(operation, plan, step, progress.broken) if step else Clear()


def _undo(operation: Operation, plan: Plan, step: str, broken: Failed | None) -> Action:
    if broken is None:
        return Undo(step)
    why = f"undoing step {step} keeps failing: {broken.why}"
    return _without_undo(operation, plan, step, why, anothers=broken.cause is Cause.CHANGED)


def _without_undo(operation: Operation, plan: Plan, only: str, why: str, *, anothers: bool = False) -> Action:
    """The core can remove objects, but not move traffic back: it undoes without the steps themselves (`only`: that one)
    what they say is no outage, and holds otherwise.

    `anothers`: another client has changed what the step would take back, and decides about it from then on.
    """
    started = [s for s in plan.steps if operation.steps.get(s.id) in (STARTED, DONE) and only in ("", s.id)]
    if not anothers and (step := next((s for s in reversed(started) if s.disturbs or s.exposes), None)) is not None:
        return Hold(f"step {step.id} {_what(step, plan)}, and only the plugin can take that back", why)
    return GiveUpUndo(only, why, check=any(Phase[step.phase] >= Phase.EXPOSE for step in started))


def _what(step: PlannedStep, plan: Plan) -> str:
    if step.disturbs:
        return "may have taken traffic or capacity from the version before"
    return f"may have given traffic to version {plan.version}"


def _removing(operation: Operation, progress: Progress) -> Action:
    if operation.state is OperationState.QUEUED:
        return Begin()
    if not progress.fenced and operation.kind is not OperationKind.WATCH:  # which writes nothing to the cluster
        return Fence()
    if progress.verdict is not None and progress.verdict.failure is not None:
        return Condemn(progress.verdict.failure)
    if progress.steps is None:
        return Close() if progress.idle else LoadSteps()
    if (step := _to_do(operation, progress.steps)) is not None:
        return Run(step.id)
    return Conclude() if progress.cleared else Clear()


def _to_do(operation: Operation, steps: Sequence[StepFacts]) -> StepFacts | None:
    return next((step for step in steps if operation.steps.get(step.id) != DONE), None)


PREPARING = (Begin, Fence, LoadSteps, Resume)
"""Actions after which an operation is as far as before."""


# --- what a result makes of it ------------------------------------------------------------------------------------


def started(operation: Operation, step: StepFacts, progress: Progress) -> Transition:
    """A step is about to run for the first time: durably, unless it and those that ended since the last note only look.
    After a crash those begin anew, and their notes go with the next one."""
    fields = {"steps": {**operation.steps, step.id: STARTED}}
    if step.only_looks and not progress.unrecorded:
        return Transition(progress=progress, fields=fields)
    return Transition(progress=dataclasses.replace(progress, unrecorded=False), fields=fields, durable=True)


def settle(operation: Operation, action: Action, result: Result, progress: Progress, now: float) -> Transition:
    """What the result of an action makes of the operation. For actions that neither end it nor leave it."""
    transition = _settled(operation, action, result, progress, now)
    # What only prepares another attempt says nothing about how that ends.
    if HELD not in operation.memory or isinstance(result, Failed) or isinstance(action, PREPARING):
        return transition
    memory = transition.fields.get("memory", operation.memory)
    fields = {**transition.fields, "memory": {key: memory[key] for key in memory if key not in (HELD, SAID, CONDEMNED)}}
    if transition.say:
        fields["memory"][SAID] = transition.say
    return dataclasses.replace(transition, fields=fields, line=transition.line or "no longer held")


def _settled(operation: Operation, action: Action, result: Result, progress: Progress, now: float) -> Transition:
    if isinstance(action, Condemn):
        return _condemned(operation, result, progress, now)
    if isinstance(result, Park):
        assert isinstance(action, Run)
        return _parked(operation, action.step, result, progress, now)
    if isinstance(result, Failed):
        if operation.kind in SWITCHING:
            return _deploying_failed(operation, action, result, progress, now)
        return _removing_failed(operation, result, progress, now)
    return _succeeded(operation, action, result, progress)


def _succeeded(operation: Operation, action: Action, result: Succeeded, progress: Progress) -> Transition:
    known: dict[str, Json] = {}
    fields: dict[str, Json] = {}
    durable, line = False, ""
    match action:
        case Begin():
            # A watch changes nothing, so whoever takes it up next need not know that it had begun.
            fields, durable = {"state": OperationState.RUNNING}, operation.kind is not OperationKind.WATCH
        case Fence():
            known = {"fenced": True}
        case LoadSteps():
            known = {"steps": result.steps, "idle": result.steps is None}
        case Resume():
            known = {"resumed": False}
        case Run(step):
            facts = next(facts for facts in progress.steps or () if facts.id == step)
            known = {"resumed": False, "unrecorded": progress.unrecorded or not facts.only_looks}
            # Recorded together with the start of the next one, or with the commit.
            fields = {"steps": {**operation.steps, step: DONE}, "due": 0.0, "period": 0.0, "least": 0.0}
            # A removal begins anew at each attempt: what was said of one is not said again.
            parked = AWAITS in operation.memory and operation.kind in SWITCHING
            over = {AWAITS, LINES, *([SAID] if parked else ())}
            fields["memory"] = {key: value for key, value in operation.memory.items() if key not in over}
        case TurnBack():
            fields, durable = {"state": OperationState.UNDOING, "failure": None, "attempts": 0}, True
            line = "stopping, and removing what was started"
        case GiveUpUndo(""):
            known = {"abandoned": True}
        case Undo(step) | GiveUpUndo(step):
            known, fields, durable = {"broken": None}, {"steps": {**operation.steps, step: UNDONE}}, True
        case Clear():
            known = {"cleared": True, "ending": result.ending}
    progress = dataclasses.replace(progress, **known)
    return Transition(progress=progress, fields=fields, durable=durable, line=line)


def _parked(operation: Operation, step: str, park: Park, progress: Progress, now: float) -> Transition:
    last = (progress.steps or ())[-1]
    # Once all that led to the live version is gone, and only its pods take their time, the app is free for the next
    # deployment. In one transaction: a crash must not leave a version live that is not there any more.
    frees = operation.kind is OperationKind.UNDEPLOY and not operation.target.released
    frees = frees and last.id == step and last.frees_app
    fields: dict[str, Json] = wait(now, max(PARK_LEAST, park.until - now))
    fields |= {"state": parked_state(operation), "attempts": 0}
    fields["memory"] = {**operation.memory, AWAITS: park.event is not None}
    fields["memory"] |= {SAID: park.reason} if park.reason else {}
    if frees:
        fields |= {
            "state": OperationState.QUEUED,
            "target": dataclasses.replace(operation.target, released=True),
        }
    return Transition(
        progress=progress, fields=fields, durable=True, say=park.reason, until=float(fields["due"]), frees=frees
    )


def _condemned(operation: Operation, result: Result, progress: Progress, now: float) -> Transition:
    """It is rolled back by an operation of its own, or once something else has ended; until then it is watched."""
    if isinstance(result, Failed) and result.cause is Cause.OPERATOR:
        return _held(operation, result, progress, now)
    fields = {**wait(now, CONDEMNED_INTERVAL), "state": parked_state(operation), "attempts": 0}
    return Transition(progress=progress, fields=fields, durable=True, until=float(fields["due"]))


def _removing_failed(operation: Operation, failed: Failed, progress: Progress, now: float) -> Transition:
    """Never undone; tried until it is done, saying why it is not. Its steps begin anew."""
    needs_operator = failed.cause is Cause.OPERATOR
    if operation.kind is OperationKind.WATCH and failed.failure is not None and not needs_operator:
        return Transition(progress=dataclasses.replace(progress, verdict=failed))
    what = "" if needs_operator else f"{REMOVING[operation.kind]} is not finished: "
    again = _again(operation, f"{what}{failed.why}", parked_state(operation), progress, now, steps={})
    if not needs_operator:
        return again
    memory = {**again.fields["memory"], HELD: _reason_of(failed)}
    return dataclasses.replace(again, fields={**again.fields, "memory": memory}, tells=Occurrence.HELD)


def _deploying_failed(
    operation: Operation, action: Action, failed: Failed, progress: Progress, now: float
) -> Transition:
    match operation.state, action:
        case OperationState.QUEUED, _:
            return Transition(progress=dataclasses.replace(progress, verdict=failed))
        case state, Fence():
            return _again(operation, f"cannot go on yet: {failed.why}", state, progress, now)
        case OperationState.RUNNING, _:
            return _turning_back(operation, failed, progress, now)
        case _, LoadSteps():
            return Transition(progress=dataclasses.replace(progress, unloadable=failed.why))
    return _undo_failed(operation, action, failed, progress, now)


def _turning_back(operation: Operation, failed: Failed, progress: Progress, now: float) -> Transition:
    if failed.cause is Cause.OPERATOR:
        return _held(operation, failed, progress, now)
    if failed.failure is None:  # cancelled
        return _succeeded(operation, TurnBack(), Succeeded(), progress)
    fields: dict[str, Json] = {"state": OperationState.UNDOING, "failure": failed.failure.to_document(), "attempts": 0}
    return Transition(
        progress=progress,
        fields=fields,
        durable=True,
        line=f"failed: {failed.failure}",
        tells=Occurrence.FAILED,
    )


def _undo_failed(operation: Operation, action: Action, failed: Failed, progress: Progress, now: float) -> Transition:
    if failed.cause is Cause.OPERATOR:
        return _held(operation, failed, progress, now)
    why = failed.why
    if isinstance(action, Undo) and failed.cause is not Cause.CLUSTER:
        if operation.attempts >= UNDO_ATTEMPTS:
            return Transition(progress=dataclasses.replace(progress, broken=failed))
        why = f"step {action.step}: {why}"
    return _again(operation, f"undoing is not finished: {why}", OperationState.UNDOING, progress, now)


def _held(operation: Operation, failed: Failed, progress: Progress, now: float) -> Transition:
    """Look again a little later, as long as it takes; said once."""
    memory = {**operation.memory, SAID: failed.why, HELD: _reason_of(failed)}
    fields = {**wait(now, HOLD_INTERVAL), "memory": memory}
    if operation.kind not in SWITCHING:
        fields["state"] = parked_state(operation)
    return Transition(
        progress=progress,
        fields=fields,
        durable=True,
        say=failed.why,
        until=float(fields["due"]),
        tells=Occurrence.HELD,
    )


def _reason_of(failed: Failed) -> str:
    """By which what is held is counted."""
    return failed.failure.reason if failed.failure else OPERATOR_NEEDED


def _again(
    operation: Operation, why: str, state: OperationState, progress: Progress, now: float, **fields: Json
) -> Transition:
    """Try later, a little later each time; said once for each reason."""
    attempts = operation.attempts + 1
    fields |= {**wait(now, OPERATION_AGAIN.after(attempts)), "state": state, "attempts": attempts}
    fields["memory"] = {**operation.memory, SAID: why}
    return Transition(progress=progress, fields=fields, durable=True, say=why, until=float(fields["due"]))


def parked_state(operation: Operation) -> OperationState:
    """The operation's state while it waits: a retirement stands in nobody's way then; an undeployment is awaited by
    what comes after it, until nothing is left of it but pods that end."""
    if operation.kind in SWITCHING:
        return operation.state
    return OperationState.QUEUED if operation.aside else OperationState.RUNNING


def wait(now: float, seconds: float, least: float = 0.0) -> dict[str, Json]:
    """The fields of an operation that is to be taken up after so many seconds; `least` after a restart."""
    period = max(0.0, seconds)
    return {"due": now + seconds, "period": period, "least": min(least, period)}

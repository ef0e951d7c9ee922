"""The state machine of operations: what comes next, and what a result makes of it. Pure functions, without a store."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from deployer.core.contract.kube import ClusterEvent
from deployer.core.contract.strategy import Park
from deployer.core.errors import StoreError
from deployer.core.model.kind import POD
from deployer.core.model.operation.target import Target
from deployer.core.model.plan import PlannedStep
from deployer.core.model.records import Deployment, Failure, Operation, OperationKind, OperationState, Plan, Status
from deployer.core.operations import machine
from deployer.core.operations.actions import (
    Action,
    Await,
    Begin,
    Blocker,
    Cause,
    Clear,
    Close,
    Commit,
    Conclude,
    Decide,
    End,
    Failed,
    Fence,
    GiveUpUndo,
    Hold,
    LoadSteps,
    Progress,
    Rest,
    Resume,
    Run,
    StepFacts,
    Succeeded,
    TurnBack,
    Undo,
)
from deployer.core.operations.machine import AWAITS, DONE, HELD, SAID, STARTED, UNDONE

NOW = 1_000.0
QUEUED, RUNNING, UNDOING = OperationState.QUEUED, OperationState.RUNNING, OperationState.UNDOING

START, LOOK, SWITCH = StepFacts("start"), StepFacts("look", only_looks=True), StepFacts("switch")
STEPS = (START, LOOK, SWITCH)
PLAN = Plan(
    namespace="shop",
    app="cart",
    deployment="d1",
    version="2",
    steps=(
        PlannedStep(id="start", phase="START"),
        PlannedStep(id="look", phase="VERIFY"),
        PlannedStep(id="switch", phase="EXPOSE", exposes=True),
    ),
)
GOING = Progress(fenced=True, steps=STEPS)
WHY = Failure(reason="StepFailed", message="no pod is ready")
FAILED = Failed(Cause.OTHER, "no pod is ready", WHY)
BLOCKER = Blocker(deployment="d0", version="2", retirement="r0", due=NOW + 20, limit=60.0)


def an_operation(state: OperationState = RUNNING, **fields: Any) -> Operation:
    fields = {"kind": OperationKind.DEPLOY, **fields}
    return Operation(namespace="shop", app="cart", id="o1", deployment="d1", state=state, **fields)


def a_deployment(status: Status = Status.DEPLOYING) -> Deployment:
    return Deployment(
        namespace="shop", app="cart", id="d1", descriptor={}, created="", last_modified="", status=status, version="2"
    )


def after(
    operation: Operation,
    progress: Progress = GOING,
    *,
    plan: Plan | None = PLAN,
    status: Status = Status.DEPLOYING,
) -> Action:
    return machine.next_action(operation, a_deployment(status), plan, progress, NOW)


def noted(*notes: str) -> dict[str, str]:
    return {step.id: note for step, note in zip(STEPS, notes, strict=False) if note}


# --- what comes next: a deployment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "due", "progress", "status", "expected"),
    [
        (Target(), 0.0, Progress(), Status.DEPLOYING, Fence()),
        (Target(), 0.0, Progress(fenced=True), Status.DEPLOYING, Decide()),
        (Target(), 0.0, Progress(verdict=FAILED), Status.DEPLOYING, End(WHY)),
        (Target(), 0.0, Progress(fenced=True, verdict=FAILED), Status.UNDEPLOYING, End(None)),
        (Target(), 0.0, Progress(fenced=True), Status.UNDEPLOYING, End(None)),
        (Target(), 0.0, Progress(blocker=BLOCKER), Status.DEPLOYING, Await(BLOCKER)),
        (Target(awaits="other"), 0.0, Progress(blocker=BLOCKER), Status.DEPLOYING, Await(BLOCKER)),
        (Target(awaits="r0"), NOW + 5, Progress(blocker=BLOCKER), Status.DEPLOYING, Rest(NOW + 5)),
        (Target(awaits="r0"), NOW, Progress(blocker=BLOCKER), Status.DEPLOYING, Fence()),
        (Target(awaits="r0"), NOW + 5, Progress(fenced=True), Status.DEPLOYING, Decide()),
        (Target(awaits="r0"), NOW + 5, Progress(blocker=BLOCKER), Status.UNDEPLOYING, End(None)),
    ],
)
def test_queued(target: Target, due: float, progress: Progress, status: Status, expected: Action) -> None:
    assert after(an_operation(QUEUED, target=target, due=due), progress, plan=None, status=status) == expected


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        (noted(), Run("start")),
        (noted(STARTED), Run("start")),
        (noted(DONE), Run("look")),
        (noted(DONE, STARTED), Run("look")),
        (noted(DONE, DONE), Run("switch")),
        (noted(DONE, DONE, STARTED), Run("switch")),
        (noted(DONE, DONE, DONE), Commit()),
    ],
)
def test_running_takes_one_step_after_the_other_and_commits_when_all_are_done(
    notes: dict[str, str], expected: Action
) -> None:
    assert after(an_operation(steps=notes)) == expected


@pytest.mark.parametrize("notes", [noted(), noted(STARTED), noted(DONE, DONE, DONE)])
@pytest.mark.parametrize(
    ("cancelled", "status"),
    [(True, Status.DEPLOYING), (False, Status.UNDEPLOYING), (True, Status.UNDEPLOYING)],
)
def test_who_is_cancelled_takes_no_step_and_does_not_commit(
    notes: dict[str, str], cancelled: bool, status: Status
) -> None:
    progress = dataclasses.replace(GOING, cancelled=cancelled, resumed=True)
    assert after(an_operation(steps=notes, due=NOW + 9), progress, status=status) == TurnBack()


@pytest.mark.parametrize(
    ("due", "memory", "resumed", "expected"),
    [
        (NOW + 5, {}, False, Rest(NOW + 5)),
        (NOW + 5, {AWAITS: False}, True, Rest(NOW + 5)),
        (NOW + 5, {AWAITS: True}, True, Run("look")),  # the event may have come while nobody listened
        (NOW, {AWAITS: False}, True, Run("look")),
        (NOW, {}, True, Resume()),
        (0.0, {}, False, Run("look")),
    ],
)
def test_parked(due: float, memory: dict[str, Any], resumed: bool, expected: Action) -> None:
    operation = an_operation(steps=noted(DONE, STARTED), due=due, memory=memory)
    assert after(operation, dataclasses.replace(GOING, resumed=resumed)) == expected


@pytest.mark.parametrize("state", [RUNNING, UNDOING])
def test_what_was_begun_fences_and_loads_its_steps_first(state: OperationState) -> None:
    operation = an_operation(state, steps=noted(DONE))
    assert after(operation, Progress()) == Fence()
    assert after(operation, Progress(fenced=True)) == LoadSteps()
    assert after(operation, Progress(fenced=True, cancelled=True)) == LoadSteps()
    with pytest.raises(StoreError, match="the plan of deployment d1 is missing"):
        after(operation, plan=None)


@pytest.mark.parametrize("state", [QUEUED, RUNNING, UNDOING])
def test_without_the_record_of_the_deployment_it_is_closed(state: OperationState) -> None:
    assert machine.next_action(an_operation(state), None, PLAN, GOING, NOW) == Close()


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        (noted(DONE, DONE, STARTED), Undo("switch")),
        (noted(DONE, DONE, DONE), Undo("switch")),
        (noted(DONE, DONE, UNDONE), Undo("look")),
        (noted(DONE, UNDONE, UNDONE), Undo("start")),
        (noted(STARTED), Undo("start")),
        (noted(), Clear()),
        (noted(UNDONE, UNDONE, UNDONE), Clear()),
    ],
)
def test_undoing_takes_the_last_started_one_first_and_never_goes_on(notes: dict[str, str], expected: Action) -> None:
    for progress in (GOING, dataclasses.replace(GOING, cancelled=True), dataclasses.replace(GOING, resumed=True)):
        assert after(an_operation(UNDOING, steps=notes, due=NOW + 9), progress) == expected


def test_undoing_ends_with_why_it_began() -> None:
    progress = dataclasses.replace(GOING, cleared=True, ending=("uid-1",))
    operation = an_operation(UNDOING, failure=WHY.to_document())
    assert after(operation, progress) == End(WHY, ("uid-1",))
    assert after(dataclasses.replace(operation, failure=None), progress) == End(None, ("uid-1",))
    assert after(operation, dataclasses.replace(GOING, abandoned=True)) == Clear()


# --- what comes next: without the plugin, or with an undo that keeps failing ----------------------------------------


def plan_of(phase: str, **says: bool) -> Plan:
    return dataclasses.replace(
        PLAN, steps=(PlannedStep(id="start", phase="START"), PlannedStep(id="move", phase=phase, **says))
    )


@pytest.mark.parametrize(
    ("phase", "says", "note", "expected"),
    [
        ("EXPOSE", {"exposes": True}, STARTED, "may have given traffic to version 2"),
        ("START", {"exposes": True}, DONE, "may have given traffic to version 2"),
        ("START", {"disturbs": True}, STARTED, "may have taken traffic or capacity from the version before"),
        ("EXPOSE", {"disturbs": True, "exposes": True}, DONE, "may have taken traffic or capacity"),
        ("EXPOSE", {}, STARTED, True),
        ("CONFIRM", {}, DONE, True),
        ("VERIFY", {}, DONE, False),
        ("EXPOSE", {"exposes": True}, "", False),
        ("EXPOSE", {"exposes": True}, UNDONE, False),
        ("START", {"disturbs": True}, UNDONE, False),
    ],
)
def test_what_the_core_does_by_itself(phase: str, says: dict[str, bool], note: str, expected: str | bool) -> None:
    """A text: it holds, and says that. Else it undoes without the plugin; True: not without looking for traffic."""
    steps = {"start": DONE} | ({"move": note} if note else {})
    operation = an_operation(UNDOING, steps=steps)
    gone = Progress(fenced=True, unloadable="there is no strategy x")
    action = after(operation, gone, plan=plan_of(phase, **says))
    if isinstance(expected, str):
        assert isinstance(action, Hold)
        assert action.what.startswith("step move ")
        assert expected in action.what
        assert action.what.endswith("and only the plugin can take that back")
        assert action.why == "there is no strategy x"
    else:
        assert action == GiveUpUndo("", "there is no strategy x", check=expected)


def test_an_undo_that_keeps_failing_concerns_its_own_step_only() -> None:
    plan = plan_of("EXPOSE", exposes=True)
    facts = (StepFacts("start"), StepFacts("move"))
    broken = Progress(fenced=True, steps=facts, broken=FAILED)
    switched = an_operation(UNDOING, steps={"start": DONE, "move": DONE})
    action = after(switched, broken, plan=plan)
    assert isinstance(action, Hold)
    assert action.why == "undoing step move keeps failing: no pod is ready"
    undone = an_operation(UNDOING, steps={"start": DONE, "move": UNDONE})
    why = "undoing step start keeps failing: no pod is ready"
    assert after(undone, broken, plan=plan) == GiveUpUndo("start", why, check=False)


def test_what_another_client_changed_is_left_to_it() -> None:
    changed = Failed(Cause.CHANGED, "route cart was changed by kubectl", WHY)
    progress = dataclasses.replace(GOING, broken=changed)
    why = "undoing step switch keeps failing: route cart was changed by kubectl"
    assert after(an_operation(UNDOING, steps=noted(DONE, DONE, DONE)), progress) == GiveUpUndo(
        "switch", why, check=True
    )


# --- what comes next: removals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OperationKind.RETIRE, OperationKind.UNDEPLOY])
@pytest.mark.parametrize(
    ("state", "notes", "progress", "expected"),
    [
        (QUEUED, noted(), Progress(fenced=True, steps=STEPS), Begin()),
        (RUNNING, noted(), Progress(), Fence()),
        (RUNNING, noted(), Progress(fenced=True), LoadSteps()),
        (RUNNING, noted(), Progress(fenced=True, idle=True), Close()),
        (RUNNING, noted(), GOING, Run("start")),
        (RUNNING, noted(), dataclasses.replace(GOING, cancelled=True), Run("start")),
        (RUNNING, noted(DONE, DONE, STARTED), GOING, Run("switch")),
        (RUNNING, noted(DONE, DONE, DONE), GOING, Clear()),
        (RUNNING, noted(), Progress(fenced=True, steps=()), Clear()),
        (RUNNING, noted(DONE, DONE, DONE), dataclasses.replace(GOING, cleared=True), Conclude()),
    ],
)
def test_removals(
    kind: OperationKind, state: OperationState, notes: dict[str, str], progress: Progress, expected: Action
) -> None:
    operation = an_operation(state, kind=kind, steps=notes)
    assert machine.next_action(operation, None, None, progress, NOW) == expected


# --- what a result makes of it: steps -------------------------------------------------------------------------------


def test_that_a_step_starts_is_durable_unless_it_only_looks() -> None:
    first = machine.started(an_operation(), START, GOING)
    assert (first.fields, first.durable) == ({"steps": {"start": STARTED}}, True)
    assert machine.started(an_operation(), LOOK, GOING).durable is False
    ended = dataclasses.replace(GOING, unrecorded=True)
    second = machine.started(an_operation(steps=noted(DONE)), LOOK, ended)
    assert (second.fields, second.durable) == ({"steps": noted(DONE, STARTED)}, True)
    assert second.progress.unrecorded is False


@pytest.mark.parametrize(
    ("step", "before", "unrecorded"), [(START, False, True), (LOOK, False, False), (LOOK, True, True)]
)
def test_that_a_step_is_done_goes_with_the_next_transaction(step: StepFacts, before: bool, unrecorded: bool) -> None:
    operation = an_operation(due=NOW + 5, memory={AWAITS: True, "start/x": 1, SAID: "waits"})
    progress = dataclasses.replace(GOING, resumed=True, unrecorded=before)
    transition = machine.settle(operation, Run(step.id), Succeeded(), progress, NOW)
    assert transition.fields["steps"] == {step.id: DONE}
    assert transition.fields["memory"] == {"start/x": 1}
    assert transition.fields["due"] == 0.0  # the next step is not parked
    assert (transition.durable, transition.until) == (False, None)
    assert (transition.progress.resumed, transition.progress.unrecorded) == (False, unrecorded)


@pytest.mark.parametrize("action", [Undo("start"), GiveUpUndo("start", "it keeps failing", check=False)])
def test_that_a_step_is_undone_is_durable(action: Action) -> None:
    progress = dataclasses.replace(GOING, broken=FAILED)
    transition = machine.settle(an_operation(UNDOING, steps=noted(DONE)), action, Succeeded(), progress, NOW)
    assert (transition.fields["steps"], transition.durable) == ({"start": UNDONE}, True)
    assert transition.progress.broken is None


@pytest.mark.parametrize(
    ("action", "result", "known"),
    [
        (Fence(), Succeeded(), {"fenced": True}),
        (LoadSteps(), Succeeded(steps=STEPS), {"steps": STEPS, "idle": False}),
        (LoadSteps(), Succeeded(steps=()), {"steps": (), "idle": False}),
        (LoadSteps(), Succeeded(steps=None), {"steps": None, "idle": True}),
        (Resume(), Succeeded(), {"resumed": False}),
        (GiveUpUndo("", "the plugin is gone", check=True), Succeeded(), {"abandoned": True}),
        (Clear(), Succeeded(ending=("uid-1",)), {"cleared": True, "ending": ("uid-1",)}),
    ],
)
def test_what_only_this_process_knows(action: Action, result: Succeeded, known: dict[str, Any]) -> None:
    before = Progress(resumed=True)
    transition = machine.settle(an_operation(), action, result, before, NOW)
    assert transition.progress == dataclasses.replace(before, **known)
    assert (dict(transition.fields), transition.durable) == ({}, False)


def test_turning_back_is_durable_and_names_no_failure() -> None:
    operation = an_operation(attempts=2, steps=noted(DONE))
    for action, result in ((TurnBack(), Succeeded()), (Run("look"), Failed(Cause.CANCELLED, "cancelled by request"))):
        transition = machine.settle(operation, action, result, GOING, NOW)
        assert transition.fields == {"state": UNDOING, "failure": None, "attempts": 0}
        assert transition.durable
        assert transition.line == "stopping, and removing what was started"


# --- what a result makes of it: parking -----------------------------------------------------------------------------


@pytest.mark.parametrize(("until", "due"), [(NOW + 7, NOW + 7), (NOW + 0.1, NOW + 1), (NOW - 50, NOW + 1)])
def test_parking_lasts_a_second_at_least(until: float, due: float) -> None:
    operation = an_operation(attempts=2, memory={"start/x": 1})
    transition = machine.settle(operation, Run("start"), Park(until, "pods are starting"), GOING, NOW)
    assert (transition.until, transition.fields["due"], transition.fields["period"]) == (due, due, due - NOW)
    assert (transition.say, transition.durable, transition.frees) == ("pods are starting", True, False)
    assert transition.fields["memory"] == {"start/x": 1, AWAITS: False, SAID: "pods are starting"}
    assert (transition.fields["state"], transition.fields["attempts"]) == (RUNNING, 0)


def test_what_waits_for_an_event_says_so_and_keeps_what_was_said() -> None:
    event = ClusterEvent(POD, "shop", {})
    operation = an_operation(memory={SAID: "pods are starting"})
    transition = machine.settle(operation, Run("start"), Park(NOW + 7, "", event), GOING, NOW)
    assert transition.fields["memory"] == {SAID: "pods are starting", AWAITS: True}
    assert transition.say == ""


@pytest.mark.parametrize(
    ("kind", "target", "frees_app", "last", "state", "frees"),
    [
        (OperationKind.UNDEPLOY, Target(), True, True, QUEUED, True),
        (OperationKind.UNDEPLOY, Target(), True, False, RUNNING, False),
        (OperationKind.UNDEPLOY, Target(), False, True, RUNNING, False),
        (OperationKind.UNDEPLOY, Target(released=True), True, True, QUEUED, False),
        (OperationKind.RETIRE, Target(by="d2"), True, True, QUEUED, False),
    ],
)
def test_an_app_is_free_once_only_pods_are_left_that_end(
    *, kind: OperationKind, target: Target, frees_app: bool, last: bool, state: OperationState, frees: bool
) -> None:
    steps = (StepFacts("traffic", frees_app=frees_app), StepFacts("workload", frees_app=frees_app))
    progress = Progress(fenced=True, steps=steps)
    operation = an_operation(kind=kind, target=target)
    transition = machine.settle(operation, Run(steps[last].id), Park(NOW + 30), progress, NOW)
    assert (transition.frees, transition.fields["state"]) == (frees, state)
    assert transition.fields.get("target", target) == dataclasses.replace(target, released=frees or target.released)


# --- what a result makes of it: failures ----------------------------------------------------------------------------


def failed(cause: Cause) -> Failed:
    return Failed(cause, "why not", None if cause is Cause.CANCELLED else WHY)


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("action", [Fence(), Decide()])
def test_a_queued_one_that_fails_has_its_verdict(cause: Cause, action: Action) -> None:
    transition = machine.settle(an_operation(QUEUED), action, failed(cause), Progress(), NOW)
    assert transition.progress == Progress(verdict=failed(cause))
    assert (dict(transition.fields), transition.until) == ({}, None)


@pytest.mark.parametrize("cause", [Cause.CLUSTER, Cause.CHANGED, Cause.OTHER])
@pytest.mark.parametrize("action", [Run("start"), LoadSteps(), Commit()])
def test_a_running_one_that_fails_turns_back_durably(cause: Cause, action: Action) -> None:
    transition = machine.settle(an_operation(attempts=2), action, failed(cause), GOING, NOW)
    assert transition.fields == {"state": UNDOING, "failure": WHY.to_document(), "attempts": 0}
    assert (transition.durable, transition.line, transition.until) == (True, "failed: no pod is ready", None)


@pytest.mark.parametrize(
    ("state", "action"),
    [(RUNNING, Run("start")), (UNDOING, Undo("start")), (UNDOING, Clear()), (UNDOING, GiveUpUndo("", "", check=True))],
)
def test_where_only_a_person_can_decide_all_is_kept(state: OperationState, action: Action) -> None:
    operation = an_operation(state, attempts=2, steps=noted(DONE), memory={"start/x": 1})
    transition = machine.settle(operation, action, failed(Cause.OPERATOR), GOING, NOW)
    until = NOW + machine.HOLD_INTERVAL
    assert transition.fields == {
        "due": until,
        "period": machine.HOLD_INTERVAL,
        "least": 0.0,
        "memory": {"start/x": 1, SAID: "why not", HELD: WHY.reason},
    }
    assert (transition.durable, transition.say, transition.until) == (True, "why not", until)


@pytest.mark.parametrize(("result", "is_held"), [(Succeeded(), False), (failed(Cause.CLUSTER), True)])
def test_it_is_held_until_it_goes_on(result: Succeeded | Failed, is_held: bool) -> None:
    operation = an_operation(UNDOING, steps=noted(DONE), memory={"start/x": 1, SAID: "why not", HELD: WHY.reason})
    transition = machine.settle(operation, Undo("start"), result, GOING, NOW)
    assert (HELD in transition.fields["memory"]) is is_held
    assert transition.line == ("" if is_held else "no longer held")


@pytest.mark.parametrize("state", [RUNNING, UNDOING])
@pytest.mark.parametrize("cause", list(Cause))
def test_what_cannot_fence_goes_neither_on_nor_back(state: OperationState, cause: Cause) -> None:
    transition = machine.settle(an_operation(state), Fence(), failed(cause), Progress(), NOW)
    assert (transition.fields["state"], transition.fields["attempts"]) == (state, 1)
    assert (transition.say, transition.durable) == ("cannot go on yet: why not", True)
    assert transition.until == transition.fields["due"] > NOW


@pytest.mark.parametrize("cause", [Cause.CLUSTER, Cause.CHANGED, Cause.OTHER, Cause.CANCELLED])
def test_steps_that_cannot_be_had_for_undoing_are_done_without(cause: Cause) -> None:
    transition = machine.settle(an_operation(UNDOING), LoadSteps(), failed(cause), Progress(fenced=True), NOW)
    assert transition.progress == Progress(fenced=True, unloadable="why not")
    assert transition.until is None


@pytest.mark.parametrize("attempts", range(5))
@pytest.mark.parametrize("cause", [Cause.OTHER, Cause.CHANGED, Cause.CLUSTER])
def test_an_undo_that_fails_is_tried_three_times_and_as_long_as_the_cluster_refuses(
    attempts: int, cause: Cause
) -> None:
    operation = an_operation(UNDOING, steps=noted(DONE), attempts=attempts)
    transition = machine.settle(operation, Undo("start"), failed(cause), GOING, NOW)
    if cause is not Cause.CLUSTER and attempts >= machine.UNDO_ATTEMPTS:
        assert transition.progress.broken == failed(cause)
        assert (dict(transition.fields), transition.until) == ({}, None)
        return
    why = "why not" if cause is Cause.CLUSTER else "step start: why not"
    assert transition.say == f"undoing is not finished: {why}"
    assert (transition.fields["state"], transition.fields["attempts"]) == (UNDOING, attempts + 1)
    assert transition.until == transition.fields["due"] > NOW
    assert "steps" not in transition.fields


def test_clearing_is_never_given_up() -> None:
    operation = an_operation(UNDOING, attempts=50)
    transition = machine.settle(operation, Clear(), failed(Cause.OTHER), GOING, NOW)
    assert transition.progress == GOING
    assert transition.fields["attempts"] == 51
    assert NOW < transition.fields["due"] <= NOW + 60


@pytest.mark.parametrize(
    ("kind", "target", "state", "what"),
    [
        (OperationKind.RETIRE, Target(by="d2"), QUEUED, "retiring is not finished: "),
        (OperationKind.UNDEPLOY, Target(), RUNNING, "undeploying is not finished: "),
        (OperationKind.UNDEPLOY, Target(released=True), QUEUED, "undeploying is not finished: "),
    ],
)
@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("action", [Fence(), LoadSteps(), Run("start"), Clear(), Conclude()])
def test_a_removal_that_fails_begins_anew_later(
    *, kind: OperationKind, target: Target, state: OperationState, what: str, cause: Cause, action: Action
) -> None:
    operation = an_operation(kind=kind, target=target, steps=noted(DONE), attempts=1)
    transition = machine.settle(operation, action, failed(cause), GOING, NOW)
    assert transition.say == ("" if cause is Cause.OPERATOR else what) + "why not"
    assert (transition.fields["state"], transition.fields["attempts"]) == (state, 2)
    assert (transition.fields["steps"], transition.durable, transition.frees) == ({}, True, False)
    assert transition.until == transition.fields["due"] > NOW


def test_beginning_a_removal_is_durable() -> None:
    begun = machine.settle(an_operation(QUEUED, kind=OperationKind.RETIRE), Begin(), Succeeded(), Progress(), NOW)
    assert (dict(begun.fields), begun.durable) == ({"state": RUNNING}, True)

"""Carries out what the state machine says of one operation, under its lease: threads, deadlines, journal, handles."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from deployer.core.backoff import Backoff
from deployer.core.contract.kube import ClusterEvent
from deployer.core.contract.strategy import Outcome, Park, Phase, Signal, Step
from deployer.core.errors import (
    CHECK_API_SERVER,
    PLUGIN_MISSING,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    DeployerError,
    HostTaken,
    Interrupted,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeRejected,
    KubeUnavailable,
    OperatorNeeded,
    PluginError,
    Revoked,
    StaleRevision,
    StepFailed,
    StoreError,
    require_answers,
    unanswered,
)
from deployer.core.model.operation.target import Target
from deployer.core.model.operation.timeline import timestamp_of
from deployer.core.model.records import (
    Deployment,
    Failure,
    Json,
    Operation,
    OperationKind,
    OperationState,
    Plan,
)
from deployer.core.operations import actions, machine
from deployer.core.operations.actions import Cause, Failed, Progress, Result, StepFacts, Succeeded, Transition
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.execution import clearing
from deployer.core.operations.execution.automatic_rollback import AutomaticRollback
from deployer.core.operations.execution.budgets import Budgets
from deployer.core.operations.execution.clearing import Clearing
from deployer.core.operations.execution.decision import Decision
from deployer.core.operations.execution.handles import Handles
from deployer.core.operations.execution.invocation import BoundedInvoker, StepCrashed, checked
from deployer.core.operations.execution.outage import OutageNotice
from deployer.core.operations.execution.removal import Removal, Todo
from deployer.core.operations.execution.transactions import Transactions
from deployer.core.operations.execution.version_events import VersionEvents
from deployer.core.operations.gates.step import GateSteps
from deployer.core.operations.inventory import PlanInventory
from deployer.core.operations.journal import Journal
from deployer.core.operations.reporter import Reporter
from deployer.core.operations.steps import check_steps
from deployer.core.ports.leases import Held
from deployer.core.ports.store import Change

logger = logging.getLogger(__name__)

STEP_AGAIN = Backoff(first=0.25, most=5.0)
"""Pauses between two attempts at a step, while the API server cannot be reached."""

OBJECT_CHANGED = "ObjectChanged"
"""The reason with which a step fails that finds an object as another client made it."""

FAILURES = (StepFailed, KubeError, PluginError, DeadlineExceeded, Conflict, StepCrashed)
"""What ends a deployment, or has a removal tried again. The store's errors and interruptions are not among them."""

HINTS = (
    (KubeForbidden, "grant the right, or free the quota, that the message names; then deploy again"),
    (KubeNotFound, "check that the namespace exists; then deploy again"),
    (KubeRejected, "correct the descriptor; then deploy again"),
    (KubeUnavailable, CHECK_API_SERVER),
)
"""What to do about what Kubernetes answered."""


class Executor:
    """One operation, until it is done or has to wait."""

    def __init__(self, dependencies: Dependencies, operation: Operation, held: Held, *, fenced: bool) -> None:
        """`fenced`: this process wrote the lease's token on the app's objects already."""
        self._dependencies = dependencies
        self._store = dependencies.store
        self._journal = Journal(dependencies.store, operation, held.lease)
        inventory = PlanInventory(self._store, self._journal, dependencies.cluster.pinned)
        self._handles = Handles(dependencies, self._journal, held.lease, inventory)
        self._reporter = Reporter(dependencies, self._journal, self._handles.clean)
        self._handles.waiting, self._handles.count = self._reporter.waits, self._reporter.count
        outage = OutageNotice(self._handles.log, self._reporter.outage)
        self._invoker = BoundedInvoker(operation.app, dependencies.hung, outage.report, lambda: held.good)
        self._clearing = Clearing(dependencies, self._handles, inventory)
        self._transactions = Transactions(dependencies, self._journal)
        self._events = VersionEvents(dependencies.cluster, operation)
        undo_timeout = dependencies.settings.undo_timeout
        self._budgets = Budgets(operation.spent, resumed=operation.begun, undo_timeout=undo_timeout)
        self._decision = Decision(
            dependencies, self._journal, self._handles, self._invoker, self._budgets, self._transactions
        )
        self._progress = Progress(fenced=fenced, resumed=operation.begun)
        self._steps: dict[str, tuple[Step, Plan]] = {}
        self._deployment: Deployment | None = None
        self._plan: Plan | None = None
        self.event: ClusterEvent | Signal | None = None
        """What the step that parked waits for, besides the time."""

    @property
    def operation(self) -> Operation:
        """The record as last written."""
        return self._journal.operation

    def stop(self, reason: Interrupted) -> None:
        """Leave the operation as it is (the service stops, the lease is lost); whoever takes it up next resumes it."""
        self._invoker.stop(reason)

    def cancel(self) -> None:
        """Stop deploying and undo. No effect on an operation that is being undone, is committed, or removes."""
        self._invoker.cancel()

    def run(self) -> None:
        """Go on from where the journal says. Raises Interrupted or StoreError when it was left as it is."""
        with self._reporter:
            self._run_on()

    def _run_on(self) -> None:
        self._read()
        while not self._is_done():
            action = machine.next_action(
                self.operation, self._deployment, self._plan, self._known(), self._dependencies.clock()
            )
            if isinstance(action, actions.Rest | actions.Await):
                self._rest(action)
                return
            result = self._attempt(action)
            if self._is_done():
                return
            now = self._dependencies.clock()
            transition = machine.settle(self.operation, action, result, self._progress, now)
            self._apply(transition)
            if transition.until is not None:
                return

    def _is_done(self) -> bool:
        return self.operation.state is OperationState.DONE

    def _read(self) -> None:
        """The records, once: under the lease nobody else changes them, but for what asks to be rid of a deployment."""
        self._deployment = self._store.get(Deployment, self.operation.deployment)
        if self.operation.kind in machine.SWITCHING:
            self._plan = self._store.get(Plan, self.operation.deployment)
            deploys = self.operation.kind is OperationKind.DEPLOY
            if deploys and self.operation.state is OperationState.QUEUED and self._deployment is not None:
                blocker = self._decision.blocker(self._deployment)
                self._progress = dataclasses.replace(self._progress, blocker=blocker)

    def _known(self) -> Progress:
        return dataclasses.replace(self._progress, cancelled=self._invoker.cancelled)

    def _apply(self, transition: Transition) -> None:
        is_news = transition.say != self.operation.memory.get(machine.SAID, "")
        if is_news and transition.say:
            self._handles.log(transition.say)
        self._progress = transition.progress
        told = self._handles.clean(transition.say or (transition.fields.get("failure") or {}).get("message", ""))
        fields = {**transition.fields, "timeline": self._reporter.timeline(transition, told)}
        if not transition.durable:
            self._journal.operation = dataclasses.replace(self.operation, **fields)
            self._reporter.publish()
            return
        tells = transition.tells if is_news or transition.line else None
        line = [self._handles.line(transition.line)] if transition.line else []

        def changes() -> list[Change]:
            freed = self._transactions.forgotten() if transition.frees else []
            return [*line, *freed, *self._transactions.turned(tells, told)]

        self._transact(changes, **{"spent": self._budgets.spent, **fields})
        self._reporter.publish()
        self._events.turned(tells, self._deployment, self._plan, told)

    def _transact(self, changes: Callable[[], Sequence[Change]], *, ended: bool = False, **fields: Json) -> None:
        """Write the changes, made anew when one of their records has moved; `ended`: the operation has."""
        while True:
            try:
                made = changes()
                if ended:
                    made, times = self._reporter.ended(made, self._plan, failed=bool(fields.get("failure")))
                    fields |= {"timeline": times, "state": OperationState.DONE}
                self._journal.write(*made, **fields)
            except StaleRevision:
                continue
            return

    # --- actions -------------------------------------------------------------------------------------------------

    def _attempt(self, action: actions.Action) -> Result:
        """Carry it out. Raises Interrupted and StoreError, and what is a mistake of ours."""
        try:
            return self._perform(action)
        except Cancelled as error:
            return Failed(Cause.CANCELLED, str(error))
        except OperatorNeeded as error:
            return Failed(Cause.OPERATOR, str(error), self._failure(error))
        except FAILURES as error:
            return self._failed(error)
        except (StoreError, Revoked):
            raise
        except DeployerError as error:
            if not isinstance(action, actions.Undo):
                raise
            return self._failed(error)

    def _perform(self, action: actions.Action) -> Result:
        match action:
            case actions.Fence():
                self._invoker.call(self._dependencies.settings.undo_timeout, self._handles.fence)
            case actions.Decide():
                self._decision.decide()
                self._read()
                if self.operation.kind is OperationKind.DEPLOY:
                    self._events.started(self._plan)
            case actions.LoadSteps():
                return self._load()
            case actions.Resume():
                self._handles.log("resumed")
            case actions.Run(step):
                return self._run(step)
            case actions.Undo(step):
                self._undo(step)
            case actions.GiveUpUndo():
                self._give_up_undo(action)
            case actions.Hold(what, why):
                raise OperatorNeeded(self._kept(what, why), reason=PLUGIN_MISSING)
            case actions.Clear():
                return self._clear()
            case actions.Condemn(failure):
                return self._condemn(failure)
            case _:
                self._finish(action)
        return Succeeded()

    def _finish(self, action: actions.Action) -> None:
        """The transactions with which an operation ends."""
        changes = self._transactions
        ends: Callable[[], Sequence[Change]]
        match action:
            case actions.Close():
                ends = list
            case actions.Commit():
                ends = partial(changes.committed, self._pinned)
            case actions.End(failure, ending):
                ends = partial(changes.ended, failure, ending, self._plan)
            case actions.Conclude():
                ends = partial(changes.concluded, ends=self._ends)
            case _:
                return
        why = action.failure.to_document() if isinstance(action, actions.End) and action.failure else None
        # What its steps remembered serves nobody any more.
        self._transact(ends, ended=True, spent=self._budgets.spent, failure=why, memory={})
        deploys = self.operation.kind is OperationKind.DEPLOY
        if isinstance(action, actions.Commit):
            (self._events.switched if deploys else self._events.rolled_back)(self._pinned)
        elif isinstance(action, actions.End) and deploys:
            self._events.ended(self._plan, action.failure)
        elif isinstance(action, actions.End) and action.failure is not None:
            self._events.not_rolled_back(self._deployment, action.failure)

    @property
    def _pinned(self) -> Plan:
        assert self._plan is not None
        return self._plan

    def _rest(self, action: actions.Rest | actions.Await) -> None:
        self._invoker.pause(0.0, cancellable=False)
        if isinstance(action, actions.Rest):
            return
        blocker = action.blocker
        self._journal.write(
            self._handles.line(
                f"version {blocker.version} is still draining (deployment {blocker.deployment}): it starts again when "
                f"it has been removed, from {timestamp_of(blocker.due)} on"
            ),
            target=Target(awaits=blocker.retirement),
            timeline=self._reporter.waiting(
                f"version {blocker.version} to be removed, which is still draining (deployment {blocker.deployment})"
            ),
            **machine.wait(self._dependencies.clock(), blocker.limit, least=blocker.limit),
        )

    def _condemn(self, failure: Failure) -> Result:
        """The version that is watched fails."""
        rollback = AutomaticRollback(
            self._dependencies, self._journal, self._handles, self._invoker, self._transactions
        )
        result = rollback.begin(failure)
        self.event = rollback.event
        self._handles.keep_lines()
        return result

    # --- steps ---------------------------------------------------------------------------------------------------

    def _load(self) -> Succeeded:
        if self.operation.kind in machine.SWITCHING:
            todo: Todo | None = self._deploy_steps(self._pinned)
        else:
            removal = Removal(self._dependencies, self._handles, self._invoker)
            todo = removal.steps(self.operation, self._transactions.others)
        if todo is None:
            return Succeeded(steps=None)
        self._steps = {step.id: (step, plan) for step, plan in todo}
        return Succeeded(steps=tuple(self._facts(step) for step, _ in todo))

    def _deploy_steps(self, plan: Plan) -> Todo:
        """The pinned steps, with gates. Raises PluginError when a provider is gone, or the strategy has other steps."""
        name = plan.strategy.name
        strategy = self._dependencies.registry.strategy(name)
        rolls_back = self.operation.kind is OperationKind.ROLLBACK
        ask = partial(self._decision.rollback_steps, strategy) if rolls_back else strategy.deploy_steps
        own = plan.without_gates
        found = self._invoker.call(self._dependencies.settings.expose_timeout, lambda _: check_steps(ask(own), name))
        found += self._decision.own_steps(plan)
        if [step.id for step in found] != [step.id for step in own.steps]:
            raise PluginError(f"strategy {name} has other steps than when this deployment was decided")
        if plan.route:
            self._handles.ingress(plan)
        if self.operation.state is OperationState.RUNNING and not rolls_back:  # nobody is asked on the way back
            self._handles.health(plan)
        return [(step, plan) for step in GateSteps(self._dependencies, self._journal, self._handles).among(found, plan)]

    def _facts(self, step: Step) -> StepFacts:
        return _facts(step, watches=self.operation.kind is OperationKind.WATCH)

    def _run(self, id: str) -> Result:
        """Run one step; what may pass (an API server that cannot be reached) is tried again within its budget."""
        step, plan = self._steps[id]
        if id not in self.operation.steps:
            self._apply(machine.started(self.operation, self._facts(step), self._progress))
        self.event = None
        outcome = self._run_in_time(step, plan, cancellable=self.operation.kind in machine.SWITCHING)
        if isinstance(outcome, Park):
            self.event = outcome.event
            self._handles.keep_lines()
            return outcome
        return Succeeded()

    def _run_in_time(self, step: Step, plan: Plan, *, cancellable: bool) -> Outcome:
        account, counted = self._budgets.account(step, plan)
        failures = 0
        last: KubeError | None = None
        said = set(self.operation.memory.get(machine.LINES) or ())
        while True:
            left, budget = self._budgets.left(account, counted, self._budgets.undo(step, plan))
            began = time.monotonic()
            self._reporter.doing(step.id, left)
            try:
                if left <= 0:
                    raise DeadlineExceeded(f"step {step.id} did not finish in time") from last
                run = partial(self._handles.run, step, plan, frozenset(said))
                outcome = self._invoker.call(left, run, cancellable=cancellable)
                return checked(step, outcome)
            except StepCrashed as error:
                raise StepCrashed(f"step {step.id} of strategy {plan.strategy.name}: {error}") from None
            except (KubeUnavailable, KubeConflict) as error:
                logger.info("step %s of %s: %s; trying again", step.id, plan.deployment, error)
                last = error
                said |= set(self._handles.lines)
                failures += 1
                self._invoker.pause(min(STEP_AGAIN.after(failures), left), cancellable=cancellable)
            except DeadlineExceeded as error:
                require_answers(error)
                if isinstance(error.__cause__, KubeError):
                    last = error.__cause__
                why = f": {last}" if last else ""
                raise StepFailed(
                    f"step {step.id} did not finish within the {budget:g} s that it may take{why}",
                    reason="DeadlineExceeded",
                    hint="see in the log what it waited for; then deploy again",
                ) from None
            finally:
                self._budgets.spend(account, time.monotonic() - began)

    # --- going back ----------------------------------------------------------------------------------------------

    def _undo(self, id: str) -> None:
        step, plan = self._steps[id]
        budget = self._budgets.undo(step, plan)
        self._reporter.doing(step.id, budget)
        try:
            self._invoker.call(budget, lambda scope: step.undo(self._handles.work(step, plan, scope)))
        except DeadlineExceeded as error:
            raise StepFailed(f"{error}, {self._budgets.removal_parts(plan)}") from error

    def _give_up_undo(self, action: actions.GiveUpUndo) -> None:
        plan = self._pinned
        if action.check:
            budget = self._dependencies.settings.undo_timeout
            if self._invoker.call(budget, lambda scope: self._clearing.is_exposed(plan, scope)):
                what = f"version {plan.version} may have traffic already, and nobody can move it back"
                raise OperatorNeeded(self._kept(what, action.why), reason=PLUGIN_MISSING)
        if action.step:
            self._handles.log(f"{action.why}; the core removes the objects itself")
        else:
            self._handles.log_once(f"undoing without the plugin: {action.why}")

    def _kept(self, what: str, why: str) -> str:
        plugin = self._handles.missing(self._pinned)
        return f"{what} ({why}): everything is kept as it is until the plugin is back ({plugin})"

    # --- what no step removes ------------------------------------------------------------------------------------

    def _clear(self) -> Succeeded:
        if self.operation.kind is OperationKind.ROLLBACK:
            return Succeeded()  # the version to which it went back is draining again
        if self.operation.kind is OperationKind.DEPLOY:
            plan = self._pinned
            self._invoker.call(self._budgets.removal(plan), lambda scope: self._clearing.after_undo(plan, scope))
            budget = self._dependencies.settings.undo_timeout + clearing.PODS_PATIENCE
            ending = self._invoker.call(budget, lambda scope: self._clearing.pods_that_end(plan, scope))
            return Succeeded(ending=tuple(sorted(ending)))
        deployment = self._store.get(Deployment, self.operation.deployment) if self._ends else None
        if deployment is not None and not self.operation.target.ending:  # an undo has done that
            live_too = self.operation.kind is OperationKind.UNDEPLOY
            self._invoker.call(
                self._dependencies.settings.undo_timeout,
                lambda scope: self._clearing.after_removal(deployment, scope, live_too=live_too),
            )
        return Succeeded()

    @property
    def _ends(self) -> bool:
        """True when nothing of a deployment is to be left; releasing a route or dropping one is less than that."""
        operation = self.operation
        return operation.kind is OperationKind.UNDEPLOY or (
            bool(operation.target.previous or operation.target.ending) and not operation.target.drop
        )

    # --- failures ------------------------------------------------------------------------------------------------

    def _failed(self, error: DeployerError) -> Failed:
        if isinstance(error, KubeError):
            cause = Cause.CLUSTER
        elif isinstance(error, StepFailed) and error.reason == OBJECT_CHANGED:
            cause = Cause.CHANGED
        else:
            cause = Cause.OTHER
        if self.operation.kind is OperationKind.WATCH and not isinstance(error, StepFailed):
            return Failed(cause, str(error))  # nobody knows how the version is
        if self.operation.kind in (OperationKind.RETIRE, OperationKind.UNDEPLOY):
            return Failed(cause, str(error))
        return Failed(cause, str(error), self._failure(self._explained(error)))

    def _explained(self, error: DeployerError) -> DeployerError:
        """The same, with a hint when what the cluster puts into the pods may be the reason."""
        plan = self._plan
        if plan is None or not isinstance(error, StepFailed) or self.operation.state is not OperationState.RUNNING:
            return error
        log = lambda: "".join(self._dependencies.deployment_log.text(plan.deployment))  # noqa: E731
        return self._dependencies.cluster.explained(error, plan, log)

    def _failure(self, error: BaseException) -> Failure:
        """One sentence and a reason, for every way in which a step can fail; without secrets, as it is shown."""
        clean = self._handles.clean
        error = unanswered(error) or error
        if isinstance(error, StepFailed):
            return Failure(reason=error.reason, message=clean(str(error)), pod=error.pod, hint=clean(error.hint))
        if isinstance(error, KubeError):
            hint = next((hint for kind, hint in HINTS if isinstance(error, kind)), "")
            return Failure(reason=error.reason or "KubernetesError", message=clean(str(error)), hint=hint)
        message = str(error)
        if isinstance(error, OperatorNeeded):
            return Failure(reason=error.reason, message=clean(message))
        if isinstance(error, HostTaken) and error.namespace == self.operation.namespace:
            message = error.told  # whoever reads a deployment knows its namespace, but perhaps no other one
        return Failure(reason=type(error).__name__, message=clean(message))


def _facts(step: Step, *, watches: bool) -> StepFacts:
    """`watches`: nothing that a step of phase RETIRE does need be known to whoever comes next."""
    try:
        about_traffic = step.disturbs or step.exposes  # which counts from its start, and must not be forgotten
        looks = (
            type(step).undo is Step.undo and not about_traffic and (watches or Phase(step.phase) is not Phase.RETIRE)
        )
        return StepFacts(step.id, only_looks=looks, frees_app=bool(step.frees_app), phase=Phase(step.phase).name)
    except Exception as error:
        logger.error("a step raised %s when it was asked what it does", type(error).__name__, exc_info=error)
        raise StepCrashed(f"a step raised {type(error).__name__} when it was asked what it does") from error

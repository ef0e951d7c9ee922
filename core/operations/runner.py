"""What all operations share: their handles, steps within their budgets, the journal, trying again."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from typing import cast

from deployer.core.backoff import Backoff
from deployer.core.cancel_scope import CancelScope
from deployer.core.commands.host_claims import released
from deployer.core.contract.kinds import CONTROLLER, SERVICE
from deployer.core.contract.kube import ClusterEvent, KubeAccess, Owner
from deployer.core.contract.providers import (
    Done,
    HealthRounds,
    IngressProvider,
    Outcome,
    Park,
    Phase,
    Route,
    RouteContext,
    Step,
    Work,
)
from deployer.core.contract.store import Append, Lease
from deployer.core.errors import (
    Conflict,
    DeadlineExceeded,
    Interrupted,
    KubeConflict,
    KubeError,
    KubeUnavailable,
    OperatorNeeded,
    PluginError,
    StepFailed,
)
from deployer.core.model.records import (
    App,
    Deployment,
    Json,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Status,
)
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.inventory import PlanInventory
from deployer.core.operations.invocation import BoundedInvoker, Hung, StepCrashed
from deployer.core.operations.journal import Journal
from deployer.core.operations.planning import blank_route
from deployer.kube import ownership
from deployer.toolkit.workload import PODS_GONE, grace_time

logger = logging.getLogger(__name__)

FRESH = 10.0
"""The least budget, in seconds, that a phase has after a restart: what was consumed then may not be its fault."""

STEP_AGAIN = Backoff(first=0.25, most=5.0)
"""Pauses between two attempts at a step, while the API server cannot be reached."""

OPERATION_AGAIN = Backoff(first=1.0, most=60.0)
"""Pauses between two attempts at an undo, an undeployment or a retirement."""

SHARED_BUDGETS = {Phase.CONFIRM: Phase.EXPOSE}
"""Phases without a budget of their own. That traffic has moved is part of moving it, to everybody who waits for it."""

PARK_LEAST = 1.0
"""The shortest time, in seconds, for which a step is parked, whatever it asks for; an event may come earlier."""

AWAITS = "engine/awaits"
"""In an operation's memory while a step is parked: it waits for an event, too, which does not outlive the process."""

SAID = "engine/said"
"""In an operation's memory: what it waits for, or why it is tried again, as the log has it already."""

FAILURES = (StepFailed, KubeError, PluginError, DeadlineExceeded, Conflict, StepCrashed)
"""What ends a deployment, or has a removal tried again. The store's errors and interruptions are not among them."""


class Runner:
    """One operation under its lease. `run` returns the time (seconds since the epoch) to look again, None when done."""

    def __init__(
        self, dependencies: Dependencies, operation: Operation, lease: Lease, hung: Hung, *, fenced: bool
    ) -> None:
        """`fenced`: this process wrote the lease's token on the app's objects already."""
        self._dependencies = dependencies
        self._store = dependencies.store
        self._journal = Journal(dependencies.store, operation, lease)
        self._inventory = PlanInventory(dependencies.store, self._journal)
        self._lease = lease
        self._invoker = BoundedInvoker(operation.app, hung)
        self._fenced = fenced
        self._resumed = operation.begun
        self._spent = dict(operation.spent)
        self._owes_note = False
        """A step that did something has ended, which is not recorded yet."""
        self.event: ClusterEvent | None = None
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

    def run(self) -> float | None:
        """Go on from where the journal says. Raises Interrupted or StoreError when it was left as it is."""
        return self._execute()

    def _execute(self) -> float | None:
        raise NotImplementedError

    @property
    def _parked_state(self) -> OperationState:
        """The operation's state while a step of it is parked."""
        return self.operation.state

    def _write_parked(self, step: Step, todo: Sequence[tuple[Step, Plan]], **fields: Json) -> None:
        """Record that a step of `todo` is parked."""
        self._journal.write(state=self._parked_state, **fields)

    def _fence(self) -> None:
        """Write the lease's fencing token on the app's shared objects, once in a process. Raises KubeError."""
        if not self._fenced:
            self._invoker.call(self._dependencies.settings.undo_timeout, self._raise_fencing_tokens)
            self._fenced = True

    def _raise_fencing_tokens(self, scope: CancelScope) -> None:
        """From here on an earlier holder of the lease can no longer write the app's shared objects."""
        kube = self._kube(self.operation.deployment, scope)
        kube.raise_fencing_token(SERVICE, ownership.service_name(self.operation.app))
        for provider in self._exposing():
            provider.fence(
                RouteContext(blank_route(self.operation.namespace, self.operation.app), kube, self._log, scope)
            )

    def _exposing(self) -> list[IngressProvider]:
        """Every ingress provider that has, or may get, a route of the app: that of the settings, and those of plans
        that were made when the settings named another one. One that is not installed any more writes nothing."""
        app = self._store.get(App, f"{self.operation.namespace}/{self.operation.app}")
        ids = {self.operation.deployment, *((app.live, app.held) if app else ())} - {""}
        plans = [plan for id in sorted(ids) if (plan := self._store.get(Plan, id)) and plan.route]
        names = {name for plan in plans for name in (plan.ingress.name if plan.ingress else "", plan.displaced) if name}
        current = self._dependencies.registry.ingress()
        found = [current] if current is not None else []
        for name in sorted(names - {current.name if current else ""}):
            with contextlib.suppress(PluginError):
                found.append(self._provider(name))
        return found

    # --- steps ---------------------------------------------------------------------------------------------------

    def _advance(self, todo: Sequence[tuple[Step, Plan]], *, cancellable: bool) -> float | None:
        """Run what is not done yet. Returns when to look again if a step parks, None when all are done."""
        for step, plan in todo:
            if self.operation.steps.get(step.id) == "done":
                continue
            if step.id not in self.operation.steps:
                self._begin_step(step)
            outcome = self._run_step(step, plan, cancellable=cancellable)
            if isinstance(outcome, Park):
                if outcome.reason:
                    self._say_once(outcome.reason)
                self.event = outcome.event
                wait = self._wait(max(PARK_LEAST, outcome.until - self._dependencies.clock()))
                memory = {**self.operation.memory, AWAITS: outcome.event is not None}
                memory |= {SAID: outcome.reason} if outcome.reason else {}
                self._write_parked(step, todo, **wait, spent=self._spent, attempts=0, memory=memory)
                return float(wait["due"])
            # Recorded together with the start of the next one, or with the commit.
            self._journal.operation = dataclasses.replace(
                self._journal.operation,
                steps={**self.operation.steps, step.id: "done"},
                memory={key: value for key, value in self.operation.memory.items() if key != AWAITS},
            )
            self._owes_note = self._owes_note or not _only_looks(step)
        return None

    def _begin_step(self, step: Step) -> None:
        """Note that it is started; durably, unless it and those that ended since the last note only look: after a crash
        they begin anew, and their notes go with the next one."""
        started = {**self.operation.steps, step.id: "started"}
        if _only_looks(step) and not self._owes_note:
            self._journal.operation = dataclasses.replace(self.operation, steps=started)
        else:
            self._journal.write(steps=started, spent=self._spent)
            self._owes_note = False

    def _run_step(self, step: Step, plan: Plan, *, cancellable: bool) -> Outcome:
        """Run one step; what may pass (an API server that cannot be reached) is tried again within its budget."""
        account, counted = self._account(step, plan)
        failures, last = 0, ""
        while True:
            left, budget = self._left(account, counted, self._undo_budget(step, plan))
            began = time.monotonic()
            try:
                if left <= 0:
                    raise DeadlineExceeded(f"step {step.id} did not finish in time")
                outcome = self._invoker.call(
                    left, lambda scope: step.run(self._work(step, plan, scope)), cancellable=cancellable
                )
                return _checked(step, outcome)
            except (KubeUnavailable, KubeConflict) as error:
                logger.info("step %s of %s: %s; trying again", step.id, plan.deployment, error)
                last = f": {error}"
                failures += 1
                self._invoker.pause(min(STEP_AGAIN.after(failures), left), cancellable=cancellable)
            except DeadlineExceeded as error:
                if isinstance(error.__cause__, KubeError):  # what stood in the way until then
                    last = f": {error.__cause__}"
                raise StepFailed(
                    f"step {step.id} did not finish within the {budget:g} s that it may take{last}",
                    reason="DeadlineExceeded",
                    hint="see in the log what it waited for; then deploy again",
                ) from None
            finally:
                self._spent[account] = self._spent.get(account, 0.0) + time.monotonic() - began

    def _account(self, step: Step, plan: Plan) -> tuple[str, float | None]:
        """Where the step's time is counted, and the budget of that; a step with a budget of its own has an account of
        its own. None: it is not counted, as those of removals, which are tried until they succeed."""
        phase = (SHARED_BUDGETS.get(step.phase) or Phase(step.phase)).name
        planned = plan.planned(step.id)
        if planned is not None and planned.budget is not None:
            return f"step {step.id}", planned.budget
        return phase, plan.budgets.get(phase)

    def _left(self, account: str, counted: float | None, whole: float) -> tuple[float, float]:
        """Seconds that are left of a budget, and the budget. After a restart there is always a fresh bit."""
        if counted is None:
            return whole, whole
        left = counted - self._spent.get(account, 0.0)
        if self._resumed:
            self._resumed = False
            self._spent[account] = counted - max(left, min(FRESH, counted))
        return counted - self._spent.get(account, 0.0), counted

    def _sweep(self, deployment: str, version: str, scope: CancelScope, *, live_too: bool = False) -> list[str]:
        """Remove what is left of exactly this deployment, unless something leads to it. Returns the uids of controllers
        that went, whose pods end now.

        `live_too`: the live one is meant, which is being undeployed.
        """
        kube = self._kube(deployment, scope)
        plan = self._store.get(Plan, deployment)
        rest = self._inventory.left(plan) if plan else self._dependencies.cluster.owned(kube.owner, scope)
        app = self._store.get(App, f"{self.operation.namespace}/{self.operation.app}")
        if rest and app is not None and app.live == deployment and not live_too:
            raise OperatorNeeded(f"version {version} is live according to the store, so its objects stay")
        present = [(kind, name, found) for kind, name in rest if (found := kube.get(kind, name)) is not None]
        if present:
            self._check_not_selected(kube, deployment, version)
        gone = [(kind, found) for kind, name, found in present if kube.delete(kind, name, deployment=deployment)]
        return [str(found["metadata"]["uid"]) for kind, found in gone if kind == CONTROLLER]

    def _check_not_selected(self, kube: KubeAccess, deployment: str, version: str) -> None:
        """Raise OperatorNeeded when the unversioned Service leads to this version."""
        service = kube.get(SERVICE, ownership.service_name(self.operation.app))
        if service and kube.owned_by(service, deployment) and version:
            selector = service["spec"].get("selector") or {}
            if selector.get("version") == version:
                raise OperatorNeeded(
                    f"service {self.operation.app} still selects version {version}, so its objects stay"
                )

    # --- ends ----------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """End the operation without touching any deployment."""
        self._journal.write(state=OperationState.DONE)

    def _reschedule(self, why: str, state: OperationState, **fields: Json) -> float:
        """Try later, a little later each time; said once for each reason. `fields` of the record change too."""
        attempts = self.operation.attempts + 1
        wait = self._wait(OPERATION_AGAIN.after(attempts))
        self._say_once(why)
        self._journal.write(
            state=state, **wait, attempts=attempts, memory={**self.operation.memory, SAID: why}, **fields
        )
        return float(wait["due"])

    def _wait(self, seconds: float, least: float = 0.0) -> dict[str, Json]:
        """The fields of an operation that is to be taken up after so many seconds; `least` after a restart."""
        period = max(0.0, seconds)
        return {"due": self._dependencies.clock() + seconds, "period": period, "least": min(least, period)}

    def _say_once(self, why: str) -> None:
        if self.operation.memory.get(SAID) != why:
            self._log(why)

    def _others(self, kind: OperationKind) -> list[Operation]:
        """Open operations of this kind, of this app, other than this one."""
        found = self._store.find(Operation, tag="open", namespace=self.operation.namespace, app=self.operation.app)
        return [o for o in found if o.id != self.operation.id and o.kind is kind]

    # --- handles -------------------------------------------------------------------------------------------------

    def _kube(self, deployment: str, scope: CancelScope) -> KubeAccess:
        operation = self.operation
        app = self._store.get(App, f"{operation.namespace}/{operation.app}")
        keep = {app.live, app.held} if app else set()
        keep -= (going := released(self._store, operation.namespace, operation.app))
        for status in (Status.DEPLOYED, Status.UNDEPLOYING):
            found = self._store.find(Deployment, namespace=operation.namespace, app=operation.app, tag=status.value)
            keep |= {d.id for d in found} - going
        owner = Owner(
            instance=self._dependencies.settings.instance,
            namespace=operation.namespace,
            app=operation.app,
            deployment=deployment,
            fencing_token=self._lease.token,
            keep=frozenset(keep - {deployment, ""}),
        )
        return self._dependencies.cluster.access(owner, scope, self._inventory)

    def _work(self, step: Step, plan: Plan, scope: CancelScope) -> Work:
        """What a step gets. A provider that is gone is None there; deploying does not begin a step without it."""
        ingress = displaced = health = None
        with contextlib.suppress(PluginError):
            ingress = self._ingress(plan) if plan.route else None
        with contextlib.suppress(PluginError):
            displaced = self._provider(plan.displaced) if plan.displaced else None
        with contextlib.suppress(PluginError):
            health = self._health(plan)
        return Work(
            plan=plan,
            kube=self._kube(plan.deployment, scope),
            log=self._log,
            health=health,
            ingress=ingress,
            remember=lambda key, value: self._journal.remember(step.id, key, value, scope),
            recall=lambda key, default: self._journal.recall(step.id, key, default),
            scope=scope,
            now=self._dependencies.clock,
            displaced=displaced,
            ask_pods=self._dependencies.cluster.ask_pods if plan.route else None,
        )

    def _health(self, plan: Plan) -> HealthRounds | None:
        """The pinned health checker's rounds. Raises PluginError when it is not there."""
        if not plan.health:
            return None
        checker = self._dependencies.registry.health_checker(plan.health.name)
        return self._dependencies.cluster.health_rounds(checker, plan, self._clean)

    def _ingress(self, plan: Plan) -> IngressProvider | None:
        """The pinned provider. Raises PluginError when it is not there."""
        return self._provider(plan.ingress.name) if plan.ingress else None

    def _provider(self, name: str) -> IngressProvider:
        return cast(IngressProvider, self._dependencies.registry.entry("ingress", name).provider)

    def _route(self, route: Route, kube: KubeAccess, scope: CancelScope) -> RouteContext:
        return RouteContext(route, kube, self._log, scope)

    def _undo_budget(self, step: Step, plan: Plan) -> float:
        """Seconds for undoing a step, or for one that removes; never below what the step asks for."""
        return max(self._removal_budget(plan), step.budget or 0.0)

    def _removal_budget(self, plan: Plan) -> float:
        """Seconds for removing or undoing: the setting, and the pods' own grace time plus 30 s."""
        return self._dependencies.settings.undo_timeout + grace_time(plan) + PODS_GONE

    def _removal_parts(self, plan: Plan) -> str:
        """What `_removal_budget` consists of, for those who know only the setting."""
        return (
            f"which are undo_timeout ({self._dependencies.settings.undo_timeout:g} s), the pods' grace time "
            f"({grace_time(plan):g} s) and {PODS_GONE:g} s more"
        )

    def _clean(self, text: str) -> str:
        """The text as it may be shown to those who may read the deployment."""
        return self._dependencies.redactor.clean_of(self.operation.deployment, text)

    def _line(self, message: str) -> Append:
        """A log line for the transaction that makes it true."""
        return self._dependencies.deployment_log.line(self.operation.deployment, message)

    def _log(self, message: str) -> None:
        if self.operation.deployment:
            self._dependencies.deployment_log.append(self.operation.deployment, message)
        else:
            logger.info("%s/%s: %s", self.operation.namespace, self.operation.app, message)


def _only_looks(step: Step) -> bool:
    """True for a step before the commit that changes nothing, as nothing need be undone."""
    about_traffic = step.disturbs or step.exposes  # which counts from its start, and must not be forgotten
    return type(step).undo is Step.undo and not about_traffic and Phase(step.phase) is not Phase.RETIRE


def _checked(step: Step, outcome: object) -> Outcome:
    """What a step returned, when it is an outcome. Raises StepFailed: nobody guesses whether it reached its goal."""
    if isinstance(outcome, Park) and not (isinstance(outcome.until, int | float) and math.isfinite(outcome.until)):
        wrong = f"parks until {outcome.until!r}, which is no time in seconds since the epoch"
    elif isinstance(outcome, Park) and not isinstance(outcome.event, ClusterEvent | None):
        wrong = f"parks for {type(outcome.event).__name__}, which is no event"
    elif not isinstance(outcome, Done | Park):
        wrong = f"returned {type(outcome).__name__}, neither Done() nor Park(...)"
    else:
        return outcome
    raise StepFailed(f"step {step.id} {wrong}", reason="BadStrategy", hint="ask the plugin's author")

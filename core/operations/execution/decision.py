"""The decision with which an operation begins: pinned in one transaction, and decided again when something moved."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.strategy import Step, Strategy
from deployer.core.errors import Cancelled, Conflict, StaleRevision, StepFailed
from deployer.core.model.operation import timeline
from deployer.core.model.operation.target import NOTHING, Target
from deployer.core.model.records import App, Deployment, OperationKind, OperationState, Plan, Status
from deployer.core.operations import actions, machine
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.execution.budgets import Budgets
from deployer.core.operations.execution.handles import Handles
from deployer.core.operations.execution.invocation import BoundedInvoker
from deployer.core.operations.execution.transactions import Transactions
from deployer.core.operations.journal import Journal
from deployer.core.operations.rollbacks import NOT_WARM
from deployer.core.operations.steps import SOAK
from deployer.core.ports import planning
from deployer.core.ports.store import Change

DECISIONS = 5
"""How often a deployment is decided again because a record that it depends on changed in the meantime."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Of one operation."""

    dependencies: Dependencies
    journal: Journal
    handles: Handles
    invoker: BoundedInvoker
    budgets: Budgets
    transactions: Transactions

    def blocker(self, deployment: Deployment) -> actions.Blocker | None:
        """The version that is to come, while it is still draining: a redeployment of the predecessor, right after the
        switch. It has requests under way, and its name; so it starts once more when it has been removed."""
        if not deployment.version:
            return None  # a number that nobody has had
        for retire in self.transactions.others(OperationKind.RETIRE):
            other = self.dependencies.store.get(Deployment, retire.deployment)
            if other is None or other.version != deployment.version:
                continue
            rolled_back = other.status is Status.FAILURE and retire.target.previous and not retire.target.drop
            if other.status is Status.UNDEPLOYING or rolled_back:
                plan = self.dependencies.store.get(Plan, other.id)
                limit = self.budgets.removal(plan) if plan else machine.HOLD_INTERVAL
                limit += max(0.0, retire.due - self.dependencies.clock())
                return actions.Blocker(other.id, other.version, retire.id, retire.due, limit)
        return None

    def decide(self) -> None:
        """Pin the plan, in the transaction that begins the operation; decide again when something moved meanwhile."""
        rolls_back = self.journal.operation.kind is OperationKind.ROLLBACK
        if not rolls_back:
            self.handles.log(f"deploying {self.journal.operation.app} in namespace {self.journal.operation.namespace}")
        for _ in range(DECISIONS):
            deployment = self.dependencies.store.get(Deployment, self.journal.operation.deployment)
            if deployment is None or machine.is_cancelled(self.journal.operation, deployment):
                raise Cancelled("cancelled by request")
            if deployment.status is not machine.SWITCHING[self.journal.operation.kind]:
                raise Cancelled("cancelled by request")
            with contextlib.suppress(StaleRevision):
                if rolls_back:
                    self._pin_rollback(deployment)
                else:
                    self._pin(deployment)
                return
        raise Conflict("the app was changed by others again and again while it was being decided; deploy again")

    def _pin(self, deployment: Deployment) -> None:
        app = self.dependencies.store.get(App, f"{deployment.namespace}/{deployment.app}")
        known = app or App(namespace=deployment.namespace, app=deployment.app)

        plan, counted = self.invoker.call(
            self.dependencies.settings.expose_timeout,
            lambda scope: self.dependencies.planning.decide(deployment, known, self._lent(scope)),
            cancellable=True,
        )
        changes = self.transactions.decided(deployment, app, counted, plan)
        self._write(plan, changes, target=NOTHING)

    def _pin_rollback(self, deployment: Deployment) -> None:
        app = self.dependencies.store.get(App, f"{deployment.namespace}/{deployment.app}")
        pinned = self.dependencies.store.get(Plan, deployment.id)
        if app is None or pinned is None:
            raise StepFailed(f"nothing is known of version {deployment.version} any more", reason=NOT_WARM)
        plan = self.invoker.call(
            self.dependencies.settings.expose_timeout,
            lambda scope: self.dependencies.planning.decide_back(pinned, app, self._lent(scope), self.rollback_steps),
            cancellable=True,
        )
        changes = self.transactions.decided_back(deployment, app, plan)
        self._write(plan, changes)

    def _write(self, plan: Plan, changes: Sequence[Change], **fields: Target) -> None:
        steps = timeline.planned((step.id, step.phase) for step in plan.steps)
        known = dataclasses.replace(self.journal.operation.timeline, steps=steps, waits="")
        self.journal.write(*changes, state=OperationState.RUNNING, due=0.0, timeline=known, **fields)

    def _lent(self, scope: CancelScope) -> planning.Handles:
        id = self.journal.operation.deployment
        return planning.Handles(
            kube=self.handles.kube(id, scope),
            log=self.handles.log,
            conceal=lambda values: self.dependencies.redactor.register(id, values),
            scope=scope,
        )

    def own_steps(self, plan: Plan) -> Sequence[Step]:
        """The core's, after those of the strategy."""
        soak = float(plan.descriptor.get("soakSeconds", 0))
        return [self.dependencies.cluster.soak_step(soak)] if plan.planned(SOAK) else []

    def rollback_steps(self, strategy: Strategy, plan: Plan) -> Sequence[Step]:
        """The strategy's own steps back to a version that is warm, or the usual ones."""
        own = strategy.rollback_steps(plan)
        return own if own is not None else self.dependencies.cluster.rollback_steps(plan)

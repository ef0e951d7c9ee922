"""Automatic rollback: what follows when the live version fails while the one before is still kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import ClusterEvent
from deployer.core.errors import NO_WAY_BACK, ROLLBACK_FAILED, DeployerError, StaleRevision
from deployer.core.model.records import (
    App,
    Deployment,
    Failure,
    Json,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Status,
)
from deployer.core.operations.actions import Cause, Failed, Result, Succeeded
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.execution.handles import Handles
from deployer.core.operations.execution.invocation import BoundedInvoker
from deployer.core.operations.execution.transactions import Transactions
from deployer.core.operations.journal import Journal
from deployer.core.operations.machine import CONDEMNED, SAID
from deployer.core.operations.rollbacks import back_to, is_warm
from deployer.core.ports.cluster import Unready
from deployer.core.ports.store import Change, Create, Expect, Update

ADVICE = "everything is kept as it is: repair one of the two versions, or deploy another one"


class AutomaticRollback:
    """Of the operation that watches the live version."""

    def __init__(
        self,
        dependencies: Dependencies,
        journal: Journal,
        handles: Handles,
        invoker: BoundedInvoker,
        transactions: Transactions,
    ) -> None:
        self._dependencies = dependencies
        self._store = dependencies.store
        self._journal = journal
        self._handles = handles
        self._invoker = invoker
        self._transactions = transactions
        self.event: ClusterEvent | None = None
        """With which the version before is ready to take over, when it is not."""

    def begin(self, failure: Failure) -> Result:
        """Queue a rollback, or end the watch when there can be none. Failed with OTHER: something else comes first;
        with OPERATOR: the version before cannot take over. Raises StoreError, and what the cluster and the scope raise.
        """
        while True:
            decided = self._decide(failure)
            if isinstance(decided, Failed):
                return decided
            rollback = next((c.record for c in decided if isinstance(c, Create)), None)
            operation = self._journal.operation
            fields: dict[str, Json] = {"state": OperationState.DONE}
            if isinstance(rollback, Operation):
                fields = {"memory": {**operation.memory, CONDEMNED: rollback.id}}
            try:
                self._journal.write(*decided, **fields)
            except StaleRevision:
                continue
            return Succeeded()

    def _decide(self, failure: Failure) -> list[Change] | Failed:
        operation = self._journal.operation
        app = self._store.get(App, f"{operation.namespace}/{operation.app}")
        failing = self._store.get(Deployment, operation.deployment)
        if app is None or failing is None or app.live != failing.id or failing.status is not Status.DEPLOYED:
            return []  # it is not live any more, or will not be soon
        if self._transactions.others(OperationKind.ROLLBACK):
            return Failed(Cause.OTHER, "a rollback is under way")
        fails = f"version {failing.version} fails"
        before = self._store.get(Deployment, app.held) if app.held else None
        plan = self._store.get(Plan, before.id) if before else None
        wanted = failing.descriptor.get("autoRollback", self._dependencies.settings.auto_rollback)
        if before is None or plan is None or not wanted or not is_warm(self._store, before):
            why = "autoRollback is off" if before is not None and not wanted else "no version before it is warm"
            return [self._transactions.line(failing.id, f"{fails} ({failure.message}); {why}")]
        if (held := self._held_back(failing, before, plan, failure)) is not None:
            return held
        stopped = self._stopped()
        if isinstance(stopped, Failed):
            return stopped
        said = f"{fails} ({failure.message}); rolling back to version {before.version}"
        back = back_to(self._store, before, cause=failure.message)
        # Both are touched, or must be as they were: of two who want to go back one comes too late.
        return [self._transactions.line(failing.id, said), *back, *stopped, Update(app), Expect(failing)]

    def _held_back(self, failing: Deployment, before: Deployment, plan: Plan, failure: Failure) -> Failed | None:
        """Why only a person can help; None when the version before can take over."""
        fails = f"version {failing.version} fails"
        if CONDEMNED in self._journal.operation.memory:
            why = f"{fails}, and the rollback to version {before.version} did not succeed: {ADVICE}"
            return self._held(ROLLBACK_FAILED, why, failure)
        if (unready := self._unready(plan)) is not None:
            self.event = unready.event
            why = f"{fails}, and version {before.version} cannot take over, as {unready.why}: {ADVICE}"
            return self._held(NO_WAY_BACK, why, failure)
        return None

    def _held(self, reason: str, why: str, failure: Failure) -> Failed:
        """Of what it fails is said once, since that may change with every look."""
        if self._journal.operation.memory.get(SAID) != why:
            self._handles.log(f"the live version fails: {failure.message}")
        return Failed(Cause.OPERATOR, why, Failure(reason=reason, message=why))

    def _stopped(self) -> list[Change] | Failed:
        """The changes that stop the deployment under way, which has moved no traffic yet. One that has is to end by
        itself, and so is the rollback that somebody asked for, to a version that was gone."""
        changes: list[Change] = []
        for operation in self._transactions.others(OperationKind.DEPLOY):
            if not operation.begun:
                continue  # it goes on once the rollback has ended
            changes.append(Expect(operation))
            deployment = self._store.get(Deployment, operation.deployment)
            ends = operation.state is not OperationState.RUNNING
            if ends or deployment is None or deployment.status is not Status.DEPLOYING:
                continue
            if deployment.rollback_of or self._moves_traffic(operation):
                return Failed(Cause.OTHER, f"version {deployment.version} is about to take over")
            said = "cancelled: the live version fails and is rolled back; deploy again when that has ended"
            changes.append(Update(deployment.to(Status.UNDEPLOYING)))
            changes.append(self._transactions.line(deployment.id, said))
        return changes

    def _moves_traffic(self, operation: Operation) -> bool:
        """Has a step begun that takes traffic from the live version, or gives it to the new one?"""
        plan = self._store.get(Plan, operation.deployment)
        steps = plan.steps if plan else ()
        return any((step.exposes or step.disturbs) and step.id in operation.steps for step in steps)

    def _unready(self, plan: Plan) -> Unready | None:
        def look(scope: CancelScope) -> Unready | None:
            kube = self._handles.kube(plan.deployment, scope)
            return self._dependencies.cluster.unready(kube, plan, stopped=self._starts_again(plan))

        return self._invoker.call(self._dependencies.settings.expose_timeout, look)

    def _starts_again(self, plan: Plan) -> bool:
        """Does its strategy start it again, having stopped it?"""
        try:
            strategy = self._dependencies.registry.strategy(plan.strategy.name)
            steps: Sequence[object] | None = strategy.rollback_steps(dataclasses.replace(plan, steps=()))
        except DeployerError:
            return False
        return steps is not None

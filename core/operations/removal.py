"""What removes: retiring a replaced version, undeploying a live one. Never undone; tried until it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.commands.host_claims import ended_changes
from deployer.core.contract.store import Change, Update
from deployer.core.contract.strategy import Step
from deployer.core.errors import Cancelled, DeadlineExceeded, OperatorNeeded, PluginError, StaleRevision, StepFailed
from deployer.core.model.plan import Workload
from deployer.core.model.records import (
    App,
    Deployment,
    Json,
    OperationKind,
    OperationState,
    Plan,
    Status,
)
from deployer.core.model.target import Ending
from deployer.core.operations.invocation import StepCrashed
from deployer.core.operations.planning import check_steps
from deployer.core.operations.runner import FAILURES, Runner
from deployer.kube import ownership
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.steps.removal import AwaitPodsEnd, RemoveWorkload, retire_steps, undeploy_steps
from deployer.toolkit.steps.route import ReleaseRoute, RemoveRoute
from deployer.toolkit.steps.service import RemoveService


class Removal(Runner):
    """A retirement or an undeployment."""

    # --- retire, undeploy ----------------------------------------------------------------------------------------

    def _execute(self) -> float | None:
        """Retire or undeploy. Never undone; tried until it is done, saying why it is not."""
        if self.operation.state is OperationState.QUEUED:
            self._journal.write(state=OperationState.RUNNING)
        try:
            self._fence()
            todo = self._retirement() if self.operation.kind is OperationKind.RETIRE else self._undeployment()
            if todo is None:
                self._close()
                return None
            parked = self._advance(todo, cancellable=False)
            if parked is not None:
                return parked
            self._sweep_rest()
        except OperatorNeeded as error:
            return self._reschedule(str(error), self._parked_state, steps={})
        except (*FAILURES, Cancelled) as error:
            what = "retiring" if self.operation.kind is OperationKind.RETIRE else "undeploying"
            return self._reschedule(f"{what} is not finished: {error}", self._parked_state, steps={})
        self._removed()
        return None

    @property
    def _parked_state(self) -> OperationState:
        """A retirement stands in nobody's way while it waits; an undeployment is awaited by what comes after it, until
        nothing is left of it but pods that end."""
        released = self.operation.kind is OperationKind.RETIRE or self.operation.target.released
        return OperationState.QUEUED if released else OperationState.RUNNING

    def _write_parked(self, step: Step, todo: Sequence[tuple[Step, Plan]], **fields: Json) -> None:
        """Once all that led to the live version is gone, and only its pods take their time, the app is free for the
        next deployment. In one transaction: a crash must not leave a version live that is not there any more."""
        last = todo[-1][0] is step and isinstance(step, RemoveWorkload)
        if self.operation.kind is not OperationKind.UNDEPLOY or self.operation.target.released or not last:
            super()._write_parked(step, todo, **fields)
            return
        while True:
            app = self._store.get(App, f"{self.operation.namespace}/{self.operation.app}")
            changes = self._forget(app, self.operation.deployment) if app is not None else []
            target = dataclasses.replace(self.operation.target, released=True)
            try:
                self._journal.write(*changes, state=OperationState.QUEUED, target=target, **fields)
            except StaleRevision:
                continue
            return

    def _retirement(self) -> list[tuple[Step, Plan]]:
        target = self.operation.target
        if ending := target.ending:
            # Nobody would read about pods of a deployment whose record is gone.
            known = self._store.get(Deployment, self.operation.deployment) is not None
            return [(AwaitPodsEnd(ending.controller), self._ending_plan(ending))] if known else []
        todo: list[tuple[Step, Plan]] = []
        winner = self._store.get(Plan, target.by) if target.by else None
        if winner is not None and winner.route and self._known(winner):
            todo.append((ReleaseRoute(), winner))
        plan = self._old_plan()
        if plan is None:
            return todo
        if target.drop:
            if "route" in target.drop and self._known(plan):
                todo.append((RemoveRoute(), plan))
            if "service" in target.drop:
                todo.append((RemoveService(), plan))
        elif target.previous:
            own = self._strategy_steps(plan, "retire_steps")
            todo += [(step, plan) for step in (own if own is not None else retire_steps())]
        return todo

    def _undeployment(self) -> list[tuple[Step, Plan]] | None:
        """None: nothing to do here. An empty list of steps still ends the deployment."""
        deployment = self._store.get(Deployment, self.operation.deployment)
        if deployment is None:
            return None
        app = self._store.get(App, f"{deployment.namespace}/{deployment.app}")
        plan = self._store.get(Plan, deployment.id)
        if self.operation.target.released:
            # Whatever leads anywhere by now is another version's.
            return [(RemoveWorkload(), plan)] if plan is not None else []
        if app is not None and app.live == deployment.id and plan is not None:
            own = self._strategy_steps(plan, "undeploy_steps")
            todo = [(step, plan) for step in (own if own is not None else undeploy_steps())]
            return [(step, plan) for step, plan in todo if not isinstance(step, RemoveRoute) or self._known(plan)]
        if deployment.status is Status.UNDEPLOYING and any(
            o.deployment == deployment.id for o in self._others(OperationKind.RETIRE)
        ):
            return None
        return []

    @property
    def _ends(self) -> bool:
        """True when nothing of a deployment is to be left; releasing a route or dropping one is less than that."""
        operation = self.operation
        return operation.kind is OperationKind.UNDEPLOY or (
            bool(operation.target.previous or operation.target.ending) and not operation.target.drop
        )

    def _sweep_rest(self) -> None:
        """Remove what no step removed: objects that a plugin made, which may not even be installed any more."""
        deployment = self._store.get(Deployment, self.operation.deployment) if self._ends else None
        if deployment is None or self.operation.target.ending:  # an undo has done that
            return
        live_too = self.operation.kind is OperationKind.UNDEPLOY

        def sweep(scope: CancelScope) -> None:
            labels = {"name": ownership.versioned_name(deployment.app, deployment.version)}
            for uid in self._sweep(deployment.id, deployment.version, scope, live_too=live_too):
                diagnose.await_pods_gone(self._kube(deployment.id, scope), uid, labels, self._log)

        self._invoker.call(self._dependencies.settings.undo_timeout, sweep)

    def _removed(self) -> None:
        """The transaction that ends a retirement or an undeployment."""
        while True:
            deployment = self._store.get(Deployment, self.operation.deployment)
            app = self._store.get(App, f"{self.operation.namespace}/{self.operation.app}")
            changes: list[Change] = []
            if deployment is not None and self._ends:
                if deployment.status is Status.UNDEPLOYING:
                    cancelled = self.operation.target.ending is not None
                    said = "the deployment was cancelled" if cancelled else f"version {deployment.version} is removed"
                    changes.append(self._line(f"UNDEPLOYED: {said}"))
                if app is not None:
                    changes += self._forget(app, deployment.id)
                changes += ended_changes(self._store, deployment)
            try:
                self._journal.write(*changes, state=OperationState.DONE)
            except StaleRevision:
                continue
            return

    def _forget(self, app: App, deployment: str) -> list[Change]:
        """The app without this deployment; when it was the live one, a held one has nothing to wait for any more."""
        new = app
        changes: list[Change] = []
        if app.live == deployment:
            new = dataclasses.replace(new, live="", live_version="")
            changes = [Update(dataclasses.replace(o, due=0.0)) for o in self._others(OperationKind.RETIRE)]
        if app.held == deployment:
            new = dataclasses.replace(new, held="", held_version="")
        return [*changes, Update(new)] if new is not app else changes

    def _old_plan(self) -> Plan | None:
        """The plan of what is retired; made up from names for a version that the original made."""
        previous = self.operation.target.previous
        if previous is None:
            return None
        if previous.deployment:
            return self._store.get(Plan, previous.deployment)
        named = {"metadata": {"name": ownership.versioned_name(self.operation.app, previous.version)}}
        return Plan(
            namespace=self.operation.namespace,
            app=self.operation.app,
            deployment="",
            version=previous.version,
            objects=Workload(controller=named, versioned_service=named),
            route=previous.original_route,
            ingress=previous.ingress,
        )

    def _ending_plan(self, ending: Ending) -> Plan:
        """As much of the plan of a deployment that was undone as waiting for its pods takes."""
        podspec = {"terminationGracePeriodSeconds": ending.grace}
        return Plan(
            namespace=self.operation.namespace,
            app=self.operation.app,
            deployment=self.operation.deployment,
            version=ending.version,
            objects=Workload(controller={"spec": {"template": {"spec": podspec}}}),
        )

    def _strategy_steps(self, plan: Plan, method: str) -> list[Step] | None:
        """The strategy's own steps, or None for the usual ones; also when the strategy is gone or broken by now."""
        name = plan.strategy.name
        if not name:
            return None

        def ask(_: CancelScope) -> list[Step] | None:
            found = getattr(self._dependencies.registry.strategy(name), method)(plan)
            return None if found is None else check_steps(found, name, removing=True)

        try:
            return self._invoker.call(self._dependencies.settings.expose_timeout, ask)
        except (PluginError, StepFailed, StepCrashed, DeadlineExceeded) as error:
            self._log(f"{method} of strategy {name}: {error}; the usual steps are taken")
            return None

    def _known(self, plan: Plan) -> bool:
        """Is the pinned ingress provider there? Without it its objects stay, and the log says so."""
        if not plan.route:
            return True
        try:
            self._ingress(plan)
        except PluginError as error:
            self._log(f"the route of {plan.route.host} is left as it is: {error}")
            return False
        return True

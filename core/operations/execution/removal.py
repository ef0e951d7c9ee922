"""What a removal consists of: retiring a replaced version, dropping what it had, undeploying a live one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.strategy import Step
from deployer.core.errors import DeadlineExceeded, PluginError, StepFailed
from deployer.core.model.plan import Previous
from deployer.core.model.records import App, Deployment, Operation, OperationKind, Plan, Status
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.execution.handles import Handles
from deployer.core.operations.execution.invocation import BoundedInvoker, StepCrashed
from deployer.core.operations.steps import check_steps

Todo = list[tuple[Step, Plan]]
"""Steps in order, each with the plan that it works on."""


class Removal:
    """Finds the steps of one operation. Raises StoreError."""

    def __init__(self, dependencies: Dependencies, handles: Handles, invoker: BoundedInvoker) -> None:
        self._dependencies = dependencies
        self._store = dependencies.store
        self._handles = handles
        self._invoker = invoker
        self._usual = dependencies.cluster.removal_steps()

    def steps(self, operation: Operation, others: Callable[[OperationKind], Sequence[Operation]]) -> Todo | None:
        """None: nothing is to be done; an empty list still ends the deployment. `others`: open ones of the app."""
        if operation.kind is OperationKind.RETIRE:
            return self._retirement(operation)
        if operation.kind is OperationKind.WATCH:
            return self._watch(operation)
        return self._undeployment(operation, others)

    def _watch(self, operation: Operation) -> Todo | None:
        app = self._store.get(App, f"{operation.namespace}/{operation.app}")
        plan = self._store.get(Plan, operation.deployment)
        deployment = self._store.get(Deployment, operation.deployment)
        if app is None or plan is None or app.live != operation.deployment:
            return None  # another version is live by now, or none
        if deployment is None or deployment.status is not Status.DEPLOYED:
            return None  # it is being undeployed
        return _on(plan, [self._dependencies.cluster.watch_step(operation.target.until)])

    def _retirement(self, operation: Operation) -> Todo:
        target = operation.target
        if ending := target.ending:
            # Nobody would read about pods of a deployment whose record is gone.
            known = self._store.get(Deployment, operation.deployment) is not None
            plan = _bare_plan(operation, operation.deployment, ending.version)
            return _on(plan, self._usual.await_pods_end(ending.controller, ending.grace)) if known else []
        todo: Todo = []
        winner = self._store.get(Plan, target.by) if target.by else None
        if winner is not None and winner.route and self._known(winner):
            todo += _on(_over(winner, target.previous), self._usual.release())
        old = self._old_plan(operation)
        if old is None:
            return todo
        if target.drop:
            known = "route" not in target.drop or self._known(old)
            return todo + _on(old, self._usual.drop([what for what in target.drop if known or what != "route"]))
        own = self._strategy_steps(old, "retire_steps")
        return todo + _on(old, own if own is not None else self._usual.retire())

    def _undeployment(
        self, operation: Operation, others: Callable[[OperationKind], Sequence[Operation]]
    ) -> Todo | None:
        deployment = self._store.get(Deployment, operation.deployment)
        if deployment is None:
            return None
        app = self._store.get(App, f"{deployment.namespace}/{deployment.app}")
        plan = self._store.get(Plan, deployment.id)
        if operation.target.released:
            # Whatever leads anywhere by now is another version's.
            return _on(plan, self._usual.rest()) if plan is not None else []
        if app is not None and app.live == deployment.id and plan is not None:
            own = self._strategy_steps(plan, "undeploy_steps")
            self._known(plan)
            return _on(plan, own if own is not None else self._usual.undeploy())
        waits = any(o.deployment == deployment.id for o in others(OperationKind.RETIRE))
        return None if deployment.status is Status.UNDEPLOYING and waits else []

    def _old_plan(self, operation: Operation) -> Plan | None:
        """The plan of what is retired; made up from names for a version that the original made."""
        previous = operation.target.previous
        if previous is None:
            return None
        if previous.deployment:
            return self._store.get(Plan, previous.deployment)
        return Plan(
            namespace=operation.namespace,
            app=operation.app,
            deployment="",
            version=previous.version,
            objects=self._dependencies.cluster.named(operation.app, previous.version),
            route=previous.original_route,
            ingress=previous.ingress,
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
            self._handles.log_once(f"{method} of strategy {name}: {error}; the usual steps are taken")
            return None

    def _known(self, plan: Plan) -> bool:
        """Is the pinned ingress provider there? Without it its objects stay, and the log says so."""
        if not plan.route:
            return True
        try:
            self._handles.ingress(plan)
        except PluginError as error:
            self._handles.log_once(f"the route of {plan.route.host} is left as it is: {error}")
            return False
        return True


def _over(winner: Plan, previous: Previous | None) -> Plan:
    """The plan of a version, as it was when it took over from that one: a rollback to it has made it another one since,
    while that one still drained."""
    route, last = winner.route, winner.previous
    if route is None or route.previous is None or previous is None or last is None or route.stable:
        return winner
    if last.deployment == previous.deployment or not previous.service:
        return winner
    led = dataclasses.replace(route.previous, service=previous.service)
    return dataclasses.replace(winner, previous=previous, route=dataclasses.replace(route, previous=led))


def _bare_plan(operation: Operation, deployment: str, version: str) -> Plan:
    """As much of a plan as waiting for the pods of a version takes."""
    return Plan(namespace=operation.namespace, app=operation.app, deployment=deployment, version=version)


def _on(plan: Plan, steps: Sequence[Step]) -> Todo:
    return [(step, plan) for step in steps]

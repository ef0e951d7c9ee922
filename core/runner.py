"""Carries one operation through to its end: journal, steps within their budgets, the commit point, undo."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from deployer.core import manifests, steps
from deployer.core.changes import claim_host, finished, purge_changes, release_host
from deployer.core.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    DeployerError,
    Fenced,
    Hold,
    Interrupted,
    KubeConflict,
    KubeError,
    KubeUnavailable,
    PluginError,
    Revoked,
    StaleRevision,
    StepFailed,
    StoreError,
)
from deployer.core.gate import Gate
from deployer.core.kube import diagnose
from deployer.core.kube.client import KubeClient
from deployer.core.kube.kinds import SERVICE
from deployer.core.kube.mirror import Mirrors
from deployer.core.kube.owned import OwnedKube, Owner, inventory
from deployer.core.logbook import Logbook, Redactor
from deployer.core.planning import Planner, blank_route, check_steps
from deployer.core.plugins import Registry
from deployer.core.providers import IngressProvider, Park, Phase, Route, RouteContext, Step, Work
from deployer.core.records import (
    App,
    Deployment,
    Document,
    Event,
    Failure,
    Json,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Status,
    new_id,
)
from deployer.core.rounds import Rounds
from deployer.core.settings import Settings
from deployer.core.store.base import Change, Create, Delete, Lease, Store, Update

T = TypeVar("T")

logger = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds that a step gets to come back once its time is up; then its thread is left alone, without its handles."""

SETTLE = 20.0
"""Seconds to wait for a request that was already sent when the gate closed: connect and read time-out, and some."""

FRESH = 10.0
"""The least budget, in seconds, that a phase has after a restart: what was consumed then may not be its fault."""

UNDO_ATTEMPTS = 3
"""How often an undo that fails for its own reasons is tried before the core removes the objects itself."""

HOLD_INTERVAL = 15.0
"""Seconds between two looks at something that can neither go on nor back."""

RETRY_MOST = 60.0
"""The longest pause, in seconds, between two attempts at an undo, an undeployment or a retirement."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every operation needs, made once for the service."""

    store: Store
    logbook: Logbook
    redactor: Redactor
    registry: Registry
    settings: Settings
    client: KubeClient
    mirrors: Mirrors


class Journal:
    """An operation's record, written under its lease. Everything in it is durable before the next thing happens."""

    def __init__(self, store: Store, operation: Operation, lease: Lease) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._lease = lease
        self.operation = operation

    def write(self, *changes: Change, **fields: Json) -> None:
        """Change the record and apply `changes` in one transaction. Raises Fenced when the lease is lost.

        StaleRevision means that one of `changes` came too late; nobody else writes an operation under our lease.
        """
        with self._lock:
            new = dataclasses.replace(self.operation, **fields)
            revision = self._store.commit(Update(new), *changes, fence=self._lease)
            self.operation = dataclasses.replace(new, revision=revision)

    def remember(self, step: str, key: str, value: Json, gate: Gate) -> None:
        """Keep what a step asks for."""
        gate.check()
        self.write(memory={**self.operation.memory, f"{step}/{key}": value})

    def recall(self, step: str, key: str, default: Json) -> Json:
        """What it asked for earlier."""
        return self.operation.memory.get(f"{step}/{key}", default)


class Hung:
    """Threads that went on past their deadline. They hold no handle that works; too many make the service unready."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def add(self, thread: threading.Thread) -> None:
        """Count a thread until it ends."""
        with self._lock:
            self._threads.append(thread)

    def count(self) -> int:
        """How many are still there."""
        with self._lock:
            self._threads = [t for t in self._threads if t.is_alive()]
            return len(self._threads)


class Runner:
    """One operation under its lease. `run` returns the time (seconds since the epoch) to look again, None when done."""

    def __init__(self, tools: Tools, operation: Operation, lease: Lease, hung: Hung, *, fenced: bool) -> None:
        """`fenced`: this process raised the epoch of the app's objects to the lease's token already."""
        self._tools = tools
        self._store = tools.store
        self._journal = Journal(tools.store, operation, lease)
        self._lease = lease
        self._hung = hung
        self._fenced = fenced
        self._lock = threading.Lock()
        self._gate: Gate | None = None
        self._stop: Interrupted | None = None
        self._cancelled = False
        self._resumed = operation.begun
        self._spent = dict(operation.spent)

    # --- from outside --------------------------------------------------------------------------------------------

    @property
    def operation(self) -> Operation:
        """The record as last written."""
        return self._journal.operation

    def stop(self, reason: Interrupted) -> None:
        """Leave the operation as it is (the service stops, the lease is lost); whoever takes it up next resumes it."""
        with self._lock:
            self._stop = reason
            gate = self._gate
        if gate is not None:
            gate.close(reason)

    def cancel(self) -> None:
        """Stop deploying and undo. Has no effect once the operation is being undone or is committed."""
        with self._lock:
            self._cancelled = True
            undoing = self.operation.state is OperationState.UNDOING
            gate = None if undoing or self.operation.kind is not OperationKind.DEPLOY else self._gate
        if gate is not None:
            gate.close(Cancelled("cancelled by request"))

    # --- the operation -------------------------------------------------------------------------------------------

    def run(self) -> float | None:
        """Go on from where the journal says. Raises Interrupted or StoreError when it was left as it is."""
        if not self._fenced:
            self._call(self._tools.settings.undo_timeout, self._raise_epochs)
            self._fenced = True
        if self.operation.kind is OperationKind.DEPLOY:
            return self._deploy()
        return self._remove()

    def _raise_epochs(self, gate: Gate) -> None:
        """From here on an earlier holder of the lease can no longer write the app's shared objects."""
        kube = self._kube(self.operation.deployment, gate)
        kube.raise_epoch(SERVICE, manifests.service_name(self.operation.app))
        provider = self._tools.registry.ingress()
        if provider is not None:
            provider.fence(RouteContext(blank_route(self.operation.namespace, self.operation.app), kube, self._log, gate))

    # --- deploy --------------------------------------------------------------------------------------------------

    def _deploy(self) -> float | None:
        deployment = self._store.get(Deployment, self.operation.deployment)
        if deployment is None:
            return self._close()
        if self.operation.state is OperationState.QUEUED:
            if deployment.status is Status.UNDEPLOYING:
                return self._end(None)
            try:
                self._decide(deployment)
            except Cancelled:
                return self._end(None)
            except _FAILURES as error:
                return self._end(self._failure(error))
        plan = self._store.get(Plan, self.operation.deployment)
        if plan is None:
            raise StoreError(f"the plan of deployment {self.operation.deployment} is missing from the store")
        for variable in plan.environment:
            if isinstance(variable.get("value"), str):
                self._tools.redactor.add(variable["value"])
        if self.operation.state is OperationState.RUNNING:
            if self._resumed:
                self._log("resumed")
            try:
                parked = self._advance([(step, plan) for step in self._steps(plan)])
                return parked if parked is not None else self._commit(plan)
            except Cancelled:
                self._log("stopping, and removing what was started")
                self._journal.write(state=OperationState.UNDOING, failure=None, spent=self._spent)
            except _FAILURES as error:
                failure = self._failure(error)
                self._log(f"failed: {failure.message}")
                self._journal.write(
                    state=OperationState.UNDOING, failure=failure.to_document(), spent=self._spent, attempts=0
                )
        return self._undo(plan)

    def _decide(self, deployment: Deployment) -> None:
        """Pin the plan, in the transaction that begins the operation."""
        self._log(f"deploying {deployment.app} in namespace {deployment.namespace}")
        app = self._store.get(App, f"{deployment.namespace}/{deployment.app}")
        known = app or App(namespace=deployment.namespace, app=deployment.app)

        def decide(gate: Gate) -> tuple[Plan, App]:
            planner = Planner(
                store=self._store,
                registry=self._tools.registry,
                settings=self._tools.settings,
                redactor=self._tools.redactor,
                kube=self._kube(deployment.id, gate),
                log=self._log,
                gate=gate,
            )
            return planner.decide(deployment, known)

        plan, counted = self._call(self._tools.settings.expose_timeout, decide)
        decided = dataclasses.replace(deployment, version=plan.version)
        changes: list[Change] = [
            Create(plan),
            Create(counted) if app is None else Update(counted),
            Update(decided),
            finished(decided, "deployment_started"),
        ]
        if plan.route:
            changes.append(claim_host(self._store, plan.namespace, plan.app, plan.route["host"]))
        try:
            self._journal.write(*changes, state=OperationState.RUNNING)
        except StaleRevision:
            now = self._store.get(Deployment, deployment.id)
            if now is not None and now.status is Status.UNDEPLOYING:
                raise Cancelled("cancelled by request") from None
            raise KubeConflict("the app was changed at the same moment") from None
        self._log(f"version {plan.version}" + (f", replacing {plan.previous['version']}" if plan.previous else ""))

    def _steps(self, plan: Plan) -> list[Step]:
        """The pinned steps. Raises PluginError when the strategy is gone or has other steps now."""
        strategy = self._tools.registry.strategy(plan.strategy["name"])
        found = list(check_steps(strategy.deploy_steps(plan), plan.strategy["name"]))
        if [step.id for step in found] != plan.steps:
            raise PluginError(f"strategy {plan.strategy['name']} has other steps than when this deployment was decided")
        if plan.route:
            self._ingress(plan)
        return found

    def _advance(self, todo: Sequence[tuple[Step, Plan]]) -> float | None:
        """Run what is not done yet. Returns when to look again if a step parks, None when all are done."""
        for step, plan in todo:
            if self.operation.steps.get(step.id) == "done":
                continue
            if step.id not in self.operation.steps:
                self._journal.write(steps={**self.operation.steps, step.id: "started"}, spent=self._spent)
            outcome = self._run_step(step, plan)
            if isinstance(outcome, Park):
                if outcome.reason:
                    self._log(outcome.reason)
                self._journal.write(due=outcome.until, spent=self._spent)
                return outcome.until
            # Recorded together with the start of the next one, or with the commit.
            self._journal.operation = dataclasses.replace(
                self._journal.operation, steps={**self.operation.steps, step.id: "done"}
            )
        return None

    def _run_step(self, step: Step, plan: Plan) -> object:
        """Run one step; what may pass (an API server that cannot be reached) is tried again within its budget."""
        phase = Phase(step.phase).name
        pause = 0.25
        while True:
            budget = plan.budgets.get(phase, self._removal_budget(plan))
            left = budget - self._spent.get(phase, 0.0)
            left = max(left, min(FRESH, budget)) if self._resumed else left
            if left <= 0:
                raise DeadlineExceeded(f"step {step.id} did not finish within {budget:g} s")
            began = time.monotonic()
            try:
                outcome = self._call(left, lambda gate: step.run(self._work(step, plan, gate)))
            except (KubeUnavailable, KubeConflict) as error:
                logger.info("step %s of %s: %s; trying again", step.id, plan.deployment, error)
                self._spend(phase, began)
                if plan.budgets.get(phase) and self._spent[phase] + pause >= budget:
                    raise
                paused = time.monotonic()
                self._call(pause + GRACE, lambda gate, seconds=pause: gate.pause(seconds))  # type: ignore[misc]
                self._spend(phase, paused)
                pause = min(2 * pause, 5.0)
                continue
            except BaseException:
                self._spend(phase, began)
                raise
            self._spend(phase, began)
            self._resumed = False
            return outcome

    def _spend(self, phase: str, began: float) -> None:
        self._spent[phase] = self._spent.get(phase, 0.0) + time.monotonic() - began

    def _commit(self, plan: Plan) -> float | None:
        """The commit point: live, held, both statuses, and what is left to do, in one transaction."""
        while True:
            deployment = self._store.get(Deployment, plan.deployment)
            app = self._store.get(App, f"{plan.namespace}/{plan.app}")
            if deployment is None or app is None or deployment.status is not Status.DEPLOYING:
                raise Cancelled("cancelled by request")
            done = deployment.to(Status.DEPLOYED)
            changes: list[Change] = [
                Update(done),
                Update(
                    dataclasses.replace(
                        app, live=plan.deployment, live_version=plan.version, held=app.live, held_version=app.live_version
                    )
                ),
                finished(done),
            ]
            replaced = self._store.get(Deployment, app.live) if app.live else None
            if replaced is not None and replaced.status is Status.DEPLOYED:
                changes.append(Update(replaced.to(Status.UNDEPLOYING)))
            changes += [Create(operation) for operation in self._follow_up(plan)]
            self._log(f"DEPLOYED: version {plan.version} is live")
            try:
                self._journal.write(*changes, state=OperationState.DONE, spent=self._spent)
            except StaleRevision:
                continue
            if replaced is not None:
                seconds = self._hold(plan)
                self._tools.logbook.append(
                    replaced.id, f"replaced by version {plan.version}; it is removed in {seconds:g} s"
                )
            return None

    def _hold(self, plan: Plan) -> float:
        """Seconds for which the old version goes on serving: the setting, but never below the provider's own."""
        seconds = float(plan.settings["proxysleep"])
        ingress = self._ingress(plan) if plan.route else None
        return max(seconds, ingress.minimum_hold) if ingress else seconds

    def _follow_up(self, plan: Plan) -> list[Operation]:
        """What is left to do after the commit: drop, release, retire."""

        def retire(deployment: str, due: float, target: Document) -> Operation:
            return Operation(
                namespace=plan.namespace,
                app=plan.app,
                id=new_id(),
                kind=OperationKind.RETIRE,
                deployment=deployment,
                due=due,
                target=target,
            )

        now = time.time()
        previous = plan.previous
        if previous is None:
            return [retire(plan.deployment, now, {"by": plan.deployment})] if plan.route else []
        operations = []
        drop = []
        if previous.get("route") and not plan.route:
            drop.append("route")
        if previous.get("service_object") and not plan.objects.get("service"):
            drop.append("service")
        if drop:
            operations.append(retire(plan.deployment, now, {"drop": drop, "previous": previous}))
        due = now + self._hold(plan)
        operations.append(retire(previous["deployment"], due, {"by": plan.deployment, "previous": previous}))
        return operations

    # --- undo ----------------------------------------------------------------------------------------------------

    def _undo(self, plan: Plan) -> float | None:
        """Go back, step by step, then remove whatever is left of this deployment. Tried until it is done."""
        try:
            self._undo_steps(plan)
            self._call(self._removal_budget(plan), lambda gate: self._sweep(plan.deployment, plan.version, gate))
        except Hold as error:
            return self._hold_on(str(error))
        except _RETRIED as error:
            return self._again(f"undoing is not finished: {error}", OperationState.UNDOING)
        document = self.operation.failure
        return self._end(Failure(**document) if document else None)

    def _undo_steps(self, plan: Plan) -> None:
        try:
            found = self._steps(plan)
        except (PluginError, StepFailed) as error:
            # Without the plugin the core can still remove objects, but it cannot move traffic back.
            self._log(f"undoing without the plugin: {error}")
            self._call(self._tools.settings.undo_timeout, lambda gate: self._refuse_when_exposed(plan, gate))
            return
        for step in reversed(found):
            if self.operation.steps.get(step.id) not in ("started", "done"):
                continue
            try:
                self._call(
                    self._removal_budget(plan),
                    lambda gate, step=step: step.undo(self._work(step, plan, gate)),  # type: ignore[misc]
                )
            except (Hold, KubeError, StoreError):
                raise
            except (Cancelled, Revoked):
                raise
            except (DeployerError, _StepCrashed) as error:
                if self.operation.attempts < UNDO_ATTEMPTS:
                    raise _UndoFailed(f"step {step.id}: {error}") from error
                self._log(f"undoing step {step.id} keeps failing ({error}); the core removes the objects itself")
                if Phase[plan.phases[step.id]] >= Phase.EXPOSE:
                    self._call(self._tools.settings.undo_timeout, lambda gate: self._refuse_when_exposed(plan, gate))
            self._journal.write(steps={**self.operation.steps, step.id: "undone"})

    def _refuse_when_exposed(self, plan: Plan, gate: Gate) -> None:
        """Raise Hold while traffic may be led to the new version: removing it would be an outage."""
        kube = self._kube(plan.deployment, gate)
        exposed = [
            step
            for step in plan.steps
            if Phase[plan.phases[step]] >= Phase.EXPOSE and self.operation.steps.get(step) in ("started", "done")
        ]
        if self._selected(kube, plan, gate, sure=not exposed):
            raise Hold(
                f"version {plan.version} may have traffic already, and the plugin that could move it back is gone: "
                f"everything is kept as it is; install {plan.strategy.get('source') or plan.strategy['name']} again"
            )

    def _selected(self, kube: OwnedKube, plan: Plan, gate: Gate, *, sure: bool) -> bool:
        """Does the Service or the route lead to this version? `sure`: no step that moves traffic was ever started."""
        if sure:
            return False
        service = kube.get(SERVICE, manifests.service_name(plan.app))
        if service and kube.is_ours(service) and (service["spec"].get("selector") or {}).get("version") == plan.version:
            return True
        if not plan.route:
            return False
        try:
            provider = self._ingress(plan)
        except PluginError:
            return True
        assert provider is not None
        state = provider.state(self._route(plan, kube, gate))
        return bool(state and steps.leads_to(state.backends, plan.route["backend"]["service"]))

    def _sweep(self, deployment: str, version: str, gate: Gate) -> None:
        """Remove every object that is owned by exactly this deployment, unless something leads to it."""
        kube = self._kube(deployment, gate)
        app = self._store.get(App, f"{self.operation.namespace}/{self.operation.app}")
        if app is not None and app.live == deployment:
            raise Hold(f"version {version} is live according to the store, so its objects stay")
        service = kube.get(SERVICE, manifests.service_name(self.operation.app))
        if service and kube.owned_by(service, deployment) and version:
            selector = service["spec"].get("selector") or {}
            if selector.get("version") == version:
                raise Hold(f"service {self.operation.app} still selects version {version}, so its objects stay")
        for kind, name, uid in inventory(kube):
            kube.delete(kind, name, deployment=deployment)
            if kind.kind == "ReplicationController":
                diagnose.await_pods_gone(kube, uid, {"name": name})

    # --- retire, undeploy ----------------------------------------------------------------------------------------

    def _remove(self) -> float | None:
        """Retire or undeploy. Never undone; tried until it is done, saying why it is not."""
        if self.operation.state is OperationState.QUEUED:
            self._journal.write(state=OperationState.RUNNING, steps={})
        waiting = OperationState.QUEUED if self.operation.kind is OperationKind.RETIRE else OperationState.RUNNING
        try:
            todo = self._retirement() if self.operation.kind is OperationKind.RETIRE else self._undeployment()
            if todo is None:
                return self._close()
            parked = self._advance(todo)
            if parked is not None:
                return parked
        except Hold as error:
            return self._again(str(error), waiting)
        except (*_FAILURES, Cancelled) as error:
            what = "retiring" if self.operation.kind is OperationKind.RETIRE else "undeploying"
            return self._again(f"{what} is not finished: {error}", waiting)
        return self._removed()

    def _retirement(self) -> list[tuple[Step, Plan]]:
        target = self.operation.target
        todo: list[tuple[Step, Plan]] = []
        winner = self._store.get(Plan, target["by"]) if target.get("by") else None
        if winner is not None and winner.route and self._known(winner):
            todo.append((steps.ReleaseRoute(), winner))
        plan = self._old_plan()
        if plan is None:
            return todo
        if "drop" in target:
            if "route" in target["drop"] and self._known(plan):
                todo.append((steps.RemoveRoute(), plan))
            if "service" in target["drop"]:
                todo.append((steps.RemoveService(), plan))
        elif target.get("previous"):
            own = self._strategy_steps(plan, "retire_steps")
            todo += [(step, plan) for step in (own if own is not None else steps.retire_steps())]
        return todo

    def _undeployment(self) -> list[tuple[Step, Plan]] | None:
        """None: nothing to do here. An empty list of steps still ends the deployment."""
        deployment = self._store.get(Deployment, self.operation.deployment)
        if deployment is None:
            return None
        app = self._store.get(App, f"{deployment.namespace}/{deployment.app}")
        plan = self._store.get(Plan, deployment.id)
        if app is not None and app.live == deployment.id and plan is not None:
            own = self._strategy_steps(plan, "undeploy_steps")
            todo = [(step, plan) for step in (own if own is not None else steps.undeploy_steps())]
            return [(step, plan) for step, plan in todo if not isinstance(step, steps.RemoveRoute) or self._known(plan)]
        if deployment.status is Status.UNDEPLOYING and self._others(OperationKind.RETIRE):
            return None
        self._call(
            self._tools.settings.undo_timeout, lambda gate: self._sweep(deployment.id, deployment.version, gate)
        )
        return []

    def _removed(self) -> None:
        """The transaction that ends a retirement or an undeployment."""
        while True:
            deployment = self._store.get(Deployment, self.operation.deployment)
            app = self._store.get(App, f"{self.operation.namespace}/{self.operation.app}")
            over = self.operation.kind is OperationKind.UNDEPLOY or self.operation.target.get("previous")
            mine = bool(over) and "drop" not in self.operation.target
            changes: list[Change] = []
            if app is not None and mine and deployment is not None:
                changes += self._forget(app, deployment.id)
            if deployment is not None and mine:
                changes += self._ended(deployment)
            try:
                if mine and deployment is not None:
                    self._log(f"{deployment.app} version {deployment.version} is undeployed")
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
            changes = [Update(dataclasses.replace(o, due=0.0)) for o in self._others(OperationKind.RETIRE, of_app=True)]
        if app.held == deployment:
            new = dataclasses.replace(new, held="", held_version="")
        return [*changes, Update(new)] if new is not app else changes

    def _others(self, kind: OperationKind, *, of_app: bool = False) -> list[Operation]:
        """Open operations of this kind, of this deployment or of the whole app, other than this one."""
        return [
            o
            for o in self._store.find(Operation, tag="open", namespace=self.operation.namespace, app=self.operation.app)
            if o.id != self.operation.id and o.kind is kind and (of_app or o.deployment == self.operation.deployment)
        ]

    def _old_plan(self) -> Plan | None:
        """The plan of what is retired; made up from names for a version that the original made."""
        previous = self.operation.target.get("previous")
        if not previous:
            return None
        plan = self._store.get(Plan, previous["deployment"]) if previous["deployment"] else None
        if plan is not None or previous["deployment"]:
            return plan
        name = manifests.versioned_name(self.operation.app, previous["version"])
        return Plan(
            namespace=self.operation.namespace,
            app=self.operation.app,
            deployment="",
            version=previous["version"],
            objects={
                "controller": {"metadata": {"name": name}},
                "versioned_service": {"metadata": {"name": name}},
                "service": None,
            },
            settings={"original": True},
        )

    def _strategy_steps(self, plan: Plan, method: str) -> list[Step] | None:
        """The strategy's own steps, or None for the usual ones; also when the strategy is gone by now."""
        if not plan.strategy:
            return None
        try:
            found = getattr(self._tools.registry.strategy(plan.strategy["name"]), method)(plan)
        except PluginError as error:
            self._log(f"{error}; the usual steps are taken")
            return None
        return list(found) if found is not None else None

    def _known(self, plan: Plan) -> bool:
        """Is the pinned ingress provider there? Without it its objects stay, and the log says so."""
        if not plan.route:
            return True
        try:
            self._ingress(plan)
        except PluginError as error:
            self._log(f"the route of {plan.route['host']} is left as it is: {error}")
            return False
        return True

    # --- ends ----------------------------------------------------------------------------------------------------

    def _end(self, failure: Failure | None) -> None:
        """The deployment did not come to be live: FAILURE, or UNDEPLOYED when it was cancelled."""
        while True:
            deployment = self._store.get(Deployment, self.operation.deployment)
            if deployment is None:
                return self._close()
            if deployment.status is Status.UNDEPLOYING:
                self._log("UNDEPLOYED: the deployment was cancelled")
            elif failure is not None:
                deployment = dataclasses.replace(deployment, failure=failure.to_document())
                self._log(f"FAILURE: {failure.message}" + (f" ({failure.hint})" if failure.hint else ""))
            try:
                self._journal.write(*self._ended(deployment), state=OperationState.DONE, spent=self._spent)
            except StaleRevision:
                continue
            return None

    def _ended(self, deployment: Deployment) -> list[Change]:
        """Status, event, plan, host claim and, when asked for, the record itself."""
        end = {Status.DEPLOYING: Status.FAILURE, Status.UNDEPLOYING: Status.UNDEPLOYED}.get(deployment.status)
        ended = deployment.to(end) if end else deployment
        changes: list[Change] = [finished(ended)] if end else []
        host = deployment.descriptor.get("frontend")
        if host:
            changes += release_host(
                self._store, deployment.namespace, deployment.app, host, without_deployment=deployment.id
            )
        if ended.purge:
            return [*changes, *purge_changes(self._store, deployment)]
        plan = self._store.get(Plan, deployment.id)
        if plan is not None:
            changes.append(Delete(plan))
        return [*changes, Update(ended)] if end else changes

    def _close(self) -> None:
        """End the operation without touching any deployment."""
        self._journal.write(state=OperationState.DONE)

    def _again(self, why: str, state: OperationState) -> float:
        """Try later, a little later each time; said once for each reason."""
        attempts = self.operation.attempts + 1
        due = time.time() + min(RETRY_MOST, 0.5 * 2 ** min(attempts, 10))
        self._say_once(why)
        self._journal.write(
            state=state, due=due, attempts=attempts, memory={**self.operation.memory, "engine/said": why}
        )
        return due

    def _hold_on(self, why: str) -> float:
        due = time.time() + HOLD_INTERVAL
        self._say_once(why)
        self._journal.write(due=due, memory={**self.operation.memory, "engine/said": why})
        return due

    def _say_once(self, why: str) -> None:
        if self.operation.memory.get("engine/said") != why:
            self._log(why)

    def _failure(self, error: BaseException) -> Failure:
        """One sentence and a reason, for every way in which a step can fail."""
        if isinstance(error, StepFailed):
            return Failure(reason=error.reason, message=str(error), pod=error.pod, hint=error.hint)
        if isinstance(error, KubeError):
            return Failure(reason=error.reason or "KubernetesError", message=str(error))
        return Failure(reason=type(error).__name__.lstrip("_"), message=str(error))

    # --- handles -------------------------------------------------------------------------------------------------

    def _call(self, seconds: float, function: Callable[[Gate], T]) -> T:
        """Run `function` in a thread of its own, for at most `seconds`; a thread that hangs loses its handles."""
        gate = Gate(time.monotonic() + seconds)
        with self._lock:
            if self._stop is not None:
                raise self._stop
            if self._cancelled and self._cancellable:
                raise Cancelled("cancelled by request")
            self._gate = gate
        call = _Call(function, gate)
        thread = threading.Thread(target=call.run, name=f"step-{self.operation.app}", daemon=True)
        woken = threading.Event()
        call.on_done = woken.set
        gate.on_close(woken.set)
        thread.start()
        woken.wait(seconds)
        if not call.done.is_set():
            gate.close(DeadlineExceeded(f"it did not finish within {seconds:.3g} s"))
            call.done.wait(GRACE)
        gate_open_late = not call.done.is_set()
        if gate_open_late:
            self._hung.add(thread)
        if gate.remaining() <= 0 and not gate.settle(SETTLE):
            logger.warning("a request of %s was still under way after %g s", self.operation.app, SETTLE)
        if gate_open_late and not call.done.is_set():
            gate.check()
        call.done.wait(GRACE)
        # Whatever the thread still holds is of no use from here on.
        gate.close(Revoked("this step is over"))
        return call.result()

    @property
    def _cancellable(self) -> bool:
        operation = self.operation
        return operation.kind is OperationKind.DEPLOY and operation.state is not OperationState.UNDOING

    def _kube(self, deployment: str, gate: Gate) -> OwnedKube:
        operation = self.operation
        app = self._store.get(App, f"{operation.namespace}/{operation.app}")
        keep = {app.live, app.held} if app else set()
        for status in (Status.DEPLOYED, Status.UNDEPLOYING):
            found = self._store.find(
                Deployment, namespace=operation.namespace, app=operation.app, tag=status.value
            )
            keep |= {d.id for d in found}
        owner = Owner(
            instance=self._tools.settings.instance,
            namespace=operation.namespace,
            app=operation.app,
            deployment=deployment,
            epoch=self._lease.token,
            keep=frozenset(keep - {deployment, ""}),
        )
        return OwnedKube(self._tools.client, self._tools.mirrors, owner, gate)

    def _work(self, step: Step, plan: Plan, gate: Gate) -> Work:
        health = None
        if plan.health:
            checker = self._tools.registry.health_checker(plan.health["name"])
            health = Rounds(checker, plan, self._tools.store, self._tools.settings)
        return Work(
            plan=plan,
            kube=self._kube(plan.deployment, gate),
            log=self._log,
            health=health,
            ingress=self._ingress(plan) if plan.route else None,
            remember=lambda key, value: self._journal.remember(step.id, key, value, gate),
            recall=lambda key, default: self._journal.recall(step.id, key, default),
            gate=gate,
        )

    def _ingress(self, plan: Plan) -> IngressProvider | None:
        """The pinned provider. Raises PluginError when it is not there."""
        if not plan.ingress:
            return None
        return cast(IngressProvider, self._tools.registry.entry("ingress", plan.ingress["name"]).provider)

    def _route(self, plan: Plan, kube: OwnedKube, gate: Gate) -> RouteContext:
        return RouteContext(Route.from_document(plan.route or {}), kube, self._log, gate)

    def _removal_budget(self, plan: Plan) -> float:
        """Seconds for removing or undoing: the setting, and the pods' own grace time plus 30 s."""
        podspec = plan.objects.get("controller", {}).get("spec", {}).get("template", {}).get("spec", {})
        grace = podspec.get("terminationGracePeriodSeconds", 30)
        return self._tools.settings.undo_timeout + float(grace if isinstance(grace, int) else 30) + 30.0

    def _log(self, message: str) -> None:
        if self.operation.deployment:
            self._tools.logbook.append(self.operation.deployment, message)
        else:
            logger.info("%s/%s: %s", self.operation.namespace, self.operation.app, message)


class _StepCrashed(DeployerError):
    """A step raised something that is not ours: a mistake in the plugin."""


class _UndoFailed(DeployerError):
    """An undo failed for its own reasons and is tried again."""


class _Call:
    """One function in one thread: its result, or what it raised."""

    def __init__(self, function: Callable[[Gate], T], gate: Gate) -> None:
        self._function: Callable[[Gate], object] = function
        self._gate = gate
        self._value: object = None
        self._error: BaseException | None = None
        self.done = threading.Event()
        self.on_done: Callable[[], None] = lambda: None

    def run(self) -> None:
        """Call it. A plugin's `sys.exit` ends only itself."""
        try:
            self._value = self._function(self._gate)
        except DeployerError as error:
            self._error = error
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises is the deployment's failure
            logger.exception("a step raised %s", type(error).__name__)
            self._error = _StepCrashed(f"it raised {type(error).__name__}; the service's log has the details")
        finally:
            self.done.set()
            self.on_done()

    def result(self) -> T:  # type: ignore[type-var]
        """The value. Raises what the function raised."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


_FAILURES = (StepFailed, KubeError, PluginError, DeadlineExceeded, Conflict, _StepCrashed)
_RETRIED = (_UndoFailed, KubeError, DeadlineExceeded, StepFailed, _StepCrashed)

__all__ = ["Event", "Fenced", "Hung", "Journal", "Runner", "Tools"]

"""Carries a deployment through: decide, steps, the commit point; or undo."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.commands.host_claims import claim_hosts, ended_changes, finished
from deployer.core.contract.kinds import CONTROLLER, POD, SERVICE
from deployer.core.contract.kube import KubeAccess
from deployer.core.contract.store import Change, Create, Update
from deployer.core.contract.strategy import Phase, Step
from deployer.core.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    DeployerError,
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
)
from deployer.core.model.records import (
    App,
    Deployment,
    Failure,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Status,
    new_id,
    timestamp_of,
)
from deployer.core.model.target import NOTHING, Ending, Target
from deployer.core.operations.invocation import StepCrashed
from deployer.core.operations.planning import Planner, check_steps
from deployer.core.operations.runner import AWAITS, FAILURES, SAID, Runner
from deployer.kube import ownership
from deployer.kube.pods import controller_uid
from deployer.toolkit import service_links
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.steps.start import StartWorkload
from deployer.toolkit.workload import grace_time, leads_to, remove_orphans, workload_labels

UNDO_ATTEMPTS = 3
"""How often an undo that fails for its own reasons is tried before the core removes the objects itself."""

OBJECT_CHANGED = "ObjectChanged"
"""The reason with which a step fails that finds an object as another client made it."""

DECISIONS = 5
"""How often a deployment is decided again because a record that it depends on changed in the meantime."""

PODS_PATIENCE = 2.0
"""Seconds for which an undo waits for pods to end, so that mostly nothing is left once a deployment has failed. Those
that take longer end beside whatever comes next."""

HOLD_INTERVAL = 15.0
"""Seconds between two looks at something that can neither go on nor back."""


HINTS = (
    (KubeForbidden, "grant the right, or free the quota, that the message names; then deploy again"),
    (KubeNotFound, "check that the namespace exists; then deploy again"),
    (KubeRejected, "correct the descriptor; then deploy again"),
    (KubeUnavailable, "check that the API server can be reached; then deploy again"),
)
"""What to do about what Kubernetes answered."""


class _UndoFailed(DeployerError):
    """An undo failed for its own reasons and is tried again."""


RETRIED = (_UndoFailed, *FAILURES)


class Rollout(Runner):
    """A deployment, from the decision to the commit, or back to where it began."""

    # --- deploy --------------------------------------------------------------------------------------------------

    def _execute(self) -> float | None:
        deployment = self._store.get(Deployment, self.operation.deployment)
        if deployment is None:
            self._close()
            return None
        if self.operation.state is OperationState.QUEUED and not self._begin(deployment):
            return None
        try:
            self._fence()
        except FAILURES as error:
            return self._reschedule(f"cannot go on yet: {error}", self.operation.state)
        plan = self._store.get(Plan, self.operation.deployment)
        if plan is None:
            raise StoreError(f"the plan of deployment {self.operation.deployment} is missing from the store")
        return self._resume(plan)

    def _begin(self, deployment: Deployment) -> bool:
        """Decide and pin. False when that ended the deployment already; nothing was written to the cluster then."""
        if deployment.status is Status.UNDEPLOYING:
            self._end(None)
            return False
        if self._awaits_retirement(deployment):
            return False
        try:
            self._fence()
            self._decide()
        except Cancelled:
            self._end(None)
            return False
        except FAILURES as error:
            self._end(self._failure(error))
            return False
        return True

    def _awaits_retirement(self, deployment: Deployment) -> bool:
        """True while the version that is to come is still draining: a redeployment of the predecessor, right after the
        switch. It has requests under way, and its name; so it starts once more when it has been removed."""
        if not deployment.version:
            return False  # a number that nobody has had
        draining = Status.UNDEPLOYING.value
        for other in self._store.find(Deployment, namespace=deployment.namespace, app=deployment.app, tag=draining):
            if other.version != deployment.version:
                continue
            retire = next((o for o in self._others(OperationKind.RETIRE) if o.deployment == other.id), None)
            if retire is None:
                continue
            if self.operation.target.awaits == retire.id:
                return self._dependencies.clock() < self.operation.due
            plan = self._store.get(Plan, other.id)
            limit = self._removal_budget(plan) if plan else HOLD_INTERVAL
            limit += max(0.0, retire.due - self._dependencies.clock())
            self._journal.write(
                self._line(
                    f"version {other.version} is still draining (deployment {other.id}): it starts again when it has "
                    f"been removed, from {timestamp_of(retire.due)} on"
                ),
                target=Target(awaits=retire.id),
                **self._wait(limit, least=limit),
            )
            return True
        return False

    def _resume(self, plan: Plan) -> float | None:
        if self.operation.state is OperationState.RUNNING:
            try:
                todo = [(step, plan) for step in self._steps(plan)]
                if (due := self.operation.due) > self._dependencies.clock() and not self.operation.memory.get(AWAITS):
                    # Only looked at early: parked, and everything that it needs is still there.
                    self._invoker.pause(0.0, cancellable=True)
                    return due
                if self._resumed and AWAITS not in self.operation.memory:  # being taken up again is no news
                    self._log("resumed")
                parked = self._advance(todo, cancellable=True)
                return parked if parked is not None else self._commit(plan)
            except Cancelled:
                self._log("stopping, and removing what was started")
                self._journal.write(state=OperationState.UNDOING, failure=None, spent=self._spent, attempts=0)
            except OperatorNeeded as error:
                return self._keep_all(str(error))
            except FAILURES as error:
                failure = self._failure(self._explained(error, plan))
                said = self._line(f"failed: {failure.message}")
                self._journal.write(
                    said, state=OperationState.UNDOING, failure=failure.to_document(), spent=self._spent, attempts=0
                )
        return self._undo(plan)

    def _explained(self, error: BaseException, plan: Plan) -> BaseException:
        """The same, with a hint when what the app's own Service puts into its pods may be the reason."""
        if not isinstance(error, StepFailed) or plan.previous is None or not plan.previous.service_object:
            return error
        log = "".join(self._dependencies.deployment_log.text(plan.deployment))
        return service_links.explained(error, plan.descriptor, plan.objects.podspec, log)

    def _decide(self) -> None:
        """Pin the plan, in the transaction that begins the operation; decide again when something moved meanwhile."""
        self._log(f"deploying {self.operation.app} in namespace {self.operation.namespace}")
        for _ in range(DECISIONS):
            deployment = self._store.get(Deployment, self.operation.deployment)
            if deployment is None or deployment.status is not Status.DEPLOYING:
                raise Cancelled("cancelled by request")
            with contextlib.suppress(StaleRevision):
                self._pin(deployment)
                return
        raise Conflict("the app was changed by others again and again while it was being decided; deploy again")

    def _pin(self, deployment: Deployment) -> None:
        app = self._store.get(App, f"{deployment.namespace}/{deployment.app}")
        known = app or App(namespace=deployment.namespace, app=deployment.app)

        def decide(scope: CancelScope) -> tuple[Plan, App]:
            planner = Planner(
                store=self._store,
                registry=self._dependencies.registry,
                settings=self._dependencies.settings,
                versions=self._dependencies.versions,
                kube=self._kube(deployment.id, scope),
                log=self._log,
                conceal=lambda values: self._dependencies.redactor.register(deployment.id, values),
                scope=scope,
            )
            return planner.decide(deployment, known)

        plan, counted = self._invoker.call(self._dependencies.settings.expose_timeout, decide, cancellable=True)
        decided = dataclasses.replace(deployment, version=plan.version)
        changes: list[Change] = [
            Create(plan),
            Create(counted) if app is None else Update(counted),
            Update(decided),
            finished(decided, "deployment_started"),
        ]
        if plan.route:
            preview = plan.route.preview.host
            changes += claim_hosts(self._store, self._dependencies.settings, plan.descriptor, preview=preview)
        text = f"version {plan.version}" + (f", replacing version {plan.previous.version}" if plan.previous else "")
        self._journal.write(*changes, self._line(text), state=OperationState.RUNNING, due=0.0, target=NOTHING)

    def _steps(self, plan: Plan, *, undoing: bool = False) -> list[Step]:
        """The pinned steps. Raises PluginError when a provider is gone, or the strategy has other steps now.

        `undoing`: nobody is asked for its health on the way back.
        """
        name = plan.strategy.name
        strategy = self._dependencies.registry.strategy(name)
        found = self._invoker.call(
            self._dependencies.settings.expose_timeout, lambda _: check_steps(strategy.deploy_steps(plan), name)
        )
        if [step.id for step in found] != [step.id for step in plan.steps]:
            raise PluginError(f"strategy {name} has other steps than when this deployment was decided")
        if plan.route:
            self._ingress(plan)
        if not undoing:
            self._health(plan)
        return found

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
                        app,
                        live=plan.deployment,
                        live_version=plan.version,
                        held=app.live,
                        held_version=app.live_version,
                    )
                ),
                finished(done),
            ]
            replaced = self._store.get(Deployment, app.live) if app.live else None
            if replaced is not None and replaced.status is Status.DEPLOYED:
                changes.append(Update(replaced.to(Status.UNDEPLOYING)))
            changes += [Create(operation) for operation in self._follow_up(plan)]
            changes.append(self._line(f"DEPLOYED: version {plan.version} is live"))
            if replaced is not None and plan.previous is None:
                # Nothing leads to it: its records, and whatever else it may have made, are to be cleared away.
                changes.append(Create(self._clearing(replaced)))
                changes.append(
                    self._dependencies.deployment_log.line(replaced.id, f"was gone, and version {plan.version} is live")
                )
            elif replaced is not None:
                text = f"replaced by version {plan.version}; will be removed in {plan.settings.hold:g} s"
                changes.append(self._dependencies.deployment_log.line(replaced.id, text))
            try:
                self._journal.write(*changes, state=OperationState.DONE, spent=self._spent)
            except StaleRevision:
                continue
            return None

    def _clearing(self, gone: Deployment) -> Operation:
        return Operation(
            namespace=gone.namespace, app=gone.app, id=new_id(), kind=OperationKind.UNDEPLOY, deployment=gone.id
        )

    def _follow_up(self, plan: Plan) -> list[Operation]:
        """What is left to do after the commit: drop, release, retire."""

        def retire(deployment: str, hold: float, target: Target) -> Operation:
            return Operation(
                namespace=plan.namespace,
                app=plan.app,
                id=new_id(),
                kind=OperationKind.RETIRE,
                deployment=deployment,
                **self._wait(hold, least=plan.settings.minimum_hold),
                target=target,
            )

        previous = plan.previous
        if previous is None:
            return [retire(plan.deployment, 0.0, Target(by=plan.deployment))] if plan.route else []
        operations = []
        drop = []
        if previous.last_route and not plan.route:
            drop.append("route")
        if previous.service_object and not plan.objects.service:
            drop.append("service")
        if drop:
            operations.append(retire(plan.deployment, 0.0, Target(drop=tuple(drop), previous=previous)))
        operations.append(
            retire(previous.deployment, plan.settings.hold, Target(by=plan.deployment, previous=previous))
        )
        return operations

    # --- undo ----------------------------------------------------------------------------------------------------

    def _undo(self, plan: Plan) -> float | None:
        """Go back, step by step, then remove whatever is left of this deployment. Tried until it is done."""
        try:
            self._undo_steps(plan)
            self._invoker.call(
                self._removal_budget(plan), lambda scope: self._sweep(plan.deployment, plan.version, scope)
            )
            ending = self._pods_that_end(plan)
        except OperatorNeeded as error:
            return self._keep_all(str(error))
        except RETRIED as error:
            return self._reschedule(f"undoing is not finished: {error}", OperationState.UNDOING)
        document = self.operation.failure
        self._end(Failure(**document) if document else None, ending)
        return None

    def _pods_that_end(self, plan: Plan) -> list[Operation]:
        """What waits for the pods that need longer than a moment: nobody else has to, as nothing leads to them."""
        labels, budget = workload_labels(plan), self._dependencies.settings.undo_timeout
        if self._invoker.call(budget, lambda scope: self._is_anothers(plan, scope)):
            return []
        try:
            orphans = self._invoker.call(
                PODS_PATIENCE, lambda scope: diagnose.await_pods_gone(self._kube(plan.deployment, scope), "", labels)
            )
            controllers: set[str] = set()
        except DeadlineExceeded:
            left = self._invoker.call(budget, lambda scope: self._kube(plan.deployment, scope).list(POD, labels))
            orphans = [pod for pod in left if not controller_uid(pod)]
            controllers = {controller_uid(pod) for pod in left} - {""}
        if orphans:
            self._invoker.call(budget, lambda scope: remove_orphans(self._work(StartWorkload(), plan, scope), orphans))
        return [self._ending(plan, uid) for uid in sorted(controllers)]

    def _is_anothers(self, plan: Plan, scope: CancelScope) -> bool:
        """Is there a controller of the version's name that is not ours? Then its pods are not either."""
        kube = self._kube(plan.deployment, scope)
        found = kube.items(CONTROLLER, {"name": workload_labels(plan)["name"]})
        return any(not kube.owned_by(controller, plan.deployment) for controller in found)

    def _ending(self, plan: Plan, controller: str) -> Operation:
        """Waits for the pods of the controller that had this uid."""
        ending = Ending(version=plan.version, controller=controller, grace=grace_time(plan))
        return Operation(
            namespace=plan.namespace,
            app=plan.app,
            id=new_id(),
            kind=OperationKind.RETIRE,
            deployment=plan.deployment,
            target=Target(ending=ending, released=True),
        )

    def _undo_steps(self, plan: Plan) -> None:
        try:
            found = self._steps(plan, undoing=True)
        except (PluginError, StepFailed, StepCrashed, DeadlineExceeded) as error:
            self._undo_without(plan, str(error))
            self._log(f"undoing without the plugin: {error}")
            return
        for step in reversed(found):
            if self.operation.steps.get(step.id) not in ("started", "done"):
                continue
            try:
                self._invoker.call(
                    self._undo_budget(step, plan),
                    lambda scope, step=step: step.undo(self._work(step, plan, scope)),  # type: ignore[misc]
                )
            except (OperatorNeeded, KubeError, StoreError, Revoked):
                raise
            except (DeployerError, StepCrashed) as error:
                made_of = f", {self._removal_parts(plan)}" if isinstance(error, DeadlineExceeded) else ""
                if self.operation.attempts < UNDO_ATTEMPTS:
                    raise _UndoFailed(f"step {step.id}: {error}{made_of}") from error
                why = f"undoing step {step.id} keeps failing"
                anothers = isinstance(error, StepFailed) and error.reason == OBJECT_CHANGED
                self._undo_without(plan, f"{why}: {error}{made_of}", only=step.id, anothers=anothers)
                self._log(f"{why} ({error}{made_of}); the core removes the objects itself")
            self._journal.write(steps={**self.operation.steps, step.id: "undone"})

    def _undo_without(self, plan: Plan, why: str, *, only: str = "", anothers: bool = False) -> None:
        """Return when the core, which can remove objects but not move traffic back, may undo what was started without
        the steps themselves (`only`: that one). Raises OperatorNeeded where that could be an outage.

        `anothers`: another client has changed what the step would take back, and decides about it from then on.
        """
        started = [
            step
            for step in plan.steps
            if self.operation.steps.get(step.id) in ("started", "done") and only in ("", step.id)
        ]
        for step in reversed(started):
            if (step.disturbs or step.exposes) and not anothers:
                what = "may have taken traffic or capacity from the version before" if step.disturbs else ""
                what = what or f"may have given traffic to version {plan.version}"
                raise OperatorNeeded(
                    self._kept(plan, f"step {step.id} {what}, and only the plugin can take that back", why)
                )
        if any(Phase[step.phase] >= Phase.EXPOSE for step in started):
            # A step may have moved traffic although it says that it does not.
            budget = self._dependencies.settings.undo_timeout
            self._invoker.call(budget, lambda scope: self._refuse_when_selected(plan, why, scope))

    def _refuse_when_selected(self, plan: Plan, why: str, scope: CancelScope) -> None:
        if self._selected(self._kube(plan.deployment, scope), plan, scope):
            what = f"version {plan.version} may have traffic already, and nobody can move it back"
            raise OperatorNeeded(self._kept(plan, what, why))

    def _kept(self, plan: Plan, what: str, why: str) -> str:
        pinned = {"strategy": plan.strategy, "ingress": plan.ingress if plan.route else None, "health": plan.health}
        gone = [ref.source or ref.name for kind, ref in pinned.items() if ref and not self._installed(kind, ref.name)]
        plugin = ", ".join(dict.fromkeys(gone)) or plan.strategy.source or plan.strategy.name
        return f"{what} ({why}): everything is kept as it is until the plugin is back ({plugin})"

    def _installed(self, kind: str, name: str) -> bool:
        with contextlib.suppress(PluginError):
            self._dependencies.registry.entry(kind, name)
            return True
        return False

    def _selected(self, kube: KubeAccess, plan: Plan, scope: CancelScope) -> bool:
        """Does the Service or the route lead to this version? True also when nobody can tell."""
        service = kube.get(SERVICE, ownership.service_name(plan.app))
        if service and kube.is_ours(service) and (service["spec"].get("selector") or {}).get("version") == plan.version:
            return True
        if not plan.route:
            return False
        try:
            provider = self._ingress(plan)
        except PluginError:
            return True
        assert provider is not None
        state = provider.state(self._route(plan.route, kube, scope))
        return bool(state and leads_to(state.backends, plan.route.backend.service))

    # --- ends ----------------------------------------------------------------------------------------------------

    def _end(self, failure: Failure | None, ending: Sequence[Operation] = ()) -> None:
        """The deployment did not come to be live: FAILURE, or UNDEPLOYED when it was cancelled, which is left to what
        waits for the last pods (`ending`)."""
        while True:
            deployment = self._store.get(Deployment, self.operation.deployment)
            if deployment is None:
                self._close()
                return
            changes: list[Change] = [Create(operation) for operation in ending]
            if deployment.status is not Status.UNDEPLOYING and failure is not None:
                deployment = dataclasses.replace(deployment, failure=failure.to_document())
                said = f"FAILURE: {failure.message}" + (f" ({failure.hint})" if failure.hint else "")
                changes += [self._line(said), *ended_changes(self._store, deployment)]
            elif not ending:
                said = "UNDEPLOYED: the deployment was cancelled"
                changes += [self._line(said), *ended_changes(self._store, deployment)]
            try:
                self._journal.write(*changes, state=OperationState.DONE, spent=self._spent)
            except StaleRevision:
                continue
            return

    def _keep_all(self, why: str) -> float:
        wait = self._wait(HOLD_INTERVAL)
        self._say_once(why)
        self._journal.write(**wait, memory={**self.operation.memory, SAID: why})
        return float(wait["due"])

    def _failure(self, error: BaseException) -> Failure:
        """One sentence and a reason, for every way in which a step can fail; without secrets, as it is shown."""
        clean = self._clean
        if isinstance(error, StepFailed):
            return Failure(reason=error.reason, message=clean(str(error)), pod=error.pod, hint=clean(error.hint))
        if isinstance(error, KubeError):
            hint = next((hint for kind, hint in HINTS if isinstance(error, kind)), "")
            return Failure(reason=error.reason or "KubernetesError", message=clean(str(error)), hint=hint)
        return Failure(reason=type(error).__name__, message=clean(str(error)))

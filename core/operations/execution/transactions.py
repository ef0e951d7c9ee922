"""What operations write to the store beside their own record: each a list of changes for one transaction.

They are made from the records as they are at the moment; one that has moved until the commit makes that fail with
StaleRevision, and the changes are made anew.
"""

from __future__ import annotations

import dataclasses

from deployer.core.errors import ROLLBACK_FAILED, Cancelled
from deployer.core.model.gates import planned_results
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.operation import timeline
from deployer.core.model.operation.target import Ending, Target
from deployer.core.model.operation.timeline import Timeline
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
    timestamp,
)
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.host_claims import claim_hosts, ended_changes, happened
from deployer.core.operations.journal import Journal
from deployer.core.operations.machine import PARK_LEAST, SWITCHING, wait
from deployer.core.operations.rollbacks import NOT_WARM, ROLLED_BACK
from deployer.core.ports.store import Change, Create, Update


class Transactions:
    """Of one operation. Raises StoreError."""

    def __init__(self, dependencies: Dependencies, journal: Journal) -> None:
        self._dependencies = dependencies
        self._store = dependencies.store
        self._journal = journal

    @property
    def _operation(self) -> Operation:
        return self._journal.operation

    # --- a deployment --------------------------------------------------------------------------------------------

    def decided(self, deployment: Deployment, known: App | None, counted: App, plan: Plan) -> list[Change]:
        """What begins a deployment: its plan, the app with the version counted, its hosts. Raises Conflict."""
        decided = dataclasses.replace(deployment, version=plan.version)
        changes: list[Change] = [
            Create(plan),
            Create(counted) if known is None else Update(counted),
            Update(decided),
            happened(decided, Occurrence.STARTED, plan.previous.version if plan.previous else ""),
        ]
        if results := planned_results(plan.namespace, plan.app, plan.deployment, plan.gates):
            changes.append(Create(results))
        if plan.route:
            preview = plan.route.preview.host
            changes += claim_hosts(self._store, self._dependencies.settings, plan.descriptor, preview=preview)
        text = f"version {plan.version}" + (f", replacing version {plan.previous.version}" if plan.previous else "")
        return [*changes, self.line(deployment.id, text)]

    def committed(self, plan: Plan) -> list[Change]:
        """The commit point: live, held, both statuses, and what is left to do. Raises Cancelled when somebody was
        quicker to want to be rid of the deployment."""
        deployment, app = self._store.get(Deployment, plan.deployment), self._app()
        if deployment is None or app is None or deployment.status is not SWITCHING[self._operation.kind]:
            raise Cancelled("cancelled by request")
        if deployment.unwanted:
            raise Cancelled("cancelled by request")
        rolls_back = self._operation.kind is OperationKind.ROLLBACK
        done = self._with_steps(deployment)
        done = done.to(Status.DEPLOYED, rollback=rolls_back, went_live=timestamp())
        if rolls_back:
            done = dataclasses.replace(done, purge=False, failure=None)  # who wants it back wants its record, too
        taken = dataclasses.replace(
            app, live=plan.deployment, live_version=plan.version, held=app.live, held_version=app.live_version
        )
        occurrence = Occurrence.UPGRADED if plan.previous else Occurrence.DEPLOYED
        occurrence = Occurrence.ROLLED_BACK if rolls_back else occurrence
        before = plan.previous.version if plan.previous else ""
        changes: list[Change] = [Update(done), Update(taken), happened(done, occurrence, before), *self._unwatched()]
        replaced = self._store.get(Deployment, app.live) if app.live else None
        if rolls_back and replaced is not None and replaced.status is Status.DEPLOYED:
            return [*changes, *self._rolled_back(replaced, plan)]
        if replaced is not None and replaced.status is Status.DEPLOYED:
            changes.append(Update(replaced.to(Status.UNDEPLOYING)))
        changes += [Create(operation) for operation in self.follow_up(plan)]
        changes.append(self.line(plan.deployment, f"DEPLOYED: version {plan.version} is live"))
        if replaced is not None and plan.previous is None:
            # Nothing leads to it: its records, and whatever else it may have made, are to be cleared away.
            changes.append(Create(self._operation_for(replaced.id, OperationKind.UNDEPLOY)))
            changes.append(self.line(replaced.id, f"was gone, and version {plan.version} is live"))
        elif replaced is not None:
            text = f"replaced by version {plan.version}; will be removed in {plan.settings.hold:g} s"
            changes.append(self.line(replaced.id, text))
        return changes

    def _rolled_back(self, replaced: Deployment, plan: Plan) -> list[Change]:
        """The version that goes has failed, whatever it was before: reason `RolledBack`."""
        cause = self._operation.target.cause
        by = f" by {self._operation.target.by}" if self._operation.target.by and not cause else ""
        message = f"rolled back to version {plan.version}{by}" + (f": {cause}" if cause else "")
        failure = Failure(reason=ROLLED_BACK, message=message)
        gone = replaced.to(Status.FAILURE, rollback=True, failure=failure.to_document())
        return [
            Update(gone),
            happened(gone, Occurrence.FAILED, plan.version),
            *(Create(operation) for operation in self.follow_up(plan)),
            self.line(plan.deployment, f"DEPLOYED: version {plan.version} is live again"),
            self.line(replaced.id, f"FAILURE: {message}; will be removed in {plan.settings.hold:g} s"),
        ]

    def decided_back(self, deployment: Deployment, app: App, plan: Plan) -> list[Change]:
        """What begins a rollback: the plan of the version that comes back, its hosts. Raises Conflict."""
        changes: list[Change] = [Update(plan), Update(app)]
        if plan.route:
            changes += claim_hosts(self._store, self._dependencies.settings, plan.descriptor, preview="")
        assert plan.previous is not None
        said = f"rolling back from version {plan.previous.version} to version {plan.version}"
        for id in (deployment.id, plan.previous.deployment):
            changes.append(self.line(id, said))
        return changes

    def follow_up(self, plan: Plan) -> list[Operation]:
        """What is left to do after the commit: release, drop, retire."""
        previous = plan.previous
        if previous is None:
            return [self._retirement(plan.deployment, Target(by=plan.deployment))] if plan.route else []
        gone = {
            "route": bool(previous.last_route and not plan.route),
            "service": bool(previous.service_object and not plan.objects.service),
        }
        drop = tuple(what for what, is_gone in gone.items() if is_gone)
        operations = [self._retirement(plan.deployment, Target(drop=drop, previous=previous))] if drop else []
        target = Target(by=plan.deployment, previous=previous)
        hold, least = plan.settings.hold, plan.settings.minimum_hold
        operations.append(self._retirement(previous.deployment, target, hold=hold, least=least))
        if self._operation.kind is OperationKind.DEPLOY and previous.deployment and hold >= PARK_LEAST:
            watch = self._operation_for(plan.deployment, OperationKind.WATCH)
            operations.append(dataclasses.replace(watch, target=Target(until=self._dependencies.clock() + hold)))
        return operations

    def ended(self, failure: Failure | None, ending: tuple[str, ...], plan: Plan | None) -> list[Change]:
        """The deployment did not come to be live: FAILURE, or UNDEPLOYED when it was cancelled, which is left to what
        waits for the last pods, those of the controllers with the uids `ending`."""
        deployment = self._store.get(Deployment, self._operation.deployment)
        if deployment is None:
            return []
        if self._operation.kind is OperationKind.ROLLBACK:
            return self._not_back(self._with_steps(deployment), failure)
        deployment = self._with_steps(deployment)
        changes: list[Change] = []
        for uid in ending:
            assert plan is not None
            waits = Ending(version=plan.version, controller=uid, grace=plan.objects.grace_time)
            changes.append(Create(self._retirement(plan.deployment, Target(ending=waits, released=True))))
        if deployment.status is not Status.UNDEPLOYING and failure is not None:
            deployment = dataclasses.replace(deployment, failure=failure.to_document())
            told = self._operation.state is OperationState.UNDOING  # when undoing began
            said = f"FAILURE: {failure.reason}, as said above" if told else f"FAILURE: {failure}"
            live = plan.previous.version if plan and plan.previous else ""
            changes += [
                self.line(deployment.id, said),
                *ended_changes(self._store, deployment, Occurrence.FAILED, live),
            ]
        elif not ending:
            said = "UNDEPLOYED: the deployment was cancelled"
            changes += [
                self.line(deployment.id, said),
                *ended_changes(self._store, deployment, Occurrence.CANCELLED),
            ]
        else:
            changes.append(Update(deployment))
        return changes

    def _not_back(self, deployment: Deployment, failure: Failure | None) -> list[Change]:
        """A rollback that failed (None: it was cancelled): what was live still is, and the other version drains again.
        That it failed is in its record, as nobody may be there who reads the log."""
        app = self._app()
        live = app.live_version if app else ""
        if failure is None:
            said = f"the rollback to version {deployment.version} was cancelled, and nothing has changed"
            back, told = dataclasses.replace(deployment, unwanted=False), None
        else:
            said = f"the rollback to version {deployment.version} failed, and nothing has changed: {failure}"
            message = f"the rollback to version {deployment.version} failed, and nothing has changed: {failure.message}"
            known = dataclasses.replace(failure, reason=ROLLBACK_FAILED, message=message)
            back = dataclasses.replace(deployment, unwanted=False, failure=known.to_document())
            told = happened(back, Occurrence.ROLLBACK_FAILED, live)
        changes: list[Change] = [self.line(deployment.id, said), Update(back), *([told] if told else [])]
        if app is not None and app.live:
            changes.append(self.line(app.live, said))
        target = self._operation.target
        if deployment.status is Status.UNDEPLOYING and target.previous is not None:
            again = Target(by=app.live if app else "", previous=target.previous)
            # As warm as before; requests that came to it meanwhile have the time that they always have.
            hold = max(self._dependencies.settings.proxysleep, target.until - self._dependencies.clock())
            if failure is not None and failure.reason == NOT_WARM:
                hold = 0.0
            changes.append(Create(self._retirement(deployment.id, again, hold=hold)))
        return changes

    def turned(self, occurrence: Occurrence | None, why: str) -> list[Change]:
        """Observers are told durably that it is held; what failed is told once it is undone."""
        if occurrence is not Occurrence.HELD:
            return []
        deployment = self._store.get(Deployment, self._operation.deployment)
        if deployment is None:
            return []
        plan = self._store.get(Plan, deployment.id)
        before = plan.previous.version if plan and plan.previous else ""
        progress = {**self._operation.progress(), "waitingFor": why}
        return [happened(deployment, Occurrence.HELD, before, progress)]

    # --- a removal -----------------------------------------------------------------------------------------------

    def concluded(self, *, ends: bool) -> list[Change]:
        """What ends a retirement or an undeployment; `ends`: nothing of the deployment is left."""
        deployment = self._store.get(Deployment, self._operation.deployment) if ends else None
        if deployment is None:
            return []
        changes: list[Change] = []
        if deployment.status is Status.UNDEPLOYING:
            cancelled = self._operation.target.ending is not None
            said = "the deployment was cancelled" if cancelled else f"version {deployment.version} is removed"
            changes.append(self.line(deployment.id, f"UNDEPLOYED: {said}"))
        end = self._end_of(deployment)
        return [*changes, *self.forgotten(), *ended_changes(self._store, self._with_steps(deployment), end)]

    def _end_of(self, deployment: Deployment) -> Occurrence:
        """How what is being removed came to its end."""
        if self._operation.target.ending is not None:
            return Occurrence.CANCELLED
        app = self._app()
        undeployed = self._operation.kind is OperationKind.UNDEPLOY
        gone = undeployed and (app is None or app.live in ("", deployment.id))
        return Occurrence.REMOVED if gone else Occurrence.REPLACED

    def forgotten(self) -> list[Change]:
        """The app without the deployment; when that was live, what drains has nothing to wait for any more."""
        app, deployment = self._app(), self._operation.deployment
        if app is None:
            return []
        new = app
        changes: list[Change] = []
        if app.live == deployment:
            new = dataclasses.replace(new, live="", live_version="")
            changes = [Update(dataclasses.replace(o, due=0.0)) for o in self.others(OperationKind.RETIRE)]
            changes += self._unwatched()
        if app.held == deployment:
            new = dataclasses.replace(new, held="", held_version="")
        return [*changes, Update(new)] if new is not app else changes

    def _unwatched(self) -> list[Change]:
        """Nobody looks any more after what was live until now."""
        return [Update(dataclasses.replace(o, state=OperationState.DONE)) for o in self.others(OperationKind.WATCH)]

    # --- reading -------------------------------------------------------------------------------------------------

    def others(self, kind: OperationKind) -> list[Operation]:
        """Open operations of this kind, of this app, other than this one."""
        found = self._store.find(Operation, tag="open", namespace=self._operation.namespace, app=self._operation.app)
        return [o for o in found if o.id != self._operation.id and o.kind is kind]

    def _app(self) -> App | None:
        return self._store.get(App, f"{self._operation.namespace}/{self._operation.app}")

    def _retirement(self, deployment: str, target: Target, *, hold: float = 0.0, least: float = 0.0) -> Operation:
        made = self._operation_for(deployment, OperationKind.RETIRE)
        later = wait(self._dependencies.clock(), hold, least) if hold or least else {}
        return dataclasses.replace(made, target=target, **later)

    def _operation_for(self, deployment: str, kind: OperationKind) -> Operation:
        namespace, app = self._operation.namespace, self._operation.app
        asked, request = Timeline(asked=self._dependencies.clock()), self._operation.request
        made = Operation(namespace=namespace, app=app, id=new_id(), kind=kind, deployment=deployment)
        return dataclasses.replace(made, timeline=asked, request=request)

    def _with_steps(self, deployment: Deployment) -> Deployment:
        """The deployment, which keeps what the steps of this operation did."""
        return dataclasses.replace(deployment, steps=timeline.kept(deployment.steps, self._operation.timeline))

    def line(self, deployment: str, text: str) -> Change:
        return self._dependencies.deployment_log.line(deployment, text)

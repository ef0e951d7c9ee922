"""Deployments, as transactions on the store. The API translates HTTP into these calls and nothing else."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Sequence

from deployer.commands.approvals import results_of
from deployer.commands.descriptor_commands import DescriptorCommands, unknown_text
from deployer.commands.freezes import Freezes
from deployer.commands.idempotency import Claim, Idempotency, RequestKey, result_of, without_key
from deployer.commands.limits.paging import RecordList
from deployer.commands.transactions import decide_again, expect
from deployer.core import log_context
from deployer.core.clock import wall_clock
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import NotFound
from deployer.core.model.descriptors import version_of
from deployer.core.model.operation.timeline import Timeline
from deployer.core.model.records import (
    Deployment,
    Document,
    HealthData,
    Operation,
    OperationKind,
    Status,
    new_id,
    timestamp,
)
from deployer.core.operations.host_claims import purge_changes
from deployer.core.ports.store import Change, Create, Expect, Store, Update
from deployer.core.registry import Registry
from deployer.descriptor.podspec import types as podtypes
from deployer.descriptor.validation import DescriptorDryRun, Remarks, no_remarks
from deployer.settings import Settings

logger = logging.getLogger(__name__)


class DeploymentCommands:
    """Deployments of all namespaces. Authorisation is the caller's business; existence is ours.

    descriptors   the commands for what is deployed
    freezes       what keeps namespaces from new deployments
    idempotency   the keys of requests that were carried out
    quotas        what namespaces may have at most
    """

    def __init__(
        self,
        store: Store,
        deployment_log: DeploymentLog,
        registry: Registry,
        settings: Settings,
        *,
        dry_run: DescriptorDryRun | None = None,
        remarks: Remarks = no_remarks,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`dry_run` and `remarks` are asked about descriptors; `clock` says when freezes end."""
        self.store = store
        self.deployment_log = deployment_log
        self.idempotency = Idempotency(store, settings.idempotency_ttl, clock)
        self.descriptors = DescriptorCommands(
            store, registry, settings, dry_run=dry_run, remarks=remarks, idempotency=self.idempotency
        )
        self.freezes = Freezes(store, settings.freeze_windows, clock)
        self.quotas = self.descriptors.quotas

    def deploy(
        self,
        namespace: str,
        descriptor_id: str,
        by: str = "",
        *,
        override: str = "",
        key: RequestKey | None = None,
    ) -> Deployment:
        """Queue a deployment of a stored descriptor; `override` is why it may pass a freeze.

        Raises NotFound, Invalid, Frozen, QueueFull, QuotaExceeded, KeyReused, StoreUnavailable.
        """

        def perform(claim: Claim) -> Deployment:
            stored = self.descriptors.get(namespace, descriptor_id)
            document = self.descriptors.check(namespace, stored.document, stored=True)
            overridden = self.freezes.admit(namespace, override)
            return self._queue(document, stored.public(), by, overridden=overridden, claim=claim)

        return self.idempotency.once(key, perform, lambda known: result_of(self.store, Deployment, known))

    def redeploy(
        self, namespace: str, id: str, by: str = "", *, if_match: Collection[int] | None = None, override: str = "",
        claim: Claim = without_key,
    ) -> Deployment:  # fmt: skip
        """Queue a new deployment of the descriptor copy of an earlier one. Raises what `deploy` does, and StaleRevision
        when somebody else came first."""
        earlier = self.deployment(namespace, id)
        expect(f"deployment {id}", earlier.revision, if_match)
        document = self.descriptors.check(namespace, earlier.descriptor, stored=True)
        overridden = self.freezes.admit(namespace, override)
        return self._queue(document, earlier.descriptor, by, overridden=overridden, claim=claim)

    def again(
        self, earlier: Deployment, by: str = "", also: Sequence[Change] = (), *, claim: Claim, details: Document
    ) -> Deployment:
        """Queue a deployment of a version that was live once, as it was, in one transaction with `also`. `details` are
        those of the key. Raises what `redeploy` does."""
        document = self.descriptors.check(earlier.namespace, earlier.descriptor, stored=True)
        document["newVersion"] = earlier.version
        return self._queue(
            document, earlier.descriptor, by, rollback_of=earlier.id, also=also, claim=claim, details=details
        )

    def _queue(
        self,
        document: Document,
        source: Document,
        by: str,
        *,
        rollback_of: str = "",
        overridden: Document | None = None,
        also: Sequence[Change] = (),
        claim: Claim,
        details: Document | None = None,
    ) -> Deployment:
        """`source` is the descriptor as it is shown, whose identity goes with the copy of it; `overridden` what it was
        let through in spite of."""
        namespace = document["namespace"]
        self.quotas.deployment(namespace, document, rollback=bool(rollback_of))
        now = timestamp()
        identity: Document = {name: source[name] for name in ("id", "created", "lastModified") if name in source}
        deployment = Deployment(
            namespace=namespace,
            app=document["appName"],
            id=new_id(),
            descriptor={**identity, **document},
            created=now,
            last_modified=now,
            version=version_of(document),
            descriptor_id=str(source.get("id", "")),
            created_by=by,
            rollback_of=rollback_of,
            override=overridden,
        )
        operation = Operation(
            namespace=namespace,
            app=deployment.app,
            id=new_id(),
            kind=OperationKind.DEPLOY,
            deployment=deployment.id,
            timeline=Timeline(asked=wall_clock()),
            request=log_context.request(),
        )
        said = self.deployment_log.line(
            deployment.id, f"queued: deployment of {deployment.app} in namespace {namespace}{_by(by)}"
        )
        changes: list[Change] = [*also, Create(deployment), Create(operation), said]
        changes += claim(deployment.app, deployment.id, details)
        if unknown := list(podtypes.unknown_fields(document["podspec"])):
            changes.append(self.deployment_log.line(deployment.id, f"the podspec {unknown_text(unknown)}"))
        if overridden:
            changes.append(self.deployment_log.line(deployment.id, _in_spite(overridden) + _by(by)))
        revision = self.store.commit(*changes)
        with log_context.about(namespace=namespace, app=deployment.app, deployment=deployment.id):
            logger.info("deployment %s of %s in %s is queued", deployment.id, deployment.app, namespace)
        return dataclasses.replace(deployment, revision=revision, sequence=revision)

    def deployments(
        self, namespace: str, app: str | None = None, limit: int | None = None, status: Status | None = None
    ) -> list[Deployment]:
        """Newest first; `limit` counts per app."""
        return self.store.find(
            Deployment,
            namespace=namespace,
            app=app,
            tag=status.value if status else None,
            newest_first=True,
            limit_per_app=limit,
        )

    def listed(
        self, namespace: str, app: str | None = None, status: Status | None = None, *, per_app: int | None = None
    ) -> RecordList[Deployment]:
        """The same, of which no more than a piece is in memory."""
        tag = status.value if status else None
        return RecordList(self.store, Deployment, namespace, app=app, tag=tag, per_app=per_app)

    def deployment(self, namespace: str, id: str) -> Deployment:
        """One deployment. Raises NotFound, also for one of another namespace."""
        found = self.store.get(Deployment, id, namespace=namespace)
        if found is None:
            raise NotFound("there is no deployment with this id in this namespace")
        return found

    def undeploy(
        self, namespace: str, id: str, purge: bool = False, by: str = "", *, if_match: Collection[int] | None = None
    ) -> Deployment:
        """Undeploy a live deployment, cancel one under way, clean up after an ended one; then delete it if `purge`.

        `by` is who asked for it.
        """

        def attempt() -> Deployment:
            old = self.deployment(namespace, id)
            expect(f"deployment {id}", old.revision, if_match)
            status = Status.UNDEPLOYING if old.status in (Status.DEPLOYING, Status.DEPLOYED) else old.status
            new = dataclasses.replace(old, purge=old.purge or purge)
            if status is not old.status:
                new = new.to(status, undeployed_by=by)
            changes: list[Change] = [Update(new)]
            draining = self._draining(old)
            if draining is not None:
                changes.append(Expect(draining))
            elif not old.status.moving:
                # A deployment under way is finished by the operation that it has; any other needs one.
                changes.append(
                    Create(
                        Operation(
                            namespace=namespace,
                            app=old.app,
                            id=new_id(),
                            kind=OperationKind.UNDEPLOY,
                            deployment=id,
                            timeline=Timeline(asked=wall_clock()),
                            request=log_context.request(),
                        )
                    )
                )
            said = {Status.DEPLOYING: "cancelled by request", Status.DEPLOYED: "queued: undeployment"}.get(old.status)
            if self._comes_back(old):
                changes[0] = Update(new := dataclasses.replace(new, unwanted=True))
                said = "the rollback to it is cancelled by request"
            if said:
                changes.append(self.deployment_log.line(id, said + _by(by)))
            revision = self.store.commit(*changes)
            return dataclasses.replace(new, revision=revision)

        return decide_again(attempt)

    def delete_deployments(
        self, namespace: str, app: str, undeploy: bool = False, by: str = ""
    ) -> tuple[int, Deployment | None]:
        """Delete the records of an app's ended deployments; with `undeploy` end and delete the others too.

        Returns how many are or will be deleted, and the one of them that was live.
        """
        count, live = 0, None
        for deployment in self.listed(namespace, app):
            if deployment.status in (Status.FAILURE, Status.UNDEPLOYED):
                decide_again(lambda id=deployment.id: self._purge(id))  # type: ignore[misc]
            elif undeploy:
                try:
                    ending = self.undeploy(namespace, deployment.id, purge=True, by=by)
                except NotFound:
                    continue  # it ended meanwhile, and its record went with it
                live = ending if deployment.status is Status.DEPLOYED else live
            else:
                continue
            count += 1
        return count, live

    def _purge(self, id: str) -> None:
        deployment = self.store.get(Deployment, id)
        if deployment is None or deployment.status.moving:
            return
        if (draining := self._draining(deployment)) is not None:
            self.store.commit(Update(dataclasses.replace(deployment, purge=True)), Expect(draining))
        else:
            self.store.commit(*purge_changes(self.store, deployment))

    def _comes_back(self, deployment: Deployment) -> bool:
        """Is a rollback to it under way?"""
        if deployment.status is not Status.UNDEPLOYING or deployment.unwanted:
            return False
        waiting = self.store.find(Operation, tag="open", namespace=deployment.namespace, app=deployment.app)
        return any(o.deployment == deployment.id and o.kind is OperationKind.ROLLBACK for o in waiting)

    def _draining(self, deployment: Deployment) -> Operation | None:
        """What removes a version that was rolled back: its plan is needed for that, and its requests are under way."""
        if deployment.status is not Status.FAILURE or not deployment.went_live:
            return None
        waiting = self.store.find(Operation, tag="open", namespace=deployment.namespace, app=deployment.app)
        return next((o for o in waiting if o.deployment == deployment.id and o.kind is OperationKind.RETIRE), None)

    def health_data(self, namespace: str, id: str) -> list[Document]:
        """`[{"podName", "value"}]`, empty before the checks have ended."""
        self.deployment(namespace, id)
        found = self.store.get(HealthData, id)
        return found.entries if found else []

    def gates(self, deployment: Deployment) -> Document:
        """`gates`: what became of its gates, in their order; nothing when it has none, or is not decided yet."""
        found = results_of(self.store, deployment.id)
        return {"gates": found.public()} if found else {}

    def log(self, namespace: str, id: str, after: int = 0) -> tuple[Iterator[str], int]:
        """The log so far as text, piece by piece, and the number of its last line. Raises NotFound at once."""
        self.deployment(namespace, id)
        last = self.deployment_log.last(id)
        return self.deployment_log.text(id, after, last), last


def _in_spite(overridden: Document) -> str:
    frozen = "; ".join(f"{freeze['namespace']} ({freeze['reason']})" for freeze in overridden["freezes"])
    return f"deploys in spite of a freeze of {frozen}: {overridden['reason']}"


def _by(name: str) -> str:
    """The end of a log line that says who asked for it."""
    return f", asked for by {name}" if name else ""

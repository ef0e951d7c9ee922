"""Rollbacks as users ask for them: back to a version that is warm, or once more to one that is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.idempotency import Claim, IdempotencyKey, RequestKey, result_of
from deployer.commands.transactions import expect
from deployer.core.errors import Conflict, NotFound
from deployer.core.model.operation.timeline import timestamp_of
from deployer.core.model.records import (
    App,
    Deployment,
    Document,
    Operation,
    OperationKind,
    Plan,
    Release,
    Status,
)
from deployer.core.operations.rollbacks import back_to, is_warm
from deployer.core.ports.store import Change, Store, Update

_ENDED = (Status.UNDEPLOYED, Status.FAILURE)
_PERHAPS_DELETED = (
    "it may have been deleted, by somebody or after its time (history_days, history_limit); GET /apps/{app}/history "
    "lists what is known, and a descriptor that names its version deploys it anew"
)
_UNDER_WAY = "a rollback of {app} is under way already"


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback will do.

    deployment   that will be live
    warm         its pods still run
    replicas     that it will have; None when that is not known before it is decided
    environment  the names of the variables that injectors gave it
    shown        what REST showed of it when it was queued, for one that was asked for again; None before that
    """

    deployment: Deployment
    warm: bool
    replicas: int | None = None
    environment: tuple[str, ...] = ()
    shown: Document | None = None

    def document(self) -> Document:
        """As REST shows it."""
        if self.shown is not None:
            return self.shown
        descriptor = self.deployment.descriptor
        containers = (descriptor.get("podspec") or {}).get("containers") or ()
        return {
            "version": self.deployment.version or descriptor["newVersion"],
            "warm": self.warm,
            "images": [container.get("image", "") for container in containers],
            "replicas": self.replicas or int(descriptor["replicas"]),
            "environment": list(self.environment),
            "descriptorUnchanged": True,
        }


class RollbackCommands:
    """On the deployments of all namespaces. Authorisation is the caller's business."""

    def __init__(self, deployments: DeploymentCommands) -> None:
        self._deployments = deployments

    @property
    def _store(self) -> Store:
        return self._deployments.store

    def redeploy(
        self, namespace: str, id: str, by: str = "", *, if_match: Collection[int] | None = None, override: str = "",
        key: RequestKey | None = None, to_warm: bool = True,
    ) -> Deployment:  # fmt: skip
        """Deploy once more what an earlier deployment deployed, or (`to_warm`) go back to it when it is still warm.

        `override` is why a deployment may pass a freeze; a rollback passes any. Raises what `deploy` and `roll_back`
        do, and PreconditionFailed.
        """

        def perform(claim: Claim) -> Deployment:
            warm = self._back_to_warm(namespace, id, by, if_match, claim) if to_warm else None
            again = self._deployments.redeploy
            return warm or again(namespace, id, by, if_match=if_match, override=override, claim=claim)

        return self._deployments.idempotency.once(key, perform, lambda known: result_of(self._store, Deployment, known))

    def _back_to_warm(
        self, namespace: str, id: str, by: str, if_match: Collection[int] | None, claim: Claim
    ) -> Deployment | None:
        """The deployment, when it is warm and could be gone back to."""
        earlier = self._deployments.deployment(namespace, id)
        app = self._store.get(App, f"{namespace}/{earlier.app}")
        if app is None or app.held != id or not app.live or not is_warm(self._store, earlier):
            return None
        live = self._store.get(Deployment, app.live)
        if live is not None and live.status is not Status.DEPLOYED:
            return None  # it is being undeployed
        expect(f"deployment {id}", earlier.revision, if_match)
        return self._warm(app, earlier, [], by, claim).deployment

    def roll_back(
        self, namespace: str, name: str, to: str = "", by: str = "", *, key: RequestKey | None = None
    ) -> Rollback:
        """Queue it. Raises NotFound, Conflict, Invalid, QueueFull, KeyReused, StoreUnavailable."""
        return self._deployments.idempotency.once(
            key, lambda claim: self._roll_back(namespace, name, to, by, claim), self._replayed
        )

    def _replayed(self, known: IdempotencyKey) -> Rollback:
        deployment = result_of(self._store, Deployment, known)
        return Rollback(deployment, bool(known.details["warm"]), shown=known.details)

    def _roll_back(self, namespace: str, name: str, to: str, by: str, claim: Claim) -> Rollback:
        app = self._store.get(App, f"{namespace}/{name}")
        under_way = self._deployments.deployments(namespace, name, status=Status.DEPLOYING)
        if app is None or not app.live:
            if app is None and not under_way:
                raise NotFound(f"there is no app {name} in namespace {namespace}")
            raise Conflict(f"no version of {name} is live, so there is nothing to go back from")
        live = self._store.get(Deployment, app.live)
        if live is not None and live.status is not Status.DEPLOYED:
            raise Conflict(
                f"version {app.live_version} of {name} is being undeployed: wait until it is gone, then deploy"
            )
        if any(deployment.rollback_of for deployment in under_way):
            raise Conflict(_UNDER_WAY.format(app=name))
        target = self._target(app, to, bool(under_way))
        cancelled = self._cancelled(under_way, by)
        if target.id == app.live:
            if not under_way:
                raise Conflict(f"version {target.version} of {name} is live already")
            found = self._described(target, warm=True)
            self._store.commit(*cancelled, *claim(app.app, target.id, found.document()))
            return found
        if target.id == app.held and is_warm(self._store, target):
            return self._warm(app, target, cancelled, by, claim)
        if target.id == app.held and target.status is Status.FAILURE:
            raise Conflict(
                f"version {target.version} of {name} was rolled back and still drains{self._until(target)}: roll back "
                "to it once it is removed, or deploy its descriptor as another version now"
            )
        if target.status not in _ENDED or target.id == app.held:
            raise Conflict(
                f"version {target.version} of {name} is being removed: wait until that is done, then roll back to it"
            )
        found = self._described(target, warm=False)
        # Touched, so that it is not deleted meanwhile: what it had pinned is needed.
        touched = [*cancelled, Update(target)]
        queued = self._deployments.again(target, by, touched, claim=claim, details=found.document())
        return dataclasses.replace(found, deployment=queued)

    def _target(self, app: App, to: str, under_way: bool) -> Deployment:
        """The deployment that will be live."""
        if to:
            try:
                found = self._deployments.deployment(app.namespace, to)
            except NotFound as error:
                raise NotFound(f"{error}: {_PERHAPS_DELETED.format(app=app.app)}") from None
            if found.app != app.app:
                raise NotFound(f"{app.app} has no deployment with this id")
            if found.id not in (app.live, app.held) and not self._was_live(found):
                raise Conflict("this deployment was never live, so there is nothing to go back to")
            return found
        if under_way:
            return self._deployments.deployment(app.namespace, app.live)
        held = self._store.get(Deployment, app.held, namespace=app.namespace) if app.held else None
        if held is not None and held.status is not Status.FAILURE:
            return held
        for earlier in self._deployments.listed(app.namespace, app.app):
            if earlier.id != app.live and earlier.went_live and earlier.status is Status.UNDEPLOYED:
                return earlier
        raise Conflict(f"no earlier version of {app.app} is known that was live")

    def _until(self, draining: Deployment) -> str:
        """When its removal begins, as the rest of a sentence; empty when that is not known."""
        waiting = self._store.find(Operation, tag="open", namespace=draining.namespace, app=draining.app)
        due = [o.due for o in waiting if o.deployment == draining.id and o.kind is OperationKind.RETIRE and o.due]
        return f" until {timestamp_of(max(due))}" if due else ""

    def _was_live(self, found: Deployment) -> bool:
        """Releases before this one did not say so: of what they ended, everything but a failure counts."""
        if found.went_live or found.status is not Status.UNDEPLOYED or not found.version:
            return bool(found.went_live)
        earlier = self._deployments.deployments(found.namespace, found.app)
        return not any(other.went_live for other in earlier if other.created <= found.created)

    def _warm(self, app: App, target: Deployment, changes: list[Change], by: str, claim: Claim) -> Rollback:
        waiting = self._store.find(Operation, tag="open", namespace=app.namespace, app=app.app)
        if any(operation.kind is OperationKind.ROLLBACK for operation in waiting):
            raise Conflict(_UNDER_WAY.format(app=app.app))
        asked = f", asked for by {by}" if by else ""
        said = self._deployments.deployment_log.line(target.id, f"queued: rollback to version {target.version}{asked}")
        found = self._described(target, warm=True)
        # Touched, so that of two at once one comes too late.
        touched = Update(app), Update(target), *claim(app.app, target.id, found.document())
        revision = self._store.commit(*changes, *back_to(self._store, target, by=by), said, *touched)
        return dataclasses.replace(found, deployment=dataclasses.replace(target, revision=revision))

    def _cancelled(self, under_way: list[Deployment], by: str) -> list[Change]:
        changes: list[Change] = []
        for deployment in under_way:
            changes.append(Update(dataclasses.replace(deployment.to(Status.UNDEPLOYING), undeployed_by=by)))
            said = "cancelled by a rollback" + (f", asked for by {by}" if by else "")
            changes.append(self._deployments.deployment_log.line(deployment.id, said))
        return changes

    def _described(self, target: Deployment, *, warm: bool) -> Rollback:
        pinned = self._store.get(Plan, target.id) or self._store.get(Release, target.id)
        names = tuple(sorted(variable["name"] for variable in pinned.environment)) if pinned else ()
        return Rollback(target, warm, pinned.replicas if pinned else None, names)

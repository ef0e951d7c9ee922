"""Changes that several transactions share: host claims, purging a deployment, telling observers."""

from __future__ import annotations

from deployer.core.errors import Conflict
from deployer.core.records import (
    Deployment,
    Event,
    HealthData,
    HostClaim,
    Plan,
    Status,
    StoredDescriptor,
    new_id,
)
from deployer.core.store.base import Change, Create, Delete, Expect, Store, Update


def purge_changes(store: Store, deployment: Deployment) -> list[Change]:
    """What deletes a deployment's record and all that hangs on it."""
    changes: list[Change] = [Delete(deployment)]
    for kind in (Plan, HealthData):
        record = store.get(kind, deployment.id)
        if record is not None:
            changes.append(Delete(record))
    return changes


def claim_host(store: Store, namespace: str, app: str, host: str) -> Change:
    """The change that makes `host` the app's, or keeps it so. Raises Conflict when it is another app's."""
    claim = store.get(HostClaim, host)
    if claim is None:
        return Create(HostClaim(namespace=namespace, app=app, host=host))
    if (claim.namespace, claim.app) != (namespace, app):
        raise Conflict(f"host {host} belongs to another app; choose another frontend, or delete that app's descriptors")
    return Update(claim)


def release_host(
    store: Store, namespace: str, app: str, host: str, *, without_descriptor: str = "", without_deployment: str = ""
) -> list[Change]:
    """The change that gives a host back, when no other descriptor and no running deployment of the app uses it."""
    claim = store.get(HostClaim, host)
    if claim is None or (claim.namespace, claim.app) != (namespace, app):
        return []
    for stored in store.find(StoredDescriptor, namespace=namespace, app=app):
        if stored.id != without_descriptor and stored.document.get("frontend") == host:
            return [Expect(stored)]
    for status in (Status.DEPLOYED, Status.DEPLOYING, Status.UNDEPLOYING):
        for deployment in store.find(Deployment, namespace=namespace, app=app, tag=status.value):
            if deployment.id != without_deployment and deployment.descriptor.get("frontend") == host:
                return []
    return [Delete(claim)]


def finished(deployment: Deployment, name: str = "deployment_finished") -> Change:
    """The event that tells observers, in the transaction of the change itself."""
    event = Event(
        namespace=deployment.namespace, app=deployment.app, id=new_id(), name=name, deployment=deployment.public()
    )
    return Create(event)


def ended_changes(store: Store, deployment: Deployment) -> list[Change]:
    """What ends a deployment: status, event, plan, host claim and, when asked for, the record itself."""
    end = {Status.DEPLOYING: Status.FAILURE, Status.UNDEPLOYING: Status.UNDEPLOYED}.get(deployment.status)
    ended = deployment.to(end) if end else deployment
    changes: list[Change] = [finished(ended)] if end else []
    host = deployment.descriptor.get("frontend")
    if host:
        changes += release_host(store, deployment.namespace, deployment.app, host, without_deployment=deployment.id)
    if ended.purge:
        return [*changes, *purge_changes(store, deployment)]
    plan = store.get(Plan, deployment.id)
    if plan is not None:
        changes.append(Delete(plan))
    return [*changes, Update(ended)] if end else changes

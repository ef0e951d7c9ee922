"""Changes that several transactions share: host claims, purging a deployment, telling observers."""

from __future__ import annotations

import dataclasses

from deployer.core.errors import Conflict
from deployer.core.hosts import www_twin
from deployer.core.records import (
    Deployment,
    Document,
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


def claim_hosts(store: Store, namespace: str, app: str, descriptor: Document, preview: str = "") -> list[Change]:
    """The changes that make a descriptor's hosts the app's, or keep them so: its frontend, the www twin if that is
    redirected, and its preview host. Raises Conflict when one is another app's."""
    hosts = hosts_of(descriptor)
    if hosts and preview:
        hosts.setdefault(preview, True)
    frontend = descriptor.get("frontend")
    return [
        _claim(store, namespace, app, host, is_preview, twin=host != frontend and not is_preview)
        for host, is_preview in hosts.items()
    ]


def hosts_of(descriptor: Document) -> dict[str, bool]:
    """The hosts that a descriptor asks for, none of which is a preview's."""
    host = descriptor.get("frontend")
    if not host:
        return {}
    return {host: False, www_twin(host): False} if descriptor.get("redirectWww") else {host: False}


def _claim(store: Store, namespace: str, app: str, host: str, preview: bool, *, twin: bool) -> Change:
    claim = store.get(HostClaim, host)
    if claim is None:
        return Create(HostClaim(namespace=namespace, app=app, host=host, preview=preview))
    if (claim.namespace, claim.app) != (namespace, app):
        what = "the preview host" if preview else "host"
        other = "leave redirectWww out" if twin else "choose another frontend"
        raise Conflict(f"{what} {host} belongs to another app; {other}, or delete that app's descriptors")
    return Update(claim if preview else dataclasses.replace(claim, preview=False))


def release_hosts(
    store: Store, namespace: str, app: str, *, without_descriptor: str = "", without_deployment: str = ""
) -> list[Change]:
    """The changes that give back what no other descriptor and no running deployment of the app uses.

    Those that still use one are expected to stay as they are, so that a claim which is made meanwhile is not missed.
    """
    claims = store.find(HostClaim, namespace=namespace, app=app)
    if not claims:
        return []
    used: set[str] = set()
    changes: list[Change] = []
    for stored in store.find(StoredDescriptor, namespace=namespace, app=app):
        if stored.id != without_descriptor and (hosts := hosts_of(stored.document)):
            used |= hosts.keys()
            changes.append(Expect(stored))
    for status in (Status.DEPLOYED, Status.DEPLOYING, Status.UNDEPLOYING):
        for deployment in store.find(Deployment, namespace=namespace, app=app, tag=status.value):
            if deployment.id != without_deployment:
                used |= hosts_of(deployment.descriptor).keys()
    return changes + [Delete(c) for c in claims if c.host not in used and not (c.preview and used)]


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
    if hosts_of(deployment.descriptor):
        changes += release_hosts(store, deployment.namespace, deployment.app, without_deployment=deployment.id)
    if ended.purge:
        return [*changes, *purge_changes(store, deployment)]
    plan = store.get(Plan, deployment.id)
    if plan is not None:
        changes.append(Delete(plan))
    return [*changes, Update(ended)] if end else changes

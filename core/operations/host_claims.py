"""Changes that several transactions share: host claims, purging a deployment, telling observers."""

from __future__ import annotations

import dataclasses

from deployer.core.clock import SteadyClock
from deployer.core.errors import HostTaken
from deployer.core.model.gates import GateDecision, GateResults
from deployer.core.model.hosts import www_twin
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.records import (
    Deployment,
    Document,
    Event,
    HealthData,
    HostClaim,
    Operation,
    Plan,
    Release,
    Status,
    StoredDescriptor,
    new_id,
)
from deployer.core.ports.settings import CoreSettings
from deployer.core.ports.store import Change, Create, Delete, Expect, Store, Update


def purge_changes(store: Store, deployment: Deployment) -> list[Change]:
    """What deletes a deployment's record and all that hangs on it."""
    changes: list[Change] = [Delete(deployment)]
    for kind in (Plan, HealthData, Release, GateResults):
        record = store.get(kind, deployment.id)
        if record is not None:
            changes.append(Delete(record))
    said = store.find(GateDecision, namespace=deployment.namespace, app=deployment.app, tag=deployment.id)
    return [*changes, *map(Delete, said)]


def claim_hosts(
    store: Store, settings: CoreSettings, descriptor: Document, *, preview: str | None = None
) -> list[Change]:
    """The changes that make a descriptor's hosts its app's, or keep them so: its frontend, the www twin if that is
    redirected, and its preview host (`preview`: another one than the settings say; empty for none). Raises HostTaken
    when one is another app's."""
    namespace, app = descriptor["namespace"], descriptor["appName"]
    hosts = hosts_of(descriptor)
    preview = settings.preview(namespace, app) if preview is None else preview
    if hosts and preview:
        hosts.setdefault(preview, True)
    frontend = descriptor.get("frontend")
    wanted = (HostClaim(namespace=namespace, app=app, host=h, preview=is_preview) for h, is_preview in hosts.items())
    return [_claim(store, settings, claim, twin=claim.host != frontend) for claim in wanted]


def hosts_of(descriptor: Document) -> dict[str, bool]:
    """The hosts that a descriptor asks for, none of which is a preview's."""
    host = descriptor.get("frontend")
    if not host:
        return {}
    return {host: False, www_twin(host): False} if descriptor.get("redirectWww") else {host: False}


def _claim(store: Store, settings: CoreSettings, wanted: HostClaim, *, twin: bool) -> Change:
    claim = store.get(HostClaim, wanted.host)
    if claim is None:
        return Create(wanted)
    if (claim.namespace, claim.app) == (wanted.namespace, wanted.app):
        return Update(claim if wanted.preview else dataclasses.replace(claim, preview=False))
    if _lapsed(store, settings, claim):
        return Update(dataclasses.replace(wanted, revision=claim.revision, sequence=claim.sequence))
    what = "the preview host" if wanted.preview else "host"
    other = "leave redirectWww out" if twin and not wanted.preview else "choose another frontend"
    advice = f"{other}, or undeploy that app and delete its descriptors, which gives the host back"
    raise HostTaken(f"{what} {wanted.host}", advice, claim.namespace, claim.app)


def _lapsed(store: Store, settings: CoreSettings, claim: HostClaim) -> bool:
    """True for a claim from before the settings gave the host to others, once nothing deployed uses it any more."""
    if settings.allows_host(claim.namespace, claim.host) or claim.host == settings.preview(claim.namespace, claim.app):
        return False
    used = _deployed_hosts(store, claim.namespace, claim.app)
    return claim.host not in used and not (claim.preview and used)


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
    used |= _deployed_hosts(store, namespace, app, without=without_deployment)
    return changes + [Delete(c) for c in claims if c.host not in used and not (c.preview and used)]


def _deployed_hosts(store: Store, namespace: str, app: str, *, without: str = "") -> set[str]:
    """The hosts of what an app has live or under way, but for one deployment."""
    used: set[str] = set()
    for status in (Status.DEPLOYED, Status.DEPLOYING, Status.UNDEPLOYING):
        for deployment in store.find(Deployment, namespace=namespace, app=app, tag=status.value):
            if deployment.id != without:
                used |= hosts_of(deployment.descriptor).keys()
    return used


def released(store: Store, namespace: str, app: str) -> set[str]:
    """Ids of the app's deployments of which nothing is left but pods that end: they stand in nobody's way."""
    found = store.find(Operation, tag="open", namespace=namespace, app=app)
    return {operation.deployment for operation in found if operation.target.released}


def happened(
    deployment: Deployment, occurrence: Occurrence, previous: str = "", progress: Document | None = None
) -> Change:
    """The event that tells observers, in the transaction of the change itself. `previous`: the version that was live
    before, or takes over again; `progress`: of the operation, where that goes on."""
    return Create(
        Event(
            namespace=deployment.namespace,
            app=deployment.app,
            id=new_id(),
            name=occurrence.hook,
            deployment=deployment.public() | ({"operation": progress} if progress else {}),
            at=SteadyClock()(),
            occurrence=occurrence.value,
            previous=previous,
        )
    )


def ended_changes(store: Store, deployment: Deployment, occurrence: Occurrence, previous: str = "") -> list[Change]:
    """What ends a deployment: status, event, plan, host claim and, when asked for, the record itself."""
    end = {Status.DEPLOYING: Status.FAILURE, Status.UNDEPLOYING: Status.UNDEPLOYED}.get(deployment.status)
    ended = deployment.to(end) if end else deployment
    changes: list[Change] = [happened(ended, occurrence, previous)] if end else []
    if hosts_of(deployment.descriptor):
        changes += release_hosts(store, deployment.namespace, deployment.app, without_deployment=deployment.id)
    if ended.purge:
        return [*changes, *purge_changes(store, deployment)]
    plan = store.get(Plan, deployment.id)
    if plan is not None:
        changes.append(Delete(plan))
        if deployment.went_live:
            release = Release(
                namespace=plan.namespace,
                app=plan.app,
                deployment=plan.deployment,
                version=plan.version,
                replicas=plan.replicas,
                environment=plan.environment,
            )
            changes.append(Create(release))
    # Even where nothing of it changes: somebody may ask for its deletion at this moment.
    return [*changes, Update(ended) if end else Expect(deployment)]

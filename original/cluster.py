"""What of the original serves now, as the cluster has it, and how it is marked as this Deployer's."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider, RouteContext, RouteState
from deployer.core.contract.kube import Owner
from deployer.core.errors import ForeignObject, KubeConflict, PluginError
from deployer.core.model.kind import CONTROLLER, SERVICE, Kind
from deployer.core.model.names import service_name, versioned_name
from deployer.core.model.plan import ProviderRef, Workload, blank_route
from deployer.core.model.records import Document
from deployer.core.registry import Registry
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube
from deployer.kube.ownership import (
    ROLE_CONTROLLER,
    ROLE_SERVICE,
    ROLE_VERSIONED_SERVICE,
    annotation_of,
    deployment_of,
    is_original,
    was_original,
)

_OWNERSHIP = ("uid", "labels", "annotations")
"""Metadata that say which object it is, and whose."""

INGRESS_PROVIDER = "nginx"
"""Name of the provider of what the original exposed."""
PATIENCE = 30.0
"""Seconds that the API server has for what is asked of it about one app."""

_METADATA = ("name", "namespace", "labels", "annotations")
_SERVICE = ("type", "sessionAffinity", "selector", "ports")


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """The version that the app's Service selects, as far as the original made it.

    deployment  id that its ReplicationController names
    workload    the objects as a plan has them, with our marks
    route       where its Ingress leads; None without one
    ingress     the provider that takes that for its own
    unmarked    the objects that are not ours yet
    """

    version: str
    deployment: str
    replicas: int
    workload: Workload
    route: RouteState | None
    ingress: ProviderRef | None
    unmarked: Sequence[tuple[Kind, Document, str]]


@dataclass(slots=True)
class AppInCluster:
    """What the cluster has of an app.

    highest  the highest number of a version that has a ReplicationController
    remarks  what is there and is not taken over, in sentences
    """

    live: LiveVersion | None = None
    highest: int = 0
    remarks: list[str] = field(default_factory=list)


class OriginalCluster:
    """Looks at apps, and marks them. Raises KubeError."""

    def __init__(self, client: KubeClient, informers: Informers, registry: Registry, instance: str) -> None:
        self._client = client
        self._informers = informers
        self._registry = registry
        self._instance = instance

    def look(self, namespace: str, app: str) -> AppInCluster:
        """What is there of the app; changes nothing."""
        scope = CancelScope(time.monotonic() + PATIENCE)
        kube = self._kube(namespace, app, "", scope)
        found = AppInCluster()
        controllers = {
            str((controller["metadata"].get("labels") or {}).get("version")): controller
            for controller in kube.list(CONTROLLER, {"app": app})
        }
        found.highest = max((int(version) for version in controllers if version.isdigit()), default=0)
        service = kube.get(SERVICE, service_name(app))
        selected = str(((service or {}).get("spec", {}).get("selector") or {}).get("version") or "")
        for version, controller in sorted(controllers.items()):
            if version != selected and is_original(controller, app):
                name = controller["metadata"]["name"]
                found.remarks.append(
                    f"ReplicationController {name} is left of the original and serves nothing: delete it"
                )
        if service is not None:
            self._look_at(found, namespace, app, service, controllers.get(selected))
        return found

    def _look_at(
        self, found: AppInCluster, namespace: str, app: str, service: Document, controller: Document | None
    ) -> None:
        """The version that the Service selects, and its controller."""
        scope = CancelScope(time.monotonic() + PATIENCE)
        version = str((service["spec"].get("selector") or {}).get("version") or "")
        if not was_original(service, app) or controller is None or not was_original(controller, app):
            found.remarks.append(f"service {app} selects {version or 'no version'}, which the original did not make")
            return
        deployment = annotation_of(controller, "deploymentId")
        kube = self._kube(namespace, app, deployment, scope)
        versioned = kube.get(SERVICE, versioned_name(app, version))
        objects: list[tuple[Kind, Document, str]] = [(CONTROLLER, controller, ROLE_CONTROLLER)]
        if versioned is not None:
            objects.append((SERVICE, versioned, ROLE_VERSIONED_SERVICE))
        objects.append((SERVICE, service, ROLE_SERVICE))
        for kind, body, _ in objects:
            if not (kube.owned_by(body, deployment) or is_original(body, app)):
                found.remarks.append(f"{kind.kind} {body['metadata']['name']} {_whose(body)}")
                return
        route, ingress = self._route(kube, namespace, app, scope, found)
        found.live = LiveVersion(
            version=version,
            deployment=deployment,
            replicas=int(controller["spec"].get("replicas", 1)),
            workload=Workload(
                controller=_pinned(kube, controller, ROLE_CONTROLLER),
                versioned_service=_pinned(kube, versioned, ROLE_VERSIONED_SERVICE) if versioned else None,
                service=_pinned(kube, service, ROLE_SERVICE),
            ),
            route=route,
            ingress=ingress,
            unmarked=[thing for thing in objects if not kube.owned_by(thing[1], deployment)],
        )

    def mark(self, namespace: str, app: str, live: LiveVersion) -> None:
        """Write on the version's objects whose they are; nothing else of them changes, and nothing restarts."""
        scope = CancelScope(time.monotonic() + PATIENCE)
        kube = self._kube(namespace, app, live.deployment, scope)
        for kind, body, role in live.unmarked:
            self._mark(kube, kind, body, role, scope)

    def _mark(self, kube: OwnedKube, kind: Kind, seen: Document, role: str, scope: CancelScope) -> None:
        """Raises KubeConflict when more changed since it was seen than its status, which pods change all the time."""
        name, namespace, now = seen["metadata"]["name"], seen["metadata"]["namespace"], seen
        while True:
            version = now["metadata"]["resourceVersion"]
            patch = {"metadata": {"resourceVersion": version, "annotations": kube.annotations(role)}}
            try:
                self._client.patch(kind, name, patch, namespace, scope=scope)
            except KubeConflict:
                now = self._client.get(kind, name, namespace, scope=scope)
                if (
                    any(now["metadata"].get(f) != seen["metadata"].get(f) for f in _OWNERSHIP)
                    or now["spec"] != seen["spec"]
                ):
                    raise
            else:
                return

    def _kube(self, namespace: str, app: str, deployment: str, scope: CancelScope) -> OwnedKube:
        return OwnedKube(self._client, self._informers, Owner(self._instance, namespace, app, deployment, 0), scope)

    def _route(
        self, kube: OwnedKube, namespace: str, app: str, scope: CancelScope, found: AppInCluster
    ) -> tuple[RouteState | None, ProviderRef | None]:
        """Where the Ingress leads, and who knows that."""
        try:
            provider = cast(IngressProvider, self._registry.entry("ingress", INGRESS_PROVIDER).provider)
            state = provider.state(RouteContext(blank_route(namespace, app), kube, lambda _: None, scope))
        except PluginError as error:
            found.remarks.append(f"its Ingress is left to the next deployment: {error}")
            return None, None
        except ForeignObject as error:
            found.remarks.append(f"its Ingress is not taken over: {error}")
            return None, None
        if state is None or not state.backends:
            return None, None
        return state, ProviderRef(**self._registry.ref("ingress", INGRESS_PROVIDER))


def _whose(body: Document) -> str:
    marked = deployment_of(body)
    return f"is marked as that of deployment {marked}" if marked else "is not as the original made it"


def _pinned(kube: OwnedKube, found: Document, role: str) -> Document:
    """An object as a plan has it: what was asked for, without what the API server added."""
    metadata = {key: copy.deepcopy(found["metadata"][key]) for key in _METADATA if key in found["metadata"]}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **kube.annotations(role)}
    spec = copy.deepcopy(found["spec"])
    if found.get("kind") == SERVICE.kind:
        spec = {key: spec[key] for key in _SERVICE if key in spec}
    return {"apiVersion": "v1", "kind": found["kind"], "metadata": metadata, "spec": spec}

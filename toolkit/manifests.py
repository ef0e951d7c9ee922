"""Kubernetes objects of a deployment: pure functions from a normalised descriptor to plain dicts.

Names, labels and annotations are part of the contract with users and with objects of the original; they are defined
here and in `kube/ownership.py`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence

from deployer.core.contract.strategy import WorkloadContext
from deployer.core.errors import StepFailed
from deployer.core.model.descriptors import health_port, ports
from deployer.core.model.names import service_name, versioned_name
from deployer.core.model.plan import Workload
from deployer.core.model.records import Document
from deployer.descriptor import MAX_NAME
from deployer.kube.ownership import (
    ANNOTATION_APP,
    ANNOTATION_DEPLOYMENT,
    ANNOTATION_FENCING_TOKEN,
    ANNOTATION_INSTANCE,
    ANNOTATION_ROLE,
    LABEL_MANAGED_BY,
    MANAGED_BY,
    ROLE_CONTROLLER,
    ROLE_SERVICE,
    ROLE_VERSIONED_SERVICE,
)

IDENTITY_VARIABLES = ("APP_NAME", "APP_VERSION", "POD_NAMESPACE", "POD_NAME")


# --- names --------------------------------------------------------------------------------------------------------


def check_name(app: str, version: str) -> None:
    """Raises StepFailed when app and version together are no name for a Service (RFC 1035 label, 63 characters)."""
    name = versioned_name(app, version)
    if len(name) > MAX_NAME or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        raise StepFailed(
            f"{name} is not a name that Kubernetes takes: at most {MAX_NAME} of a-z, 0-9, '-', beginning with a letter",
            reason="NameTooLong" if len(name) > MAX_NAME else "InvalidName",
            hint="choose a shorter appName or newVersion",
        )


# --- objects ------------------------------------------------------------------------------------------------------


def render(context: WorkloadContext) -> Workload:
    """The objects of one deployment. Shares nothing with the context."""
    descriptor = context.descriptor
    app, namespace = descriptor["appName"], descriptor["namespace"]
    controller = render_controller(context)
    owner, labels = _owner(context), _version_labels(app, context.version)
    exposed = service_ports(descriptor)
    if not exposed:
        return Workload(controller=controller)
    versioned = _object("Service", namespace, labels, {**owner, ANNOTATION_ROLE: ROLE_VERSIONED_SERVICE})
    versioned["spec"] = _service_spec(labels, exposed)
    shared_labels = {"app": app, "name": service_name(app), "persistent": "true"}
    shared_owner = {**owner, ANNOTATION_ROLE: ROLE_SERVICE, ANNOTATION_FENCING_TOKEN: str(context.fencing_token)}
    service = _object("Service", namespace, shared_labels, shared_owner)
    service["spec"] = _service_spec({"app": app, "version": context.version}, exposed)
    return Workload(controller=controller, versioned_service=versioned, service=service)


def render_controller(context: WorkloadContext) -> Document:
    """The ReplicationController alone."""
    descriptor = context.descriptor
    labels = _version_labels(descriptor["appName"], context.version)
    about = {**_annotations(context), **_owner(context), ANNOTATION_ROLE: ROLE_CONTROLLER}
    controller = _object("ReplicationController", descriptor["namespace"], labels, about)
    # The managed-by label is the objects' own: as part of selector or template it would break the contract's "labels =
    # selector = template labels", by which objects of the original are recognised too.
    controller["spec"] = {
        "replicas": context.replicas,
        "selector": dict(labels),
        "template": {"metadata": {"labels": dict(labels)}, "spec": _podspec(context)},
    }
    return controller


def _version_labels(app: str, version: str) -> dict[str, str]:
    return {"name": versioned_name(app, version), "app": app, "version": version}


def _owner(context: WorkloadContext) -> dict[str, str]:
    return {
        ANNOTATION_INSTANCE: context.instance,
        ANNOTATION_APP: context.descriptor["appName"],
        ANNOTATION_DEPLOYMENT: context.deployment,
    }


def _object(kind: str, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Document:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": labels["name"],
            "namespace": namespace,
            "labels": {**labels, LABEL_MANAGED_BY: MANAGED_BY},
            "annotations": dict(annotations),
        },
    }


def _annotations(context: WorkloadContext) -> dict[str, str]:
    """What the original wrote on its ReplicationControllers, for tools that read it; only what applies to the app."""
    descriptor = context.descriptor
    checked = descriptor["useHealthCheck"]
    out = {
        "deploymentId": context.deployment,
        "deploymentTs": context.created,
        "appName": descriptor["appName"],
        "version": context.version,
        "useHealthCheck": "true" if checked else "false",
    }
    if checked:
        if path := descriptor.get("healthCheckPath"):  # not every checker needs one
            out["healthCheckPath"] = path
        out["healthCheckPort"] = str(health_port(descriptor))
        out["healthCheckType"] = descriptor["healthCheckType"]
    if descriptor.get("frontend"):
        out["frontend"] = descriptor["frontend"]
    return out


def _service_spec(selector: Mapping[str, str], exposed: Sequence[Document]) -> Document:
    return {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "selector": dict(selector),
        "ports": copy.deepcopy(list(exposed)),
    }


# --- pods ---------------------------------------------------------------------------------------------------------


def _podspec(context: WorkloadContext) -> Document:
    """The descriptor's podspec with environment, pull policy and pull secrets. Init containers get them as well."""
    descriptor = context.descriptor
    spec: Document = copy.deepcopy(descriptor["podspec"])
    if not context.service_links and spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = False
    added = _added(descriptor["appName"], context.version, context.environment)
    for container in _all_containers(spec):
        own = container.get("env") or []
        names = {variable["name"] for variable in own}
        # Ours come first: $(NAME) in a value can only refer to what stands before it.
        container["env"] = [copy.deepcopy(v) for v in added if v["name"] not in names] + own
        if context.image_pull_policy and not container.get("imagePullPolicy"):
            container["imagePullPolicy"] = context.image_pull_policy
    if descriptor.get("imagePullSecrets"):
        secrets = spec.get("imagePullSecrets") or []
        have = {secret.get("name") for secret in secrets}
        more = dict.fromkeys(secret["name"] for secret in descriptor["imagePullSecrets"])
        spec["imagePullSecrets"] = secrets + [{"name": name} for name in more if name not in have]
    return spec


def _added(app: str, version: str, environment: Iterable[Document]) -> list[Document]:
    """The variables added to every container: who the pod is, then what was injected. Injectors cannot change the
    former; of two of one name the first counts."""
    own: list[Document] = [
        {"name": "APP_NAME", "value": app},
        {"name": "APP_VERSION", "value": version},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    by_name: dict[str, Document] = {}
    for variable in (*own, *environment):
        by_name.setdefault(variable["name"], variable)
    return list(by_name.values())


def overridden_names(descriptor: Document, environment: Sequence[Document]) -> list[str]:
    """Names of added variables that some container of the descriptor sets itself (and wins), sorted."""
    added = {*IDENTITY_VARIABLES, *(variable["name"] for variable in environment)}
    own = {v["name"] for container in _all_containers(descriptor["podspec"]) for v in container.get("env") or ()}
    return sorted(added & own)


def _all_containers(podspec: Document) -> list[Document]:
    return [*(podspec.get("initContainers") or ()), *podspec["containers"]]


# --- ports --------------------------------------------------------------------------------------------------------


def service_ports(descriptor: Document) -> list[Document]:
    """A Service's ports: one per container port, with its number on both sides and a name of its own.

    The name is the container port's, else `port-<number>`; whoever comes second to a name gets `-udp`, `-tcp` or
    `-sctp` after it, or finally its number. A number and protocol that appear twice (which Kubernetes refuses in a
    Service) count once.
    """
    out: list[Document] = []
    seen: set[tuple[int, str]] = set()
    names: set[str] = set()
    for port in ports(descriptor):
        number, protocol = int(port["containerPort"]), port.get("protocol") or "TCP"
        if (number, protocol) in seen:
            continue
        seen.add((number, protocol))
        given = port.get("name") or f"port-{number}"
        suffix = protocol.lower()
        # The last is nobody else's: number and protocol are unique, and container ports' names have at most 15
        # characters.
        candidates = (given, f"{given}-{suffix}", f"port-{number}-{suffix}", f"container-port-{number}-{suffix}")
        name = next(candidate for candidate in candidates if candidate not in names)
        names.add(name)
        out.append({"name": name, "port": number, "targetPort": number, "protocol": protocol})
    return out

"""The kinds that the sandbox serves, and small helpers on objects (plain dicts, as on the wire)."""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object. What the store hands out is shared: copy before changing."""

Key = tuple[str, str]
"""Namespace ("" for kinds without one) and name."""


@dataclass(frozen=True)
class Kind:
    """One resource type. Two versions of one are the same kind: what is stored under one is there under the other."""

    group: str
    plural: str
    name: str
    namespaced: bool = True
    generations: bool = False  # the real server keeps metadata.generation for some kinds only
    read_only: bool = False
    default_delete: str = "Background"
    version: str = field(default="v1", compare=False)
    custom: bool = False  # defined by a CustomResourceDefinition

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def as_asked(self, obj: Object) -> Object:
        """The object in this version of its kind: conversion changes nothing else."""
        return {**obj, "apiVersion": self.api_version} if self.custom else obj

    @property
    def resource(self) -> str:
        """How error messages name it: `pods`, `ingresses.networking.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACE = Kind("", "namespaces", "Namespace", namespaced=False)
NODE = Kind("", "nodes", "Node", namespaced=False, read_only=True)
POD = Kind("", "pods", "Pod", generations=True)
SERVICE = Kind("", "services", "Service")
# Kept from the API's early days: without a policy its pods stay.
RC = Kind("", "replicationcontrollers", "ReplicationController", generations=True, default_delete="Orphan")
# Its pods stay without a policy, too.
JOB = Kind("batch", "jobs", "Job", generations=True, default_delete="Orphan")
EVENT = Kind("", "events", "Event")
CONFIG_MAP = Kind("", "configmaps", "ConfigMap")
SECRET = Kind("", "secrets", "Secret")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "endpointslices", "EndpointSlice", generations=True)
INGRESS = Kind("networking.k8s.io", "ingresses", "Ingress", generations=True)
GATEWAY = Kind("gateway.networking.k8s.io", "gateways", "Gateway", generations=True)
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "httproutes", "HTTPRoute", generations=True)
CRD = Kind(
    "apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False, generations=True
)
INGRESS_CLASS = Kind("networking.k8s.io", "ingressclasses", "IngressClass", namespaced=False, generations=True)

KINDS: tuple[Kind, ...] = (
    *(NAMESPACE, NODE, POD, SERVICE, RC, EVENT, CONFIG_MAP, SECRET),
    *(ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, GATEWAY, HTTP_ROUTE, CRD, JOB),
)
BY_PATH: dict[tuple[str, str], Kind] = {(kind.group, kind.plural): kind for kind in KINDS}


def key_of(obj: Object) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def labels_of(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def is_deleting(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def owner_references(obj: Object) -> list[Object]:
    return obj["metadata"].get("ownerReferences") or []


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the controller, if there is one."""
    return next((ref for ref in owner_references(obj) if ref.get("controller")), None)


def reference_to(kind: Kind, obj: Object) -> Object:
    """An owner reference to the object as its controller."""
    meta = obj["metadata"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(obj: Object, name: str) -> Object | None:
    return next((c for c in obj.get("status", {}).get("conditions") or () if c["type"] == name), None)


def is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def selects(selector: dict[str, str] | None, labels: dict[str, str]) -> bool:
    """Whether the map selector of a Service or ReplicationController matches; an empty one matches nothing."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def container_ports(pod: Object) -> Iterable[Object]:
    for container in pod["spec"]["containers"]:
        yield from container.get("ports") or ()


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 in UTC with whole seconds, as the real server writes it; now when no time is given."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def name_suffix() -> str:
    """Five characters without vowels and look-alikes, as in generated names."""
    return "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))

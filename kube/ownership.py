"""Whose an object is: labels and annotations. They are part of the contract with users, and with objects of the
original deployer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from deployer.core.contract.kube import Documents, KubeAccess
from deployer.core.model.kind import Kind
from deployer.core.model.names import service_name, versioned_name

ANNOTATION_INSTANCE = "kube-deployer/instance"
ANNOTATION_APP = "kube-deployer/app"
ANNOTATION_DEPLOYMENT = "kube-deployer/deployment"
ANNOTATION_ROLE = "kube-deployer/role"
ANNOTATION_FENCING_TOKEN = "kube-deployer/epoch"
"""On shared objects only: the fencing token of the lease under which the object was last written."""

ROLE_CONTROLLER = "controller"
ROLE_VERSIONED_SERVICE = "versioned-service"
ROLE_SERVICE = "service"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "deployer"


def is_original(found: Mapping[str, Any], app: str) -> bool:
    """True for a ReplicationController or Service of `app` that the original deployer made.

    They are recognised by their exact label shape: `{name, app, version}` for what belongs to a version,
    `{app, name, persistent: "true"}` for the Service that stays; and by not being marked as anybody's.
    """
    annotations = (found.get("metadata") or {}).get("annotations") or {}
    return was_original(found, app) and not any(key.startswith("kube-deployer/") for key in annotations)


def was_original(found: Mapping[str, Any], app: str) -> bool:
    """True also for one that an import has marked as this Deployer's since: what this one makes has a label more."""
    metadata = found.get("metadata") or {}
    labels = metadata.get("labels") or {}
    name = metadata.get("name")
    if found.get("kind") in (None, "Service") and name == service_name(app):
        # Lists carry no kind in their items; the names tell the two apart.
        return bool(labels == {"app": app, "name": name, "persistent": "true"})
    version = labels.get("version")
    versioned = isinstance(version, str) and bool(version) and name == versioned_name(app, version)
    return versioned and labels == {"app": app, "name": name, "version": version}


def annotation_of(found: Mapping[str, Any], key: str) -> str:
    """An annotation of an object; empty without it."""
    return str((found.get("metadata", {}).get("annotations") or {}).get(key, ""))


def deployment_of(found: Mapping[str, Any]) -> str:
    """The id of the deployment that an object of ours belongs to, or of that which wrote a shared one last."""
    return annotation_of(found, ANNOTATION_DEPLOYMENT)


def role_of(found: Mapping[str, Any]) -> str:
    """The role in which an object of ours was made."""
    return annotation_of(found, ANNOTATION_ROLE)


def objects_of_app(kube: KubeAccess, kind: Kind, roles: Collection[str]) -> Documents:
    """The app's objects of a kind that were made in one of these roles, whichever deployment they belong to."""
    found = kube.list(kind, labels={LABEL_MANAGED_BY: MANAGED_BY})
    return [item for item in found if kube.is_ours(item) and role_of(item) in roles]

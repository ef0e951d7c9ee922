"""Whose an object is: labels and annotations. They are part of the contract with users, and with objects of the
original deployer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.core.model.names import service_name as service_name  # noqa: PLC0414 - exported
from deployer.core.model.names import versioned_name as versioned_name  # noqa: PLC0414 - exported

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
    metadata = found.get("metadata") or {}
    labels = metadata.get("labels") or {}
    name = metadata.get("name")
    if any(key.startswith("kube-deployer/") for key in metadata.get("annotations") or {}):
        return False
    if found.get("kind") in (None, "Service") and name == service_name(app):
        # Lists carry no kind in their items; the names tell the two apart.
        return bool(labels == {"app": app, "name": name, "persistent": "true"})
    version = labels.get("version")
    versioned = isinstance(version, str) and bool(version) and name == versioned_name(app, version)
    return versioned and labels == {"app": app, "name": name, "version": version}

"""How what belongs to an app and its versions is called in Kubernetes: part of the contract with users."""

from __future__ import annotations


def versioned_name(app: str, version: str) -> str:
    """Name of a version's ReplicationController and Service."""
    return f"{app}-{version}"


def service_name(app: str) -> str:
    """Name of the Service that stays between deployments."""
    return app

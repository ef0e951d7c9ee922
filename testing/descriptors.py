"""Descriptors of the sandbox's sample app, and plans as they are decided for them."""

from __future__ import annotations

from typing import Any

from deployer.core.model.descriptors import frontend_port
from deployer.descriptor import Rules, normalise
from deployer.sdk.ingress import Backend, Route
from deployer.sdk.plugin import Document
from deployer.sdk.strategy import Plan, Previous, ProviderRef, WorkloadContext, render_workload
from deployer.settings import Settings

IMAGE = "sample/web:1"
"""The sandbox's sample: answers `version $APP_VERSION` on port 8080 and `/health` on 9999; see `sandbox/README.md`."""

HEALTHY = {"useHealthCheck": True, "healthCheckPort": 9999, "healthCheckPath": "health", "healthCheckType": "probe"}
"""A descriptor's fields for health checks of the sample app, which `env={"FAIL": "1"}` fails."""


def describe(namespace: str, app: str = "shop", **fields: Any) -> Document:
    """A descriptor of the sample app; `env`, `image` and `probe` (for readiness) go into its container."""
    env = fields.pop("env", {})
    probe = {"readinessProbe": fields.pop("probe")} if "probe" in fields else {}
    pull = {"imagePullPolicy": fields.pop("pull")} if "pull" in fields else {}
    container = {
        "name": "web",
        "image": fields.pop("image", IMAGE),
        **pull,
        **probe,
        "ports": fields.pop("ports", [{"containerPort": 8080, "name": "http"}]),
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
    return {
        "namespace": namespace,
        "appName": app,
        "newVersion": "#",
        "podspec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        **fields,
    }


def plan_of(version: str = "2", *, previous: str = "", **fields: Any) -> Plan:
    """A plan for the sample app in namespace `default`, with manifests and, for a `frontend`, a route.

    version   that of deployment `d<version>`
    previous  the version that is live; empty: none is
    fields    of the descriptor, as for `describe`; that providers take their options is not checked
    """
    described = describe("default", **fields)
    strategy, checker = described.get("deploymentType", "blue-green"), described.get("healthCheckType", "")
    rules = Rules(
        settings=Settings(own_namespace=""),
        strategies={strategy: {}},
        health_checkers=[checker],
        ingress=("none", {}),
        health_options={checker: {}},
        without_path=[checker],
        extensions={name: [{}] for name in described.get("extensions", {})},
    )
    descriptor = normalise(described, namespace=None, rules=rules)
    app, replicas, deployment = descriptor["appName"], int(descriptor["replicas"]), f"d{version}"
    old, new = f"{app}-{previous}", f"{app}-{version}"
    before = Previous(deployment=f"d{previous}", version=previous, controller=old, service=old) if previous else None
    context = WorkloadContext(
        descriptor=descriptor,
        version=version,
        deployment=deployment,
        created="2026-01-01T00:00:00Z",
        instance="deployer",
        replicas=replicas,
        previous=before,
    )
    host, port = descriptor.get("frontend"), frontend_port(descriptor)
    route = None
    if host and port:
        route = Route(
            namespace="default",
            app=app,
            host=host,
            version=version,
            deployment=deployment,
            backend=Backend(new, port),
            previous=Backend(old, port) if previous else None,
        )
    return Plan(
        namespace="default",
        app=app,
        deployment=deployment,
        version=version,
        previous=before,
        descriptor=descriptor,
        strategy=ProviderRef(strategy),
        health=ProviderRef(checker) if descriptor["useHealthCheck"] else None,
        objects=render_workload(context),
        route=route,
        replicas=replicas,
    )


__all__ = ["HEALTHY", "IMAGE", "describe", "plan_of"]

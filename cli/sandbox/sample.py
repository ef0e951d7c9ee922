"""The sample app, as a descriptor, and the settings that fit the sandbox on which it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deployer.settings import option

if TYPE_CHECKING:
    from deployer.core.model.records import Document
    from deployer.sandbox import Sandbox

NAMESPACE = "default"
APP = "shop"
HOST = "shop.example.com"


def descriptor(**env: str) -> Document:
    """The sample app: two pods on a public host, with a health check; `env` goes into its container."""
    container: Document = {
        "name": "web",
        "image": "sample/web:1",
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "healthcheck", "containerPort": 9999}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1},
    }
    if env:
        container["env"] = [{"name": name, "value": value} for name, value in env.items()]
    return {
        "namespace": NAMESPACE,
        "appName": APP,
        "newVersion": "#",
        "replicas": 2,
        "frontend": HOST,
        "useHealthCheck": True,
        "healthCheckType": "probe",
        "healthCheckPort": 9999,
        "healthCheckPath": "health",
        "podspec": {"terminationGracePeriodSeconds": 5, "containers": [container]},
    }


_CONTROLLER = "ingress-nginx/ingress-nginx-controller"

PLUGINS: Mapping[str, Document] = {
    "ingress_nginx": {"controller": _CONTROLLER, "revision_header": True, "minimum_hold": 3.0},
    "ingress_gateway": {"gateway": "infra/edge", "section": "http", "controller": _CONTROLLER, "minimum_hold": 3.0},
}
"""What ingress providers must know of the sandbox, by plugin.

The revision header proves a switch by the answers of the ingress; the sandbox's allows it, as a real one must.
"""


DECIDED = (
    *("kubernetes", "kubernetes_username", "kubernetes_password", "kubernetes_token_file", "kubernetes_ca_file"),
    *("kubeconfig", "kube_context", "skip_server_cert_validation", "own_namespace"),
)
"""Settings that say where a cluster is, and who the service is there."""


def sandbox_settings(sandbox: Sandbox) -> dict[str, Any]:
    """What a service needs to work on that sandbox, as fields of the settings."""
    defaults = {name: option(name).default for name in DECIDED}
    return defaults | {"own_namespace": "", "kubernetes": sandbox.api, "loopback_pods": True, "plugins": PLUGINS}

"""For each field of descriptors: where the reference has it, and an example. A test has all of them validated.

An example is what stands in a descriptor beside the smallest one (`SMALLEST`), not a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]

SMALLEST: Document = {
    "namespace": "shop",
    "appName": "shop",
    "newVersion": "#",
    "podspec": {
        "containers": [
            {
                "name": "web",
                "image": "registry.example.com/shop:1.4",
                "ports": [{"name": "http", "containerPort": 8080}],
            }
        ]
    },
}

_HEALTH: Document = {
    "useHealthCheck": True,
    "healthCheckType": "probe",
    "healthCheckPort": 8080,
    "healthCheckPath": "/health",
}

GROUPS: Mapping[str, Mapping[str, Document]] = {
    "What is deployed": {
        "namespace": {"namespace": "shop"},
        "appName": {"appName": "shop"},
        "newVersion": {"newVersion": "42"},
        "podspec": {
            "podspec": {
                "containers": [
                    {
                        "name": "web",
                        "image": "registry.example.com/shop:1.4",
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "env": [
                            {"name": "LOG_LEVEL", "value": "info"},
                            {
                                "name": "DB_PASSWORD",
                                "valueFrom": {"secretKeyRef": {"name": "shop-db", "key": "password"}},
                            },
                        ],
                        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 2},
                    }
                ],
                "terminationGracePeriodSeconds": 30,
            }
        },
        "replicas": {"replicas": 3},
        "imagePullSecrets": {"imagePullSecrets": [{"name": "registry-login"}]},
    },
    "How it is deployed": {
        "deploymentType": {"deploymentType": "canary"},
        "strategyOptions": {
            "deploymentType": "canary",
            "frontend": "shop.example.com",
            "strategyOptions": {"steps": [{"weight": 10, "pause": 300}, {"weight": 50, "pause": 300}]},
        },
        "gates": {
            "gates": {
                "beforeSwitch": [{"type": "approval", "name": "release", "options": {"notByRequester": True}}],
                "afterSwitch": [
                    {
                        "type": "http",
                        "name": "smoke",
                        "timeoutSeconds": 120,
                        "options": {"version": "pods", "path": "/smoke"},
                    }
                ],
            }
        },
        "timeoutSeconds": {"timeoutSeconds": 900},
        "extensions": {"extensions": {"vault": {"path": "shop/production"}}},
    },
    "Traffic": {
        "frontend": {"frontend": "shop.example.com"},
        "frontendPort": {
            "frontend": "shop.example.com",
            "frontendPort": "http",
        },
        "frontendPath": {"frontend": "shop.example.com", "frontendPath": "/status"},
        "tlsSecretName": {"frontend": "shop.example.com", "tlsSecretName": "shop-example-com-tls"},
        "redirectWww": {"frontend": "shop.example.com", "redirectWww": True},
        "additionHttpHeaders": {
            "frontend": "shop.example.com",
            "additionHttpHeaders": [{"Header": "Strict-Transport-Security", "Value": "max-age=31536000"}],
        },
        "useCompression": {"frontend": "shop.example.com", "useCompression": True},
        "useStickySessions": {"frontend": "shop.example.com", "useStickySessions": True},
        "ingressOptions": {
            "frontend": "shop.example.com",
            "ingressOptions": {"proxy-body-size": "8m", "proxy-read-timeout": 120},
        },
    },
    "Health checks": {
        "useHealthCheck": _HEALTH,
        "healthCheckType": _HEALTH | {"healthCheckType": "simple"},
        "healthCheckPort": _HEALTH | {"healthCheckPort": 8080},
        "healthCheckPath": _HEALTH | {"healthCheckPath": "/internal/health"},
        "healthCheckHost": _HEALTH | {"healthCheckHost": "shop.example.com"},
        "healthCheckOptions": _HEALTH | {"healthCheckOptions": {}},
        "ignoreHealthCheck": _HEALTH | {"ignoreHealthCheck": True},
    },
    "After the switch": {
        "soakSeconds": {"soakSeconds": 300},
        "autoRollback": {"autoRollback": False},
        "keepWarm": {"keepWarm": 3600},
    },
    "Stored, not used": {
        "webhooks": {"webhooks": [{"key": "3f2b8c1e", "description": "the registry calls it"}]},
    },
}
"""By heading, then by field. A field that needs others to make sense has them in its example."""

SEE: Mapping[str, str] = {
    "deploymentType": "[Strategies](strategies.md) says what each does.",
    "strategyOptions": "[Canary](canary.md) has those of `canary`; `blue-green` and `recreate` take none.",
    "gates": "[Gates](gates.md) has the types, and what else a gate may say.",
    "frontend": "[Ingress](ingress.md#host-ownership) says who owns a host.",
    "frontendPort": "[Port and path](ingress.md#port-and-path).",
    "frontendPath": "[Port and path](ingress.md#port-and-path).",
    "tlsSecretName": "[TLS](ingress.md#tls) says which Secret is used without it.",
    "ingressOptions": "[nginx](ingress.md#nginx) and [Gateway API](ingress.md#gateway-api) have them all.",
    "additionHttpHeaders": "[Response headers](ingress.md#response-headers) says which are refused.",
    "healthCheckType": "[probe](../plugins/health_probe/README.md) and [simple](../plugins/health_simple/README.md).",
    "healthCheckOptions": "`probe` and `simple` take none; a checker of your own may.",
    "healthCheckHost": "[Where health checks go](operations.md#where-health-checks-go).",
    "soakSeconds": "[Before the commit](rollback.md#before-the-commit).",
    "autoRollback": "[Automatic rollback](rollback.md#automatic-rollback).",
    "keepWarm": "[How long a version stays warm](rollback.md#how-long-a-version-stays-warm).",
    "podspec": "[Validation](validation.md) says what of it is refused.",
    "extensions": "`vault` stands for a plugin of yours: [what hooks return](plugins.md#what-hooks-return).",
}

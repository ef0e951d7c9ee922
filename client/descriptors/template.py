"""The descriptor that `deployer init` writes."""

from __future__ import annotations

import json
from typing import Any


def document(app: str, *, namespace: str, image: str | None, port: int, host: str | None) -> dict[str, Any]:
    """What the YAML of `descriptor` says, for a check that needs no reader of YAML, which takes long to load."""
    container = {
        "name": app,
        "image": image or f"registry.example.com/{app}:1",
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/", "port": port}},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    }
    exposed = {"frontend": host} if host else {}
    named = {"namespace": namespace, "appName": app, "newVersion": "#", "replicas": 1}
    return {**named, **exposed, "podspec": {"containers": [container]}}


def descriptor(app: str, *, namespace: str, image: str | None, port: int, host: str | None) -> str:
    """YAML with comments; valid as it is."""
    exposed = (
        f"frontend: {_text(host)}" if host else "# frontend: my-app.example.com     # host; without it, inside only"
    )
    return f"""\
# Deploy it:  deployer deploy FILE            Check it:  deployer validate FILE
# Every field: docs of a running service at /docs
namespace: {_text(namespace)}
appName: {_text(app)}
newVersion: "#"                    # counts: 1, 2, 3 ...; or your own, in quotes
replicas: 1
{exposed}

# deploymentType: blue-green       # the default; canary and recreate are others
# timeoutSeconds: 300              # for the new version's pods to become ready
# keepWarm: 600                    # seconds for which the old one can come back
# autoRollback: true               # do so when the new one fails in that time

# A health check beside the readiness probe: every pod must say that it is
# healthy before it gets requests.
# useHealthCheck: true
# healthCheckType: probe
# healthCheckPort: {port}
# healthCheckPath: /health

# gates:
#   beforeSwitch:                  # somebody has to agree before the switch
#     - {{type: approval, name: release}}

podspec:                           # as in a Pod of Kubernetes
  containers:
    - name: {_text(app)}
      image: {_text(image or f"registry.example.com/{app}:1")}
      ports:
        - {{name: http, containerPort: {port}}}
      readinessProbe:
        httpGet: {{path: /, port: {port}}}
      # env:
      #   - {{name: LOG_LEVEL, value: info}}
      resources:
        requests: {{cpu: 100m, memory: 128Mi}}
"""


def _text(value: str) -> str:
    """As YAML: plain where that is a text for sure, else in quotes."""
    plain = value.replace("-", "").replace(".", "").replace("/", "").isalnum() and value[:1].isalpha()
    known = value.lower() in ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    return value if plain and not known else json.dumps(value)

"""The JSON Schema of the chart's values: `python deploy/values_schema.py > deploy/chart/values.schema.json`.

What `config` may hold comes from the table of settings, so that a misspelt setting is refused before anything is
installed. What is checked of a setting beyond its type is checked by the service, which ends its start with a sentence.
Helm reads drafts up to 2020-12; this is draft 7, which every release of Helm 3 and 4 knows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from deployer.settings.options import Option
from deployer.settings.table import OPTIONS

Schema = dict[str, Any]

DECIDED = frozenset(
    {"store", "data_dir", "deployhost", "deployport", "metrics_port"}
    | {"etcd", "etcd_username", "etcd_password", "etcd_ca_file", "etcd_cert_file", "etcd_key_file"}
)
"""Settings that the chart itself decides, from values of its own and by the image."""
RIGHTS = ("deploy", "read", "rollback", "approve", "freeze", "override-freeze")
FEATURES = ("canary", "recreate", "jobs", "validate", "health-proxy", "import", "ingress-nginx", "ingress-gateway")

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAMESPACE: Schema = {"type": "string", "pattern": f"^{LABEL}$"}
NAME: Schema = {"type": "string", "maxLength": 253, "pattern": rf"^({LABEL}(\.{LABEL})*)?$"}
"""Of an object; empty for none."""
HOST: Schema = {"type": "string", "maxLength": 253, "pattern": rf"^({LABEL}(\.{LABEL})*)?$"}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?|k|m)?$"}
TEXT: Schema = {"type": "string"}
SWITCH: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": ANY}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
"""Annotations, labels."""


def closed(**properties: Schema) -> Schema:
    """An object with these properties and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def listed(items: Schema) -> Schema:
    """A list without repetitions."""
    return {"type": "array", "uniqueItems": True, "items": items}


def of_option(option: Option) -> Schema:
    """One setting, as the settings file may have it."""
    kinds: dict[str, Schema] = {
        "text": TEXT,
        "path": TEXT,
        "integer": {"type": "integer"},
        "seconds": {"type": "number", "minimum": 0},
        "switch": SWITCH,
        "names": {"type": "array", "items": TEXT},
        "table": ANY,
        "tables": OBJECTS,
    }
    choices: Schema = {"enum": list(option.choices)} if option.choices else {}
    return kinds[option.kind] | choices | {"description": option.help}


SUBJECT: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["kind", "name"],
    "properties": {
        "kind": {"enum": ["User", "Group", "ServiceAccount"]},
        "name": {"type": "string", "minLength": 1},
        "namespace": NAMESPACE,
    },
    "if": {"properties": {"kind": {"const": "ServiceAccount"}}},
    "then": {"required": ["namespace"]},
}
USERS = closed(**{right: {"type": "array", "items": SUBJECT} for right in RIGHTS})
SPACE = closed(
    name=NAMESPACE,
    features=listed({"enum": list(FEATURES)}),
    tlsSecrets=listed({"type": "string", "minLength": 1}),
    users=USERS,
) | {"required": ["name"]}
IMAGE = {
    "repository": {"type": "string", "minLength": 1, "pattern": r"^[^\s:@]+(:[0-9]+/[^\s:@]+)?$"},
    "tag": {"type": "string", "pattern": r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"},
}


def values() -> Schema:
    """All of it."""
    secrets = [option.name for option in OPTIONS if option.secret]
    settings = {o.name: of_option(o) for o in OPTIONS if o.name not in DECIDED and o.name not in secrets}
    bundled = closed(enabled=SWITCH, image=closed(**IMAGE), size=QUANTITY, storageClass=NAME, resources=ANY)
    endpoint = {"type": "string", "pattern": r"^https?://[^\s,/]+$"}
    policy = {"enum": ["Always", "IfNotPresent", "Never"]}
    digest = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
    top = closed(
        replicas={"type": "integer", "minimum": 0, "maximum": 100},
        store={"enum": ["auto", "sqlite", "etcd"]},
        image=closed(**IMAGE, digest=digest, pullPolicy=policy),
        imagePullSecrets=OBJECTS,
        fullnameOverride={"type": "string", "pattern": f"^({LABEL})?$"},
        config=closed(**settings),
        configSecret=NAME,
        filesSecret=NAME,
        persistence=closed(
            size=QUANTITY,
            storageClass=NAME,
            accessMode={"enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]},
            existingClaim=NAME,
            annotations=TEXTS,
        ),
        etcd=closed(
            endpoints=listed(endpoint), tlsSecret=NAME, clientCertificate=SWITCH, authSecret=NAME, bundled=bundled
        ),
        namespaces=listed({"anyOf": [NAMESPACE, SPACE]}),
        rbac=closed(
            create=SWITCH, features=listed({"enum": list(FEATURES)}), clusterHosts=SWITCH, checkNamespaces=SWITCH
        ),
        users=USERS,
        execMayDeploy=SWITCH,
        serviceAccount=closed(create=SWITCH, name=NAME, annotations=TEXTS),
        service=closed(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            port={"type": "integer", "minimum": 1, "maximum": 65535},
            annotations=TEXTS,
        ),
        ingress=closed(enabled=SWITCH, className=NAME, host=HOST, tlsSecret=NAME, annotations=TEXTS),
        httpRoute=closed(enabled=SWITCH, parentRefs=OBJECTS, hostnames=listed(HOST), annotations=TEXTS),
        networkPolicy=closed(enabled=SWITCH, **{"from": OBJECTS, "egress": OBJECTS}),
        podDisruptionBudget=closed(enabled=SWITCH),
        resources=ANY,
        topologySpreadConstraints=OBJECTS,
        drainSeconds={"type": "integer", "minimum": 0, "maximum": 300},
        metrics=closed(enabled=SWITCH, **{"from": OBJECTS}),
        serviceMonitor=closed(
            enabled=SWITCH, interval={"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}, labels=TEXTS
        ),
        prometheusRule=closed(enabled=SWITCH, labels=TEXTS),
        dashboard=closed(enabled=SWITCH, labels=TEXTS, annotations=TEXTS),
        podLabels=TEXTS,
        podAnnotations=TEXTS,
        podSecurityContext=ANY,
        securityContext=ANY,
        extraEnv=OBJECTS,
        extraVolumes=OBJECTS,
        extraVolumeMounts=OBJECTS,
        nodeSelector=TEXTS,
        tolerations=OBJECTS,
        affinity=ANY,
        priorityClassName=NAME,
        **{"global": ANY},  # Helm adds it to charts that others depend on
    )
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart", **top}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(values(), indent=2) + "\n")

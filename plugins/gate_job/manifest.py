"""The Job of a gate, made of the version's podspec: pure functions."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.sdk.plugin import Document
from deployer.sdk.strategy import Plan

ROLE = "versioned-gate-job"
"""Of the Job in the inventory: one that belongs to a deployment, and is removed with that."""

LABEL = "kube-deployer/gate-job"
"""On the Job and its pods: the name of the Job."""

RESERVED = frozenset({"name", "app", "version", "job-name", "controller-uid"})
"""Labels by which Services select pods of versions, and the Job's controller its own."""

_PREFIXES = ("kube-deployer/", "batch.kubernetes.io/")
_NAME_LENGTH = 63
_DIGITS = 16

# What makes sense for a container that serves, not for one that ends.
_SERVING = ("ports", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "restartPolicy", "resizePolicy")
# Of a pod among others that serve the same.
_AMONG_OTHERS = ("topologySpreadConstraints", "readinessGates", "hostname", "subdomain", "setHostnameAsFQDN")


def is_reserved(label: str) -> bool:
    """May a descriptor not set that label?"""
    return label in RESERVED or label.startswith(_PREFIXES)


def job_name(plan: Plan, point: str, gate: str, options: Mapping[str, Any]) -> str:
    """One for each gate of each deployment: a DNS label whose end nobody else's has by accident. The options count, as
    one gate of the settings and one of the descriptor may have the same name."""
    identity = json.dumps([plan.deployment, point, gate, options], sort_keys=True)
    end = hashlib.sha256(identity.encode()).hexdigest()[:_DIGITS]
    readable = re.sub(r"[^a-z0-9]+", "-", f"{plan.app}-{plan.version}-{gate}".lower()).strip("-")
    return f"{readable[: _NAME_LENGTH - 1 - _DIGITS].rstrip('-')}-{end}"


def chosen(podspec: Mapping[str, Any], name: str) -> str:
    """The name of the container that the Job runs. Raises ValueError, which says what is wrong."""
    names = [str(container.get("name")) for container in podspec.get("containers") or ()]
    if not name and len(names) == 1:
        return names[0]
    known = ", ".join(names)
    if not name:
        raise ValueError(f"is required: the podspec has several containers, {known}")
    if name not in names:
        raise ValueError(f"{name} is no container of the podspec; it has {known}")
    return name


def job(
    name: str, namespace: str, podspec: Mapping[str, Any], options: Mapping[str, Any], annotations: Mapping[str, str]
) -> Document:
    """The Job, which runs nothing before somebody lifts `suspend`. Raises ValueError like `chosen`."""
    labels = {**options.get("labels", {}), LABEL: name}
    spec: Document = {
        "suspend": True,
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": options.get("backoffLimit", 0),
        "template": {
            "metadata": {"labels": labels, "annotations": dict(options.get("annotations", {}))},
            "spec": pod(podspec, options),
        },
    }
    if spec["backoffLimit"]:
        # Else Kubernetes starts another pod while one that somebody deleted still ends.
        spec["podReplacementPolicy"] = "Failed"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: name}, "annotations": dict(annotations)},
        "spec": spec,
    }


def pod(podspec: Mapping[str, Any], options: Mapping[str, Any]) -> Document:
    """The version's podspec, with the one container that runs to its end."""
    found: Document = copy.deepcopy(dict(podspec))
    wanted = chosen(found, options.get("container", ""))
    container = next(c for c in found["containers"] if c["name"] == wanted)
    for field in _SERVING:
        container.pop(field, None)
    if "image" in options or "command" in options:
        # Arguments are the command's, and a command is the image's.
        container.pop("args", None)
    if "image" in options:
        container.pop("command", None)
    for field in ("image", "command", "args"):
        if field in options:
            container[field] = copy.deepcopy(options[field])
    container["env"] = _variables(container.get("env") or (), options.get("env", ()))
    for field in _AMONG_OTHERS:
        found.pop(field, None)
    if isinstance(found.get("affinity"), dict):
        found["affinity"].pop("podAntiAffinity", None)
    found["containers"] = [container]
    found["restartPolicy"] = "Never"
    return found


def _variables(before: Sequence[Document], own: Sequence[Document]) -> list[Document]:
    """Those of the version, with the gate's own in the place of those of the same name, and after them: a value may
    refer to variables before it."""
    mine = {variable["name"]: copy.deepcopy(dict(variable)) for variable in own}
    found = [mine.pop(str(variable.get("name")), variable) for variable in before]
    return [*found, *mine.values()]

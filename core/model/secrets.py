"""What must not be said of a deployment: the values of its environment, and where they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from deployer.core.model.records import Document, Plan


def environment_values(podspec: Any) -> Iterator[str]:
    """The values that stand in the environment of a podspec's containers, whatever else it may be."""
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        found = podspec.get(kind) if isinstance(podspec, Mapping) else None
        for container in found if isinstance(found, list) else ():
            yield from values_of(container.get("env") if isinstance(container, Mapping) else None)


def values_of(environment: Any) -> Iterator[str]:
    """The values of core/v1 EnvVars, also as containers get them; what `valueFrom` leads to is not known here."""
    known: dict[Any, str] = {}
    for variable in environment if isinstance(environment, list) else ():
        value = variable.get("value") if isinstance(variable, Mapping) else None
        if isinstance(value, str):
            yield value
            parts = list(_expanded(value, known))
            yield from parts if parts != [value] else ()
            if len(parts) == 1:
                known[variable.get("name")] = parts[0]


_EXPANDED = re.compile(r"\$(?:(\$)|\(([^)]*)\))")


def _expanded(value: str, known: Mapping[Any, str]) -> Iterator[str]:
    """What Kubernetes makes of a value: `$$` is `$`, `$(NAME)` that of a variable before it. What is not `known` here
    parts the value in two. (Kubernetes: `third_party/forked/golang/expansion`.)"""
    part, at = "", 0
    for found in _EXPANDED.finditer(value):
        part, at = part + value[at : found.start()], found.end()
        if found.group(1):
            part += "$"
        elif found.group(2) in known:
            part += known[found.group(2)]
        else:
            yield part
            part = ""
    yield part + value[at:]


def public_names(descriptor: Document, version: str) -> set[str]:
    """What is said of a deployment everywhere, so that it is no secret even when a variable has it."""
    app = descriptor.get("appName")
    names = [app, version, f"{app}-{version}", descriptor.get("namespace"), descriptor.get("frontend")]
    podspec = descriptor.get("podspec")
    containers = podspec.get("containers") if isinstance(podspec, Mapping) else None
    for container in containers if isinstance(containers, list) else ():
        if isinstance(container, Mapping):
            names += [container.get("name"), container.get("image")]
    return {name for name in names if isinstance(name, str)}


def _gate_values(gates: Any) -> Iterator[str]:
    """The values in the option `env` of gates, which is a list of EnvVars wherever there is one."""
    for point in gates.values() if isinstance(gates, Mapping) else ():
        for gate in point if isinstance(point, list) else ():
            options = gate.get("options") if isinstance(gate, Mapping) else None
            yield from values_of(options.get("env") if isinstance(options, Mapping) else None)


def secrets_of(descriptor: Document, plan: Plan | None = None) -> set[str]:
    """What must not be said of a deployment: the values of its environment, and of those that its gates add to it."""
    found = {*environment_values(descriptor.get("podspec")), *_gate_values(descriptor.get("gates"))}
    if plan is not None:
        found |= {*environment_values(plan.objects.podspec), *values_of(plan.environment)}
        for gate in plan.gates:
            found |= set(values_of(gate.options.get("env")))
    return found - public_names(descriptor, plan.version if plan else str(descriptor.get("newVersion")))

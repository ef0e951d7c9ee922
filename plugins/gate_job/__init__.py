"""Gate `job`: a Kubernetes Job of the version's own podspec has to succeed, as for the migration of a database."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from deployer.plugins.gate_job import manifest
from deployer.plugins.gate_job.run import JobRun
from deployer.sdk.gate import Failed, Gate, GateContext, JobPods, Outcome
from deployer.sdk.plugin import Document, Problem, Schema, hookimpl

MOST_BACKOFF = 10
REMEMBERED = 200
"""Jobs whose pods' troubles are remembered: of one that is not, grace times begin anew."""

_LABEL_KEY = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
_REFUSED = (
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
    "kube-deployer/",
)
"""Annotations by which a pod would get round the Pod Security level, where Kubernetes still obeys them; and ours."""


def _reference(*required: str, **more: Schema) -> Schema:
    """The schema of an object of texts."""
    properties = {**{name: {"type": "string", "minLength": 1} for name in required}, **more}
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def _options() -> Schema:
    texts = {"type": "array", "maxItems": 200, "items": {"type": "string", "maxLength": 32_768}}
    key = _reference("name", "key", optional={"type": "boolean"})
    text = {"type": "string"}
    value_from = {
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {
            "secretKeyRef": key,
            "configMapKeyRef": key,
            "fieldRef": _reference("fieldPath", apiVersion=text),
            "resourceFieldRef": _reference("resource", containerName=text, divisor={"type": ["string", "number"]}),
        },
    }
    variable = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "not": {"required": ["value", "valueFrom"]},
        "properties": {
            "name": {"type": "string", "maxLength": 256, "pattern": "^[ -<>-~]+$"},
            "value": {"type": "string", "maxLength": 32_768},
            "valueFrom": value_from,
        },
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "container": {"type": "string", "maxLength": 63},
            "image": {"type": "string", "maxLength": 1_024, "pattern": r"^\S+$"},
            "command": {**texts, "minItems": 1},
            "args": texts,
            "env": {"type": "array", "maxItems": 200, "items": variable},
            "backoffLimit": {"type": "integer", "minimum": 0, "maximum": MOST_BACKOFF},
            "labels": {
                "type": "object",
                "maxProperties": 30,
                "propertyNames": {"pattern": _LABEL_KEY},
                "additionalProperties": {"type": "string", "pattern": _LABEL_VALUE},
            },
            "annotations": {
                "type": "object",
                "maxProperties": 30,
                "propertyNames": {"pattern": _LABEL_KEY},
                "additionalProperties": {"type": "string", "maxLength": 32_768},
            },
        },
    }


class JobGate(Gate):
    """Passes when its Job has succeeded, which is made once for each deployment and never again."""

    name = "job"
    default_timeout = 600.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: OrderedDict[tuple[str, str, str], JobPods] = OrderedDict()

    @property
    def options_schema(self) -> Schema:
        return _options()

    def check_descriptor(self, descriptor: Document) -> Sequence[Problem]:
        return [
            problem
            for point, gates in (descriptor.get("gates") or {}).items()
            for n, gate in enumerate(gates)
            if gate.get("type") == self.name
            for problem in _problems(descriptor, f"gates.{point}[{n}].options", gate.get("options") or {})
        ]

    def check(self, context: GateContext) -> Outcome:
        # Nobody has looked yet at the options of a gate that the settings force.
        for problem in _problems({"podspec": context.plan.objects.podspec}, "options", dict(context.options)):
            return Failed(f"{problem.path} {problem.message}", hint="correct it in the descriptor or the settings")
        return JobRun(context, self._judged(context)).look()

    def end(self, context: GateContext) -> None:
        judged = self._judged(context)
        with self._lock:
            self._pods.pop(_key(context), None)
        JobRun(context, judged).end()

    def _judged(self, context: GateContext) -> JobPods:
        key = _key(context)
        with self._lock:
            found = self._pods.setdefault(key, JobPods(context.plan.settings))
            self._pods.move_to_end(key)
            while len(self._pods) > REMEMBERED:
                self._pods.popitem(last=False)
        return found


def _key(context: GateContext) -> tuple[str, str, str]:
    return context.plan.deployment, context.point, context.name


def _problems(descriptor: Document, path: str, options: Document) -> Iterator[Problem]:
    """What is wrong with options that the schema allows."""
    try:
        manifest.chosen(descriptor.get("podspec") or {}, options.get("container", ""))
    except ValueError as error:
        yield Problem(f"{path}.container", str(error))
    for label in options.get("labels", {}):
        if manifest.is_reserved(label):
            yield Problem(f"{path}.labels", f"{label} may not be set: versions and Jobs are told apart by it")
    for annotation in options.get("annotations", {}):
        if annotation.startswith(_REFUSED):
            yield Problem(f"{path}.annotations", f"{annotation} may not be set; use securityContext in the podspec")
    names = [variable["name"] for variable in options.get("env", ())]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem(f"{path}.env", f"{name} is there twice")


@hookimpl
def register_gates() -> Sequence[Gate]:
    """The gate."""
    return [JobGate()]

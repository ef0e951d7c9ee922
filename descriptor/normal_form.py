"""Bringing a descriptor into its one normal form, and everything that is wrong with it at once."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deployer.core.errors import Invalid, Problem
from deployer.core.model.records import Document
from deployer.descriptor.checks import CHECKS, HEALTH, Rules, health
from deployer.descriptor.podspec import types as podtypes
from deployer.descriptor.schema import SCHEMA
from deployer.descriptor.schema_errors import MAX_PROBLEMS, UNKNOWN, schema_problems, shown

DEFAULT_STRATEGY = "blue-green"

BOOLEANS = tuple(name for name, rule in SCHEMA["properties"].items() if rule.get("$ref") == "#/$defs/flag")
SET_BY_SERVICE = ("id", "created", "lastModified", "validation")
NEVER_STORED = ("password", "environment")
"""Fields of the original without effect here, in which its descriptors hold secrets: accepted, and gone."""
# Clients of the original send empty texts for what is not set; a schema of ours would have to refuse them.
EMPTY_IS_ABSENT = (
    "deploymentType",
    "frontend",
    "frontendPort",
    "frontendPath",
    "tlsSecretName",
    "healthCheckPath",
    "healthCheckType",
    "healthCheckHost",
)
# Their content is others' business: Kubernetes', or nobody's.
_UNTOUCHED = ("podspec",)


def normalise(document: Mapping[str, Any], *, namespace: str | None, rules: Rules, stored: bool = False) -> Document:
    """The descriptor in its normal form. Raises Invalid with every problem at once; arguments as for `examine`."""
    out, problems = examine(document, namespace=namespace, rules=rules, stored=stored)
    if problems:
        raise Invalid(bounded(problems))
    return out


def bounded(problems: Sequence[Problem]) -> list[Problem]:
    """As many problems as an answer may have, and how many more there are."""
    first, rest = problems[:MAX_PROBLEMS], problems[MAX_PROBLEMS:]
    if len(rest) > 1 or any(problem.path for problem in rest):
        rest = [Problem("", f"and {len(rest)} more problems")]
    return [*first, *rest]


def examine(
    document: Mapping[str, Any], *, namespace: str | None, rules: Rules, stored: bool = False
) -> tuple[Document, list[Problem]]:
    """The descriptor, in its normal form where it is sound, and everything that is wrong with it.

    namespace   what `namespace` must be; None: any
    stored      true for one that was accepted before, perhaps by the original: it may lack `healthCheckPort`
    """
    out = _clean(document)
    shape = [_placed(problem) for problem in schema_problems(out, SCHEMA)]
    if len(shape) >= MAX_PROBLEMS:
        return out, [*shape[:MAX_PROBLEMS], Problem("", "there may be more problems")]
    broken = broken_fields(shape)
    _fold(out, rules)
    known = {problem.path for problem in shape}
    meaning = [
        problem
        for needs, check in CHECKS
        # A rule about fields whose shape is wrong would only say so again.
        if not broken.intersection(needs)
        for problem in check(out, rules)
        if problem.path not in known
    ]
    if namespace is not None and "namespace" not in broken and out["namespace"] != namespace:
        meaning.append(Problem("namespace", f"must be {shown(namespace)}, the namespace of the request"))
    if not broken.intersection(HEALTH):
        meaning += health(out, rules, stored)
    return out, [*shape, *meaning]


def _placed(problem: Problem) -> Problem:
    """With where the field belongs, when that is not the top of a descriptor: `image` is one of a container."""
    if problem.message != UNKNOWN or "." in problem.path:
        return problem
    return Problem(problem.path, problem.message + podtypes.place(problem.path))


def broken_fields(problems: Iterable[Problem]) -> set[str]:
    """The fields of a descriptor in which problems lie."""
    return {re.split(r"[.\[]", problem.path, maxsplit=1)[0] for problem in problems}


def repaired(
    examined: Mapping[str, Any], problems: Sequence[Problem], *, namespace: str, rules: Rules
) -> Document | None:
    """The descriptor with something harmless in the place of what is wrong, for those who want to look at the rest.

    None when even that is no descriptor.
    """
    broken = broken_fields(problems)
    sound = {name: value for name, value in examined.items() if name in SCHEMA["properties"] and name not in broken}
    if {"appName", "newVersion"} & broken:
        sound |= {"appName": "app", "newVersion": "1"}
    if broken & HEALTH:
        sound |= {"useHealthCheck": False}
    with contextlib.suppress(Invalid):
        return normalise({**_HARMLESS, **sound, "namespace": namespace}, namespace=namespace, rules=rules)
    return None


_HARMLESS: Document = {
    "appName": "app",
    "newVersion": "1",
    "podspec": {"containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}]},
}


def _clean(document: Mapping[str, Any]) -> Document:
    """A copy without what is ignored and what is absent in other words, with defaults filled in."""
    out: Document = {}
    for name, value in document.items():
        empty = value == "" and name in EMPTY_IS_ABSENT
        if value is None or empty or name in (*SET_BY_SERVICE, *NEVER_STORED):
            continue
        out[name] = copy.deepcopy(value) if name in _UNTOUCHED else _without_nulls(value)
    for name in BOOLEANS:
        value = out.get(name, False)
        out[name] = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if out.get("healthCheckPort") == 0 and out["healthCheckPort"] is not False:
        del out["healthCheckPort"]
    out.setdefault("deploymentType", DEFAULT_STRATEGY)
    out.setdefault("replicas", 1)
    if isinstance(port := out.get("frontendPort"), str) and re.fullmatch(r"[1-9][0-9]{0,4}", port):
        out["frontendPort"] = int(port)  # the name of a port has a letter
    for name in ("replicas", "healthCheckPort", "timeoutSeconds", "frontendPort"):
        # JSON Schema calls 2.0 an integer.
        if isinstance(out.get(name), float) and out[name].is_integer():
            out[name] = int(out[name])
    if "podspec" in out:
        out["podspec"] = podtypes.with_whole_numbers(out["podspec"])
    return out


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def fold(name: str) -> str:
    """An app's name or version in the form in which Kubernetes has it."""
    return name.lower().replace(".", "-").replace("_", "-")


def _fold(out: Document, rules: Rules) -> None:
    """Bring names into the form in which Kubernetes has them, and health checkers into that of their plugins."""
    for name in ("appName", "newVersion"):
        if isinstance(out.get(name), str):
            out[name] = fold(out[name])
    if isinstance(out.get("frontend"), str):
        out["frontend"] = out["frontend"].lower()
    if isinstance(kind := out.get("healthCheckType"), str) and kind not in rules.health_checkers:
        out["healthCheckType"] = next((n for n in rules.health_checkers if n.lower() == kind.lower()), kind)
    if isinstance(path := out.get("frontendPath"), str) and not path.startswith("/"):
        out["frontendPath"] = f"/{path}"
    if type(out["replicas"]) is int and out["replicas"] == 0:
        out["replicas"] = 1

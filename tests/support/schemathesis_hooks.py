"""What Schemathesis must know and no schema can say: the rules between fields and parameters of a request."""

from __future__ import annotations

import itertools
from typing import Any

import schemathesis
from schemathesis.openapi.checks import UseAfterFree

from deployer.descriptor.headers import refused
from deployer.descriptor.podspec.types import type_problems


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """Forget the greatest length of what has a pattern, too.

    Schemathesis looks for strings of exactly that length, character by character, for minutes and in vain.
    `tests/descriptor/test_descriptor.py` has one of each.
    """
    _forget_lengths(raw_schema)


def _forget_lengths(part: Any) -> None:
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            part.pop("maxLength", None)
        for each in part.values():
            _forget_lengths(each)
    elif isinstance(part, list):
        for each in part:
            _forget_lengths(each)


@schemathesis.hook
def filter_failure(_context: Any, failure: Any, case: Any, response: Any) -> bool:
    """DELETE undeploys a deployment, as its 202 says; the record stays, so that one can see what became of it. A body
    that has more than it may is above a mebibyte now and then, and a 413 refuses it as well."""
    too_large = response is not None and response.status_code == 413
    return not too_large and not (isinstance(failure, UseAfterFree) and case.path.startswith("/deployments/"))


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """`/descriptors/validate` is a route of its own, whose name Schemathesis finds in the links of `/`.

    Where others deploy nothing is frozen: then good requests would be refused. Where a page begins only the page before
    can say: `tests/api/test_lists.py` follows these.
    """
    path = case.path_parameters or {}
    if (case.query or {}).get("continue"):
        return False
    return path.get("id") != "validate" and not (case.method == "PUT" and path.get("namespace") in ("*", "default"))


STORED: list[str] = []
"""Ids of descriptors that were stored: guesses alone would seldom come to deploying one."""

KEYS = itertools.count(1)


@schemathesis.hook
def after_call(_context: Any, case: Any, response: Any) -> None:
    """Remember what was stored."""
    if (case.method, case.path, response.status_code) == ("POST", "/descriptors", 201):
        STORED.append(response.json()["id"])


@schemathesis.hook
def map_case(_context: Any, case: Any) -> Any:
    """Requests that are meant to be good become so; the others stay as bad as they are."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if "If-Match" in (case.headers or {}):
        case.headers["If-Match"] = "*"
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"request-{next(KEYS)}"  # one that came before goes with that request
    if "override" in (case.query or {}):
        case.query["override"] = "an urgent fix"
    if case.path.startswith("/freezes/"):
        return _frozen(case)
    if case.path.endswith("/approval"):
        if isinstance(case.body, dict) and "comment" in case.body:
            case.body["comment"] = "looks fine"  # printable, and in one line
        return case
    if (case.method, case.path) == ("POST", "/deployments") and STORED:
        case.query = {**(case.query or {}), "namespace": "default", "descriptorId": STORED[-1]}
    if isinstance(case.body, dict):
        _agree(case, case.body)
    return case


def _frozen(case: Any) -> Any:
    """A namespace of its own, a printable reason, and an end that has not passed."""
    case.path_parameters = {**case.path_parameters, "namespace": "frozen"}
    (case.headers or {}).pop("If-Match", None)  # whether there is one depends on what came before
    if "namespace" in (case.query or {}):
        case.query["namespace"] = "frozen"
    if isinstance(case.body, dict):
        case.body["reason"] = "an audit"
        if case.body.get("until"):
            case.body["until"] = "2999-01-01T00:00:00Z"
    return case


def _agree(case: Any, body: dict[str, Any]) -> None:
    case.body = body = _with_64_bits(body)
    # Only apps of one name in one namespace, so that what one request stored can be replaced by the next.
    body["appName"] = "shop"
    body["newVersion"] = body["newVersion"][:40].rstrip("-._") or "1"
    case.query = {**(case.query or {}), "namespace": "default"}
    body["namespace"] = "default"
    body.pop("gates", None)  # of types that are installed, each with options of its own
    needed = ("healthCheckPort", "healthCheckPath", "healthCheckType")
    if body.get("useHealthCheck") in (True, "true") and not all(body.get(name) for name in needed):
        body["useHealthCheck"] = False
    ports = [port for container in body["podspec"]["containers"] for port in container.get("ports") or ()]
    if not any(port.get("protocol") in (None, "", "TCP") and port.get("name") != "healthcheck" for port in ports):
        body.pop("frontend", None)
    if case.path.endswith("/validate"):
        body.pop("frontend", None)  # another app may have got it from a request that was bad in other ways
    _accept(body["podspec"])
    if "frontendPort" in body:  # of one of the containers
        tcp = [port["containerPort"] for port in ports if port.get("protocol") in (None, "", "TCP")]
        body["frontendPort"] = tcp[0] if tcp else None
    headers = {header["Header"].lower(): header for header in body.get("additionHttpHeaders") or ()}
    if headers:
        body["additionHttpHeaders"] = [header for name, header in headers.items() if not refused(name)]
        body.pop("frontend", None)  # ingress providers refuse more than the schema does
    if (body.get("ingressOptions") or {}).get("whitelist-source-range"):
        body["ingressOptions"]["whitelist-source-range"] = "10.0.0.0/8"
    if body.get("deploymentType") == "canary" and (not body.get("frontend") or body.get("strategyOptions")):
        body["deploymentType"] = "blue-green"  # a canary needs a host, and steps that grow
    if body.get("deploymentType") != "canary":
        body.pop("strategyOptions", None)  # no other strategy takes any


def _accept(podspec: dict[str, Any]) -> None:
    """Names that a schema cannot hold apart, and what every Kubernetes refuses in a podspec."""
    for name in ("restartPolicy", "volumes"):
        podspec.pop(name, None)
    # The schema names few of the fields that Kubernetes has; the types of the others are known to the service alone.
    for name in [name for name in podspec if any(type_problems({name: podspec[name]}))]:
        if name not in ("containers", "initContainers"):
            del podspec[name]
    for kind in ("containers", "initContainers"):
        for n, container in enumerate(podspec.get(kind) or ()):
            for name in [name for name in container if any(type_problems({"containers": [{name: container[name]}]}))]:
                if name not in ("ports", "env"):  # the schema has these
                    del container[name]
            container["name"] = f"{kind.lower()}-{n}"
            container["image"] = container["image"].strip() or "image"
            container["imagePullPolicy"] = None
            container.pop("volumeMounts", None)
            for k, variable in enumerate(container.get("env") or ()):
                variable["name"] = f"VARIABLE_{k}"
                variable.pop("valueFrom", None)
            for k, port in enumerate(container.get("ports") or ()):
                if port.get("name") not in (None, "", "healthcheck") or k:
                    port["name"] = f"port-{k}"


def _with_64_bits(value: Any) -> Any:
    """JSON has numbers of any size, Kubernetes has not."""
    if isinstance(value, dict):
        return {key: _with_64_bits(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_64_bits(each) for each in value]
    # Whole floats are written without a fraction.
    return 1 if isinstance(value, int | float) and abs(value) >= 2**63 else value

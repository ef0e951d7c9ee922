"""A route as objects for ingress-nginx: pure functions, and the rules for what may be rendered at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.core import Backend, Problem, Route

Object = dict[str, Any]

PREFIX = "nginx.ingress.kubernetes.io/"
CUSTOM_HEADERS = PREFIX + "custom-headers"

ROLE_ROUTE = "route"
# Roles that begin with `versioned-` go with their deployment, whatever happens to it.
ROLE_WARM_UP = "versioned-warm-up"
ROLE_HOLD = "versioned-hold"
ROLE_HEADERS = "versioned-headers"
HELPER_ROLES = frozenset({ROLE_WARM_UP, ROLE_HOLD})

MANAGED_BY = {"app.kubernetes.io/managed-by": "deployer"}

# What a cookie of sticky sessions is called and how long it lasts, in seconds.
_COOKIE = "deployer-affinity"
_COOKIE_AGE = "86400"

# Every annotation that is ever rendered; others on the route's Ingress belong to somebody else and stay.
_OURS = frozenset(
    PREFIX + name
    for name in (
        "affinity",
        "affinity-mode",
        "custom-headers",
        "from-to-www-redirect",
        "session-cookie-max-age",
        "session-cookie-name",
        "ssl-redirect",
    )
)

# The names that the controller accepts, which are also keys that a ConfigMap accepts; and what it puts, between double
# quotes, into nginx.conf: printable ASCII, where three characters mean something to nginx or to its quoting.
_HEADER_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HEADER_VALUE = re.compile(r"[ !#%-\[\]-~]+")


@dataclass(frozen=True, slots=True)
class Look:
    """The settings that decide how a route looks. `allowed_headers` None: any; `revision_header` empty: none."""

    ingress_class: str = "nginx"
    ssl_redirect: bool = True
    allowed_headers: frozenset[str] | None = None
    revision_header: str = ""


def header_problems(headers: Sequence[Mapping[str, Any]], look: Look) -> list[Problem]:
    """What is wrong with a descriptor's `additionHttpHeaders` for this controller."""
    problems = []
    for number, header in enumerate(headers):
        name, value = str(header.get("Header", "")), str(header.get("Value", ""))
        path = f"additionHttpHeaders[{number}]"
        if not _HEADER_NAME.fullmatch(name):
            problems.append(Problem(f"{path}.Header", "ingress-nginx takes A-Z, a-z, 0-9, '-' and '_' only"))
        elif look.revision_header and name.lower() == look.revision_header.lower():
            problems.append(Problem(f"{path}.Header", f"{look.revision_header} is set by the Deployer itself"))
        elif look.allowed_headers is not None and name.lower() not in look.allowed_headers:
            known = ", ".join(sorted(look.allowed_headers)) or "none"
            problems.append(
                Problem(f"{path}.Header", f"the ingress controller does not allow {name}; allowed: {known}")
            )
        if not _HEADER_VALUE.fullmatch(value):
            problems.append(
                Problem(
                    f"{path}.Value", "ingress-nginx takes printable ASCII without '\"', '\\' and '$', and not nothing"
                )
            )
    return problems


def headers_of(route: Route, look: Look) -> dict[str, str]:
    """The response headers of a route. Raises ValueError for what `header_problems` would have refused."""
    headers = dict(route.headers)
    revision = {look.revision_header: route.deployment} if look.revision_header and route.deployment else {}
    if header_problems([{"Header": name, "Value": value} for name, value in headers.items()], look):
        raise ValueError(f"the headers of {route.app} cannot be rendered for ingress-nginx")
    if revision and not _HEADER_VALUE.fullmatch(route.deployment):
        raise ValueError(f"the deployment id of {route.app} cannot be rendered for ingress-nginx")
    return headers | revision


def headers_config_map(route: Route, look: Look) -> Object | None:
    """The ConfigMap that `custom-headers` refers to, None when there is no header.

    The controller notices no edit of it, so the name is a hash of the contents and of the deployment.
    """
    data = headers_of(route, look)
    if not data:
        return None
    content = json.dumps([route.deployment, sorted(data.items())]).encode()
    name = f"{route.app}-headers-{hashlib.sha256(content).hexdigest()[:10]}"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": route.namespace, "labels": dict(MANAGED_BY)},
        "data": data,
        "immutable": True,
    }


def helper(route: Route, look: Look, role: str) -> Object:
    """An Ingress on a private host: the warm-up of the new Service or the hold on the old one.

    A dot in the name keeps it apart from every app's own Ingress. `.invalid` never resolves (RFC 6761), and the host
    cannot be guessed without the deployment's id.
    """
    backend = route.backend if role == ROLE_WARM_UP else route.previous
    if backend is None:
        raise ValueError(f"the route of {route.app} has nothing to hold")
    token = hashlib.sha256(f"{route.namespace}/{route.app}/{route.deployment}".encode()).hexdigest()[:24]
    word = role.removeprefix("versioned-")
    annotations = {}
    if role == ROLE_WARM_UP and (config_map := headers_config_map(route, look)):
        annotations[CUSTOM_HEADERS] = f"{route.namespace}/{config_map['metadata']['name']}"
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": f"{route.app}.{word}.{token[:10]}",
            "namespace": route.namespace,
            "labels": dict(MANAGED_BY),
            "annotations": annotations,
        },
        "spec": {"ingressClassName": look.ingress_class, "rules": [_rule(f"{token}.{word}.invalid", backend)]},
    }


def main(found: Object | None, route: Route, look: Look, *, redirect_www: bool) -> Object:
    """The app's Ingress: what is there (or nothing), with our fields as the route wants them and all others kept."""
    wanted = found or {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": route.app}}
    metadata = wanted["metadata"]
    kept = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in _OURS}
    metadata["annotations"] = kept | _annotations(route, look, redirect_www)
    spec = wanted.setdefault("spec", {})
    spec["ingressClassName"] = look.ingress_class
    spec["rules"] = [_rule(route.host, route.backend)]
    spec.pop("tls", None)
    spec.pop("defaultBackend", None)
    if route.tls_secret:
        spec["tls"] = [{"hosts": [route.host], "secretName": route.tls_secret}]
    return wanted


def other_www(host: str) -> str:
    """The host that `from-to-www-redirect` would answer for."""
    return host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"


def hosts_of(ingress: Object) -> set[str]:
    """Every host that an Ingress has a rule for."""
    return {rule.get("host", "") for rule in ingress.get("spec", {}).get("rules") or ()}


def backends_of(ingress: Object) -> tuple[Backend, ...]:
    """The Services that an Ingress leads to; port 0 for one that is named."""
    found = []
    for rule in ingress.get("spec", {}).get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            service = path.get("backend", {}).get("service") or {}
            found.append(Backend(service.get("name", ""), (service.get("port") or {}).get("number", 0)))
    return tuple(dict.fromkeys(found))


def _annotations(route: Route, look: Look, redirect_www: bool) -> dict[str, str]:
    out = {}
    if redirect_www:
        out["from-to-www-redirect"] = "true"
    if route.sticky:
        out |= {
            "affinity": "cookie",
            "affinity-mode": "persistent",
            "session-cookie-name": _COOKIE,
            "session-cookie-max-age": _COOKIE_AGE,
        }
    if route.tls_secret:
        out["ssl-redirect"] = "true" if look.ssl_redirect else "false"
    if config_map := headers_config_map(route, look):
        out["custom-headers"] = f"{route.namespace}/{config_map['metadata']['name']}"
    return {PREFIX + name: value for name, value in out.items()}


def _rule(host: str, backend: Backend) -> Object:
    service = {"name": backend.service, "port": {"number": backend.port}}
    return {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": service}}]}}

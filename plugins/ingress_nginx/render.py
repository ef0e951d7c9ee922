"""A route as objects for ingress-nginx: pure functions, and the rules for what may be rendered at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.plugins.ingress_nginx import options
from deployer.sdk.ingress import ORIGINAL_ANNOTATIONS, Backend, Route, Share
from deployer.sdk.plugin import Problem

Object = dict[str, Any]

PREFIX = "nginx.ingress.kubernetes.io/"
CUSTOM_HEADERS = PREFIX + "custom-headers"
REDIRECT = PREFIX + "from-to-www-redirect"

ROLE_ROUTE = "route"
# What the original redirected `www.` with: taken over, and then removed.
ROLE_WWW = "www-redirect"
# Roles that begin with `versioned-` go with their deployment, whatever happens to it.
ROLE_WARM_UP = "versioned-warm-up"
# Of the helper Ingresses of earlier releases; today a hold is a rule of the app's own Ingress.
ROLE_HOLD = "versioned-hold"
ROLE_HEADERS = "versioned-headers"
ROLE_CANARY = "versioned-canary"
# The headers of a stable route, which outlive the deployment that made them.
ROLE_STABLE_HEADERS = "headers"
HEADER_ROLES = frozenset({ROLE_HEADERS, ROLE_STABLE_HEADERS})
# No object's role, but the host under which a route can be asked while another provider has the public one.
_SWAP = "swap"
_HOLD_HOSTS = ".hold.invalid"
HELPER_ROLES = frozenset({ROLE_WARM_UP, ROLE_HOLD, ROLE_CANARY})

INSTANCE = "kube-deployer/instance"

# What a cookie of sticky sessions is called and how long it lasts, in seconds.
_COOKIE = "deployer-affinity"
_COOKIE_AGE = "86400"

# Which annotations came from `ingressOptions`, so that only those go again.
OPTIONS_NOTE = "kube-deployer/nginx-options"

# Every other annotation that is ever rendered; more that are on the route's Ingress belong to somebody else and stay.
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
# nginx reads a parameter of at most 4,096 characters, quotes included (NGX_CONF_BUFFER); this one is `name: value`.
_LONGEST_HEADER = 4000


@dataclass(frozen=True, slots=True)
class RenderConfig:
    """The settings that decide how a route is rendered. `allowed_headers` None: any; `revision_header` empty: none;
    `gzip`: the controller's own setting `use-gzip` is on."""

    ingress_class: str = "nginx"
    ssl_redirect: bool = True
    allowed_headers: tuple[str, ...] | None = None
    revision_header: str = ""
    gzip: bool = False

    def spelled(self, header: str) -> str:
        """The header as the controller's list has it, which is compared letter by letter, although HTTP is not; empty
        when it is not allowed."""
        if self.allowed_headers is None:
            return header
        return next((listed for listed in self.allowed_headers if listed.lower() == header.lower()), "")


def header_problems(headers: Sequence[Mapping[str, Any]], config: RenderConfig) -> list[Problem]:
    """What is wrong with a descriptor's `additionHttpHeaders` for this controller."""
    problems = []
    for number, header in enumerate(headers):
        name, value = str(header.get("Header", "")), str(header.get("Value", ""))
        path = f"additionHttpHeaders[{number}]"
        if not _HEADER_NAME.fullmatch(name):
            problems.append(Problem(f"{path}.Header", "ingress-nginx takes A-Z, a-z, 0-9, '-' and '_' only"))
        elif config.revision_header and name.lower() == config.revision_header.lower():
            problems.append(Problem(f"{path}.Header", f"{config.revision_header} is set by the Deployer itself"))
        elif not config.spelled(name):
            known = ", ".join(sorted(config.allowed_headers or ())) or "none"
            problems.append(
                Problem(f"{path}.Header", f"the ingress controller does not allow {name}; allowed: {known}")
            )
        if not _HEADER_VALUE.fullmatch(value):
            problems.append(
                Problem(
                    f"{path}.Value", "ingress-nginx takes printable ASCII without '\"', '\\' and '$', and not nothing"
                )
            )
        elif len(name) + len(value) > _LONGEST_HEADER:
            most = _LONGEST_HEADER - len(name)
            problems.append(Problem(f"{path}.Value", f"nginx takes at most {most} characters beside that name"))
    return problems


def headers_of(route: Route, config: RenderConfig, *, revision: bool) -> dict[str, str]:
    """The response headers of a route, with the one that names the deployment if there is to be a `revision`.

    Raises ValueError for what `header_problems` would have refused.
    """
    headers = {config.spelled(name): value for name, value in route.headers}
    ours = (
        {config.revision_header: route.deployment} if revision and config.revision_header and route.deployment else {}
    )
    if header_problems([{"Header": name, "Value": value} for name, value in route.headers], config):
        raise ValueError(f"the headers of {route.app} cannot be rendered for ingress-nginx")
    if ours and not _HEADER_VALUE.fullmatch(route.deployment):
        raise ValueError(f"the deployment id of {route.app} cannot be rendered for ingress-nginx")
    return headers | ours


def headers_config_map(route: Route, config: RenderConfig, *, stable: bool = False) -> Object | None:
    """The ConfigMap that `custom-headers` refers to, None when there is no header.

    The controller notices no edit of it, so the name is a hash of the contents and of the deployment; `stable`: only of
    the contents, which do not name the deployment then, for the Ingress of a stable route, which is to stay as it is.
    """
    data = headers_of(route, config, revision=not stable)
    if not data:
        return None
    content = json.dumps(["" if stable else route.deployment, sorted(data.items())]).encode()
    name = f"{route.app}-headers-{hashlib.sha256(content).hexdigest()[:10]}"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": route.namespace},
        "data": data,
        "immutable": True,
    }


def target(route: Route) -> Backend:
    """The Service that the app's Ingress refers to."""
    return Backend(route.app, route.backend.port) if route.stable else route.backend


def warm_up(route: Route, config: RenderConfig) -> Object:
    """An Ingress on a private host, and on the preview's, that makes the new version known to the controller."""
    rules = [(private_host(route, ROLE_WARM_UP), route.backend)]
    if route.stable:
        rules.append((f"stable-{private_host(route, ROLE_WARM_UP)}", target(route)))
    if route.preview.host:
        rules.append((route.preview.host, route.backend))
    # How the backend is spoken to; not whom it lets in, or where it redirects.
    annotations = {
        PREFIX + name: value
        for name, value in options.as_annotations(route.options).items()
        if name.startswith(("backend-", "proxy-"))
    }
    if config_map := headers_config_map(route, config):
        annotations[CUSTOM_HEADERS] = f"{route.namespace}/{config_map['metadata']['name']}"
    made = _helper(route, config, ROLE_WARM_UP, annotations, rules)
    if route.preview.host and route.preview.tls_secret:
        made["spec"]["tls"] = [{"hosts": [route.preview.host], "secretName": route.preview.tls_secret}]
    return made


def private_host(route: Route, role: str) -> str:
    """Where a helper, or a hold, answers. `.invalid` never resolves (RFC 6761), and nobody can guess the host."""
    return f"{_token(route)}.{role.removeprefix('versioned-')}.invalid"


def _token(route: Route) -> str:
    secret = f"{route.namespace}/{route.app}/{route.deployment}/{route.preview.token}"
    return hashlib.sha256(secret.encode()).hexdigest()[:24]


def _helper(
    route: Route, config: RenderConfig, role: str, annotations: dict[str, str], rules: Sequence[tuple[str, Backend]]
) -> Object:
    """A dot in the name keeps it apart from every app's own Ingress."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": f"{route.app}.{role.removeprefix('versioned-')}.{_token(route)[:10]}",
            "namespace": route.namespace,
            "annotations": annotations,
        },
        "spec": {"ingressClassName": config.ingress_class, "rules": [_rule(host, backend) for host, backend in rules]},
    }


def canary_name(app: str) -> str:
    """One name for all deployments of an app, as the controller takes one canary for a host. A dot keeps it apart from
    every app's own Ingress."""
    return f"{app}.canary"


def canary(route: Route, config: RenderConfig, share: Share) -> Object:
    """The Ingress that leads part of the host's requests to the new version, beside the app's own."""
    annotations = {PREFIX + "canary": "true", PREFIX + "canary-weight": str(share.weight)}
    if share.match and share.match.header:
        annotations |= {
            PREFIX + "canary-by-header": share.match.header,
            PREFIX + "canary-by-header-value": share.match.value,
        }
    elif share.match:
        annotations[PREFIX + "canary-by-cookie"] = share.match.cookie
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": canary_name(route.app),
            "namespace": route.namespace,
            "annotations": annotations,
        },
        "spec": {"ingressClassName": config.ingress_class, "rules": [_rule(route.host, route.backend)]},
    }


def set_canary(found: Object, wanted: Object) -> Object:
    """The canary that is there, with the traffic that `wanted` takes."""
    notes = found["metadata"].get("annotations") or {}
    kept = {key: value for key, value in notes.items() if not key.startswith(PREFIX + "canary")}
    found["metadata"]["annotations"] = kept | wanted["metadata"]["annotations"]
    found["spec"] = {**found["spec"], **wanted["spec"]}
    return found


def end_canary(found: Object) -> Object:
    """The canary that is there, without any traffic."""
    notes = found["metadata"].get("annotations") or {}
    kept = {key: value for key, value in notes.items() if not key.startswith(PREFIX + "canary-by-")}
    found["metadata"]["annotations"] = kept | {PREFIX + "canary-weight": "0"}
    return found


def canary_weight(found: Object) -> int:
    """Per cent of the requests that a canary takes; 1 for one that takes only those with a header or a cookie."""
    notes = found["metadata"].get("annotations") or {}
    said = notes.get(PREFIX + "canary-weight", "0")
    weight = int(said) if said.isascii() and said.isdigit() else 0
    matches = notes.get(PREFIX + "canary-by-header") or notes.get(PREFIX + "canary-by-cookie")
    return min(100, max(weight, 1 if matches else 0))


def main(found: Object | None, route: Route, config: RenderConfig, *, redirect_www: bool) -> Object:
    """The app's Ingress: what is there (or nothing), with our fields as the route wants them and all others kept."""
    wanted = found or {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": route.app}}
    metadata = wanted["metadata"]
    before = metadata.get("annotations") or {}
    asked = frozenset(before.get(OPTIONS_NOTE, "").split(",")) & options.ANNOTATIONS.keys()
    ours = {*_OURS, OPTIONS_NOTE, *(PREFIX + name for name in asked)}
    if INSTANCE not in before:
        ours |= ORIGINAL_ANNOTATIONS  # taken over in this edit; whoever adds one later has a reason
    kept = {key: value for key, value in before.items() if key not in ours}
    metadata["annotations"] = kept | _annotations(route, config, redirect_www)
    spec = wanted.setdefault("spec", {})
    spec["ingressClassName"] = config.ingress_class
    hosts = [route.host, swap_host(route)] if route.displaces else [route.host]
    spec["rules"] = [_rule(host, target(route)) for host in hosts] + _holds(spec, route)
    spec.pop("tls", None)
    spec.pop("defaultBackend", None)
    if route.tls_secret:
        spec["tls"] = [{"hosts": hosts, "secretName": route.tls_secret}]
    return wanted


def _holds(spec: Object, route: Route) -> list[Object]:
    """Rules on private hosts that keep the Services of before in the controller's list of backends, while old workers
    of nginx still lead to them: what the Ingress leads to now, and what it holds on to already."""
    kept = [rule for rule in spec.get("rules") or () if _is_hold(rule) and _service_of(rule) != target(route).service]
    old = [b for b in backends_of({"spec": spec}) if b.service != target(route).service]
    own = private_host(route, ROLE_HOLD)
    if old and route.previous is not None and own not in {rule["host"] for rule in kept}:
        kept.append(_rule(own, old[0]))
    return kept


def _is_hold(rule: Object) -> bool:
    return str(rule.get("host")).endswith(_HOLD_HOSTS)


def _service_of(rule: Object) -> str:
    return next((backend.service for backend in all_backends_of({"spec": {"rules": [rule]}})), "")


def held_services(found: Object) -> set[str]:
    """The Services that the app's Ingress holds on to."""
    return {_service_of(rule) for rule in found.get("spec", {}).get("rules") or () if _is_hold(rule)}


def same_but_version(found: Object, wanted: Object) -> bool:
    """Do two states of the app's Ingress differ in nothing but the Service, and the ConfigMap with the revision?"""

    def content(ingress: Object) -> Object:
        notes = ingress["metadata"].get("annotations") or {}
        kept = {k: v for k, v in notes.items() if k != CUSTOM_HEADERS and not k.startswith("kube-deployer/")}
        rest = {key: value for key, value in ingress["spec"].items() if key != "rules"}
        rules = [
            (rule.get("host"), [b.port for b in all_backends_of({"spec": {"rules": [rule]}})])
            for rule in _public(ingress)
        ]
        return {**rest, "annotations": kept, "rules": rules, "options": notes.get(OPTIONS_NOTE, "")}

    return content(found) == content(wanted)


def swap_host(route: Route) -> str:
    """Where the app's own Ingress can be asked as well while another provider may win the public host."""
    return private_host(route, _SWAP)


def released(found: Object, route: Route, done: Collection[str]) -> Object:
    """The app's Ingress without what only the switch to this route needed: its private hosts, and what holds on to one
    of the Services `done`."""
    spec, own = found["spec"], {swap_host(route), private_host(route, ROLE_HOLD)}
    gone = {
        rule.get("host")
        for rule in spec["rules"]
        if rule.get("host") in own or (_is_hold(rule) and _service_of(rule) in done)
    }
    spec["rules"] = [rule for rule in spec["rules"] if rule.get("host") not in gone]
    for tls in spec.get("tls") or ():
        tls["hosts"] = [host for host in tls.get("hosts") or () if host not in gone]
    return found


def strange(found: Object) -> str:
    """What an Ingress of ours has that was not written by us, in words; or nothing."""
    rules = _public(found)
    paths = [path for rule in rules for path in (rule.get("http") or {}).get("paths") or ()]
    if len(rules) > 1 or len(paths) > 1:
        return f"{len(rules)} rules with {len(paths)} paths instead of one"
    return ""


def _public(found: Object) -> list[Object]:
    """The rules but for those of private hosts."""
    rules = found.get("spec", {}).get("rules") or ()
    return [rule for rule in rules if not str(rule.get("host")).endswith((f".{_SWAP}.invalid", _HOLD_HOSTS))]


def hosts_of(ingress: Object) -> set[str]:
    """Every host that an Ingress has a rule for."""
    return {rule.get("host", "") for rule in ingress.get("spec", {}).get("rules") or ()}


def tls_secret_of(ingress: Object, host: str) -> str:
    """The Secret with which an Ingress serves TLS for a host; empty without."""
    entries = ingress.get("spec", {}).get("tls") or ()
    return next((str(tls.get("secretName") or "") for tls in entries if host in (tls.get("hosts") or ())), "")


def backends_of(ingress: Object) -> tuple[Backend, ...]:
    """The Services that the app's Ingress leads the public to; port 0 for one that is named."""
    return all_backends_of({"spec": {"rules": _public(ingress)}})


def all_backends_of(ingress: Object) -> tuple[Backend, ...]:
    """The Services of every rule, those of private hosts too."""
    found = []
    for rule in ingress.get("spec", {}).get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            service = path.get("backend", {}).get("service") or {}
            found.append(Backend(service.get("name", ""), (service.get("port") or {}).get("number", 0)))
    return tuple(dict.fromkeys(found))


def _annotations(route: Route, config: RenderConfig, redirect_www: bool) -> dict[str, str]:
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
        out["ssl-redirect"] = "true" if config.ssl_redirect else "false"
    if config_map := headers_config_map(route, config, stable=route.stable):
        out["custom-headers"] = f"{route.namespace}/{config_map['metadata']['name']}"
    asked = options.as_annotations(route.options)
    note = {OPTIONS_NOTE: ",".join(asked)} if asked else {}
    return {PREFIX + name: value for name, value in (out | asked).items()} | note


def _rule(host: str, backend: Backend) -> Object:
    service = {"name": backend.service, "port": {"number": backend.port}}
    return {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": service}}]}}

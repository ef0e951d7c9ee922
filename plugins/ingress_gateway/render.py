"""A route as HTTPRoutes (gateway.networking.k8s.io/v1, standard channel): pure functions, and what may be rendered.

Every field that the API server would fill in is written out, so that what is there can be compared with what is wanted.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.sdk.ingress import Backend, RequestMatch, Route, Share, www_twin
from deployer.sdk.plugin import Problem

Object = dict[str, Any]

GROUP = "gateway.networking.k8s.io"
PREVIEW_HEADER = "X-Deployer-Preview"

ROLE_ROUTE = "route"
ROLE_WWW = "www-redirect"
ROLE_HTTPS = "https-redirect"
# Goes with its deployment, whatever happens to it.
ROLE_PREVIEW = "versioned-preview"
ROLE_MATCH = "versioned-match"

# https://gateway-api.sigs.k8s.io/reference/spec/#httpheader and #httpheaderfilter
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_HEADER_VALUE = re.compile(r"[ -~]{1,4096}")
_MOST_HEADERS = 16


@dataclass(frozen=True, slots=True)
class RenderConfig:
    """The settings that decide how a route is rendered.

    gateway          `namespace/name`
    section          the listener for HTTP; empty: all of them
    https_section    the listener for HTTPS; empty: there is none, or `section` is empty
    https_redirect   HTTP is redirected to HTTPS, when there is an `https_section`
    revision_header  the response header that names the deployment; empty: none
    """

    gateway: str = ""
    section: str = ""
    https_section: str = ""
    https_redirect: bool = True
    revision_header: str = ""

    @property
    def https(self) -> bool:
        """Are hosts answered for over HTTPS?"""
        return bool(self.https_section)

    @property
    def redirects(self) -> bool:
        """Is HTTP redirected?"""
        return self.https and self.https_redirect and bool(self.section)

    def parents(self, *sections: str) -> list[Object]:
        """References to the Gateway's listeners of these names; the whole Gateway when none has a name."""
        namespace, _, name = self.gateway.partition("/")
        whole = {"group": GROUP, "kind": "Gateway", "namespace": namespace, "name": name}
        return [{**whole, "sectionName": section} for section in sections if section] or [whole]

    @property
    def serving(self) -> list[Object]:
        """Where an app is served."""
        return self.parents(self.https_section) if self.redirects else self.everywhere

    @property
    def everywhere(self) -> list[Object]:
        """Every listener that is used."""
        return self.parents(self.section, self.https_section)


def header_problems(headers: Sequence[Mapping[str, Any]], config: RenderConfig) -> list[Problem]:
    """What is wrong with a descriptor's `additionHttpHeaders` for the Gateway API."""
    problems = []
    for number, header in enumerate(headers):
        name, value = str(header.get("Header", "")), str(header.get("Value", ""))
        path = f"additionHttpHeaders[{number}]"
        if not _HEADER_NAME.fullmatch(name):
            problems.append(Problem(f"{path}.Header", "is no name of a header of at most 256 characters"))
        elif config.revision_header and name.lower() == config.revision_header.lower():
            problems.append(Problem(f"{path}.Header", f"{config.revision_header} is set by the Deployer itself"))
        if not _HEADER_VALUE.fullmatch(value):
            problems.append(Problem(f"{path}.Value", "the Gateway API takes 1 to 4096 characters of printable ASCII"))
    most = _MOST_HEADERS - bool(config.revision_header)
    if len(headers) > most:
        problems.append(Problem("additionHttpHeaders", f"the Gateway API takes at most {most} of them"))
    return problems


def token(route: Route) -> str:
    """What nobody can guess, and only this deployment has."""
    secret = f"{route.namespace}/{route.app}/{route.deployment}/{route.preview.token}"
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def private_host(route: Route) -> str:
    """Under which the route can be asked while another provider has the public host. Below that, so that a listener
    for a domain covers it as well, and nobody can guess it."""
    return f"swap-{token(route)[:24]}.{route.host}"


def hosts(route: Route) -> list[str]:
    """The public host first."""
    return [route.host, private_host(route)] if route.displaces else [route.host]


def preview_name(route: Route) -> str:
    """A dot in the name keeps it apart from every app's own route."""
    return f"{route.app}.preview.{token(route)[:10]}"


def match_name(route: Route) -> str:
    """Of the HTTPRoute for requests that match. A dot in the name keeps it apart from every app's own route."""
    return f"{route.app}.match.{token(route)[:10]}"


def redirect_name(app: str, role: str) -> str:
    """Of a redirect's HTTPRoute."""
    return f"{app}-{role}"


# --- rules --------------------------------------------------------------------------------------------------------


def preview_rule(route: Route, config: RenderConfig) -> Object:
    """The new version, for who knows the header."""
    match = {"type": "Exact", "name": PREVIEW_HEADER, "value": token(route)}
    return _rule(route, config, [route.backend], [match])


def public_rule(route: Route, config: RenderConfig, backends: Sequence[Backend]) -> Object:
    """Everything else. The headers are the route's, as is the revision."""
    return _rule(route, config, backends)


def split_mark(route: Route, new: Share) -> str:
    """What the revision's header says while the traffic is divided: the new deployment, and its part in per cent."""
    return f"{route.deployment}/{new.weight}"


def split_rule(
    public: Object, config: RenderConfig, weights: Mapping[str, int], fresh: Backend, revision: str
) -> Object:
    """The rule of the public with other weights, `fresh` among them, and another revision; all else stays."""
    kept = [backend for backend in backends_of(public) if backend.service != fresh.service]
    backends = [Backend(b.service, b.port, weights.get(b.service, 0)) for b in kept]
    backends.append(Backend(fresh.service, fresh.port, weights.get(fresh.service, 0)))
    filters = copy.deepcopy(public.get("filters") or [])
    for header in (h for f in filters for h in (f.get("responseHeaderModifier") or {}).get("set") or ()):
        if header.get("name") == config.revision_header:
            header["value"] = revision
    made = {**public, "backendRefs": [_reference(backend) for backend in backends]}
    return {**made, "filters": filters} if filters else made


def match(route: Route, config: RenderConfig, wanted: RequestMatch) -> Object:
    """The new version for requests with a header, or a cookie. More header matches win over fewer, whatever the route.

    A cookie takes a regular expression, which most implementations have; one that has none does not accept the route.
    """
    header = {"type": "Exact", "name": wanted.header, "value": wanted.value}
    if wanted.cookie:
        # Whole, as some implementations look for a part and others compare the whole value.
        header = {"type": "RegularExpression", "name": "Cookie", "value": rf"^(.*; ?)?{wanted.cookie}=always(;.*)?$"}
    rule = _rule(route, config, [route.backend], [header])
    made = edit(None, route, hosts=[route.host], parents=config.serving, rules=[rule])
    made["metadata"] = {"name": match_name(route), "namespace": route.namespace}
    return made


def _rule(route: Route, config: RenderConfig, backends: Sequence[Backend], headers: Sequence[Object] = ()) -> Object:
    match: Object = {"path": dict(_EVERYTHING)}
    if headers:
        match["headers"] = list(headers)
    rule: Object = {"matches": [match], "backendRefs": [_reference(backend) for backend in backends]}
    if added := _headers(route, config):
        rule["filters"] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": added}}]
    return rule


_EVERYTHING = {"type": "PathPrefix", "value": "/"}


def _headers(route: Route, config: RenderConfig) -> list[Object]:
    headers = [{"Header": name, "Value": value} for name, value in route.headers]
    if header_problems(headers, config):
        raise ValueError(f"the headers of {route.app} cannot be rendered for the Gateway API")
    found = [{"name": header["Header"], "value": header["Value"]} for header in headers]
    if config.revision_header and route.deployment:
        if not _HEADER_VALUE.fullmatch(route.deployment):
            raise ValueError(f"the deployment id of {route.app} cannot be rendered for the Gateway API")
        found.append({"name": config.revision_header, "value": route.deployment})
    return found


def _reference(backend: Backend) -> Object:
    named = {"group": "", "kind": "Service", "name": backend.service, "port": backend.port}
    return {**named, "weight": backend.weight}


# --- reading ------------------------------------------------------------------------------------------------------


def rules_of(found: Object | None) -> list[Object]:
    """The rules of an HTTPRoute."""
    return list(((found or {}).get("spec") or {}).get("rules") or ())


def is_preview(rule: Object) -> bool:
    """True for the rule of a preview, whoever's."""
    return any(h.get("name") == PREVIEW_HEADER for m in rule.get("matches") or () for h in m.get("headers") or ())


def public_rule_of(found: Object | None) -> Object | None:
    """The rule of the public; None before the first switch."""
    return next((rule for rule in rules_of(found) if not is_preview(rule)), None)


def backends_of(rule: Object | None) -> list[Backend]:
    """Where a rule leads."""
    references = (rule or {}).get("backendRefs") or ()
    return [Backend(r["name"], r.get("port", 0), r.get("weight", 1)) for r in references]


def strange(found: Object) -> str:
    """What an HTTPRoute of ours has that was not written by us, in words; or nothing."""
    public = [rule for rule in rules_of(found) if not is_preview(rule)]
    if len(public) > 1:
        return f"{len(public)} rules instead of one"
    whole = [match for rule in public for match in rule.get("matches") or () if set(match) == {"path"}]
    if public and [match["path"] for match in whole] != [_EVERYTHING]:
        return "a rule for a part of the paths"
    return ""


def only_version_changes(found: Object, route: Route, config: RenderConfig) -> bool:
    """Would the public see nothing of a route but another version: same host, listeners, port and headers?"""
    now, spec = public_rule_of(found), found.get("spec") or {}
    if now is None or strange(found) or spec.get("parentRefs") != config.serving:
        return False

    def content(rule: Object) -> Object:
        ports = {backend.port for backend in backends_of(rule) if backend.weight}
        return {**rule, "backendRefs": sorted(ports), "filters": _without_revision(rule, config)}

    new = public_rule(route, config, [route.backend])
    return spec.get("hostnames") == [route.host] and content(now) == content(new)


def _without_revision(rule: Object, config: RenderConfig) -> list[Object]:
    """The filters of a rule, with something else in the place of the revision's value."""
    filters = copy.deepcopy(rule.get("filters") or [])
    for header in (h for f in filters for h in (f.get("responseHeaderModifier") or {}).get("set") or ()):
        if header.get("name") == config.revision_header:
            header["value"] = ""
    return filters


# --- objects ------------------------------------------------------------------------------------------------------


def edit(
    found: Object | None, route: Route, *, hosts: Iterable[str], parents: list[Object], rules: list[Object]
) -> Object:
    """The app's HTTPRoute: what is there (or nothing), with our fields as they are wanted and all others kept."""
    wanted = copy.deepcopy(found) or {
        "apiVersion": f"{GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": route.app},
    }
    spec = wanted.setdefault("spec", {})
    spec["parentRefs"], spec["hostnames"], spec["rules"] = parents, list(dict.fromkeys(hosts)), rules
    return wanted


def joined(found: Object | None, wanted: list[Object]) -> list[Object]:
    """The listeners that the route has, and those that it is to have."""
    had = ((found or {}).get("spec") or {}).get("parentRefs") or []
    return [*had, *(parent for parent in wanted if parent not in had)]


def preview(route: Route, config: RenderConfig) -> Object:
    """The new version under the preview's host."""
    made = edit(
        None,
        route,
        hosts=[route.preview.host],
        parents=config.everywhere,
        rules=[_rule(route, config, [route.backend])],
    )
    made["metadata"] = {"name": preview_name(route), "namespace": route.namespace}
    return made


def redirect(found: Object | None, route: Route, config: RenderConfig, role: str) -> Object:
    """One of the two redirects: of the `www.` twin, or of HTTP to HTTPS."""
    www = role == ROLE_WWW
    target: Object = {"statusCode": 301}
    if www:
        target["hostname"] = route.host
    if config.redirects:
        target["scheme"] = "https"
    rule = {
        "matches": [{"path": dict(_EVERYTHING)}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": target}],
    }
    made = edit(
        found,
        route,
        hosts=[www_twin(route.host) if www else route.host],
        parents=config.everywhere if www else config.parents(config.section),
        rules=[rule],
    )
    made["metadata"]["name"] = redirect_name(route.app, role)
    return made

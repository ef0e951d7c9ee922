"""Pure functions: Ingress objects, Services and EndpointSlices -> the hosts, paths and addresses of the ingress."""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deployer.sandbox.controllers import SLICE_NAME
from deployer.sandbox.dataplane import httproutes
from deployer.sandbox.kinds import CONFIG_MAP, ENDPOINT_SLICE, INGRESS, SERVICE, Key, Object, key_of, labels_of
from deployer.sandbox.store import Store

CLASS = "nginx"
CONTROLLER = ("ingress-nginx", "ingress-nginx-controller")
"""Namespace and name of the controller's Service and ConfigMap."""
PREFIX = "nginx.ingress.kubernetes.io/"
ALLOWED_HEADERS = "global-allowed-response-headers"
KNOWN = (
    *("custom-headers", "from-to-www-redirect", "affinity", "affinity-mode", "ssl-redirect"),
    *("session-cookie-name", "session-cookie-max-age", "session-cookie-path"),
    *("canary", "canary-weight", "canary-by-header", "canary-by-header-value", "canary-by-cookie"),
)
HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
HEADER_VALUE = re.compile(r"[ -~]*")

Address = tuple[str, int]


@dataclass(frozen=True)
class Canary:
    """What of a location's requests goes to another Service, by the rules of ingress-nginx (`balancer.lua`)."""

    weight: int = 0
    header: str = ""
    value: str = ""
    cookie: str = ""

    def takes(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """A header decides before a cookie, and that before the weight."""
        given = headers.get(self.header) if self.header else None
        if given is not None and self.value and given == self.value:
            return True
        said = [given if not self.value else None, cookies.get(self.cookie) if self.cookie else None]
        for word in said:
            if word in ("always", "never"):
                return word == "always"
        return random.randint(1, 100) <= self.weight


@dataclass(frozen=True)
class Annotations:
    """The annotations of one Ingress, read when it was created or changed and not again."""

    headers: tuple[tuple[str, str], ...] = ()
    broken: str = ""  # why its locations answer 503
    cookie: str = ""
    cookie_max_age: str = ""
    www_redirect: bool = False
    canary: Canary | None = None
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Location:
    """One path of a host and where it leads."""

    path: str
    exact: bool
    service: str  # namespace/name:port, for the round robin
    addresses: tuple[Address, ...]
    annotations: Annotations
    canary: "Alternative | None" = None

    def matches(self, path: str) -> bool:
        if self.exact or path == self.path:
            return path == self.path
        return path.startswith(self.path.rstrip("/") + "/")


@dataclass(frozen=True)
class Alternative:
    """Where a canary leads."""

    rule: Canary
    service: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True)
class Config:
    """One state of the data plane."""

    hosts: dict[str, tuple[Location, ...]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    gateway: dict[str, tuple[httproutes.Match, ...]] = field(default_factory=dict)

    def find(self, host: str, path: str) -> Location | None:
        """The longest matching path of the exact host, of a wildcard, or of the rules without a host."""
        for name in (host, "*." + host.partition(".")[2], ""):
            if name in self.hosts:
                return next((location for location in self.hosts[name] if location.matches(path)), None)
        return None


def annotations(store: Store, ingress: Object) -> Annotations:
    """Reads the annotations, and the ConfigMap of custom headers as it is now."""
    given = {
        k.removeprefix(PREFIX): v
        for k, v in (ingress["metadata"].get("annotations") or {}).items()
        if k.startswith(PREFIX)
    }
    headers: dict[str, str] = {}
    broken = ""
    if place := given.get("custom-headers"):
        headers, broken = _custom_headers(store, place)
    unknown = [name for name in given if name not in KNOWN]
    if given.get("affinity", "cookie") != "cookie":
        unknown.append("affinity")
    sticky = given.get("affinity") == "cookie"
    return Annotations(
        tuple(sorted(headers.items())),
        broken,
        given.get("session-cookie-name", "INGRESSCOOKIE") if sticky else "",
        given.get("session-cookie-max-age", ""),
        given.get("from-to-www-redirect") == "true",
        _canary(given),
        tuple(sorted(unknown)),
    )


def _canary(given: Mapping[str, str]) -> Canary | None:
    if given.get("canary") != "true":
        return None
    weight = given.get("canary-weight", "")
    return Canary(
        int(weight) if weight.isdigit() else 0,
        given.get("canary-by-header", ""),
        given.get("canary-by-header-value", ""),
        given.get("canary-by-cookie", ""),
    )


def _custom_headers(store: Store, place: str) -> tuple[dict[str, str], str]:
    namespace, _, name = place.partition("/")
    found = store.find(CONFIG_MAP, namespace, name)
    if found is None:
        return {}, f'custom-headers: could not find ConfigMap "{place}"'
    headers: dict[str, str] = found.get("data") or {}
    controller = store.find(CONFIG_MAP, *CONTROLLER) or {}
    # Without the key the sandbox allows every header; the real controller allows none.
    allowed = (controller.get("data") or {}).get(ALLOWED_HEADERS)
    # Letter by letter, as the real one compares them, although HTTP does not.
    listed = None if allowed is None else {part.strip() for part in allowed.split(",")}
    for header, value in headers.items():
        if listed is not None and header not in listed:
            return (
                {},
                f"custom-headers: header {header} is not allowed, defined allowed headers inside "
                f"{ALLOWED_HEADERS}: {allowed}",
            )
        if not HEADER_NAME.fullmatch(header) or not HEADER_VALUE.fullmatch(value):
            return {}, f"custom-headers: invalid header {header!r} in ConfigMap {place}"
    return headers, ""


def oldest_first(store: Store) -> list[Object]:
    """The Ingresses of our class; of two for one host and path the oldest wins."""
    mine = [ingress for ingress in store.list(INGRESS) if _class_of(ingress) == CLASS]
    return sorted(
        mine, key=lambda ingress: ingress["metadata"]["creationTimestamp"]
    )  # stable: the store is in order of creation


def _class_of(ingress: Object) -> str | None:
    """The old annotation counts first, as it does for ingress-nginx."""
    notes = ingress["metadata"].get("annotations") or {}
    found: str | None = notes.get("kubernetes.io/ingress.class") or ingress["spec"].get("ingressClassName")
    return found


def build(store: Store, read: dict[str, Annotations]) -> Config:
    """The data plane for what the store says now; `read` has the annotations of every Ingress by uid."""
    slices: dict[Key, list[Object]] = {}
    for part in store.list(ENDPOINT_SLICE):
        service = labels_of(part).get(SLICE_NAME, "")
        slices.setdefault((part["metadata"]["namespace"], service), []).append(part)
    hosts: dict[str, dict[tuple[str, bool], Location]] = {}
    redirects: dict[str, str] = {}
    rules: dict[str, Canary] = {}
    canaries: list[tuple[str, Location]] = []
    for ingress in oldest_first(store):
        namespace, spec, about = key_of(ingress)[0], ingress["spec"], read[ingress["metadata"]["uid"]]
        for host, path in _paths(spec):
            service = path["backend"]["service"]
            key = (namespace, service["name"])
            addresses = _addresses(store, key, service["port"], slices.get(key, []))
            exact, value = path["pathType"] == "Exact", path.get("path") or "/"
            location = Location(value, exact, f"{namespace}/{service['name']}:{service['port']}", addresses, about)
            # As in the real one, the first Ingress that names a Service says what traffic it takes as a canary.
            rules.setdefault(location.service, about.canary or Canary())
            if about.canary:
                canaries.append((host, location))
                continue
            hosts.setdefault(host, {}).setdefault((value, exact), location)
            if host and about.www_redirect:
                redirects.setdefault(host[4:] if host.startswith("www.") else f"www.{host}", host)
    alternatives = _alternatives(hosts, canaries, rules)
    for locations in hosts.values():
        for key, location in locations.items():
            locations[key] = replace(location, canary=alternatives.get(location.service))
    return Config(
        {host: _longest_first(found) for host, found in hosts.items()},
        {h: to for h, to in redirects.items() if h not in hosts},
        httproutes.build(store, lambda key, port: _addresses(store, key, port, slices.get(key, []))),
    )


def _alternatives(
    hosts: dict[str, dict[tuple[str, bool], Location]],
    canaries: list[tuple[str, Location]],
    rules: Mapping[str, Canary],
) -> dict[str, Alternative]:
    """By the Service that a canary stands beside, whatever the host; the first canary counts, and one for a host and
    path that no other Ingress has leads nowhere."""
    found: dict[str, Alternative] = {}
    for host, canary in canaries:
        main = hosts.get(host, {}).get((canary.path, canary.exact))
        if main is not None and main.service != canary.service:
            found.setdefault(main.service, Alternative(rules[canary.service], canary.service, canary.addresses))
    return found


def _longest_first(found: dict[tuple[str, bool], Location]) -> tuple[Location, ...]:
    return tuple(sorted(found.values(), key=lambda location: (len(location.path), location.exact), reverse=True))


def _paths(spec: Object) -> list[tuple[str, Object]]:
    found = [
        (rule.get("host", ""), path)
        for rule in spec.get("rules") or ()
        for path in rule.get("http", {}).get("paths") or ()
    ]
    if "defaultBackend" in spec:
        found.append(("", {"path": "/", "pathType": "Prefix", "backend": spec["defaultBackend"]}))
    return found


def _addresses(store: Store, key: Key, wanted: Object, slices: list[Object]) -> tuple[Address, ...]:
    """The ready endpoints of a Service's port; none when the Service or the port is missing."""
    service = store.find(SERVICE, *key)
    ports = (service["spec"].get("ports") or []) if service else []
    by: tuple[str, Any] = ("name", wanted["name"]) if wanted.get("name") else ("port", wanted.get("number"))
    name = next((port.get("name", "") for port in ports if port.get(by[0]) == by[1]), None)
    found: set[Address] = set()
    for part in slices if name is not None else ():
        number: int | None = next(
            (port["port"] for port in part.get("ports") or () if port.get("name", "") == name), None
        )
        for endpoint in part.get("endpoints") or ():
            if number and (endpoint.get("conditions") or {}).get("ready", True):
                found |= {(address, number) for address in endpoint["addresses"]}
    return tuple(sorted(found))


def fingerprint(ingress: Object) -> str:
    """Changes when the spec or an annotation of the Ingress does."""
    return json.dumps(
        [ingress["metadata"]["uid"], ingress["metadata"]["generation"], ingress["metadata"].get("annotations")]
    )

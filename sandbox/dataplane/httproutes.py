"""HTTPRoutes: what they make of the data plane, and what the sandbox's Gateway says about them.

Pure functions over the store. Of two routes for one host and path the one with more header matches wins, then the
older one.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deployer.sandbox.kinds import (
    GATEWAY,
    HTTP_ROUTE,
    NAMESPACE,
    SERVICE,
    Key,
    Object,
    key_of,
    labels_of,
    selects,
    timestamp,
)
from deployer.sandbox.store import Store

CLASS = "sandbox"
"""The gatewayClassName of the Gateways that the sandbox serves."""
EDGE = ("infra", "edge")
"""Namespace and name of the Gateway that is there from the start."""
CONTROLLER = "sandbox/gateway-controller"

Address = tuple[str, int]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Target:
    """A Service and its share of the requests. `missing`: there is no such Service or port."""

    service: str
    weight: int
    addresses: tuple[Address, ...]
    missing: bool


@dataclass(frozen=True)
class Match:
    """One match of one rule, with where it leads."""

    path: str
    exact: bool
    headers: Pairs
    targets: tuple[Target, ...]
    added: Pairs
    redirect: Pairs | None
    patterns: Pairs = ()
    """Headers whose values match a regular expression."""
    longest: int = 0
    """Characters of the longest host of its route."""

    def matches(self, path: str, headers: Mapping[str, str]) -> bool:
        """The path as a whole or by its parts, and every header."""
        if not (path == self.path or (not self.exact and path.startswith(self.path.rstrip("/") + "/"))):
            return False
        exact = all(headers.get(name) == value for name, value in self.headers)
        return exact and all(re.search(pattern, headers.get(name, "")) for name, pattern in self.patterns)

    def beats_ingress(self, host: str) -> bool:
        """Traefik gives an Ingress the length of its rule as priority, and an HTTPRoute that of its longest host."""
        return self.longest + 2 > len(f'Host("{host}") && PathPrefix("/")')

    def choose(self) -> Target | None:
        """A target by its weight; None when nothing has any."""
        total = sum(target.weight for target in self.targets)
        if not total:
            return None
        return random.choices(self.targets, [target.weight for target in self.targets])[0]

    def location(self, host: str, port: str, path: str) -> str:
        """Where it redirects to. The listener's port is the request's: there is one listener."""
        given = dict(self.redirect or ())
        scheme = given.get("scheme", "http")
        kept = port if "scheme" not in given else ""
        return f"{scheme}://{given.get('hostname', host)}{kept}{path}"


def find(hosts: Mapping[str, tuple[Match, ...]], host: str, path: str, headers: Mapping[str, str]) -> Match | None:
    """The best match for a request."""
    for name in (host, "*." + host.partition(".")[2]):
        for match in hosts.get(name, ()):
            if match.matches(path, headers):
                return match
    return None


def build(store: Store, addresses: Any) -> dict[str, tuple[Match, ...]]:
    """The matches of every host, best first. `addresses` gives those of a Service's port."""
    found: dict[str, list[tuple[tuple[Any, ...], Match]]] = {}
    for age, route in enumerate(_oldest_first(store)):
        if not any(_judged(store, route, parent)["Accepted"][0] for parent in _known_parents(store, route)):
            continue
        for rule in route["spec"]["rules"]:
            for found_match in _rule(store, route["metadata"]["namespace"], rule, addresses):
                hostnames = route["spec"].get("hostnames") or ()
                match = replace(found_match, longest=max(map(len, hostnames), default=0))
                rank = (not match.exact, -len(match.path), -len(match.headers) - len(match.patterns), age)
                for host in hostnames:
                    found.setdefault(host, []).append((rank, match))
    return {host: tuple(match for _, match in sorted(some, key=lambda one: one[0])) for host, some in found.items()}


def _oldest_first(store: Store) -> list[Object]:
    return sorted(store.list(HTTP_ROUTE), key=lambda route: route["metadata"]["creationTimestamp"])


def _rule(store: Store, namespace: str, rule: Object, addresses: Any) -> list[Match]:
    targets = []
    for backend in rule.get("backendRefs") or ():
        key = (namespace, backend["name"])
        missing = not _has_port(store, key, backend["port"])
        reached = () if missing else addresses(key, {"number": backend["port"]})
        targets.append(Target(f"{namespace}/{backend['name']}", backend["weight"], reached, missing))
    added: list[tuple[str, str]] = []
    redirect: Pairs | None = None
    for part in rule.get("filters") or ():
        if part["type"] == "RequestRedirect":
            redirect = tuple((name, str(value)) for name, value in part["requestRedirect"].items())
        else:
            modifier = part.get("responseHeaderModifier") or {}
            added += [(h["name"], h["value"]) for h in (*(modifier.get("set") or ()), *(modifier.get("add") or ()))]
    return [
        Match(
            match["path"]["value"],
            match["path"]["type"] == "Exact",
            _headers(match, "Exact"),
            tuple(targets),
            tuple(added),
            redirect,
            _headers(match, "RegularExpression"),
        )
        for match in rule["matches"]
    ]


def _headers(match: Object, kind: str) -> Pairs:
    found = match.get("headers") or ()
    return tuple((h["name"], h["value"]) for h in found if h.get("type", "Exact") == kind)


def _has_port(store: Store, key: Key, number: int) -> bool:
    service = store.find(SERVICE, *key)
    return bool(service) and any(port["port"] == number for port in (service or {})["spec"].get("ports") or ())


# --- conditions ---------------------------------------------------------------------------------------------------


def statuses(store: Store) -> list[tuple[Key, list[Object]]]:
    """What `status.parents` of each HTTPRoute is to be; a parent that the sandbox does not know gets no entry."""
    found = []
    for route in store.list(HTTP_ROUTE):
        parents = [_status(store, route, parent) for parent in _known_parents(store, route)]
        found.append((key_of(route), parents))
    return found


def write(route: Object, parents: list[Object]) -> None:
    """Puts the entries into the status; the time of a condition that stays the same stays as well."""
    before = {
        (str(entry["parentRef"]), condition["type"]): condition
        for entry in route.get("status", {}).get("parents") or ()
        for condition in entry["conditions"]
    }
    for entry in parents:
        for condition in entry["conditions"]:
            old = before.get((str(entry["parentRef"]), condition["type"]), {})
            same = old.get("status") == condition["status"]
            condition["lastTransitionTime"] = old["lastTransitionTime"] if same else timestamp()
    if parents or "status" in route:
        route["status"] = {"parents": parents}


def _known_parents(store: Store, route: Object) -> list[Object]:
    return [parent for parent in route["spec"].get("parentRefs") or () if _gateway(store, route, parent)]


def _gateway(store: Store, route: Object, parent: Object) -> Object | None:
    namespace = parent.get("namespace") or route["metadata"]["namespace"]
    found = store.find(GATEWAY, namespace, parent["name"])
    return found if found and found.get("spec", {}).get("gatewayClassName") == CLASS else None


def _status(store: Store, route: Object, parent: Object) -> Object:
    conditions = [
        {
            "type": name,
            "status": "True" if good else "False",
            "reason": reason,
            "message": message,
            "observedGeneration": route["metadata"]["generation"],
        }
        for name, (good, reason, message) in _judged(store, route, parent).items()
    ]
    return {"parentRef": dict(parent), "controllerName": CONTROLLER, "conditions": conditions}


def _judged(store: Store, route: Object, parent: Object) -> dict[str, tuple[bool, str, str]]:
    """By condition: is it True, the reason, the message."""
    gateway = _gateway(store, route, parent) or {"spec": {}}
    listeners = gateway["spec"].get("listeners") or []
    chosen = [one for one in listeners if parent.get("sectionName") in (None, one["name"])]
    hosts = route["spec"].get("hostnames") or []
    taking = [one for one in chosen if _admits(store, one, gateway, route)]
    fitting = [one for one in taking if any(_covers(one.get("hostname", ""), host) for host in hosts)]
    accepted = (True, "Accepted", "")
    if not chosen:
        accepted = (False, "NoMatchingParent", "")
    elif not taking:
        accepted = (False, "NotAllowedByListeners", "")
    elif not fitting:
        accepted = (False, "NoMatchingListenerHostname", "")
    resolved = (True, "ResolvedRefs", "")
    namespace = route["metadata"]["namespace"]
    for rule in route["spec"]["rules"]:
        for backend in rule.get("backendRefs") or ():
            if not _has_port(store, (namespace, backend["name"]), backend["port"]):
                why = f"Cannot load HTTPBackendRef {namespace}/{backend['name']}: service or port not found"
                resolved = (False, "BackendNotFound", why)
    return {"Accepted": accepted, "ResolvedRefs": resolved}


def _admits(store: Store, listener: Object, gateway: Object, route: Object) -> bool:
    """Does the listener take routes of that namespace? By labels: `matchLabels` only."""
    namespaces = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
    own = route["metadata"]["namespace"]
    if namespaces.get("from") == "Selector":
        namespace = store.find(NAMESPACE, "", own)
        return namespace is not None and selects(namespaces["selector"].get("matchLabels"), labels_of(namespace))
    return namespaces.get("from") == "All" or own == gateway["metadata"]["namespace"]


def _covers(pattern: str, host: str) -> bool:
    return not pattern or pattern == host or (pattern.startswith("*.") and host.endswith(pattern[1:]))

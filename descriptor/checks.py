"""Rules that a schema cannot say: names that go together, what is installed, policies and Pod Security."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.errors import Invalid, Problem
from deployer.core.model.descriptors import (
    AUTOINCREMENT,
    HEALTH_PORT_NAME,
    health_port,
    http_ports,
    is_tcp,
    named_port,
    ports,
)
from deployer.core.model.hosts import is_address
from deployer.core.model.records import Document
from deployer.descriptor import headers, policy
from deployer.descriptor.podspec import rules as podspec
from deployer.descriptor.podspec import security as podsecurity
from deployer.descriptor.podspec import types as podtypes
from deployer.descriptor.schema_errors import MAX_PROBLEMS, join, schema_problems, shown, suggestion
from deployer.settings import Settings

MAX_NAME = 63
"""Length of a label value and of a Service's name, in Kubernetes."""


@dataclass(frozen=True, slots=True)
class GateType:
    """An installed type of gate: the schema of its `options` (None: it takes none), and where it makes sense."""

    schema: Mapping[str, Any] | None
    points: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What descriptors are checked against, besides the schema: the settings and what is installed.

    strategies       name -> schema of `strategyOptions`; None: the strategy takes none
    health_checkers  names
    ingress          name of the provider in use and the schema of `ingressOptions`; None: it takes none
    health_options   name -> schema of `healthCheckOptions`; absent or None: the checker takes none
    without_path     the health checkers that need no `healthCheckPath`
    gates            the installed types
    extensions       name of a plugin that injects or observes -> the schemas of its options; none: it takes none
    """

    settings: Settings
    strategies: Mapping[str, Mapping[str, Any] | None]
    health_checkers: Collection[str]
    ingress: tuple[str, Mapping[str, Any] | None]
    health_options: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    without_path: Collection[str] = ()
    gates: Mapping[str, GateType] = field(default_factory=dict)
    extensions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


Check = Callable[[Document, Rules], Iterator[Problem]]


def _names(out: Document, _: Rules) -> Iterator[Problem]:
    version = out["newVersion"]
    autoincrement = version == AUTOINCREMENT
    name = f"{out['appName']}-{'1' if autoincrement else version}"
    if len(name) > MAX_NAME:
        together = "appName with '-' and a number" if autoincrement else "appName-newVersion"
        yield Problem("appName" if autoincrement else "newVersion", f"{together} has more than {MAX_NAME} characters")


def _protected(out: Document, rules: Rules) -> Iterator[Problem]:
    if rules.settings.protects(out["namespace"]):
        yield Problem("namespace", f"{shown(out['namespace'])} is protected: nobody may deploy there")


def _strategy(out: Document, rules: Rules) -> Iterator[Problem]:
    chosen = out["deploymentType"]
    if chosen not in rules.strategies:
        yield Problem("deploymentType", f"{shown(chosen)} is not installed; available: {_listed(rules.strategies)}")
    else:
        schema = rules.strategies[chosen]
        yield from _options(out.get("strategyOptions", {}), schema, "strategyOptions", f"strategy {chosen}")


def _ingress(out: Document, rules: Rules) -> Iterator[Problem]:
    name, schema = rules.ingress
    yield from _options(out.get("ingressOptions", {}), schema, "ingressOptions", f"ingress provider {name}")


def _health_options(out: Document, rules: Rules) -> Iterator[Problem]:
    """Only what is used, or was given, is checked: an app without health checks need not have any options."""
    options, kind = out.get("healthCheckOptions", {}), out.get("healthCheckType")
    if kind is None and options:
        yield Problem("healthCheckOptions", "needs healthCheckType, which says whose options these are")
    elif kind is not None and kind in rules.health_checkers and (options or out["useHealthCheck"] is True):
        schema = rules.health_options.get(kind)
        yield from _options(options, schema, "healthCheckOptions", f"health checker {kind}")


def _gates(out: Document, rules: Rules) -> Iterator[Problem]:
    for point, gates in out.get("gates", {}).items():
        for n, gate in enumerate(gates):
            path = join("gates", point, n)
            if gate["name"] in [other["name"] for other in gates[:n]]:
                yield Problem(join(path, "name"), f"{shown(gate['name'])} is there twice")
            yield from gate_problems(gate, point, path, rules.gates)


def gate_problems(gate: Document, point: str, path: str, known: Mapping[str, GateType]) -> Iterator[Problem]:
    """What is wrong with a gate whose shape is right, beside its name."""
    name = gate["type"]
    if (found := known.get(name)) is None:
        yield Problem(join(path, "type"), f"{shown(name)} is not installed; available: {_listed(known)}")
        return
    if point not in found.points:
        yield Problem(path, f"a gate of type {name} cannot stand here, but at {' or '.join(found.points)}")
    yield from _options(gate.get("options", {}), found.schema, join(path, "options"), f"gate {name}")


def _extensions(out: Document, rules: Rules) -> Iterator[Problem]:
    for plugin, options in out.get("extensions", {}).items():
        path = join("extensions", plugin)
        if plugin not in rules.extensions:
            yield Problem(path, f"no plugin of this name takes options{suggestion(plugin, rules.extensions)}")
        elif schemas := rules.extensions[plugin]:
            for schema in schemas:
                yield from schema_problems(options, schema, path)
        elif options:
            yield Problem(path, f"the plugin {plugin} takes no options")


def _options(options: Document, schema: Mapping[str, Any] | None, path: str, whose: str) -> Iterator[Problem]:
    if schema is not None:
        yield from schema_problems(options, schema, path)
    elif options:
        yield Problem(path, f"the {whose} takes no options")


def _frontend(out: Document, _: Rules) -> Iterator[Problem]:
    if "frontend" not in out:
        return
    if is_address(out["frontend"]):
        yield Problem("frontend", "must be a host name, not an IP address")
    if not http_ports(out) and "frontendPort" not in out:
        yield Problem("frontend", f"needs a TCP container port that is not named {HEALTH_PORT_NAME}")


def _frontend_port(out: Document, _: Rules) -> Iterator[Problem]:
    if (wanted := out.get("frontendPort")) is None:
        return
    meant = [port for port in ports(out) if wanted in (int(port["containerPort"]), port.get("name"))]
    if meant and not is_tcp(meant):
        yield Problem("frontendPort", f"must be a TCP port: {shown(wanted)} is {meant[0]['protocol']}")
    elif not meant:
        known = [named_port(out, int(port["containerPort"])) for port in ports(out)]
        there = f"there is {', '.join(dict.fromkeys(known))}" if known else "none has a port"
        yield Problem("frontendPort", f"no container has a port {shown(wanted)}; {there}")


def _hosts(out: Document, rules: Rules) -> Iterator[Problem]:
    yield from policy.host_problems(out, rules.settings)


def _headers(out: Document, _: Rules) -> Iterator[Problem]:
    seen: set[str] = set()
    for n, header in enumerate(out.get("additionHttpHeaders", ())):
        name = header["Header"].lower()
        if name in seen:
            yield Problem(f"additionHttpHeaders[{n}].Header", f"{shown(header['Header'])} appears twice")
        if why := headers.refused(name):
            yield Problem(f"additionHttpHeaders[{n}].Header", f"{shown(header['Header'])} cannot be set here: {why}")
        seen.add(name)


def _podspec(out: Document, rules: Rules) -> Iterator[Problem]:
    if not isinstance(out.get("podspec"), Mapping):
        return
    wrong = list(itertools.islice(podtypes.type_problems(out["podspec"]), MAX_PROBLEMS))
    yield from wrong
    said = {problem.path for problem in wrong}
    rest = (podspec.problems(out["podspec"]), podsecurity.violations(out["podspec"], rules.settings.pod_security))
    yield from (problem for problem in itertools.chain(*rest) if problem.path not in said)
    # The only labels that a podspec can carry are those of volume claims. Ours mark what the service may delete.
    volumes = out["podspec"].get("volumes")
    for n, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        for kind in ("labels", "annotations"):
            path = ("ephemeral", "volumeClaimTemplate", "metadata", kind)
            for key in _dig(volume, path):
                if key.startswith("kube-deployer/") or key == "app.kubernetes.io/managed-by":
                    yield Problem(join(f"podspec.volumes[{n}]", *path), f"{shown(key)} is reserved for the service")


def _allowed(out: Document, rules: Rules) -> Iterator[Problem]:
    yield from policy.pod_problems(out, rules.settings)


def _dig(thing: Any, path: Sequence[str]) -> Mapping[str, Any]:
    for key in path:
        thing = thing.get(key) if isinstance(thing, Mapping) else None
    return thing if isinstance(thing, Mapping) else {}


CHECKS: tuple[tuple[frozenset[str], Check], ...] = (
    (frozenset({"appName", "newVersion"}), _names),
    (frozenset({"namespace"}), _protected),
    (frozenset({"deploymentType", "strategyOptions"}), _strategy),
    (frozenset({"ingressOptions"}), _ingress),
    (frozenset({"healthCheckOptions", "healthCheckType", "useHealthCheck"}), _health_options),
    (frozenset({"gates"}), _gates),
    (frozenset({"extensions"}), _extensions),
    (frozenset({"frontend", "podspec"}), _frontend),
    (frozenset({"frontend", "namespace", "redirectWww"}), _hosts),
    (frozenset({"frontendPort", "podspec"}), _frontend_port),
    (frozenset({"additionHttpHeaders"}), _headers),
    # These bear whatever a podspec may be.
    (frozenset(), _podspec),
    (frozenset({"namespace"}), _allowed),
)
HEALTH = frozenset({"useHealthCheck", "healthCheckPort", "healthCheckPath", "healthCheckType", "podspec"})


def health(out: Document, rules: Rules, stored: bool) -> Iterator[Problem]:
    kind = out.get("healthCheckType")
    if kind is not None and kind not in rules.health_checkers:
        yield Problem("healthCheckType", f"{shown(kind)} is not installed; available: {_listed(rules.health_checkers)}")
    if not out["useHealthCheck"]:
        return
    for name in ("healthCheckPort", "healthCheckPath", "healthCheckType"):
        given = name in out or (name == "healthCheckPath" and kind in rules.without_path)
        if not given and not (stored and name == "healthCheckPort"):
            yield Problem(name, "is required with useHealthCheck")
    if stored and "healthCheckPort" not in out:
        try:
            health_port(out)
        except Invalid as error:
            yield from error.problems


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"

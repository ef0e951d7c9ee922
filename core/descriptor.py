"""Descriptors: reading them strictly, checking every rule at once, and bringing them into one normal form.

`descriptor.schema.json` is the one definition of their shape. What a schema cannot say (names that go together, what
is installed, Pod Security) follows here. A normalised descriptor is a plain dict, and normalising it again changes
nothing.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import ipaddress
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NoReturn

from deployer.core import headers, json_text, podsecurity, podspec, podtypes, policy
from deployer.core.errors import Invalid, Problem
from deployer.core.podspec import app_containers
from deployer.core.records import Document
from deployer.core.schema_errors import MAX_PROBLEMS, join, schema_problems, shown
from deployer.core.settings import Settings

SCHEMA: Mapping[str, Any] = json.loads(
    resources.files(__package__).joinpath("descriptor.schema.json").read_text("utf-8")
)
"""JSON Schema (2020-12) of a descriptor as users send it."""

AUTOINCREMENT = "#"
DEFAULT_STRATEGY = "blue-green"
DEFAULT_HEALTH_PORT = 9999
HEALTH_PORT_NAME = "healthcheck"

MAX_BODY = 1 << 20
"""Bytes."""
MAX_NESTING = 64
MAX_NAME = 63
"""Length of a label value and of a Service's name, in Kubernetes."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What descriptors are checked against, besides the schema: the settings and what is installed.

    strategies       name -> schema of `strategyOptions`; None: the strategy takes none
    health_checkers  names
    ingress          name of the provider in use and the schema of `ingressOptions`; None: it takes none
    """

    settings: Settings
    strategies: Mapping[str, Mapping[str, Any] | None]
    health_checkers: Collection[str]
    ingress: tuple[str, Mapping[str, Any] | None]


# --- reading ------------------------------------------------------------------------------------------------------


def parse(body: bytes) -> Document:
    """The JSON object in `body`. Raises Invalid for whatever is not strictly one, or too large or deep."""
    if len(body) > MAX_BODY:
        _refuse(f"the document is larger than {MAX_BODY} bytes")
    if body[:2] == b"\x1f\x8b":
        _refuse("the document is not UTF-8: it is compressed with gzip; send the JSON uncompressed")
    if b"\0" in body[:4] or body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        _refuse("the document is not UTF-8: it looks like UTF-16 or UTF-32")
    repeating: list[_Repeating] = []
    try:
        document = json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=functools.partial(_object, repeating),
            parse_constant=lambda word: _refuse(f"{word} is not a JSON value"),
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        _refuse(f"the document is not UTF-8: byte {error.start} is wrong")
    except json.JSONDecodeError as error:
        _refuse(json_text.explain(error))
    except RecursionError:
        _refuse(_TOO_DEEP)
    if not isinstance(document, dict):
        _refuse(f"the document is not a JSON object but {_kind(document)}")
    _inspect(document)
    if repeating:
        raise Invalid(list(itertools.islice(_keys_twice(document), MAX_PROBLEMS)))
    return document


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


_TOO_DEEP = f"the document is nested more than {MAX_NESTING} levels deep"


def _refuse(message: str) -> NoReturn:
    raise Invalid([Problem("", message)])


class _Repeating(dict[str, Any]):
    """An object some of whose keys appear twice."""

    keys_twice: list[str]


def _object(repeating: list[_Repeating], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) == len(pairs):
        return out
    found = _Repeating(out)
    found.keys_twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    repeating.append(found)
    return found


def _keys_twice(thing: Any, path: str = "") -> Iterator[Problem]:
    """Keys that appear twice in one object: of which value would count, parsers are not of one mind (RFC 8259, 4)."""
    for name in getattr(thing, "keys_twice", ()):
        yield Problem(join(path, name), "appears twice in one object")
    for step, part in thing.items() if isinstance(thing, dict) else enumerate(thing):
        if isinstance(part, dict | list):
            yield from _keys_twice(part, join(path, step))


def _integer(digits: str) -> int:
    # What does not fit into 64 bits fits nowhere in Kubernetes either, and Python refuses very long numbers itself.
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        _refuse(f"a number of {len(digits.lstrip('-'))} digits is too large")
    return int(digits)


def _float(digits: str) -> float:
    if math.isinf(value := float(digits)):
        _refuse("a number is too large for a floating-point number")
    return value


def _inspect(document: Document) -> None:
    """Refuse lone surrogates, which nothing can encode, and deep nesting. Goes level by level, without recursion."""
    level: list[Any] = [document]
    for _ in range(MAX_NESTING):
        texts = [t for thing in level for t in _parts(thing) if isinstance(t, str)]
        if any(_SURROGATE.search(text) for text in texts):
            _refuse("the document contains half of a surrogate pair, which is not a character")
        level = [part for thing in level for part in _parts(thing) if isinstance(part, dict | list)]
        if not level:
            return
    _refuse(_TOO_DEEP)


def _parts(thing: Any) -> Iterable[Any]:
    return itertools.chain(thing, thing.values()) if isinstance(thing, dict) else thing


# --- the normal form ----------------------------------------------------------------------------------------------


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
    shape = schema_problems(out, SCHEMA)
    if len(shape) >= MAX_PROBLEMS:
        return out, [*shape[:MAX_PROBLEMS], Problem("", "there may be more problems")]
    broken = broken_fields(shape)
    _fold(out, rules)
    known = {problem.path for problem in shape}
    meaning = [
        problem
        for needs, check in _CHECKS
        # A rule about fields whose shape is wrong would only say so again.
        if not broken.intersection(needs)
        for problem in check(out, rules)
        if problem.path not in known
    ]
    if namespace is not None and "namespace" not in broken and out["namespace"] != namespace:
        meaning.append(Problem("namespace", f"must be {shown(namespace)}, the namespace of the request"))
    if not broken.intersection(_HEALTH):
        meaning += _health(out, rules, stored)
    return out, [*shape, *meaning]


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
    if broken & _HEALTH:
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


# --- rules that a schema cannot say -------------------------------------------------------------------------------

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
        yield Problem("deploymentType", f"{shown(chosen)} is not installed; there is {_listed(rules.strategies)}")
    else:
        schema = rules.strategies[chosen]
        yield from _options(out.get("strategyOptions", {}), schema, "strategyOptions", f"strategy {chosen}")


def _ingress(out: Document, rules: Rules) -> Iterator[Problem]:
    name, schema = rules.ingress
    yield from _options(out.get("ingressOptions", {}), schema, "ingressOptions", f"ingress provider {name}")


def _options(options: Document, schema: Mapping[str, Any] | None, path: str, whose: str) -> Iterator[Problem]:
    if schema is not None:
        yield from schema_problems(options, schema, path)
    elif options:
        yield Problem(path, f"the {whose} takes no options")


def _frontend(out: Document, _: Rules) -> Iterator[Problem]:
    if "frontend" not in out:
        return
    if _is_address(out["frontend"]):
        yield Problem("frontend", "must be a host name, not an IP address")
    if not http_ports(out) and "frontendPort" not in out:
        yield Problem("frontend", f"needs a TCP container port that is not named {HEALTH_PORT_NAME}")


def _frontend_port(out: Document, _: Rules) -> Iterator[Problem]:
    if (wanted := out.get("frontendPort")) is None:
        return
    meant = [port for port in ports(out) if wanted in (int(port["containerPort"]), port.get("name"))]
    if meant and not _is_tcp(meant):
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


_CHECKS: tuple[tuple[frozenset[str], Check], ...] = (
    (frozenset({"appName", "newVersion"}), _names),
    (frozenset({"namespace"}), _protected),
    (frozenset({"deploymentType", "strategyOptions"}), _strategy),
    (frozenset({"ingressOptions"}), _ingress),
    (frozenset({"frontend", "podspec"}), _frontend),
    (frozenset({"frontend", "namespace", "redirectWww"}), _hosts),
    (frozenset({"frontendPort", "podspec"}), _frontend_port),
    (frozenset({"additionHttpHeaders"}), _headers),
    # These bear whatever a podspec may be.
    (frozenset(), _podspec),
    (frozenset({"namespace"}), _allowed),
)
_HEALTH = frozenset({"useHealthCheck", "healthCheckPort", "healthCheckPath", "healthCheckType", "podspec"})


def _health(out: Document, rules: Rules, stored: bool) -> Iterator[Problem]:
    kind = out.get("healthCheckType")
    if kind is not None and kind not in rules.health_checkers:
        yield Problem("healthCheckType", f"{shown(kind)} is not installed; there is {_listed(rules.health_checkers)}")
    if not out["useHealthCheck"]:
        return
    for name in ("healthCheckPort", "healthCheckPath", "healthCheckType"):
        if name not in out and not (stored and name == "healthCheckPort"):
            yield Problem(name, "is required with useHealthCheck")
    if stored and "healthCheckPort" not in out:
        try:
            health_port(out)
        except Invalid as error:
            yield from error.problems


def _listed(names: Collection[str]) -> str:
    return " and ".join(sorted(names)) or "none"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# --- what others read from a normalised descriptor ----------------------------------------------------------------


def version_of(descriptor: Mapping[str, Any]) -> str:
    """The version that was asked for; empty when the service is to count it up."""
    version: str = descriptor["newVersion"]
    return "" if version == AUTOINCREMENT else version


def containers(descriptor: Mapping[str, Any]) -> list[Document]:
    """The podspec's containers, without init containers."""
    found: list[Document] = descriptor["podspec"]["containers"]
    return found


def ports(descriptor: Mapping[str, Any]) -> list[Document]:
    """The container ports of all containers, first container first, native sidecars last."""
    return [port for container in app_containers(descriptor["podspec"]) for port in container.get("ports") or ()]


def http_ports(descriptor: Mapping[str, Any]) -> list[int]:
    """Numbers of the ports that a route can lead to: TCP, and not the one named `healthcheck`."""
    return [
        int(port["containerPort"])
        for port in ports(descriptor)
        if _is_tcp([port]) and port.get("name") != HEALTH_PORT_NAME
    ]


def frontend_port(descriptor: Mapping[str, Any]) -> int | None:
    """Number of the port that the host routes to: `frontendPort`, else the first of `http_ports`; None without one."""
    wanted = descriptor.get("frontendPort")
    if wanted is None:
        return next(iter(http_ports(descriptor)), None)
    named = [port for port in ports(descriptor) if wanted in (int(port["containerPort"]), port.get("name"))]
    return next((int(port["containerPort"]) for port in named if _is_tcp([port])), None)


def named_port(descriptor: Mapping[str, Any], number: int) -> str:
    """A port for a sentence: `8080 (http)`, or only its number when it has no name."""
    names = (port.get("name") for port in ports(descriptor) if int(port["containerPort"]) == number)
    name = next(filter(None, names), "")
    return f"{number} ({name})" if name else str(number)


def _is_tcp(found: Sequence[Mapping[str, Any]]) -> bool:
    return any((port.get("protocol") or "TCP") == "TCP" for port in found)


def health_port(descriptor: Mapping[str, Any]) -> int:
    """The port of the health check: `healthCheckPort`, else what the original took, all in the first container.

    That is its only port, else the one named `healthcheck`, else 9999 when it has none. Raises Invalid when it has
    several and none has that name.
    """
    if (given := descriptor.get("healthCheckPort")) is not None:
        return int(given)
    found = containers(descriptor)[0].get("ports") or []
    if not found:
        return DEFAULT_HEALTH_PORT
    named = [port for port in found if port.get("name") == HEALTH_PORT_NAME]
    if len(found) > 1 and not named:
        message = f"is required: the first container has several ports and none is named {HEALTH_PORT_NAME}"
        raise Invalid([Problem("healthCheckPort", message)])
    return int((found if len(found) == 1 else named)[0]["containerPort"])


def start_timeout(descriptor: Mapping[str, Any], settings: Settings) -> float:
    """Seconds that the pods of this app may take to become ready."""
    return float(descriptor.get("timeoutSeconds") or settings.start_timeout)

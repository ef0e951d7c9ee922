"""Gate `prometheus`: what a query gives has to stay within a threshold, look after look."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployer.plugins.gate_prometheus import measure
from deployer.plugins.gate_prometheus.measure import Looks, Threshold
from deployer.plugins.gate_prometheus.server import Prometheus, Unanswered, WrongQuery
from deployer.sdk.errors import SettingsError
from deployer.sdk.gate import Failed, Gate, GateContext, Missing, Outcome, Passed, Pending
from deployer.sdk.plugin import Document, PluginSettings, Problem, Schema, hookimpl

MEASUREMENTS, INTERVAL = 3, 30.0
"""What is taken where the options do not say."""

AGAIN = 10.0
"""Seconds, at most, until a server that did not answer is asked again."""

TIMEOUT_MOST = 25.0
"""Seconds; less than a call of a gate may take."""

_CORRECT = "correct the gate's query, then deploy again"
_OPERATORS = "ask those who run the Deployer"


class PrometheusGate(Gate):
    """Passes when enough looks found the query's value within the threshold, and none too many did not."""

    name = "prometheus"

    def __init__(self, servers: Mapping[str, Prometheus]) -> None:
        self._servers = servers

    @property
    def options_schema(self) -> Schema:
        number = {"type": "number", "minimum": -1e300, "maximum": 1e300}
        return {
            "type": "object",
            "additionalProperties": False,
            "required": ["query"],
            "anyOf": [{"required": ["max"]}, {"required": ["min"]}],
            "properties": {
                "server": {"type": "string", "maxLength": 31},
                "query": {"type": "string", "minLength": 1, "maxLength": 8_192},
                "max": number,
                "min": number,
                "measurements": {"type": "integer", "minimum": 1, "maximum": 1_000},
                "failures": {"type": "integer", "minimum": 0, "maximum": 999},
                "interval": {"type": "number", "minimum": 1, "maximum": 86_400},
                "delay": {"type": "number", "minimum": 0, "maximum": 86_400},
            },
        }

    def check_descriptor(self, descriptor: Document) -> Sequence[Problem]:
        return [
            Problem(f"gates.{point}[{n}].{place}", text)
            for point, gates in (descriptor.get("gates") or {}).items()
            for n, gate in enumerate(gates)
            if gate.get("type") == self.name
            for place, text in self._problems(gate, str(descriptor.get("namespace", "")))
        ]

    def _problems(self, gate: Document, namespace: str) -> Iterator[tuple[str, str]]:
        """What is wrong with options that the schema allows: where, and in words."""
        options = gate.get("options") or {}
        for name in measure.unknown_placeholders(str(options.get("query"))):
            yield "options.query", f"${{{name}}} stands for nothing; there are {', '.join(measure.PLACEHOLDERS)}"
        if options.get("min", float("-inf")) > options.get("max", float("inf")):
            yield "options.min", "is more than max, so that no value would be right"
        wanted = options.get("measurements", MEASUREMENTS)
        if options.get("failures", 0) >= wanted:
            yield "options.failures", f"must be less than measurements, which is {wanted}"
        if (seconds := _duration(options)) >= gate.get("timeoutSeconds", self.default_timeout):
            yield "timeoutSeconds", f"must be more than {seconds:g}, which the measurements take"
        try:
            self._server(options, namespace)
        except LookupError as error:
            yield "options.server", str(error)

    def check(self, context: GateContext) -> Outcome:
        options, namespace = context.options, context.plan.namespace
        # Of gates that the settings force nobody has looked at these yet, and the settings may have changed.
        gate = {"options": options, "timeoutSeconds": context.deadline - context.began}
        for place, text in self._problems(gate, namespace):
            return Failed(f"{place} {text}", hint=_OPERATORS)
        server = self._server(options, namespace)
        known = context.recall("looks", None)
        looks = Looks(*known) if known else Looks(0, 0, 0, context.began + options.get("delay", 0.0))
        if verdict := _verdict(looks, options, "as measured before the Deployer was restarted"):
            return verdict
        if context.now() < looks.due:
            return _pending(looks, options)
        return self._look(context, server, looks)

    def _look(self, context: GateContext, server: Prometheus, looks: Looks) -> Outcome:
        options, now = context.options, context.now()
        interval = options.get("interval", INTERVAL)
        try:
            answer = server.query(measure.filled(options["query"], context.plan), context.scope)
        except Unanswered as error:
            return Pending(now + min(interval, AGAIN), f"an answer to its query: {error}")
        except WrongQuery as error:
            return Failed(f"its query cannot be used: {error}", hint=_CORRECT)
        found, why = measure.measured(answer, Threshold.of(options), now)
        looks = looks.after(found.verdict, now + interval)
        context.remember("looks", list(dataclasses.astuple(looks)))
        outcome = _verdict(looks, options, why) or _pending(looks, options)
        return dataclasses.replace(outcome, measurements=[found])

    def _server(self, options: Mapping[str, Any], namespace: str) -> Prometheus:
        """The one that is meant. Raises LookupError, which says what is wrong."""
        allowed = {name: server for name, server in self._servers.items() if server.serves(namespace)}
        if not allowed:
            raise LookupError("is missing: the settings name none that this namespace may ask")
        wanted = options.get("server", next(iter(allowed)) if len(allowed) == 1 else "default")
        if wanted not in allowed:
            what = f"{wanted} is none of those" if "server" in options else "is required: there are several"
            raise LookupError(f"{what} that this namespace may ask, {', '.join(sorted(allowed))}")
        return allowed[wanted]


def _duration(options: Mapping[str, Any]) -> float:
    """Seconds from the first to the last measurement, and before the first."""
    between = options.get("measurements", MEASUREMENTS) - 1
    return float(options.get("delay", 0.0) + between * options.get("interval", INTERVAL))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _verdict(looks: Looks, options: Mapping[str, Any], why: str) -> Passed | Failed | Missing | None:
    """What these looks amount to; None as long as that is open. `why`: what the last one found, if it did not pass."""
    wanted, allowed = options.get("measurements", MEASUREMENTS), options.get("failures", 0)
    if looks.failed > allowed:
        return Failed(f"{why} ({_count(looks.failed, 'measurement')} of {looks.taken})")
    if looks.failed + looks.missing > allowed:
        return Missing(f"{why} ({_count(looks.missing, 'measurement')} of {looks.taken} said nothing)")
    if looks.taken >= wanted:
        return Passed(f"{looks.passed} of {wanted} measurements were {Threshold.of(options)}")
    return None


def _pending(looks: Looks, options: Mapping[str, Any]) -> Pending:
    wanted = options.get("measurements", MEASUREMENTS)
    return Pending(looks.due, f"measurement {looks.taken + 1} of {wanted}")


# --- hooks --------------------------------------------------------------------------------------------------------


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.gate_prometheus]`."""
    text = {"type": "string", "minLength": 1}
    server = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **dict.fromkeys(("url", "url_file", "token", "token_file", "username", "password", "password_file"), text),
            **dict.fromkeys(("ca_file", "proxy"), text),
            "org_id": {"type": "string", "pattern": r"^[!-~]+$"},
            "namespaces": {"type": "array", "minItems": 1, "items": text},
            "timeout": {"type": "number", "minimum": 1, "maximum": TIMEOUT_MOST},
        },
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "servers": {
                "type": "object",
                "propertyNames": {"pattern": "^[a-z0-9][a-z0-9-]{0,30}$"},
                "additionalProperties": server,
            }
        },
    }


@hookimpl
def register_gates(settings: PluginSettings) -> Sequence[Gate]:
    """The gate, also without any server: then a descriptor that names it is told so. Raises SettingsError."""
    return [PrometheusGate({name: _server(name, table) for name, table in settings.table.get("servers", {}).items()})]


def _server(name: str, table: Mapping[str, Any]) -> Prometheus:
    server = Prometheus(**table)
    try:
        server.check()
    except SettingsError as error:
        raise SettingsError(f"[plugins.gate_prometheus.servers.{name}] {error}") from None
    return server

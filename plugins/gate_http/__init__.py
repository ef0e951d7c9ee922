"""Gate `http`: passes when a receiver that the settings name, or the new version itself, answers as described."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.plugins.gate_http import asking, expectation
from deployer.plugins.gate_http.expectation import Expectation
from deployer.sdk.gate import (
    Failed,
    Gate,
    GateContext,
    HttpAnswer,
    Measurement,
    Outcome,
    Passed,
    Pending,
    Point,
    Verdict,
)
from deployer.sdk.plugin import Document, PluginSettings, Problem, Schema, hookimpl
from deployer.sdk.webhook import RECEIVER_SCHEMA, NoAnswer, Receiver, receiver_of

INTERVAL = 5.0
"""Seconds between two requests, unless the gate says otherwise."""

TIMEOUT_MOST = 25.0
"""Seconds for one request; less than the 30 that a look has."""

VERSION_ONLY = ("path", "port")


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver, and the patterns of namespaces whose gates may ask it."""

    receiver: Receiver
    namespaces: Sequence[str]

    def serves(self, namespace: str) -> bool:
        """May gates of that namespace ask it?"""
        return any(fnmatch.fnmatchcase(namespace, pattern) for pattern in self.namespaces)


class HttpGate(Gate):
    """Asks again and again until the answer is as described, or the gate's time is up."""

    name = "http"

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets

    @property
    def options_schema(self) -> Schema:
        """Of `options`."""
        unknown = "is not the name of a target in the settings" if self._targets else "needs targets in the settings"
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "target": {"type": "string", "enum": sorted(self._targets) or [""], "x-rule": unknown},
                "version": {"enum": ["pods", "preview"]},
                "path": {
                    "type": "string",
                    "maxLength": 1024,
                    "pattern": "^/([!-.0-~][!-~]*)?$",
                    "x-rule": "must be a path like /smoke?deep=1",
                },
                "port": {"type": ["integer", "string"], "minimum": 1, "maximum": 65_535, "maxLength": 15},
                "method": {"enum": ["GET", "HEAD", "POST"]},
                "interval": {"type": "number", "minimum": 1, "maximum": 3600, "default": INTERVAL},
                "expect": expectation.SCHEMA,
            },
            "dependentRequired": {"version": ["path"]},
            "oneOf": [{"required": ["target"]}, {"required": ["version"]}],
            "x-rule": "needs a target of the settings, or version (pods or preview) with a path: one of the two",
        }

    def check_descriptor(self, descriptor: Document) -> Sequence[Problem]:
        """What a schema cannot say."""
        return list(self._problems(descriptor))

    def _problems(self, descriptor: Document) -> Iterator[Problem]:
        for point, gates in descriptor.get("gates", {}).items():
            for n, gate in enumerate(gates):
                if gate["type"] != self.name:
                    continue
                path, options = f"gates.{point}[{n}].options", gate.get("options", {})
                target = self._targets.get(options.get("target", ""))
                if target is not None and not target.serves(descriptor["namespace"]):
                    yield Problem(f"{path}.target", "may not be asked by gates of this namespace")
                for name in VERSION_ONLY if target is not None else ():
                    if name in options:
                        yield Problem(f"{path}.{name}", "is for version only: a target has one address")
                if options.get("version") and point == Point.BEFORE_START:
                    yield Problem(f"{path}.version", f"is not there yet at {point}")
                if options.get("version") == "preview" and options.get("method", "GET") != "GET":
                    yield Problem(f"{path}.method", "must be GET through the preview")

    def check(self, context: GateContext) -> Outcome:
        """One request, or one to each pod."""
        options = context.options
        expected = Expectation.of(options.get("expect", {}))
        if "version" in options:
            return self._judged(context, expected, asking.version(context))
        target = self._targets.get(options.get("target", ""))
        if target is None or not target.serves(context.plan.namespace):
            return Failed("its target is not in the settings, or not for this namespace")
        try:
            answer = asking.target(context, target.receiver)
        except NoAnswer as error:
            return self._again(context, str(error), [Measurement(None, str(expected), Verdict.INCONCLUSIVE)])
        return self._judged(context, expected, [("", answer)])

    def _judged(
        self, context: GateContext, expected: Expectation, answers: Sequence[tuple[str, HttpAnswer]]
    ) -> Outcome:
        measured, wrong = [], ""
        for where, answer in answers:
            found = expected.judge(answer)
            measured.append(Measurement(found.value, str(expected), found.verdict, name=where))
            if found.wrong and not wrong:
                wrong = f"{where} {found.wrong}".strip()
        if wrong:
            return self._again(context, wrong, measured)
        if not answers:
            return self._again(context, "no pod of the version is ready", measured)
        return Passed(f"answers as described: {expected}", measured)

    def _again(self, context: GateContext, why: str, measured: Sequence[Measurement]) -> Pending:
        interval = float(context.options.get("interval", INTERVAL))
        return Pending(context.now() + interval, why, measurements=measured)


# --- hooks --------------------------------------------------------------------------------------------------------


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.gate_http]`."""
    text = {"type": "string", "minLength": 1}
    target = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **RECEIVER_SCHEMA,
            "namespaces": {"type": "array", "minItems": 1, "items": text},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MOST},
        },
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "targets": {
                "type": "object",
                "propertyNames": {"pattern": "^[a-z0-9][a-z0-9-]{0,30}$"},
                "additionalProperties": target,
            },
        },
    }


@hookimpl
def register_gates(settings: PluginSettings) -> Sequence[Gate]:
    """One gate. Raises SettingsError."""
    targets = {
        name: Target(receiver_of(table, f"[plugins.gate_http.targets.{name}]"), table.get("namespaces", ["*"]))
        for name, table in settings.table.get("targets", {}).items()
    }
    return [HttpGate(targets)]

"""`strategyOptions` of the strategy `canary`: their schema, defaults, and what no schema can say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployer.sdk.ingress import RequestMatch
from deployer.sdk.plugin import Problem, Schema

_TOKEN = "^[A-Za-z0-9-]{1,128}$"

SCHEMA: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "steps": {
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "description": "Parts of the requests for the new version, one after the other, before it gets all",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["weight"],
                "properties": {
                    "weight": {"type": "integer", "minimum": 0, "maximum": 99, "description": "Per cent"},
                    "pause": {
                        "type": "number",
                        "minimum": 0,
                        "maximum": 604800,
                        "default": 60,
                        "description": "Seconds until the next step",
                    },
                },
            },
        },
        "match": {
            "description": "Requests that get the new version from the first step on",
            "oneOf": [
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["header", "value"],
                    "properties": {
                        "header": {"type": "string", "pattern": _TOKEN},
                        "value": {"type": "string", "pattern": "^[A-Za-z0-9._=/:-]{1,256}$"},
                    },
                },
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["cookie"],
                    "properties": {"cookie": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}},
                },
            ],
            "x-rule": 'must be {"header": name, "value": value} or {"cookie": name}: names of A-Z, a-z, 0-9 and "-", '
            'that of a cookie of "_" too, and values also of "._=/:"',
        },
        "startReplicas": {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 1000},
                {"type": "string", "pattern": "^([1-9][0-9]?|100)%$"},
            ],
            "x-rule": 'must be a number of pods from 1 on, or a part of all like "20%"',
        },
    },
}

_RESERVED = frozenset({"host", "connection", "content-length", "cookie", "transfer-encoding", "te", "upgrade"})
"""Headers that say something to the data plane itself."""

_DEFAULT_STEPS = ({"weight": 5}, {"weight": 25}, {"weight": 50})
_DEFAULT_PAUSE = 60.0


def problems(given: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with options that the schema takes."""
    found = []
    header = (given.get("match") or {}).get("header", "").lower()
    if header in _RESERVED:
        said = f"cannot be {header}, which means something to the data plane itself"
        found.append(Problem("strategyOptions.match.header", said))
    last = -1
    for number, step in enumerate(given.get("steps") or ()):
        weight, path = step["weight"], f"strategyOptions.steps[{number}].weight"
        if weight == 0 and not given.get("match"):
            found.append(Problem(path, "is 0, so nobody would get the new version: give a match, or another weight"))
        elif weight <= last:
            found.append(Problem(path, f"must be more than that of the step before, which is {last}"))
        last = weight
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """One step: `weight` per cent of the requests for `pause` seconds."""

    weight: int
    pause: float


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one descriptor."""

    steps: tuple[Part, ...]
    match: RequestMatch | None
    start: int | str

    @classmethod
    def of(cls, descriptor: Mapping[str, Any]) -> Options:
        """Those of a normalised descriptor, with the defaults."""
        given = descriptor.get("strategyOptions") or {}
        parts = given.get("steps") or _DEFAULT_STEPS
        match = given.get("match")
        return cls(
            steps=tuple(Part(int(part["weight"]), float(part.get("pause", _DEFAULT_PAUSE))) for part in parts),
            match=RequestMatch(**match) if match else None,
            start=given.get("startReplicas", 1),
        )

    def replicas(self, full: int, weight: int) -> int:
        """How many of `full` pods that many per cent of the requests need, and never fewer than it starts with."""
        start = self.start if isinstance(self.start, int) else math.ceil(full * int(self.start.rstrip("%")) / 100)
        return max(1, min(full, max(start, math.ceil(full * weight / 100))))

"""What an answer should be: its status, and a field of its JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployer.sdk.gate import HttpAnswer, Verdict

SHOWN = 100
"""Characters of a value that are repeated."""

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "status": {
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "items": {"type": "integer", "minimum": 200, "maximum": 599},
        },
        "field": {"type": "string", "minLength": 1, "maxLength": 200},
        "value": {"type": ["string", "number", "boolean", "null"], "maxLength": 200},
    },
    "dependentRequired": {"field": ["value"], "value": ["field"]},
}
"""Of `expect`: `status` (200 to 299 unless given), and the `value` of a `field` whose dots lead into objects."""

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Judgement:
    """`value` is what was found, `wrong` the rest of a sentence about it; empty when it is as described."""

    value: str
    wrong: str = ""

    @property
    def verdict(self) -> Verdict:
        """As a measurement has it."""
        return Verdict.FAILED if self.wrong else Verdict.PASSED


@dataclass(frozen=True, slots=True)
class Expectation:
    """`statuses` is empty for 200 to 299; `field` for any body."""

    statuses: tuple[int, ...] = ()
    field: str = ""
    value: Any = None

    @classmethod
    def of(cls, expect: Mapping[str, Any]) -> Expectation:
        """As `SCHEMA` has it."""
        return cls(tuple(expect.get("status", ())), str(expect.get("field", "")), expect.get("value"))

    def __str__(self) -> str:
        """In words, as the threshold of a measurement."""
        statuses = " or ".join(map(str, self.statuses)) or "200 to 299"
        return f"HTTP {statuses}" + (f", {self.field} = {_shown(self.value)}" if self.field else "")

    def judge(self, answer: HttpAnswer) -> Judgement:
        """Whether it is as described. What cannot be read is not."""
        said = f"HTTP {answer.status}"
        if not (answer.status in self.statuses if self.statuses else answer.ok):
            redirect = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
            return Judgement(said, f"answered {said}{redirect}")
        if not self.field:
            return Judgement(said)
        if answer.truncated:
            return Judgement(said, "answered more than is read")
        found = _field(answer.body, self.field)
        if found is _ABSENT:
            return Judgement(said, f"answered JSON without {self.field}, or no JSON")
        value = f"{said}, {self.field} = {_shown(found)}"
        same = type(found) is type(self.value) or (_is_number(found) and _is_number(self.value))
        return Judgement(value, "" if same and found == self.value else f"answered {self.field} = {_shown(found)}")


def _field(body: bytes, path: str) -> Any:
    """The value of a field; a name with dots in it counts before a way into objects does."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return _ABSENT
    if isinstance(found, dict) and path in found:
        return found[path]
    for name in path.split("."):
        found = found.get(name, _ABSENT) if isinstance(found, dict) else _ABSENT
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """As JSON, short; of what has parts no more than what it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

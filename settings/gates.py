"""Gates that the settings force on the deployments of namespaces, whatever descriptors say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.settings.namespaces import covers, namespace_patterns

POINTS = ("beforeStart", "beforeSwitch", "afterSwitch")
ON_MISSING = ("fail", "inconclusive")

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FIELDS = ("namespaces", "point", "type", "name", "timeoutSeconds", "onMissing", "dryRun", "options")
_LONGEST = 604_800

MOST = 30
"""Gates that the settings may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedGate:
    """One of them; what the fields mean is in `descriptor.schema.json`. `timeout` 0: as its type has it."""

    namespaces: tuple[str, ...]
    point: str
    type: str
    name: str
    timeout: int = 0
    on_missing: str = "fail"
    dry_run: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def covers(self, namespace: str) -> bool:
        """Is it forced on that namespace?"""
        return covers(self.namespaces, namespace)

    def document(self) -> dict[str, Any]:
        """As a descriptor would have it, with its `point`."""
        found: dict[str, Any] = {"point": self.point, "type": self.type, "name": self.name}
        found |= {"timeoutSeconds": self.timeout} if self.timeout else {}
        return found | {"onMissing": self.on_missing, "dryRun": self.dry_run, "options": dict(self.options)}


def parse(table: Mapping[str, Any]) -> ForcedGate:
    """A gate as the settings have it. Raises ValueError: what is wrong, in a sentence without the options' values."""
    if unknown := [name for name in table if name not in _FIELDS]:
        raise ValueError(f"unknown key {unknown[0]}; there are {', '.join(_FIELDS)}")
    if missing := [name for name in ("point", "type", "name") if name not in table]:
        raise ValueError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    timeout = table.get("timeoutSeconds", 0)
    is_number = isinstance(timeout, int) and not isinstance(timeout, bool)
    if "timeoutSeconds" in table and not (is_number and 1 <= timeout <= _LONGEST):
        raise ValueError(f"timeoutSeconds must be a whole number between 1 and {_LONGEST}")
    if not isinstance(table.get("options", {}), Mapping):
        raise ValueError("options must be a table")
    if not isinstance(table.get("dryRun", False), bool):
        raise ValueError("dryRun must be true or false")
    return ForcedGate(
        namespaces=namespace_patterns(table.get("namespaces", ["*"])),
        point=_one_of("point", table["point"], POINTS),
        type=_text("type", table["type"], _TYPE),
        name=_text("name", table["name"], _NAME),
        timeout=timeout,
        on_missing=_one_of("onMissing", table.get("onMissing", "fail"), ON_MISSING),
        dry_run=table.get("dryRun", False),
        options=dict(table.get("options", {})),
    )


def wrong_together(gates: Sequence[ForcedGate]) -> str:
    """What is wrong with gates that are each right; empty when nothing is."""
    if len(gates) > MOST:
        return f"there are {len(gates)}, more than {MOST}"
    seen: set[tuple[str, str]] = set()
    for gate in gates:
        if (gate.point, gate.name) in seen:
            return f"{gate.name} is there twice at {gate.point}"
        seen.add((gate.point, gate.name))
    return ""


def _one_of(name: str, value: object, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    return str(value)


def _text(name: str, value: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{name}: {value!r} cannot be one; write a-z, 0-9 and '-'")
    return value

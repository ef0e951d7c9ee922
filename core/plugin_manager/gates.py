"""What descriptors and settings are told of the installed gates."""

from __future__ import annotations

from deployer.core.contract.gate import LONGEST, Gate, Point
from deployer.core.descriptor import GateType
from deployer.core.plugin_manager.registry import Registry

MOST_CHECK_SECONDS = 600.0
"""Seconds that a gate may ask for, for one call."""


def gate_types(registry: Registry) -> dict[str, GateType]:
    """The installed types, by name."""
    return {
        name: GateType(entry.declared.options_schema, entry.declared.points) for name, entry in registry.gates.items()
    }


def wrong_gate(gate: Gate) -> str:
    """What a gate says of itself that cannot be, as the rest of a sentence; empty when all is well."""
    points = list(gate.points)
    if not points or any(point not in list(Point) for point in points):
        return f"has points {points!r}; there are {', '.join(Point)}"
    for name, most in (("default_timeout", LONGEST), ("check_seconds", MOST_CHECK_SECONDS)):
        value = getattr(gate, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= most:
            return f"has a {name} of {value!r}, which is no number of seconds from 1 to {most:g}"
    return ""

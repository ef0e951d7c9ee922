"""What descriptors and settings are told of the installed gates."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from deployer.core.contract.gate import LONGEST, Gate, Point
from deployer.core.contract.provider import Provider
from deployer.core.errors import SettingsError
from deployer.core.registry import Entry
from deployer.descriptor import GateType, gate_problems
from deployer.settings import Settings

logger = logging.getLogger(__name__)

MOST_CHECK_SECONDS = 600.0
"""Seconds that a gate may ask for, for one call."""


def check_forced(settings: Settings, installed: Mapping[str, Entry[Provider]], *, quarantined: bool) -> None:
    """Raises SettingsError for a gate of the settings that cannot be. One whose plugin may be among those that are
    quarantined is only logged: deployments in its namespaces fail, or ask, until the plugin is mended."""
    types = {name: GateType(e.declared.options_schema, e.declared.points) for name, e in installed.items()}
    for gate in settings.gates:
        where = f"[[gates]] {gate.name}"
        if gate.type not in types and quarantined:
            logger.error("%s: no plugin provides gates of type %s; one is quarantined", where, gate.type)
            continue
        for problem in gate_problems(gate.document(), gate.point, "", types):
            raise SettingsError(f"{where}: {problem.path.removeprefix('.')} {problem.message}")


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

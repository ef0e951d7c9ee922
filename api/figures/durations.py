"""How long the parts of an operation took, by its own timeline: right across restarts, and whoever carried it out."""

from __future__ import annotations

from deployer.core.model.records import Document

PARTS = ("queue", "start", "verify", "gates", "approval", "switch", "drain", "remove")
"""Waiting for its turn, and being decided; the new version's pods; its health checks; gates; the one that waits for a
person; moving the traffic; the old version after the switch; removing a version."""

_OF_PHASE = {"START": "start", "VERIFY": "verify", "EXPOSE": "switch", "CONFIRM": "switch", "RETIRE": "remove"}
_UNFINISHED = frozenset({"running", "failed", "cancelled"})


def durations(operation: Document) -> dict[str, float]:
    """Seconds by part, of those that came to their end; `operation` is that of a `Notification`.

    A part of which a step failed or was cancelled is left out: how long it would have taken, nobody knows.
    """
    steps = operation.get("steps", ())
    if not steps:
        return {}
    found: dict[str, float] = {}
    if operation["asked"]:
        first = min(step["began"] for step in steps)
        waited = max(0.0, first - operation["asked"])
        found["drain" if operation["kind"] == "retire" else "queue"] = waited
    left_out = set()
    for step in steps:
        part = _part(step)
        if not part:
            continue
        if step["state"] in _UNFINISHED or not step["ended"]:
            left_out.add(part)
        else:
            found[part] = found.get(part, 0.0) + max(0.0, step["ended"] - step["began"])
    return {part: seconds for part, seconds in found.items() if part not in left_out}


def _part(step: Document) -> str:
    """What a step belongs to; empty for one of an unknown phase."""
    if step["gate"]:
        return "approval" if step["gate"] == "approval" else "gates"
    return _OF_PHASE.get(step["phase"], "")

"""What the OpenAPI document says of gates, and of decisions about them."""

from __future__ import annotations

from typing import Any

from deployer.api.openapi.shapes import REF, TIME, object_of
from deployer.commands.approvals import SCHEMA
from deployer.core.contract.gate import Point, Verdict
from deployer.core.model.gates.results import FIRST, LAST, MOST_BYTES

_TIME_OR_NULL = {"anyOf": [TIME, {"type": "null"}]}

LIST: dict[str, Any] = {
    "type": "array",
    "items": {"$ref": f"{REF}GateResult"},
    "description": "In their order; absent without gates, and in lists of deployments.",
}
"""The field of a deployment."""

COMPONENTS: dict[str, Any] = {
    "GateResult": object_of(
        "What became of a gate. Times are null as long as they have not come.",
        ("point", "type", "name", "forced", "dryRun", "verdict", "reason", "measured", "measurements"),
        point={"type": "string", "enum": list(Point)},
        type={"type": "string"},
        name={"type": "string"},
        forced={"type": "boolean", "description": "The service's settings have it, not the descriptor."},
        dryRun={"type": "boolean", "description": "It stops nothing."},
        verdict={"enum": [*Verdict, None], "description": "null as long as nothing is known."},
        reason={"type": "string", "description": "Why, or what it waits for."},
        hint={"type": "string", "description": "What to do."},
        began=_TIME_OR_NULL,
        deadline=_TIME_OR_NULL,
        ended=_TIME_OR_NULL,
        waitsForApproval={"type": "boolean", "description": "A person is to decide about it now."},
        decision={"$ref": f"{REF}GateDecision"},
        measured={"type": "integer", "description": "How many measurements there were."},
        measurements={
            "type": "array",
            "description": f"The first {FIRST}, the last {LAST} and every one that failed, as far as there is room: "
            f"{MOST_BYTES >> 10} KiB for all gates of a deployment.",
            "items": object_of(
                "One look at something.",
                ("time", "name", "value", "threshold", "verdict"),
                time=TIME,
                name={"type": "string"},
                value={"type": ["number", "string", "null"]},
                threshold={"type": "string"},
                verdict={"type": "string", "enum": list(Verdict)},
            ),
        },
    ),
    "NewDecision": {**SCHEMA, "description": "What somebody says of a gate."},
    "GateDecision": object_of(
        "What a person said of a gate.",
        ("approve", "by", "at", "comment"),
        gate={"type": "string"},
        approve={"type": "boolean"},
        by={"type": "string", "description": "Who; empty where nobody proves who they are."},
        at=TIME,
        comment={"type": "string"},
    ),
}

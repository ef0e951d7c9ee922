"""What a gate implements and gets: a check that a deployment must pass at one of three points, whatever its strategy.

Whoever says `Passed` has positive evidence. Everything else, an error and silence included, does not let a deployment
on: gates fail closed.
"""

from deployer.core.contract.gate.interface import (
    CHECK_SECONDS,
    LONGEST,
    Decision,
    Gate,
    GateContext,
    Point,
    VersionAccess,
    VersionUnreachable,
)
from deployer.core.contract.gate.outcomes import (
    Failed,
    Inconclusive,
    Measurement,
    Missing,
    Outcome,
    Passed,
    Pending,
    Verdict,
    wrong_outcome,
)

__all__ = [
    "CHECK_SECONDS",
    "LONGEST",
    "Decision",
    "Failed",
    "Gate",
    "GateContext",
    "Inconclusive",
    "Measurement",
    "Missing",
    "Outcome",
    "Passed",
    "Pending",
    "Point",
    "Verdict",
    "VersionAccess",
    "VersionUnreachable",
    "wrong_outcome",
]

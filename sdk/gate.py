"""For authors of gates: what they implement, get and answer."""

from deployer.core.contract.gate import (
    Decision,
    Failed,
    Gate,
    GateContext,
    Inconclusive,
    Measurement,
    Missing,
    Outcome,
    Passed,
    Pending,
    Point,
    Verdict,
    VersionAccess,
    VersionUnreachable,
)
from deployer.core.contract.health import HealthTarget, HttpAnswer
from deployer.core.contract.strategy import Signal

__all__ = [
    "Decision",
    "Failed",
    "Gate",
    "GateContext",
    "HealthTarget",
    "HttpAnswer",
    "Inconclusive",
    "Measurement",
    "Missing",
    "Outcome",
    "Passed",
    "Pending",
    "Point",
    "Signal",
    "Verdict",
    "VersionAccess",
    "VersionUnreachable",
]

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
from deployer.toolkit.readiness.jobs import JobPods, failed_pod, how_it_failed

__all__ = [
    "Decision",
    "Failed",
    "Gate",
    "GateContext",
    "HealthTarget",
    "HttpAnswer",
    "Inconclusive",
    "JobPods",
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
    "failed_pod",
    "how_it_failed",
]

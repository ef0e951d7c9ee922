"""For authors of health checkers."""

from deployer.core.contract.health import HealthChecker, HealthTarget, HttpAnswer, PodUnreachable, Verdict

__all__ = [
    "HealthChecker",
    "HealthTarget",
    "HttpAnswer",
    "PodUnreachable",
    "Verdict",
]

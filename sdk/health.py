"""For authors of health checkers."""

from deployer.core.contract.health import HealthTarget, HttpAnswer, PodUnreachable, Verdict
from deployer.core.contract.providers import HealthChecker

__all__ = [
    "HealthChecker",
    "HealthTarget",
    "HttpAnswer",
    "PodUnreachable",
    "Verdict",
]

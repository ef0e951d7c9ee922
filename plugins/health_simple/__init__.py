"""Health checker `simple`: any 2xx answer is healthy."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.sdk.health import HealthChecker, HealthTarget, Verdict
from deployer.sdk.plugin import hookimpl


class Simple(HealthChecker):
    """Healthy when the health path answers with a status from 200 to 299. Redirects are not followed."""

    name = "simple"

    def check(self, target: HealthTarget) -> Verdict:
        """Ask once. Raises what `target.ask` raises."""
        answer = target.ask()
        said = f"{target.where} answered {answer.said} to its health check"
        return Verdict(answer.ok, said if answer.ok else f"{said}, not 2xx", answer.text)


@hookimpl
def register_health_checkers() -> Sequence[HealthChecker]:
    """The one checker of this plugin."""
    return [Simple()]

"""Health checker `probe`: the app says in JSON whether it is healthy, `{"healthy": true}`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from deployer.sdk.health import HealthChecker, HealthTarget, HttpAnswer, Verdict
from deployer.sdk.plugin import hookimpl


class Probe(HealthChecker):
    """Healthy when a 2xx answer is a JSON object whose `healthy` is exactly `true`; anything else is unhealthy."""

    name = "probe"

    def check(self, target: HealthTarget) -> Verdict:
        """Ask once. Raises what `target.ask` raises."""
        answer = target.ask()
        wrong = _wrong(answer)
        said = f"{target.where} {wrong}" if wrong else f"{target.where} is healthy"
        return Verdict(not wrong, said, answer.text)


def _wrong(answer: HttpAnswer) -> str:
    """What is wrong with the answer, as the rest of a sentence; empty when nothing is."""
    if not answer.ok:
        return f"answered {answer.said} to its health check, not 2xx"
    if answer.truncated:
        return "answered its health check with more than 64 KiB"
    try:
        document = json.loads(answer.body.decode("utf-8"))
    except (ValueError, RecursionError):
        return 'answered its health check with something that is not JSON; expected {"healthy": true}'
    if not isinstance(document, dict) or "healthy" not in document:
        return 'answered its health check with JSON other than an object with the field "healthy"'
    if document["healthy"] is not True:
        return f"reports healthy: {json.dumps(document['healthy'])[:100]}"
    return ""


@hookimpl
def register_health_checkers() -> Sequence[HealthChecker]:
    """The one checker of this plugin."""
    return [Probe()]

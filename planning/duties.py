"""Dead ends that can be known when a deployment is decided: what nobody would do although the app has it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from deployer.core.contract.strategy import Duty, Step
from deployer.core.errors import StepFailed
from deployer.core.model.records import Plan

HINT = "choose another deploymentType, or ask the plugin's author"


def require_fulfilled(steps: Sequence[Step], plan: Plan) -> None:
    """Raise StepFailed when the app has something for which no step of its strategy is there, and say what it is."""
    for step in steps:
        if not isinstance(step.fulfils, Collection) or any(duty not in list(Duty) for duty in step.fulfils):
            said = f"strategy {plan.strategy.name} gave step {step.id}, which fulfils something that is none of "
            raise StepFailed(said + ", ".join(Duty), reason="BadStrategy", hint=HINT)
    fulfilled = {duty for step in steps for duty in step.fulfils}
    for duty, missing in _duties(plan).items():
        if duty not in fulfilled:
            said = f"strategy {plan.strategy.name} has no step that {missing} (`{duty.value}` in what its steps fulfil)"
            raise StepFailed(said, reason="BadStrategy", hint=HINT)


def _duties(plan: Plan) -> dict[Duty, str]:
    """What has to be done for this app, with the words for it."""
    found: dict[Duty, str] = {}
    if plan.route:
        found[Duty.ROUTE] = f"leads {plan.route.host} to the new version"
    if plan.objects.service:
        found[Duty.SERVICE] = f"has service {plan.app} select the new version"
    if plan.health:
        found[Duty.HEALTH] = f"asks health checker {plan.health.name}, as useHealthCheck wants it"
    return found

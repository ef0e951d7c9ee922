"""The usual way back to a version whose pods still run."""

from __future__ import annotations

from deployer.core.contract.strategy import Step
from deployer.core.model.records import Plan
from deployer.toolkit.steps.route import ConfirmRoute, DisplaceRoute, PrepareRoute, SwitchRoute
from deployer.toolkit.steps.service import MoveService
from deployer.toolkit.steps.start import AwaitEndpoints


def rollback_steps(plan: Plan) -> list[Step]:
    """As a deployment switches, in the order that loses nothing; what goes is as warm as what comes was."""
    steps: list[Step] = [AwaitEndpoints()]
    if plan.route:
        steps += [PrepareRoute(), SwitchRoute()]
        if plan.displaced:
            steps.append(DisplaceRoute())
        steps.append(ConfirmRoute())
    steps.append(MoveService())
    return steps

"""Blue-green: the new version starts beside the old one, is proven, and takes over in one switch."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.sdk.plugin import PluginSettings, hookimpl
from deployer.sdk.strategy import (
    AwaitEndpoints,
    AwaitReady,
    CheckPreview,
    ConfirmRoute,
    DisplaceRoute,
    MoveService,
    Plan,
    PrepareRoute,
    StartWorkload,
    Step,
    Strategy,
    SwitchRoute,
    VerifyHealth,
    Workload,
    WorkloadContext,
    render_workload,
    retire_steps,
    undeploy_steps,
)


class BlueGreen(Strategy):
    """The steps are the shared ones; how a switch is made is the ingress provider's business."""

    name = "blue-green"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """Nothing of the old version is touched before the new one has its traffic."""
        return deploy_steps(plan)

    def workload(self, context: WorkloadContext) -> Workload:
        """The usual one."""
        return render_workload(context)

    def drain(self, plan: Plan) -> float:
        """As the settings say: the old version ends the requests that it has."""
        return plan.settings.hold

    def retire_steps(self, plan: Plan) -> Sequence[Step]:
        """The usual removal."""
        return retire_steps()

    def undeploy_steps(self, plan: Plan) -> Sequence[Step]:
        """The usual removal."""
        return undeploy_steps()


def deploy_steps(plan: Plan | None = None) -> list[Step]:
    """The order that loses nothing: the route first, then the Service, nothing removed yet.

    Those that `plan` needs, as each costs a durable note that it has begun; without one, all of them.
    """
    steps: list[Step] = [StartWorkload(), AwaitReady()]
    if plan is None or plan.health:
        steps.append(VerifyHealth())
    steps.append(AwaitEndpoints())
    if plan is None or plan.route:
        steps.append(PrepareRoute())
        if plan is None or (plan.route and plan.route.preview.check):
            steps.append(CheckPreview())
        steps.append(SwitchRoute())
        if plan is None or plan.displaced:
            steps.append(DisplaceRoute())
        steps.append(ConfirmRoute())
    steps.append(MoveService())
    return steps


@hookimpl
def register_strategies(settings: PluginSettings) -> Sequence[Strategy]:
    """One strategy, without settings."""
    return [BlueGreen()]

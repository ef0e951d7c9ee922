"""Recreate: the old version's pods end before the new one's start, for apps of which two versions must not run at once.

Service is interrupted from then until the new version has its traffic, or the old one has it back.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployer.plugins.strategy_recreate.steps import CreateWorkload, Displace, Move, StartPods, StopOthers, Switch
from deployer.sdk.plugin import PluginSettings, hookimpl
from deployer.sdk.strategy import (
    AwaitEndpoints,
    AwaitReady,
    CheckPreview,
    ConfirmRoute,
    Plan,
    PrepareRoute,
    Step,
    Strategy,
    VerifyHealth,
    Workload,
    WorkloadContext,
    render_workload,
    retire_steps,
    undeploy_steps,
)


class Recreate(Strategy):
    """What can be refused is refused before anything stops: the objects are created first, without pods."""

    name = "recreate"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """Create, stop the old one, start the new one; then as in blue-green, with a way back that starts the old."""
        steps: list[Step] = [CreateWorkload(), StopOthers(plan), StartPods(), AwaitReady()]
        if plan.health:
            steps.append(VerifyHealth())
        steps.append(AwaitEndpoints())
        if plan.route:
            steps.append(PrepareRoute())
            if plan.route.preview.check:
                steps.append(CheckPreview())
            steps.append(Switch())
            if plan.displaced:
                steps.append(Displace())
            steps.append(ConfirmRoute())
        steps.append(Move())
        return steps

    def rollback_steps(self, plan: Plan) -> Sequence[Step]:
        """The version that comes back was stopped: it is started once more, as for a deployment, from its objects."""
        return [step for step in self.deploy_steps(plan) if not isinstance(step, CreateWorkload)]

    def workload(self, context: WorkloadContext) -> Workload:
        """The usual one."""
        return render_workload(context)

    def drain(self, plan: Plan) -> float:
        """The old version has no pods that could end any requests: only data planes may need some time. What is to be
        kept for a rollback for longer than requests take is kept, without pods."""
        kept = plan.settings.hold > plan.settings.proxysleep
        return plan.settings.hold if kept else plan.settings.minimum_hold

    def retire_steps(self, plan: Plan) -> Sequence[Step]:
        """The usual removal: of the old version there are only objects left."""
        return retire_steps()

    def undeploy_steps(self, plan: Plan) -> Sequence[Step]:
        """The usual removal."""
        return undeploy_steps()


@hookimpl
def register_strategies(settings: PluginSettings) -> Sequence[Strategy]:
    """One strategy, without settings."""
    return [Recreate()]

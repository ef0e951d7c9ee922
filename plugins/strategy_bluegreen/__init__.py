"""Blue-green: the new version starts beside the old one, is proven, and takes over in one switch."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.sdk.plugin import PluginSettings, hookimpl
from deployer.sdk.strategy import Plan, Step, Strategy, deploy_steps


class BlueGreen(Strategy):
    """All steps are the shared ones; the order of the switch is the ingress provider's business."""

    name = "blue-green"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """Start, await readiness, verify health, expose, confirm, move the Service: those of them that apply."""
        return deploy_steps(plan)


@hookimpl
def register_strategies(settings: PluginSettings) -> Sequence[Strategy]:
    """One strategy, without settings."""
    return [BlueGreen()]

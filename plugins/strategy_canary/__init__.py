"""Strategy `canary`: the new version starts small, gets a growing part of the requests, and takes over at the end.

How the traffic is divided is the ingress provider's business (`split`). Between two parts the deployment is parked;
when it fails or is cancelled everybody gets the old version again, before anything of the new one goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from deployer.plugins.strategy_canary import options, steps
from deployer.sdk.errors import StepFailed
from deployer.sdk.plugin import PluginSettings, Problem, Schema, hookimpl
from deployer.sdk.strategy import (
    AwaitEndpoints,
    AwaitReady,
    CheckPreview,
    ConfirmRoute,
    DisplaceRoute,
    MoveService,
    Phase,
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
)


class Canary(Strategy):
    """See `docs/canary.md`."""

    name = "canary"
    needs = MappingProxyType({"deploymentType": "weights", "strategyOptions.match": "match"})

    @property
    def options_schema(self) -> Schema:
        """Of `strategyOptions`."""
        return options.SCHEMA

    def check_descriptor(self, descriptor: Mapping[str, Any]) -> Sequence[Problem]:
        """An app without a frontend, and steps that do not lead on."""
        found = options.problems(descriptor.get("strategyOptions") or {})
        if not descriptor.get("frontend"):
            found.append(
                Problem(
                    "frontend", "is what a canary divides the requests of: name the host, or use another deploymentType"
                )
            )
        return found

    def remarks(self, descriptor: Mapping[str, Any]) -> Sequence[Problem]:
        """Clients that the weights do not reach."""
        if descriptor.get("useStickySessions"):
            return [Problem("useStickySessions", "keeps clients that have its cookie on the old version until the end")]
        return ()

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """Start small, prove it, then part by part; all at once when no version has the host. Raises StepFailed."""
        if plan.route is None or not plan.route.previous:
            return [StartWorkload(), *_proven(plan), *_exposed(plan, []), MoveService()]
        _require_same_route(plan)
        chosen = options.Options.of(plan.descriptor)
        to_start = plan.budgets.get(Phase.START.name)
        parts: list[Step] = []
        for number, part in enumerate(chosen.steps, 1):
            parts += [
                steps.ScaleUp(f"scale-{number}", chosen.replicas(plan.replicas, part.weight), to_start),
                steps.Split(number, part.weight, chosen.match),
                steps.Pause(number, part),
            ]
        parts.append(steps.ScaleUp("scale-full", plan.replicas, to_start))
        start = steps.StartSmall(chosen.replicas(plan.replicas, 0))
        return [start, *_proven(plan), *_exposed(plan, parts), MoveService()]

    def workload(self, context: WorkloadContext) -> Workload:
        """The usual one; it starts with fewer pods than it says."""
        return render_workload(context)

    def drain(self, plan: Plan) -> float:
        """As the settings say: the old version ends the requests that it has."""
        return plan.settings.hold


def _proven(plan: Plan) -> list[Step]:
    health: list[Step] = [VerifyHealth()] if plan.health else []
    return [AwaitReady(), *health, AwaitEndpoints()]


def _exposed(plan: Plan, parts: Sequence[Step]) -> list[Step]:
    if plan.route is None:
        return []
    check: list[Step] = [CheckPreview()] if plan.route.preview.check else []
    displaced: list[Step] = [DisplaceRoute()] if plan.displaced else []
    return [PrepareRoute(), *check, *parts, SwitchRoute(), *displaced, ConfirmRoute()]


def _require_same_route(plan: Plan) -> None:
    """Raise StepFailed for a host that moves: there is nothing yet that could be divided."""
    assert plan.route
    last = plan.previous.last_route if plan.previous else None
    before = last.host if last else plan.route.host
    moves = ""
    if plan.displaced:
        assert plan.ingress
        moves = f"{plan.route.host} moves from ingress provider {plan.displaced} to {plan.ingress.name}"
    elif before != plan.route.host:
        moves = f"frontend changes from {before} to {plan.route.host}"
    if moves:
        raise StepFailed(
            f"{moves}, so its requests cannot be divided between the two versions",
            reason="NotSupported",
            hint="deploy this change once with deploymentType blue-green, then use canary again",
        )


@hookimpl
def register_strategies(settings: PluginSettings) -> Sequence[Strategy]:
    """One strategy, without settings."""
    return [Canary()]

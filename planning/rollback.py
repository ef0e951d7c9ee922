"""Deciding a rollback to a version that is still warm: its own plan, but for what takes it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from deployer.core.contract.strategy import Step, Strategy
from deployer.core.errors import StepFailed
from deployer.core.model.plan import Preview, Route
from deployer.core.model.records import App, Plan
from deployer.core.operations.rollbacks import NOT_WARM
from deployer.core.operations.steps import check_steps, planned
from deployer.planning import strategies
from deployer.planning.live_version import LiveVersion
from deployer.planning.planner import Planner

_ONCE_MORE = "roll back once more: it is deployed anew then"


def decide(planner: Planner, pinned: Plan, app: App, steps: Callable[[Strategy, Plan], Sequence[Step]]) -> Plan:
    """The plan of the version that comes back. Raises StepFailed with the reason in one sentence."""
    ingress = planner.registry.ingress()
    live = planner.live(app, ingress)
    if live is None or not live.deployment:
        raise StepFailed("nothing is live that could be rolled back", reason="NotLive")
    running = planner.versions.running(planner.handles.kube, app.app, pinned.version)
    if running is None:
        raise StepFailed(
            f"version {pinned.version} has no controller any more, so it is not warm",
            reason=NOT_WARM,
            hint=_ONCE_MORE,
        )
    strategy = planner.registry.strategy(pinned.strategy.name)
    plan = dataclasses.replace(
        pinned,
        previous=live.pinned(),
        strategy=planner.reference("strategy", strategy.name),
        ingress=planner.reference("ingress", ingress.name) if ingress else None,
        route=_route(planner, pinned.route, live),
        budgets=planner.budgets(pinned.descriptor),
        steps=(),
        gates=(),
    )
    if pinned.replicas and not running.replicas and strategy.rollback_steps(plan) is None:
        raise StepFailed(
            f"version {pinned.version} was scaled to 0, so it is not warm", reason=NOT_WARM, hint=_ONCE_MORE
        )
    plan = dataclasses.replace(plan, settings=planner.pinned_settings(plan))
    plan = dataclasses.replace(plan, settings=strategies.drained(strategy, plan))
    found = check_steps(steps(strategy, plan), strategy.name)
    return dataclasses.replace(plan, steps=tuple(map(planned, found)))


def _route(planner: Planner, route: Route | None, live: LiveVersion) -> Route | None:
    """The same host and options; what it leads away from is what is live now."""
    if route is None:
        return None
    ingress = planner.registry.ingress()
    if ingress is None:
        raise StepFailed(
            f"no ingress provider is configured, so nobody can route {route.host} to version {route.version}",
            reason="ProviderGone",
        )
    previous = live.route.backends[0] if live.route and live.route.backends else None
    return dataclasses.replace(
        route,
        previous=previous,
        preview=Preview(),
        stable=bool(ingress.stable),
        displaces=planner.displaced(ingress, live),
    )

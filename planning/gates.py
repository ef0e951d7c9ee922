"""Which gates a deployment has, and where among the strategy's steps they stand; pinned when it is decided."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from deployer.core.contract.gate import Gate, Point
from deployer.core.contract.strategy import Phase
from deployer.core.errors import PluginError, StepFailed
from deployer.core.model.plan import PlannedGate, PlannedStep, ProviderRef
from deployer.core.model.records import Document, Plan
from deployer.core.operations.steps import GATE_MISSING, GATES
from deployer.core.registry import Registry

logger = logging.getLogger(__name__)

_NO_PLUGIN_TIMEOUT = 86_400.0


def planned(registry: Registry, forced: Iterable[Mapping[str, Any]], descriptor: Document) -> tuple[PlannedGate, ...]:
    """The gates of a deployment, in the order in which they come: at each point those that the settings force on its
    namespace, then the descriptor's. Raises StepFailed for one that cannot be."""
    wanted = [(str(gate["point"]), gate, True) for gate in forced]
    for point, gates in (descriptor.get("gates") or {}).items():
        wanted += [(str(point), gate, False) for gate in gates]
    points = list(Point)
    wanted.sort(key=lambda found: (points.index(Point(found[0])), not found[2]))
    return tuple(_planned(registry, *found) for found in wanted)


def _planned(registry: Registry, point: str, gate: Mapping[str, Any], forced: bool) -> PlannedGate:
    kind, name = str(gate["type"]), str(gate["name"])
    pinned = PlannedGate(
        step=f"{GATES}{point}:{'forced:' if forced else ''}{name}",
        point=point,
        type=kind,
        name=name,
        options=gate.get("options") or {},
        timeout=float(gate.get("timeoutSeconds") or _NO_PLUGIN_TIMEOUT),
        on_missing=str(gate.get("onMissing") or "fail"),
        dry_run=bool(gate.get("dryRun")),
        forced=forced,
    )
    try:
        provider, declared = registry.gate(kind), registry.entry("gate", kind).declared
    except PluginError as error:
        if pinned.on_missing == "fail" and not pinned.dry_run:
            raise StepFailed(
                f"gate {name}: {error}", reason=GATE_MISSING, hint="ask those who run the Deployer"
            ) from None
        return pinned
    return dataclasses.replace(
        pinned,
        provider=ProviderRef(**registry.ref("gate", kind)),
        timeout=float(gate.get("timeoutSeconds") or declared.default_timeout),
        another_person=_needs_another_person(provider, pinned),
    )


def _needs_another_person(provider: Gate, gate: PlannedGate) -> bool:
    try:
        return bool(provider.needs_another_person(gate.options))
    except Exception as error:
        logger.error("gate %s raised %s", gate.type, type(error).__name__, exc_info=error)
        said = f"gate {gate.name}: its type {gate.type} raised {type(error).__name__} in needs_another_person()"
        raise StepFailed(said, reason="GateBroken", hint="ask the plugin's author") from None


def inserted(steps: Sequence[PlannedStep], gates: Sequence[PlannedGate]) -> tuple[PlannedStep, ...]:
    """The strategy's steps, with those of the gates among them."""
    at = {Point.BEFORE_START: 0, Point.BEFORE_SWITCH: _switch(steps), Point.AFTER_SWITCH: len(steps)}
    found: list[PlannedStep] = []
    for n in range(len(steps) + 1):
        phase = steps[n - 1].phase if n else Phase.START.name
        found += [PlannedStep(id=gate.step, phase=phase) for gate in gates if at[Point(gate.point)] == n]
        found += steps[n : n + 1]
    return tuple(found)


def _switch(steps: Sequence[PlannedStep]) -> int:
    """The place of the first step that may give the new version traffic; without one, that behind its health check."""
    places = [n for n, step in enumerate(steps) if step.exposes]
    later = [n for n, step in enumerate(steps) if Phase[step.phase] >= Phase.EXPOSE]
    return min(places or later or [len(steps)])


def warn(plan: Plan, log: Callable[[str], None]) -> None:
    """Say what waiting at a gate costs, where the strategy has taken something away by then."""
    ids = [step.id for step in plan.steps]
    for gate in plan.gates:
        before = plan.steps[: ids.index(gate.step)]
        if gate.point == Point.BEFORE_SWITCH and (step := next((s for s in before if s.disturbs), None)):
            log(
                f"gate {gate.name} comes after step {step.id}, which takes traffic or capacity from the version that "
                f"is live: as long as it waits, that is missing; {Point.BEFORE_START} would come before it"
            )
            return

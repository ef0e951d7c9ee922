"""Gates in a simulated world: what they say, and what people say of them, is the adversary's affair."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from deployer.commands.approvals import ApprovalCommands
from deployer.core.contract.gate import (
    Failed,
    Gate,
    GateContext,
    Inconclusive,
    Missing,
    Outcome,
    Passed,
    Pending,
    Point,
)
from deployer.core.contract.strategy import Signal
from deployer.core.errors import Conflict, KubeUnavailable
from deployer.core.model.gates import GateResults
from deployer.core.model.plan import PlannedGate, ProviderRef
from deployer.core.model.records import Deployment, Status

if TYPE_CHECKING:
    from support.simulation import World

SAYS = ("passes", "fails", "inconclusive", "missing", "waits", "asks", "mistake", "unavailable")
"""What a gate does; the first when nothing bad happens."""


class SimulatedGate(Gate):
    """Of one process."""

    name = "simulated"

    def __init__(self, world: World) -> None:
        self._world = world

    def check(self, context: GateContext) -> Outcome:
        """What it says, unless a person has spoken."""
        world, where = self._world, (context.plan.deployment, f"gate:{context.point}:{context.name}")
        says = "passes" if world.choices.over or not world.choices.rare(2) else world.choices.pick(SAYS)
        world.note(f"  gate {context.name} of {context.plan.version} {says}, decision {context.decision}")
        if world.store.holds(context.plan.namespace, context.plan.app, context.kube.owner.fencing_token):
            world.passed.discard(where)  # what was not recorded was not passed
        if context.decision is not None and not context.decision.approve:
            return Failed("a person refused it")
        if context.decision is not None or says == "passes":
            world.passed.add(where)
            return Passed("fine")
        if says == "unavailable":
            raise KubeUnavailable("the API server does not answer the gate")
        outcomes: dict[str, Outcome] = {
            "fails": Failed("red"),
            "inconclusive": Inconclusive("who knows"),
            "missing": Missing("nothing there"),
            "waits": Pending(context.now() + 5.0, "better times"),
            "asks": Pending(context.deadline, "a person", Signal()),
        }
        if says not in outcomes:
            raise ValueError("a mistake in the gate")
        return outcomes[says]

    def end(self, context: GateContext) -> None:
        """It has a verdict, or none is wanted any more."""


def generate(world: World) -> tuple[PlannedGate, ...]:
    """The gates of a deployment: mostly none."""
    if not world.choices.rare(3):
        return ()
    drawn = world.choices.byte()
    points = [point for bit, point in enumerate(Point) if drawn >> bit & 1]
    return tuple(
        PlannedGate(
            step=f"gate:{point}:g-{point.lower()}",
            point=point,
            type="simulated",
            name=f"g-{point.lower()}",
            provider=ProviderRef("simulated", "a:b", "1"),
            timeout=(60.0, 600.0)[drawn >> 3 & 1],
            on_missing=("fail", "inconclusive")[drawn >> 4 & 1],
        )
        for point in points
    )


def decide(world: World) -> None:
    """Somebody approves or refuses whatever waits."""
    commands = ApprovalCommands(world.store, world.clock)
    for deployment in world.store.find(Deployment, tag=Status.DEPLOYING.value):
        results = world.store.get(GateResults, deployment.id)
        for result in results.entries if results else ():
            if not result.asks:
                continue
            approve = not world.choices.rare(2)
            world.note(f"somebody says {'yes' if approve else 'no'} to {result.step} of {deployment.id}")
            with contextlib.suppress(Conflict):
                commands.decide(deployment.namespace, deployment.id, {"approve": approve, "gate": result.name}, "otto")
                if approve:
                    world.passed.add((deployment.id, result.step))
            world.check()

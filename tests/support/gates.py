"""Gates for tests: those that do what a test says, and what became of them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from deployer.commands.approvals import ApprovalCommands
from deployer.core.model.gates import GateDecision, GateResult, GateResults
from deployer.core.model.records import Deployment
from deployer.sdk.gate import Gate, GateContext, Outcome, Point
from support.world import World

POINTS = tuple(map(str, Point))


class Scripted(Gate):
    """Answers whatever `give` returns, which also gets the number of the call; any options."""

    options_schema = {"type": "object"}  # noqa: RUF012 (as a plugin may write it)

    def __init__(
        self,
        give: Callable[[GateContext, int], Any],
        *,
        name: str = "scripted",
        check_seconds: float = 30.0,
        end: Callable[[GateContext], None] | None = None,
    ) -> None:
        self.name = name
        self.check_seconds = check_seconds
        self._give = give
        self._end = end
        self.calls = 0
        self.ended = 0
        self.called = threading.Event()

    def check(self, context: GateContext) -> Outcome:
        self.calls += 1
        self.called.set()
        outcome: Outcome = self._give(context, self.calls)
        return outcome

    def end(self, context: GateContext) -> None:
        self.ended += 1
        if self._end is not None:
            self._end(context)


def gated(point: str, *, type: str = "scripted", name: str = "g", **fields: Any) -> dict[str, Any]:
    """The descriptor's field for one gate."""
    return {"gates": {point: [{"type": type, "name": name, **fields}]}}


def results(world: World, deployment: Deployment | str) -> list[dict[str, Any]]:
    """What REST shows of a deployment's gates."""
    id = deployment if isinstance(deployment, str) else deployment.id
    found = world.store.get(GateResults, id)
    return found.public() if found else []


def waiting_gate(namespace: str, app: str, deployment: str, **fields: Any) -> GateResults:
    """The record of a deployment with one gate, which waits for a person."""
    began = time.time()
    gate = GateResult(
        step="gate:beforeStart:ask",
        point="beforeStart",
        type="approval",
        name="ask",
        began=began,
        deadline=began + 3600,
        asks=True,
    )
    entries = (dataclasses.replace(gate, **fields),)
    return GateResults(namespace=namespace, app=app, deployment=deployment, entries=entries)


def awaited(world: World, deployment: Deployment, name: str = "g") -> None:
    """Wait until a person is to decide about the gate, and nobody works on the deployment."""

    def waits() -> bool:
        found = world.store.get(GateResults, deployment.id)
        asks = found is not None and any(entry.asks and entry.name == name for entry in found.entries)
        return asks and not world.engine.running

    world.until(waits, f"gate {name} to wait for a person")


def decide(world: World, deployment: Deployment, approve: bool = True, by: str = "", **said: Any) -> GateDecision:
    """What REST does with a decision."""
    commands = ApprovalCommands(world.store)
    return commands.decide(world.namespace, deployment.id, {"approve": approve, **said}, by)


def verdicts(world: World, deployment: Deployment) -> Sequence[str | None]:
    """Of all its gates, in order."""
    return [found["verdict"] for found in results(world, deployment)]

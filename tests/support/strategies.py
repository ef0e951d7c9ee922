"""Strategies for tests: blue-green that tells of every step, and stops where a test wants it to."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

from deployer.core.registry import Entry
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.plugin import CancelScope, Provider
from deployer.sdk.strategy import Outcome, Plan, Step, Strategy, Work
from support.world import PATIENCE, World

Visit = Callable[[Work, str], None]
"""Called in a step's thread with what the step got and where it is: `await-ready:before`, `:after` or `:undo`."""


class Visited(Step):
    """A shared step, with a visitor before and after `run`, and before `undo`."""

    def __init__(self, step: Step, visit: Visit) -> None:
        self.id = step.id
        self.phase, self.disturbs, self.exposes, self.budget = step.phase, step.disturbs, step.exposes, step.budget
        self.fulfils = step.fulfils
        self._step = step
        self._visit = visit

    def run(self, work: Work) -> Outcome:
        self._visit(work, f"{self.id}:before")
        outcome = self._step.run(work)
        self._visit(work, f"{self.id}:after")
        return outcome

    def undo(self, work: Work) -> None:
        self._visit(work, f"{self.id}:undo")
        self._step.undo(work)


class VisitedBlueGreen(Strategy):
    """Blue-green under the name `visited`."""

    name = "visited"

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return [Visited(step, self._visit) for step in deploy_steps()]


class Steps(Strategy):
    """Exactly these steps, or whatever else a test wants `deploy_steps` to do."""

    def __init__(self, name: str, give: Callable[[Plan], Sequence[Step]]) -> None:
        self.name = name
        self._give = give

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return self._give(plan)


class Stop:
    """A visitor that stops at one point until `go` is set, or the scope closes; `arrived` tells that somebody is there.

    `closed` is the moment, on `time.monotonic()`'s clock, at which the scope of the step there was closed.
    """

    def __init__(self, point: str) -> None:
        self.point = point
        self.arrived = threading.Event()
        self.go = threading.Event()
        self.shut = threading.Event()
        self.closed = 0.0
        self.scope: CancelScope | None = None

    def __call__(self, work: Work, point: str) -> None:
        if point != self.point or self.go.is_set():
            return
        self.scope = work.scope
        work.scope.on_close(self._close)
        self.arrived.set()
        work.scope.wait(self.go)

    def _close(self) -> None:
        self.closed = self.closed or time.monotonic()
        self.shut.set()

    def reached(self) -> Stop:
        """Wait until somebody is there."""
        assert self.arrived.wait(PATIENCE), f"nobody came to {self.point}"
        return self


def restart_with(world: World, *providers: Provider, kind: str = "strategies") -> World:
    """Start the service anew, with these providers beside those that are installed."""
    world.stop()
    registry = load_plugins(world.settings, entry_points=world.entry_points)
    entries = {**getattr(registry, kind), **{p.name: Entry(p, "tests", "1", p.name) for p in providers}}
    return world.start(dataclasses.replace(registry, **{kind: entries}))

"""What must hold in a simulated world: at every moment, at every step, and once all has come to its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deployer.core.model.records import (
    ROLLBACK_TRANSITIONS,
    TRANSITIONS,
    App,
    Deployment,
    Operation,
    OperationKind,
    OperationState,
    Plan,
    Status,
)
from deployer.core.operations.machine import AWAITS, DONE, STARTED, SWITCHING
from deployer.core.operations.rollbacks import ROLLED_BACK
from support.simulated_cluster import BACK, DRAINS, LOOKS, MOVES, Kube, PlanStep, StepSpec

if TYPE_CHECKING:
    from support.simulated_process import Process
    from support.simulation import World

OPEN = (STARTED, DONE)
"""Notes of a step that was started and not undone."""


class Violation(BaseException):
    """Something is not as it must be. No `except Exception` of the engine may hide it."""


class Checks:
    """Of one world; looks at what is durable and at what is in the cluster only."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[tuple[str, str], Any] = {}
        self._said: dict[str, tuple[str, int]] = {}
        self._disruptions = 0
        self.changed: set[tuple[str, str]] = set()
        self._app: App | None = None
        self._deployed: set[str] = set()
        self._open: dict[str, Operation] = {}
        self._deploys: dict[str, str] = {}

    def require(self, holds: bool, otherwise: str) -> None:
        """Raises Violation."""
        if not holds:
            raise Violation(otherwise)

    def unexpected(self, *_: object) -> None:
        """The engine met an error that it does not know."""
        raise Violation(f"unexpected error: {sys.exc_info()[1]!r}") from sys.exc_info()[1]

    def disrupted(self) -> None:
        """From here on something may be said once more: what said it before may not know."""
        self._disruptions += 1

    def said(self, deployment: str, text: str, *, current: bool = True) -> None:
        """No sentence twice in a row, unless somebody died in between, or two operations say it; that it goes on, after
        a death only. `current`: by the holder of the lease."""
        self._world.note(f"    {deployment}: {text}")
        before, self._said[deployment] = self._said.get(deployment), (text, self._disruptions if current else -1)
        self.require("no event to wait for" not in text, f"the simulation itself is wrong: {text}")
        alone = [operation.deployment for operation in self._open.values()].count(deployment) == 1
        if current and alone and before is not None and before[1] == self._disruptions:
            self.require(text not in (before[0], "resumed"), f"said without need: {text}")

    def between(self, deployment: str) -> None:
        """A line came into its log together with a change of the records: what comes next may be said again."""
        self._said.pop(deployment, None)

    # --- at every moment -----------------------------------------------------------------------------------------

    def always(self) -> None:
        """After every transaction, and every change of the cluster."""
        if self.changed:
            self._take_in()
        app = self._app
        live = app.live if app else ""
        self.require(self._deployed in (set(), {live}), f"{self._deployed} are deployed, and {live} is live")
        self._traffic()

    def _take_in(self) -> None:
        """What changed in the store."""
        store = self._world.store
        for kind, key in sorted(self.changed):
            if kind == App.KIND:
                self._app = store.get(App, key)
            elif kind == Deployment.KIND:
                deployment = store.get(Deployment, key)
                self._deployed.discard(key)
                if deployment is not None and deployment.status is Status.DEPLOYED:
                    self._deployed.add(key)
                self._compare(kind, key, deployment, self._status)
            elif kind == Operation.KIND:
                operation = store.get(Operation, key)
                if operation is not None and operation.kind in SWITCHING:
                    self._deploys[operation.deployment] = key
                was = self._open.pop(key, None)
                if operation is not None and operation.state is not OperationState.DONE:
                    self._open[key] = operation
                elif was is not None:
                    self._said.pop(was.deployment, None)  # the next operation says what it has to say itself
                self._compare(kind, key, operation, self._operation)
        self.changed.clear()

    def _compare(self, kind: str, key: str, now: Any, legal: Callable[[Any, Any], None]) -> None:
        before, self._seen[kind, key] = self._seen.get((kind, key)), now
        if before is not None and now is not None:
            legal(before, now)

    def _traffic(self) -> None:
        state, app = self._world.state, self._app
        live, version = (app.live, app.live_version) if app else ("", "")
        moved, drained = False, False
        for operation in self._open.values():
            if operation.kind in SWITCHING and operation.begun:
                does = [s.does for s in self._specs(operation) if operation.steps.get(s.id) in OPEN]
                moved |= not MOVES.isdisjoint(does)
                drained |= DRAINS in does
            elif operation.kind is OperationKind.UNDEPLOY and operation.deployment == live:
                moved |= operation.begun or bool(operation.attempts)
        led = set(state.traffic.values())
        for target in led:
            controller = state.controllers.get(target)
            serves = controller is not None and (controller.up or (drained and target == version))
            self.require(serves, f"version {target} has traffic, and does not serve: {state}")
        if not moved:
            wanted = {version} if version else set()
            self.require(led == wanted, f"traffic goes to {led}, not to {wanted}")
            controller = state.controllers.get(version)
            self.require(not version or (controller is not None and controller.up), f"live {version} does not serve")

    def _status(self, before: Deployment, now: Deployment) -> None:
        legal = now.status is before.status or now.status in TRANSITIONS[before.status]
        back = now.status in ROLLBACK_TRANSITIONS.get(before.status, ())
        self.require(legal or back, f"{now.id} went from {before.status} to {now.status}")
        if before.status is not Status.DEPLOYED and now.status is Status.DEPLOYED:
            self._committed(now)
        elif back:
            self.require((now.failure or {}).get("reason") == ROLLED_BACK, f"{now.id} failed, and was not rolled back")

    def _committed(self, deployment: Deployment) -> None:
        state = self._world.state
        self._world.note(f"committed {deployment.version}")
        self.require(set(state.traffic.values()) == {deployment.version}, "committed, but traffic goes elsewhere")
        self._complete(deployment)
        operation = self._operation_of(deployment.id)
        if operation is None or operation.state is not OperationState.DONE:
            raise Violation("committed, but not ended")
        for spec in self._specs(operation):
            note = operation.steps.get(spec.id)
            self.require(note == DONE, f"committed, and {spec.id} is {note}")
        if operation.kind is OperationKind.DEPLOY:
            for gate in self._world.gates[deployment.id]:
                passed = (deployment.id, gate.step) in self._world.passed
                note = operation.steps.get(gate.step)
                self.require(passed and note == DONE, f"committed, and {gate.step} is {note}, passed: {passed}")

    def _complete(self, deployment: Deployment) -> None:
        """All objects of a deployment are there."""
        state = self._world.state
        controller = state.controllers.get(deployment.version)
        mine = controller is not None and controller.deployment == deployment.id and controller.up
        self.require(mine, f"version {deployment.version} has no controller of its own: {state}")
        for spec in self._world.specs[deployment.id]:
            there = spec.does != "makes" or f"{deployment.id}-{spec.id}" in state.extras
            self.require(there, f"what {spec.id} of {deployment.id} made is not there")

    def _operation(self, before: Operation, now: Operation) -> None:
        self.require(before.state is not OperationState.DONE, f"{now.id} was closed, and is written again")
        if now.kind is OperationKind.UNDEPLOY and now.steps.get("remove-workload") == STARTED and AWAITS in now.memory:
            self.require(
                now.target.released, f"{now.id} waits for pods only, and keeps the app from the next deployment"
            )
        if now.kind not in SWITCHING:
            return
        back = before.state is OperationState.UNDOING and now.state is OperationState.RUNNING
        self.require(not back, f"{now.id} is undoing, and goes on")
        for step, note in now.steps.items():
            again = before.steps.get(step) == "undone" and note != "undone"
            self.require(not again, f"{step} of {now.id} was undone, and is {note}")
        if before.state is OperationState.UNDOING and now.state is OperationState.DONE:
            self._undone(now)

    def _undone(self, operation: Operation) -> None:
        """Every step was undone; without the plugin those that are no outage may be left to the core."""
        left = [s for s in self._specs(operation) if operation.steps.get(s.id) in OPEN]
        if self._world.process.complete:
            self.require(not left, f"ended, and these were not undone: {left}")
        said = [s for s in left if s.does in MOVES and not s.silent]
        self.require(not said, f"ended without the plugin, and only that can undo {said}")
        if operation.kind is OperationKind.ROLLBACK:
            return  # what it was to go back to drains again
        owned = self._world.state.owned(operation.deployment)
        self.require(not owned, f"ended, and {owned} are left")

    # --- at every step -------------------------------------------------------------------------------------------

    def step(self, step: PlanStep, plan: Plan, *, undo: bool) -> None:
        """It is about to run, or to be undone, by the holder of the lease."""
        operation = self._operation_of(plan.deployment)
        if operation is None:
            raise Violation(f"{step.id} runs for an operation that is not there")
        specs = self._specs(operation)
        at = next(n for n, spec in enumerate(specs) if spec.id == step.id)
        notes = [operation.steps.get(spec.id) for spec in specs]
        if undo:
            self.require(operation.state is OperationState.UNDOING, f"{step.id} is undone in {operation.state}")
            self.require(notes[at] in OPEN, f"{step.id} is undone, which was not started: {notes}")
            self.require(not [n for n in notes[at + 1 :] if n in OPEN], f"{step.id} is undone out of order: {notes}")
            return
        self.require(operation.state is OperationState.RUNNING, f"{step.id} runs in {operation.state}")
        looks = specs[at].does == LOOKS
        self.require(looks or notes[at] == STARTED, f"{step.id} runs, and that is not durable: {notes}")
        for spec, note in zip(specs[:at], notes, strict=False):
            self.require(spec.does == LOOKS or note == DONE, f"{step.id} runs before {spec.id}: {notes}")
        self.require(not any(notes[at + 1 :]), f"{step.id} runs after a later one: {notes}")

    def may_write(self, process: Process, kube: Kube, *, shared: bool) -> None:
        """Without the plugin nothing is touched where only the plugin can take back what was done to traffic."""
        operation = self._operation_of(kube.owner.deployment)
        if process.complete or operation is None or operation.state is not OperationState.UNDOING:
            return
        specs = self._specs(operation)
        said = [s.id for s in specs if s.does in MOVES and not s.silent and operation.steps.get(s.id) in OPEN]
        token = self._world.state.token
        fences = shared and token != kube.owner.fencing_token  # or is refused, as it comes too late
        self.require(fences or not said, f"an operation that is held changes the cluster: {said}")

    def _specs(self, operation: Operation) -> list[StepSpec]:
        """The steps of what moves traffic."""
        return BACK if operation.kind is OperationKind.ROLLBACK else self._world.specs[operation.deployment]

    def _operation_of(self, deployment: str) -> Operation | None:
        key = self._deploys.get(deployment)
        return self._world.store.get(Operation, key) if key else None

    # --- at the end ----------------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """No operation is open."""
        self.always()
        store, state = self._world.store, self._world.state
        app = next(iter(store.find(App)), None)
        live = app.live if app else ""
        for deployment in store.find(Deployment):
            self.require(not deployment.status.moving, f"{deployment.id} is {deployment.status} for ever")
            if deployment.status is Status.DEPLOYED:
                self._complete(deployment)
        known = state.owned(live) if live else []
        everything = [*state.controllers, *state.extras]
        self.require(sorted(known) == sorted(everything), f"left in the cluster: {set(everything) - set(known)}")
        self.require(app is None or not app.held or app.held == live, f"{app} still holds a version")
        for plan in store.find(Plan):
            self.require(plan.deployment == live, f"the plan of {plan.deployment} is left")

"""A cluster of one app, in memory: what versions consist of, where traffic goes, and the steps that change it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Changed, ClusterEvent, Gone, Owner
from deployer.core.contract.strategy import Done, Outcome, Park, Phase, Step, Work
from deployer.core.errors import (
    DeadlineExceeded,
    Fenced,
    ForeignObject,
    KubeForbidden,
    KubeUnavailable,
    OperatorNeeded,
    PluginError,
    StepFailed,
)
from deployer.core.model.kind import CONTROLLER, POD, Kind
from deployer.core.model.plan import PlannedStep, Workload
from deployer.core.model.records import Plan
from deployer.core.ports.cluster import PODS_GONE, Inventory, Log, Thing, Unready, VersionEvent

EXTRA = Kind("example.org", "v1", "extras", "Extra")
"""What steps make besides the workload."""

SERVICE, CANARY = "service", "canary"
"""What leads traffic to a version: the first to nearly everybody, the second to a share."""


@dataclass
class Controller:
    """Of one version. `up`: its pods serve."""

    uid: str
    deployment: str
    up: bool = True


@dataclass
class State:
    """What there is in the cluster.

    controllers  by version
    extras       the deployments that they belong to, by name
    ending       versions of pods that end, by the uid of their controller
    traffic      versions by what leads to them
    token        the fencing token on what versions share
    """

    controllers: dict[str, Controller] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)
    ending: dict[str, str] = field(default_factory=dict)
    traffic: dict[str, str] = field(default_factory=dict)
    token: int = 0
    uids: Any = field(default_factory=itertools.count)

    def owned(self, deployment: str) -> list[str]:
        """Names of what belongs to a deployment."""
        controllers = [version for version, c in self.controllers.items() if c.deployment == deployment]
        return controllers + [name for name, owner in self.extras.items() if owner == deployment]


class Trouble(Protocol):
    """Whoever decides what goes wrong."""

    def before_write(self, kube: Kube, *, shared: bool) -> None:
        """The cluster is asked to change something. May raise."""

    def after_write(self, kube: Kube) -> None:
        """It has. May raise, as when the answer is lost."""

    def before_read(self) -> None:
        """The cluster is asked something. May raise KubeError."""

    def before_step(self, step: PlanStep, work: Work, *, undo: bool) -> None:
        """The step is about to run, or to be undone."""

    def outcome(self, step: Step, *, undo: bool) -> str:
        """How that goes: one of `OUTCOMES`, or `done`."""

    def live_version_fails(self) -> bool:
        """Does the version that is watched fail?"""

    def version_before_is_unready(self) -> bool:
        """Can the version that is kept not take over?"""

    def pods_end_at_once(self) -> bool:
        """Do the pods of a controller that was removed end at once?"""


ANY_EVENT = Changed(CONTROLLER, None, {}, "some", "1")
"""One that comes when the adversary wants it to."""

UID = "controller-uid"


def pods_gone(uid: str) -> Gone:
    """The event that no pod of that controller is left."""
    return Gone(POD, None, {UID: uid})


class Kube:
    """The app's objects for one owner, as long as the scope is open."""

    def __init__(self, state: State, trouble: Trouble, owner: Owner, scope: CancelScope, inventory: Inventory) -> None:
        self.state, self.owner, self.scope = state, owner, scope
        self._trouble, self._inventory = trouble, inventory

    def with_scope(self, scope: CancelScope) -> Kube:
        """The same, bound to another scope."""
        return Kube(self.state, self._trouble, self.owner, scope, self._inventory)

    def write(self, apply: Callable[[], None], *, shared: bool = False) -> None:
        """Change something. Raises Fenced for what versions share, when another process carries on with the app."""
        self.scope.check()
        self._trouble.before_write(self, shared=shared)
        self.scope.check()
        if shared:
            if self.state.token > self.owner.fencing_token:
                raise Fenced(f"fencing token {self.state.token}: another process carries on")
            self.state.token = self.owner.fencing_token
        apply()
        self._trouble.after_write(self)
        self.scope.check()

    def read(self) -> State:
        """Look."""
        self.scope.check()
        self._trouble.before_read()
        return self.state

    def fence(self) -> None:
        """Write our fencing token on what versions share, unless it is there."""
        if self.read().token != self.owner.fencing_token:
            self.write(lambda: None, shared=True)

    def create_controller(self, version: str) -> None:
        """Raises ForeignObject when another deployment has one that is no leftover."""
        found = self.read().controllers.get(version)
        if found is not None and found.deployment == self.owner.deployment:
            return
        if found is not None:
            if found.deployment in self.owner.keep:
                raise ForeignObject(f"controller {version} belongs to deployment {found.deployment}")
            self.write(lambda: self._end(version))
        made = Controller(f"uid-{next(self.state.uids)}", self.owner.deployment)
        self.write(lambda: self.state.controllers.__setitem__(version, made))

    def delete_controller(self, version: str) -> str | None:
        """Its uid, None when there is none of ours."""
        found = self.read().controllers.get(version)
        if found is None or found.deployment != self.owner.deployment:
            return None
        self.write(lambda: self._end(version, found.uid))
        return found.uid

    def _end(self, version: str, uid: str = "") -> None:
        """With a uid as the precondition, when one is given."""
        if uid and self.state.controllers[version].uid != uid:
            return
        gone = self.state.controllers.pop(version)
        if not self._trouble.pods_end_at_once():
            self.state.ending[gone.uid] = version

    def scale(self, version: str, *, up: bool) -> None:
        """To nothing, or to what it had."""
        found = self.read().controllers.get(version)
        if found is not None and found.up is not up:
            self.write(lambda: setattr(found, "up", up))

    def create_extra(self, name: str) -> None:
        """Noted in the inventory before."""
        if name not in self.read().extras:
            self._inventory.making(self.owner.deployment, EXTRA, name)
            self.write(lambda: self.state.extras.__setitem__(name, self.owner.deployment))

    def delete_extra(self, name: str) -> bool:
        """True when it was there."""
        there = self.read().extras.get(name) == self.owner.deployment
        if there:
            self.write(lambda: self.state.extras.pop(name, None) and None)
        self._inventory.removed(self.owner.deployment, EXTRA, name)
        return there

    def lead(self, what: str, version: str) -> None:
        """Traffic to a version; empty: to none."""
        if self.read().traffic.get(what, "") != version:
            self.write(lambda: self._lead(what, version), shared=True)

    def _lead(self, what: str, version: str) -> None:
        if version:
            self.state.traffic[what] = version
        else:
            self.state.traffic.pop(what, None)


# --- the steps of strategies ----------------------------------------------------------------------------------------

FAILURES: Mapping[str, Callable[[str], Exception]] = {
    "fails": lambda id: StepFailed(f"step {id} cannot reach its goal"),
    "changed": lambda id: StepFailed(f"{id} was changed by another client", reason="ObjectChanged"),
    "operator": lambda id: OperatorNeeded(f"step {id} needs a person"),
    "refused": lambda id: KubeForbidden(f"step {id} may not do that"),
    "unavailable": lambda id: KubeUnavailable(f"the API server does not answer step {id}"),
    "late": lambda id: DeadlineExceeded(f"step {id} did not finish in time"),
    "plugin": lambda id: PluginError(f"step {id} misses a plugin"),
    "mistake": lambda id: ValueError(f"a mistake in step {id}"),
}
RUN_OUTCOMES = ("done", "park", "park for an event", *(f for f in FAILURES if f != "changed"))
UNDO_OUTCOMES = ("done", *FAILURES)

LOOKS, MAKES, STARTS, DRAINS, SHARES, SWITCHES = "looks", "makes", "starts", "drains", "shares", "switches"
"""What steps do: nothing; an object; the new controller; the old one's capacity to zero; a share of traffic; all."""

MOVES = frozenset({DRAINS, SHARES, SWITCHES})
"""Those on account of which users may notice."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A step as it is generated. `silent`: it does not say that it exposes."""

    id: str
    phase: Phase
    does: str
    silent: bool = False


BACK = [
    StepSpec("looks-back", Phase.VERIFY, LOOKS),
    StepSpec("shares-back", Phase.EXPOSE, SHARES),
    StepSpec("switches-back", Phase.EXPOSE, SWITCHES),
]
"""What brings traffic back to a version that is warm."""


class PlanStep(Step):
    """Does what its spec says; how that goes is decided by others."""

    def __init__(self, spec: StepSpec, trouble: Trouble) -> None:
        self.id, self.phase, self.does = spec.id, spec.phase, spec.does
        self.disturbs = spec.does == DRAINS
        self.exposes = spec.does in (SHARES, SWITCHES) and not spec.silent
        self._trouble = trouble

    def run(self, work: Work) -> Outcome:
        self._trouble.before_step(self, work, undo=False)
        outcome = self._trouble.outcome(self, undo=False)
        if outcome in FAILURES and outcome != "late":  # that one fails after all is done
            raise FAILURES[outcome](self.id)
        self._do(work)
        if outcome == "late":
            raise FAILURES[outcome](self.id)
        if outcome.startswith("park"):
            event = ANY_EVENT if outcome.endswith("event") else None
            return Park(work.now() + 5.0, f"step {self.id} waits", event)
        return Done()

    def _do(self, work: Work) -> None:
        plan, kube = work.plan, _of(work)
        previous = plan.previous.version if plan.previous else ""
        match self.does:
            case "makes":
                kube.create_extra(f"{plan.deployment}-{self.id}")
            case "starts":
                kube.create_controller(plan.version)
            case "drains" if previous:
                kube.scale(previous, up=False)
            case "shares":
                kube.lead(CANARY, plan.version)
            case "switches":
                kube.lead(SERVICE, plan.version)
                kube.lead(CANARY, "")


class UndoneStep(PlanStep):
    """One that can be undone."""

    def undo(self, work: Work) -> None:
        self._trouble.before_step(self, work, undo=True)
        outcome = self._trouble.outcome(self, undo=True)
        if outcome in FAILURES:
            raise FAILURES[outcome](self.id)
        plan, kube = work.plan, _of(work)
        previous = plan.previous.version if plan.previous else ""
        match self.does:
            case "makes":
                kube.delete_extra(f"{plan.deployment}-{self.id}")
            case "starts":
                kube.delete_controller(plan.version)
            case "drains" if previous:
                kube.scale(previous, up=True)
            case "shares":
                kube.lead(CANARY, "")
            case "switches":
                kube.lead(SERVICE, previous)


def make_step(spec: StepSpec, trouble: Trouble) -> PlanStep:
    """A step that only looks has no undo of its own."""
    return PlanStep(spec, trouble) if spec.does == LOOKS else UndoneStep(spec, trouble)


def planned(spec: StepSpec, trouble: Trouble) -> PlannedStep:
    """As it is pinned."""
    step = make_step(spec, trouble)
    return PlannedStep(id=step.id, phase=step.phase.name, disturbs=step.disturbs, exposes=step.exposes)


def _of(work: Work) -> Kube:
    assert isinstance(work.kube, Kube)
    return work.kube


# --- the steps of removals ------------------------------------------------------------------------------------------


class RemovalStep(Step):
    """A step of a removal, which may fail like others."""

    phase = Phase.RETIRE

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble

    def run(self, work: Work) -> Outcome:
        outcome = self._trouble.outcome(self, undo=False)
        if outcome in FAILURES:
            raise FAILURES[outcome](self.id)
        return self._do(work)

    def _do(self, work: Work) -> Outcome:
        raise NotImplementedError


class Watch(RemovalStep):
    """A version is well until then, unless it fails."""

    id = "watch"

    def __init__(self, trouble: Trouble, until: float) -> None:
        super().__init__(trouble)
        self._until = until

    def _do(self, work: Work) -> Outcome:
        if self._trouble.live_version_fails():
            raise StepFailed("it crashed twice", reason="CrashLoop")
        return Park(self._until, event=ANY_EVENT) if work.now() < self._until else Done()


class CheckUnused(RemovalStep):
    """Refuses to remove what still has traffic."""

    id = "check-unused"

    def _do(self, work: Work) -> Outcome:
        if work.plan.version in _of(work).read().traffic.values():
            raise OperatorNeeded(f"version {work.plan.version} still has traffic")
        return Done()


class RemoveTraffic(RemovalStep):
    """Leads nobody to the version any more."""

    id = "remove-traffic"

    def _do(self, work: Work) -> Outcome:
        kube = _of(work)
        for what, version in list(kube.read().traffic.items()):
            if version == work.plan.version:
                kube.lead(what, "")
        return Done()


class RemoveWorkload(RemovalStep):
    """Removes the controller, and waits for its pods without holding anything."""

    id = "remove-workload"
    frees_app = True

    def _do(self, work: Work) -> Outcome:
        kube = _of(work)
        uid = work.recall("controller", None)
        if uid is None and (uid := kube.delete_controller(work.plan.version)) is None:
            left = [u for u, version in kube.state.ending.items() if version == work.plan.version]
            uid = left[0] if left else None
        if uid is None or uid not in kube.read().ending:
            return Done()
        if work.recall("controller", None) is None:
            work.remember("controller", uid)
        return _await_pods(work, uid)


class AwaitPodsEnd(RemovalStep):
    """Waits for the pods that an undo left."""

    id = "await-pods-end"

    def __init__(self, trouble: Trouble, controller: str) -> None:
        super().__init__(trouble)
        self._controller = controller

    def _do(self, work: Work) -> Outcome:
        return _await_pods(work, self._controller) if self._controller in _of(work).read().ending else Done()


def _await_pods(work: Work, uid: str) -> Outcome:
    if remaining := work.left("began", PODS_GONE):
        return Park(work.now() + remaining, event=pods_gone(uid))
    raise StepFailed("its pods do not end")


class UsualRemoval:
    """The usual steps of removals."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble

    def undeploy(self) -> list[Step]:
        return [RemoveTraffic(self._trouble), RemoveWorkload(self._trouble)]

    def retire(self) -> list[Step]:
        return [CheckUnused(self._trouble), RemoveWorkload(self._trouble)]

    def rest(self) -> list[Step]:
        return [RemoveWorkload(self._trouble)]

    def release(self) -> list[Step]:
        return []

    def drop(self, what: Sequence[str]) -> list[Step]:
        return []

    def await_pods_end(self, controller: str, grace: float) -> list[Step]:
        return [AwaitPodsEnd(self._trouble, controller)]


# --- the port -------------------------------------------------------------------------------------------------------


class SimulatedCluster:
    """The port `Cluster` on a `State`, for one process. `waiting`: what wakes parked operations, by event."""

    def __init__(self, state: State, trouble: Trouble) -> None:
        self.state, self._trouble = state, trouble
        self.waiting: list[tuple[ClusterEvent, Callable[[], None]]] = []

    def version(self, *_: object) -> None:
        """What gates could ask: nobody does."""

    def access(self, owner: Owner, scope: CancelScope, inventory: Inventory) -> Kube:
        return Kube(self.state, self._trouble, owner, scope, inventory)

    def on_event(self, event: ClusterEvent, wake: Callable[[], None]) -> Callable[[], None]:
        entry = (event, wake)
        self.waiting.append(entry)
        return lambda: self.waiting.remove(entry) if entry in self.waiting else None

    def record(self, told: VersionEvent) -> None:
        """Lost, as it may be: nothing depends on it."""

    def tell(self, *, all_events: bool) -> None:
        """Wake those whose event has come; with `all_events` all others, too."""
        for entry in list(self.waiting):
            event, wake = entry
            come = event.labels[UID] not in self.state.ending if isinstance(event, Gone) else all_events
            if come:
                self.waiting.remove(entry)
                wake()

    def pinned(self, plan: Plan) -> list[Thing]:
        return [(CONTROLLER, plan.version)]

    def named(self, app: str, version: str) -> Workload:
        return Workload()

    def owned(self, owner: Owner, scope: CancelScope) -> list[Thing]:
        controllers = self.state.controllers.items()
        return [(CONTROLLER, version) for version, c in controllers if c.deployment == owner.deployment]

    def fence(self, kube: Kube, app: str) -> None:
        kube.fence()

    def selects(self, kube: Kube, app: str, version: str) -> bool:
        return version in kube.read().traffic.values()

    def remove_rest(self, kube: Kube, things: Sequence[Thing], app: str, version: str) -> list[str]:
        deployment = kube.owner.deployment
        present = [(kind, name) for kind, name in things if name in kube.read().owned(deployment)]
        controller = kube.state.controllers.get(version)
        mine = controller is not None and controller.deployment == deployment
        if present and mine and version in kube.state.traffic.values():
            raise OperatorNeeded(f"version {version} still has traffic, so its objects stay")
        uids = [kube.delete_controller(name) if kind == CONTROLLER else None for kind, name in present]
        for kind, name in present:
            if kind == EXTRA:
                kube.delete_extra(name)
        return [uid for uid in uids if uid]

    def await_pods_end(self, kube: Kube, app: str, version: str, controller: str, log: Log) -> None:
        if controller in kube.read().ending:
            raise DeadlineExceeded(f"pods of controller {controller} are still ending")

    def pods_that_end(self, kube: Kube, plan: Plan, patience: float, log: Log) -> set[str]:
        found = kube.read().controllers.get(plan.version)
        if found is not None and found.deployment != plan.deployment:
            return set()
        return {uid for uid, version in kube.state.ending.items() if version == plan.version}

    def rollback_steps(self, plan: Plan) -> list[Step]:
        return [make_step(spec, self._trouble) for spec in BACK]

    def unready(self, kube: Kube, plan: Plan, *, stopped: bool) -> Unready | None:
        found = kube.read().controllers.get(plan.version)
        up = found is not None and found.deployment == plan.deployment and found.up
        return None if up and not self._trouble.version_before_is_unready() else Unready("it is not up", ANY_EVENT)

    def watch_step(self, until: float) -> Step:
        return Watch(self._trouble, until)

    def removal_steps(self) -> UsualRemoval:
        return UsualRemoval(self._trouble)

    def explained(self, error: StepFailed, plan: Plan, log: Callable[[], str]) -> StepFailed:
        return error

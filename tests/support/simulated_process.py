"""A process of the service in a simulated world: what stands in for threads, time, plugins and the planner."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from unittest import mock

from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.idempotency import Claim, Idempotency
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.strategy import Park, Phase, Step
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import (
    DeadlineExceeded,
    Interrupted,
    PluginError,
    Revoked,
    StepFailed,
    StoreUnavailable,
)
from deployer.core.model import records
from deployer.core.model.plan import PinnedSettings, Previous, ProviderRef, Workload
from deployer.core.model.records import App, Deployment, Document, Operation, OperationKind, Plan, Status
from deployer.core.operations import dispatcher, machine
from deployer.core.operations.actions import Action, Result
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.dispatcher import Engine
from deployer.core.operations.execution import executor
from deployer.core.operations.execution.invocation import BoundedInvoker, StepCrashed
from deployer.core.operations.gates import step as gates
from deployer.core.operations.rollbacks import NOT_WARM
from deployer.core.ports.observers import Observers
from deployer.core.ports.planning import Handles, Planning
from deployer.core.ports.replicas import Replicas
from deployer.core.ports.store import Append, Change, Create, Lease, Store
from deployer.planning.gates import inserted
from deployer.redaction.redactor import Redactor
from deployer.replicas import leases
from deployer.replicas.leases import Leases
from deployer.settings import Settings
from support.memory_store import MemoryStore
from support.simulated_cluster import BACK, Kube, SimulatedCluster, make_step, planned
from support.simulated_gates import SimulatedGate

if TYPE_CHECKING:
    from support.simulation import World

T = TypeVar("T")
R = TypeVar("R", bound=records.Record)

NAMESPACE, APP = "shop", "cart"
SETTINGS = Settings()


class Crash(BaseException):
    """The process is dead: whatever it would do next does not happen."""


# --- what stands in for threads -------------------------------------------------------------------------------------


class InlineInvoker(BoundedInvoker):
    """Makes the calls in the caller's thread."""

    world: World

    def call(self, seconds: float, function: Callable[[CancelScope], T], *, cancellable: bool = False) -> T:
        scope = CancelScope()
        self._enter(scope, cancellable)
        try:
            return function(scope)
        except Interrupted as error:
            if scope.closed or isinstance(error, DeadlineExceeded):
                raise
            raise StepCrashed(f"it raised {error!r}") from error
        except ValueError as error:
            raise StepCrashed(f"it raised {error!r}") from error
        finally:
            scope.close(Revoked("this step is over"))

    def pause(self, seconds: float, *, cancellable: bool) -> None:
        scope = CancelScope()
        self._enter(scope, cancellable)
        self.world.now += seconds
        scope.check()


class Deferred:
    """A thread of an operation, or a timer, that runs when the process gets to it."""

    waiting: ClassVar[list[Deferred]] = []

    def __init__(self, target: Callable[..., None], args: Sequence[Any], *, name: str = "") -> None:
        self.run = functools.partial(target, *args)
        self._for_ever = name in ("engine", "leases")
        self.daemon = True

    def start(self) -> None:
        """What the service does all the time is done by `Process.pump`."""
        if not self._for_ever:
            self.waiting.append(self)


def deferred_thread(*, target: Callable[..., None], name: str, daemon: bool, args: Sequence[Any] = ()) -> Deferred:
    """In the place of `threading.Thread`."""
    return Deferred(target, args, name=name)


def deferred_timer(_: float, function: Callable[..., None], args: Sequence[Any]) -> Deferred:
    """In the place of `threading.Timer`."""
    return Deferred(function, args)


class QuickLog(DeploymentLog):
    """Without secrets to look for, and without watchers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def line(self, deployment_id: str, message: str) -> Append:
        return Append(deployment_id, "2026-01-01T12:00:00.000Z", message)


class NoObservers(Observers):
    """Nobody is told anything."""

    wanted = frozenset()

    def start(self) -> None:
        pass

    def stop(self) -> list[threading.Thread]:
        return []

    def wake(self) -> None:
        pass

    def changed(self, deployment: Document) -> None:
        pass


class Alone(Replicas):
    """It never waits for others: whoever is pumped has its turn."""

    alone = True

    def start(self, moved: Callable[[bool], None], hand_over: Callable[[str], None]) -> None:
        pass

    def stop(self) -> list[threading.Thread]:
        return []

    def patience(self, namespace: str, app: str) -> float:
        return 0.0


class NoLogger:
    """The service's own log, which nobody reads. An error that the engine does not know is a violation."""

    def __init__(self, world: World) -> None:
        self.exception = world.checks.unexpected

    def info(self, *_: object) -> None:
        """Nothing."""

    warning = error = info


# --- one process of the service -------------------------------------------------------------------------------------


class ProcessStore(MemoryStore):
    """The world's store, as one process sees it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process, self._real = world, process, world.store
        self.failing = 0

    def _reach(self) -> MemoryStore:
        """Raises Crash, and StoreUnavailable."""
        if self._process.dead:
            raise Crash
        if self.failing:
            self.failing -= 1
            self._world.checks.disrupted()
            raise StoreUnavailable("the store cannot be reached")
        return self._real

    def get(self, kind: type[R], key: str, *, namespace: str | None = None) -> R | None:
        return self._reach().get(kind, key, namespace=namespace)

    def find(self, kind: type[R], **filters: Any) -> list[R]:
        return self._reach().find(kind, **filters)

    def commit(self, *changes: Change, fence: Lease | None = None) -> int:
        self._reach()
        self._world.trouble(self._process)
        revision = self._reach().commit(*changes, fence=fence)
        for change in changes:
            if isinstance(change, Append):
                self._world.checks.between(change.deployment)
        self._world.check()
        self._world.trouble(self._process)
        return revision

    def append_log(self, deployment: str, lines: Sequence[tuple[str, str]]) -> None:
        if self._process.dead:
            raise Crash
        for _, text in lines:
            self._world.checks.said(deployment, text, current=self._process.works_under_lease())
        self._real.append_log(deployment, lines)

    def acquire(self, namespace: str, app: str, holder: str, ttl: float) -> Lease | None:
        return self._reach().acquire(namespace, app, holder, ttl)

    def release(self, lease: Lease, *, above: int = 0) -> None:
        self._reach().release(lease, above=above)

    def subscribe(self, callback: Callable[[str, str], None]) -> Callable[[], None]:
        def tell(kind: str, key: str) -> None:
            if self._process.dead:
                forget()
            else:
                callback(kind, key)

        forget = self._real.subscribe(tell)
        return forget


class Process:
    """One process of the service. `complete`: the strategy is installed."""

    def __init__(self, world: World, *, complete: bool) -> None:
        self.world, self.complete = world, complete
        self.dead = False
        self.store = ProcessStore(world, self)
        self.cluster = SimulatedCluster(world.state, world)
        self.leases = Leases(self.store)
        dependencies = Dependencies(
            store=self.store,
            deployment_log=QuickLog(self.store),
            redactor=Redactor(),
            registry=self,  # type: ignore[arg-type]
            settings=SETTINGS,
            cluster=self.cluster,  # type: ignore[arg-type]
            planning=SimulatedPlanning(self),
            leases=self.leases,
            replicas=Alone(),
            clock=world.clock,
        )
        self.engine = Engine(dependencies, NoObservers())
        try:
            self.engine.start()
        except (Crash, StoreUnavailable):
            self.dead = True

    # --- as a registry of plugins --------------------------------------------------------------------------------

    observers = ()
    name = "simulated"

    def strategy(self, name: str) -> Process:
        """Ourselves."""
        if not self.complete:
            raise PluginError(f"there is no strategy {name}")
        return self

    def entry(self, kind: str, name: str) -> Process:
        """Ourselves."""
        return self.strategy(name)

    def gate(self, name: str) -> SimulatedGate:
        """One that says what the adversary wants."""
        self.strategy(name)
        return SimulatedGate(self.world)

    declared = types.SimpleNamespace(check_seconds=30.0)

    def title(self, kind: str, name: str) -> str:
        """What errors call it."""
        return f"{kind} {name}"

    def ingress(self) -> None:
        """There is none."""

    def deploy_steps(self, plan: Plan) -> list[Step]:
        """As they were generated for the deployment."""
        return [make_step(spec, self.world) for spec in self.world.specs[plan.deployment]]

    def retire_steps(self, plan: Plan) -> None:
        """The usual ones."""

    undeploy_steps = rollback_steps = retire_steps

    # --- what its threads would do -------------------------------------------------------------------------------

    def pump(self) -> float | None:
        """Take in what changed, and carry out what is due. The seconds until something else is; None: nothing waits."""
        self.world.pumping.append(self)
        try:
            self.engine._take_in()
            pause = self.engine._start_due()
            waiting, Deferred.waiting[:] = Deferred.waiting[:], []
            for thread in waiting:
                thread.run()
                pause = 0.0
            return pause
        except StoreUnavailable:
            return dispatcher.RETRY
        except Crash:
            self.dead = True
            return None
        finally:
            self.world.pumping.pop()

    def works_under_lease(self) -> bool:
        """Is the lease under which it works still its own?"""
        held = [held.lease for held in self.leases.held()]
        return all(self.world.store.holds(lease.namespace, lease.app, lease.token) for lease in held)

    def take_in(self) -> None:
        """Hear of a cancellation while an operation is under way."""
        self.engine._take_in()

    def lose_lease(self) -> None:
        """Learn of it."""
        for held in self.leases.held():
            held.end("it is another one's")


class SimulatedPlanning(Planning):
    """Pins what the world generated for the deployment."""

    def __init__(self, process: Process) -> None:
        self.world, self._store, self._process = process.world, process.store, process

    def decide(self, deployment: Deployment, app: App, handles: Handles) -> tuple[Plan, App]:
        """Raises StepFailed for a version that is in use, as the real one does, and PluginError."""
        self._process.strategy("simulated")
        self._require_live(app, handles)
        for other in self._store.find(Deployment, namespace=NAMESPACE, app=APP):
            waits = other.status is Status.DEPLOYING and other.sequence > deployment.sequence
            if other.id == deployment.id or other.version != deployment.version or waits:
                continue
            if (other.status.moving or other.status is Status.DEPLOYED) and not self.world.is_released(other.id):
                raise StepFailed(f"version {other.version} is in use")
        previous = Previous(deployment=app.live, version=app.live_version) if app.live else None
        specs, gates = self.world.specs[deployment.id], self.world.gates[deployment.id]
        plan = Plan(
            namespace=NAMESPACE,
            app=APP,
            deployment=deployment.id,
            version=deployment.version,
            previous=previous,
            strategy=ProviderRef("simulated", "a:b", "1"),
            steps=inserted(tuple(planned(spec, self.world) for spec in specs), gates),
            gates=gates,
            objects=Workload(),
            budgets={phase.name: 300.0 for phase in Phase},
            settings=PinnedSettings(hold=self.world.choices.pick((20.0, 0.0))),
        )
        return plan, app

    def decide_back(self, pinned: Plan, app: App, handles: Handles, steps: Any) -> Plan:
        """Raises StepFailed for a version that is not warm, as the real one does, and PluginError."""
        self._process.strategy("simulated")
        self._require_live(app, handles)
        found = cast(Kube, handles.kube).read().controllers.get(pinned.version)
        if not app.live or found is None or found.deployment != pinned.deployment or not found.up:
            raise StepFailed(f"version {pinned.version} is not warm", reason=NOT_WARM)
        plan = dataclasses.replace(pinned, previous=Previous(deployment=app.live, version=app.live_version))
        return dataclasses.replace(plan, steps=tuple(planned(spec, self.world) for spec in BACK), gates=())

    def _require_live(self, app: App, handles: Handles) -> None:
        led = cast(Kube, handles.kube).read().traffic.get("service", "")
        if led != app.live_version:
            wrong = f"{led} has traffic, but {app.live_version} is live"
            self.world.checks.require(not self._process.works_under_lease(), wrong)
            raise StepFailed(wrong)


class Client(DeploymentCommands):
    """A user of REST, whose descriptors have been checked."""

    def __init__(self, store: MemoryStore, queue: Callable[[str], Deployment]) -> None:
        self.store, self.deployment_log = store, QuickLog(store)
        self.idempotency = Idempotency(store, 86_400.0)
        self._queue_again = queue

    def again(
        self, earlier: Deployment, by: str = "", also: Sequence[Change] = (), *, claim: Claim, details: Document
    ) -> Deployment:
        if also:
            self.store.commit(*also)
        return self._queue_again(earlier.version)

    def queue(self, version: str, deployment: str, operation: str) -> Deployment:
        """Ask for a version."""
        made = Deployment(
            namespace=NAMESPACE,
            app=APP,
            id=deployment,
            descriptor={},
            created="",
            last_modified="",
            version=version,
        )
        kind = OperationKind.DEPLOY
        self.store.commit(
            Create(made),
            Create(Operation(namespace=NAMESPACE, app=APP, id=operation, kind=kind, deployment=deployment)),
        )
        return made


# --- in the place of the real ones ----------------------------------------------------------------------------------


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """Lets the engine's modules live in this world."""
    time = types.SimpleNamespace(monotonic=world.clock)
    threads = types.SimpleNamespace(
        Lock=threading.Lock, Event=threading.Event, Semaphore=threading.Semaphore,
        current_thread=threading.current_thread, Thread=deferred_thread, Timer=deferred_timer,
    )  # fmt: skip
    ids = types.SimpleNamespace(uuid4=world.new_id)
    log = NoLogger(world)
    decide, settle = machine.next_action, machine.settle

    def next_action(*known: Any) -> Action:
        action = decide(*known)
        world.met[type(action).__name__] += 1
        return action

    def settled(operation: Operation, action: Action, result: Result, *known: Any) -> machine.Transition:
        world.met["parked for an event" if isinstance(result, Park) and result.event else type(result).__name__] += 1
        return settle(operation, action, result, *known)

    InlineInvoker.world = world
    Deferred.waiting.clear()
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (executor, "BoundedInvoker", InlineInvoker),
            (gates, "BoundedInvoker", InlineInvoker),
            (executor, "time", time),
            (dispatcher, "time", time),
            (dispatcher, "threading", threads),
            (leases, "threading", threads),
            (leases, "time", time),
            (leases, "logger", log),
            (dispatcher, "logger", log),
            (executor, "logger", log),
            (records, "uuid", ids),
            (machine, "next_action", next_action),
            (machine, "settle", settled),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield

"""The engine without threads, sandbox and time: an adversary decides at every write what happens next.

The dispatcher, the executor, the state machine, the journal and the transactions are the service's own. The store, the
cluster, the strategy and the planner are simulated; calls into steps run in the one thread that there is. Whatever the
adversary does comes from a string of bytes. Zero stands for nothing bad, and so does the end of the string: from there
on every operation must come to its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from unittest import mock

from deployer.core.cancel_scope import CancelScope
from deployer.core.commands.deployment_commands import DeploymentCommands
from deployer.core.contract.store import Append, Change, Create, Lease, Store, Update
from deployer.core.contract.strategy import Phase, Step, Work
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import (
    Conflict,
    DeadlineExceeded,
    Interrupted,
    KubeUnavailable,
    NotFound,
    PluginError,
    Revoked,
    StepFailed,
    StoreUnavailable,
)
from deployer.core.model import records
from deployer.core.model.plan import PinnedSettings, Previous, ProviderRef, Workload
from deployer.core.model.records import App, Deployment, Event, Operation, OperationKind, OperationState, Plan, Status
from deployer.core.operations import dispatcher, executor, machine
from deployer.core.operations.actions import Action
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.dispatcher import Engine
from deployer.core.operations.invocation import BoundedInvoker, StepCrashed
from deployer.core.redaction import Redactor
from deployer.core.settings import Settings
from support.memory_store import MemoryStore
from support.simulated_cluster import (
    DRAINS,
    LOOKS,
    MAKES,
    RUN_OUTCOMES,
    SHARES,
    STARTS,
    SWITCHES,
    UNDO_OUTCOMES,
    Kube,
    PlanStep,
    SimulatedCluster,
    State,
    StepSpec,
    make_step,
    planned,
)
from support.simulation_checks import Checks, Violation

T = TypeVar("T")
R = TypeVar("R", bound=records.Record)

NAMESPACE, APP = "shop", "cart"
LIMIT = 600
"""Turns that everything may take to come to its end, once nothing goes wrong any more."""

SETTINGS = Settings()


class Crash(BaseException):
    """The process is dead: whatever it would do next does not happen."""


class Choices:
    """What the adversary decides, from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        """True when nothing bad happens any more."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """The next one; 0 at the end."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def rare(self, parts: int = 16) -> bool:
        """True in one of so many cases."""
        return self.byte() >= 256 - 256 // parts

    def pick(self, options: Sequence[T]) -> T:
        """One of them; the first when nothing bad happens."""
        return options[self.byte() * len(options) >> 8]


# --- what stands in for threads -------------------------------------------------------------------------------------


class InlineInvoker(BoundedInvoker):
    """Makes the calls in the caller's thread."""

    world: World

    def call(
        self, seconds: float, function: Callable[[CancelScope], T], *, cancellable: bool = False
    ) -> T:
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
    """A thread, or a timer, that runs when the process gets to it."""

    def __init__(self, *args: Any, target: Any = None, name: str = "timer", daemon: bool = True) -> None:
        self._target, self._args = (target, ()) if target else (args[1], args[2])
        if target and args:
            self._args = args[0]
        self.name, self.daemon = name, daemon

    def start(self) -> None:
        """What the service does all the time is done by `Process.pump`."""
        if self.name.startswith(("operation", "timer")):
            Deferred.waiting.append(self)

    def run(self) -> None:
        """Do it."""
        self._target(*self._args)

    waiting: list[Deferred] = []  # noqa: RUF012 - of the world that is being simulated


class OperationThread(Deferred):
    """As the dispatcher makes them."""

    def __init__(self, *, target: Any, args: Any = (), name: str, daemon: bool) -> None:
        super().__init__(args, target=target, name=name, daemon=daemon)


class QuickLog(DeploymentLog):
    """Without secrets to look for, and without watchers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def line(self, deployment_id: str, message: str) -> Append:
        return Append(deployment_id, "2026-01-01T12:00:00.000Z", message)


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

    def release(self, lease: Lease) -> None:
        self._reach().release(lease)

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
        self.engine = Engine(
            Dependencies(
                store=self.store,
                deployment_log=QuickLog(self.store),
                redactor=Redactor(),
                registry=self,  # type: ignore[arg-type]
                settings=SETTINGS,
                cluster=self.cluster,  # type: ignore[arg-type]
                versions=None,  # type: ignore[arg-type] # which the planner asks, and it is simulated
                clock=world.clock,  # type: ignore[arg-type]
            )
        )
        self.engine.observers.start = lambda: None  # type: ignore[method-assign]
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

    def ingress(self) -> None:
        """There is none."""

    def deploy_steps(self, plan: Plan) -> list[Step]:
        """As they were generated for the deployment."""
        return [make_step(spec, self.world) for spec in self.world.specs[plan.deployment]]

    def retire_steps(self, plan: Plan) -> None:
        """The usual ones."""

    undeploy_steps = retire_steps

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
        return all(self.world.store.holds(*app, lease.token) for app, (lease, _) in self.engine._leases.items())

    def take_in(self) -> None:
        """Hear of a cancellation while an operation is under way."""
        self.engine._take_in()

    def lose_lease(self) -> None:
        """Learn of it."""
        for _, running in list(self.engine._leases.values()):
            running.stop(Revoked("the lease is lost"))


class SimulatedPlanner:
    """Pins what the world generated for the deployment."""

    world: World

    def __init__(self, *, store: MemoryStore, registry: Process, kube: Kube, **_: object) -> None:
        self._store, self._process, self._kube = store, registry, kube

    def decide(self, deployment: Deployment, app: App) -> tuple[Plan, App]:
        """Raises StepFailed for a version that is in use, as the real one does, and PluginError."""
        self._process.strategy("simulated")
        led = self._kube.read().traffic.get("service", "")
        if led != app.live_version:
            wrong = f"{led} has traffic, but {app.live_version} is live"
            self.world.checks.require(not self._process.works_under_lease(), wrong)
            raise StepFailed(wrong)
        for other in self._store.find(Deployment, namespace=NAMESPACE, app=APP):
            waits = other.status is Status.DEPLOYING and other.sequence > deployment.sequence
            if other.id == deployment.id or other.version != deployment.version or waits:
                continue
            if (other.status.moving or other.status is Status.DEPLOYED) and not self.world.is_released(other.id):
                raise StepFailed(f"version {other.version} is in use")
        previous = Previous(deployment=app.live, version=app.live_version) if app.live else None
        specs = self.world.specs[deployment.id]
        plan = Plan(
            namespace=NAMESPACE,
            app=APP,
            deployment=deployment.id,
            version=deployment.version,
            previous=previous,
            strategy=ProviderRef("simulated", "a:b", "1"),
            steps=tuple(planned(spec, self.world) for spec in specs),
            objects=Workload(),
            budgets={phase.name: 300.0 for phase in Phase},
            settings=PinnedSettings(hold=self.world.choices.pick((20.0, 0.0))),
        )
        return plan, app


class Client(DeploymentCommands):
    """A user of REST, whose descriptors have been checked."""

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.deployment_log = store, QuickLog(store)

    def queue(self, version: str, deployment: str, operation: str) -> None:
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
            Create(made), Create(Operation(namespace=NAMESPACE, app=APP, id=operation, kind=kind, deployment=deployment))
        )


# --- the world ------------------------------------------------------------------------------------------------------


class World:
    """An app, its store and cluster, the processes, and the adversary."""

    def __init__(self, data: bytes) -> None:
        self.choices = Choices(data)
        self.now = 1_700_000_000.0
        self.store = MemoryStore(clock=self.clock)
        self.state = State()
        self.specs: dict[str, list[StepSpec]] = {}
        self.trace: list[str] = []
        self.pumping: list[Process] = []
        self.decisions = 0
        self.checks = Checks(self)
        self.store.subscribe(lambda *change: self.checks.changed.add(change))
        self.client = Client(self.store)
        self._ids = itertools.count(1)
        self._versions = itertools.count(1)
        self._faults: list[Callable[[Process], None]] = []
        self.processes: list[Process] = []

    def clock(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def new_id(self) -> str:
        """As `uuid4`, but the same ones each time."""
        return f"id-{next(self._ids):05}"

    def note(self, text: str) -> None:
        """For whoever reads how it came to a violation."""
        self.trace.append(text)

    def check(self) -> None:
        """What must hold at every moment."""
        self.checks.always()

    def is_released(self, deployment: str) -> bool:
        """Is nothing left of it but pods that end?"""
        open_ones = self.store.find(Operation, tag="open")
        return any(o.deployment == deployment and o.target.released for o in open_ones)

    # --- playing -------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Everything that the bytes say, and then to the end. Raises AssertionError for what must not be."""
        try:
            with simulated(self):
                self._play()
        except Violation as error:
            story = "\n".join(self.trace)
            raise AssertionError(f"{error}; how it came to that:\n{story}") from error

    def _play(self) -> None:
        possible = (self._crash, self._cancel, self._lose_lease, self._change_records, self._lose_store)
        mask = self.choices.byte()  # few kinds of trouble at once come further than all of them
        self._faults = [fault for bit, fault in enumerate(possible) if mask >> bit & 1]
        self.troubled_steps, self.troubled_cluster, self.lives_on = (bool(mask >> bit & 1) for bit in (5, 6, 7))
        self.processes = [Process(self, complete=True)]
        self._deploy()
        while not self.choices.over:
            self._turn()
        self._come_to_an_end()
        self.checks.at_rest()

    def _turn(self) -> None:
        turns = (
            self._pump, self._pump, self._pump, self._pump, self._deploy, self._deploy, self._redeploy,
            self._undeploy, self._pass_time, self._end_pods, self._restart, self._second_process,
        )  # fmt: skip
        self.choices.pick(turns)()

    def _pump(self) -> None:
        self.processes = [p for p in self.processes if not p.dead]
        if not self.processes:
            self.processes.append(Process(self, complete=True))
            return
        process = self.choices.pick(self.processes) if len(self.processes) > 1 else self.processes[0]
        process.cluster.tell(all_events=self.choices.rare(4))
        if pause := process.pump():
            self.now += pause
        self._forget_events()

    def _deploy(self) -> None:
        self._queue(str(next(self._versions)))

    def _redeploy(self) -> None:
        """Of a version that there was: often it is still draining."""
        versions = [d.version for d in self.store.find(Deployment) if d.version]
        self._queue(self.choices.pick(versions[::-1])) if versions else self._deploy()

    def _queue(self, version: str) -> None:
        deployment = self.new_id()
        self.specs[deployment] = self._generate()
        self.note(f"deploy {version} as {deployment}: {self.specs[deployment]}")
        self.client.queue(version, deployment, self.new_id())

    def _generate(self) -> list[StepSpec]:
        """A strategy: the controller, the switch, and whatever else is between them, in its phases."""
        drawn = self.choices.byte()
        kinds: list[tuple[Phase, str, bool]] = [(Phase.START, STARTS, False), (Phase.EXPOSE, SWITCHES, drawn % 7 == 6)]
        more = (
            (Phase.VERIFY, LOOKS), (Phase.START, LOOKS), (Phase.START, MAKES), (Phase.START, DRAINS),
            (Phase.EXPOSE, SHARES), (Phase.EXPOSE, MAKES), (Phase.CONFIRM, LOOKS), (Phase.CONFIRM, MAKES),
            (Phase.EXPOSE, DRAINS),
        )  # fmt: skip
        for _ in range(drawn % 6):
            phase, does = self.choices.pick(more)
            # A step comes before or after those of its phase, but a share is given before all is.
            place = 0 if does == SHARES or self.choices.rare(2) else len(kinds)
            if does not in (DRAINS, SHARES) or does not in [k[1] for k in kinds]:
                kinds.insert(place, (phase, does, False))
        kinds.sort(key=lambda kind: kind[0])
        return [StepSpec(f"{does}-{n}", phase, does, silent) for n, (phase, does, silent) in enumerate(kinds)]

    def _undeploy(self) -> None:
        found = self.store.find(Deployment, newest_first=True)
        if found:
            self._rid_of(self.choices.pick(found), purge=self.choices.rare(4))

    def _rid_of(self, deployment: Deployment, *, purge: bool = False) -> None:
        self.note(f"undeploy {deployment.id} ({deployment.status}, purge={purge})")
        with contextlib.suppress(NotFound, Conflict):
            self.client.undeploy(NAMESPACE, deployment.id, purge=purge)
        self.check()

    def _pass_time(self) -> None:
        self.now += self.choices.pick((1.0, 5.0, 20.0, 90.0))

    def _end_pods(self) -> None:
        self.state.ending.clear()

    def _restart(self) -> None:
        """After a crash, or with the plugin gone or back."""
        complete = not self.choices.rare(3)
        self.note(f"restart, the plugin is {'there' if complete else 'gone'}")
        for process in self.processes:
            process.dead = True
        self.checks.disrupted()
        self.now += dispatcher.LEASE + 1
        self.processes = [Process(self, complete=complete)]

    def _second_process(self) -> None:
        if len(self.processes) < 2:
            self.note("a second process")
            self.processes.append(Process(self, complete=True))

    def _forget_events(self) -> None:
        """Observers have been told."""
        self.store._records[Event.KIND].clear()

    def _come_to_an_end(self) -> None:
        self.note("nothing bad happens any more")
        alive = [p for p in self.processes if not p.dead]
        if not self.lives_on or not alive or not all(p.complete for p in alive):
            for process in alive:
                process.dead = True
            alive = [Process(self, complete=True)]
            self.checks.disrupted()
        self.now += dispatcher.LEASE + 1
        for _ in range(LIMIT):
            self.state.ending.clear()
            pauses = []
            for process in alive:
                process.cluster.tell(all_events=True)
                pauses.append(process.pump())
            if not self.store.find(Operation, tag="open"):
                return
            self.now += min((pause for pause in pauses if pause is not None), default=0.0)
        left = self.store.find(Operation, tag="open")
        self.checks.require(False, f"these operations never end: {left}")

    # --- trouble: the store --------------------------------------------------------------------------------------

    def trouble(self, process: Process) -> None:
        """Before a transaction, or a change of the cluster, that may not come about; and after it, when whoever asked
        for it may not learn of it."""
        if self._faults and not self.choices.over and self.choices.rare(12):
            self.choices.pick(self._faults)(process)

    def _crash(self, process: Process) -> None:
        self.note("crash")
        self.checks.disrupted()
        process.dead = True
        raise Crash

    def _cancel(self, process: Process) -> None:
        """Somebody wants to be rid of what is being deployed."""
        for deployment in self.store.find(Deployment, tag=Status.DEPLOYING.value)[:1]:
            self._rid_of(deployment)
        if not self.choices.rare(4):  # else it is heard of later
            process.take_in()

    def _lose_lease(self, process: Process) -> None:
        """The process stalls, and another one takes over and carries on, before the first one does."""
        if len(self.pumping) > 1:
            return
        self.note("the process stalls; another one carries on")
        self.checks.disrupted()
        self.now += dispatcher.LEASE + 1
        other = Process(self, complete=not self.choices.rare(6))
        for _ in range(self.choices.pick((1, 2, 3, 5))):
            if not other.dead:
                other.pump()
        if not other.dead and self.choices.rare(2):
            self.processes.append(other)
        else:
            other.dead = True
        self.note("the first one goes on")
        self.checks.disrupted()
        if not self.choices.rare(2):
            process.lose_lease()

    def _change_records(self, process: Process) -> None:
        """Somebody else writes records on which the next transaction may depend."""
        self.note("another client changes the app's records")
        app = self.store.get(App, f"{NAMESPACE}/{APP}")
        if app is not None:
            self.store.commit(Update(dataclasses.replace(app, highest=app.highest + 1)))

    def _lose_store(self, process: Process) -> None:
        """Raised before the transaction it does not happen, raised after it nobody knows."""
        self.note("the store cannot be reached")
        self.checks.disrupted()
        process.store.failing = self.choices.pick((0, 0, 1, 4, 12))
        self.lives_on = False  # what the dispatcher had heard by then it may have forgotten
        raise StoreUnavailable("the store cannot be reached")

    # --- trouble: the cluster and steps --------------------------------------------------------------------------

    @property
    def process(self) -> Process:
        """The one that is at work."""
        return self.pumping[-1]

    def before_write(self, kube: Kube, *, shared: bool) -> None:
        """See `Trouble`. A process that lost its lease learns of that before its requests for versioned objects."""
        self._fail_now_and_then()
        self._kube_trouble()
        if not shared and not self.store.holds(NAMESPACE, APP, kube.owner.fencing_token):
            self.process.lose_lease()
        else:
            self.checks.may_write(self.process, kube, shared=shared)

    def after_write(self, kube: Kube) -> None:
        """See `Trouble`."""
        self.note(f"   cluster: {self.state}")
        self.check()
        self._fail_now_and_then()
        self._kube_trouble()

    def before_read(self) -> None:
        """See `Trouble`."""
        self._fail_now_and_then()

    def _kube_trouble(self) -> None:
        process = self.process
        with contextlib.suppress(StoreUnavailable):
            self.trouble(process)
        if process.dead:
            raise Crash

    def _fail_now_and_then(self) -> None:
        if self.troubled_cluster and not self.choices.over and self.choices.rare(20):
            self.note("the API server does not answer")
            raise KubeUnavailable("the API server does not answer")

    def before_step(self, step: PlanStep, work: Work, *, undo: bool) -> None:
        """See `Trouble`."""
        assert isinstance(work.kube, Kube)
        self.note(f"  {'undo' if undo else 'run'} {step.id} of {work.plan.version}")
        if self.store.holds(NAMESPACE, APP, work.kube.owner.fencing_token):
            self.checks.step(step, work.plan, undo=undo)
        self._kube_trouble()

    def outcome(self, step: Step, *, undo: bool) -> str:
        """See `Trouble`."""
        if not self.troubled_steps or self.choices.over or not self.choices.rare(4):
            return "done"
        found = self.choices.pick(UNDO_OUTCOMES if undo else RUN_OUTCOMES)
        if found == "changed" and getattr(step, "does", "") == DRAINS:
            return "fails"  # whoever changed it would have to answer for the capacity
        self.note(f"  {step.id}: {found}")
        return found

    def pods_end_at_once(self) -> bool:
        """See `Trouble`."""
        return not self.choices.rare(3)


# --- in the place of the real ones ----------------------------------------------------------------------------------


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """Lets the engine's modules live in this world."""
    time = types.SimpleNamespace(monotonic=world.clock)
    threads = types.SimpleNamespace(
        Lock=threading.Lock, Event=threading.Event, Semaphore=threading.Semaphore,
        current_thread=threading.current_thread, Thread=OperationThread, Timer=Deferred,
    )  # fmt: skip
    ids = types.SimpleNamespace(uuid4=world.new_id)
    log = NoLogger(world)
    decide = machine.next_action

    def next_action(*known: Any) -> Action:
        world.decisions += 1
        return decide(*known)

    InlineInvoker.world = SimulatedPlanner.world = world
    Deferred.waiting = []
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (executor, "BoundedInvoker", InlineInvoker),
            (executor, "Planner", SimulatedPlanner),
            (executor, "time", time),
            (dispatcher, "time", time),
            (dispatcher, "threading", threads),
            (dispatcher, "logger", log),
            (executor, "logger", log),
            (records, "uuid", ids),
            (machine, "next_action", next_action),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield

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
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.contract.strategy import Phase, Step, Work
from deployer.core.errors import Conflict, KubeUnavailable, NotFound, StoreUnavailable
from deployer.core.model.plan import PlannedGate
from deployer.core.model.records import App, Deployment, Event, Operation, Status
from deployer.core.ports.leases import LEASE
from deployer.core.ports.store import Update
from support import simulated_gates
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
    State,
    StepSpec,
)
from support.simulated_process import APP, NAMESPACE, Client, Crash, Process, simulated
from support.simulation_checks import Checks, Violation

T = TypeVar("T")

LIMIT = 600
"""Turns that everything may take to come to its end, once nothing goes wrong any more."""


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


# --- the world ------------------------------------------------------------------------------------------------------


class World:
    """An app, its store and cluster, the processes, and the adversary."""

    def __init__(self, data: bytes) -> None:
        self.choices = Choices(data)
        self.now = 1_700_000_000.0
        self.store = MemoryStore(clock=self.clock)
        self.state = State()
        self.specs: dict[str, list[StepSpec]] = {}
        self.gates: dict[str, tuple[PlannedGate, ...]] = {}
        self.passed: set[tuple[str, str]] = set()
        """The gates, by deployment and step, that have passed or that somebody has approved."""
        self.trace: list[str] = []
        self.pumping: list[Process] = []
        self.met: Counter[str] = Counter()
        """How often the state machine decided for each kind of action, and had each kind of result."""
        self.checks = Checks(self)
        self.store.subscribe(lambda *change: self.checks.changed.add(change))
        self.client = Client(self.store, self._queue)
        self.rollbacks = RollbackCommands(self.client)
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
            self._undeploy, self._pass_time, self._end_pods, self._restart, self._second_process, self._roll_back,
            self._decide,
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

    def _roll_back(self) -> None:
        """To the version before, warm or not; or whatever is under way is over."""
        self.note("roll back")
        with contextlib.suppress(NotFound, Conflict):
            self.rollbacks.roll_back(NAMESPACE, APP)
            self.checks.disrupted()  # what waited may be told once more why
        self.check()

    def _decide(self) -> None:
        """People look after the gates that wait for them."""
        simulated_gates.decide(self)

    def _queue(self, version: str) -> Deployment:
        deployment = self.new_id()
        self.specs[deployment] = self._generate()
        self.gates[deployment] = simulated_gates.generate(self)
        points = [gate.point for gate in self.gates[deployment]]
        self.note(f"deploy {version} as {deployment}: {self.specs[deployment]}, gates {points}")
        return self.client.queue(version, deployment, self.new_id())

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
            self.checks.disrupted()  # an operation of its own, with words of its own
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
        self.now += LEASE + 1
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
        self.now += LEASE + 1
        for turn in range(LIMIT):
            self.state.ending.clear()
            pauses = []
            for process in alive:
                process.cluster.tell(all_events=turn % 4 == 0)  # what is woken each time never gets to its end
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
        self.now += LEASE + 1
        if self.choices.rare(2):  # so that the other one undoes what the first is about to do
            for deployment in self.store.find(Deployment, tag=Status.DEPLOYING.value)[:1]:
                self._rid_of(deployment)
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

    def live_version_fails(self) -> bool:
        """See `Trouble`."""
        return self.troubled_steps and self.choices.rare(2)

    def version_before_is_unready(self) -> bool:
        """See `Trouble`."""
        return self.troubled_steps and self.choices.rare(3)

    def pods_end_at_once(self) -> bool:
        """See `Trouble`."""
        return not self.choices.rare(3)

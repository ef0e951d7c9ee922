"""What every gate must do, as checks on one gate and a world in memory: ours, and a stranger's.

No test framework is needed: `CHECKS` are functions that take a `GateBench` and raise AssertionError. With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_gate(check):
        check(GateBench(Mine, passes=quiet, fails=[loud], away=[gone]))
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.calls import Invocation
from deployer.core.contract.gate import wrong_outcome
from deployer.plugin_manager.gates import wrong_gate
from deployer.sdk.errors import Cancelled, DeployerError, Interrupted, KubeConflict, KubeUnavailable, StepFailed
from deployer.sdk.gate import (
    Decision,
    Gate,
    GateContext,
    HealthTarget,
    HttpAnswer,
    Missing,
    Outcome,
    Passed,
    Pending,
    Point,
    VersionUnreachable,
)
from deployer.sdk.health import PodUnreachable
from deployer.sdk.kube import Kind
from deployer.sdk.plugin import CancelScope, Document
from deployer.sdk.strategy import Plan
from deployer.testing.descriptors import describe, plan_of
from deployer.testing.fakes import FakeKube
from deployer.testing.plugins import require_options

PASSING = (KubeUnavailable, KubeConflict, VersionUnreachable, PodUnreachable)
"""Errors after which a gate is called again."""

CALLS = 100
"""Calls after which a gate must have said something, or waited for its deadline."""

LATE = 1.0
"""Seconds after a cancellation in which a call has to be back."""


@dataclass
class FakeVersion:
    """The new version, as a test wants it: `targets` are its ready pods (`FakePod.target()` makes one), `answers` what
    its preview says by path; None: it cannot be reached."""

    targets: Sequence[HealthTarget] | None = ()
    answers: Mapping[str, Sequence[HttpAnswer]] | None = None

    def pods(self, port: int | str = "") -> Sequence[HealthTarget]:
        if self.targets is None:
            raise VersionUnreachable("no pod can be asked")
        return self.targets

    def preview(self, path: str) -> Sequence[HttpAnswer]:
        if self.answers is None or path not in self.answers:
            raise VersionUnreachable("there is no preview")
        return self.answers[path]


@dataclass
class FakeGate:
    """What a gate gets, without a cluster: objects in `kube`, a log that is a list, and a clock that the test moves.

    `memory` outlives a gate, as after a crash. `context` is a fresh one each time, as for each call.
    """

    point: Point = Point.BEFORE_SWITCH
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "mine"
    plan: Plan = field(default_factory=lambda: plan_of("2", previous="1"))
    seconds: float = 300.0
    decision: Decision | None = None
    version: FakeVersion = field(default_factory=FakeVersion)

    def __post_init__(self) -> None:
        self.now = self.began = 1_000_000.0
        self.memory: dict[str, Any] = {}
        self.log: list[str] = []
        self.kube = FakeKube(CancelScope(), self.plan.deployment, self.plan.namespace, self.plan.app)

    @property
    def context(self) -> GateContext:
        """A fresh one, whose scope is open for 20 s."""
        scope = CancelScope(time.monotonic() + 20.0)

        def remember(key: str, value: Any) -> None:
            with scope.writing():
                self.memory[key] = copy.deepcopy(value)

        return GateContext(
            name=self.name,
            point=self.point,
            plan=self.plan,
            options=copy.deepcopy(dict(self.options)),
            kube=self.kube.with_scope(scope),
            version=self.version,
            log=self.log.append,
            remember=remember,
            recall=lambda key, default: copy.deepcopy(self.memory.get(key, default)),
            scope=scope,
            now=lambda: self.now,
            began=self.began,
            deadline=self.began + self.seconds,
            decision=self.decision,
        )

    def put(self, kind: Kind, body: Document) -> Document:
        """Make or replace an object that is somebody else's."""
        return self.kube.put(kind, body)


World = Callable[[FakeGate], None]
"""Arranges what a gate finds; it is called before each call, so that what moves can move."""


@dataclass
class GateBench:
    """Where one gate is tried.

    gate           makes it anew, as a restarted service would
    passes         the world in which it passes
    fails          those in which there is evidence against going on
    away           those in which there is no evidence at all: what it asks is gone, or silent
    options        of the gate
    wrong_options  that must be refused
    point          where it stands
    values         secrets that it knows, or finds, and that must never be said
    """

    gate: Callable[[], Gate]
    passes: World
    fails: Sequence[World] = ()
    away: Sequence[World] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    wrong_options: Sequence[Mapping[str, Any]] = ()
    point: Point = Point.BEFORE_SWITCH
    values: Collection[str] = ()

    def fake(self) -> FakeGate:
        """A world in which nothing is arranged yet."""
        return FakeGate(point=self.point, options=self.options)

    def ask(self, gate: Gate, fake: FakeGate) -> Outcome | Exception:
        """One call; what it raised, when that is an error that passes, or stands for a verdict. Raises AssertionError
        for everything that the Deployer takes for a mistake of the gate."""
        context = fake.context
        call = Invocation(lambda: gate.check(context), "gate")
        assert call.wait(gate.check_seconds + LATE), f"check() did not come back within {gate.check_seconds:g} s"
        try:
            outcome: Any = call.result()
        except (*PASSING, StepFailed) as error:
            return error
        except BaseException as error:
            raise AssertionError(f"check() raised {type(error).__name__}: {error}") from error
        wrong = wrong_outcome(outcome)
        assert not wrong, f"check() {wrong}"
        assert outcome.reason.strip(), f"{type(outcome).__name__} has no reason, which people would read"
        found: Outcome = outcome
        return found

    def drive(self, world: World, fake: FakeGate | None = None, *, restarts: bool = False) -> list[Outcome | Exception]:
        """Call it as the Deployer does, until it has a verdict or its time is up. `restarts`: a new one each time."""
        fake = fake or self.fake()
        gate = self.gate()
        said: list[Outcome | Exception] = []
        for _ in range(CALLS):
            world(fake)
            said.append(self.ask(gate, fake))
            last = said[-1]
            if isinstance(last, Pending):
                fake.now = max(fake.now + 1.0, min(last.until, fake.began + fake.seconds))
            elif isinstance(last, PASSING):
                fake.now += fake.seconds / 5
            else:
                return said
            if fake.now >= fake.began + fake.seconds:
                return said
            gate = self.gate() if restarts else gate
        raise AssertionError(f"after {CALLS} calls it neither said anything nor waited for its deadline")


Check = Callable[[GateBench], None]


def it_says_what_it_is(bench: GateBench) -> None:
    """Points, times and options are such as can be."""
    gate = bench.gate()
    wrong = wrong_gate(gate)
    assert not wrong, f"it {wrong}"
    assert bench.point in list(map(Point, gate.points)), f"it does not stand at {bench.point}"
    assert isinstance(gate.needs_another_person(dict(bench.options)), bool), "needs_another_person() gives no bool"

    def place(options: Document) -> Document:
        described = {"type": gate.name, "name": "mine", "options": options}
        return describe("default", gates={str(bench.point): [described]})

    require_options(gate, "gate", bench.options, bench.wrong_options, place)


def it_passes_with_evidence(bench: GateBench) -> None:
    """In the world in which it should."""
    said = bench.drive(bench.passes)
    assert isinstance(said[-1], Passed), f"it does not pass: {said[-1]}"


def it_passes_after_restarts(bench: GateBench) -> None:
    """What it must know from one call to the next is remembered, and nothing is made twice."""
    fake = bench.fake()
    said = bench.drive(bench.passes, fake, restarts=True)
    assert isinstance(said[-1], Passed), f"a new one at each call does not pass: {said[-1]}"
    created = [write for write in fake.kube.writes if write.startswith("create ")]
    assert len(created) == len(set(created)), f"made twice: {created}"


def it_says_no(bench: GateBench) -> None:
    """Whatever is evidence against going on is no pass."""
    for world in bench.fails:
        said = bench.drive(world)
        passed = [one for one in said if isinstance(one, Passed)]
        assert not passed, f"it passes with {name_of(world)}: {passed[0].reason}"
        assert not isinstance(said[-1], Missing), f"with {name_of(world)} there is evidence, but it says that none is"


def silence_is_no_pass(bench: GateBench) -> None:
    """Nor is what cannot be asked, and that is no reason to hang."""
    for world in bench.away:
        said = bench.drive(world)
        passed = [one for one in said if isinstance(one, Passed)]
        assert not passed, f"it passes with {name_of(world)}: {passed[0].reason}"


def no_evidence_from_an_earlier_look_is_left(bench: GateBench) -> None:
    """What is gone after a look is gone: it does not pass by what it saw before."""
    for world in bench.away:
        fake = bench.fake()
        bench.passes(fake)
        first = bench.ask(bench.gate(), fake)
        if isinstance(first, Passed):
            continue
        fake.now += 5.0
        said = bench.drive(world, fake)
        assert not isinstance(said[-1], Passed), f"it passes with {name_of(world)} by what it saw before"


def it_waits_for_something(bench: GateBench) -> None:
    """It does not call for itself again and again, and what it waits for can come."""
    for world in (bench.passes, *bench.fails, *bench.away):
        fake = bench.fake()
        world(fake)
        outcome = bench.ask(bench.gate(), fake)
        if isinstance(outcome, Pending):
            assert outcome.until > fake.now, f"it waits until {fake.now - outcome.until:g} s ago"


def it_stops_when_it_is_cancelled(bench: GateBench) -> None:
    """A closed scope ends a call soon, whatever it waits for; and nothing is written after that."""
    for world in (*bench.away, bench.passes):
        fake, gate = bench.fake(), bench.gate()
        world(fake)
        context = fake.context
        call = Invocation(lambda gate=gate, context=context: gate.check(context), "gate")  # type: ignore[misc]
        call.wait(0.1)
        context.scope.close(Cancelled("cancelled by request"))
        writes = len(fake.kube.writes)
        assert call.wait(LATE), f"it goes on with {name_of(world)} although it was cancelled"
        assert len(fake.kube.writes) <= writes + 1, "it writes after it was cancelled"
        try:
            call.result()
        except (DeployerError, Interrupted):
            pass
        except BaseException as error:
            raise AssertionError(f"cancelled, it raised {type(error).__name__}: {error}") from error


def it_can_be_ended_at_any_time(bench: GateBench) -> None:
    """Before it was asked, after it passed, and twice."""
    for asked in (False, True):
        fake, gate = bench.fake(), bench.gate()
        bench.passes(fake)
        if asked:
            bench.drive(bench.passes, fake)
        for _ in range(2):
            try:
                gate.end(fake.context)
            except BaseException as error:
                raise AssertionError(f"end() raised {type(error).__name__}: {error}") from error


def what_it_makes_is_known(bench: GateBench) -> None:
    """Objects have the marks by which the core finds and removes them."""
    fake = bench.fake()
    before = set(fake.kube.objects)
    bench.drive(bench.passes, fake)
    arranged = bench.fake()
    bench.passes(arranged)
    for key in set(fake.kube.objects) - before - set(arranged.kube.objects):
        found = fake.kube.objects[key]
        notes = found["metadata"].get("annotations") or {}
        role = notes.get("kube-deployer/role", "")
        assert role.startswith("versioned-"), f"{key[0].kind} {key[1]} has the role {role!r}, not versioned-..."
        assert notes.get("kube-deployer/deployment") == fake.plan.deployment, f"{key[1]} is not this deployment's"


def secrets_are_never_said(bench: GateBench) -> None:
    """Neither in a reason, nor in a measurement, a log line or an error."""
    for world in (bench.passes, *bench.fails, *bench.away):
        fake = bench.fake()
        said = [*map(str, bench.drive(world, fake)), *fake.log]
        for value in bench.values:
            assert not any(value in text for text in said), f"it says a secret with {name_of(world)}"


def calls_at_once_are_apart(bench: GateBench) -> None:
    """One gate serves all deployments: what one saw is nobody else's."""
    gate = bench.gate()
    verdicts: list[Any] = []
    one = dataclasses.replace(bench, gate=lambda: gate)

    def ask(world: World) -> None:
        try:
            verdicts.append((world, one.drive(world)[-1]))
        except AssertionError as error:
            verdicts.append((world, error))

    worlds = [bench.passes, *bench.fails[:2], bench.passes]
    threads = [threading.Thread(target=ask, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for world, verdict in verdicts:
        assert isinstance(verdict, Passed) is (world is bench.passes), f"with {name_of(world)}, at once: {verdict}"


def name_of(world: World) -> str:
    """For a sentence."""
    return getattr(world, "__name__", "a world").replace("_", " ")


CHECKS: tuple[Check, ...] = (
    it_says_what_it_is,
    it_passes_with_evidence,
    it_passes_after_restarts,
    it_says_no,
    silence_is_no_pass,
    no_evidence_from_an_earlier_look_is_left,
    it_waits_for_something,
    it_stops_when_it_is_cancelled,
    it_can_be_ended_at_any_time,
    what_it_makes_is_known,
    secrets_are_never_said,
    calls_at_once_are_apart,
)

__all__ = ["CHECKS", "Check", "FakeGate", "FakeVersion", "GateBench"]

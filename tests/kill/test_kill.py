"""Kill tests: the service dies before and after every write of a flow, is started again, and all must end well.

A clean run counts how often a flow passes each failpoint: `kube.before` and `kube.after` surround every request that
changes the cluster, `store.before` and `store.after` every durable commit. Then one case for each hit: the process dies
there by `os._exit(137)`, a new one is started on the same store, and when that has nothing left to do, everything is
undeployed. The sandbox is a process of its own and sees none of this.

What must hold is checked on *every* state that the cluster went through (`support/history.py`), by a visitor who asks
for the page all the time, and on what is left in the end (`support/aftermath.py`).

By default a spread of the points is tried: two of each flow and failpoint (one of flows that are tried sparingly),
together all over the flow. With `CI` set or `--kill=sample` it is one in three, drawn by `--seed`, which the report's
header names; with `--kill=all` (`make test-long`) it is all of them, and with `--kill=redeploy:kube.after:3` only that
one. The other tests here kill more than once.
"""

from __future__ import annotations

import dataclasses
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.deployment_log import DeploymentLog
from deployer.core.failpoints import EXIT_CODE
from deployer.core.model.records import Deployment, Operation
from deployer.redaction.redactor import Redactor
from deployer.store.sqlite import SqliteStore
from support.aftermath import all_objects, check_empty, check_end
from support.flows import FLOWS, host
from support.forkserver import Child, ForkServer
from support.history import (
    History,
    Visitor,
    broken,
    document,
    foreign_versions,
    make_foreign,
    run_twice,
)
from support.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

AT_ONCE = 4
"""Cases at a time: most of a case is waiting."""

SPREAD = {
    "kube.before": (0.0, 0.6),
    "kube.after": (0.35, 1.0),
    "store.before": (0.2, 0.7),
    "store.after": (0.5, 0.9),
}
"""The failpoints, and which hits are tried by default: 0.0 is the first of a clean run and 1.0 its last."""

SAMPLED = 3
"""A sample has one in so many hits, the first and the last."""

RESTARTS = 30
"""Processes that a flow may take when each of them dies after a few writes."""

Clean = Callable[[str], dict[str, int]]
APP = "shop"


@dataclasses.dataclass
class Lab:
    """Where cases run: the sandbox, the fork server, a directory."""

    cluster: sandbox.Sandbox
    server: ForkServer
    path: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A sandbox of its own, whose watches tell often how far they are."""
    path = tmp_path_factory.mktemp("kill")
    cluster = sandbox.start(path / "sandbox", ingress_delay=0.05, options=("--bookmark-interval", "0.1"))
    server = ForkServer("support.flows:run", path / "server")
    yield Lab(cluster, server, path)
    server.close()
    cluster.stop()


@pytest.fixture(scope="module")
def clean(lab: Lab) -> Clean:
    """The hits of each failpoint in a clean run of a flow, which is a case itself."""
    known: dict[str, dict[str, int]] = {}

    def count(flow: str) -> dict[str, int]:
        if flow not in known:
            known[flow] = Case(lab, flow, []).run()
        return known[flow]

    return count


# --- one case -----------------------------------------------------------------------------------------------------


class Case:
    """One flow that is killed once for each of `kills` (`name:N`), and recovers after the last."""

    def __init__(self, lab: Lab, flow: str, kills: Sequence[str]) -> None:
        self.name = f"{flow} killed at {', then '.join(dict.fromkeys(kills)) or 'no point'}"
        self.flow = FLOWS[flow]
        self.kills = list(kills)
        self.died = 0
        self.done = False
        self._begun = False
        self._lab = lab
        self._namespace = f"kill-{uuid.uuid4().hex[:12]}"
        self._path = lab.path / self._namespace
        self._path.mkdir()
        self._acknowledged: dict[str, str] = {}
        self._job = {
            "flow": flow,
            "cluster": {**dataclasses.asdict(lab.cluster), "state": str(lab.cluster.state)},
            "path": str(self._path),
            "namespace": self._namespace,
        }

    def run(self) -> dict[str, int]:
        """Run it and check everything. Returns the hits of the last process. Raises AssertionError."""
        world = World(self._lab.cluster, self._path, self._namespace)
        foreign = make_foreign(world)
        history = History(world.eyes, self._namespace)
        visitor = Visitor(self._lab.cluster.ingress, host(self._namespace))
        try:
            return self._run(world, history, visitor, foreign)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}\n{self._story(world)}") from error
        finally:
            visitor.stop()
            history.close()
            world.close()

    def _run(self, world: World, history: History, visitor: Visitor, foreign: list[str]) -> dict[str, int]:
        for kill in self.kills:
            if self.done:
                break
            with Living(self._start(kill)) as child:
                # A report means that it has come to the end alive: the failpoint was not reached.
                self.done = self._listen(child) is not None
                child.write({})
                assert self._listen(child) is None
                assert child.exit == (0 if self.done else EXIT_CODE), f"the service ended with {child.exit}"
                self.died += not self.done
        with Living(self._start("")) as child:
            message = self._listen(child)
            assert message, f"the service ended with {child.exit} instead of recovering"
            end = history.now()
            problems = check_end(world, self.flow, self._acknowledged, message["report"])
            failed = visitor.stop()
            if self.flow.stays:
                problems += failed[:3]
                if not visitor.served and self.flow.live:
                    problems.append("the visitor was never served")
            # The cluster is empty again at the very end: only here.
            child.write({"remove": True})
            after = self._listen(child)
            assert after, f"the service ended with {child.exit} while undeploying"
            assert self._listen(child) is None and child.exit == 0, f"the service ended with {child.exit}"
        history.now()
        problems += broken(history, APP, end if self.flow.stays else 0)
        problems += check_empty(world, after["report"]) + run_twice(history)
        problems += [f"foreign {was} was changed" for was in foreign if was not in foreign_versions(world)]
        assert not problems, "\n  ".join(["", *problems])
        return dict(message["counts"])

    # --- parts ----------------------------------------------------------------------------------------------------

    def _start(self, kill: str) -> Child:
        child = self._lab.server.fork()
        part = "recover" if self._begun else "act"
        self._begun = True
        child.write({**self._job, "part": part, "kill": kill, "acknowledged": self._acknowledged})
        return child

    def _listen(self, child: Child) -> dict[str, Any] | None:
        """The next report; acknowledgements are noted. None when the child has ended."""
        while (message := self._read(child)) is not None:
            assert "error" not in message, message["error"]
            if "report" in message:
                return message
            self._acknowledged |= message["acknowledged"]
        return None

    def _read(self, child: Child) -> dict[str, Any] | None:
        try:
            return child.read()
        except TimeoutError:
            raise AssertionError("the service hangs") from None

    def _story(self, world: World) -> str:
        """The logs of the deployments and the namespace's objects."""
        parts = [f"=== objects of {self._namespace}", document(all_objects(world))]
        store = SqliteStore(world.settings.data_dir / "deployer.db")
        deployment_log = DeploymentLog(store, Redactor())
        for found in store.find(Deployment, namespace=self._namespace):
            parts += [f"=== {found.version} {found.status} {found.failure}", *deployment_log.text(found.id)]
        parts += [f"=== open: {operation}" for operation in store.find(Operation, tag="open")]
        deployment_log.close()
        store.close()
        service_log = self._path / "service.log"
        parts += ["=== the service's log", service_log.read_text()[-6000:] if service_log.exists() else ""]
        return "\n".join([*parts, self._lab.server.log.read_text()[-2000:]])


class Living:
    """A child that is surely gone afterwards."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def __enter__(self) -> Child:
        return self._child

    def __exit__(self, *_: object) -> None:
        self._child.close()


# --- the tests ----------------------------------------------------------------------------------------------------


def run_all(cases: Sequence[Case]) -> None:
    """Run them, some at a time; all failures are told."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = [pool.submit(case.run) for case in cases]
    failures = [str(error) for outcome in outcomes if (error := outcome.exception())]
    assert not failures, f"{len(failures)} of {len(cases)} cases failed\n\n" + "\n\n".join(failures)


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> str:
    """Which points to try: `all`, `sample:SEED`, `spread`, or one as `flow:failpoint:N`."""
    chosen = str(request.config.getoption("--kill"))
    return f"sample:{request.config.getoption('--seed')}" if chosen == "sample" else chosen


def single(chosen: str) -> bool:
    """Is it one point of one flow?"""
    return ":" in chosen and not chosen.startswith("sample:")


@pytest.mark.parametrize("flow", FLOWS)
def test_a_clean_run_writes_and_ends_well(flow: str, clean: Clean) -> None:
    hits = clean(flow)
    assert hits["kube.before"] == hits["kube.after"] >= FLOWS[flow].writes, hits
    assert hits["store.before"] == hits["store.after"] >= 6, hits


def numbers(chosen: str, flow: str, name: str, count: int) -> list[int]:
    """Which of the hits 1..count of failpoint `name` are to be tried."""
    spare = FLOWS[flow].spare
    if chosen == "all":
        return list(range(1, count + 1, FLOWS[flow].stride))
    if chosen.startswith("sample:"):
        every, draw = range(1, count + 1), random.Random(f"{chosen} {flow} {name}")
        return [draw.choice(every)] if spare else sorted({1, count, *draw.sample(every, -(-count // SAMPLED))})
    if chosen == "spread":
        return sorted({1 + round(share * (count - 1)) for share in SPREAD[name][int(spare) :]})
    return [int(chosen.rpartition(":")[2])] if chosen.startswith(f"{flow}:{name}:") else []


@pytest.mark.parametrize("flow", FLOWS)
def test_a_kill_at_every_write(lab: Lab, clean: Clean, chosen: str, flow: str) -> None:
    if single(chosen) and not chosen.startswith(f"{flow}:"):
        pytest.skip(f"--kill={chosen}")
    hits = clean(flow)
    points = [f"{name}:{number}" for name in SPREAD for number in numbers(chosen, flow, name, hits[name])]
    cases = [Case(lab, flow, [point]) for point in points]
    assert cases, f"--kill={chosen} names no failpoint"
    run_all(cases)
    # Lines of the log and notes of observers share a commit with others or not, as their threads come, so the last hits
    # of a clean run need not be there in another.
    last = {f"{name}:{number}" for name, hit in hits.items() for number in range(hit - hit // 6, hit + 1)}
    missed = [case.name for case in cases if not case.died and case.kills[0] not in last]
    assert len(missed) <= max(2, len(cases) // 20), f"these were to die, but did not: {missed}"


@pytest.mark.parametrize("flow", FLOWS)
def test_kills_of_the_recovery_too(lab: Lab, clean: Clean, chosen: str, flow: str) -> None:
    """Killed in the flow, then in what undoes or finishes it, twice."""
    if single(chosen) or (FLOWS[flow].spare and chosen != "all"):
        pytest.skip(f"--kill={chosen}")
    hits = clean(flow)
    then = {"kube.after": ("kube.after:3", "kube.before:4"), "store.after": ("store.before:2", "store.after:3")}
    shares = (0.3, 0.5, 0.7, 0.9) if chosen == "all" else (0.7,)
    cases = [
        Case(lab, flow, [f"{name}:{max(1, round(hits[name] * share))}", *more])
        for name, more in then.items()
        for share in shares
    ]
    run_all(cases)
    assert all(case.died for case in cases), [case.name for case in cases if not case.died]
    assert any(case.died > 1 for case in cases), "no recovery was ever killed"


@pytest.mark.parametrize("flow", ["redeploy", "fail-late"])
def test_a_service_that_dies_again_and_again_gets_there(lab: Lab, chosen: str, flow: str) -> None:
    """A crash loop. Five writes are enough for two epochs and for any one step, so each process gets a step further."""
    if single(chosen):
        pytest.skip(f"--kill={chosen}")
    kills = ("kube.before:5", "kube.after:5", "store.before:3", "store.after:3")
    cases = [Case(lab, flow, [kill] * RESTARTS) for kill in (kills if chosen == "all" else kills[1:3])]
    run_all(cases)
    for case in cases:
        assert 2 <= case.died < RESTARTS, f"{case.kills[0]}: died {case.died} times"

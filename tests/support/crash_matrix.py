"""The crash matrix: `deployer serve` is killed before and after each write of a flow, started again, and all ends well.

A clean run counts how often a flow passes each failpoint (`core/failpoints.py`): `kube.before` and `kube.after`
surround every request that changes the cluster, `store.before` and `store.after` every durable commit. Each point is a
case of its own, with a namespace, a store and a process of its own. `Matrix` counts what was killed where.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import SettingsError
from deployer.core.failpoints import EXIT_CODE
from deployer.core.model.kind import INGRESS
from deployer.core.model.records import HostClaim, Operation, Plan
from deployer.core.ports.store import Store
from deployer.store.sqlite import SqliteStore
from support.aftermath import FOREIGN, all_objects, check_objects
from support.crash_flows import FLOWS, CrashFlow, Site, Team
from support.etcd import Etcd
from support.forkserver import ForkServer
from support.history import History, broken, document, foreign_versions, make_foreign, run_twice
from support.serve_child import GONE, Served
from support.world import World

POINTS = ("kube.before", "kube.after", "store.before", "store.after")
AT_ONCE = 4
"""Cases at a time: most of a case is waiting."""

PATIENCE = 60.0
APP = "shop"


@dataclass
class Stage:
    """Where the matrix is played.

    world    makes the eyes on a namespace of the cluster
    site     how apps look there
    config   the service's settings, as TOML
    flags    of `deployer serve` for the case in that directory: its store
    stored   opens the store of the case in that directory, once its process has ended
    lease    seconds for which a lease is good
    """

    name: str
    world: Callable[[Path, str], World]
    site: Site
    config: str
    server: ForkServer
    path: Path
    flags: Callable[[Path], list[str]] = lambda path: []
    stored: Callable[[Path], Store] = lambda path: SqliteStore(path / "deployer.db")
    lease: float = 15.0

    def in_etcd(self, etcd: Etcd) -> Stage:
        """The same with records in etcd, where each case has a prefix of its own, and a lease ends after 2 s."""
        return dataclasses.replace(
            self,
            name=f"{self.name} with etcd",
            flags=lambda path: [f"--etcd={','.join(etcd.endpoints)}", "--store=etcd", f"--etcd-prefix=/{path.name}/"],
            stored=lambda path: etcd.store(f"/{path.name}/"),
            lease=2.0,
        )


@dataclass
class Matrix:
    """What was killed where, of how many points, by flow; printed as a table that a page of the docs may have."""

    points: dict[tuple[str, str], int] = field(default_factory=dict)
    killed: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    checked: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = ["| strategy | operation | writes and commits | killed before or after |", "|---|---|---|---|"]
        for (strategy, name), points in self.points.items():
            lines.append(f"| {strategy} | {name} | {points // 2} | {self.killed[strategy, name]} of {points} |")
        total = f"{sum(self.killed.values())} kills at {sum(self.points.values())} points"
        return "\n".join([*lines, f"{total}; {self.checked} states of the cluster checked, {self.seconds:.0f} s"])


class CrashCase:
    """One flow that is killed once for each of `kills` (`name:N`), and recovers after the last."""

    def __init__(self, stage: Stage, key: tuple[str, str], kills: Sequence[str]) -> None:
        self.key = key
        self.name = f"{' '.join(key)} on {stage.name}, killed at {', then '.join(kills) or 'no point'}"
        self.flow: CrashFlow = FLOWS[key]
        self.died = 0
        self.states = 0
        self.counts: dict[str, int] = {}
        self._kills = list(kills)
        self._stage = stage
        self._namespace = f"kill-{uuid.uuid4().hex[:12]}"
        self._path = stage.path / self._namespace
        self._path.mkdir()
        (self._path / "config.toml").write_text(stage.config)

    def run(self) -> None:
        """Play it and check everything. Raises AssertionError."""
        world = self._stage.world(self._path, self._namespace)
        try:
            foreign = make_foreign(world)
            history = History(world.eyes, self._namespace)
            try:
                self._run(world, history, foreign)
            finally:
                history.close()
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"{self.name}: {error!r}\n{self._story(world)}") from error
        finally:
            world.close()

    def _run(self, world: World, history: History, foreign: list[str]) -> None:
        if self.flow.prepare.__name__ != "nothing":
            with self._service() as service:
                self.flow.prepare(self._team(service))
                self._stop(service)
        done = False
        for kill in self._kills or [""]:
            with self._service(kill) as service:
                done = self._act(service)
                code = service.exit() if not done else service.stop()
                assert code == EXIT_CODE or (done and code == 0), f"the service ended with {code}"
                self.died += code == EXIT_CODE
                self.counts = json.loads((self._path / "counts").read_text())
            if done:
                break
        with self._service() as service:
            assert service.user is not None and self._act(service), "the service died by itself"
            team = self._team(service)
            self._until_good(lambda: self._wrong_at_the_end(world, team))
            history.settled()
            problems = broken(history, APP, 10**12 if self.flow.stays else 0) if self.flow.stays else []
            assert not problems, problems
            self._remove(team)
            self._until_good(lambda: self._left(world) + [f"{d['id']} is left" for d in team.all()])
            self._stop(service)
        history.settled()
        problems = run_twice(history) + self._left_in_the_store()
        problems += [f"foreign {was} was changed" for was in foreign if was not in foreign_versions(world)]
        self.states = sum(1 for _ in history.states())
        assert not problems, "\n  ".join(["", *problems])

    # --- the process ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _service(self, kill: str = "") -> Iterator[Served]:
        environ = {"DEPLOYER_FAILPOINT": kill, "DEPLOYER_FAILPOINT_COUNT": f"{self._path}/counts"}
        arguments = ["serve", "--deployport=0", f"--config={self._path}/config.toml", f"--data-dir={self._path}"]
        arguments += self._stage.flags(self._path)
        service = Served(
            self._stage.server,
            arguments,
            environ=environ,
            log=self._path / "service.log",
            namespace=self._namespace,
            lease=self._stage.lease,
        )
        try:
            yield service
        finally:
            service.close()

    @staticmethod
    def _stop(service: Served) -> None:
        code = service.stop()
        assert code == 0, f"an orderly stop ended with {code}"

    def _team(self, service: Served) -> Team:
        assert service.user is not None, "the service died before it answered"
        return Team(self._stage.site, self.flow, service.user)

    def _act(self, service: Served) -> bool:
        """Do what the flow does and wait for its end. False: the process has died."""
        if service.user is None:
            return False
        team = self._team(service)
        try:
            self.flow.act(team)
            team.until(lambda: team.statuses() == self.flow.ends, f"{self.flow.ends}")
            # What follows the end of the last one is part of the flow: retirements, routes that are let go of.
            self._until_good(lambda: self._under_way(team))
        except GONE:
            return False
        return True

    # --- checking -------------------------------------------------------------------------------------------------

    def _until_good(self, problems: Callable[[], list[str]]) -> None:
        end = time.monotonic() + PATIENCE
        while found := problems():
            assert time.monotonic() < end, "\n  ".join(["", *found])
            CancelScope().pause(0.1)

    @staticmethod
    def _under_way(team: Team) -> list[str]:
        moving = [d for d in team.all() if d["status"] in ("DEPLOYING", "UNDEPLOYING")]
        return [f"{d['version']} is {d['status']}" for d in moving]

    def _wrong_at_the_end(self, world: World, team: Team) -> list[str]:
        found = team.all()
        problems = [] if team.statuses() == self.flow.ends else [f"ended {team.statuses()}, not {self.flow.ends}"]
        live = next((d for d in found if d["status"] == "DEPLOYED"), None)
        shown = {**live, "frontend": live["descriptor"].get("frontend")} if live else None
        return problems + check_objects(world, shown, INGRESS)

    @staticmethod
    def _remove(team: Team) -> None:
        for path, more in (("/deployments/", "&undeploy=true"), ("/descriptors/", "&keepLatest=false")):
            status, answer = team.user.rest.call("DELETE", path, query=f"&appname={APP}{more}")
            assert status in (200, 202), answer

    @staticmethod
    def _left(world: World) -> list[str]:
        left = [o for o in all_objects(world) if o["metadata"]["name"] not in FOREIGN]
        return [f"left after undeploying everything: {document(left)}"] if left else []

    def _left_in_the_store(self) -> list[str]:
        store = self._stage.stored(self._path)
        try:
            namespace = self._namespace
            left = [repr(o) for o in store.find(Operation, tag="open", namespace=namespace)]
            for kind in (Plan, HostClaim):
                left += [repr(record) for record in store.find(kind, namespace=namespace)]
            return [f"left in the store: {record}" for record in left]
        finally:
            store.close()

    def _story(self, world: World) -> str:
        log = self._path / "service.log"
        lines = log.read_text().splitlines() if log.exists() else []
        parts = [line for line in lines if not line.startswith('{"audit"')][-40:]
        with contextlib.suppress(Exception):
            parts += [line[:200] for line in document(all_objects(world)).splitlines()]
        with contextlib.suppress(SettingsError):
            store = self._stage.stored(self._path)
            parts += [repr(o) for o in store.find(Operation, tag="open", namespace=self._namespace)]
            store.close()
        return "\n".join([*parts, self._stage.server.log.read_text()[-2000:]])


def play(stage: Stage, keys: Sequence[tuple[str, str]], chosen: Callable[[int], Sequence[int]]) -> Matrix:
    """Play these flows, killed at those of the points 0..n-1 of each that `chosen(n)` gives. Raises AssertionError."""
    matrix, began = Matrix(), time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        clean = [CrashCase(stage, key, []) for key in keys]
        _all(pool, clean)
        cases = []
        for case in clean:
            points = [f"{name}:{n}" for name in POINTS for n in range(1, case.counts.get(name, 0) + 1)]
            assert points, f"{case.name}: nothing was written"
            matrix.points[case.key] = len(points)
            cases += [CrashCase(stage, case.key, [points[n]]) for n in chosen(len(points))]
        _all(pool, cases)
    for case in cases:
        matrix.killed[case.key] += case.died
    matrix.checked = sum(case.states for case in [*clean, *cases])
    matrix.seconds = time.monotonic() - began
    return matrix


def sample(draw: random.Random, most: int) -> Callable[[int], Sequence[int]]:
    """So many points of each flow, drawn."""
    return lambda count: sorted(draw.sample(range(count), min(most, count)))


def chosen(config: pytest.Config, draw: random.Random) -> Callable[[int], Sequence[int]]:
    """As `--kill` and `--part` say: all points, every n-th from the k-th on, or one of each flow."""
    if config.getoption("--kill") != "all":
        return sample(draw, 1)
    part, parts = map(int, config.getoption("--part").split("/"))
    return lambda count: range(part - 1, count, parts)


def _all(pool: ThreadPoolExecutor, cases: Sequence[CrashCase]) -> None:
    played = [pool.submit(case.run) for case in cases]
    failures = [str(error) for one in played if (error := one.exception())]
    assert not failures, f"{len(failures)} of {len(cases)} cases failed\n\n" + "\n\n".join(failures)

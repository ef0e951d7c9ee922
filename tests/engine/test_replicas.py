"""Several replicas on one store: each app is one replica's, another one steps in, and any answers for all of them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.clock import SteadyClock
from deployer.core.contract.kube import Document
from deployer.core.errors import Interrupted
from deployer.core.model.records import Deployment, Operation, Status
from deployer.core.ports.store import Store
from deployer.kube import late_objects
from deployer.replicas import balance
from deployer.sdk.kube import CONFIG_MAP
from deployer.sdk.strategy import Work
from deployer.store.sqlite import SqliteStore
from support.replicas import OneOfSeveral, hasten
from support.strategies import Stop, VisitedBlueGreen
from support.world import HEALTHY, NGINX, PATIENCE

LEASE = 3.0

Start = Callable[..., OneOfSeveral]


@pytest.fixture(params=["etcd" if shutil.which("etcd") else "sqlite"])
def start(
    request: pytest.FixtureRequest,
    cluster: sandbox.Sandbox,
    tmp_path: Path,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Start]:
    """Starts one more replica; they are closed in the end. On etcd each has a client of its own, as processes have;
    where none is installed they share the embedded store."""
    hasten(monkeypatch, LEASE)
    with ExitStack() as stack:
        if request.param == "sqlite":
            shared = SqliteStore(tmp_path / "deployer.db")
            stack.callback(shared.close)
            opened: Callable[[], Store] = lambda: shared  # noqa: E731
        else:
            etcd = request.getfixturevalue("one_etcd")
            prefix = f"/{namespace}/"

            def opened() -> Store:
                store: Store = etcd.store(prefix)
                stack.callback(store.close)
                return store

        def one_more(clock: Callable[[], SteadyClock] = SteadyClock, **settings: Any) -> OneOfSeveral:
            made = OneOfSeveral(opened(), cluster, tmp_path, namespace, **settings)
            made.clock = clock
            stack.callback(made.close)
            return made.start()

        yield one_more


def see(*replicas: OneOfSeveral) -> None:
    """Wait until each knows all of them."""
    for replica in replicas:
        replica.until(lambda r=replica: len(r.replicas.members()) == len(replicas), "the replicas to know each other")


def carrier(replicas: list[OneOfSeveral], app: str = "shop") -> OneOfSeveral:
    """Whoever carries out something for the app now."""
    found = [replica for replica in replicas if replica.carries(app)]
    assert len(found) == 1, f"{len(found)} replicas work on {app}"
    return found[0]


class Halted:
    """Replicas whose deployments of type `visited` stop at a point, until a test lets them go on."""

    def __init__(self, start: Start, point: str, count: int = 3, **settings: Any) -> None:
        self.stops = [Stop(point) for _ in range(count)]
        self.replicas = [start(providers=[VisitedBlueGreen(stop)], **settings) for stop in self.stops]
        see(*self.replicas)

    def deploy(self, **fields: Any) -> tuple[Deployment, OneOfSeveral, list[OneOfSeveral]]:
        """The deployment, whoever carries it out, and the others; that one has come to the point."""
        deployment = self.replicas[0].deploy(deploymentType="visited", **HEALTHY, **fields)
        end = time.monotonic() + PATIENCE
        while not any(stop.arrived.wait(0.05) for stop in self.stops):
            assert time.monotonic() < end, "nobody came to the point"
        first = carrier(self.replicas)
        return deployment, first, [replica for replica in self.replicas if replica is not first]

    def go(self, *only: OneOfSeveral) -> None:
        """Let those go on, or all."""
        for replica, stop in zip(self.replicas, self.stops, strict=True):
            if not only or replica in only:
                stop.go.set()


def test_apps_are_spread_over_the_replicas_and_each_is_deployed_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasten(monkeypatch, 15.0)  # which nobody loses, however busy the machine is
    replicas = [start() for _ in range(3)]
    see(*replicas)
    apps = [f"app-{number}" for number in range(12)]
    made = [replicas[number % 3].deploy(app) for number, app in enumerate(apps)]
    for deployment in made:
        ended = replicas[0].ended(deployment, Status.DEPLOYED)
        assert ended.version == "1"
        assert replicas[0].log(deployment.id).count("DEPLOYED: version 1 is live") == 1
    carried = [replica.seen.carried for replica in replicas]
    assert all(carried), carried
    assert sorted(app for apps in carried for app in apps) == sorted(apps)


def test_a_replica_that_dies_is_succeeded_within_twice_the_lease(start: Start) -> None:
    halted = Halted(start, "await-ready:before")
    deployment, first, others = halted.deploy()
    first.kill()
    died = time.monotonic()
    halted.go()
    others[0].ended(deployment, Status.DEPLOYED)
    took = [replica.seen.acquired["shop"] for replica in others if "shop" in replica.seen.carried]
    assert len(took) == 1
    assert took[0] - died < 2 * LEASE
    assert others[0].log(deployment.id).count("resumed") == 1


def test_a_replica_that_stops_hands_over_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch, 600.0)  # whoever waited for a lease would wait for ever
    halted = Halted(start, "await-ready:before")
    deployment, first, others = halted.deploy()
    halted.go(*others)
    first.stop()
    others[0].ended(deployment, Status.DEPLOYED)
    see(*others)


def test_a_replica_cut_off_from_the_store_stops_writing_before_another_one_begins(start: Start) -> None:
    """It still reaches the cluster, so nobody but itself can stop it."""
    written: list[float] = []
    began = threading.Event()

    def keep_writing(work: Work, point: str) -> None:
        if point != "await-ready:before" or written:
            return  # whoever resumes it has nothing to write
        while True:
            work.kube.put_shared(CONFIG_MAP, "ticks", lambda found: tick(found, len(written)), role="ticks")
            written.append(time.monotonic())
            began.set()
            work.scope.pause(0.02)

    def tick(found: Document | None, number: int) -> Document:
        return {**(found or {"metadata": {}}), "data": {"tick": str(number)}}

    replicas = [start(providers=[VisitedBlueGreen(keep_writing)]) for _ in range(3)]
    see(*replicas)
    deployment = replicas[0].deploy(deploymentType="visited", **HEALTHY)
    assert began.wait(PATIENCE)
    first = carrier(replicas)
    first.reach.store = False
    cut = time.monotonic()
    others = [replica for replica in replicas if replica is not first]
    others[0].ended(deployment, Status.DEPLOYED)
    took = min(replica.seen.acquired["shop"] for replica in others if "shop" in replica.seen.carried)
    assert cut < written[-1] < took
    assert took - cut < 2 * LEASE
    first.reach.store = True
    first.until(lambda: len(first.replicas.members()) == 3, "it to be back")
    assert first.deployed("other").status is Status.DEPLOYED


def test_a_replica_cut_off_from_the_cluster_leaves_its_operations_to_the_others(start: Start) -> None:
    halted = Halted(start, "await-ready:before", start_timeout=25)
    deployment, first, others = halted.deploy()
    first.reach.cluster = False
    halted.go()
    others[0].ended(deployment, Status.DEPLOYED)
    assert any("shop" in replica.seen.carried for replica in others)
    assert [member.fit for member in others[0].replicas.members()].count(False) == 1
    made = [others[0].deploy(f"app-{number}") for number in range(6)]  # it takes up nothing new
    for each in made:
        others[0].ended(each, Status.DEPLOYED)
    assert not first.seen.carried & {f"app-{number}" for number in range(6)}


def test_when_nobody_reaches_the_cluster_everybody_keeps_what_it_has(start: Start) -> None:
    halted = Halted(start, "await-ready:before", count=2)
    deployment, first, others = halted.deploy()
    for replica in halted.replicas:
        replica.reach.cluster = False
    first.until(lambda: not any(m.fit for m in first.replicas.members()), "both to say so")
    assert carrier(halted.replicas) is first
    for replica in halted.replicas:
        replica.reach.cluster = True
    halted.go()
    others[0].ended(deployment, Status.DEPLOYED)
    assert "shop" not in others[0].seen.carried


def test_any_replica_shows_what_another_one_does(start: Start) -> None:
    def wait(work: Work, point: str) -> None:
        if point == "await-ready:before":
            work.waiting("the tide")
            stop(work, point)

    stop = Stop("await-ready:before")
    replicas = [start(providers=[VisitedBlueGreen(wait)]) for _ in range(3)]
    see(*replicas)
    deployment = replicas[0].deploy(deploymentType="visited", **HEALTHY)
    stop.reached()
    shown = [
        replica.until(
            lambda r=replica: (p := r.progress(deployment)).get("waitingFor") == "the tide" and p, "what it waits for"
        )
        for replica in replicas
    ]
    assert shown[0] == shown[1] == shown[2]
    assert shown[0]["step"] == "await-ready"
    assert shown[0]["deadline"]
    before = [replica.moved() for replica in replicas]
    stop.go.set()
    replicas[0].ended(deployment, Status.DEPLOYED)
    for replica, known in zip(replicas, before, strict=True):
        replica.until(lambda r=replica: "phase" not in r.progress(deployment), "nothing more to be done")
        assert replica.moved() != known


def test_a_cancellation_reaches_the_replica_that_carries_the_deployment(start: Start) -> None:
    halted = Halted(start, "await-ready:before")
    deployment, _, others = halted.deploy()
    others[0].service.undeploy(others[0].namespace, deployment.id)
    others[0].ended(deployment, Status.UNDEPLOYED)
    stop = next(stop for stop in halted.stops if stop.arrived.is_set())
    assert stop.shut.is_set()
    assert others[0].names() == {}


def test_a_replica_that_starts_touches_nothing_that_others_carry_out(start: Start) -> None:
    first = start(proxysleep=3600.0)
    first.deployed("shop")
    first.deployed("shop", newVersion="2")

    def parked() -> list[Operation]:
        found = first.store.find(Operation, tag="open")  # the retirement, and the watch
        return found if len(found) == 2 and all(operation.due for operation in found) else []

    waiting = first.until(parked, "both to wait")
    second = start(proxysleep=3600.0)
    see(first, second)
    second.deployed("other")
    assert [o for o in first.store.find(Operation, tag="open") if o.app == "shop"] == waiting


def test_what_was_parked_by_a_replica_that_died_is_looked_at(start: Start) -> None:
    """The event for which it waits is heard of by whoever has looked at it."""
    first = start()
    first.deployed("shop", **HEALTHY)
    replicas = [first, start(), start()]
    see(*replicas)
    deployment = first.deployed("shop", **HEALTHY)
    assert deployment.version == "2"
    first.kill()
    replicas[1].until(lambda: replicas[1].engine.idle() or None, "the old version to be removed")
    assert set(replicas[1].pods()) and replicas[1].live_version() == "2"


def test_a_write_that_was_refused_says_why(start: Start) -> None:
    halted = Halted(start, "await-ready:before", count=1)
    deployment, first, _ = halted.deploy()
    stop = halted.stops[0]
    first.reach.store = False
    assert stop.shut.wait(PATIENCE)
    assert stop.scope is not None
    with pytest.raises(Interrupted, match="could not be renewed"):
        stop.scope.check()
    first.reach.store = True
    halted.go()
    first.ended(deployment, Status.DEPLOYED)


def test_what_a_paused_replica_creates_after_its_deployment_was_undone_is_removed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still between the look at its lease and the request. No fencing token is in the way of a POST."""
    monkeypatch.setattr(late_objects, "LOOK", 0.1)
    paused, go, made = threading.Event(), threading.Event(), threading.Event()
    replicas = [start(), start()]
    see(*replicas)

    def creates(method: str, target: str) -> bool:
        return method == "POST" and "/replicationcontrollers" in target and "dryRun" not in target

    def before(method: str, target: str) -> None:
        if creates(method, target) and not paused.is_set():
            paused.set()
            assert go.wait(PATIENCE)
            replicas[0].reach.after = replicas[1].reach.after = after

    def after(method: str, target: str) -> None:
        if creates(method, target):
            made.set()

    for replica in replicas:
        replica.reach.before = before
    deployment = replicas[0].deploy()
    assert paused.wait(PATIENCE)
    first = carrier(replicas)
    other = next(replica for replica in replicas if replica is not first)
    first.reach.store = False
    other.ended(deployment, Status.DEPLOYED)
    other.service.undeploy(other.namespace, deployment.id)
    other.ended(deployment, Status.UNDEPLOYED)
    assert other.names() == {}
    first.reach.store = True
    go.set()
    assert made.wait(PATIENCE)
    assert "replicationcontrollers" in other.names()
    other.until(lambda: other.names() == {}, "what came too late to be removed")


def test_a_replica_whose_clock_is_ahead_keeps_the_minimum_hold(start: Start) -> None:
    """What uses the old version still is not cut off because somebody else counts the seconds."""
    hold = 8.0
    plugins = {"ingress_nginx": {**NGINX, "minimum_hold": hold}}
    first = start(plugins=plugins)
    ahead = start(plugins=plugins, clock=lambda: SteadyClock(lambda: time.time() + 3600))
    see(first, ahead)
    slots = dict.fromkeys((replica.engine._leases.holder for replica in (first, ahead)), 128)
    names = (f"shop-{number}" for number in range(1000))
    turn = first.engine._leases.holder
    app = next(name for name in names if balance.order(slots, first.namespace, name)[0] == turn)
    old = first.deployed(app, **HEALTHY, frontend=f"{app}.example.com")
    new = first.deployed(app, **HEALTHY, frontend=f"{app}.example.com")
    first.stop()
    ahead.ended(old, Status.UNDEPLOYED)
    live, removed = (
        datetime.fromisoformat(next(line for line in ahead.log(id).splitlines() if words in line).split(" ")[0])
        for id, words in ((new.id, "DEPLOYED: "), (old.id, "UNDEPLOYED: "))
    )
    assert (removed - live).total_seconds() >= hold

"""The store fails in the middle of an operation: at any commit, before or after it wrote, once or for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from deployer.commands.approvals import ApprovalCommands
from deployer.core.backoff import Backoff
from deployer.core.errors import StoreUnavailable
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import App, Operation, OperationKind, Plan, Status
from deployer.core.operations import dispatcher
from deployer.core.ports.store import Change, Lease
from support.world import HEALTHY, World

MOVES = ("switch-route", "move-service")
"""The steps that lead users elsewhere."""


class Store:
    """Commits of operations, some of which fail. `count`: how many there were since `fail`."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit = world.store.commit
        self._fails: Callable[[int], bool] = lambda number: False
        self._written = False
        self._lock = threading.Lock()
        self.count = 0
        self.failed = threading.Semaphore(0)
        monkeypatch.setattr(world.store, "commit", self.commit)
        monkeypatch.setattr(dispatcher, "AFTER_FAILURE", Backoff(first=0.05, most=0.1))
        monkeypatch.setattr(dispatcher, "RETRY", 0.1)

    def fail(self, fails: Callable[[int], bool], *, written: bool = False) -> None:
        """Fail at the commits, counted from 1, of which `fails` says so; `written`: although they were made."""
        with self._lock:
            self.count, self._fails, self._written = 0, fails, written

    def commit(self, *changes: Change, fence: Lease | None = None) -> int:
        with self._lock:
            self.count += fence is not None
            fails, written = fence is not None and self._fails(self.count), self._written
        revision = self._commit(*changes, fence=fence) if written or not fails else 0
        if fails:
            self.failed.release()
            raise StoreUnavailable("the store did not answer; it is unknown whether this was written")
        return revision


@pytest.fixture
def store(world: World, monkeypatch: pytest.MonkeyPatch) -> Store:
    """That of `world`, where version 1 is live."""
    world.deployed(**HEALTHY, frontend=f"{world.namespace}.example")
    world.quiet()
    return Store(world, monkeypatch)


def check(world: World, version: int) -> None:
    """That version is live and the only one, and no number was used up for nothing."""
    world.quiet()
    assert set(world.objects(CONTROLLER)) == {f"shop-{version}"}
    assert world.live_version() == str(version)
    deployments = world.service.deployments(world.namespace, "shop")
    assert [d.version for d in deployments] == [str(n) for n in range(version, 0, -1)]
    assert [d.status for d in deployments] == [Status.DEPLOYED, *[Status.UNDEPLOYED] * (version - 1)]
    ends = world.log(deployments[0].id).count("DEPLOYED: ")
    assert ends == 1, world.log(deployments[0].id)


@pytest.mark.slow
@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_a_commit_whose_answer_is_lost_is_read_back_and_nothing_happens_twice(
    world: World, store: Store, written: bool
) -> None:
    store.fail(lambda number: False)
    world.deployed(**HEALTHY, frontend=f"{world.namespace}.example")
    check(world, 2)
    commits = store.count
    assert commits >= 8
    for version, at in enumerate(range(2 - written, commits + 1, 2), 3):
        store.fail(lambda number, at=at: number == at, written=written)
        world.deployed(**HEALTHY, frontend=f"{world.namespace}.example")
        check(world, version)
    assert store.failed.acquire(blocking=False)


@pytest.mark.slow
def test_no_traffic_moves_before_it_is_recorded_that_it_will(world: World, store: Store) -> None:
    moved = 0
    for version, last in enumerate((1, 3, 5, 7, 8), 2):
        store.fail(lambda number, last=last: number > last)
        deployment = world.deploy(**HEALTHY, frontend=f"{world.namespace}.example")
        for _ in range(3):
            assert store.failed.acquire(timeout=30)
        (operation,) = world.store.find(Operation, tag="open")
        recorded = {*operation.steps} & {*MOVES} or operation.kind is not OperationKind.DEPLOY
        assert recorded or world.live_version() == str(version - 1)
        moved += bool(recorded)
        store.fail(lambda number: False)
        world.ended(deployment, Status.DEPLOYED)
        check(world, version)
        while store.failed.acquire(blocking=False):
            pass
    assert 0 < moved < 5
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app is not None and app.highest == 6
    assert [plan.version for plan in world.store.find(Plan)] == ["6"]


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_what_is_decided_while_the_store_fails_is_not_forgotten(world: World, store: Store, written: bool) -> None:
    gates = {"beforeStart": [{"type": "approval", "name": "ask"}]}
    deployment = world.deploy(**HEALTHY, frontend=f"{world.namespace}.example", gates=gates)
    world.until(lambda: [o for o in world.store.find(Operation, tag="open") if o.due], "the gate to ask")
    store.fail(lambda number: number == 1, written=written)
    ApprovalCommands(world.store).decide(world.namespace, deployment.id, {"approve": True}, "ann")
    world.ended(deployment, Status.DEPLOYED)
    check(world, 2)
    assert store.failed.acquire(blocking=False)

"""Operations while the store refuses to record anything, and what a process that stops leaves to the next one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from deployer.core.errors import StoreUnavailable
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import Operation, OperationState, Status
from support.world import HEALTHY, World

HOST = "shop.example.com"


@pytest.fixture
def refusal(caplog: pytest.LogCaptureFixture) -> Iterator[threading.Event]:
    """Set when an operation has met a store that refuses."""
    met = threading.Event()

    class Meets(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waits for the store" in record.getMessage():
                met.set()

    handler = Meets()
    log = logging.getLogger("deployer.core.operations.dispatcher")
    log.addHandler(handler)
    yield met
    log.removeHandler(handler)


def refuse(world: World, on: bool) -> None:
    """SQLite itself refuses every write, as on a disk that went read-only, or takes it again."""
    connection = world.store._writer._connection
    assert connection is not None
    connection.execute(f"PRAGMA query_only = {int(on)}")


def test_traffic_does_not_move_without_a_record(world: World, refusal: threading.Event) -> None:
    world.deployed(**HEALTHY, newVersion="1", frontend=HOST)
    new = world.deploy(**HEALTHY, newVersion="2", frontend=HOST, env={"SLOW_START": "2"})
    world.until(lambda: "created" in world.log(new.id), "its pods to be created")
    refuse(world, True)
    assert refusal.wait(30)
    with pytest.raises(StoreUnavailable, match="cannot record anything now"):
        world.descriptor(app="another")
    assert "cannot record anything now" in world.store.problem()
    assert world.live_version() == "1"
    assert world.answer(HOST)[1].startswith("version 1 ")

    refuse(world, False)
    world.ended(new, Status.DEPLOYED)
    world.quiet()
    assert world.live_version() == "2"
    assert set(world.objects(CONTROLLER)) == {"shop-2"}
    assert world.store.problem() == ""


def test_who_stops_leaves_its_leases_to_the_next_one(world: World) -> None:
    new = world.deploy(**HEALTHY, newVersion="1", env={"SLOW_START": "2"})
    world.until(lambda: "created" in world.log(new.id), "its pods to be created")
    assert world.store.acquire(world.namespace, "shop", "another process", 10) is None
    world.engine.stop()
    (operation,) = world.store.find(Operation, tag="open")
    assert operation.state is OperationState.RUNNING
    lease = world.store.acquire(world.namespace, "shop", "another process", 10)
    assert lease is not None, "it would have to wait for the lease to run out"
    world.store.release(lease)
    world.restart()
    world.ended(new, Status.DEPLOYED)

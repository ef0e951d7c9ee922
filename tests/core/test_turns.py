"""Namespaces take turns: what one of them piles up keeps nobody else waiting, and nobody's workers idle."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer.core.model.records import Operation, OperationKind, OperationState
from deployer.core.operations.queueing.turns import Turns

numbers = itertools.count(1)


def one(namespace: str, kind: OperationKind = OperationKind.DEPLOY, *, begun: bool = False) -> Operation:
    """The next operation to arrive."""
    n = next(numbers)
    state = OperationState.RUNNING if begun else OperationState.QUEUED
    return Operation(
        namespace=namespace, app=f"app-{n}", id=f"o{n}", kind=kind, deployment="d", state=state, sequence=n
    )


def granted(turns: Turns, *due: Operation) -> list[str]:
    return [operation.namespace for operation in turns.grant(due)]


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 128])
def test_one_alone_gets_half_and_the_next_one_is_served_at_once(workers: int) -> None:
    turns = Turns(workers)
    flood = [one("a") for _ in range(200)]
    count = len(granted(turns, *flood))
    assert count == max(1, (workers - workers // 8 + 1) // 2)
    if workers > 1:
        assert granted(turns, *flood[count:], one("b")) == ["b"]


def test_who_comes_second_waits_for_nobody_of_those_who_queued_before() -> None:
    """B's one deployment is the next that begins, however many of A wait, whenever a worker is free."""
    turns = Turns(16)
    flood = [one("a") for _ in range(200)]
    running = list(turns.grant(flood))
    assert granted(turns, *flood[len(running) :]) == []
    turns.give_back(running.pop())
    assert granted(turns, *flood[len(running) + 1 :], one("b"))[0] == "b"


def test_namespaces_get_the_same_number_of_workers_whoever_came_first() -> None:
    turns = Turns(32)
    due = [one(namespace) for namespace in "a" * 30 + "b" * 20 + "c" * 10 + "d" * 10]
    shares = Counter(granted(turns, *due))
    assert set(shares) == set("abcd")
    assert max(shares.values()) - min(shares.values()) <= 1


def test_within_a_namespace_the_first_comes_first() -> None:
    turns = Turns(8)
    due = [one("a") for _ in range(5)]
    assert list(turns.grant(reversed(due))) == due[:4]


@pytest.mark.parametrize("kind", [kind for kind in OperationKind if kind is not OperationKind.DEPLOY])
def test_rollbacks_and_undeployments_wait_for_no_deployment(kind: OperationKind) -> None:
    turns = Turns(16)
    deployments = [one(namespace) for namespace in "abcdefgh" for _ in range(50)]
    list(turns.grant(deployments))
    assert granted(turns, *deployments[-10:], one("a", kind), one("z", kind)) == ["a", "z"]
    turns = Turns(16)
    assert granted(turns, one("a"), one("b", kind), one("a", begun=True)) == ["b", "a", "a"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    workers=st.integers(1, 40),
    arrivals=st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(list(OperationKind))), max_size=120),
    data=st.data(),
)
def test_all_come_to_their_turn(workers: int, arrivals: list[tuple[str, OperationKind]], data: st.DataObject) -> None:
    """Never more than there are workers, nobody idle while somebody may work, and all have run in the end."""
    turns = Turns(workers)
    waiting = {operation.id: operation for operation in (one(*arrival) for arrival in arrivals)}
    running: list[Operation] = []
    while waiting or running:
        begun = list(turns.grant(waiting.values()))
        for operation in begun:
            del waiting[operation.id]
        running += begun
        assert len(running) <= workers
        assert running or not waiting
        if running:
            turns.give_back(running.pop(data.draw(st.integers(0, len(running) - 1))))

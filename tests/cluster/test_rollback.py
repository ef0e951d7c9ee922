"""Rollbacks on a real Kubernetes, whose kubelet restarts what ends: in one call, and by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.kind import SERVICE
from deployer.core.model.records import Deployment, Status
from support.switching import ADDRESS, TABLES, missing
from support.world import HEALTHY

from .conftest import IMAGE, RealWorld

FIELDS = {"image": IMAGE, "pull": "IfNotPresent", **HEALTHY}


@pytest.fixture
def warm(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """A Deployer that keeps the old version for a long time."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, proxysleep=300.0)
    made.start()
    yield made
    made.close()


LONG = bool(os.environ.get("DEPLOYER_TEST_LONG"))
"""Not only a sample: five minutes more."""


def record(world: RealWorld, id: str) -> Deployment:
    found = world.store.get(Deployment, id)
    assert found is not None
    return found


def selected(world: RealWorld) -> str:
    """The version that clients inside the cluster get."""
    return str(world.eyes.get(SERVICE, "shop", world.namespace)["spec"]["selector"]["version"])


def test_a_warm_version_comes_back_with_the_pods_that_run(warm: RealWorld) -> None:
    first = warm.deployed(**FIELDS)
    pods = set(warm.pods())
    second = warm.deployed(**FIELDS)
    assert selected(warm) == "2"
    RollbackCommands(warm.service).roll_back(warm.namespace, "shop")
    warm.until(lambda: selected(warm) == "1" or None, "the Service to select version 1")
    warm.ended(first, Status.DEPLOYED)
    assert pods <= set(warm.pods())
    assert (record(warm, second.id).failure or {})["reason"] == "RolledBack"


def test_a_version_that_crashes_is_rolled_back_by_itself(warm: RealWorld) -> None:
    first = warm.deployed(**FIELDS)
    second = warm.deployed(**FIELDS, env={"CRASH_AFTER": "4"})
    warm.until(lambda: selected(warm) == "1" or None, "the Service to select version 1")
    warm.ended(first, Status.DEPLOYED)
    gone = record(warm, second.id)
    assert (gone.status, (gone.failure or {})["reason"]) == (Status.FAILURE, "RolledBack")


@pytest.fixture(params=list(TABLES))
def routed(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """The same, with a real ingress controller."""
    if why := missing(request.param):
        pytest.skip(why)
    provider, table = TABLES[request.param]
    plugins = {f"ingress_{provider}": {**table, "minimum_hold": 2.0, "propagation_seconds": 3.0}}
    made = RealWorld(None, tmp_path, namespace, ingress=provider, plugins=plugins, proxysleep=300.0)
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("replicas", [1, 2] if LONG else [1])
def test_a_version_that_crashes_costs_no_more_than_three_seconds(routed: RealWorld, replicas: int) -> None:
    """And half of one, as the machine is shared: also before the commit, while the switch is being confirmed."""
    fields = {**FIELDS, "frontend": f"{routed.namespace}.example.com", "replicas": replicas}
    first = routed.deployed(**fields)
    with visits(fields["frontend"]) as seen:
        second = routed.deploy(**fields, env={"CRASH_AFTER": "2"})
        routed.until(lambda: record(routed, second.id).status is Status.FAILURE or None, "version 2 to fail")
        routed.until(lambda: record(routed, first.id).status is Status.DEPLOYED or None, "version 1 to be live")
        back = time.time()
        routed.until(lambda: seen.since(back)["1"] >= 2 * RATE or None, "traffic on version 1")
    failed = [why for _, why in seen.answers if why not in ("1", "2")]
    assert len(failed) <= 3.5 * RATE, Counter(failed)
    late = seen.since(back + 3.0)  # data planes follow a moment later
    assert set(late) <= {"1"}, late


def test_a_pod_that_crashes_once_and_recovers_is_no_failure(real: RealWorld) -> None:
    """The old version goes when its time is over, before the second crash."""
    real.settings = dataclasses.replace(real.settings, proxysleep=16.0)
    real.restart()
    first = real.deployed(**FIELDS)
    second = real.deployed(**FIELDS, env={"CRASH_AFTER": "13"})
    real.ended(first, Status.UNDEPLOYED)
    assert record(real, second.id).status is Status.DEPLOYED
    restarted = [s["restartCount"] for p in real.pods().values() for s in p["status"]["containerStatuses"]]
    assert restarted == [1]
    assert "0 of 1 pods are ready" in real.log(second.id)


def test_rollbacks_one_after_the_other_lose_nothing(routed: RealWorld) -> None:
    """Each to a version that is warm; what was rolled back drains meanwhile."""
    routed.settings = dataclasses.replace(routed.settings, proxysleep=6.0)
    routed.restart()
    fields = {**FIELDS, "frontend": f"{routed.namespace}.example.com", "replicas": 2}
    first = routed.deployed(**fields)
    with visits(fields["frontend"]) as seen:
        for _ in range(20 if LONG else 1):
            second = routed.deployed(**fields)
            RollbackCommands(routed.service).roll_back(routed.namespace, "shop")
            routed.ended(first, Status.DEPLOYED)
            assert (record(routed, second.id).failure or {})["reason"] == "RolledBack"
        back = time.time()
        routed.until(lambda: seen.since(back)["1"] >= RATE or None, "traffic on version 1")
    assert all(why.isdigit() for _, why in seen.answers), Counter(why for _, why in seen.answers)


RATE = 40
"""Requests a second."""


class Visits:
    """What visitors were answered: when they asked, and the version, or what went wrong."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, str]] = []

    def since(self, moment: float) -> Counter[str]:
        """Answers to whoever asked after that."""
        return Counter(why for asked, why in list(self.answers) if asked >= moment)


@contextlib.contextmanager
def visits(host: str) -> Iterator[Visits]:
    """So many requests a second, each on a connection of its own, however long an answer takes."""
    over, seen, began = threading.Event(), Visits(), time.time()

    def visit(number: int) -> None:
        while not over.wait(max(0.0, began + number / RATE - time.time())):
            asked = time.time()
            seen.answers.append((asked, _ask(host)))
            number += LANES

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(LANES)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


LANES = 20


def _ask(host: str) -> str:
    """The version that answers, or what goes wrong."""
    connection = HTTPConnection(ADDRESS, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        text = answer.read().decode()
        return text.split()[1] if answer.status == 200 else f"HTTP {answer.status}"
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()

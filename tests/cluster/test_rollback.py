"""Rollbacks on a real Kubernetes, whose kubelet restarts what ends: in one call, and by itself."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
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


def test_nobody_notices_a_rollback(routed: RealWorld) -> None:
    host = f"{routed.namespace}.example.com"
    first = routed.deployed(**FIELDS, frontend=host, replicas=2)
    routed.deployed(**FIELDS, frontend=host, replicas=2)
    over, answers = threading.Event(), Counter[str]()

    def visit() -> None:
        while not over.is_set():
            connection = HTTPConnection(ADDRESS, timeout=10)
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            text = answer.read().decode()
            answers[text.split()[1] if answer.status == 200 else f"HTTP {answer.status}"] += 1
            connection.close()

    visitor = threading.Thread(target=visit)
    visitor.start()
    routed.until(lambda: answers["2"] >= 50 or None, "traffic on version 2")
    RollbackCommands(routed.service).roll_back(routed.namespace, "shop")
    routed.ended(first, Status.DEPLOYED)
    before = answers["1"]
    routed.until(lambda: answers["1"] >= before + 50 or None, "traffic on version 1")
    over.set()
    visitor.join()
    assert set(answers) == {"1", "2"}, answers

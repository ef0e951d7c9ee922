"""Rollbacks on a real Kubernetes, whose kubelet restarts what ends: in one call, and by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.commands.rollback_commands import RollbackCommands
from deployer.core.model.kind import SERVICE
from deployer.core.model.records import Deployment, Status
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

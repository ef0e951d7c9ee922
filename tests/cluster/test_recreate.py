"""Recreate on a real Kubernetes: its controllers make and end the pods, and its EndpointSlices say who serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.conftest import RealWorld
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import Status
from support.history import History
from support.world import HEALTHY

ENDED = ("Failed", "Succeeded")


@pytest.fixture
def world(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """One whose health checks fail soon."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, timeout=4.0)
    made.start()
    yield made
    made.close()


def test_two_versions_never_run_at_once_forward_and_back(world: RealWorld) -> None:
    history = History(world.eyes, world.namespace)
    try:
        world.ended(world.deploy(deploymentType="recreate", **HEALTHY), Status.DEPLOYED)
        world.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": 2}}, world.namespace)
        failed = world.ended(world.deploy(deploymentType="recreate", env={"FAIL": "1"}, **HEALTHY), Status.FAILURE)
        assert "version 1 runs again, 2 of 2 pods ready" in world.log(failed.id)
        assert (world.live_version(), set(world.objects(CONTROLLER))) == ("1", {"shop-1"})
        world.ended(world.deploy(deploymentType="recreate", **HEALTHY), Status.DEPLOYED)
        world.quiet()
        assert (world.live_version(), set(world.objects(CONTROLLER))) == ("3", {"shop-3"})
        history.settled()
        for _, change, state in history.states():
            pods = [p for p in state["pods"].values() if p.get("status", {}).get("phase") not in ENDED]
            assert len({p["metadata"]["labels"]["version"] for p in pods}) <= 1, change
    finally:
        history.close()

"""Tenants share one service: what one of them piles up does not keep the others waiting."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer import sandbox
from deployer.core.errors import QueueFull
from deployer.core.model.kind import NAMESPACE
from deployer.core.model.records import Deployment, Operation, Status
from support.world import HEALTHY, World, describe

NEVER_READY = {"env": {"SLOW_START": "600"}, **HEALTHY}


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[World]:
    """With eight workers, and room for thirty deployments in the queue of a namespace."""
    made = World(cluster, tmp_path, namespace, workers=8, queue_limit=30, proxysleep=0.0).start()
    yield made
    made.close()


def queue(world: World, namespace: str, app: str, **fields: object) -> Deployment:
    """Store a descriptor in that namespace and queue its deployment."""
    document = json.dumps(describe(namespace, app, **fields)).encode()
    return world.service.deploy(namespace, world.service.descriptors.create(namespace, document).id)


def test_a_tenant_with_apps_that_are_never_ready_keeps_no_other_waiting(world: World, namespace: str) -> None:
    """Thirty of A hold what they get for ten minutes. B deploys, deploys again, rolls nothing up behind them, and
    undeploys, as on an empty service; and A's full queue is A's alone."""
    flood = [queue(world, namespace, f"slow-{n}", **NEVER_READY) for n in range(30)]
    with pytest.raises(QueueFull, match="in namespace"):
        queue(world, namespace, "one-more", **NEVER_READY)

    def begun() -> list[Operation]:
        found = world.store.find(Operation, namespace=namespace, tag="open")
        return [operation for operation in found if operation.begun]

    world.until(lambda: len(begun()) >= 4, "four of A to begin")
    other = f"t-{uuid.uuid4().hex[:12]}"
    world.eyes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}}, None)
    for version in "1", "2":
        live = world.ended(queue(world, other, "shop", newVersion=version, **HEALTHY), Status.DEPLOYED)
    world.service.undeploy(other, live.id)
    world.until(lambda: world.store.get(Deployment, live.id).status is Status.UNDEPLOYED, "B's app to be gone")
    # All of that happened while A held all that A may have, and nothing of A came to an end.
    assert len(begun()) == 4
    states = {deployment.status for deployment in world.store.find(Deployment, namespace=namespace)}
    assert states == {Status.DEPLOYING}
    # Who cancels does not wait, either: neither for what runs nor for what is queued.
    for deployment in flood:
        world.service.undeploy(namespace, deployment.id)
    for deployment in flood:
        world.ended(deployment, Status.UNDEPLOYED)

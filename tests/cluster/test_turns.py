"""Two tenants on a real Kubernetes: one whose apps are never ready, and one who deploys meanwhile."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.model.kind import NAMESPACE
from deployer.core.model.records import Deployment, Operation, Status
from support.world import HEALTHY, describe

from .conftest import ACCOUNT, IMAGE, RealWorld

FIELDS = {"image": IMAGE, "pull": "IfNotPresent", **HEALTHY}
NEVER_READY = {**FIELDS, "env": {"SLOW_START": "600"}}


@pytest.fixture
def real(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """A Deployer of four workers."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, workers=4)
    made.start()
    yield made
    made.close()


@contextlib.contextmanager
def another(world: RealWorld) -> Iterator[str]:
    """One more namespace, in which pods are admitted."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    made = world.eyes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, None)
    try:
        end = time.monotonic() + 30
        while not world.eyes.list(ACCOUNT, name)[0]:
            assert time.monotonic() < end
            time.sleep(0.05)
        yield name
    finally:
        world.eyes.delete(NAMESPACE, name, uid=made["metadata"]["uid"])


def queue(world: RealWorld, namespace: str, app: str, **fields: object) -> Deployment:
    document = json.dumps(describe(namespace, app, **fields)).encode()
    return world.service.deploy(namespace, world.service.descriptors.create(namespace, document).id)


def test_apps_that_are_never_ready_keep_no_other_namespace_waiting(world: RealWorld) -> None:
    flood = [queue(world, world.namespace, f"slow-{n}", **NEVER_READY) for n in range(6)]

    def begun() -> int:
        found = world.store.find(Operation, namespace=world.namespace, tag="open")
        return sum(operation.begun for operation in found)

    world.until(lambda: begun() >= 2, "two of them to begin")
    with another(world) as other:
        world.ended(queue(world, other, "shop", **FIELDS), Status.DEPLOYED)
        assert begun() == 2
    for deployment in reversed(flood):
        world.service.undeploy(world.namespace, deployment.id)
    for deployment in flood:
        world.ended(deployment, Status.UNDEPLOYED)

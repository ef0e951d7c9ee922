"""The strategy `recreate`: two versions never run at once, and a failure brings the old one back until it serves."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from deployer import sandbox
from deployer.core.kube.kinds import CONTROLLER
from deployer.core.records import Deployment, Status
from support.history import History
from support.world import HEALTHY, World

UNHEALTHY = {**HEALTHY, "env": {"FAIL": "1"}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """A sandbox whose watches tell often how far they are, and whose data plane follows late."""
    path = tmp_path_factory.mktemp("sandbox")
    running = sandbox.start(path, ingress_delay=0.3, options=("--bookmark-interval", "0.1"))
    yield running
    running.stop()


@pytest.fixture
def history(world: World) -> Iterator[History]:
    """Every state of the namespace."""
    made = History(world.eyes, world.namespace)
    yield made
    made.close()


def host(world: World) -> str:
    return f"{world.namespace}.example.com"


def recreate(world: World, **fields: Any) -> Deployment:
    """Queue a deployment by this strategy."""
    values = {"deploymentType": "recreate", "frontend": host(world), **HEALTHY, **fields}
    return world.deploy(**values)


def together(history: History) -> list[str]:
    """The moments at which pods of two versions were there and had not ended."""
    history.now()
    found = []
    for _, change, state in history.states():
        versions = {
            pod["metadata"]["labels"]["version"]
            for pod in state["pods"].values()
            if pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")
        }
        if len(versions) > 1:
            found.append(f"{change}: {sorted(versions)}")
    return found


def ask(world: World) -> str:
    """What the data plane answers now."""
    assert world.cluster is not None
    connection = http.client.HTTPConnection(urlsplit(world.cluster.ingress).netloc, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Host": host(world)})
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode()[:10]}"


def replicas(world: World, version: str) -> int:
    return int(world.objects(CONTROLLER)[f"shop-{version}"]["spec"]["replicas"])


def test_the_old_version_ends_before_the_new_one_starts(world: World, history: History) -> None:
    first = world.ended(recreate(world), Status.DEPLOYED)
    second = world.ended(recreate(world), Status.DEPLOYED)
    assert "waiting for 1 pod of version 1" in world.log(second.id)
    assert [ask(world) for _ in range(10)] == ["200 version 2 "] * 10 or ask(world).startswith("200 version 2")
    world.quiet()
    assert world.ended(first.id).status is Status.UNDEPLOYED
    assert world.names()["replicationcontrollers"] == {"shop-2"}
    assert together(history) == []


def test_a_failure_brings_the_old_version_back_until_it_serves(world: World, history: History) -> None:
    world.ended(recreate(world, replicas=2), Status.DEPLOYED)
    failed = world.ended(recreate(world, replicas=1, **UNHEALTHY, timeoutSeconds=60), Status.FAILURE)
    answers = [ask(world) for _ in range(10)]
    assert all(answer.startswith("200 version 1") for answer in answers), (answers, world.log(failed.id))
    assert replicas(world, "1") == 2
    controller = world.objects(CONTROLLER)["shop-1"]
    assert "kube-deployer/replicas" not in controller["metadata"]["annotations"]
    assert world.names()["replicationcontrollers"] == {"shop-1"}
    assert together(history) == []

"""The strategy `recreate`: two versions never run at once, and a failure brings the old one back until it serves."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deployer import sandbox
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import is_ready
from deployer.core.model.kind import CONTROLLER, POD
from deployer.core.model.records import Deployment, Document, Operation, Status
from support import originals
from support.history import History, State
from support.world import HEALTHY, PATIENCE, World, describe

ENDED = ("Failed", "Succeeded")
UNHEALTHY = {**HEALTHY, "env": {"FAIL": "1"}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """A sandbox whose watches tell often how far they are, and whose data plane follows late."""
    path = tmp_path_factory.mktemp("sandbox")
    running = sandbox.start(path, ingress_delay=0.3, options=("--bookmark-interval", "0.1"))
    yield running
    running.stop()


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[World]:
    """A Deployer whose health checks fail soon."""
    made = World(cluster, tmp_path, namespace, timeout=2.0).start()
    yield made
    made.close()


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
    return [f"{change}: {sorted(found)}" for _, change, state in history.states() if len(found := versions(state)) > 1]


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


def versions(state: State) -> set[str]:
    """Those of which a pod has not ended."""
    pods = state["pods"].values()
    return {p["metadata"]["labels"]["version"] for p in pods if p.get("status", {}).get("phase") not in ENDED}


def running(state: State) -> list[str]:
    """The pods that have not ended."""
    return [name for name, p in state["pods"].items() if p.get("status", {}).get("phase") not in ENDED]


def draining(world: World) -> Document:
    """A podspec whose pods take three seconds to end."""
    return {**describe(world.namespace, env={"DRAIN": "3"})["podspec"], "terminationGracePeriodSeconds": 10}


def parked(world: World, deployment: Deployment) -> None:
    """Wait until it waits for the old version's pods to end, which holds no thread."""

    def found() -> bool:
        return any(o.deployment == deployment.id and o.due and o.begun for o in world.store.find(Operation, tag="open"))

    world.until(found, "the deployment to park")


def test_the_old_version_ends_before_the_new_one_starts(world: World, history: History) -> None:
    first = world.ended(recreate(world), Status.DEPLOYED)
    second = world.ended(recreate(world), Status.DEPLOYED)
    assert "waiting for 1 pod of version 1" in world.log(second.id)
    assert ask(world).startswith("200 version 2")
    world.quiet()
    assert world.ended(first.id).status is Status.UNDEPLOYED
    assert world.names()["replicationcontrollers"] == {"shop-2"}
    assert together(history) == []


def test_a_failure_brings_the_old_version_back_until_it_serves(world: World, history: History) -> None:
    world.ended(recreate(world, replicas=2), Status.DEPLOYED)
    failed = world.ended(recreate(world, replicas=1, **UNHEALTHY), Status.FAILURE)
    answers = [ask(world) for _ in range(10)]
    assert all(answer.startswith("200 version 1") for answer in answers), (answers, world.log(failed.id))
    assert replicas(world, "1") == 2
    controller = world.objects(CONTROLLER)["shop-1"]
    assert "recreate.kube-deployer/replicas" not in controller["metadata"]["annotations"]
    assert world.names()["replicationcontrollers"] == {"shop-1"}
    assert together(history) == []


def test_a_cancellation_while_the_old_version_ends_brings_it_back(world: World, history: History) -> None:
    world.ended(recreate(world, podspec=draining(world)), Status.DEPLOYED)
    second = recreate(world)
    parked(world, second)
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    assert ask(world).startswith("200 version 1")
    assert replicas(world, "1") == 1
    assert together(history) == []
    # Nor two pods of the old version, one of which ends: a single writer is what this is for.
    assert [change for _, change, state in history.states() if len(running(state)) > 1] == []


def test_a_restart_while_the_old_version_ends_goes_on(world: World, history: History) -> None:
    world.ended(recreate(world, podspec=draining(world)), Status.DEPLOYED)
    second = recreate(world)
    parked(world, second)
    world.stop()
    world.start()
    world.ended(second, Status.DEPLOYED)
    assert ask(world).startswith("200 version 2")
    assert together(history) == []


def test_the_number_that_somebody_scaled_to_is_carried_over_and_brought_back(world: World, history: History) -> None:
    world.ended(recreate(world), Status.DEPLOYED)
    world.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": 2}}, world.namespace)
    failed = world.ended(recreate(world, **UNHEALTHY), Status.FAILURE)
    assert "carrying over 2 replicas" in world.log(failed.id)
    assert replicas(world, "1") == 2
    world.ended(recreate(world), Status.DEPLOYED)
    assert replicas(world, "3") == 2
    assert together(history) == []


def test_an_old_version_that_was_scaled_to_none_is_left_so(world: World, history: History) -> None:
    world.ended(recreate(world), Status.DEPLOYED)
    world.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": 0}}, world.namespace)
    failed = world.ended(recreate(world, **UNHEALTHY), Status.FAILURE)
    assert "wants no pods, as before" in world.log(failed.id)
    assert (replicas(world, "1"), world.live_version()) == (0, "1")
    world.ended(recreate(world), Status.DEPLOYED)
    assert ask(world).startswith("200 version 3")
    assert together(history) == []


@pytest.mark.parametrize("propagation", ["Background", "Orphan"])
def test_an_old_version_without_a_controller(world: World, history: History, propagation: str) -> None:
    """With its pods gone there is nothing to stop. With its pods left nobody could bring them back: nothing stops."""
    world.ended(recreate(world), Status.DEPLOYED)
    uid = world.objects(CONTROLLER)["shop-1"]["metadata"]["uid"]
    world.eyes.delete(CONTROLLER, "shop-1", world.namespace, uid=uid, propagation=propagation)
    if propagation == "Background":
        world.ended(recreate(world), Status.DEPLOYED)
        assert ask(world).startswith("200 version 2")
    else:
        second = world.ended(recreate(world), Status.FAILURE)
        assert second.failure is not None and second.failure["reason"] == "PodsLeft"
        assert "has no controller" in second.failure["message"]
        assert ask(world).startswith("200 version 1")
    assert together(history) == []


def test_a_version_that_drains_is_stopped_too(world: World, history: History) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, proxysleep=600.0)
    world.start()
    world.ended(recreate(world, deploymentType="blue-green"), Status.DEPLOYED)
    world.ended(recreate(world, deploymentType="blue-green"), Status.DEPLOYED)
    assert len(world.pods()) == 2
    before = history.now()
    world.ended(recreate(world), Status.DEPLOYED)
    history.now()
    mixed = [state for revision, _, state in history.states() if revision > before and "3" in versions(state)]
    assert mixed and all(versions(state) == {"3"} for state in mixed)


def test_the_originals_version_is_stopped_and_handed_back(world: World, history: History) -> None:
    originals.leave(world.eyes, world.namespace, host(world), world.image)
    scope = CancelScope(time.monotonic() + PATIENCE)
    world.informers.get(POD, world.namespace).wait(lambda pods: any(map(is_ready, pods)) or None, scope)
    before = world.objects(CONTROLLER)["shop-41"]
    failed = world.ended(recreate(world, **UNHEALTHY), Status.FAILURE)
    assert ask(world).startswith("200 version 4"), world.log(failed.id)
    after = world.objects(CONTROLLER)["shop-41"]
    assert after["spec"] == before["spec"]
    assert after["metadata"].get("annotations") == before["metadata"].get("annotations")
    world.ended(recreate(world), Status.DEPLOYED)
    world.quiet()
    assert world.names()["replicationcontrollers"] == {"shop-43"}
    assert together(history) == []

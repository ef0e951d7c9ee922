"""Gates on a real Kubernetes: real pods answer, a person decides, and what fails after the switch goes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.conftest import RealWorld
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import Status
from deployer.sdk.kube import SERVICE
from support.gates import awaited, decide, gated, results
from support.world import HEALTHY


@pytest.fixture
def world(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """Without an ingress: the Service is what moves."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={})
    made.start()
    yield made
    made.close()


def test_a_person_and_the_pods_let_a_version_on_and_a_gate_takes_the_next_one_back(world: RealWorld) -> None:
    asks = {"type": "approval", "name": "ask"}
    pods = {"type": "http", "name": "pods", "options": {"version": "pods", "path": "/env", "port": 8080}}
    first = world.deploy(**HEALTHY, replicas=2, gates={"beforeStart": [asks], "beforeSwitch": [pods]})
    awaited(world, first, "ask")
    assert (world.names(), world.pods()) == ({}, {})
    world.stop()
    world.start()
    decide(world, first, by="otto", comment="go")
    world.ended(first, Status.DEPLOYED)
    ask, looked = results(world, first)
    assert (ask["verdict"], ask["decision"]["by"]) == ("passed", "otto")
    assert looked["verdict"] == "passed"
    assert {measured["name"] for measured in looked["measurements"]} == set(world.pods())

    options = {"version": "pods", "path": "/", "interval": 1, "expect": {"status": [418]}}
    second = world.deploy(**HEALTHY, **gated("afterSwitch", type="http", timeoutSeconds=4, options=options))
    found = world.ended(second, Status.FAILURE)
    world.quiet()
    assert found.failure and found.failure["reason"] == "GateTimedOut"
    assert "answered HTTP 200" in found.failure["message"]
    assert "service shop selects version 2" in world.log(second.id)
    assert (world.live_version(), set(world.objects(CONTROLLER))) == ("1", {"shop-1"})
    assert set(world.objects(SERVICE)) == {"shop", "shop-1"}
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)

"""Gate `prometheus` with a service around it: what it measured is kept and shown, and what fails switches back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.records import Status
from support.gates import gated, results
from support.receiver import Receiver, reply
from support.world import HEALTHY, World

TOKEN = "a-token-of-ours"


@pytest.fixture
def stub() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, stub: Receiver) -> Iterator[World]:
    """One whose settings name the server."""
    servers = {"main": {"url": stub.origin, "token": TOKEN, "namespaces": [namespace]}}
    made = World(cluster, tmp_path, namespace, plugins={"gate_prometheus": {"servers": servers}})
    made.start()
    yield made
    made.close()


def says(stub: Receiver, value: str) -> None:
    body = {"status": "success", "data": {"resultType": "scalar", "result": [1.5, value]}}
    stub.answer = lambda handler: reply(handler, 200, json.dumps(body).encode())


def errors(**options: Any) -> dict[str, Any]:
    options = {"query": "errors{version='${version}'}", "max": 0.05, "measurements": 2, "interval": 1, **options}
    return gated("afterSwitch", type="prometheus", name="errors", options=options)


def test_it_is_passed_after_its_measurements(world: World, stub: Receiver) -> None:
    says(stub, "0.02")
    deployment = world.ended(world.deploy(**errors()), Status.DEPLOYED)
    (result,) = results(world, deployment)
    assert (result["verdict"], result["measured"]) == ("passed", 2)
    shown = [(one["value"], one["threshold"], one["verdict"]) for one in result["measurements"]]
    assert shown == [(0.02, "<= 0.05", "passed")] * 2
    assert b"errors%7Bversion%3D%271%27%7D" in stub.requests[0].body
    assert TOKEN not in world.log(deployment.id)


def test_one_that_fails_after_the_switch_switches_back(world: World, stub: Receiver) -> None:
    world.deployed(frontend="errors.example.com", **HEALTHY)
    says(stub, "0.5")
    failed = world.ended(world.deploy(frontend="errors.example.com", **HEALTHY, **errors()), Status.FAILURE)
    assert failed.failure and "0.5 is not <= 0.05" in failed.failure["message"]
    assert world.live_version() == "1" and world.answer("errors.example.com")[1].startswith("version 1 ")


def test_a_restart_goes_on_with_what_was_measured(world: World, stub: Receiver) -> None:
    says(stub, "0.02")
    deployment = world.deploy(**errors(interval=4))
    stub.await_requests(bool)
    world.until(lambda: results(world, deployment)[0]["measured"] == 1, "the first measurement to be kept")
    world.restart()
    world.ended(deployment, Status.DEPLOYED)
    assert results(world, deployment)[0]["measured"] == len(stub.requests) == 2


def test_without_a_server_for_the_namespace_it_is_refused(world: World) -> None:
    with pytest.raises(Exception, match="other is none of those that this namespace may ask, main"):
        world.descriptor(**errors(server="other"))

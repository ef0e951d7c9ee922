"""A full disk and a SIGTERM in the middle of a deployment, with real pods: what serves, serves on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from deployer.core.model.kind import CONTROLLER, POD
from support.command import Deployer, awaited, of_a_new_user, running
from support.real import IMAGE, RealWorld
from support.small_disk import SmallDisk, small_disk
from support.world import HEALTHY, describe


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64) as made:
        yield made


@pytest.fixture
def deployer(tmp_path: Path) -> Iterator[Deployer]:
    home = tmp_path / "user"
    home.mkdir()
    with running(of_a_new_user(home) | {"KUBECONFIG": os.environ.get("KUBECONFIG", "")}, home) as made:
        yield made


def test_a_full_disk_and_a_stop(deployer: Deployer, world: RealWorld, disk: SmallDisk) -> None:
    """`world` is here for its namespace and its eyes; its own engine sleeps."""
    world.stop()
    flags = ["serve", "--data-dir", str(disk.path / "data"), "--ingress=none", "--health-via=direct", "--proxysleep=0"]
    process, rest = deployer.serve(*flags)
    rest.namespace = world.namespace

    def app(**env: str) -> dict[str, Any]:
        return describe(world.namespace, **HEALTHY, image=IMAGE, pull="IfNotPresent", env=env)

    old = rest.deploy(app())
    awaited(lambda: rest.status(old) == "DEPLOYED", "the first version")

    # With not one byte free a deployment that is under way comes to its end, and its old version goes.
    new = rest.deploy(app(SLOW_START="5"))
    awaited(lambda: "created" in rest.call("GET", f"/deployments/{new}/logs")[1], "its pods to be created")
    disk.fill()
    padding = [{"key": "k", "description": "x" * 500}] * 100
    refused = awaited(
        lambda: (found := rest.call("POST", "/descriptors/", app() | {"webhooks": padding}))[0] == 503 and found[1],
        "the disk to be full",
    )
    assert "is full: free 16 MB" in refused["detail"]
    awaited(lambda: rest.status(new) == "DEPLOYED", "the second version")
    awaited(lambda: rest.status(old) == "UNDEPLOYED", "the first one's end")
    assert set(world.objects(CONTROLLER)) == {"shop-2"}
    assert rest.call("GET", "/readyz")[0] == 503
    disk.empty()
    awaited(lambda: rest.call("GET", "/readyz")[0] == 200, "readiness")

    # A stop in the middle: viewers are told to come back, and the next process goes on with the same objects.
    third = rest.deploy(app(SLOW_START="5"))
    awaited(lambda: "created" in rest.call("GET", f"/deployments/{third}/logs")[1], "its pods to be created")
    made = world.objects(CONTROLLER)["shop-3"]["metadata"]["uid"]
    url = f"ws{rest.url[4:]}stream/deployments/{third}/logs?namespace={world.namespace}"
    with connect(url, proxy=None) as viewer, pytest.raises(ConnectionClosed) as closed:
        assert process.end() == 0
        while True:
            viewer.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
    assert "Traceback" not in process.rest("err")
    assert set(world.objects(CONTROLLER)) == {"shop-2", "shop-3"}
    process, rest = deployer.serve(*flags)
    rest.namespace = world.namespace
    awaited(lambda: rest.status(third) == "DEPLOYED", "the third version")
    awaited(lambda: rest.status(new) == "UNDEPLOYED", "the second one's end")
    assert world.objects(CONTROLLER)["shop-3"]["metadata"]["uid"] == made
    assert all(pod["metadata"]["labels"]["version"] == "3" for pod in world.objects(POD).values())
    assert rest.call("DELETE", f"/deployments/{third}/")[0] == 202
    awaited(lambda: rest.status(third) == "UNDEPLOYED", "the undeployment")
    assert process.end() == 0

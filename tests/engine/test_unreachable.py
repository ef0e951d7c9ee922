"""An API server that cannot be reached: what the log says meanwhile, and what the deployment comes to."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.records import Status
from deployer.kube.http.transport import NotSent
from support.world import World


class Switch:
    """A transport before the service's own, through which nothing gets while it is off."""

    def __init__(self, world: World) -> None:
        self.off = threading.Event()
        self._real: Any = world.client._transport
        world.client._transport = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send(self, *args: Any, **more: Any) -> Any:
        if self.off.is_set():
            raise NotSent("Connection refused")
        return self._real.send(*args, **more)


@pytest.fixture
def switch(world: World) -> Switch:
    return Switch(world)


def test_the_log_says_once_what_is_waited_for_and_once_that_it_is_back(world: World, switch: Switch) -> None:
    descriptor = world.descriptor()
    switch.off.set()
    deployment = world.service.deploy(world.namespace, descriptor.id)
    world.until(lambda: "waiting up to" in world.log(deployment.id), "the log to say what is waited for")
    switch.off.clear()
    world.ended(deployment, Status.DEPLOYED)
    log = world.log(deployment.id)
    said = re.findall(r"Z (.*API server.*)\n", log)
    assert len(said) == 2, log
    assert re.fullmatch(
        r"waiting up to \d+ s for the API server: the API server at \S+ cannot be reached: Connection refused", said[0]
    )
    assert re.fullmatch(r"the API server answers again, after \d+ s", said[1])


def test_a_deployment_that_it_fails_for_blames_nothing_else(
    cluster: sandbox.Sandbox, tmp_path: Path, namespace: str
) -> None:
    world = World(cluster, tmp_path, namespace, undo_timeout=3.0).start()
    try:
        descriptor = world.descriptor()
        Switch(world).off.set()
        failed = world.ended(world.service.deploy(namespace, descriptor.id), Status.FAILURE)
        failure, log = failed.failure or {}, world.log(failed.id)
        assert failure["reason"] == "ApiServerUnavailable"
        assert failure["message"].endswith("cannot be reached: Connection refused")
        assert failure["hint"] == "check that the API server can be reached; then deploy again"
        assert log.count("FAILURE: ") == 1
    finally:
        world.close()

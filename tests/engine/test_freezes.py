"""What a freeze stops, and what goes on all the same, through REST and in the cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from deployer import sandbox
from deployer.api.app import create_app
from deployer.core.clock import SteadyClock
from deployer.core.model.records import Status
from support.world import HEALTHY, World

HOST = "shop.example.com"


class Rest:
    """A client of the REST of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def call(self, method: str, path: str, query: str = "", body: Any = None) -> falcon.testing.Result:
        client = falcon.testing.TestClient(create_app(self.world.service, list, list))
        query = f"namespace={self.world.namespace}&{query}"
        return client.simulate_request(method, path, query_string=query, json=body, headers={"Host": "localhost"})

    def freeze(self, **body: Any) -> None:
        assert (
            self.call("PUT", f"/freezes/{self.world.namespace}", body={"reason": "an audit", **body}).status_code < 300
        )

    def deploy(self, query: str = "", **fields: Any) -> falcon.testing.Result:
        stored = self.world.descriptor(**fields)
        return self.call("POST", "/deployments", f"descriptorId={stored.id}&{query}")


@pytest.fixture
def make_world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[Callable[..., World]]:
    """A running Deployer with these settings in an empty namespace."""
    with contextlib.ExitStack() as made:

        def make(**settings: Any) -> World:
            world = World(cluster, tmp_path, namespace, **settings)
            world.start()
            made.callback(world.close)
            return world

        yield make


def test_nothing_new_comes_to_a_frozen_namespace_not_even_after_a_restart(make_world: Callable[..., World]) -> None:
    world = make_world(proxysleep=0.0)
    rest = Rest(world)
    first = world.deployed(**HEALTHY, frontend=HOST)
    rest.freeze()
    before = world.names()
    for _ in range(2):
        assert rest.deploy(**HEALTHY, frontend=HOST).status_code == 423
        assert rest.call("PUT", f"/deployments/{first.id}").status_code == 423
        assert world.names() == before
        world.kill()
        world.restart()
    assert world.answer(HOST)[1].startswith("version 1 ")
    made = rest.deploy("override=a%20hole%20must%20be%20closed", **HEALTHY, frontend=HOST)
    second = world.ended(made.json["id"], Status.DEPLOYED)
    assert second.override and second.override["reason"] == "a hole must be closed"
    assert world.answer(HOST)[1].startswith("version 2 ")
    assert "in spite of a freeze" in world.log(second.id)


def test_what_was_accepted_before_goes_on(make_world: Callable[..., World]) -> None:
    """One that runs, and one that waits for it."""
    world = make_world(proxysleep=0.0)
    running = world.deploy(**HEALTHY, frontend=HOST, env={"SLOW_START": "1"})
    waiting = world.deploy(**HEALTHY, frontend=HOST)
    Rest(world).freeze()
    world.ended(running, Status.DEPLOYED)
    world.ended(waiting, Status.DEPLOYED)
    assert world.answer(HOST)[1].startswith("version 2 ")


@pytest.mark.parametrize("ask", ["rollback", "put"])
def test_a_rollback_to_a_warm_version_goes_through(make_world: Callable[..., World], ask: str) -> None:
    world = make_world(proxysleep=120.0)
    rest = Rest(world)
    first = world.deployed(**HEALTHY, frontend=HOST)
    world.deployed(**HEALTHY, frontend=HOST)
    rest.freeze()
    path = ("POST", "/rollbacks", "appname=shop") if ask == "rollback" else ("PUT", f"/deployments/{first.id}", "")
    assert rest.call(*path).status_code == 202
    world.ended(first, Status.DEPLOYED)
    assert world.answer(HOST)[1].startswith("version 1 ")


def test_a_rollback_to_a_version_that_is_gone_goes_through_and_so_does_its_end(
    make_world: Callable[..., World],
) -> None:
    world = make_world(proxysleep=0.0)
    rest = Rest(world)
    world.deployed(**HEALTHY, frontend=HOST)
    world.deployed(**HEALTHY, frontend=HOST)
    world.quiet()
    rest.freeze()
    made = rest.call("POST", "/rollbacks", "appname=shop")
    back = world.ended(made.json["id"], Status.DEPLOYED)
    assert world.answer(HOST)[1].startswith("version 1 ")
    assert rest.call("DELETE", f"/deployments/{back.id}", "deleteDeployment=true").status_code == 202
    world.quiet()
    assert not world.pods()
    assert rest.call("DELETE", "/deployments", "appname=shop&undeploy=true").status_code == 202


def test_a_version_that_fails_in_a_frozen_namespace_is_rolled_back_by_itself(make_world: Callable[..., World]) -> None:
    world = make_world(proxysleep=120.0)
    first = world.deployed(**HEALTHY, frontend=HOST)
    second = world.deployed(**HEALTHY, frontend=HOST, env={"CRASH_AFTER": "2"})
    Rest(world).freeze()
    failed = world.until(
        lambda: (found := world.record(second.id)).status is Status.FAILURE and found, "the new version to fail"
    )
    assert failed.failure and failed.failure["reason"] == "RolledBack"
    world.ended(first, Status.DEPLOYED)
    assert world.answer(HOST)[1].startswith("version 1 ")


def test_a_freeze_that_has_ended_stops_nobody(make_world: Callable[..., World]) -> None:
    world = make_world(proxysleep=0.0)
    rest = Rest(world)
    rest.freeze(until=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)))
    assert rest.deploy().status_code == 423
    world.stop()
    world.clock = lambda: SteadyClock(wall=lambda: time.time() + 3601.0)
    world.start()
    assert rest.call("GET", f"/freezes/{world.namespace}").status_code == 404
    assert rest.call("GET", "/freezes").json == []
    world.ended(rest.deploy().json["id"], Status.DEPLOYED)


def test_a_window_of_the_settings_freezes_its_namespaces(make_world: Callable[..., World]) -> None:
    always = {"reason": "no changes", "from": "00:00", "to": "24:00", "namespaces": ["t-*", "test-*", "*"]}
    world = make_world(proxysleep=0.0, freeze_windows=(always, {**always, "namespaces": ["elsewhere"]}))
    rest = Rest(world)
    refused = rest.deploy()
    assert refused.status_code == 423
    assert refused.json["freezes"] == [{"namespace": "t-*, test-*, *", "reason": "no changes", "source": "window"}]
    assert rest.call("GET", "/freezes").json == refused.json["freezes"]
    assert len(world.service.freezes.everywhere()) == 2
    assert not world.pods()

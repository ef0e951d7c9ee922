"""Apps as REST shows them while they are deployed, rolled back and undeployed: versions, pods, history."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from typing import Any

import pytest
from falcon import testing

from deployer.api.app import create_app
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import Deployment, Status
from deployer.core.ports.store import Update
from deployer.toolkit.replicas import ReplicaCounts
from support.world import HEALTHY, World


def get(world: World, path: str, **headers: str) -> testing.Result:
    app = create_app(world.service, list, list, apps=world.apps)
    client = testing.TestClient(app, headers={"Host": "localhost", **headers})
    return client.simulate_get(f"{path}?namespace={world.namespace}")


def shown(world: World) -> Any:
    (found,) = get(world, "/apps/").json
    return found


def settled(world: World) -> str | None:
    """The list's ETag, once it stays."""
    tag = str(get(world, "/apps/").headers["ETag"])
    return tag if get(world, "/apps/", **{"If-None-Match": tag}).status_code == 304 else None


def test_versions_pods_and_hosts_of_an_app(world: World) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, keep_warm=600.0)
    world.start()
    host = f"{world.namespace}.example.com"
    first = world.deployed(replicas=2, frontend=host, **HEALTHY)
    second = world.deployed(replicas=2, frontend=host, **HEALTHY)
    app = shown(world)
    assert (app["live"]["deployment"], app["live"]["version"], app["live"]["phase"]) == (second.id, "2", "WATCH")
    assert (app["warm"]["deployment"], app["warm"]["version"], app["warm"]["phase"]) == (first.id, "1", "DRAIN")
    assert app["hosts"] == [host] and "upcoming" not in app and "lastFailure" not in app
    world.until(lambda: shown(world)["replicas"] == {"wanted": 2, "ready": 2} or None, "both pods to be counted")
    tag = world.until(lambda: settled(world), "what follows the switch to be done")
    patch = {"spec": {"replicas": 3}}
    world.eyes.patch(CONTROLLER, "shop-2", patch, world.namespace)
    world.until(lambda: shown(world)["replicas"] == {"wanted": 3, "ready": 3} or None, "the third pod to be counted")
    assert get(world, "/apps/", **{"If-None-Match": tag}).status_code == 200
    long_ago = "2026-01-01T00:00:00Z"
    world.store.commit(Update(dataclasses.replace(world.store.get(Deployment, first.id) or first, went_live=long_ago)))
    RollbackCommands(world.service).roll_back(world.namespace, "shop", by="ann")
    world.until(lambda: shown(world)["live"]["version"] == "1" or None, "version 1 to be live again")
    app = shown(world)
    assert (app["lastFailure"]["deployment"], app["lastFailure"]["reason"]) == (second.id, "RolledBack")
    assert app["live"]["since"] == app["warm"]["since"] > long_ago
    world.service.undeploy(world.namespace, first.id, by="bob")
    world.until(lambda: "live" not in shown(world) or None, "nothing to be live")
    world.quiet()
    assert not {"live", "warm", "upcoming", "replicas"} & shown(world).keys()
    history = get(world, "/apps/shop/history").json
    assert [(e["what"], e["version"], e["outcome"], e.get("by")) for e in history] == [
        ("undeployment", "1", "removed", "bob"),
        ("rollback", "1", "rolledback", "ann"),
        ("deployment", "2", "upgraded", None),
        ("deployment", "1", "deployed", None),
    ]
    for entry in history:
        assert entry["asked"] <= entry["began"] <= entry["ended"] and entry["seconds"] > 0


def test_a_failed_and_a_cancelled_deployment_are_in_the_history(world: World) -> None:
    failed = world.ended(world.deploy(env={"FAIL": "1"}, **HEALTHY), Status.FAILURE)
    cancelled = world.deploy(probe={"httpGet": {"path": "/error", "port": 9999}})
    world.until(lambda: shown(world).get("upcoming", {}).get("step") == "await-ready" or None, "it to be under way")
    assert shown(world)["upcoming"]["deployment"] == cancelled.id
    world.service.undeploy(world.namespace, cancelled.id)
    world.ended(cancelled, Status.UNDEPLOYED)
    last, first = get(world, "/apps/shop/history").json
    assert (last["deployment"], last["outcome"]) == (cancelled.id, "cancelled")
    assert (first["deployment"], first["outcome"], first["failure"]) == (failed.id, "failed", failed.failure)


def test_what_was_cancelled_before_it_began_says_so(world: World) -> None:
    running = world.deploy(probe={"httpGet": {"path": "/error", "port": 9999}})
    world.until(lambda: shown(world)["upcoming"].get("step") == "await-ready" or None, "it to be under way")
    queued = world.deploy()
    world.service.undeploy(world.namespace, queued.id)
    world.ended(queued, Status.UNDEPLOYED)
    entry = get(world, "/apps/shop/history").json[0]
    assert (entry["deployment"], entry["outcome"], entry["seconds"]) == (queued.id, "cancelled", 0)
    world.service.undeploy(world.namespace, running.id)


def test_pods_that_nobody_can_count_are_not_called_none(world: World) -> None:
    world.deployed(**HEALTHY)
    assert "unknown" not in shown(world)["replicas"]
    uid = world.objects(CONTROLLER)["shop-1"]["metadata"]["uid"]
    world.eyes.delete(CONTROLLER, "shop-1", world.namespace, uid=uid)
    gone = {"unknown": "ReplicationController shop-1 is not there"}
    world.until(lambda: shown(world)["replicas"] == gone or None, "the controller to be missed")


def test_an_api_server_that_does_not_answer_costs_nobody_more_than_a_moment(world: World) -> None:
    world.deployed(**HEALTHY)
    world.quiet()
    world.stop()
    reached = world.settings
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        world.settings = dataclasses.replace(reached, kubernetes=f"http://127.0.0.1:{silent.getsockname()[1]}")
        world.start()
        began = time.monotonic()
        threads = [threading.Thread(target=shown, args=(world,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 6
        assert "unknown" in shown(world)["replicas"]
        world.stop()
    world.settings = reached
    world.start()
    world.until(lambda: "wanted" in shown(world)["replicas"] or None, "the pods to be counted")


def test_nobody_looks_into_a_namespace_without_apps(world: World) -> None:
    world.until(lambda: world.engine.idle() or None, "nothing to be done")
    counts = world.apps._replicas
    assert isinstance(counts, ReplicaCounts)
    for n in range(20):
        assert world.apps.apps(f"nobody-{n}") == ([], "")
        world.apps.moved(f"nobody-{n}")
    assert counts._asked == {} and (CONTROLLER, "nobody-1") not in world.informers._informers


@pytest.mark.parametrize("times", [2])
def test_a_restart_changes_nothing_that_is_shown(world: World, times: int) -> None:
    world.deployed(**HEALTHY)
    world.ended(world.deploy(env={"FAIL": "1"}, **HEALTHY), Status.FAILURE)
    world.quiet()
    world.until(lambda: "wanted" in shown(world)["replicas"] or None, "the pods to be counted")
    paths = ("/apps/", "/apps/shop/", "/apps/shop/history", "/deployments/")
    before = {path: get(world, path).json for path in paths}
    for _ in range(times):
        world.restart()
        world.until(lambda: "wanted" in shown(world)["replicas"] or None, "the pods to be counted")
        assert {path: get(world, path).json for path in paths} == before

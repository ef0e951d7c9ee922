"""The cluster is not as the store has it: nothing that serves is ended, whatever is done about it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import KubeAlreadyExists, KubeForbidden
from deployer.core.model.kind import NAMESPACE
from deployer.core.model.records import App, Deployment, Document, Plan, Status
from deployer.sdk.kube import CONTROLLER, INGRESS, SERVICE
from support.history import Visitor, backend_of
from support.world import HEALTHY, PATIENCE, World


def host(world: World) -> str:
    return f"{world.namespace}.example"


def deployed(world: World, **fields: Any) -> Deployment:
    made = world.deployed(**HEALTHY, frontend=host(world), **fields)
    world.quiet()
    return made


def disagrees(world: World) -> Document:
    """A deployment fails because of it; why."""
    failure = world.ended(world.deploy(**HEALTHY, frontend=host(world)), Status.FAILURE).failure
    assert failure and failure["reason"] == "StoreDisagrees"
    return failure


def served(world: World) -> tuple[str | None, str]:
    """What Service and route select."""
    return world.live_version(), backend_of(world.objects(INGRESS)["shop"])


# --- a namespace that was deleted and made again ----------------------------------------------------------------------


def made_again(world: World) -> None:
    """Delete the namespace and make it again."""
    uid = world.eyes.get(NAMESPACE, world.namespace)["metadata"]["uid"]
    world.eyes.delete(NAMESPACE, world.namespace, uid=uid)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            world.eyes.create(NAMESPACE, {"metadata": {"name": world.namespace}}, None)
        except (KubeAlreadyExists, KubeForbidden):
            time.sleep(0.05)  # a finalizer is at work; nothing tells when it is done
            continue
        return
    raise AssertionError("the namespace does not go")


@pytest.mark.parametrize(("version", "then"), [("#", "2"), ("blue", "blue")])
def test_an_app_of_a_namespace_that_was_made_again_starts_anew(world: World, version: str, then: str) -> None:
    first = deployed(world, newVersion=version)
    made_again(world)
    made = world.service.redeploy(world.namespace, first.id)
    assert world.ended(made, Status.DEPLOYED).version == then
    assert "starting anew" in world.log(made.id)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert served(world) == (then, f"shop-{then}")
    assert [p.deployment for p in world.store.find(Plan)] == [made.id]
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app and (app.live, app.held) == (made.id, "")
    world.service.undeploy(world.namespace, made.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_a_failure_there_leaves_nothing_and_the_next_one_starts_anew_too(world: World) -> None:
    deployed(world)
    made_again(world)
    world.ended(world.deploy(image="sample/web:missing", pull="Never"), Status.FAILURE)
    assert (world.names(), world.pods()) == ({}, {})
    assert deployed(world).version == "3"


def test_what_is_only_half_gone_is_no_new_start(world: World) -> None:
    deployed(world)
    found = world.objects(SERVICE)["shop"]["metadata"]
    world.eyes.delete(SERVICE, "shop", world.namespace, uid=found["uid"])
    failure = disagrees(world)
    assert "service shop is missing" in failure["message"]
    # The route still goes to version 1, so that undeploying it would be an outage.
    assert "undeploy" not in failure["hint"]


# --- a store that is older than the cluster ---------------------------------------------------------------------------


@pytest.fixture
def old_store(world: World, tmp_path: Path) -> tuple[World, Deployment]:
    """Version 2 is live, and the store is of a time when version 1 was."""
    first = deployed(world)
    world.stop()
    files = list(world.settings.data_dir.glob("deployer.db*"))
    for file in files:
        shutil.copy(file, tmp_path / f"old-{file.name}")
    world.start()
    deployed(world)
    world.stop()
    for file in world.settings.data_dir.glob("deployer.db*"):
        file.unlink()
    for file in files:
        shutil.copy(tmp_path / f"old-{file.name}", file)
    world.start()
    return world, first


def test_following_the_hints_ends_nothing_that_serves(old_store: tuple[World, Deployment]) -> None:
    world, first = old_store
    visitor = Visitor(world.cluster.ingress, host(world))
    failure = disagrees(world)
    assert "service shop selects version 2, but version 1 was deployed last" in failure["message"]
    # Version 1 is gone: going back to it would be an outage.
    assert "undeploy version 1" in failure["hint"] and "go to version 1" not in failure["hint"]
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)
    assert served(world) == ("2", "shop-2")
    assert "service shop selects version 2 and not version 1: it stays" in world.log(first.id)
    assert f"the route of {host(world)} goes to shop-2 and not to version 1: it stays" in world.log(first.id)
    failure = disagrees(world)
    assert "version 2 taken over as docs/operations.md says" in failure["hint"]
    for kind in (CONTROLLER, SERVICE):
        metadata = world.objects(kind)["shop-2"]["metadata"]
        notes = {key: None for key in metadata["annotations"] if key.startswith("kube-deployer/")}
        patch = {"metadata": {"annotations": notes, "labels": {"app.kubernetes.io/managed-by": None}}}
        world.eyes.patch(kind, "shop-2", patch, world.namespace)
    made = deployed(world)
    assert served(world) == (made.version, f"shop-{made.version}")
    assert visitor.stop() == [] and visitor.served
    assert world.names()["replicationcontrollers"] == {f"shop-{made.version}"}
    assert world.names()["services"] == {"shop", f"shop-{made.version}"}


def test_a_live_version_that_is_there_can_be_gone_back_to(world: World) -> None:
    deployed(world)
    world.eyes.patch(SERVICE, "shop", {"spec": {"selector": {"version": "by-hand"}}}, world.namespace)
    hint = disagrees(world)["hint"]
    assert "have service and route go to version 1 again" in hint
    assert "undeploy" not in hint  # the route goes to it
    world.eyes.patch(SERVICE, "shop", {"spec": {"selector": {"version": "1"}}}, world.namespace)
    deployed(world)

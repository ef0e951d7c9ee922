"""A holder that lost its lease without noticing can no longer write, neither to the store nor to the cluster."""

from __future__ import annotations

import dataclasses

import pytest

from deployer.core.contract.kube import Owner
from deployer.core.errors import Fenced
from deployer.core.model.records import App, Status
from deployer.core.ports.store import Update
from deployer.kube import ownership
from deployer.kube.owned import OwnedKube, fencing_token_of
from deployer.sdk.kube import INGRESS, SERVICE
from deployer.sdk.plugin import CancelScope, Document
from support.world import HEALTHY, World

HOST = "shop.example.com"


def hands(world: World, fencing_token: int) -> OwnedKube:
    """What a step of the app has in its hands, with that fencing token."""
    owner = Owner(
        instance="deployer", namespace=world.namespace, app="shop", deployment="late", fencing_token=fencing_token
    )
    return OwnedKube(world.client, world.informers, owner, CancelScope())


def lead_astray(found: Document | None) -> Document:
    assert found is not None
    found["spec"]["selector"] = {"app": "shop", "version": "0"}
    return found


def test_a_restart_raises_the_epoch_of_shared_objects_before_it_writes_anything_else(world: World) -> None:
    world.deployed(**HEALTHY, frontend=HOST)
    before = fencing_token_of(world.objects(SERVICE)["shop"])
    world.stop()
    world.start()
    # A deployment that fails before it writes anything has written its fencing token all the same.
    world.ended(world.deploy(newVersion="1"), Status.FAILURE)
    assert fencing_token_of(world.objects(SERVICE)["shop"]) == before + 1
    assert fencing_token_of(world.objects(INGRESS)["shop"]) == before + 1
    assert world.live_version() == "1"


@pytest.mark.parametrize("kind", [SERVICE, INGRESS])
def test_writes_under_an_old_epoch_are_refused_and_change_nothing(world: World, kind: object) -> None:
    world.deployed(**HEALTHY, frontend=HOST)
    found = world.objects(kind)["shop"]  # type: ignore[arg-type]
    stale = hands(world, fencing_token_of(found) - 1)
    with pytest.raises(Fenced, match="another one carries on"):
        stale.put_shared(kind, "shop", lead_astray, role=ownership.ROLE_SERVICE)  # type: ignore[arg-type]
    with pytest.raises(Fenced):
        stale.delete_shared(kind, "shop")  # type: ignore[arg-type]
    with pytest.raises(Fenced):
        stale.raise_fencing_token(kind, "shop")  # type: ignore[arg-type]
    assert world.objects(kind)["shop"] == found  # type: ignore[arg-type]


def test_a_takeover_between_read_and_write_is_noticed(world: World) -> None:
    """The write carries the resourceVersion that was read: the 409 leads to another look, which shows the token."""
    world.deployed(**HEALTHY)
    fencing_token = fencing_token_of(world.objects(SERVICE)["shop"])
    old, new = hands(world, fencing_token), hands(world, fencing_token + 1)

    def overtaken(found: Document | None) -> Document:
        new.raise_fencing_token(SERVICE, "shop")
        return lead_astray(found)

    with pytest.raises(Fenced):
        old.put_shared(SERVICE, "shop", overtaken, role=ownership.ROLE_SERVICE)
    assert world.live_version() == "1"


def test_a_stale_holder_cannot_commit(world: World) -> None:
    world.deployed()
    world.quiet()
    stale = world.store.acquire(world.namespace, "shop", "somebody", 0.0)
    assert stale is not None
    assert world.store.acquire(world.namespace, "shop", "successor", 60.0) is not None
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app is not None
    with pytest.raises(Fenced):
        world.store.commit(Update(dataclasses.replace(app, live="", live_version="")), fence=stale)
    assert world.store.get(App, app.key) == app


def test_an_engine_waits_for_the_lease_of_another_process(world: World) -> None:
    """Two replicas on one store: whoever holds the lease deploys, the other one waits until it is given back."""
    other = world.store.acquire(world.namespace, "shop", "another process", 60.0)
    assert other is not None
    waiting = world.deploy()
    ahead = world.deployed("other-app")
    assert ahead.status is Status.DEPLOYED
    assert world.service.deployment(world.namespace, waiting.id).status is Status.DEPLOYING
    assert world.live_version() is None
    world.store.release(other)
    world.ended(waiting, Status.DEPLOYED)
    assert fencing_token_of(world.objects(SERVICE)["shop"]) == other.token + 1

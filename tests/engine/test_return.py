"""A version comes back right after it was replaced: when it has drained, in order, without a loss."""

from __future__ import annotations

import dataclasses
import time

import pytest

from deployer.core.model.records import Deployment, Operation, Status
from deployer.core.ports.store import Update
from deployer.sdk.kube import CONTROLLER
from support.history import Visitor
from support.world import HEALTHY, World


def status(world: World, deployment: Deployment) -> Status:
    found = world.store.get(Deployment, deployment.id)
    assert found
    return found.status


@pytest.mark.parametrize("again", ["redeploy", "descriptor"])
def test_the_predecessor_comes_back_once_it_has_drained(world: World, again: str) -> None:
    """Whatever was asked for after that waits for it, in order, and nobody who visits the app notices."""
    world.settings = dataclasses.replace(world.settings, proxysleep=1.5)
    world.stop()
    world.start()
    host = f"{world.namespace}.example"
    first = world.deployed(**HEALTHY, frontend=host, newVersion="1")
    visitor = Visitor(world.cluster.ingress, host)
    second = world.deployed(**HEALTHY, frontend=host, newVersion="2")
    before = world.objects(CONTROLLER)["shop-1"]["metadata"]["uid"]
    if again == "redeploy":
        back = world.service.redeploy(world.namespace, first.id)
    else:
        back = world.service.deploy(world.namespace, first.descriptor_id)
    last = world.deploy(**HEALTHY, frontend=host, newVersion="3")
    world.until(lambda: "is still draining" in world.log(back.id), "the log to say so")
    assert (status(world, first), world.objects(CONTROLLER)["shop-1"]["metadata"]["uid"]) == (
        Status.UNDEPLOYING,
        before,
    )
    assert world.ended(back, Status.DEPLOYED).version == "1"
    assert (status(world, first), status(world, second)) == (Status.UNDEPLOYED, Status.UNDEPLOYING)
    assert status(world, last) is Status.DEPLOYING
    world.ended(last, Status.DEPLOYED)
    world.quiet()
    assert visitor.stop() == [] and visitor.served
    assert world.names()["replicationcontrollers"] == {"shop-3"}


def test_what_waits_for_its_predecessor_can_be_cancelled_and_survives_a_restart(world: World) -> None:
    first, _ = named_and_held(world)
    stored = [world.service.redeploy(world.namespace, first.id) for _ in range(2)]
    world.until(lambda: "is still draining" in world.log(stored[0].id), "the log to say so")
    world.service.undeploy(world.namespace, stored[0].id)
    world.ended(stored[0], Status.UNDEPLOYED)
    world.until(lambda: "is still draining" in world.log(stored[1].id), "the next one to wait")
    world.stop()
    world.start()
    (retire,) = [o for o in world.store.find(Operation, tag="open") if o.target.previous]
    world.store.commit(Update(dataclasses.replace(retire, due=0.0)))
    assert world.ended(stored[1], Status.DEPLOYED).version == "1"
    assert world.log(stored[1].id).count("is still draining") == 1


def test_what_waits_in_vain_fails_in_the_end(world: World) -> None:
    first, _ = named_and_held(world)
    again = world.service.redeploy(world.namespace, first.id)
    world.until(lambda: "is still draining" in world.log(again.id), "the log to say so")
    (waiting,) = [o for o in world.store.find(Operation, tag="open") if o.target.awaits]
    world.store.commit(Update(dataclasses.replace(waiting, due=time.time(), least=0.0)))
    failure = world.ended(again, Status.FAILURE).failure
    assert failure and failure["message"] == f"version 1 of shop is still held or being removed (deployment {first.id})"


def named_and_held(world: World) -> tuple[Deployment, Deployment]:
    """Version 2 is live and version 1 is held for ten minutes, both by the names that their descriptors give."""
    world.stop()
    world.settings = dataclasses.replace(world.settings, proxysleep=600.0)
    world.start()
    return world.deployed(newVersion="1"), world.deployed(newVersion="2")

"""Somebody edits the Ingress while it is being switched: noticed, and not overwritten."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from deployer.core.model.records import Deployment, Document, Status
from deployer.sdk.kube import INGRESS
from deployer.sdk.strategy import Work
from support.strategies import VisitedBlueGreen, restart_with
from support.world import HEALTHY, World

Edit = Callable[[Document], object]


def elsewhere(ingress: Document) -> None:
    ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "maintenance"


def another_path(ingress: Document) -> None:
    paths = ingress["spec"]["rules"][0]["http"]["paths"]
    paths.append({**copy.deepcopy(paths[0]), "path": "/api"})


def deploy_with(world: World, point: str, edit: Edit) -> Deployment:
    """Version 1 is live; version 2 is deployed, and somebody edits the Ingress at that point of it."""
    edited: list[Document] = []

    def visit(work: Work, at: str) -> None:
        if at != point or work.plan.version != "2" or edited:
            return
        found = world.eyes.get(INGRESS, "shop", world.namespace)
        edit(found)
        edited.append(world.eyes.replace(INGRESS, "shop", found, world.namespace))

    restart_with(world, VisitedBlueGreen(visit))
    fields: dict[str, Any] = {**HEALTHY, "deploymentType": "visited", "frontend": f"{world.namespace}.example.com"}
    world.deployed(**fields)
    world.quiet()
    failed = world.ended(world.deploy(**fields), Status.FAILURE)
    world.quiet()
    (theirs,) = edited
    left = [rule for rule in theirs["spec"]["rules"] if not rule["host"].endswith(".hold.invalid")]
    assert world.objects(INGRESS)["shop"]["spec"] == {**theirs["spec"], "rules": left}
    assert world.live_version() == "1"
    assert world.names()["replicationcontrollers"] == {"shop-1"}
    assert world.names()["ingresses"] == {"shop"}
    return failed


@pytest.mark.parametrize("edit", [elsewhere, another_path])
def test_before_the_switch(world: World, edit: Edit) -> None:
    failed = deploy_with(world, "prepare-route:after", edit)
    assert failed.failure and failed.failure["reason"] == "ObjectChanged"
    assert "somebody changed it during the deployment" in failed.failure["message"]


def test_after_the_switch(world: World) -> None:
    """Whoever took the traffic away from the new version keeps it."""
    world.stop()
    world.settings = dataclasses.replace(world.settings, expose_timeout=4.0)
    world.start()
    failed = deploy_with(world, "switch-route:after", elsewhere)
    assert failed.failure and failed.failure["reason"] == "RouteNotConfirmed"

"""What settings forbid in a podspec is refused before anything is written, also in what was stored before."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from deployer.core.errors import Invalid
from deployer.core.model.records import Document, Status
from support.world import World, describe


def with_account(world: World, account: str) -> Document:
    document = describe(world.namespace)
    document["podspec"]["serviceAccountName"] = account
    return document


def restart(world: World, **settings: Any) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, **settings)
    world.start()


def test_a_podspec_that_may_not_be_is_refused_wherever_it_comes_from(world: World) -> None:
    service = world.service
    body = json.dumps(with_account(world, "admin")).encode()
    stored = service.descriptors.create(world.namespace, body)
    fine = service.descriptors.create(world.namespace, json.dumps(with_account(world, "shop")).encode())
    old = service.deploy(world.namespace, stored.id)
    world.ended(old)
    world.quiet()
    world.engine.stop()  # nobody takes it up
    waiting = service.deploy(world.namespace, stored.id)
    restart(world, allowed_service_accounts={"*": ("default", "shop")})
    failed = world.ended(waiting, Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "NotAllowed"
    assert "podspec.serviceAccountName" in failed.failure["message"]
    service, before = world.service, world.names()
    for ask in (
        lambda: service.descriptors.create(world.namespace, body),
        lambda: service.descriptors.update(world.namespace, fine.id, body),
        lambda: service.descriptors.validate(world.namespace, body),
        lambda: service.deploy(world.namespace, stored.id),
        lambda: service.redeploy(world.namespace, old.id),
    ):
        with pytest.raises(Invalid, match="may not be used by apps of namespace") as caught:
            ask()
        assert [problem.path for problem in caught.value.problems] == ["podspec.serviceAccountName"]
    assert world.names() == before
    assert service.descriptors.get(world.namespace, fine.id).document["podspec"]["serviceAccountName"] == "shop"
    world.ended(service.deploy(world.namespace, fine.id), Status.DEPLOYED)

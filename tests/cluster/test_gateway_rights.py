"""An account that may do what `deploy/rbac/` says for the Gateway API: the provider needs all of it, and no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deployer.core.model.kind import HTTP_ROUTE
from deployer.core.model.records import Status
from deployer.kube.client import connect
from deployer.settings import Settings
from support import gateway
from support.real import RealWorld
from support.rights import Account, Recorder, rights
from support.world import HEALTHY

FILES = ("app.yaml", "app-ingress-gateway.yaml")


@pytest.mark.timeout(180)
def test_a_life_on_the_gateway_uses_the_rights_of_its_file_and_no_other(tmp_path: Path, namespace: str) -> None:
    gateway.require()
    admin = connect(Settings())
    (tmp_path / "account").mkdir()
    account = Account(admin, tmp_path / "account")
    table = {**gateway.TABLE, "minimum_hold": 0.5}
    world = RealWorld(None, tmp_path / "data", namespace, ingress="gateway", plugins={"ingress_gateway": table})
    world.settings = dataclasses.replace(world.settings, **account.settings())
    account.grant(namespace, *FILES)
    world.start()
    try:
        recorder = Recorder(world.client)
        fields = {**HEALTHY, "frontend": f"{namespace}.example.com"}
        world.deployed(**fields, redirectWww=True)
        world.quiet()
        world.stop()
        world.start()  # only another process than the one before marks the shared objects anew
        after = Recorder(world.client)
        second = world.deployed(**fields)  # without the redirect, which goes
        world.quiet()
        assert set(world.objects(HTTP_ROUTE)) == {"shop"}
        world.service.undeploy(namespace, second.id)
        assert world.ended(second).status is Status.UNDEPLOYED
        world.quiet()
        used = {right for right in recorder.used(namespace) | after.used(namespace) if right.plural == "httproutes"}
        assert used == rights("app-ingress-gateway.yaml")
        assert recorder.spaces() | after.spaces() <= {namespace, ""}
    finally:
        world.close()
        account.close()
        admin.close()

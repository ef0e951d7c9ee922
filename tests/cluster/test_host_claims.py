"""Hosts of a kind that only the ingress provider knows, on a real API server: seen as far as the rights go."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.conftest import RealWorld
from deployer.core.model.kind import CONFIG_MAP, Kind
from deployer.core.model.records import Document, Status
from deployer.kube.client import connect
from deployer.settings import Settings
from support.ingressroutes import IngressRoutes, defined, route
from support.rights import Account, Right, await_allowed

RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    admin = connect(Settings())
    made = Account(admin, tmp_path)
    yield made
    made.close()
    admin.close()


@pytest.fixture
def kind(account: Account, namespace: str) -> Iterator[Kind]:
    with defined(account.admin, f"{namespace}.example") as kind:
        yield kind


def grant(account: Account, namespace: str, kind: Kind) -> None:
    """What the provider needs in the app's namespace."""
    name = {"name": "ingressroutes", "namespace": namespace}
    verbs = ["get", "list", "create", "update", "delete"]
    role: Document = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": name}
    role["rules"] = [{"apiGroups": [kind.group], "resources": [kind.plural], "verbs": verbs}]
    binding: Document = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": name}
    binding["roleRef"] = {"apiGroup": RBAC, "kind": "Role", "name": "ingressroutes"}
    binding["subjects"] = [{"kind": "ServiceAccount", "name": "deployer", "namespace": account.namespace}]
    account.apply(role)
    account.apply(binding)
    await_allowed(account.client, namespace, Right(f"{kind.group}:{kind.plural}", "list"))


def test_a_host_is_found_in_every_namespace_that_may_be_read(
    account: Account, kind: Kind, tmp_path: Path, namespace: str
) -> None:
    host = f"{namespace}.example.com"
    world = RealWorld(None, tmp_path, namespace, ingress="ingressroutes", plugins={})
    world.providers = [IngressRoutes(kind)]
    theirs = account.admin.create(kind, route(kind, "theirs", host, "web"), account.namespace)
    # Without rights of its own it sees all namespaces here.
    world.start()
    try:
        world.until(lambda: world.eyes.list(CONFIG_MAP, namespace)[0] or None, "the namespace to be furnished")
        failed = world.ended(world.deploy(frontend=host), Status.FAILURE)
        assert failed.failure and failed.failure["reason"] == "HostTaken"
        assert f"IngressRoute theirs in namespace {account.namespace}, which" in failed.failure["message"]
        # With those of one namespace it goes on, and says what it has not seen.
        account.grant(namespace, "app.yaml")
        grant(account, namespace, kind)
        world.stop()
        world.settings = dataclasses.replace(world.settings, **account.settings())
        world.start()
        live = world.deployed(frontend=host)
        unseen = "IngressRoute objects of other namespaces are not checked for the host: no right to list them"
        assert unseen in world.log(live.id)
        account.admin.create(kind, route(kind, "near", host, "web"), namespace)
        failed = world.ended(world.deploy(frontend=host), Status.FAILURE)
        assert f"IngressRoute near in namespace {namespace}, which" in (failed.failure or {})["message"]
        world.quiet()
        (rule,) = account.admin.get(kind, "shop", namespace)["spec"]["routes"]
        assert rule["services"] == [{"name": f"shop-{live.version}", "port": 8080}]
    finally:
        world.close()
        account.admin.delete(kind, "theirs", account.namespace, uid=theirs["metadata"]["uid"])

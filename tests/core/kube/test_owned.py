"""Ownership, shared objects and epochs, as the sandbox's objects show them afterwards."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from deployer import sandbox as sandbox_package
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Owner
from deployer.core.errors import Cancelled, DeadlineExceeded, Fenced, ForeignObject, KubeRejected, StepFailed
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, SERVICE, Kind
from deployer.kube.client import KubeClient, connect
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube, fencing_token_of, find_owned
from deployer.kube.ownership import (
    ANNOTATION_DEPLOYMENT,
    ANNOTATION_FENCING_TOKEN,
    LABEL_MANAGED_BY,
    is_original,
)
from deployer.settings import Settings

Document = dict[str, Any]


def as_owner(kube: OwnedKube, **changes: Any) -> OwnedKube:
    """The same cluster for somebody else."""
    own = kube.owner
    values = {
        name: getattr(own, name) for name in ("instance", "namespace", "app", "deployment", "fencing_token", "keep")
    }
    return OwnedKube(kube._client, kube._informers, Owner(**{**values, **changes}), kube.scope)


def config(kube: OwnedKube, name: str = "shop-1", role: str = "versioned-config", **data: str) -> Document:
    labels = {LABEL_MANAGED_BY: "deployer"}
    metadata = {"name": name, "annotations": kube.annotations(role), "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def service(kube: OwnedKube, name: str = "shop-1", **metadata: Any) -> Document:
    spec = {"selector": {"app": "shop", "version": "1"}, "ports": [{"name": "http", "port": 80}]}
    about = {"name": name, "annotations": kube.annotations("versioned-service"), **metadata}
    return {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec}


def uid(found: Document | None) -> str:
    assert found is not None
    return str(found["metadata"]["uid"])


def raw(client: KubeClient, kube: OwnedKube, kind: Kind, body: Document) -> Document:
    return client.create(kind, body, kube.owner.namespace)


# --- create -------------------------------------------------------------------------------------------------------


def test_create_twice_is_create_once(kube: OwnedKube) -> None:
    first = kube.create(CONFIG_MAP, config(kube, a="1"))
    again = kube.create(CONFIG_MAP, config(kube, a="2"))
    assert uid(first) == uid(again) and again["data"] == {"a": "1"}
    assert fencing_token_of(first) == 3
    assert kube.is_ours(first) and kube.owned_by(first, "d1") and not kube.owned_by(first, "d0")


def test_a_leftover_makes_room(kube: OwnedKube) -> None:
    old = as_owner(kube, deployment="d0", fencing_token=2)
    before = old.create(CONFIG_MAP, config(old, a="old"))
    after = kube.create(CONFIG_MAP, config(kube, a="new"))
    assert uid(before) != uid(after) and after["data"] == {"a": "new"} and kube.owned_by(after, "d1")


def test_a_leftover_of_a_newer_holder_of_the_lease_stays(kube: OwnedKube) -> None:
    newer = as_owner(kube, deployment="d2", fencing_token=4)
    theirs = newer.create(CONFIG_MAP, config(newer))
    with pytest.raises(Fenced, match="has fencing token 4"):
        kube.create(CONFIG_MAP, config(kube))
    assert kube.get(CONFIG_MAP, "shop-1") == theirs


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"deployment": "d0"}, "deployment d0 of this app, which still runs"),
        ({"app": "shop-api"}, "another app, shop-api"),
        ({"instance": "staging"}, "another deployer, instance staging"),
    ],
)
def test_somebody_elses_object_is_left_alone(kube: OwnedKube, other: dict[str, str], words: str) -> None:
    owner = as_owner(kube, **other)
    theirs = owner.create(SERVICE, service(owner))
    mine = as_owner(kube, keep=frozenset({"d0"}))
    with pytest.raises(ForeignObject, match=words) as caught:
        mine.create(SERVICE, service(mine))
    assert "Service shop-1 in namespace door-" in str(caught.value)
    assert mine.delete(SERVICE, "shop-1") is False
    assert kube.get(SERVICE, "shop-1") == theirs


def test_an_object_of_nobody_is_foreign(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    raw(sandbox_client, kube, SERVICE, service(kube, annotations={}))
    with pytest.raises(ForeignObject, match="no Deployer made it"):
        kube.create(SERVICE, service(kube))
    assert kube.delete(SERVICE, "shop-1", original_ok=True) is False
    assert kube.get(SERVICE, "shop-1") is not None


def test_an_object_of_the_original_is_deleted_only_on_request(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    labels = {"name": "shop-1", "app": "shop", "version": "1"}
    raw(sandbox_client, kube, SERVICE, service(kube, annotations={}, labels=labels))
    with pytest.raises(ForeignObject, match="as the original deployer left it"):
        kube.create(SERVICE, service(kube))
    assert kube.delete(SERVICE, "shop-1") is False
    assert kube.delete(SERVICE, "shop-1", original_ok=True) is True
    assert kube.get(SERVICE, "shop-1") is None


def test_strict_validation(kube: OwnedKube) -> None:
    body = service(kube)
    body["spec"]["selektor"] = {}
    with pytest.raises(KubeRejected, match="selektor"):
        kube.create(SERVICE, body)
    assert kube.get(SERVICE, "shop-1") is None


# --- lost answers -------------------------------------------------------------------------------------------------


class Proxy:
    """Forwards to the sandbox; `drop` chooses the requests whose answer is thrown away."""

    def __init__(self, server: Any, target: str) -> None:
        self._target = urlsplit(target).netloc
        self.drop: Callable[[Any], bool] = lambda request: False
        server.answer = self.answer

    def answer(self, request: Any) -> None:
        with contextlib.closing(http.client.HTTPConnection(self._target, timeout=10)) as connection:
            headers = {"Content-Type": request.headers.get("Content-Type") or "application/json"}
            connection.request(request.method, request.handler.path, request.body or None, headers)
            answer = connection.getresponse()
            body = answer.read()
        if self.drop(request):
            request.reset()
        else:
            request.json(body, answer.status)


@pytest.fixture
def proxy(server: Any, sandbox: sandbox_package.Sandbox) -> Proxy:
    return Proxy(server, sandbox.api)


@pytest.fixture
def proxied(server: Any, proxy: Proxy, quick: None, kube: OwnedKube) -> Iterator[OwnedKube]:
    """`kube` by way of the proxy."""
    client = connect(Settings(kubernetes=server.url))
    informers = Informers(client)
    yield OwnedKube(client, informers, kube.owner, kube.scope)
    informers.close()
    client.close()


def once(method: str) -> Callable[[Any], bool]:
    left = [1]
    return lambda request: request.method == method and bool(left) and bool(left.pop())


def test_a_create_whose_answer_is_lost(proxy: Proxy, proxied: OwnedKube, server: Any) -> None:
    proxy.drop = lambda request: request.method == "POST"
    made = proxied.create(CONFIG_MAP, config(proxied, a="1"))
    assert made["data"] == {"a": "1"} and proxied.owned_by(made, "d1")
    assert [r.method for r in server.requests] == ["POST", "GET"]


def test_an_edit_whose_answer_is_lost(proxy: Proxy, proxied: OwnedKube) -> None:
    proxied.put_shared(CONFIG_MAP, "shop", lambda found: config(proxied, "shop", a="1"), role="service")
    proxy.drop = once("PUT")
    seen: list[object] = []

    def change(found: Document | None) -> Document | None:
        assert found is not None
        seen.append(dict(found["data"]))
        found["data"]["a"] = "2"
        return found

    after = proxied.put_shared(CONFIG_MAP, "shop", change, role="service")
    assert after is not None and after["data"] == {"a": "2"}
    assert seen == [{"a": "1"}, {"a": "2"}]


def test_a_delete_whose_answer_is_lost(proxy: Proxy, proxied: OwnedKube) -> None:
    proxied.create(CONFIG_MAP, config(proxied))
    proxy.drop = once("DELETE")
    assert proxied.delete(CONFIG_MAP, "shop-1") is True
    assert proxied.get(CONFIG_MAP, "shop-1") is None


def test_a_create_that_never_arrives_is_tried_again(proxy: Proxy, proxied: OwnedKube, server: Any) -> None:
    forward, left = server.answer, [1, 1]
    server.answer = lambda request: (
        request.reset() if request.method == "POST" and left and left.pop() else forward(request)
    )
    made = proxied.create(CONFIG_MAP, config(proxied))
    assert proxied.get(CONFIG_MAP, "shop-1") == made
    assert [r.method for r in server.requests] == ["POST", "GET"] * 2 + ["POST", "GET"]


def test_a_create_without_any_answer_ends_with_the_gate(proxied: OwnedKube, server: Any) -> None:
    forward = server.answer
    server.answer = lambda request: request.reset() if request.method == "POST" else forward(request)
    with pytest.raises(DeadlineExceeded):
        proxied.with_scope(CancelScope(time.monotonic() + 0.3)).create(CONFIG_MAP, config(proxied))


# --- shared objects -----------------------------------------------------------------------------------------------


def put(kube: OwnedKube, **data: str) -> Document:
    def change(found: Document | None) -> Document:
        found = found or config(kube, "shop")
        found.setdefault("data", {}).update(data)
        return found

    after = kube.put_shared(CONFIG_MAP, "shop", change, role="service")
    assert after is not None
    return after


def test_put_shared_creates_edits_and_stamps(kube: OwnedKube) -> None:
    first = put(kube, a="1")
    assert first["metadata"]["annotations"] == {**kube.annotations("service"), ANNOTATION_FENCING_TOKEN: "3"}
    later = as_owner(kube, deployment="d2", fencing_token=5)
    after = put(later, b="2")
    assert after["data"] == {"a": "1", "b": "2"} and uid(first) == uid(after)
    assert after["metadata"]["annotations"] == {**later.annotations("service"), ANNOTATION_FENCING_TOKEN: "5"}
    assert put(later, b="2") == after  # no difference, no write: same resourceVersion
    assert later.put_shared(CONFIG_MAP, "shop", lambda found: None, role="service") == after
    assert later.put_shared(CONFIG_MAP, "none", lambda found: None, role="service") is None
    with pytest.raises(Fenced, match="has fencing token 5, this process holds 3"):
        put(kube, a="late")
    assert kube.get(CONFIG_MAP, "shop") == after


def test_edits_of_others_survive_ours(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    put(kube, a="1")
    rounds: list[int] = []

    def change(found: Document | None) -> Document | None:
        assert found is not None
        if len(rounds) < 5:
            rounds.append(len(rounds))
            patch = {"data": {f"theirs{len(rounds)}": "x"}}
            sandbox_client.patch(CONFIG_MAP, "shop", patch, kube.owner.namespace)
        found["data"]["a"] = "2"
        return found

    after = kube.put_shared(CONFIG_MAP, "shop", change, role="service")
    assert after is not None and len(rounds) == 5
    assert after["data"] == {"a": "2", **{f"theirs{n}": "x" for n in range(1, 6)}}


def test_an_edit_that_always_loses_ends(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    put(kube, a="1")
    rounds: list[int] = []

    def change(found: Document | None) -> Document | None:
        assert found is not None
        rounds.append(1)
        sandbox_client.patch(CONFIG_MAP, "shop", {"data": {"n": str(len(rounds))}}, kube.owner.namespace)
        found["data"]["a"] = "2"
        return found

    with pytest.raises(StepFailed, match="changed by somebody else") as caught:
        kube.put_shared(CONFIG_MAP, "shop", change, role="service")
    assert caught.value.reason == "Conflict" and len(rounds) < 10
    found = kube.get(CONFIG_MAP, "shop")
    assert found is not None and found["data"]["a"] == "1"


def test_a_successor_fences_an_edit_under_way(kube: OwnedKube) -> None:
    put(kube, a="1")
    successor = as_owner(kube, fencing_token=4)

    def change(found: Document | None) -> Document | None:
        assert found is not None
        assert successor.raise_fencing_token(CONFIG_MAP, "shop")
        found["data"]["a"] = "late"
        return found

    with pytest.raises(Fenced):
        kube.put_shared(CONFIG_MAP, "shop", change, role="service")
    with pytest.raises(Fenced):
        kube.delete_shared(CONFIG_MAP, "shop")
    with pytest.raises(Fenced):
        kube.raise_fencing_token(CONFIG_MAP, "shop")
    found = kube.get(CONFIG_MAP, "shop")
    assert found is not None and found["data"] == {"a": "1"} and fencing_token_of(found) == 4


def test_put_shared_and_foreign_objects(kube: OwnedKube) -> None:
    other = as_owner(kube, app="shop-2")
    theirs = put(other, a="theirs")
    with pytest.raises(ForeignObject, match="another app, shop-2"):
        put(kube, a="mine")
    assert kube.raise_fencing_token(CONFIG_MAP, "shop") is False
    assert kube.delete_shared(CONFIG_MAP, "shop") is False
    assert kube.get(CONFIG_MAP, "shop") == theirs


def test_the_originals_service_is_adopted(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    labels = {"app": "shop", "name": "shop", "persistent": "true"}
    raw(sandbox_client, kube, SERVICE, service(kube, "shop", annotations={"note": "theirs"}, labels=labels))
    assert kube.raise_fencing_token(SERVICE, "shop") is False

    def change(found: Document | None) -> Document | None:
        assert found is not None
        found["spec"]["selector"]["version"] = "2"
        return found

    after = kube.put_shared(SERVICE, "shop", change, role="service")
    assert after is not None and kube.is_ours(after)
    assert after["metadata"]["annotations"]["note"] == "theirs"
    assert after["spec"]["selector"] == {"app": "shop", "version": "2"}


def test_raise_epoch(kube: OwnedKube) -> None:
    assert kube.raise_fencing_token(CONFIG_MAP, "shop") is False
    before = put(kube, a="1")
    successor = as_owner(kube, deployment="d9", fencing_token=7)
    assert successor.raise_fencing_token(CONFIG_MAP, "shop") is True
    found = kube.get(CONFIG_MAP, "shop")
    assert found is not None and fencing_token_of(found) == 7
    assert found["metadata"]["annotations"][ANNOTATION_DEPLOYMENT] == "d1" and found["data"] == before["data"]
    assert successor.raise_fencing_token(CONFIG_MAP, "shop") is True
    assert kube.get(CONFIG_MAP, "shop") == found


# --- edits of versioned objects -----------------------------------------------------------------------------------


def controller(kube: OwnedKube, annotations: dict[str, str] | None = None) -> Document:
    labels = {"name": "shop-1", "app": "shop", "version": "1"}
    about = {"name": "shop-1", "labels": labels}
    about["annotations"] = kube.annotations("controller") if annotations is None else annotations
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "none/none:1"}]}}
    spec = {"replicas": 0, "selector": labels, "template": template}
    return {"apiVersion": "v1", "kind": "ReplicationController", "metadata": about, "spec": spec}


def test_scale_edits_the_controller_of_this_deployment_or_of_another_of_the_app(kube: OwnedKube) -> None:
    kube.create(CONTROLLER, controller(kube))
    later = as_owner(kube, deployment="d2", fencing_token=4)
    with pytest.raises(ForeignObject):
        later.scale("shop-1", 2)
    found = later.scale("shop-1", 2, deployment="d1")
    assert found is not None and (found["spec"]["replicas"], fencing_token_of(found)) == (2, 4)
    assert found["metadata"]["annotations"][ANNOTATION_DEPLOYMENT] == "d1"
    assert later.scale("shop-2", 2) is None


def test_an_edit_of_a_versioned_object_fences_earlier_holders_even_when_nothing_differs(kube: OwnedKube) -> None:
    kube.create(CONTROLLER, controller(kube))
    successor = as_owner(kube, fencing_token=9)

    def late(found: Document | None) -> Document | None:
        assert found is not None
        successor.update(CONTROLLER, "shop-1", lambda same: same)
        return {**found, "spec": {**found["spec"], "replicas": 3}}

    with pytest.raises(Fenced):
        kube.update(CONTROLLER, "shop-1", late)
    found = kube.get(CONTROLLER, "shop-1")
    assert found is not None and (found["spec"]["replicas"], fencing_token_of(found)) == (0, 9)


def test_what_others_write_meanwhile_survives_an_edit_of_a_versioned_object(
    kube: OwnedKube, sandbox_client: KubeClient
) -> None:
    kube.create(CONTROLLER, controller(kube))
    asked = 0

    def change(found: Document | None) -> Document | None:
        nonlocal asked
        assert found is not None
        if (asked := asked + 1) == 1:
            note = {"metadata": {"annotations": {"theirs": "kept"}}}
            sandbox_client.patch(CONTROLLER, "shop-1", note, kube.owner.namespace)
        return {**found, "spec": {**found["spec"], "replicas": 1}}

    found = kube.update(CONTROLLER, "shop-1", change)
    assert found is not None and asked == 2
    assert (found["metadata"]["annotations"]["theirs"], found["spec"]["replicas"]) == ("kept", 1)


def test_an_object_of_the_original_is_edited_on_request_and_stays_the_originals(
    kube: OwnedKube, sandbox_client: KubeClient
) -> None:
    raw(sandbox_client, kube, CONTROLLER, controller(kube, {"theirs": "kept"}))
    with pytest.raises(ForeignObject):
        kube.scale("shop-1", 1, deployment="")
    found = kube.scale("shop-1", 1, deployment="", original_ok=True)
    assert found is not None and found["spec"]["replicas"] == 1
    assert found["metadata"]["annotations"] == {"theirs": "kept"} and is_original(found, "shop")


def test_an_edit_of_a_versioned_object_ends_with_its_gate(kube: OwnedKube) -> None:
    kube.create(CONTROLLER, controller(kube))
    kube.scope.close(Cancelled("cancelled by request"))
    with pytest.raises(Cancelled):
        kube.scale("shop-1", 1)


# --- delete and inventory -----------------------------------------------------------------------------------------


def test_delete(kube: OwnedKube) -> None:
    assert kube.delete(CONFIG_MAP, "shop-1") is True
    old = as_owner(kube, deployment="d0")
    old.create(CONFIG_MAP, config(old))
    assert kube.delete(CONFIG_MAP, "shop-1") is False
    assert kube.get(CONFIG_MAP, "shop-1") is not None
    assert kube.delete(CONFIG_MAP, "shop-1", deployment="d0") is True
    assert kube.get(CONFIG_MAP, "shop-1") is None
    again = kube.for_deployment("d0")
    again.create(CONFIG_MAP, config(again))
    assert again.delete(CONFIG_MAP, "shop-1") is True
    assert kube.delete_shared(CONFIG_MAP, "shop") is True
    put(kube, a="1")
    assert kube.delete_shared(CONFIG_MAP, "shop") is True
    assert kube.get(CONFIG_MAP, "shop") is None


def test_a_delete_asks_no_more_when_its_answer_says_that_the_object_is_gone(
    kube: OwnedKube, sandbox_client: KubeClient
) -> None:
    kube.create(CONFIG_MAP, config(kube))
    before = sandbox_client.requests
    assert kube.delete(CONFIG_MAP, "shop-1") is True
    assert sandbox_client.requests - before == {"get": 1, "delete": 1}


def test_inventory(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    kube.create(CONFIG_MAP, config(kube))
    other = as_owner(kube, deployment="d0")
    other.create(CONFIG_MAP, config(other, "shop-0"))
    labels = {LABEL_MANAGED_BY: "deployer"}
    kube.create(SERVICE, service(kube, labels=labels))
    put(kube, a="1")
    selector = {"name": "shop-1"}
    template = {"metadata": {"labels": selector}, "spec": {"containers": [{"name": "c", "image": "sample/web:1"}]}}
    about = {"name": "shop-1", "labels": labels, "annotations": kube.annotations("controller")}
    spec = {"replicas": 0, "selector": selector, "template": template}
    body = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": about, "spec": spec}
    kube.create(CONTROLLER, body)
    assert find_owned(sandbox_client, kube.owner) == [
        (CONTROLLER, "shop-1"),
        (SERVICE, "shop-1"),
        (CONFIG_MAP, "shop-1"),
    ]


def test_nothing_is_written_behind_a_closed_gate(kube: OwnedKube) -> None:
    before = put(kube, a="1")
    scope = CancelScope()
    late = kube.with_scope(scope)
    scope.close(Cancelled("stop"))
    for write in (
        lambda: late.create(CONFIG_MAP, config(kube)),
        lambda: put(late, a="2"),
        lambda: late.raise_fencing_token(CONFIG_MAP, "shop"),
        lambda: late.delete(CONFIG_MAP, "shop"),
        lambda: late.delete_shared(CONFIG_MAP, "shop"),
    ):
        with pytest.raises(Cancelled):
            write()
    assert kube.get(CONFIG_MAP, "shop") == before
    assert kube.list(CONFIG_MAP, namespace=kube.owner.namespace) == [before]
    assert kube.items(CONFIG_MAP) == [before]

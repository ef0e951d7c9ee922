"""Nobody is answered with more than they may read: what those get who may create, deploy or undeploy, but not read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest

from deployer.api.auth import cluster
from deployer.api.auth.access import Access, open_access
from deployer.api.openapi import document as openapi
from deployer.core.model.records import Deployment, StoredDescriptor
from deployer.core.ports.store import Update
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings

from .conftest import NS, Answer, Served, document
from .test_auth_cluster import Reviews

Q = f"namespace={NS}"
CANARY = "hunter2-canary"
SECRET = document(podspec={"containers": [{"name": "a", "image": "b", "env": [{"name": "A", "value": CANARY}]}]})
WRITING = {(resource, verb) for resource in ("descriptors", "deployments") for verb in ("create", "update", "delete")}
RIGHTS: dict[str, set[tuple[str, str]]] = {
    "nothing": set(),
    "descriptors": {("descriptors", "get"), ("descriptors", "list")},
    "deployments": {("deployments", "get"), ("deployments", "list")},
    "both": {(r, v) for r in ("descriptors", "deployments") for v in ("get", "list")},
}
SUMMARY = {"id", "namespace", "appName", "status"}


class Rbac:
    """An API server whose callers may write everything, and read what `rights` says."""

    def __init__(self) -> None:
        self.server = Reviews()
        self.rights: set[tuple[str, str]] = set()
        self.places: set[str] | None = None
        """The namespaces in which they may read; None: in all."""
        self.server.allowed = self._allowed

    def _allowed(self, question: dict[str, Any]) -> Any:
        asked = question["spec"]["resourceAttributes"]
        right = (asked["resource"], asked["verb"])
        reads = right in self.rights and (self.places is None or asked["namespace"] in self.places)
        return {"allowed": right in WRITING or reads}


@pytest.fixture
def rbac() -> Iterator[Rbac]:
    made = Rbac()
    yield made
    made.server.close()


@pytest.fixture
def client(rbac: Rbac) -> Iterator[KubeClient]:
    made = connect(Settings(kubernetes=rbac.server.url))
    yield made
    made.close()


@pytest.fixture
def access(client: KubeClient) -> Access:
    made = open_access(Settings(auth="kubernetes", auth_cache=0.0), client)
    assert made is not None
    return made


TOKEN = {"Authorization": "Bearer some-token"}


@pytest.mark.parametrize(
    ("rights", "places", "told"),
    [
        ({("descriptors", "list")}, {"theirs"}, True),
        ({("descriptors", "list")}, {NS}, False),
        ({("descriptors", "get"), ("deployments", "list")}, None, False),
        (set(), None, False),
    ],
)
def test_whose_a_host_is_is_told_to_those_who_find_it_among_what_they_may_list(
    served: Served, rbac: Rbac, rights: set[tuple[str, str]], places: set[str] | None, told: bool
) -> None:
    web: dict[str, Any] = {"podspec": {"containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80}]}]}}
    web["frontend"] = "www.example.com"
    theirs = document("blog", namespace="theirs", **web)
    served.service.descriptors.create("theirs", json.dumps(theirs).encode())
    rbac.rights, rbac.places = rights, places
    body = json.dumps(document(**web)).encode()
    whose = "app blog in namespace theirs" if told else "another app"
    expected = f"host www.example.com belongs to {whose}; choose another frontend, or undeploy that app"
    answer = served.call("POST", f"/descriptors/?{Q}", body, TOKEN)
    assert answer.status == 409 and answer.problem["detail"].startswith(expected)
    answer = served.call("POST", f"/descriptors/validate?{Q}", body, TOKEN)
    (problem,) = answer.problem["errors"]
    assert answer.status == 400 and problem["path"] == "frontend" and problem["message"].startswith(expected)
    assert told or (b"blog" not in answer.body and b"theirs" not in answer.body)


def stored(served: Served) -> StoredDescriptor:
    return served.service.descriptors.create(NS, json.dumps(SECRET).encode())


def live(served: Served) -> Deployment:
    deployment = served.service.deploy(NS, stored(served).id)
    return served.end(deployment.id)


ACTS: dict[str, Callable[[Served], Answer]] = {
    "deploy": lambda w: w.call("POST", f"/deployments?{Q}&descriptorId={stored(w).id}", headers=TOKEN),
    "redeploy": lambda w: w.call("PUT", f"/deployments/{live(w).id}?{Q}", headers=TOKEN),
    "undeploy": lambda w: w.call("DELETE", f"/deployments/{live(w).id}?{Q}", headers=TOKEN),
}


@pytest.mark.parametrize("rights", RIGHTS)
@pytest.mark.parametrize("act", ACTS)
def test_acting_on_a_deployment_shows_what_the_caller_may_read(
    served: Served, rbac: Rbac, act: str, rights: str
) -> None:
    rbac.rights = RIGHTS[rights]
    answer = ACTS[act](served)
    assert answer.status == 202
    body = answer.json
    assert served.store.get(Deployment, body["id"]) is not None
    assert answer.headers["ETag"]
    assert (CANARY in answer.body.decode()) == (rights == "both")
    assert body["namespace" if rights != "both" else "version"]
    if rights in ("nothing", "descriptors"):
        assert set(body) == SUMMARY
    else:
        assert {"created", "version", "createdBy" if act != "undeploy" else "undeployedBy"} <= set(body)
    if act != "undeploy":
        assert answer.headers["Location"] == f"/deployments/{body['id']}/?{Q}"


@pytest.mark.parametrize("rights", ["deployments", "both"])
@pytest.mark.parametrize("many", [False, True])
def test_reading_a_deployment_shows_its_descriptor_to_those_who_may_read_descriptors(
    served: Served, rbac: Rbac, rights: str, many: bool
) -> None:
    rbac.rights = RIGHTS[rights]
    id = live(served).id
    answer = served.call("GET", f"/deployments?{Q}" if many else f"/deployments/{id}?{Q}", headers=TOKEN)
    body = answer.json[0] if many else answer.json
    assert body["id"] == id and body["status"] == "DEPLOYED"
    assert ("descriptor" in body) == (CANARY in answer.body.decode()) == (rights == "both")


@pytest.mark.parametrize("path", ["/deployments/", "/descriptors/"])
def test_the_tag_of_a_list_is_worth_nothing_to_those_who_may_see_less_of_it(
    served: Served, rbac: Rbac, path: str
) -> None:
    live(served)
    rbac.rights = RIGHTS["both"]
    whole = served.call("GET", f"{path}?{Q}", headers=TOKEN)
    known = TOKEN | {"If-None-Match": whole.headers["ETag"]}
    assert served.call("GET", f"{path}?{Q}", headers=known).status == 304
    rbac.rights = RIGHTS["deployments"]
    less = served.call("GET", f"{path}?{Q}", headers=known)
    if path == "/deployments/":
        assert less.status == 200 and "descriptor" not in less.json[0] and CANARY not in less.body.decode()
    else:
        assert less.status == 403
    rbac.rights = RIGHTS["nothing"]
    assert served.call("GET", f"{path}?{Q}", headers=known).status == 403


@pytest.mark.parametrize("rights", RIGHTS)
def test_creating_a_descriptor(served: Served, rbac: Rbac, rights: str) -> None:
    rbac.rights = RIGHTS[rights]
    answer = served.call("POST", f"/descriptors?{Q}", SECRET, TOKEN)
    assert answer.status == 201
    body = answer.json
    assert answer.headers["Location"] == f"/descriptors/{body['id']}/?{Q}"
    whole = rights in ("descriptors", "both")
    assert ("podspec" in body) == (CANARY in answer.body.decode()) == whole
    assert whole or set(body) == {"id", "namespace", "appName"}


def test_replacing_a_descriptor_does_not_tell_whose_it_is(served: Served, rbac: Rbac) -> None:
    id = stored(served).id
    answer = served.call("PUT", f"/descriptors/{id}?{Q}", document("other"), TOKEN)
    assert [error["path"] for error in answer.problem["errors"]] == ["appName"]
    assert "shop" not in answer.body.decode().replace(NS, "")


@pytest.mark.parametrize("rights", RIGHTS)
def test_what_is_wrong_with_a_stored_descriptor_is_for_those_who_may_read_it(
    served: Served, rbac: Rbac, rights: str
) -> None:
    """One that was accepted before the rules were what they are."""
    rbac.rights = RIGHTS[rights]
    deployment = live(served)
    record = served.store.get(StoredDescriptor, deployment.descriptor_id)
    assert record is not None
    broken = {**record.document, "deploymentType": "odd-one"}
    served.store.commit(
        Update(dataclasses.replace(record, document=broken)), Update(dataclasses.replace(deployment, descriptor=broken))
    )
    for method, target in (
        ("POST", f"/deployments?{Q}&descriptorId={record.id}"),
        ("PUT", f"/deployments/{deployment.id}?{Q}"),
    ):
        answer = served.call(method, target, headers=TOKEN)
        assert answer.status == 400
        (error,) = answer.problem["errors"]
        if rights == "both":
            assert error["path"] == "deploymentType" and "odd-one" in error["message"]
        else:
            assert error["path"] == "" and "odd-one" not in answer.body.decode()


def test_nothing_is_done_when_nobody_can_say_what_may_be_read(
    served: Served, rbac: Rbac, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(question: dict[str, Any]) -> Any:
        asked = question["spec"]["resourceAttributes"]
        return {"allowed": True} if asked["verb"] == "create" else []

    monkeypatch.setattr(cluster, "ASK_FOR", 1.0)
    id = stored(served).id
    rbac.server.allowed = silent
    before = served.store.find(Deployment)
    assert served.call("POST", f"/deployments?{Q}&descriptorId={id}", headers=TOKEN).status == 503
    assert served.call("POST", f"/descriptors?{Q}", SECRET, TOKEN).status == 503
    assert served.store.find(Deployment) == before and len(served.store.find(StoredDescriptor)) == 1


@pytest.mark.parametrize("rights", RIGHTS)
def test_the_answers_are_those_of_the_openapi_document(served: Served, rbac: Rbac, rights: str) -> None:
    rbac.rights = RIGHTS[rights]
    built = json.loads(json.dumps(openapi.build(served.service.descriptors.rules, secured=True)))
    for path, method, status, answer in (
        ("/descriptors", "post", "201", served.call("POST", f"/descriptors?{Q}", SECRET, TOKEN)),
        ("/deployments", "post", "202", ACTS["deploy"](served)),
        ("/deployments/{id}", "put", "202", ACTS["redeploy"](served)),
        ("/deployments/{id}", "delete", "202", ACTS["undeploy"](served)),
    ):
        schema = built["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
        names = [choice["$ref"].rpartition("/")[2] for choice in schema["anyOf"]]
        fitting = [
            name
            for name in names
            if jsonschema.Draft202012Validator(
                {"$ref": f"#/components/schemas/{name}", "components": built["components"]}
            ).is_valid(answer.json)
        ]
        assert fitting, answer.json
        whole = rights == "both" or (path == "/descriptors" and rights == "descriptors")
        assert (names[0] in fitting) == whole


def test_without_authentication_there_is_nothing_to_hide(served: Served) -> None:
    built = openapi.build(served.service.descriptors.rules, secured=False)
    responses = built["paths"]["/deployments"]["post"]["responses"]
    assert responses["202"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Deployment"}

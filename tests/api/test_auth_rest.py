"""Credentials over REST: what is malformed, who did what, and what pages of other origins may do."""

from __future__ import annotations

import http.client
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.api.auth.access import Access
from deployer.api.auth.credentials import MAX_TOKEN
from deployer.core.model.records import Deployment, Status
from deployer.settings import Settings
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Served, document

Q = f"?namespace={NS}"
PAGE = "https://ui.example.com"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def access(issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
    with access_by(issuer, tmp_path) as made:
        yield made


# --- headers ----------------------------------------------------------------------------------------------------------


def malformed(token: str) -> list[bytes]:
    good = token.encode()
    return [
        b"",
        b"Bearer",
        b"Bearer ",
        b"bearer: " + good,
        b"Basic YW5uOnNlY3JldA==",
        good,
        b"Bearer " + good + b" " + good,
        b"Bearer " + good + b", Bearer " + good,
        b"Bearer \xc3\xa9\xff",
        b"Bearer " + good + b"\xa0",
        b"Bearer " + good[:-10],
        b"Bearer " + b"a" * (MAX_TOKEN + 1),
        b"Bearer " + b"a." * 20_000,
        b"Bearer null",
        b"Bearer ..",
        b"Bearer " + good + b"\r\nAuthorization: Bearer " + good,
        b"Bearer " + good + b"\r\nAuthorization: Basic eDp5",
    ]


@pytest.mark.parametrize("number", range(17))
def test_what_is_no_bearer_token_is_a_401(served: Served, issuer: Issuer, number: int) -> None:
    header = malformed(issuer.token())[number]
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(b"GET /deployments" + Q.encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        sock.sendall(b"Authorization: " + header + b"\r\n\r\n")
        response = http.client.HTTPResponse(sock)
        response.begin()
        body = response.read()
        assert response.status == 401, body
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")
        problem = json.loads(body)
    assert problem["status"] == 401
    assert issuer.token()[:-40] not in body.decode() + str(response.headers)


def test_the_scheme_is_written_in_any_case(served: Served, issuer: Issuer) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = served.call("GET", f"/deployments{Q}", headers={"Authorization": f"{scheme} {issuer.token()}"})
        assert answer.status == 200


def test_a_token_in_the_address_is_none(served: Served, issuer: Issuer) -> None:
    for name in ("access_token", "token", "authorization"):
        assert served.call("GET", f"/deployments{Q}&{name}={issuer.token()}").status == 401


def test_no_token_shows_anywhere(served: Served, issuer: Issuer, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [issuer.token(), Issuer().token(), issuer.token(exp=1), issuer.token(namespaces=["x"])]
    said = []
    for token in tokens:
        for method, target in (("GET", f"/deployments{Q}"), ("POST", f"/descriptors{Q}"), ("GET", "/nothing")):
            answer = served.call(method, target, document(), bearer(token))
            said.append(f"{answer.headers}{answer.body!r}")
        with served.watch("x", additional_headers=bearer(token)) as viewer:
            try:
                viewer.recv(timeout=20)
            except Exception:  # noqa: BLE001 - it is closed in one way or the other
                said.append(viewer.close_reason)
    logged = [record.getMessage() for record in caplog.records if record.name != "websockets.client"]  # the test's own
    everything = "".join([*said, *logged])
    assert not any(piece in everything for token in tokens for piece in token.split("."))


def test_a_namespace_in_a_descriptor_needs_the_same_right_as_one_in_the_address(served: Served, issuer: Issuer) -> None:
    for token, status in ((issuer.token(), 200), (issuer.token(namespaces=["other"]), 403), ("x", 401)):
        assert served.call("POST", "/descriptors/validate", document(), bearer(token)).status == status
    theirs = document(namespace="other")
    assert served.call("POST", f"/descriptors/validate{Q}", theirs, bearer(issuer.token())).status == 400


# --- readiness --------------------------------------------------------------------------------------------------------


def test_reasons_are_told_to_those_who_are_known(served: Served, issuer: Issuer) -> None:
    assert served.call("GET", "/readyz").status == 200
    served.reasons.append("the cluster at 10.0.0.1 is away")
    for headers in ({}, bearer("x"), bearer(issuer.token(exp=1))):
        answer = served.call("GET", "/readyz", headers=headers)
        assert answer.problem["status"] == 503
        assert "10.0.0.1" not in answer.body.decode()
    assert "10.0.0.1" in served.call("GET", "/readyz", headers=bearer(issuer.token())).problem["detail"]


# --- who did what -----------------------------------------------------------------------------------------------------


def test_a_deployment_says_who_made_and_who_ended_it(served: Served, issuer: Issuer) -> None:
    ann, bob = bearer(issuer.token()), bearer(issuer.token(sub="bob"))
    stored = served.call("POST", f"/descriptors{Q}", document(), ann).json
    first = served.call("POST", f"/deployments{Q}&descriptorId={stored['id']}", headers=ann).json
    assert first["createdBy"] == "ann"
    second = served.call("PUT", f"/deployments/{first['id']}{Q}", headers=bob).json
    assert second["createdBy"] == "bob"
    cancelled = served.call("DELETE", f"/deployments/{first['id']}{Q}", headers=bob).json
    assert (cancelled["createdBy"], cancelled["undeployedBy"]) == ("ann", "bob")
    log = served.call("GET", f"/deployments/{first['id']}/logs{Q}", headers=ann).body.decode()
    assert f"queued: deployment of shop in namespace {NS}, asked for by ann\n" in log
    assert "cancelled by request, asked for by bob\n" in log
    # Whoever deletes what has ended has not ended it.
    served.end(second["id"], Status.FAILURE)
    ended = served.call("DELETE", f"/deployments/{second['id']}{Q}", headers=ann).json
    assert "undeployedBy" not in ended
    record = served.store.get(Deployment, first["id"])
    assert record and (record.created_by, record.undeployed_by) == ("ann", "bob")


def test_the_audit_log_has_every_change(served: Served, issuer: Issuer, audited: list[Any]) -> None:
    ann = bearer(issuer.token())
    stored = served.call("POST", f"/descriptors{Q}", document(), ann).json
    served.call("POST", f"/descriptors/validate{Q}", document(), ann)
    served.call("GET", f"/descriptors{Q}", headers=ann)
    served.call("PUT", f"/descriptors/{stored['id']}{Q}", document(version="2"), ann)
    deployment = served.call("POST", f"/deployments{Q}&descriptorId={stored['id']}", headers=ann).json
    served.call("DELETE", f"/deployments/{deployment['id']}{Q}", headers=ann)
    served.call("DELETE", f"/deployments{Q}&appname=shop", headers=ann)
    served.call("DELETE", f"/descriptors/{stored['id']}{Q}", headers=ann)
    served.call("DELETE", f"/descriptors/{stored['id']}{Q}", headers=ann)
    served.call("POST", f"/descriptors{Q}", b"nonsense", ann)
    what = [(a["verb"], a["resource"], a.get("app"), a.get("id"), a["outcome"], a["status"]) for a in audited]
    d, s = deployment["id"], stored["id"]
    assert what == [
        ("create", "descriptors", "shop", s, "ok", 201),
        ("update", "descriptors", "shop", s, "ok", 204),
        ("create", "deployments", "shop", d, "ok", 202),
        ("delete", "deployments", "shop", d, "ok", 202),
        ("deletecollection", "deployments", "shop", None, "ok", 202),
        ("delete", "descriptors", "shop", s, "ok", 200),
        ("delete", "descriptors", None, s, "failed", 404),
        ("create", "descriptors", None, None, "failed", 400),
    ]
    assert {(a["who"], a["source"], a["namespace"]) for a in audited} == {("ann", "127.0.0.1", NS)}
    assert all(a["audit"].endswith("Z") for a in audited)


def test_the_audit_log_has_every_refusal(served: Served, issuer: Issuer, audited: list[Any]) -> None:
    served.call("GET", f"/deployments{Q}")
    served.call("GET", f"/deployments{Q}", headers=bearer(issuer.token(namespaces=["other"])))
    served.call("GET", "/nothing", headers=bearer(Issuer().token()))
    served.call("GET", "/", headers={"Origin": "https://evil.example"})
    assert [(a["who"], a["status"], a["path"]) for a in audited] == [
        (None, 401, "/deployments"),
        ("ann", 403, "/deployments"),
        (None, 401, "/nothing"),
        (None, 403, "/"),
    ]
    assert {a["outcome"] for a in audited} == {"refused"}
    assert "signature" in audited[2]["reason"]


@pytest.mark.parametrize("name", ["a\nb", '{"audit": 1}\n{', "\x1b[2Jx", "\u202eevil", "x" * 300, "", 5, None])
def test_no_name_can_forge_a_line(served: Served, issuer: Issuer, audited: list[Any], name: Any) -> None:
    """What cannot be shown is no name. What comes in a path or a query is escaped."""
    answer = served.call("POST", f"/descriptors{Q}", document(), bearer(issuer.token(sub=name)))
    printable = name == '{"audit": 1}'
    assert answer.status == (201 if printable else 401)
    served.call("DELETE", f"/descriptors/%0A%7B%22audit%22{Q}%0A%E2%80%AE", headers=bearer(issuer.token()))
    assert len(audited) == 2
    assert audited[1]["id"] == '\n{"audit"'


def test_names_may_be_in_any_script(served: Served, issuer: Issuer, audited: list[Any]) -> None:
    answer = served.call("POST", f"/descriptors{Q}", document(), bearer(issuer.token(sub="Zoë Ångström <z@example>")))
    assert answer.status == 201
    assert audited[0]["who"] == "Zoë Ångström <z@example>"


# --- pages of other origins -------------------------------------------------------------------------------------------


@pytest.fixture
def settings() -> Settings:
    return Settings(own_namespace="deployer", ingress="none", queue_limit=10, allowed_origins=(PAGE,))


def test_a_page_of_an_allowed_origin_may_ask(served: Served, issuer: Issuer) -> None:
    preflight = served.call(
        "OPTIONS",
        f"/descriptors/x{Q}",
        headers={"Origin": PAGE, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "If-Match"},
    )
    assert preflight.status == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
    assert {"GET", "PUT", "DELETE"} <= set(preflight.headers["Access-Control-Allow-Methods"].split(", "))
    allowed = preflight.headers["Access-Control-Allow-Headers"]
    assert allowed == (
        "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id, traceparent"
    )
    answer = served.call("POST", f"/descriptors{Q}", document(), bearer(issuer.token()) | {"Origin": PAGE})
    assert answer.status == 201
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert {"ETag", "Location"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    assert answer.headers["Access-Control-Allow-Credentials"] is None
    assert "Origin" in answer.headers["Vary"]
    # A script learns why it was refused, too.
    assert served.call("GET", "/plugins", headers={"Origin": PAGE}).headers["Access-Control-Allow-Origin"] == PAGE


def test_a_page_may_use_everything_that_is_documented(served: Served, issuer: Issuer) -> None:
    """Headers of requests, of answers and of errors, as the OpenAPI document has them."""
    headers = bearer(issuer.token()) | {"Origin": PAGE}
    document = served.call("GET", "/openapi.json", headers=headers).json
    ask = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
    preflight = served.call("OPTIONS", "/", headers=ask).headers
    allowed = {name.lower() for name in preflight["Access-Control-Allow-Headers"].split(", ")}
    exposed = served.call("GET", "/", headers=headers).headers["Access-Control-Expose-Headers"].split(", ")
    sent: set[str] = set()
    for path, methods in document["paths"].items():
        preflight = served.call("OPTIONS", path, headers=ask).headers
        for method, operation in methods.items():
            assert method.upper() in preflight["Access-Control-Allow-Methods"].split(", ")
            sent |= {p["name"].lower() for p in operation.get("parameters", []) if p["in"] == "header"}
            for listed in operation["responses"].values():
                _, _, name = listed.get("$ref", "").rpartition("/")
                response = document["components"]["responses"][name] if name else listed
                assert set(response.get("headers", {})) <= set(exposed)
    assert {"if-match", "if-none-match"} <= sent <= allowed
    # What the answers really have, but for what every answer has and Fetch lets pages read (2.2.1).
    id = served.deployment().id
    read = set(served.call("GET", f"/deployments/{id}/logs{Q}", headers=headers).headers)
    read |= set(served.call("GET", f"/deployments/{id}{Q}", headers=headers).headers)
    read |= set(served.call("PATCH", f"/deployments/{id}{Q}", headers=headers).headers)
    read |= set(served.call("GET", "/plugins", headers={"Origin": PAGE}).headers)
    assert {"ETag", "X-Next-After", "Allow", "WWW-Authenticate"} <= {
        n for n in exposed if n.title() in read or n in read
    }
    mine = {name for name in read if name.startswith("X-") and name != "X-Content-Type-Options"}
    assert mine <= set(exposed)


def test_a_page_may_poll_cheaply(served: Served, issuer: Issuer) -> None:
    id = served.deployment().id
    headers = bearer(issuer.token()) | {"Origin": PAGE}
    first = served.call("GET", f"/deployments/{id}{Q}", headers=headers)
    again = served.call("GET", f"/deployments/{id}{Q}", headers=headers | {"If-None-Match": first.headers["ETag"]})
    assert again.status == 304
    assert again.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://ui.example.com", f"{PAGE}:8443", f"{PAGE}.evil", "null"]
)
def test_any_other_page_may_not(served: Served, issuer: Issuer, origin: str) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        answer = served.call(
            method, f"/descriptors{Q}", document() if method == "POST" else None,
            bearer(issuer.token()) | {"Origin": origin, "Access-Control-Request-Method": "POST"},
        )  # fmt: skip
        assert answer.status == 403
        assert answer.headers["Access-Control-Allow-Origin"] is None
    assert served.store.find(Deployment) == []


class TestWithoutTheSetting:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(own_namespace="deployer", ingress="none")

    def test_there_is_no_cors(self, served: Served, issuer: Issuer) -> None:
        own = f"http://127.0.0.1:{served.port}"
        answer = served.call("GET", "/plugins", headers=bearer(issuer.token()) | {"Origin": own})
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("Access-Control") or name == "Vary"]
        assert served.call("OPTIONS", "/plugins", headers={"Origin": PAGE}).status == 403


class TestWithoutAuthentication:
    @pytest.fixture
    def access(self) -> None:
        return None

    def test_changes_are_audited_all_the_same(self, served: Served, audited: list[Any]) -> None:
        stored = served.call("POST", f"/descriptors{Q}", document(), bearer("whatever")).json
        deployment = served.call("POST", f"/deployments{Q}&descriptorId={stored['id']}").json
        assert "createdBy" not in deployment
        assert [(a["who"], a["source"], a["app"]) for a in audited] == [(None, "127.0.0.1", "shop")] * 2

    def test_readyz_says_everything(self, served: Served) -> None:
        served.reasons.append("the disk is full")
        assert served.call("GET", "/readyz").problem["detail"] == "the disk is full"

"""Who may do what: every route of the table, with every method and every kind of credentials."""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon.inspect
import pytest
from websockets.exceptions import ConnectionClosed

from deployer.api.app import create_app
from deployer.api.auth.access import Access
from deployer.api.auth.route_permissions import RoutePermissions
from deployer.api.routes import ROUTES, Anybody, Permission, Route
from deployer.api.ui.files import INDEX, files
from deployer.commands.freezes import Freeze
from deployer.core.model.gates import GateDecision
from deployer.core.model.records import App, Deployment, Operation, Status, StoredDescriptor
from deployer.core.ports.store import Create, Update
from support.gates import waiting_gate
from support.issuer import Issuer, access_by, bearer

from .conftest import NS, Served, document

OTHER = "other-ns"

CREDENTIALS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "bad": {},
    "expired": {"exp": int(time.time()) - 3600},
    "foreign namespace": {"namespaces": [OTHER], "roles": ["deploy", "read"]},
    "no role": {"namespaces": [NS], "roles": ["admin"]},
    "read": {"namespaces": [NS, OTHER], "roles": ["read"]},
    "deploy": {"namespaces": [NS], "roles": ["deploy"]},
    "freeze": {"namespaces": [NS], "roles": ["freeze"]},
    "override alone": {"namespaces": [NS], "roles": ["override-freeze"]},
    "approve": {"namespaces": [NS], "roles": ["approve"]},
    "rollback": {"namespaces": [NS], "roles": ["rollback"]},
    "wildcard": {"namespaces": ["*"], "roles": ["deploy", "freeze", "override-freeze", "approve"]},
}
FREEZE = b'{"reason": "an audit"}'
MAY = {
    (False, True): ("read", "deploy", "wildcard"),
    (False, False): ("deploy", "wildcard"),
    (True, True): ("read", "deploy", "freeze", "wildcard"),
    (True, False): ("freeze", "wildcard"),
}
"""Who may do something, by whether it is about freezes, and whether it only reads."""
NOBODY = ("none", "bad", "expired")

REQUESTS = [(route, method) for route in ROUTES if not route.stream for method in route.methods]
REQUESTS += [(route, "HEAD") for route, method in REQUESTS if method == "GET"]


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def access(issuer: Issuer, tmp_path: Path) -> Iterator[Access]:
    with access_by(issuer, tmp_path) as made:
        yield made


@pytest.fixture
def auth_options() -> dict[str, Any]:
    return {"first": 0.2}


def headers(issuer: Issuer, kind: str) -> dict[str, str]:
    """The headers of a caller of that kind."""
    claims = CREDENTIALS[kind]
    if claims is None:
        return {}
    return bearer(Issuer().token() if kind == "bad" else issuer.token(**claims))


def expected(demanded: Any, kind: str) -> int:
    """The status of a refusal; 200 for everything that is none."""
    if demanded is Anybody.EVERYBODY:
        return 200
    if kind in NOBODY:
        return 401
    if isinstance(demanded, Permission):
        if demanded.verb == "approve":
            return 200 if kind in ("approve", "wildcard") else 403
        if demanded.verb == "rollback":
            return 200 if kind in ("rollback", "deploy", "wildcard") else 403
        return 200 if kind in MAY[demanded.resource == "freezes", demanded.reads] else 403
    return 200


def example(served: Served, route: Route, method: str) -> tuple[str, Any]:
    """A target (with its query) and a body with which the request succeeds. A new route needs a line here."""
    method = "GET" if method == "HEAD" else method
    if route.path.startswith("/ui"):
        return {"/ui": "/ui/"}.get(route.path, f"/ui/{next(name for name in files() if name != INDEX)}"), None
    if "{" not in route.path and not isinstance(route.methods[method], Permission):
        return route.path, None
    q = f"namespace={NS}"
    if served.store.find(Freeze):
        served.service.freezes.lift(NS)
    app = f"shop-{uuid.uuid4().hex[:8]}" if route.path == "/rollbacks" else "shop"
    deployment = served.deployment(app)
    if route.path.endswith("/approval"):
        served.store.commit(Create(waiting_gate(NS, app, deployment.id)))
        return f"{route.path.format(id=deployment.id)}?{q}", {"approve": True}
    served.end(deployment.id)
    descriptor = deployment.descriptor_id
    if route.freezes:
        served.service.freezes.put(NS, FREEZE)
    if route.path == "/rollbacks":
        earlier = served.deployment(app, version="0")
        for status in (Status.DEPLOYED, Status.UNDEPLOYING, Status.UNDEPLOYED):
            gone = served.end(earlier.id, status)
        served.store.commit(Update(dataclasses.replace(gone, went_live=gone.created)))
        served.store.commit(Create(App(namespace=NS, app=app, live=deployment.id, live_version="1")))
    return {
        ("GET", "/descriptors"): (f"/descriptors?{q}", None),
        ("POST", "/descriptors"): (f"/descriptors?{q}", document()),
        ("DELETE", "/descriptors"): (f"/descriptors?{q}&appname=shop", None),
        ("POST", "/descriptors/validate"): (f"/descriptors/validate?{q}", document()),
        ("GET", "/descriptors/{id}"): (f"/descriptors/{descriptor}?{q}", None),
        ("PUT", "/descriptors/{id}"): (f"/descriptors/{descriptor}?{q}", document()),
        ("DELETE", "/descriptors/{id}"): (f"/descriptors/{descriptor}?{q}", None),
        ("GET", "/deployments"): (f"/deployments?{q}", None),
        ("POST", "/deployments"): (f"/deployments?{q}&descriptorId={descriptor}", None),
        ("DELETE", "/deployments"): (f"/deployments?{q}&appname=shop&undeploy=true", None),
        ("GET", "/deployments/{id}"): (f"/deployments/{deployment.id}?{q}", None),
        ("PUT", "/deployments/{id}"): (f"/deployments/{deployment.id}?{q}", None),
        ("DELETE", "/deployments/{id}"): (f"/deployments/{deployment.id}?{q}", None),
        ("POST", "/rollbacks"): (f"/rollbacks?{q}&appname={app}", None),
        ("GET", "/apps"): (f"/apps?{q}", None),
        ("GET", "/apps/{appname}"): (f"/apps/shop?{q}", None),
        ("GET", "/apps/{appname}/history"): (f"/apps/shop/history?{q}", None),
        ("GET", "/apps/{appname}/dataplane"): (f"/apps/shop/dataplane?{q}", None),
        ("GET", "/freezes"): (f"/freezes?{q}", None),
        ("GET", "/freezes/{namespace}"): (f"/freezes/{NS}?{q}", None),
        ("PUT", "/freezes/{namespace}"): (f"/freezes/{NS}?{q}", FREEZE),
        ("DELETE", "/freezes/{namespace}"): (f"/freezes/{NS}?{q}", None),
        ("GET", "/deployments/{id}/logs"): (f"/deployments/{deployment.id}/logs?{q}", None),
        ("GET", "/deployments/{id}/healthcheckdata"): (f"/deployments/{deployment.id}/healthcheckdata?{q}", None),
    }[method, route.path]


def state(served: Served) -> list[Any]:
    """Everything that a request could have changed."""
    return [served.store.find(kind) for kind in (StoredDescriptor, Deployment, Operation, Freeze, GateDecision)]


# --- the matrix -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize(("route", "method"), REQUESTS, ids=lambda value: getattr(value, "path", value))
def test_rest(served: Served, issuer: Issuer, route: Route, method: str, kind: str) -> None:
    demanded = route.methods["GET" if method == "HEAD" else method]
    wanted = expected(demanded, kind)
    for slash in ("", "/"):
        target, body = example(served, route, method)
        path, _, query = target.partition("?")
        before = state(served)
        answer = served.call(
            method, f"{path.rstrip('/')}{slash}?{query}" if path != "/" else "/", body, headers(issuer, kind)
        )
        if wanted == 200:
            # The page alone needs the slash: its addresses are relative.
            assert answer.status < 300 or (route.path, slash, answer.status) == ("/ui", "", 308), answer.body
            continue
        assert answer.status == wanted
        assert state(served) == before
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith('Bearer realm="kube-deployer"')
        named = {("none", 401): "", "": "", (kind, 403): "insufficient_scope"}.get((kind, wanted), "invalid_token")
        assert ("error=" in challenge) == bool(named)
        assert f'error="{named}"' in challenge or not named
        if method != "HEAD":
            assert answer.problem["status"] == wanted


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_the_stream(served: Served, issuer: Issuer, kind: str) -> None:
    (route,) = [route for route in ROUTES if route.stream]
    deployment = served.deployment()
    served.end(deployment.id)
    with served.watch(deployment.id, additional_headers=headers(issuer, kind)) as viewer:
        lines = []
        try:
            while True:
                lines.append(viewer.recv(timeout=20))
        except ConnectionClosed:
            pass
        code = {200: 1000, 401: 4401, 403: 4403}[expected(route.methods["GET"], kind)]
        assert viewer.close_code == code, viewer.close_reason
        assert bool(lines) == (code == 1000)


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("path", ["/nothing", "/stream", "/descriptors/a/b", "/Descriptors", "/healthz/x"])
def test_unknown_paths_are_for_those_who_are_known(served: Served, issuer: Issuer, path: str, kind: str) -> None:
    answer = served.call("GET", f"{path}?namespace={NS}", headers=headers(issuer, kind))
    assert answer.problem["status"] == (401 if kind in NOBODY else 404)


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("route", [route for route in ROUTES if not route.stream], ids=lambda route: route.path)
def test_methods_that_no_route_has_are_for_those_who_are_known(
    served: Served, issuer: Issuer, route: Route, kind: str
) -> None:
    answer = served.call("PATCH", re.sub(r"{\w+}", "x", route.path), headers=headers(issuer, kind))
    assert answer.problem["status"] == (401 if kind in NOBODY else 405)


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.stream], ids=lambda route: route.path)
def test_options_needs_no_credentials(served: Served, route: Route) -> None:
    answer = served.call("OPTIONS", re.sub(r"{\w+}", "x", route.path))
    assert answer.status == 200
    assert set(route.methods) <= set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("kind", ["deploy", "wildcard"])
def test_whoever_may_deploy_may_read_what_they_get_back(served: Served, issuer: Issuer, kind: str) -> None:
    """The role for deploying includes reading; `test_auth_views.py` has those who may not read."""
    known = headers(issuer, kind)
    created = served.call("POST", f"/descriptors?namespace={NS}", document(), known).json
    deployed = served.call("POST", f"/deployments?namespace={NS}&descriptorId={created['id']}", headers=known).json
    ended = served.call("DELETE", f"/deployments/{deployed['id']}?namespace={NS}", headers=known).json
    for shown in (created, deployed["descriptor"], ended["descriptor"]):
        assert shown["podspec"] == document()["podspec"]


# --- nothing escapes the table ----------------------------------------------------------------------------------------


def test_the_routes_of_the_application_are_those_of_the_table(served: Served) -> None:
    app = create_app(served.service, list, list)
    assert falcon.inspect.inspect_static_routes(app) == falcon.inspect.inspect_sinks(app) == []
    found = {
        route.path: {method.method for method in route.methods if not method.internal}
        for route in falcon.inspect.inspect_routes(app)
    }
    heads = {"GET": {"GET", "HEAD"}}
    table = {
        route.path: {method for given in route.methods for method in heads.get(given, {given})} for route in ROUTES
    }
    assert found == table


def test_what_is_not_in_the_table_is_for_nobody_who_is_not_known() -> None:
    permissions = RoutePermissions()
    for method in ("GET", "HEAD", "POST", "BREW"):
        for template in ("/forgotten", "", None, "/healthz/", "/stream/deployments/{id}/logs"):
            assert permissions.of(method, template) is Anybody.AUTHENTICATED
    assert not permissions.maybe_public("GET", "/forgotten")
    assert not permissions.maybe_public("DELETE", "/healthz")


def test_every_permission_is_one_of_kubernetes_verbs_on_our_resources() -> None:
    permissions = {p for route in ROUTES for p in route.methods.values() if isinstance(p, Permission)}
    assert {p.resource for p in permissions} == {"descriptors", "deployments", "freezes"}
    usual = {"get", "list", "create", "update", "delete", "deletecollection"}
    assert {(p.resource, p.verb) for p in permissions if p.verb not in usual} == {
        ("deployments", "approve"),
        ("deployments", "rollback"),
    }
    for route in ROUTES:
        for method, permission in route.methods.items():
            if isinstance(permission, Permission):
                assert permission.reads == (method == "GET"), route.path


# --- namespaces: path, query, body, the record ------------------------------------------------------------------------


def test_a_foreign_namespace_says_the_same_about_what_is_there_and_what_is_not(served: Served, issuer: Issuer) -> None:
    """Status, headers and body."""
    there = served.deployment()
    served.end(there.id)
    foreign = {**headers(issuer, "foreign namespace"), "X-Request-Id": "the-same"}

    def ask(method: str, target: str, body: Any = None) -> tuple[int, list[tuple[str, str]], bytes]:
        answer = served.call(method, f"{target}?namespace={NS}", body, foreign)
        return answer.status, [h for h in answer.headers.items() if h[0] != "Date"], answer.body

    unknown = "00000000-0000-4000-8000-000000000000"
    assert there.descriptor_id
    for kind, id in (("descriptors", there.descriptor_id), ("deployments", there.id)):
        for method, body in (("GET", None), ("PUT", document()), ("DELETE", None)):
            assert ask(method, f"/{kind}/{id}", body) == ask(method, f"/{kind}/{unknown}", body)
    for what in ("logs", "healthcheckdata"):
        assert ask("GET", f"/deployments/{there.id}/{what}") == ask("GET", f"/deployments/{unknown}/{what}")
    ends = set()
    for id in (there.id, unknown):
        with served.watch(id, additional_headers=foreign) as viewer, pytest.raises(ConnectionClosed):
            viewer.recv(timeout=20)
        ends.add((viewer.close_code, viewer.close_reason))
    assert ends == {(4403, "ann may not use this namespace")}


def test_an_id_of_another_namespace_is_not_found_under_ones_own(served: Served, issuer: Issuer) -> None:
    """The record's own namespace counts, not the one that the caller names."""
    there = served.deployment()
    served.end(there.id)
    foreign = headers(issuer, "foreign namespace")
    before = state(served)
    for target in (f"/deployments/{there.id}", f"/deployments/{there.id}/logs", f"/descriptors/{there.descriptor_id}"):
        known = served.call("GET", f"{target}?namespace={OTHER}", headers=foreign)
        id = target.split("/")[2]
        unknown = served.call("GET", f"{target.replace(id, 'nobody')}?namespace={OTHER}", headers=foreign)
        assert known.problem["detail"].replace(id, "nobody") == unknown.problem["detail"]
        assert known.status == unknown.status == 404
    for method, target in (
        ("PUT", f"/deployments/{there.id}?namespace={OTHER}"),
        ("DELETE", f"/deployments/{there.id}?namespace={OTHER}&deleteDeployment=true"),
        ("POST", f"/deployments?namespace={OTHER}&descriptorId={there.descriptor_id}"),
        ("DELETE", f"/descriptors/{there.descriptor_id}?namespace={OTHER}"),
    ):
        assert served.call(method, target, headers=foreign).status == 404
    ends = []
    for id in (there.id, "nobody"):
        with served.watch(id, OTHER, additional_headers=foreign) as viewer:
            said = viewer.recv(timeout=20)
            with pytest.raises(ConnectionClosed):
                viewer.recv(timeout=20)
        ends.append((said, viewer.close_code, viewer.close_reason))
    assert ends[0] == ends[1] and ends[0][1] == 4404
    assert state(served) == before


def test_a_body_cannot_name_another_namespace_than_the_query(served: Served, issuer: Issuer) -> None:
    foreign = headers(issuer, "foreign namespace")
    for path in ("/descriptors", "/descriptors/validate"):
        answer = served.call("POST", f"{path}?namespace={OTHER}", document(), foreign)
        assert answer.status == 400
        assert [error["path"] for error in answer.problem["errors"]] == ["namespace"]
    assert served.store.find(StoredDescriptor) == []


@pytest.mark.parametrize(
    "query", ["", "?namespace=", f"?namespace={NS}&namespace={OTHER}", f"?namespace={OTHER}&namespace={NS}"]
)
def test_one_namespace_is_needed(served: Served, issuer: Issuer, query: str) -> None:
    served.deployment()
    answer = served.call("GET", f"/deployments{query}", headers=headers(issuer, "foreign namespace"))
    assert answer.problem["status"] == 400


@pytest.mark.parametrize("namespace", ["%2A", "shop-n%73/../x", "SHOP-NS", "shop-ns%00", "shop-ns%20", "%ED%A0%80"])
def test_nothing_but_the_name_itself_is_a_namespace(served: Served, issuer: Issuer, namespace: str) -> None:
    answer = served.call("GET", f"/deployments?namespace={namespace}", headers=headers(issuer, "deploy"))
    assert answer.problem["status"] == 400


def test_the_matrix_leaves_traces_in_the_audit_log(served: Served, issuer: Issuer, audited: list[Any]) -> None:
    changing = []
    for route, method in REQUESTS:
        demanded = route.methods.get(method)
        if isinstance(demanded, Permission) and not demanded.reads:
            changing.append((method, demanded.verb, demanded.resource))
        target, body = example(served, route, method)
        served.call(method, target, body, headers(issuer, "read"))
    assert len(changing) > 5
    assert [(line["method"], line["verb"], line["resource"]) for line in audited] == changing
    assert {line["outcome"] for line in audited} == {"refused"}

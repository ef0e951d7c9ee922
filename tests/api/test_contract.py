"""The REST contract, line by line: what each route answers to whom, over a socket."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest

from deployer.api.routes import ROUTES
from deployer.core.errors import StoreUnavailable
from deployer.core.model.records import Deployment, Status, StoredDescriptor

Q = "?namespace=shop-ns"
NOBODY = "00000000-0000-4000-8000-000000000000"
REST = [route for route in ROUTES if not route.stream]
NAMESPACED = [route for route in REST if route.path.startswith(("/descriptors", "/deployments"))]


@pytest.fixture
def stored(served: Any, make_document: Any) -> str:
    """The id of a descriptor."""
    id: str = served.call("POST", f"/descriptors/{Q}", make_document()).json["id"]
    return id


@pytest.fixture
def deployed(served: Any) -> str:
    """The id of a live deployment."""
    id: str = served.deployment().id
    served.end(id)
    return id


def paths(route: Any, id: str = NOBODY) -> list[str]:
    """Both ways in which a route's path can be written."""
    path = route.path.replace("{id}", id)
    return [path] if path == "/" else [path, f"{path}/"]


# --- every route ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", REST, ids=lambda route: route.path)
def test_a_trailing_slash_changes_nothing(served: Any, route: Any) -> None:
    for method in route.methods:
        answers = [served.call(method, path + Q) for path in paths(route)]
        assert len({(answer.status, answer.body) for answer in answers}) == 1 or route.path in ("/metrics", "/ui")


def test_leading_slashes_are_one_and_empty_ids_are_nobody(served: Any, deployed: str) -> None:
    """A base address with a slash at its end works; a variable that a script left empty never means the collection."""
    assert served.call("GET", f"//deployments/{deployed}/{Q}").status == 200
    for method, path in [("GET", "/deployments//"), ("DELETE", "/deployments//"), ("DELETE", "/descriptors//")]:
        assert served.call(method, f"{path}{Q}&appname=shop&undeploy=true").problem["status"] == 404
    assert served.store.get(Deployment, deployed).status is Status.DEPLOYED


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_options_names_the_methods(served: Any, route: Any) -> None:
    for path in paths(route):
        answer = served.call("OPTIONS", path)
        assert (answer.status, answer.body) == (200, b"")
        expected = set(route.methods) | ({"HEAD"} if "GET" in route.methods else set())
        assert set(answer.headers["Allow"].split(", ")) - {"OPTIONS"} == expected


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_other_methods_are_a_405_with_allow(served: Any, route: Any) -> None:
    for method in {"POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"} - set(route.methods):
        answer = served.call(method, paths(route)[-1] + Q)
        assert answer.problem["status"] == 405
        assert set(route.methods) <= set(answer.headers["Allow"].split(", "))


def test_a_method_that_there_is_not_is_a_501(served: Any) -> None:
    assert served.call("BREW", f"/descriptors/{Q}").problem["status"] == 501


@pytest.mark.parametrize("route", [r for r in REST if "GET" in r.methods], ids=lambda route: route.path)
def test_head_is_get_without_its_body(served: Any, route: Any, deployed: str) -> None:
    descriptor = served.store.get(Deployment, deployed).descriptor_id
    path = paths(route, descriptor if route.path.startswith("/descriptors") else deployed)[-1] + Q
    get, head = (served.call(method, path, headers={"X-Request-Id": "one"}) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (get.status, b"")
    if route.path != "/metrics":  # which counts the first of the two
        assert dict(head.headers) | {"Date": ""} == dict(get.headers) | {"Date": ""}


@pytest.mark.parametrize("route", NAMESPACED, ids=lambda route: route.path)
@pytest.mark.parametrize(
    "query", ["", "?namespace=", "?namespace=a&namespace=a", "?namespace=A_B", "?namespace=-a", "?Namespace=a"]
)
def test_a_namespace_is_required(served: Any, route: Any, query: str) -> None:
    for method in route.methods:
        problem = served.call(method, paths(route)[-1] + query, b"{}").problem
        assert problem["status"] == 400
        assert problem["errors"][0]["path"].lower() == "namespace"


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/*;q=0.1",
        "application/json",
        "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",  # Java's HttpURLConnection
        "application/json, text/plain, */*",  # Angular
        "text/plain",
        "text/html",
        "application/xml;q=0.9, image/png;q=0",
        "application/json;q=0.0, text/*",
        "application/json;q=0.001",
        "nonsense",
        "",
    ],
)
def test_whoever_accepts_anything_is_answered_with_what_there_is(
    served: Any, accept: str | None, deployed: str
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    for path in (f"/deployments/{Q}", f"/deployments/{deployed}/{Q}", f"/deployments/{deployed}/logs{Q}", "/metrics"):
        assert served.call("GET", path, headers=headers).status == 200, path


@pytest.mark.parametrize("accept", ["*/*;q=0", "application/json;q=0", "text/html; Q=0.000, */* ;q=0"])
def test_an_accept_that_rules_everything_out_is_a_406(served: Any, accept: str, stored: str) -> None:
    for method, path in [
        ("GET", f"/descriptors/{Q}"),
        ("HEAD", f"/descriptors/{stored}/{Q}"),
        ("POST", f"/deployments/{Q}&descriptorId={stored}"),
        ("DELETE", f"/descriptors/{stored}/{Q}"),
    ]:
        answer = served.call(method, path, headers={"Accept": accept})
        assert answer.status == 406, method
    # Nothing was done.
    assert served.store.get(StoredDescriptor, stored) is not None
    assert served.store.count(Deployment) == 0


def test_text_and_pages_are_negotiated(served: Any, deployed: str) -> None:
    for accept in ("text/plain", "application/json", "image/png"):
        log = served.call("GET", f"/deployments/{deployed}/logs{Q}", headers={"Accept": accept})
        assert (log.status, log.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    for accept in (browser, "text/html"):
        way_in = served.call("GET", "/", headers={"Accept": accept})
        assert (way_in.status, way_in.headers["Location"]) == (302, "ui/")
        for path, status in (("/ui/", 200), ("/docs", 200), ("/nowhere", 404)):
            answer = served.call("GET", path, headers={"Accept": accept})
            assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8"), path
            assert served.call("HEAD", path, headers={"Accept": accept}).status == status
        # What a program asks for is what a program gets, by a browser too.
        missing = served.call("GET", f"/deployments/{NOBODY}/{Q}", headers={"Accept": browser})
        assert missing.problem["status"] == 404
    for accept in ("*/*", "application/json", "application/json, text/html"):
        answer = served.call("GET", "/", headers={"Accept": accept})
        assert (answer.status, answer.headers["Vary"]) == (200, "Accept")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("appName=shop", "appname"), ("APPNAME=shop", "appname"), ("app_name=shop", "appname"), ("Limit=1", "limit")],
)
def test_a_parameter_that_is_only_spelled_differently_is_a_400(served: Any, given: str, meant: str) -> None:
    problem = served.call("GET", f"/deployments/{Q}&{given}").problem
    assert problem["status"] == 400
    assert problem["errors"] == [{"path": meant, "message": "is misspelled; names of parameters are case-sensitive"}]


def test_other_unknown_parameters_are_ignored(served: Any, stored: str) -> None:
    assert len(served.call("GET", f"/descriptors/{Q}&_=1700000000&pretty").json) == 1
    assert served.call("GET", f"/descriptors/{stored}/{Q}&limit=x").status == 200


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/descriptors/?appname=a&appname=a", "appname"),
        ("DELETE", "/deployments/x/?deleteDeployment=true&deleteDeployment=true", "deleteDeployment"),
        ("GET", "/deployments/?limit=0", "limit"),
        ("GET", "/deployments/?status=deployed", "status"),
        ("GET", "/deployments/x/logs?after=-1", "after"),
        ("POST", "/deployments/?descriptorId=", "descriptorId"),
    ],
)
def test_doubled_and_impossible_values_are_a_400(served: Any, method: str, path: str, name: str) -> None:
    problem = served.call(method, f"{path}&namespace=shop-ns").problem
    assert (problem["status"], problem["errors"][0]["path"]) == (400, name)


@pytest.mark.parametrize("spelled", ["true", "True", "TRUE", "t", "T", "1"])
def test_percent_encodings_and_case_of_flags(served: Any, deployed: str, spelled: str) -> None:
    encoded = "".join(f"%{ord(character):02X}" for character in deployed)
    assert served.call("GET", f"/deployments/{encoded}/?namespace=shop%2Dns").json["id"] == deployed
    assert served.call("DELETE", f"/deployments/{deployed}/{Q}&deleteDeployment={spelled}").status == 202
    assert served.store.get(Deployment, deployed).purge


@pytest.mark.parametrize("spelled", ["false", "False", "FALSE", "f", "F", "0", ""])
def test_what_is_false_or_empty_deletes_nothing(served: Any, deployed: str, make_document: Any, spelled: str) -> None:
    assert served.call("DELETE", f"/deployments/{Q}&appname=shop&undeploy={spelled}").json == {"deleted": 0}
    assert served.call("DELETE", f"/deployments/{deployed}/{Q}&deleteDeployment={spelled}").status == 202
    assert not served.store.get(Deployment, deployed).purge
    served.call("POST", f"/descriptors/{Q}", make_document())
    left = 1 if spelled == "" else 0  # the default is to keep the latest
    served.call("DELETE", f"/descriptors/{Q}&appname=shop&keepLatest={spelled}")
    assert len(served.call("GET", f"/descriptors/{Q}&appname=shop").json) == left


def test_empty_parameters_are_absent(served: Any, deployed: str) -> None:
    assert [d["id"] for d in served.call("GET", f"/deployments/{Q}&limit=&status=&appname=").json] == [deployed]
    assert served.call("GET", f"/deployments/{deployed}/logs{Q}&after=").status == 200


@pytest.mark.parametrize("id", ["x", "1", NOBODY, "%00", "..", "a%2Fb", "'%20OR%201=1", "x" * 5000])
def test_ids_that_there_are_not_are_a_404(served: Any, make_document: Any, id: str) -> None:
    for route in NAMESPACED:
        if "{id}" in route.path:
            for method in route.methods:
                answer = served.call(method, route.path.replace("{id}", id) + "/" + Q, make_document())
                assert answer.problem["status"] == 404, (method, route.path)


def test_errors_are_problems_of_two_spaces_and_one_field_a_line(served: Any) -> None:
    answer = served.call("GET", f"/descriptors/{NOBODY}/{Q}")
    assert answer.body.decode().splitlines() == [
        "{",
        '  "type": "about:blank",',
        '  "title": "Not Found",',
        '  "status": 404,',
        '  "detail": "there is no descriptor with this id in this namespace"',
        "}",
    ]


def test_the_links_of_the_start_lead_somewhere(served: Any) -> None:
    assert served.call("GET", "/").json["authentication"] == {"method": "none"}
    links = served.call("GET", "/").json["links"]
    assert {path.partition("?")[0] for path in links.values()} >= {"/metrics", "/openapi.json", "/docs", "/plugins"}


# --- descriptors ------------------------------------------------------------------------------------------------------


def test_post_descriptors(served: Any, make_document: Any) -> None:
    """201, Location, body; 400; 409 when another app has the host."""
    made = served.call("POST", f"/descriptors/{Q}", make_document())
    assert made.status == 201
    assert uuid.UUID(made.json["id"]).version == 4
    assert made.headers["Location"] == f"/descriptors/{made.json['id']}/?namespace=shop-ns"
    assert re.fullmatch(r'"\d+"', made.headers["ETag"])
    assert served.call("GET", made.headers["Location"]).body == made.body
    assert served.call("POST", f"/descriptors/{Q}", b"{}").problem["status"] == 400
    web = {"containers": [{"name": "main", "image": "x", "ports": [{"containerPort": 80}]}]}
    assert served.call("POST", f"/descriptors/{Q}", make_document("a", frontend="h.de", podspec=web)).status == 201
    assert served.call("POST", f"/descriptors/{Q}", make_document("b", frontend="h.de", podspec=web)).status == 409


def test_get_descriptors(served: Any, make_document: Any) -> None:
    """200, `[]` when empty; `appname` as it was posted finds what was normalised."""
    assert served.call("GET", f"/descriptors/{Q}").body == b"[]\n"
    served.call("POST", f"/descriptors/{Q}", make_document("My.Shop_One"))
    served.call("POST", f"/descriptors/{Q}", make_document("other"))
    assert len(served.call("GET", f"/descriptors/{Q}&appname=").json) == 2
    for name in ("My.Shop_One", "my-shop-one"):
        assert [d["appName"] for d in served.call("GET", f"/descriptors/{Q}&appname={name}").json] == ["my-shop-one"]


def test_put_descriptor(served: Any, make_document: Any, stored: str) -> None:
    """204; an id in the body is optional and ignored; 400 when app or namespace would change; 412."""
    path = f"/descriptors/{stored}/{Q}"
    before = served.call("GET", path)
    put = served.call("PUT", path, make_document(version="2", id="whatever"), {"If-Match": before.headers["ETag"]})
    assert (put.status, put.body) == (204, b"")
    after = served.call("GET", path)
    assert (after.json["newVersion"], after.json["id"], after.headers["ETag"]) == ("2", stored, put.headers["ETag"])
    assert after.json["created"] == before.json["created"]
    for change in ({"app": "other"}, {"namespace": "other-ns"}):
        assert served.call("PUT", path, make_document(**change)).problem["status"] == 400
    assert served.call("PUT", path, make_document(), {"If-Match": before.headers["ETag"]}).problem["status"] == 412
    several = f'"1000000", {put.headers["ETag"]}'
    assert served.call("PUT", path, make_document(), {"If-Match": several}).status == 204


def test_a_precondition_counts_when_everything_else_is_right(served: Any, make_document: Any, stored: str) -> None:
    """RFC 9110, 13.2.1: what would fail anyway fails for its own reason."""
    wrong = {"If-Match": '"1000000"'}
    assert served.call("PUT", f"/descriptors/{NOBODY}/{Q}", make_document(), wrong).problem["status"] == 404
    assert served.call("PUT", f"/descriptors/{stored}/{Q}", b"no JSON", wrong).problem["status"] == 400
    assert served.call("PUT", f"/descriptors/{stored}/{Q}", make_document("other"), wrong).problem["status"] == 400
    assert served.call("PUT", f"/descriptors/{stored}/{Q}", make_document(), wrong).problem["status"] == 412


def test_delete_descriptor(served: Any, stored: str) -> None:
    """200 without a body; 404 after that; 412."""
    path = f"/descriptors/{stored}/{Q}"
    assert served.call("DELETE", path, headers={"If-Match": '"1000000"'}).problem["status"] == 412
    answer = served.call("DELETE", path)
    assert (answer.status, answer.body) == (200, b"")
    assert served.call("DELETE", path).problem["status"] == 404


@pytest.mark.parametrize(("query", "left"), [("", 1), ("&keepLatest=true", 1), ("&keepLatest=false", 0)])
def test_delete_descriptors(served: Any, make_document: Any, query: str, left: int) -> None:
    """200; the newest is kept by default; `appname` is normalised."""
    ids = [served.call("POST", f"/descriptors/{Q}", make_document("my.app")).json["id"] for _ in range(3)]
    answer = served.call("DELETE", f"/descriptors/{Q}&appname=My.App{query}")
    assert (answer.status, answer.json) == (200, {"deleted": 3 - left})
    assert [d["id"] for d in served.call("GET", f"/descriptors/{Q}").json] == ids[3 - left :]


def test_validate(served: Any, make_document: Any) -> None:
    """200, or 400 with every error at once; nothing is stored."""
    assert served.call("POST", f"/descriptors/validate{Q}", make_document("My.App")).json["appName"] == "my-app"
    bad = make_document(replicas=-1, frontend="http://x", timeoutSeconds=0, deploymentTyp="x")
    errors = served.call("POST", f"/descriptors/validate/{Q}", bad).problem["errors"]
    assert {error["path"] for error in errors} >= {"replicas", "frontend", "timeoutSeconds", "deploymentTyp"}
    assert "deploymentType" in next(error["message"] for error in errors if error["path"] == "deploymentTyp")
    assert served.store.count(StoredDescriptor) == 0


# --- deployments ------------------------------------------------------------------------------------------------------


def test_post_deployments(served: Any, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """202, Location, body; 400 without the parameter; 404; 503 when the store cannot record it."""
    made = served.call("POST", f"/deployments/{Q}&descriptorId={stored}")
    assert made.status == 202
    assert made.headers["Location"] == f"/deployments/{made.json['id']}/?namespace=shop-ns"
    assert list(made.json)[:6] == ["id", "created", "lastModified", "version", "status", "descriptor"]
    assert list(made.json)[6:] == ["phase", "since", "waitingFor", "steps"]
    assert (made.json["status"], made.json["descriptor"]["id"]) == ("DEPLOYING", stored)
    assert served.call("GET", made.headers["Location"]).body == made.body
    assert served.call("POST", f"/deployments/{Q}").problem["status"] == 400
    assert served.call("POST", f"/deployments/{Q}&descriptorId={NOBODY}").problem["status"] == 404
    assert served.call("POST", f"/deployments/?namespace=other&descriptorId={stored}").problem["status"] == 404

    def full(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(served.store, "commit", full)
    answer = served.call("POST", f"/deployments/{Q}&descriptorId={stored}")
    assert answer.problem["status"] == 503
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_full_queue_is_a_429(served: Any, stored: str) -> None:
    for _ in range(10):  # the limit of these tests' settings
        assert served.call("POST", f"/deployments/{Q}&descriptorId={stored}").status == 202
    for method, path in (("POST", f"/deployments/{Q}&descriptorId={stored}"),):
        answer = served.call(method, path)
        assert answer.problem["status"] == 429
        assert int(answer.headers["Retry-After"]) >= 1


def test_get_deployments(served: Any) -> None:
    """200, newest first, `[]` when empty; `limit` counts per app; `status`; `appname` is normalised."""
    assert served.call("GET", f"/deployments/{Q}").body == b"[]\n"
    a1, b1, a2, b2 = (served.deployment(app).id for app in ("a.x", "b", "a.x", "b"))
    served.end(a1, Status.FAILURE)

    def ids(query: str) -> list[str]:
        return [deployment["id"] for deployment in served.call("GET", f"/deployments/{Q}{query}").json]

    assert ids("") == [b2, a2, b1, a1]
    assert ids("&limit=1") == [b2, a2]
    assert ids("&limit=2147483647") == [b2, a2, b1, a1]
    assert ids("&appname=A_X") == [a2, a1]
    assert ids("&status=FAILURE&limit=1&appname=a-x") == [a1]


def test_get_deployment_and_its_etag(served: Any, deployed: str) -> None:
    """200 with the revision as ETag; 304 while it is the current one; 404 in another namespace."""
    path = f"/deployments/{deployed}/{Q}"
    tag = served.call("GET", path).headers["ETag"]
    for known in (tag, f"W/{tag}", f'"1", {tag}', "*"):
        for method in ("GET", "HEAD"):
            answer = served.call(method, path, headers={"If-None-Match": known})
            assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    for unknown in ('"1"', '"x"', ""):
        assert served.call("GET", path, headers={"If-None-Match": unknown}).status == 200
    assert served.call("GET", f"/deployments/{deployed}/?namespace=other").problem["status"] == 404
    served.call("DELETE", path)
    assert served.call("GET", path, headers={"If-None-Match": tag}).status == 200


def test_put_deployment(served: Any, deployed: str) -> None:
    """202 and the Location of a new deployment of the same descriptor copy; a body is not read."""
    answer = served.call("PUT", f"/deployments/{deployed}/{Q}", b"not JSON")
    assert answer.status == 202
    assert answer.json["id"] != deployed
    assert answer.headers["Location"] == f"/deployments/{answer.json['id']}/?namespace=shop-ns"
    assert answer.json["descriptor"] == served.store.get(Deployment, deployed).descriptor
    stale = served.call("PUT", f"/deployments/{deployed}/{Q}", headers={"If-Match": '"1000000"'})
    assert stale.problem["status"] == 412


def test_delete_deployment(served: Any, deployed: str) -> None:
    """202; the record is deleted afterwards if asked; 412; 404."""
    path = f"/deployments/{deployed}/{Q}"
    assert served.call("DELETE", path, headers={"If-Match": '"1000000"'}).problem["status"] == 412
    answer = served.call("DELETE", f"{path}&deleteDeployment=false")
    assert (answer.status, answer.json["status"]) == (202, "UNDEPLOYING")
    assert not served.store.get(Deployment, deployed).purge
    assert served.call("DELETE", f"/deployments/{NOBODY}/{Q}").problem["status"] == 404


def test_delete_deployments(served: Any) -> None:
    """202; records of ended ones; live and running ones only with `undeploy`."""
    ended, live, queued = (served.deployment("my.app").id for _ in range(3))
    served.end(ended, Status.FAILURE)
    served.end(live)
    answer = served.call("DELETE", f"/deployments/{Q}&appname=My.App")
    assert (answer.status, answer.json) == (202, {"deleted": 1})
    assert served.store.get(Deployment, live).status is Status.DEPLOYED
    answer = served.call("DELETE", f"/deployments/{Q}&appname=My.App&undeploy=true")
    assert (answer.status, answer.json) == (202, {"deleted": 2})
    for id in (live, queued):
        record = served.store.get(Deployment, id)
        assert (record.status, record.purge) == (Status.UNDEPLOYING, True)


def test_logs_and_health_data(served: Any, deployed: str) -> None:
    """`text/plain` lines, further ones indented; a list of `podName` and `value`."""
    served.deployment_log.append(deployed, "one\ntwo")
    log = served.call("GET", f"/deployments/{deployed}/logs{Q}")
    assert log.headers["Content-Type"] == "text/plain; charset=utf-8"
    lines = log.body.decode().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z |  ", line) for line in lines)
    assert lines[-1] == "  two"
    assert served.call("GET", f"/deployments/{deployed}/healthcheckdata{Q}").body == b"[]\n"


def test_no_answer_costs_the_connection(served: Any, make_document: Any, stored: str) -> None:
    """Neither do those that have no body."""
    path = f"/descriptors/{stored}/{Q}"
    with served.connection() as connection:
        connection.connect()
        connection.auto_open = 0  # a second connection would be an error
        tag = served.call("PUT", path, make_document(version="2"), on=connection).headers["ETag"]
        assert served.call("GET", path, headers={"If-None-Match": tag}, on=connection).status == 304
        assert served.call("OPTIONS", path, on=connection).status == 200
        assert served.call("GET", path, on=connection).json["newVersion"] == "2"


# --- descriptors' fields, as they are accepted over HTTP --------------------------------------------------------------

X = {"Header": "X", "Value": "y"}
WEB = {"containers": [{"name": "main", "image": "x", "ports": [{"containerPort": 8080}]}]}


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ({"replicas": 0}, {"replicas": 1}),
        ({"replicas": None}, {"replicas": 1}),
        ({"redirectWww": "true"}, {"redirectWww": True}),
        ({"useCompression": "false"}, {"useCompression": False}),
        ({"useStickySessions": None}, {"useStickySessions": False}),
        ({"deploymentType": ""}, {"deploymentType": "blue-green"}),
        ({"newVersion": "1.2_B"}, {"newVersion": "1-2-b"}),
        ({"newVersion": "#"}, {"newVersion": "#"}),
        ({"frontend": "Shop.Example.com", "podspec": WEB}, {"frontend": "shop.example.com"}),
        ({"webhooks": [{"key": "k"}]}, {"webhooks": [{"key": "k"}]}),
        ({"email": "a@b", "environment": {"x": 1}, "readinessPort": 3}, {"email": "a@b", "readinessPort": 3}),
        ({"healthCheckType": ""}, {"useHealthCheck": False}),
        ({"healthCheckHost": "shop.example.com:8443"}, {"healthCheckHost": "shop.example.com:8443"}),
        ({"additionHttpHeaders": [{"Header": "X-A", "Value": "b"}]}, {"useHealthCheck": False}),
        ({"podspec": {**WEB, "nodeSelector": {"disk": "ssd"}}}, {"podspec": {**WEB, "nodeSelector": {"disk": "ssd"}}}),
    ],
)
def test_what_is_accepted(served: Any, make_document: Any, sent: Any, answered: Any) -> None:
    answer = served.call("POST", f"/descriptors/{Q}", make_document() | sent)
    assert answer.status == 201, answer.body
    assert {name: answer.json[name] for name in answered} == answered


def test_passwords_and_environments_are_neither_stored_nor_shown(served: Any, make_document: Any) -> None:
    old = make_document(password="hunter2", environment={"DB": "hunter3"})
    answer = served.call("POST", f"/descriptors/{Q}", old)
    assert answer.status == 201
    queued = served.call("POST", f"/deployments/{Q}&descriptorId={answer.json['id']}")
    kept = [r.document for r in served.store.find(StoredDescriptor)] + [
        d.descriptor for d in served.store.find(Deployment)
    ]
    for text in (answer.body.decode(), queued.body.decode(), json.dumps(kept)):
        assert "hunter" not in text and '"environment"' not in text


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ({"namespace": "other"}, "namespace"),
        ({"namespace": None}, "namespace"),
        ({"appName": "1shop"}, "appName"),
        ({"appName": "a" * 62}, "newVersion"),
        ({"newVersion": ""}, "newVersion"),
        ({"deploymentType": "canary"}, "deploymentType"),
        ({"strategyOptions": {"x": 1}}, "strategyOptions"),
        ({"replicas": 1001}, "replicas"),
        ({"replicas": "2"}, "replicas"),
        ({"redirectWww": "yes"}, "redirectWww"),
        ({"frontend": "https://x.de", "podspec": WEB}, "frontend"),
        ({"frontend": "*.x.de", "podspec": WEB}, "frontend"),
        ({"frontend": "x.de"}, "frontend"),
        ({"additionHttpHeaders": [{"Header": "X", "Value": "a\r\nb"}]}, "additionHttpHeaders[0].Value"),
        ({"additionHttpHeaders": [X, X | {"Header": "x"}]}, "additionHttpHeaders[1].Header"),
        ({"useHealthCheck": True}, "healthCheckPort"),
        ({"healthCheckPort": 65536}, "healthCheckPort"),
        ({"healthCheckPath": "//x"}, "healthCheckPath"),
        ({"healthCheckType": "tcp"}, "healthCheckType"),
        ({"timeoutSeconds": 3601}, "timeoutSeconds"),
        ({"imagePullSecrets": [{}]}, "imagePullSecrets[0].name"),
        ({"webhooks": [{"description": "x"}]}, "webhooks[0].key"),
        ({"podspec": None}, "podspec"),
        ({"podspec": {"containers": []}}, "podspec.containers"),
        ({"podspec": {**WEB, "hostNetwork": True}}, "podspec.hostNetwork"),
        ({"additionalHttpHeaders": []}, "additionalHttpHeaders"),
    ],
)  # fmt: skip
def test_what_is_refused(served: Any, make_document: Any, sent: Any, path: str) -> None:
    problem = served.call("POST", f"/descriptors/{Q}", make_document() | sent).problem
    assert problem["status"] == 400
    assert path in {error["path"] for error in problem["errors"]}, problem["errors"]

"""Every route over a real socket: statuses, headers, bodies, and the shape of errors."""

from __future__ import annotations

import datetime
import json
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import deployer
from deployer.core.contract.store import Create
from deployer.core.errors import KubeError, KubeUnavailable, StoreUnavailable
from deployer.core.model.records import Deployment, HealthData, Operation, Status, StoredDescriptor
from deployer.core.settings import Settings

Q = "?namespace=shop-ns"


# --- descriptors ----------------------------------------------------------------------------------------------------


def test_a_descriptor_is_created_shown_replaced_and_deleted(world: Any, make_document: Any) -> None:
    made = world.call("POST", f"/descriptors/{Q}", make_document("My.Shop"))
    assert made.status == 201
    id = made.json["id"]
    assert uuid.UUID(id).version == 4
    assert made.headers["Location"] == f"/descriptors/{id}/?namespace=shop-ns"
    assert made.json["appName"] == "my-shop"
    assert datetime.datetime.fromisoformat(made.json["created"]).utcoffset() == datetime.timedelta(0)

    shown = world.call("GET", made.headers["Location"])
    stored = {name: value for name, value in made.json.items() if name != "validation"}  # what was said of its name
    assert (shown.status, shown.json, shown.headers["ETag"]) == (200, stored, made.headers["ETag"])
    assert shown.headers["Content-Type"] == "application/json"

    put = world.call("PUT", f"/descriptors/{id}/{Q}", make_document("my-shop", "2"))
    assert (put.status, put.body) == (204, b"")
    after = world.call("GET", f"/descriptors/{id}{Q}")
    assert after.json["newVersion"] == "2"
    assert after.headers["ETag"] == put.headers["ETag"] != made.headers["ETag"]

    assert world.call("DELETE", f"/descriptors/{id}/{Q}").status == 200
    assert world.call("GET", f"/descriptors/{id}/{Q}").problem["status"] == 404
    assert world.call("DELETE", f"/descriptors/{id}/{Q}").problem["status"] == 404
    assert world.call("PUT", f"/descriptors/{id}/{Q}", make_document("my-shop")).problem["status"] == 404
    assert world.store.find(StoredDescriptor) == []


def test_json_has_one_field_a_line(world: Any, make_document: Any) -> None:
    made = world.call("POST", f"/descriptors/{Q}", make_document())
    lines = made.body.decode().split("\n")
    assert lines[0] == "{"
    assert f'  "id": "{made.json["id"]}",' in lines
    assert lines[-1] == ""


def test_lists_of_descriptors(world: Any, make_document: Any) -> None:
    assert world.call("GET", f"/descriptors/{Q}").json == []
    ids = [world.call("POST", f"/descriptors/{Q}", make_document(app)).json["id"] for app in ("a", "b", "a")]
    assert [d["id"] for d in world.call("GET", f"/descriptors{Q}").json] == ids
    assert [d["id"] for d in world.call("GET", f"/descriptors/{Q}&appname=a").json] == [ids[0], ids[2]]
    assert world.call("GET", "/descriptors/?namespace=other").json == []


@pytest.mark.parametrize(("query", "deleted"), [("", 2), ("&keepLatest=true", 2), ("&keepLatest=false", 3)])
def test_descriptors_are_deleted_in_bulk(world: Any, make_document: Any, query: str, deleted: int) -> None:
    for app in ("a", "a", "b", "a"):
        world.call("POST", f"/descriptors/{Q}", make_document(app))
    answer = world.call("DELETE", f"/descriptors/{Q}&appname=a{query}")
    assert (answer.status, answer.json) == (200, {"deleted": deleted})
    assert len(world.call("GET", f"/descriptors/{Q}&appname=a").json) == 3 - deleted
    assert len(world.call("GET", f"/descriptors/{Q}&appname=b").json) == 1


def test_if_match_guards_a_put(world: Any, make_document: Any) -> None:
    made = world.call("POST", f"/descriptors/{Q}", make_document())
    path, tag = made.headers["Location"], made.headers["ETag"]
    assert tag.startswith('"')
    for wrong in ('"999999"', "nonsense", f"W/{tag}", ""):
        refused = world.call("PUT", path, make_document(version="2"), {"If-Match": wrong})
        assert refused.problem["status"] == 412, wrong
    assert world.call("GET", path).headers["ETag"] == tag
    assert world.call("PUT", path, make_document(version="2"), {"If-Match": tag}).status == 204
    assert world.call("PUT", path, make_document(version="3"), {"If-Match": tag}).problem["status"] == 412
    assert world.call("PUT", path, make_document(version="3"), {"If-Match": "*"}).status == 204


def test_a_host_belongs_to_one_app(world: Any, make_document: Any) -> None:
    ports = {"containers": [{"name": "main", "image": "x", "ports": [{"containerPort": 8080}]}]}
    first = make_document("a", frontend="shop.example.com", podspec=ports)
    assert world.call("POST", f"/descriptors/{Q}", first).status == 201
    second = make_document("b", frontend="shop.example.com", podspec=ports)
    assert world.call("POST", f"/descriptors/{Q}", second).problem["status"] == 409
    assert len(world.store.find(StoredDescriptor)) == 1


def test_validation_stores_nothing_and_names_every_error(world: Any, make_document: Any) -> None:
    assert world.call("POST", f"/descriptors/validate/{Q}", make_document()).status == 200
    wrong = make_document(replicas=-1, deploymentType="red-black")
    problem = world.call("POST", f"/descriptors/validate{Q}", wrong).problem
    assert problem["status"] == 400
    assert {error["path"] for error in problem["errors"]} == {"replicas", "deploymentType"}
    assert all(set(error) == {"path", "message"} for error in problem["errors"])
    assert world.store.find(StoredDescriptor) == []
    assert world.call("GET", f"/descriptors/validate{Q}").headers["Allow"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b'{"appName": NaN}',
        b'{"replicas": Infinity}',
        b'{"replicas": 1e999}',
        b'{"replicas": ' + b"9" * 5000 + b"}",
        b'{"appName": "a", "appName": "b"}',
        b'{"appName": "\\ud800"}',
        b'{"\\udc80": 1}',
        b'{"appName": "a\\u0000b"}',
        b'{"podspec": ' + b'{"a":' * 70 + b"1" + b"}" * 71,
        b"[" * 500_000,
        b'{"a":' * 150_000,
        b'{"podspec": {"containers": "no list"}}',
        b'{"namespace": {"a": []}, "appName": [], "newVersion": {}, "podspec": 5}',
    ],
)
@pytest.mark.parametrize("path", ["/descriptors/", "/descriptors/validate"])
def test_bad_documents_are_a_400(world: Any, path: str, body: bytes) -> None:
    problem = world.call("POST", f"{path}{Q}", body).problem
    assert problem["status"] == 400
    assert problem["errors"]
    assert world.store.find(StoredDescriptor) == []


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "nonsense", ""])
def test_a_body_is_read_whatever_its_type_is_said_to_be(world: Any, make_document: Any, content_type: str) -> None:
    answer = world.call("POST", f"/descriptors/{Q}", make_document(), {"Content-Type": content_type})
    assert answer.status == 201


def test_a_chunked_body_is_read(world: Any, make_document: Any) -> None:
    data = json.dumps(make_document()).encode()
    with world.connection() as connection:
        connection.request(
            "POST",
            f"/descriptors/{Q}",
            body=iter([data[:20], data[20:]]),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        with connection.getresponse() as response:
            assert response.status == 201


def test_a_body_of_one_mebibyte_passes_and_a_longer_one_is_a_413(world: Any, make_document: Any) -> None:
    data = json.dumps(make_document()).encode()
    limit = 1024 * 1024
    assert world.call("POST", f"/descriptors/{Q}", data + b" " * (limit - len(data))).status == 201
    for size in (limit + 1, 3 * limit):
        assert world.call("POST", f"/descriptors/{Q}", data + b" " * (size - len(data))).problem["status"] == 413
    assert len(world.store.find(StoredDescriptor)) == 1


# --- deployments ----------------------------------------------------------------------------------------------------


def test_a_deployment_is_queued_and_shown(world: Any, make_document: Any) -> None:
    descriptor = world.call("POST", f"/descriptors/{Q}", make_document()).json["id"]
    made = world.call("POST", f"/deployments/{Q}&descriptorId={descriptor}")
    assert made.status == 202
    id = made.json["id"]
    assert made.headers["Location"] == f"/deployments/{id}/?namespace=shop-ns"
    assert (made.json["status"], made.json["version"]) == ("DEPLOYING", "1")
    assert made.json["descriptor"]["id"] == descriptor
    assert [operation.deployment for operation in world.store.find(Operation)] == [id]

    shown = world.call("GET", made.headers["Location"])
    assert (shown.status, shown.json, shown.headers["ETag"]) == (200, made.json, made.headers["ETag"])
    assert world.call("GET", f"/deployments/{id}?namespace=other").problem["status"] == 404


def test_what_a_deployment_needs(world: Any) -> None:
    assert world.call("POST", f"/deployments/{Q}").problem["errors"][0]["path"] == "descriptorId"
    assert world.call("POST", f"/deployments/{Q}&descriptorId={uuid.uuid4()}").problem["status"] == 404


def test_a_full_queue_says_when_to_come_back(world: Any, make_document: Any, settings: Settings) -> None:
    descriptor = world.call("POST", f"/descriptors/{Q}", make_document()).json["id"]
    path = f"/deployments/{Q}&descriptorId={descriptor}"
    assert {world.call("POST", path).status for _ in range(settings.queue_limit)} == {202}
    full = world.call("POST", path)
    assert full.problem["status"] == 429
    assert int(full.headers["Retry-After"]) >= 1
    assert len(world.store.find(Deployment)) == settings.queue_limit


def test_lists_of_deployments(world: Any) -> None:
    assert world.call("GET", f"/deployments/{Q}").json == []
    a1, b1, a2 = (world.deployment(app).id for app in ("a", "b", "a"))
    world.end(a1)

    def ids(query: str) -> list[str]:
        return [deployment["id"] for deployment in world.call("GET", f"/deployments/{Q}{query}").json]

    assert ids("") == [a2, b1, a1]
    assert ids("&appname=a") == [a2, a1]
    assert ids("&limit=1") == [a2, b1]
    assert ids("&appname=a&limit=1") == [a2]
    assert ids("&status=DEPLOYED") == [a1]
    assert ids("&status=DEPLOYING&appname=b") == [b1]
    assert ids("&status=FAILURE") == []


def test_redeploy_makes_a_new_deployment(world: Any) -> None:
    first = world.deployment()
    world.end(first.id)
    again = world.call("PUT", f"/deployments/{first.id}/{Q}")
    assert again.status == 202
    assert again.json["id"] != first.id
    assert again.headers["Location"] == f"/deployments/{again.json['id']}/?namespace=shop-ns"
    assert again.json["descriptor"] == first.descriptor
    assert world.call("PUT", f"/deployments/nobody/{Q}").problem["status"] == 404


@pytest.mark.parametrize(
    ("query", "purge"), [("", False), ("&deleteDeployment=false", False), ("&deleteDeployment=true", True)]
)
def test_undeploy(world: Any, query: str, purge: bool) -> None:
    id = world.deployment().id
    world.end(id)
    answer = world.call("DELETE", f"/deployments/{id}/{Q}{query}")
    assert (answer.status, answer.json["status"]) == (202, "UNDEPLOYING")
    assert world.store.get(Deployment, id).purge is purge
    assert world.call("DELETE", f"/deployments/nobody/{Q}").problem["status"] == 404


@pytest.mark.parametrize(("query", "left"), [("", 1), ("&undeploy=false", 1), ("&undeploy=true", 1)])
def test_deployments_are_deleted_in_bulk(world: Any, query: str, left: int) -> None:
    ended, live = world.deployment("a").id, world.deployment("a").id
    world.end(ended, Status.FAILURE)
    world.end(live)
    answer = world.call("DELETE", f"/deployments/{Q}&appname=a{query}")
    assert answer.status == 202
    assert world.store.get(Deployment, ended) is None
    expected = Status.UNDEPLOYING if query.endswith("true") else Status.DEPLOYED
    assert world.store.get(Deployment, live).status is expected
    assert len(world.store.find(Deployment)) == left


def test_the_log_is_text(world: Any) -> None:
    id = world.deployment().id
    world.logbook.append(id, "two\nlines, ümläut")
    answer = world.call("GET", f"/deployments/{id}/logs{Q}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    first, second, third = answer.body.decode().splitlines()
    assert "queued" in first
    assert datetime.datetime.fromisoformat(second.split(" ")[0]).tzinfo is not None
    assert second.endswith(" two")
    assert third == "  lines, ümläut"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"

    tail = world.call("GET", f"/deployments/{id}/logs/{Q}&after=1").body.decode()
    assert tail == f"{second}\n{third}\n"
    assert world.call("GET", f"/deployments/{id}/logs{Q}&after=2").body == b""
    assert world.call("GET", f"/deployments/nobody/logs{Q}").problem["status"] == 404


def test_a_long_log_is_streamed(world: Any) -> None:
    id = world.deployment().id
    for number in range(3000):
        world.logbook.append(id, f"line {number} " + "x" * 300)
    answer = world.call("GET", f"/deployments/{id}/logs{Q}")
    assert answer.headers["Content-Length"] is None
    assert answer.headers["X-Next-After"] == "3001"
    lines = answer.body.decode().splitlines()
    assert [line.split(" ")[2] for line in lines[1:]] == [str(number) for number in range(3000)]


def test_a_log_is_read_piece_by_piece_while_it_grows(world: Any, run: Any) -> None:
    """Each answer ends where it says that it does, so the pieces make the whole."""
    id = world.deployment().id
    total = 4000
    read_once = threading.Event()

    def write() -> None:
        for number in range(total):
            if number == total // 2:
                assert read_once.wait(20)
            world.logbook.append(id, f"{number}\n" + "x" * 200)

    written = run(write)
    text, after, answers = "", "0", 0
    while after != str(total + 1):
        answer = world.call("GET", f"/deployments/{id}/logs{Q}&after={after}")
        pieces = answer.body.decode()
        # A message begins with its time; its further lines are indented.
        messages = [line for line in pieces.splitlines() if not line.startswith("  ")]
        assert int(answer.headers["X-Next-After"]) - int(after) == len(messages)
        text, after, answers = text + pieces, answer.headers["X-Next-After"], answers + 1
        read_once.set()
    assert written.get(timeout=20) is None
    assert text == world.call("GET", f"/deployments/{id}/logs{Q}").body.decode()
    assert answers > 1


@pytest.mark.parametrize("after", [1, 2, 1000])
def test_after_the_end_there_is_nothing_and_the_answer_says_where_that_is(world: Any, after: int) -> None:
    id = world.deployment().id
    answer = world.call("GET", f"/deployments/{id}/logs{Q}&after={after}")
    assert (answer.status, answer.body, answer.headers["X-Next-After"]) == (200, b"", "1")
    head = world.call("HEAD", f"/deployments/{id}/logs{Q}&after={after}")
    assert (head.status, head.headers["X-Next-After"]) == (200, "1")


def test_health_check_data(world: Any) -> None:
    record = world.deployment()
    path = f"/deployments/{record.id}/healthcheckdata{Q}"
    assert world.call("GET", path).json == []
    entries = [{"podName": "shop-1-x", "value": '{"healthy": true}'}]
    world.store.commit(
        Create(HealthData(namespace=record.namespace, app=record.app, deployment=record.id, entries=entries))
    )
    assert world.call("GET", path).json == entries
    assert world.call("GET", f"/deployments/nobody/healthcheckdata{Q}").problem["status"] == 404


# --- the service itself -----------------------------------------------------------------------------------------------


def test_what_the_service_is(world: Any) -> None:
    start = world.call("GET", "/").json
    assert (start["service"], start["version"]) == ("deployer", deployer.__version__)
    for link in start["links"].values():
        # Every link leads somewhere: whatever it needs is missing, but not the route.
        answer = world.call("GET", link.partition("?")[0].replace("{id}", "x"))
        assert answer.status in (200, 400, 405, 426), link
    assert world.call("GET", "/plugins/").json == [{"name": "one", "state": "ok"}]
    assert world.call("GET", "/healthz").json == {"status": "ok"}


def test_readiness_gives_its_reasons(world: Any) -> None:
    assert world.call("GET", "/readyz").status == 200
    world.reasons += ["the lease is lost", "3 threads hang"]
    problem = world.call("GET", "/readyz/").problem
    assert problem["status"] == 503
    assert problem["detail"] == "the lease is lost; 3 threads hang"
    assert world.call("GET", "/healthz").status == 200


ROUTES = [
    ("/", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/plugins", "GET"),
    ("/descriptors", "GET POST DELETE"),
    ("/descriptors/validate", "POST"),
    ("/descriptors/x", "GET PUT DELETE"),
    ("/deployments", "GET POST DELETE"),
    ("/deployments/x", "GET PUT DELETE"),
    ("/deployments/x/logs", "GET"),
    ("/deployments/x/healthcheckdata", "GET"),
]


@pytest.mark.parametrize(("path", "methods"), ROUTES)
def test_other_methods_are_a_405_that_names_the_possible_ones(world: Any, path: str, methods: str) -> None:
    possible = set(methods.split()) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - possible:
        answer = world.call(method, f"{path}{Q}")
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(", ")) == possible
        if method != "HEAD":
            assert method in answer.problem["detail"]


@pytest.mark.parametrize(("path", "methods"), [route for route in ROUTES if route[0].startswith("/de")])
@pytest.mark.parametrize("query", ["", "?namespace=", "?namespace=a&namespace=b"])
def test_a_namespace_is_needed(world: Any, path: str, methods: str, query: str) -> None:
    for method in methods.split():
        for slash in ("", "/"):
            problem = world.call(method, f"{path}{slash}{query}", b"{}").problem
            assert (problem["status"], problem["errors"][0]["path"]) == (400, "namespace")


@pytest.mark.parametrize(("path", "methods"), [route for route in ROUTES if "GET" in route[1]])
def test_head_is_get_without_a_body(world: Any, path: str, methods: str) -> None:
    path = path.replace("/x", f"/{world.deployment().id}") if "deployments" in path else path
    with world.connection() as connection:
        get, head = (world.call(method, f"{path}{Q}", on=connection) for method in ("GET", "HEAD"))
    assert head.status == get.status
    assert head.body == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert head.headers["ETag"] == get.headers["ETag"]


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/metrics/x", "/descriptors/a/b", "/deployments/x/y/z", "/%FF%ED%A0%80", "/stream"],
)
def test_unknown_routes(world: Any, path: str) -> None:
    assert world.call("GET", f"{path}{Q}").problem["status"] == 404
    assert world.call("POST", f"{path}{Q}").problem["status"] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/deployments/?limit=abc"),
        ("GET", "/deployments/?limit=0"),
        ("GET", "/deployments/?limit=-1"),
        ("GET", "/deployments/?limit=1e3"),
        ("GET", "/deployments/?limit=%C2%B2"),
        ("GET", "/deployments/?limit=" + "9" * 5000),
        ("GET", "/deployments/?status=FOO"),
        ("GET", "/deployments/?status=%ED%A0%80"),
        ("GET", "/deployments/?appname=a&appname=b"),
        ("GET", "/deployments/x/logs?after=x"),
        ("DELETE", "/deployments/"),
        ("DELETE", "/deployments/?appname="),
        ("DELETE", "/deployments/?appname=a&undeploy=maybe"),
        ("DELETE", "/deployments/x/?deleteDeployment=2"),
        ("DELETE", "/descriptors/"),
        ("DELETE", "/descriptors/?appname=a&keepLatest=no"),
    ],
)
def test_bad_parameters_are_a_400_that_names_them(world: Any, method: str, path: str) -> None:
    problem = world.call(method, f"{path}{'&' if '?' in path else '?'}namespace=shop-ns").problem
    assert problem["status"] == 400
    assert problem["errors"][0]["path"] in problem["detail"]


@pytest.mark.parametrize("echoed", ["%ED%A0%80", "%00", "%FF", "%0D%0AX-Evil:%201", "%22%3Cscript%3E", "%F0%9F%98%80"])
def test_echoed_input_is_never_a_500(world: Any, echoed: str) -> None:
    for method, path in [
        ("GET", f"/{echoed}"),
        ("GET", f"/deployments/{echoed}{Q}"),
        ("GET", f"/deployments/x?namespace={echoed}"),
        ("POST", f"/deployments/{Q}&descriptorId={echoed}"),
        ("PATCH", f"/deployments/{echoed}"),
        ("DELETE", f"/deployments/{Q}&appname=a&undeploy={echoed}"),
    ]:
        answer = world.call(method, path)
        assert 400 <= answer.problem["status"] < 500
        assert "X-Evil" not in answer.headers
    world.call("GET", "/healthz", headers={"Host": "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")})
    path = f"/descriptors/{world.deployment().descriptor_id}{Q}"
    answer = world.call("DELETE", path, headers={"If-Match": "\xff\xfe"})
    assert answer.problem["status"] == 412


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_trouble_behind_the_service(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cases: list[tuple[Exception, int]] = [
        (StoreUnavailable("the disk is full"), 503),
        (KubeUnavailable("no answer from the API server", retry_after=2.5), 503),
        (KubeError("the API server refused", status=418), 502),
    ]
    for error, status in cases:
        monkeypatch.setattr(world.store, "get", _raising(error))
        answer = world.call("GET", f"/deployments/x{Q}")
        assert (answer.status, answer.problem["detail"]) == (status, str(error))
        if isinstance(error, KubeUnavailable):
            assert answer.headers["Retry-After"] == "3"

    monkeypatch.setattr(world.store, "get", _raising(RuntimeError("the password is hunter2")))
    with caplog.at_level(logging.ERROR):
        answer = world.call("GET", f"/deployments/x{Q}")
    assert answer.problem["status"] == 500
    assert b"hunter2" not in answer.body
    assert "Traceback" in caplog.text


def _raising(error: Exception) -> Callable[..., Any]:
    def raise_it(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return raise_it


def test_requests_under_way_are_finished_by_stop(world: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go = threading.Event(), threading.Event()
    real = world.store.get

    def slow(*args: Any, **more: Any) -> Any:
        inside.set()
        assert go.wait(20)
        return real(*args, **more)

    id = world.deployment().id
    monkeypatch.setattr(world.store, "get", slow)
    answer = run(world.call, "GET", f"/deployments/{id}{Q}")
    assert inside.wait(20)
    stopped = run(world.server.stop, 20)
    go.set()
    assert answer.get(timeout=20).status == 200
    assert stopped.get(timeout=20) is None

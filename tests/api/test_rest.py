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
from deployer.commands.descriptor_commands import DescriptorCommands
from deployer.core.errors import KubeError, KubeUnavailable, StoreUnavailable
from deployer.core.model.records import Deployment, HealthData, Operation, Status, StoredDescriptor
from deployer.core.ports.store import Create, Delete
from deployer.settings import Settings

Q = "?namespace=shop-ns"


# --- descriptors ----------------------------------------------------------------------------------------------------


def test_a_descriptor_is_created_shown_replaced_and_deleted(served: Any, make_document: Any) -> None:
    made = served.call("POST", f"/descriptors/{Q}", make_document("My.Shop"))
    assert made.status == 201
    id = made.json["id"]
    assert uuid.UUID(id).version == 4
    assert made.headers["Location"] == f"/descriptors/{id}/?namespace=shop-ns"
    assert made.json["appName"] == "my-shop"
    assert datetime.datetime.fromisoformat(made.json["created"]).utcoffset() == datetime.timedelta(0)

    shown = served.call("GET", made.headers["Location"])
    stored = {name: value for name, value in made.json.items() if name != "validation"}  # what was said of its name
    assert (shown.status, shown.json, shown.headers["ETag"]) == (200, stored, made.headers["ETag"])
    assert shown.headers["Content-Type"] == "application/json"

    put = served.call("PUT", f"/descriptors/{id}/{Q}", make_document("my-shop", "2"))
    assert (put.status, put.body) == (204, b"")
    after = served.call("GET", f"/descriptors/{id}{Q}")
    assert after.json["newVersion"] == "2"
    assert after.headers["ETag"] == put.headers["ETag"] != made.headers["ETag"]

    assert served.call("DELETE", f"/descriptors/{id}/{Q}").status == 200
    assert served.call("GET", f"/descriptors/{id}/{Q}").problem["status"] == 404
    assert served.call("DELETE", f"/descriptors/{id}/{Q}").problem["status"] == 404
    assert served.call("PUT", f"/descriptors/{id}/{Q}", make_document("my-shop")).problem["status"] == 404
    assert served.store.find(StoredDescriptor) == []


def test_json_has_one_field_a_line(served: Any, make_document: Any) -> None:
    made = served.call("POST", f"/descriptors/{Q}", make_document())
    lines = made.body.decode().split("\n")
    assert lines[0] == "{"
    assert f'  "id": "{made.json["id"]}",' in lines
    assert lines[-1] == ""


def test_lists_of_descriptors(served: Any, make_document: Any) -> None:
    assert served.call("GET", f"/descriptors/{Q}").json == []
    ids = [served.call("POST", f"/descriptors/{Q}", make_document(app)).json["id"] for app in ("a", "b", "a")]
    assert [d["id"] for d in served.call("GET", f"/descriptors{Q}").json] == ids[::-1]
    assert [d["id"] for d in served.call("GET", f"/descriptors/{Q}&appname=a").json] == [ids[2], ids[0]]
    assert served.call("GET", "/descriptors/?namespace=other").json == []


@pytest.mark.parametrize(("query", "deleted"), [("", 2), ("&keepLatest=true", 2), ("&keepLatest=false", 3)])
def test_descriptors_are_deleted_in_bulk(served: Any, make_document: Any, query: str, deleted: int) -> None:
    for app in ("a", "a", "b", "a"):
        served.call("POST", f"/descriptors/{Q}", make_document(app))
    answer = served.call("DELETE", f"/descriptors/{Q}&appname=a{query}")
    assert (answer.status, answer.json) == (200, {"deleted": deleted})
    assert len(served.call("GET", f"/descriptors/{Q}&appname=a").json) == 3 - deleted
    assert len(served.call("GET", f"/descriptors/{Q}&appname=b").json) == 1


def test_what_somebody_else_deletes_at_the_same_time_is_no_error(
    served: Any, make_document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [served.call("POST", f"/descriptors/{Q}", make_document("a")).json["id"] for _ in range(3)]
    listed = DescriptorCommands.listed

    def and_one_goes(commands: DescriptorCommands, *arguments: Any) -> Any:
        found = list(listed(commands, *arguments))
        monkeypatch.undo()
        commands.delete("shop-ns", ids[1])
        return found

    monkeypatch.setattr(DescriptorCommands, "listed", and_one_goes)
    answer = served.call("DELETE", f"/descriptors/{Q}&appname=a&keepLatest=false")
    assert (answer.status, answer.json) == (200, {"deleted": 2})
    assert served.call("GET", f"/descriptors/{Q}").json == []


def test_if_match_guards_a_put(served: Any, make_document: Any) -> None:
    made = served.call("POST", f"/descriptors/{Q}", make_document())
    path, tag = made.headers["Location"], made.headers["ETag"]
    assert tag.startswith('"')
    for wrong in ('"999999"', "nonsense", f"W/{tag}", ""):
        refused = served.call("PUT", path, make_document(version="2"), {"If-Match": wrong})
        assert refused.problem["status"] == 412, wrong
    assert served.call("GET", path).headers["ETag"] == tag
    assert served.call("PUT", path, make_document(version="2"), {"If-Match": tag}).status == 204
    assert served.call("PUT", path, make_document(version="3"), {"If-Match": tag}).problem["status"] == 412
    assert served.call("PUT", path, make_document(version="3"), {"If-Match": "*"}).status == 204


def test_a_host_belongs_to_one_app(served: Any, make_document: Any) -> None:
    ports = {"containers": [{"name": "main", "image": "x", "ports": [{"containerPort": 8080}]}]}
    first = make_document("a", frontend="shop.example.com", podspec=ports)
    assert served.call("POST", f"/descriptors/{Q}", first).status == 201
    second = make_document("b", frontend="shop.example.com", podspec=ports)
    assert served.call("POST", f"/descriptors/{Q}", second).problem["status"] == 409
    assert len(served.store.find(StoredDescriptor)) == 1


def test_validation_stores_nothing_and_names_every_error(served: Any, make_document: Any) -> None:
    assert served.call("POST", f"/descriptors/validate/{Q}", make_document()).status == 200
    wrong = make_document(replicas=-1, deploymentType="red-black")
    problem = served.call("POST", f"/descriptors/validate{Q}", wrong).problem
    assert problem["status"] == 400
    assert {error["path"] for error in problem["errors"]} == {"replicas", "deploymentType"}
    assert all(set(error) == {"path", "message"} for error in problem["errors"])
    assert served.store.find(StoredDescriptor) == []
    assert served.call("GET", f"/descriptors/validate{Q}").headers["Allow"]


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
def test_bad_documents_are_a_400(served: Any, path: str, body: bytes) -> None:
    problem = served.call("POST", f"{path}{Q}", body).problem
    assert problem["status"] == 400
    assert problem["errors"]
    assert served.store.find(StoredDescriptor) == []


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "nonsense", ""])
def test_a_body_is_read_whatever_its_type_is_said_to_be(served: Any, make_document: Any, content_type: str) -> None:
    answer = served.call("POST", f"/descriptors/{Q}", make_document(), {"Content-Type": content_type})
    assert answer.status == 201


def test_a_chunked_body_is_read(served: Any, make_document: Any) -> None:
    data = json.dumps(make_document()).encode()
    with served.connection() as connection:
        connection.request(
            "POST",
            f"/descriptors/{Q}",
            body=iter([data[:20], data[20:]]),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        with connection.getresponse() as response:
            assert response.status == 201


def test_a_body_of_one_mebibyte_passes_and_a_longer_one_is_a_413(served: Any, make_document: Any) -> None:
    data = json.dumps(make_document()).encode()
    limit = 1024 * 1024
    assert served.call("POST", f"/descriptors/{Q}", data + b" " * (limit - len(data))).status == 201
    for size in (limit + 1, 3 * limit):
        assert served.call("POST", f"/descriptors/{Q}", data + b" " * (size - len(data))).problem["status"] == 413
    assert len(served.store.find(StoredDescriptor)) == 1


# --- deployments ----------------------------------------------------------------------------------------------------


def test_a_deployment_is_queued_and_shown(served: Any, make_document: Any) -> None:
    descriptor = served.call("POST", f"/descriptors/{Q}", make_document()).json["id"]
    made = served.call("POST", f"/deployments/{Q}&descriptorId={descriptor}")
    assert made.status == 202
    id = made.json["id"]
    assert made.headers["Location"] == f"/deployments/{id}/?namespace=shop-ns"
    assert (made.json["status"], made.json["version"]) == ("DEPLOYING", "1")
    assert made.json["descriptor"]["id"] == descriptor
    assert [operation.deployment for operation in served.store.find(Operation)] == [id]

    shown = served.call("GET", made.headers["Location"])
    assert (shown.status, shown.json, shown.headers["ETag"]) == (200, made.json, made.headers["ETag"])
    assert served.call("GET", f"/deployments/{id}?namespace=other").problem["status"] == 404


def test_what_a_deployment_needs(served: Any) -> None:
    assert served.call("POST", f"/deployments/{Q}").problem["errors"][0]["path"] == "descriptorId"
    assert served.call("POST", f"/deployments/{Q}&descriptorId={uuid.uuid4()}").problem["status"] == 404


def test_a_full_queue_says_when_to_come_back(served: Any, make_document: Any, settings: Settings) -> None:
    descriptor = served.call("POST", f"/descriptors/{Q}", make_document()).json["id"]
    path = f"/deployments/{Q}&descriptorId={descriptor}"
    assert {served.call("POST", path).status for _ in range(settings.queue_limit)} == {202}
    full = served.call("POST", path)
    assert full.problem["status"] == 429
    assert int(full.headers["Retry-After"]) >= 1
    assert len(served.store.find(Deployment)) == settings.queue_limit


def test_lists_of_deployments(served: Any) -> None:
    assert served.call("GET", f"/deployments/{Q}").json == []
    a1, b1, a2 = (served.deployment(app).id for app in ("a", "b", "a"))
    served.end(a1)

    def ids(query: str) -> list[str]:
        return [deployment["id"] for deployment in served.call("GET", f"/deployments/{Q}{query}").json]

    assert ids("") == [a2, b1, a1]
    assert ids("&appname=a") == [a2, a1]
    assert ids("&limit=1") == [a2, b1]
    assert ids("&appname=a&limit=1") == [a2]
    assert ids("&status=DEPLOYED") == [a1]
    assert ids("&status=DEPLOYING&appname=b") == [b1]
    assert ids("&status=FAILURE") == []


def test_redeploy_makes_a_new_deployment(served: Any) -> None:
    first = served.deployment()
    served.end(first.id)
    again = served.call("PUT", f"/deployments/{first.id}/{Q}")
    assert again.status == 202
    assert again.json["id"] != first.id
    assert again.headers["Location"] == f"/deployments/{again.json['id']}/?namespace=shop-ns"
    assert again.json["descriptor"] == first.descriptor
    assert served.call("PUT", f"/deployments/nobody/{Q}").problem["status"] == 404


@pytest.mark.parametrize(
    ("query", "purge"), [("", False), ("&deleteDeployment=false", False), ("&deleteDeployment=true", True)]
)
def test_undeploy(served: Any, query: str, purge: bool) -> None:
    id = served.deployment().id
    served.end(id)
    answer = served.call("DELETE", f"/deployments/{id}/{Q}{query}")
    assert (answer.status, answer.json["status"]) == (202, "UNDEPLOYING")
    assert served.store.get(Deployment, id).purge is purge
    assert served.call("DELETE", f"/deployments/nobody/{Q}").problem["status"] == 404


@pytest.mark.parametrize(("query", "left"), [("", 1), ("&undeploy=false", 1), ("&undeploy=true", 1)])
def test_deployments_are_deleted_in_bulk(served: Any, query: str, left: int) -> None:
    ended, live = served.deployment("a").id, served.deployment("a").id
    served.end(ended, Status.FAILURE)
    served.end(live)
    answer = served.call("DELETE", f"/deployments/{Q}&appname=a{query}")
    assert answer.status == 202
    assert served.store.get(Deployment, ended) is None
    expected = Status.UNDEPLOYING if query.endswith("true") else Status.DEPLOYED
    assert served.store.get(Deployment, live).status is expected
    assert len(served.store.find(Deployment)) == left


def test_a_record_that_goes_meanwhile_keeps_nobody_from_deleting_the_rest(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes, stays = served.deployment("a").id, served.deployment("a").id
    listed = [served.store.get(Deployment, id) for id in (goes, stays)]
    served.store.commit(Delete(listed[0]))
    monkeypatch.setattr(served.service, "deployments", lambda *_: listed)
    answer = served.call("DELETE", f"/deployments/{Q}&appname=a&undeploy=true")
    assert (answer.status, answer.json) == (202, {"deleted": 1})
    assert served.store.get(Deployment, stays).status is Status.UNDEPLOYING


def test_the_log_is_text(served: Any) -> None:
    id = served.deployment().id
    served.deployment_log.append(id, "two\nlines, ümläut")
    answer = served.call("GET", f"/deployments/{id}/logs{Q}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    first, second, third = answer.body.decode().splitlines()
    assert "queued" in first
    assert datetime.datetime.fromisoformat(second.split(" ")[0]).tzinfo is not None
    assert second.endswith(" two")
    assert third == "  lines, ümläut"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"

    tail = served.call("GET", f"/deployments/{id}/logs/{Q}&after=1").body.decode()
    assert tail == f"{second}\n{third}\n"
    assert served.call("GET", f"/deployments/{id}/logs{Q}&after=2").body == b""
    assert served.call("GET", f"/deployments/nobody/logs{Q}").problem["status"] == 404


def test_a_long_log_is_streamed(served: Any) -> None:
    id = served.deployment().id
    for number in range(3000):
        served.deployment_log.append(id, f"line {number} " + "x" * 300)
    answer = served.call("GET", f"/deployments/{id}/logs{Q}")
    assert answer.headers["Content-Length"] is None
    assert answer.headers["X-Next-After"] == "3001"
    lines = answer.body.decode().splitlines()
    assert [line.split(" ")[2] for line in lines[1:]] == [str(number) for number in range(3000)]


def test_a_log_is_read_piece_by_piece_while_it_grows(served: Any, run: Any) -> None:
    """Each answer ends where it says that it does, so the pieces make the whole."""
    id = served.deployment().id
    total = 4000
    read_once = threading.Event()

    def write() -> None:
        for number in range(total):
            if number == total // 2:
                assert read_once.wait(20)
            served.deployment_log.append(id, f"{number}\n" + "x" * 200)

    written = run(write)
    text, after, answers = "", "0", 0
    while after != str(total + 1):
        answer = served.call("GET", f"/deployments/{id}/logs{Q}&after={after}")
        pieces = answer.body.decode()
        # A message begins with its time; its further lines are indented.
        messages = [line for line in pieces.splitlines() if not line.startswith("  ")]
        assert int(answer.headers["X-Next-After"]) - int(after) == len(messages)
        text, after, answers = text + pieces, answer.headers["X-Next-After"], answers + 1
        read_once.set()
    assert written.get(timeout=20) is None
    assert text == served.call("GET", f"/deployments/{id}/logs{Q}").body.decode()
    assert answers > 1


@pytest.mark.parametrize("after", [1, 2, 1000])
def test_after_the_end_there_is_nothing_and_the_answer_says_where_that_is(served: Any, after: int) -> None:
    id = served.deployment().id
    answer = served.call("GET", f"/deployments/{id}/logs{Q}&after={after}")
    assert (answer.status, answer.body, answer.headers["X-Next-After"]) == (200, b"", "1")
    head = served.call("HEAD", f"/deployments/{id}/logs{Q}&after={after}")
    assert (head.status, head.headers["X-Next-After"]) == (200, "1")


def test_health_check_data(served: Any) -> None:
    record = served.deployment()
    path = f"/deployments/{record.id}/healthcheckdata{Q}"
    assert served.call("GET", path).json == []
    entries = [{"podName": "shop-1-x", "value": '{"healthy": true}'}]
    served.store.commit(
        Create(HealthData(namespace=record.namespace, app=record.app, deployment=record.id, entries=entries))
    )
    assert served.call("GET", path).json == entries
    assert served.call("GET", f"/deployments/nobody/healthcheckdata{Q}").problem["status"] == 404


# --- the service itself -----------------------------------------------------------------------------------------------


def test_what_the_service_is(served: Any) -> None:
    start = served.call("GET", "/").json
    assert (start["service"], start["version"]) == ("deployer", deployer.__version__)
    for link in start["links"].values():
        # Every link leads somewhere: whatever it needs is missing, but not the route.
        answer = served.call("GET", link.partition("?")[0].replace("{id}", "x"))
        assert answer.status in (200, 400, 405, 426), link
    assert served.call("GET", "/plugins/").json == [{"name": "one", "state": "ok"}]
    assert served.call("GET", "/healthz").json == {"status": "ok"}


def test_readiness_gives_its_reasons(served: Any) -> None:
    assert served.call("GET", "/readyz").status == 200
    served.reasons += ["the lease is lost", "3 threads hang"]
    problem = served.call("GET", "/readyz/").problem
    assert problem["status"] == 503
    assert problem["detail"] == "the lease is lost; 3 threads hang"
    assert served.call("GET", "/healthz").status == 200


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
def test_other_methods_are_a_405_that_names_the_possible_ones(served: Any, path: str, methods: str) -> None:
    possible = set(methods.split()) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - possible:
        answer = served.call(method, f"{path}{Q}")
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(", ")) == possible
        if method != "HEAD":
            assert method in answer.problem["detail"]


@pytest.mark.parametrize(("path", "methods"), [route for route in ROUTES if route[0].startswith("/de")])
@pytest.mark.parametrize("query", ["", "?namespace=", "?namespace=a&namespace=b"])
def test_a_namespace_is_needed(served: Any, path: str, methods: str, query: str) -> None:
    for method in methods.split():
        for slash in ("", "/"):
            problem = served.call(method, f"{path}{slash}{query}", b"{}").problem
            assert (problem["status"], problem["errors"][0]["path"]) == (400, "namespace")


@pytest.mark.parametrize(("path", "methods"), [route for route in ROUTES if "GET" in route[1]])
def test_head_is_get_without_a_body(served: Any, path: str, methods: str) -> None:
    path = path.replace("/x", f"/{served.deployment().id}") if "deployments" in path else path
    with served.connection() as connection:
        get, head = (served.call(method, f"{path}{Q}", on=connection) for method in ("GET", "HEAD"))
    assert head.status == get.status
    assert head.body == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert head.headers["ETag"] == get.headers["ETag"]


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/metrics/x", "/descriptors/a/b", "/deployments/x/y/z", "/%FF%ED%A0%80", "/stream"],
)
def test_unknown_routes(served: Any, path: str) -> None:
    assert served.call("GET", f"{path}{Q}").problem["status"] == 404
    assert served.call("POST", f"{path}{Q}").problem["status"] == 404


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
def test_bad_parameters_are_a_400_that_names_them(served: Any, method: str, path: str) -> None:
    problem = served.call(method, f"{path}{'&' if '?' in path else '?'}namespace=shop-ns").problem
    assert problem["status"] == 400
    assert problem["errors"][0]["path"] in problem["detail"]


@pytest.mark.parametrize("echoed", ["%ED%A0%80", "%00", "%FF", "%0D%0AX-Evil:%201", "%22%3Cscript%3E", "%F0%9F%98%80"])
def test_echoed_input_is_never_a_500(served: Any, echoed: str) -> None:
    for method, path in [
        ("GET", f"/{echoed}"),
        ("GET", f"/deployments/{echoed}{Q}"),
        ("GET", f"/deployments/x?namespace={echoed}"),
        ("POST", f"/deployments/{Q}&descriptorId={echoed}"),
        ("PATCH", f"/deployments/{echoed}"),
        ("DELETE", f"/deployments/{Q}&appname=a&undeploy={echoed}"),
    ]:
        answer = served.call(method, path)
        assert 400 <= answer.problem["status"] < 500
        assert "X-Evil" not in answer.headers
    served.call("GET", "/healthz", headers={"Host": "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")})
    path = f"/descriptors/{served.deployment().descriptor_id}{Q}"
    answer = served.call("DELETE", path, headers={"If-Match": "\xff\xfe"})
    assert answer.problem["status"] == 412


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_trouble_behind_the_service(
    served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cases: list[tuple[Exception, int]] = [
        (StoreUnavailable("the disk is full"), 503),
        (KubeUnavailable("no answer from the API server", retry_after=2.5), 503),
        (KubeError("the API server refused", status=418), 502),
    ]
    for error, status in cases:
        monkeypatch.setattr(served.store, "get", _raising(error))
        answer = served.call("GET", f"/deployments/x{Q}")
        assert (answer.status, answer.problem["detail"]) == (status, str(error))
        if isinstance(error, KubeUnavailable):
            assert answer.headers["Retry-After"] == "3"

    monkeypatch.setattr(served.store, "get", _raising(RuntimeError("the password is hunter2")))
    with caplog.at_level(logging.ERROR):
        answer = served.call("GET", f"/deployments/x{Q}")
    assert answer.problem["status"] == 500
    assert b"hunter2" not in answer.body
    assert "Traceback" in caplog.text


def _raising(error: Exception) -> Callable[..., Any]:
    def raise_it(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return raise_it


def test_requests_under_way_are_finished_by_stop(served: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go = threading.Event(), threading.Event()
    real = served.store.get

    def slow(*args: Any, **more: Any) -> Any:
        inside.set()
        assert go.wait(20)
        return real(*args, **more)

    id = served.deployment().id
    monkeypatch.setattr(served.store, "get", slow)
    answer = run(served.call, "GET", f"/deployments/{id}{Q}")
    assert inside.wait(20)
    stopped = run(served.server.stop, 20)
    go.set()
    assert answer.get(timeout=20).status == 200
    assert stopped.get(timeout=20) is None

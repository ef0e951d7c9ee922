"""The client against a server that refuses, hangs, truncates, throttles and lies."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployer.core import failpoints
from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import (
    Cancelled,
    DeadlineExceeded,
    DeployerError,
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeExpired,
    KubeForbidden,
    KubeNotFound,
    KubeRejected,
    KubeUnavailable,
)
from deployer.core.model.kind import CONTROLLER, INGRESS, NAMESPACE, POD
from deployer.kube import client as client_module
from deployer.kube.client import KubeClient, connect
from deployer.kube.http.transport import TokenFile
from deployer.settings import Settings

OBJECT = {"metadata": {"name": "a", "resourceVersion": "5"}}


def in_seconds(seconds: float) -> CancelScope:
    return CancelScope(time.monotonic() + seconds)


# --- what goes over the wire --------------------------------------------------------------------------------------


def test_verbs_on_the_wire(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.json({"items": [{}], "metadata": {"resourceVersion": "7"}})
    client.get(POD, "a", "ns")
    items, version = client.list(INGRESS, "ns", {"b": "2", "a": "1"}, "metadata.name=x")
    client.list(POD)
    client.create(CONTROLLER, OBJECT, "ns")
    client.create(CONTROLLER, OBJECT, "ns", dry_run=True)
    client.replace(CONTROLLER, "a", OBJECT, "ns")
    client.patch(CONTROLLER, "a", {"metadata": {"labels": {"x": None}}}, "ns")
    client.delete(CONTROLLER, "a", "ns", uid="u1", grace_seconds=0)
    client.get(NAMESPACE, "ns")
    assert (items, version) == ([{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress"}], "7")
    sent = [(r.method, r.path, r.query) for r in server.requests]
    strict = {"fieldValidation": "Strict"}
    controllers = "/api/v1/namespaces/ns/replicationcontrollers"
    assert sent == [
        ("GET", "/api/v1/namespaces/ns/pods/a", {}),
        (
            "GET",
            "/apis/networking.k8s.io/v1/namespaces/ns/ingresses",
            {"labelSelector": "a=1,b=2", "fieldSelector": "metadata.name=x"},
        ),
        ("GET", "/api/v1/pods", {}),
        ("POST", controllers, strict),
        ("POST", controllers, {**strict, "dryRun": "All"}),
        ("PUT", f"{controllers}/a", strict),
        ("PATCH", f"{controllers}/a", strict),
        ("DELETE", f"{controllers}/a", {}),
        ("GET", "/api/v1/namespaces/ns", {}),
    ]
    assert server.requests[6].headers["Content-Type"] == "application/merge-patch+json"
    assert json.loads(server.requests[7].body) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u1"},
        "propagationPolicy": "Background",
        "gracePeriodSeconds": 0,
    }
    assert client.requests == {"get": 2, "list": 2, "create": 2, "replace": 1, "patch": 1, "delete": 1}


def test_pod_log_is_capped(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.json(b"one\n\xfftwo\n" * 50_000)
    text = client.pod_log("ns", "a", "c", 5, previous=True)
    assert len(text) <= client_module.LOG_BYTES and text.endswith("two\n")
    query = {"container": "c", "tailLines": "5", "limitBytes": "65536", "previous": "true"}
    assert (server.requests[0].path, server.requests[0].query) == ("/api/v1/namespaces/ns/pods/a/log", query)


def test_lines_of_a_log_come_whole(server: Any, client: KubeClient) -> None:
    """The last one may have been cut, or may not be written to its end."""
    server.answer = lambda request: request.json(b"1 one\n2 \xfftwo\n3 thr")
    assert client.pod_lines("ns", "a", "c", "2026-01-02T03:04:05Z") == ["1 one", "2 \ufffdtwo"]
    query = {"container": "c", "timestamps": "true", "limitBytes": "262144", "sinceTime": "2026-01-02T03:04:05Z"}
    assert (server.requests[0].path, server.requests[0].query) == ("/api/v1/namespaces/ns/pods/a/log", query)
    server.answer = lambda request: request.json(b"1 begun")
    assert client.pod_lines("ns", "a", "c") == []
    server.answer = lambda request: request.json(b"x" * 300_000)
    assert client.pod_lines("ns", "a", "c") == ["x" * client_module.FOLLOWED_BYTES]


def test_a_log_that_cannot_be_had_holds_nobody_up(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.reset()
    with pytest.raises(KubeUnavailable):
        client.pod_log("ns", "a", "c", scope=in_seconds(60))
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["../secrets/x", "a/b", "", "a?x=1", "..", "a b", "a\n"])
def test_a_name_never_becomes_another_path(server: Any, client: KubeClient, name: str) -> None:
    with pytest.raises(KubeRejected):
        client.get(POD, name, "ns")
    with pytest.raises(KubeRejected):
        client.get(POD, "a", name)
    assert server.requests == []


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "answer", "expected"),
    [
        ("get", (404, "NotFound"), KubeNotFound),
        ("create", (409, "AlreadyExists"), KubeAlreadyExists),
        ("create", (409, "Conflict"), KubeConflict),
        ("replace", (409, "Conflict"), KubeConflict),
        ("get", (410, "Expired"), KubeExpired),
        ("get", (403, "Forbidden"), KubeForbidden),
        ("create", (422, "Invalid"), KubeRejected),
        ("create", (400, "BadRequest"), KubeRejected),
        ("create", (500, "InternalError"), KubeUnavailable),
        ("get", (418, ""), KubeError),
        ("get", (302, ""), KubeError),
    ],
)
def test_errors(server: Any, client: KubeClient, call: str, answer: tuple[int, str], expected: type) -> None:
    code, reason = answer
    server.answer = lambda request: request.status(code, reason, "its own words")
    arguments: dict[str, tuple[Any, ...]] = {
        "get": (POD, "a", "ns"),
        "create": (POD, OBJECT, "ns"),
        "replace": (POD, "a", OBJECT, "ns"),
    }
    with pytest.raises(KubeError) as caught:
        getattr(client, call)(*arguments[call])
    assert type(caught.value) is expected
    assert (caught.value.status, caught.value.reason) == (code, reason)
    assert "its own words" in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.requests) == 1


def test_forbidden_names_verb_resource_and_namespace(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.status(403, "Forbidden", "no right")
    with pytest.raises(KubeForbidden, match=r"create replicationcontrollers in namespace ns: no right"):
        client.create(CONTROLLER, OBJECT, "ns")


def test_an_answer_that_is_not_the_api_servers(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.json(b"<html>hello</html>")
    with pytest.raises(KubeUnavailable, match="is the address right"):
        client.version()
    server.answer = lambda request: request.json(b"<html>not here</html>", 404)
    with pytest.raises(KubeNotFound):
        client.get(POD, "a", "ns")


# --- retries ------------------------------------------------------------------------------------------------------


def failing(times: int, how: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda request: how(request) if request.number < times else request.json(OBJECT)


FAULTS: dict[str, Callable[[Any], None]] = {
    "429": lambda r: r.status(429, "TooManyRequests", Retry_After="0"),
    "503": lambda r: r.status(503, "ServiceUnavailable"),
    "500": lambda r: r.status(500, "InternalError"),
    "504": lambda r: r.status(504, "Timeout"),
    "reset": lambda r: r.reset(),
    "truncated": lambda r: r.truncate(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_and_guarded_writes_are_repeated(server: Any, client: KubeClient, fault: str) -> None:
    for call in (
        lambda: client.get(POD, "a", "ns"),
        lambda: client.replace(POD, "a", OBJECT, "ns"),
        lambda: client.patch(POD, "a", {"metadata": {"resourceVersion": "5"}}, "ns"),
        lambda: client.delete(POD, "a", "ns", uid="u"),
    ):
        server.requests.clear()
        server.answer = failing(2, FAULTS[fault])
        call()
        assert len(server.requests) == 3


@pytest.mark.parametrize("fault", FAULTS)
def test_a_post_is_repeated_only_when_nothing_was_done(server: Any, client: KubeClient, fault: str) -> None:
    server.answer = failing(2, FAULTS[fault])
    if fault in ("429", "503"):
        client.create(POD, OBJECT, "ns")
        assert len(server.requests) == 3
    else:
        with pytest.raises(KubeUnavailable):
            client.create(POD, OBJECT, "ns")
        assert len(server.requests) == 1


def test_a_replace_without_resource_version_is_not_repeated(server: Any, client: KubeClient) -> None:
    server.answer = failing(1, FAULTS["reset"])
    with pytest.raises(KubeUnavailable):
        client.replace(POD, "a", {"metadata": {}}, "ns")
    assert len(server.requests) == 1


def test_retry_after_is_waited_for(server: Any, client: KubeClient) -> None:
    server.answer = failing(1, lambda r: r.status(429, "TooManyRequests", Retry_After="1"))
    client.create(POD, OBJECT, "ns", scope=in_seconds(10))
    first, second = server.requests
    assert 1.0 <= second.at - first.at < 3


@pytest.mark.parametrize("retry_after", ["3600", "Wed, 01 Jan 2200 00:00:00 GMT"])
def test_a_long_retry_after_ends_at_the_deadline(server: Any, client: KubeClient, retry_after: str) -> None:
    server.answer = lambda request: request.status(503, "", "drained", Retry_After=retry_after)
    for call in (
        lambda scope: client.get(POD, "a", "ns", scope=scope),
        lambda scope: client.create(POD, OBJECT, "ns", scope=scope),
        lambda scope: client.delete(POD, "a", "ns", uid="u", scope=scope),
    ):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="drained"):
            call(in_seconds(0.2))
        assert time.monotonic() - began < 2
    assert len(server.requests) == 3


def test_without_a_gate_a_long_retry_after_is_an_error(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.status(503, "", "drained", Retry_After="3600")
    with pytest.raises(KubeUnavailable, match="drained") as caught:
        client.get(POD, "a", "ns")
    assert caught.value.retry_after == 3600


def test_the_budget_ends_retries(server: Any, client: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_BUDGET", 0.1)
    server.answer = lambda request: request.status(500)
    with pytest.raises(KubeUnavailable):
        client.get(POD, "a", "ns")
    assert 2 <= len(server.requests) < 100


def test_refused_until_the_server_is_back(fault_server: Any, quick: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    client = connect(Settings(kubernetes=f"http://127.0.0.1:{port}"))
    with pytest.raises(DeadlineExceeded, match="cannot be reached"):
        client.create(POD, OBJECT, "ns", scope=in_seconds(0.2))
    assert client.requests["create"] > 1  # nothing reached anybody, so even a POST was tried again
    timer = threading.Timer(0.1, lambda: started.append(fault_server(port)))
    started: list[Any] = []
    timer.start()
    with pytest.raises(KubeNotFound):
        client.get(POD, "a", "ns", scope=in_seconds(10))
    timer.join()
    started[0].close()
    client.close()


def test_a_silent_server_costs_the_read_timeout(server: Any, client: KubeClient, monkeypatch: Any) -> None:
    monkeypatch.setattr(client._transport, "read_timeout", 0.1)
    server.answer = failing(1, lambda request: request.hang())
    client.get(POD, "a", "ns")
    assert len(server.requests) == 2
    server.requests.clear()
    with pytest.raises(KubeUnavailable, match="did not answer to create pods in namespace ns: no answer in time"):
        client.create(POD, OBJECT, "ns")
    assert len(server.requests) == 1


def test_a_read_ends_with_its_gate(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.hang()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.get(POD, "a", "ns", scope=in_seconds(0.2))
    scope = CancelScope()
    closer = threading.Thread(target=lambda: (server.wait_for(2), scope.close(Cancelled("stop"))))
    closer.start()
    with pytest.raises(Cancelled):
        client.get(POD, "a", "ns", scope=scope)
    closer.join()
    assert time.monotonic() - began < 5
    with pytest.raises(Cancelled):
        client.list(POD, "ns", scope=scope)
    assert len(server.requests) == 2


def test_no_write_begins_behind_a_closed_gate_and_settle_waits_for_one_under_way(
    server: Any, client: KubeClient
) -> None:
    scope, answered = CancelScope(), threading.Event()

    def answer(request: Any) -> None:
        answered.wait(10)
        request.json(OBJECT)

    server.answer = answer
    results: list[object] = []
    writer = threading.Thread(target=lambda: results.append(client.create(POD, OBJECT, "ns", scope=scope)))
    writer.start()
    server.wait_for(1)
    scope.close(Cancelled("stop"))
    assert not scope.settle(0.05)
    answered.set()
    assert scope.settle(10)
    writer.join()
    assert results == [OBJECT]
    for call in (
        lambda: client.create(POD, OBJECT, "ns", scope=scope),
        lambda: client.replace(POD, "a", OBJECT, "ns", scope=scope),
        lambda: client.patch(POD, "a", {}, "ns", scope=scope),
        lambda: client.delete(POD, "a", "ns", uid="u", scope=scope),
    ):
        with pytest.raises(Cancelled):
            call()
    assert len(server.requests) == 1


def test_every_write_passes_both_failpoints(
    server: Any, client: KubeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failpoints.configure({"DEPLOYER_FAILPOINT_COUNT": str(tmp_path / "counts")})
    try:
        server.answer = lambda request: request.json(OBJECT)
        client.get(POD, "a", "ns")
        client.create(POD, OBJECT, "ns", dry_run=True)
        assert failpoints.counts() == {}
        client.create(POD, OBJECT, "ns")
        client.replace(POD, "a", OBJECT, "ns")
        client.patch(POD, "a", {}, "ns")
        client.delete(POD, "a", "ns", uid="u")
        assert failpoints.counts() == {"kube.before": 4, "kube.after": 4}
        server.answer = lambda request: request.reset()
        with pytest.raises(KubeUnavailable):
            client.create(POD, OBJECT, "ns")
        assert failpoints.counts() == {"kube.before": 5, "kube.after": 4}
    finally:
        failpoints.configure({})


# --- credentials and connecting -----------------------------------------------------------------------------------


def test_a_token_that_rotates(server: Any, tmp_path: Path, quick: None) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    client = connect(Settings(kubernetes=server.url, kubernetes_token_file=str(file)))
    server.answer = lambda request: request.json(OBJECT)
    client.get(POD, "a", "ns")
    file.write_text("")
    client.get(POD, "a", "ns")
    file.unlink()
    client.get(POD, "a", "ns")
    draft = tmp_path / "draft"
    draft.write_text("two")
    draft.replace(file)
    client.get(POD, "a", "ns")
    assert [r.headers["Authorization"] for r in server.requests] == ["Bearer one"] * 3 + ["Bearer two"]
    client.close()


def test_a_401_while_the_token_changes_hands(
    server: Any, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    stamp = file.stat()
    client = connect(Settings(kubernetes=server.url, kubernetes_token_file=str(file)))

    def answer(request: Any) -> None:
        if request.headers["Authorization"] == "Bearer new":
            request.json(OBJECT)
            return
        # Same size, time and inode: only looking into it tells.
        file.write_text("new")
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        request.status(401, "Unauthorized")

    server.answer = answer
    client.create(POD, OBJECT, "ns")
    assert len(server.requests) == 2
    monkeypatch.setattr(client_module, "REFUSED_BORNE", 0.0)
    server.answer = lambda request: request.status(401, "Unauthorized")
    with pytest.raises(KubeForbidden):
        client.get(POD, "a", "ns")
    assert len(server.requests) <= 6
    client.close()


@pytest.mark.slow
def test_401s_after_the_token_was_good_are_borne_with_until_the_deadline(
    server: Any, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    client = connect(Settings(kubernetes=server.url, kubernetes_token_file=str(file)))
    server.answer = lambda request: request.json(OBJECT)
    client.get(POD, "a", "ns")

    def answer(request: Any) -> None:
        if request.number == 20:
            file.write_text("new")
        good = request.headers["Authorization"] == "Bearer new"
        request.json(OBJECT) if good else request.status(401, "Unauthorized")

    server.answer = answer
    client.create(POD, OBJECT, "ns", scope=in_seconds(10))
    assert len(server.requests) > 20
    server.answer = lambda request: request.status(401, "Unauthorized", "who is it")
    with pytest.raises(DeadlineExceeded, match="who is it"):
        client.get(POD, "a", "ns", scope=in_seconds(0.2))
    monkeypatch.setattr(client_module, "REFUSED_BORNE", 0.0)
    with pytest.raises(KubeForbidden):
        client.get(POD, "a", "ns", scope=in_seconds(10))
    client.close()


def test_token_file_without_content(tmp_path: Path) -> None:
    assert TokenFile(tmp_path / "none").header() is None


def test_basic_authentication_and_bare_addresses(server: Any) -> None:
    settings = Settings(kubernetes=f"127.0.0.1:{server.port}/", kubernetes_username="me", kubernetes_password="s3cret")
    client = connect(settings)
    with pytest.raises(KubeNotFound) as caught:
        client.get(POD, "a", "ns")
    assert server.requests[0].headers["Authorization"] == "Basic bWU6czNjcmV0"
    assert "s3cret" not in str(caught.value)
    client.close()


def test_kubeconfig(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": "from-file"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(file))
    client = connect(Settings(kube_context="x"))
    server.answer = lambda request: request.json({"gitVersion": "v1"})
    assert client.version() == {"gitVersion": "v1"}
    assert server.requests[0].headers["Authorization"] == "Bearer from-file"
    client.close()


def test_a_proxy_in_the_environment_is_not_used_for_loopback(
    server: Any, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = connect(Settings(kubernetes=server.url))
    with pytest.raises(KubeNotFound):
        client.get(POD, "a", "ns")
    client.close()


def test_all_errors_are_ours() -> None:
    assert issubclass(KubeError, DeployerError)

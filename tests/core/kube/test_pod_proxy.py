"""The verb `pod_proxy`: what is sent with the Deployer's credentials, and whose answer it is that comes back."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import (
    Cancelled,
    DeployerError,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeRejected,
    KubeUnavailable,
)
from deployer.core.model.kind import POD
from deployer.kube import proxied
from deployer.kube.client import KubeClient, connect
from deployer.kube.http.transport import Answer
from deployer.settings import Settings

HEADERS = {"User-Agent": "deployer-health", "Accept-Encoding": "identity", "Connection": "close"}


def ask(client: KubeClient, path: str = "/health", **changes: Any) -> Answer:
    arguments: dict[str, Any] = {"headers": HEADERS, "seconds": 10.0, "limit": 1000}
    return client.pod_proxy("shop", "shop-1-x", 9999, path, **(arguments | changes))


def status(code: int, reason: str, message: str) -> bytes:
    about = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return json.dumps({**about, "message": message, "reason": reason, "code": code}).encode()


# --- what is sent -------------------------------------------------------------------------------------------------


def test_it_is_one_request_that_is_counted(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.json(b"fine", Content_Type="text/plain")
    answer = ask(client, "/a/b;c=d/?x=1&y=%C3%BC/../z", headers={**HEADERS, "X-Mine": "1"})
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"fine", "text/plain")
    [request] = server.requests
    assert request.handler.path == "/api/v1/namespaces/shop/pods/shop-1-x:9999/proxy/a/b;c=d/?x=1&y=%C3%BC/../z"
    assert sorted(request.headers) == ["Accept-Encoding", "Connection", "Host", "User-Agent", "X-Mine"]
    assert client.requests == {"proxy": 1}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "health",
        "/../../../../secrets/s",
        "/a/..",
        "/./a",
        "/%2e%2E/a",
        "/.%2e",
        "/%252e%252e/a",
        "/a%2f..%2fb",
        "/a%5c..%5cb",
        "/a\\b",
        "//host/a",
        "/a//b",
        "/a#b",
        "/a?b#c",
        "/%zz",
        "/a b",
        "/a\r\nX: y",
        "/ü",
    ],
)
def test_paths_that_would_become_others_on_the_way(server: Any, client: KubeClient, path: str) -> None:
    with pytest.raises(KubeRejected, match="would be changed on its way"):
        ask(client, path)
    assert server.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "authorization",
        "Impersonate-User",
        "Impersonate-Extra-x",
        "X-Remote-User",
        "Proxy-Connection",
        "Upgrade",
        "Transfer-Encoding",
        "TE",
        "Expect",
        "Host",
    ],
)
def test_headers_that_are_meant_for_the_api_server(server: Any, client: KubeClient, name: str) -> None:
    with pytest.raises(KubeRejected, match=f"a header {name} would be meant for the API server"):
        ask(client, headers={**HEADERS, name: "x"})
    assert server.requests == []


def test_a_host_is_passed_on(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.json(b"fine")
    ask(client, host="shop.example.com:8443")
    assert server.requests[0].headers["Host"] == "shop.example.com:8443"


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://10.1.2.3:6443", True),
        ("https://[fd00::1]:6443/", True),
        ("http://localhost:8001", True),
        ("https://kubernetes.default.svc:443", True),
        ("https://kube.example.com:6443", False),
        ("https://10.1.2.3/k8s/clusters/c-1", False),
        ("https://kubernetes.example.com", False),
    ],
)
def test_a_host_that_may_lead_elsewhere_on_the_way_is_not_sent(address: str, safe: bool) -> None:
    """An ingress in front of the API server sends by name, and the Deployer's credentials with it."""
    if safe:
        proxied.check_host(address)
    else:
        with pytest.raises(KubeRejected, match="might be routed elsewhere"):
            proxied.check_host(address)


def test_names_and_methods_that_break_the_request(server: Any, client: KubeClient) -> None:
    for namespace, pod in (("shop/x", "p"), ("shop", "../x"), ("shop", "a?b")):
        with pytest.raises(KubeRejected):
            client.pod_proxy(namespace, pod, 80, "/", headers=HEADERS, seconds=1.0, limit=1)
    with pytest.raises(KubeRejected, match="passes no CONNECT on"):
        ask(client, method="CONNECT")
    assert server.requests == []


# --- whose answer it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "body", "kind", "said"),
    [
        (403, status(403, "Forbidden", "no, get pods/proxy"), KubeForbidden, "refused to get pods/proxy shop-1-x:9999"),
        (404, status(404, "NotFound", 'pods "shop-1-x" not found'), KubeNotFound, "not found"),
        (503, status(503, "ServiceUnavailable", "error trying to reach service: EOF"), KubeUnavailable, "EOF"),
        (500, status(500, "", "backend tried to switch protocol"), KubeUnavailable, "switch protocol"),
        (429, b"Too many requests, please try again later.\n", KubeUnavailable, "answered 429"),
        (429, b"The apiserver is shutting down, please try again later.\n", KubeUnavailable, "answered 429"),
        (500, b'Internal Server Error: "/api/v1/x": no', KubeUnavailable, "answered 500"),
        (500, b"This request caused apiserver to panic. Look in the logs", KubeUnavailable, "answered 500"),
        (503, b'{"kind":"Status","apiVersion":"v1",' + b" " * 2000, KubeUnavailable, "answered 503"),
    ],
)
def test_errors_of_the_api_server_are_no_answers(
    server: Any, client: KubeClient, *, code: int, body: bytes, kind: type[KubeError], said: str
) -> None:
    server.answer = lambda request: request.json(body, code, Retry_After="1")
    with pytest.raises(kind, match=said):
        ask(client)
    assert len(server.requests) == 1  # the health checks repeat, not the door


def test_whose_error_a_head_gets_cannot_be_told(server: Any, client: KubeClient) -> None:
    server.answer = lambda request: request.json(b"", 404)
    with pytest.raises(KubeNotFound):
        ask(client, method="HEAD")
    server.answer = lambda request: request.json(b"")
    assert ask(client, method="HEAD").status == 200


@pytest.mark.parametrize("code", [401, 404, 429, 500, 503])
@pytest.mark.parametrize("body", [b"", b"no", b'{"kind":"Pod"}', b'{"kind":"Status"}', b"[" * 900, b'"Status"'])
def test_errors_of_the_pod_are_answers(server: Any, client: KubeClient, code: int, body: bytes) -> None:
    server.answer = lambda request: request.json(body, code)
    answer = ask(client)
    assert (answer.status, answer.body) == (code, body)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", 103),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
    ],
)
def test_a_pod_cannot_answer_for_the_api_server(server: Any, client: KubeClient, first: bytes, code: int) -> None:
    """What it sends later, as after a 103, would come as the answer to the next request on the same connection."""
    hostile = []

    def answer(request: Any) -> None:
        if "/proxy/" in request.path:
            hostile.append(request.handler)
            request.handler.close_connection = False
            request.handler.connection.sendall(first)
        else:
            request.json({"metadata": {"name": "evil" if request.handler in hostile else "good"}})

    server.answer = answer
    assert client.get(POD, "p", "shop")["metadata"]["name"] == "good"
    assert ask(client).status == code
    assert client.get(POD, "p", "shop")["metadata"]["name"] == "good"
    assert ask(client).status == code
    assert client.get(POD, "p", "shop")["metadata"]["name"] == "good"


def test_refused_credentials_are_read_again(server: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    client = connect(Settings(kubernetes=server.url, kubernetes_token_file=str(token)))

    def answer(request: Any) -> None:
        if request.headers["Authorization"] == "Bearer new":
            request.json(b"fine")
        else:
            request.json(status(401, "Unauthorized", "Unauthorized"), 401)

    server.answer = answer
    with pytest.raises(KubeForbidden, match="Unauthorized"):
        ask(client)
    token.write_text("new")
    assert ask(client).body == b"fine"
    client.close()


# --- limits -------------------------------------------------------------------------------------------------------


def test_an_api_server_that_cannot_be_reached(server: Any, client: KubeClient) -> None:
    server.close()
    with pytest.raises(KubeUnavailable, match="cannot be reached"):
        ask(client)


def test_a_body_without_a_length_that_is_cut_off_by_the_deadline(server: Any, client: KubeClient) -> None:
    def answer(request: Any) -> None:
        request.handler.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhealthy")
        request.hang()

    server.answer = answer
    began = time.monotonic()
    with pytest.raises(KubeUnavailable):
        ask(client, seconds=0.4)
    assert time.monotonic() - began < 5


def test_a_closing_gate_breaks_it_off_in_the_body(server: Any, client: KubeClient) -> None:
    scope, begun = CancelScope(), threading.Event()

    def answer(request: Any) -> None:
        request.handler.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        begun.set()
        request.hang()

    def close() -> None:
        begun.wait(10)
        scope.close(Cancelled("stop"))

    server.answer = answer
    closing = threading.Thread(target=close)
    closing.start()
    began = time.monotonic()
    with pytest.raises(DeployerError) as caught:
        ask(client, scope=scope, seconds=30.0)
    closing.join()
    assert isinstance(caught.value, Cancelled) and time.monotonic() - began < 5

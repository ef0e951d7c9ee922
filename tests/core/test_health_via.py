"""Tests of which way health checks go, and of what is said when the API server stands in between."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import HealthTarget, PodUnreachable
from deployer.kube.client import connect
from deployer.plugins.health_probe import Probe
from deployer.plugins.health_simple import Simple
from deployer.settings import Settings
from deployer.toolkit.health.transport import Direct, ThroughApiServer, in_cluster, way

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}

Serve = Callable[[int, bytes], HealthTarget]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an API server that answers so for a pod; returns the target for it, and keeps the methods that came."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread, Any]] = []

    def start(status: int, body: bytes) -> HealthTarget:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.server.methods.append(self.command)  # type: ignore[attr-defined]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.methods = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        client = connect(Settings(kubernetes=f"http://127.0.0.1:{server.server_port}"))
        running.append((server, thread, client))
        return HealthTarget(
            name="shop-1-x",
            uid="u",
            namespace="shop",
            address="10.1.2.3",
            port=9999,
            path="/health",
            scope=CancelScope(),
            way=ThroughApiServer(client),
        )

    start.methods = lambda: running[-1][0].methods  # type: ignore[attr-defined]
    yield start
    for server, thread, client in running:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, message: str, **more: Any) -> bytes:
    about = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return json.dumps({**about, "message": message, "code": code, **more}).encode()


# --- which way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "environ", "inside"),
    [
        ("https://10.96.0.1:443", POD, True),
        ("https://10.96.0.1", POD, True),
        ("https://[fd00::1]:443", {**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}, True),
        ("https://[fd00::1]:443", {**POD, "KUBERNETES_SERVICE_HOST": "[fd00::1]"}, True),
        ("https://kubernetes.default.svc", POD, True),
        ("https://kubernetes.default.svc.cluster.local:443", POD, True),
        ("https://10.96.0.1:443", {}, False),
        ("https://kubernetes.default.svc", {}, False),
        ("https://10.96.0.1:6443", POD, False),
        ("http://10.96.0.1", POD, False),
        ("https://other.example:443", POD, False),
        ("https://kubernetes.example:443", POD, False),
        ("http://127.0.0.1:8001", POD, False),
    ],
)
def test_a_pod_of_that_cluster_or_not(address, environ, inside):
    assert in_cluster(address, environ) is inside


@pytest.mark.parametrize(
    ("setting", "environ", "sandbox", "kind"),
    [
        ("auto", POD, False, Direct),
        ("auto", {}, False, ThroughApiServer),
        ("auto", {}, True, Direct),
        ("direct", {}, False, Direct),
        ("apiserver", POD, False, ThroughApiServer),
        ("apiserver", {}, True, ThroughApiServer),
    ],
)
def test_the_way(setting, environ, sandbox, kind):
    settings = Settings(kubernetes="https://10.96.0.1:443", health_via=setting, loopback_pods=sandbox)
    client = connect(settings)
    assert type(way(settings, client, environ)) is kind
    client.close()


# --- checkers through the API server ------------------------------------------------------------------------------


def test_healthy(serve):
    assert Probe().check(serve(200, b'{"healthy": true}')).healthy
    assert Simple().check(serve(200, b"ok")).healthy


def test_unhealthy_with_the_pods_own_words(serve):
    verdict = Simple().check(serve(503, b"busy"))
    assert (verdict.healthy, verdict.body) == (False, "busy")
    assert verdict.message == "pod shop-1-x at 10.1.2.3:9999 answered HTTP 503 to its health check, not 2xx"


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (
            403,
            'User "u" cannot get resource "pods/proxy"',
            "is not asked, as the Deployer lacks the right to get pods/proxy in namespace shop: .*User",
        ),
        (401, "Unauthorized", "is not asked: the API server refused .*: Unauthorized"),
        (404, 'pods "shop-1-x" not found', 'is not asked: .*pods "shop-1-x" not found'),
        (429, "slow down", "is not asked: .*slow down"),
        (
            503,
            "error trying to reach service: dial tcp 10.1.2.3:9999: connect: connection refused",
            "refused the connection: does the app listen",
        ),
        (503, "error trying to reach service: EOF", "closed the connection"),
        (503, "error trying to reach service: dial tcp: i/o timeout", "gave the API server no answer: dial tcp"),
        (503, "shutting down", "gave no answer through the API server: .*shutting down"),
        (500, "line\n\x1b[31mline", "gave no answer through the API server: .*line \ufffd\\[31mline"),
    ],
)
def test_what_the_api_server_says_is_a_sentence_about_the_pod(serve, code, message, said):
    target = serve(code, status(code, message))
    with pytest.raises(PodUnreachable, match=rf"^pod shop-1-x at 10\.1\.2\.3:9999 {said}"):
        target.ask()
    # Not even its 404 is asked again as a POST.
    assert serve.methods() == ["GET"]


def test_the_right_for_a_post_is_another_one(serve):
    with pytest.raises(PodUnreachable, match="the right to create pods/proxy in namespace shop"):
        serve(403, status(403, "no")).http("POST")


@pytest.mark.parametrize("checker", [Probe(), Simple()])
@pytest.mark.parametrize("code", [401, 403, 404, 500, 503])
def test_a_pod_that_imitates_the_api_server_is_never_healthy(serve, checker, code):
    with pytest.raises(PodUnreachable):
        checker.check(serve(code, status(code, "fine", healthy=True)))


def test_what_would_be_changed_on_the_way_is_not_sent(serve):
    target = serve(200, b"ok")
    for changes in ({"path": "/../../secrets/s"}, {"headers": {"Authorization": "Bearer x"}}, {"method": "CONNECT"}):
        with pytest.raises(PodUnreachable, match=r"is not asked: .*API server"):
            target.http(**changes)
    assert serve.methods() == []


def test_only_http_goes_that_way(serve):
    with pytest.raises(PodUnreachable, match="only HTTP goes that way"):
        serve(200, b"ok").connect()
    assert serve.methods() == []

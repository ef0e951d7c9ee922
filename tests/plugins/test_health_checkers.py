"""Tests of the checkers `probe` and `simple`: verdicts for what a real server answers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from deployer.plugins.health_probe import Probe
from deployer.plugins.health_simple import Simple
from deployer.sdk.health import HealthTarget
from deployer.testing.pods import FakePod, answer

Serve = Callable[..., HealthTarget]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a pod that answers with this status and body; returns the target for it."""
    with contextlib.ExitStack() as pods:

        def start(status: int, body: bytes, location: str = "", host: str = "", **by_method: int) -> HealthTarget:
            headers = [f"Location: {location}"] if location else []

            def talk(connection: socket.socket, request: bytes) -> None:
                known = not host or f"\r\nHost: {host}\r\n".encode() in request
                method = request.partition(b" ")[0].decode()
                code = by_method.get(method, status) if known else 400
                connection.sendall(answer(f"{code} Status", body, *headers))

            return pods.enter_context(FakePod(talk)).target(host=host)

        yield start


@pytest.mark.parametrize(
    "body", [b'{"healthy": true}', b' {"healthy":true,"more":[1]} \n', '{"healthy": true, "a": "ü"}'.encode()]
)
def test_probe_healthy(serve, body):
    verdict = Probe().check(serve(200, body))
    assert verdict.healthy
    assert verdict.body == body.decode()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b'{"healthy": false}', "reports healthy: false"),
        (200, b'{"healthy": "true"}', 'reports healthy: "true"'),
        (200, b'{"healthy": 1}', "reports healthy: 1"),
        (200, b'{"healthy": null}', "reports healthy: null"),
        (200, b"{}", 'with the field "healthy"'),
        (200, b"[true]", "other than an object"),
        (200, b"true", "other than an object"),
        (200, b"", "not JSON"),
        (200, b"OK", "not JSON"),
        (200, b'{"healthy": true', "not JSON"),
        (200, b'\xff{"healthy": true}', "not JSON"),
        (200, b"[" * 50_000, "not JSON"),
        (200, b'{"healthy": true}' + b" " * 70_000, "more than 64 KiB"),
        (500, b'{"healthy": true}', "answered HTTP 500"),
        (302, b'{"healthy": true}', "answered HTTP 302"),
    ],
)
def test_probe_unhealthy(serve, status, body, said):
    verdict = Probe().check(serve(status, body))
    assert not verdict.healthy
    assert said in verdict.message
    assert verdict.message.startswith("pod shop-1-x at 127.0.0.1:")
    assert verdict.body == body[:65_536].decode("utf-8", "replace")


@pytest.mark.parametrize("status", [200, 201, 299])
def test_simple_healthy(serve, status):
    verdict = Simple().check(serve(status, b"whatever"))
    assert (verdict.healthy, verdict.body) == (True, "whatever")


@pytest.mark.parametrize("status", [301, 400, 500, 503])
def test_simple_unhealthy(serve, status):
    verdict = Simple().check(serve(status, b"no"))
    assert (verdict.healthy, verdict.body) == (False, "no")
    assert f"answered HTTP {status} to its health check, not 2xx" in verdict.message


@pytest.mark.parametrize("checker", [Probe(), Simple()])
def test_an_app_that_only_takes_post(serve, checker):
    assert checker.check(serve(200, b'{"healthy": true}', GET=405)).healthy
    assert not checker.check(serve(404, b'{"healthy": true}')).healthy


@pytest.mark.parametrize("checker", [Probe(), Simple()])
@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/login?next=secret", "answered HTTP 302 (a redirect to /login) to its health check, not 2xx"),
        ("https://user:secret@host.example/health/#secret", "answered HTTP 302 (a redirect to /health/) to"),
        ("https://host.example", "answered HTTP 302 (a redirect to /) to"),
        ("//[secret", "answered HTTP 302 to"),
        ("/\x1b[31m", "answered HTTP 302 (a redirect to elsewhere) to"),
    ],
)
def test_a_redirect_says_where_it_leads_and_is_not_followed(serve, checker, location, said):
    message = checker.check(serve(302, b'{"healthy": true}', location=location)).message
    assert said in message
    assert "secret" not in message and "example" not in message


@pytest.mark.parametrize("checker", [Probe(), Simple()])
def test_an_app_that_answers_only_to_its_own_name(serve, checker):
    target = serve(200, b'{"healthy": true}', host="shop.example.com")
    assert checker.check(target).healthy
    target.host = ""
    assert not checker.check(target).healthy

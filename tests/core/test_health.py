"""Tests of the guarded way to ask a pod: what is never dialled, and what a hostile pod cannot do."""

from __future__ import annotations

import contextlib
import errno
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import BODY_LIMIT, HealthTarget, HttpAnswer, PodUnreachable, Verdict
from deployer.core.errors import Cancelled, DeadlineExceeded
from deployer.kube.client import connect
from deployer.settings import Settings
from deployer.testing.pods import FakePod, Talk, answer, drip, drip_headers, hang, replying
from deployer.toolkit.health.runner import kept_answer, verdict_of
from deployer.toolkit.health.step import Asked, hint
from deployer.toolkit.health.transport import Direct, ThroughApiServer


@pytest.fixture
def pod() -> Iterator[Callable[[Talk], FakePod]]:
    pods: list[FakePod] = []

    def start(talk: Talk) -> FakePod:
        pods.append(FakePod(talk))
        return pods[-1]

    yield start
    for started in pods:
        started.close()


def make(port: int, **changes: object) -> HealthTarget:
    """A target that is dialled."""
    values: dict[str, object] = {
        "name": "shop-1-x",
        "uid": "u1",
        "namespace": "shop",
        "address": "127.0.0.1",
        "port": port,
        "path": "health",
        "scope": CancelScope(),
        "way": Direct(),
        "allow_loopback": True,
    }
    return HealthTarget(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(params=["direct", "apiserver"])
def target(request: pytest.FixtureRequest) -> Iterator[Callable[..., HealthTarget]]:
    """Targets for both ways. What answers for the API server is the pod itself: nothing is softened in between."""
    with contextlib.ExitStack() as opened:

        def through(port: int, **changes: object) -> HealthTarget:
            client = connect(Settings(kubernetes=f"http://127.0.0.1:{port or 1}"))
            opened.callback(client.close)
            return make(port, **{"way": ThroughApiServer(client), **changes})

        yield make if request.param == "direct" else through


# --- what is sent and read ----------------------------------------------------------------------------------------


def test_the_request_on_the_wire_is_plain_and_asks_for_nothing_compressed(pod, monkeypatch, target):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    listener = pod(replying(answer("200 OK", b"fine", "X-Two: a", "X-Two: b")))
    asked = target(listener.port)
    got = asked.http(headers={"X-Extra": "1", "host": "elsewhere", "accept-encoding": "gzip"})
    before = b"" if isinstance(asked.way, Direct) else b"/api/v1/namespaces/shop/pods/shop-1-x:%d/proxy" % listener.port
    assert listener.requests == [
        b"GET %b/health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: deployer-health\r\nAccept: */*\r\nX-Extra: 1\r\n"
        b"Accept-Encoding: identity\r\nConnection: close\r\n\r\n" % (before, listener.port)
    ]
    assert (got.status, got.text, got.ok, got.truncated, got.headers["x-two"]) == (200, "fine", True, False, "a, b")


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"])
def test_an_app_made_for_the_original_is_asked_again_with_post(pod, status, target):
    listener = pod(replying(answer(status), answer("200 OK", b"posted")))
    assert target(listener.port).ask().text == "posted"
    assert [request.split(b" ")[0] for request in listener.requests] == [b"GET", b"POST"]
    assert b"Content-Length: 0\r\n" in listener.requests[1]


@pytest.mark.parametrize("status", ["200 OK", "301 Moved", "400 Bad", "500 Oops", "503 Busy"])
def test_other_answers_are_not_asked_again(pod, status, target):
    listener = pod(replying(answer(status)))
    assert target(listener.port).ask().status == int(status[:3])
    assert len(listener.requests) == 1


def test_a_redirect_to_the_metadata_service_is_only_an_answer(pod, target):
    listener = pod(replying(answer("302 Found", b"", "Location: http://169.254.169.254/latest/")))
    got = target(listener.port).ask()
    assert (got.status, got.headers["location"]) == (302, "http://169.254.169.254/latest/")
    assert len(listener.requests) == 1


def test_a_compressed_answer_is_not_unpacked(pod, target):
    bomb = gzip.compress(b"\0" * 10_000_000)
    got = target(pod(replying(answer("200 OK", bomb, "Content-Encoding: gzip"))).port).ask()
    assert got.body == bomb[:BODY_LIMIT]


def test_of_an_endless_body_only_the_first_64_kib_are_read(pod, target):
    sent = 0

    def talk(connection: socket.socket, _: bytes) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1_000_000_000 // 65_536):
            sent += connection.send(b"x" * 65_536)

    listener = pod(talk)
    got = target(listener.port).ask()
    assert (len(got.body), got.truncated) == (BODY_LIMIT, True)
    assert listener.over.wait(10)
    assert sent < 50_000_000


def test_an_endless_chunked_body_is_cut_as_well(pod, target):
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10_000):
            connection.sendall(b"4000\r\n" + b"y" * 0x4000 + b"\r\n")

    got = target(pod(talk).port).ask()
    assert (got.body, got.truncated) == (b"y" * BODY_LIMIT, True)


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("talk", [hang, drip, drip_headers])
def test_neither_silence_nor_dripping_bytes_hold_a_check(pod, talk, target):
    began = time.monotonic()
    with pytest.raises(PodUnreachable, match=r"gave no complete answer within 0\.4 s"):
        target(pod(talk).port, timeout=0.4).ask()
    assert 0.3 < time.monotonic() - began < 2


def test_the_time_is_for_both_attempts_together(pod, target):
    def talk(connection: socket.socket, request: bytes) -> None:
        if request.startswith(b"GET"):
            threading.Event().wait(0.4)
            connection.sendall(answer("404 Not Found"))
        else:
            connection.recv(1)

    began = time.monotonic()
    with pytest.raises(PodUnreachable):
        target(pod(talk).port, timeout=0.6).ask()
    assert time.monotonic() - began < 1.5


def test_a_closing_gate_ends_a_check_at_once(pod, target):
    scope = CancelScope()
    listener = pod(lambda connection, _: (scope.close(Cancelled("stop")), connection.recv(1)))
    began = time.monotonic()
    with pytest.raises(Cancelled):
        target(listener.port, scope=scope, timeout=30).ask()
    assert time.monotonic() - began < 1


def test_a_closing_gate_ends_a_connection_that_is_being_made():
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # a full backlog: further SYNs are dropped
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        scope = CancelScope()
        timer = threading.Timer(0.2, scope.close, [Cancelled("stop")])
        timer.start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            make(full.getsockname()[1], scope=scope).ask()
        assert time.monotonic() - began < 1
        timer.join()


def test_the_gates_deadline_counts_too(pod, target):
    scope = CancelScope(time.monotonic() + 0.3)
    with pytest.raises(DeadlineExceeded):
        target(pod(hang).port, scope=scope, timeout=30).ask()


def test_a_closed_gate_dials_nothing(pod, target):
    listener = pod(replying(answer("200 OK")))
    scope = CancelScope()
    scope.close(Cancelled("stop"))
    with pytest.raises(Cancelled):
        target(listener.port, scope=scope).ask()
    assert listener.requests == []


def test_a_plugins_own_protocol_keeps_the_deadline(pod):
    listener = pod(hang)
    with make(listener.port, timeout=0.3).connect() as connection:
        connection.sendall(b"PING\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(10)
        with pytest.raises(TimeoutError):
            connection.send(b"x")


# --- broken answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "closed the connection before its answer was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "in the middle of its answer"),
        (b"SSH-2.0-OpenSSH\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "in the middle of its answer"),
    ],
)
def test_an_answer_that_is_none_is_a_sentence(pod, raw, said, target):
    asked = target(pod(replying(raw)).port)
    said = said if isinstance(asked.way, Direct) else "gave no answer through the API server"
    with pytest.raises(PodUnreachable, match=f"^pod shop-1-x at .*{said}"):
        asked.ask()


def test_a_port_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PodUnreachable, match="refused the connection"):
        make(port).ask()


def test_a_connection_that_cannot_be_made_says_what_to_do(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.ENETUNREACH)
    with pytest.raises(PodUnreachable, match=r'cannot be reached: ENETUNREACH; .* set health_via to "apiserver"'):
        make(80).ask()


# --- what is never dialled ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "example.com",
        "127.0.0.1@169.254.169.254",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.9.10",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd12::1%eth0",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "2130706433",
    ],
)
def test_addresses_that_cannot_be_a_pods_own(monkeypatch, address, target):
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: pytest.fail("it was dialled"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was dialled"))
    with pytest.raises(PodUnreachable):
        target(80, address=address, allow_loopback=False).ask()


def test_a_sandbox_opens_loopback_and_nothing_else(monkeypatch, target):
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: pytest.fail("it was dialled"))
    for address in ("169.254.169.254", "0.0.0.0", "fe80::1", "224.0.0.1"):
        with pytest.raises(PodUnreachable):
            target(80, address=address, allow_loopback=True).ask()


def test_a_pod_on_its_nodes_network(pod, target):
    listener = pod(replying(answer("200 OK")))
    with pytest.raises(PodUnreachable, match="hostNetwork"):
        target(listener.port, host_network=True).ask()
    assert listener.requests == []


@pytest.mark.parametrize(
    "path",
    ["/a\r\nX: y", "/a\nb", "/a b", "//169.254.169.254/", "/\x00", "/ümlaut", "http://169.254.169.254/ HTTP/1.1\r\n"],
)
def test_paths_that_are_not_plain_are_never_sent(pod, path, target):
    listener = pod(replying(answer("200 OK")))
    with pytest.raises(PodUnreachable, match="is not asked"):
        target(listener.port, path=path).ask()
    assert listener.requests == []


@pytest.mark.parametrize("path", ["@169.254.169.254/", "http://169.254.169.254/"])
def test_a_path_that_looks_like_an_address_stays_a_path_of_the_pod(pod, path):
    listener = pod(replying(answer("200 OK")))
    assert make(listener.port, path=path).ask().ok
    assert listener.requests[0].startswith(f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1".encode())


def test_methods_and_headers_that_break_the_request(pod, target):
    listener = pod(replying(answer("200 OK")))
    for arguments in (
        {"method": "GET /x HTTP/1.1\r\n"},
        {"headers": {"A": "b\r\nC: d"}},
        {"headers": {"A\n": "b"}},
        {"headers": {"A: b": "c"}},
    ):
        with pytest.raises(PodUnreachable, match="is not asked"):
            target(listener.port).http(**arguments)
    assert listener.requests == []


def test_a_port_out_of_range(target):
    with pytest.raises(PodUnreachable, match="between 1 and 65535"):
        target(0).ask()


# --- verdicts -----------------------------------------------------------------------------------------------------


def test_the_body_of_a_verdict_is_capped_in_bytes():
    assert len(Verdict(True, "", "é" * BODY_LIMIT).body.encode()) == BODY_LIMIT
    assert Verdict(True, "", "\ud800").body == "?"


# --- what is kept of them -----------------------------------------------------------------------------------------


def kept(target: HealthTarget, clean: Callable[[str], str] = str) -> dict[str, Any]:
    """What is kept of a pod that a checker asks which leaves everything to the service."""

    def check() -> Verdict:
        found = target.ask()
        return Verdict(found.ok, f"{target.where} answered {found.said}", found.text)

    return kept_answer(target.name, verdict_of("mine", check, target), clean)


def test_of_an_empty_answer_its_status_and_headers_are_kept(pod, target):
    head = ("Content-Type: text/plain", "Set-Cookie: session=hunter2", "Retry-After: 5", "Server: app")
    found = kept(target(pod(replying(answer("500 Oops", b"", *head))).port))
    assert (found["podName"], found["value"], found["healthy"], found["status"]) == ("shop-1-x", "", False, 500)
    told = {name: value for name, value in found["headers"].items() if name != "content-length"}
    assert told == {"content-type": "text/plain", "retry-after": "5", "server": "app"}
    assert found["message"].endswith("answered HTTP 500")


def test_of_an_app_that_hangs_the_reason_is_kept(pod, target):
    found = kept(target(pod(hang).port, timeout=0.3))
    assert found["value"] == "" and "status" not in found and "headers" not in found
    assert "gave no complete answer within 0.3 s" in found["message"]


def test_of_an_answer_that_does_not_end_what_came_is_kept(pod):
    found = kept(make(pod(drip).port, timeout=0.5))
    assert (found["status"], found["healthy"]) == (200, False) and set(found["value"]) <= {"x"}
    assert "gave no complete answer" in found["message"]


def test_of_a_redirect_the_path_is_kept_and_nothing_that_may_be_secret(pod):
    location = "Location: https://user:hunter2@login.example.com/login?token=hunter2"
    found = kept(make(pod(replying(answer("302 Found", b"", location))).port))
    assert found["headers"]["location"] == "/login" and "hunter2" not in str(found)


def test_what_is_kept_is_cleaned_and_no_more_than_64_kib(pod):
    listener = pod(replying(answer("200 OK", "é".encode() * BODY_LIMIT, "Server: hunter2")))
    found = kept(make(listener.port), lambda text: text.replace("hunter2", "***"))
    assert found["headers"]["server"] == "***"
    texts = (found["value"], found["message"], *found["headers"].values())
    assert BODY_LIMIT - 2 <= sum(len(text.encode()) for text in texts) <= BODY_LIMIT


# --- what is said of unhealthy pods -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (None, "port 9999 (healthCheckPort) on all addresses and answers /health within 10 s"),
        (HttpAnswer(302, {}, b""), "instead of /health name the path that answers itself in healthCheckPath"),
        (HttpAnswer(401, {}, b""), "without credentials"),
        (HttpAnswer(421, {}, b""), "healthCheckHost"),
        (HttpAnswer(404, {}, b""), "correct healthCheckPath, which is /health, or healthCheckPort, which is 9999"),
        (HttpAnswer(200, {}, b"no"), "the app's own answer to /health"),
        (HttpAnswer(200, {}, b"x", truncated=True), "to the end within 10 s, with at most 64 KiB"),
        (HttpAnswer(503, {}, b""), "why it answers HTTP 503"),
    ],
)
def test_the_hint_names_what_a_team_can_change(answer, field):
    said = hint(Verdict(False, "no", answer=answer), {"healthCheckPath": "health"}, 9999)
    assert field in said and "--" not in said and "\n" not in said


def described(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name}, "status": {"podIP": address}}


def test_each_thing_is_said_once_with_one_pod_as_the_example():
    pods = [described(f"shop-1-{letter}", f"10.0.0.{number}") for number, letter in enumerate("abcdef", 1)]
    said = ["answered HTTP 500", "answered HTTP 500", "is a teapot", "hangs", "refused", "answered HTTP 500"]
    verdicts = {
        pod["metadata"]["uid"]: Verdict(False, f"pod {pod['metadata']['name']} at {pod['status']['podIP']}:80 {why}")
        for pod, why in zip(pods, said, strict=True)
    }
    assert Asked(pods, verdicts).text() == (
        "each of 3 pods, such as pod shop-1-a at 10.0.0.1:80, answered HTTP 500; "
        "pod shop-1-c at 10.0.0.3:80 is a teapot; pod shop-1-d at 10.0.0.4:80 hangs; "
        "1 more are unhealthy for other reasons"
    )
    # A plugin's own words, and a pod that was not asked any more.
    verdicts = {"shop-1-a": Verdict(False, "no answer from shop-1-a"), "shop-1-b": Verdict(True, "well")}
    assert Asked(pods[:3], verdicts).text() == (
        "pod shop-1-a: no answer from the pod; pod shop-1-c did not answer before the time was up"
    )

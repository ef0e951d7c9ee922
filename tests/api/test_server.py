"""The port itself: what it refuses, how long it is patient, and that it answers when many hold connections."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from deployer.api import server as server_module
from deployer.api.server import Server
from deployer.core.errors import SettingsError


@contextlib.contextmanager
def raw(served: Any, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(data)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /descriptors/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /descriptors/ HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /descriptors/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n"
            + b"x" * 0xFFFFF
            + b"\r\n5\r\nxxxxx\r\n",
            413,
        ),
        (b"FOO / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_is_a_problem_too(served: Any, request_bytes: bytes, status: int) -> None:
    with raw(served, request_bytes) as sock:
        sock.shutdown(socket.SHUT_WR)
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.") and int(head.split(b" ")[1]) == status
    assert b"application/problem+json" in head
    assert b"Server:" not in head
    document = json.loads(body)
    assert (document["status"], document["type"]) == (status, "about:blank")
    assert document["detail"]


def test_a_refused_body_does_not_reset_its_sender(served: Any) -> None:
    """The answer is there to be read although the body never was."""
    size = 8 * 1024 * 1024
    head = f"POST /descriptors/?namespace=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    with raw(served, head.encode() + b"x" * size) as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")


def test_pipelined_requests_are_answered_in_order(served: Any) -> None:
    requests = b"".join(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"/healthz", b"/nothing"))
    with raw(served, requests + b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as sock:
        data = read_all(sock)
    assert [part[:3] for part in data.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


class TestManyConnections:
    @pytest.fixture
    def server_options(self) -> dict[str, Any]:
        return {"connections": 30}

    def test_new_ones_take_the_place_of_the_idlest(self, served: Any) -> None:
        with contextlib.ExitStack() as stack:
            words = (b"", b"GE", b"GET / HTTP/1.1\r\nX-Slow: ", b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab")
            socks = [stack.enter_context(raw(served, words[number % 4])) for number in range(200)]
            for _ in range(20):
                assert served.call("GET", "/healthz").status == 200
            # The first of them was closed long ago.
            assert read_all(socks[0]) == b""


def test_a_request_that_trickles_in_is_cut_off(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST", 0.5)
    with raw(served, b"GET / HTTP/1.1\r\nX-Slow: ") as sock:
        assert read_all(sock) == b""


def test_setting_the_clock_back_leaves_nobody_more_time(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = time.time
    monkeypatch.setattr(server_module, "REQUEST", 0.5)
    monkeypatch.setattr(served.server._rest.adj, "channel_timeout", 0.5)
    with raw(served, b"GET / HTTP/1.1\r\nX-Slow: ") as slow, raw(served, b"") as idle:
        assert served.call("GET", "/healthz").status == 200
        monkeypatch.setattr(time, "time", lambda: wall() - 3600)
        assert read_all(slow) == read_all(idle) == b""


def test_an_answer_that_is_not_taken_is_given_up(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread, which waits for room in the buffers, becomes free again."""
    monkeypatch.setattr(server_module, "STALLED", 0.5)
    id = served.deployment().id
    for _ in range(500):
        served.deployment_log.append(id, "x" * 60_000)
    request = f"GET /deployments/{id}/logs?namespace=shop-ns HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(8):  # as many as there are threads
            stack.enter_context(raw(served, request)).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert served.call("GET", "/healthz").status == 200


def test_a_port_that_is_taken_is_one_sentence(served: Any) -> None:
    second = Server(served.server._app, served.logs, "127.0.0.1", served.port)
    with pytest.raises(SettingsError, match=rf"cannot listen on 127\.0\.0\.1, port {served.port}: .* --deployport"):
        second.start()


@pytest.mark.slow
def test_without_file_descriptors_the_port_recovers() -> None:
    """In a process of its own, which has 100 of them."""
    script = """
        import resource, sys, types
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        from deployer.api.app import create_app
        from deployer.api.server import Server
        from deployer.api.stream.server import LogStream
        logs = LogStream(None)
        store = types.SimpleNamespace(namespaces=list)
        service = types.SimpleNamespace(descriptors=None, freezes=types.SimpleNamespace(shown_for=list), store=store)
        server = Server(create_app(service, list, list), logs, "127.0.0.1", 0)
        server._connections = 1000  # so that they do run out
        server.start()
        print(server.port, flush=True)
        sys.stdin.read()
        server.stop()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process, contextlib.ExitStack() as stack:
        port = int(process.stdout.readline())
        for _ in range(150):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_headers_and_answer_are_sent_together(served: Any, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    sent: list[int] = []
    send = server_module._Channel.send

    def count(channel: Any, data: bytes, *more: Any, **options: Any) -> Any:
        sent.append(len(data))
        return send(channel, data, *more, **options)

    monkeypatch.setattr(server_module._Channel, "send", count)
    request = f"{method} /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with raw(served, request.encode()) as sock:
        data = read_all(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    assert sent == [len(data)]
    assert body == (b'{\n  "status": "ok"\n}\n' if method == "GET" else b"")
    assert b"Content-Length: 21" in head


# --- an orderly stop --------------------------------------------------------------------------------------------------


def test_what_was_accepted_is_answered_and_nobody_else(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what waits in the kernel when the service is told to stop, and what arrives a moment later."""
    rest, go_on = served.server._rest, threading.Event()
    turn, held = rest.turn, threading.Event()

    def hold(timeout: float) -> None:
        held.set()
        assert go_on.wait(20)
        turn(timeout)

    monkeypatch.setattr(rest, "turn", hold)
    rest.pull_trigger()
    assert held.wait(20)
    with contextlib.ExitStack() as stack:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        socks = [stack.enter_context(raw(served, request)) for _ in range(30)]
        late = stack.enter_context(raw(served))
        stopping = threading.Thread(target=served.server.stop)
        stopping.start()
        served.server._stopping.wait(20)
        go_on.set()
        late.sendall(request)
        for sock in [*socks, late]:
            answer = read_all(sock)
            assert answer.startswith(b"HTTP/1.1 200 ") and b"\r\nConnection: close\r\n" in answer, answer
        stopping.join(20)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)


def test_viewers_are_told_to_come_back_before_the_last_request_is_answered(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = served.deployment().id
    asked, go_on = threading.Event(), threading.Event()
    whole = served.service.health_data

    def slowly(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        assert go_on.wait(30)
        return whole(*args, **kwargs)

    monkeypatch.setattr(served.service, "health_data", slowly)
    request = f"GET /deployments/{id}/healthcheckdata?namespace=shop-ns HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    url = f"ws://127.0.0.1:{served.port}/stream/deployments/{id}/logs?namespace=shop-ns"
    with raw(served, request) as sock, connect(url, proxy=None) as viewer:
        assert asked.wait(20)
        stopping = threading.Thread(target=served.server.stop)
        stopping.start()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                viewer.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port), timeout=5)
        assert stopping.is_alive()
        go_on.set()
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        stopping.join(20)
        assert not stopping.is_alive()

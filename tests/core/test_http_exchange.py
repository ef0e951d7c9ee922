"""An exchange ends: at its deadline, at its limit, at the end of the connection, or when its gate closes."""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Revoked
from deployer.toolkit.http_exchange import Response, connect, exchange, request
from support.issuer import server_context

Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server on loopback that does this with its one connection; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads: list[threading.Thread] = []

        def start(act: Callable[[socket.socket], None]) -> int:
            def run() -> None:
                connection, _ = listener.accept()
                with connection:
                    act(connection)

            threads.append(threading.Thread(target=run))
            threads[-1].start()
            return int(listener.getsockname()[1])

        yield start
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "the connection was not closed"


def answering(*pieces: bytes) -> Callable[[socket.socket], None]:
    """Read the request, then send these and close."""

    def act(connection: socket.socket) -> None:
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.sendall(b"".join(pieces))

    return act


def holding(*pieces: bytes) -> Callable[[socket.socket], None]:
    """Send these and then nothing, until the other end closes."""

    def act(connection: socket.socket) -> None:
        connection.sendall(b"".join(pieces))
        while connection.recv(65536):
            pass

    return act


def dripping(start: bytes) -> Callable[[socket.socket], None]:
    """Send this, and then a byte every 50 ms until the other end has had enough: no single read ever times out."""

    def act(connection: socket.socket) -> None:
        connection.sendall(start)
        try:
            while True:
                connection.sendall(b"\x16")
                time.sleep(0.05)  # the fault itself: how slow the server is
        except OSError:
            return

    return act


def ask(port: int, scope: CancelScope | None = None, timeout: float = 5.0, **options: Any) -> Response:
    sock = connect("127.0.0.1", port, scope or CancelScope(), timeout=timeout, connect_timeout=1.0)
    sent = request("GET", "/", {"Host": "x", "Connection": "close"})
    return exchange(sock, sent, **{"limit": 1000, **options})


def test_an_answer_is_read_to_its_end(serve: Serve) -> None:
    found = ask(serve(answering(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\n\r\n", b"hello")))
    assert (found.status, found.body, found.truncated, found.cut) == (200, b"hello", False, None)
    assert found.headers["x-a"] == "1, 2"


def test_chunks_are_put_together(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ask(serve(answering(head, b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"))).body == b"abcde"


@pytest.mark.parametrize(("size", "truncated"), [(1000, False), (1001, True), (100_000, True)])
def test_no_more_than_the_limit_is_kept(serve: Serve, size: int, truncated: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    found = ask(serve(answering(head, b"x" * size)))
    assert (len(found.body), found.truncated, found.cut) == (1000, truncated, None)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
    ],
)
def test_a_body_that_ends_early_is_kept_and_said(serve: Serve, raw: bytes) -> None:
    found = ask(serve(answering(raw)))
    assert (found.status, found.body) == (200, b"short")
    assert isinstance(found.cut, http.client.IncompleteRead)


def test_a_head_that_ends_early_is_no_answer(serve: Serve) -> None:
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(serve(answering(b"HTTP/1.1 ")))


def test_a_body_that_is_not_whole_at_the_deadline_is_kept_as_far_as_it_came(serve: Serve) -> None:
    found = ask(serve(holding(b"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\nshort")), timeout=0.3)
    assert (found.status, found.body) == (400, b"short")
    assert isinstance(found.cut, TimeoutError)


@pytest.mark.parametrize("secure", [False, True])
def test_a_byte_now_and_then_does_not_hold_anybody(serve: Serve, secure: bool) -> None:
    # Over TLS: the header of a record of 16 KiB, of which a byte comes now and then.
    port = serve(dripping(b"\x16\x03\x03\x40\x00" if secure else b"HTTP/1.1 200 OK\r\nX: "))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ask(port, timeout=0.4, tls=ssl.create_default_context() if secure else None, server_name="x")
    assert time.monotonic() - began < 5  # five hundred times as long, if each byte began it anew


@pytest.mark.parametrize("secure", [False, True])
def test_a_closing_gate_ends_it(serve: Serve, secure: bool) -> None:
    scope = CancelScope()
    arrived = threading.Event()

    def act(connection: socket.socket) -> None:
        connection.recv(1)
        arrived.set()
        while connection.recv(65536):
            pass

    port = serve(act)
    closing = threading.Thread(target=lambda: arrived.wait(10) and scope.close(Revoked("enough")))
    closing.start()
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(port, scope, timeout=60.0, tls=ssl.create_default_context() if secure else None, server_name="x")
    closing.join()
    with pytest.raises(Revoked):
        scope.check()


def test_a_large_answer_comes_whole_over_tls(serve: Serve, tmp_path: Path) -> None:
    secure = server_context(tmp_path)
    head, body = b"HTTP/1.1 200 OK\r\n\r\n", bytes(range(256)) * 8000

    def act(connection: socket.socket) -> None:
        with secure.wrap_socket(connection, server_side=True) as wire:
            answering(head, body)(wire)  # and closes without saying so first, as many servers do

    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    found = ask(serve(act), limit=3_000_000, tls=trusting, server_name="127.0.0.1")
    assert (found.status, found.body == body, found.cut) == (200, True, None)


def test_a_server_that_is_not_trusted_is_told_why(serve: Serve, tmp_path: Path) -> None:
    secure, heard = server_context(tmp_path), []

    def act(connection: socket.socket) -> None:
        try:
            secure.wrap_socket(connection, server_side=True)
        except ssl.SSLError as error:
            heard.append(error.reason)

    with pytest.raises(ssl.SSLCertVerificationError):
        ask(serve(act), tls=ssl.create_default_context(), server_name="127.0.0.1")
    end = time.monotonic() + 10
    while not heard:
        assert time.monotonic() < end
    assert heard == ["TLSV1_ALERT_UNKNOWN_CA"]


def test_a_connection_that_is_reset_before_tls_begins_is_closed_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = connect("127.0.0.1", listener.getsockname()[1], CancelScope(), timeout=5.0, connect_timeout=5.0)
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()  # which is a reset now
        poll = select.poll()
        poll.register(sock, 0)
        assert poll.poll(10_000)  # it has come
        number = sock.fileno()
        with pytest.raises(ConnectionResetError) as raised:
            exchange(sock, b"", limit=1, tls=ssl.create_default_context(), server_name="x")
        with pytest.raises(OSError):  # although the error, which holds all that was going on, is still there
            os.fstat(number)
    assert raised.value.__traceback__ is not None


def test_nothing_is_asked_through_a_closed_gate() -> None:
    scope = CancelScope()
    scope.close(Revoked("enough"))
    with pytest.raises(Revoked):
        connect("127.0.0.1", 1, scope, timeout=1.0, connect_timeout=1.0)


def test_every_address_of_a_name_is_tried(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    port = serve(answering(b"HTTP/1.1 204 No Content\r\n\r\n"))
    places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.9.9.9", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
    sock = connect("name.example", port, CancelScope(), timeout=5.0, connect_timeout=1.0)
    assert exchange(sock, request("GET", "/", {"Host": "x"}), limit=1).status == 204


@pytest.mark.parametrize(("target", "headers"), [("/ x", {}), ("x", {}), ("/", {"A": "b\r\nC: d"}), ("/", {"A": "ä"})])
def test_one_request_is_one_request(target: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        request("GET", target, headers)

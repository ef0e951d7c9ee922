"""A pod for tests of health checkers: a listener on loopback that answers byte for byte what a test wants."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from deployer.sdk.health import HealthTarget
from deployer.sdk.plugin import CancelScope
from deployer.toolkit.health.transport import Direct

Talk = Callable[[socket.socket, bytes], object]
"""What a pod does with one connection, given the head of the request that came; the connection is closed after it."""

PATIENCE = 10.0
"""Seconds that a pod waits for a request, and for the other end to take or close."""


class FakePod:
    """A listener that lets `talk` answer every connection, each in a thread of its own. A context manager.

    talk       what it does with a connection; bytes: it sends them, and waits until the other end closes
    http       read the head of a request first; False: answer at once, as servers do that speak first

    `requests` are those that came, `asked` is set with the first connection, `over` whenever one has been answered.
    """

    def __init__(self, talk: Talk | bytes, address: str = "127.0.0.1", *, http: bool = True) -> None:
        self._talk = replying(talk) if isinstance(talk, bytes) else talk
        self._http = http
        self._listener = socket.create_server((address, 0), backlog=128)
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.asked = threading.Event()
        self.over = threading.Event()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def target(self, path: str = "/health", **changes: Any) -> HealthTarget:
        """This pod as `HealthChecker.check` gets it; `changes` are fields of `HealthTarget`, `options` for one."""
        values: dict[str, Any] = {
            "name": "shop-1-x",
            "uid": "u1",
            "namespace": "shop",
            "address": self.address,
            "port": self.port,
        }
        scope = changes.pop("scope", None) or CancelScope()
        values |= {"path": path, "scope": scope, "way": Direct(), "allow_loopback": True}
        return HealthTarget(**{**values, **changes})

    def __enter__(self) -> FakePod:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and every connection."""
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.asked.set()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE)
            request = b""
            while self._http and b"\r\n\r\n" not in request and (piece := connection.recv(4096)):
                request += piece
            self.requests.append(request)
            self._talk(connection, request)
        self._open.discard(connection)
        self.over.set()


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """An HTTP answer: `answer("200 OK", b"fine", "X-Some: header")`."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def replying(*replies: bytes) -> Talk:
    """Say these, one for each connection, the last one for ever."""
    left = list(replies)
    return lambda connection, _: connection.sendall(left.pop(0) if len(left) > 1 else left[0])


def drip(connection: socket.socket, _: bytes) -> None:
    """A body of one byte at a time, for 5 s."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    _drop(connection, b"x")


def drip_headers(connection: socket.socket, _: bytes) -> None:
    """A head of one byte at a time, for 5 s."""
    _drop(connection, b"H")


def _drop(connection: socket.socket, byte: bytes) -> None:
    stop = threading.Event()
    for _ in range(100):
        connection.send(byte)
        stop.wait(0.05)


def hang(connection: socket.socket, _: bytes) -> None:
    """Say nothing, until the other side goes."""
    connection.recv(1)


__all__ = ["FakePod", "Talk", "answer", "drip", "drip_headers", "hang", "replying"]

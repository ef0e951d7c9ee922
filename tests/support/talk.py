"""A pod that says what a test wants, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Talk = Callable[[socket.socket, bytes], None]


class Pod:
    """A listener that lets `talk` answer every connection, and keeps the requests that came."""

    def __init__(self, talk: Talk, address: str = "127.0.0.1") -> None:
        self._talk = talk
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(10)
                    request = b""
                    while b"\r\n\r\n" not in request and (piece := connection.recv(4096)):
                        request += piece
                    self.requests.append(request)
                    self._talk(connection, request)
                self.over.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def replying(*replies: bytes) -> Talk:
    """Say these, one for each connection, the last one for ever."""
    left = list(replies)
    return lambda connection, _: connection.sendall(left.pop(0) if len(left) > 1 else left[0])


def drip(connection: socket.socket, _: bytes) -> None:
    """A body of one byte at a time, for 5 s."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    stop = threading.Event()
    for _ in range(100):
        connection.send(b"x")
        stop.wait(0.05)


def drip_headers(connection: socket.socket, _: bytes) -> None:
    """A head of one byte at a time, for 5 s."""
    stop = threading.Event()
    for _ in range(100):
        connection.send(b"H")
        stop.wait(0.05)


def hang(connection: socket.socket, _: bytes) -> None:
    """Say nothing, until the other side goes."""
    connection.recv(1)

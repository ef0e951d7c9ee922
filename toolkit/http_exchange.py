"""One HTTP/1.1 exchange on a connection of its own, bounded in time and size, that a closing scope ends at once.

Time-outs of sockets begin anew with every byte, so one byte a second would hold whoever asks for ever. Here one
deadline holds for everything: connecting, TLS, sending, and the answer to its last byte.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.core.cancel_scope import CancelScope

_RECORD = 16_384 + 256  # bytes; the largest record of TLS 1.3 (RFC 8446, 5.2)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, never decompressed.

    headers    by name in lower case; the values of one that came several times are joined by commas (RFC 9110, 5.3)
    truncated  there was more than the limit, at which the body is cut
    cut        why the body is not whole although it is within the limit: a TimeoutError, another OSError, or
               http.client.IncompleteRead where the connection ended early; None when it is
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False
    cut: Exception | None = None


class GuardedSocket(socket.socket):
    """A TCP socket that a scope ends at once, with one deadline on `time.monotonic()`'s clock for all that it does."""

    def __init__(self, family: int, scope: CancelScope, deadline: float) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.deadline = deadline
        self.scope = scope
        self._guard = threading.Lock()
        self._forget = scope.on_close(self._interrupt)

    def _interrupt(self) -> None:
        # shutdown wakes a thread that sleeps in connect or recv; close would not. The lock keeps the descriptor ours.
        with self._guard:
            shut(self)

    def close(self) -> None:
        """Close it and let go of the scope."""
        self._forget()
        with self._guard:
            super().close()

    def dial(self, address: tuple[str, int], timeout: float) -> None:
        """Connect within `timeout` seconds. Raises OSError, TimeoutError, or what the scope raises."""
        end = min(self.deadline, time.monotonic() + timeout)
        self.setblocking(False)
        code = self.connect_ex(address)
        # A scope that closed before the connect began had nothing to shut down; one that closes later wakes the poll.
        self.scope.check()
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(self, select.POLLOUT)
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise TimeoutError
            self.scope.check()
            code = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, ""))

    def _arm(self) -> None:
        self.settimeout(_left(self.deadline))

    def recv(self, *args: Any) -> bytes:
        """`socket.recv` within the deadline."""
        self._arm()
        return super().recv(*args)

    def recv_into(self, *args: Any) -> int:
        """`socket.recv_into` within the deadline."""
        self._arm()
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        """`socket.send` within the deadline."""
        self._arm()
        return super().send(*args)

    def sendall(self, *args: Any) -> None:
        """`socket.sendall` within the deadline."""
        self._arm()
        super().sendall(*args)


def connect(host: str, port: int, scope: CancelScope, *, timeout: float, connect_timeout: float) -> GuardedSocket:
    """A connection to the first address of `host` that takes it; everything done with it ends within `timeout` seconds.

    Each address has `connect_timeout` seconds. Looking up a name cannot be interrupted. Raises OSError, and what the
    gate raises.
    """
    scope.check()
    deadline = time.monotonic() + timeout
    last: OSError = TimeoutError()
    for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = GuardedSocket(family, scope, deadline)
        try:
            sock.dial((str(place[0]), int(place[1])), connect_timeout)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def exchange(
    sock: GuardedSocket,
    request: bytes,
    *,
    limit: int,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
) -> Response:
    """Send `request`, a whole one that asks for `Connection: close`, and read the answer; `sock` is of no use after it.

    limit        bytes of the body that are read and kept; the rest is never fetched
    tls          over TLS, with a server that is called `server_name`

    Raises OSError (TimeoutError when the deadline passed, ssl.SSLError), http.client.HTTPException and ValueError for
    what is not HTTP, as long as the head is not complete; after that what came is returned (`Response.cut`). Whether
    the scope was the reason is for the caller to ask.
    """
    with sock:
        try:
            wire = sock if tls is None else _Secured(sock, tls, server_name)
            wire.sendall(request)
            answer = http.client.HTTPResponse(_Readable(wire), method=method)  # type: ignore[arg-type]
            with contextlib.closing(answer):
                answer.begin()
                return _read(answer, limit)
        except OSError as error:
            raise _timely(error, sock.deadline) from None


def request(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request without a body. Raises ValueError for what would be more than one line, or not ASCII."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if not target.startswith("/") or " " in target or not all(line.isascii() and line.isprintable() for line in lines):
        raise ValueError("a path and headers of printable ASCII are needed")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def shut(sock: socket.socket) -> None:
    """Wake whoever waits for the other end; the descriptor stays open."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _read(answer: http.client.HTTPResponse, limit: int) -> Response:
    body = bytearray()
    cut: Exception | None = None
    try:
        while len(body) <= limit and (piece := answer.read1(limit + 1 - len(body))):
            body += piece
        if len(body) <= limit and answer.length:
            cut = http.client.IncompleteRead(bytes(body), answer.length)
    except (OSError, http.client.HTTPException, ValueError) as error:
        cut = error
    names = {name.lower() for name in answer.headers}
    headers = {name: ", ".join(answer.headers.get_all(name, ())) for name in names}
    return Response(answer.status, headers, bytes(body[:limit]), len(body) > limit, cut)


def _timely(error: OSError, deadline: float) -> OSError:
    """A connection that was shut at its deadline fails in many ways."""
    return TimeoutError() if time.monotonic() >= deadline else error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Secured:
    """The client's end of TLS over a guarded socket, whose deadline and scope hold for each read and write.

    `SSLContext.wrap_socket` takes the descriptor over instead: the scope would no longer reach it, each read of a
    handshake would have a time-out of its own, and Python 3.11 leaves it open when the connection is reset just before.
    """

    def __init__(self, sock: GuardedSocket, tls: ssl.SSLContext, name: str) -> None:
        """Shake hands with a server that is called `name`. Raises OSError (ssl.SSLError among them) and ValueError."""
        self._sock = sock
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._received, self._to_send, server_hostname=name)
        self._do(self._tls.do_handshake)

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[self._do(self._tls.write, view) :]

    def recv_into(self, buffer: Any) -> int:
        """The number of bytes read; 0 at the end, also where the server just closes instead of saying so first."""
        try:
            return int(self._do(self._tls.read, len(buffer), buffer))
        except ssl.SSLEOFError:
            return 0

    def _do(self, act: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                done = act(*args)
            except ssl.SSLWantReadError:
                self._flush()
                if data := self._sock.recv(_RECORD):
                    self._received.write(data)
                else:
                    self._received.write_eof()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # what the server is told of it
                raise
            else:
                self._flush()
                return done

    def _flush(self) -> None:
        if data := self._to_send.read():
            self._sock.sendall(data)


class _Readable(io.RawIOBase):
    """A connection as http.client reads it."""

    def __init__(self, wire: GuardedSocket | _Secured) -> None:
        super().__init__()
        self._wire = wire

    def makefile(self, _mode: str) -> io.BufferedReader:
        """As of a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.recv_into(buffer)

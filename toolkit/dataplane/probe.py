"""Asking one address of the data plane over a fresh connection, with one deadline for all of it."""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from deployer.core.gate import Gate

CONNECT_TIMEOUT = 1.0
"""Seconds. Controllers are near, and a connection that is being made cannot always be interrupted."""
ANSWER_TIMEOUT = 5.0
"""Seconds for one whole question."""
_LIMIT = 64 * 1024

WANTS_TLS = re.compile(
    rb"HTTP request to an HTTPS server|plain HTTP request was sent to HTTPS port|"
    rb"plain HTTP to an SSL-enabled|requires TLS"
)
"""In the answer to plain HTTP, with status 400, of a port that speaks TLS: Go's net/http, nginx, httpd, Tomcat."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a controller listens. `tls`: that port speaks TLS."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an address said. `status` 0: nothing, and `body` is why, as the rest of a sentence."""

    status: int
    revision: str = ""
    body: bytes = b""

    def __str__(self) -> str:
        if not self.status:
            return self.body.decode()
        return f"answered HTTP {self.status}" + (f" for revision {self.revision}" if self.revision else "")


def parse_address(text: str, *, tls: bool) -> Address:
    """`127.0.0.1:80`, `[::1]:80` or `localhost:80`. Raises ValueError: names would have to be resolved."""
    host, _, port = text.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise ValueError(f"{text!r} has no port")
    return Address(str(ipaddress.ip_address(host)), int(port), tls)


def ask(
    address: Address,
    host: str,
    revision_header: str,
    gate: Gate,
    *,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """GET `path` for `host`, with `headers` besides the usual ones. Raises what the gate raises.

    Raises ValueError for what would be more than one request line or header.
    """
    request = _request(host, path, headers or {})
    end = time.monotonic() + gate.remaining(ANSWER_TIMEOUT)
    try:
        raw = _exchange(address, host, request, end, gate)
        response = http.client.HTTPResponse(_Bytes(raw))  # type: ignore[arg-type]
        with contextlib.closing(response):
            response.begin()
            try:
                body = response.read(_LIMIT)
            except http.client.IncompleteRead as error:
                body = error.partial
            return Answer(response.status, response.headers.get(revision_header) or "", body)
    except TimeoutError:
        gate.check()
        return Answer(0, body=b"gave no answer in time")
    except (OSError, http.client.HTTPException, ValueError) as error:
        gate.check()
        return Answer(0, body=f"gave no answer ({type(error).__name__})".encode())


def _request(host: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: deployer", "Accept: */*", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not path.startswith("/") or " " in path or not all(line.isascii() and line.isprintable() for line in lines):
        raise ValueError("a path and headers of printable ASCII are needed")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _exchange(address: Address, host: str, request: bytes, end: float, gate: Gate) -> bytes:
    """What comes back, up to the limit, the end of the connection or the deadline."""
    gate.check()
    timeout = min(CONNECT_TIMEOUT, _left(end))
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((address.host, address.port), timeout))
        # A second handle on the same connection: TLS takes the first one over. Shutting it down wakes whoever waits.
        handle = stack.enter_context(sock.dup())
        stack.callback(gate.on_close(lambda: _shutdown(handle)))
        if address.tls:
            sock.settimeout(_left(end))
            sock = stack.enter_context(_context().wrap_socket(sock, server_hostname=host))
        sock.settimeout(_left(end))
        sock.sendall(request)
        return _receive(sock, end)


def _receive(sock: socket.socket, end: float) -> bytes:
    raw = bytearray()
    while len(raw) < _LIMIT:
        try:
            sock.settimeout(_left(end))
            piece = sock.recv(_LIMIT)
        except TimeoutError:
            # Headers that are complete say enough, however slowly the rest comes.
            if b"\r\n\r\n" not in raw:
                raise
            break
        if not piece:
            break
        raw += piece
    return bytes(raw)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shutdown(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _context() -> ssl.SSLContext:
    # The question is which version answers, not who; and the certificate is the host's, not the address'.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Bytes:
    """Bytes that http.client reads like a connection."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        """The bytes as a file."""
        return io.BytesIO(self._raw)

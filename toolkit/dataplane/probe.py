"""Asking one address of the data plane over a fresh connection, with one deadline for all of it."""

from __future__ import annotations

import http.client
import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from deployer.core.cancel_scope import CancelScope
from deployer.toolkit import http_exchange

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
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        if not self.status:
            return self.body.decode()
        return f"answered HTTP {self.status}" + (f" for revision {self.revision}" if self.revision else "")


LATE = Answer(0, body=b"gave no answer in time")


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
    scope: CancelScope,
    *,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    timeout: float = ANSWER_TIMEOUT,
) -> Answer:
    """GET `path` for `host`, with `headers` besides the usual ones, within `timeout` seconds. Raises what the scope
    raises.

    Raises ValueError for what would be more than one request line or header.
    """
    usual = {"Host": host, "User-Agent": "deployer", "Accept": "*/*", "Connection": "close"}
    request = http_exchange.request("GET", path, usual | dict(headers or {}))
    tls = _context() if address.tls else None
    try:
        sock = http_exchange.connect(
            address.host, address.port, scope, timeout=scope.remaining(timeout), connect_timeout=CONNECT_TIMEOUT
        )
        found = http_exchange.exchange(sock, request, limit=_LIMIT, tls=tls, server_name=host)
        # A head that is complete says enough, whatever becomes of the rest (`found.cut`).
        return Answer(found.status, found.headers.get(revision_header.lower(), ""), found.body, found.headers)
    except TimeoutError:
        scope.check()
        return LATE
    except (OSError, http.client.HTTPException, ValueError) as error:
        scope.check()
        return Answer(0, body=f"gave no answer ({type(error).__name__})".encode())


def _context() -> ssl.SSLContext:
    # The question is which version answers, not who; and the certificate is the host's, not the address'.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

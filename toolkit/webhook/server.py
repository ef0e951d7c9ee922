"""One request to a server that the settings name: its address, credentials and certificates, bounded in time and size,
never redirected. Errors name the server's origin only, since the rest of an address may be a secret."""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import DeployerError, SettingsError
from deployer.toolkit import http_exchange
from deployer.toolkit.webhook.address import Address, parse_address

T = TypeVar("T")

PROXY_HEAD = 8192
"""Bytes that a proxy's answer to CONNECT may take."""


class NoAnswer(DeployerError):
    """The server gave no HTTP answer. Says so in a sentence that holds neither a path nor a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server, as the settings have it. Files are read for every request, so that what is rotated takes effect.

    token     sent as `Authorization: Bearer`; or `username` and `password` as `Basic`
    ca_file   certificates that `https://` is verified with; empty: those of public authorities
    proxy     `http://host:port`, which is asked to CONNECT; for `https://` only
    timeout   seconds for all of one request
    """

    url: str = ""
    url_file: str = ""
    token: str = ""
    token_file: str = ""
    username: str = ""
    password: str = ""
    password_file: str = ""
    ca_file: str = ""
    proxy: str = ""
    timeout: float = 10.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def check(self) -> None:
        """Raises SettingsError, without any value, for what cannot work."""
        for name in ("url", "token", "password"):
            if getattr(self, name) and getattr(self, f"{name}_file"):
                raise SettingsError(f"{name}: give either {name} or {name}_file")
        if not self.url and not self.url_file:
            raise SettingsError("url: the address is missing; give url or url_file")
        if (self.token or self.token_file) and self.username:
            raise SettingsError("username: give either a token, or a username and its password")
        if bool(self.username) != bool(self.password or self.password_file):
            raise SettingsError("username: give both, a username and its password")
        try:
            name = "url"
            secure = not self.url or parse_address(self.url).secure
            name = "token"
            if self.token:
                check_token(self.token)
            name = "username"
            check_username(self.username)
            name = "proxy"
            if self.proxy and parse_address(self.proxy).secure:
                raise ValueError("a proxy is asked over http://")
            if self.proxy and not secure:
                raise ValueError("only https:// is sent through a proxy")
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None

    @property
    def address(self) -> Address:
        """Where it is. Raises NoAnswer when the file with that cannot be read."""
        return self.given("url", parse_address)

    @property
    def origin(self) -> str:
        """Scheme, host and port: as much as may be said. Raises NoAnswer."""
        return self.address.origin

    def request(
        self,
        method: str,
        target: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
        scope: CancelScope | None = None,
    ) -> http_exchange.Response:
        """The answer, whatever its status is. Raises NoAnswer, and what the scope raises.

        target   path and query; empty: those of the address
        headers  besides those that every request has, which they may replace
        limit    bytes of the answer's body that are read
        """
        address, scope = self.address, scope or CancelScope()
        lines = {
            "Host": address.authority,
            "User-Agent": "kube-deployer",
            "Accept": "*/*",
            "Connection": "close",
            "Content-Length": str(len(body)),
            **(headers or {}),
            **self._authorization(),
        }
        message = http_exchange.request(method, target or address.target, lines) + body
        try:
            tls = self._tls() if address.secure else None
            sock = self._connect(address, scope)
            return http_exchange.exchange(sock, message, limit=limit, method=method, tls=tls, server_name=address.host)
        except (OSError, http.client.HTTPException, ValueError) as error:
            scope.check()
            raise NoAnswer(self._why(address, error)) from None

    def _why(self, address: Address, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{address.origin}: its certificate is refused: {error.verify_message}"
        if isinstance(error, TimeoutError):
            return f"{address.origin} does not answer within {self.timeout:g} s"
        if isinstance(error, OSError):
            return f"{address.origin} cannot be reached: {error.strerror or type(error).__name__}"
        return f"{address.origin} answers, but not in HTTP ({type(error).__name__})"

    def _authorization(self) -> dict[str, str]:
        if self.token or self.token_file:
            return {"Authorization": f"Bearer {self.given('token', check_token)}"}
        if self.username:
            pair = f"{self.username}:{self.given('password', str)}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}

    def given(self, name: str, parse: Callable[[str], T]) -> T:
        """The value of a setting, perhaps out of a file, parsed. Raises NoAnswer."""
        text, file = getattr(self, name), getattr(self, f"{name}_file")
        try:
            if file:
                text = Path(file).read_text(encoding="utf-8").strip()
            return parse(text)
        except OSError as error:
            raise NoAnswer(f"{name}_file {file} cannot be read: {error.strerror}") from None
        except ValueError as error:
            why = "it is not text" if isinstance(error, UnicodeDecodeError) else error
            raise NoAnswer(f"{name}_file {file}: {why}") from None

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise NoAnswer(f"ca_file {self.ca_file} cannot be used: {error.strerror or error}") from None

    def _connect(self, address: Address, scope: CancelScope) -> http_exchange.GuardedSocket:
        via = parse_address(self.proxy) if self.proxy else address
        seconds = scope.remaining(self.timeout)
        sock = http_exchange.connect(via.host, via.port, scope, timeout=seconds, connect_timeout=seconds)
        if via is not address:
            with contextlib.ExitStack() as stack:
                stack.callback(sock.close)
                _tunnel(sock, address, via)
                stack.pop_all()
        return sock


def _tunnel(sock: http_exchange.GuardedSocket, address: Address, proxy: Address) -> None:
    """Have the proxy pass on everything from now on. Raises OSError and NoAnswer."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    place = f"{host}:{address.port}"
    sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode("ascii"))
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # not one of what comes after it
        head += byte
        if not byte or len(head) > PROXY_HEAD:
            raise NoAnswer(f"the proxy {proxy.origin} does not answer as a proxy does")
    found = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if found is None or not found[1].startswith(b"2"):
        status = found[1].decode() if found else "something else than HTTP"
        raise NoAnswer(f"the proxy {proxy.origin} answers {status} instead of connecting to {address.origin}")


def check_token(token: str) -> str:
    """The token. Raises ValueError for one that no header may hold (RFC 6750, 2.1)."""
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
        raise ValueError("a token consists of A-Z, a-z, 0-9 and -._~+/=")
    return token


def check_username(name: str) -> str:
    """The name. Raises ValueError for one that cannot be told from its password (RFC 7617, 2)."""
    if ":" in name or not name.isprintable():
        raise ValueError("a username has no colon and no control characters in it")
    return name


def status_text(response: http_exchange.Response) -> str:
    """The status for a sentence, `404 Not Found`."""
    return f"{response.status} {http.client.responses.get(response.status, '')}".rstrip()

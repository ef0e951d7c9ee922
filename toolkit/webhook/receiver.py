"""One request to one receiver: signed, bounded in time and size, never redirected.

Errors name the receiver's origin only, since the rest of an address may be a secret, as it is with Slack.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import DeployerError, Interrupted, Revoked, SettingsError
from deployer.toolkit import http_exchange
from deployer.toolkit.webhook.address import Address, parse_address
from deployer.toolkit.webhook.signature import parse_keys, signature

T = TypeVar("T")

ANSWER = 1024
"""Bytes of an answer that are read."""

PROXY_HEAD = 8192
"""Bytes that a proxy's answer to CONNECT may take."""

RECEIVER_SCHEMA: Mapping[str, Mapping[str, object]] = {
    name: {"type": "string", "minLength": 1}
    for name in ("url", "url_file", "secret", "secret_file", "token", "token_file", "ca_file", "proxy")
}
"""Properties (JSON Schema) of the table of a receiver, but for `timeout`."""


class NoAnswer(DeployerError):
    """No answer came; a sentence that holds neither path nor secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One receiver, as the settings have it. Files are read for every delivery, so that what is rotated takes effect.

    timeout   seconds for all of one delivery
    """

    url: str = ""
    url_file: str = ""
    secret: str = ""
    secret_file: str = ""
    token: str = ""
    token_file: str = ""
    ca_file: str = ""
    proxy: str = ""
    timeout: float = 10.0

    def __repr__(self) -> str:
        return "Receiver()"

    def check(self) -> None:
        """Raises SettingsError, without any value, for what cannot work."""
        for name in ("url", "secret", "token"):
            if getattr(self, name) and getattr(self, f"{name}_file"):
                raise SettingsError(f"{name}: give either {name} or {name}_file")
        if not self.url and not self.url_file:
            raise SettingsError("url: the address is missing; give url or url_file")
        try:
            name = "url"
            secure = not self.url or parse_address(self.url).secure
            name = "secret"
            if self.secret:
                parse_keys(self.secret)
            name = "token"
            if self.token:
                _check_token(self.token)
            name = "proxy"
            if self.proxy and parse_address(self.proxy).secure:
                raise ValueError("a proxy is asked over http://")
            if self.proxy and not secure:
                raise ValueError("only https:// is sent through a proxy")
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None

    def send(
        self,
        id: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        limit: int = ANSWER,
        scope: CancelScope | None = None,
    ) -> http_exchange.Response:
        """What it answers, whatever that is; redirects are not followed. Raises NoAnswer.

        id     the same whenever this is sent again
        limit  bytes of the answer that are read
        scope  ends it, too, and then raises what it raises
        """
        address = self._given("url", parse_address)
        sent = self._headers(id, body, headers, address)
        request = http_exchange.request(method, address.target, sent) + body
        outer = scope or CancelScope()
        with contextlib.ExitStack() as stack:
            inner = CancelScope(time.monotonic() + outer.remaining(self.timeout))
            stack.callback(outer.on_close(lambda: inner.close(Revoked("it was closed"))))
            try:
                return self._exchange(address, request, method, limit, inner)
            except NoAnswer:
                outer.check()
                raise

    def _exchange(
        self, address: Address, request: bytes, method: str, limit: int, scope: CancelScope
    ) -> http_exchange.Response:
        try:
            tls = self._tls() if address.secure else None
            sock = self._connect(address, scope)
            return http_exchange.exchange(sock, request, limit=limit, method=method, tls=tls, server_name=address.host)
        except ssl.SSLCertVerificationError as error:
            raise NoAnswer(f"{address.origin}: its certificate is refused: {error.verify_message}") from None
        except (TimeoutError, Interrupted):
            raise NoAnswer(f"{address.origin} does not answer within {self.timeout:g} s") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise NoAnswer(f"{address.origin} cannot be reached: {why}") from None
        except (http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"{address.origin} answers, but not in HTTP ({type(error).__name__})") from None

    @property
    def origin(self) -> str:
        """Scheme, host and port: as much as may be said. Raises NoAnswer."""
        return self._given("url", parse_address).origin

    def _headers(self, id: str, body: bytes, more: Mapping[str, str], address: Address) -> dict[str, str]:
        headers = {
            "Host": address.authority,
            "User-Agent": "kube-deployer",
            "Accept": "*/*",
            "Connection": "close",
            "Content-Length": str(len(body)),
            **more,
            "webhook-id": id,
        }
        if self.token or self.token_file:
            headers["Authorization"] = f"Bearer {self._given('token', _check_token)}"
        if self.secret or self.secret_file:
            # That of this attempt, as receivers refuse what is old.
            seconds = int(datetime.datetime.now(datetime.UTC).timestamp())
            headers["webhook-timestamp"] = str(seconds)
            headers["webhook-signature"] = signature(self._given("secret", parse_keys), id, seconds, body)
        return headers

    def _given(self, name: str, parse: Callable[[str], T]) -> T:
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


def _check_token(token: str) -> str:
    # RFC 6750, 2.1
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
        raise ValueError("a token consists of A-Z, a-z, 0-9 and -._~+/=")
    return token


def receiver_of(table: Mapping[str, object], where: str) -> Receiver:
    """The receiver of a table whose other keys are ignored. Raises SettingsError that begins with `where`."""
    known = {key: value for key, value in table.items() if key in Receiver.__dataclass_fields__}
    receiver = Receiver(**known)  # type: ignore[arg-type]
    try:
        receiver.check()
    except SettingsError as error:
        raise SettingsError(f"{where} {error}") from None
    return receiver

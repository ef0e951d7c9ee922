"""One POST to one receiver: signed, bounded in time and size, never redirected. Errors name the receiver's origin only,
since the rest of an address may be a secret, as it is with Slack."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import hashlib
import hmac
import http.client
import re
import ssl
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deployer.plugins.notify_webhook.formats import Message
from deployer.sdk.errors import DeadlineExceeded, NotDelivered, SettingsError
from deployer.sdk.plugin import CancelScope, http_exchange

T = TypeVar("T")

ANSWER = 1024
"""Bytes of an answer that are read."""

SAID = 100
"""Characters of an answer that an error repeats."""

PROXY_HEAD = 8192
"""Bytes that a proxy's answer to CONNECT may take."""

SECRET_PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
"""How long the key of a signature may be (Standard Webhooks)."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a receiver is, in parts. `target` is path and query."""

    secure: bool
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: as much as may be said."""
        return f"http{'s' if self.secure else ''}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and, unless it is the usual one, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Raises ValueError, which says what is wrong without the address."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("an address is printable ASCII without spaces")
    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("this is not an address like https://hooks.example.com/deployer") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("this is not an address like https://hooks.example.com/deployer")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address may not contain credentials; use token")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(secure, host, port or (443 if secure else 80), target)


def parse_keys(text: str) -> list[bytes]:
    """The keys in `text`, one a line, each `whsec_` and base64. Raises ValueError, without a key in it."""
    keys = []
    for line in text.split():
        try:
            key = base64.b64decode(line.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not line.startswith(SECRET_PREFIX) or len(key) not in KEY_BYTES:
            raise ValueError(
                "a secret is whsec_ and 24 to 64 bytes in base64; make one with: echo whsec_$(openssl rand -base64 32)"
            )
        keys.append(key)
    if not keys:
        raise ValueError("there is no secret in it")
    return keys


def signature(keys: list[bytes], id: str, seconds: int, body: bytes) -> str:
    """What the header `webhook-signature` holds: one for each key (Standard Webhooks, symmetric)."""
    signed = f"{id}.{seconds}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


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

    def post(self, id: str, message: Message) -> None:
        """Deliver it. Raises NotDelivered, with a sentence that holds neither path nor secret."""
        address = self._given("url", parse_address)
        headers = self._headers(id, message, address)
        request = http_exchange.request("POST", address.target, headers) + message.body
        scope = CancelScope(time.monotonic() + self.timeout)
        try:
            tls = self._tls() if address.secure else None
            sock = self._connect(address, scope)
            answer = http_exchange.exchange(
                sock, request, limit=ANSWER, method="POST", tls=tls, server_name=address.host
            )
        except ssl.SSLCertVerificationError as error:
            raise NotDelivered(f"{address.origin}: its certificate is refused: {error.verify_message}") from None
        except (TimeoutError, DeadlineExceeded):
            raise NotDelivered(f"{address.origin} does not answer within {self.timeout:g} s") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise NotDelivered(f"{address.origin} cannot be reached: {why}") from None
        except (http.client.HTTPException, ValueError) as error:
            raise NotDelivered(f"{address.origin} answers, but not in HTTP ({type(error).__name__})") from None
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"{address.origin} {_refusal(answer)}")

    def _headers(self, id: str, message: Message, address: Address) -> dict[str, str]:
        headers = {
            "Host": address.authority,
            "User-Agent": "kube-deployer",
            "Accept": "*/*",
            "Connection": "close",
            "Content-Length": str(len(message.body)),
            **message.headers,
            "webhook-id": id,
        }
        if self.token or self.token_file:
            headers["Authorization"] = f"Bearer {self._given('token', _check_token)}"
        if self.secret or self.secret_file:
            # That of this attempt, as receivers refuse what is old.
            seconds = int(datetime.datetime.now(datetime.UTC).timestamp())
            headers["webhook-timestamp"] = str(seconds)
            headers["webhook-signature"] = signature(self._given("secret", parse_keys), id, seconds, message.body)
        return headers

    def _given(self, name: str, parse: Callable[[str], T]) -> T:
        """The value of a setting, perhaps out of a file, parsed. Raises NotDelivered."""
        text, file = getattr(self, name), getattr(self, f"{name}_file")
        try:
            if file:
                text = Path(file).read_text(encoding="utf-8").strip()
            return parse(text)
        except OSError as error:
            raise NotDelivered(f"{name}_file {file} cannot be read: {error.strerror}") from None
        except ValueError as error:
            why = "it is not text" if isinstance(error, UnicodeDecodeError) else error
            raise NotDelivered(f"{name}_file {file}: {why}") from None

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise NotDelivered(f"ca_file {self.ca_file} cannot be used: {error.strerror or error}") from None

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
    """Have the proxy pass on everything from now on. Raises OSError and NotDelivered."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    place = f"{host}:{address.port}"
    sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode("ascii"))
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # not one of what comes after it
        head += byte
        if not byte or len(head) > PROXY_HEAD:
            raise NotDelivered(f"the proxy {proxy.origin} does not answer as a proxy does")
    found = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if found is None or not found[1].startswith(b"2"):
        status = found[1].decode() if found else "something else than HTTP"
        raise NotDelivered(f"the proxy {proxy.origin} answers {status} instead of connecting to {address.origin}")


def _check_token(token: str) -> str:
    # RFC 6750, 2.1
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
        raise ValueError("a token consists of A-Z, a-z, 0-9 and -._~+/=")
    return token


def _refusal(answer: http_exchange.Response) -> str:
    """What the receiver answered, as the rest of a sentence."""
    status = f"{answer.status} {http.client.responses.get(answer.status, '')}".rstrip()
    if not 300 <= answer.status < 400:
        said = " ".join(answer.body.decode("utf-8", "replace").split())[:SAID]
        return f"answers {status}" + (f": {said}" if said.isprintable() and said else "")
    return f"answers {status}, and redirects are not followed; correct its address in the settings"

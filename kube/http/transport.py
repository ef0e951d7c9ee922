"""One HTTP exchange with the API server: pool, credentials, time-outs, and how to break off a call that hangs.

The official client reads the configuration and keeps the pool; its own retries, deserialisers and exceptions are not
used. What goes wrong below HTTP arrives as `NotSent` (nothing reached the server) or `Lost` (it may have).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    ReadTimeoutError,
)

CONNECT_TIMEOUT = 5.0
"""Seconds to connect, TLS included."""

READ_TIMEOUT = 10.0
"""Seconds of silence after which an ordinary request is given up."""

BODY_TIMEOUT = 60.0
"""Seconds for the whole of an ordinary answer, so that a server that trickles does not hold a thread for ever."""


_SENDABLE = re.compile(r"[!-~]+( [!-~]+)*")


class NotSent(Exception):
    """No connection: the request has had no effect."""


class Lost(Exception):
    """The connection broke or fell silent after the request was on its way: whether it had an effect is unknown."""


class Silent(Lost):
    """Nothing came for as long as is tolerated; the connection did not break."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    headers: Any
    body: bytes


class Credentials(Protocol):
    """Gives the value of the Authorization header."""

    unknown: str
    """What to say, and to do, when the API server does not know them."""

    def header(self, *, fresh: bool = False) -> str | None:
        """None for no credentials. `fresh`: the last ones were refused, look again."""


class Basic:
    """User name and password."""

    unknown = (
        "it knows no user names and passwords, as Kubernetes since 1.19: give --kubernetes-token-file instead of "
        "--kubernetes-username"
    )

    def __init__(self, username: str, password: str) -> None:
        self._header = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")

    def header(self, *, fresh: bool = False) -> str | None:
        return self._header


class TokenFile:
    """A bearer token in a file that is rotated under our hands; while it is empty or away the last one is used."""

    def __init__(self, path: Path) -> None:
        self.unknown = f"it does not know the token in {path}: that has expired, was revoked, or is another cluster's"
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def header(self, *, fresh: bool = False) -> str | None:
        with self._lock, contextlib.suppress(OSError, UnicodeDecodeError):
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if fresh or seen != self._seen:
                token = self._path.read_text(encoding="ascii").strip()
                if token:
                    self._token, self._seen = token, seen
        return f"Bearer {self._token}" if self._token else None


class FromClient:
    """What the official client found in a kubeconfig; its hook renews tokens of exec and OIDC plugins."""

    def __init__(self, configuration: Any, unknown: str) -> None:
        self.unknown = unknown
        self._configuration = configuration
        self._lock = threading.Lock()

    def header(self, *, fresh: bool = False) -> str | None:
        with self._lock:
            setting = self._configuration.auth_settings().get("BearerToken") or {}
        return setting.get("value") or None


# --- breaking off a call ------------------------------------------------------------------------------------------


class Call:
    """A request under way. `abort` makes its thread return at once with `Lost`."""

    def __init__(self, *, last: bool = False) -> None:
        """`last`: the connection is used for no other request after this one."""
        self.last = last
        self._lock = threading.Lock()
        self._socket: Any = None
        self._aborted = False
        self.begun = False
        """True as soon as something may have reached the server."""

    def attach(self, connected: Any) -> None:
        """The socket on which the answer will arrive."""
        with self._lock:
            self._socket = connected
            if self._aborted:
                self._shutdown()

    def patience(self, seconds: float) -> None:
        """From now on, bear that many seconds of silence."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.settimeout(seconds)

    def detach(self) -> None:
        """The answer is complete: the socket may belong to the next request."""
        with self._lock:
            self._socket = None

    def abort(self) -> None:
        """Break it off, now or as soon as it is sent; harmless when it is over. Callable from any thread."""
        with self._lock:
            self._aborted = True
            self._shutdown()

    @property
    def aborted(self) -> bool:
        """True once `abort` was called."""
        with self._lock:
            return self._aborted

    def _shutdown(self) -> None:
        if isinstance(self._socket, socket.socket):
            # Not SSLSocket.shutdown: that one takes the TLS state away from under the thread that is reading.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_running = threading.local()


class _Attaching:
    """Mixed into urllib3's connections: tells the thread's call how far it is, and its socket before the long wait."""

    sock: Any

    def putrequest(self, *args: Any, **kwargs: Any) -> Any:
        _running.call.begun = True
        return super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        call: Call = _running.call
        call.attach(self.sock)
        response = super().getresponse(*args, **kwargs)  # type: ignore[misc]
        if call.last and self.sock is not None:
            # The answer keeps the socket open until it is read or closed; the pool gets a connection without one.
            self.sock.close()
            self.sock = None
        return response


def _make_abortable(manager: Any) -> None:
    """Let the pool manager make pools whose connections can be broken off."""
    pools = {}
    for scheme, pool in manager.pool_classes_by_scheme.items():
        connection = type(pool.ConnectionCls.__name__, (_Attaching, pool.ConnectionCls), {})
        pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": connection})
    manager.pool_classes_by_scheme = pools


# --- the transport ------------------------------------------------------------------------------------------------


class Transport:
    """Sends requests to one API server. Thread-safe. Never retries, never follows a redirect."""

    def __init__(self, api_client: Any, credentials: Credentials, user_agent: str) -> None:
        """`api_client` is a `kubernetes.client.ApiClient`; it is closed with this."""
        self._api_client = api_client
        self._manager = api_client.rest_client.pool_manager
        _make_abortable(self._manager)
        self._base = str(api_client.configuration.host).rstrip("/")
        self._credentials = credentials
        self._user_agent = user_agent
        self.conceal: Callable[[str], None] = lambda _: None
        """Is told the credentials whenever there are new ones, before they are sent."""
        self._concealed = ""
        self.read_timeout = READ_TIMEOUT
        self.connect_timeout = CONNECT_TIMEOUT

    @property
    def address(self) -> str:
        """URL of the API server."""
        return self._base

    @property
    def unknown(self) -> str:
        """What to say when the API server does not know the credentials."""
        return self._credentials.unknown

    def send(
        self, method: str, target: str, body: bytes | None, content_type: str, *, call: Call, timeout: float
    ) -> Answer:
        """One exchange; `timeout` is the seconds of silence that are tolerated. Raises NotSent or Lost."""
        response = self._request(method, target, body, content_type, call=call, timeout=timeout)
        end = time.monotonic() + max(timeout, BODY_TIMEOUT)
        chunks = []
        try:
            with _translation(call):
                for chunk in response.stream(1 << 16):
                    chunks.append(chunk)
                    if time.monotonic() > end:
                        raise Lost("the answer does not come to an end")
        except BaseException:
            call.detach()
            response.close()
            raise
        call.detach()
        response.release_conn()
        return Answer(response.status, response.headers, b"".join(chunks))

    def stream(self, target: str, call: Call, silence: float) -> Answer | Stream:
        """A GET whose answer goes on, or the whole answer when it is not a 200.

        `silence` seconds without a byte count as a dead connection, and before the answer has begun no more than an
        ordinary request is given: the API server begins at once. Raises NotSent or Lost.
        """
        response = self._request("GET", target, None, "", call=call, timeout=min(silence, self.read_timeout))
        if response.status == 200:
            call.patience(silence)
            return Stream(response, call)
        with Stream(response, call) as rest:
            return Answer(response.status, response.headers, b"".join(rest))

    def pass_on(
        self, method: str, target: str, headers: Mapping[str, str], *, call: Call, seconds: float, limit: int
    ) -> Answer:
        """One exchange with somebody behind the server, who is not trusted: these headers, `seconds` for everything.

        At most `limit` bytes of the body are read, as they come; an answer that ends early is Lost. What he sends
        beyond his answer (such as a second one) must never be taken for the answer to another request, so `call` has
        to be a `last` one. Raises NotSent or Lost.
        """
        timer = threading.Timer(seconds, call.abort)
        timer.daemon = True
        timer.start()
        try:
            response = self._request(method, target, None, "", call=call, timeout=seconds, headers=headers)
            try:
                with _translation(call):
                    body = response.read(limit, decode_content=False)
                # Neither is an error for urllib3: a body that is shorter than it should be, and one without a length
                # that ends because the connection was broken off here.
                if call.aborted or (len(body) < limit and response.length_remaining):
                    raise Lost("the answer broke off")
            finally:
                call.detach()
                response.close()
        finally:
            timer.cancel()
        return Answer(response.status, response.headers, body)

    def renew(self) -> None:
        """Read the credentials again: the server has refused the last ones."""
        self._credentials.header(fresh=True)

    def close(self) -> None:
        """Close all idle connections."""
        self._api_client.close()

    def _request(
        self,
        method: str,
        target: str,
        body: bytes | None,
        content_type: str,
        *,
        call: Call,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send it and wait for the head of the answer. `headers` instead of those of an ordinary request."""
        headers = {"Accept": "application/json", "User-Agent": self._user_agent} if headers is None else dict(headers)
        if body is not None:
            headers["Content-Type"] = content_type
        if authorization := self._credentials.header():
            if not _SENDABLE.fullmatch(authorization):
                # http.client would refuse it as well, and show it.
                raise NotSent("the token holds characters that cannot be sent")
            if authorization != self._concealed:
                self.conceal(authorization.rpartition(" ")[2])
                self._concealed = authorization
            headers["Authorization"] = authorization
        _running.call = call
        with _translation(call):
            return self._manager.urlopen(
                method,
                self._base + target,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(self.connect_timeout, timeout), read=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )


class Stream:
    """The chunks of an answer as they arrive; iteration raises Lost. Closed by `with`."""

    def __init__(self, response: Any, call: Call) -> None:
        self._response = response
        self._call = call

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.detach()
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        with _translation(self._call):
            yield from self._response.stream(1 << 16)


@contextlib.contextmanager
def _translation(call: Call) -> Iterator[None]:
    """urllib3's and the socket's errors as NotSent or Lost, with a reason that a person can read."""
    try:
        yield
    except (ConnectTimeoutError, LocationValueError) as error:
        raise NotSent(_reason(error)) from error
    except ReadTimeoutError as error:
        raise (Silent if call.begun else NotSent)("no answer in time") from error
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        # ValueError: reading from a TLS socket that is being shut down.
        raise (Lost if call.begun else NotSent)(f"the connection failed: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The innermost cause in short; urllib3 wraps and prefixes with object addresses."""
    seen = 0
    while (inner := error.__cause__ or (error.__context__ if isinstance(error, HTTPError) else None)) and seen < 5:
        error, seen = inner, seen + 1
    if isinstance(error, ssl.SSLError):
        return _tls_reason(error)
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()[:200]


_OTHER_NAME = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL's x509_vfy.h."""


def _tls_reason(error: ssl.SSLError) -> str:
    """What is wrong with the TLS connection, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return (
                f"its certificate is made out for another name ({error.verify_message}): use an address that is in it"
            )
        return (
            f"its certificate cannot be verified ({error.verify_message}): name the file with the certificate of its "
            f"authority by --kubernetes-ca-file"
        )
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return "it does not speak TLS there: is it http:// instead of https://?"
    return f"TLS failed ({error.reason or error})"

"""The only door to etcd: requests to the JSON gateway of its v3 API, over urllib3, to whichever endpoint answers.

Every request ends by a deadline. It is sent again, to the next endpoint, whenever nobody can say whether it had its
effect: whoever writes must make that harmless (`transaction.py` does by a key of its own for each transaction).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from deployer.core.errors import SettingsError, StoreUnavailable
from deployer.store.etcd.client.messages import Authenticated, Failure

CONNECT = 2.0  # seconds for a connection
_PAUSE = 0.1  # seconds between two rounds, which double
_CONNECTIONS = 64  # kept open to each endpoint
_PIECE = 64 * 1024

# gRPC status codes (grpc/grpc, doc/statuscodes.md) that say nothing about the request itself.
_DEADLINE_EXCEEDED, _RESOURCE_EXHAUSTED, _INTERNAL, _UNAVAILABLE, _UNAUTHENTICATED = 4, 8, 13, 14, 16
_PASSING = (_DEADLINE_EXCEEDED, _INTERNAL, _UNAVAILABLE)
# Words of etcd (api/v3/rpc/rpctypes/error.go) for what codes do not tell apart.
_BUSY = "too many requests"
_FULL = "database space exceeded"
_WRITES = ("kv/put", "lease/grant")  # which a full etcd always refuses
_OLD_TOKEN = ("invalid auth token", "revision of auth store is old")
_LOGIN_REFUSED = ("invalid user ID or password", "authentication failed", "user name is empty", "permission denied")

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Refused(StoreUnavailable):
    """etcd's answer is no, and nothing was done. `code` is gRPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unanswered(StoreUnavailable):
    """No endpoint gave an answer in time. sent: the request may have had its effect."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How etcd is reached. Files are read again when they have changed.

    endpoints   `http://host:2379` or `https://...`
    timeout     seconds for one request, over all endpoints
    """

    endpoints: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password: str = ""
    timeout: float = 5.0

    def __repr__(self) -> str:
        return f"Access({', '.join(self.endpoints)})"

    @property
    def where(self) -> str:
        """The endpoints, for sentences."""
        return ", ".join(self.endpoints)

    def tls(self) -> ssl.SSLContext | None:
        """What TLS needs, when an endpoint has it. Raises SettingsError."""
        if not any(endpoint.startswith("https:") for endpoint in self.endpoints):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise SettingsError(f"the files for TLS with etcd cannot be used ({files}: {why})") from error
        return context

    def stamp(self) -> tuple[int, ...]:
        """Grows with any change of a file."""
        return tuple(_modified(file) for file in (self.ca_file, self.cert_file, self.key_file) if file)


class _Passing(Exception):
    """This endpoint gave no answer; another one, or the same one later, may."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Gateway:
    """Requests to whichever endpoint answers; it stays with one that did. Thread-safe."""

    def __init__(self, access: Access) -> None:
        """Sends nothing yet. Raises SettingsError for TLS files that cannot be used."""
        self.access = access
        self._lock = threading.Lock()
        self._login = threading.Lock()
        self._token = ""
        self._closed = threading.Event()
        self._streams: set[Any] = set()
        self.full = ""
        """What is to be done about an etcd without space, from the first write that it refused to the next one that it
        takes; it goes on being read."""
        self._stamp = access.stamp()
        self._pools = _pools(access)
        # Replicas spread over the members.
        self._first = random.randrange(len(access.endpoints))
        self._turns = itertools.count(self._first)

    def call(self, path: str, body: Mapping[str, Any], answer: type[T], *, timeout: float | None = None) -> T:
        """The answer to a request like `kv/range`, within `timeout` seconds.

        Raises Refused when etcd says no, else StoreUnavailable.
        """
        return self.call_twice(path, body, answer, timeout=timeout)[0]

    def call_twice(
        self, path: str, body: Mapping[str, Any], answer: type[T], *, timeout: float | None = None
    ) -> tuple[T, bool]:
        """The same, and whether an earlier attempt at it may have had, or may still have, its effect."""
        exchange = _Exchange(self, path, msgspec.json.encode(body), answer, timeout or self.access.timeout)
        return exchange.run(), exchange.sent

    def stream(self, path: str, body: Mapping[str, Any], answer: type[T], *, silence: float) -> Iterator[T]:
        """The messages of one stream, from one endpoint; it ends with `silence` seconds in which nothing comes.

        Raises Refused, and StoreUnavailable when it ends otherwise. The next stream goes to the next endpoint.
        """
        endpoint = self.access.endpoints[next(self._turns) % len(self.access.endpoints)]
        try:
            response = self._send(endpoint, path, msgspec.json.encode(body), CONNECT, silence)
            with self._lock:
                self._streams.add(response)
            try:
                yield from _messages(response, answer)
            finally:
                with self._lock:
                    self._streams.discard(response)
                response.close()
        except _Passing as error:
            raise Unanswered(f"{endpoint} {error}", sent=True) from None

    def close(self) -> None:
        """Every later request raises StoreUnavailable."""
        self._closed.set()
        with self._lock:
            for response in self._streams:
                with contextlib.suppress(OSError, ValueError):
                    response.shutdown()  # wakes who waits for its next message
            for pool in self._pools.values():
                pool.close()

    # --- for one exchange ------------------------------------------------------------------------------------

    def _order(self) -> list[str]:
        endpoints = self.access.endpoints
        first = self._first
        return [endpoints[(first + number) % len(endpoints)] for number in range(len(endpoints))]

    def avoid(self, endpoint: str) -> None:
        """Begin with the one behind it from now on."""
        with self._lock:
            if self.access.endpoints[self._first] == endpoint:
                self._first = (self._first + 1) % len(self.access.endpoints)

    def _pool(self, endpoint: str) -> urllib3.HTTPConnectionPool:
        stamp = self.access.stamp()
        with self._lock:
            if stamp != self._stamp:
                try:
                    new = _pools(self.access)
                except SettingsError as error:  # half-way through being replaced
                    _log.warning("%s; the earlier ones stay in use", error)
                else:
                    self._pools = new
                self._stamp = stamp
            return self._pools[endpoint]

    def ask(self, endpoint: str, path: str, content: bytes, seconds: float, answer: type[T]) -> T:
        """One attempt with one endpoint. Raises _Passing and Refused."""
        end = time.monotonic() + seconds
        token = self._token
        if self.access.username and not token:
            token = self._authenticate(endpoint, end)
        try:
            return self._attempt(endpoint, path, content, end, answer)
        except Refused as error:
            if not self.access.username or not any(words in str(error) for words in _OLD_TOKEN):
                raise
        with self._lock:
            if self._token == token:
                self._token = ""
        self._authenticate(endpoint, end)
        return self._attempt(endpoint, path, content, end, answer)

    def _authenticate(self, endpoint: str, end: float) -> str:
        with self._login:  # one asks for all
            if not self._token:
                login = {"name": self.access.username, "password": self.access.password}
                content = msgspec.json.encode(login)
                self._token = self._attempt(endpoint, "auth/authenticate", content, end, Authenticated).token
            return self._token

    def _attempt(self, endpoint: str, path: str, content: bytes, end: float, answer: type[T]) -> T:
        left = max(0.001, end - time.monotonic())
        response = self._send(endpoint, path, content, min(CONNECT, left), left)
        try:
            data = _whole(response, end)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        try:
            return msgspec.json.decode(data, type=answer, strict=False)
        except msgspec.MsgspecError:
            raise _Passing("does not answer as etcd's v3 API does", sent=True) from None

    def _send(self, endpoint: str, path: str, content: bytes, connect: float, read: float) -> Any:
        """The beginning of an answer that is not an error."""
        if self._closed.is_set():
            raise StoreUnavailable(f"the store in etcd ({self.access.where}) is closed")
        headers = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
        if self._token and path != "auth/authenticate":
            headers["Authorization"] = self._token
        try:
            response = self._pool(endpoint).urlopen(
                "POST",
                f"/v3/{path}",
                body=content,
                headers=headers,
                timeout=urllib3.Timeout(connect=connect, read=read),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, ValueError) as error:
            raise _passing(error) from None
        if response.status == HTTPStatus.OK:
            return response
        try:
            data = _whole(response, time.monotonic() + read)
        finally:
            response.close()
        raise _meaning(response.status, data)


class _Exchange(Generic[T]):
    """One request, round by round over the endpoints until one answers or the time is up."""

    def __init__(self, gateway: Gateway, path: str, content: bytes, answer: type[T], timeout: float) -> None:
        self._gateway = gateway
        self._request = (path, content)
        self._answer = answer
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._reasons: dict[str, str] = {}
        self.sent = False

    def run(self) -> T:
        pause = _PAUSE
        path, content = self._request
        share = self._timeout / len(self._gateway.access.endpoints)
        while True:
            for endpoint in self._gateway._order():
                left = self._end - time.monotonic()
                if left <= 0:
                    raise self._unanswered()
                try:
                    answer = self._gateway.ask(endpoint, path, content, min(left, share), self._answer)
                    if path in _WRITES:
                        self._gateway.full = ""
                    return answer
                except _Passing as error:
                    self.sent |= error.sent
                    if left >= share / 2 or endpoint not in self._reasons:  # else it had no time for a reason
                        self._reasons[endpoint] = str(error)
                    self._gateway.avoid(endpoint)
                except Refused as error:
                    raise self._final(endpoint, error) from None
            self._gateway._closed.wait(min(pause, max(0.0, self._end - time.monotonic())))
            pause *= 2

    def _final(self, endpoint: str, error: Refused) -> Exception:
        """What a definite no means to whoever asked."""
        text = str(error)
        if _FULL in text:
            self._gateway.full = (
                f"etcd at {endpoint} has no space left: compact and defragment it, raise --quota-backend-bytes, then "
                "disarm its alarm (etcdctl alarm disarm)"
            )
            return StoreUnavailable(self._gateway.full)
        if error.code == _UNAUTHENTICATED or any(words in text for words in _LOGIN_REFUSED):
            who = (
                f"the user {self._gateway.access.username}"
                if self._gateway.access.username
                else "requests without user"
            )
            return StoreUnavailable(
                f"etcd at {endpoint} refuses {who} ({text}): check --etcd-username and --etcd-password, and that its "
                "role may read and write the prefix"
            )
        return error

    def _unanswered(self) -> Unanswered:
        reasons = "; ".join(f"{endpoint} {reason}" for endpoint, reason in self._reasons.items())
        return Unanswered(
            f"etcd cannot be used now ({reasons or 'no time was left'}): check that it runs and has a quorum, and "
            "--etcd; then try again",
            sent=self.sent,
        )


def _pools(access: Access) -> dict[str, urllib3.HTTPConnectionPool]:
    context = access.tls()
    pools: dict[str, urllib3.HTTPConnectionPool] = {}
    for endpoint in access.endpoints:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port or 2379
        if parts.scheme == "https":
            pools[endpoint] = urllib3.HTTPSConnectionPool(host, port, maxsize=_CONNECTIONS, ssl_context=context)
        else:
            pools[endpoint] = urllib3.HTTPConnectionPool(host, port, maxsize=_CONNECTIONS)
    return pools


def _whole(response: Any, end: float) -> bytes:
    """The body, within the time. Raises _Passing."""
    data = bytearray()
    try:
        while piece := response.read1(_PIECE):
            data += piece
            if time.monotonic() >= end:
                raise _Passing("gave no whole answer in time", sent=True)
    except (HTTPError, OSError, ValueError) as error:
        raise _Passing(_reason(error), sent=True) from None
    return bytes(data)


def _messages(response: Any, answer: type[T]) -> Iterator[T]:
    """One JSON document a line, until it goes silent. Raises _Passing and Refused."""
    buffer = b""
    while True:
        try:
            piece = response.read1(_PIECE)
        except urllib3.exceptions.ReadTimeoutError:
            return
        except (HTTPError, OSError, ValueError) as error:
            raise _Passing(_reason(error), sent=True) from None
        if not piece:
            raise _Passing("ended the stream", sent=True)
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in filter(None, lines):
            try:
                message = msgspec.json.decode(line, type=_Streamed[answer], strict=False)  # type: ignore[valid-type]
            except msgspec.MsgspecError:
                raise _Passing("does not answer as etcd's v3 API does", sent=True) from None
            if message.result is None:
                failure = message.error or Failure()
                raise _meaning(0, b"", failure)
            yield message.result


class _Streamed(msgspec.Struct, Generic[T]):
    result: T | None = None
    error: Failure | None = None


def _meaning(status: int, data: bytes, failure: Failure | None = None) -> Exception:
    """What an answer that is an error means."""
    if failure is None:
        try:
            failure = msgspec.json.decode(data, type=Failure, strict=False)
        except msgspec.MsgspecError:
            why = f"answers HTTP {status}, not as etcd's v3 API does (is its JSON gateway on?)"
            return _Passing(why, sent=status >= HTTPStatus.INTERNAL_SERVER_ERROR)
    code, text = failure.grpc_code or failure.code, failure.message or failure.error or f"HTTP {status}"
    if code in _PASSING or (code == _RESOURCE_EXHAUSTED and _BUSY in text):
        return _Passing(f"says: {text}"[:300], sent=True)
    return Refused(code, text[:300])


def _passing(error: Exception) -> _Passing:
    never_sent = isinstance(error, (NewConnectionError, ConnectTimeoutError, SSLError))
    return _Passing(_reason(error), sent=not never_sent)


def _reason(error: Exception) -> str:
    """Why there was no answer, as the rest of a sentence that begins with an endpoint."""
    if isinstance(error, SSLError):
        return f"cannot be spoken to over TLS ({_short(error)})"
    if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
        return "cannot be reached"
    if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)):
        return "gave no answer in time"
    return f"broke off ({type(error).__name__})"


def _short(error: Exception) -> str:
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return str(getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or cause)[:200]


def _modified(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0

"""HTTP to the service: TLS, proxies, tokens, repeating what is safe to repeat, and problems as one sentence each."""

from __future__ import annotations

import contextlib
import json
import random
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, MaxRetryError, NewConnectionError, SSLError

import deployer
from deployer.client.configuration import Profile
from deployer.client.errors import Misused, Refused, Unauthorised, Unreachable
from deployer.core.errors import Problem
from deployer.core.model.hosts import is_loopback

CONNECT, READ = 5.0, 35.0
"""Seconds for a connection, and for an answer after that: a validation asks the API server, which takes a while."""

PATIENCE = 30.0
"""Seconds after which nothing is tried again."""

TRIES, TRIES_FOR_PEOPLE = 5, 2
"""Requests for one answer at most: a pipeline outlasts a restart of the service, a person wants to know."""

LARGEST = 256 * 1024 * 1024
"""Bytes of an answer, unpacked."""

_PIECE = 1024 * 1024
_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})  # RFC 9110, 9.2.2: idempotent
_AGAIN = frozenset({429, 502, 503, 504})
_USER_AGENT = f"deployer/{deployer.__version__}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `document` is its JSON, or its text when it is none; None: nothing."""

    status: int
    headers: Mapping[str, str]
    document: Any


class Connection:
    """Requests to the service of a profile. Every method raises a ClientError.

    token     gives the token of each request, empty without one; it may take another one after a 401
    warn      is told, once, what is wrong with the way there
    waiting   made for each answer, and entered while it is waited for
    tries     requests for one answer at most
    """

    def __init__(
        self,
        profile: Profile,
        token: Callable[[], str] = lambda: "",
        warn: Callable[[str], None] = lambda _: None,
        *,
        waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.profile = profile
        self._tries = tries
        self._token = token
        self._sleep = sleep
        self._base = profile.server.rstrip("/")
        parts = urlsplit(self._base)
        self._tls = tls_context(profile) if parts.scheme == "https" else None
        self._pool = pool(profile, self._base, self._tls)
        self._warn = warn
        self._waiting = waiting
        self.answered = False
        self._plain = parts.scheme == "http" and not is_loopback(parts.hostname or "")

    def headers(self) -> dict[str, str]:
        """Those of every request, the log stream's too."""
        headers = {"User-Agent": _USER_AGENT, "Accept": "application/json"}
        if token := self._token():
            if self._plain:
                self._plain = False
                self._warn(f"the token goes to {self._base} unencrypted; use https where the service has it")
            headers["Authorization"] = f"Bearer {token}"
        return headers

    @property
    def base(self) -> str:
        """The service's URL, without a slash at the end."""
        return self._base

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For the log stream; None without TLS."""
        return self._tls

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        safe: bool | None = None,
    ) -> Answer:
        """One answer, 304 included. Tried again when nobody answers, as long as that cannot do anything twice.

        safe   whether the request may be sent again although it may have had its effect; default: by its method
        """
        with self._waiting():
            return self._request(method, path, query, body, headers, safe=safe)

    @contextlib.contextmanager
    def quietly(self) -> Iterator[None]:
        """Within the block nobody is told that an answer takes its time: something else draws on the screen."""
        before, self._waiting = self._waiting, contextlib.nullcontext
        try:
            yield
        finally:
            self._waiting = before

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        *,
        safe: bool | None,
    ) -> Answer:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{self._base}{path}" + (f"?{urlencode(given)}" if given else "")
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        repeat = method in _SAFE if safe is None else safe
        end = time.monotonic() + PATIENCE
        sent = False
        for attempt in range(1, self._tries + 1):
            try:
                return self._once(method, url, data, headers or {}, repeat=repeat)
            except _Again as again:
                again.error.sent = sent = sent or again.error.sent
                pause = again.after if again.after is not None else random.uniform(0.1, 0.25) * 2**attempt
                if attempt == self._tries or time.monotonic() + pause > end:
                    raise again.error from again.error.__cause__
                self._sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, method: str, url: str, data: bytes | None, more: Mapping[str, str], *, repeat: bool) -> Answer:
        headers = {**self.headers(), **more}
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self._pool.request(
                method, url, body=data, headers=headers, redirect=False, retries=False, preload_content=False
            )
            content = body_of(response, self._base)
        except (HTTPError, OSError) as error:
            sentence = self._unreachable(error)
            sentence.sent = not isinstance(error, NewConnectionError)
            if not isinstance(_root(error), ssl.SSLError) and (repeat or not sentence.sent):
                raise _Again(sentence) from error
            raise sentence from error
        self.answered = True
        status, kind = response.status, response.headers.get("Content-Type", "")
        document = self._read(status, content, kind)
        if status >= 300 and status != 304:
            self._refuse(status, kind, document, response.headers, repeat=repeat)
        return Answer(status, response.headers, document)

    def _read(self, status: int, content: bytes, kind: str) -> Any:
        if not content:
            return None
        if kind.startswith("text/plain"):
            return content.decode("utf-8", "replace")
        try:
            return json.loads(content, parse_constant=_no_number)
        except (ValueError, RecursionError):
            if status >= 400:
                return None
            raise not_a_deployer(self._base) from None

    def _refuse(self, status: int, kind: str, document: Any, headers: Mapping[str, str], *, repeat: bool) -> NoReturn:
        """Raise what a status means."""
        ours = isinstance(document, dict) and kind.startswith("application/problem+json")
        if status // 100 == 3:
            where = headers.get("Location", "elsewhere")
            raise Unreachable(f"{self._base} leads to {where} (HTTP {status}); give the service's own URL as --server")
        detail = str(document.get("detail") or document.get("title")) if ours else ""
        if not ours:
            said = f"HTTP {status} {headers.get('Server', '')}".rstrip()
            detail = f"{self._base} answers {said}, and not as a Deployer does"
        if status in _AGAIN:
            after = _seconds(headers.get("Retry-After"))
            error = Unreachable(detail if ours else f"{detail}; try again in a while", after)
            # Our own 429 comes before anything was done; a 503 may come after it.
            if repeat or (status == 429 and ours):
                raise _Again(error, after)
            raise error
        if status == 401:
            raise Unauthorised(f"{detail}; `deployer login`, --token-file or DEPLOYER_TOKEN gives a token")
        if status == 403:
            raise Unauthorised(detail)
        if status >= 500:
            raise Unreachable(detail)
        listed = document.get("errors", ()) if ours else ()
        problems = [Problem(str(p.get("path", "")), str(p.get("message", ""))) for p in listed]
        raise Refused(detail, problems, status)

    def _unreachable(self, error: Exception) -> Unreachable:
        """Why there is no answer, in a sentence."""
        return unreachable(self.profile, self._base, error)


def body_of(response: urllib3.BaseHTTPResponse, base: str) -> bytes:
    """The content of an answer that was not read yet; no more of it is held than `LARGEST` allows, unpacked. Raises
    Unreachable, and what urllib3 raises."""
    pieces, left = [], LARGEST
    while piece := response.read(_PIECE, decode_content=True):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            response.close()
            raise Unreachable(f"the answer of {base} is larger than {LARGEST >> 20} MiB")
    response.release_conn()
    return b"".join(pieces)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def pool(profile: Profile, url: str, tls: ssl.SSLContext | None) -> urllib3.PoolManager:
    """Connections to a URL, through a proxy where there is one."""
    more: dict[str, Any] = {"timeout": urllib3.Timeout(connect=CONNECT, read=READ)}
    more |= {"ssl_context": tls} if tls is not None else {}
    if proxy := proxy_of(profile, url):
        try:
            return urllib3.ProxyManager(proxy, **more)
        except (ValueError, HTTPError) as error:
            raise Misused(f"the proxy {proxy!r} is no URL such as http://proxy.example.com:3128 ({error})") from None
    return urllib3.PoolManager(**more)


def proxy_of(profile: Profile, url: str) -> str:
    """The proxy for a URL; empty: none. Loopback needs none, whatever the variables say."""
    parts = urlsplit(url)
    if profile.proxy:
        return profile.proxy
    if is_loopback(parts.hostname or "") or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    found = urllib.request.getproxies().get(parts.scheme, "")
    return found if not found or "://" in found else f"http://{found}"


def tls_context(profile: Profile) -> ssl.SSLContext:
    """What a certificate is checked with. Raises Misused."""
    try:
        context = ssl.create_default_context(cafile=profile.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Misused(f"the CA file {profile.ca_file} cannot be used: {said}; it holds certificates in PEM") from None
    if profile.tls_verify == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def not_a_deployer(base: str) -> Unreachable:
    """What answers at `base` is something else."""
    return Unreachable(f"{base} does not answer as a Deployer does; is it one, of about this version?")


def unreachable(profile: Profile, base: str, error: BaseException) -> Unreachable:
    """Why `base` cannot be reached, in a sentence."""
    cause = _root(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        advice = "--ca-file names the authority that signed it"
        return Unreachable(f"the certificate of {base} is not trusted: {cause.verify_message}; {advice}")
    if isinstance(cause, ssl.SSLError | SSLError):
        return Unreachable(f"{base} does not speak TLS as expected: {_words(cause)}; is it http instead of https?")
    hint = ""
    if profile.default_server:
        hint = " (the default); name the service with --server, DEPLOYER_SERVER or `deployer config set server URL`"
    return Unreachable(f"no answer from {base}{hint}: {_words(cause)}")


def _root(error: BaseException) -> BaseException:
    """What is at the bottom of the library's wrappings."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None) if isinstance(seen, MaxRetryError | SSLError) else None
        below = inner if isinstance(inner, BaseException) else seen.__cause__ or _argument(seen)
        if below is None or below is seen:
            return seen
        seen = below


def _argument(error: BaseException) -> BaseException | None:
    return next((a for a in error.args if isinstance(a, BaseException)), None) if isinstance(error, HTTPError) else None


def _words(error: BaseException) -> str:
    if isinstance(error, IncompleteRead):
        return "the answer broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).rpartition(": ")[2] or type(error).__name__
    return "it took too long" if isinstance(error, TimeoutError) or "timed out" in text.lower() else text


def _seconds(value: str | None) -> float | None:
    """Of `Retry-After`, when it is a number (RFC 9110, 10.2.3)."""
    return float(value) if value and value.isdigit() else None


class _Again(Exception):
    """The same request may be sent again, after so many seconds when that is known."""

    def __init__(self, error: Unreachable, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after

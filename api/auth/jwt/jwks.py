"""The issuer's keys from an HTTPS address (JWK Set, RFC 7517): fetched rarely, one at a time, in a thread of their own.

Where they are say the settings, or the issuer's own document (OpenID Connect Discovery 1.0, 4). Tokens never do: `jku`,
`x5u`, `jwk` and the like in a token are not looked at.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import ssl
import threading
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import jwt

from deployer.api.auth.jwt.keys import Keys, KeySource, PublicKey, unfit
from deployer.api.auth.principal import Unsure
from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Revoked, SettingsError
from deployer.toolkit import http_exchange

REFRESH = 300.0
"""Seconds after which the keys are fetched anew."""

LEAST = 10.0
"""Seconds between two fetches, whatever comes: an unknown key id, or a failure."""

KEEP = 3600.0
"""Seconds for which keys are used that could not be fetched anew."""

PATIENCE = 5.0
"""Seconds for a whole fetch, and how long a request waits for one."""

WAITING = 2
"""Requests that wait for fetches at once, of whatever issuer; further ones are told to come again."""

DISCOVERY = "/.well-known/openid-configuration"

MAX_BYTES = 256 * 1024
MAX_KEYS = 100

_log = logging.getLogger(__name__)


class _Unusable(Exception):
    """What came is no JWK Set, or none came; says why."""


class KeySet(KeySource):
    """Keys that an HTTPS server gives out."""

    def __init__(
        self, url: str, algorithms: Sequence[str], ca_file: str = "", *, issuer: str = "",
        ca_setting: str = "--jwt-jwks-ca-file", waiting: threading.Semaphore | None = None,
        least: float = LEAST, keep: float = KEEP,
    ) -> None:  # fmt: skip
        """`least` and `keep` are seconds. Raises SettingsError when `ca_file` is of no use.

        url         of the keys; empty for where the document of `issuer` says
        ca_setting  what `ca_file` is called in the settings
        waiting     places for requests that wait, which several may share; `WAITING` of its own without it
        """
        self._url = url
        self._issuer = issuer
        self._algorithms = algorithms
        self._ca_setting = ca_setting
        self._context = _context(ca_file, ca_setting)
        self._least = least
        self._keep = keep
        self._changed = threading.Condition()
        self._keys: Keys | None = None
        self._generation = 0
        self._fetched = 0.0  # when the keys came, on the monotonic clock
        self._tried = float("-inf")  # when the last fetch began
        self._thread: threading.Thread | None = None
        self._scope = CancelScope()
        self._waiting = waiting or threading.Semaphore(WAITING)
        self._trouble = ""
        self._closed = False

    def start(self) -> None:
        with self._changed:
            self._begin()

    def current(self) -> Keys:
        keys, age = self._keys, time.monotonic() - self._fetched
        if keys is not None and age < REFRESH:
            return keys
        with self._changed:
            self._begin()
            if keys is not None and age < self._keep:
                return keys
            self._keys = None
            self._wait()
            if self._keys is None:
                raise self._unsure()
            return self._keys

    def newer(self, than: Keys) -> Keys:
        with self._changed:
            if self._keys is not None and self._keys.generation != than.generation:
                return self._keys
            self._begin()
            self._wait()
            return self._keys or than

    def problem(self) -> str:
        with self._changed:
            if not self._good(REFRESH):
                self._begin()
            if not self._good() and not self._trouble:
                # Of the first fetch only: probes ask this, and an issuer that hangs must not hold them up.
                with contextlib.suppress(Unsure):
                    self._wait()
            return "" if self._good() else self._unsure().detail

    def close(self) -> None:
        with self._changed:
            self._closed = True
            thread = self._thread
        self._scope.close(Revoked("the service is stopping"))
        if thread is not None:
            thread.join(PATIENCE)

    # --- under the lock -------------------------------------------------------------------------------------------

    def _good(self, age: float | None = None) -> bool:
        """Are there keys that may still be used, or that are not older than so many seconds?"""
        return self._keys is not None and time.monotonic() - self._fetched < (self._keep if age is None else age)

    def _begin(self) -> None:
        """Begin a fetch, unless one is under way or it is too soon."""
        if self._thread is None and not self._closed and time.monotonic() - self._tried >= self._least:
            self._tried = time.monotonic()
            self._thread = threading.Thread(target=self._refresh, name="jwks", daemon=True)
            self._thread.start()

    def _wait(self) -> None:
        """Wait for the fetch under way, if there is one."""
        if self._thread is None:
            return
        if not self._waiting.acquire(blocking=False):
            raise Unsure("the issuer's keys are being fetched; try again")
        try:
            self._changed.wait_for(lambda: self._thread is None, PATIENCE)
        finally:
            self._waiting.release()

    def _unsure(self) -> Unsure:
        said = "tokens cannot be checked at the moment: the issuer's keys are not there"
        return Unsure(said, self._trouble or f"the issuer's keys have not come from {self._url or self._issuer} yet")

    # --- the thread that fetches ----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        keys, trouble, url = None, "", self._url or self._issuer
        end = time.monotonic() + PATIENCE
        try:
            if not self._url:
                url = self._issuer.rstrip("/") + DISCOVERY
                url = keys_address(self._get(url, end), self._issuer)
            keys = parse(self._get(url, end), self._algorithms)
        except _Unusable as error:
            trouble = f"the issuer's keys cannot be had from {url}: {error}"
        except Exception as error:  # noqa: BLE001 - logged; whatever a server may answer
            trouble = f"the issuer's keys cannot be had from {url}: {type(error).__name__}"
            _log.debug("fetching keys failed", exc_info=error)
        with self._changed:
            if keys is not None:
                if self._keys is None or self._keys.by_id != keys:
                    self._generation += 1
                self._keys, self._fetched = Keys(self._generation, keys), time.monotonic()
            if trouble and not self._closed and trouble != self._trouble:
                _log.warning("%s", trouble)
            self._trouble = trouble
            self._thread = None
            self._changed.notify_all()

    def _get(self, url: str, end: float) -> bytes:
        """The body of the answer, until `end` on the monotonic clock. Raises _Unusable or OSError."""
        parts = urllib.parse.urlsplit(url)
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        host, port, left = parts.hostname or "", parts.port or 443, max(0.01, end - time.monotonic())
        headers = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            request = http_exchange.request("GET", target, headers | {"Connection": "close"})
            sock = http_exchange.connect(host, port, self._scope, timeout=left, connect_timeout=left)
            answer = http_exchange.exchange(sock, request, limit=MAX_BYTES, tls=self._context, server_name=host)
            if answer.status != 200:
                # A redirect, too: the address is fixed.
                raise _Unusable(f"the server answered {answer.status}")
            if answer.truncated:
                raise _Unusable(f"the answer is larger than {MAX_BYTES} bytes")
            if answer.cut is not None:
                raise answer.cut
            return answer.body
        except ssl.SSLCertVerificationError as error:
            raise _Unusable(
                f"its certificate cannot be verified ({error.verify_message}); name the file with the certificate of "
                f"its authority by {self._ca_setting}"
            ) from error
        except TimeoutError as error:
            raise _Unusable(f"it gave no answer within {PATIENCE:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Unusable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def keys_address(body: bytes, issuer: str) -> str:
    """`jwks_uri` of an issuer's document (OpenID Connect Discovery 1.0, 4.3), at the issuer's own host. Raises
    _Unusable."""
    document = _parsed(body)
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        # One issuer's document must never lead to another's keys.
        raise _Unusable(f"the document is not that of the issuer {issuer}")
    url = document.get("jwks_uri")
    try:
        found, own = urllib.parse.urlsplit(url if isinstance(url, str) else ""), urllib.parse.urlsplit(issuer)
        good = found.scheme == "https" and found.username is None
        same = (found.hostname, found.port or 443) == (own.hostname, own.port or 443)
    except ValueError:
        good = same = False
    if not good:
        raise _Unusable("its jwks_uri is no address that begins with https://")
    if not same:
        raise _Unusable("its jwks_uri is at another host: if the keys are there, set jwks_url to it")
    return str(url)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _Unusable("the answer is not JSON") from None


def parse(body: bytes, algorithms: Sequence[str]) -> dict[tuple[str, str], PublicKey]:
    """The keys of a JWK Set that are for checking signatures, by algorithm and key id. Raises _Unusable."""
    document = _parsed(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise _Unusable(f"the answer is no JWK Set of up to {MAX_KEYS} keys")
    keys: dict[tuple[str, str], PublicKey] = {}
    for entry in listed:
        for algorithm in algorithms:
            key = _key(entry, algorithm)
            if key is not None:
                keys.setdefault((algorithm, str(entry.get("kid", ""))), key)
    if not keys:
        raise _Unusable(f"none of the {len(listed)} keys is for signatures in {' or '.join(algorithms)}")
    return keys


def _key(entry: Any, algorithm: str) -> PublicKey | None:
    """The key, if it is a public one that is meant for this."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid", ""), str) or "d" in entry or "k" in entry:
        return None
    operations = entry.get("key_ops", ["verify"])
    meant = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not meant or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        key: Any = jwt.PyJWK(entry, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    return None if unfit(key, algorithm) else key


def _context(ca_file: str, setting: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise SettingsError(f"the file {ca_file} of {setting} cannot be used: {why}") from error

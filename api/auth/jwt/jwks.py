"""The issuer's keys from an HTTPS address (JWK Set, RFC 7517): fetched rarely, one at a time, in a thread of their own.

Tokens never say where keys are: `jku`, `x5u`, `jwk` and the like in a token are not looked at.
"""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import threading
import time
import urllib.parse
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
"""Requests that wait for a fetch at once; further ones are told to come again."""

MAX_BYTES = 256 * 1024
MAX_KEYS = 100

_log = logging.getLogger(__name__)


class _Unusable(Exception):
    """What came is no JWK Set, or none came; says why."""


class KeySet(KeySource):
    """Keys that an HTTPS server gives out."""

    def __init__(
        self, url: str, algorithm: str, ca_file: str = "", *, least: float = LEAST, keep: float = KEEP
    ) -> None:
        """`least` and `keep` are seconds. Raises SettingsError when `ca_file` is of no use."""
        self._url = url
        self._algorithm = algorithm
        self._context = _context(ca_file)
        self._least = least
        self._keep = keep
        self._changed = threading.Condition()
        self._keys: Keys | None = None
        self._generation = 0
        self._fetched = 0.0  # when the keys came, on the monotonic clock
        self._tried = float("-inf")  # when the last fetch began
        self._thread: threading.Thread | None = None
        self._scope = CancelScope()
        self._waiting = 0
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
        try:
            self.current()
        except Unsure as error:
            return error.detail
        return ""

    def close(self) -> None:
        with self._changed:
            self._closed = True
            thread = self._thread
        self._scope.close(Revoked("the service is stopping"))
        if thread is not None:
            thread.join(PATIENCE)

    # --- under the lock -------------------------------------------------------------------------------------------

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
        if self._waiting >= WAITING:
            raise Unsure("the issuer's keys are being fetched; try again")
        self._waiting += 1
        try:
            self._changed.wait_for(lambda: self._thread is None, PATIENCE)
        finally:
            self._waiting -= 1

    def _unsure(self) -> Unsure:
        said = "tokens cannot be checked at the moment: the issuer's keys are not there"
        return Unsure(said, self._trouble or f"the issuer's keys have not come from {self._url} yet")

    # --- the thread that fetches ----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        keys, trouble = None, ""
        try:
            keys = parse(self._fetch(), self._algorithm)
        except _Unusable as error:
            trouble = f"the issuer's keys cannot be had from {self._url}: {error}"
        except Exception as error:  # noqa: BLE001 - logged; whatever a server may answer
            trouble = f"the issuer's keys cannot be had from {self._url}: {type(error).__name__}"
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

    def _fetch(self) -> bytes:
        """The body of the answer. Raises _Unusable or OSError."""
        parts = urllib.parse.urlsplit(self._url)
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        host, port = parts.hostname or "", parts.port or 443
        headers = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            request = http_exchange.request("GET", target, headers | {"Connection": "close"})
            sock = http_exchange.connect(host, port, self._scope, timeout=PATIENCE, connect_timeout=PATIENCE)
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
                "its authority by --jwt-jwks-ca-file"
            ) from error
        except TimeoutError as error:
            raise _Unusable(f"it gave no answer within {PATIENCE:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Unusable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def parse(body: bytes, algorithm: str) -> dict[str, PublicKey]:
    """The keys of a JWK Set that are for checking signatures in that algorithm, by key id. Raises _Unusable."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _Unusable("the answer is not JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise _Unusable(f"the answer is no JWK Set of up to {MAX_KEYS} keys")
    keys: dict[str, PublicKey] = {}
    for entry in listed:
        key = _key(entry, algorithm)
        if key is not None:
            keys.setdefault(str(entry.get("kid", "")), key)
    if not keys:
        raise _Unusable(f"none of the {len(listed)} keys is for signatures in {algorithm}")
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


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise SettingsError(f"the file {ca_file} of --jwt-jwks-ca-file cannot be used: {why}") from error

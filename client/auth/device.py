"""`deployer login`: the device authorization grant (RFC 8628), and tokens that are refreshed in time (RFC 6749, 6).

Tokens are kept in a file that only its owner can read, one for each profile.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from deployer.client.configuration import Profile, config_file
from deployer.client.connection import body_of, pool, tls_context, unreachable
from deployer.client.errors import Misused, Unauthorised, Unreachable
from deployer.core.clock import wall_clock
from deployer.core.model.hosts import is_loopback

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
EARLY = 30.0
"""Seconds before its end from which a token is not used any more."""

_INTERVAL, _SLOWER = 5.0, 5.0  # RFC 8628, 3.2 and 3.5
_LIFETIME = 300.0  # seconds of a token whose answer says nothing about it
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


class Login:
    """The tokens of a profile's identity provider."""

    def __init__(
        self, profile: Profile, environ: Mapping[str, str] = os.environ, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        if not profile.issuer or not profile.client_id:
            raise Misused(f"profile {profile.name} has no login (`issuer` and `client_id`); run `deployer login`")
        parts = urlsplit(profile.issuer)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise Misused(f"the issuer {profile.issuer} must be https: what it is sent must not be read on the way")
        self._profile = profile
        self._issuer = profile.issuer.rstrip("/")
        name = re.sub(r"[^A-Za-z0-9._-]", "_", profile.name)
        self._file = config_file(environ).parent / "tokens" / f"{name}.json"
        self._sleep = sleep
        self._tls = tls_context(profile) if self._issuer.startswith("https:") else None
        self._pool = pool(profile, self._issuer, self._tls)

    def token(self) -> str:
        """The one that there is, refreshed when it has ended. Raises Unauthorised when somebody has to log in."""
        kept = self._read()
        if kept and kept["expires"] - EARLY > wall_clock():
            return str(kept["token"])
        with self._locked():  # a refresh token may be good once: two commands at a time must not both use it
            kept = self._read()
            if not kept:
                raise Unauthorised(f"not logged in at {self._issuer}; run `deployer login`")
            if kept["expires"] - EARLY > wall_clock():
                return str(kept["token"])
            if not kept.get("refresh"):
                raise Unauthorised("the login has ended; run `deployer login`")
            status, answer = self._post(
                str(self._discover()["token_endpoint"]),
                {"grant_type": "refresh_token", "refresh_token": kept["refresh"], "client_id": self._profile.client_id},
            )
            if status != 200:
                raise Unauthorised(f"the login has ended ({answer.get('error', status)}); run `deployer login`")
            return self._keep(answer, str(kept["refresh"]), str(kept.get("audience", "")))

    def log_in(self, tell: Callable[[str, str, str], None], audience: str = "") -> None:
        """Ask the provider, have a person agree in a browser, and keep what comes. Raises a ClientError.

        tell      is given the address to open, the code to type there, and an address that has the code in it, or ""
        audience  that the service wants in `aud` of a token; empty: not known
        """
        found = self._discover()
        endpoint = found.get("device_authorization_endpoint")
        if not endpoint:
            raise Misused(f"{self._issuer} has no login for devices; give a token with --token-file or DEPLOYER_TOKEN")
        asked = {"client_id": self._profile.client_id, "scope": self._profile.scope}
        status, device = self._post(str(endpoint), asked)
        if status != 200 or not {"device_code", "verification_uri", "user_code"} <= device.keys():
            raise Unauthorised(f"{self._issuer} refuses this client: {_said(device, status)}")
        tell(
            str(device["verification_uri"]), str(device["user_code"]), str(device.get("verification_uri_complete", ""))
        )
        self._await(str(found["token_endpoint"]), device, audience)

    def log_out(self) -> bool:
        """Forget the tokens; False when there were none."""
        with self._locked():
            existed = self._file.exists()
            self._file.unlink(missing_ok=True)
            return existed

    # --- plumbing -------------------------------------------------------------------------------------------------

    def _await(self, endpoint: str, device: Mapping[str, Any], audience: str) -> None:
        """Ask until the person has agreed, as often as the provider wants (RFC 8628, 3.5)."""
        interval = _seconds(device.get("interval"), _INTERVAL)
        end = time.monotonic() + _seconds(device.get("expires_in"), _LIFETIME)
        form = {"grant_type": GRANT, "device_code": str(device["device_code"]), "client_id": self._profile.client_id}
        while time.monotonic() < end:
            self._sleep(interval)
            try:
                status, answer = self._post(endpoint, form)
            except Unreachable:
                interval *= 2  # as the RFC wants it after a time-out
                continue
            if status == 200:
                with self._locked():
                    self._keep(answer, "", audience)
                return
            match answer.get("error"):
                case "authorization_pending":
                    pass
                case "slow_down":
                    interval += _SLOWER
                case "access_denied":
                    raise Unauthorised("the login was denied")
                case "expired_token":
                    break
                case _:
                    raise Unauthorised(f"{self._issuer} gives no token: {_said(answer, status)}")
        raise Unauthorised("nobody has agreed in time; run `deployer login` again")

    def _discover(self) -> Mapping[str, Any]:
        """The provider's endpoints (OpenID Connect Discovery 1.0, 4)."""
        url = f"{self._issuer}/.well-known/openid-configuration"
        status, found = self._ask("GET", url)
        if status != 200 or not found.get("token_endpoint"):
            raise Unreachable(f"{url} does not answer as an identity provider does (HTTP {status})")
        if str(found.get("issuer", "")).rstrip("/") != self._issuer:
            raise Unauthorised(f"{url} is about another issuer, {found.get('issuer')!r}; correct `issuer`")
        return found

    def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        return self._ask("POST", url, urlencode(form).encode())

    def _ask(self, method: str, url: str, body: bytes | None = None) -> tuple[int, Mapping[str, Any]]:
        if urlsplit(url).scheme != "https" and not is_loopback(urlsplit(url).hostname or ""):
            raise Unauthorised(f"{self._issuer} names an address that is not https: {url}")
        try:
            headers = _FORM if body is not None else {"Accept": "application/json"}
            answer = self._pool.request(
                method, url, body=body, headers=headers, redirect=False, retries=False, preload_content=False
            )
            content = body_of(answer, self._issuer)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self._profile, self._issuer, error) from error
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = {}
        return answer.status, document if isinstance(document, dict) else {}

    def _keep(self, answer: Mapping[str, Any], refresh: str, audience: str) -> str:
        """Write what came; returns the token: the one for the audience, else an ID token, which says who somebody is.

        The audience of an ID token is the client (OpenID Connect Core 1.0, 2), that of an access token the service.
        """
        tokens = [str(answer[name]) for name in ("id_token", "access_token") if answer.get(name)]
        if not tokens:
            raise Unauthorised(f"{self._issuer} answered without a token")
        token = next((one for one in tokens if audience and audience in _audiences(one)), tokens[0])
        kept = {
            "token": token,
            "refresh": str(answer.get("refresh_token") or refresh),
            "expires": wall_clock() + _seconds(answer.get("expires_in"), _LIFETIME),
            "issuer": self._issuer,
            "audience": audience,
        }
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False) as file:  # it is 0600 from the start
            json.dump(kept, file)
        Path(file.name).replace(self._file)
        return token

    def _read(self) -> dict[str, Any] | None:
        """What was kept of this issuer; None when there is nothing that makes sense."""
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            good = kept["issuer"] == self._issuer and isinstance(kept["token"], str)
            return kept if good and isinstance(kept["expires"], int | float) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise Misused(f"{self._file.parent} cannot be used: {error.strerror or error}") from None


def _audiences(token: str) -> list[str]:
    """`aud` of a JWT, whose signature is the service's business; empty when it is none."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).get("aud", [])
    except (ValueError, IndexError, AttributeError):
        return []
    return [found] if isinstance(found, str) else list(found) if isinstance(found, list) else []


def _seconds(value: Any, default: float) -> float:
    """A number of seconds as the provider says it; the default when it says none that makes sense."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return found if 0 < found < math.inf else default


def _said(answer: Mapping[str, Any], status: int) -> str:
    return str(answer.get("error_description") or answer.get("error") or f"HTTP {status}")

"""`auth = "jwt"`: signed tokens of one issuer (RFC 7519), checked as RFC 8725 advises."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from deployer.api.auth.cache import Cache, digest
from deployer.api.auth.credentials import MAX_TOKEN
from deployer.api.auth.jwt.grants import Grant, claim, grants_of
from deployer.api.auth.jwt.keys import KeySource, PublicKey
from deployer.api.auth.principal import Authenticator, Principal, Unauthenticated, check_name
from deployer.settings.issuers.issuer import Issuer

REMEMBERED = 4096
"""Tokens whose signature need not be checked again."""

_TYPES = ("jwt", "at+jwt", "application/at+jwt")
"""Values of `typ` that mean a token for access (RFC 7519, 5.1; RFC 9068, 2.1), or nothing in particular."""

_FAR = 2**53  # seconds since the epoch, beyond which a float has not every whole number

_SAID: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.InvalidSignatureError: "the token's signature is not the issuer's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrincipal(Principal):
    """A caller with what the token allows.

    issuer  the name of the issuer in the settings
    """

    issuer: str
    grants: tuple[Grant, ...]


class TokenAuthenticator(Authenticator):
    """Checks signature, issuer, audience and time of the tokens of one issuer."""

    def __init__(
        self, issuer: Issuer, keys: KeySource, *, leeway: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        """`leeway` is how many seconds the issuer's clock may be from `clock`."""
        self.issuer = issuer
        self._leeway = leeway
        self._keys = keys
        self._clock = clock
        self._known: Cache[TokenPrincipal] = Cache(REMEMBERED, clock)

    def authenticate(self, token: str) -> TokenPrincipal:
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN} characters")
        keys = self._keys.current()
        # Keys that are withdrawn make another generation, and nothing that was known before counts any more.
        known = self._known.get((keys.generation, digest(token)))
        if known is not None:
            return known
        algorithm, kid = self._signed_by(token)
        candidates = keys.candidates(algorithm, kid)
        if not candidates:
            keys = self._keys.newer(keys)
            candidates = keys.candidates(algorithm, kid)
        if not candidates:
            raise Unauthenticated("the token is signed with a key that is not the issuer's, or names none of several")
        caller = self._caller(self._claims(token, algorithm, candidates))
        self._known.put((keys.generation, digest(token)), caller, caller.expires)
        return caller

    def problem(self) -> str:
        return self._keys.problem()

    def start(self) -> None:
        self._keys.start()

    def close(self) -> None:
        self._keys.close()

    def _signed_by(self, token: str) -> tuple[str, str | None]:
        """The algorithm, and what the token names as its key, once its header is one that can be right at all."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthenticated("the token is no JSON Web Token") from None
        if (algorithm := header.get("alg")) not in self.issuer.algorithms:
            raise Unauthenticated(f"the token is not signed in {' or '.join(self.issuer.algorithms)}")
        if "crit" in header or "b64" in header:
            raise Unauthenticated("the token demands extensions that are not understood here (crit)")
        type_ = header.get("typ", "JWT")
        if not isinstance(type_, str) or type_.lower() not in _TYPES:
            raise Unauthenticated("the token is of a type (typ) that is not for access")
        return str(algorithm), header.get("kid")

    def _claims(self, token: str, algorithm: str, candidates: Any) -> Mapping[str, Any]:
        refusal = Unauthenticated("the token's signature is not the issuer's")
        for key in candidates:
            try:
                return self._decode(token, algorithm, key)
            except jwt.InvalidSignatureError:
                continue
            except jwt.MissingRequiredClaimError as error:
                raise Unauthenticated(f"the token has no claim {error.claim}") from None
            except jwt.PyJWTError as error:
                said = next((said for kind, said in _SAID.items() if isinstance(error, kind)), "the token is malformed")
                raise Unauthenticated(said) from None
            except (ValueError, TypeError, OverflowError, RecursionError):
                raise Unauthenticated("the token is malformed") from None
        raise refusal

    def _decode(self, token: str, algorithm: str, key: PublicKey) -> Mapping[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self.issuer.audience,
            issuer=self.issuer.issuer,
            leeway=self._leeway,
            options={"require": ["exp", "aud", "iss"], "enforce_minimum_key_length": True},
        )

    def _caller(self, claims: Mapping[str, Any]) -> TokenPrincipal:
        issuer = self.issuer
        where = f"the token's claim {issuer.name_claim}"
        name = check_name(claim(claims, issuer.name_claim), where)
        return TokenPrincipal(
            name=check_name(issuer.name_prefix + name, f"{where}, behind {issuer.name_prefix}"),
            expires=float(min(int(claims["exp"]), _FAR)) + self._leeway,
            issuer=issuer.name,
            grants=grants_of(issuer, claims),
        )

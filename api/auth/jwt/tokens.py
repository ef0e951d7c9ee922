"""`auth = "jwt"`: signed tokens of an identity provider (RFC 7519), checked as RFC 8725 advises."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from deployer.api.auth.cache import Cache, digest
from deployer.api.auth.credentials import MAX_TOKEN
from deployer.api.auth.jwt.jwks import KeySet
from deployer.api.auth.jwt.keys import KeySource, PemFile, PublicKey
from deployer.api.auth.principal import Authenticator, Authorizer, Principal, Unauthenticated, check_name
from deployer.api.routes import Permission
from deployer.settings import Settings

ANY = "*"
"""In the claim with the namespaces: all of them."""

REMEMBERED = 4096
"""Tokens whose signature need not be checked again."""

_TYPES = ("jwt", "at+jwt", "application/at+jwt")
"""Values of `typ` that mean a token for access (RFC 7519, 5.1; RFC 9068, 2.1), or nothing in particular."""

_SAID: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.InvalidSignatureError: "the token's signature is not the issuer's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrincipal(Principal):
    """A caller with what the token says that they may do."""

    namespaces: frozenset[str]
    roles: frozenset[str]


class TokenAuthenticator(Authenticator):
    """Checks signature, issuer, audience and time of a token."""

    def __init__(self, settings: Settings, keys: KeySource, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
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
        kid = self._key_id(token)
        candidates = keys.candidates(kid)
        if not candidates:
            keys = self._keys.newer(keys)
            candidates = keys.candidates(kid)
        if not candidates:
            raise Unauthenticated("the token is signed with a key that is not the issuer's, or names none of several")
        caller = self._invoker(self._claims(token, candidates))
        self._known.put((keys.generation, digest(token)), caller, caller.expires)
        return caller

    def problem(self) -> str:
        return self._keys.problem()

    def start(self) -> None:
        self._keys.start()

    def close(self) -> None:
        self._keys.close()

    def _key_id(self, token: str) -> str | None:
        """What the token names as its key, once its header is one that can be right at all."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthenticated("the token is no JSON Web Token") from None
        if header.get("alg") != self._settings.jwt_algorithm:
            raise Unauthenticated(f"the token is not signed in {self._settings.jwt_algorithm}")
        if "crit" in header or "b64" in header:
            raise Unauthenticated("the token permissions extensions that are not understood here (crit)")
        type_ = header.get("typ", "JWT")
        if not isinstance(type_, str) or type_.lower() not in _TYPES:
            raise Unauthenticated("the token is of a type (typ) that is not for access")
        return header.get("kid")

    def _claims(self, token: str, candidates: Any) -> Mapping[str, Any]:
        refusal = Unauthenticated("the token's signature is not the issuer's")
        for key in candidates:
            try:
                return self._decode(token, key)
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

    def _decode(self, token: str, key: PublicKey) -> Mapping[str, Any]:
        settings = self._settings
        return jwt.decode(
            token,
            key,
            algorithms=[settings.jwt_algorithm],
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            leeway=settings.jwt_leeway,
            options={"require": ["exp", "aud", "iss"], "enforce_minimum_key_length": True},
        )

    def _invoker(self, claims: Mapping[str, Any]) -> TokenPrincipal:
        settings = self._settings
        name = check_name(claim(claims, settings.jwt_name_claim), f"the token's claim {settings.jwt_name_claim}")
        return TokenPrincipal(
            name=name,
            expires=float(int(claims["exp"])) + settings.jwt_leeway,
            namespaces=texts(claim(claims, settings.jwt_namespaces_claim)),
            roles=texts(claim(claims, settings.jwt_roles_claim)),
        )


class TokenAuthorizer(Authorizer):
    """The roles of the settings, in the namespaces that the token names."""

    def __init__(self, settings: Settings) -> None:
        self._read = settings.jwt_read_role
        self._deploy = settings.jwt_deploy_role
        self._freeze = settings.jwt_freeze_role
        self._override = settings.jwt_override_role
        self._approve = settings.jwt_approve_role

    def refusal(self, caller: Principal, permission: Permission, namespace: str, name: str) -> str:
        if not isinstance(caller, TokenPrincipal):
            return "the caller has no token"
        if namespace not in caller.namespaces and ANY not in caller.namespaces:
            if namespace == ANY:
                return f"{caller.name} may not use all namespaces: that needs {ANY} among the namespaces of the token"
            return f"{caller.name} may not use this namespace"
        roles = self._roles(permission)
        if caller.roles.intersection(roles):
            return ""
        needed = " or ".join(roles)
        return f"{caller.name} may not {permission.verb} {permission.resource}: that needs the role {needed}"

    def _roles(self, permission: Permission) -> tuple[str, ...]:
        """Those of which one is enough."""
        if permission.verb == "approve":
            return (self._approve,)  # not the role for deploying: whoever a gate is for must not open it
        if permission.resource != "freezes":
            return (self._read, self._deploy) if permission.reads else (self._deploy,)
        if permission.verb == "override":
            return (self._override,)
        # Not the role for deploying: whoever a freeze is for must not be able to lift it.
        return (self._read, self._deploy, self._freeze) if permission.reads else (self._freeze,)


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path whose dots lead into objects; None when there is none.

    >>> claim({"realm_access": {"roles": ["deploy"]}}, "realm_access.roles")
    ['deploy']
    >>> claim({"https://example.com/roles": "deploy"}, "https://example.com/roles")
    'deploy'
    """
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def texts(value: Any) -> frozenset[str]:
    """The texts of a list, or the words of a text as in `scope` (RFC 8693, 4.2); anything else holds none."""
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list):
        return frozenset(v for v in value if isinstance(v, str) and v)
    return frozenset()


def open_keys(settings: Settings) -> KeySource:
    """The issuer's keys, as set. Raises SettingsError."""
    if settings.jwt_key_file:
        return PemFile(Path(settings.jwt_key_file).expanduser(), settings.jwt_algorithm)
    return KeySet(settings.jwt_jwks_url, settings.jwt_algorithm, settings.jwt_jwks_ca_file)

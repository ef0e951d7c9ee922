"""Several issuers at once: which of them a token is of, and what each allows."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployer.api.auth.credentials import MAX_TOKEN
from deployer.api.auth.jwt.grants import ANY, verbs_for
from deployer.api.auth.jwt.jwks import WAITING, KeySet
from deployer.api.auth.jwt.keys import KeySource, PemFile
from deployer.api.auth.jwt.tokens import TokenAuthenticator, TokenPrincipal
from deployer.api.auth.principal import Authenticator, Authorizer, Principal, Unauthenticated
from deployer.api.routes import Permission
from deployer.core.errors import SettingsError
from deployer.settings import Settings
from deployer.settings.issuers.configured import issuers_of
from deployer.settings.issuers.issuer import DEFAULT, Issuer


class IssuersAuthenticator(Authenticator):
    """Gives each token to the one issuer whose name (`iss`) it has, so that none is checked with another's keys."""

    def __init__(self, issuers: Mapping[str, TokenAuthenticator], prefixes: Sequence[str] = ("",)) -> None:
        """`issuers` by `iss`; `prefixes` of all their callers' names."""
        self._issuers = issuers
        self._prefixes = prefixes

    def authenticate(self, token: str) -> TokenPrincipal:
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN} characters")
        issuer = self._issuers.get(_claimed_issuer(token))
        if issuer is None:
            raise Unauthenticated("the token is of another issuer")  # and nothing is fetched for it
        caller = issuer.authenticate(token)
        own = issuer.issuer.name_prefix
        if any(len(other) > len(own) and caller.name.startswith(other) for other in self._prefixes):
            raise Unauthenticated(f"the token's claim {issuer.issuer.name_claim} is a name of another issuer's callers")
        return caller

    def problem(self) -> str:
        """Why nobody can be let in. One issuer whose keys are there is enough: a service that calls itself unready
        gets no requests, and its callers would be kept out as well."""
        problems = []
        for issuer in self._issuers.values():
            if not (problem := issuer.problem()):
                return ""
            problems.append(problem)
        return "; ".join(problems)

    def start(self) -> None:
        for issuer in self._issuers.values():
            issuer.start()

    def close(self) -> None:
        for issuer in self._issuers.values():
            issuer.close()


class GrantAuthorizer(Authorizer):
    """What tokens allow, by the rules and roles of their issuers."""

    def __init__(self, settings: Settings) -> None:
        self._rollback = settings.deploy_allows_rollback
        self._issuers = {issuer.name: issuer for issuer in issuers_of(settings)}

    def refusal(self, caller: Principal, permission: Permission, namespace: str, name: str) -> str:
        if not isinstance(caller, TokenPrincipal):
            return "the caller has no token"
        here = [grant for grant in caller.grants if grant.covers(namespace)]
        verbs = verbs_for(permission, deploy_allows_rollback=self._rollback)
        if any(grant.verbs.intersection(verbs) for grant in here):
            return ""
        roles = self._issuers[caller.issuer].roles
        if here:
            needed = " or ".join(verbs if roles is None else [roles.by_verb[verb] for verb in verbs])
            how = f"the role {needed}" if roles else f"{needed} from a rule of issuer {caller.issuer}"
            return f"{caller.name} may not {permission.verb} {permission.resource}: that needs {how}"
        if namespace == ANY:
            where = f"among the namespaces of {'the token' if roles else 'a rule'}"
            return f"{caller.name} may not use all namespaces: that needs {ANY} {where}"
        return f"{caller.name} may not use this namespace"

    def named(self, caller: Principal) -> Collection[str]:
        grants = caller.grants if isinstance(caller, TokenPrincipal) else ()
        return {name for grant in grants for name in grant.names}


def open_issuers(settings: Settings) -> IssuersAuthenticator:
    """All issuers of the settings. Raises SettingsError."""
    waiting = threading.Semaphore(WAITING)
    issuers = issuers_of(settings)
    made: dict[str, TokenAuthenticator] = {}
    for issuer in issuers:
        try:
            keys = open_keys(issuer, waiting)
        except SettingsError as error:
            raise SettingsError(f"issuer {issuer.name}: {error}" if issuer.name != DEFAULT else str(error)) from error
        made[issuer.issuer] = TokenAuthenticator(issuer, keys, leeway=settings.jwt_leeway)
    return IssuersAuthenticator(made, [issuer.name_prefix for issuer in issuers])


def open_keys(issuer: Issuer, waiting: threading.Semaphore | None = None) -> KeySource:
    """The issuer's keys, as set. Raises SettingsError. `waiting`: see `KeySet`."""
    if issuer.key_file:
        return PemFile(Path(issuer.key_file).expanduser(), issuer.algorithms)
    setting = "--jwt-jwks-ca-file" if issuer.name == DEFAULT else "jwks_ca_file"
    return KeySet(
        issuer.jwks_url, issuer.algorithms, issuer.jwks_ca_file, issuer=issuer.issuer, ca_setting=setting,
        waiting=waiting,
    )  # fmt: skip


def _claimed_issuer(token: str) -> str:
    """`iss` as the token has it, before anything is checked. Raises Unauthenticated."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError, RecursionError):
        raise Unauthenticated("the token is no JSON Web Token") from None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    if not isinstance(issuer, str):
        raise Unauthenticated("the token has no claim iss")
    return issuer

"""`Access`: the two questions, who is that and may they do this, with everything that answers them."""

from __future__ import annotations

from collections.abc import Collection

from deployer.api.auth.circuit_breaker import CircuitBreaker
from deployer.api.auth.cluster import ClusterAuthenticator, ClusterAuthorizer, Reviewer
from deployer.api.auth.jwt.issuers import GrantAuthorizer, open_issuers
from deployer.api.auth.principal import Authenticator, Authorizer, Forbidden, Principal
from deployer.api.routes import Permission
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient
from deployer.settings import Settings, check_auth
from deployer.settings.issuers.configured import issuers_of


class Access:
    """Who callers are and what they may do. Whoever is not known, or not allowed something, raises. Thread-safe."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer, described: Document | None = None) -> None:
        """`described` is what whoever wants to log in has to know; anybody may read it."""
        self.described = described or {}
        self._authenticator = authenticator
        self._authorizer = authorizer

    def identify(self, token: str) -> Principal:
        """Whose token that is. Raises Unauthenticated or Unsure."""
        return self._authenticator.authenticate(token)

    def require(self, caller: Principal, permission: Permission, namespace: str, name: str = "") -> None:
        """Return when the caller may do that. Raises Forbidden or Unsure.

        Nothing is looked up before: the answer depends on the names in the request only, so that what exists in a
        foreign namespace cannot be told from what does not.
        """
        refusal = self._authorizer.refusal(caller, permission, namespace, name)
        if refusal:
            raise Forbidden(refusal)

    def allows(self, caller: Principal, permission: Permission, namespace: str, name: str = "") -> bool:
        """True when the caller may do that. Raises Unsure."""
        return not self._authorizer.refusal(caller, permission, namespace, name)

    def named(self, caller: Principal) -> Collection[str]:
        """The namespaces that the caller's rights name one by one, as far as that is known."""
        return self._authorizer.named(caller)

    def problem(self) -> str:
        """Why nobody can be let in at present, as a sentence; empty when that is possible."""
        return self._authenticator.problem()

    def start(self) -> None:
        """Prepare, without waiting for anybody."""
        self._authenticator.start()

    def close(self) -> None:
        """Let go of everything; idempotent."""
        self._authenticator.close()


def open_access(settings: Settings, client: KubeClient) -> Access | None:
    """What the settings say; None when everybody may do everything. Raises SettingsError."""
    check_auth(settings)
    if settings.auth == "none":
        return None
    if settings.auth == "jwt":
        described: Document = {"method": "jwt", "issuers": [issuer.public() for issuer in issuers_of(settings)]}
        return Access(open_issuers(settings), GrantAuthorizer(settings), described)
    reviewer = Reviewer(client, CircuitBreaker())
    described = {"method": "kubernetes", "audiences": list(settings.kubernetes_audiences)}
    return Access(ClusterAuthenticator(settings, reviewer), ClusterAuthorizer(settings, reviewer), described)

"""`auth = "kubernetes"`: the API server says whose a token is (TokenReview) and what they may do (SubjectAccessReview).

What they may do is granted by plain RBAC: verbs on `descriptors`, `deployments` and `freezes` in the API group
`kube-deployer`.
Nothing of that kind exists in the cluster; rules about it are all that is needed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from deployer.api.auth.cache import Cache, digest
from deployer.api.auth.circuit_breaker import CircuitBreaker
from deployer.api.auth.credentials import MAX_TOKEN
from deployer.api.auth.principal import (
    Authenticator,
    Authorizer,
    Principal,
    Unauthenticated,
    Unsure,
    check_name,
)
from deployer.api.routes import ROLLBACK, Permission
from deployer.commands.freezes import EVERYWHERE
from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Interrupted, KubeError, KubeForbidden
from deployer.core.model.hosts import DNS_LABEL
from deployer.kube import reviews
from deployer.kube.client import KubeClient
from deployer.settings import Settings

GROUP = "kube-deployer"
"""API group of the virtual resources."""

ASK_FOR = 3.0
"""Seconds that the API server has for an answer."""

REMEMBERED = 4096
"""Tokens, refused tokens, and answers about rights that are remembered, each."""

_DEPLOY = Permission("deployments", "create")
_NOBODY = "the API server does not know the token, or it has expired or is for another audience"
_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")  # of a descriptor or deployment; others exist in no rule

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPrincipal(Principal):
    """A caller whom the API server knows. `key` stands for the token in memory."""

    user: reviews.User
    key: bytes


class Reviewer:
    """Asks the API server, and says what is wrong when it does not answer."""

    def __init__(self, client: KubeClient, breaker: CircuitBreaker) -> None:
        self._client = client
        self._breaker = breaker

    @property
    def trouble(self) -> str:
        """Why the last question was not answered; empty when it was."""
        return self._breaker.trouble

    @property
    def good(self) -> bool:
        """True when the last question was answered."""
        return self._breaker.answered and not self.trouble

    def ask(self, question: Callable[[KubeClient, CancelScope], T], token: str = "") -> T:
        """The answer. Raises Unsure; a `token` in the question is taken out of what is said about it."""
        return self._breaker.ask(lambda: self._ask(question, token))

    def _ask(self, question: Callable[[KubeClient, CancelScope], T], token: str) -> T:
        try:
            return question(self._client, CancelScope(time.monotonic() + ASK_FOR))
        except (Interrupted, KubeError) as error:
            cause = error.__cause__ if isinstance(error, Interrupted) else error
            why = str(cause) if isinstance(cause, KubeError) else f"the API server gave no answer within {ASK_FOR:g} s"
            if token:
                why = why.replace(token, "***")
            if isinstance(cause, KubeForbidden):
                why += "; grant it by deploy/rbac/reviews.yaml"
            detail = f"credentials cannot be checked: {why}"
            if detail != self.trouble:
                _log.warning("%s", detail)
            said = "credentials cannot be checked at the moment: the API server gives no answer about them"
            raise Unsure(said, detail) from error


class ClusterAuthenticator(Authenticator):
    """Asks whose a token is, and remembers the answer for a short time."""

    def __init__(
        self,
        settings: Settings,
        reviewer: Reviewer,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is what answers age by: a right that was taken away ends in time, whatever the system's clock does.

        `wall` is what the ends of tokens are told by.
        """
        self._wall = wall
        self._audiences = settings.kubernetes_audiences
        self._remember_for = settings.auth_cache
        self._reviewer = reviewer
        self._clock = clock
        self._known: Cache[ClusterPrincipal] = Cache(REMEMBERED, clock)
        # By themselves, so that nobody can drive the good ones out by trying.
        self._unknown: Cache[str] = Cache(REMEMBERED, clock)

    def authenticate(self, token: str) -> ClusterPrincipal:
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN} characters")
        key = digest(token)
        return self._remembered(key) or self._reviewer.ask(
            # Whoever had to wait may find that somebody else has asked meanwhile.
            lambda client, scope: self._remembered(key) or self._review(client, scope, token, key),
            token,
        )

    def problem(self) -> str:
        # Asked here too: a service that is not ready gets no requests, and would never find out that all is well.
        if not self._reviewer.good:
            with contextlib.suppress(Unsure):
                self._reviewer.ask(lambda client, scope: reviews.whose_token(client, "e30.e30.", (), scope=scope))
        return self._reviewer.trouble

    def _remembered(self, key: bytes) -> ClusterPrincipal | None:
        if (refusal := self._unknown.get(key)) is not None:
            raise Unauthenticated(refusal)
        return self._known.get(key)

    def _review(self, client: KubeClient, scope: CancelScope, token: str, key: bytes) -> ClusterPrincipal:
        user = reviews.whose_token(client, token, self._audiences, scope=scope)
        until = self._clock() + self._remember_for
        try:
            if user is None:
                raise Unauthenticated(_NOBODY)
            expires = expiry(token)
            caller = ClusterPrincipal(
                name=check_name(user.name, "the name that the API server knows"), expires=expires, user=user, key=key
            )
        except Unauthenticated as error:
            self._unknown.put(key, str(error), until)
            raise
        self._known.put(key, caller, min(until, self._clock() + expires - self._wall()))
        return caller


class ClusterAuthorizer(Authorizer):
    """Asks what a caller may do, and remembers the answer for a short time."""

    def __init__(self, settings: Settings, reviewer: Reviewer, clock: Callable[[], float] = time.monotonic) -> None:
        self._remember_for = settings.auth_cache
        self._deploy_allows_rollback = settings.deploy_allows_rollback
        self._reviewer = reviewer
        self._clock = clock
        self._answers: Cache[bool] = Cache(REMEMBERED, clock)

    def refusal(self, caller: Principal, permission: Permission, namespace: str, name: str) -> str:
        if not isinstance(caller, ClusterPrincipal):
            return "the caller has no token"
        # First what most have who roll back, so that one question is enough.
        implied = permission == ROLLBACK and self._deploy_allows_rollback
        if implied and not self._refusal(caller, _DEPLOY, namespace, name):
            return ""
        return self._refusal(caller, permission, namespace, name)

    def _refusal(self, caller: ClusterPrincipal, permission: Permission, namespace: str, name: str) -> str:
        everywhere = namespace == EVERYWHERE and permission.resource == "freezes"
        where = "in all namespaces" if everywhere else "in this namespace"
        said = f"{caller.name} may not {permission.verb} {permission.resource}.{GROUP} {where}"
        if not everywhere and not DNS_LABEL.fullmatch(namespace):
            return said
        # A rule for single names (resourceNames) never applies to `create`, as in Kubernetes itself.
        name = name if permission.verb != "create" and _ID.fullmatch(name) else ""
        key = (caller.key, caller.user.name, permission, namespace, name)

        def ask(client: KubeClient, scope: CancelScope) -> bool:
            known = self._answers.get(key)
            if known is not None:
                return known
            # Without a namespace a review is about all of them, which a ClusterRoleBinding alone can grant.
            deed = reviews.Deed(permission.verb, GROUP, permission.resource, "" if everywhere else namespace, name)
            answer = reviews.may(client, caller.user, deed, scope=scope)
            self._answers.put(key, answer, self._clock() + self._remember_for)
            return answer

        allowed = self._answers.get(key)
        if allowed is None:
            allowed = self._reviewer.ask(ask)
        return "" if allowed else said


def expiry(token: str) -> float:
    """When a token that the API server has just vouched for expires; infinite when it does not say so.

    It is read without checking the signature: the API server has done that.
    """
    try:
        payload = token.split(".")[1]
        exp = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        return float(exp) if isinstance(exp, int | float) and math.isfinite(exp) else math.inf
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError):
        return math.inf

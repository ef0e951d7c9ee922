"""The settings about who may call: a part of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployer.settings import checks
from deployer.settings.issuers.issuer import ALGORITHMS, Issuer, parse
from deployer.settings.options import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerSettings:
    """How callers prove who they are, and what they may do."""

    auth: str = setting(
        "text",
        "none",
        "How callers prove who they are: jwt by tokens of an identity provider, kubernetes by tokens that the API "
        "server checks. See docs/authentication.md.",
        choices=("none", "jwt", "kubernetes"),
    )
    insecure_no_auth: bool = setting(
        "switch", False, "Listen on other addresses than loopback although everybody there may deploy."
    )
    jwt_algorithm: str = setting(
        "text", "RS256", "The only algorithm in which tokens may be signed.", choices=ALGORITHMS
    )
    jwt_issuer: str = setting("text", "", "The issuer (iss) that tokens must have, exactly.")
    jwt_audience: str = setting("text", "", "The audience (aud) that tokens must be for.")
    jwt_key_file: str = setting(
        "text",
        "",
        "PEM file with the issuer's public key or certificate, or several of them; read again when it changes.",
    )
    jwt_jwks_url: str = setting(
        "text", "", "The issuer's keys as a JWK Set, at an address that begins with https://.", check=checks.https
    )
    jwt_jwks_ca_file: str = setting(
        "text",
        "",
        "File with the certificates that the server of --jwt-jwks-url is checked with.",
        shown="the system's",
    )
    jwt_name_claim: str = setting("text", "sub", "Claim with the caller's name, as in createdBy and in the audit log.")
    jwt_namespaces_claim: str = setting(
        "text",
        "namespaces",
        "Claim with the namespaces that the caller may use; * means all. Dots lead into objects: a.b is b in a.",
    )
    jwt_roles_claim: str = setting("text", "roles", "Claim with the caller's roles; dots lead into objects.")
    jwt_read_role: str = setting("text", "read", "The role that may read.")
    jwt_deploy_role: str = setting("text", "deploy", "The role that may read and deploy.")
    jwt_freeze_role: str = setting("text", "freeze", "The role that may put and lift freezes.")
    jwt_override_role: str = setting(
        "text", "override-freeze", "The role that may deploy in spite of a freeze, together with the one for deploying."
    )
    jwt_approve_role: str = setting(
        "text", "approve", "The role that may say whether a gate may be passed; the one for deploying may not."
    )
    jwt_rollback_role: str = setting(
        "text",
        "rollback",
        "The role that may roll back; as long as deploy_allows_rollback is on, so may that for deploying.",
    )
    jwt_client_id: str = setting(
        "text", "", "The public client with which people log in at --jwt-issuer; anybody can read it at /."
    )
    jwt_scopes: str = setting("text", "", "The scopes that --jwt-client-id asks for, with spaces between.")
    jwt_leeway: float = setting(
        "seconds", 30.0, "How far an issuer's clock may be from this one.", check=checks.between(0, 300)
    )
    deploy_allows_rollback: bool = setting(
        "switch",
        True,
        "Whether whoever may deploy may roll back too. Off: that needs a right of its own (rollback).",
        shown="true",
    )
    kubernetes_audiences: tuple[str, ...] = setting(
        "names",
        ("kube-deployer",),
        "Audiences of which a token must have one, for auth = kubernetes. Empty: the API server's own, so that every "
        "token for it is good here too.",
    )
    auth_cache: float = setting(
        "seconds",
        10.0,
        "How long an answer of the API server about a token or a right is good, for auth = kubernetes.",
        check=checks.between(0, 300),
    )
    issuers: tuple[Issuer, ...] = setting(
        "tables",
        (),
        "[[issuers]]: issuers of tokens besides the one of jwt_issuer, or instead of it, each with rules from claims "
        "to namespaces and verbs; see docs/authentication.md.",
        check=checks.issuers,
    )

    def _parse_issuers(self) -> None:
        """Read the tables of a file."""
        issuers = tuple(parse(one) if isinstance(one, Mapping) else one for one in self.issuers)
        object.__setattr__(self, "issuers", issuers)

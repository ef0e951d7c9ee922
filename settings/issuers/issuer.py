"""An issuer of tokens as the settings have it, and the rules from claims to rights."""

from __future__ import annotations

import re
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.settings.issuers import patterns
from deployer.settings.issuers.patterns import Pattern
from deployer.settings.namespaces import namespace_patterns

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Signatures by a private key (RFC 7518, 8037). Not HS256: whoever can check such a token can also make one."""

VERBS = ("read", "deploy", "approve", "rollback", "freeze", "override")
"""What a rule can allow."""

DEFAULT = "default"
"""The name of the issuer that the settings `jwt_*` describe."""

MOST, MOST_RULES = 32, 128
"""Issuers, and rules of one."""

SHARED: Mapping[str, tuple[str, ...]] = {
    # https://docs.github.com/en/actions/reference/security/oidc
    "https://token.actions.githubusercontent.com": (
        *("sub", "repository", "repository_id", "repository_owner", "repository_owner_id"),
        *("job_workflow_ref", "enterprise", "enterprise_id"),
    ),
    # https://docs.gitlab.com/ci/secrets/id_token_authentication/
    "https://gitlab.com": ("sub", "project_path", "project_id", "namespace_path", "namespace_id", "ci_config_ref_uri"),
}
"""Issuers that sign for everybody on the internet, and the claims that say for whom."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_FIELDS = (
    *("name", "issuer", "audience", "algorithms", "jwks_url", "jwks_ca_file", "key_file"),
    *("name_claim", "name_prefix", "client_id", "scopes", "rules"),
)
_RULE_FIELDS = ("claims", "namespaces", "verbs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Rights by roles that the token names, in namespaces that it names: of the issuer `default` alone.

    namespaces_claim, roles_claim   where the token has them
    by_verb                         the role for each of `VERBS`
    """

    namespaces_claim: str
    roles_claim: str
    by_verb: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What tokens may whose claims all match.

    claims      the patterns of each claim, of which one is enough
    namespaces  patterns, as everywhere in the settings; or texts with `{name}`, which are names and no patterns
    """

    claims: Mapping[str, tuple[Pattern, ...]]
    namespaces: tuple[str, ...]
    verbs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who signs tokens, how they are checked, and what they allow.

    issuer        `iss`, exactly
    jwks_url      where the keys are; empty with `key_file`, and when the issuer's own document says it
    name_prefix   goes before the names of this issuer's callers, so that none is taken for another's
    client_id     of the public client with which people log in; empty when that is nobody's business
    roles         rights by roles; None for an issuer with rules
    """

    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256",)
    jwks_url: str = ""
    jwks_ca_file: str = ""
    key_file: str = ""
    name_claim: str = "sub"
    name_prefix: str = ""
    client_id: str = ""
    scopes: str = ""
    rules: tuple[Rule, ...] = ()
    roles: Roles | None = None

    def public(self) -> dict[str, str]:
        """What whoever wants to log in has to know."""
        known = {"name": self.name, "issuer": self.issuer, "audience": self.audience}
        login = {"clientId": self.client_id, "scopes": self.scopes}
        return known | {name: value for name, value in login.items() if value and self.client_id}


def parse(table: Mapping[str, Any]) -> Issuer:
    """An issuer as the settings have it. Raises ValueError: what is wrong, in a sentence."""
    _known(table, _FIELDS)
    if missing := [name for name in ("name", "issuer", "audience", "rules") if not table.get(name)]:
        raise ValueError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    texts = {name: _text(name, table[name]) for name in table if name not in ("algorithms", "rules")}
    if not _NAME.fullmatch(texts["name"]):
        raise ValueError(f"name: {texts['name']!r} is not a name of a-z, 0-9 and '-'")
    if texts["name"] == DEFAULT:
        raise ValueError("name: default is the issuer of the settings jwt_*; choose another")
    if texts.get("key_file") and (texts.get("jwks_url") or texts.get("jwks_ca_file")):
        raise ValueError("key_file and jwks_url exclude each other: give one of them")
    for name in ("issuer", "jwks_url"):
        if texts.get(name) and not (name == "issuer" and texts.get("key_file")):
            _https(name, texts[name])
    if texts.get("scopes") and not texts.get("client_id"):
        raise ValueError("scopes are asked for with client_id; give that too")
    rules = _list("rules", table["rules"])
    if len(rules) > MOST_RULES:
        raise ValueError(f"rules: there are {len(rules)}, more than {MOST_RULES}")
    found = []
    for number, rule in enumerate(rules, 1):
        try:
            found.append(_rule(rule, texts["issuer"]))
        except ValueError as error:
            raise ValueError(f"rule {number}: {error}") from None
    texts.setdefault("name_prefix", texts["name"] + ":")
    return Issuer(**texts, roles=None, algorithms=_algorithms(table.get("algorithms", ["RS256"])), rules=tuple(found))


def wrong_together(issuers: Sequence[Issuer]) -> str:
    """What is wrong with issuers that are each right; empty when nothing is."""
    if len(issuers) > MOST:
        return f"there are {len(issuers)}, more than {MOST}"
    for what, said in (("name", "name"), ("issuer", "issuer"), ("name_prefix", "name_prefix")):
        seen: dict[str, str] = {}
        for one in issuers:
            value = getattr(one, what)
            if value in seen:
                return f"{seen[value]} and {one.name} have the same {said} {value!r}: which of them is meant?"
            seen[value] = one.name
    return ""


def _rule(table: Any, issuer: str) -> Rule:
    if not isinstance(table, Mapping):
        raise ValueError("it is not a table; write [[issuers.rules]]")
    _known(table, _RULE_FIELDS)
    if missing := [name for name in _RULE_FIELDS if not table.get(name)]:
        raise ValueError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    claims = _claims(table["claims"])
    _check_tenant(claims, issuer)
    namespaces = tuple(_text("namespaces", one) for one in _list("namespaces", table["namespaces"]))
    for namespace in namespaces:
        _check_namespace(namespace, claims)
    verbs = _list("verbs", table["verbs"])
    if unknown := [verb for verb in verbs if verb not in VERBS]:
        raise ValueError(f"verbs: {unknown[0]!r} is not one of {', '.join(VERBS)}")
    return Rule(claims=claims, namespaces=namespaces, verbs=frozenset(verbs))


def _claims(value: Any) -> dict[str, tuple[Pattern, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError('claims is not a table like {repository = "acme/shop"}')
    claims = {}
    for name, given in value.items():
        texts = given if isinstance(given, list | tuple) else [given]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"claims: {name} is not a text, nor a list of texts")
        try:
            claims[name] = tuple(map(Pattern, texts))
        except ValueError as error:
            raise ValueError(f"claims: {name}: {error}") from None
    named = Counter(name for given in claims.values() for name in {name for one in given for name in one.names})
    if twice := [name for name, count in named.items() if count > 1]:
        raise ValueError(f"claims: {{{twice[0]}}} is in the patterns of two claims: which of them is meant?")
    return claims


def _check_tenant(claims: Mapping[str, tuple[Pattern, ...]], issuer: str) -> None:
    """Refuse a rule that says nothing about whose tokens it is for."""
    telling = [name for name, given in claims.items() if not any(pattern.says_nothing for pattern in given)]
    if not telling:
        raise ValueError(
            "claims: no pattern begins with anything but a wildcard, so that whoever gets a token there would have "
            f"these rights; if that is meant, say iss = {issuer!r}"
        )
    shared = SHARED.get(issuer.rstrip("/"))
    if shared and not any(all(pattern.tenant_fixed for pattern in claims[name]) for name in telling if name in shared):
        raise ValueError(
            f"claims: {issuer} signs for everybody, and no claim says for whom: add one of {', '.join(shared)}, "
            "without a wildcard before its first `/`"
        )


def _check_namespace(namespace: str, claims: Mapping[str, tuple[Pattern, ...]]) -> None:
    names = patterns.names_in(namespace)
    namespace_patterns([patterns.with_values(namespace)])
    if not names:
        return
    if "*" in namespace or "?" in namespace:
        raise ValueError(f"namespaces: {namespace!r} has a name in braces, so it is no pattern; leave out * and ?")
    for name in names:
        # In each way in which the claim may match, or the rule would mean one namespace here and none there.
        if not any(all(name in pattern.names for pattern in given) for given in claims.values()):
            raise ValueError(f"namespaces: {{{name}}} is in no pattern of a claim")


def _algorithms(value: Any) -> tuple[str, ...]:
    found = _list("algorithms", value)
    if unknown := [one for one in found if one not in ALGORITHMS]:
        raise ValueError(f"algorithms: {unknown[0]!r} is not one of {', '.join(ALGORITHMS)}")
    return tuple(dict.fromkeys(found))


def _known(table: Mapping[str, Any], fields: Sequence[str]) -> None:
    if unknown := [name for name in table if name not in fields]:
        raise ValueError(f"unknown key {unknown[0]}; there are {', '.join(fields)}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or value != value.strip():
        raise ValueError(f"{name}: {value!r} is not a single line of text")
    return value


def _list(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{name} is not a list with something in it")
    return value


def _https(name: str, value: str) -> None:
    try:
        parts = urllib.parse.urlsplit(value)
        good = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and not parts.fragment
        good = good and parts.username is None and not (name == "issuer" and parts.query)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{name}: {value!r} is not an address like https://idp.example.com")

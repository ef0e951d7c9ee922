"""What a token allows: by rules from its claims, or by the roles and namespaces that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.api.routes import Permission
from deployer.settings.issuers import patterns
from deployer.settings.issuers.issuer import Issuer, Roles, Rule
from deployer.settings.issuers.patterns import Pattern
from deployer.settings.namespaces import covers

ANY = "*"
"""In the place of a namespace: all of them, those included that nobody has named."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Verbs in namespaces.

    names     namespaces by name; nothing in them is a pattern
    patterns  namespaces by pattern, which only the settings can have
    verbs     of `issuer.VERBS`
    """

    names: frozenset[str]
    patterns: tuple[str, ...]
    verbs: frozenset[str]
    everywhere: bool = False

    def covers(self, namespace: str) -> bool:
        """Is it about that namespace, or (`ANY`) about all of them?"""
        if self.everywhere or namespace in self.names:
            return True
        return namespace != ANY and covers(self.patterns, namespace)


def verbs_for(permission: Permission, *, deploy_allows_rollback: bool) -> tuple[str, ...]:
    """The verbs of which one is enough."""
    if permission.verb in ("approve", "override"):
        return (permission.verb,)  # not `deploy`: whoever a gate or a freeze is for must not open it
    if permission.verb == "rollback":
        return ("rollback", "deploy") if deploy_allows_rollback else ("rollback",)
    if permission.resource == "freezes":
        # Not `deploy`: whoever a freeze is for must not be able to lift it.
        return ("read", "deploy", "freeze") if permission.reads else ("freeze",)
    return ("read", "deploy") if permission.reads else ("deploy",)


def grants_of(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[Grant, ...]:
    """What a token with these claims allows."""
    if issuer.roles is not None:
        return (_by_roles(issuer.roles, claims),)
    return tuple(grant for rule in issuer.rules if (grant := _by_rule(rule, claims)) is not None)


def _by_roles(roles: Roles, claims: Mapping[str, Any]) -> Grant:
    named = texts(claim(claims, roles.namespaces_claim))
    given = texts(claim(claims, roles.roles_claim))
    verbs = frozenset(verb for verb, role in roles.by_verb.items() if role in given)
    return Grant(named - {ANY}, (), verbs, everywhere=ANY in named)


def _by_rule(rule: Rule, claims: Mapping[str, Any]) -> Grant | None:
    """What the rule allows; None when it is not about this token."""
    captured: dict[str, str] = {}
    for name, given in rule.claims.items():
        found = _matched(given, claim(claims, name))
        if found is None:
            return None
        captured |= found
    names, wild = set(), []
    for namespace in rule.namespaces:
        if patterns.names_in(namespace):
            names.add(patterns.filled(namespace, captured))
        else:
            wild.append(namespace)
    return Grant(frozenset(names - {""}), tuple(wild), rule.verbs, everywhere=ANY in wild)


def _matched(given: tuple[Pattern, ...], value: Any) -> Mapping[str, str] | None:
    """What the names in the first pattern that matches stand for; None when none does."""
    several = isinstance(value, list)
    for pattern in given:
        if several and pattern.names:
            continue  # which of several is meant nobody can say
        for text in _values(value):
            if (found := pattern.match(text)) is not None:
                return found
    return None


def _values(value: Any) -> Iterator[str]:
    """The texts that a claim has: itself, or those of a list. Numbers and truth values as JSON writes them."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield one
        elif isinstance(one, bool):
            yield "true" if one else "false"
        elif isinstance(one, int):
            yield str(one)


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path whose dots lead into objects; None when there is none.

    >>> claim({"realm_access": {"roles": ["deploy"]}}, "realm_access.roles")
    ['deploy']
    >>> claim({"https://example.com/roles": "deploy"}, "https://example.com/roles")
    'deploy'
    >>> claim({"kubernetes.io": {"namespace": "shop"}}, "kubernetes.io.namespace")
    'shop'
    """
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        found = claims.get(".".join(parts[:length]))
        if length == len(parts) and found is not None:
            return found
        if isinstance(found, Mapping) and (inside := claim(found, ".".join(parts[length:]))) is not None:
            return inside
    return None


def texts(value: Any) -> frozenset[str]:
    """The texts of a list, or the words of a text as in `scope` (RFC 8693, 4.2); anything else holds none."""
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list):
        return frozenset(v for v in value if isinstance(v, str) and v)
    return frozenset()

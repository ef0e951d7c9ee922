"""Namespaces by pattern, as tables of the settings name them, and what each may have at most."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMITS: Mapping[str, int] = {
    "descriptors": 20_000,
    "deployments": 200,
    "stored_bytes": 4 << 30,
    "log_bytes": 4 << 30,
    "viewers": 1500,
}
"""What a namespace may have where no table says: `deployments` that wait or run (of which `queue_limit` says how many),
`stored_bytes` of all its records as JSON, `log_bytes` of its logs as text, `viewers` who follow a log at once."""

_BYTES = re.compile(r"([1-9][0-9]{0,11}) *(Ki|Mi|Gi|Ti)?")
_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_PATTERN = re.compile(r"[a-z0-9*?-]{1,63}")


def namespace_patterns(value: object) -> tuple[str, ...]:
    """`namespaces` of a table. Raises ValueError with what is wrong with it."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError('namespaces must be a list like ["shop", "team-*"]')
    for pattern in value:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            raise ValueError(f"namespaces: {pattern!r} is not a namespace or a pattern like team-*")
    return tuple(value)


def covers(patterns: Iterable[str], namespace: str) -> bool:
    """Does one of them name the namespace?"""
    return any(fnmatch.fnmatchcase(namespace, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Limits of the namespaces that it covers, by the names of `LIMITS`; others have those that it does not name."""

    namespaces: tuple[str, ...]
    limits: Mapping[str, int]


def parse_quota(table: Mapping[str, Any]) -> Quota:
    """A table as the settings have it. Raises ValueError with what is wrong with it."""
    if unknown := [name for name in table if name not in (*LIMITS, "namespaces")]:
        raise ValueError(f"unknown key {unknown[0]}; there are namespaces, {', '.join(LIMITS)}")
    limits = {name: _limit(name, table[name]) for name in LIMITS if name in table}
    if not limits:
        raise ValueError(f"has no limit; there are {', '.join(LIMITS)}")
    return Quota(namespaces=namespace_patterns(table.get("namespaces", ["*"])), limits=limits)


def limits_of(quotas: Sequence[Quota], namespace: str) -> Mapping[str, int]:
    """Each limit from the first table that covers the namespace and names it; without one it is missing."""
    found: dict[str, int] = {}
    for quota in quotas:
        if covers(quota.namespaces, namespace):
            found = {**quota.limits, **found}
    return found


def _limit(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 60:
        return value
    if name.endswith("bytes") and isinstance(value, str) and (match := _BYTES.fullmatch(value)):
        return int(match.group(1)) * _UNITS[match.group(2) or ""]
    example = ', or a text like "512Mi"' if name.endswith("bytes") else ""
    raise ValueError(f"{name} must be a whole number from 0 on{example}, not {value!r}")

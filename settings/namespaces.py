"""Namespaces by pattern, as tables of the settings name them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

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

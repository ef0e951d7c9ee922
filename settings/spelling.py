"""Which known names a word that is none may have been meant for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def similar(word: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """At most so many of the known names, the nearest first; letters are the same in either case."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower()[:100], by_lower, n=most, cutoff=0.7)
    return [by_lower[name] for name in near]

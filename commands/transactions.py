"""What transactions have in common: they are decided again when somebody else's came first, and may have conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from deployer.core.errors import Conflict, PreconditionFailed, StaleRevision

T = TypeVar("T")

ATTEMPTS = 20
"""How often a transaction is decided again when somebody else's came first."""


def expect(what: str, revision: int, if_match: Collection[int] | None) -> None:
    """Raise PreconditionFailed when it has none of the revisions that it should have."""
    if if_match is not None and revision not in if_match:
        expected = " or ".join(map(str, sorted(if_match))) or "what If-Match says"
        raise PreconditionFailed(f"{what} has revision {revision} by now, not {expected}; read it again")


def decide_again(attempt: Callable[[], T]) -> T:
    """Run a read-decide-commit until nobody else came first. Raises Conflict when that never happens."""
    for _ in range(ATTEMPTS):
        try:
            return attempt()
        except StaleRevision:
            continue
    raise Conflict("too many changes at once; try again")

"""Whose turn an app is, by weighted rendezvous hashing: each replica finds the same answer, without asking anybody.

Of n replicas one more, or one less, moves one n-th of the apps. The weights are those of Schindelhauer and Schomaker,
"Weighted distributed hash tables" (SPAA 2005): the replica with the least -ln(u) / weight, u being the hash.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

STEP_IN = 1.0
"""Seconds that each replica leaves an app to those before it; only what they do not take up by then is its own turn."""

PATIENCE_MOST = 3.0
"""Seconds after which it is anybody's turn."""


def order(slots: Mapping[str, int], namespace: str, app: str) -> list[str]:
    """The replicas in the order in which an app is theirs. `slots`: how many operations each may carry out at a time;
    none at all means that it takes up nothing."""
    return sorted(
        (holder for holder in slots if slots[holder] > 0), key=lambda h: _distance(h, slots[h], namespace, app)
    )


def patience(holder: str, slots: Mapping[str, int], namespace: str, app: str) -> float:
    """Seconds for which that replica leaves an app to the others; inf while it takes up nothing."""
    before = order(slots, namespace, app)
    return min(before.index(holder) * STEP_IN, PATIENCE_MOST) if holder in before else math.inf


def _distance(holder: str, slots: int, namespace: str, app: str) -> float:
    digest = hashlib.blake2b(f"{holder}\0{namespace}/{app}".encode(), digest_size=8).digest()
    u = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -math.log(u) / slots

"""A freeze as it is stored: nobody deploys anything new in a namespace, or anywhere, until it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deployer.core.model.records import Record

EVERYWHERE = "*"
"""In the place of a namespace: all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze(Record):
    """Of one namespace, or of all (`EVERYWHERE`); there is at most one of each.

    reason   why, in a line
    until    seconds since the epoch at which it ends; 0 for one that somebody has to lift
    by       who asked for it; empty when that is not known
    created  RFC 3339
    """

    KIND: ClassVar[str] = "freeze"
    reason: str
    created: str
    until: float = 0.0
    by: str = ""

    @property
    def key(self) -> str:
        return self.namespace

    def ended(self, now: float) -> bool:
        """Is it over at `now`, in seconds since the epoch?"""
        return 0 < self.until <= now

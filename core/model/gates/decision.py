"""What a person said of a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deployer.core.model.gates.results import shown_time
from deployer.core.model.records import Document, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision(Record):
    """What a person said of a gate that waits for that. Written once.

    by  who it was; empty where nobody proves who they are
    at  seconds since the epoch
    """

    KIND: ClassVar[str] = "decision"
    deployment: str
    step: str
    gate: str
    approve: bool
    by: str = ""
    at: float = 0.0
    comment: str = ""

    @property
    def key(self) -> str:
        return decision_key(self.deployment, self.step)

    @property
    def tag(self) -> str:
        return self.deployment

    @property
    def said(self) -> Document:
        """What is kept of it with the result."""
        return {"approve": self.approve, "by": self.by, "at": self.at, "comment": self.comment}

    def __str__(self) -> str:
        """What was said of which step, in words."""
        words = f": {self.comment}" if self.comment else ""
        return f"{'approved' if self.approve else 'refused'} {self.step}{words}"

    def public(self) -> Document:
        """As REST shows it."""
        return {"gate": self.gate, **self.said, "at": shown_time(self.at)}


def decision_key(deployment: str, step: str) -> str:
    """The key of the decision about a gate."""
    return f"{deployment}/{step}"

"""What an observer implements, and what it is told."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from deployer.core.contract.provider import Provider
from deployer.core.model.records import Document

HOOKS = frozenset({"deployment_started", "deployment_changed", "deployment_finished"})
"""Everything that can be told; each is a hook of its own as well, for plugins that are one observer."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One thing that happened to a deployment.

    id           the same whenever this is told again, so that whoever it is passed on to can drop what came twice
    hook         which hook tells it: one of `HOOKS`
    occurrence   what happened, an `Occurrence`; empty for mere progress, and for what an earlier release left
    at           when, in seconds since the epoch; 0 for what an earlier release left
    previous     version that was live before, or that takes over again; empty when there is none
    deployment   what REST shows; for progress with `operation`: `{"kind", "state", "steps", "until"}`
    operation    the operation that ended with it: `{"id", "kind", "request", "asked", "ended", "steps"}`, of which each
                 step that began is `{"id", "phase", "state", "began", "ended", "requests", "gate"}` (how requests
                 fared that it counted while traffic moved, or None; the type of the gate that it is, else empty);
                 times in seconds since the epoch, 0 for none. Empty when none ended
    """

    id: str
    hook: str
    occurrence: str
    at: float
    previous: str
    deployment: Document
    operation: Document = field(default_factory=dict)


class Observer(Provider):
    """Is told of deployments, at least once and in order, from a durable queue and in a thread of its own.

    hooks   what it wants to be told of: some of `HOOKS`
    """

    hooks: frozenset[str] = HOOKS - {"deployment_changed"}

    @abstractmethod
    def notify(self, notification: Notification) -> None:
        """Take it within 30 s. Raise `NotDelivered`, with a sentence without secrets, to be told again; other errors
        mean the same, and their traceback is logged."""

"""In what state deployments and operations can be, which transitions are legal, and what happens on the way."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """Where a deployment is on its way. FAILURE and UNDEPLOYED are ends; DEPLOYED is one until it is replaced."""

    DEPLOYING = "DEPLOYING"
    DEPLOYED = "DEPLOYED"
    UNDEPLOYING = "UNDEPLOYING"
    UNDEPLOYED = "UNDEPLOYED"
    FAILURE = "FAILURE"

    @property
    def moving(self) -> bool:
        """True while something is still to be done for the deployment."""
        return self in (Status.DEPLOYING, Status.UNDEPLOYING)


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.DEPLOYING: frozenset({Status.DEPLOYED, Status.FAILURE, Status.UNDEPLOYING}),
    Status.DEPLOYED: frozenset({Status.UNDEPLOYING}),
    Status.UNDEPLOYING: frozenset({Status.UNDEPLOYED}),
    Status.UNDEPLOYED: frozenset(),
    Status.FAILURE: frozenset(),
}


ROLLBACK_TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.DEPLOYED: frozenset({Status.FAILURE}),
    Status.UNDEPLOYING: frozenset({Status.DEPLOYED}),
}
"""What is legal in a rollback besides, and nowhere else: the version that goes, and the one that comes back."""


class OperationKind(StrEnum):
    """What an operation does. Retire is what follows a switch: releasing, dropping, removing the replaced version.
    Watch looks after the new version meanwhile. Rollback switches back to a version that is still warm."""

    DEPLOY = "deploy"
    UNDEPLOY = "undeploy"
    RETIRE = "retire"
    WATCH = "watch"
    ROLLBACK = "rollback"


class OperationState(StrEnum):
    """QUEUED: not begun (or a retire between two attempts). RUNNING: begun. UNDOING: going back. DONE: closed."""

    QUEUED = "queued"
    RUNNING = "running"
    UNDOING = "undoing"
    DONE = "done"


class Occurrence(StrEnum):
    """What happens to a deployment, as observers and the cluster's Events tell it.

    One word for each end and each beginning. Of the ends each deployment has one, but for a live one, which may come
    to another later."""

    STARTED = "started"
    """Its version and plan are decided."""
    DEPLOYED = "deployed"
    """It is the app's first live version."""
    UPGRADED = "upgraded"
    """It is live instead of another version."""
    ROLLED_BACK = "rolledback"
    """It is live again, instead of a version that came after it."""
    ROLLBACK_FAILED = "rollbackfailed"
    """It should have been live again, but what came after it still is."""
    FAILED = "failed"
    """It did not come to be live, or does not stay it."""
    CANCELLED = "cancelled"
    """It was undeployed before it was live."""
    REPLACED = "replaced"
    """Another version is live, and nothing is left of this one."""
    REMOVED = "removed"
    """It was undeployed, and so was the app when this was its live version."""
    HELD = "held"
    """It can neither go on nor back by itself: a person has to look."""

    @property
    def hook(self) -> str:
        """The hook that tells observers of it."""
        if self is Occurrence.STARTED:
            return "deployment_started"
        goes_on = self in (Occurrence.HELD, Occurrence.ROLLBACK_FAILED)
        return "deployment_changed" if goes_on else "deployment_finished"

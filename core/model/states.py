"""In what state deployments and operations can be, and which transitions are legal."""

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

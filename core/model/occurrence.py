"""What happens to a deployment, as observers and the cluster's Events tell it."""

from __future__ import annotations

from enum import StrEnum


class Occurrence(StrEnum):
    """One word for each end and each beginning. Of the ends each deployment has one, but for a live one, which may come
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

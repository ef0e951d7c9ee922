"""The settings that the core reads. The table of all of them, and what each is for, is in `deployer.settings`."""

from __future__ import annotations

from typing import Protocol


class CoreSettings(Protocol):
    """Times are in seconds."""

    @property
    def instance(self) -> str:
        """Name of this Deployer on its objects."""

    @property
    def workers(self) -> int:
        """Operations that may run at once."""

    @property
    def expose_timeout(self) -> float:
        """For moving the traffic."""

    @property
    def undo_timeout(self) -> float:
        """For taking a failed deployment back."""

    @property
    def proxysleep(self) -> float:
        """How long the old version is kept for requests under way."""

    @property
    def auto_rollback(self) -> bool:
        """Of descriptors that do not say."""

    def allows_host(self, namespace: str, host: str) -> bool:
        """True when apps of `namespace` may claim `host`."""

    def preview(self, namespace: str, app: str) -> str:
        """The preview host of an app; empty when there is none. Not every app's name makes a host of it."""

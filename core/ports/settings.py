"""The settings that the core reads. The table of all of them, and what each is for, is in `deployer.settings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class CoreSettings(Protocol):
    """Times are in seconds."""

    @property
    def instance(self) -> str:
        """Name of this Deployer on its objects."""

    @property
    def workers(self) -> int:
        """Operations that may run at once."""

    # --- how long things may take ------------------------------------------------------------------------------------

    @property
    def timeout(self) -> float:
        """For a new version's health checks."""

    @property
    def start_timeout(self) -> float:
        """For its pods to become ready."""

    @property
    def expose_timeout(self) -> float:
        """For moving the traffic."""

    @property
    def undo_timeout(self) -> float:
        """For taking a failed deployment back."""

    # --- what a deployment is decided by -----------------------------------------------------------------------------

    @property
    def image_pull_policy(self) -> str:
        """Of containers that name none; empty leaves it to Kubernetes."""

    @property
    def enable_service_links(self) -> bool:
        """Of podspecs that do not say."""

    @property
    def preview_check(self) -> str:
        """Path that must answer through the preview; empty: none."""

    @property
    def proxysleep(self) -> float:
        """How long the old version is kept for requests under way."""

    @property
    def keep_warm(self) -> float:
        """How long it is kept for a rollback."""

    @property
    def auto_rollback(self) -> bool:
        """Of descriptors that do not say."""

    @property
    def max_restarts(self) -> int:
        """Of a container, which make its deployment fail."""

    @property
    def image_pull_attempts(self) -> int:
        """Which make a deployment fail."""

    @property
    def unschedulable_grace(self) -> float:
        """How long a pod may be unschedulable."""

    @property
    def admission_grace(self) -> float:
        """How long admission may hold pods up."""

    @property
    def min_ready(self) -> float:
        """How long pods must stay ready that nothing else proves to be well."""

    @property
    def lenient_podspec(self) -> bool:
        """Are unknown fields of podspecs dropped?"""

    def forced_gates(self, namespace: str) -> Sequence[Mapping[str, Any]]:
        """The gates of deployments in `namespace` besides those of descriptors: as these have them, with `point`."""

    # --- hosts -------------------------------------------------------------------------------------------------------

    def allows_host(self, namespace: str, host: str) -> bool:
        """True when apps of `namespace` may claim `host`."""

    def preview(self, namespace: str, app: str) -> str:
        """The preview host of an app; empty when there is none. Not every app's name makes a host of it."""

    def tls_secret(self, host: str) -> str:
        """The Secret that the settings name for `host`; empty: none."""

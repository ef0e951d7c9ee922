"""Versions in the cluster, as planning asks about them: a port, so that the core neither builds nor reads manifests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deployer.core.contract.kube import KubeAccess
from deployer.core.contract.strategy import WorkloadContext
from deployer.core.model.plan import Workload
from deployer.core.model.records import Document


@dataclass(frozen=True, slots=True)
class Selection:
    """What clients inside the cluster get under the app's name.

    version   to which the unversioned Service leads; empty when it says none
    original  the original deployer made that Service, and nobody has taken it over
    service   the Service, as far as moving it back needs
    """

    version: str
    original: bool
    service: Document


@dataclass(frozen=True, slots=True)
class Running:
    """The controller of a version.

    replicas  that it wants
    original  the original deployer made it
    """

    replicas: int
    original: bool


@dataclass(frozen=True, slots=True)
class SecretSearch:
    """The name of the TLS Secret that was found, else empty; `failed`: why one that may be there could not be read."""

    name: str = ""
    failed: str = ""


class Versions(Protocol):
    """Methods that take a `KubeAccess` raise KubeError and what its scope raises."""

    def selection(self, kube: KubeAccess, app: str) -> Selection | None:
        """What the app's Service selects at this moment; None without one. Raises ForeignObject."""

    def running(self, kube: KubeAccess, app: str, version: str) -> Running | None:
        """The controller of a version at this moment; None without one."""

    def highest(self, kube: KubeAccess, app: str) -> int:
        """The highest version that is a number, of those that the cluster knows, perhaps as of a moment ago; 0 when
        there is none."""

    def tls_secret(self, kube: KubeAccess, names: Sequence[str], kept: str) -> SecretSearch:
        """The first of these names that a TLS Secret has; `kept` may be a Secret of any type."""

    def check_name(self, app: str, version: str) -> None:
        """Raises StepFailed when no object can be named after app and version."""

    def render(self, context: WorkloadContext) -> Workload:
        """The usual manifests. Shares nothing with the context."""

    def checked(self, workload: object, context: WorkloadContext) -> Workload:
        """A strategy's own manifests, as JSON that is shared with nobody. Raises ValueError with the end of a sentence
        that begins with whose they are: names, marks of ownership and selectors must be those of `render`."""

    def overridden_names(self, descriptor: Document, environment: Sequence[Document]) -> list[str]:
        """Names of added variables that some container of the descriptor sets itself (and wins), sorted."""

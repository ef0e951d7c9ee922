"""What decides deployments: a port, so that the core carries out what was pinned and knows nothing of manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import KubeAccess
from deployer.core.contract.strategy import Step, Strategy
from deployer.core.model.records import App, Deployment, Plan


@dataclass(frozen=True, slots=True)
class Handles:
    """What one decision may use.

    log       of the deployment
    conceal   is told the values of the environment, before anything else is done with them
    """

    kube: KubeAccess
    log: Callable[[str], None]
    conceal: Callable[[Iterable[str]], None]
    scope: CancelScope


class Planning(Protocol):
    """Decides; reads the cluster and the store, and writes nothing. Raises StepFailed with the reason in one sentence,
    PluginError when a provider is missing, and what the scope raises."""

    def decide(self, deployment: Deployment, app: App, handles: Handles) -> tuple[Plan, App]:
        """The plan to pin, and the app with the version counted."""

    def decide_back(
        self, pinned: Plan, app: App, handles: Handles, steps: Callable[[Strategy, Plan], Sequence[Step]]
    ) -> Plan:
        """The plan of a version that is still warm, for the way back to it by these steps."""

"""`Planning` for the service: one planner for each decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployer.core.contract.strategy import Step, Strategy
from deployer.core.model.records import App, Deployment, Plan
from deployer.core.ports.planning import Handles, Planning
from deployer.core.ports.store import Store
from deployer.core.registry import Registry
from deployer.planning import rollback
from deployer.planning.planner import Planner
from deployer.planning.versions import Versions
from deployer.settings import Settings


@dataclass(frozen=True, slots=True)
class Decisions(Planning):
    """Has no state of its own."""

    store: Store
    registry: Registry
    settings: Settings
    versions: Versions

    def decide(self, deployment: Deployment, app: App, handles: Handles) -> tuple[Plan, App]:
        return self._planner(handles).decide(deployment, app)

    def decide_back(
        self, pinned: Plan, app: App, handles: Handles, steps: Callable[[Strategy, Plan], Sequence[Step]]
    ) -> Plan:
        return rollback.decide(self._planner(handles), pinned, app, steps)

    def _planner(self, handles: Handles) -> Planner:
        return Planner(self.store, self.registry, self.settings, self.versions, handles)

"""What is removed without any step: leftovers of a deployment that no plugin has taken away."""

from __future__ import annotations

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import RouteContext
from deployer.core.contract.kube import KubeAccess
from deployer.core.errors import OperatorNeeded, PluginError
from deployer.core.model.records import App, Deployment, Plan
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.execution.handles import Handles
from deployer.core.operations.inventory import PlanInventory
from deployer.core.ports.cluster import Thing

PODS_PATIENCE = 2.0
"""Seconds for which an undo waits for pods to end, so that mostly nothing is left once a deployment has failed. Those
that take longer end beside whatever comes next."""


class Clearing:
    """Of one operation. Raises KubeError, StoreError, and what the scope raises."""

    def __init__(self, dependencies: Dependencies, handles: Handles, inventory: PlanInventory) -> None:
        self._store = dependencies.store
        self._cluster = dependencies.cluster
        self._handles = handles
        self._inventory = inventory

    def after_undo(self, plan: Plan, scope: CancelScope) -> None:
        """Remove what is left of a deployment that did not come to be live. Raises OperatorNeeded when something leads
        to it."""
        kube = self._handles.kube(plan.deployment, scope)
        # Not as it was pinned: steps have made more since.
        rest = self._inventory.left(self._store.get(Plan, plan.deployment) or plan)
        self._require_not_live(rest, plan.namespace, plan.app, plan.deployment, plan.version)
        self._cluster.remove_rest(kube, rest, plan.app, plan.version)

    def pods_that_end(self, plan: Plan, scope: CancelScope) -> set[str]:
        """The uids of the controllers whose pods need longer than a moment: nobody else has to wait for them, as
        nothing leads to them."""
        kube = self._handles.kube(plan.deployment, scope)
        return self._cluster.pods_that_end(kube, plan, PODS_PATIENCE, self._handles.log)

    def after_removal(self, deployment: Deployment, scope: CancelScope, *, live_too: bool) -> None:
        """Remove what no step of a removal did: objects that a plugin made, which may not even be installed any more.

        `live_too`: the live one is meant, which is being undeployed. Raises OperatorNeeded.
        """
        kube = self._handles.kube(deployment.id, scope)
        plan = self._store.get(Plan, deployment.id)
        rest = self._inventory.left(plan) if plan else self._cluster.owned(kube.owner, scope)
        if not live_too:
            self._require_not_live(rest, deployment.namespace, deployment.app, deployment.id, deployment.version)
        for uid in self._cluster.remove_rest(kube, rest, deployment.app, deployment.version):
            self._cluster.await_pods_end(kube, deployment.app, deployment.version, uid, self._handles.log)

    def _require_not_live(self, rest: list[Thing], namespace: str, app: str, id: str, version: str) -> None:
        found = self._store.get(App, f"{namespace}/{app}") if rest else None
        if found is not None and found.live == id:
            raise OperatorNeeded(f"version {version} is live according to the store, so its objects stay")

    def is_exposed(self, plan: Plan, scope: CancelScope) -> bool:
        """Does anything lead to this version? True also when nobody can tell."""
        kube: KubeAccess = self._handles.kube(plan.deployment, scope)
        if self._cluster.selects(kube, plan.app, plan.version):
            return True
        if not plan.route:
            return False
        try:
            provider = self._handles.ingress(plan)
        except PluginError:
            return True
        assert provider is not None
        state = provider.state(RouteContext(plan.route, kube, self._handles.log, scope))
        return any(b.service == plan.route.backend.service and b.weight > 0 for b in state.backends) if state else False

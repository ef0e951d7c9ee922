"""What the cluster is told of an operation: Events on the versions that it is about, beside what the log says."""

from __future__ import annotations

from deployer.core.model.occurrence import Occurrence
from deployer.core.model.records import Deployment, Failure, Operation, Plan
from deployer.core.ports.cluster import Cluster, VersionEvent


class VersionEvents:
    """Of one operation. Texts are without secrets. Nothing waits for what becomes of them."""

    def __init__(self, cluster: Cluster, operation: Operation) -> None:
        self._cluster = cluster
        self._namespace = operation.namespace
        self._app = operation.app

    def started(self, plan: Plan | None) -> None:
        """It is decided what is deployed; None: by now another process has brought that to an end."""
        if plan is None:
            return
        instead = f", to replace version {plan.previous.version}" if plan.previous else ""
        self._tell(plan.version, plan.deployment, "Started", f"version {plan.version} is being deployed{instead}")

    def switched(self, plan: Plan) -> None:
        """It is the live version."""
        traffic = f"traffic now goes to version {plan.version}"
        self._tell(plan.version, plan.deployment, "Switched", traffic)
        self._tell_previous(plan, "Switched", f"{traffic}; version {_before(plan)} drains and is then removed")

    def rolled_back(self, plan: Plan) -> None:
        """It is the live version again."""
        traffic = f"traffic is back on version {plan.version}"
        self._tell(plan.version, plan.deployment, "RolledBack", traffic)
        self._tell_previous(plan, "RolledBack", f"{traffic}; version {_before(plan)} drains and is then removed")

    def not_rolled_back(self, deployment: Deployment | None, failure: Failure) -> None:
        """It should have been the live version again, but what came after it still is."""
        if deployment is None:
            return
        why = f"the rollback to version {deployment.version} failed: {failure.message}"
        self._tell(deployment.version, deployment.id, "RollbackFailed", why, warning=True)

    def turned(self, occurrence: Occurrence | None, deployment: Deployment | None, plan: Plan | None, why: str) -> None:
        """It failed, and what was begun is undone now; or it is held, and a person has to look."""
        if occurrence is Occurrence.FAILED and plan is not None:
            self._tell(plan.version, plan.deployment, "Failed", why, warning=True)
        elif occurrence is Occurrence.HELD and deployment is not None:
            self._tell(deployment.version, deployment.id, "Held", why, warning=True)
            if plan is not None:
                self._tell_previous(plan, "Held", f"the deployment of version {plan.version} is held: {why}")

    def ended(self, plan: Plan | None, failure: Failure | None) -> None:
        """It is undone, since it failed; None: it was cancelled."""
        if plan is None or failure is None:
            return
        note = f"version {plan.version} failed and was removed, version {_before(plan)} is live: {failure.message}"
        self._tell_previous(plan, "RolledBack", note)

    def _tell_previous(self, plan: Plan, reason: str, note: str) -> None:
        if plan.previous is not None:
            warning = reason != "Switched"
            self._tell(plan.previous.version, plan.previous.deployment, reason, note, warning=warning)

    def _tell(self, version: str, deployment: str, reason: str, note: str, *, warning: bool = False) -> None:
        if version:
            told = VersionEvent(self._namespace, self._app, version, deployment, reason, note, warning)
            self._cluster.record(told)


def _before(plan: Plan) -> str:
    return plan.previous.version if plan.previous else ""

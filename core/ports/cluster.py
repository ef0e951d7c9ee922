"""What the core asks of Kubernetes: a port, so that the core knows neither clients nor manifests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.gate import VersionAccess
from deployer.core.contract.health import HealthChecker, HealthRounds
from deployer.core.contract.ingress import IngressProvider, ProbeResponse
from deployer.core.contract.kube import ClusterEvent, KubeAccess, Owner
from deployer.core.contract.strategy import Step
from deployer.core.errors import StepFailed
from deployer.core.model.kind import Kind
from deployer.core.model.plan import Route, Workload
from deployer.core.model.records import Document, Plan

Thing = tuple[Kind, str]
"""An object of the app's namespace: its kind and its name."""

Log = Callable[[str], None]

PODS_GONE = 30.0
"""Seconds, beyond their own grace time, that pods may take to be gone (contract: no forced deletion)."""


@dataclass(frozen=True, slots=True)
class VersionEvent:
    """What happened to a version, as `kubectl describe` of its ReplicationController shows it.

    deployment   id; empty for a version that the original Deployer made
    reason       one word in CamelCase
    note         a sentence without secrets
    """

    namespace: str
    app: str
    version: str
    deployment: str
    reason: str
    note: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Unready:
    """Why a version that is kept cannot take over, as the rest of a sentence, and the event that changes that."""

    why: str
    event: ClusterEvent | None = None


class Inventory(Protocol):
    """Keeps account of what each deployment makes, so that whatever happens it can be removed again."""

    def making(self, deployment: str, kind: Kind, name: str) -> None:
        """That object is about to be created; durable when this returns."""

    def removed(self, deployment: str, kind: Kind, name: str) -> None:
        """It is gone."""


class Cluster(Protocol):
    """The cluster as operations see it. Every method that takes a scope or a `KubeAccess` raises KubeError and what the
    scope raises."""

    # --- handles ---------------------------------------------------------------------------------------------------

    def access(self, owner: Owner, scope: CancelScope, inventory: Inventory) -> KubeAccess:
        """The app's namespace, for as long as the scope is open."""

    def on_event(self, event: ClusterEvent, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` once, when that has come, perhaps at once. Returns the function that unsubscribes. Raises
        Revoked when the service is stopping."""

    def health_rounds(self, checker: HealthChecker, plan: Plan, clean: Callable[[str], str]) -> HealthRounds:
        """What `Work.health` is. `clean` hides what must not be kept of an answer."""

    def ask_pods(self, pods: Sequence[Document], route: Route, scope: CancelScope) -> Sequence[ProbeResponse]:
        """What `Work.ask_pods` is."""

    def version(self, plan: Plan, kube: KubeAccess, ingress: IngressProvider | None, log: Log) -> VersionAccess:
        """The version itself, for gates. `ingress`: the pinned provider."""

    def record(self, told: VersionEvent) -> None:
        """Have the cluster tell it: soon, if at all. Returns at once and raises nothing."""

    # --- what belongs to a version ---------------------------------------------------------------------------------

    def pinned(self, plan: Plan) -> list[Thing]:
        """The objects that every plan has, which are in no inventory, in the order in which they are made."""

    def named(self, app: str, version: str) -> Workload:
        """The workload of a version of which nothing but its name is known."""

    def owned(self, owner: Owner, scope: CancelScope) -> list[Thing]:
        """What there is of exactly `owner.deployment`, in the order of removal; of the kinds that ship with the
        Deployer. For a deployment of which no plan is left."""

    def fence(self, kube: KubeAccess, app: str) -> None:
        """Write our fencing token on what all versions of the app share, but for routes."""

    def selects(self, kube: KubeAccess, app: str, version: str) -> bool:
        """Do clients inside the cluster get this version under the app's name, by an object of ours?"""

    def remove_rest(self, kube: KubeAccess, things: Sequence[Thing], app: str, version: str) -> list[str]:
        """Remove what is still there of `things`, all of `kube.owner.deployment`. Returns the uids of controllers that
        went, whose pods end now. Raises OperatorNeeded when clients inside the cluster still get that version."""

    def await_pods_end(self, kube: KubeAccess, app: str, version: str, controller: str, log: Log) -> None:
        """Return when no pod is left that the controller of that uid made."""

    def pods_that_end(self, kube: KubeAccess, plan: Plan, patience: float, log: Log) -> set[str]:
        """The uids of the controllers whose pods of this version are still ending after `patience` seconds; pods that
        no controller owns any more are removed. Empty when a controller of somebody else has the version's name."""

    # --- the usual steps -------------------------------------------------------------------------------------------

    def removal_steps(self) -> RemovalSteps:
        """The steps that removals consist of."""

    def rollback_steps(self, plan: Plan) -> list[Step]:
        """The usual way back to a version that is still warm: as in a deployment, but that nothing is started."""

    def unready(self, kube: KubeAccess, plan: Plan, *, stopped: bool) -> Unready | None:
        """None when every pod that this version wants is ready, so that it can take over at once; `stopped`: or when it
        wants none, as its strategy stopped it and starts it again."""

    def soak_step(self, seconds: float) -> Step:
        """The same before the deployment is committed, for so many seconds from when it begins."""

    def watch_step(self, until: float) -> Step:
        """Parks until then (seconds since the epoch) as long as the version is well. It fails, saying why, when the
        version does not serve as it should, confirmed."""

    def explained(self, error: StepFailed, plan: Plan, log: Callable[[], str]) -> StepFailed:
        """The same failure, with a hint where the cluster's own doing may be the reason. `log`: the deployment's."""


class RemovalSteps(Protocol):
    """The usual steps of phase RETIRE, new ones at each call."""

    def undeploy(self) -> list[Step]:
        """Of a live version: what leads to it, then what it consists of."""

    def retire(self) -> list[Step]:
        """Of a replaced version, once nothing leads to it."""

    def rest(self) -> list[Step]:
        """Of a version to which nothing leads any more, and whose pods may be ending already."""

    def release(self) -> list[Step]:
        """What the switch needed to lose nothing."""

    def drop(self, what: Sequence[str]) -> list[Step]:
        """What the new version has no more: `route`, `service`."""

    def await_pods_end(self, controller: str, grace: float) -> list[Step]:
        """Wait for the pods of the controller that had this uid, which have so many seconds to end."""

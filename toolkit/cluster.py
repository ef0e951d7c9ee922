"""`Cluster` on the client and the shared informers: what the core asks of Kubernetes, and nobody else does for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.gate import VersionAccess
from deployer.core.contract.health import HealthChecker, HealthRounds, Way
from deployer.core.contract.ingress import IngressProvider, ProbeResponse
from deployer.core.contract.kube import Changed, ClusterEvent, EnoughReady, KubeAccess, Owner, is_ready
from deployer.core.contract.strategy import Step
from deployer.core.errors import OperatorNeeded, StepFailed
from deployer.core.model.kind import CONTROLLER, POD, SERVICE
from deployer.core.model.names import service_name, versioned_name
from deployer.core.model.plan import Route, Workload
from deployer.core.model.records import Document, Plan
from deployer.core.ports.cluster import Cluster, Inventory, Log, RemovalSteps, Thing, Unready, VersionEvent
from deployer.core.ports.store import Store
from deployer.kube.client import KubeClient
from deployer.kube.event_recorder import EventRecorder
from deployer.kube.informer import Informers
from deployer.kube.late_objects import LateObjects
from deployer.kube.owned import OwnedKube, find_owned
from deployer.kube.pods import controlled_by, controller_uid, pods_left
from deployer.settings import Settings
from deployer.toolkit import service_links
from deployer.toolkit.dataplane import pods as backend
from deployer.toolkit.dataplane.version import Version
from deployer.toolkit.health import transport as health_via
from deployer.toolkit.health.runner import Rounds
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.steps.removal import AwaitPodsEnd, RemoveWorkload, retire_steps, undeploy_steps
from deployer.toolkit.steps.rollback import rollback_steps
from deployer.toolkit.steps.route import ReleaseRoute, RemoveRoute
from deployer.toolkit.steps.service import RemoveService
from deployer.toolkit.steps.watch import SoakVersion, WatchVersion
from deployer.toolkit.workload import delete_orphans, workload_labels


class KubernetesCluster(Cluster):
    """One for the service."""

    def __init__(self, client: KubeClient, informers: Informers, store: Store, settings: Settings) -> None:
        """`store` is where the answers of health checks are kept."""
        self._client = client
        self._informers = informers
        self._store = store
        self._settings = settings
        self._recorder = EventRecorder(client, informers)
        self._late = LateObjects(client, informers, store)

    def close(self) -> None:
        """Before informers and client are."""
        self._late.close()
        self._recorder.close()

    # --- handles -------------------------------------------------------------------------------------------------

    def access(self, owner: Owner, scope: CancelScope, inventory: Inventory) -> KubeAccess:
        return OwnedKube(self._client, self._informers, owner, scope, inventory, late=self._late.made)

    def on_event(self, event: ClusterEvent, wake: Callable[[], None]) -> Callable[[], None]:
        return self._informers.get(event.kind, event.namespace).on_event(event, wake)

    def record(self, told: VersionEvent) -> None:
        self._recorder.record(told)

    def health_rounds(self, checker: HealthChecker, plan: Plan, clean: Callable[[str], str]) -> HealthRounds:
        return Rounds(checker, plan, self._store, self._settings, self._way, clean=clean)

    def ask_pods(self, pods: Sequence[Document], route: Route, scope: CancelScope) -> Sequence[ProbeResponse]:
        return backend.probe(self._way, loopback=self._settings.loopback_pods)(pods, route, scope)

    def version(self, plan: Plan, kube: KubeAccess, ingress: IngressProvider | None, log: Log) -> VersionAccess:
        return Version(plan, kube, ingress, log, self._way, self._settings.loopback_pods)

    @property
    def _way(self) -> Way:
        """How pods are reached from here."""
        return health_via.way(self._settings, self._client, os.environ)

    # --- what belongs to a version -------------------------------------------------------------------------------

    def pinned(self, plan: Plan) -> list[Thing]:
        name = versioned_name(plan.app, plan.version)
        return [(SERVICE, name), (CONTROLLER, name)]

    def named(self, app: str, version: str) -> Workload:
        named = {"metadata": {"name": versioned_name(app, version)}}
        return Workload(controller=named, versioned_service=named)

    def owned(self, owner: Owner, scope: CancelScope) -> list[Thing]:
        return find_owned(self._client, owner, scope)

    def fence(self, kube: KubeAccess, app: str) -> None:
        kube.raise_fencing_token(SERVICE, service_name(app))

    def selects(self, kube: KubeAccess, app: str, version: str) -> bool:
        service = kube.get(SERVICE, service_name(app))
        return service is not None and kube.is_ours(service) and _selected(service) == version

    def remove_rest(self, kube: KubeAccess, things: Sequence[Thing], app: str, version: str) -> list[str]:
        present = [(kind, name, found) for kind, name in things if (found := kube.get(kind, name)) is not None]
        if present and version:
            service = kube.get(SERVICE, service_name(app))
            if service and kube.owned_by(service, kube.owner.deployment) and _selected(service) == version:
                raise OperatorNeeded(f"service {app} still selects version {version}, so its objects stay")
        gone = [(kind, found) for kind, name, found in present if kube.delete(kind, name)]
        return [str(found["metadata"]["uid"]) for kind, found in gone if kind == CONTROLLER]

    def await_pods_end(self, kube: KubeAccess, app: str, version: str, controller: str, log: Log) -> None:
        diagnose.await_pods_gone(kube, controller, {"name": versioned_name(app, version)}, log)

    def pods_that_end(self, kube: KubeAccess, plan: Plan, patience: float, log: Log) -> set[str]:
        labels = workload_labels(plan)
        controllers = kube.items(CONTROLLER, {"name": labels["name"]})
        if any(not kube.owned_by(controller, plan.deployment) for controller in controllers):
            return set()  # not ours, and then its pods are not either
        left = diagnose.pods_after(kube, labels, patience)
        if orphans := [pod for pod in left if not controller_uid(pod)]:
            delete_orphans(kube, plan, orphans, log)
        return {controller_uid(pod) for pod in pods_left(left, "")} - {""}

    # --- the usual steps -----------------------------------------------------------------------------------------

    def removal_steps(self) -> RemovalSteps:
        return UsualRemoval()

    def rollback_steps(self, plan: Plan) -> list[Step]:
        return rollback_steps(plan)

    def unready(self, kube: KubeAccess, plan: Plan, *, stopped: bool) -> Unready | None:
        labels = workload_labels(plan)
        controller = next(iter(kube.items(CONTROLLER, {"name": labels["name"]})), None)
        if controller is None or not kube.owned_by(controller, plan.deployment):
            return Unready("its controller was removed")
        wanted = int(controller["spec"].get("replicas", 1))
        if not wanted:
            return None if stopped else Unready("it was scaled to 0", Changed.since(CONTROLLER, controller))
        uid = controller["metadata"]["uid"]
        if sum(is_ready(p) for p in kube.items(POD, labels) if controlled_by(p, uid)) >= wanted:
            return None
        return Unready("not all of its pods are ready", EnoughReady(POD, plan.namespace, labels, wanted))

    def soak_step(self, seconds: float) -> Step:
        return SoakVersion(seconds, self._settings.watch_interval)

    def watch_step(self, until: float) -> Step:
        return WatchVersion(until, self._settings.watch_interval)

    def explained(self, error: StepFailed, plan: Plan, log: Callable[[], str]) -> StepFailed:
        if plan.previous is None or not plan.previous.service_object:
            return error
        return service_links.explained(error, plan.descriptor, plan.objects.podspec, log())


def _selected(service: Document) -> str:
    """The version to which a Service leads; empty when it says none."""
    return str((service["spec"].get("selector") or {}).get("version") or "")


class UsualRemoval(RemovalSteps):
    """The shared steps of phase RETIRE."""

    def undeploy(self) -> list[Step]:
        return undeploy_steps()

    def retire(self) -> list[Step]:
        return retire_steps()

    def rest(self) -> list[Step]:
        return [RemoveWorkload()]

    def release(self) -> list[Step]:
        return [ReleaseRoute()]

    def drop(self, what: Sequence[str]) -> list[Step]:
        found: dict[str, Step] = {"route": RemoveRoute(), "service": RemoveService()}
        return [step for name, step in found.items() if name in what]

    def await_pods_end(self, controller: str, grace: float) -> list[Step]:
        return [AwaitPodsEnd(controller, grace)]

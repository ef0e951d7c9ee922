"""Steps that start a version, until its pods are ready and known as endpoints."""

from __future__ import annotations

import copy

from deployer.core.contract.strategy import Done, Outcome, Park, Phase, Step, Work
from deployer.core.errors import KubeRejected, StepFailed
from deployer.core.model.kind import CONTROLLER, ENDPOINT_SLICE, POD, SERVICE
from deployer.core.model.plan import grace_of
from deployer.core.model.records import Document
from deployer.core.ports.cluster import PODS_GONE
from deployer.kube import dry_run_errors
from deployer.kube.pods import name_of, pods_left, service_slices
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.workload import (
    await_serving,
    own_controller,
    remove_orphans,
    remove_workload,
    workload_labels,
)

UNKNOWN_ROUNDS = 5
"""How often what the cluster does not know of a podspec is dropped: it names a limited number of fields at a time."""


class StartWorkload(Step):
    """Create the versioned Service and the ReplicationController."""

    id = "start-workload"
    phase = Phase.START
    replicas: int | None = None
    """Pods to begin with; None: as many as the plan wants."""

    def run(self, work: Work) -> Outcome:
        objects = work.plan.objects
        if (pods := self._earlier_pods(work)) is not None:
            return pods
        if objects.versioned_service:
            work.kube.create(SERVICE, objects.versioned_service)
        replicas = work.plan.replicas if self.replicas is None else self.replicas
        controller = _create_controller(work, replicas)
        work.log(f"created {name_of(controller)}, replicas: {replicas}")
        if work.ingress and work.plan.route:
            work.ingress.announce(work.route())
        return Done()

    def _earlier_pods(self, work: Work) -> Outcome | None:
        """Park while pods of an earlier deployment of this very version end: the new ones would have their labels."""
        labels = workload_labels(work.plan)
        found = work.kube.items(POD, labels)
        if not found or work.kube.get(CONTROLLER, labels["name"]) is not None:
            return None  # those of a controller are the business of whoever creates one of its name
        remove_orphans(work, found)
        left = pods_left(found, "")
        if not left:
            return None
        if work.recall("began", None) is None:
            work.log(f"waiting for the pods of an earlier version {work.plan.version} to end, {len(left)} left")
        patience = max(grace_of(pod.get("spec", {})) for pod in left) + PODS_GONE
        if remaining := work.left("began", patience):
            return Park(work.now() + remaining, event=work.kube.gone(POD, labels))
        raise StepFailed(
            f"{len(left)} pods of an earlier deployment of version {work.plan.version} have not ended, like "
            f"{name_of(left[0])}",
            reason="PodsLeft",
            hint="find the finalizer or the node that keeps them, or choose another newVersion",
        )

    def undo(self, work: Work) -> None:
        remove_workload(work)


def _create_controller(work: Work, replicas: int) -> Document:
    """Create it; without what the cluster does not know of its podspec, where the settings say so."""
    body = copy.deepcopy(work.plan.objects.controller)
    body["spec"]["replicas"] = replicas
    podspec = body["spec"]["template"]["spec"]
    for _ in range(UNKNOWN_ROUNDS):
        try:
            return work.kube.create(CONTROLLER, body)
        except KubeRejected as error:
            unknown = dry_run_errors.unknown_fields(error, "spec.template.spec")
            if not unknown or not work.plan.settings.lenient_podspec:
                raise
        work.log("dropped, as this cluster does not know it: " + ", ".join(f"podspec.{path}" for path in unknown))
        for path in unknown:
            dry_run_errors.remove(podspec, dry_run_errors.steps(path))
    return work.kube.create(CONTROLLER, body)


class AwaitReady(Step):
    """Wait until as many pods of this very ReplicationController are Ready as it wants."""

    id = "await-ready"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        settings = work.plan.settings
        controller = own_controller(work)
        if service := work.plan.objects.versioned_service:
            # So that this informer has its first list before the pods are ready, not after.
            work.kube.items(ENDPOINT_SLICE, service_slices(name_of(service)))
        checked = work.plan.health and not work.plan.descriptor.get("ignoreHealthCheck")
        pods = diagnose.await_ready(
            work.kube,
            name_of(controller),
            controller["metadata"]["uid"],
            work.log,
            max_restarts=settings.max_restarts,
            image_pull_attempts=settings.image_pull_attempts,
            unschedulable_grace=settings.unschedulable_grace,
            admission_grace=settings.admission_grace,
            # A health check that counts is the better proof that the app works, and comes next.
            min_ready=0.0 if checked else settings.min_ready,
        )
        work.log(f"{len(pods)} of {len(pods)} pods ready")
        return Done()


class AwaitEndpoints(Step):
    """Wait until the versioned Service's EndpointSlices hold every pod, ready."""

    id = "await-endpoints"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        await_serving(work, work.log)
        return Done()

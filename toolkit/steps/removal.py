"""Steps of phase RETIRE that remove a version, and the usual order of them."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.core.contract.kube import CONTROLLED_BY, Gone
from deployer.core.contract.strategy import Done, Outcome, Park, Phase, Step, Work
from deployer.core.errors import PLUGIN_MISSING, OperatorNeeded, StepFailed
from deployer.core.model.kind import POD, SERVICE
from deployer.core.model.names import service_name, versioned_name
from deployer.core.model.records import Document
from deployer.core.ports.cluster import PODS_GONE
from deployer.kube.pods import controller_uid, name_of, pods_left
from deployer.toolkit.steps.route import RemoveRoute
from deployer.toolkit.steps.service import RemoveService
from deployer.toolkit.workload import (
    leads_to,
    remove_controller,
    remove_orphans,
    remove_versioned_service,
    workload_labels,
)


class CheckUnused(Step):
    """Refuse to go on while the Service or the route still selects the version that is to be removed."""

    id = "check-unused"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        plan = work.plan
        service = work.kube.get(SERVICE, service_name(plan.app))
        if service and (service["spec"].get("selector") or {}).get("version") == plan.version:
            raise OperatorNeeded(
                f"service {plan.app} still selects version {plan.version}, which is to be removed; it stays"
            )
        versioned = versioned_name(plan.app, plan.version)
        if plan.route:
            if work.ingress is None:
                provider = plan.ingress.name if plan.ingress else ""
                raise OperatorNeeded(
                    f"nobody can tell whether {plan.route.host} still leads to {versioned}, which is to be removed: "
                    f"ingress provider {provider} is not installed; it stays",
                    reason=PLUGIN_MISSING,
                )
            state = work.ingress.state(work.route())
            if state and leads_to(state.backends, versioned):
                raise OperatorNeeded(
                    f"the route of {state.host} still leads to {versioned}, which is to be removed; it stays"
                )
        return Done()


class RemoveWorkload(Step):
    """Remove the ReplicationController, let its pods end, and last the versioned Service.

    Holds nothing while the pods use their grace time. None is ever ended by force; too late ones are told of.
    """

    id = "remove-workload"
    phase = Phase.RETIRE
    frees_app = True

    def run(self, work: Work) -> Outcome:
        original_ok = not work.plan.deployment
        uid = work.recall("controller", None)
        if uid is None:
            uid = remove_controller(work, original_ok=original_ok)
        if uid is not None:
            selector = {CONTROLLED_BY: uid} if uid else workload_labels(work.plan)
            # The informer first, then the server itself: one that lags must not call pods gone that were just made.
            found = work.kube.items(POD, selector) or work.kube.list(POD, workload_labels(work.plan))
            if left := pods_left(found, uid):
                return _park(work, uid, left, work.kube.gone(POD, selector), work.plan.objects.grace_time)
            if uid:
                work.log(f"removed {versioned_name(work.plan.app, work.plan.version)}")
            remove_orphans(work, found)
        remove_versioned_service(work, original_ok=original_ok)
        return Done()


class AwaitPodsEnd(Step):
    """Wait, holding nothing, for the pods that an undo left."""

    id = "await-pods-end"
    phase = Phase.RETIRE

    def __init__(self, controller: str, grace: float) -> None:
        """`controller`: the uid of the one that had them; `grace`: seconds that they have to end."""
        self._controller = controller
        self._grace = grace

    def run(self, work: Work) -> Outcome:
        uid = self._controller
        selector = {CONTROLLED_BY: uid}
        found = work.kube.items(POD, selector) or work.kube.list(POD, workload_labels(work.plan))
        if left := pods_left(found, uid):
            return _park(work, uid, left, work.kube.gone(POD, selector), self._grace)
        work.log("its pods have ended")
        return Done()


def _park(work: Work, uid: str, left: Sequence[Document], event: Gone, grace: float) -> Outcome:
    """Park until these pods have ended, at most for their grace time and some. Raises StepFailed after that."""
    if work.recall("controller", None) is None:
        work.remember("controller", uid or controller_uid(left[0]))
        work.log(f"waiting for its pods to end, {len(left)} left")
    patience = grace + PODS_GONE
    if remaining := work.left("began", patience):
        work.waiting(f"{len(left)} pods to end")
        return Park(work.now() + remaining, event=event)
    raise StepFailed(
        f"its pods were asked to end more than {patience:g} s ago and {len(left)} have not, like "
        f"{name_of(left[0])}: check whether a finalizer, or a node that does not answer, keeps them"
    )


def undeploy_steps() -> list[Step]:
    """The usual removal of a live version: first what leads to it, then what it consists of."""
    return [RemoveRoute(), RemoveService(), RemoveWorkload()]


def retire_steps() -> list[Step]:
    """The usual removal of a replaced version, once nothing selects it."""
    return [CheckUnused(), RemoveWorkload()]

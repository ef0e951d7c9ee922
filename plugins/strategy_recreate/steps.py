"""The steps of recreate that are its own: stopping the old version, starting the new one, and bringing the old back."""

from __future__ import annotations

from deployer.plugins.strategy_recreate import versions
from deployer.sdk.errors import DeadlineExceeded, OperatorNeeded, StepFailed
from deployer.sdk.kube import CONTROLLER, POD, SERVICE, KubeAccess, deployment_of
from deployer.sdk.plugin import Document
from deployer.sdk.strategy import (
    DisplaceRoute,
    Done,
    MoveService,
    Outcome,
    Park,
    Phase,
    Plan,
    StartWorkload,
    Step,
    SwitchRoute,
    Work,
    await_endpoints,
    await_pods_gone,
    await_return,
    controlled_by,
    in_time,
    is_ready,
    name_of,
    own_controller,
    remove_orphans,
    workload_labels,
)

REPLICAS = "recreate.kube-deployer/replicas"
"""Annotation of a ReplicationController that was stopped: how many pods it wanted. Written in the edit that takes them
away, so that no crash comes between, and anybody can read how to bring them back. None of the annotations that make an
object ours: the original's stays so."""

PODS_GONE = 30.0
"""Seconds, beyond their own grace time, that pods may take to end. None is ended by force."""

LOOK_AGAIN = 5.0
"""Seconds after which what still runs is looked at, whatever events come: a pod that failed never goes by itself."""


class CreateWorkload(StartWorkload):
    """The new version's objects, without pods: what the API server refuses fails while the old version serves."""

    id = "create-workload"
    replicas = 0


class StopOthers(Step):
    """Have no pod of any other version of the app: of the live one, of one that drains, of one that just failed."""

    id = "stop-others"
    phase = Phase.START

    def __init__(self, plan: Plan) -> None:
        self.disturbs = plan.previous is not None

    def run(self, work: Work) -> Outcome:
        left = versions.running(work)
        controllers = versions.others(work)
        versions.require_controllers(left)
        for controller in controllers:
            _stop(work, controller)
        if not left and all(map(versions.is_stopped, controllers)):
            work.log("no other version runs")
            return Done()
        if work.recall("stopping", None) is None:
            work.log(f"waiting for {versions.listed(left)} to end")
        patience = versions.patience(left) + PODS_GONE
        if remaining := work.left("stopping", patience):
            work.waiting(f"{versions.listed(left) or 'another version'} to end", work.now() + remaining)
            gone = work.kube.gone(POD, versions.labels_of(left[0])) if left else None
            return Park(work.now() + min(remaining, LOOK_AGAIN), event=gone)
        raise StepFailed(
            f"{versions.listed(left) or 'another version'} did not end within {patience:g} s",
            reason="PodsLeft",
            hint="find the finalizer or the node that keeps them, then deploy again",
        )

    def undo(self, work: Work) -> None:
        """Return when the old version serves again, for everybody."""
        if bring_back(work):
            await_return(work)


class StartPods(Step):
    """Scale the new version up, once more making sure that it is alone."""

    id = "start-pods"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        if left := versions.running(work):
            raise StepFailed(
                f"{versions.listed(left)} was started while version {work.plan.version} was being deployed",
                reason="ObjectChanged",
                hint="find out who scales it, then deploy again",
            )
        work.kube.scale(name_of(own_controller(work, fresh=True)), work.plan.replicas)
        work.log(f"starting version {work.plan.version}, replicas: {work.plan.replicas}")
        return Done()

    def undo(self, work: Work) -> None:
        stop_own(work)


class Switch(SwitchRoute):
    """The route moves back only onto a version that runs again."""

    def require_way_back(self, work: Work, service: str) -> None:
        if bring_back(work):
            super().require_way_back(work, service)


class Displace(DisplaceRoute):
    """The same for a route of another ingress provider."""

    def require_way_back(self, work: Work, service: str) -> None:
        if bring_back(work):
            super().require_way_back(work, service)


class Move(MoveService):
    """The same for the unversioned Service."""

    def require_way_back(self, work: Work, service: str) -> None:
        if bring_back(work):
            super().require_way_back(work, service)


# --- stopping and bringing back -----------------------------------------------------------------------------------


def _stop(work: Work, controller: Document) -> None:
    """Take its pods away. How many the live one had is noted in the same edit."""
    previous = work.plan.previous
    live = previous is not None and name_of(controller) == previous.controller

    def change(found: Document | None) -> Document | None:
        if found is None or versions.wants_none(found):
            return None
        if live:
            annotations = found["metadata"].setdefault("annotations", {})
            annotations[REPLICAS] = str(found["spec"].get("replicas", 1))
        found["spec"]["replicas"] = 0
        return found

    if versions.wants_none(controller):
        return
    work.log(f"stopping version {versions.version_of(controller)}")
    work.kube.update(
        CONTROLLER,
        name_of(controller),
        change,
        deployment=deployment_of(controller),
        original_ok=True,
    )


def stop_own(work: Work) -> None:
    """Return when no pod of this version runs. Raises OperatorNeeded: then nothing else may start."""
    name, labels = versions.own_name(work), workload_labels(work.plan)
    found = work.kube.get(CONTROLLER, name)
    try:
        with in_time(work.scope) as scope:
            kube = work.kube.with_scope(scope)
            if found is not None and work.kube.owned_by(found, work.plan.deployment):
                kube.scale(name, 0)
                kube.wait(CONTROLLER, lambda items: all(map(versions.is_stopped, items)) or None, labels=labels)
            orphans = await_pods_gone(kube, "", labels)
    except DeadlineExceeded as over:
        raise OperatorNeeded(
            f"the pods of version {work.plan.version} do not end, so nothing is started in their place: find the "
            "finalizer or the node that keeps them"
        ) from over
    remove_orphans(work, orphans)


def bring_back(work: Work) -> bool:
    """Start the version before again, once this one has ended, and wait until it is ready. Any number of times.

    False: there was none, or it had no pods before either. Raises OperatorNeeded when it does not become ready.
    """
    stop_own(work)
    previous = work.plan.previous
    if previous is None or not previous.controller:
        return False
    version = previous.version

    def change(found: Document | None) -> Document | None:
        assert found is not None
        noted = (found["metadata"].get("annotations") or {}).pop(REPLICAS, None)
        if noted is not None and versions.wants_none(found):
            found["spec"]["replicas"] = int(noted)
        return found

    _await_stopped(work)
    controller = work.kube.update(
        CONTROLLER,
        previous.controller,
        change,
        deployment=previous.deployment,
        original_ok=not previous.deployment,
    )
    if controller is None:
        work.log(f"version {version} cannot be started again: somebody removed its controller")
        return False
    if versions.wants_none(controller):
        work.log(f"version {version} wants no pods, as before: somebody scaled it to 0")
        return False
    try:
        with in_time(work.scope) as scope:
            _await_ready(work, work.kube.with_scope(scope), controller)
    except DeadlineExceeded as over:
        raise OperatorNeeded(
            f"version {version} was started again and is not ready: see what its pods wait for; until then everything "
            "is kept as it is"
        ) from over
    return True


def _await_stopped(work: Work) -> None:
    """Return when no pod of the version before is on its way out: what replaces one must not run beside it. Raises
    OperatorNeeded."""
    previous = work.plan.previous
    found = work.kube.get(CONTROLLER, previous.controller) if previous else None
    if previous is None or found is None or not versions.wants_none(found):
        return
    try:
        with in_time(work.scope) as scope:
            await_pods_gone(work.kube.with_scope(scope), "", versions.labels_of(found), work.log)
    except DeadlineExceeded as over:
        raise OperatorNeeded(
            f"the pods of version {previous.version} were stopped and do not end, so none is started in their place: "
            "find the finalizer or the node that keeps them"
        ) from over


def _await_ready(work: Work, kube: KubeAccess, controller: Document) -> None:
    """All of its pods are ready, and endpoints of every Service that selects them."""
    uid, wanted = controller["metadata"]["uid"], controller["spec"].get("replicas", 1)

    def enough(pods: list[Document]) -> list[str] | None:
        ready = [pod["metadata"]["uid"] for pod in pods if controlled_by(pod, uid) and is_ready(pod)]
        return ready if len(ready) >= wanted else None

    labels = versions.labels_of(controller)
    ready = kube.wait(POD, enough, labels=labels)
    for name in (name_of(controller), work.plan.app):
        service = kube.get(SERVICE, name)
        selector = (service or {}).get("spec", {}).get("selector")
        if selector and selector.items() <= labels.items():
            await_endpoints(kube, name, ready, lambda _: None)
    work.log(f"version {labels['version']} runs again, {len(ready)} of {wanted} pods ready")

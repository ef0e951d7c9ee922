"""The steps that strategies share. Each looks at the cluster, so it can be run and undone any number of times."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence

from deployer.core.contract.kinds import CONTROLLER, ENDPOINT_SLICE, POD, SERVICE
from deployer.core.contract.kube import CONTROLLED_BY, Gone
from deployer.core.contract.providers import (
    Done,
    Duty,
    IngressProvider,
    Outcome,
    Park,
    Phase,
    PodAnswers,
    RouteContext,
    Step,
    Work,
)
from deployer.core.errors import KubeRejected, OperatorNeeded, StepFailed
from deployer.core.model.plan import Route
from deployer.core.model.records import Document
from deployer.kube import dry_run_errors, ownership
from deployer.kube.pods import controller_uid, name_of, pods_left, service_slices
from deployer.toolkit.dataplane.pods import await_listening, with_answers
from deployer.toolkit.host_ownership import require_free
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.workload import (
    PODS_GONE,
    await_serving,
    grace_of,
    grace_time,
    leads_to,
    own_controller,
    put_service,
    remove_controller,
    remove_orphans,
    remove_versioned_service,
    remove_workload,
    require_ready,
    route_back,
    workload_labels,
)

SERVICE_HOLD = 10.0
"""Seconds, at most, for which a failed version stays after the unversioned Service was led away from it."""

UNKNOWN_ROUNDS = 5
"""How often what the cluster does not know of a podspec is dropped: it names a limited number of fields at a time."""


# --- start --------------------------------------------------------------------------------------------------------


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


# --- expose -------------------------------------------------------------------------------------------------------


class AwaitEndpoints(Step):
    """Wait until the versioned Service's EndpointSlices hold every pod, ready."""

    id = "await-endpoints"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        await_serving(work, work.log)
        return Done()


class PrepareRoute(Step):
    """Make the new version known to the data plane while the old one still has the public host."""

    id = "prepare-route"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            context = await_listening(work, work.route())
            require_free(context, work.ingress)
            work.ingress.prepare(context)
            if host := context.route.preview.host:
                work.log(f"version {work.plan.version} can be looked at under {host} until it has taken over")
        return Done()

    def undo(self, work: Work) -> None:
        if work.ingress and work.plan.route:
            work.ingress.release(work.route())


class CheckPreview(Step):
    """Ask for the health of the new version through the data plane, before the public host moves."""

    id = "check-preview"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            context = work.route()
            if path := context.route.preview.check:
                work.ingress.check_preview(context)
                work.log(f"preview check passed: {path}")
        return Done()


class _MovesTraffic(Step):
    """A step that moves traffic, and moves it back."""

    def require_way_back(self, work: Work, service: str) -> None:
        """Make sure that the version before can have its traffic again, on that Service. Raises OperatorNeeded."""
        require_ready(work.kube, service, work.plan)


class SwitchRoute(_MovesTraffic):
    """One edit that leads the public host to the new version."""

    id = "switch-route"
    phase = Phase.EXPOSE
    disturbs = True
    exposes = True
    fulfils = (Duty.ROUTE,)

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            await_serving(work, fresh=True)
            if not work.plan.route.stable:
                work.log(f"switching {work.plan.route.host} to version {work.plan.version}")
            work.ingress.switch(work.route())
        return Done()

    def undo(self, work: Work) -> None:
        """Move back, confirm the way back, and hold the new version until nobody is led to it any more."""
        if not (work.ingress and work.plan.route):
            return
        if work.plan.displaced:
            self._give_back(work)
            return
        state = work.ingress.state(work.route())
        moved = state is not None and leads_to(state.backends, work.plan.route.backend.service)
        # A stable route leads back as its Service does, but what was written to it for this deployment is there still.
        moved = moved or (state is not None and state.deployment == work.plan.deployment)
        # Once the way back was begun it is confirmed and held to its end, however often that takes.
        back = route_back(work.plan)
        if not moved and not work.recall("moving-back", False):
            if state and back and back.stable:
                work.ingress.confirm(_way_back(work, back))  # its Service may have moved, and moved back
            return
        if back is None:
            work.ingress.remove(work.route())
            return
        self.require_way_back(work, back.backend.service)
        work.remember("moving-back", True)
        work.log(f"moving {back.host} back to version {back.version}")
        context = _way_back(work, back)
        work.ingress.switch(context)
        work.ingress.confirm(context)
        work.scope.pause(work.ingress.minimum_hold)
        work.log(f"{back.host} now routes to version {back.version} again")

    def _give_back(self, work: Work) -> None:
        """Take the new provider's route away: the old one's, which is there, gets everything. Confirm, and hold."""
        assert work.ingress and work.plan.route
        back = route_back(work.plan)
        if back is None:
            work.ingress.remove(work.route())
            return
        if work.ingress.state(work.route()) is None and not work.recall("moving-back", False):
            return
        provider = _displaced(work)
        self.require_way_back(work, back.backend.service)
        work.remember("moving-back", True)
        work.log(f"moving {back.host} back to version {back.version}, and to ingress provider {provider.name}")
        work.ingress.remove(work.route())
        context = _way_back(work, back)
        provider.confirm(context)
        work.scope.pause(max(work.ingress.minimum_hold, provider.minimum_hold))
        provider.release(context)
        work.log(f"{back.host} now routes to version {back.version} again")


def _way_back(work: Work, route: Route) -> RouteContext:
    """Its version served before: whatever it answers is its own affair."""
    return dataclasses.replace(work.route(route), pods=PodAnswers(any_status=True))


class DisplaceRoute(_MovesTraffic):
    """Take the host from the ingress provider that had it before the settings named another one.

    The new route was tried on a private host, and the data plane knows it for the public one as well, before the old
    one's objects go: where both are there either may win, and both versions serve.
    """

    id = "displace-route"
    phase = Phase.EXPOSE
    disturbs = True
    exposes = True

    def run(self, work: Work) -> Outcome:
        before = route_back(work.plan)
        if work.ingress and before and work.plan.displaced:
            provider = _displaced(work)
            work.ingress.await_loaded(work.route())
            provider.remove(work.route(before))
            work.log(f"removed the route of ingress provider {provider.name} for {before.host}")
        return Done()

    def undo(self, work: Work) -> None:
        """Put the old route back, beside the new one; `SwitchRoute` takes that away."""
        back = route_back(work.plan)
        if not (back and work.plan.displaced):
            return
        provider = _displaced(work)
        state = provider.state(work.route(back))
        if state and leads_to(state.backends, back.backend.service) and not work.recall("putting-back", False):
            return
        self.require_way_back(work, back.backend.service)
        work.remember("putting-back", True)
        work.log(f"putting back the route of ingress provider {provider.name} for {back.host}")
        provider.switch(work.route(back))
        provider.await_loaded(work.route(back))


def _displaced(work: Work) -> IngressProvider:
    """The provider that had the host. Raises OperatorNeeded when it is gone: nobody else can touch its objects."""
    if work.displaced is None:
        host = work.plan.route.host if work.plan.route else ""
        raise OperatorNeeded(
            f"ingress provider {work.plan.displaced}, which led {host} to the version "
            "before, is not installed any more: everything is kept as it is until it is there again"
        )
    return work.displaced


def await_return(work: Work) -> None:
    """Wait until the version before, which had no ready pod for a while, is what the data plane answers with again.

    Without a route to ask for: until nodes and clients inside the cluster should have followed. Raises StepFailed.
    """
    back = route_back(work.plan)
    provider = work.displaced if work.plan.displaced else work.ingress
    if back is None or provider is None:
        work.scope.pause(min(work.plan.settings.proxysleep, SERVICE_HOLD))
        return
    context = with_answers(work, work.route(back))
    provider.confirm(dataclasses.replace(context, pods=dataclasses.replace(context.pods, serving=True)))
    work.log(f"{back.host} answers with version {back.version} again")


class ConfirmRoute(Step):
    """Return only when every address of the data plane answers with the new version."""

    id = "confirm-route"
    phase = Phase.CONFIRM

    def run(self, work: Work) -> Outcome:
        # A stable route is confirmed when its Service has moved.
        if work.ingress and work.plan.route and not work.plan.route.stable:
            _confirm(work)
        return Done()


def _confirm(work: Work) -> None:
    assert work.ingress and work.plan.route
    host, version = work.plan.route.host, work.plan.version
    began = time.monotonic()
    asked = work.ingress.confirm(with_answers(work, work.route()))
    taken = time.monotonic() - began
    if asked:
        work.log(f"{host} answers with version {version} after {taken:.2f} s")
    elif asked is False:
        work.log(f"{host} should answer with version {version} now: waited {taken:.2f} s, as nothing could be asked")
    else:
        work.log(f"{host} is switched to version {version} after {taken:.2f} s")


class MoveService(_MovesTraffic):
    """Lead the unversioned Service to the new version: ports and selector in one write. A stable route follows it."""

    id = "move-service"
    phase = Phase.CONFIRM
    disturbs = True
    exposes = True
    fulfils = (Duty.SERVICE,)

    def run(self, work: Work) -> Outcome:
        wanted = work.plan.objects.service
        if wanted is None:
            return Done()
        await_serving(work, fresh=True)
        before = work.plan.previous.service_object if work.plan.previous else None
        put_service(work.kube, wanted, instead_of=before)
        work.log(f"service {name_of(wanted)} selects version {work.plan.version}")
        if work.ingress and work.plan.route and work.plan.route.stable:
            _confirm(work)
        return Done()

    def undo(self, work: Work) -> None:
        wanted = work.plan.objects.service
        if wanted is None:
            return
        found = work.kube.get(SERVICE, name_of(wanted))
        if found is None or found["spec"].get("selector") != wanted["spec"]["selector"]:
            return
        previous = work.plan.previous
        before = previous.service_object if previous else None
        if previous is None or before is None:
            work.kube.delete_shared(SERVICE, name_of(wanted))
            return
        self.require_way_back(work, previous.service)
        # It is marked as the previous deployment's again, and not as this one's, of which nothing may stay.
        put_service(work.kube.for_deployment(previous.deployment), before, instead_of=wanted)
        work.log(f"service {name_of(wanted)} selects version {previous.version} again")
        # Nodes and clients inside the cluster follow a little later.
        work.scope.pause(min(work.plan.settings.proxysleep, SERVICE_HOLD))


# --- retire and undeploy ------------------------------------------------------------------------------------------


class ReleaseRoute(Step):
    """Drop what the switch needed to lose nothing, before the pods of the old version go."""

    id = "release-route"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        if work.ingress and work.plan.route:
            work.ingress.release(work.route())
        return Done()


class RemoveRoute(Step):
    """Remove the app's route, for an undeployment or because the new descriptor has no frontend."""

    id = "remove-route"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        if not (work.ingress and work.plan.route):
            return Done()
        host, versioned = work.plan.route.host, ownership.versioned_name(work.plan.app, work.plan.version)
        state = work.ingress.state(work.route())
        used = [b.service for b in state.backends if b.weight > 0] if state else []
        if used and versioned not in used:
            work.log(f"the route of {host} goes to {used[0]} and not to version {work.plan.version}: it stays")
            return Done()
        work.ingress.remove(work.route())
        work.log(f"removed the route of {host}")
        return Done()


class RemoveService(Step):
    """Remove the unversioned Service."""

    id = "remove-service"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        name = ownership.service_name(work.plan.app)
        found = work.kube.get(SERVICE, name)
        selected = ((found or {}).get("spec", {}).get("selector") or {}).get("version")
        if selected not in (None, work.plan.version):
            work.log(f"service {name} selects version {selected} and not version {work.plan.version}: it stays")
            return Done()
        if work.kube.delete_shared(SERVICE, name) and found is not None:
            work.log(f"removed service {name}")
        return Done()


class CheckUnused(Step):
    """Refuse to go on while the Service or the route still selects the version that is to be removed."""

    id = "check-unused"
    phase = Phase.RETIRE

    def run(self, work: Work) -> Outcome:
        plan = work.plan
        service = work.kube.get(SERVICE, ownership.service_name(plan.app))
        if service and (service["spec"].get("selector") or {}).get("version") == plan.version:
            raise OperatorNeeded(
                f"service {plan.app} still selects version {plan.version}, which is to be removed; it stays"
            )
        versioned = ownership.versioned_name(plan.app, plan.version)
        if plan.route:
            if work.ingress is None:
                provider = plan.ingress.name if plan.ingress else ""
                raise OperatorNeeded(
                    f"nobody can tell whether {plan.route.host} still leads to {versioned}, which is to be removed: "
                    f"ingress provider {provider} is not installed; it stays"
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
                return _park(work, uid, left, work.kube.gone(POD, selector))
            if uid:
                work.log(f"removed {ownership.versioned_name(work.plan.app, work.plan.version)}")
            remove_orphans(work, found)
        remove_versioned_service(work, original_ok=original_ok)
        return Done()


class AwaitPodsEnd(Step):
    """Wait, holding nothing, for the pods that an undo left."""

    id = "await-pods-end"
    phase = Phase.RETIRE

    def __init__(self, controller: str) -> None:
        """`controller`: the uid of the one that had them."""
        self._controller = controller

    def run(self, work: Work) -> Outcome:
        uid = self._controller
        selector = {CONTROLLED_BY: uid}
        found = work.kube.items(POD, selector) or work.kube.list(POD, workload_labels(work.plan))
        if left := pods_left(found, uid):
            return _park(work, uid, left, work.kube.gone(POD, selector))
        work.log("its pods have ended")
        return Done()


def _park(work: Work, uid: str, left: Sequence[Document], event: Gone) -> Outcome:
    """Park until these pods have ended, at most for their grace time and some. Raises StepFailed after that."""
    if work.recall("controller", None) is None:
        work.remember("controller", uid or controller_uid(left[0]))
        work.log(f"waiting for its pods to end, {len(left)} left")
    patience = grace_time(work.plan) + PODS_GONE
    if remaining := work.left("began", patience):
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

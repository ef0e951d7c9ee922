"""Steps that prepare the app's route, lead it to the new version and back, and drop it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from deployer.core.contract.ingress import IngressProvider, PodAnswers, RouteContext
from deployer.core.contract.strategy import Done, Duty, Outcome, Phase, Step, Work
from deployer.core.errors import PLUGIN_MISSING, OperatorNeeded
from deployer.core.model.names import versioned_name
from deployer.core.model.operation.timeline import Requests
from deployer.core.model.plan import Route
from deployer.toolkit.dataplane.pods import await_listening, with_answers
from deployer.toolkit.host_ownership import require_free
from deployer.toolkit.steps.guard import while_it_serves
from deployer.toolkit.workload import await_serving, leads_to, require_ready, route_back

MOVING = frozenset(("switch-route", "displace-route", "move-service"))
"""Ids of the shared steps that move a host's traffic."""

SERVICE_HOLD = 10.0
"""Seconds, at most, for which a failed version stays after the unversioned Service was led away from it."""


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


class MovesTraffic(Step):
    """A step that moves traffic, and moves it back."""

    def require_way_back(self, work: Work, service: str) -> None:
        """Make sure that the version before can have its traffic again, on that Service. Raises OperatorNeeded."""
        require_ready(work.kube, service, work.plan)


class SwitchRoute(MovesTraffic):
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


class DisplaceRoute(MovesTraffic):
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
            "before, is not installed any more: everything is kept as it is until it is there again",
            reason=PLUGIN_MISSING,
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
            confirm(work)
        return Done()


def confirm(work: Work) -> None:
    """Have the provider confirm that the route leads to the new version, and count what becomes of the requests that it
    sends meanwhile: where a version served before, and all of the switch is made at this attempt at the operation."""
    assert work.ingress and work.plan.route
    host, version = work.plan.route.host, work.plan.version
    work.waiting(f"{host} to answer with version {version}")
    began = time.monotonic()
    counted: list[Requests] = []

    def count(found: Requests) -> None:
        if work.count is not None:
            counted.append(found)
            work.count(found)

    seen = route_back(work.plan) is not None and not MOVING.intersection(work.earlier)
    with while_it_serves(work) as scope:
        context = dataclasses.replace(with_answers(work, work.route()), count=count if seen else None)
        asked = work.ingress.confirm(dataclasses.replace(context, kube=work.kube.with_scope(scope), scope=scope))
    taken = time.monotonic() - began
    if asked:
        work.log(f"{host} answers with version {version} after {taken:.2f} s{_fared(counted)}")
    elif asked is False:
        work.log(f"{host} should answer with version {version} now: waited {taken:.2f} s, as nothing could be asked")
    else:
        work.log(f"{host} is switched to version {version} after {taken:.2f} s")


def _fared(counted: Sequence[Requests]) -> str:
    """The end of a sentence that says how requests fared while traffic moved; empty when nobody counted them."""
    asked, lost = sum(found.asked for found in counted), sum(found.lost for found in counted)
    if not asked:
        return ""
    addresses = max(found.addresses for found in counted)
    to = f"{asked} request{'' if asked == 1 else 's'} to {addresses} address{'' if addresses == 1 else 'es'}"
    return f"; of {to} while traffic moved, {lost or 'none'} {'was' if lost < 2 else 'were'} lost"


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
        host, versioned = work.plan.route.host, versioned_name(work.plan.app, work.plan.version)
        state = work.ingress.state(work.route())
        used = [b.service for b in state.backends if b.weight > 0] if state else []
        if used and versioned not in used:
            work.log(f"the route of {host} goes to {used[0]} and not to version {work.plan.version}: it stays")
            return Done()
        work.ingress.remove(work.route())
        work.log(f"removed the route of {host}")
        return Done()

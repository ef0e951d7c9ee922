"""What is live: the cluster is the judge, and a store that disagrees stops the operation here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider, RouteContext, RouteState
from deployer.core.contract.kube import KubeAccess
from deployer.core.errors import ForeignObject, KubeError, PluginError, StepFailed
from deployer.core.model.names import versioned_name
from deployer.core.model.plan import Previous, ProviderRef, Route, blank_route
from deployer.core.model.records import App, Plan
from deployer.core.registry import Registry
from deployer.planning.versions import Running, Selection, Versions


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """The live version as the cluster has it. `deployment` and `plan` are unknown for one that the original made.

    selection  what clients inside the cluster get; None without a Service
    running    its controller, which somebody may have removed
    ingress    what is pinned of the provider that `route` is of; None without one
    """

    deployment: str
    namespace: str
    app: str
    version: str
    plan: Plan | None
    selection: Selection | None
    running: Running | None
    route: RouteState | None
    ingress: ProviderRef | None

    def pinned(self) -> Previous:
        """What the plan pins of it."""
        name = versioned_name(self.app, self.version)
        return Previous(
            deployment=self.deployment,
            version=self.version,
            controller=name if self.running else "",
            service=name,
            route=self.plan.route if self.plan else None,
            ingress=self.ingress,
            service_object=self.selection.service if self.selection else None,
            original_route=self._original_route(),
        )

    def _original_route(self) -> Route | None:
        """The route of a version that the original made, as far as can be seen: to remove it, or to go back to it."""
        state = self.route
        if self.deployment or state is None or not state.backends or self.selection is None:
            return None
        return Route(
            namespace=self.namespace,
            app=self.app,
            host=state.host,
            version=self.version,
            deployment="",
            backend=state.backends[0],
            tls_secret=state.tls_secret,
            redirect_www=state.redirect_www,
        )


@dataclass(frozen=True, slots=True)
class LiveVersions:
    """Finds the live version of an app. Reads the cluster; writes nothing."""

    registry: Registry
    versions: Versions
    kube: KubeAccess
    log: Callable[[str], None]
    scope: CancelScope

    def find(self, app: App, plan: Plan | None, ingress: IngressProvider | None) -> LiveVersion | None:
        """What Service and route select now; None when nothing is live.

        plan     of the deployment that is live according to the store
        ingress  the provider that the settings name

        Raises StepFailed when store and cluster disagree, ForeignObject when the app's Service is somebody else's.
        """
        selection = self.versions.selection(self.kube, app.app)
        selected = selection.version if selection else ""
        holder, reference = self._holder(plan, ingress)
        state = self._route_state(app, holder)
        if state is None and ingress is not None and not app.live and selected:
            state, reference = self._found_elsewhere(app, ingress)
        routed = _routed_version(app, state)
        version = app.live_version or selected
        if not version:
            return None
        # Not from the informer: a script may have scaled it right before it deploys.
        running = self.versions.running(self.kube, app.app, version)
        if app.live:
            if selection is None and running is None and state is None:
                self.log(
                    f"version {version} was live and has no controller, service or route any more, as when its "
                    f"namespace was deleted: starting anew"
                )
                return None
            had_route = plan is not None and plan.route is not None and reference is not None
            wrong = _wrong_service(app, plan, selection) or _wrong_route(app, had_route, routed)
            if wrong:
                raise StepFailed(
                    f"{wrong}, but version {version} was deployed last: somebody changed it, or the store is old",
                    reason="StoreDisagrees",
                    hint=_way_out(version, running is not None, selected, routed),
                )
        else:
            self._adopt(app, version, selection, running)
        return LiveVersion(
            deployment=app.live,
            namespace=app.namespace,
            app=app.app,
            version=version,
            plan=plan,
            selection=selection,
            running=running,
            route=state,
            ingress=reference if state is not None else None,
        )

    def _holder(
        self, plan: Plan | None, ingress: IngressProvider | None
    ) -> tuple[IngressProvider | None, ProviderRef | None]:
        """The provider that leads the host to the live version, and what plans pin of it. Raises StepFailed."""
        pinned = plan.ingress if plan is not None and plan.route else None
        if plan is None or pinned is None or (ingress is not None and pinned.name == ingress.name):
            return ingress, self._ref(ingress.name) if ingress else None
        name = pinned.name
        try:
            return self._provider(name), pinned
        except PluginError as error:
            raise StepFailed(
                f"the host of {plan.app} is routed to version {plan.version} by ingress provider {name}, which is not "
                f"there any more, so nobody can take it over: {error}",
                reason="ProviderGone",
                hint=f"install it again ({pinned.source or name}) until every app has moved, or undeploy "
                "the app and remove its route by hand",
            ) from error

    def _found_elsewhere(self, app: App, ingress: IngressProvider) -> tuple[RouteState | None, ProviderRef | None]:
        """The route of a version that the original made, when it is not of the kind that `ingress` makes: what another
        provider takes for its own, to be displaced."""
        for name in sorted(self.registry.ingress_providers.keys() - {ingress.name}):
            # Somebody else's object is no route of this app, and what may not be read cannot be one.
            with contextlib.suppress(ForeignObject, KubeError):
                if (state := self._route_state(app, self._provider(name))) is not None:
                    return state, self._ref(name)
        return None, None

    def _adopt(self, app: App, version: str, selection: Selection | None, running: Running | None) -> None:
        """The original's live version is taken over. Ours, unknown to the store, is a mistake that stops here.

        The Service may be marked as ours already when an earlier takeover failed; then the controller decides.
        """
        if not any(found is not None and found.original for found in (selection, running)):
            raise StepFailed(
                f"service {app.app} selects version {version}, but this deployer's store knows of no live version: it "
                f"may have been restored from an old backup, or be another instance's",
                reason="StoreDisagrees",
                hint=f"restore the newest copy of the store; without one, have version {version} taken over as "
                "docs/operations.md says under StoreDisagrees, which interrupts nothing",
            )
        self.log(f"adopting version {version}, which the original deployer made")

    def _route_state(self, app: App, ingress: IngressProvider | None) -> RouteState | None:
        if ingress is None:
            return None
        return ingress.state(RouteContext(blank_route(app.namespace, app.app), self.kube, self.log, self.scope))

    def _provider(self, name: str) -> IngressProvider:
        return cast(IngressProvider, self.registry.entry("ingress", name).provider)

    def _ref(self, name: str) -> ProviderRef:
        return ProviderRef(**self.registry.ref("ingress", name))


def _routed_version(app: App, state: RouteState | None) -> str:
    used = [b.service for b in state.backends if b.weight > 0] if state else []
    return used[0].removeprefix(versioned_name(app.app, "")) if used else ""


def _wrong_service(app: App, plan: Plan | None, selection: Selection | None) -> str:
    """What is wrong with the Service, when it does not select the store's live version; else nothing."""
    if selection is None:
        return f"service {app.app} is missing" if plan is not None and plan.objects.service is not None else ""
    wrong = selection.version != app.live_version
    return f"service {app.app} selects version {selection.version or '(none)'}" if wrong else ""


def _wrong_route(app: App, expected: bool, routed: str) -> str:
    """The same for the route."""
    if not routed:
        return f"the route of {app.app} is missing" if expected else ""
    return f"the route of {app.app} leads to version {routed}" if routed != app.live_version else ""


def _way_out(version: str, runs: bool, selected: str, routed: str) -> str:
    """What to do when Service or route go elsewhere than to the store's live version: nothing that ends what serves."""
    ways = [f"have service and route go to version {version} again"] if runs else []
    if version not in (selected, routed) and (selected or routed):
        ways.append(f"undeploy version {version}, which leaves alone what goes to another version")
    ways = ways or [f"bring back the rest of version {version}"]
    return f"restore the newest copy of the store, or {', or '.join(ways)}"

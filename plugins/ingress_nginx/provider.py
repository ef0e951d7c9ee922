"""Ingress provider `nginx`: one Ingress per app for the ingress-nginx controller, switched so that nothing is lost.

The edit that leads the public host to the new version also holds on to the old one, by a rule on a private host, so
that it stays in the controller's list of backends while nginx reloads; that, and the old pods at full size for the hold
time, is what loses no request. A route that changes in more than its version is tried on a helper Ingress first, the
warm-up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployer.plugins.ingress_nginx import objects, options, render
from deployer.plugins.ingress_nginx.refusals import Watched, events_of, objection
from deployer.sdk.errors import ForeignObject, KubeRejected, StepFailed
from deployer.sdk.health import HttpAnswer
from deployer.sdk.ingress import (
    DataPlane,
    IngressProvider,
    Route,
    RouteAnswers,
    RouteContext,
    RouteState,
    Share,
    backends_behind,
    redirect_name,
    require_only,
    shares_of,
    www_twin_is_free,
)
from deployer.sdk.kube import CONFIG_MAP, INGRESS, SERVICE, KubeAccess, annotation_of, deployment_of, objects_of_app
from deployer.sdk.plugin import Problem, Schema

_DIVIDED = "a canary gets part of the requests, and the header does not tell whether it answered"
_GZIP = "is left to the controller, whose setting use-gzip is on"
_NO_GZIP = (
    "has no effect here: gzip is a setting of the whole ingress-nginx controller (use-gzip), not of a host; where that "
    "is on, say so with use_gzip in [plugins.ingress_nginx]"
)


@dataclass(frozen=True, slots=True)
class SwitchConfig:
    """How routes are switched. `stable`: they refer to the unversioned Service; `version_header`: the response header
    in which the apps themselves say their version, empty if they do not; an app may have another one, or none."""

    minimum_hold: float = 10.0
    stable: bool = False
    version_header: str = ""


class Nginx(IngressProvider):
    """The provider. It keeps nothing but what it needs to tell new Events from old ones."""

    name = "nginx"
    capabilities = frozenset({"tls", "redirect-www", "compression", "sticky", "headers", "preview", "weights", "match"})
    backend_tls_hint = (
        'set "backend-protocol": "HTTPS" in ingressOptions, or choose a port that speaks plain HTTP with frontendPort'
    )

    def __init__(self, config: render.RenderConfig, plane: DataPlane, switching: SwitchConfig) -> None:
        self._config = config
        self._data_plane = plane
        self._switching = switching
        self._watched: dict[tuple[str, str], Watched] = {}

    @property
    def minimum_hold(self) -> float:
        """The setting `minimum_hold`, in seconds."""
        return self._switching.minimum_hold

    @property
    def stable(self) -> bool:
        """The setting `mode`."""
        return self._switching.stable

    @property
    def options_schema(self) -> Schema:
        """Of `ingressOptions`: the annotations that may be asked for."""
        return options.SCHEMA

    def check_descriptor(self, descriptor: Mapping[str, Any]) -> Sequence[Problem]:
        """Headers that the controller would refuse, by answering 503 for the whole host, or that could leave quotes;
        options that nginx would not start with."""
        headers = render.header_problems(descriptor.get("additionHttpHeaders") or (), self._config)
        return headers + options.problems(descriptor.get("ingressOptions") or {})

    def remarks(self, descriptor: Mapping[str, Any]) -> Sequence[Problem]:
        """Compression that the controller does not do, and options that have no effect."""
        found = options.remarks(descriptor.get("ingressOptions") or {}, stable=self.stable)
        if descriptor.get("useCompression") and not self._config.gzip:
            found.append(Problem("useCompression", _NO_GZIP))
        return found

    def contends(self, found: Mapping[str, Any]) -> bool:
        """An Ingress of another class is another controller's."""
        spec, notes = found.get("spec") or {}, found["metadata"].get("annotations") or {}
        named = spec.get("ingressClassName") or notes.get("kubernetes.io/ingress.class")
        return found.get("kind") != "Ingress" or named in (None, self._config.ingress_class)

    def state(self, context: RouteContext) -> RouteState | None:
        """Where the Ingress leads. Raises ForeignObject."""
        kube, route = context.kube, context.route
        found = kube.get(INGRESS, route.app)
        if found is None:
            return None
        if not (kube.is_ours(found) or kube.is_original(found)):
            raise ForeignObject(
                f"Ingress {route.app} in namespace {route.namespace} exists already and was not "
                "made by this deployer for this app"
            )
        host = next((rule.get("host", "") for rule in found.get("spec", {}).get("rules") or ()), "")
        backends = objects.divided(kube, backends_behind(kube, route.app, render.backends_of(found)))
        secret = render.tls_secret_of(found, host)
        return RouteState(backends, host, deployment_of(found), secret, objects.redirects_www(kube, found))

    def backend_protocol(self, route: Route) -> str:
        """The option `backend-protocol`."""
        return str(route.options.get("backend-protocol", "HTTP"))

    def announce(self, context: RouteContext) -> None:
        """Create the ConfigMap of the headers: the controller has no reason to reload for it, and knows it in time."""
        if not context.route.stable:
            objects.put_headers(
                context.kube.for_deployment(context.route.deployment), context.route, self._config, stable=False
            )

    def prepare(self, context: RouteContext) -> None:
        """Create the ConfigMap of the headers and the warm-up, and wait until the controller answers for it.

        There is no warm-up where it could not tell anything: for a stable route that is one already, as its Ingress
        does not change, and for one that changes in nothing but its version, whose pods were asked themselves.
        """
        route = context.route
        kube = context.kube.for_deployment(route.deployment)
        if route.compression:
            context.log("useCompression " + (_GZIP if self._config.gzip else _NO_GZIP))
        found = kube.get(INGRESS, route.app)
        old = [b for b in render.backends_of(found or {}) if b.service != render.target(route).service]
        helpers = bool(old or route.preview.host or route.preview.check or route.displaces)
        # What the edit does to the app, as with another backend-protocol, must show on the warm-up, not in public.
        helpers = helpers or (found is not None and found != self._wanted(context, found))
        if route.stable:
            objects.put_headers(kube, route, self._config, stable=True)
        if helpers or not route.stable:
            objects.put_headers(kube, route, self._config, stable=False)
        if not helpers or (found and self._only_version_changes(context, found)):
            self._data_plane.current(
                context, bool(route.tls_secret)
            )  # a right that is missing stops it before the switch
            return
        objects.free_preview_host(kube, route)
        watched = [Watched(objects.create(kube, render.warm_up(route, self._config), render.ROLE_WARM_UP))]
        header = self._version_header(route) if route.stable else ""
        self._data_plane.await_answers(
            context,
            render.private_host(route, render.ROLE_WARM_UP),
            "the warm-up",
            tls=False,
            objection=lambda: objection(kube, watched),
            # The controller's own pages, like that for an app which does not speak the protocol, have the revision too.
            proof=(header, route.version) if header else None,
            serving=True,
        )

    def _only_version_changes(self, context: RouteContext, found: dict[str, Any]) -> bool:
        """Is everything else about the route what the controller serves already, and known of the pods?"""
        route, kube, config = context.route, context.kube, self._config
        special = route.stable or route.displaces or route.preview.host or route.preview.check
        if special or self._data_plane.always_warm_up or not context.pods.answered or not kube.is_ours(found):
            return False
        wanted = self._wanted(context, found)
        name = annotation_of(found, render.CUSTOM_HEADERS).rpartition("/")[2]
        now = ((kube.get(CONFIG_MAP, name) if name else None) or {}).get("data") or {}
        new = render.headers_of(route, config, revision=True)
        revision = {config.revision_header: ""} if config.revision_header else {}
        return render.same_but_version(found, wanted) and now.keys() == new.keys() and now | revision == new | revision

    def check_preview(self, context: RouteContext) -> None:
        """Ask under the preview host, or under the warm-up's. Raises StepFailed."""
        preview = context.route.preview
        self._data_plane.await_healthy(
            context, _preview_host(context.route), preview.check, "the preview", tls=_preview_tls(context.route)
        )

    def ask_preview(self, context: RouteContext, path: str) -> Sequence[HttpAnswer]:
        """The same, for any path. Raises StepFailed."""
        host, tls = _preview_host(context.route), _preview_tls(context.route)
        return self._data_plane.ask_each(context, host, path, tls=tls)

    def switch(self, context: RouteContext) -> None:
        """One edit of the app's Ingress: backend, host, TLS and annotations together.

        Of a stable route nothing but what changed is written, and usually that is nothing. Raises StepFailed when
        somebody led the Ingress elsewhere.
        """
        route = context.route
        kube = context.kube.for_deployment(route.deployment)
        objects.put_headers(kube, route, self._config, stable=route.stable)
        redirect_www = self._redirects_www(context, context.log)
        objects.end_division(context.kube, route)
        key = (route.namespace, route.app)

        def change(found: dict[str, Any] | None) -> dict[str, Any]:
            if found is not None:
                _require_expected(kube, found, route)
            wanted = render.main(copy.deepcopy(found), route, self._config, redirect_www=redirect_www)
            if found is None:
                self._watched[key] = Watched({})
            elif wanted != found:
                self._watched[key] = Watched(found, events_of(kube, found))
            elif route.stable:
                return wanted
            wanted["metadata"]["annotations"] |= kube.annotations(render.ROLE_ROUTE)
            return wanted

        try:
            written = kube.put_shared(INGRESS, route.app, change, role=render.ROLE_ROUTE)
        except KubeRejected as error:
            if objects.HOST_TAKEN not in error.said:
                raise
            raise objects.host_taken(error) from error
        if written and key in self._watched:
            self._watched[key] = Watched(written, self._watched[key].events)
        objects.take_over_redirect(kube, route, redirect_www)

    def split(self, context: RouteContext, shares: Sequence[Share]) -> None:
        """A canary Ingress beside the app's own, which stays as it is; it goes when the old version gets everything.

        Of several Ingresses that name a Service the controller asks the oldest whether it is a canary's, so the warm-up
        goes first, and the preview host with it.
        """
        route, (old, new) = context.route, shares_of(context.route, shares)
        kube = context.kube.for_deployment(route.deployment)
        if old.weight == 100 and new.match is None:
            kube.delete(INGRESS, render.canary_name(route.app))
            return
        main = kube.get(INGRESS, route.app)
        services = [b.service for b in backends_behind(kube, route.app, render.backends_of(main or {}))]
        require_only(f"Ingress {route.app}", services, {old.service}, "" if main else "no rule at all")
        for helper in objects_of_app(kube, INGRESS, {render.ROLE_WARM_UP}):
            if new.service in {backend.service for backend in render.all_backends_of(helper)}:
                if route.preview.host in render.hosts_of(helper):
                    context.log(f"{route.preview.host} ends here: a part of {route.host} goes to the new version now")
                objects.delete(kube, INGRESS, helper)
        wanted = render.canary(route, self._config, new)
        earlier = kube.get(INGRESS, render.canary_name(route.app))
        if earlier is not None and kube.is_ours(earlier) and not kube.owned_by(earlier, route.deployment):
            # That of the version which is live by now and drains its predecessor: it divides nothing any more.
            objects.delete(kube, INGRESS, earlier)
        objects.create(kube, wanted, render.ROLE_CANARY)
        kube.put_shared(
            INGRESS,
            render.canary_name(route.app),
            lambda found: render.set_canary(found or copy.deepcopy(wanted), wanted),
            role=render.ROLE_CANARY,
        )

    def confirm_split(self, context: RouteContext, shares: Sequence[Share]) -> bool:
        """Wait as long as the controller may take, as it answers the same whatever the weight; then report what it says
        against the canary. Raises StepFailed."""
        route, (_, new) = context.route, shares_of(context.route, shares)
        self._await_propagation(context, f"{new.weight} % of the requests go to version {route.version}")
        found = context.kube.get(INGRESS, render.canary_name(route.app))
        if found is not None and (said := objection(context.kube, [Watched(found)])):
            raise StepFailed(said, reason="RouteRejected")
        return False

    def confirm(self, context: RouteContext) -> bool:
        """Ask every controller; see `DataPlane.await_answers`. Raises StepFailed."""
        route = context.route
        if route.stable and context.kube.get(INGRESS, render.canary_name(route.app)) is not None:
            # One right answer proves nothing: the canary has given some of them all the time.
            self._await_propagation(context, f"all requests go to version {route.version}")
        watched = self._watched_of(route)
        proven = self._data_plane.await_answers(
            context,
            route.host,
            "the route",
            tls=bool(route.tls_secret),
            objection=lambda: objection(context.kube, watched),
            # The Ingress of a stable route names no deployment, but the apps may name their version.
            proof=(self._version_header(route), route.version) if route.stable else None,
        )
        self._watched.pop((route.namespace, route.app), None)
        return proven

    def ask_route(self, context: RouteContext) -> RouteAnswers:
        """Of a stable route the apps may name their version. Else the header is that of the app's Ingress, whoever
        answers, so that beside a canary it tells nothing."""
        route, tls = context.route, bool(context.route.tls_secret)
        if route.stable:
            return self._data_plane.ask_route(context, tls=tls, version_header=self._version_header(route))
        found = self._data_plane.ask_route(context, tls=tls)
        canary = context.kube.get(INGRESS, render.canary_name(route.app))
        if canary is None or not context.kube.is_ours(canary) or not render.canary_weight(canary):
            return found
        sure = ("", deployment_of(canary))
        told = [a if a.deployment in sure else replace(a, deployment="", unknown=_DIVIDED) for a in found.addresses]
        return replace(found, addresses=told)

    def await_loaded(self, context: RouteContext) -> None:
        """Ask under a private host that the app's Ingress has besides the public one until `release`. A stable route
        answers with the version that its Service selects at the time."""
        route, proof = context.route, None
        if route.stable:
            service = context.kube.get(SERVICE, route.app) or {}
            selected = (service.get("spec", {}).get("selector") or {}).get("version", "")
            proof = (self._version_header(route) if selected else "", selected)
        self._data_plane.await_answers(
            context,
            render.swap_host(route),
            "the route",
            tls=bool(route.tls_secret),
            objection=lambda: objection(context.kube, self._watched_of(route)),
            proof=proof,
        )

    def release(self, context: RouteContext) -> None:
        """Delete this deployment's helpers and holds, those of a Service that is gone, and headers that nobody uses."""
        route, kube = context.route, context.kube
        objects.drop_private_hosts(kube, route)
        main = kube.get(INGRESS, route.app)
        if main is not None and kube.is_ours(main) and deployment_of(main) == route.deployment:
            kube.delete_shared(INGRESS, redirect_name(route.app))  # what was taken over from the original is over
        for helper in objects_of_app(kube, INGRESS, render.HELPER_ROLES):
            gone = all(kube.get(SERVICE, backend.service) is None for backend in render.all_backends_of(helper))
            if gone or deployment_of(helper) == route.deployment:
                objects.delete(kube, INGRESS, helper)
        used = {annotation_of(found, render.CUSTOM_HEADERS).rpartition("/")[2] for found in kube.list(INGRESS)}
        for config_map in objects_of_app(kube, CONFIG_MAP, render.HEADER_ROLES):
            if config_map["metadata"]["name"] not in used:
                objects.delete(kube, CONFIG_MAP, config_map)

    def remove(self, context: RouteContext) -> None:
        """Delete the app's Ingress, then every helper and ConfigMap of it."""
        route, kube = context.route, context.kube
        for name in (route.app, redirect_name(route.app)):
            kube.delete_shared(INGRESS, name, original_ok=True)
        self._watched.pop((route.namespace, route.app), None)
        for helper in objects_of_app(kube, INGRESS, render.HELPER_ROLES):
            objects.delete(kube, INGRESS, helper)
        for config_map in objects_of_app(kube, CONFIG_MAP, render.HEADER_ROLES):
            objects.delete(kube, CONFIG_MAP, config_map)

    def fence(self, context: RouteContext) -> None:
        """The app's Ingress, one that was taken over, and the canary are written again and again; all else is not."""
        app = context.route.app
        for name in (app, redirect_name(app), render.canary_name(app)):
            context.kube.raise_fencing_token(INGRESS, name)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _await_propagation(self, context: RouteContext, until: str) -> None:
        context.log(f"{context.route.host}: waiting {self._data_plane.propagation:g} s until {until}")
        context.scope.pause(self._data_plane.propagation)

    def _version_header(self, route: Route) -> str:
        return str(route.options.get(options.VERSION_HEADER, self._switching.version_header))

    def _watched_of(self, route: Route) -> list[Watched]:
        key = (route.namespace, route.app)
        return [self._watched[key]] if key in self._watched else []

    def _redirects_www(self, context: RouteContext, log: Callable[[str], None]) -> bool:
        return context.route.redirect_www and www_twin_is_free(context, self, log)

    def _wanted(self, context: RouteContext, found: dict[str, Any]) -> dict[str, Any]:
        """What `switch` would make of the app's Ingress."""
        redirect_www = self._redirects_www(context, lambda _: None)
        return render.main(copy.deepcopy(found), context.route, self._config, redirect_www=redirect_www)


def _require_expected(kube: KubeAccess, found: dict[str, Any], route: Route) -> None:
    """Raise StepFailed unless the Ingress leads to the old version, to the new one, or to the Service of both."""
    expected = {route.app, route.backend.service} | ({route.previous.service} if route.previous else set())
    services = [backend.service for backend in render.backends_of(found)]
    require_only(f"Ingress {route.app}", services, expected, render.strange(found) if kube.is_ours(found) else "")


def _preview_host(route: Route) -> str:
    """Under which the new version answers before the switch: the preview's own, or the warm-up's."""
    return route.preview.host or render.private_host(route, render.ROLE_WARM_UP)


def _preview_tls(route: Route) -> bool:
    return bool(route.preview.host and route.preview.tls_secret)

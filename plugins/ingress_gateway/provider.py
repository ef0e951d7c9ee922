"""Ingress provider `gateway`: one HTTPRoute per app on a Gateway that the settings name, switched by its weights.

While a deployment goes on the route leads whoever knows an unguessable header to the new version, and has both versions
as backends; the switch is one replace that swaps their weights and the revision. Redirects are HTTPRoutes of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.plugins.ingress_gateway import conditions, render
from deployer.sdk.errors import ForeignObject, KubeNotFound, StepFailed
from deployer.sdk.health import HttpAnswer
from deployer.sdk.ingress import (
    PREVIEW_OPTIONS,
    Backend,
    DataPlane,
    IngressProvider,
    Route,
    RouteAnswers,
    RouteContext,
    RouteState,
    Share,
    backends_behind,
    require_only,
    shares_of,
    www_twin_is_free,
)
from deployer.sdk.kube import HTTP_ROUTE, SERVICE, KubeAccess, deployment_of, objects_of_app
from deployer.sdk.plugin import Problem, Schema

_CANNOT = {
    "useCompression": (
        "the Gateway API has no compression: compress in the app, or have it deployed by ingress provider nginx with a "
        "controller that compresses (use-gzip)"
    ),
    "useStickySessions": (
        "the Gateway API's standard channel has no sticky sessions: ingress provider nginx has them; leave it out, or "
        'have the app deployed with ingress = "nginx"'
    ),
}


class Gateway(IngressProvider):
    """The provider. It keeps nothing between two calls."""

    name = "gateway"
    capabilities = frozenset({"redirect-www", "headers", "preview", "weights", "match"})

    def __init__(self, config: render.RenderConfig, plane: DataPlane, minimum_hold: float = 10.0) -> None:
        self._config = config
        self._data_plane = plane
        self._minimum_hold = minimum_hold

    @property
    def minimum_hold(self) -> float:
        """The setting `minimum_hold`, in seconds."""
        return self._minimum_hold

    @property
    def options_schema(self) -> Schema:
        """Of `ingressOptions`: only what every preview has."""
        return {"type": "object", "additionalProperties": False, "properties": dict(PREVIEW_OPTIONS)}

    def check_descriptor(self, descriptor: Mapping[str, Any]) -> Sequence[Problem]:
        """What the API has no field for, and headers that it would refuse."""
        problems = render.header_problems(descriptor.get("additionHttpHeaders") or (), self._config)
        return problems + [Problem(field, why) for field, why in _CANNOT.items() if descriptor.get(field)]

    def remarks(self, descriptor: Mapping[str, Any]) -> Sequence[Problem]:
        """A Secret that nothing would use."""
        if descriptor.get("tlsSecretName"):
            return [Problem("tlsSecretName", _tls_unused(self._config))]
        return ()

    def contends(self, found: Mapping[str, Any]) -> bool:
        """An HTTPRoute of another Gateway is no concern; an Ingress may be served by the same controller."""
        if found.get("kind") == "Ingress":
            return True
        place = found["metadata"].get("namespace", "")
        parents = (found.get("spec") or {}).get("parentRefs") or ()
        return self._config.gateway in {f"{p.get('namespace') or place}/{p.get('name')}" for p in parents}

    def state(self, context: RouteContext) -> RouteState | None:
        """Where the HTTPRoute leads the public. Raises ForeignObject."""
        kube, route = context.kube, context.route
        found = kube.get(HTTP_ROUTE, route.app)
        if found is None:
            return None
        if not kube.is_ours(found):
            raise ForeignObject(
                f"HTTPRoute {route.app} in namespace {route.namespace} exists already and was not "
                "made by this deployer for this app"
            )
        backends = sorted(render.backends_of(render.public_rule_of(found)), key=lambda b: b.weight == 0)
        host = next(iter(found["spec"].get("hostnames") or ()), "")
        return RouteState(backends_behind(kube, route.app, backends), host, deployment_of(found))

    def prepare(self, context: RouteContext) -> None:
        """Make the new version a backend without weight, and lead whoever knows the header, or the preview's host, to
        it; wait until every address of the data plane does."""
        route = context.route
        self._require_possible(context)
        kube = context.kube.for_deployment(route.deployment)
        if route.tls_secret:
            context.log(f"tls secret {route.tls_secret} {_tls_unused(self._config)}")
        if self._only_version_changes(context):
            self._data_plane.current(context, self._config.https)  # a right that is missing stops it before the switch
            return
        watched = [self._prepare_main(context)]
        if route.preview.host:
            self._free_preview_host(kube, route)
            made = render.preview(route, self._config)
            made["metadata"]["annotations"] = kube.annotations(render.ROLE_PREVIEW)
            watched.append(kube.create(HTTP_ROUTE, made))
        conditions.Judgement(kube, watched).wait()
        host = render.hosts(route)[-1]
        self._await(context, "the preview", watched, host=host, headers=self._header(route), serving=True)

    def _only_version_changes(self, context: RouteContext) -> bool:
        """Is everything else about the route what the controller serves already, and known of the pods?"""
        route, found = context.route, context.kube.get(HTTP_ROUTE, context.route.app)
        special = route.displaces or route.preview.host or route.preview.check
        if special or self._data_plane.always_warm_up or not context.pods.answered or found is None:
            return False
        return context.kube.is_ours(found) and render.only_version_changes(found, route, self._config)

    def check_preview(self, context: RouteContext) -> None:
        """Ask with the header, or under the preview host. Raises StepFailed."""
        host, check = self._preview_host(context.route), context.route.preview.check
        headers = self._header(context.route)
        self._data_plane.await_healthy(context, host, check, "the preview", tls=self._config.https, headers=headers)

    def ask_preview(self, context: RouteContext, path: str) -> Sequence[HttpAnswer]:
        """The same, for any path. Raises StepFailed."""
        host, headers = self._preview_host(context.route), self._header(context.route)
        return self._data_plane.ask_each(context, host, path, tls=self._config.https, headers=headers)

    @staticmethod
    def _preview_host(route: Route) -> str:
        return route.preview.host or render.hosts(route)[-1]

    def switch(self, context: RouteContext) -> None:
        """One replace of the app's HTTPRoute: weights, revision, headers and host together; redirects that it needs
        come before it, those that it no longer needs go after it. Raises StepFailed when somebody led it elsewhere."""
        route = context.route
        kube = context.kube.for_deployment(route.deployment)
        wanted = self._redirects(context)
        _end_matches_of_others(kube, route)
        for role in wanted:
            name = render.redirect_name(route.app, role)
            kube.put_shared(
                HTTP_ROUTE,
                name,
                lambda found, role=role: render.redirect(found, route, self._config, role),  # type: ignore[misc]
                role=role,
            )

        def change(found: dict[str, Any] | None) -> dict[str, Any]:
            if found is not None:
                _require_expected(found, route)
            others = [b for b in render.backends_of(render.public_rule_of(found)) if b.service != route.backend.service]
            # Some controllers refuse a route that refers to what is gone.
            held = [b for b in others if kube.get(SERVICE, b.service) is not None]
            backends = [*(dataclasses.replace(b, weight=0) for b in held), dataclasses.replace(route.backend, weight=1)]
            rules = [rule for rule in render.rules_of(found) if render.is_preview(rule)]
            rules.append(render.public_rule(route, self._config, backends))
            made = render.edit(found, route, hosts=render.hosts(route), parents=self._config.serving, rules=rules)
            made["metadata"].setdefault("annotations", {}).update(kube.annotations(render.ROLE_ROUTE))
            return made

        kube.put_shared(HTTP_ROUTE, route.app, change, role=render.ROLE_ROUTE)
        for role in (render.ROLE_WWW, render.ROLE_HTTPS):
            if role not in wanted:
                kube.delete_shared(HTTP_ROUTE, render.redirect_name(route.app, role))

    def split(self, context: RouteContext, shares: Sequence[Share]) -> None:
        """One replace of the app's HTTPRoute: the weights, and the revision, by which the division is known. Requests
        that match have an HTTPRoute of their own."""
        route, (old, new) = context.route, shares_of(context.route, shares)
        ends = old.weight == 100 and new.match is None
        kube = context.kube.for_deployment(route.deployment)
        _end_matches_of_others(kube, route)  # being older they would win
        if new.match is None:
            kube.delete(HTTP_ROUTE, render.match_name(route))
        else:
            made = render.match(route, self._config, new.match)
            made["metadata"]["annotations"] = kube.annotations(render.ROLE_MATCH)
            kube.create(HTTP_ROUTE, made)
        main = context.kube.get(HTTP_ROUTE, route.app)
        live = deployment_of(main) if main else ""

        def change(found: dict[str, Any] | None) -> dict[str, Any] | None:
            public = render.public_rule_of(found)
            if found is None or public is None:
                return None
            _require_expected(found, route)
            # Alone, a backend has the weight that `switch` gives it.
            weights = {old.service: 1} if ends else {old.service: old.weight, new.service: new.weight}
            revision = live if ends else render.split_mark(route, new)
            divided = render.split_rule(public, self._config, weights, route.backend, revision)
            found["spec"]["rules"] = [divided if rule == public else rule for rule in render.rules_of(found)]
            return found

        written = context.kube.for_deployment(live).put_shared(HTTP_ROUTE, route.app, change, role=render.ROLE_ROUTE)
        if render.public_rule_of(written) is None:
            raise StepFailed(
                f"HTTPRoute {route.app} leads {route.host} nowhere any more: somebody changed it",
                reason="ObjectChanged",
                hint="deploy again",
            )

    def confirm_split(self, context: RouteContext, shares: Sequence[Share]) -> bool:
        """The controller has taken the route, and every address answers with the revision of this division."""
        route, (old, new) = context.route, shares_of(context.route, shares)
        watched = self._accepted(context)
        main = context.kube.get(HTTP_ROUTE, route.app)
        ends = old.weight == 100 and new.match is None
        revision = deployment_of(main) if ends and main else render.split_mark(route, new)
        told = dataclasses.replace(context, route=dataclasses.replace(route, deployment=revision))
        proven = self._await(told, "the split", watched)
        if new.match:
            watched = [found for found in [context.kube.get(HTTP_ROUTE, render.match_name(route))] if found]
            conditions.Judgement(context.kube, watched).wait()
            self._await(context, "the match", watched, headers=new.match.as_headers())
        return proven

    def confirm(self, context: RouteContext) -> bool:
        """The controller has taken the route as it is, and every address answers with the deployment."""
        watched = self._accepted(context)
        return self._await(context, "the route", watched)

    def ask_route(self, context: RouteContext) -> RouteAnswers:
        """While the traffic is divided the revision is that of the division, whichever version answers."""
        found = self._data_plane.ask_route(context, tls=self._config.https)
        told = []
        for answer in found.addresses:
            _, divided, weight = answer.deployment.partition("/")
            untold = (
                f"{weight} % of the requests go to the new version, and the answer does not tell which one it is from"
            )
            told.append(dataclasses.replace(answer, deployment="", unknown=untold) if divided else answer)
        return dataclasses.replace(found, addresses=told)

    def await_loaded(self, context: RouteContext) -> None:
        """As `confirm` does, under the private host, which the route has besides the public one until `release`."""
        watched = self._accepted(context)
        self._await(context, "the route", watched, host=render.hosts(context.route)[-1])

    def _accepted(self, context: RouteContext) -> list[dict[str, Any]]:
        """The app's HTTPRoutes, once the controller has taken them as they are. Raises StepFailed."""
        route = context.route
        names = [route.app, *(render.redirect_name(route.app, role) for role in (render.ROLE_WWW, render.ROLE_HTTPS))]
        found = [item for name in names if (item := context.kube.get(HTTP_ROUTE, name)) is not None]
        watched = [item for item in found if context.kube.is_ours(item)]
        conditions.Judgement(context.kube, watched).wait()
        return watched

    def release(self, context: RouteContext) -> None:
        """Drop the preview, and backends that get no traffic; the whole route when there is no public rule yet."""
        route, kube = context.route, context.kube
        try:
            previews = [
                found
                for found in objects_of_app(kube, HTTP_ROUTE, {render.ROLE_PREVIEW, render.ROLE_MATCH})
                if deployment_of(found) == route.deployment
                or all(kube.get(SERVICE, b.service) is None for b in render.backends_of(render.public_rule_of(found)))
            ]
        except KubeNotFound:
            return  # a cluster that does not know HTTPRoutes has none
        for found in previews:
            kube.delete(HTTP_ROUTE, found["metadata"]["name"], deployment=deployment_of(found))
        main = kube.get(HTTP_ROUTE, route.app)
        if main is None or not kube.is_ours(main):
            return
        mark = render.token(route)
        previewing = any(_is_of(rule, mark) for rule in render.rules_of(main))
        if previewing and render.public_rule_of(main) is None:
            kube.delete_shared(HTTP_ROUTE, route.app)
            return

        def change(now: dict[str, Any] | None) -> dict[str, Any] | None:
            return now and self._released(kube, route, now, previewing=previewing)

        live = deployment_of(main)
        kube.for_deployment(live).put_shared(HTTP_ROUTE, route.app, change, role=render.ROLE_ROUTE)

    def remove(self, context: RouteContext) -> None:
        """Delete the app's HTTPRoutes, the public one first."""
        route, kube = context.route, context.kube
        kube.delete_shared(HTTP_ROUTE, route.app)
        for role in (render.ROLE_WWW, render.ROLE_HTTPS):
            kube.delete_shared(HTTP_ROUTE, render.redirect_name(route.app, role))
        try:
            previews = objects_of_app(kube, HTTP_ROUTE, {render.ROLE_PREVIEW, render.ROLE_MATCH})
        except KubeNotFound:
            return
        for found in previews:
            kube.delete(HTTP_ROUTE, found["metadata"]["name"], deployment=deployment_of(found))

    def fence(self, context: RouteContext) -> None:
        """The route and its redirects are shared between deployments; a preview belongs to one of them."""
        app = context.route.app
        for name in (app, *(render.redirect_name(app, role) for role in (render.ROLE_WWW, render.ROLE_HTTPS))):
            context.kube.raise_fencing_token(HTTP_ROUTE, name)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _require_possible(self, context: RouteContext) -> None:
        """Raise StepFailed for what would be lost silently, and for a cluster that does not know HTTPRoutes."""
        route = context.route
        for asked, field in ((route.compression, "useCompression"), (route.sticky, "useStickySessions")):
            if asked:
                raise StepFailed(f"{field} is asked for, but {_CANNOT[field]}", reason="NotSupported")
        if not self._config.gateway:
            raise StepFailed(
                "no Gateway is configured to which routes could belong",
                reason="NotConfigured",
                hint='set gateway = "namespace/name" in [plugins.ingress_gateway]',
            )
        try:
            context.kube.list(HTTP_ROUTE)
        except KubeNotFound:
            raise StepFailed(
                f"the cluster does not know HTTPRoutes ({HTTP_ROUTE.api_version})",
                reason="NoGatewayAPI",
                hint="install the Gateway API's CRDs (standard channel, v1) and a controller, or choose another "
                "ingress provider",
            ) from None

    def _free_preview_host(self, kube: KubeAccess, route: Route) -> None:
        """The oldest HTTPRoute that has a host gets its traffic, so the previews of the app's earlier deployments go,
        although their old versions may still be draining."""
        for found in objects_of_app(kube, HTTP_ROUTE, {render.ROLE_PREVIEW}):
            if deployment_of(found) != route.deployment and route.preview.host in found["spec"]["hostnames"]:
                kube.delete(HTTP_ROUTE, found["metadata"]["name"], deployment=deployment_of(found))

    def _prepare_main(self, context: RouteContext) -> dict[str, Any]:
        """The app's HTTPRoute with a rule for the preview, and the new version as a backend without weight.

        It stays the live deployment's. Without one it has only the rule for the preview.
        """
        route = context.route
        before = context.kube.get(HTTP_ROUTE, route.app)
        live = (deployment_of(before) if before else "") or route.deployment
        kube = context.kube.for_deployment(live)

        def change(found: dict[str, Any] | None) -> dict[str, Any]:
            rules = [render.preview_rule(route, self._config)]
            if (public := render.public_rule_of(found)) is not None:
                assert found is not None
                _require_expected(found, route)
                known = [b.service for b in render.backends_of(public)]
                if route.backend.service not in known:
                    fresh = render.preview_rule(route, self._config)["backendRefs"]
                    public = {**public, "backendRefs": [*public["backendRefs"], {**fresh[0], "weight": 0}]}
                rules.append(public)
            had = ((found or {}).get("spec") or {}).get("hostnames") or ()
            parents = render.joined(found, self._config.serving)
            made = render.edit(found, route, hosts=[*had, *render.hosts(route)], parents=parents, rules=rules)
            made["metadata"].setdefault("annotations", {}).update(kube.annotations(render.ROLE_ROUTE))
            return made

        written = kube.put_shared(HTTP_ROUTE, route.app, change, role=render.ROLE_ROUTE)
        assert written is not None
        return written

    def _released(self, kube: KubeAccess, route: Route, found: dict[str, Any], *, previewing: bool) -> dict[str, Any]:
        """The same HTTPRoute without what the switch to `route` needed; what another one needs stays."""
        mark, its_own = render.token(route), deployment_of(found) == route.deployment
        previews = [
            rule
            for rule in render.rules_of(found)
            if render.is_preview(rule)
            and not _is_of(rule, mark)
            and any(kube.get(SERVICE, backend.service) for backend in render.backends_of(rule))
        ]
        needed = {backend.service for rule in previews for backend in render.backends_of(rule)}
        public = render.public_rule_of(found)
        assert public is not None
        going = {route.previous.service} if route.previous else set()
        if previewing or any(b.weight > 0 and b.service in going for b in render.backends_of(public)):
            # It was only tried, or was moved back from. A later deployment may hold on to it as well.
            going.add(route.backend.service)

        def stays(backend: Backend) -> bool:
            idle = its_own or backend.service in going or kube.get(SERVICE, backend.service) is None
            return backend.weight > 0 or backend.service in needed or not idle

        pairs = zip(public["backendRefs"], render.backends_of(public), strict=True)
        kept = {**public, "backendRefs": [reference for reference, backend in pairs if stays(backend)]}
        # The first host is the public's; others are those of a switch that is under way, or was.
        hosts = found["spec"]["hostnames"] if previews else found["spec"]["hostnames"][:1]
        return render.edit(found, route, hosts=hosts, parents=found["spec"]["parentRefs"], rules=[*previews, kept])

    def _redirects(self, context: RouteContext) -> list[str]:
        """The redirects that the route is to have, by role."""
        roles = [render.ROLE_HTTPS] if self._config.redirects else []
        if context.route.redirect_www and www_twin_is_free(context, self, context.log):
            roles.append(render.ROLE_WWW)
        return roles

    def _await(
        self,
        context: RouteContext,
        what: str,
        watched: Sequence[Mapping[str, Any]],
        *,
        host: str = "",
        headers: Mapping[str, str] | None = None,
        serving: bool = False,
    ) -> bool:
        def objection() -> str:
            for one in watched:
                now = context.kube.get(HTTP_ROUTE, one["metadata"]["name"])
                if now is not None and (said := conditions.refusal(now)):
                    return str(conditions.rejected(now, said))
            return ""

        return self._data_plane.await_answers(
            context,
            host or context.route.host,
            what,
            tls=self._config.https,
            objection=objection,
            headers=headers,
            serving=serving,
        )

    def _header(self, route: Route) -> dict[str, str]:
        return {render.PREVIEW_HEADER: render.token(route)}


def _tls_unused(config: render.RenderConfig) -> str:
    listener = f"listener {config.https_section} of " if config.https_section else ""
    return f"is not used: certificates belong to {listener}Gateway {config.gateway}"


def _is_of(rule: Mapping[str, Any], mark: str) -> bool:
    """True for the preview's rule of the deployment with that token."""
    matches = rule.get("matches") or ()
    return any(
        (h.get("name"), h.get("value")) == (render.PREVIEW_HEADER, mark)
        for m in matches
        for h in m.get("headers") or ()
    )


def _end_matches_of_others(kube: KubeAccess, route: Route) -> None:
    """Delete what leads requests that match to another version: one that went live as a canary has that until its
    predecessor is drained."""
    for found in objects_of_app(kube, HTTP_ROUTE, {render.ROLE_MATCH}):
        if deployment_of(found) != route.deployment:
            kube.delete(HTTP_ROUTE, found["metadata"]["name"], deployment=deployment_of(found))


def _require_expected(found: dict[str, Any], route: Route) -> None:
    """Raise StepFailed unless all traffic goes to the old version or to the new one."""
    expected = {route.backend.service} | ({route.previous.service} if route.previous else set())
    services = [b.service for b in render.backends_of(render.public_rule_of(found)) if b.weight > 0]
    require_only(f"HTTPRoute {route.app}", services, expected, render.strange(found))

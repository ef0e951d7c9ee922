"""Ingress provider `nginx`: one Ingress per app for the ingress-nginx controller, switched so that nothing is lost.

While the switch goes on, two helper Ingresses on private hosts keep both versions in the controller's list of backends:
a warm-up of the new Service and a hold on the old one. That, and the old pods at full size for the hold time, is what
loses no request when nginx reloads.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.core import (
    CONFIG_MAP,
    INGRESS,
    SERVICE,
    DataPlane,
    ForeignObject,
    IngressProvider,
    Kind,
    OwnedKube,
    PluginSettings,
    Problem,
    RouteContext,
    RouteState,
    StepFailed,
    data_plane,
    data_plane_schema,
    hookimpl,
)
from deployer.plugins.ingress_nginx import render
from deployer.plugins.ingress_nginx.refusals import Watched, events_of, objection

DEPLOYMENT = "kube-deployer/deployment"
ROLE = "kube-deployer/role"


class Nginx(IngressProvider):
    """The provider. It keeps nothing but what it needs to tell new Events from old ones."""

    name = "nginx"
    capabilities = frozenset({"tls", "redirect-www", "sticky", "headers"})

    def __init__(self, look: render.Look, data_plane: DataPlane, minimum_hold: float) -> None:
        self._look = look
        self._data_plane = data_plane
        self._minimum_hold = minimum_hold
        self._watched: dict[tuple[str, str], Watched] = {}

    @property
    def minimum_hold(self) -> float:
        """The setting `minimum_hold`, in seconds."""
        return self._minimum_hold

    def check_descriptor(self, descriptor: Mapping[str, Any]) -> Sequence[Problem]:
        """Headers that the controller would refuse, by answering 503 for the whole host, or that could leave quotes."""
        return render.header_problems(descriptor.get("additionHttpHeaders") or (), self._look)

    def state(self, context: RouteContext) -> RouteState | None:
        """Where the Ingress leads. Raises ForeignObject."""
        found = context.kube.get(INGRESS, context.route.app)
        if found is None:
            return None
        if not context.kube.is_ours(found):
            raise ForeignObject(
                f"Ingress {context.route.app} in namespace {context.route.namespace} exists already and was not "
                "made by this deployer for this app"
            )
        host = next(iter(sorted(render.hosts_of(found))), "")
        return RouteState(render.backends_of(found), host, _note(found, DEPLOYMENT))

    def prepare(self, context: RouteContext) -> None:
        """Create the ConfigMap of the headers, the hold and the warm-up, and wait until the controller knows them."""
        route = context.route
        kube = context.kube.for_deployment(route.deployment)
        if route.compression:
            context.log(
                "useCompression: gzip is a setting of the whole ingress-nginx controller (use-gzip), not of a host"
            )
        self._put_headers(kube, context)
        if route.previous is None or route.previous.service == route.backend.service:
            return
        # The hold first: when the warm-up is answered, the controller has seen the hold as well.
        hold = self._create(kube, render.helper(route, self._look, render.ROLE_HOLD), render.ROLE_HOLD)
        warm_up = self._create(kube, render.helper(route, self._look, render.ROLE_WARM_UP), render.ROLE_WARM_UP)
        host = next(iter(render.hosts_of(warm_up)))
        watched = [Watched(hold), Watched(warm_up)]
        self._data_plane.await_answers(
            context, host, "the warm-up", tls=False, objection=lambda: objection(kube, watched)
        )

    def switch(self, context: RouteContext) -> None:
        """One edit of the app's Ingress: backend, host, TLS and annotations together."""
        route = context.route
        kube = context.kube.for_deployment(route.deployment)
        self._put_headers(kube, context)
        redirect_www = route.redirect_www and not self._www_is_taken(context)
        key = (route.namespace, route.app)

        def change(found: dict[str, Any] | None) -> dict[str, Any]:
            wanted = render.main(copy.deepcopy(found), route, self._look, redirect_www=redirect_www)
            wanted["metadata"]["annotations"] |= kube.annotations(render.ROLE_ROUTE)
            if found is None:
                self._watched[key] = Watched({})
            elif wanted != found:
                self._watched[key] = Watched(found, events_of(kube, found))
            return wanted

        written = kube.put_shared(INGRESS, route.app, change, role=render.ROLE_ROUTE)
        if written and key in self._watched:
            self._watched[key] = Watched(written, self._watched[key].events)

    def confirm(self, context: RouteContext) -> None:
        """Ask every controller; see `DataPlane.await_answers`. Raises StepFailed."""
        route = context.route
        key = (route.namespace, route.app)
        watched = [self._watched[key]] if key in self._watched else []
        self._data_plane.await_answers(
            context,
            route.host,
            "the route",
            tls=bool(route.tls_secret),
            objection=lambda: objection(context.kube, watched),
        )
        self._watched.pop(key, None)

    def release(self, context: RouteContext) -> None:
        """Delete this deployment's helpers, those that hold a Service which is gone, and headers that nobody uses."""
        route, kube = context.route, context.kube
        for helper in self._of_app(kube, INGRESS, render.HELPER_ROLES):
            gone = all(kube.get(SERVICE, backend.service) is None for backend in render.backends_of(helper))
            if gone or _note(helper, DEPLOYMENT) == route.deployment:
                _delete(kube, INGRESS, helper)
        used = {_note(found, render.CUSTOM_HEADERS).rpartition("/")[2] for found in kube.list(INGRESS)}
        for config_map in self._of_app(kube, CONFIG_MAP, {render.ROLE_HEADERS}):
            if config_map["metadata"]["name"] not in used:
                _delete(kube, CONFIG_MAP, config_map)

    def remove(self, context: RouteContext) -> None:
        """Delete the app's Ingress, then every helper and ConfigMap of it."""
        route, kube = context.route, context.kube
        kube.delete_shared(INGRESS, route.app)
        self._watched.pop((route.namespace, route.app), None)
        for helper in self._of_app(kube, INGRESS, render.HELPER_ROLES):
            _delete(kube, INGRESS, helper)
        for config_map in self._of_app(kube, CONFIG_MAP, {render.ROLE_HEADERS}):
            _delete(kube, CONFIG_MAP, config_map)

    def fence(self, context: RouteContext) -> None:
        """Only the app's Ingress is shared between deployments; all else belongs to one of them."""
        context.kube.raise_epoch(INGRESS, context.route.app)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _put_headers(self, kube: OwnedKube, context: RouteContext) -> None:
        """The ConfigMap exists, and the API server shows it, before anything refers to it."""
        body = render.headers_config_map(context.route, self._look)
        if body is None:
            return
        self._create(kube, body, render.ROLE_HEADERS)
        if kube.get(CONFIG_MAP, body["metadata"]["name"]) is None:
            raise StepFailed(f"ConfigMap {body['metadata']['name']} was deleted by somebody while it was needed")

    def _create(self, kube: OwnedKube, body: dict[str, Any], role: str) -> dict[str, Any]:
        metadata = body["metadata"]
        metadata["annotations"] = metadata.get("annotations", {}) | kube.annotations(role)
        return kube.create(CONFIG_MAP if body["kind"] == "ConfigMap" else INGRESS, body)

    def _www_is_taken(self, context: RouteContext) -> bool:
        """True, with a line in the log, when an Ingress of this namespace has the other `www.` host."""
        other = render.other_www(context.route.host)
        for found in context.kube.list(INGRESS):
            if other in render.hosts_of(found) and found["metadata"]["name"] != context.route.app:
                context.log(f"redirectWww is left out: Ingress {found['metadata']['name']} has the host {other}")
                return True
        return False

    def _of_app(self, kube: OwnedKube, kind: Kind, roles: frozenset[str] | set[str]) -> list[dict[str, Any]]:
        found = kube.list(kind, labels=render.MANAGED_BY)
        return [item for item in found if kube.is_ours(item) and _note(item, ROLE) in roles]


def _note(found: Mapping[str, Any], key: str) -> str:
    return str((found["metadata"].get("annotations") or {}).get(key, ""))


def _delete(kube: OwnedKube, kind: Kind, found: Mapping[str, Any]) -> None:
    kube.delete(kind, found["metadata"]["name"], deployment=_note(found, DEPLOYMENT))


# --- hooks --------------------------------------------------------------------------------------------------------


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.ingress_nginx]`."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **data_plane_schema(),
            "ingress_class": {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"},
            "allowed_headers": {"type": "array", "items": {"type": "string"}},
            "ssl_redirect": {"type": "boolean"},
            "minimum_hold": {"type": "number", "minimum": 0, "maximum": 3600},
        },
    }


@hookimpl
def register_ingress_providers(settings: PluginSettings) -> Sequence[IngressProvider]:
    """The one provider. Raises SettingsError."""
    table = settings.table
    allowed = table.get("allowed_headers")
    plane = data_plane(table, "ingress_nginx")
    look = render.Look(
        ingress_class=table.get("ingress_class", "nginx"),
        ssl_redirect=table.get("ssl_redirect", True),
        allowed_headers=None if allowed is None else frozenset(name.lower() for name in allowed),
        revision_header=plane.revision_header,
    )
    return [Nginx(look, plane, float(table.get("minimum_hold", 10.0)))]

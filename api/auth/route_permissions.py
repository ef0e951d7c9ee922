"""What permissions a request needs, from the route table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import falcon

from deployer.api import http
from deployer.api.routes import ROUTES, Access, Anybody, Permission

_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class RoutePermissions:
    """Looks requests up in the route table. What is not in it needs an authenticated caller."""

    def __init__(self) -> None:
        self._routes = {route.path: route for route in ROUTES if not route.stream}
        public = [r.path for r in self._routes.values() if Anybody.EVERYBODY in r.methods.values()]
        self._public = re.compile("|".join(map(_pattern, public)) or r"(?!)")

    def of(self, method: str, template: str | None) -> Access:
        """What a method on a route needs. `template` is the route's path; None when there is no such route."""
        if method == "OPTIONS":
            return Anybody.EVERYBODY
        route = self._routes.get(template or "")
        if route is None:
            return Anybody.AUTHENTICATED
        return route.methods.get("GET" if method == "HEAD" else method, Anybody.AUTHENTICATED)

    def maybe_public(self, method: str, path: str) -> bool:
        """False when it is certain, before the path has been routed, that the caller must be known."""
        return method == "OPTIONS" or (method in ("GET", "HEAD") and self._public.fullmatch(path) is not None)

    def namespace(self, req: falcon.Request, params: Mapping[str, str]) -> str:
        """The namespace in which it is demanded, `*` for all of them; `params` are the path's. Raises Invalid."""
        route = self._routes.get(req.uri_template or "")
        if route is not None and route.freezes:
            return http.frozen_namespace(req, params.get("namespace"))
        return http.stated_namespace(req) if route is not None and route.states_namespace else http.namespace(req)

    def besides(self, req: falcon.Request) -> Iterator[Permission]:
        """What its parameters need besides."""
        route = self._routes.get(req.uri_template or "")
        for (method, name), permission in route.parameters.items() if route is not None else ():
            if method == req.method and req.params.get(name):
                yield permission

    def changes(self, method: str, template: str | None) -> Permission | None:
        """The permission to change something that the request needs; None when it changes nothing."""
        if method not in _CHANGES:
            return None
        demanded = self.of(method, template)
        route = self._routes.get(template or "")
        return demanded if route is not None and not route.dry and isinstance(demanded, Permission) else None


def _pattern(template: str) -> str:
    return re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))

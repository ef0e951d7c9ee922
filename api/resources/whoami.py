"""`/whoami`: who the caller is to the service, where they may look, and what they may do in a namespace."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Collection

import falcon

from deployer.api import http
from deployer.api.auth.access import Access
from deployer.api.routes import PERMISSIONS, Permission
from deployer.commands.freezes import EVERYWHERE
from deployer.core.model.records import Document

_LOOK = Permission("deployments", "list")


class Whoami(http.Resource):
    """What clients show and hide things by. Whether something is allowed is decided when it is asked for."""

    def __init__(self, namespaces: Callable[[], Collection[str]], access: Access | None) -> None:
        """`namespaces` gives those in which something is stored."""
        self._namespaces = namespaces
        self._access = access

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Name and namespaces; with `namespace` also what the caller may do there."""
        where = http.namespace(req) if http.text(req, "namespace") else ""
        found: Document = {}
        named: Collection[str] = ()
        caller = http.caller(req)
        if caller is not None and self._access is not None:
            found["name"] = caller.name
            if math.isfinite(caller.expires):
                end = datetime.datetime.fromtimestamp(caller.expires, datetime.UTC)
                found["expires"] = end.isoformat(timespec="seconds").replace("+00:00", "Z")
            named = self._access.named(caller)
        known = sorted({*self._namespaces(), *named} - {EVERYWHERE})
        found["namespaces"] = [name for name in known if http.may(req, _LOOK, where=name)]
        if where:
            found["namespace"] = where
            found["may"] = self._may(req, where)
        http.send(resp, found)
        http.set_tag(resp, http.tag_of(found))

    @staticmethod
    def _may(req: falcon.Request, namespace: str) -> dict[str, list[str]]:
        allowed: dict[str, list[str]] = {}
        for permission in PERMISSIONS:
            verbs = allowed.setdefault(permission.resource, [])
            if http.may(req, permission, where=namespace):
                verbs.append(permission.verb)
        return allowed

"""Authentication, authorisation and the audit log for REST, as Falcon middleware."""

from __future__ import annotations

import functools
from typing import Any

import falcon

from deployer.api import http
from deployer.api.auth import credentials
from deployer.api.auth.access import Access
from deployer.api.auth.audit import Audit
from deployer.api.auth.principal import Forbidden, Principal, Unauthenticated, Unsure
from deployer.api.auth.route_permissions import RoutePermissions
from deployer.api.fairness.callers import Callers
from deployer.api.routes import Anybody, Permission
from deployer.core import log_context

REFUSED = (401, 403)


class AuthMiddleware:
    """Lets nobody in whom the route table does not let in.

    Credentials are asked for before the path is routed, so that only callers who are known learn which paths there
    are; what the caller may do is asked once the route is known, and before anything is looked up.
    """

    def __init__(self, access: Access, permissions: RoutePermissions, callers: Callers) -> None:
        """`callers` learn of credentials that are good."""
        self._access = access
        self._demands = permissions
        self._callers = callers

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if not self._demands.maybe_public(req.method, req.path):
            self._identify(req, resp)

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, params: dict[str, Any]
    ) -> None:
        demanded = self._demands.of(req.method, req.uri_template)
        if demanded is Anybody.EVERYBODY:
            return
        caller = http.caller(req) or self._identify(req, resp)
        req.context.allows = functools.partial(self._access.allows, caller)
        if isinstance(demanded, Permission):
            try:
                namespace = self._demands.namespace(req, params)
                self._access.require(caller, demanded, namespace, str(params.get("id", "")))
                for permission in self._demands.besides(req):
                    self._access.require(caller, permission, namespace)
            except (Forbidden, Unsure) as error:
                resp.context.refusal = str(error)
                raise

    def _identify(self, req: falcon.Request, resp: falcon.Response) -> Principal:
        header = req.get_header("Authorization")
        try:
            caller = self._access.identify(credentials.from_header(header))
        except (Unauthenticated, Unsure) as error:
            resp.context.refusal = str(error)
            raise
        req.context.caller = caller
        self._callers.were_good(header or "")
        return caller


class AuditMiddleware:
    """Writes the audit log: every request that was to change something, and every refusal."""

    def __init__(self, audit: Audit, permissions: RoutePermissions) -> None:
        self._audit = audit
        self._demands = permissions

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, params: dict[str, Any]
    ) -> None:
        resp.context.id = params.get("id")
        resp.context.namespace = params.get("namespace")

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        refusal = getattr(resp.context, "refusal", None)
        permission = self._demands.changes(req.method, req.uri_template)
        if permission is None and refusal is None:
            return
        if refusal is not None:
            demanded = self._demands.of(req.method, req.uri_template)
            permission = demanded if isinstance(demanded, Permission) else None
        caller = http.caller(req)
        self._audit.note(
            who=caller.name if caller else None,
            outcome="refused" if refusal is not None else "ok" if resp.status_code < 400 else "failed",
            status=resp.status_code,
            source=req.remote_addr,
            method=req.method,
            path=req.path,
            verb=permission.verb if permission else None,
            resource=permission.resource if permission else None,
            namespace=getattr(resp.context, "namespace", None) or _one(req, "namespace"),
            app=getattr(resp.context, "app", None) or _one(req, "appname"),
            id=getattr(resp.context, "id", None),
            reason=refusal,
            request=log_context.request(),
            override=_one(req, "override") if any(self._demands.besides(req)) else None,
            freeze=getattr(resp.context, "freeze", None),
            decision=getattr(resp.context, "decision", None),
        )


def _one(req: falcon.Request, name: str) -> str | None:
    value = req.params.get(name)
    return value if isinstance(value, str) else None

"""The REST application: which resource answers where. Everything that a resource needs is handed to it here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, cast

import falcon

from deployer.api import errors, http, routes
from deployer.api.auth.access import Access
from deployer.api.auth.audit import Audit
from deployer.api.auth.middleware import AuditMiddleware, AuthMiddleware
from deployer.api.auth.route_permissions import RoutePermissions
from deployer.api.browsers.cors import CorsMiddleware
from deployer.api.browsers.hosts import AllowedHosts
from deployer.api.fairness.callers import Callers
from deployer.api.lists.answers import Streams
from deployer.api.metrics import Figures, Metrics, Timing
from deployer.api.negotiation import Negotiation
from deployer.api.openapi import document as openapi
from deployer.api.openapi import page
from deployer.api.request_id import RequestIds
from deployer.api.resources import apps as app_resources
from deployer.api.resources import deployments, descriptors, freezes, meta, whoami
from deployer.api.ui import files
from deployer.commands.approvals import ApprovalCommands
from deployer.commands.apps import AppViews
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.progress import Progress
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.model.records import Document
from deployer.redaction.redactor import Redactor

App = falcon.App[falcon.Request, falcon.Response]
T = TypeVar("T")


def create_app(
    service: DeploymentCommands,
    registry_description: Callable[[], list[Document]],
    health: Callable[[], Sequence[str]],
    metrics: Metrics | None = None,
    *,
    access: Access | None = None,
    audit: Audit | None = None,
    allowed_origins: Collection[str] = (),
    allowed_hosts: AllowedHosts | None = None,
    redactor: Redactor | None = None,
    apps: AppViews | None = None,
    replicas: Callable[[], list[Document]] = list,
    callers: Callers | None = None,
) -> App:
    """The WSGI application.

    registry_description   what `/plugins` shows, one document a plugin
    health                 why `/readyz` should say no: sentences, empty when ready; called for every request to it
    metrics                what `/metrics` shows; requests are counted there
    access                 who callers are and what they may do; without it everybody may do everything
    audit                  where who did what is noted
    allowed_hosts          what `Host` may be; loopback names only where nobody says
    allowed_origins        of web pages that may use the service beside its own
    apps                   what `/apps/` shows, and how far deployments are; without it what the store knows of that
    replicas               what `/readyz` shows of the replicas on the store, itself among them
    callers                who learn whose credentials are good
    redactor               takes secrets out of all that is not a record: problems, reasons, plugins' errors
    """
    redactor = redactor or Redactor()
    registry_description, health = _cleaned(registry_description, redactor), _cleaned(health, redactor)
    metrics = metrics or Metrics()
    openapi.check()
    document = functools.cache(lambda: openapi.build(service.descriptors.rules, secured=access is not None))
    permissions = RoutePermissions()
    middleware: list[Any] = [
        RequestIds(),
        Timing(metrics),
        AuditMiddleware(audit or Audit(), permissions),
        CorsMiddleware(allowed_origins, allowed_hosts),
    ]
    if access is not None:
        middleware.append(AuthMiddleware(access, permissions, callers or Callers()))
    app: App = falcon.App(middleware=[*middleware, Negotiation()])
    app.req_options.strip_url_path_trailing_slash = True
    # An answer without a body has no type either; the framework knows None, but does not say so.
    app.resp_options.default_media_type = None  # type: ignore[assignment]
    errors.install(app, redactor.clean)
    rollbacks = RollbackCommands(service)
    apps = apps or AppViews(service.store, Progress(service.store), frozen=service.freezes.shown_for)
    progress, streams = apps.progress, Streams()
    authentication = access.described if access else {"method": "none"}
    resources: dict[str, http.Resource] = {
        "/": meta.Start(authentication),
        "/healthz": meta.Healthz(),
        "/readyz": meta.Readyz(health, access, replicas),
        "/openapi.json": meta.Openapi(document),
        "/docs": page.Docs(document),
        "/metrics": Figures(metrics),
        "/plugins": meta.Plugins(registry_description),
        "/whoami": whoami.Whoami(service.store.namespaces, access),
        "/ui": files.Index(authentication),
        "/ui/{file}": files.Asset(),
        "/descriptors": descriptors.Descriptors(service.descriptors, streams),
        "/descriptors/validate": descriptors.Validation(service.descriptors),
        "/descriptors/{id}": descriptors.Descriptor(service.descriptors),
        "/deployments": deployments.Deployments(service, progress, streams),
        "/deployments/{id}": deployments.Deployment(service, rollbacks, progress),
        "/deployments/{id}/logs": deployments.Logs(service, streams),
        "/deployments/{id}/healthcheckdata": deployments.HealthCheckData(service),
        "/deployments/{id}/approval": deployments.Approval(service, ApprovalCommands(service.store)),
        "/rollbacks": deployments.Rollbacks(rollbacks, progress),
        "/apps": app_resources.Apps(apps),
        "/apps/{appname}": app_resources.App(apps),
        "/apps/{appname}/history": app_resources.History(apps),
        "/apps/{appname}/dataplane": app_resources.DataPlane(apps),
        "/freezes": freezes.Freezes(service.freezes),
        "/freezes/{namespace}": freezes.Freeze(service.freezes),
        "/stream/deployments/{id}/logs": meta.Stream(),
    }
    for route in routes.ROUTES:
        app.add_route(route.path, resources.pop(route.path))
    assert not resources, f"not in the route table: {', '.join(resources)}"
    return app


def _cleaned(ask: Callable[[], T], redactor: Redactor) -> Callable[[], T]:
    """The same question, and no secret in its answer."""
    return lambda: cast(T, redactor.clean_document(ask()))

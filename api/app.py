"""The REST application: which resource answers where. Everything that a resource needs is handed to it here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import falcon

from deployer.api import about, deployments, descriptors, errors, origins, routes, wire
from deployer.core.records import Document
from deployer.core.redaction import Redactor
from deployer.core.service import Service

App = falcon.App[falcon.Request, falcon.Response]
T = TypeVar("T")


def create_app(
    service: Service,
    registry_description: Callable[[], list[Document]],
    health: Callable[[], Sequence[str]],
    *,
    redactor: Redactor | None = None,
) -> App:
    """The WSGI application.

    registry_description   what `/plugins` shows, one document a plugin
    health                 why `/readyz` should say no: sentences, empty when ready; called for every request to it
    redactor               takes secrets out of all that is not a record: problems, reasons, plugins' errors
    """
    redactor = redactor or Redactor()
    registry_description, health = _cleaned(registry_description, redactor), _cleaned(health, redactor)
    app: App = falcon.App(middleware=[_Guard()])
    app.req_options.strip_url_path_trailing_slash = True
    errors.install(app, redactor.clean)
    resources: dict[str, wire.Resource] = {
        "/": about.Start(),
        "/healthz": about.Healthz(),
        "/readyz": about.Readyz(health),
        "/plugins": about.Plugins(registry_description),
        "/descriptors": descriptors.Descriptors(service),
        "/descriptors/validate": descriptors.Validation(service),
        "/descriptors/{id}": descriptors.Descriptor(service),
        "/deployments": deployments.Deployments(service),
        "/deployments/{id}": deployments.Deployment(service),
        "/deployments/{id}/logs": deployments.Logs(service),
        "/deployments/{id}/healthcheckdata": deployments.HealthCheckData(service),
    }
    for route in routes.ROUTES:
        if not route.stream:
            app.add_route(route.path, resources.pop(route.path))
    assert not resources, f"not in the route table: {', '.join(resources)}"
    return app


def _cleaned(ask: Callable[[], T], redactor: Redactor) -> Callable[[], T]:
    """The same question, and no secret in its answer."""
    return lambda: cast(T, redactor.clean_document(ask()))


class _Guard:
    """Refuses what pages of other origins send, and has browsers neither guess what a log might be nor keep it."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        origin = req.get_header("Origin")
        if origins.foreign(origin, req.get_header("Host")):
            raise falcon.HTTPForbidden(description=origins.REFUSAL.format(ascii(origin)[:200]))

    def process_response(self, _req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Cache-Control", "no-store")

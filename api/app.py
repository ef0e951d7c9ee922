"""The REST application: which resource answers where. Everything that a resource needs is handed to it here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import falcon

from deployer.api import about, deployments, descriptors, errors, openapi, origins, page, routes, wire
from deployer.api.metrics import Figures, Metrics, Timing
from deployer.api.negotiation import Negotiation
from deployer.core.records import Document
from deployer.core.service import Service

App = falcon.App[falcon.Request, falcon.Response]


def create_app(
    service: Service,
    registry_description: Callable[[], list[Document]],
    health: Callable[[], Sequence[str]],
    metrics: Metrics | None = None,
    *,
    secured: bool = False,
) -> App:
    """The WSGI application.

    registry_description   what `/plugins` shows, one document a plugin
    health                 why `/readyz` should say no: sentences, empty when ready; called for every request to it
    metrics                what `/metrics` shows; requests are counted there
    secured                whether the OpenAPI document says that callers need a bearer token
    """
    metrics = metrics or Metrics()
    openapi.check()
    document = functools.cache(lambda: openapi.build(service.rules, secured=secured))
    app: App = falcon.App(middleware=[Timing(metrics), _Guard(), Negotiation()])
    app.req_options.strip_url_path_trailing_slash = True
    errors.install(app)
    resources: dict[str, wire.Resource] = {
        "/": about.Start(),
        "/healthz": about.Healthz(),
        "/readyz": about.Readyz(health),
        "/openapi.json": about.Openapi(document),
        "/docs": page.Docs(document),
        "/metrics": Figures(metrics),
        "/plugins": about.Plugins(registry_description),
        "/descriptors": descriptors.Descriptors(service),
        "/descriptors/validate": descriptors.Validation(service),
        "/descriptors/{id}": descriptors.Descriptor(service),
        "/deployments": deployments.Deployments(service),
        "/deployments/{id}": deployments.Deployment(service),
        "/deployments/{id}/logs": deployments.Logs(service),
        "/deployments/{id}/healthcheckdata": deployments.HealthCheckData(service),
        "/stream/deployments/{id}/logs": about.Stream(),
    }
    for route in routes.ROUTES:
        app.add_route(route.path, resources.pop(route.path))
    assert not resources, f"not in the route table: {', '.join(resources)}"
    return app


class _Guard:
    """Refuses what pages of other origins send, and has browsers neither guess what a log might be nor keep it."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        origin = req.get_header("Origin")
        if origins.foreign(origin, req.get_header("Host")):
            raise falcon.HTTPForbidden(description=origins.REFUSAL.format(ascii(origin)[:200]))

    def process_response(self, _req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Cache-Control", "no-store")

"""The REST application: which resource answers where. Everything that a resource needs is handed to it here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import falcon

from deployer.api import about, deployments, descriptors, errors, origins
from deployer.core.records import Document
from deployer.core.service import Service

App = falcon.App[falcon.Request, falcon.Response]


def create_app(
    service: Service,
    registry_description: Callable[[], list[Document]],
    health: Callable[[], Sequence[str]],
) -> App:
    """The WSGI application.

    registry_description   what `/plugins` shows, one document a plugin
    health                 why `/readyz` should say no: sentences, empty when ready; called for every request to it
    """
    app: App = falcon.App(middleware=[_Guard()])
    app.req_options.strip_url_path_trailing_slash = True
    errors.install(app)
    app.add_route("/", about.Start())
    app.add_route("/healthz", about.Healthz())
    app.add_route("/readyz", about.Readyz(health))
    app.add_route("/plugins", about.Plugins(registry_description))
    app.add_route("/descriptors", descriptors.Descriptors(service))
    app.add_route("/descriptors/validate", descriptors.Validation(service))
    app.add_route("/descriptors/{id}", descriptors.Descriptor(service))
    app.add_route("/deployments", deployments.Deployments(service))
    app.add_route("/deployments/{id}", deployments.Deployment(service))
    app.add_route("/deployments/{id}/logs", deployments.Logs(service))
    app.add_route("/deployments/{id}/healthcheckdata", deployments.HealthCheckData(service))
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

"""`/`, `/healthz`, `/readyz`, `/plugins`: what this service is and how it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import falcon

import deployer
from deployer.api import http, negotiation
from deployer.api.auth import credentials
from deployer.api.auth.access import Access
from deployer.api.auth.principal import Unauthenticated, Unsure
from deployer.api.errors import MEDIA_TYPE, problem
from deployer.api.openapi import page
from deployer.api.resources import start
from deployer.core.errors import Problem
from deployer.core.model.records import Document

NO_WEBSOCKET = "this is a WebSocket; open it with a WebSocket client"
"""What a request for the log stream is told that asks for no WebSocket."""

_LINKS = {
    "descriptors": "/descriptors/?namespace={namespace}",
    "validate": "/descriptors/validate?namespace={namespace}",
    "deployments": "/deployments/?namespace={namespace}",
    "logs": "/deployments/{id}/logs?namespace={namespace}",
    "healthcheckdata": "/deployments/{id}/healthcheckdata?namespace={namespace}",
    "freezes": "/freezes/?namespace={namespace}",
    "stream": "/stream/deployments/{id}/logs?namespace={namespace}",
    "plugins": "/plugins",
    "metrics": "/metrics",
    "openapi": "/openapi.json",
    "docs": "/docs",
    "health": "/healthz",
    "readiness": "/readyz",
}


class Start(http.Resource):
    """The service itself."""

    def __init__(self, *, secured: bool) -> None:
        """`secured`: callers need a token."""
        self._page = start.start(secured)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Name, version and where to go from here; the links are templates (RFC 6570, level 1).

        For a browser it is a page.
        """
        resp.set_header("Vary", "Accept")
        if negotiation.prefers_html(req.get_header("Accept")):
            page.send(resp, self._page)
            return
        http.send(resp, {"service": "deployer", "version": deployer.__version__, "links": _LINKS})


class Healthz(http.Resource):
    """Liveness: the process answers. It asks nothing, so that a slow store gets nobody restarted."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Always 200."""
        http.send(resp, {"status": "ok"})


class Readyz(http.Resource):
    """Readiness: deployments can be taken and carried out."""

    def __init__(self, health: Callable[[], Sequence[str]], access: Access | None = None) -> None:
        self._health = health
        self._access = access

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200, or 503 with every reason. A kubelet has no credentials; the reasons are for those who have."""
        reasons = self._health()
        if not reasons:
            http.send(resp, {"status": "ready"})
            return
        if not self._known(req):
            reasons = ["not ready; callers with credentials are told why, and the service's log says it"]
        resp.status = 503
        resp.content_type = MEDIA_TYPE
        resp.data = problem(503, "; ".join(reasons), [Problem("", reason) for reason in reasons])

    def _known(self, req: falcon.Request) -> bool:
        if self._access is None:
            return True
        try:
            self._access.identify(credentials.from_header(req.get_header("Authorization")))
        except (Unauthenticated, Unsure):
            return False
        return True


class Plugins(http.Resource):
    """The plugins that were found, quarantined ones with the reason."""

    def __init__(self, describe: Callable[[], list[Document]]) -> None:
        self._describe = describe

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """All of them, in the order of loading."""
        http.send(resp, self._describe())


class Stream(http.Resource):
    """What REST says where the log stream is: `server.py` gives whoever asks for a stream to `stream.py`."""

    def on_get(self, _req: falcon.Request, _resp: falcon.Response, id: str) -> None:
        """426: no WebSocket was asked for. (Its header `Upgrade` is one that WSGI cannot send.)"""
        raise falcon.HTTPError(426, description=NO_WEBSOCKET)


class Openapi(http.Resource):
    """The OpenAPI document."""

    def __init__(self, build: Callable[[], Document]) -> None:
        self._build = build

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """The document."""
        http.send(resp, self._build())

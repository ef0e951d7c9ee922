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
    "apps": "/apps/?namespace={namespace}",
    "whoami": "/whoami",
    "page": "/ui/",
    "plugins": "/plugins",
    "metrics": "/metrics",
    "openapi": "/openapi.json",
    "docs": "/docs",
    "health": "/healthz",
    "readiness": "/readyz",
}


class Start(http.Resource):
    """The service itself."""

    def __init__(self, authentication: Document) -> None:
        """`authentication` says how callers prove who they are."""
        self._authentication = authentication

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Name, version, how to log in, and where to go from here; the links are templates (RFC 6570, level 1).

        A browser goes on to the page. That is relative, as the service may be behind a prefix that it does not know.
        """
        resp.set_header("Vary", "Accept")
        if negotiation.prefers_html(req.get_header("Accept")):
            resp.status = 302
            resp.set_header("Location", "ui/")
            return
        what = {"service": "deployer", "version": deployer.__version__, "authentication": self._authentication}
        http.send(resp, what | {"links": _LINKS})


class Healthz(http.Resource):
    """Liveness: the process answers. It asks nothing, so that a slow store gets nobody restarted."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Always 200."""
        http.send(resp, {"status": "ok"})


class Readyz(http.Resource):
    """Readiness: deployments can be taken and carried out."""

    def __init__(
        self,
        health: Callable[[], Sequence[str]],
        access: Access | None = None,
        replicas: Callable[[], list[Document]] = list,
    ) -> None:
        self._health = health
        self._access = access
        self._replicas = replicas

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200, with the replicas where there are several, or 503 with every reason. A kubelet has no credentials; what
        is said besides the status is for those who have."""
        reasons = self._health()
        if not reasons:
            replicas = self._replicas()
            shown = {"replicas": replicas} if len(replicas) > 1 and self._known(req) else {}
            http.send(resp, {"status": "ready", **shown})
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

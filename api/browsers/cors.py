"""What holds for every answer: pages of other origins are refused or told what they may do, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Collection

import falcon

from deployer.api.browsers import hosts, origins
from deployer.api.browsers.hosts import AllowedHosts
from deployer.api.openapi.document import HEADERS
from deployer.api.openapi.operations import OPERATIONS

# What the API takes and gives; of what browsers allow anyway (Fetch, 2.2.2), `Accept` is not for every value.
_ALLOWED_HEADERS = ", ".join(
    sorted(
        {"Accept", "Authorization", "Content-Type", "X-Request-Id", "traceparent"}
        | {p.name for operation in OPERATIONS.values() for p in operation.parameters if p.where == "header"}
    )
)
_EXPOSED_HEADERS = ", ".join(sorted({"Allow", "X-Request-Id", *HEADERS}))
_GOOD_FOR = "600"  # seconds for which a browser need not ask again


class CorsMiddleware:
    """Refuses what is for other hosts or comes from pages of other origins, and has browsers neither guess what a log
    might be nor keep it.

    Pages of `allowed` origins are answered as the Fetch standard wants it (CORS), without cookies: there are none.
    """

    def __init__(self, allowed: Collection[str] = (), allowed_hosts: AllowedHosts | None = None) -> None:
        """Without `allowed_hosts` only loopback names are."""
        self._allowed = frozenset(allowed)
        self._hosts = allowed_hosts or AllowedHosts()

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        host = req.env.get("HTTP_HOST")  # which may be empty, unlike the framework's idea of it
        if not self._hosts.admits(host):
            resp.context.refusal = hosts.REFUSAL
            # Not 403: no credentials would help, but another name would (RFC 9110, 7.4 and 15.5.20).
            raise falcon.HTTPError(421, description=hosts.REFUSAL)
        if origins.foreign(req.get_header("Origin"), host, self._allowed):
            resp.context.refusal = origins.REFUSAL
            raise falcon.HTTPForbidden(description=origins.REFUSAL)

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")
        if self._allowed:
            self._cross_origin(req, resp)

    def _cross_origin(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.append_header("Vary", "Origin")
        origin = req.get_header("Origin")
        if origin is None or origin not in self._allowed:
            return
        resp.set_header("Access-Control-Allow-Origin", origin)
        if req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method"):
            resp.set_header("Access-Control-Allow-Methods", resp.get_header("Allow") or "")
            resp.set_header("Access-Control-Allow-Headers", _ALLOWED_HEADERS)
            resp.set_header("Access-Control-Max-Age", _GOOD_FOR)
        else:
            resp.set_header("Access-Control-Expose-Headers", _EXPOSED_HEADERS)

"""What holds for every answer: pages of other origins are refused or told what they may do, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Collection

import falcon

from deployer.api import origins

_ALLOWED_HEADERS = "Authorization, Content-Type, If-Match"
_EXPOSED_HEADERS = "ETag, Location, Retry-After, WWW-Authenticate"
_GOOD_FOR = "600"  # seconds for which a browser need not ask again


class Guard:
    """Refuses what pages of other origins send, and has browsers neither guess what a log might be nor keep it.

    Pages of `allowed` origins are answered as the Fetch standard wants it (CORS), without cookies: there are none.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(allowed)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        origin = req.get_header("Origin")
        if origins.foreign(origin, req.get_header("Host"), self._allowed):
            resp.context.refusal = origins.REFUSAL
            raise falcon.HTTPForbidden(description=origins.REFUSAL)

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        resp.set_header("X-Content-Type-Options", "nosniff")
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

"""What a request may ask for: methods, media types and parameters that the route knows. A middleware of the app."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import falcon
from falcon.constants import COMBINED_METHODS
from falcon.util import mediatypes

from deployer.api import http
from deployer.api.openapi.operations import OPERATIONS
from deployer.api.openapi.parts import HTML, JSON
from deployer.core.errors import Invalid, Problem

_METHODS = frozenset(COMBINED_METHODS)

# A media range that is not wanted (RFC 9110, 12.4.2). Every other one is answered with what there is: clients of the
# original ask for text or HTML and take JSON, and Java's `*; q=.2` asks for nothing that could be understood.
_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*(;|$)", re.IGNORECASE)


class Negotiation:
    """Refuses, before anything is done, what could not be answered and what was meant otherwise."""

    def __init__(self) -> None:
        self._parameters: Mapping[tuple[str, str], frozenset[str]] = {
            key: operation.query for key, operation in OPERATIONS.items()
        }

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Unknown methods are a 501 (RFC 9110, 9.1); those that are only not possible here become a 405."""
        if req.method not in _METHODS:
            raise falcon.HTTPError(501, description="this method does not exist")

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """What the client has already becomes a 304."""
        if http.known(req, resp):
            resp.status = 304
            resp.data = None

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, _resource: object, _params: Any) -> None:
        """Raises a 406, or Invalid for a parameter that differs from one of the route's only in its spelling."""
        template = req.uri_template
        if template is None:
            return
        key = (template, "GET" if req.method == "HEAD" else req.method)
        known = self._parameters.get(key)
        if known is None:
            return  # a 405, or OPTIONS
        if all(map(_REFUSED.search, (req.get_header("Accept") or "*/*").split(","))):
            raise falcon.HTTPNotAcceptable(description="Accept rules out every answer (q=0); leave it out, or q=0")
        if not known.issuperset(req.params):
            refuse_misspelled(req.params, known)


def prefers_html(accept: str | None) -> bool:
    """True for browsers: HTML is wanted more than JSON."""
    if not accept or "html" not in accept:
        return False
    return _quality(HTML, accept) > _quality(JSON, accept)


def _quality(media: str, accept: str) -> float:
    """How much it is wanted, from 0 to 1. What cannot be understood, such as Java's `*; q=.2`, is wanted least."""
    try:
        return mediatypes.quality(media, accept)
    except falcon.InvalidMediaType:
        return 0.001


def refuse_misspelled(params: Mapping[str, Any], known: frozenset[str]) -> None:
    """Raises Invalid for a parameter that differs from a `known` one only in its spelling."""
    folded = {name.lower(): name for name in known}
    for name in params:
        meant = folded.get(name.lower().replace("_", "").replace("-", ""))
        if meant is not None and name not in known:
            raise Invalid([Problem(meant, "is misspelled; names of parameters are case-sensitive")])

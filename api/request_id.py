"""The id by which a request is known in answers, logs, and all operations that follow from it."""

from __future__ import annotations

import re
import uuid

import falcon

from deployer.core import log_context

HEADER = "X-Request-Id"

_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
# A JSON Web Token is no id, and must stand in no log.
_TOKEN = re.compile(r"eyJ[\w-]{10,}")


def request_id(given: str | None, traceparent: str | None) -> str:
    """The caller's own `X-Request-Id`, else the trace id of `traceparent` (W3C Trace Context, 3.2), else a new one.

    What is longer than 128 characters, or has others than letters, digits and `._:/+=@-`, is none of these.
    """
    if given and _GIVEN.fullmatch(given) and not _TOKEN.search(given):
        return given
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match and not (match.group(0).startswith("00") and match.group(2)):  # only later versions may have more fields
        return match.group(1)
    return uuid.uuid4().hex


class RequestIds:
    """A middleware that names each request. It is the outermost, so that no line of the log is without."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Name it."""
        id = request_id(req.get_header(HEADER), req.get_header("traceparent"))
        log_context.begin(request=id)
        resp.set_header(HEADER, id)

    def process_response(self, _req: falcon.Request, _resp: falcon.Response, _resource: object, _ok: bool) -> None:
        """The thread answers somebody else next."""
        log_context.begin()

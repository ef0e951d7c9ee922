"""The rules of the API server's pod proxy: what may be sent through it, and which answers are not the pod's.

A request for a pod carries the Deployer's credentials as far as the API server. So it must not be able to become
another request on the way (`/../..` would reach any object), nor say anything that is meant for the API server.

Read in Kubernetes' source and tried on v1.34: the API server takes `Authorization` away and adds `X-Forwarded-For` and
`X-Forwarded-Uri`; it decodes and cleans the path, rewrites a `Location` on the pod's own host and the links of
`text/html`, and passes 1xx answers on. It follows no redirect, and unpacks nothing when it is asked for `identity`.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping

from deployer.core.errors import KubeRejected
from deployer.kube.http.transport import Answer

RIGHTS = {"GET": "get", "HEAD": "get", "OPTIONS": "get", "POST": "create", "PUT": "update", "DELETE": "delete"}
"""The right on `pods/proxy` that a method needs: https://kubernetes.io/docs/reference/access-authn-authz/authorization/"""

_UNRESERVED = r"[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}"
_PATH = re.compile(rf"((?:/(?:{_UNRESERVED})+)*/?)(?:\?(?:{_UNRESERVED}|[/?])*)?")

# What the API server, or something in front of it, takes for itself or for the connection.
_NOT_FOR_THE_POD = re.compile(
    r"(authorization|host|impersonate-.*|x-remote-.*|proxy-.*|upgrade|te|trailer|transfer-encoding|expect|keep-alive)",
    re.IGNORECASE,
)
_NOBODY_BETWEEN = re.compile(
    r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*|localhost|kubernetes(\.default(\.svc(\.cluster\.local)?)?)?"
)
_STATUS = b'{"kind":"Status","apiVersion":"v1"'
# Errors that the API server does not put into a Status (k8s.io/apiserver v0.34: server/filters, responsewriters).
_PLAIN = {
    429: (b"Too many requests, please try again", b"The apiserver is shutting down"),
    500: (b"This request caused apiserver to panic", b'Internal Server Error: "'),
}


def check(path: str, method: str, headers: Mapping[str, str]) -> None:
    """Raise KubeRejected unless this request reaches the pod as it is."""
    if method not in RIGHTS:
        raise KubeRejected(f"the API server passes no {method} on to pods", status=400)
    found = _PATH.fullmatch(path)
    segments = [urllib.parse.unquote(segment) for segment in found[1].split("/")] if path and found else ["."]
    # An escaped slash or percent sign is unescaped on the way, by how many is not known.
    if any(segment in (".", "..") or re.search(r"[/\\%]", segment) for segment in segments):
        raise KubeRejected(f"the path {path!r} would be changed on its way through the API server", status=400)
    for name in headers:
        if _NOT_FOR_THE_POD.fullmatch(name):
            raise KubeRejected(f"a header {name} would be meant for the API server, not for the pod", status=400)


def check_host(address: str) -> None:
    """Raise KubeRejected when another `Host` than that of `address` may lead a request elsewhere.

    The API server does not look at it, but what stands in front of one may: an ingress that leads to it by name would
    send the request, and the Deployer's credentials in it, to whoever has the other name. So it takes an IP address, or
    a name that no such thing has.
    """
    url = urllib.parse.urlsplit(address)
    if url.path in ("", "/") and _NOBODY_BETWEEN.fullmatch(url.hostname or ""):
        return
    raise KubeRejected(
        "healthCheckHost cannot be sent through an API server that is reached by a name or a path, as it might be "
        'routed elsewhere; set health_via to "direct", or name the API server by its IP address',
        status=400,
    )


def is_own(method: str, answer: Answer) -> bool:
    """True for an error of the API server itself, or what looks like one. That of a HEAD has no body to look at."""
    if answer.status < 400 or method == "HEAD":
        return answer.status >= 400
    if answer.body.startswith((_STATUS, *_PLAIN.get(answer.status, ()))):
        return True
    try:
        status = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(status, dict) and status.get("kind") == "Status" and status.get("status") == "Failure"

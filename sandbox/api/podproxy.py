"""The subresource `proxy` of pods: HTTP to a pod's port, passed on by the API server."""

import logging
import posixpath
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from deployer.sandbox import status
from deployer.sandbox.dataplane.ingress import FAILURES, HOP_BY_HOP, answer_headers, pass_on, proxy_session
from deployer.sandbox.kinds import POD, Key
from deployer.sandbox.store import Store

log = logging.getLogger("sandbox")

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
# The API server keeps the credentials, and what it sets itself.
KEPT = HOP_BY_HOP | {"authorization", "content-length", "expect", "x-forwarded-uri"}


class PodProxy:
    """Passes requests on. Redirects are not followed, answers not unpacked; links in HTML are not rewritten."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session = proxy_session()

    async def close(self) -> None:
        await self._session.close()

    async def handle(self, request: web.BaseRequest, key: Key) -> web.StreamResponse:
        """`key` is the namespace and `name:port` or `name`. Raises ApiError."""
        if request.method not in METHODS:
            raise status.method_not_allowed()
        if "Upgrade" in request.headers:
            raise status.not_supported("upgraded connections to pods")
        address, port = self._find(key)
        raw, _, query = request.raw_path.partition("?")
        prefix, _, path = raw.partition("/proxy")
        path = posixpath.normpath(f"/{path.lstrip('/')}") + ("/" if path.endswith("/") and path.strip("/") else "")
        url = URL(f"http://{address}:{port}{path}" + (f"?{query}" if query else ""), encoded=True)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in KEPT]
        headers += [("X-Forwarded-For", request.remote or ""), ("X-Forwarded-Uri", f"{prefix}/proxy{path}")]
        body = await request.read()
        try:
            send = self._session.request(request.method, url, headers=headers, data=body or None, allow_redirects=False)
            async with send as answer:
                fields = answer_headers(answer.headers)
                if "Location" in fields:
                    fields["Location"] = _location(fields["Location"], f"{address}:{port}", f"{prefix}/proxy")
                return await pass_on(request, answer, fields)
        except FAILURES as error:
            log.info("pod proxy: %s %s: %r", request.method, url, error)
            raise _not_reached(address, port, error) from None

    def _find(self, key: Key) -> tuple[str, int]:
        """Address and port of the pod."""
        namespace, (name, _, port) = key[0], key[1].partition(":")
        pod = self._store.get(POD, namespace, name)
        if not port:
            port = str(next((p["containerPort"] for c in pod["spec"]["containers"] for p in c.get("ports", ())), 80))
        if not port.isdigit():
            raise status.not_supported(f"schemes and names of ports in the pod proxy ({key[1]})")
        address = pod["status"].get("podIP")
        if not address:
            raise status.bad_request("address not allowed")
        return address, int(port)


def _location(given: str, pod: str, prefix: str) -> str:
    """A redirect on the pod itself stays behind the proxy; others are left as they are."""
    parts = urlsplit(given)
    if parts.netloc not in ("", pod) or not parts.path.startswith("/"):
        return given
    return parts._replace(scheme="", netloc="", path=f"{prefix}{parts.path}").geturl()


def _not_reached(address: str, port: int, error: Exception) -> status.ApiError:
    """The API server's words are Go's."""
    reason = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        words = "connection refused" if isinstance(error.os_error, ConnectionRefusedError) else error.os_error.strerror
        reason = f"dial tcp {address}:{port}: connect: {words}"
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        reason = "EOF"
    return status.ApiError(503, "ServiceUnavailable", f"error trying to reach service: {reason}")

"""The ingress: a real HTTP proxy that follows Ingress objects late, as controllers of class nginx do, and HTTPRoutes.

Conditions of an HTTPRoute are written at once, traffic follows later. An Ingress mostly wins over an HTTPRoute.
"""

import asyncio
import dataclasses
import hashlib
import itertools
import logging
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from deployer.sandbox.dataplane import httproutes, routes
from deployer.sandbox.kinds import ENDPOINT_SLICE, GATEWAY, HTTP_ROUTE, INGRESS, SERVICE, Object, key_of
from deployer.sandbox.recorder import Recorder
from deployer.sandbox.store import Change, Store

log = logging.getLogger("sandbox")

COALESCE = 0.02
"""Seconds in which changes are gathered into one snapshot."""
LONGEST_BODY = 1024 * 1024
"""Bytes of a request; the default of ingress-nginx (`proxy-body-size`)."""
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 60.0
FAILURES = (aiohttp.ClientError, OSError, TimeoutError)
WHOLE = 64 * 1024
"""Bytes of an answer that are passed on in one piece; longer ones stream."""
FOLLOWED = (INGRESS, SERVICE, ENDPOINT_SLICE, GATEWAY, HTTP_ROUTE)
HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
TEXTS = {
    404: "404 Not Found",
    413: "413 Request Entity Too Large",
    500: "500 Internal Server Error",
    501: "501 Not Implemented",
    502: "502 Bad Gateway",
}
TEXTS |= {503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out", 308: "308 Permanent Redirect"}
TEXTS |= {301: "301 Moved Permanently", 302: "302 Found"}


class Follower:
    """Takes a snapshot of the objects shortly after a change and lets it count `delay` seconds later."""

    def __init__(self, store: Store, delay: float) -> None:
        self._store, self._delay = store, delay
        self._events = Recorder(store, "nginx-ingress-controller")
        self._read: dict[str, tuple[str, routes.Annotations]] = {}
        self._pending = False
        self._built = self.config = routes.Config()
        store.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        if change.kind in FOLLOWED and not self._pending:
            self._pending = True
            asyncio.get_running_loop().call_later(COALESCE, self._snapshot)

    def _snapshot(self) -> None:
        self._pending = False
        ingresses = routes.oldest_first(self._store)
        synced = [ingress for ingress in ingresses if self._read_annotations(ingress)]
        present = {ingress["metadata"]["uid"] for ingress in ingresses}
        self._read = {uid: read for uid, read in self._read.items() if uid in present}
        for key, parents in httproutes.statuses(self._store):
            self._store.change(HTTP_ROUTE, key, lambda route, parents=parents: httproutes.write(route, parents))  # type: ignore[misc]
        config = routes.build(self._store, {uid: read for uid, (_, read) in self._read.items()})
        if config != self._built or synced:
            self._built = config
            asyncio.get_running_loop().call_later(self._delay, self._apply, config, synced)

    def _read_annotations(self, ingress: Object) -> bool:
        """True when the Ingress is new or changed: only then are its annotations and their ConfigMap read."""
        uid, mark = ingress["metadata"]["uid"], routes.fingerprint(ingress)
        if uid in self._read and self._read[uid][0] == mark:
            return False
        self._read[uid] = mark, routes.annotations(self._store, ingress)
        return True

    def _apply(self, config: routes.Config, synced: list[Object]) -> None:
        self.config = config
        for ingress in synced:
            if self._store.find(INGRESS, *key_of(ingress)) is None:
                continue
            self._events.normal(INGRESS, ingress, "Sync", "Scheduled for sync")
            self._store.change(INGRESS, key_of(ingress), _publish_address)
            _, read = self._read.get(ingress["metadata"]["uid"], ("", routes.Annotations()))
            if read.broken:
                self._events.warning(
                    INGRESS, ingress, "AnnotationParsingFailed", f"Error parsing annotations: {read.broken}"
                )
            for name in read.unknown:
                self._events.warning(
                    INGRESS,
                    ingress,
                    "NotSupported",
                    f"annotation {routes.PREFIX}{name} is not supported by the sandbox",
                )
            if ingress["spec"].get("tls"):
                self._events.warning(
                    INGRESS,
                    ingress,
                    "NotSupported",
                    "spec.tls is not supported by the sandbox: it serves plain HTTP only",
                )


def _publish_address(ingress: Object) -> None:
    ingress["status"] = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}


class Proxy:
    """Answers requests by the configuration that counts now; one under way ends by the one that it began with."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._turns: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        self._session = proxy_session()

    async def close(self) -> None:
        await self._session.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        config, host = self._follower.config, (request.headers.get("Host") or "").partition(":")[0].lower()
        if host in config.redirects:
            port = (request.headers.get("Host") or "").partition(":")[2]
            target = config.redirects[host] + (f":{port}" if port else "")
            return _page(308, {"Location": f"http://{target}{request.raw_path}"})
        location = config.find(host, request.path)
        match = httproutes.find(config.gateway, host, request.path, request.headers)
        if match is not None and (location is None or match.beats_ingress(host)):
            return await self._route(request, match, host)
        if location is None:
            return _page(404)
        if location.annotations.broken or not location.addresses:
            return _page(503)
        address, cookie = self._choose(_divided(location, request), request.cookies)
        added = [*location.annotations.headers, *([("Set-Cookie", cookie)] if cookie else [])]
        return await self._forward(request, address, added)

    async def _route(self, request: web.BaseRequest, match: httproutes.Match, host: str) -> web.StreamResponse:
        """By an HTTPRoute: a redirect, or a backend by its weight."""
        if match.redirect is not None:
            port = (request.headers.get("Host") or "").partition(":")[2]
            target = match.location(host, f":{port}" if port else "", request.raw_path)
            return _page(int(dict(match.redirect)["statusCode"]), {"Location": target})
        chosen = match.choose()
        if chosen is None or chosen.missing:
            return _page(500)
        if not chosen.addresses:
            return _page(503)
        address = chosen.addresses[next(self._turns[chosen.service]) % len(chosen.addresses)]
        return await self._forward(request, address, match.added)

    def _choose(self, location: routes.Location, cookies: Mapping[str, str]) -> tuple[routes.Address, str]:
        """The address for a request, and the Set-Cookie value that keeps the client there."""
        name, addresses = location.annotations.cookie, location.addresses
        if name:
            known = {_cookie_value(address): address for address in addresses}
            if cookies.get(name) in known:
                return known[cookies[name]], ""
        address = addresses[next(self._turns[location.service]) % len(addresses)]
        if not name:
            return address, ""
        age = location.annotations.cookie_max_age
        return address, f"{name}={_cookie_value(address)}; Path=/; HttpOnly" + (f"; Max-Age={age}" if age else "")

    async def _forward(
        self, request: web.BaseRequest, address: routes.Address, added: Iterable[tuple[str, str]]
    ) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return _page(501)  # upgraded connections are not proxied here
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _page(413)
        url = URL(f"http://{address[0]}:{address[1]}{request.raw_path}", encoded=True)
        try:
            send = self._session.request(
                request.method, url, headers=_request_headers(request), data=body or None, allow_redirects=False
            )
            async with send as answer:
                headers = answer_headers(answer.headers)
                headers.extend(added)
                return await pass_on(request, answer, headers)
        except FAILURES as error:
            # No other address is tried: a request that goes to a removed pod is lost, and is seen to be.
            log.info("ingress: %s %s to %s:%d: %r", request.method, request.path, *address, error)
            return _page(504 if isinstance(error, TimeoutError) else 502)


def _divided(location: routes.Location, request: web.BaseRequest) -> routes.Location:
    """The location as it is for this request: with a canary's addresses when that takes it. A client whose cookie names
    an address stays there, and a canary without addresses takes nothing."""
    canary = location.canary
    if canary is None or not canary.addresses:
        return location
    kept = request.cookies.get(location.annotations.cookie) if location.annotations.cookie else None
    stays = kept is not None and kept in {_cookie_value(address) for address in location.addresses}
    follows = kept is not None and kept in {_cookie_value(address) for address in canary.addresses}
    if follows or (not stays and canary.rule.takes(request.headers, request.cookies)):
        return dataclasses.replace(location, service=canary.service, addresses=canary.addresses)
    return location


def proxy_session() -> aiohttp.ClientSession:
    """What passes requests on to pods as they are."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


async def pass_on(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, headers: "CIMultiDict[str]"
) -> web.StreamResponse:
    """Gives a pod's answer to the client. Raises one of FAILURES only when nothing was sent yet."""
    if answer.content_length is not None and answer.content_length <= WHOLE:
        content = await answer.read()
        return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=content)
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except FAILURES as error:
        log.info("%s %s broke off: %r", request.method, request.path, error)
        if request.transport:
            request.transport.abort()  # half an answer must not look like a whole one
    return response


def _cookie_value(address: routes.Address) -> str:
    return hashlib.sha256(f"{address[0]}:{address[1]}".encode()).hexdigest()[:32]


def _request_headers(request: web.BaseRequest) -> "CIMultiDict[str]":
    named = {part.strip().lower() for part in request.headers.get("Connection", "").split(",")}
    dropped = (
        HOP_BY_HOP
        | named
        | {"content-length", "expect", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
    )
    headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in dropped)
    remote = request.remote or ""
    headers.extend({"X-Real-IP": remote, "X-Forwarded-For": remote, "X-Forwarded-Proto": "http"})
    headers.extend({"X-Forwarded-Host": request.headers.get("Host", "")})
    headers.setdefault("X-Request-ID", uuid.uuid4().hex)
    return headers


def answer_headers(given: Mapping[str, str]) -> "CIMultiDict[str]":
    named = {part.strip().lower() for part in given.get("Connection", "").split(",")}
    dropped = HOP_BY_HOP | named | {"content-length"}
    return CIMultiDict((name, value) for name, value in given.items() if name.lower() not in dropped)


def _page(code: int, headers: Mapping[str, str] | None = None) -> web.Response:
    text = f"{TEXTS[code]} (the sandbox's ingress)\n"
    return web.Response(status=code, text=text, headers=headers)

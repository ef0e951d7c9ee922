"""A service that exists in a browser alone: the page's real files, and whatever a test has it answer."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Page, Route, WebSocketRoute

from deployer.api.ui.files import INDEX, files, policy

URL = "https://deployer.test/some/prefix"
"""Where it is: on HTTPS, as browsers want it for logging in, and behind a prefix that a proxy takes off."""

ISSUER = "https://idp.test/realms/dev"

RIGHTS = {
    "descriptors": ["list", "create", "deletecollection", "get", "update", "delete"],
    "deployments": ["list", "create", "deletecollection", "get", "delete", "approve", "rollback"],
    "freezes": ["list", "get", "update", "delete", "override"],
}


@dataclass
class FakeService:
    """Answers the requests of one page.

    answers   by path below the service; a function is called with the request's query
    token     what callers must send; without one everybody is let in
    down      nothing is answered
    asked     each request to the API: method, path, and the status of the answer
    log       messages that the log stream begins with
    links     by path below the service and its query: what `Link` of a 200 leads to next; a 304 has none
    """

    page: Page
    answers: dict[str, Any] = field(default_factory=dict)
    method: str = "none"
    token: str = ""
    issuers: list[dict[str, str]] = field(default_factory=list)
    may: dict[str, list[str]] = field(default_factory=lambda: RIGHTS)
    down: bool = False
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    streams: list[WebSocketRoute] = field(default_factory=list)
    stream_protocols: list[str] = field(default_factory=list)

    def start(self) -> FakeService:
        """Be there from now on."""
        self.page.context.route(f"{URL}/**", self.answer)
        self.page.route_web_socket(f"{URL.replace('http', 'ws')}/**", self._stream)
        return self

    def _stream(self, stream: WebSocketRoute) -> None:
        if self.down:
            stream.close(code=1011, reason="down")
            return
        self.streams.append(stream)
        after = int(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(stream.url).query))["after"])
        for message in self.log[after:]:
            stream.send(message)

    def answer(self, route: Route) -> None:
        """Answer that request."""
        request = route.request
        url = urllib.parse.urlsplit(request.url)
        path = url.path.removeprefix(urllib.parse.urlsplit(URL).path)
        if path.startswith("/ui/"):
            self._file(route, path.removeprefix("/ui/"))
            return
        if self.down:
            route.abort()
            return
        status, answer = self._found(request.method, path, url.query, request.headers)
        tag = f'"{hashlib.blake2b(json.dumps(answer).encode(), digest_size=8).hexdigest()}"'
        if status == 200 and request.headers.get("if-none-match") == tag:
            status = 304
        self.asked.append((request.method, path, status))
        kind = "application/problem+json" if status >= 400 else "application/json"
        headers = {"ETag": tag, "Content-Type": kind}
        if status == 200 and (follows := self.links.get(f"{path}?{url.query}")):
            headers["Link"] = f'<{follows}>; rel="next"'
        route.fulfill(status=status, headers=headers, body="" if status == 304 else json.dumps(answer))

    def _found(self, method: str, path: str, query: str, headers: dict[str, str]) -> tuple[int, Any]:
        params = dict(urllib.parse.parse_qsl(query))
        if path == "/":
            return 200, {"version": "1.2.3", "authentication": {"method": self.method, "issuers": self.issuers}}
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"title": "Unauthorized", "status": 401, "detail": "the token has expired"}
        answer = self.answers.get(path)
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            answer = answer(params)
        if answer is None and path == "/whoami":
            answer = {"name": "ann", "namespaces": ["shop-ns"]}
            if not self.token:
                del answer["name"]
            answer |= {"namespace": params["namespace"], "may": self.may} if "namespace" in params else {}
        if answer is None and path == "/freezes/":
            answer = []
        if answer is None and path.endswith("/dataplane"):
            answer = {"addresses": [], "unknown": "the data plane cannot be asked from here"}
        if answer is None:
            return 404, {"title": "Not Found", "status": 404, "detail": f"{path} does not exist"}
        if isinstance(answer, dict) and isinstance(answer.get("status"), int):
            return answer["status"], answer
        return 200, answer

    @staticmethod
    def _file(route: Route, name: str) -> None:
        file = files()[name or INDEX]
        headers = {"Content-Type": file.content_type}
        if not name:
            headers["Content-Security-Policy"] = policy([ISSUER])
        route.fulfill(status=200, headers=headers, body=file.plain)


def app(name: str = "web", **more: Any) -> dict[str, Any]:
    """An app as `/apps/` shows it."""
    live = {"deployment": "d-1", "version": "1", "since": "2026-11-01T08:00:00Z", "by": "bob"}
    return {
        "namespace": "shop-ns",
        "appName": name,
        "live": live,
        "replicas": {"wanted": 2, "ready": 2},
        "hosts": [f"{name}.example.com"],
        **more,
    }

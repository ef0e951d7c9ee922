"""A reverse proxy in front of the real API server that misbehaves on demand: what lies between it and a Deployer.

Plain HTTP on loopback to the Deployer, TLS with the kubeconfig's credentials to the API server; a client that sends
a token is judged by that alone. `on(fault, ...)` lets a fault befall the requests that match, a number of times.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from weakref import WeakSet

VERBS = {"GET": "get", "POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}

Fault = Callable[["Exchange"], None]


@dataclass
class Rule:
    """A fault for requests that match: a verb as the client names it (empty: any), a pattern of `Exchange.place`."""

    fault: Fault
    verb: str
    place: re.Pattern[str]
    skip: int
    times: float
    hits: int = 0

    def takes(self, exchange: Exchange) -> bool:
        """Is this one befallen? Counts."""
        if self.times <= 0 or (self.verb and self.verb != exchange.verb) or not self.place.search(exchange.place):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.hits += 1
        return True

    def lift(self) -> None:
        """No more of it."""
        self.times = 0


class Exchange:
    """One request that arrived, with what can be done about it. `status` is the API server's, 0 if it was not asked."""

    def __init__(self, handler: Any, proxy: FaultProxy) -> None:
        self.at = time.monotonic()
        self.method, self.target, self.headers = handler.command, handler.path, handler.headers
        self.body: bytes = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.status = 0
        self.watches = "watch" in parse_qs(urlsplit(self.target).query)
        # [group and version], "namespaces", namespace, plural, name, subresource
        plural, name, *rest = [*self.target.partition("?")[0].partition("/namespaces/")[2].split("/")[1:], "", "", ""]
        self.verb = "log" if rest[0] == "log" else VERBS[self.method]
        if self.verb == "get" and plural and not name:
            self.verb = "watch" if self.watches else "list"
        if self.verb == "create" and not name:
            name = json.loads(self.body)["metadata"].get("name", "")
        self.place = f"{plural}/{name}?{unquote(urlsplit(self.target).query)}".rstrip("?")
        """Like `services/shop-1?fieldValidation=Strict`, also for a POST; `pods/?...` for a list or a watch."""
        self._handler = handler
        self._proxy = proxy

    def __repr__(self) -> str:
        return f"{self.verb} {self.place} {self.status}"

    # --- what a fault is made of ----------------------------------------------------------------------------------

    def ask(self) -> http.client.HTTPResponse:
        """Have the API server do it."""
        connection = self._handler.upstream(bool(self.headers.get("Authorization")))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in (*HOP, "host")}
        if self._proxy.token and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self._proxy.token}"
        connection.request(self.method, self.target, self.body or None, headers)
        answer: http.client.HTTPResponse = connection.getresponse()
        self.status = answer.status
        return answer

    def forward(self) -> None:
        """What a proxy is for."""
        answer = self.ask()
        if self.watches and answer.status == 200:
            self._follow(answer)
        else:
            self.reply(answer.status, answer.read(), dict(answer.headers))

    def reply(self, code: int, body: bytes, headers: dict[str, str] | None = None, *, upto: int | None = None) -> None:
        """Answer; `upto`: only so many bytes of the body, although more are announced, and then the end."""
        if self._proxy.dark_now:
            self.hang()
            return
        self._handler.send_response(code)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            if name.lower() not in HOP:
                self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        self._handler.wfile.write(body[:upto])
        if upto is not None:
            self._handler.close_connection = True

    def hang(self) -> None:
        """Say nothing more, and never end it."""
        self._proxy.closing.wait(120)
        self._handler.close_connection = True

    def reset(self) -> None:
        """End the connection with an RST."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.close_connection = True

    def stream(self, *lines: bytes) -> Stream:
        """Begin a watch's answer of our own."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "application/json")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()
        self._handler.close_connection = True
        made = Stream(self.place, self._handler)
        for line in lines:
            made.send(line)
        return made

    def _follow(self, answer: http.client.HTTPResponse) -> None:
        stream = self.stream()
        with self._proxy.following(stream), contextlib.closing(answer):
            while line := answer.readline():
                stream.pass_on(line)
        stream.end()


class Stream:
    """The answer to a watch that is open."""

    def __init__(self, place: str, handler: Any) -> None:
        self.place = place
        self._handler = handler
        self._lock = threading.Lock()
        self._mute = False
        self._cut = False

    def pass_on(self, line: bytes) -> None:
        """A line from the API server."""
        if self._mute:
            return
        if self._cut:
            self.send(line[: len(line) // 2])
            raise BrokenPipeError
        self.send(line)

    def send(self, line: bytes) -> None:
        """These bytes, from whoever says so."""
        with self._lock:
            self._handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def end(self) -> None:
        """The stream is complete."""
        with self._lock:
            self._handler.wfile.write(b"0\r\n\r\n")

    def silence(self) -> None:
        """Nothing comes any more, and no end either."""
        self._mute = True

    def cut(self) -> None:
        """End in the middle of the next line."""
        self._cut = True


class FaultProxy:
    """Forwards what no rule befalls. `seen` has all requests in their order; `url` is its address."""

    def __init__(self, target: str = "") -> None:
        """For the cluster that KUBECONFIG names, or the API server at `target`, which asks for no credentials."""
        from kubernetes.client import Configuration
        from kubernetes.config import load_kube_config

        configuration = Configuration()
        if target:
            configuration.host = target
        else:
            load_kube_config(client_configuration=configuration)
        self._target = urlsplit(configuration.host)
        self.token = (configuration.auth_settings().get("BearerToken") or {}).get("value", "").removeprefix("Bearer ")
        self._anonymous = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        self._admin = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            self._admin.load_cert_chain(configuration.cert_file, configuration.key_file)
        self.seen: list[Exchange] = []
        self.closing = threading.Event()
        self.dark_now = False
        self._lock = threading.Lock()
        self.rules: list[Rule] = []
        self._streams: set[Stream] = set()
        self.connections: WeakSet[socket.socket] = WeakSet()
        self._port = 0
        self.accept()

    @property
    def url(self) -> str:
        """Where the Deployer finds it."""
        return f"http://127.0.0.1:{self._port}"

    # --- faults ---------------------------------------------------------------------------------------------------

    def on(self, fault: Fault, verb: str = "", place: str = "", *, skip: int = 0, times: float = float("inf")) -> Rule:
        """Let `fault` befall requests with this verb and a place that matches, `times` times after the first `skip`."""
        rule = Rule(fault, verb, re.compile(place), skip, times)
        with self._lock:
            self.rules.append(rule)
        return rule

    def watches(self, place: str = "") -> list[Stream]:
        """Those that are open and forwarded."""
        with self._lock:
            return [stream for stream in self._streams if re.search(place, stream.place)]

    @contextlib.contextmanager
    def dark(self) -> Iterator[None]:
        """A black hole: connections are accepted, and nothing is ever said, on open watches neither."""
        rule = self.on(blackhole)
        self.dark_now = True
        for stream in self.watches():
            stream.silence()
        try:
            yield
        finally:
            rule.lift()
            self.dark_now = False

    def refuse(self) -> None:
        """As if its process had died: nobody listens, and every connection ends. Once more changes nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def accept(self) -> None:
        """Listen (again)."""
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    # --- what it saw ----------------------------------------------------------------------------------------------

    def count(self, since: float = 0.0) -> Counter[str]:
        """Requests by verb."""
        return Counter(e.verb for e in self.seen if e.at >= since)

    # --- parts ----------------------------------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        """The first rule that takes it decides; without one it is forwarded."""
        with self._lock:
            self.seen.append(exchange)
            rule = next((r for r in self.rules if r.takes(exchange)), None)
        (rule.fault if rule else Exchange.forward)(exchange)

    @contextlib.contextmanager
    def following(self, stream: Stream) -> Iterator[None]:
        """Count it as open."""
        with self._lock:
            self._streams.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._streams.discard(stream)

    def connect(self, *, anonymous: bool) -> http.client.HTTPConnection:
        """A connection to the API server."""
        host, port = self._target.hostname or "", self._target.port
        if self._target.scheme == "http":
            return http.client.HTTPConnection(host, port)
        context = self._anonymous if anonymous else self._admin
        return http.client.HTTPSConnection(host, port, context=context)

    def close(self) -> None:
        """End everything."""
        self.closing.set()
        self.refuse()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        self._upstream: dict[bool, http.client.HTTPConnection] = {}
        self.server.proxy.connections.add(self.connection)
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):  # either end went away
            super().handle()
        for connection in self._upstream.values():
            connection.close()

    def upstream(self, anonymous: bool) -> http.client.HTTPConnection:
        """The connection to the API server that goes with this one."""
        if anonymous not in self._upstream:
            self._upstream[anonymous] = connection = self.server.proxy.connect(anonymous=anonymous)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.server.proxy.connections.add(connection.sock)
        return self._upstream[anonymous]

    def serve(self) -> None:
        self.server.proxy.handle(Exchange(self, self.server.proxy))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        return


# --- faults -------------------------------------------------------------------------------------------------------


def reset(exchange: Exchange) -> None:
    """An RST instead of an answer; the API server never hears of it."""
    exchange.reset()


def drop(exchange: Exchange) -> None:
    """The API server does it, and the answer is lost."""
    answer = exchange.ask()
    if not exchange.watches:
        answer.read()
    exchange.reset()


def truncate(exchange: Exchange) -> None:
    """The API server does it; its answer ends in the middle, a watch's in the middle of a line."""
    if exchange.watches:
        exchange.stream(b'{"type": "ADDED", "object": {"kind": "P')
        return
    answer = exchange.ask()
    body = answer.read()
    exchange.reply(answer.status, body, dict(answer.headers), upto=len(body) // 2)


def blackhole(exchange: Exchange) -> None:
    """Accepted, and nothing said."""
    exchange.hang()


def delay(seconds: float) -> Fault:
    """It takes that long to get to the API server."""

    def late(exchange: Exchange) -> None:
        exchange._proxy.closing.wait(seconds)
        exchange.forward()

    return late


def status(code: int, reason: str = "", message: str = "on purpose", retry_after: float | None = None) -> Fault:
    """The API server refuses it in its own form."""
    document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    body = json.dumps({**document, "reason": reason, "message": message}).encode()
    headers = {"Content-Type": "application/json"}
    if retry_after is not None:
        headers["Retry-After"] = f"{retry_after:g}"
    return lambda exchange: exchange.reply(code, body, headers)


def event(type_: str, found: object) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": type_, "object": found}).encode() + b"\n"


def expired(exchange: Exchange) -> None:
    """A watch that says at once, in an event, that it was asked for something too old."""
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    exchange.stream(event("ERROR", gone)).end()


def first(action: Callable[[], object]) -> Fault:
    """Something happens behind the Deployer's back before the API server gets the request."""

    def act(exchange: Exchange) -> None:
        action()
        exchange.forward()

    return act

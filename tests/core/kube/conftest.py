"""A tiny API server that misbehaves on demand, and clients for it and for the sandbox."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from deployer import sandbox as sandbox_package
from deployer.core.backoff import Backoff
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Owner
from deployer.core.model.kind import NAMESPACE
from deployer.kube import client as client_module
from deployer.kube.client import KubeClient, connect
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube
from deployer.settings import Settings

Answer = Callable[["Request"], None]


@dataclasses.dataclass
class Request:
    """One request that arrived, with the ways to answer it."""

    handler: BaseHTTPRequestHandler
    server: FaultServer
    number: int
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    at: float
    headers: Any
    streaming: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def watches(self) -> bool:
        return "watch" in self.query

    def json(self, document: object, code: int = 200, **headers: str) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def status(self, code: int, reason: str = "", message: str = "no", **headers: str) -> None:
        self.json({"kind": "Status", "code": code, "reason": reason, "message": message}, code, **headers)

    def hang(self) -> None:
        """Say nothing until the server is closed."""
        self.server.closing.wait(60)
        self.handler.close_connection = True

    def reset(self) -> None:
        """End the connection with an RST."""
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.handler.close_connection = True

    def truncate(self) -> None:
        self.handler.send_response(200)
        self.handler.send_header("Content-Length", "100")
        self.handler.end_headers()
        self.handler.wfile.write(b'{"kind": "Po')
        self.handler.close_connection = True

    def stream(self, *events: object) -> None:
        """Begin a watch's answer with these events (bytes are sent as they are)."""
        self.handler.send_response(200)
        self.handler.send_header("Transfer-Encoding", "chunked")
        self.handler.end_headers()
        for event in events:
            self._send(event)
        self.streaming.set()

    def send(self, event: object) -> None:
        """One more event, from any thread."""
        assert self.streaming.wait(10)
        self._send(event)

    def _send(self, event: object) -> None:
        line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
        self.handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.handler.wfile.flush()

    def end(self) -> None:
        self.handler.wfile.write(b"0\r\n\r\n")


class FaultServer:
    """Answers every request with `answer`, remembers all."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answer: Answer = lambda request: request.status(404, "NotFound", "there is nothing")
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._arrived = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with outer._arrived:
                    number = len(outer.requests)
                    query = dict(parse_qsl(parts.query))
                    about = (outer, number, self.command, parts.path, query, body, time.monotonic(), self.headers)
                    request = Request(self, *about)
                    outer.requests.append(request)
                    outer._arrived.notify_all()
                with contextlib.suppress(OSError):
                    outer.answer(request)

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.serve
                raise AttributeError(name)

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle()

            def log_message(self, *_: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def wait_for(self, count: int, timeout: float = 10.0) -> None:
        """Until that many requests have arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.requests) >= count, timeout), len(self.requests)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    running = FaultServer()
    yield running
    running.close()


@pytest.fixture
def fault_server() -> type[FaultServer]:
    return FaultServer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between attempts."""
    monkeypatch.setattr(client_module, "BACKOFF", Backoff(first=0.01, most=0.02, spread=(0.0, 1.0)))


@pytest.fixture
def client(server: FaultServer, quick: None) -> Iterator[KubeClient]:
    made = connect(Settings(kubernetes=server.url))
    yield made
    made.close()


# --- the sandbox --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox_package.Sandbox]:
    started = sandbox_package.start(tmp_path_factory.mktemp("sandbox"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def sandbox_client(sandbox: sandbox_package.Sandbox) -> Iterator[KubeClient]:
    made = connect(Settings(kubernetes=sandbox.api))
    yield made
    made.close()


_numbers = itertools.count(1)


@pytest.fixture
def namespace(sandbox_client: KubeClient) -> Iterator[str]:
    name = f"door-{next(_numbers)}"
    made = sandbox_client.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    sandbox_client.delete(NAMESPACE, name, uid=made["metadata"]["uid"])


@pytest.fixture
def informers(sandbox_client: KubeClient) -> Iterator[Informers]:
    made = Informers(sandbox_client)
    yield made
    made.close()


@pytest.fixture
def scope() -> CancelScope:
    return CancelScope(time.monotonic() + 20)


@pytest.fixture
def kube(sandbox_client: KubeClient, informers: Informers, namespace: str, scope: CancelScope) -> OwnedKube:
    """For app shop, deployment d1, fencing token 3."""
    return OwnedKube(sandbox_client, informers, Owner("test", namespace, "shop", "d1", 3), scope)

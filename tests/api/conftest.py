"""A server on a free port, with the real store, logbook and service behind it, and a small HTTP client."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from deployer.api.app import create_app
from deployer.api.auth.access import Access
from deployer.api.auth.audit import Audit
from deployer.api.auth.stream_auth import StreamAuth
from deployer.api.browsers.hosts import AllowedHosts
from deployer.api.fairness.callers import Callers
from deployer.api.server import Server
from deployer.api.stream.server import LogStream
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.contract.strategy import Step, Strategy
from deployer.core.deployment_log import DeploymentLog
from deployer.core.model.records import Deployment, Document, Plan, Status
from deployer.core.ports.store import Update
from deployer.core.registry import Entry, Registry
from deployer.plugin_manager.loader import load_plugins
from deployer.redaction.redactor import Redactor
from deployer.settings import Settings
from deployer.store.sqlite import SqliteStore
from deployer.toolkit.remarks import remarks

NS = "shop-ns"


class Nothing(Strategy):
    """A strategy without steps: nothing here is carried out."""

    name = "blue-green"

    def deploy_steps(self, plan: Plan) -> list[Step]:
        return []


def installed(settings: Settings) -> Registry:
    """A registry of one strategy, whatever is installed on this machine."""
    registry = load_plugins(settings, entry_points=[])
    return dataclasses.replace(registry, strategies={"blue-green": Entry(Nothing(), "tests", "1", "nothing")})


@dataclass(frozen=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> Any:
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        document = self.json
        assert document["type"] == "about:blank"
        assert document["status"] == self.status
        assert document["title"]
        assert document["detail"]
        return document


@dataclass
class Served:
    """A service behind its port, and what is behind it."""

    store: SqliteStore
    deployment_log: DeploymentLog
    service: DeploymentCommands
    logs: LogStream
    server: Server
    reasons: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.server.port

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            yield connection
        finally:
            connection.close()

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, on: Any = None
    ) -> Answer:
        """One request. A body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.ExitStack() as stack:
            connection = on or stack.enter_context(self.connection())
            connection.request(method, path, body=data, headers=headers or {})
            with connection.getresponse() as response:
                return Answer(response.status, response.headers, response.read())

    def watch(self, id: str, namespace: str = NS, after: object = None, **options: Any) -> ClientConnection:
        """A viewer of a deployment's log."""
        url = f"ws://127.0.0.1:{self.port}/stream/deployments/{id}/logs?namespace={namespace}"
        url += "" if after is None else f"&after={after}"
        return connect(url, proxy=None, open_timeout=20, close_timeout=10, **options)

    def deployment(self, app: str = "shop", version: str = "1") -> Deployment:
        """A deployment that was just accepted, with the one line that this writes."""
        stored = self.service.descriptors.create(NS, json.dumps(document(app, version)).encode())
        return self.service.deploy(NS, stored.id)

    def end(self, id: str, status: Status = Status.DEPLOYED) -> Deployment:
        """Bring a deployment to another status, as the engine does."""
        record = self.store.get(Deployment, id)
        assert record is not None
        record = record.to(status)
        return dataclasses.replace(record, revision=self.store.commit(Update(record)))


def document(app: str = "shop", version: str = "1", **more: Any) -> Document:
    """A descriptor as small as they get."""
    return {
        "namespace": NS,
        "appName": app,
        "newVersion": version,
        "podspec": {"containers": [{"name": "main", "image": "example/shop:1"}]},
        **more,
    }


@pytest.fixture
def make_document() -> Callable[..., Document]:
    return document


@pytest.fixture
def settings() -> Settings:
    return Settings(own_namespace="deployer", ingress="none", queue_limit=10)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    """Overridden by tests that want what is installed."""
    return installed(settings)


@pytest.fixture
def stream_options() -> dict[str, Any]:
    """Overridden by tests that want other limits."""
    return {}


@pytest.fixture
def server_options() -> dict[str, Any]:
    """Overridden by tests that want other limits."""
    return {}


@pytest.fixture
def access() -> Access | None:
    """Overridden by tests in which callers must say who they are."""
    return None


@pytest.fixture
def auth_options() -> dict[str, Any]:
    """Overridden by tests that want other limits."""
    return {}


@pytest.fixture
def served(  # noqa: PLR0917 - pytest fills them in by name
    tmp_path: Path,
    settings: Settings,
    registry: Registry,
    stream_options: dict[str, Any],
    server_options: dict[str, Any],
    access: Access | None,
    auth_options: dict[str, Any],
) -> Iterator[Served]:
    before = set(threading.enumerate())
    store = SqliteStore(tmp_path / "deployer.db")
    deployment_log = DeploymentLog(store, Redactor())
    service = DeploymentCommands(store, deployment_log, registry, settings, remarks=remarks)
    origins = settings.allowed_origins
    hosts = AllowedHosts.of(settings)
    audit = Audit()
    auth = StreamAuth(access, audit, **auth_options)
    logs = LogStream(service, auth=auth, allowed_origins=origins, allowed_hosts=hosts, **stream_options)
    reasons: list[str] = []
    callers = Callers(secured=access is not None)
    app = create_app(
        service,
        lambda: [{"name": "one", "state": "ok"}],
        lambda: reasons,
        access=access,
        audit=audit,
        allowed_origins=origins,
        allowed_hosts=hosts,
        redactor=deployment_log.redactor,
        callers=callers,
    )
    server = Server(app, logs, "127.0.0.1", 0, callers=callers, refused=audit.refused_unread, **server_options)
    server.start()
    yield Served(store, deployment_log, service, logs, server, reasons)
    server.stop(5)
    audit.close()
    deployment_log.close()
    store.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread


@pytest.fixture
def audited() -> Iterator[list[Document]]:
    """The lines of the audit log, read back. The service's own log is silenced, which must not matter."""
    lines: list[Document] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            assert text.isascii() and text.isprintable(), text
            lines.append(json.loads(text))

    reader, root = Reader(), logging.getLogger()
    before = root.level
    root.setLevel(logging.CRITICAL)
    logging.getLogger("deployer.audit").addHandler(reader)
    yield lines
    logging.getLogger("deployer.audit").removeHandler(reader)
    root.setLevel(before)


@pytest.fixture
def run() -> Iterator[Callable[..., queue.Queue[Any]]]:
    """Run a function in a thread; its result, or the exception that it raised, arrives in the queue returned."""
    threads = []

    def start(function: Callable[..., Any], *args: Any) -> queue.Queue[Any]:
        results: queue.Queue[Any] = queue.Queue()

        def target() -> None:
            try:
                results.put(function(*args))
            except BaseException as error:  # noqa: BLE001 - handed to the test
                results.put(error)

        thread = threading.Thread(target=target)
        threads.append(thread)
        thread.start()
        return results

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()

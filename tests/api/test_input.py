"""Hostile input over the wire: whatever is sent, the answer is a 4xx in one clear sentence, and the port goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from deployer.core.model.records import Deployment, Operation, StoredDescriptor

Q = "?namespace=shop-ns"


def good(make_document: Any, encoding: str) -> bytes:
    return json.dumps(make_document()).encode(encoding)


def deep(opening: bytes, closing: bytes, levels: int) -> bytes:
    return b'{"podspec": ' + opening * levels + b"1" + closing * levels + b"}"


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "blank": (b" \r\n\t", "not JSON"),
    "a list": (b"[{}]", "not a JSON object"),
    "a text": (b'"shop"', "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "a number": (b"1", "not a JSON object"),
    "deep objects": (deep(b'{"a":', b"}", 70), "nested more than 64 levels"),
    "deep lists": (deep(b"[", b"]", 5000), "nested more than 64 levels"),
    "endless lists": (b"[" * 1_000_000, "nested more than 64 levels"),
    "endless objects": (b'{"a":' * 200_000, "nested more than 64 levels"),
    "NaN": (b'{"replicas": NaN}', "NaN is not a JSON value"),
    "infinity": (b'{"replicas": -Infinity}', "-Infinity is not a JSON value"),
    "a surrogate": (b'{"appName": "\\ud800"}', "half of a surrogate pair"),
    "a surrogate as a key": (b'{"\\udfff": 1}', "half of a surrogate pair"),
    "a surrogate in UTF-8": (b'{"appName": "\xed\xa0\x80"}', "not UTF-8"),
    "Latin-1": ('{"email": "ü"}'.encode("latin-1"), "not UTF-8"),
    "UTF-7": (b'{"email": "+AOQ-"}', "is required"),
    "a duplicate key": (b'{"appName": "a", "appName": "b"}', "appName: appears twice in one object"),
    "a duplicate key deep down": (
        b'{"podspec": {"containers": [{"a": 1, "a": 1}]}}',
        "podspec.containers[0].a: appears twice",
    ),
    "a huge integer": (b'{"replicas": ' + b"9" * 100_000 + b"}", "digits is too large"),
    "a huge float": (b'{"replicas": 1e99999}', "too large"),
    "a zero byte": (b'{"appName": "a\x00"}', "not JSON"),
    "a comment": (b'{"appName": "a" /* b */}', "not JSON"),
    "a form": (b"appName=shop&newVersion=1", "not JSON"),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "not UTF-8"),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    "route", [("POST", "/descriptors/"), ("POST", "/descriptors/validate"), ("PUT", "/descriptors/x/")]
)
def test_bodies(served: Any, make_document: Any, route: tuple[str, str], name: str) -> None:
    method, path = route
    body, says = BODIES[name]
    if method == "PUT":
        path = f"/descriptors/{served.call('POST', '/descriptors/' + Q, make_document()).json['id']}/"
    before = served.store.find(StoredDescriptor)
    problem = served.call(method, path + Q, body).problem
    assert problem["status"] == 400
    assert says in problem["detail"]
    assert len(problem["detail"]) < 1000
    assert problem["detail"].isprintable()
    assert problem["errors"]
    assert served.store.find(StoredDescriptor) == before
    assert served.call("GET", "/healthz").status == 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_of_unicode_are_named(served: Any, make_document: Any, encoding: str) -> None:
    problem = served.call("POST", f"/descriptors/{Q}", good(make_document, encoding)).problem
    assert problem["status"] == 400
    assert problem["detail"].startswith("the document is not UTF-8")
    assert "it looks like UTF-16 or UTF-32" in problem["detail"]


def test_a_byte_order_mark_is_no_harm(served: Any, make_document: Any) -> None:
    assert served.call("POST", f"/descriptors/{Q}", good(make_document, "utf-8-sig")).status == 201


# --- addresses and headers ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def raw(port: int, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(data)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


STRANGE = [
    b"%00", b"%ff", b"%ed%a0%80", b"%ED%BF%BF", b"%", b"%zz", b"%0d%0aX-Evil:%201", b"%2e%2e/%2e%2e/etc/passwd",
    b"\xff\xfe", b"\xed\xa0\x80", b"\x7f", b"a" * 8000, b"%f0%9f%98%80", b"';--", b"%22%3E%3Cscript%3E", b"{}",
    b"..%2f", b"a;b=c", b"%u0041", b"\xc0\xaf", b"NaN", b"9" * 400, b"-1",
]  # fmt: skip
PLACES = [
    b"GET /%s HTTP/1.1",
    b"GET /descriptors/%s?namespace=shop-ns HTTP/1.1",
    b"GET /descriptors/?namespace=%s HTTP/1.1",
    b"GET /descriptors/?namespace=shop-ns&appname=%s HTTP/1.1",
    b"GET /descriptors/?namespace=shop-ns&%s=1 HTTP/1.1",
    b"GET /deployments/%s/logs?namespace=shop-ns&after=%s HTTP/1.1",
    b"GET /deployments/?namespace=shop-ns&limit=%s&status=%s HTTP/1.1",
    b"POST /deployments/?namespace=shop-ns&descriptorId=%s HTTP/1.1",
    b"DELETE /deployments/x/?namespace=shop-ns&deleteDeployment=%s HTTP/1.1",
    b"DELETE /descriptors/?namespace=%s&appname=%s&keepLatest=%s HTTP/1.1",
    b"GET /stream/deployments/%s/logs?namespace=%s HTTP/1.1",
    b"GET /readyz HTTP/1.1\r\nAccept: %s",
    b"PUT /descriptors/x/?namespace=shop-ns HTTP/1.1\r\nIf-Match: %s",
    b"POST /descriptors/?namespace=shop-ns HTTP/1.1\r\nContent-Type: %s",
    b"GET /descriptors/?namespace=shop-ns HTTP/1.1\r\nOrigin: %s",
    b"GET /descriptors/?namespace=shop-ns HTTP/1.1\r\nAuthorization: Bearer %s",
    b"GET /descriptors/?namespace=shop-ns HTTP/1.1\r\nCookie: %s",
    b"GET /%s HTTP/%s",
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.decode().partition("\r")[0] + place.decode()[-12:])
def test_no_address_and_no_header_is_a_500(served: Any, place: bytes) -> None:
    for strange in STRANGE:
        request = (
            place.replace(b"%s", strange) + b"\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        with raw(served.port, request) as sock:
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1."), (strange, answer)
        status = int(answer.split(b" ", 2)[1])
        assert 200 <= status < 500, (strange, answer)
        head = answer.partition(b"\r\n\r\n")[0]
        assert b"\nX-Evil" not in head
    assert served.call("GET", "/healthz").status == 200
    assert not served.store.find(Deployment)
    assert not served.store.find(Operation)


# --- exhaustion ---------------------------------------------------------------------------------------------------

SCRIPT = """
    import sys, types
    from pathlib import Path
    from deployer.api.app import create_app
    from deployer.api.server import Server
    from deployer.api.stream.server import LogStream
    logs = LogStream(None)
    store = types.SimpleNamespace(namespaces=list)
    service = types.SimpleNamespace(descriptors=None, freezes=types.SimpleNamespace(shown_for=list), store=store)
    server = Server(create_app(service, list, list), logs, "127.0.0.1", 0)
    server.start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()
    # Of this program alone: what `getrusage` says is at least what the process had that started it.
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0], flush=True)
"""
HANDSHAKE = b"GET /stream/deployments/x/logs?namespace=a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
SLOW = (
    b"",
    b"G",
    b"GET /stream/",
    b"GET /healthz HTTP/1.1\r\nX-Slow: ",
    b"POST /descriptors/?namespace=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{",
    b"POST /descriptors/?namespace=a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    HANDSHAKE,
    HANDSHAKE + b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
)


@pytest.mark.slow
def test_a_thousand_slow_connections_starve_nobody() -> None:
    """Trickled headers and bodies, handshakes half said, and silence: probes are answered all the while."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    with process, contextlib.ExitStack() as stack:
        port = int(process.stdout.readline())

        def alive() -> float:
            began = time.monotonic()
            with raw(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as sock:
                assert read_all(sock).startswith(b"HTTP/1.1 200 ")
            return time.monotonic() - began

        socks = []
        for number in range(1000):
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                socks.append(stack.enter_context(raw(port, SLOW[number % len(SLOW)])))
            if number % 100 == 99:
                alive()
        # Each of them says a little more, again and again.
        for _ in range(3):
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(b"a")
            alive()
        stack.pop_all().close()
        alive()
        process.stdin.close()
        peak = int(process.stdout.readline())
        said = process.stderr.read()
        assert process.wait(30) == 0
    assert peak < 300 * 1024  # kB; a thousand connections are no reason for more
    assert "Traceback" not in said


WATCHED = """
    import json, resource, sys
    from pathlib import Path
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    from deployer.api.app import create_app
    from deployer.api.server import Server
    from deployer.api.stream.server import LogStream
    from deployer.plugin_manager.loader import load_plugins
    from deployer.core.deployment_log import DeploymentLog
    from deployer.commands.deployment_commands import DeploymentCommands
    from deployer.redaction.redactor import Redactor
    from deployer.settings import Settings
    from deployer.store.sqlite import SqliteStore
    settings = Settings(own_namespace="deployer", ingress="none")
    store = SqliteStore(Path(sys.argv[1]))
    logbook = DeploymentLog(store, Redactor())
    service = DeploymentCommands(store, logbook, load_plugins(settings), settings)
    id = service.deploy("shop-ns", service.descriptors.create("shop-ns", sys.argv[2].encode()).id).id
    logs = LogStream(service)
    server = Server(create_app(service, list, list), logs, "127.0.0.1", 0)
    server.start()
    print(json.dumps([server.port, id]), flush=True)
    for line in sys.stdin:
        logbook.append(id, line.strip())
    server.stop()
    logbook.close()
    store.close()
"""


@pytest.mark.slow
def test_half_requests_cost_no_viewer_its_place(tmp_path: Path, make_document: Any) -> None:
    """As many as there are file descriptors, without credentials, in a process that has the usual 1,024."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WATCHED), str(tmp_path / "db"), json.dumps(make_document())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    with process, contextlib.ExitStack() as stack:
        port, id = json.loads(process.stdout.readline())

        def watch() -> ClientConnection:
            url = f"ws://127.0.0.1:{port}/stream/deployments/{id}/logs?namespace=shop-ns"
            viewer = stack.enter_context(connect(url, proxy=None, open_timeout=20))
            assert "queued" in viewer.recv(timeout=20)
            return viewer

        viewers = [watch() for _ in range(20)]
        for half in (b"GET /stream/x", HANDSHAKE, SLOW[-1]):
            for _ in range(600):
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    stack.enter_context(raw(port, half))
            viewers.append(watch())
        process.stdin.write("still here\n")
        process.stdin.flush()
        assert all(viewer.recv(timeout=20).endswith("still here\n") for viewer in viewers)
        with raw(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as sock:
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        process.stdin.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(30) == 0


def test_a_frame_that_is_too_large_ends_its_stream_alone(served: Any) -> None:
    id = served.deployment().id
    with served.watch(id) as first, served.watch(id) as second:
        first.recv(timeout=10)
        second.recv(timeout=10)
        with contextlib.suppress(ConnectionClosed):
            first.send(b"x" * (4 * 1024 * 1024))
        with pytest.raises(ConnectionClosed):
            while True:
                first.recv(timeout=10)
        served.deployment_log.append(id, "and on")
        assert "and on" in second.recv(timeout=10)
    assert served.call("GET", "/healthz").status == 200

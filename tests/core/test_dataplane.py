"""Tests of confirming by asking: several controllers of every temper, and TLS."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core import Address, Backend, Cancelled, DataPlane, Gate, Route, RouteContext, StepFailed, ask

NEW, OLD = "22222222-2222-4222-8222-222222222222", "11111111-1111-4111-8111-111111111111"


class Controller:
    """Answers each connection with the next of its answers, and then for ever with the last one."""

    def __init__(self, answers: list[bytes], tls: ssl.SSLContext | None = None) -> None:
        self._answers, self._tls = answers, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1], tls is not None)
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(10)
                with connection, contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                    if self._tls:
                        connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
                    self.requests.append(connection.recv(4096))
                    reply = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                    if reply:
                        connection.sendall(reply)
                    else:
                        connection.recv(1)  # until the other side gives up

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


Start = Callable[..., Controller]


@pytest.fixture
def controller() -> Iterator[Start]:
    started: list[Controller] = []

    def start(*answers: bytes, tls: ssl.SSLContext | None = None) -> Controller:
        started.append(Controller(list(answers), tls))
        return started[-1]

    yield start
    for each in started:
        each.close()


def reply(status: int = 200, revision: str = "", body: bytes = b"ok") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n"
    return (head + (f"X-Deployer-Revision: {revision}\r\n" if revision else "") + "\r\n").encode() + body


def confirm(
    *controllers: Controller,
    gate: Gate | None = None,
    tls: bool = False,
    objection: Callable[[], str] = str,
    headers: dict[str, str] | None = None,
    path: str = "",
    **plane: Any,
) -> list[str]:
    """Wait for the route to NEW, or with `path` for its health; returns the log."""
    route = Route(
        namespace="web", app="shop", host="shop.example.com", version="2", deployment=NEW, backend=Backend("shop-2", 80)
    )
    log: list[str] = []
    context = RouteContext(route, None, log.append, gate or Gate(time.monotonic() + 10))  # type: ignore[arg-type]
    values = {"revision_header": "X-Deployer-Revision", "propagation": 0.05} | plane
    data_plane = DataPlane(addresses=tuple(each.address for each in controllers), **values)
    more = {"objection": objection, "headers": headers}
    if path:
        data_plane.await_healthy(context, route.host, path, "the preview", tls=tls, **more)
    else:
        data_plane.await_answers(context, route.host, "the route", tls=tls, **more)
    return log


def test_every_address_is_asked_for_the_host_on_fresh_connections(controller):
    one, two = controller(reply(revision=NEW)), controller(reply(404, NEW))
    assert confirm(one, two, confirmations=4) == []
    for each in (one, two):
        assert len(each.requests) == 4
        assert all(r.startswith(b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n") for r in each.requests)


def test_answers_in_a_row_are_counted(controller):
    new, old = reply(revision=NEW), reply(revision=OLD)
    one = controller(old, new, new, old, new, reply(503, NEW), new)
    confirm(one, confirmations=3)
    assert len(one.requests) == 6 + 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(revision=OLD), f"answered HTTP 200 for revision {OLD}"),
        (reply(404), "answered HTTP 404"),
        (reply(503, NEW), "answered HTTP 503"),
        (b"nonsense\r\n\r\n", r"gave no answer \(BadStatusLine\)"),
        (b"", "has not answered yet"),
    ],
)
def test_the_last_answer_of_the_address_is_in_the_error(controller, answer, said):
    good, bad = controller(reply(revision=NEW)), controller(answer)
    with pytest.raises(StepFailed, match=said) as caught:
        confirm(good, bad, gate=Gate(time.monotonic() + 0.6))
    assert caught.value.reason == "RouteNotConfirmed"
    assert f":{good.address.port}" not in str(caught.value)


def test_an_address_that_refuses(controller):
    gone = controller(reply(revision=NEW))
    gone.close()
    with pytest.raises(
        StepFailed, match=rf"127\.0\.0\.1:{gone.address.port} gave no answer \(ConnectionRefusedError\)"
    ):
        confirm(gone, gate=Gate(time.monotonic() + 0.4))


def test_cancelling_while_an_address_hangs(controller):
    gate = Gate()
    timer = threading.Timer(0.3, gate.close, [Cancelled("stop")])
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        confirm(controller(b""), gate=gate)
    assert time.monotonic() - began < 1.3
    timer.join()


def test_without_a_header_an_apps_own_404_counts_and_the_controllers_does_not(controller):
    # In turn: a host that nobody has, then the route's.
    theirs = controller(reply(404, body=b"default backend"), *[reply(404, body=b"the app")] * 3)
    log = confirm(theirs, revision_header="")
    assert len(theirs.requests) == 4
    assert b".invalid\r\n" in theirs.requests[0]
    assert "no response header names the version" in log[0]
    with pytest.raises(StepFailed, match="answered HTTP 404"):
        confirm(controller(reply(404)), revision_header="", gate=Gate(time.monotonic() + 0.5))


def test_with_tls_the_tls_address_is_asked_by_name(controller, tmp_path):
    names: list[str | None] = []
    context = server_context(tmp_path)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    plain, secure = controller(reply(308)), controller(reply(revision=NEW), tls=context)
    confirm(plain, secure, tls=True)
    assert (len(plain.requests), len(secure.requests)) == (0, 3)
    assert names == ["shop.example.com"] * 3


def server_context(path: Path) -> ssl.SSLContext:
    if not shutil.which("openssl"):
        pytest.skip("the program openssl is missing")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=another.host"]
    command += ["-keyout", str(path / "key.pem"), "-out", str(path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path / "cert.pem", path / "key.pem")
    return context


def test_what_speaks_against_the_route_ends_the_wait(controller):
    words = iter(["", "", "HTTPRoute shop is not accepted: NoMatchingParent"])
    with pytest.raises(StepFailed, match=r"^HTTPRoute shop is not accepted: NoMatchingParent") as caught:
        confirm(controller(reply(revision=OLD)), objection=lambda: next(words))
    assert caught.value.reason == "RouteRejected"
    with pytest.raises(StepFailed, match="refused"):
        confirm(controller(reply(revision=NEW)), objection=lambda: "refused although it answers")


def test_health_is_asked_for_by_path_and_with_headers(controller):
    sick, well = reply(500, NEW), reply(204, NEW, b"")
    one = controller(sick, reply(200, OLD), well)
    confirm(one, path="/health?deep=1", headers={"X-Deployer-Preview": "s3cret"})
    assert len(one.requests) == 2 + 3
    assert all(r.startswith(b"GET /health?deep=1 HTTP/1.1\r\n") for r in one.requests)
    assert all(b"\r\nX-Deployer-Preview: s3cret\r\n" in r for r in one.requests)
    with pytest.raises(StepFailed, match=r"the preview of shop\.example\.com to shop-2 .* answered HTTP 404"):
        confirm(controller(reply(404, NEW)), path="/health", gate=Gate(time.monotonic() + 0.4))
    with pytest.raises(StepFailed, match="no addresses of the ingress controller are configured"):
        confirm(path="/health")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a b", {}),
        ("/\r\nX: y", {}),
        ("//\0", {}),
        ("x", {}),
        ("/", {"X": "a\r\nb: c"}),
        ("/", {"X\n": "a"}),
        ("/\xfc", {}),
    ],
)
def test_a_request_is_one_request(path, headers):
    with pytest.raises(ValueError, match="printable ASCII"):
        ask(Address("127.0.0.1", 9), "shop.example.com", "", Gate(), path=path, headers=headers)

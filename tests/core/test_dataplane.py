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

from deployer.sdk.errors import Cancelled, StepFailed
from deployer.sdk.ingress import (
    Address,
    Backend,
    DataPlane,
    PodAnswers,
    Requests,
    Route,
    RouteAnswers,
    RouteContext,
    ask,
)
from deployer.sdk.plugin import CancelScope
from deployer.toolkit.dataplane import proof as dataplane

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
    scope: CancelScope | None = None,
    tls: bool = False,
    objection: Callable[[], str] = str,
    headers: dict[str, str] | None = None,
    path: str = "",
    route_path: str = "/",
    pods: PodAnswers | None = None,
    serving: bool = False,
    count: Callable[[Requests], None] | None = None,
    **plane: Any,
) -> list[str]:
    """Wait for the route to NEW, or with `path` for its health; returns the log."""
    route = Route(
        namespace="web",
        app="shop",
        host="shop.example.com",
        version="2",
        deployment=NEW,
        backend=Backend("shop-2", 80),
        path=route_path,
    )
    log: list[str] = []
    scope = scope or CancelScope(time.monotonic() + 10)
    context = RouteContext(route, None, log.append, scope, pods or PodAnswers(), count=count)  # type: ignore[arg-type]
    values = {"revision_header": "X-Deployer-Revision", "propagation": 0.05} | plane
    data_plane = DataPlane(addresses=tuple(each.address for each in controllers), **values)
    more = {"objection": objection, "headers": headers}
    if path:
        data_plane.await_healthy(context, route.host, path, "the preview", tls=tls, **more)
    else:
        proven = data_plane.await_answers(context, route.host, "the route", tls=tls, serving=serving, **more)
        assert proven is bool(data_plane.known and data_plane.revision_header)
    return log


def test_every_address_is_asked_for_the_host_on_fresh_connections(controller):
    one, two = controller(reply(revision=NEW)), controller(reply(404, NEW))
    assert confirm(one, two, confirmations=4) == []
    for each in (one, two):
        assert len(each.requests) == 4
        assert all(r.startswith(b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n") for r in each.requests)


def test_right_answers_are_counted_from_the_last_one_of_another_version_on(controller):
    new, old = reply(revision=NEW), reply(revision=OLD)
    one = controller(old, new, new, old, new, new, b"nonsense\r\n\r\n", new)
    confirm(one, confirmations=3)
    assert len(one.requests) == 7 + 3


# --- how requests fare while traffic moves ----------------------------------------------------------------------------


def test_requests_are_counted_until_the_last_address_answers_with_the_new_version(controller):
    new, old, gone = reply(revision=NEW), reply(revision=OLD), b"nonsense\r\n\r\n"
    found: list[Requests] = []
    confirm(controller(old, old, new), controller(old, gone, reply(502), new), count=found.append, confirmations=3)
    (counted,) = found
    assert (counted.asked, counted.lost, counted.addresses) == (2 + 3 + 3 + 3, 2, 2)
    assert counted.seconds is not None and 0 < counted.seconds < 5


@pytest.mark.parametrize(
    ("answer", "pods", "lost"),
    [
        pytest.param(reply(200, OLD), PodAnswers(), 0, id="the-old-version"),
        pytest.param(reply(404), PodAnswers(), 0, id="404"),
        pytest.param(reply(429), PodAnswers(), 0, id="limited"),
        pytest.param(reply(503), PodAnswers(), 1, id="the-controllers-503"),
        pytest.param(reply(503, NEW), PodAnswers(frozenset({200}), answered=True), 1, id="503-not-of-the-pods"),
        pytest.param(reply(503, NEW), PodAnswers(frozenset({503}), answered=True), 0, id="503-of-the-pods"),
        pytest.param(reply(504, OLD), PodAnswers(), 0, id="504-of-pods-that-nobody-can-ask"),
        pytest.param(b"nonsense\r\n\r\n", PodAnswers(frozenset({503}), answered=True), 1, id="no-answer"),
    ],
)
def test_what_is_a_lost_request(controller, answer, pods, lost):
    found: list[Requests] = []
    confirm(controller(answer, reply(revision=NEW)), pods=pods, count=found.append)
    assert [counted.lost for counted in found] == [lost]


def test_requests_are_counted_as_well_when_the_switch_is_not_confirmed(controller):
    found: list[Requests] = []
    with pytest.raises(StepFailed):
        confirm(controller(reply(502)), scope=CancelScope(time.monotonic() + 0.5), count=found.append)
    (counted,) = found
    assert counted.asked == counted.lost > 1
    assert counted.seconds is None


@pytest.mark.parametrize("plane", [{"revision_header": ""}, {"addresses": ()}], ids=["no-header", "nobody"])
def test_nothing_is_counted_where_nothing_tells_the_versions_apart(controller, plane):
    found: list[Requests] = []
    controllers = [] if "addresses" in plane else [controller(reply())]
    confirm(*controllers, count=found.append, **{name: plane[name] for name in plane if name != "addresses"})
    assert found == []


@pytest.mark.parametrize("status", [200, 404, 500, 502, 503, 504])
def test_the_right_revision_proves_arrival_whatever_the_status(controller, status):
    one = controller(reply(revision=OLD), reply(status, NEW))
    confirm(one)
    assert len(one.requests) == 1 + 3


@pytest.mark.parametrize("header", ["X-Deployer-Revision", ""])
def test_a_controller_that_limits_requests_is_confirmed_by_what_it_lets_through(controller, header):
    """Of a limit's 503, without the header, nothing can be told; with `limit-rpm` most answers are that."""
    limited, new = reply(503, body=b"slow down"), reply(revision=NEW)
    one = controller(new, limited, limited, new, limited, new, limited)
    confirm(one, revision_header=header)
    assert len(one.requests) == 6


@pytest.mark.slow
def test_an_address_is_asked_once_a_round_and_less_and_less_often(controller):
    one = controller(reply(revision=OLD))
    with pytest.raises(StepFailed):
        confirm(one, scope=CancelScope(time.monotonic() + 2.0))
    assert 4 <= len(one.requests) <= 17  # every 0.03 s it would be 60


@pytest.mark.parametrize(("pods", "confirmed"), [((), False), ((200,), False), ((503,), True), ((200, 503), True)])
def test_a_warm_up_takes_an_error_of_the_proxys_kind_only_from_an_app_that_answers_it_itself(
    controller, pods, confirmed
):
    one, context = controller(reply(503, NEW)), {"pods": PodAnswers(frozenset(pods)), "serving": True}
    if confirmed:
        confirm(one, **context)
    else:
        with pytest.raises(StepFailed, match="answered HTTP 503") as caught:
            confirm(one, scope=CancelScope(time.monotonic() + 0.4), **context)
        assert "frontendPort" in caught.value.hint
        assert "frontendPath" in caught.value.hint


def test_on_the_way_back_an_app_may_answer_what_it_will(controller):
    confirm(controller(reply(503)), revision_header="", pods=PodAnswers(any_status=True))
    gone = controller(reply(503))
    gone.close()
    with pytest.raises(StepFailed, match="ConnectionRefusedError"):
        confirm(gone, revision_header="", pods=PodAnswers(any_status=True), scope=CancelScope(time.monotonic() + 0.3))


@pytest.mark.parametrize(
    "words",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<center>The plain HTTP request was sent to HTTPS port</center>",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.",
        b"Bad Request\nThis combination of host and port requires TLS.\n",
    ],
)
def test_an_app_that_wants_tls_is_no_success(controller, words):
    one = controller(reply(400, NEW, words))
    with pytest.raises(StepFailed, match="port 80 of shop-2 speaks TLS") as caught:
        confirm(one)
    assert (caught.value.reason, "frontendPort" in caught.value.hint) == ("BackendSpeaksTLS", True)
    confirm(one, pods=PodAnswers(any_status=True))
    confirm(controller(reply(400, NEW, b"a form is missing")))


def test_what_is_waited_for_is_said_while_it_is_waited_for(controller, monkeypatch):
    monkeypatch.setattr(dataplane, "_SAY_AFTER", 0.0)
    monkeypatch.setattr(dataplane, "_SAY_EVERY", 0.0)
    old = reply(revision=OLD)
    # One that goes back and forth says nothing new.
    one = controller(old, old, reply(502), old, reply(502), reply(revision=NEW))
    said = f"not confirmed yet: {one.address} answered HTTP"
    assert confirm(one) == [f"{said} 200 for revision {OLD}", f"{said} 502", f"{said} 200 for revision {NEW}"]


def test_the_path_of_the_route_is_asked_for(controller):
    one = controller(reply(revision=NEW))
    confirm(one, route_path="/status?deep")
    assert {request.split(b" HTTP/")[0] for request in one.requests} == {b"GET /status?deep"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(revision=OLD), f"answered HTTP 200 for revision {OLD}"),
        (reply(404), "answered HTTP 404"),
        (reply(503), "answered HTTP 503"),
        (b"nonsense\r\n\r\n", r"gave no answer \(BadStatusLine\)"),
        (b"", "has not answered yet"),
    ],
)
def test_the_last_answer_of_the_address_is_in_the_error(controller, answer, said):
    good, bad = controller(reply(revision=NEW)), controller(answer)
    with pytest.raises(StepFailed, match=said) as caught:
        confirm(good, bad, scope=CancelScope(time.monotonic() + 0.6))
    assert caught.value.reason == "RouteNotConfirmed"
    assert f":{good.address.port}" not in str(caught.value)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_app_that_does_not_answer_the_controller_is_named_before_the_controller(controller, status):
    """Whether the pods could be asked from here or not: nobody looks for a warm-up that is gone by then."""
    with pytest.raises(StepFailed) as caught:
        confirm(controller(reply(status, NEW)), scope=CancelScope(time.monotonic() + 0.3), serving=True)
    port = "gets no answer on port 80 of the pods of version 2, the port for shop.example.com"
    assert str(caught.value).startswith(f"the ingress controller {port}: 127.0.0.1:")
    assert f"answered HTTP {status}" in str(caught.value) and "containerPort" in caught.value.hint
    asked = PodAnswers(frozenset({200}), answered=True)
    with pytest.raises(StepFailed) as caught:
        confirm(controller(reply(status, NEW)), scope=CancelScope(time.monotonic() + 0.3), serving=True, pods=asked)
    assert "although the pods answer there themselves: " in str(caught.value) and "NetworkPolicy" in caught.value.hint


def test_an_address_that_refuses(controller):
    gone = controller(reply(revision=NEW))
    gone.close()
    with pytest.raises(
        StepFailed, match=rf"127\.0\.0\.1:{gone.address.port} gave no answer \(ConnectionRefusedError\)"
    ):
        confirm(gone, scope=CancelScope(time.monotonic() + 0.4))


def test_cancelling_while_an_address_hangs(controller):
    scope = CancelScope()
    timer = threading.Timer(0.3, scope.close, [Cancelled("stop")])
    timer.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        confirm(controller(b""), scope=scope)
    assert time.monotonic() - began < 1.3
    timer.join()


def test_without_a_header_an_apps_own_404_counts_and_the_controllers_does_not(controller):
    # In turn: a host that nobody has, then the route's.
    theirs = controller(*[reply(404, body=b"the app"), reply(404, body=b"default backend")] * 3)
    log = confirm(theirs, revision_header="", plugin="ingress_nginx")
    assert len(theirs.requests) == 6
    assert b".invalid\r\n" in theirs.requests[1]
    assert log == [
        "shop.example.com: waiting 0.05 s for the route to version 2, as nothing can be asked: no response header "
        "names the version (set revision_header in [plugins.ingress_nginx])"
    ]
    log = confirm(revision_header="", plugin="ingress_nginx")
    assert "no addresses of the controller are configured (set controller or addresses in" in log[0]
    assert "set revision_header in [plugins.ingress_nginx])" in log[0]
    with pytest.raises(StepFailed, match="answered HTTP 404"):
        confirm(controller(reply(404)), revision_header="", scope=CancelScope(time.monotonic() + 0.5))


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


def look(*addresses: Address, seconds: float = 10.0, version_header: str | None = None, **plane: Any) -> RouteAnswers:
    """What the data plane answers to somebody who looks."""
    backend = Backend("shop-1", 80)
    host, path = "shop.example.com", "/status?deep"
    route = Route(namespace="web", app="shop", host=host, version="1", deployment=OLD, backend=backend, path=path)
    scope = CancelScope(time.monotonic() + seconds)
    context = RouteContext(route, None, print, scope)  # type: ignore[arg-type]
    values = {"revision_header": "X-Deployer-Revision", "plugin": "ingress_nginx"} | plane
    return DataPlane(addresses=addresses, **values).ask_route(context, tls=False, version_header=version_header)


def test_every_address_tells_by_itself_which_version_answers(controller, monkeypatch):
    monkeypatch.setattr(dataplane, "LOOK_TIMEOUT", 0.5)
    replies = [reply(revision=OLD), reply(503, NEW), reply(404), b"nonsense\r\n\r\n", b""]
    asked = [controller(one) for one in replies]
    gone = controller(b"")
    gone.close()
    began = time.monotonic()
    found = look(*(one.address for one in asked), gone.address)
    assert time.monotonic() - began < 1.5  # they are asked at the same time
    assert [(answer.status, answer.deployment, answer.unknown) for answer in found.addresses] == [
        (200, OLD, ""),
        (503, NEW, ""),
        (404, "", "the answer has no header X-Deployer-Revision"),
        (0, "", "gave no answer (BadStatusLine)"),
        (0, "", "gave no answer in time"),
        (0, "", "gave no answer (ConnectionRefusedError)"),
    ]
    assert [answer.address for answer in found.addresses[:2]] == [str(one.address) for one in asked[:2]]
    assert 0.4 < found.addresses[4].seconds < 1.5 and found.left_out == 0
    for one in asked:
        assert [request.split(b"\r\nUser")[0] for request in one.requests] == [
            b"GET /status?deep HTTP/1.1\r\nHost: shop.example.com"
        ]


def test_of_many_addresses_some_are_asked_and_the_others_are_counted(controller):
    one = controller(reply(revision=NEW))
    found = look(*[one.address] * 40)
    assert (len(found.addresses), found.left_out, len(one.requests)) == (32, 8, 32)


def test_whoever_looks_gets_an_answer_when_there_is_hardly_any_time_left(controller):
    for seconds in (0.4, 0.0):
        (answer,) = look(controller(b"").address, seconds=seconds).addresses
        assert (answer.status, answer.unknown) == (0, "gave no answer in time")


def test_why_no_address_or_no_version_is_told(controller):
    """With the setting that would change it."""
    nobody = look()
    assert nobody.addresses == () and nobody.unknown == (
        "no addresses of the controller are configured (set controller or addresses in [plugins.ingress_nginx])"
    )
    one = controller(reply(revision=NEW))
    for header, setting in ((None, "revision_header"), ("", "version_header")):
        (answer,) = look(one.address, revision_header="", version_header=header).addresses
        why = f"no response header names the version (set {setting} in [plugins.ingress_nginx])"
        assert (answer.status, answer.deployment, answer.unknown) == (200, "", why)


def test_the_header_of_the_app_names_a_version(controller):
    one = controller(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Version: 7\r\n\r\n")
    (answer,) = look(one.address, version_header="X-Version").addresses
    assert (answer.version, answer.deployment, answer.unknown) == ("7", "", "")


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
    with pytest.raises(StepFailed, match=r"shop\.example\.com: the preview to .* shop-2 .* answered HTTP 404"):
        confirm(controller(reply(404, NEW)), path="/health", scope=CancelScope(time.monotonic() + 0.4))
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
        ask(Address("127.0.0.1", 9), "shop.example.com", "", CancelScope(), path=path, headers=headers)

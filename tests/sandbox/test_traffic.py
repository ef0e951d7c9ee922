"""The load generator of the switching tests counts what goes wrong, and only that: against a server that misbehaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.traffic import Kind, Report, Traffic

BIG = b"APP_VERSION=1\n" + b"x" * 400_000
FAST = {"pause": 0.005}


class Server(ThreadingHTTPServer):
    """Answers as the sample app does, unless `trouble` does something else with a request."""

    daemon_threads = True
    trouble: Callable[[BaseHTTPRequestHandler], bool] | None = None
    version = "1"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Also for POST."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.trouble and self.server.trouble(self):
            return
        version = self.server.version
        self.answer({"/slow": b"slow\n", "/env": BIG}.get(self.path, f"version {version} on pod\n".encode()))

    do_POST = do_GET  # noqa: N815 - the name that the library looks for

    def answer(self, body: bytes, status: int = 200) -> None:
        """With its length."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def load(
    server: Server, *kinds: Kind, until: Callable[[Report], bool] = lambda report: report.answered >= 20
) -> Report:
    """The account of some load."""
    traffic = Traffic(server.server_address[:2], "host.example", kinds)  # type: ignore[arg-type]
    try:
        end = time.monotonic() + 20
        while not until(traffic.report()):
            assert time.monotonic() < end
        return traffic.stop()
    finally:
        traffic.close()


def test_a_good_server_fails_nothing(server: Server) -> None:
    kinds = (
        Kind("keep", fresh=False, lanes=2, **FAST),
        Kind("post", "POST", **FAST),
        Kind("download", path="/env", limit=20.0, stall=1.0),
    )
    report = load(server, *kinds, until=lambda r: all(a.answered for a in r.kinds.values()))
    assert (report.failed, report.closed) == (0, 0), report.explain()
    assert {version for account in report.kinds.values() for version in account.versions} == {"1"}
    ((kind, began, ended), *_) = report.spans
    assert kind == "download" and 1.0 < ended - began < 10
    assert report.spanning(began + 0.1)["download"] >= 1


def abort(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def nothing(handler: BaseHTTPRequestHandler) -> bool:
    abort(handler)
    return True


def half(handler: BaseHTTPRequestHandler) -> bool:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nversion 1 on")
    abort(handler)
    return True


def unavailable(handler: BaseHTTPRequestHandler) -> bool:
    handler.answer(b"no backend\n", 503)  # type: ignore[attr-defined]
    return True


def stranger(handler: BaseHTTPRequestHandler) -> bool:
    handler.answer(b"welcome\n")  # type: ignore[attr-defined]
    return True


def silent(handler: BaseHTTPRequestHandler) -> bool:
    time.sleep(1.0)
    return nothing(handler)


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (nothing, "the connection was closed before an answer"),
        (half, "the answer broke off"),
        (unavailable, "HTTP 503"),
        (stranger, "an answer of the application was expected"),
        (silent, "no whole answer within 0.5 s"),
    ],
)
def test_what_goes_wrong_is_counted_and_named(
    server: Server, trouble: Callable[[BaseHTTPRequestHandler], bool], why: str
) -> None:
    server.trouble = trouble
    report = load(server, Kind("fresh", limit=0.5, **FAST), until=lambda r: r.failed >= 2)
    assert report.answered == 0 and report.failed >= 2
    assert all(why in said for _, said in report.kinds["fresh"].failures), report.explain()


def test_a_used_connection_that_was_closed_is_opened_again(server: Server) -> None:
    """As clients do; it is counted apart."""

    def close_after(handler: BaseHTTPRequestHandler) -> bool:
        abort(handler)
        return False

    server.trouble = close_after
    report = load(server, Kind("keep", fresh=False, **FAST))
    assert report.failed == 0 and report.answered >= 20, report.explain()
    assert report.kinds["keep"].closed >= report.answered - 1


def test_old_answers_are_late_only_when_they_were_asked_for_late(server: Server) -> None:
    traffic = Traffic(server.server_address[:2], "host.example", (Kind("fresh", **FAST),))  # type: ignore[arg-type]
    try:
        while traffic.report().answered < 5:
            pass
        server.version = "2"
        time.sleep(0.1)
        moved = time.time()
        while "2" not in {version for when, version in traffic.report().fresh if when > moved}:
            pass
        assert traffic.report().late("2", moved) == []
        server.version = "1"
        while not traffic.report().late("2", moved):
            pass
        assert traffic.stop().failed == 0
    finally:
        traffic.close()

"""The log stream: what viewers get, when it ends, and what a bad viewer costs the others."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from deployer.api.stream import connection as stream
from deployer.api.stream import feed
from deployer.core.deployment_log import DeploymentLog, format_line
from deployer.core.errors import StoreUnavailable
from deployer.core.model.records import Deployment, Status
from deployer.core.ports.store import Delete, Update
from deployer.redaction.redactor import Redactor

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PING = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + b"p" * 125
MESSAGE = bytes([0x81, 0x80 | 1, 0, 0, 0, 0]) + b"m"


def everything(viewer: ClientConnection) -> tuple[list[str], int, str]:
    """All messages until the end, the close code and its reason."""
    lines: list[str] = []
    try:
        while True:
            message = viewer.recv(timeout=30)
            assert isinstance(message, str)
            lines.append(message)
    except ConnectionClosed:
        return lines, viewer.close_code or 0, viewer.close_reason or ""


def stream_path(id: str) -> str:
    return f"/stream/deployments/{id}/logs?namespace=shop-ns"


def texts(lines: list[str]) -> list[str]:
    return [line.removesuffix("\n").split(" ", 1)[1] for line in lines]


@contextlib.contextmanager
def raw(served: Any) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        yield sock


def flood(sock: socket.socket, piece: bytes) -> int:
    """Send that again and again without reading, until the other side has enough; returns how many bytes it took."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < 64_000_000:
            sent += sock.send(piece)
    return sent


def until(condition: Any, what: str) -> None:
    """Wait for what has no event to wait for: the state of another thread."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_history_then_live_then_the_end(served: Any) -> None:
    id = served.deployment().id
    served.deployment_log.append(id, "two\nlines")
    with served.watch(id) as viewer:
        first, second = viewer.recv(timeout=20), viewer.recv(timeout=20)
        assert first.endswith(" queued: deployment of shop in namespace shop-ns\n")
        assert second.split(" ", 1)[1] == "two\n  lines\n"
        served.deployment_log.append(id, "live")
        assert viewer.recv(timeout=20).endswith("Z live\n")
        served.end(id, Status.FAILURE)
        assert everything(viewer) == ([], 1000, "FAILURE")


def test_messages_one_after_the_other_are_the_log_of_rest(served: Any) -> None:
    """As clients of the original put them together: `log += event.data`."""
    id = served.deployment().id
    for number in range(5):
        served.deployment_log.append(id, f"{number}\nmore")
    served.end(id)
    with served.watch(id) as viewer:
        lines, *_ = everything(viewer)
    log = served.call("GET", f"/deployments/{id}/logs?namespace=shop-ns").body.decode()
    assert "".join(lines) == log
    assert log.count("\n") == 11


@pytest.mark.parametrize("status", [Status.DEPLOYED, Status.FAILURE])
def test_the_log_of_an_ended_deployment_is_shown_whole(served: Any, status: Status) -> None:
    id = served.deployment().id
    for number in range(1000):
        served.deployment_log.append(id, str(number))
    served.end(id, status)
    with served.watch(id) as viewer:
        lines, code, reason = everything(viewer)
    assert texts(lines)[1:] == [str(number) for number in range(1000)]
    assert (code, reason) == (1000, status.value)


def test_viewers_get_every_line_once_while_lines_are_added(served: Any, run: Any) -> None:
    id = served.deployment().id
    total = 2000
    started = threading.Event()

    def write(writer: int) -> None:
        for number in range(total // 4):
            served.deployment_log.append(id, f"{writer}:{number}")
            if number == 50:
                started.set()

    writers = [run(write, writer) for writer in range(4)]
    assert started.wait(20)
    stack = contextlib.ExitStack()
    viewers = [stack.enter_context(served.watch(id)) for _ in range(8)]
    results = [run(everything, viewer) for viewer in viewers]
    assert [writer.get(timeout=60) for writer in writers] == [None] * 4
    served.end(id)
    expected = [line.text for line in served.deployment_log.read(id, 0, 10_000)]
    assert len(expected) == total + 1
    for result in results:
        lines, code, reason = result.get(timeout=60)
        assert texts(lines) == expected
        assert (code, reason) == (1000, "DEPLOYED")
    stack.close()


def test_the_end_comes_without_a_further_line(served: Any) -> None:
    """The change of status alone wakes the viewers."""
    id = served.deployment().id
    with served.watch(id) as viewer:
        viewer.recv(timeout=20)
        with pytest.raises(TimeoutError):
            viewer.recv(timeout=0.2)
        served.end(id, Status.DEPLOYED)
        assert everything(viewer) == ([], 1000, "DEPLOYED")


def test_a_deleted_deployment_ends_the_stream(served: Any) -> None:
    record = served.deployment()
    with served.watch(record.id) as viewer:
        viewer.recv(timeout=20)
        served.store.commit(Delete(record))
        assert everything(viewer)[1:] == (1000, "DELETED")


# --- through the store ------------------------------------------------------------------------------------------------


def test_it_does_not_matter_who_runs_the_deployment(served: Any) -> None:
    """Lines and status come from the store: what another service writes there arrives like this one's."""
    id = served.deployment().id
    other = DeploymentLog(served.store, Redactor())
    with served.watch(id) as viewer:
        viewer.recv(timeout=20)
        other.append(id, "by another logbook")
        assert viewer.recv(timeout=20).endswith("Z by another logbook\n")
        served.store.append_log(id, [("2026-01-01T00:00:00.000Z", "straight"), ("2026-01-01T00:00:01.000Z", "to it")])
        assert viewer.recv(timeout=20) == "2026-01-01T00:00:00.000Z straight\n"
        assert viewer.recv(timeout=20) == "2026-01-01T00:00:01.000Z to it\n"
        record = served.store.get(Deployment, id).to(Status.FAILURE)
        served.store.commit(Update(record), other.line(id, "said with the end"))
        lines, code, reason = everything(viewer)
    assert (texts(lines), code, reason) == (["said with the end"], 1000, "FAILURE")
    other.close()


def test_an_end_between_a_viewers_look_and_its_wait(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store tells of it while the page that does not have it yet is on its way; nobody will tell again."""
    id = served.deployment().id
    read_log = served.store.read_log
    told = threading.Event()
    served.store.subscribe(lambda kind, _: told.set() if kind == Deployment.KIND else None)

    def read_then_end(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(served.store, "read_log", read_log)
        lines = read_log(*args, **kwargs)
        told.clear()
        served.end(id)
        assert told.wait(20)
        return lines

    monkeypatch.setattr(served.store, "read_log", read_then_end)
    with served.watch(id) as viewer:
        lines, code, reason = everything(viewer)
    assert (len(lines), code, reason) == (1, 1000, "DEPLOYED")


# --- coming back ------------------------------------------------------------------------------------------------------


def test_a_viewer_comes_back_at_every_line_and_misses_nothing(served: Any) -> None:
    id = served.deployment().id
    for number in range(20):
        served.deployment_log.append(id, f"{number}\n  looks like two lines")
    served.end(id)
    with served.watch(id) as viewer:
        whole, *_ = everything(viewer)
    assert len(whole) == 21
    for had in range(22):
        with served.watch(id, after=had) as viewer:
            assert everything(viewer) == (whole[had:], 1000, "DEPLOYED")


def test_viewers_that_keep_leaving_get_every_line_once_while_lines_are_added(served: Any, run: Any) -> None:
    id = served.deployment().id
    total = 1500
    other = DeploymentLog(served.store, Redactor())

    def write(deployment_log: DeploymentLog) -> None:
        for number in range(total):
            deployment_log.append(id, str(number))

    def come_and_go(patience: int) -> list[str]:
        seen: list[str] = []
        while True:
            with served.watch(id, after=len(seen), max_queue=None) as viewer:
                try:
                    for _ in range(patience):
                        seen.append(viewer.recv(timeout=30))
                    if patience > 10:  # without a goodbye
                        with contextlib.suppress(OSError):
                            viewer.socket.shutdown(socket.SHUT_RDWR)
                except ConnectionClosed:
                    assert (viewer.close_code, viewer.close_reason) == (1000, "DEPLOYED")
                    return seen

    writers = [run(write, deployment_log) for deployment_log in (served.deployment_log, other)]
    viewers = [run(come_and_go, patience) for patience in (7, 50, 333, 10_000, 10_000)]
    assert [writer.get(timeout=60) for writer in writers] == [None, None]
    served.end(id)
    expected = [format_line(line) + "\n" for line in served.deployment_log.read(id, 0, 10_000)]
    assert len(expected) == 2 * total + 1
    for viewer in viewers:
        assert viewer.get(timeout=60) == expected
    other.close()


def test_after_the_end_of_the_log_is_refused(served: Any) -> None:
    """Silence would be a gap: the lines up to there are still to be written."""
    id = served.deployment().id
    for status in (None, Status.DEPLOYED):
        if status:
            served.end(id, status)
        with served.watch(id, after=3) as viewer:
            assert everything(viewer) == ([], 1008, "after: is too large: the log has 1 lines")
    with served.watch(id, after=1) as viewer:
        assert everything(viewer) == ([], 1000, "DEPLOYED")


@pytest.mark.parametrize("after", ["-1", "1.0", "x", "9" * 19, "\u0661", "1&after=2"])
def test_after_is_a_number(served: Any, after: str) -> None:
    id = served.deployment().id
    with served.watch(id, after=after) as viewer:
        lines, code, reason = everything(viewer)
    assert (lines, code) == ([], 1008)
    assert reason.startswith("after: ")


def test_a_deployment_that_was_deleted_meanwhile_is_unknown(served: Any) -> None:
    record = served.deployment()
    with served.watch(record.id) as viewer:
        viewer.recv(timeout=20)
    served.store.commit(Delete(record))
    with served.watch(record.id, after=1) as viewer:
        assert everything(viewer)[1] == 4404


def test_what_rest_says_comes_next_is_where_the_stream_goes_on(served: Any) -> None:
    id = served.deployment().id
    served.deployment_log.append(id, "two\nlines")
    answer = served.call("GET", f"/deployments/{id}/logs?namespace=shop-ns")
    assert answer.headers["X-Next-After"] == "2"
    with served.watch(id, after=answer.headers["X-Next-After"]) as viewer:
        served.deployment_log.append(id, "new")
        assert viewer.recv(timeout=20).endswith("Z new\n")


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_unknown_deployments_and_other_namespaces_are_a_4404(served: Any) -> None:
    id = served.deployment().id
    for wrong, namespace in (("nobody", "shop-ns"), (id, "other"), ("%ED%A0%80", "shop-ns"), ("x" * 3000, "shop-ns")):
        with served.watch(wrong, namespace) as viewer:
            lines, code, reason = everything(viewer)
        assert (code, reason) == (4404, "there is no such deployment in this namespace")
        # Clients of the original look for it in what comes.
        assert lines == [f"!!error {reason}\n"]


@pytest.mark.parametrize("query", ["", "?namespace=", "?namespace=a&namespace=b"])
def test_a_namespace_is_needed(served: Any, query: str) -> None:
    id = served.deployment().id
    path = f"/stream/deployments/{id}/logs{query}"
    with raw(served) as sock:
        sock.sendall(HANDSHAKE.format(path=path).encode())
        data = b""
        while piece := sock.recv(4096):
            data += piece
        assert data.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in data


@pytest.mark.parametrize("path", ["/stream/", "/stream/deployments", "/stream/deployments/x/log", "/stream/x?a=b"])
def test_an_unknown_stream_is_a_404(served: Any, path: str) -> None:
    with raw(served) as sock:
        sock.sendall(HANDSHAKE.format(path=path).encode())
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 404


def test_a_get_that_is_no_websocket_is_told_so(served: Any) -> None:
    answer = served.call("GET", stream_path("x"))
    assert answer.status == 426
    assert answer.headers["Upgrade"] == "websocket"
    assert answer.problem["title"] == "Upgrade Required"
    # Other methods never leave REST.
    assert served.call("POST", stream_path("x")).problem["status"] == 405
    assert served.call("HEAD", stream_path("x")).status == 426


def test_a_broken_store_is_said(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    id = served.deployment().id

    def broken(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(served.store, "read_log", broken)
    with served.watch(id) as viewer:
        assert everything(viewer) == ([], 1013, "the disk is full")


# --- bad viewers ------------------------------------------------------------------------------------------------------


class TestDeadlines:
    @pytest.fixture
    def stream_options(self) -> dict[str, Any]:
        return {"send_timeout": 1.0}

    @staticmethod
    def fill(served: Any, id: str, megabytes: int) -> int:
        """Lines of 60,000 characters, durable; returns how many."""
        count = megabytes * 1_000_000 // 60_000
        for number in range(count):
            served.deployment_log.append(id, f"{number} " + "x" * 60_000)
            if number % 50 == 49:
                served.deployment_log.read(id, limit=1)  # more would not be kept while the disk is busy
        return count

    @staticmethod
    @contextlib.contextmanager
    def opened(served: Any, id: str, buffer: int = 4096) -> Iterator[socket.socket]:
        """A viewer that reads nothing of its own accord, and has little room."""
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.settimeout(20)
            sock.connect(("127.0.0.1", served.port))
            sock.sendall(HANDSHAKE.format(path=stream_path(id)).encode())
            yield sock

    def test_a_viewer_that_stops_reading_is_dropped_and_another_gets_everything(self, served: Any, run: Any) -> None:
        id = served.deployment().id
        with self.opened(served, id), served.watch(id) as viewer:
            result = run(everything, viewer)
            until(lambda: served.logs.viewers == 2, "both are watching")
            sent = time.monotonic()
            count = self.fill(served, id, 6)
            until(lambda: served.logs.viewers == 1, "the stalled one was dropped")
            assert time.monotonic() - sent < 15
            served.end(id)
            lines, code, reason = result.get(timeout=60)
            assert [line.split(" ")[1] for line in lines[1:]] == [str(number) for number in range(count)]
            assert (code, reason) == (1000, "DEPLOYED")

    @pytest.mark.parametrize("live", [False, True])
    def test_what_waits_for_viewers_that_do_not_read_is_bounded(self, served: Any, run: Any, live: bool) -> None:
        """In a long history, and in a log that grows: a page of lines here, and a small buffer in the kernel."""
        id = served.deployment().id
        if not live:
            self.fill(served, id, 100)
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(self.opened(served, id))
            until(lambda: served.logs.viewers == 5, "all are watching")
            ways = list(served.logs._connections)
            assert len(ways) == 5
            kernel = [
                w.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for w in ways
            ]
            filling = run(self.fill, served, id, 30 if live else 0)
            most = 0
            while served.logs.viewers:
                most = max(most, *(w.transport.get_write_buffer_size() for w in ways))
                threading.Event().wait(0.001)
            assert filling.get(timeout=60) is not None
        assert kernel == [2 * stream.KERNEL_BUFFER] * 5
        assert 0 < most <= feed.PAGE_SIZE + 61_000

    def test_a_viewer_that_takes_a_byte_now_and_then_is_dropped(self, served: Any) -> None:
        id = served.deployment().id
        self.fill(served, id, 3)
        with self.opened(served, id) as sock:
            until(lambda: served.logs.viewers == 1, "it is watching")
            taken = 0
            with contextlib.suppress(ConnectionResetError):
                while served.logs.viewers and sock.recv(1):
                    taken += 1
                    threading.Event().wait(0.02)
            assert 10 < taken < 10_000
            until(lambda: served.logs.viewers == 0, "it was dropped")

    def test_a_slow_viewer_that_goes_on_gets_everything(self, served: Any) -> None:
        id = served.deployment().id
        count = self.fill(served, id, 2)
        served.end(id)
        begin = time.monotonic()
        with self.opened(served, id, buffer=64 * 1024) as sock:
            data = bytearray()
            while not data.endswith(b"DEPLOYED") and (piece := sock.recv(30_000)):
                data += piece
                threading.Event().wait(0.05)
        # Longer than the deadline, which is for a page and not for the log.
        assert time.monotonic() - begin > 1.5
        assert data.count(b"x" * 60_000) == count


class TestPings:
    """Each is answered (RFC 6455, 5.5.2), and who reads no answers is asked no more."""

    @pytest.fixture
    def stream_options(self) -> dict[str, Any]:
        return {"send_timeout": 2.0}

    @pytest.mark.parametrize("piece", [PING * 100, (PING * 20 + MESSAGE * 6) * 5], ids=["pings", "and messages"])
    def test_a_client_that_never_reads_holds_little_and_is_dropped(self, served: Any, run: Any, piece: bytes) -> None:
        id = served.deployment().id
        with TestDeadlines.opened(served, id) as sock:
            until(lambda: served.logs.viewers == 1, "it is watching")
            (way,) = served.logs._connections
            result, most = run(flood, sock, piece), 0
            until_dropped = time.monotonic() + 10
            while served.logs.viewers and time.monotonic() < until_dropped:
                most = max(most, way.transport.get_write_buffer_size())
                threading.Event().wait(0.001)
            assert 0 < most < 256 * 1024
            assert served.logs.viewers == 0
            # What the kernel took in on its way is all that the client could send.
            assert result.get(timeout=20) < 16_000_000

    def test_one_that_reads_gets_every_answer(self, served: Any, run: Any) -> None:
        id = served.deployment().id
        with TestDeadlines.opened(served, id, buffer=64 * 1024) as sock:
            result = run(sock.sendall, PING * 20_000)
            data = b""
            while data.count(b"p" * 125) < 20_000:
                data += sock.recv(1 << 20)
            assert result.get(timeout=20) is None
            served.deployment_log.append(id, "and the log")
            until(lambda: sock.recv(65536).endswith(b"and the log\n"), "the log goes on")


class TestLimits:
    @pytest.fixture
    def stream_options(self) -> dict[str, Any]:
        return {"viewers": 2}

    def test_too_many_viewers_are_a_503(self, served: Any) -> None:
        id = served.deployment().id
        with served.watch(id) as one:
            with served.watch(id) as two:
                one.recv(timeout=20), two.recv(timeout=20)
                with pytest.raises(InvalidStatus) as refused:
                    served.watch(id)
                response = refused.value.response
                assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
                assert json.loads(response.body)["status"] == 503
            until(lambda: served.logs.viewers == 1, "one has left")
            with served.watch(id) as third:
                assert third.recv(timeout=20)


def test_what_a_viewer_says_is_ignored_unless_it_is_too_much(served: Any) -> None:
    id = served.deployment().id
    with served.watch(id) as talker, served.watch(id) as shouter:
        for viewer in (talker, shouter):
            viewer.recv(timeout=20)
        for _ in range(200):
            talker.send("hello")
        shouter.send("x" * 20_000)
        assert everything(shouter)[1] == 1009
        served.deployment_log.append(id, "still there")
        assert talker.recv(timeout=20).endswith("still there\n")


def test_viewers_that_leave_leave_nothing_behind(served: Any) -> None:
    id = served.deployment().id
    for abrupt in (False, True):
        for _ in range(5):
            with served.watch(id) as viewer:
                viewer.recv(timeout=20)
                if abrupt:
                    viewer.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: served.logs.viewers == 0, "all have left")
    assert served.logs._feeds == {}
    assert served.deployment_log._watchers == {}


# --- one port ---------------------------------------------------------------------------------------------------------


def test_rest_answers_while_fifty_streams_are_open(served: Any) -> None:
    id = served.deployment().id
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(served.watch(id)) for _ in range(50)]
        for viewer in viewers:
            viewer.recv(timeout=20)
        connection = stack.enter_context(served.connection())
        for _ in range(50):
            assert served.call("GET", f"/deployments/{id}?namespace=shop-ns", on=connection).status == 200
        served.deployment_log.append(id, "for all")
        assert all(viewer.recv(timeout=20).endswith("for all\n") for viewer in viewers)
        served.end(id)
        assert {everything(viewer)[1] for viewer in viewers} == {1000}


def test_all_viewers_may_come_back_at_once(served: Any) -> None:
    id = served.deployment().id
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(raw(served)) for _ in range(200)]
        for sock in socks:
            sock.sendall(HANDSHAKE.format(path=stream_path(id)).encode())
        served.end(id)
        for sock in socks:
            assert read_all(sock, to=b"DEPLOYED").startswith(b"HTTP/1.1 101 ")


def test_a_stream_on_a_connection_that_was_used_for_rest(served: Any) -> None:
    id = served.deployment().id
    with served.connection() as connection:
        for _ in range(3):
            assert served.call("GET", "/healthz", on=connection).status == 200
        sock = connection.sock
        sock.sendall(HANDSHAKE.format(path=stream_path(id)).encode())
        served.end(id)
        data = read_all(sock, to=b"DEPLOYED")
    assert data.startswith(b"HTTP/1.1 101")
    assert b"queued: deployment" in data


@pytest.mark.parametrize("lead", ["", "\r\n"])
def test_first_bytes_that_trickle_in(served: Any, lead: str) -> None:
    id = served.deployment().id
    served.end(id)
    requests = [
        (HANDSHAKE.format(path=stream_path(id)), b"HTTP/1.1 101 "),
        ("GET /s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 404 "),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 "),
    ]
    for request, expected in requests:
        with raw(served) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = (lead + request).encode()
            for number in range(16):
                sock.sendall(data[number : number + 1])
                # While this one dawdles the port serves others; it also gives every byte a packet of its own.
                assert served.call("GET", "/healthz").status == 200
            sock.sendall(data[16:])
            assert read_all(sock, to=b"DEPLOYED").startswith(expected)


def test_connections_that_say_nothing_or_half_a_word(served: Any) -> None:
    with contextlib.ExitStack() as stack:
        for word in (b"", b"GE", b"GET /stream", b"\r\n\r\n"):
            stack.enter_context(raw(served)).sendall(word)
        with raw(served) as sock:
            sock.sendall(b"GET /strea")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
        before = time.process_time()
        assert served.call("GET", "/healthz").status == 200
        threading.Event().wait(0.5)
        # Nobody spins while they dawdle.
        assert time.process_time() - before < 0.4


# --- the end ----------------------------------------------------------------------------------------------------------


def test_shutdown_says_goodbye(served: Any, run: Any) -> None:
    ids = [served.deployment(f"app-{number}").id for number in range(3)]
    stack = contextlib.ExitStack()
    viewers = [stack.enter_context(served.watch(id)) for id in ids]
    for viewer in viewers:
        viewer.recv(timeout=20)
    ends: list[queue.Queue[Any]] = [run(everything, viewer) for viewer in viewers]
    with raw(served) as dawdling:
        dawdling.sendall(b"GET /str")
        served.server.stop(5)
    assert [end.get(timeout=20)[1] for end in ends] == [1001] * 3
    stack.close()
    assert served.store.get(Deployment, ids[0]) is not None
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", served.port), timeout=1).close()


def test_shutdown_waits_for_nobody_who_is_silent(served: Any) -> None:
    id = served.deployment().id
    with raw(served) as silent, raw(served) as opening:
        silent.sendall(HANDSHAKE.format(path=stream_path(id)).encode())
        opening.sendall(b"GET /stream/deployments/x/logs HTTP/1.1\r\nHost: ")
        until(lambda: served.logs.viewers == 1, "one is watching")
        start = time.monotonic()
        served.server.stop(1)
        assert time.monotonic() - start < 5


def read_all(sock: socket.socket, to: bytes = b"never") -> bytes:
    """What the server sends until it closes, or until that ends with `to`."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while not data.endswith(to) and (piece := sock.recv(65536)):
            data += piece
    return data

"""One port for REST and the log stream: waitress, which hands a connection that asks for a stream to the log server."""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import math
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask

from deployer.api.app import App
from deployer.api.errors import MEDIA_TYPE, problem
from deployer.api.fairness.callers import Callers
from deployer.api.fairness.workers import Workers
from deployer.api.request_head import MALFORMED, MAX_HEADERS, SENTENCES, HeadParser, asks_for_stream
from deployer.api.stream.server import LogStream, descriptors
from deployer.core.errors import SettingsError
from deployer.descriptor import MAX_BODY
from deployer.redaction.redactor import about_nobody

IDLE = 120
"""Seconds after which a connection without a request is closed."""
REQUEST = 60.0
"""Seconds in which a request must have arrived, headers and body."""
STALLED = 30.0
"""Seconds after which a client that takes nothing of its answer is cut off."""
SLOWEST = 4096
"""Bytes a second that a client must take of its answer, over `STALLED`: one that waits keeps a thread."""
# Connections that the kernel keeps until they are accepted (it caps this at net.core.somaxconn): after a restart all
# viewers and clients come back. One that finds no room is tried again by its own kernel only a second later.
_BACKLOG = 1024
_LAST_CALL = 0.2  # seconds that a new connection has for its first request when the service stops
_LINGER = 5.0  # seconds for which the rest of a refused body is read, and how much of it at most
_LINGER_BYTES = 16 * MAX_BODY
# Bytes of an answer that may wait for its client: 1 MiB of them in memory, the rest in a temporary file. Whoever makes
# more waits, with its thread.
_WAITING = 4 * MAX_BODY
_PEEK = 2048  # bytes that are looked at first; most heads are shorter

_log = logging.getLogger(__name__)


class Server:
    """REST and log stream on `host` and `port` (0: any free one) from `start` to `stop`."""

    def __init__(
        self,
        app: App,
        logs: LogStream,
        host: str,
        port: int,
        *,
        threads: int = 16,
        connections: int = 1000,
        callers: Callers | None = None,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        """
        threads      how many requests are worked on at once; the others wait in a queue. Python runs one at a time:
                     2 answer a third more GETs a second than 4 to 32 do, and as many POSTs (`bench/api.py`). There are
                     more for those that wait for the disk or for the API server, so that `/healthz` finds a free one
                     beside them.
        connections  how many REST connections are kept; never more than a quarter of the process's file descriptors.
                     A new one beyond that takes the place of the one that has been idle for longest.
        callers      who get how much of the threads; without them all are the same
        refused      is told the address of a caller whose request was refused unread, as too many others wait
        """
        self._callers = callers or Callers()
        self._refused = refused or (lambda _: None)
        self._app = app
        self._logs = logs
        self._address = (host, port)
        self._threads = threads
        self._connections = min(connections, descriptors() // 4)
        self._rest: _Rest | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._grace = 0.0

    @property
    def port(self) -> int:
        """The port, from `start` on."""
        assert self._rest is not None, "the server has not been started"
        return self._rest.port

    def start(self) -> None:
        """Listen and serve, in threads of their own. Raises SettingsError when the address cannot be had."""
        sock = _listen(*self._address)
        try:
            self._logs.start()
        except BaseException:
            sock.close()
            raise
        workers = Workers(self._threads, self._callers, self._refused)
        self._rest = _Rest(self._app, self._logs, sock, workers, self._connections)
        self._thread = threading.Thread(target=self._run, args=(self._rest,), name="http", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the requests under way for at most `timeout` seconds, take no more, close the streams. Idempotent."""
        deadline = time.monotonic() + timeout
        self._logs.leave(timeout)  # viewers come back, to another process, while the last requests are answered
        if self._thread is not None and self._rest is not None and not self._stopping.is_set():
            self._grace = timeout
            self._stopping.set()
            self._rest.pull_trigger()
            self._thread.join()
        self._logs.stop(max(1.0, deadline - time.monotonic()))

    def _run(self, rest: _Rest) -> None:
        about_nobody()
        while not self._stopping.is_set():
            try:
                rest.turn(1.0)
            except Exception:  # noqa: BLE001 - logged; a port that nobody serves any more would be worse
                _log.exception("internal error in the HTTP server")
                self._stopping.wait(0.5)
        rest.finish(self._grace)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host or 'any address'}, port {port}: {error.strerror or error}; "
            "choose another with --deployhost and --deployport"
        ) from None


class _ProblemTask(ErrorTask):
    """Answers what waitress itself refuses."""

    request: Any
    channel: _Channel
    response_headers: list[tuple[str, str]]

    def execute(self) -> None:
        refusal = self.request.error
        if refusal.code == 429:
            self.response_headers.append(("Retry-After", "1"))
        detail = {
            413: f"the body is larger than {MAX_BODY} bytes",
            431: f"the headers are larger than {MAX_HEADERS} bytes",
            429: "too many requests of callers who are not known wait already; try again in a while",
            500: "internal error; the Deployer's log has the details",
            501: "the only transfer coding that can be sent is chunked",
        }.get(refusal.code, refusal.body if refusal.body in SENTENCES else MALFORMED)
        body = problem(refusal.code, detail)
        self.status = f"{refusal.code} {refusal.reason}"
        self.response_headers.append(("Content-Type", MEDIA_TYPE))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.channel.linger = True
        self.write(body)


class _Task(WSGITask):
    """Sends the headers together with the answer instead of before it: one system call and one packet less.

    Keeps the connection after an answer that has no body (204, 304), which waitress closes for want of a length.
    """

    channel: _Channel
    request: Any

    def write(self, data: bytes) -> None:
        """Part of the answer; the first one brings the headers."""
        if self.channel.server.ending:
            self.request.headers["CONNECTION"] = "close"
        if self.wrote_header or not data or self.content_length != len(data) or not self.has_body:
            super().write(data)
            return
        head = self.build_response_header()
        self.wrote_header = True
        self.content_bytes_written = len(data)
        self.channel.write_soon(head + data)

    def set_close_on_finish(self) -> None:
        """Close it after this answer, unless the answer ends by itself."""
        if self.has_body or self.version != "1.1" or self.request.headers.get("CONNECTION", "").lower() == "close":
            super().set_close_on_finish()


class _Channel(HTTPChannel):
    """A connection that looks at the beginning of each request before it reads it.

    What has been looked at stays in the kernel, so that whoever gets the connection finds the whole request there. The
    log server gets it with a whole head only: half requests stay here, where the oldest make room for others.
    """

    parser_class = HeadParser
    task_class = _Task
    error_task_class = _ProblemTask
    server: _Rest
    socket: Any  # None once it was handed over or closed
    requests: list[Any]

    linger = False  # set when an answer was given before the request had been read
    _draining: int | None = None  # bytes thrown away so far, once closing
    _peeked = 0  # bytes that were seen and told nothing yet
    _taken = 0  # bytes of answers that the client took
    _watched: tuple[float, int] | None = None  # since when it has had something to take, and `_taken` at that time

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.since = time.monotonic()  # since when it has waited for a request, or for the rest of one

    @property
    def last_activity(self) -> float:
        """When something was last received or sent. waitress sets it by the wall clock, which may be set meanwhile."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, _: float) -> None:
        self._last_activity = time.monotonic()

    @property
    def idle(self) -> bool:
        """Nothing is being received, worked on or sent."""
        return not (self.requests or self.total_outbufs_len or self.request or self.close_when_flushed)

    def overdue(self, now: float) -> bool:
        """True when the client takes too long to send a request, to take an answer or to say goodbye."""
        if self._draining is not None:
            return now - self.since > _LINGER
        if (self.request is not None or self._peeked) and not self.requests:
            return now - self.since > REQUEST
        if not self.total_outbufs_len:
            self._watched = None
            return False
        return now - self.last_activity > STALLED or self._trickles(now)

    def _trickles(self, now: float) -> bool:
        """True when it took less than it must, of an answer that it could have had."""
        if self._watched is None:
            self._watched = now, self._taken
        since, before = self._watched
        if now - since <= STALLED:
            return False
        self._watched = now, self._taken
        return self._taken - before < SLOWEST * (now - since)

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what the client takes of it; returns how much that is."""
        sent = int(super().send(data, do_close))
        self._taken += sent
        return sent

    def service(self) -> None:
        """In a worker's thread: one request."""
        about_nobody()
        super().service()
        self.since = time.monotonic()

    def handle_read(self) -> None:
        """A stream's connection leaves; everything else is waitress' business."""
        if self._draining is not None:
            self._drain()
        elif self.request is not None or not self._leaves():
            super().handle_read()

    def _leaves(self) -> bool:
        """True when there is nothing to do here (any more): handed over, or too little seen to decide."""
        try:
            data = self.socket.recv(MAX_HEADERS if self._peeked else _PEEK, socket.MSG_PEEK)
            if blank := len(data) - len(data.lstrip(b"\r\n")):
                # Empty lines before a request mean nothing (RFC 9112, 2.2), but the log server minds them.
                self.socket.recv(blank)
                data = data[blank:]
                if not data:
                    return True
        except BlockingIOError:
            return True
        except OSError:
            return False  # waitress meets it again and closes
        if not self._peeked:
            self.since = time.monotonic()
        stream = asks_for_stream(data, self.parser_class(self.adj))
        if stream:
            self._wake_at(1)
            sock, self.socket = self.socket, None
            self.del_channel()
            self.connected = False
            self.server.logs.adopt(sock, self.addr)
            return True
        if stream is None and self._peeked < len(data) < MAX_HEADERS:
            # Sleep until there is more than this; the end of the connection wakes up too, with nothing new to see.
            self._peeked = len(data)
            self._wake_at(self._peeked + 1)
            return True
        if self._peeked:
            self._peeked = 0
            self._wake_at(1)
        return False

    def _wake_at(self, count: int) -> None:
        """Count as readable from `count` bytes on (socket(7), SO_RCVLOWAT)."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    # A connection that is closed while its client still sends is reset, and the client never reads why it was refused.
    # So after such an answer: say that nothing more will come, and read on for a moment.

    def handle_close(self) -> None:
        """Close it, after lingering if there is a reason to."""
        if self.linger and self.connected:
            self.linger = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the client is gone; so are we
            else:
                self._draining = 0
                self.since = time.monotonic()
                self.will_close = self.close_when_flushed = False
                return
        super().handle_close()

    def drop(self) -> None:
        """Close it now."""
        self.linger = False
        self.handle_close()

    def _drain(self) -> None:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._draining = (self._draining or 0) + len(data)
        if not data or self._draining > _LINGER_BYTES:
            super().handle_close()


class _Rest(TcpWSGIServer):
    """waitress with our limits, turned by `turn` instead of by a loop that nobody can end."""

    channel_class = _Channel
    active_channels: dict[int, _Channel]  # type: ignore[assignment]
    effective_port: str
    _map: dict[int, Any]
    ending = False

    def __init__(self, app: App, logs: LogStream, sock: socket.socket, workers: Workers, connections: int) -> None:
        self.logs = logs
        self._most = connections
        self._pause_until = self._maintained = 0.0
        self.next_channel_cleanup = math.inf  # type: ignore[assignment]  # see `readable`
        self._pulling = threading.Lock()
        self._over = False
        self._workers = workers
        adjustments = Adjustments(
            sockets=[sock],
            threads=workers.count,
            backlog=_BACKLOG,
            # `handle_accept` makes room before this is reached; it is the end when all of them are busy.
            connection_limit=connections + 64,
            channel_timeout=IDLE,
            max_request_header_size=MAX_HEADERS,
            outbuf_high_watermark=_WAITING,
            # waitress refuses a body of exactly this length too.
            max_request_body_size=MAX_BODY + 1,
            # select() cannot watch file descriptors above 1023.
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=True,
            log_socket_errors=False,
            expose_tracebacks=False,
            ident=None,
        )
        info = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(app, {}, True, sock, dispatcher=workers, adj=adjustments, sockinfo=info, bind_socket=False)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.effective_port)

    def turn(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for something to happen, and handle it."""
        waits = self._workers.waits()
        wasyncore.loop(timeout=timeout if waits is None else min(timeout, waits), use_poll=True, map=self._map, count=1)
        if waits is not None:
            self._workers.wake()

    def finish(self, timeout: float) -> None:
        """Stop listening, answer what was accepted, close everything."""
        deadline = time.monotonic() + timeout
        self._stop_listening()
        pause = 0.0  # what has arrived is read before it is judged who is idle
        while self.active_channels and time.monotonic() < deadline:
            self.turn(pause)
            pause = 0.1
            for channel in list(self.active_channels.values()):
                if channel.idle and time.monotonic() - channel.since > _LAST_CALL:
                    channel.handle_close()
        self.task_dispatcher.shutdown(timeout=max(1, round(deadline - time.monotonic())))
        for channel in list(self.active_channels.values()):
            channel.drop()
        with self._pulling:
            self._over = True
            wasyncore.close_all(self._map)

    def _stop_listening(self) -> None:
        """Accept what the kernel has accepted already; whoever comes later is refused at once, and goes elsewhere."""
        self.ending = True
        assert self.socket is not None, "it listens"
        listener = select.poll()
        listener.register(self.socket, select.POLLIN)
        for _ in range(_BACKLOG):
            if not listener.poll(0):
                break
            self.handle_accept()
        self.accepting = False
        self.del_channel()
        self.socket.close()

    def pull_trigger(self) -> None:
        """Wake the loop, from any thread. Once it is over, the trigger's descriptor may be somebody else's."""
        with self._pulling:
            if not self._over:
                super().pull_trigger()

    def accept(self) -> tuple[socket.socket, Any] | None:
        """waitress' own, but out of file descriptors it makes room and waits instead of spinning."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            # More than one, since others in this process need some too.
            closed = self._make_room(1 + len(self.active_channels) // 10)
            _log.warning("%s: %d idle connections were closed", error.strerror, closed)
            self._pause_until = time.monotonic() + (0.0 if closed else 1.0)
            return None

    def readable(self) -> bool:
        """Also the place from which `maintenance` is called: here, as waitress goes by the wall clock."""
        now = time.monotonic()
        if now >= self._maintained + 1:
            self._maintained = now
            self.maintenance(now)
        return bool(super().readable()) and now >= self._pause_until

    def handle_accept(self) -> None:
        """Accept one, and close the one that has waited for longest when there are too many."""
        super().handle_accept()
        if len(self.active_channels) > self._most:
            self._make_room(1)

    def handle_error(self) -> None:
        """Something went wrong while accepting: it must not close the port, which waitress would do."""
        _log.exception("a connection could not be accepted")

    def maintenance(self, now: float) -> None:
        """Close what is idle, what trickles in and what is not taken."""
        super().maintenance(now)  # type: ignore[arg-type]
        for channel in list(self.active_channels.values()):
            if channel.overdue(now):
                # waitress would wait until it can write, which is what this client prevents.
                channel.drop()

    def _make_room(self, count: int) -> int:
        """Close the `count` connections that have waited for longest; returns how many there were."""
        waiting = [channel for channel in self.active_channels.values() if not channel.requests]
        chosen = heapq.nsmallest(count, waiting, key=lambda channel: channel.since)
        for channel in chosen:
            channel.drop()
        return len(chosen)

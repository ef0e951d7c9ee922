"""The log server: WebSockets that show a deployment's log and follow it, on one asyncio loop in a thread of its own.

A viewer has a cursor and is given what follows it (`feed.py`). What waits for it is bounded: a buffer in the kernel and
one page of lines here; the rest stays in the store. One that does not take that page within `send_timeout` is dropped,
so one that takes a byte now and then is dropped as well. While something waits for it nothing is read from it either:
each of its pings is answered, and the answers would wait too.

Connections that are not yet viewers (they open, or have to prove who they are) have a share of their own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import re
import resource
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

from falcon.uri import parse_query_string
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from deployer.api import http
from deployer.api.auth.stream_auth import Refused, StreamAuth
from deployer.api.browsers import hosts, origins
from deployer.api.browsers.hosts import AllowedHosts
from deployer.api.errors import MEDIA_TYPE, problem
from deployer.api.negotiation import refuse_misspelled
from deployer.api.openapi.operations import OPERATIONS
from deployer.api.request_head import Target
from deployer.api.resources.meta import NO_WEBSOCKET
from deployer.api.stream.feed import SEND_TIMEOUT, Feed, Viewer, frame
from deployer.core.commands.service import Service
from deployer.core.errors import Invalid, NotFound, StoreUnavailable
from deployer.core.redaction import about_nobody

# Close codes: 1000 to 1013 are RFC 6455's and IANA's, 44xx repeat what REST would have answered.
ENDED, REFUSED, BROKEN, LATER, UNKNOWN = 1000, 1008, 1011, 1013, 4404

KERNEL_BUFFER = 64 * 1024
"""Bytes that wait in the kernel for a viewer to take them; Linux adds as much for its own needs (socket(7))."""
OPENING = 1000
"""Connections that may be there beside the viewers: in the opening handshake, proving who they are, being refused.

Never more than an eighth of the process's file descriptors. A new one beyond that takes the place of the oldest."""
UNKNOWN_LOG = "there is no such deployment in this namespace"
"""Why a stream is closed with `UNKNOWN`."""
_INCOMING = 16 * 1024  # bytes of a message from a viewer; there is nothing to say yet
_REASON = 123  # bytes of a close reason, RFC 6455, 5.5

_ROUTE = "/stream/deployments/{id}/logs"
_PATH = re.compile(r"/stream/deployments/([^/]+)/logs/?")
_PARAMETERS = OPERATIONS[_ROUTE, "GET"].query

# What the library refuses, by status; its own sentences repeat the request.
_LIBRARY_SAYS = {
    400: "the opening handshake of the WebSocket is not valid (RFC 6455, 4.2.1)",
    426: NO_WEBSOCKET,
    500: "the Deployer met an error of its own; its log says more",
    503: "the service stops; try again in a while",
    505: "a WebSocket needs HTTP/1.1",
}

_CROWDED = "as many are watching logs as can be served; try again in a while"

_log = logging.getLogger(__name__)
# The library reports every connection that opens, closes or fails; whatever matters is logged here.
_wire_log = logging.getLogger(f"{__name__}.wire")
_wire_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which log a connection asks for, with the query's parameters as REST has them."""

    id: str
    params: dict[str, str | list[str]]

    @property
    def namespace(self) -> str:
        """Raises Invalid."""
        return http.namespace(self)

    @property
    def after(self) -> int:
        """How many messages the viewer has had already. Raises Invalid."""
        return http.number(self, "after", least=0) or 0


class LogStream:
    """Serves `/stream/deployments/{id}/logs`. `adopt` gives it the connections, which somebody else has accepted."""

    def __init__(
        self,
        service: Service,
        *,
        viewers: int = 2000,
        send_timeout: float = SEND_TIMEOUT,
        ping_interval: float = 20.0,
        auth: StreamAuth | None = None,
        allowed_origins: Collection[str] = (),
        allowed_hosts: AllowedHosts | None = None,
    ) -> None:
        """
        auth           lets viewers in and ends what they may no longer see; without one everybody may see everything
        viewers        how many there may be at once; never more than a quarter of the process's file descriptors
        send_timeout   seconds in which a viewer must take what waits for it, at most a page of lines, or it is dropped
        ping_interval  seconds between pings, and how long a pong may take
        allowed_hosts  what `Host` may be; loopback names only where nobody says
        """
        self._service = service
        self._limit = min(viewers, descriptors() // 4)
        self._most_opening = max(1, min(OPENING, descriptors() // 8))
        self._send_timeout = send_timeout
        self._ping_interval = ping_interval
        self._auth = auth or StreamAuth()
        self._allowed_origins = frozenset(allowed_origins)
        self._allowed_hosts = allowed_hosts or AllowedHosts()
        self._grace = 5.0
        self._viewers = 0
        self._connections: set[_Connection] = set()
        self._opening: dict[_Connection, None] = {}  # those that are no viewers yet, the oldest first
        self._feeds: dict[str, Feed] = {}
        self._listener = _Handover(self._most_opening)
        self._thread: threading.Thread | None = None
        # Done when connections are taken; what it holds asks the loop to end.
        self._ready: concurrent.futures.Future[Callable[[], None]] = concurrent.futures.Future()
        self._readers = concurrent.futures.ThreadPoolExecutor(
            4, thread_name_prefix="log-reader", initializer=about_nobody
        )

    @property
    def viewers(self) -> int:
        """How many are watching now."""
        return self._viewers

    def start(self) -> None:
        """Start the loop's thread; returns when it takes connections."""
        self._thread = threading.Thread(target=self._run, name="log-stream", daemon=True)
        self._thread.start()
        self._ready.result(timeout=30)

    def stop(self, timeout: float = 5.0) -> None:
        """Close every connection with 1001; what is still open after `timeout` seconds is cut off. Idempotent."""
        if self._thread is not None:
            self._grace = timeout
            if self._ready.exception(timeout=30) is None:
                self._ready.result()()
            self._thread.join()
        self._listener.close()
        self._readers.shutdown()
        self._auth.close()

    def adopt(self, sock: socket.socket, address: Any) -> None:
        """Take over a connection whose request has arrived and not been read yet. Safe to call from any thread."""
        if not self._listener.put(sock, address):
            sock.close()

    # --- the loop's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        about_nobody()
        try:
            # The selector loop by name: another policy's loop might not accept from `_Handover`.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except Exception as error:  # noqa: BLE001 - logged, and `start` raises it
            _log.exception("the log server has ended")
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            self._listener.close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        server = await serve(
            self._view,
            sock=self._listener,
            process_request=self._admit,
            process_response=_as_problem,
            select_subprotocol=self._auth.protocol,
            create_connection=cast(type[ServerConnection], self._connect),
            compression=None,
            server_header=None,
            ping_interval=self._ping_interval,
            ping_timeout=self._ping_interval,
            close_timeout=self._send_timeout,
            max_size=_INCOMING,
            max_queue=4,
            write_limit=0,
            logger=_wire_log,
        )
        self._ready.set_result(lambda: _tell(loop, stopping.set))
        await stopping.wait()
        server.close()
        try:
            async with asyncio.timeout(self._grace):
                await server.wait_closed()
        except TimeoutError:
            _log.warning("%d log viewers did not say goodbye and are cut off", len(self._connections))
            for connection in tuple(self._connections):
                connection.transport.abort()
            await server.wait_closed()

    def _connect(self, *args: Any, **kwargs: Any) -> _Connection:
        connection = _Connection(*args, **kwargs)
        connection.home = self._connections
        connection.opening = self._opening
        connection.most_opening = self._most_opening
        connection.patience = self._send_timeout
        return connection

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse over HTTP what is not for this service, or not about one deployment."""
        target = Target.of(request.path)
        origin, host = (", ".join(request.headers.get_all(name)) for name in ("Origin", "Host"))
        host = target.authority or host
        if not self._allowed_hosts.admits(host):
            return self._turn_away(connection, 421, hosts.REFUSAL)
        if origins.foreign(origin, host, self._allowed_origins):
            return self._turn_away(connection, 403, origins.REFUSAL)
        match = _PATH.fullmatch(target.path)
        if match is None:
            return _refuse(connection, 404, "there is no such stream; GET / lists what there is")
        asked = Asked(match.group(1), parse_query_string(target.query, keep_blank=True, csv=False))
        try:
            refuse_misspelled(asked.params, _PARAMETERS)
            asked.namespace  # noqa: B018 - which raises
        except Invalid as error:
            return _refuse(connection, 400, str(error))
        if self._viewers >= self._limit or self._auth.crowded(request):
            response = _refuse(connection, 503, _CROWDED)
            response.headers["Retry-After"] = "10"
            return response
        cast(_Connection, connection).asked = asked
        return None

    def _turn_away(self, connection: ServerConnection, status: int, detail: str) -> Response:
        self._auth.note(connection, status, detail)
        return _refuse(connection, status, detail)

    async def _view(self, some: ServerConnection) -> None:
        connection = cast(_Connection, some)
        viewer = Viewer(connection)
        listener: asyncio.Task[None] | None = None
        counted = False
        try:
            try:
                ticket = await self._auth.enter(connection, connection.asked.namespace, connection.asked.id)
                if self._viewers >= self._limit:
                    raise Refused(LATER, _CROWDED)
                connection.establish()
                self._viewers += 1
                counted = True
                listener = asyncio.create_task(_ignore_messages(connection))
                listener.add_done_callback(lambda _: viewer.leave())
                code, reason = await self._auth.hold(ticket, self._outcome(connection.asked, viewer))
            except Refused as refused:
                code, reason = refused.code, refused.reason
            async with asyncio.timeout(self._send_timeout):
                await connection.close(code, _shorten(reason))
        except TimeoutError:
            # No goodbye: it would wait behind what the viewer does not read.
            connection.drop()
        except ConnectionClosed:
            _log.debug("a log viewer left")
        finally:
            if listener is not None:
                listener.cancel()
            self._viewers -= counted

    async def _outcome(self, asked: Asked, viewer: Viewer) -> tuple[int, str]:
        """Send until there is nothing more to come; returns close code and reason."""
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._readers, self._service.deployment, asked.namespace, asked.id)
            viewer.after = asked.after
            with self._feed(asked.namespace, asked.id) as feed:
                return ENDED, await feed.follow(viewer)
        except NotFound:
            # Clients of the original look for this in what they were sent.
            viewer.way.put(frame(f"!!error {UNKNOWN_LOG}\n"))
            return UNKNOWN, UNKNOWN_LOG
        except Invalid as error:
            return REFUSED, str(error)
        except StoreUnavailable as error:
            return LATER, str(error)
        except ConnectionClosed:
            raise
        except Exception:  # noqa: BLE001 - logged
            _log.exception("the log of deployment %s cannot be shown", asked.id)
            return BROKEN, "the Deployer met an error of its own; its log says more"

    @contextlib.contextmanager
    def _feed(self, namespace: str, id: str) -> Iterator[Feed]:
        """The deployment's feed, made for its first viewer and closed with its last."""
        feed = self._feeds.get(id)
        if feed is None:
            feed = self._feeds[id] = Feed(self._service, namespace, id, self._readers)
        feed.viewers += 1
        try:
            yield feed
        finally:
            feed.viewers -= 1
            if not feed.viewers:
                del self._feeds[id]
                feed.close()


# --- plumbing ---------------------------------------------------------------------------------------------------------


async def _ignore_messages(connection: _Connection) -> None:
    """Read until the connection ends: it is how the library notices pongs and goodbyes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.recv(decode=False)
            # The next one only then: the library would read on, whatever waits.
            await connection.taken()


class _Connection(ServerConnection):
    """A connection that is a member of `home` from its first byte to its last, and the way out to its viewer.

    Until it is `establish`ed it is one of `opening`, which holds `most_opening`, the oldest first.

    `put` writes frames that were made for many viewers. The library, which writes its own whole as well, never knows.
    """

    asked: Asked
    home: set[_Connection]
    opening: dict[_Connection, None]
    most_opening: int
    patience: float  # seconds

    def establish(self) -> None:
        """From now on a viewer, whose place nobody takes."""
        self.opening.pop(self, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.home.add(self)
        self.opening[self] = None
        if len(self.opening) > self.most_opening:
            next(iter(self.opening)).give_way()
        self._empty = asyncio.Event()
        self._empty.set()
        self._deadline: asyncio.TimerHandle | None = None
        # What a slow viewer does not take is to wait in the store, not in the kernel's memory; and what it sends at
        # once is to be little.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _INCOMING)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.home.discard(self)
        self.opening.pop(self, None)
        self._stop_waiting()
        super().connection_lost(exc)

    # With a `write_limit` of 0 asyncio calls these when it has to keep something, and when it has no more.

    def pause_writing(self) -> None:
        self._empty.clear()
        self._deadline = self.loop.call_later(self.patience, self.drop)
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()
        if not self.recv_messages.paused:
            self.transport.resume_reading()

    def _stop_waiting(self) -> None:
        self._empty.set()
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._empty.is_set():
            self.transport.pause_reading()

    def send_data(self) -> None:
        """What the library has to say, in one piece: a thousand pongs are one write."""
        data = self.protocol.data_to_send()
        if whole := b"".join(data):
            self.transport.write(whole)
        if b"" in data and self.transport.can_write_eof():
            self.transport.write_eof()

    def put(self, data: bytes) -> bool:
        """Write frames, unless the end has been said already; false when some of it has to wait."""
        if data and self.state is State.OPEN:
            self.transport.write(data)
        return self._empty.is_set()

    async def taken(self) -> None:
        """Return when nothing has to wait any more, or the connection has ended: it is given `patience` seconds."""
        await self._empty.wait()

    def drop(self) -> None:
        """End it without a goodbye, which would wait behind what is not read."""
        _log.info("a log viewer took nothing for %g s and is dropped", self.patience)
        self.transport.abort()

    def give_way(self) -> None:
        """End it in favour of a newer one."""
        self.opening.pop(self, None)
        self.transport.abort()


class _Handover(socket.socket):
    """To asyncio a listening socket; its connections come from `put` instead of from the network.

    It is one end of a pair. A byte from the other end makes it readable, upon which asyncio calls `accept`.
    """

    def __init__(self, most: int) -> None:
        """`most` connections wait at once; the oldest make room for others."""
        mine, self._bell = socket.socketpair()
        super().__init__(fileno=mine.detach())
        self.setblocking(False)
        self._bell.setblocking(False)
        self._lock = threading.Lock()
        self._open = True
        self._most = most
        self._waiting: deque[tuple[socket.socket, Any]] = deque()

    def put(self, sock: socket.socket, address: Any) -> bool:
        """Offer a connection. False when this is closed: the socket stays the caller's."""
        with self._lock:
            if not self._open:
                return False
            if len(self._waiting) >= self._most:
                self._waiting.popleft()[0].close()
            self._waiting.append((sock, address))
            # A full pair is readable already.
            with contextlib.suppress(BlockingIOError):
                self._bell.send(b"!")
            return True

    def listen(self, backlog: int = 0, /) -> None:
        """There is nothing to listen to."""

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises BlockingIOError when there is none; only then is the bell silenced."""
        with self._lock:
            if not self._waiting:
                self.recv(4096)
                raise BlockingIOError
            return self._waiting.popleft()

    def close(self) -> None:
        """Close it, and every connection that nobody accepted. Idempotent."""
        with self._lock:
            self._open = False
            while self._waiting:
                self._waiting.popleft()[0].close()
            self._bell.close()
            super().close()


def descriptors() -> int:
    """How many files this process may have open at once (its soft limit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def _refuse(connection: ServerConnection, status: int, detail: str) -> Response:
    """An answer over HTTP, in the shape of all other errors."""
    response = connection.respond(status, "")
    response.body = problem(status, detail)
    for name, value in (("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(response.body)))):
        del response.headers[name]
        response.headers[name] = value
    return response


def _as_problem(connection: ServerConnection, _request: Request, response: Response) -> Response | None:
    """What the library refuses, in words of ours."""
    status = response.status_code
    if status < 400 or response.headers["Content-Type"] == MEDIA_TYPE:
        return None
    refusal = _refuse(connection, status, _LIBRARY_SAYS.get(status, _LIBRARY_SAYS[400]))
    if "Upgrade" in response.headers:
        refusal.headers["Upgrade"] = response.headers["Upgrade"]
    return refusal


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Have the loop call `callback`; when it has ended there is nobody to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _shorten(reason: str) -> str:
    return reason.encode()[:_REASON].decode(errors="ignore")

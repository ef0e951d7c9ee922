"""The log server: WebSockets that show a deployment's log and follow it, on one asyncio loop in a thread of its own.

Nothing is buffered per viewer: each has a cursor and reads on from the store when it is woken, so a slow one costs a
full buffer in the kernel and a page of lines here.
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
import urllib.parse
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from deployer.api import origins
from deployer.api.auth.streaming import Door, Refused
from deployer.api.errors import MEDIA_TYPE, problem
from deployer.core.errors import NotFound, StoreUnavailable
from deployer.core.records import LogLine
from deployer.core.service import Service

# Close codes: 1000 to 1013 are RFC 6455's and IANA's, 44xx repeat what REST would have answered.
ENDED, REFUSED, BROKEN, LATER, UNKNOWN = 1000, 1008, 1011, 1013, 4404

PAGE = 200
"""Lines that are read at once."""
PAGE_SIZE = 256 * 1024
"""Characters that a page has at most, but for its last line; this is what a slow viewer holds."""
OPENING = 200
"""Connections that may be in the opening handshake beside the viewers."""
_INCOMING = 16 * 1024  # bytes of a message from a viewer; there is nothing to say yet
_REASON = 123  # bytes of a close reason, RFC 6455, 5.5

_PATH = re.compile(r"/stream/deployments/([^/]+)/logs/?")

_log = logging.getLogger(__name__)
# The library reports every connection that opens, closes or fails; whatever matters is logged here.
_wire_log = logging.getLogger(f"{__name__}.wire")
_wire_log.setLevel(logging.CRITICAL)


class LogStream:
    """Serves `/stream/deployments/{id}/logs`. `adopt` gives it the connections, which somebody else has accepted."""

    def __init__(
        self,
        service: Service,
        *,
        viewers: int = 2000,
        send_timeout: float = 10.0,
        ping_interval: float = 20.0,
        door: Door | None = None,
        allowed_origins: Collection[str] = (),
    ) -> None:
        """
        door           lets viewers in and ends what they may no longer see; without one everybody may see everything
        viewers        how many there may be at once; never more than a quarter of the process's file descriptors
        send_timeout   seconds in which a viewer must take a message, or it is dropped
        ping_interval  seconds between pings, and how long a pong may take
        """
        self._service = service
        self._limit = min(viewers, descriptors() // 4)
        self._send_timeout = send_timeout
        self._ping_interval = ping_interval
        self._door = door or Door()
        self._allowed_origins = frozenset(allowed_origins)
        self._grace = 5.0
        self._viewers = 0
        self._connections: set[_Connection] = set()
        self._feeds: dict[str, _Feed] = {}
        self._listener = _Handover()
        self._thread: threading.Thread | None = None
        # Done when connections are taken; what it holds asks the loop to end.
        self._ready: concurrent.futures.Future[Callable[[], None]] = concurrent.futures.Future()
        self._readers = concurrent.futures.ThreadPoolExecutor(4, thread_name_prefix="log-reader")

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
        self._door.close()

    def adopt(self, sock: socket.socket, address: Any) -> None:
        """Take over a connection whose request has not been read yet. Safe to call from any thread."""
        if len(self._connections) >= self._limit + OPENING or not self._listener.put(sock, address):
            sock.close()

    # --- the loop's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
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
            select_subprotocol=self._door.protocol,
            create_connection=cast(type[ServerConnection], self._connect),
            compression=None,
            server_header=None,
            ping_interval=self._ping_interval,
            ping_timeout=self._ping_interval,
            close_timeout=self._send_timeout,
            max_size=_INCOMING,
            max_queue=4,
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
        return connection

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse over HTTP what is not about one deployment."""
        origin, host = (", ".join(request.headers.get_all(name)) for name in ("Origin", "Host"))
        if origins.foreign(origin, host, self._allowed_origins):
            return connection.respond(403, origins.REFUSAL.format(ascii(origin)[:200]))
        url = urllib.parse.urlsplit(request.path)
        if not _PATH.fullmatch(url.path):
            return connection.respond(404, f"there is no stream at {url.path}; GET / lists what there is")
        if len(_namespaces(url.query)) != 1:
            return connection.respond(400, "the parameter namespace is needed, once")
        if self._viewers >= self._limit or self._door.crowded(request):
            response = connection.respond(503, f"{self._viewers} are watching logs already; try again in a while")
            response.headers["Retry-After"] = "10"
            return response
        return None

    async def _view(self, connection: ServerConnection) -> None:
        self._viewers += 1
        wake = asyncio.Event()
        listener: asyncio.Task[None] | None = None
        try:
            try:
                ticket = await self._door.enter(connection, _id(connection))
                listener = asyncio.create_task(_ignore_messages(connection))
                listener.add_done_callback(lambda _: wake.set())
                code, reason = await self._door.hold(ticket, self._outcome(connection, listener, wake))
            except Refused as refused:
                code, reason = refused.code, refused.reason
            async with asyncio.timeout(self._send_timeout):
                await connection.close(code, _shorten(reason))
        except TimeoutError:
            # No goodbye: it would wait behind what the viewer does not read.
            _log.info("a log viewer took nothing for %g s and is dropped", self._send_timeout)
            connection.transport.abort()
        except ConnectionClosed:
            _log.debug("a log viewer left")
        finally:
            if listener is not None:
                listener.cancel()
            self._viewers -= 1

    async def _outcome(
        self, connection: ServerConnection, listener: asyncio.Task[None], wake: asyncio.Event
    ) -> tuple[int, str]:
        """Send until there is nothing more to come; returns close code and reason."""
        assert connection.request is not None
        id = _id(connection)
        namespaces = _namespaces(urllib.parse.urlsplit(connection.request.path).query)
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._readers, self._service.deployment, namespaces[0], id)
            with self._feed(namespaces[0], id, wake) as feed:
                # When the listener is done, the viewer has left.
                return await self._follow(connection, feed, wake, listener.done)
        except NotFound as error:
            return UNKNOWN, str(error)
        except StoreUnavailable as error:
            return LATER, str(error)
        except (ConnectionClosed, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - logged
            _log.exception("the log of deployment %s cannot be shown", id)
            return BROKEN, "the Deployer met an error of its own; its log says more"

    async def _follow(
        self, connection: ServerConnection, feed: _Feed, wake: asyncio.Event, left: Callable[[], bool]
    ) -> tuple[int, str]:
        after = 0
        while not left():
            wake.clear()
            page = await feed.read(after)
            for message in page.messages:
                async with asyncio.timeout(self._send_timeout):
                    await connection.send(message)
            after = page.last
            if page.end:
                return ENDED, page.end
            if not page.more:
                await wake.wait()
        return ENDED, ""

    @contextlib.contextmanager
    def _feed(self, namespace: str, id: str, wake: asyncio.Event) -> Iterator[_Feed]:
        """The deployment's feed, which sets `wake` whenever there may be something new."""
        feed = self._feeds.get(id)
        if feed is None:
            feed = self._feeds[id] = _Feed(self._service, namespace, id, self._readers)
        feed.viewers.add(wake)
        try:
            yield feed
        finally:
            feed.viewers.discard(wake)
            if not feed.viewers:
                del self._feeds[id]
                feed.close()


# --- following one deployment -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Page:
    """What follows a cursor. `last` is the new cursor, `end` why nothing will ever follow (empty while it may)."""

    messages: tuple[str, ...]
    last: int
    more: bool
    end: str


class _Feed:
    """Reads one deployment's log for all its viewers. Used by the loop's thread only, but for what the store calls.

    Viewers at the same line share one read, so that a new line costs one read however many are watching.
    """

    def __init__(
        self, service: Service, namespace: str, id: str, readers: concurrent.futures.ThreadPoolExecutor
    ) -> None:
        self.viewers: set[asyncio.Event] = set()
        self._service = service
        self._namespace = namespace
        self._id = id
        self._readers = readers
        self._loop = asyncio.get_running_loop()
        self._reads: dict[int, asyncio.Future[_Page]] = {}
        self._told = False
        self.close = service.logbook.watch(id, self._tell)

    async def read(self, after: int) -> _Page:
        """The page after a cursor. Raises NotFound never: a deployment that is gone is an end."""
        future = self._reads.get(after)
        if future is None:
            future = self._reads[after] = self._loop.run_in_executor(self._readers, self._page, after)
            future.add_done_callback(lambda done: self._over(after, done))
        # One viewer that leaves must not cancel what the others wait for.
        return await asyncio.shield(future)

    def _over(self, after: int, future: asyncio.Future[_Page]) -> None:
        if self._reads.get(after) is future:
            del self._reads[after]
        if not future.cancelled():
            future.exception()  # seen, even if every viewer has left meanwhile

    def _page(self, after: int) -> _Page:
        """In a reader's thread. The status is read first: what it says ends the log was written before it."""
        try:
            status = self._service.deployment(self._namespace, self._id).status
        except NotFound:
            return _Page((), after, more=False, end="DELETED")
        lines = self._service.logbook.read(self._id, after, PAGE)
        messages: list[str] = []
        size = 0
        for line in lines:
            messages.append(format_line(line))
            size += len(line.text)
            after = line.number
            if size > PAGE_SIZE:
                break
        more = len(lines) == PAGE or len(messages) < len(lines)
        return _Page(tuple(messages), after, more, end="" if more or status.moving else status.value)

    def _tell(self) -> None:
        """In the store's thread, after new lines or another status. Many calls become one in the loop."""
        if not self._told:
            self._told = True
            _tell(self._loop, self._wake)

    def _wake(self) -> None:
        # In this order: what the store tells from here on is told anew, and whoever wakes up reads anew.
        self._told = False
        self._reads.clear()
        for viewer in self.viewers:
            viewer.set()


def _id(connection: ServerConnection) -> str:
    """The deployment that a connection is about, once it was admitted."""
    assert connection.request is not None
    match = _PATH.fullmatch(urllib.parse.urlsplit(connection.request.path).path)
    assert match is not None
    return urllib.parse.unquote(match.group(1))


def format_line(line: LogLine) -> str:
    """`RFC3339 message` as in the log's text; further lines of the message are indented by two spaces."""
    return f"{line.time} {line.text}".replace("\n", "\n  ")


async def _ignore_messages(connection: ServerConnection) -> None:
    """Read until the connection ends: it is how the library notices pongs and goodbyes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.recv(decode=False)


# --- plumbing ---------------------------------------------------------------------------------------------------------


class _Connection(ServerConnection):
    """A connection that is a member of `home` from its first byte to its last."""

    home: set[_Connection]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.home.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.home.discard(self)
        super().connection_lost(exc)


class _Handover(socket.socket):
    """To asyncio a listening socket; its connections come from `put` instead of from the network.

    It is one end of a pair. A byte from the other end makes it readable, upon which asyncio calls `accept`.
    """

    def __init__(self) -> None:
        mine, self._bell = socket.socketpair()
        super().__init__(fileno=mine.detach())
        self.setblocking(False)
        self._bell.setblocking(False)
        self._lock = threading.Lock()
        self._open = True
        self._waiting: deque[tuple[socket.socket, Any]] = deque()

    def put(self, sock: socket.socket, address: Any) -> bool:
        """Offer a connection. False when this is closed: the socket stays the caller's."""
        with self._lock:
            if not self._open:
                return False
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


def _as_problem(_connection: ServerConnection, _request: Request, response: Response) -> None:
    """Give a refusal, ours or the library's, the shape of all other errors."""
    if response.status_code < 400:
        return
    detail = (response.body or b"").decode(errors="replace").strip().replace("\n", " ")
    response.body = problem(response.status_code, detail)
    for name, value in (("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(response.body)))):
        del response.headers[name]
        response.headers[name] = value


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Have the loop call `callback`; when it has ended there is nobody to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _namespaces(query: str) -> list[str]:
    return urllib.parse.parse_qs(query).get("namespace", [])


def _shorten(reason: str) -> str:
    return reason.encode()[:_REASON].decode(errors="ignore")

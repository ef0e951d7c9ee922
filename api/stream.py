"""The log server: WebSockets that show a deployment's log and follow it, on one asyncio loop in a thread of its own.

A viewer has a cursor and is given what follows it (`feed.py`). What waits for it is bounded: a buffer in the kernel and
one page of lines here; the rest stays in the store. One that does not take that page within `send_timeout` is dropped,
so one that takes a byte now and then is dropped as well.
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
from typing import Any, cast

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from deployer.api import origins
from deployer.api.auth.streaming import Door, Refused
from deployer.api.errors import MEDIA_TYPE, problem
from deployer.api.feed import Feed, Viewer
from deployer.core.errors import Invalid, NotFound, Problem, StoreUnavailable
from deployer.core.redaction import about_nobody
from deployer.core.service import Service

# Close codes: 1000 to 1013 are RFC 6455's and IANA's, 44xx repeat what REST would have answered.
ENDED, REFUSED, BROKEN, LATER, UNKNOWN = 1000, 1008, 1011, 1013, 4404

KERNEL_BUFFER = 64 * 1024
"""Bytes that wait in the kernel for a viewer to take them; Linux adds as much for its own needs (socket(7))."""
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
        send_timeout: float = 8.0,
        ping_interval: float = 20.0,
        door: Door | None = None,
        allowed_origins: Collection[str] = (),
    ) -> None:
        """
        door           lets viewers in and ends what they may no longer see; without one everybody may see everything
        viewers        how many there may be at once; never more than a quarter of the process's file descriptors
        send_timeout   seconds in which a viewer must take what waits for it, at most a page of lines, or it is dropped
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
        self._feeds: dict[str, Feed] = {}
        self._listener = _Handover()
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
        self._door.close()

    def adopt(self, sock: socket.socket, address: Any) -> None:
        """Take over a connection whose request has not been read yet. Safe to call from any thread."""
        if len(self._connections) >= self._limit + OPENING or not self._listener.put(sock, address):
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
            select_subprotocol=self._door.protocol,
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
        connection.patience = self._send_timeout
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
        viewer = Viewer(cast(_Connection, connection))
        listener: asyncio.Task[None] | None = None
        try:
            try:
                ticket = await self._door.enter(connection, _id(connection))
                listener = asyncio.create_task(_ignore_messages(connection))
                listener.add_done_callback(lambda _: viewer.leave())
                code, reason = await self._door.hold(ticket, self._outcome(connection, viewer))
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

    async def _outcome(self, connection: ServerConnection, viewer: Viewer) -> tuple[int, str]:
        """Send until there is nothing more to come; returns close code and reason."""
        assert connection.request is not None
        id = _id(connection)
        namespaces = _namespaces(urllib.parse.urlsplit(connection.request.path).query)
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._readers, self._service.deployment, namespaces[0], id)
            viewer.after = _after(urllib.parse.urlsplit(connection.request.path).query)
            with self._feed(namespaces[0], id) as feed:
                return ENDED, await feed.follow(viewer)
        except NotFound as error:
            return UNKNOWN, str(error)
        except Invalid as error:
            return REFUSED, str(error)
        except StoreUnavailable as error:
            return LATER, str(error)
        except (ConnectionClosed, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - logged
            _log.exception("the log of deployment %s cannot be shown", id)
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


def _after(query: str) -> int:
    """The parameter `after`: how many messages the viewer has had already. Raises Invalid."""
    values = urllib.parse.parse_qs(query).get("after", ["0"])
    if len(values) != 1 or not re.fullmatch("[0-9]{1,9}", values[0]):
        raise Invalid([Problem("after", "is not one whole number from 0 on")])
    return int(values[0])


def _id(connection: ServerConnection) -> str:
    """The deployment that a connection is about, once it was admitted."""
    assert connection.request is not None
    match = _PATH.fullmatch(urllib.parse.urlsplit(connection.request.path).path)
    assert match is not None
    return urllib.parse.unquote(match.group(1))


async def _ignore_messages(connection: ServerConnection) -> None:
    """Read until the connection ends: it is how the library notices pongs and goodbyes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.recv(decode=False)


class _Connection(ServerConnection):
    """A connection that is a member of `home` from its first byte to its last, and the way out to its viewer.

    `put` writes frames that were made for many viewers. The library, which writes its own whole as well, never knows.
    """

    home: set[_Connection]
    patience: float  # seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.home.add(self)
        self._empty = asyncio.Event()
        self._empty.set()
        # What a slow viewer does not take is to wait in the store, not in the kernel's memory.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.home.discard(self)
        super().connection_lost(exc)
        self._empty.set()

    # With a `write_limit` of 0 asyncio calls these when it has to keep something, and when it has no more.

    def pause_writing(self) -> None:
        self._empty.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._empty.set()

    def put(self, data: bytes) -> bool:
        """Write frames, unless the end has been said already; false when some of it has to wait."""
        if data and self.state is State.OPEN:
            self.transport.write(data)
        return self._empty.is_set()

    async def taken(self) -> None:
        """Return when nothing has to wait any more. Raises TimeoutError when that takes too long."""
        if not self._empty.is_set():
            async with asyncio.timeout(self.patience):
                await self._empty.wait()


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

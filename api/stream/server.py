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
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

from falcon.uri import parse_query_string
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from deployer.api.auth.stream_auth import Refused, StreamAuth
from deployer.api.browsers import hosts, origins
from deployer.api.browsers.hosts import AllowedHosts
from deployer.api.errors import MEDIA_TYPE, problem
from deployer.api.negotiation import refuse_misspelled
from deployer.api.openapi.operations import OPERATIONS
from deployer.api.request_head import Target
from deployer.api.resources.meta import NO_WEBSOCKET
from deployer.api.stream.connection import INCOMING, Asked, Connection
from deployer.api.stream.feed import SEND_TIMEOUT, Feed, Viewer, frame
from deployer.api.stream.handover import Handover
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.errors import Invalid, NotFound, StoreUnavailable
from deployer.redaction.redactor import about_nobody

# Close codes: 1000 to 1013 are RFC 6455's and IANA's, 44xx repeat what REST would have answered.
ENDED, REFUSED, BROKEN, LATER, UNKNOWN = 1000, 1008, 1011, 1013, 4404

OPENING = 1000
"""Connections that may be there beside the viewers: in the opening handshake, proving who they are, being refused.

Never more than an eighth of the process's file descriptors. A new one beyond that takes the place of the oldest."""
UNKNOWN_LOG = "there is no such deployment in this namespace"
"""Why a stream is closed with `UNKNOWN`."""
_REASON = 123  # bytes of a close reason, RFC 6455, 5.5

_ROUTE = "/stream/deployments/{id}/logs"
_PATH = re.compile(r"/stream/deployments/([^/]+)/logs/?")
_PARAMETERS = OPERATIONS[_ROUTE, "GET"].query

# What the library refuses, by status; its own sentences repeat the request.
_LIBRARY_SAYS = {
    400: "the opening handshake of the WebSocket is not valid (RFC 6455, 4.2.1)",
    426: NO_WEBSOCKET,
    500: "internal error; the Deployer's log has the details",
    503: "the service stops; try again in a while",
    505: "a WebSocket needs HTTP/1.1",
}

_CROWDED = "as many are watching logs as can be served; try again in a while"

_log = logging.getLogger(__name__)
# The library reports every connection that opens, closes or fails; whatever matters is logged here.
_wire_log = logging.getLogger(f"{__name__}.wire")
_wire_log.setLevel(logging.CRITICAL)


class LogStream:
    """Serves `/stream/deployments/{id}/logs`. `adopt` gives it the connections, which somebody else has accepted."""

    def __init__(
        self,
        service: DeploymentCommands,
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
        viewers        how many there may be at once; never more than a quarter of the process's file descriptors. Those
                       of one namespace leave a quarter of that to others.
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
        self._viewers_of: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._opening: dict[Connection, None] = {}  # those that are no viewers yet, the oldest first
        self._feeds: dict[str, Feed] = {}
        self._listener = Handover(self._most_opening)
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

    def leave(self, timeout: float = 5.0) -> None:
        """Begin to close every connection with 1001 ("going away"), which tells viewers to come back; what is open
        after `timeout` seconds is cut off. Idempotent."""
        if self._thread is not None:
            self._grace = timeout
            if self._ready.exception(timeout=30) is None:
                self._ready.result()()

    def stop(self, timeout: float = 5.0) -> None:
        """`leave`, and return when that is done. Idempotent."""
        if self._thread is not None:
            self.leave(timeout)
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
            # The selector loop by name: another policy's loop might not accept from `Handover`.
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
            max_size=INCOMING,
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

    def _connect(self, *args: Any, **kwargs: Any) -> Connection:
        connection = Connection(*args, **kwargs)
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
        cast(Connection, connection).asked = asked
        return None

    def _turn_away(self, connection: ServerConnection, status: int, detail: str) -> Response:
        self._auth.note(connection, status, detail)
        return _refuse(connection, status, detail)

    async def _view(self, some: ServerConnection) -> None:
        connection = cast(Connection, some)
        viewer = Viewer(connection)
        listener: asyncio.Task[None] | None = None
        counted = False
        try:
            try:
                ticket = await self._auth.enter(connection, connection.asked.namespace, connection.asked.id)
                if self._viewers >= self._limit:
                    raise Refused(LATER, _CROWDED)
                self._count_in(connection.asked.namespace)
                counted = True
                connection.establish()
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
            if counted:
                self._count_out(connection.asked.namespace)

    def _count_in(self, namespace: str) -> None:
        """One viewer more. Raises Refused when the namespace has as many as it may."""
        most = min(self._service.quotas.limit(namespace, "viewers"), self._limit - self._limit // 4)
        if self._viewers_of[namespace] >= most:
            raise Refused(LATER, f"{most} are watching logs of this namespace, all that may; try again in a while")
        self._viewers_of[namespace] += 1
        self._viewers += 1

    def _count_out(self, namespace: str) -> None:
        self._viewers -= 1
        self._viewers_of[namespace] -= 1
        if not self._viewers_of[namespace]:
            del self._viewers_of[namespace]

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
            return BROKEN, "internal error; the Deployer's log has the details"

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


async def _ignore_messages(connection: Connection) -> None:
    """Read until the connection ends: it is how the library notices pongs and goodbyes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.recv(decode=False)
            # The next one only then: the library would read on, whatever waits.
            await connection.taken()


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

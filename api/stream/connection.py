"""A viewer's connection: what waits for it is bounded, and one that takes nothing is dropped."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from deployer.api import http

KERNEL_BUFFER = 64 * 1024
"""Bytes that wait in the kernel for a viewer to take them; Linux adds as much for its own needs (socket(7))."""
INCOMING = 16 * 1024  # bytes of a message from a viewer; there is nothing to say yet

_log = logging.getLogger(__name__)


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


class Connection(ServerConnection):
    """A connection that is a member of `home` from its first byte to its last, and the way out to its viewer.

    Until it is `establish`ed it is one of `opening`, which holds `most_opening`, the oldest first.

    `put` writes frames that were made for many viewers. The library, which writes its own whole as well, never knows.
    """

    asked: Asked
    home: set[Connection]
    opening: dict[Connection, None]
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
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, INCOMING)
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

"""Connections that one thread accepts and another one's event loop serves."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from typing import Any


class Handover(socket.socket):
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

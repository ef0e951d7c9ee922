"""What lies between a store and an etcd: a connection that can be refused, cut, go dark, or lose its answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit


class Link:
    """A TCP proxy on loopback to an address like `http://127.0.0.1:2379`. It passes all on until told not to.

    deaf     requests arrive, answers are lost
    dark     nothing arrives, either way; connections stay
    hold     requests wait until `release`, whether or not somebody still waits for their answers
    refuse   connections are ended
    on_request   is called with each piece that is sent, before it is passed on
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.deaf = self.dark = self.hold = self.refuse = False
        self.answers = 0
        """How many pieces have come from etcd."""
        self._held: list[tuple[socket.socket, bytes]] = []
        self.on_request: Callable[[bytes], None] = lambda piece: None
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> list[bytes]:
        """Pass on what was held, and return it."""
        self.hold = False
        with self._lock:
            held, self._held = self._held, []
        for sink, piece in held:
            sink.sendall(piece)
        return [piece for _, piece in held]

    def cut(self) -> None:
        """End all connections that there are."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            _end(one)

    def close(self) -> None:
        """Let go of everything."""
        self.refuse = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuse:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(self._target, timeout=10)
                    server.settimeout(None)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._sockets |= {client, server}
                for source, sink, asks in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(source, sink, asks), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                if asks:
                    self.on_request(piece)
                self.answers += not asks
                if asks and self.hold:
                    with self._lock:
                        self._held.append((sink, piece))
                    continue
                if self.dark or (self.deaf and not asks):
                    continue
                if self.refuse:
                    break
                sink.sendall(piece)
        with self._lock:
            if any(held is sink for held, _ in self._held):
                return
            self._sockets -= {source, sink}
        _end(source)
        _end(sink)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

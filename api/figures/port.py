"""`/metrics` on a port of its own, where nobody is asked for a token: for Prometheus, which has none of ours."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import urlsplit

from deployer.core.errors import SettingsError

_SILENCE = 10.0  # seconds that a client may take for each part of its request


class FiguresPort:
    """Answers `GET /metrics` and nothing else, from the start to `close`."""

    def __init__(self, host: str, port: int, render: Callable[[], bytes], content_type: str) -> None:
        """`render` makes the answer. Raises SettingsError when nothing can listen there; port 0 takes any free one."""

        class Handler(_Handler):
            figures = staticmethod(render)
            form = content_type

        class Listener(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            allow_reuse_address = True
            daemon_threads = True

        try:
            self._server = Listener((host, port), Handler)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host or 'any address'}, port {port}: {error.strerror or error}; "
                "choose another with --metrics-port"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="figures", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more. Takes half a second at most."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    figures: ClassVar[Callable[[], bytes]]
    form: ClassVar[str]
    timeout = _SILENCE
    server_version, sys_version = "deployer", ""

    def do_GET(self) -> None:
        found = urlsplit(self.path).path == "/metrics"
        body = type(self).figures() if found else b"only /metrics is here\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", self.form if found else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A scrape every few seconds is no news."""

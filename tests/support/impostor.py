"""A server of HTTP that answers whatever a test says, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body; with status 0 the connection breaks off, with -1 nothing comes."""

PROBLEM = {"Content-Type": "application/problem+json"}


class Impostor:
    """An HTTP server that answers as a test says. `asked`: methods, paths and headers, in order. `mute` is
    set once somebody waits for an answer that never comes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.answers: list[Answer] = []
        self.mute, self.closing = threading.Event(), threading.Event()
        self.default: Answer = (200, {"Content-Type": "application/json"}, b"[]")
        impostor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                impostor.asked.append((self.command, self.path, dict(self.headers.items())))
                status, headers, body = impostor.answers.pop(0) if impostor.answers else impostor.default
                if status == -1:
                    impostor.mute.set()
                    impostor.closing.wait()
                if status <= 0:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def problem(status: int, detail: str, **more: Any) -> Answer:
    """One of RFC 9457."""
    body = {"type": "about:blank", "title": "x", "status": status, "detail": detail, **more}
    return status, PROBLEM, json.dumps(body).encode()

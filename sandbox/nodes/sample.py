"""The sample programs that run as pods, a process each. Standard library only, started as `python -I -S sample.py`.

The first line of stdin is a JSON object: {"address", "program", "env"}. The container's environment comes this way, not
as the process's own, so that nothing in a descriptor (LD_PRELOAD, PYTHONPATH) reaches an interpreter. stdin then stays
open: its end means that the sandbox is gone, and the program with it.

Program `job`: writes JOB_LINES (1) lines of JOB_TEXT, waits JOB_SECONDS (0) or until SIGTERM, then ends with exit code
JOB_EXIT (0).

Program `web`: PORT (8080) answers with its version, `/slow` after two seconds, `/env` with its environment; HEALTH_PORT
(9999) has `/health` and `/healthy`, `/unhealthy`, `/simple`, `/error`. Program `crash`: exits 3 at once. Environment:
APP_VERSION, POD_NAME, FAIL (health says no), SLOW_START (seconds before it listens), DRAIN (seconds that it serves on
after SIGTERM), CRASH_AFTER (seconds), HEALTH_BODY_BYTES (pads health answers), HEALTH_HANG (seconds before a health
answer), HEALTH_REDIRECT (health answers 302 to this location).
"""

import json
import os
import signal
import socket
import sys
import threading
import time

TYPE_CHECKING = False  # as in typing, whose import would double the start time
if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[int, dict[str, str], bytes]

LONGEST_HEAD = 64 * 1024
LONGEST_BODY = 4 * 1024 * 1024
REASONS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Web:
    """The answers of program `web`: (code, headers, body) for a path."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.version = env.get("APP_VERSION", "")

    def app(self, path: str) -> "Answer":
        if path == "/slow":
            time.sleep(2)
            return 200, {}, b"slow\n"
        if path == "/env":
            return 200, {}, "\n".join(f"{key}={value}" for key, value in sorted(self.env.items())).encode()
        return 200, {"X-Version": self.version}, f"version {self.version} on {self.env.get('POD_NAME', '')}\n".encode()

    def health(self, path: str) -> "Answer":
        env, fail = self.env, bool(self.env.get("FAIL"))
        time.sleep(float(env.get("HEALTH_HANG") or 0))
        if env.get("HEALTH_REDIRECT"):
            return 302, {"Location": env["HEALTH_REDIRECT"]}, b""
        if path in ("/health", "/healthy", "/unhealthy"):
            answer = {"healthy": path != "/unhealthy" and not fail, "version": self.version}
            body = json.dumps(answer).encode()
            return (
                200,
                {"Content-Type": "application/json"},
                body + b" " * (int(env.get("HEALTH_BODY_BYTES") or 0) - len(body)),
            )
        if path == "/simple":
            return (503 if fail else 200), {}, b"ok"
        return (500 if path == "/error" else 404), {}, b""


def listen(address: str, port: int, answer: "Callable[[str], Answer]") -> None:
    """Serves HTTP/1.1 with keep-alive on one port, a thread for each connection."""
    server = socket.create_server((address, port), backlog=512)

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection, answer), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def serve(connection: socket.socket, answer: "Callable[[str], Answer]") -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        data: bytes | None = b""
        try:
            while data is not None:
                data = serve_one(connection, data, answer)
        except OSError:
            return  # the peer is gone, nobody to tell


def serve_one(connection: socket.socket, data: bytes, answer: "Callable[[str], Answer]") -> bytes | None:
    """One request; returns what was read beyond it, None when the connection ends."""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more or len(data) > LONGEST_HEAD:
            return None
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, _, target = first.partition(" ")
    target, _, protocol = target.partition(" ")
    length = headers.get("content-length", "0")
    close = headers.get("connection", "").lower() == "close" or protocol != "HTTP/1.1"
    if not length.isdigit() or "transfer-encoding" in headers:
        answer, close = _refuse, True
    else:
        while len(rest) < int(length):
            more = connection.recv(65536)
            if not more or len(rest) > LONGEST_BODY:
                return None
            rest += more
        rest = rest[int(length) :]
    code, extra, body = answer(target.partition("?")[0])
    fields = {"Content-Type": "text/plain; charset=utf-8", **extra, "Content-Length": str(len(body))}
    if close:
        fields["Connection"] = "close"
    text = (
        f"HTTP/1.1 {code} {REASONS[code]}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        + "\r\n"
    )
    connection.sendall(text.encode("latin-1") + (b"" if method == "HEAD" else body))
    return None if close else rest


def _refuse(_: str) -> "Answer":
    return 400, {}, b"a body needs a Content-Length\n"


def log(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def die_with_the_sandbox() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def after(seconds: float, code: int, text: str) -> None:
    time.sleep(seconds)
    log(text)
    os._exit(code)


def main() -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    start = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not start:
        return 1
    threading.Thread(target=die_with_the_sandbox, daemon=True).start()
    env = start["env"]
    if start["program"] == "crash":
        log("cannot start: crashing on purpose")
        return 3
    if start["program"] == "job":
        for number in range(int(env.get("JOB_LINES") or 1)):
            log(f"line {number + 1} {env.get('JOB_TEXT', '')}".rstrip())
        stopped = stop.wait(float(env.get("JOB_SECONDS") or 0))
        return 143 if stopped else int(env.get("JOB_EXIT") or 0)
    log(f"starting version {env.get('APP_VERSION', '')}")
    if not stop.wait(float(env.get("SLOW_START") or 0)):
        web = Web(env)
        listen(start["address"], int(env.get("PORT") or 8080), web.app)
        try:
            listen(start["address"], int(env.get("HEALTH_PORT") or 9999), web.health)
        except OSError as error:  # a second container of the pod: the app alone is of use too
            log(f"no health endpoints: {error}")
        if seconds := float(env.get("CRASH_AFTER") or 0):
            threading.Thread(target=after, args=(seconds, 3, "crashing on purpose"), daemon=True).start()
        stop.wait()
    time.sleep(float(env.get("DRAIN") or 0))
    log("stopped")
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except (OSError, ValueError) as error:
        log(f"cannot start: {error}")
        code = 1
    os._exit(code)  # without waiting for the connections' threads

"""The load for `api.py`: clients that cost little, so that figures are the server's. Raw sockets, requests made before.

    python bench/load.py rest PORT CONNECTIONS SECONDS    # requests from standard input, a JSON list of texts
    python bench/load.py viewers PORT PATH VIEWERS LINES  # prints `ready`, then the result; see `viewers`

Both print one JSON object. Each is a process of its own.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from typing import Any

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n")
_HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_AT_ONCE = 50
"""Handshakes under way at the same time."""


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def rest(port: int, connections: int, seconds: float, requests: list[bytes]) -> dict[str, Any]:
    """Keep-alive connections, each of which sends the next request when it has the answer to the last."""
    poll = select.epoll()
    socks = {sock.fileno(): sock for sock in (_connect(port) for _ in range(connections))}
    latencies: list[float] = []
    refused = size = number = 0
    asked: dict[int, float] = {}
    parts: dict[int, bytes] = {}
    begin = time.perf_counter()
    for fd, sock in socks.items():
        poll.register(fd, select.EPOLLIN)
        parts[fd], asked[fd] = b"", begin
        sock.sendall(requests[number % len(requests)])
        number += 1
    end = begin + seconds
    now = begin
    while now < end:
        for fd, _ in poll.poll(1.0):
            data = socks[fd].recv(1 << 18)
            if not data:
                raise SystemExit("the server has closed a connection")
            if parts[fd]:
                data = parts[fd] + data
            head = data.find(b"\r\n\r\n")
            unchanged = data[9:12] == b"304"  # which has no body, and no length
            length = _LENGTH.search(data, 0, head + 2) if head >= 0 else None
            complete = length is not None and len(data) >= head + 4 + int(length[1])
            if head < 0 or not (complete or unchanged):
                parts[fd] = data
                continue
            parts[fd] = b""
            size = len(data)
            refused += data[9:10] != b"2" and not unchanged
            now = time.perf_counter()
            latencies.append(now - asked[fd])
            asked[fd] = now
            socks[fd].sendall(requests[number % len(requests)])
            number += 1
    return {"done": len(latencies), "refused": refused, "seconds": now - begin, "bytes": size, **cuts(latencies)}


def viewers(port: int, path: str, count: int, lines: int) -> dict[str, Any]:
    """Open `count` viewers, and then read until each has `lines` messages that end in the time of their making.

    That is in nanoseconds of the monotonic clock, which all processes of a machine share.
    """
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}
    waiting: dict[int, bytes] = {}
    opening: set[int] = set()
    while len(socks) < count or opening:
        while len(socks) < count and len(opening) < _AT_ONCE:
            sock = _connect(port)
            sock.sendall(_HANDSHAKE.format(path).encode())
            socks[sock.fileno()], waiting[sock.fileno()] = sock, b""
            opening.add(sock.fileno())
            poll.register(sock.fileno(), select.EPOLLIN)
        for fd, _ in poll.poll(1.0):
            waiting[fd] += socks[fd].recv(1 << 16)
            if fd in opening and b"\r\n\r\n" in waiting[fd]:
                answer, _, waiting[fd] = waiting[fd].partition(b"\r\n\r\n")
                if not answer.startswith(b"HTTP/1.1 101 "):
                    raise SystemExit(f"a viewer was refused: {answer.decode()}")
                opening.discard(fd)
    print("ready", flush=True)
    latencies: list[float] = []
    missing = dict.fromkeys(socks, lines)
    while missing:
        for fd, _ in poll.poll(1.0):
            data = socks[fd].recv(1 << 18)
            now = time.monotonic_ns()
            if not data:
                raise SystemExit("the server has dropped a viewer")
            if waiting[fd]:
                data = waiting[fd] + data
            at, messages = _frames(data, socks[fd])
            waiting[fd] = data[at:]
            latencies += [(now - int(message.rpartition(b" ")[2])) / 1e9 for message in messages]
            if fd in missing:
                missing[fd] -= len(messages)
                if missing[fd] <= 0:
                    del missing[fd]
    return {"done": len(latencies), **cuts(latencies)}


def _frames(data: bytes, sock: socket.socket) -> tuple[int, list[bytes]]:
    """Where the first incomplete frame begins, and the text of those before it. Pings are answered."""
    at, messages = 0, []
    while len(data) >= at + 4:
        start, length = at + 2, data[at + 1]
        if length == 126:
            start, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
        if len(data) < start + length:
            break
        text = data[start : start + length]
        if data[at] == 0x81:
            messages.append(text)
        elif data[at] == 0x89:
            sock.sendall(bytes((0x8A, 0x80 | length)) + b"\0\0\0\0" + text)
        else:
            raise SystemExit(f"a viewer got a frame that begins with {data[at]:#x}: {text!r}")
        at = start + length
    return at, messages


def cuts(latencies: list[float]) -> dict[str, float]:
    """Percentiles in seconds."""
    ordered = sorted(latencies) or [0.0]
    return {f"p{cut}": ordered[min(len(ordered) - 1, len(ordered) * cut // 100)] for cut in (50, 99)}


def main() -> None:
    """See above."""
    what, port, *rest_of = sys.argv[1:]
    if what == "rest":
        requests = [text.encode() for text in json.load(sys.stdin)]
        result = rest(int(port), int(rest_of[0]), float(rest_of[1]), requests)
    else:
        result = viewers(int(port), rest_of[0], int(rest_of[1]), int(rest_of[2]))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

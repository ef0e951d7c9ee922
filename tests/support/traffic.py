"""A load generator in a process of its own: every kind of request at once through one address, and an account of each.

    python tests/support/traffic.py <the plan as JSON>

It speaks HTTP/1.1 itself, so that nothing below it repeats a request in silence. A request fails when it is answered
by anything but 200 and a whole body, or not at all. The one exception is told apart as `closed`: a connection that had
been used before was closed when the next request was sent on it, and no byte of an answer came; clients open a new one
then, and so does this. A line on standard input asks for the account so far, the end of it for the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

WINDOW = 8 * 1024
"""Bytes that a client who stops reading has room for."""
SEGMENT = 536
"""Bytes of a TCP segment to such a client. Both keep the buffers on the way from growing before it stops: what is in
them would arrive without the server."""


@dataclass(frozen=True)
class Kind:
    """One kind of request, and how many are under way at a time.

    fresh   a new connection for each, else one for all of a lane
    pause   seconds between an answer and the next request
    limit   seconds for one request
    stall   seconds for which the client reads no more once an answer has begun; meanwhile the server can write no more
    """

    name: str
    method: str = "GET"
    path: str = "/"
    fresh: bool = True
    lanes: int = 1
    pause: float = 0.03
    limit: float = 10.0
    stall: float = 0.0


KINDS = (
    Kind("keep-alive GET", fresh=False, lanes=8),
    Kind("keep-alive POST", "POST", fresh=False, lanes=3),
    Kind("fresh GET", lanes=4),
    Kind("fresh POST", "POST", lanes=2),
    Kind("slow GET, 2 s", path="/slow", lanes=4, limit=15.0),
    Kind("slow POST, 2 s", "POST", path="/slow", fresh=False, lanes=2, limit=15.0),
    # About 1.8 MB (`ballast`), more than the buffers on the way take.
    Kind("download, 6 s", path="/env", lanes=3, limit=30.0, stall=6.0),
)


CALM = tuple(replace(kind, pause=0.1) for kind in KINDS)
"""Less of it, where the machine is small and several things go on at the same time."""


@dataclass
class Account:
    """What became of one kind of request. `failures` are [seconds since the epoch, why], the first ones."""

    answered: int = 0
    failed: int = 0
    closed: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        """One more."""
        self.failed += 1
        if len(self.failures) < 20:
            self.failures.append((time.time(), why))


@dataclass
class Report:
    """All accounts by kind.

    fresh   [seconds since the epoch, version] for each request on a connection of its own: when it began, who answered
    spans   [kind, began, ended] of each request that takes seconds
    """

    kinds: dict[str, Account] = field(default_factory=dict)
    fresh: list[tuple[float, str]] = field(default_factory=list)
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Report:
        """The inverse of `dataclasses.asdict`, after a journey as JSON."""
        kinds = {name: Account(**account) for name, account in document["kinds"].items()}
        return cls(kinds, [(t, v) for t, v in document["fresh"]], [(k, b, e) for k, b, e in document["spans"]])

    @property
    def failed(self) -> int:
        """Requests of all kinds."""
        return sum(account.failed for account in self.kinds.values())

    @property
    def answered(self) -> int:
        """Requests of all kinds."""
        return sum(account.answered for account in self.kinds.values())

    @property
    def closed(self) -> int:
        """Connections of all kinds."""
        return sum(account.closed for account in self.kinds.values())

    def explain(self) -> str:
        """The failures, in words."""
        lines = [f"{n}: {a.failed} failed, {a.closed} closed, {a.answered} answered" for n, a in self.kinds.items()]
        lines += [f"  {name} at {when:.3f}: {why}" for name, a in self.kinds.items() for when, why in a.failures[:5]]
        return "\n".join(lines)

    def late(self, version: str, since: float) -> list[tuple[float, str]]:
        """Answers on fresh connections, of requests that began after `since`, by any other version."""
        return [(when, found) for when, found in self.fresh if when > since and found != version]

    def spanning(self, moment: float) -> Counter[str]:
        """How many of the long requests were under way then, by kind."""
        return Counter(kind for kind, began, ended in self.spans if began < moment < ended)


class Wrong(Exception):
    """An answer that is none. The message is for the account."""


class Closed(Exception):
    """The connection was closed before a byte of an answer."""


class Generator:
    """The other side of `Traffic`: all lanes, until it is stopped."""

    def __init__(self, address: tuple[str, int], host: str, kinds: Sequence[Kind], authority: str = "") -> None:
        self._address, self._host, self._kinds = address, host, kinds
        self._tls = ssl.create_default_context(cafile=authority) if authority else None
        self.report = Report({kind.name: Account() for kind in kinds})
        self._over = asyncio.Event()

    def stop(self) -> None:
        """Begin no more requests."""
        self._over.set()

    async def run(self) -> None:
        """Until it is stopped and the last request has ended."""
        lanes = [(kind, number) for kind in self._kinds for number in range(kind.lanes)]
        await asyncio.gather(*(self._lane(kind, number) for kind, number in lanes))

    async def _lane(self, kind: Kind, number: int) -> None:
        connection = Connection(self._address, self._host, slow=bool(kind.stall), tls=self._tls)
        # Those that take seconds do not all begin at once.
        pause = number * (2.0 / kind.lanes if kind.pause and kind.limit > 10.0 else 0.0)
        while not await self._within(pause):
            await self._one(kind, connection)
            pause = kind.pause
        connection.close()

    async def _within(self, seconds: float) -> bool:
        """Is it over, now or within the time?"""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), max(seconds, 0.001))
        return self._over.is_set()

    async def _one(self, kind: Kind, connection: Connection) -> None:
        account, began = self.report.kinds[kind.name], time.time()
        try:
            async with asyncio.timeout(kind.limit):
                try:
                    body = await connection.ask(self._request(kind), kind.stall)
                except Closed:
                    if not connection.used:
                        raise
                    account.closed += 1
                    connection.close()
                    body = await connection.ask(self._request(kind), kind.stall)
            version = _version(kind, body)
        except TimeoutError:
            account.fail(f"no whole answer within {kind.limit:g} s")
        except Closed:
            account.fail("the connection was closed before an answer")
        except asyncio.IncompleteReadError:
            account.fail("the answer broke off")
        except (OSError, Wrong, ValueError, asyncio.LimitOverrunError) as error:
            account.fail(f"{type(error).__name__}: {error}")
        else:
            self._count(kind, account, began, version)
            if not kind.fresh:
                return
        connection.close()

    def _count(self, kind: Kind, account: Account, began: float, version: str) -> None:
        account.answered += 1
        account.versions[version] = account.versions.get(version, 0) + 1
        if kind.fresh and kind.path == "/":
            self.report.fresh.append((began, version))
        if kind.limit > 10.0:
            self.report.spans.append((kind.name, began, time.time()))

    def _request(self, kind: Kind) -> bytes:
        body = b"x" * 1024 if kind.method == "POST" else b""
        keep = "close" if kind.fresh else "keep-alive"
        head = f"{kind.method} {kind.path} HTTP/1.1\r\nHost: {self._host}\r\nConnection: {keep}\r\n"
        head += f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{head}\r\n".encode() + body


class Connection:
    """Opens when it is needed; `used`: at least one answer came over it. With `tls` it is for `host`, or fails."""

    def __init__(self, address: tuple[str, int], host: str, *, slow: bool, tls: ssl.SSLContext | None) -> None:
        self._address, self._host, self._slow, self._tls = address, host, slow, tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.used = False

    async def ask(self, request: bytes, stall: float) -> bytes:
        """The body of the answer. Raises what goes wrong."""
        if self._streams is None:
            self._streams = await self._open()
        reader, writer = self._streams
        try:
            writer.write(request)
            first = await reader.read(1)
        except ConnectionError as error:
            raise Closed from error
        if not first:
            raise Closed
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        await asyncio.sleep(stall)
        body = await _body(reader, headers)
        self.used = True
        if headers.get("connection", "").lower() == "close":
            self.close()
        if head[0].split(" ")[1] != "200":
            raise Wrong(f"HTTP {head[0].partition(' ')[2]}")
        return body

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            if self._slow:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
            await asyncio.get_running_loop().sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        limit = WINDOW // 2 if self._slow else 2**16
        if self._tls is None:
            return await asyncio.open_connection(sock=sock, limit=limit)
        return await asyncio.open_connection(sock=sock, limit=limit, ssl=self._tls, server_hostname=self._host)

    def close(self) -> None:
        """The next request opens another one."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams, self.used = None, False


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers["content-length"]))
    body = bytearray()
    while length := int(await reader.readline() or b"-1", 16):
        if length < 0:
            raise asyncio.IncompleteReadError(bytes(body), None)
        body += await reader.readexactly(length)
        await reader.readexactly(2)
    await reader.readline()
    return bytes(body)


def _version(kind: Kind, body: bytes) -> str:
    """Who answered, as far as the answer says so. Raises Wrong."""
    text = body.decode()
    if kind.path == "/":
        words = text.split()
        if words[:1] != ["version"] or len(words) < 2:
            raise Wrong(f"an answer of the application was expected, not {text[:60]!r}")
        return words[1]
    if kind.path == "/env":
        return next(line.partition("=")[2] for line in text.splitlines() if line.startswith("APP_VERSION="))
    if text != "slow\n":
        raise Wrong(f"an answer of the application was expected, not {text[:60]!r}")
    return ""


async def serve(plan: dict[str, Any]) -> None:
    """Run the plan's lanes; answer each line with the account so far."""
    kinds = [Kind(**kind) for kind in plan["kinds"]]
    generator = Generator(tuple(plan["address"]), plan["host"], kinds, plan["authority"])
    running = asyncio.ensure_future(generator.run())
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        _say(generator.report)
    generator.stop()
    await running
    _say(generator.report)


def _say(report: Report) -> None:
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    sys.stdout.flush()


class Traffic:
    """Load on one host, from now until it is stopped. With `authority`, a file of certificates, over TLS: every
    connection must show one for the host that is signed by one of them."""

    def __init__(
        self, address: tuple[str, int], host: str, kinds: Sequence[Kind] = KINDS, *, authority: str = ""
    ) -> None:
        plan = {"address": address, "host": host, "kinds": [asdict(kind) for kind in kinds], "authority": authority}
        command = [sys.executable, __file__, json.dumps(plan)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def report(self) -> Report:
        """The account so far."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return self._read()

    def stop(self) -> Report:
        """Let the requests under way end; the whole account."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        report = self._read()
        self.close()
        return report

    def close(self) -> None:
        """End it at once, unless it has ended."""
        if self._child.poll() is None and not (self._child.stdin and self._child.stdin.closed):
            self._child.kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._child.wait(60)

    def _read(self) -> Report:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, "the load generator has ended"
        return Report.from_document(json.loads(line))


def ballast() -> list[str]:
    """Values for environment variables that make `/env` of the sample app an answer of about 1.8 MB.

    One may not be longer than 128 KiB, nor all of them longer than 2 MiB (execve(2)).
    """
    return ["x" * 120_000] * 15


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))

"""A load generator: constant, paced GET requests over keep-alive and fresh connections, and an honest account of each.

It speaks HTTP/1.1 itself, so that nothing below it repeats a request in silence: a connection that closes before the
answer is a failure.
"""

import asyncio
import ipaddress
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds for a whole request, the connection included; longer is a failure."""
LATEST = 1.0
"""Seconds that a connection may fall behind its pace before it gives up catching up."""


@dataclass(frozen=True)
class Second:
    """What happened within one second of the load."""

    answered: int = 0
    failed: int = 0
    by_version: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Counts of a load, so far or in all. A failure is no answer within 5 s, or one of status 400 and above."""

    sent: int
    answered: int
    failed: int
    failures: dict[str, int]  # by reason
    by_version: dict[str, int]  # by X-Version header; "" without one
    first_seen: dict[str, float]  # by version, seconds since the epoch
    last_seen: dict[str, float]
    timeline: list[Second]  # from the start
    latency_p50: float  # seconds, of answered requests
    latency_p99: float
    began: float  # seconds since the epoch


class _Lost(Exception):
    """A request without a good answer; the message is the reason for the account."""


class Load:
    """Load on one URL until stopped; all methods may be called from any thread."""

    def __init__(self, url: str, host: str = "", rate: float = 100.0, keep_alive: int = 4, fresh: int = 2) -> None:
        """`rate`: requests a second over all connections; `keep_alive` of them stay open, `fresh` are new each time.

        Raises ValueError for a target that is not http://127.x.y.z.
        """
        parts = urlsplit(url)
        try:
            local = parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "") in ipaddress.ip_network(
                "127.0.0.0/8"
            )
        except ValueError:
            local = False
        if not local:
            raise ValueError(f"load goes to http://127.x.y.z addresses only, not to {url}")
        if rate <= 0 or keep_alive < 0 or fresh < 0 or keep_alive + fresh == 0:
            raise ValueError("load needs a positive rate and at least one connection")
        self._address = (parts.hostname or "", parts.port or 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._request = f"GET {target} HTTP/1.1\r\nHost: {host or parts.netloc}\r\n"
        self._pace = (keep_alive + fresh) / rate
        self._connections = [True] * keep_alive + [False] * fresh
        self._news = threading.Condition()
        self._account = _Account()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> "Load":
        """Begins; a load runs once."""
        if self._thread is not None:
            raise RuntimeError("this load was already started")
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), name="load", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> Report:
        """Lets the requests under way end and returns the whole account."""
        if self._thread is None or self._loop is None or self._stop is None:
            raise RuntimeError("this load was not started")
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(3 * TIMEOUT)
        return self.snapshot()

    def snapshot(self) -> Report:
        with self._news:
            return self._account.report()

    def wait_for(self, predicate: Callable[[Report], bool], timeout: float) -> Report:
        """The first report for which the predicate holds, asked after every request.

        Raises TimeoutError after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        with self._news:
            while not predicate(report := self._account.report()):
                if not self._news.wait(end - time.monotonic()) or time.monotonic() > end:
                    raise TimeoutError(f"the load did not get there within {timeout:g} s: {report}")
        return report

    async def _run(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        count = len(self._connections)
        lanes = (self._lane(keep, self._pace * i / count, self._stop) for i, keep in enumerate(self._connections))
        await asyncio.gather(*lanes)

    async def _lane(self, keep: bool, offset: float, stop: asyncio.Event) -> None:
        """One connection after the other, or one for all; a request every `pace` seconds."""
        now = asyncio.get_running_loop().time
        due, connection = now() + offset, _Connection(self._address)
        while not await _within(stop, due - now()):
            due = max(due + self._pace, now() - LATEST)
            await self._one(connection, keep)
        connection.close()

    async def _one(self, connection: "_Connection", keep: bool) -> None:
        request = f"{self._request}Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
        with self._news:
            self._account.sent += 1
        began = time.monotonic()
        reason = version = ""
        try:
            async with asyncio.timeout(TIMEOUT):
                version = await connection.ask(request, keep)
        except TimeoutError:
            reason = f"no answer within {TIMEOUT:g} s"
        except ConnectionRefusedError:
            reason = "connection refused"
        except (OSError, asyncio.IncompleteReadError):
            reason = "connection closed before an answer"
        except (_Lost, ValueError, asyncio.LimitOverrunError) as error:
            reason = str(error)
        if reason or not keep:
            connection.close()
        with self._news:
            self._account.add(reason, version, time.monotonic() - began)
            self._news.notify_all()


class _Connection:
    """A connection that opens when it is needed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, keep: bool) -> str:
        """Sends one request; the version that answered. Raises what goes wrong."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while length := int(await reader.readline(), 16):
                await reader.readexactly(length + 2)
            await reader.readline()
        else:
            await reader.readexactly(int(headers.get("content-length", "0")))
        if not keep or headers.get("connection", "").lower() == "close":
            self.close()
        code = int(first.split(" ")[1])
        if code >= 400:
            raise _Lost(f"HTTP {code}")
        return headers.get("x-version", "")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class _Account:
    """The counts; guarded by the load's condition."""

    def __init__(self) -> None:
        self.began = time.time()
        self.sent = 0
        self._failures: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._latencies: Counter[int] = Counter()  # in tenths of a millisecond
        self._seconds: list[tuple[Counter[str], list[int]]] = []

    def add(self, reason: str, version: str, latency: float) -> None:
        now = time.time()
        while len(self._seconds) <= now - self.began:
            self._seconds.append((Counter(), [0]))
        versions, failed = self._seconds[-1]
        if reason:
            self._failures[reason] += 1
            failed[0] += 1
            return
        self._versions[version] += 1
        versions[version] += 1
        self._first.setdefault(version, now)
        self._last[version] = now
        self._latencies[round(latency * 10_000)] += 1

    def report(self) -> Report:
        timeline = [Second(versions.total(), failed[0], dict(versions)) for versions, failed in self._seconds]
        return Report(
            sent=self.sent,
            answered=self._versions.total(),
            failed=self._failures.total(),
            failures=dict(self._failures),
            by_version=dict(self._versions),
            first_seen=dict(self._first),
            last_seen=dict(self._last),
            timeline=timeline,
            latency_p50=self._percentile(0.5),
            latency_p99=self._percentile(0.99),
            began=self.began,
        )

    def _percentile(self, share: float) -> float:
        left = share * self._latencies.total()
        for latency, count in sorted(self._latencies.items()):
            left -= count
            if left <= 0:
                return latency / 10_000
        return 0.0


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event comes within the time; looks at it at least once."""
    if seconds <= 0:
        return event.is_set()
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True

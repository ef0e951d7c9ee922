"""The logs of containers: each line with the time at which it was read, as a container runtime keeps them."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

PIECE = 64 * 1024


async def write_log(stream: asyncio.StreamReader | None, path: Path) -> None:
    """Copies what a process writes, until it closes its end."""
    if stream is None:
        raise RuntimeError("a pod's process has no stdout")
    begun = b""
    with path.open("ab", buffering=0) as file:
        while piece := await stream.read(PIECE):
            *lines, begun = (begun + piece).split(b"\n")
            now = _now()
            file.write(b"".join(now + line + b"\n" for line in lines))
        if begun:
            file.write(_now() + begun + b"\n")


def read_log(path: Path) -> list[tuple[str, bytes]]:
    """The lines of a log, with their ends, and the time of each; none when there is no log."""
    if not path.exists():
        return []
    found = (line.partition(b" ") for line in path.read_bytes().split(b"\n") if line)
    return [(time.decode(), text + b"\n") for time, _, text in found]


def _now() -> bytes:
    """As a kubelet writes it, to the nanosecond."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z ".encode()

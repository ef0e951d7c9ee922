"""What all pods of the one node share: the store, addresses, logs and events."""

import random
import socket
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from deployer.sandbox.recorder import Recorder
from deployer.sandbox.store import Store


class Addresses:
    """Addresses for pods out of a part of 127/8 that is this sandbox's alone while it runs."""

    BLOCKS = 4
    PORT = 27182  # UDP, one that nobody is likely to have on every address

    def __init__(self) -> None:
        self._claim, prefix, first = self._reserve()
        blocks = range(first, first + self.BLOCKS)
        self._free = deque(f"127.{prefix}.{block}.{host}" for block in blocks for host in range(1, 254))

    def _reserve(self) -> tuple[socket.socket, int, int]:
        """A socket on the part's last address tells other sandboxes that it is taken."""
        for _ in range(100):
            prefix, first = random.randint(64, 126), random.randrange(0, 256, self.BLOCKS)
            claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                claim.bind((f"127.{prefix}.{first}.254", self.PORT))
            except OSError:
                claim.close()
                continue
            return claim, prefix, first
        raise RuntimeError("no part of 127.64.0.0 - 127.126.255.255 is free for pods; stop other sandboxes")

    def take(self) -> str | None:
        """The address that was free for the longest time."""
        return self._free.popleft() if self._free else None

    def give_back(self, address: str) -> None:
        self._free.append(address)

    def close(self) -> None:
        self._claim.close()


@dataclass
class Node:
    """What all pods share."""

    store: Store
    logs: Path
    probe_factor: float = 1.0  # multiplies the delays and periods of probes
    events: Recorder = field(init=False)
    scheduler: Recorder = field(init=False)
    addresses: Addresses = field(default_factory=Addresses)
    http: aiohttp.ClientSession = field(init=False)

    def __post_init__(self) -> None:
        self.events = Recorder(self.store, "kubelet")
        self.scheduler = Recorder(self.store, "default-scheduler")
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self.http = aiohttp.ClientSession(connector=connector, headers={"User-Agent": "kube-probe/1.34"})

    async def close(self) -> None:
        await self.http.close()
        self.addresses.close()

"""`deployer serve` as a child of the fork server: the command itself, without the second that its imports take.

A child reads `{"arguments", "environ", "log", "lease"}`, says each line that it prints as `{"line"}`, and logs to that
file. `lease`: the seconds for which one is good; a successor waits that long where the store is not one process's own.
"""

from __future__ import annotations

import http.client
import importlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

from deployer.cli.main import main
from deployer.core import failpoints
from deployer.core.operations import dispatcher
from deployer.core.ports.leases import LEASE
from deployer.plugin_manager import observers
from deployer.plugin_manager.loader import load_plugins
from deployer.replicas import leases, membership
from deployer.settings import Settings
from support.forkserver import PATIENCE, Channel, Child, ForkServer
from support.user import User

GONE = (OSError, http.client.HTTPException)
"""What a client meets when the process has died."""


class Served:
    """The process, from the test's side. `user` is None when it died before it answered."""

    def __init__(
        self,
        server: ForkServer,
        arguments: list[str],
        *,
        environ: dict[str, str],
        log: Path,
        namespace: str,
        lease: float = LEASE,
    ) -> None:
        """Start it and wait until it answers, or has died."""
        self._child: Child = server.fork()
        self._child.write({"arguments": arguments, "environ": environ, "log": str(log), "lease": lease})
        self.user: User | None = None
        while self.user is None and (message := self._child.read()) is not None:
            if " on http" in message["line"]:
                self.user = User(message["line"].split()[-1], namespace)

    def exit(self, patience: float = PATIENCE) -> int | None:
        """The exit code, once it has ended. Raises TimeoutError."""
        while self._child.read(patience) is not None:
            pass
        return self._child.exit

    def stop(self) -> int | None:
        """SIGTERM, and the exit code."""
        if self._child.exit is None:
            os.kill(self._child.pid, signal.SIGTERM)
        return self.exit()

    def close(self) -> None:
        """Make sure that it has ended."""
        self._child.close()


def run(channel: Channel) -> None:
    """Be the command."""
    job: dict[str, Any] = channel.read()
    os.environ.update(job["environ"])
    failpoints.configure(os.environ)
    _shorten_leases(job["lease"])
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    os.dup2(os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)

    def tell() -> None:
        with os.fdopen(read) as lines:
            for line in lines:
                channel.write({"line": line})

    threading.Thread(target=tell, daemon=True).start()
    try:
        code = main(job["arguments"])
    finally:
        failpoints.report()  # as at the exit of any process, which this one does not take
    os._exit(code)


def _shorten_leases(seconds: float) -> None:
    for module in (dispatcher, observers, leases, membership):
        module.LEASE = seconds  # type: ignore[attr-defined]
    leases.GOOD = 0.8 * seconds
    membership.BEAT = seconds / 3


# What is imported only when it comes to that; here once for all children.
for name in ("kubernetes.client", "kubernetes.config", "deployer.cli.process", "deployer.cli.wiring"):
    importlib.import_module(name)
load_plugins(Settings())

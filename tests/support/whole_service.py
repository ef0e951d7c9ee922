"""The whole service, as `deployer serve` wires it, in a process of its own: tests use its REST, and give it orders that
nobody could give over REST: to fail, to die, to say when it is at rest.

A child of the fork server reads `{"path", "settings", "jump", "kill"}` and starts; it says `{"url"}`, and answers
orders `{"do": name, "arguments"}` (the methods of `_Service`) with `{"did": answer}` or `{"error"}`.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import resource
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployer.cli import wiring
from deployer.core import failpoints
from deployer.core.backoff import Backoff
from deployer.core.clock import SteadyClock
from deployer.core.errors import StoreUnavailable
from deployer.core.model.gates import GateDecision, GateResults
from deployer.core.model.records import App, Deployment, Event, HostClaim, Operation, OperationKind, Plan
from deployer.core.operations import dispatcher, machine
from deployer.core.operations.execution import executor
from deployer.core.ports.store import Change, Lease, Store
from deployer.kube import informer
from deployer.kube.informer import Informers
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings
from support.forkserver import PATIENCE, Channel, Child, ForkServer

SILENCE = 2.0
"""Seconds after which a watch that says nothing is given up: not 75, so that a test can wait for it."""

FAR = 5.0
"""What is due in so many seconds or more is left alone by a service at rest: a version that is kept warm."""

HOLD = 0.5
"""Seconds between two looks at what is held."""


class WholeService:
    """The service, from the test's side. Every method but `kill` raises `Died` when it has ended."""

    def __init__(
        self, server: ForkServer, path: Path, settings: dict[str, Any], *, jump: float, kill: str = ""
    ) -> None:
        """Start it on the store in `path`, with the clock wrong by `jump` seconds, to die at the failpoint `kill`."""
        self._child: Child = server.fork()
        self._child.write({"path": str(path), "settings": settings, "jump": jump, "kill": kill})
        self.url = ""
        try:
            self.url = str(self._read()["url"])
        except BaseException:
            self._child.close()
            raise

    def _read(self, patience: float = PATIENCE) -> dict[str, Any]:
        message = self._child.read(patience)
        if message is None:
            raise Died(self._child.exit)
        assert "error" not in message, message["error"]
        return message

    def ask(self, what: str, *, patience: float = PATIENCE, **arguments: Any) -> Any:
        """Give an order, and return the answer."""
        self._child.write({"do": what, "arguments": arguments})
        return self._read(patience)["did"]

    def exit(self, patience: float = 10.0) -> int | None:
        """How it ended, which it has or is about to. Raises TimeoutError when it lives on."""
        while self._child.read(patience) is not None:
            pass
        return self._child.exit

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self._child.close()


class Died(Exception):
    """The process has ended, with this code."""


# --- in the child -------------------------------------------------------------------------------------------------


class _Clock:
    """The system's clock, which somebody sets."""

    def __init__(self, jump: float) -> None:
        self.jump = jump
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.jump


class _Service:
    """The service of this process, and what can be done to it."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._clock = _Clock(job["jump"])
        time.time = self._clock
        _hasten(self._clock)
        _Seen.made.clear()
        failpoints.configure({"DEPLOYER_FAILPOINT": job["kill"]})
        self.running = wiring.start(Settings(data_dir=Path(job["path"]), **job["settings"]))
        (self._engine,) = _Seen.made
        self._store: Store = self._engine._store
        self._commit = self._store.commit
        self._files = resource.getrlimit(resource.RLIMIT_FSIZE)

    # --- trouble --------------------------------------------------------------------------------------------------

    def arm(self, kill: str) -> None:
        """Die at that failpoint, counted from now on; empty: at none."""
        failpoints.configure({"DEPLOYER_FAILPOINT": kill})

    def jump(self, seconds: float) -> None:
        """Somebody sets the system's clock."""
        self._clock.jump += seconds

    def lose_commits(self, times: int, *, written: bool) -> None:
        """So many commits fail; `written`: after they were made, so that nobody knows."""
        left = iter(range(times))

        def commit(*changes: Change, fence: Lease | None = None) -> int:
            lost = next(left, None) is not None
            if not lost or written:
                revision = self._commit(*changes, fence=fence)
            if lost:
                raise StoreUnavailable("the store did not answer; it is unknown whether this was written (on purpose)")
            return revision

        self._store.commit = commit  # type: ignore[method-assign]

    def fill_disk(self) -> None:
        """The database can take no further page, as on a full disk."""
        self._pragma("max_page_count = 1")

    def break_disk(self) -> None:
        """No file can grow any more: an error of its own for SQLite, other than a full disk."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._files[1]))

    def mend_store(self) -> None:
        """All is well again."""
        self._store.commit = self._commit  # type: ignore[method-assign]
        resource.setrlimit(resource.RLIMIT_FSIZE, self._files)
        assert self._pragma("max_page_count = 1073741823"), "the disk stays full"

    def _pragma(self, text: str) -> bool:
        """False when it cannot be set, for instance on a disk that is broken."""
        writer = getattr(self._store, "_writer", None)
        if writer is None:
            return True

        def set_(tx: Any) -> None:
            tx.connection.execute(f"PRAGMA {text}")

        for _ in range(50):
            with contextlib.suppress(StoreUnavailable, sqlite3.Error):
                writer.call(set_, commit=True)  # which lines that find no room do not keep back
                return True
        return False

    # --- seeing ---------------------------------------------------------------------------------------------------

    def rest(self, within: float, *, idle: bool = False) -> dict[str, Any]:
        """Wait until nothing moves, and report; `idle`: until nothing is left to do at all.

        Raises AssertionError when no operation has ended, or begun, for `within` seconds.
        """
        changed = threading.Event()
        forget = self._store.subscribe(lambda *_: changed.set())
        end, known = time.monotonic() + within, set[str]()
        self._held_since: dict[str, float] = {}
        try:
            while moving := self._moving(idle=idle):
                if known != (known := {o.id for o in self._store.find(Operation, tag="open")}):
                    end = time.monotonic() + within
                left = end - time.monotonic()
                assert left > 0, f"nothing ended for {within:g} s, and there is still to do: {moving}"
                changed.wait(min(left, 0.1))  # that its thread has ended is told to nobody
                changed.clear()
        finally:
            forget()
        return self.report()

    def _moving(self, *, idle: bool) -> list[str]:
        open_ = self._store.find(Operation, tag="open")
        if self._store.count(Event):
            return ["observers are being told"]
        moving = [repr(o) for o in open_] if idle else self._not_at_rest(open_)
        # Looked at last: an operation ends in the store before its thread lets go of the lease.
        if running := self._engine.running:
            return [f"{running} operations are being worked on: {open_}"]
        return moving

    def _not_at_rest(self, open_: list[Operation]) -> list[str]:
        now = self._engine._dependencies.clock()
        stuck = {(o.namespace, o.app) for o in open_ if self._is_held(o) or self._asks(o)}
        return [
            repr(o)
            for o in open_
            if (o.namespace, o.app) not in stuck
            and not (o.kind is OperationKind.WATCH and machine.CONDEMNED not in o.memory)
            and not (o.kind is OperationKind.RETIRE and not (o.begun or o.steps) and o.due > now + FAR)
        ]

    def _is_held(self, operation: Operation) -> bool:
        """Is it held, and still so after it was looked at again?"""
        if machine.HELD not in operation.memory:
            self._held_since.pop(operation.id, None)
            return False
        since = self._held_since.setdefault(operation.id, time.monotonic())
        return time.monotonic() - since > 3 * HOLD

    def _asks(self, operation: Operation) -> bool:
        """Is it parked at a gate that waits for a person?"""
        results = self._store.get(GateResults, operation.deployment) if operation.memory.get(machine.AWAITS) else None
        decided = {decision.step for decision in self._store.find(GateDecision, tag=operation.deployment)}
        return any(entry.asks and entry.step not in decided for entry in (results.entries if results else ()))

    def report(self) -> dict[str, Any]:
        """What the store has, deployments oldest first."""
        store = self._store
        return {
            "deployments": [d.public() | {"app": d.app, "namespace": d.namespace} for d in store.find(Deployment)],
            "open": [
                {
                    "namespace": o.namespace,
                    "app": o.app,
                    "kind": o.kind.value,
                    "deployment": o.deployment,
                    "held": str(o.memory.get(machine.SAID, "")) if machine.HELD in o.memory else "",
                }
                for o in store.find(Operation, tag="open")
            ],
            "live": {a.key: a.live for a in store.find(App)},
            "held": {a.key: a.held for a in store.find(App)},
            "plans": [p.deployment for p in store.find(Plan)],
            "hosts": [c.host for c in store.find(HostClaim)],
            "hung": self._engine.problem,
        }

    def leases(self, apps: list[list[str]]) -> list[str]:
        """Those of these apps that nobody could acquire now."""
        found = [(app, self._store.acquire(*app, "a test", 1.0)) for app in apps]
        for _, lease in found:
            if lease:
                self._store.release(lease)
        return ["/".join(app) for app, lease in found if lease is None]

    def stop(self) -> None:
        """An orderly end."""
        self.running.stop()


class _Seen(dispatcher.Engine):
    """The engine that the wiring makes, for those who want to look inside."""

    made: list[dispatcher.Engine] = []  # noqa: RUF012 - one for each process

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.made.append(self)


def _hasten(clock: Callable[[], float]) -> None:
    """What waits for people, or for a cluster that is down, waits less: nothing is decided by these times."""
    SteadyClock.__init__.__defaults__ = (clock, time.monotonic)
    Informers.__init__.__kwdefaults__["silence"] = SILENCE
    informer.RETRY_AFTER_MOST = 2.0
    machine.HOLD_INTERVAL = HOLD
    machine.OPERATION_AGAIN = Backoff(first=0.2, most=0.5)
    dispatcher.AFTER_FAILURE = Backoff(first=0.2, most=0.5)
    dispatcher.RETRY = 0.2
    executor.STEP_AGAIN = Backoff(first=0.1, most=0.3)


def run(channel: Channel) -> None:
    """Serve until the channel ends, or an orderly stop."""
    job = channel.read()
    logging.basicConfig(
        filename=f"{job['path']}/service.log",
        level=logging.INFO,
        force=True,
        format="%(asctime)s %(levelname)s:%(name)s:%(message)s",
    )
    logging.raiseExceptions = False  # a disk that takes nothing takes no log either
    service = _Service(job)
    channel.write({"url": service.running.url})
    while True:
        try:
            order = channel.read(3600)
        except EOFError:
            return
        try:
            channel.write({"did": getattr(service, order["do"])(**order["arguments"])})
        except AssertionError as error:
            channel.write({"error": str(error)})
        if order["do"] == "stop":
            return


wiring.Engine = _Seen  # type: ignore[misc]

# What is imported only when it comes to that; here once for all children.
for name in ("kubernetes.client", "kubernetes.config"):
    importlib.import_module(name)
load_plugins(Settings())

"""The command `deployer` as its users run it: a process with an environment of its own, and a client of its REST."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

COMMAND = Path(sys.executable).with_name("deployer")
PATIENCE = 60.0


class Process:
    """A running `deployer`, its output line by line."""

    def __init__(self, arguments: list[str], environment: dict[str, str], wrapper: Sequence[str] = ()) -> None:
        """`wrapper`: a command that runs the one that follows it."""
        self.child = subprocess.Popen(
            [*wrapper, COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._lines: dict[str, queue.Queue[str | None]] = {"out": queue.Queue(), "err": queue.Queue()}
        self.seen: dict[str, list[str]] = {"out": [], "err": []}
        assert self.child.stdout is not None and self.child.stderr is not None
        self._threads = [
            threading.Thread(target=self._read, args=(pipe, self._lines[name]))
            for name, pipe in (("out", self.child.stdout), ("err", self.child.stderr))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(pipe: IO[str], lines: queue.Queue[str | None]) -> None:
        with pipe:
            for line in pipe:
                lines.put(line)
        lines.put(None)

    def line(self, containing: str, stream: str = "out") -> str:
        """The next line with that text."""
        end = time.monotonic() + PATIENCE
        while True:
            found = self._lines[stream].get(timeout=max(0.1, end - time.monotonic()))
            assert found is not None, f"ended without {containing!r}: {self.seen} {self.rest('err')}"
            self.seen[stream].append(found)
            if containing in found:
                return found

    def rest(self, stream: str) -> str:
        """What it says until its end."""
        lines = []
        while (found := self._lines[stream].get(timeout=PATIENCE)) is not None:
            lines.append(found)
        return "".join(lines)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.child.send_signal(number)
        return self.child.wait(PATIENCE)

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)


@dataclass
class Deployer:
    """Runs the command."""

    environment: dict[str, str]
    wrapper: Sequence[str] = ()
    processes: list[Process] = field(default_factory=list)

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end; `more` are variables."""
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *arguments: str, **more: str) -> Process:
        """Start it and leave it running."""
        process = Process(list(arguments), self.environment | more, self.wrapper)
        self.processes.append(process)
        return process

    def serve(self, *arguments: str, **more: str) -> tuple[Process, Rest]:
        """Start `deployer` with these arguments, on a free port, and wait until it listens."""
        process = self.start(*arguments, "--deployport=0", **more)
        return process, Rest(process.line(" on http").split()[-1])

    @staticmethod
    def client(url: str) -> Rest:
        """A client of a service that runs."""
        return Rest(url)


class Rest:
    """A client of the service, in one namespace."""

    def __init__(self, url: str, namespace: str = "default") -> None:
        self.url = url
        self.namespace = namespace
        self.headers: dict[str, str] = {}
        self._opener = build_opener(ProxyHandler({}))

    def call(self, method: str, path: str, body: Any = None, query: str = "") -> tuple[int, Any]:
        """Status and JSON (or text)."""
        status, _, content = self.request(method, f"{path}?namespace={self.namespace}{query}", body)
        return status, content

    def request(self, method: str, target: str, body: Any = None) -> tuple[int, Message, Any]:
        """Status, headers and JSON (or text); `target` is a path with its query, as in a `Location`."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url.rstrip('/')}{target}", data=data, method=method, headers=self.headers)
        try:
            with self._opener.open(request, timeout=30) as answer:
                status, headers, content = answer.status, answer.headers, answer.read()
        except HTTPError as error:
            with error:
                status, headers, content = error.code, error.headers, error.read()
        try:
            return status, headers, json.loads(content)
        except ValueError:
            return status, headers, content.decode()

    def status(self, id: str) -> str:
        """Of a deployment; `404` for one that is gone."""
        code, deployment = self.call("GET", f"/deployments/{id}/")
        return str(deployment["status"]) if code == 200 else str(code)

    def deploy(self, descriptor: dict[str, Any]) -> str:
        """Store and deploy; the deployment's id."""
        status, stored = self.call("POST", "/descriptors/", descriptor)
        assert status == 201, stored
        status, deployment = self.call("POST", "/deployments/", query=f"&descriptorId={stored['id']}")
        assert status == 202, deployment
        return str(deployment["id"])


def awaited(ask: Callable[[], Any], what: str) -> Any:
    """What `ask` answers, as soon as that is something: over REST nobody is told."""
    end, pause = time.monotonic() + PATIENCE, threading.Event()
    while not (found := ask()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        pause.wait(0.05)
    return found


def of_a_new_user(path: Path) -> dict[str, str]:
    """An environment without anything of the one who runs the tests."""
    (path / "home").mkdir()
    (path / "tmp").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {"HOME": str(path / "home"), "TMPDIR": str(path / "tmp"), "PYTHONWARNINGS": "error"}


@contextmanager
def running(environment: dict[str, str], path: Path) -> Iterator[Deployer]:
    """The command. No process of its own may be left in the end, nor one that it started."""
    made = Deployer(environment)
    try:
        yield made
    finally:
        for process in made.processes:
            process.close()
    left = running_in(path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "processes are left behind"


def running_in(directory: Path) -> list[int]:
    """Processes that work in a directory, as the sandbox and its pods do."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = (entry / "cwd").readlink()
            except OSError:  # it has ended, or is a zombie
                continue
            if str(where).startswith(str(directory)):
                found.append(int(entry.name))
    return found

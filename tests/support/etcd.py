"""An etcd on loopback, of one member or several, and everything that can happen to it."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyetcd
import pytest

from deployer.store.etcd.client.gateway import Access
from deployer.store.etcd.store import EtcdStore

PATIENCE = 30.0


class Member:
    """One process, which is ended by its process id."""

    def __init__(self, name: str, folder: Path, ports: tuple[int, int, int], scheme: str = "http") -> None:
        self.name = name
        client, peer, self._metrics = ports
        self.url = f"{scheme}://127.0.0.1:{client}"
        self.peer = f"http://127.0.0.1:{peer}"
        self._folder = folder / name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, members: str, state: str, **flags: object) -> None:
        """Start it; whoever calls waits for its health."""
        arguments = {
            "name": self.name,
            "data-dir": self._folder,
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": self.peer,
            "initial-advertise-peer-urls": self.peer,
            "initial-cluster": members,
            "initial-cluster-state": state,
            "initial-cluster-token": str(self._folder.parent),
            "listen-metrics-urls": f"http://127.0.0.1:{self._metrics}",
            "unsafe-no-fsync": "true",
            "log-level": "error",
            **{name.replace("_", "-"): value for name, value in flags.items()},
        }
        command = ["etcd", *(f"--{name}={value}" for name, value in arguments.items())]
        with self._folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def await_health(self) -> None:
        """Wait until it answers and has a leader."""
        assert self._process is not None
        end = time.monotonic() + PATIENCE
        pause = threading.Event()
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._metrics, timeout=5)
                with contextlib.closing(connection):
                    connection.request("GET", "/health")
                    if b'"true"' in connection.getresponse().read():
                        return
            pause.wait(0.05)
        self.kill()
        raise AssertionError(f"etcd did not start: {self._folder.with_suffix('.log').read_text()}")

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def keep(self) -> Path:
        """A copy of its data as they are now. It must not run."""
        assert not self.runs
        return Path(shutil.copytree(self._folder, self._folder.with_suffix(".kept")))

    def bring_back(self, kept: Path) -> None:
        """Put such a copy in the place of its data. It must not run."""
        assert not self.runs
        shutil.rmtree(self._folder)
        shutil.copytree(kept, self._folder)

    def stop(self) -> None:
        """Let it hang: connections stay, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        end = time.monotonic() + PATIENCE
        while any(b") T " not in (task / "stat").read_bytes() for task in tasks.iterdir()):
            assert time.monotonic() < end, "etcd goes on running"
            threading.Event().wait(0.005)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Etcd:
    """A cluster of its own. `folder` is for its data, `flags` are etcd's, with underscores."""

    def __init__(self, folder: Path, members: int = 1, scheme: str = "http", **flags: object) -> None:
        if not shutil.which("etcd"):
            pytest.skip("the program etcd is missing; on Debian: apt-get install etcd-server")
        folder.mkdir(parents=True, exist_ok=True)
        ports = iter(free_ports(3 * members))
        self.members = [
            Member(f"m{number}", folder, (next(ports), next(ports), next(ports)), scheme) for number in range(members)
        ]
        self._flags = flags
        self._all = ",".join(f"{member.name}={member.peer}" for member in self.members)
        try:
            for member in self.members:
                member.start(self._all, "new", **flags)
            for member in self.members:
                member.await_health()
        except BaseException:
            self.close()
            raise

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Addresses of all members."""
        return tuple(member.url for member in self.members)

    @property
    def url(self) -> str:
        """Address of the first member."""
        return self.members[0].url

    def client(self, **more: Any) -> Any:
        """A client of its keys that knows nothing of stores; `more` as `pyetcd.client` takes it."""
        return pyetcd.client(host="127.0.0.1", port=int(self.url.rpartition(":")[2]), timeout=5, **more)

    def put_v2(self, key: str, value: str) -> None:
        """Create a key in the v2 store."""
        form = urllib.parse.urlencode({"value": value}).encode()
        request = urllib.request.Request(f"{self.url}/v2/keys{key}", data=form, method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 201

    def restart(self, member: Member, state: str = "existing") -> None:
        """Start a member that was killed, on its data; as `new` when it has none."""
        member.start(self._all, state, **self._flags)
        member.await_health()

    def access(self, **more: object) -> Access:
        """How to reach it."""
        return Access(**{"endpoints": self.endpoints, **more})  # type: ignore[arg-type]

    def store(self, prefix: str, **more: object) -> EtcdStore:
        """A store below a prefix of its own."""
        return EtcdStore(self.access(**more), prefix=prefix)

    def close(self) -> None:
        """End all members."""
        for member in self.members:
            with contextlib.suppress(AssertionError):
                member.resume()
            member.kill()


@contextlib.contextmanager
def with_both_stores(folder: Path) -> Iterator[Etcd]:
    """One that has the v2 store of the original's time, too."""
    try:
        etcd = Etcd(folder, enable_v2="true")
    except AssertionError as error:
        if "enable-v2" not in str(error):
            raise
        pytest.skip("this etcd has no v2 store any more")
    try:
        yield etcd
    finally:
        etcd.close()


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]

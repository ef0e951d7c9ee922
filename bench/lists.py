"""What lists cost in memory and time.

    python bench/lists.py [--descriptors 100] [--clients 8]

A service in a process of its own has so many descriptors of nearly 1 MiB each, and so many clients list all of them.
The figures: the most memory that the service ever had resident (VmHWM), before and after, how long it took, and how
many times as long a list takes as the 304 for a client that has it already.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from statistics import median

SERVE = """
import sys
from pathlib import Path
from deployer.api.app import create_app
from deployer.api.server import Server
from deployer.api.stream.server import LogStream
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.deployment_log import DeploymentLog
from deployer.core.model.records import StoredDescriptor
from deployer.core.ports.store import Create
from deployer.plugin_manager.loader import load_plugins
from deployer.redaction.redactor import Redactor
from deployer.settings import Settings
from deployer.store.sqlite import SqliteStore

def most():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

store = SqliteStore(Path(sys.argv[1]) / "deployer.db")
for n in range(int(sys.argv[2])):
    # Many small values: in memory they take several times the bytes that they have as JSON.
    notes = [{"key": f"key-{n}-{m}", "description": "a value of usual length"} for m in range(14_000)]
    document = {"namespace": "bench", "appName": "app", "newVersion": "1", "podspec": {}, "webhooks": notes}
    times = {"created": "2026-01-01T00:00:00Z", "last_modified": "2026-01-01T00:00:00Z"}
    store.commit(Create(StoredDescriptor(namespace="bench", app="app", id=f"d{n}", document=document, **times)))
settings = Settings(ingress="none")
log, installed = DeploymentLog(store, Redactor()), load_plugins(settings, entry_points=[])
commands = DeploymentCommands(store, log, installed, settings)
logs = LogStream(commands)
server = Server(create_app(commands, list, list), logs, "127.0.0.1", 0)
server.start()
print(server.port, most(), flush=True)
for line in sys.stdin:
    print(most(), flush=True)
"""


def measure(descriptors: int, clients: int) -> dict[str, float]:
    """`{"before", "after"}` MiB, `{"bytes"}` of all answers, `{"seconds"}`, `{"unchanged"}`: a list by a 304."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SERVE, folder, str(descriptors)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None
        with process:
            port, before = map(int, process.stdout.readline().split())
            sizes: list[int] = []

            def read() -> None:
                size, last = 0, b""
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/descriptors/?namespace=bench") as answer:
                    while piece := answer.read(1 << 16):
                        size, last = size + len(piece), piece
                assert last.endswith(b"\n]\n")
                sizes.append(size)

            began = time.monotonic()
            threads = [threading.Thread(target=read) for _ in range(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.monotonic() - began
            assert len(sizes) == clients
            process.stdin.write("\n")
            process.stdin.flush()
            after = int(process.stdout.readline())
            unchanged = ratio(f"http://127.0.0.1:{port}/descriptors/?namespace=bench")
            process.kill()
    found = {"before": before / 1024, "after": after / 1024, "bytes": sum(sizes), "seconds": seconds}
    return found | {"unchanged": unchanged}


def ratio(url: str) -> float:
    """How many times as long a whole list takes as the 304 to a client that has it."""

    def ask(**headers: str) -> tuple[float, int, str]:
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                while answer.read(1 << 16):
                    pass
                return time.perf_counter() - began, answer.status, answer.headers["ETag"]
        except urllib.error.HTTPError as error:
            with error:
                return time.perf_counter() - began, error.status or 0, error.headers["ETag"]

    whole = [ask() for _ in range(3)]
    unchanged = [ask(**{"If-None-Match": whole[-1][2]}) for _ in range(50)]
    assert {status for _, status, _ in unchanged} == {304}
    return median(seconds for seconds, *_ in whole) / median(seconds for seconds, *_ in unchanged)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptors", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    found = measure(arguments.descriptors, arguments.clients)
    print(
        f"{arguments.clients} clients listed {arguments.descriptors} descriptors at once, "
        f"{found['bytes'] / 2**20:.0f} MiB in all: {found['before']:.0f} MiB before, at most {found['after']:.0f} MiB "
        f"then, {found['seconds']:.1f} s; a list takes {found['unchanged']:,.0f} times as long as its 304"
    )


if __name__ == "__main__":
    main()

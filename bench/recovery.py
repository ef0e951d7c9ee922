"""How long it takes a service that was killed until it answers, and until it has finished what it was doing.

    python bench/recovery.py [--apps 8] [--rounds 5]

A service in a process of its own, with the store in a file, deploys so many apps at once on a sandbox; it is killed
(SIGKILL) when the first one is DEPLOYED, and started again at once. The times are from that start to the first answer
over REST, and to the moment at which all of the deployments are DEPLOYED. Starting Python is a part of both.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import figures
from deployer import sandbox
from deployer.cli import process, wiring
from deployer.cli.sandbox import sample
from deployer.settings import Settings

NAMESPACE = "default"
PATIENCE = 300.0
"""Seconds for one round."""


def serve(directory: Path) -> None:
    """The service's process, until standard input ends."""
    process.log_to_stderr("error", audit=False)
    cluster = sandbox.start(directory / "sandbox")
    more = {"proxysleep": 0.0, "min_ready": 0.0, "deployport": 0}
    running = wiring.start(Settings(data_dir=directory / "data", **sample.sandbox_settings(cluster), **more))
    print(running.url.rstrip("/"), flush=True)
    sys.stdin.read()
    running.stop()


class Service:
    """The other side of `serve`."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, __file__, "--serve", str(directory)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise SystemExit("the service did not start")

    def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """One REST call."""
        more = "".join(f"&{name}={value}" for name, value in query.items())
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}?namespace={NAMESPACE}{more}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def until(self, ids: list[str], count: int, *statuses: str) -> None:
        """Wait until so many of the deployments have one of these statuses."""
        end = time.monotonic() + PATIENCE
        while True:
            found = [one["status"] for one in self.call("GET", "/deployments/") if one["id"] in ids]
            if sum(status in statuses for status in found) >= count:
                return
            if "FAILURE" in found or time.monotonic() > end:
                raise SystemExit(f"deployments are {found}, and {count} should be {statuses}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As `kill -9` does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(60)

    def stop(self) -> None:
        """End it in order."""
        self._process.communicate(timeout=60)


def measure(directory: Path, apps: int, rounds: int) -> list[dict[str, float]]:
    """`{"answers", "deployed"}`, seconds from the new start, for each round."""
    found = []
    cluster = sandbox.start(directory / "sandbox")
    service = Service(directory)
    try:
        bodies = [{**sample.descriptor(), "namespace": NAMESPACE, "appName": f"app{n}"} for n in range(apps)]
        bodies = [{name: value for name, value in body.items() if name != "frontend"} for body in bodies]
        descriptors = [service.call("POST", "/descriptors/", body)["id"] for body in bodies]
        for _ in range(rounds):
            ids = [service.call("POST", "/deployments/", descriptorId=id)["id"] for id in descriptors]
            service.until(ids, 1, "DEPLOYED")
            service.kill()
            began = time.monotonic()
            service = Service(directory)
            service.call("GET", "/deployments/")
            answers = time.monotonic() - began
            service.until(ids, apps, "DEPLOYED", "UNDEPLOYING", "UNDEPLOYED")
            found.append({"answers": answers, "deployed": time.monotonic() - began})
    finally:
        service.stop()
        cluster.stop()
    return found


def main() -> None:
    """Two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    figures.add_option(parser)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory), options.apps, options.rounds)
    for name, words in (("answers", "REST answers"), ("deployed", f"{options.apps} deployments have ended")):
        took = [one[name] for one in found]
        print(f"killed and started again, {words}: median {statistics.median(took):.2f} s, most {max(took):.2f} s")
    figures.write(options.json, {"apps": options.apps, "rounds": found})


if __name__ == "__main__":
    main()

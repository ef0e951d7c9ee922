"""Whether the service stays as it is, however much it deploys: threads, file descriptors, memory, files. `make soak`.

    python bench/soak.py [--deployments 5000] [--apps 8] [--keep 20] [--samples 20] [--dir DIR]

A whole service in this process, on a sandbox in another one, deploys a few apps again and again through REST; each
deployment is followed on the log stream until its end. In between everything comes to rest, and what the process has is
counted. Retention keeps `--keep` ended deployments of each app, so from some moment on nothing may grow. The exit code
is 1 when something does.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import gc
import http.client
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import figures
from deployer import sandbox
from deployer.cli import wiring
from deployer.cli.sandbox import sample
from deployer.core.errors import KubeNotFound
from deployer.core.model.kind import EVENT
from deployer.kube import client as kube_client
from deployer.settings import Settings
from deployer.store import retention, selection

NAMESPACE = "default"
MB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """What there is when everything rests, after so many deployments."""

    deployments: int
    seconds: float
    threads: int
    descriptors: int
    resident: float  # MB, after a collection
    objects: int  # of Python, in thousands
    database: float  # MB
    wal: float  # MB
    records: int
    lines: int  # of logs

    def row(self) -> str:
        values = (getattr(self, field.name) for field in fields(self))
        return "".join(f"{value:>13.1f}" if isinstance(value, float) else f"{value:>13}" for value in values)


@dataclass(frozen=True)
class Rule:
    """How much something may differ between the second quarter of the time and the last one."""

    name: str
    share: float  # of what it was
    most: float  # in its own unit; the larger one of the two counts


RULES = (
    Rule("threads", 0.0, 6),  # log readers and workers that idle come and go
    Rule("descriptors", 0.0, 24),  # as do connections that are kept
    Rule("resident", 0.03, 6),
    Rule("objects", 0.03, 15),
    Rule("database", 0.05, 1),
    Rule("wal", 0.0, 8),
    Rule("records", 0.05, 60),
    Rule("lines", 0.05, 400),
)


class Client:
    """A user of one app."""

    def __init__(self, url: str, app: str, *, exposed: bool) -> None:
        self._address = urlsplit(url).netloc
        self._descriptor = {
            **sample.descriptor(),
            "namespace": NAMESPACE,
            "appName": app,
            "replicas": 1,
            "frontend": f"{app}.example.com" if exposed else None,
        }
        self._id = ""

    def deploy(self) -> None:
        """Once, to its end. Raises RuntimeError when that is another than DEPLOYED."""
        self._id = self._id or self._call("POST", "/descriptors/", self._descriptor)["id"]
        id = self._call("POST", "/deployments/", query=f"&descriptorId={self._id}")["id"]
        url = f"ws://{self._address}/stream/deployments/{id}/logs?namespace={NAMESPACE}"
        lines = []
        with connect(url, proxy=None) as viewer, contextlib.suppress(ConnectionClosed):
            while True:
                lines.append(viewer.recv(timeout=120))
        status = self._call("GET", f"/deployments/{id}/")["status"]
        if status not in ("DEPLOYED", "UNDEPLOYING", "UNDEPLOYED"):
            raise RuntimeError(f"deployment {id} is {status}: {''.join(map(str, lines))}")

    def _call(self, method: str, path: str, body: Any = None, query: str = "") -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, f"{path}?namespace={NAMESPACE}{query}", data)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return json.loads(content)


class Service:
    """A service that rests now and then."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._database = folder / "data" / selection.STORE_FILE
        self._cluster = sandbox.start(folder / "sandbox", ingress_delay=0.1)
        plugins = {"ingress_nginx": {**sample.PLUGINS["ingress_nginx"], "minimum_hold": 0.2}}
        settings = {**sample.sandbox_settings(self._cluster), "plugins": plugins}
        more = {"proxysleep": 0.0, "min_ready": 0.0, "deployport": 0, "history_limit": keep, "history_rollbacks": 2}
        try:
            self._running = wiring.start(Settings(data_dir=folder / "data", **settings, **more))
        except BaseException:
            self._cluster.stop()
            raise
        self._began = time.monotonic()
        self._eyes = kube_client.connect(Settings(data_dir=folder, **settings))
        self.url = self._running.url

    def close(self) -> None:
        self._eyes.close()
        self._running.stop()
        self._cluster.stop()

    def rest(self, keep: int) -> None:
        """Return when nothing is open any more, and retention has done its work."""
        pause = threading.Event()
        end = time.monotonic() + 300
        while self._count("kind = 'operation' AND tag = 'open'") or self._surplus(keep):
            if time.monotonic() > end:
                raise RuntimeError("the service does not come to rest")
            pause.wait(0.2)
        # An API server forgets its Events within an hour (--event-ttl); the sandbox keeps them, and lists of them grow.
        for event in self._eyes.list(EVENT, NAMESPACE)[0]:
            with contextlib.suppress(KubeNotFound):
                name, uid = (event["metadata"][field] for field in ("name", "uid"))
                self._eyes.delete(EVENT, name, NAMESPACE, uid=uid)

    def _surplus(self, keep: int) -> bool:
        kept = self._fetch("SELECT count(*) FROM records WHERE kind = 'deployment' AND tag = 'UNDEPLOYED' GROUP BY app")
        # Operations go after their deployments.
        gone = """kind = 'operation' AND json_extract(document, '$.deployment') NOT IN
            (SELECT key FROM records WHERE kind = 'deployment')"""
        return any(count > keep for (count,) in kept) or bool(self._count(gone))

    def _count(self, where: str) -> int:
        return int(self._fetch(f"SELECT count(*) FROM records WHERE {where}")[0][0])

    def _fetch(self, sql: str) -> list[Any]:
        uri = f"{self._database.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            return connection.execute(sql).fetchall()

    def sample(self, deployments: int) -> Sample:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        wal = self._database.with_name(f"{self._database.name}-wal")
        return Sample(
            deployments=deployments,
            seconds=time.monotonic() - self._began,
            threads=threading.active_count(),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            resident=resident / 1024,
            objects=len(gc.get_objects()) // 1000,
            database=self._database.stat().st_size / MB,
            wal=wal.stat().st_size / MB,
            records=self._count("true"),
            lines=self._fetch("SELECT count(*) FROM log")[0][0],
        )


@contextlib.contextmanager
def service(folder: Path, keep: int) -> Iterator[Service]:
    made = Service(folder, keep)
    try:
        yield made
    finally:
        made.close()


def grown(samples: Sequence[Sample]) -> list[str]:
    """What is more in the last quarter than in the second one, beyond what its rule allows."""
    quarter = len(samples) // 4
    found = []
    for rule in RULES:
        before, after = (
            statistics.fmean(getattr(one, rule.name) for one in part)
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        if after - before > max(rule.share * before, rule.most):
            found.append(f"{rule.name} grew from {before:.1f} to {after:.1f}")
    return found


def soak(folder: Path, deployments: int, apps: int, keep: int, times: int) -> list[Sample]:
    """Deploy, rest and count by turns; prints a line each time."""
    samples: list[Sample] = []
    print("".join(f"{field.name:>13}" for field in fields(Sample)), flush=True)
    with service(folder, keep) as running, concurrent.futures.ThreadPoolExecutor(apps) as pool:
        clients = [Client(running.url, f"app-{number}", exposed=number % 2 == 0) for number in range(apps)]
        done = 0
        for turn in range(1, times + 1):
            rounds = -(-(deployments * turn // times - done) // apps)
            list(pool.map(lambda client, rounds=rounds: [client.deploy() for _ in range(rounds)], clients))
            done += rounds * apps
            running.rest(keep)
            samples.append(running.sample(done))
            print(samples[-1].row(), flush=True)
    return samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=5000)
    parser.add_argument("--apps", type=int, default=8)
    parser.add_argument("--keep", type=int, default=20)
    parser.add_argument("--samples", type=int, default=20, help="four at least")
    parser.add_argument("--dir", type=Path, help="where store and sandbox go; the system's temporary directory")
    figures.add_option(parser)
    asked = parser.parse_args()
    # An hour is too long between two sweeps here.
    retention.FIRST = retention.PERIOD = 1.0
    retention._PAUSE = 0.0
    with tempfile.TemporaryDirectory(dir=asked.dir) as folder:
        samples = soak(Path(folder), asked.deployments, asked.apps, asked.keep, asked.samples)
    problems = grown(samples)
    figures.write(asked.json, {"samples": [asdict(one) for one in samples], "grown": problems})
    print("\n".join(problems) or "nothing grows")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

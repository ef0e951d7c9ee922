"""What the Deployer adds to a deployment on a real Kubernetes: `make bench-cluster`, or `--help`.

The overhead of a deployment is the time from the moment at which the API server shows its last pod Ready (a watch of
this process sees it) to the moment at which DEPLOYED arrives in the deployment's log stream, health check on, no
frontend. The service runs in a process of its own; every deployment is polled over REST once a second meanwhile.
Beside it stands the bare switch: one PATCH of a Service's selector, until a watch shows it, for as many apps at once.

KUBECONFIG names the cluster, whose nodes reach the pods; DEPLOYER_TEST_IMAGE an image like the tests' (`lab/demo:1`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect as open_stream

import figures
from deployer.cli import process, wiring
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import is_ready
from deployer.core.errors import Revoked
from deployer.core.model.kind import NAMESPACE, POD, SERVICE
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings

IMAGE = os.environ.get("DEPLOYER_TEST_IMAGE", "lab/demo:1")
PATIENCE = 300.0
"""Seconds for one scenario."""

PARTS = (
    ("watch, judge, journal", "pods ready"),
    ("health, 2 rounds", "healthy"),
    ("endpoints", "ready endpoints"),
    ("service moved", "selects version"),
    ("commit", "DEPLOYED"),
)
"""What the time between Ready and DEPLOYED goes into, and the text of the log line that ends each part."""


# --- the service --------------------------------------------------------------------------------------------------


def serve(directory: Path, keep_warm: float) -> None:
    """The service's process. Every line of standard input is answered with what it has used so far.

    `keep_warm` is the setting.
    """
    settings = Settings(
        kubeconfig=os.environ["KUBECONFIG"],
        data_dir=directory,
        deployport=0,
        ingress="none",
        proxysleep=1.0,
        keep_warm=keep_warm,
        health_via="direct",
    )
    process.log_to_stderr("warning", audit=False)
    running = wiring.start(settings)
    print(json.dumps({"url": running.url}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"requests": running.client.requests, **usage()}), flush=True)
    running.stop()


def usage() -> dict[str, float]:
    """Resident kB now and at most, the number of threads (proc(5)), and seconds of processor time."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    numbers: dict[str, float] = {name: int(status[name].split()[0]) for name in ("VmRSS", "VmHWM", "Threads")}
    return {**numbers, "cpu": time.process_time()}


class Service:
    """The other side of `serve`."""

    def __init__(self, directory: str, *, keep_warm: float = 0.0) -> None:
        command = [sys.executable, __file__, "--serve", directory, "--keep-warm", str(keep_warm)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url: str = self._read()["url"].rstrip("/")

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def used(self) -> dict[str, Any]:
        """`{"requests": by verb, "VmRSS", "VmHWM", "Threads", "cpu"}`."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One REST call."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End it in order."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


# --- what is seen -------------------------------------------------------------------------------------------------


class Readiness(threading.Thread):
    """Notes when the API server shows each pod Ready, by its label `name`; the last one of a version counts."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        super().__init__(daemon=True)
        self.at: dict[str, float] = {}
        self._seen: set[str] = set()
        self._client, self._namespace = client, namespace
        self._scope = CancelScope()
        self._version = client.list(POD, namespace)[1]

    def run(self) -> None:
        with contextlib.suppress(Revoked):
            for type_, pod in self._client.watch(POD, self._namespace, self._version, scope=self._scope):
                now = time.time()
                if type_ == "MODIFIED" and is_ready(pod) and pod["metadata"]["uid"] not in self._seen:
                    self._seen.add(pod["metadata"]["uid"])
                    self.at[pod["metadata"]["labels"]["name"]] = now

    def stop(self) -> None:
        """End the watch."""
        self._scope.close(Revoked("the scenario is over"))


def descriptor(namespace: str, app: str) -> dict[str, Any]:
    """The sample app with a readiness probe and a health check."""
    container = {
        "name": "web",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1},
    }
    return {
        "namespace": namespace,
        "appName": app,
        "newVersion": "#",
        "useHealthCheck": True,
        "healthCheckPort": 9999,
        "healthCheckPath": "health",
        "healthCheckType": "probe",
        "podspec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }


async def follow(service: Service, namespace: str, id: str) -> tuple[float, dict[str, float]]:
    """When DEPLOYED arrived, and when each part ended according to the log's own times."""
    url = service.url.replace("http", "ws", 1)
    times: dict[str, float] = {}
    stream = open_stream(f"{url}/stream/deployments/{id}/logs?namespace={namespace}", proxy=None, open_timeout=60)
    async with asyncio.timeout(PATIENCE), stream as viewer:
        async for message in viewer:
            now = time.time()
            stamp, _, text = str(message).partition(" ")
            for part, words in PARTS:
                if words in text:
                    times[part] = datetime.fromisoformat(stamp).timestamp()
            if text.startswith("DEPLOYED"):
                return now, times
            if text.startswith("FAILURE"):
                raise SystemExit(f"a deployment failed: {text}")
    raise SystemExit(f"the log of {id} ended without DEPLOYED")


async def poll(service: Service, namespace: str, ids: list[str]) -> None:
    """What clients do meanwhile: ask for every deployment once a second."""
    while True:
        for id in ids:
            await asyncio.to_thread(service.call, "GET", f"/deployments/{id}/?namespace={namespace}")
        await asyncio.sleep(1.0)


class Scenario:
    """Deploys some apps at once in a namespace of its own and measures each."""

    def __init__(self, service: Service, client: KubeClient) -> None:
        self._service, self._client = service, client
        self.namespace = f"bench-{os.getpid()}-{time.time_ns() % 10**9}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self._uid = client.create(NAMESPACE, body)["metadata"]["uid"]
        self.ready = Readiness(client, self.namespace)
        self.ready.start()
        self.in_flight: dict[str, Any] = {}

    def store(self, count: int) -> list[str]:
        """Descriptors of that many apps."""
        path = f"/descriptors/?namespace={self.namespace}"
        return [self._service.call("POST", path, descriptor(self.namespace, f"app{n}"))["id"] for n in range(count)]

    async def deploy(self, descriptors: list[str]) -> list[tuple[float, dict[str, float]]]:
        """Overhead in seconds and its parts, for each app."""
        path = f"/deployments/?namespace={self.namespace}&descriptorId="
        made = [await asyncio.to_thread(self._service.call, "POST", path + id) for id in descriptors]
        ids = [deployment["id"] for deployment in made]
        polling = asyncio.ensure_future(poll(self._service, self.namespace, ids))
        try:
            followed = [asyncio.ensure_future(follow(self._service, self.namespace, id)) for id in ids]
            await asyncio.sleep(0)
            self.in_flight = await asyncio.to_thread(self._service.used)
            seen = await asyncio.gather(*followed)
        finally:
            polling.cancel()
        path = f"/deployments/?namespace={self.namespace}"
        named = {d["id"]: f"{d['descriptor']['appName']}-{d['version']}" for d in self._service.call("GET", path)}
        return [
            (end - (ready := self.ready.at[named[id]]), _parts(ready, times))
            for id, (end, times) in zip(ids, seen, strict=True)
        ]

    def _await(self, *ends: str) -> list[Any]:
        """All deployments, once every one has a status among `ends`."""
        over = time.monotonic() + PATIENCE
        while True:
            found: list[Any] = self._service.call("GET", f"/deployments/?namespace={self.namespace}")
            if all(deployment["status"] in ends for deployment in found):
                return found
            if time.monotonic() > over:
                raise SystemExit(f"deployments did not come to an end: {Counter(d['status'] for d in found)}")
            time.sleep(0.2)

    def settled(self) -> None:
        """Wait until replaced versions are gone."""
        self._await("DEPLOYED", "UNDEPLOYED", "FAILURE")

    def live(self) -> None:
        """Wait until nothing is being deployed, and every app has a live version."""
        over = time.monotonic() + PATIENCE
        while True:
            found = self._service.call("GET", f"/deployments/?namespace={self.namespace}")
            apps = {d["descriptor"]["appName"] for d in found}
            if apps == {d["descriptor"]["appName"] for d in found if d["status"] == "DEPLOYED"}:
                return
            if time.monotonic() > over:
                raise SystemExit(f"not every app is live: {Counter(d['status'] for d in found)}")
            time.sleep(0.2)

    def close(self) -> None:
        """Undeploy everything, and remove the namespace when that is done."""
        path = f"/deployments/?namespace={self.namespace}"
        for app in {d["descriptor"]["appName"] for d in self._service.call("GET", path)}:
            self._service.call("DELETE", f"{path}&appname={app}&undeploy=true")
        self._await("UNDEPLOYED", "FAILURE")
        self.ready.stop()
        self._client.delete(NAMESPACE, self.namespace, uid=self._uid)


def _parts(ready: float, times: dict[str, float]) -> dict[str, float]:
    """Seconds that each part took; the log's lines have milliseconds."""
    out, before = {}, ready
    for part, _ in PARTS:
        out[part] = times[part] - before
        before = times[part]
    return out


# --- scenarios ----------------------------------------------------------------------------------------------------


def show(title: str, results: list[tuple[float, dict[str, float]]]) -> None:
    """A table: the whole, then its parts."""
    print(f"\n{title}")
    print(f"  {'ms':<24}{'median':>9}{'max':>9}")
    rows = [("Ready to DEPLOYED", [whole for whole, _ in results])]
    rows += [(f"  {part}", [parts[part] for _, parts in results]) for part, _ in PARTS]
    for name, values in rows:
        print(f"  {name:<24}{statistics.median(values) * 1e3:>9.1f}{max(values) * 1e3:>9.1f}", flush=True)


def show_bare(took: list[float]) -> None:
    """A row below such a table."""
    print(f"  {'bare selector switch':<24}{statistics.median(took) * 1e3:>9.1f}{max(took) * 1e3:>9.1f}", flush=True)


@contextlib.contextmanager
def scenario(service: Service, client: KubeClient) -> Iterator[Scenario]:
    """One that cleans up after itself."""
    made = Scenario(service, client)
    try:
        yield made
    finally:
        made.close()


def bare_switch(client: KubeClient, namespace: str, count: int, turn: int = 0) -> list[float]:
    """Seconds from a PATCH of a Service's selector to its arrival in a watch, for so many Services at once.

    It is what somebody does by hand who neither waits nor checks: no way to switch costs less.
    """
    names = [f"bare{turn}-{n}" for n in range(count)]
    for name in names:
        spec = {"selector": {"version": "1"}, "ports": [{"port": 80}]}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        client.create(SERVICE, body, namespace)
    scope = CancelScope()
    seen: dict[str, float] = {}
    since = client.list(SERVICE, namespace)[1]
    begin = threading.Barrier(count + 1)

    def watch() -> None:
        for _, found in client.watch(SERVICE, namespace, since, scope=scope):
            name, selector = found["metadata"]["name"], found["spec"].get("selector") or {}
            if name in names and selector.get("version") == "2":
                seen[name] = time.monotonic()
            if len(seen) == count:
                return

    def patch(name: str) -> float:
        begin.wait(PATIENCE)
        began = time.monotonic()
        client.patch(SERVICE, name, {"spec": {"selector": {"version": "2"}}}, namespace)
        return began

    with ThreadPoolExecutor(count + 1) as pool:
        watching = pool.submit(watch)
        patches = {name: pool.submit(patch, name) for name in names}
        begin.wait(PATIENCE)
        try:
            watching.result(PATIENCE)
        finally:
            scope.close(Revoked("the scenario is over"))
        return [seen[name] - began.result() for name, began in patches.items()]


RAW: list[dict[str, Any]] = []
"""The figures of every table, for the report."""


def record(apps: int, count: int, results: list[Any], spent: Counter[str], **more: Any) -> None:
    """Those of one table; `count` deployments sent the requests that were `spent`."""
    calls = {verb: number / count for verb, number in sorted(spent.items())}
    RAW.append({"apps": apps, "overhead": [whole for whole, _ in results], "calls": calls, **more})


def one_by_one(service: Service, client: KubeClient, count: int) -> None:
    """One app, deployed again and again; also what it costs the API server."""
    with scenario(service, client) as one:
        (id,) = one.store(1)
        asyncio.run(one.deploy([id]))  # lists and watches begin here
        one.settled()
        before = service.used()
        results = [asyncio.run(one.deploy([id]))[0] for _ in range(count)]
        one.settled()
        after = service.used()
        bare = [bare_switch(client, one.namespace, 1, n)[0] for n in range(count)]
    spent = Counter(after["requests"]) - Counter(before["requests"])
    cpu = (after["cpu"] - before["cpu"]) / count
    record(1, count, results, spent, bare=bare, cpu=cpu, resident=after["VmRSS"] / 1024, retirement=True)
    show(f"one app, {count} deployments one after the other", results)
    show_bare(bare)
    each = ", ".join(f"{verb} {number / count:.1f}" for verb, number in sorted(spent.items()))
    print(
        f"  per deployment, retirement of the old version included: {spent.total() / count:.1f} API requests ({each}),"
    )
    print(f"  {(after['cpu'] - before['cpu']) / count * 1e3:.0f} ms of processor time")


def at_once(service: Service, client: KubeClient, count: int) -> None:
    """Many apps at once."""
    with scenario(service, client) as many:
        descriptors = many.store(count)
        before = service.used()
        results = asyncio.run(many.deploy(descriptors))
        after = service.used()
        inflight = many.in_flight
        bare = bare_switch(client, many.namespace, count)
    spent = Counter(after["requests"]) - Counter(before["requests"])
    cpu = (after["cpu"] - before["cpu"]) / count
    record(count, count, results, spent, bare=bare, cpu=cpu, resident=inflight["VmRSS"] / 1024, retirement=False)
    show(f"{count} apps at once", results)
    show_bare(bare)
    print(
        f"  per deployment: {spent.total() / count:.1f} API requests, "
        f"{(after['cpu'] - before['cpu']) / count * 1e3:.0f} ms of processor time (polling and log streams included)"
    )
    print(
        f"  resident with {count} in flight: {inflight['VmRSS'] / 1024:.0f} MB, {inflight['Threads']:.0f} threads; "
        f"at most so far {after['VmHWM'] / 1024:.0f} MB"
    )


def main() -> None:
    """All tables."""
    parser = argparse.ArgumentParser(description="Measure deployments on a real Kubernetes.")
    parser.add_argument("--single", type=int, default=10, help="deployments of one app, one after the other (10)")
    parser.add_argument("--at-once", type=int, nargs="*", default=[20, 60, 100], help="apps at once (20 60 100)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep-warm", type=float, default=0.0, help=argparse.SUPPRESS)
    figures.add_option(parser)
    options = parser.parse_args()
    if not os.environ.get("KUBECONFIG"):
        raise SystemExit("needs a Kubernetes whose nodes reach the pods: set KUBECONFIG")
    if options.serve:
        serve(options.serve, options.keep_warm)
        return
    client = connect(Settings(kubeconfig=os.environ["KUBECONFIG"]))
    with tempfile.TemporaryDirectory() as directory:
        service = Service(directory)
        try:
            if options.single:
                one_by_one(service, client, options.single)
                figures.write(options.json, RAW)
            for count in options.at_once:
                at_once(service, client, count)
                figures.write(options.json, RAW)
        finally:
            service.stop()
            client.close()


if __name__ == "__main__":
    main()

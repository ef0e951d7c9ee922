"""How long a rollback to a warm version takes on a real Kubernetes: `make bench-rollback`, or `--help`.

From the POST to /rollbacks/ to the moment at which a watch shows that the unversioned Service selects that version: one
app, one rollback after the other, and many apps at once. No frontend: what a data plane takes is its own.

KUBECONFIG names the cluster, whose nodes reach the pods; DEPLOYER_TEST_IMAGE an image like the tests' (`lab/demo:1`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import threading
import time

import figures
from cluster import Scenario, Service, scenario
from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Revoked
from deployer.core.model.kind import SERVICE
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings


class Selected(threading.Thread):
    """Notes when each app's Service came to select each version."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        super().__init__(daemon=True)
        self._client, self._namespace, self._scope = client, namespace, CancelScope()
        self._version = client.list(SERVICE, namespace)[1]
        self._news = threading.Condition()
        self._at: dict[tuple[str, str], float] = {}

    def run(self) -> None:
        with contextlib.suppress(Revoked):
            for _, found in self._client.watch(SERVICE, self._namespace, self._version, scope=self._scope):
                version = (found["spec"].get("selector") or {}).get("version", "")
                with self._news:
                    self._at[found["metadata"]["name"], version] = time.monotonic()
                    self._news.notify_all()

    def since(self, began: float, app: str, version: str) -> float:
        """Seconds until it did, after that moment."""
        key = (app, version)
        with self._news:
            if not self._news.wait_for(lambda: self._at.get(key, 0.0) >= began, 60.0):
                raise SystemExit(f"service {app} does not select version {version}")
            return self._at[key] - began

    def stop(self) -> None:
        """End the watch."""
        self._scope.close(Revoked("the scenario is over"))


def back(service: Service, one: Scenario, selected: Selected, app: str) -> float:
    """Roll the app back. Returns the seconds that it took."""
    began = time.monotonic()
    answer = service.call("POST", f"/rollbacks/?namespace={one.namespace}&appname={app}")
    if not answer["rollback"]["warm"]:
        raise SystemExit(f"version {answer['rollback']['version']} of {app} is not warm any more")
    return selected.since(began, app, answer["rollback"]["version"])


async def measure(service: Service, client: KubeClient, count: int, rounds: int) -> list[float]:
    """Seconds of each rollback of `count` apps at once, `rounds` times."""
    took: list[float] = []
    with scenario(service, client) as one:
        descriptors = one.store(count)
        await one.deploy(descriptors)
        selected = Selected(client, one.namespace)
        selected.start()
        for _ in range(rounds):
            await one.deploy(descriptors)
            calls = [asyncio.to_thread(back, service, one, selected, f"app{n}") for n in range(count)]
            took += await asyncio.gather(*calls)
            one.live()
        selected.stop()
    return took


def main() -> None:
    """One line for each number of apps."""
    parser = argparse.ArgumentParser(description="Measure rollbacks on a real Kubernetes.")
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 20], help="apps at once (1 20)")
    parser.add_argument("--rounds", type=int, default=5, help="rollbacks of each app (5)")
    figures.add_option(parser)
    options = parser.parse_args()
    if not os.environ.get("KUBECONFIG"):
        raise SystemExit("needs a Kubernetes whose nodes reach the pods: set KUBECONFIG")
    client = connect(Settings(kubeconfig=os.environ["KUBECONFIG"]))
    raw = []
    with tempfile.TemporaryDirectory() as directory:
        service = Service(directory, keep_warm=3600)
        try:
            for count in options.at_once:
                took = asyncio.run(measure(service, client, count, options.rounds))
                raw.append({"apps": count, "seconds": took})
                print(
                    f"{count} apps at once, {len(took)} rollbacks, POST to the Service's selector: median "
                    f"{statistics.median(took) * 1e3:.0f} ms, most {max(took) * 1e3:.0f} ms",
                    flush=True,
                )
        finally:
            service.stop()
            client.close()
    figures.write(options.json, raw)


if __name__ == "__main__":
    main()

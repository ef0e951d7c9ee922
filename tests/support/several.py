"""Several processes `deployer serve` on one etcd and one real cluster, and what can befall one of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deployer.core.errors import KubeConflict, KubeNotFound
from deployer.core.model.kind import CONTROLLER, NAMESPACE, POD, SERVICE, Kind
from deployer.kube.client import KubeClient, connect
from deployer.replicas import balance
from deployer.settings import Settings
from deployer.store.etcd.store import PREFIX
from support.command import Process, of_a_new_user, running
from support.etcd import Etcd
from support.etcd_link import Link
from support.faultproxy import FaultProxy
from support.real import IMAGE
from support.switching import ADDRESS
from support.user import User
from support.world import HEALTHY, describe

PATIENCE = 240.0

CONFIG = f"""
ingress = "nginx"
health_via = "direct"
min_ready = 0.0
proxysleep = 0.0
[plugins.ingress_nginx]
addresses = ["{ADDRESS}:80"]
revision_header = "X-Revision"
"""


class Several:
    """Three replicas in a namespace of their own. The first one is what befalls befalls: only it has links that can be
    cut."""

    def __init__(self, path: Path, deployer: Any) -> None:
        self.namespace = f"r-{os.getpid()}-{time.time_ns() % 10**9}"
        self.eyes: KubeClient = connect(Settings(kubeconfig=os.environ["KUBECONFIG"], own_namespace=""))
        made = self.eyes.create(
            NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        )
        self._uid = made["metadata"]["uid"]
        self._deployer = deployer
        self._path = path
        (path / "config.toml").write_text(CONFIG)
        with contextlib.ExitStack() as opened:
            self.etcd = Etcd(path / "etcd", members=3)
            opened.callback(self.etcd.close)
            self.to_cluster = FaultProxy()
            opened.callback(self.to_cluster.close)
            self.to_etcd = [Link(url) for url in self.etcd.endpoints]
            for link in self.to_etcd:
                opened.callback(link.close)
            self.processes: list[Process] = []
            self.users: list[User] = []
            for number in range(3):
                process, user = self._serve(number)
                self.processes.append(process)
                self.users.append(user)
            self._opened = opened.pop_all()

    def _serve(self, number: int) -> tuple[Process, User]:
        etcds = [link.url for link in self.to_etcd] if number == 0 else self.etcd.endpoints
        arguments = ["--config", str(self._path / "config.toml"), "--data-dir", str(self._path / f"data-{number}")]
        arguments += ["--etcd", ",".join(etcds)]
        # The account of the kubeconfig, by way of the proxy or without.
        arguments += ["--kubernetes", self.to_cluster.url] if number == 0 else []
        process, rest = self._deployer.serve("serve", *arguments, KUBECONFIG=os.environ["KUBECONFIG"])
        return process, User(rest.url, self.namespace)

    # --- what befalls the first one -------------------------------------------------------------------------------

    def kill(self) -> None:
        """It dies."""
        self.processes[0].child.kill()

    def pause(self) -> None:
        """It stands still."""
        self.processes[0].child.send_signal(signal.SIGSTOP)

    def cut_off_from_etcd(self) -> None:
        """It reaches the cluster, and nothing of what it says is recorded."""
        for link in self.to_etcd:
            link.dark = True

    def cut_off_from_cluster(self) -> None:
        """It has its leases, and can do nothing with them."""
        self._dark = self.to_cluster.dark()
        self._dark.__enter__()

    def recover(self, blow: str) -> None:
        """All is as before."""
        if blow == "kill":
            self.processes[0], self.users[0] = self._serve(0)
        elif blow == "pause":
            self.processes[0].child.send_signal(signal.SIGCONT)
        elif blow == "cut_off_from_etcd":
            for link in self.to_etcd:
                link.dark = False
                link.cut()  # what got stuck breaks off
        else:
            self._dark.__exit__(None, None, None)
            self.to_cluster.refuse()  # what hangs breaks off
            self.to_cluster.accept()

    # --- doing and seeing -----------------------------------------------------------------------------------------

    def descriptor(self, app: str, **env: str) -> dict[str, Any]:
        """Of the sample app, with a host of its own."""
        host = f"{app}.{self.namespace}.example.com"
        return describe(self.namespace, app, image=IMAGE, pull="IfNotPresent", env=env, frontend=host, **HEALTHY)

    def running(self, user: User) -> dict[str, float]:
        """How many operations each replica carries out, as this one knows it."""
        _, _, text = user.rest.request("GET", "/metrics")
        found = re.findall(r'deployer_replica_operations\{replica="([^"]+)"\} (\S+)', text)
        return {name: float(count) for name, count in found}

    def name(self, number: int) -> str:
        """How a replica is called."""
        return f"{socket.gethostname()}-{self.processes[number].child.pid}"

    def apps(self, count: int) -> dict[str, int]:
        """Names of apps of which each replica has its share, with the number of the replica whose turn they are."""
        store = self.etcd.store(PREFIX)
        replicas = store.replicas()
        store.close()
        slots = {replica.holder: int(replica.says["slots"]) for replica in replicas}
        numbers = {self.name(number): number for number in range(3)}
        turn = {replica.holder: numbers[replica.says["name"]] for replica in replicas}
        found: dict[int, list[str]] = {number: [] for number in range(3)}
        for n in range(100 * count):
            found[turn[balance.order(slots, self.namespace, f"app-{n}")[0]]].append(f"app-{n}")
        names = [app for apps in zip(*(found[number] for number in range(3)), strict=False) for app in apps][:count]
        return {app: number for app in names for number in found if app in found[number]}

    def starting(self, user: User, app: str) -> bool:
        """Is a version of the app being started?"""
        return any(d["status"] == "DEPLOYING" and user.get(d["id"]).get("phase") == "START" for d in user.all(app))

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for it."""
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < end, f"waited {PATIENCE:g} s for {what}"
            time.sleep(0.2)  # over REST nobody is woken
        return found

    def objects(self, kind: Kind) -> set[str]:
        """Names, but of those that are on their way out."""
        found = self.eyes.list(kind, self.namespace)[0]
        return {o["metadata"]["name"] for o in found if not o["metadata"].get("deletionTimestamp")}

    def selected(self) -> dict[str, str]:
        """The live version of each app, as its Service selects it."""
        found = self.eyes.list(SERVICE, self.namespace, {"persistent": "true"})[0]
        return {o["metadata"]["name"]: o["spec"]["selector"]["version"] for o in found}

    def versions(self) -> tuple[set[str], set[str]]:
        """Names of all ReplicationControllers, and whose pods there are."""
        pods = self.eyes.list(POD, self.namespace)[0]
        return self.objects(CONTROLLER), {pod["metadata"]["labels"]["name"] for pod in pods}

    def close(self) -> None:
        """Remove everything."""
        with contextlib.suppress(ProcessLookupError):
            self.processes[0].child.send_signal(signal.SIGCONT)
        for process in self.processes:
            process.close()
        self._opened.close()
        with contextlib.suppress(KubeNotFound, KubeConflict):
            self.eyes.delete(NAMESPACE, self.namespace, uid=self._uid)
        self.eyes.close()


@contextlib.contextmanager
def several(path: Path) -> Iterator[Several]:
    """Three replicas; nothing is left of them in the end."""
    with running(of_a_new_user(path), path) as deployer:
        made = Several(path, deployer)
        try:
            yield made
        finally:
            made.close()

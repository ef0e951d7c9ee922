"""Deployments under load through a real ingress controller: what the cluster tests and `make bench-switch` share.

`DEPLOYER_TEST_INGRESS` is the address (default `198.19.0.1`) at whose port 80 a controller answers for Ingresses of
class `nginx`, as for HTTPRoutes of the Gateway that `DEPLOYER_TEST_GATEWAY` names (default `infra/edge`, listener
`http`). The service is the command `deployer serve`, in a process of its own, which can be killed and started again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deployer.core.errors import KubeConflict, KubeError, KubeNotFound
from deployer.core.failpoints import EXIT_CODE
from deployer.core.model.kind import CONFIG_MAP, HTTP_ROUTE, INGRESS, NAMESPACE, SERVICE, Kind
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings
from support.command import Process, Rest, of_a_new_user, running
from support.real import IMAGE
from support.traffic import KINDS, Report, Traffic, ballast
from support.traffic import Kind as RequestKind
from support.user import User
from support.world import HEALTHY, describe

ADDRESS = os.environ.get("DEPLOYER_TEST_INGRESS", "198.19.0.1")
GATEWAY = os.environ.get("DEPLOYER_TEST_GATEWAY", "infra/edge")
PATIENCE = 120.0

_NGINX = {"addresses": [f"{ADDRESS}:80"]}
TABLES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "nginx versioned": ("nginx", {**_NGINX, "revision_header": "X-Revision"}),
    "nginx stable-service": ("nginx", {**_NGINX, "mode": "stable-service", "version_header": "X-Version"}),
    "gateway": ("gateway", {"gateway": GATEWAY, "section": "http", "addresses": [f"{ADDRESS}:80"]}),
}
"""Provider and table `[plugins.ingress_<provider>]` of each mode that is tried."""

DOWNLOAD, SLOW = "download, 6 s", "slow GET, 2 s"
PROBE = {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1}


def missing(mode: str) -> str:
    """Why the mode cannot be tried on the cluster that KUBECONFIG names; empty if it can."""
    provider = TABLES[mode][0]
    kind = Kind("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False)
    name, namespace = "nginx", None
    if provider == "gateway":
        kind = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
        namespace, _, name = GATEWAY.partition("/")
    client = connect(Settings(kubeconfig=os.environ["KUBECONFIG"], own_namespace=""))
    try:
        client.get(kind, name, namespace)
        socket.create_connection((ADDRESS, 80), timeout=2.0).close()
        return ""
    except (KubeError, OSError) as error:
        return f"needs {kind.kind} {name}, served at {ADDRESS}:80: {error}"
    finally:
        client.close()


# --- the service --------------------------------------------------------------------------------------------------


class Site:
    """A service of its own on the cluster, an empty namespace, and a host that nobody else has."""

    def __init__(self, path: Path, deployer: Any, mode: str, **table: Any) -> None:
        self.name = f"s-{os.getpid()}-{time.time_ns() % 10**9}"
        self.host = f"{self.name}.example.com"
        self._path, self._deployer = path, deployer
        self.eyes: KubeClient = connect(Settings(kubeconfig=os.environ["KUBECONFIG"], own_namespace=""))
        made = self.eyes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})
        self._uid = made["metadata"]["uid"]
        values = {f"v{number}": value for number, value in enumerate(ballast())}
        self._ballast = [dict(list(values.items())[half::2]) for half in (0, 1)]
        for number, data in enumerate(self._ballast):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"ballast-{number}"}, "data": data}
            self.eyes.create(CONFIG_MAP, body, self.name)
        self.user = User("", self.name)
        self.process: Process | None = None
        self.use(mode, **table)

    def use(self, mode: str, **table: Any) -> None:
        """Restart the service with this provider in its configuration; the tables of all are there, as the service
        has to know the one before as well. Mode `none`: without any."""
        self.mode = mode
        self.stop()
        provider = TABLES[mode][0] if mode != "none" else "none"
        tables = {p: t for m, (p, t) in TABLES.items() if m != "nginx stable-service"}
        if mode != "none":
            tables[provider] = {**TABLES[mode][1], **table}
        lines = [
            f'ingress = "{provider}"',
            'health_via = "direct"',
            "min_ready = 0.0",
            "proxysleep = 0.0",
            "timeout = 4.0",
        ]
        for name, values in tables.items():
            lines += [f"[plugins.ingress_{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        (self._path / "config.toml").write_text("\n".join(lines) + "\n")
        self.start()

    def start(self, failpoint: str = "") -> None:
        """Start the service, to die at a failpoint if one is given."""
        more = {"DEPLOYER_FAILPOINT": failpoint} if failpoint else {}
        more["DEPLOYER_FAILPOINT_COUNT"] = str(self._path / "counts")
        arguments = ["--config", str(self._path / "config.toml"), "--data-dir", str(self._path / "data")]
        self.process, rest = self._deployer.serve("serve", *arguments, **more)
        self.user.rest = Rest(rest.url, self.name)

    def stop(self) -> None:
        """In order."""
        if self.process is not None and self.process.child.poll() is None:
            assert self.process.end(signal.SIGTERM) == 0
        self.process = None

    # --- deployments ----------------------------------------------------------------------------------------------

    def descriptor(self, app: str = "shop", host: str = "", **env: str) -> dict[str, Any]:
        """Of the sample app, with enough to say in `/env`."""
        made = describe(
            self.name, app, image=IMAGE, pull="IfNotPresent", env=env, frontend=host or self.host, **HEALTHY
        )
        container = made["podspec"]["containers"][0]
        for number, data in enumerate(self._ballast):
            for key in data:
                source = {"configMapKeyRef": {"name": f"ballast-{number}", "key": key}}
                container["env"].append({"name": f"BALLAST_{key}", "valueFrom": source})
        if "SLOW_START" in env:
            container["readinessProbe"] = PROBE
        return made

    def deployed(self, descriptor: dict[str, Any]) -> Switch:
        """Deploy it to the end."""
        return self.switched(self.user.deploy(descriptor))

    def switched(self, id: str) -> Switch:
        """That deployment, once it is DEPLOYED."""
        self.user.ended(id, "DEPLOYED")
        lines = self.user.logs[id]
        at = _moment(lines, "DEPLOYED: ")
        return Switch(self.user.get(id)["version"], at, at - _moment(lines, " ready endpoints"))

    def deployed_though_killed(self, descriptor: dict[str, Any], failpoint: str) -> tuple[Switch, bool]:
        """Deploy it with a service that dies at that failpoint, and is started again. False: it did not come there."""
        self.stop()
        self.start(failpoint)
        target = f"/deployments/?namespace={self.name}&descriptorId={self.user.store(descriptor)}"
        known = {deployment["id"] for deployment in self.user.all()}
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.user.rest.request("POST", target)
            while [d for d in self.user.all() if d["status"] == "DEPLOYING"]:
                time.sleep(0.05)
        assert self.process is not None
        died = self.process.child.poll() is not None or self.process.end(signal.SIGTERM) == EXIT_CODE
        self.start()
        made = [deployment["id"] for deployment in self.user.all() if deployment["id"] not in known]
        return self.switched(made[0] if made else self.user.accepted("POST", target)), died

    def quiet(self) -> None:
        """Wait until all replaced versions are gone."""
        end = time.monotonic() + PATIENCE
        while any(d["status"] in ("DEPLOYING", "UNDEPLOYING") for app in ("shop", "other") for d in self.user.all(app)):
            assert time.monotonic() < end, "replaced versions stay"
            time.sleep(0.2)

    def counts(self) -> dict[str, int]:
        """How often each failpoint was passed by the process that ended last."""
        return dict(json.loads((self._path / "counts").read_text()))

    def close(self) -> None:
        """Remove the namespace."""
        with contextlib.suppress(KubeNotFound, KubeConflict):
            self.eyes.delete(NAMESPACE, self.name, uid=self._uid)
        self.eyes.close()


@dataclass(frozen=True)
class Switch:
    """A deployment that became live.

    at    when its log says so, in seconds since the epoch
    took  seconds from when its Service had all endpoints
    """

    version: str
    at: float
    took: float


def _moment(lines: Sequence[str], words: str) -> float:
    line = next(line for line in lines if words in line)
    return datetime.fromisoformat(line.split(" ")[0]).timestamp()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'


@contextlib.contextmanager
def site(path: Path, mode: str, **table: Any) -> Iterator[Site]:
    """A service that is ended, and a namespace that is removed, whatever happens."""
    with running(of_a_new_user(path) | {"KUBECONFIG": os.environ["KUBECONFIG"]}, path) as deployer:
        made = Site(path, deployer, mode, **table)
        try:
            yield made
            made.stop()
        finally:
            made.close()


# --- the load -----------------------------------------------------------------------------------------------------


@dataclass
class Drive:
    """Load on a site from its first version on, and the switches that it went through."""

    site: Site
    traffic: Traffic
    switches: list[Switch] = field(default_factory=list)

    def deploy(self, count: int = 1, **env: str) -> None:
        """More versions of the app, one after the other."""
        for _ in range(count):
            self.switches.append(self.site.deployed(self.site.descriptor(**env)))

    def go_back(self) -> None:
        """To what was deployed first."""
        self.switches.append(self.site.switched(self.site.user.redeploy(self.site.user.all()[-1]["id"])))

    def fail(self) -> None:
        """A version that is not healthy."""
        self.site.user.failed({**self.site.descriptor(FAIL="1"), "timeoutSeconds": 30})

    def undeploy_another(self) -> None:
        """Another app of the same namespace, with a host of its own, comes and goes."""
        user = self.site.user
        other = self.site.descriptor("other", f"other-{self.site.host}")
        id = user.ended(user.deploy(other), "DEPLOYED")["id"]
        user.undeploy(id)
        user.ended(id, "UNDEPLOYED")

    def kill(self, failpoint: str) -> bool:
        """Deploy with a service that dies there. False: it did not come to that."""
        switch, died = self.site.deployed_though_killed(self.site.descriptor(), failpoint)
        self.switches.append(switch)
        return died

    def swap_everywhere(self, modes: Sequence[str], most: int = 40) -> int:
        """Deploy with each of the modes in turn, which takes the host over from the one before, once for each write of
        a deployment, with a service that dies right after it; how many swaps it were."""
        swaps = 0
        for number in range(1, most):
            died = []
            for mode in modes:
                self.site.quiet()
                self.site.use(mode)
                died.append(self.kill(f"kube.after:{number}"))
                swaps += 1
            if not any(died):
                return swaps
        raise AssertionError(f"a swap makes more than {most} writes")

    def kill_everywhere(self, most: int = 40) -> int:
        """Deploy once for each write of a deployment, with a service that dies right after it; how many there are."""
        for number in range(1, most):
            self.site.quiet()
            if not self.kill(f"kube.after:{number}"):
                return number - 1
        raise AssertionError(f"a deployment makes more than {most} writes")

    def late(self, report: Report, number: int) -> list[tuple[float, str]]:
        """Answers of an older version to requests on fresh connections that began after that switch was DEPLOYED, and
        before the next one was."""
        switch, later = self.switches[number], self.switches[number + 1 :]
        until = later[0].at if later else float("inf")
        newer = {one.version for one in later}
        return [(t, who) for t, who in report.late(switch.version, switch.at) if t < until and who not in newer]

    def problems(self, report: Report, *, spanned: bool = True) -> list[str]:
        """What was lost, or answered by the old version after DEPLOYED, in words. `spanned`: every switch must have
        happened during slow requests and downloads."""
        found = [f"{report.failed} requests failed\n{report.explain()}"] if report.failed else []
        for number, switch in enumerate(self.switches):
            if late := self.late(report, number):
                found.append(f"{len(late)} answers of an old version after {switch.version} was DEPLOYED: {late[:3]}")
            under_way = report.spanning(switch.at)
            if spanned and not (under_way[DOWNLOAD] and under_way[SLOW]):
                found.append(f"no long request was under way when {switch.version} was DEPLOYED: {dict(under_way)}")
        found += [f"no {name} was answered" for name, account in report.kinds.items() if not account.answered]
        return found


@contextlib.contextmanager
def driving(site: Site, kinds: Sequence[RequestKind] = KINDS) -> Iterator[Drive]:
    """Deploys the first version, and lets the load begin when it answers."""
    first = site.deployed(site.descriptor())
    traffic = Traffic((ADDRESS, 80), site.host, kinds)
    try:
        drive = Drive(site, traffic, [])
        end = time.monotonic() + PATIENCE
        # By then the downloads are under way as well.
        while not all(a.answered for name, a in traffic.report().kinds.items() if name != DOWNLOAD):
            assert time.monotonic() < end, traffic.report().explain()
            time.sleep(0.1)
        assert first.version
        yield drive
    finally:
        traffic.close()


class Neighbour(threading.Thread):
    """Another tenant of the same controller, who changes a route of each kind several times a second."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._eyes, self._namespace = site.eyes, site.name
        self._over = threading.Event()
        self.changes = 0
        self._routes: list[tuple[Kind, str]] = []
        for kind, body in self._bodies():
            with contextlib.suppress(KubeNotFound):
                site.eyes.create(kind, body, site.name)
                self._routes.append((kind, body["metadata"]["name"]))
        self.start()

    def _bodies(self) -> Iterator[tuple[Kind, dict[str, Any]]]:
        name = "neighbour"
        port = {"name": "http", "port": 80, "protocol": "TCP"}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [port]}}
        self._eyes.create(SERVICE, service, self._namespace)
        backend = {"service": {"name": name, "port": {"number": 80}}}
        paths = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
        rules = [{"host": f"ingress.{self._namespace}.example.com", "http": paths}]
        spec: dict[str, Any] = {"ingressClassName": "nginx", "rules": rules}
        meta = {"metadata": {"name": name}}
        yield INGRESS, {"apiVersion": INGRESS.api_version, "kind": "Ingress", **meta, "spec": spec}
        namespace, _, gateway = GATEWAY.partition("/")
        spec = {
            "parentRefs": [{"namespace": namespace, "name": gateway, "sectionName": "http"}],
            "hostnames": [f"route.{self._namespace}.example.com"],
            "rules": [{"backendRefs": [{"name": name, "port": 80}]}],
        }
        yield HTTP_ROUTE, {"apiVersion": HTTP_ROUTE.api_version, "kind": "HTTPRoute", **meta, "spec": spec}

    def run(self) -> None:
        while not self._over.wait(0.25):
            self.changes += 1
            for kind, name in self._routes:
                self._eyes.patch(kind, name, self._change(kind), self._namespace)

    def _change(self, kind: Kind) -> dict[str, Any]:
        """Something that makes another configuration of the controller's."""
        host = f"n{self.changes}.{self._namespace}.example.com"
        if kind == HTTP_ROUTE:
            return {"spec": {"hostnames": [host]}}
        backend = {"service": {"name": "neighbour", "port": {"number": 80}}}
        paths = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
        return {"spec": {"rules": [{"host": f"i{host}", "http": paths}]}}

    def stop(self) -> None:
        """No more changes."""
        self._over.set()
        self.join()

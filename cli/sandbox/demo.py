"""`deployer demo`: three deployments under constant load, all of it real HTTP on loopback, and an account of it."""

from __future__ import annotations

import contextlib
import datetime
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from deployer import sandbox
from deployer.cli import wiring
from deployer.cli.process import Interrupts
from deployer.cli.sandbox import sample
from deployer.cli.sandbox.screen import Screen, by_version
from deployer.client.configuration import Profile
from deployer.client.connection import Connection
from deployer.client.deploying import new_key
from deployer.client.log_stream import LogStream
from deployer.client.service import Service
from deployer.core.errors import DeployerError
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, INGRESS, POD, SERVICE
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient
from deployer.sandbox import Load, Report, Sandbox
from deployer.settings import Settings

PATIENCE = 60.0
"""Seconds for any one thing to happen, however slow the machine is."""

ENOUGH = 100
"""Requests that a version must have answered before the play goes on."""

_MANAGED = {"app.kubernetes.io/managed-by": "deployer"}
_DEPLOYMENT = "kube-deployer/deployment"


class Failed(DeployerError):
    """The play did not get to its end."""


def run(rate: float, interrupts: Interrupts) -> int:
    """Play it with `rate` requests a second. Returns 0 when nothing was lost and the outcome is right, else 1."""
    screen = Screen()
    began = time.monotonic()
    with contextlib.ExitStack() as parts:
        directory = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="deployer-demo-")))
        screen.title("Starting the sandbox and the service")
        with interrupts.held():
            cluster = sandbox.start(directory / "sandbox")
            parts.callback(cluster.stop)
            parts.callback(interrupts.ignore)
        running = wiring.start(_settings(cluster, directory), complete=False)
        parts.callback(running.stop, 5.0)
        parts.callback(interrupts.ignore)
        screen.say(f"  sandbox {cluster.api}, its ingress {cluster.ingress}, Deployer {running.url}")
        service = Service(Connection(Profile(server=running.url)), sample.NAMESPACE)
        play = Play(screen, service, cluster, rate)
        play.all()
        wrong = play.wrong() + left_behind(running.client, play.ids[1])
    play.summary()
    if not wrong:
        screen.row("objects", "exactly those of version 2")
    screen.row("took", f"{time.monotonic() - began:.0f} s")
    for sentence in wrong:
        screen.say(f"  not as it should be: {sentence}", "bold red")
    return 1 if wrong else 0


def _settings(cluster: Sandbox, directory: Path) -> Settings:
    """Shorter times than by default, so that nobody has to wait long for version 3 to be given up."""
    fields = sample.sandbox_settings(cluster)
    return Settings(**fields, data_dir=directory / "store", deployport=0, proxysleep=3.0, timeout=6.0)


@dataclass
class Play:
    """The three deployments and the load. `ids`, `ended`: of the deployments, in order."""

    screen: Screen
    service: Service
    cluster: Sandbox
    rate: float
    ids: list[str] = field(default_factory=list)
    ended: list[Document] = field(default_factory=list)
    serving: str = ""
    _report: Report | None = None
    _lines: dict[str, int] = field(default_factory=dict)

    def all(self) -> None:
        """From nothing to version 2 live and version 3 refused."""
        self.screen.title("Version 1 of the app shop is deployed")
        descriptor = self.service.create_descriptor(sample.descriptor())["id"]
        self.deploy(descriptor, "DEPLOYED")
        with self.load() as load:
            self.screen.title(f"From now on {sample.HOST} gets {self.rate:g} requests a second; version 2 is deployed")
            self.answered(load, "1")
            self.deploy(descriptor, "DEPLOYED")
            self.answered(load, "2")
            self.screen.title("Version 1 is kept for requests under way, then removed")
            self.follow(self.ids[0])
            self.screen.title("Version 3 is deployed; its health check says no")
            self.service.replace_descriptor(
                descriptor, sample.descriptor(FAIL="1"), self.service.descriptor(descriptor)[1]
            )
            self.deploy(descriptor, "FAILURE")
            self.answered(load, "2", more=True)
        self.ended = [self.service.deployment(id) for id in self.ids]
        self.serving = ask(self.cluster.ingress, sample.HOST)

    def deploy(self, descriptor: str, expected: str) -> None:
        """Deploy, show the log while it grows, and insist on how it ends."""
        id = self.service.deploy(descriptor, key=new_key())["id"]
        self.ids.append(id)
        self.follow(id)
        found = self.service.deployment(id)
        if found["status"] != expected:
            why = (found.get("failure") or {}).get("message", "see its log above")
            raise Failed(f"deployment {len(self.ids)} ended with {found['status']} instead of {expected}: {why}")

    def follow(self, id: str) -> None:
        """Show what is new in a deployment's log until it has ended."""
        stream = LogStream(self.service.connection, self.service.namespace, id, timeout=PATIENCE)
        stream.after = self._lines.get(id, 0)
        for line in stream.messages():
            self._lines[id] = stream.after
            self.screen.log(line)

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        """Requests on the public host, through the sandbox's ingress, until the end of the block."""
        load = Load(self.cluster.ingress, host=sample.HOST, rate=self.rate).start()
        try:
            with self.screen.following(load):
                yield load
        finally:
            self._report = load.stop()

    def answered(self, load: Load, version: str, *, more: bool = False) -> None:
        """Wait until `version` has answered for a while; with `more`, for a while from now on."""
        wanted = ENOUGH + (load.snapshot().by_version.get(version, 0) if more else 0)
        try:
            load.wait_for(lambda report: report.by_version.get(version, 0) >= wanted, PATIENCE)
        except TimeoutError:
            counts = by_version(load.snapshot()) or "nothing"
            raise Failed(f"version {version} does not answer behind the ingress; what did: {counts}") from None

    @property
    def report(self) -> Report:
        """The load's account, once it has ended."""
        if self._report is None:
            raise RuntimeError("there was no load yet")
        return self._report

    def wrong(self) -> list[str]:
        """What is not as it should be; nothing, in a good play."""
        report, out = self.report, []
        if report.failed or report.answered != report.sent:
            out.append(f"of {report.sent} requests {report.answered} were answered: {report.failures}")
        if others := set(report.by_version) - {"1", "2"}:
            out.append(f"answers came from version {', '.join(sorted(others))}")
        statuses = [found["status"] for found in self.ended]
        if statuses != ["UNDEPLOYED", "DEPLOYED", "FAILURE"]:
            out.append(f"the deployments are {', '.join(statuses)} in the end")
        if (reason := self.ended[2].get("failure", {}).get("reason")) != "Unhealthy":
            out.append(f"version 3 was refused for another reason: {reason}")
        if self.serving != "2":
            out.append(f"version {self.serving or '?'} answers in the end")
        return out

    def summary(self) -> None:
        """The account, for a person."""
        report, row = self.report, self.screen.row
        self.screen.title("Summary")
        row("requests", f"{report.sent} sent, {report.failed} failed", "bold red" if report.failed else "bold green")
        row("answered", by_version(report))
        row("latency", f"p50 {_ms(report.latency_p50)}, p99 {_ms(report.latency_p99)}")
        first, last = report.first_seen.get("2"), report.last_seen.get("1")
        if first and last:
            relation = f"{_ms(abs(last - first))} {'after' if last >= first else 'before'} that"
            row("switch", f"version 2 answered first at {_clock(first)}, version 1 last {relation}")
        failure = self.ended[2].get("failure", {})
        row("version 3", f"refused, {failure.get('reason', '?')}: {failure.get('message', '?')}")
        row("serving", f"version {self.serving} still serving", "" if self.serving == "2" else "bold red")


def left_behind(client: KubeClient, live: str) -> list[str]:
    """What is in the namespace and should not be, or the other way round: it must be exactly the live deployment's."""
    app, namespace = sample.APP, sample.NAMESPACE
    names = {CONTROLLER: {f"{app}-2"}, SERVICE: {app, f"{app}-2"}, INGRESS: {app}}
    out = []
    for kind, wanted in names.items():
        found = {item["metadata"]["name"] for item in client.list(kind, namespace)[0]}
        if found != wanted:
            out.append(f"{kind.plural} in the end: {', '.join(sorted(found)) or 'none'}")
    for item in client.list(CONFIG_MAP, namespace, _MANAGED)[0]:
        if item["metadata"].get("annotations", {}).get(_DEPLOYMENT) != live:
            out.append(f"ConfigMap {item['metadata']['name']} is left behind")
    pods = [p for p in client.list(POD, namespace)[0] if not p["metadata"].get("deletionTimestamp")]
    versions = sorted(pod["metadata"].get("labels", {}).get("version", "?") for pod in pods)
    if versions != ["2", "2"]:
        out.append(f"pods in the end: of version {', '.join(versions) or 'none'}")
    return out


def ask(ingress: str, host: str) -> str:
    """The version that answers now. Without a proxy, whatever the environment says."""
    request = Request(f"{ingress}/", headers={"Host": host})
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
            return str(answer.headers.get("X-Version", ""))
    except OSError as error:
        raise Failed(f"{host} does not answer behind the ingress: {error}") from error


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _clock(moment: float) -> str:
    """Time of day in UTC, as in the logs."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds")[11:23]

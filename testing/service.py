"""A Deployer on a sandbox: a real store, a real API over HTTP, pods that are processes; it can be killed."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from deployer import sandbox
from deployer.commands.apps import AppViews
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.progress import Progress
from deployer.core.clock import SteadyClock
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import KubeAlreadyExists, KubeConflict, KubeNotFound, StoreUnavailable
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, INGRESS, NAMESPACE, POD, SERVICE, Kind
from deployer.core.model.records import Deployment, Document, Event, Operation, Status
from deployer.core.operations.activity import Activities
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.dispatcher import Engine
from deployer.core.ports.store import Change, Lease, Store
from deployer.core.registry import Registry
from deployer.kube import client as kube_client
from deployer.kube.client import WATCH_SILENCE, KubeClient
from deployer.kube.http.transport import NotSent
from deployer.kube.informer import Informers
from deployer.planning.decisions import Decisions
from deployer.plugin_manager.observers import Observers
from deployer.redaction.redactor import Redactor
from deployer.replicas.leases import Leases
from deployer.replicas.membership import Membership
from deployer.sdk.plugin import Provider
from deployer.settings import Settings
from deployer.store.selection import open_store
from deployer.testing.descriptors import HEALTHY, IMAGE, describe
from deployer.testing.plugins import load
from deployer.toolkit.cluster import KubernetesCluster
from deployer.toolkit.dataplane.shared_answers import SharedAnswers
from deployer.toolkit.dry_run import DryRun
from deployer.toolkit.remarks import remarks
from deployer.toolkit.replicas import ReplicaCounts
from deployer.toolkit.versions import KubernetesVersions

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds to wait for anything. Generous: the machines are slow and noisy, and nothing waits longer than it must."""

NGINX = {
    "controller": "ingress-nginx/ingress-nginx-controller",
    "revision_header": True,
    "minimum_hold": 0.2,
    "propagation_seconds": 0.4,
}
"""The table of the ingress provider `nginx` for a sandbox, whose ingress controller follows within 0.1 s."""


ENDS = frozenset({Status.FAILURE, Status.UNDEPLOYED})
"""What a deployment stays once it is that."""


class SandboxedService:
    """A Deployer on the sandbox, in a namespace of its own. A context manager: it is started, and closed at the end.

    providers   to add to what the installed plugins provide: `[Mine()]`
    modules     plugins to add, by the names that their entry points have: `{"mine": my_module}`
    settings    fields of `Settings`; tables in `plugins` are added to that of `ingress_nginx`
    """

    def __init__(
        self,
        cluster: sandbox.Sandbox | None,
        path: Path,
        namespace: str = "",
        *,
        providers: Sequence[Provider] = (),
        modules: Mapping[str, object] | None = None,
        **settings: Any,
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace or f"t-{uuid.uuid4().hex[:12]}"
        # Without a sandbox KUBECONFIG says which cluster it is; pods can be reached from where the tests run.
        where: dict[str, Any] = {"kubernetes": cluster.api, "loopback_pods": True} if cluster else {}
        defaults: dict[str, Any] = {"proxysleep": 0.0, "min_ready": 0.0, "timeout": 10.0}
        defaults |= {"ingress": "nginx"} | ({} if cluster else {"health_via": "direct"})
        settings["plugins"] = {"ingress_nginx": NGINX} | settings.get("plugins", {})
        self.settings = Settings(data_dir=path, own_namespace="", **where, **{**defaults, **settings})
        self.providers = list(providers)
        self.modules = dict(modules or {})
        self.eyes: KubeClient = kube_client.connect(self.settings)
        with contextlib.suppress(KubeAlreadyExists):  # when another process takes up the same one
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
            self.eyes.create(NAMESPACE, body, None)
        self._parts: list[Callable[[], None]] = []
        self.entry_points: Sequence[EntryPoint] | None = None
        self.silence = WATCH_SILENCE
        self.problem: Callable[[], str] = lambda: ""
        self.clock: Callable[[], SteadyClock] = SteadyClock
        self._life = _Life()

    def __enter__(self) -> SandboxedService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self, registry: Registry | None = None, *, kill_at: int = 0) -> None:
        """Start the service on the same store as before; with `kill_at` it dies before that write."""
        life = self._life = _Life()
        if kill_at:
            life.kill(kill_at)
        self.store = self._open_store(life)
        redactor = self.redactor = Redactor()
        self.deployment_log = DeploymentLog(self.store, redactor)
        self.registry = registry or self._load()
        self.client = kube_client.connect(self.settings)
        self.client._transport = _MortalTransport(self.client._transport, life)  # type: ignore[assignment]
        self.informers = Informers(self.client, silence=self.silence)
        cluster = KubernetesCluster(self.client, self.informers, self.store, self.settings)
        clock = self.clock()
        leases, activities = Leases(self.store), Activities()
        self.replicas = Membership(
            self.store,
            holder=leases.holder,
            name="test",
            slots=self.settings.workers,
            activities=activities,
            problem=self.problem,
            clock=clock,
        )
        dependencies = Dependencies(
            store=self.store,
            deployment_log=self.deployment_log,
            redactor=redactor,
            registry=self.registry,
            settings=self.settings,
            cluster=cluster,
            planning=Decisions(self.store, self.registry, self.settings, KubernetesVersions()),
            leases=leases,
            clock=clock,
            activities=activities,
            replicas=self.replicas,
        )
        self.engine = Engine(dependencies, Observers.of(dependencies))
        self.how_far = Progress(self.store, activities, clock, others=self.replicas.others)
        life.stop = self.engine.stop
        dry_run = DryRun(self.client, self.settings)
        self.service = DeploymentCommands(
            self.store, self.deployment_log, self.registry, self.settings, dry_run=dry_run, remarks=remarks, clock=clock
        )
        instance = self.settings.instance
        answers = SharedAnswers(self.client, self.informers, self.registry, redactor, instance=instance, clock=clock)
        counts, freezing = ReplicaCounts(self.informers), self.service.freezes.shown_for
        self.apps = AppViews(self.store, self.how_far, counts, freezing, answers)
        self.engine.start()
        self._parts = [
            self.engine.stop,
            cluster.close,
            self.informers.close,
            self.client.close,
            self.deployment_log.close,
            self.store.close,
        ]

    def _open_store(self, life: _Life) -> Store:
        return _mortal(open_store(self.settings), life)

    def _load(self) -> Registry:
        return load(self.settings, providers=self.providers, modules=self.modules, entry_points=self.entry_points)

    def stop(self) -> None:
        """Stop the service in an orderly way, not the sandbox."""
        parts, self._parts = self._parts, []
        for part in parts:
            part()

    def kill(self, at: int = 0) -> None:
        """Die before the `at`-th write from now on, to the cluster or to the journal; 0: at once.

        Nothing that it does afterwards leaves a trace, as if the process had ended there. `restart` brings it back.
        """
        self._life.kill(at)

    @property
    def died(self) -> threading.Event:
        """Set once it has died."""
        return self._life.died

    @property
    def writes(self) -> int:
        """How many writes there were since it was started."""
        return self._life.writes

    def restart(self, *, without: str = "", kill_at: int = 0) -> None:
        """Start another one on the same store.

        without   the strategy of that name was uninstalled meanwhile
        kill_at   it dies, too, before its `kill_at`-th write
        """
        self._life.stopped()
        self.stop()
        registry = self._load()
        kept: dict[str, Any] = {name: entry for name, entry in registry.strategies.items() if name != without}
        self.start(dataclasses.replace(registry, strategies=kept), kill_at=kill_at)

    def close(self) -> None:
        """Stop everything and remove the namespace."""
        self.stop()
        with contextlib.suppress(KubeNotFound, KubeConflict):  # somebody was quicker
            self.eyes.delete(NAMESPACE, self.namespace, uid=self.eyes.get(NAMESPACE, self.namespace)["metadata"]["uid"])
        self.eyes.close()

    # --- doing ---------------------------------------------------------------------------------------------------

    def deploy_descriptor(self, descriptor: Document) -> str:
        """Store a descriptor and queue its deployment. Returns the deployment's id. Raises BadRequest."""
        stored = self.service.descriptors.create(self.namespace, json.dumps(descriptor).encode())
        return self.service.deploy(self.namespace, stored.id).id

    def undeploy(self, id: str) -> None:
        """Undeploy it, or cancel it while it is deploying."""
        self.service.undeploy(self.namespace, id)

    def await_status(self, id: str, *statuses: Status) -> Deployment:
        """Wait until it is in one of these statuses; none: until it moves no more. Raises AssertionError, at once when
        it has come to another end."""

        def end() -> Deployment | None:
            found = self.store.get(Deployment, id)
            if found and statuses and found.status in ENDS and found.status not in statuses:
                raise AssertionError(f"deployment {id} is {found.status}, not {' or '.join(statuses)}\n{self.log(id)}")
            return found if found and (found.status in statuses if statuses else not found.status.moving) else None

        return self.until(end, f"deployment {id} to be {' or '.join(statuses) or 'at its end'}")

    def record(self, id: str) -> Deployment:
        """The deployment as it is now."""
        found = self.store.get(Deployment, id)
        assert found is not None, f"there is no deployment {id}"
        return found

    def quiet(self) -> None:
        """Wait until nothing is left to do, retirements included."""
        self.until(lambda: self.engine.idle() or None, "everything to be done")

    def until(self, condition: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
        """Wait for something in the store, woken by its changes. Raises AssertionError with all logs."""
        changed = threading.Event()
        forget = self.store.subscribe(lambda *_: changed.set())
        end = time.monotonic() + patience
        try:
            while True:
                changed.clear()
                found = condition()
                if found:
                    return found
                left = end - time.monotonic()
                if left <= 0:
                    logs = "\n".join(f"--- {d.id} {d.status}\n{self.log(d.id)}" for d in self.store.find(Deployment))
                    raise AssertionError(
                        f"waited {patience:g} s for {what}\n{logs}\n{self.store.find(Operation, tag='open')}"
                    )
                changed.wait(min(left, 1.0))
        finally:
            forget()

    def put(self, kind: Kind, body: Document) -> Document:
        """Create an object in the namespace, as somebody else would."""
        return self.eyes.create(kind, body, self.namespace if kind.namespaced else None)

    # --- seeing --------------------------------------------------------------------------------------------------

    def log(self, id: str) -> str:
        """A deployment's log."""
        return "".join(self.deployment_log.text(id))

    def answer(self, host: str, path: str = "/") -> tuple[int, str]:
        """Status and body of what the sandbox's ingress controller answers for a host, on a fresh connection."""
        assert self.cluster is not None, "only a sandbox has a data plane of its own"
        connection = http.client.HTTPConnection(urlsplit(self.cluster.ingress).netloc, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")

    def objects(self, kind: Kind) -> dict[str, Document]:
        """Objects of the namespace by name, but those that are on their way out."""
        found = self.eyes.list(kind, self.namespace)[0]
        return {o["metadata"]["name"]: o for o in found if not o["metadata"].get("deletionTimestamp")}

    def names(self) -> dict[str, set[str]]:
        """Names of all objects that a Deployer makes, by plural; empty kinds are left out."""
        found = {kind.plural: set(self.objects(kind)) for kind in (CONTROLLER, SERVICE, INGRESS, CONFIG_MAP)}
        return {kind: names for kind, names in found.items() if names}

    def pods(self) -> dict[str, Document]:
        """All pods, those that are going included."""
        return {p["metadata"]["name"]: p for p in self.eyes.list(POD, self.namespace)[0]}

    def live_version(self, app: str = "shop") -> str | None:
        """What the unversioned Service selects."""
        service = self.objects(SERVICE).get(app)
        return service["spec"]["selector"]["version"] if service else None

    def events(self) -> list[Event]:
        """Events that observers were not told yet."""
        return self.store.find(Event)


@contextlib.contextmanager
def open_service(path: Path, **more: Any) -> Iterator[SandboxedService]:
    """A sandbox in that directory and a service on it; both end with the block. `more` is as for `SandboxedService`."""
    cluster = sandbox.start(path / "sandbox", ingress_delay=0.1)
    try:
        with SandboxedService(cluster, path, **more) as made:
            yield made
    finally:
        cluster.stop()


# --- dying --------------------------------------------------------------------------------------------------------


class _Life:
    """Counts the writes of one service, until it dies before one of them. From then on it writes nothing."""

    def __init__(self) -> None:
        self.died = threading.Event()
        self.stop: Callable[[], None] = lambda: None
        self.writes = 0
        self._at = 0
        self._lock = threading.Lock()
        self._stopping: threading.Thread | None = None

    def kill(self, at: int) -> None:
        with self._lock:
            self._at = self.writes + at if at else 0
            if not at:
                self._die()

    def write(self, *, counts: bool = True) -> bool:
        """Count one that is about to be made, unless nothing depends on it. False: it is dead."""
        with self._lock:
            if counts and not self.died.is_set():
                self.writes += 1
                if self.writes == self._at:
                    self._die()
            return not self.died.is_set()

    def stopped(self) -> None:
        """Return when whatever still ran has ended."""
        if self._stopping is not None:
            self._stopping.join()

    def _die(self) -> None:
        # In a thread of its own: the engine waits for whoever is about to write.
        self._stopping = threading.Thread(target=self.stop)
        self._stopping.start()
        self.died.set()


def _mortal(store: Store, life: _Life) -> Store:
    """The same store, which commits nothing of an operation once the service is dead."""
    commit = store.commit

    def commit_alive(*changes: Change, fence: Lease | None = None) -> int:
        if fence is not None and not life.write():
            raise StoreUnavailable("the service is dead")
        return commit(*changes, fence=fence)

    store.commit = commit_alive  # type: ignore[method-assign]
    return store


class _MortalTransport:
    """Sends nothing that changes anything once the service is dead."""

    def __init__(self, transport: Any, life: _Life) -> None:
        self._transport = transport
        self._life = life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send(self, method: str, *args: Any, **more: Any) -> Any:
        if method != "GET" and not self._life.write(counts="/events?" not in f"{args[0]}?"):
            raise NotSent("the service is dead")
        return self._transport.send(method, *args, **more)


__all__ = ["HEALTHY", "IMAGE", "NGINX", "PATIENCE", "SandboxedService", "describe", "open_service"]

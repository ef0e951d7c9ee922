"""A Deployer on a sandbox for tests: real HTTP to a process of its own, a real store, pods that are processes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from deployer import sandbox
from deployer.core.clock import SteadyClock
from deployer.core.commands.service import Service
from deployer.core.contract.kinds import CONFIG_MAP, CONTROLLER, INGRESS, NAMESPACE, POD, SERVICE, Kind
from deployer.core.deployment_log import Logbook, Redactor
from deployer.core.errors import KubeAlreadyExists, KubeConflict, KubeNotFound
from deployer.core.model.records import Deployment, Document, Event, Operation, Status, StoredDescriptor
from deployer.core.operations.dispatcher import Engine
from deployer.core.operations.runner import Tools
from deployer.core.plugin_manager import registry as plugins
from deployer.core.settings import Settings
from deployer.kube import client as kube_client
from deployer.kube.client import WATCH_SILENCE, KubeClient
from deployer.kube.informer import Mirrors
from deployer.store.sqlite import SqliteStore
from deployer.toolkit.dry_run import DryRun

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds to wait for anything. Generous: the machines are slow and noisy, and nothing waits longer than it must."""

NGINX = {"controller": "ingress-nginx/ingress-nginx-controller", "revision_header": True, "minimum_hold": 0.2}

GATEWAY = {
    "gateway": "infra/edge",
    "section": "http",
    "controller": "ingress-nginx/ingress-nginx-controller",
    "minimum_hold": 0.2,
}


class World:
    """A Deployer on the sandbox, that can be stopped and started again, and eyes on the cluster."""

    image = "sample/web:1"
    """What apps consist of."""

    def __init__(self, cluster: sandbox.Sandbox | None, path: Path, namespace: str, **settings: Any) -> None:
        self.cluster = cluster
        self.namespace = namespace
        # Without a sandbox KUBECONFIG says which cluster it is; pods can be reached from where the tests run.
        where = {"kubernetes": cluster.api, "loopback_pods": True} if cluster else {}
        defaults = {"proxysleep": 0.0, "min_ready": 0.0, "timeout": 10.0}
        defaults |= {"ingress": "nginx", "plugins": {"ingress_nginx": NGINX}}
        defaults |= {} if cluster else {"health_via": "direct"}
        self.settings = Settings(data_dir=path, own_namespace="", **where, **{**defaults, **settings})
        self.eyes: KubeClient = kube_client.connect(self.settings)
        with contextlib.suppress(KubeAlreadyExists):  # when another process takes up the same world
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            self.eyes.create(NAMESPACE, body, None)
        self._parts: list[Callable[[], None]] = []
        self.entry_points: Any = None
        self.silence = WATCH_SILENCE
        self.clock: Callable[[], SteadyClock] = SteadyClock

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self, registry: plugins.Registry | None = None) -> World:
        """Start the service on the same store as before."""
        self.store = SqliteStore(self.settings.data_dir / "deployer.db")
        redactor = self.redactor = Redactor()
        self.logbook = Logbook(self.store, redactor)
        self.registry = registry or plugins.load(self.settings, entry_points=self.entry_points)
        self.client = kube_client.connect(self.settings)
        self.mirrors = Mirrors(self.client, silence=self.silence)
        tools = Tools(
            store=self.store,
            logbook=self.logbook,
            redactor=redactor,
            registry=self.registry,
            settings=self.settings,
            client=self.client,
            mirrors=self.mirrors,
            clock=self.clock(),
        )
        self.engine = Engine(tools)
        dry_run = DryRun(self.client, self.settings)
        self.service = Service(self.store, self.logbook, self.registry, self.settings, dry_run=dry_run)
        self.engine.start()
        self._parts = [
            self.engine.stop,
            self.mirrors.close,
            self.client.close,
            self.logbook.close,
            self.store.close,
        ]
        return self

    def stop(self) -> None:
        """Stop the service, not the sandbox."""
        parts, self._parts = self._parts, []
        for part in parts:
            part()

    def close(self) -> None:
        """Stop everything and remove the namespace."""
        self.stop()
        with contextlib.suppress(KubeNotFound, KubeConflict):  # somebody was quicker
            self.eyes.delete(NAMESPACE, self.namespace, uid=self.eyes.get(NAMESPACE, self.namespace)["metadata"]["uid"])
        self.eyes.close()

    # --- doing ---------------------------------------------------------------------------------------------------

    def descriptor(self, app: str = "shop", **fields: Any) -> StoredDescriptor:
        """Store a descriptor of the sample app."""
        return self.service.create_descriptor(
            self.namespace, json.dumps(describe(self.namespace, app, **fields)).encode()
        )

    def deploy(self, app: str = "shop", **fields: Any) -> Deployment:
        """Store a descriptor and queue its deployment."""
        return self.service.deploy(self.namespace, self.descriptor(app, **fields).id)

    def ended(self, deployment: Deployment | str, *statuses: Status) -> Deployment:
        """Wait until the deployment is no longer moving, and is in one of `statuses`, if any are given."""
        id = deployment if isinstance(deployment, str) else deployment.id

        def end() -> Deployment | None:
            found = self.store.get(Deployment, id)
            return found if found and not found.status.moving else None

        found = self.until(end, f"deployment {id} to end")
        assert not statuses or found.status in statuses, f"{found.status}: {found.failure}\n{self.log(id)}"
        return found

    def deployed(self, app: str = "shop", **fields: Any) -> Deployment:
        """Deploy and wait until it is live."""
        return self.ended(self.deploy(app, **fields), Status.DEPLOYED)

    def quiet(self) -> None:
        """Wait until nothing is left to do, retirements included."""
        self.until(lambda: self.engine.idle() or None, "everything to be done")

    def until(self, condition: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
        """Wait for something in the store, woken by its changes."""
        changed = threading.Event()
        forget = self.store.subscribe(lambda kind, key: changed.set())
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

    # --- seeing --------------------------------------------------------------------------------------------------

    def log(self, id: str) -> str:
        """A deployment's log."""
        return "".join(self.logbook.text(id))

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


def describe(namespace: str, app: str = "shop", **fields: Any) -> Document:
    """A descriptor of the sample app; `env` and `image` go into its container."""
    env = fields.pop("env", {})
    pull = {"imagePullPolicy": fields.pop("pull")} if "pull" in fields else {}
    container = {
        "name": "web",
        "image": fields.pop("image", World.image),
        **pull,
        "ports": fields.pop("ports", [{"containerPort": 8080, "name": "http"}]),
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
    return {
        "namespace": namespace,
        "appName": app,
        "newVersion": "#",
        "podspec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        **fields,
    }


HEALTHY = {"useHealthCheck": True, "healthCheckPort": 9999, "healthCheckPath": "health", "healthCheckType": "probe"}

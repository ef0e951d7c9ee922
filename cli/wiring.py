"""The whole service in one process: makes the parts, hands each what it needs, starts and stops them in order."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from contextlib import AbstractContextManager
from functools import partial

from deployer.api.app import create_app
from deployer.api.auth.access import Access, open_access
from deployer.api.auth.audit import Audit
from deployer.api.auth.stream_auth import StreamAuth
from deployer.api.browsers.hosts import AllowedHosts
from deployer.api.fairness.callers import Callers
from deployer.api.figures.port import FiguresPort
from deployer.api.metrics import CONTENT_TYPE, Metrics
from deployer.api.server import Server
from deployer.api.stream.server import LogStream
from deployer.cli import figures
from deployer.commands.apps import AppViews
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.commands.idempotency import IdempotencyKey
from deployer.commands.progress import Progress
from deployer.core.calls import Invocation
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.environment import EnvInjector
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import Interrupted, KubeError, PluginError, SettingsError, StoreError
from deployer.core.model.hosts import is_loopback
from deployer.core.model.records import App
from deployer.core.operations.activity import Activities
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.dispatcher import Engine
from deployer.core.ports.store import Store
from deployer.core.registry import Registry
from deployer.kube import client as kube_client
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.planning.decisions import Decisions
from deployer.plugin_manager.loader import load_plugins
from deployer.plugin_manager.observers import Observers
from deployer.redaction.log_records import guard_logging
from deployer.redaction.redactor import redactor_for
from deployer.replicas.leases import Leases
from deployer.replicas.membership import Membership
from deployer.settings import Settings, check_exposure
from deployer.store import reserve
from deployer.store.retention import Retention, Rules
from deployer.store.selection import name_of, open_store
from deployer.store.transfer.state import require_whole
from deployer.toolkit.cluster import KubernetesCluster
from deployer.toolkit.dataplane.shared_answers import SharedAnswers
from deployer.toolkit.dry_run import DryRun
from deployer.toolkit.remarks import remarks
from deployer.toolkit.replicas import ReplicaCounts
from deployer.toolkit.versions import KubernetesVersions

GRACE = 20.0
"""Seconds for an orderly stop; less than the 30 that Kubernetes gives a pod by default before it kills it."""

_REST_SHARE = 0.5  # of the grace time, for requests under way
_ASK_FOR = 2.0  # seconds that the API server has to answer a question about readiness
_WARN_WITHIN = 10.0  # seconds that injectors have for their warnings
_LATE = 0.5  # seconds more for one that keeps to its gate
_FRESH_FOR = 2.0  # seconds for which the answer is good

_log = logging.getLogger(__name__)


class Running:
    """A service that runs, from `start` to `stop`."""

    def __init__(self, settings: Settings, loading: AbstractContextManager[object], *, complete: bool) -> None:
        """`loading` surrounds the loading of plugins; for `complete` see `load_plugins`.

        Raises SettingsError, PluginError or StoreUnavailable; what was opened until then is closed again.
        """
        self._loading = loading
        self._complete = complete
        self._host = settings.deployhost
        self._deadline = 0.0
        with contextlib.ExitStack() as opened:
            self._open(settings, opened)
            self._parts = opened.pop_all()

    def _open(self, settings: Settings, opened: contextlib.ExitStack) -> None:
        """Make the parts from the bottom to the top; `opened` closes them the other way round."""
        redactor = redactor_for(settings)
        opened.callback(guard_logging(redactor))
        # What can be wrong without touching anything comes first.
        with self._loading:
            self.registry = checked(settings, complete=self._complete)
        self.client = kube_client.connect(settings)
        opened.callback(self.client.close)
        self.client.conceal_with(lambda credentials: redactor.set_credentials("kubernetes", [credentials]))
        access = open_access(settings, self.client)
        if access is not None:
            opened.callback(access.close)
        store = open_store(settings, reserve=reserve.SIZE)
        opened.callback(store.close)
        require_whole(store, name_of(settings))
        deployment_log = DeploymentLog(store, redactor)
        opened.callback(deployment_log.close)
        informers = Informers(self.client)
        opened.callback(informers.close)
        cluster = KubernetesCluster(self.client, informers, store, settings)
        opened.callback(cluster.close)
        metrics = Metrics(settings.metrics_namespaces)
        leases, activities = Leases(store), Activities()
        replicas = Membership(
            store,
            holder=leases.holder,
            name=f"{socket.gethostname()}-{os.getpid()}",
            slots=settings.workers,
            activities=activities,
            problem=partial(ask, self.client),
        )
        dependencies = Dependencies(
            store=store,
            deployment_log=deployment_log,
            redactor=redactor,
            registry=self.registry,
            settings=settings,
            cluster=cluster,
            planning=Decisions(store, self.registry, settings, KubernetesVersions()),
            leases=leases,
            activities=activities,
            replicas=replicas,
        )
        observers = Observers.of(dependencies, metrics.told)
        engine = Engine(dependencies, observers)
        progress = Progress(store, activities, dependencies.clock, others=replicas.others)
        service = DeploymentCommands(
            store, deployment_log, self.registry, settings, dry_run=DryRun(self.client, settings), remarks=remarks
        )
        audit = Audit()
        opened.callback(audit.close)
        hosts = AllowedHosts.of(settings)
        callers = Callers(secured=access is not None)
        logs = LogStream(
            service, auth=StreamAuth(access, audit), allowed_origins=settings.allowed_origins, allowed_hosts=hosts
        )
        figures.show(
            metrics,
            store=store,
            engine=engine,
            observers=observers,
            client=self.client,
            logs=logs,
            settings=settings,
            freezes=service.freezes,
            replicas=replicas,
        )
        app = create_app(
            service,
            self.registry.describe,
            Readiness(engine, store, self.client, access),
            metrics,
            access=access,
            audit=audit,
            allowed_origins=settings.allowed_origins,
            allowed_hosts=hosts,
            redactor=redactor,
            apps=AppViews(
                store,
                progress,
                ReplicaCounts(informers),
                service.freezes.shown_for,
                SharedAnswers(
                    self.client,
                    informers,
                    self.registry,
                    redactor,
                    instance=settings.instance,
                    clock=dependencies.clock,
                ),
            ),
            replicas=replicas.shown,
            callers=callers,
        )
        age, limit, least = settings.history_days * 86_400.0, settings.history_limit, settings.history_rollbacks
        retention = Retention(store, Rules(age, limit, least), expiring=[IdempotencyKey], holder=leases.holder)
        opened.callback(retention.stop)
        at = settings.deployhost, settings.deployport
        self._server = Server(app, logs, *at, callers=callers, refused=audit.refused_unread)
        opened.callback(self._let_go, engine)
        if settings.metrics_port:
            port = FiguresPort(settings.deployhost, settings.metrics_port, metrics.render, CONTENT_TYPE)
            opened.callback(port.close)
        # Listening before anything moves: a port that is taken must not be found out in the middle of a deployment.
        self._server.start()
        if access is not None:
            access.start()
        engine.start()
        retention.start()

    @property
    def url(self) -> str:
        """Where it answers, with a slash at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)
        return f"http://[{host}]:{self._server.port}/" if ":" in host else f"http://{host}:{self._server.port}/"

    def stop(self, grace: float = GRACE) -> None:
        """Answer the requests under way, let go of deployments (the next start resumes them), close everything.

        Takes at most about `grace` seconds. Idempotent.
        """
        self._deadline = time.monotonic() + grace
        self._parts.close()

    def _let_go(self, engine: Engine) -> None:
        """No new requests before deployments are let go of: what was accepted is in the store by then."""
        try:
            self._server.stop(self._left() * _REST_SHARE)
        finally:
            engine.stop(self._left())

    def _left(self) -> float:
        return max(1.0, self._deadline - time.monotonic())


class Readiness:
    """Why the service should get no more work, as `/readyz` says it.

    The API server is asked by one request at a time and no more than every two seconds; meanwhile the last answer is
    good. So a cluster that does not answer takes no threads away from REST.
    """

    def __init__(self, engine: Engine, store: Store, client: KubeClient, access: Access | None = None) -> None:
        self._engine = engine
        self._access = access
        self._store = store
        self._client = client
        self._asking = threading.Lock()
        self._asked = float("-inf")
        self._cluster = ""

    def __call__(self) -> list[str]:
        """Sentences; none when all is well."""
        access = "" if self._access is None else self._access.problem()
        reasons = (self._engine.problem, self._look_at_store(), self._look_at_cluster(), access)
        return [reason for reason in reasons if reason]

    def _look_at_store(self) -> str:
        if problem := self._store.problem():
            return problem
        try:
            self._store.get(App, "/")  # no app has this name
        except StoreError as error:
            return str(error)
        return ""

    def _look_at_cluster(self) -> str:
        # The very first one waits; there is no answer yet that could be given instead.
        if time.monotonic() - self._asked > _FRESH_FOR and self._asking.acquire(blocking=not self._known):
            try:
                if time.monotonic() - self._asked > _FRESH_FOR:
                    self._cluster = ask(self._client)
                    self._asked = time.monotonic()
            finally:
                self._asking.release()
        return self._cluster

    @property
    def _known(self) -> bool:
        return self._asked > float("-inf")


def ask(client: KubeClient) -> str:
    """Why the API server cannot be used now, as a sentence; empty when it answers (within 2 s)."""
    try:
        client.version(scope=CancelScope(time.monotonic() + _ASK_FOR))
    except Interrupted as error:
        cause = error.__cause__
        return str(cause) if isinstance(cause, KubeError) else f"the API server at {client.address} does not answer"
    except KubeError as error:
        return str(error)
    return ""


def checked(settings: Settings, *, complete: bool = True) -> Registry:
    """The plugins, after all that can be checked without touching anything. Raises SettingsError, PluginError."""
    check_exposure(settings)
    registry = load_plugins(settings, complete=complete)
    try:
        registry.ingress()
    except PluginError as error:
        raise SettingsError(f"--ingress: {error}; or none, which exposes nothing outside of the cluster") from None
    return registry


def start(
    settings: Settings,
    *,
    complete: bool = True,
    loading: AbstractContextManager[object] = contextlib.nullcontext(),  # noqa: B008 - it has no state
) -> Running:
    """Start the service. A cluster that cannot be reached is no reason not to: it is logged, and `/readyz` says it.

    complete   False: it starts without plugins that need a table which is not there
    loading    surrounds the loading of plugins, whose code may take any time

    Raises SettingsError, PluginError or StoreUnavailable.
    """
    running = Running(settings, loading, complete=complete)
    if settings.auth != "none" and not is_loopback(settings.deployhost):
        _log.warning(
            "the service speaks plain HTTP, and tokens that come to %s from other machines are UNENCRYPTED: let a "
            "proxy that speaks TLS be the only one who reaches this port",
            settings.deployhost or "any address",
        )
    if problem := ask(running.client):
        _log.warning("started, but not ready: %s", problem)
    threading.Thread(target=_warn, args=(running.registry,), name="warnings", daemon=True).start()
    return running


def _warn(registry: Registry) -> None:
    """Log what the injectors have to say; nobody waits for it."""
    scope = CancelScope(time.monotonic() + _WARN_WITHIN)
    calls = {
        registry.title("env", name): Invocation(partial(_warnings, entry.provider, scope), "warnings")
        for name, entry in registry.env_injectors.items()
    }
    for title, call in calls.items():
        if not call.wait(scope.remaining() + _LATE):
            _log.warning("%s did not come back from warnings() within %g s", title, _WARN_WITHIN)
            continue
        try:
            for text in call.result():
                _log.warning("%s", text)
        except BaseException as error:  # noqa: BLE001 - a plugin's, and no text of it, which may hold a value
            _log.warning("%s raised %s in warnings()", title, type(error).__name__)


def _warnings(injector: EnvInjector, scope: CancelScope) -> list[str]:
    return list(injector.warnings(scope))

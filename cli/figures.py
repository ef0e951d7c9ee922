"""What `/metrics` shows of the parts of the service, asked when somebody looks."""

from __future__ import annotations

from deployer.api.metrics import Metrics
from deployer.api.stream.server import LogStream
from deployer.commands.freezes import Freezes
from deployer.core.errors import NO_WAY_BACK, OPERATOR_NEEDED, PLUGIN_MISSING, ROLLBACK_FAILED
from deployer.core.model.records import Deployment, Operation, Status
from deployer.core.operations.dispatcher import Engine
from deployer.core.operations.machine import HELD
from deployer.core.ports.store import Store
from deployer.kube.client import KubeClient
from deployer.plugin_manager.observers import Observers
from deployer.settings import Settings


def held(store: Store) -> dict[str, float]:
    """How many operations are held, by reason; 0 for the usual ones, so that an alert finds a series."""
    found = dict.fromkeys((NO_WAY_BACK, ROLLBACK_FAILED, PLUGIN_MISSING, OPERATOR_NEEDED), 0.0)
    for operation in store.find(Operation, tag="open"):
        if reason := operation.memory.get(HELD):
            found[reason] = found.get(reason, 0.0) + 1.0
    return found


def show(
    metrics: Metrics,
    *,
    store: Store,
    engine: Engine,
    observers: Observers,
    client: KubeClient,
    logs: LogStream,
    settings: Settings,
    freezes: Freezes,
) -> None:
    """Tell `metrics` whom to ask for what."""

    def operations() -> dict[str, float]:
        running = engine.running
        return {"running": running, "waiting": max(0, store.count(Operation, tag="open") - running)}

    metrics.gauge(
        "deployer_deployments",
        "Stored deployments by status; DEPLOYING are those that wait or are under way.",
        lambda: {status.value: store.count(Deployment, tag=status.value) for status in Status},
        "status",
    )
    metrics.gauge(
        "deployer_queue_limit",
        "How many deployments may be DEPLOYING before others are refused with 429.",
        lambda: settings.queue_limit,
    )
    metrics.gauge(
        "deployer_operations",
        "Operations that are running, and those that wait for their turn, their time or an event.",
        operations,
        "state",
    )
    metrics.gauge(
        "deployer_operations_held",
        "Operations that can go neither on nor back until somebody helps, by why.",
        lambda: held(store),
        "reason",
    )
    metrics.gauge(
        "deployer_freezes",
        "What keeps namespaces from new deployments now: freezes of one namespace, of the whole service, and windows.",
        freezes.count,
        "scope",
    )
    metrics.gauge("deployer_hung_threads", "Steps that hang past their deadline.", engine.hung.count)
    metrics.gauge("deployer_log_viewers", "WebSockets that follow a log.", lambda: logs.viewers)
    metrics.counter(
        "deployer_kubernetes_requests",
        "Requests to the API server by verb, repeated ones included.",
        lambda: client.requests,
        "verb",
    )
    metrics.counter(
        "deployer_observer_errors",
        "Errors of plugins that were told of a deployment, hanging calls included.",
        lambda: observers.errors,
        "plugin",
    )
    metrics.counter(
        "deployer_observer_events_dropped",
        "What plugins were not told of deployments, because they failed for an hour.",
        lambda: observers.dropped,
        "plugin",
    )

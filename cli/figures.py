"""What `/metrics` shows of the parts of the service, asked when somebody looks."""

from __future__ import annotations

from collections.abc import Callable

from deployer.api.metrics import Metrics
from deployer.api.stream.server import LogStream
from deployer.commands.freezes import Freezes
from deployer.core.clock import wall_clock
from deployer.core.errors import NO_WAY_BACK, OPERATOR_NEEDED, PLUGIN_MISSING, ROLLBACK_FAILED
from deployer.core.model.gates import GateResults
from deployer.core.model.records import Deployment, Operation, OperationKind, Status
from deployer.core.operations.dispatcher import Engine
from deployer.core.operations.machine import HELD
from deployer.core.operations.steps import GATES
from deployer.core.ports.store import Store
from deployer.kube.client import KubeClient
from deployer.plugin_manager.observers import Observers
from deployer.replicas.membership import Membership
from deployer.settings import Settings

STATES = ("queued", "running", "parked", "waiting_for_person", "held", "watching", "draining")


def held(store: Store) -> dict[str, float]:
    """How many operations are held, by reason; 0 for the usual ones, so that an alert finds a series."""
    found = dict.fromkeys((NO_WAY_BACK, ROLLBACK_FAILED, PLUGIN_MISSING, OPERATOR_NEEDED), 0.0)
    for operation in store.find(Operation, tag="open"):
        if reason := operation.memory.get(HELD):
            found[reason] = found.get(reason, 0.0) + 1.0
    return found


def state_of(operation: Operation, store: Store) -> str:
    """What an open operation does, or what it waits for, as its record says. Raises StoreError."""
    if operation.memory.get(HELD):
        return "held"
    step = operation.timeline.current
    if step is not None and step.id.startswith(GATES):
        results = store.get(GateResults, operation.deployment)
        if results is not None and any(result.asks and result.under_way for result in results.entries):
            return "waiting_for_person"
    if operation.kind is OperationKind.WATCH:
        return "watching"
    if operation.begun:
        return "parked" if operation.due > wall_clock() else "running"
    retires = operation.kind is OperationKind.RETIRE and operation.target.previous and not operation.target.drop
    return "draining" if retires else "queued"


def open_operations(store: Store, label: Callable[[str], str]) -> dict[tuple[str, ...], float]:
    """How many there are, by the label of their namespace and state."""
    found: dict[tuple[str, ...], float] = {}
    for operation in store.find(Operation, tag="open"):
        namespace = label(operation.namespace)
        for state in STATES:
            found.setdefault((namespace, state), 0.0)
        found[namespace, state_of(operation, store)] += 1.0
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
    replicas: Membership,
) -> None:
    """Tell `metrics` whom to ask for what."""

    def operations() -> dict[str, float]:
        running, elsewhere = engine.running, sum(r["running"] for r in replicas.shown() if not r["self"])
        return {"running": running, "waiting": max(0, store.count(Operation, tag="open") - running - elsewhere)}

    def members() -> dict[str, float]:
        found = dict.fromkeys(("ready", "cut_off"), 0.0)
        for member in replicas.members():
            found["ready" if member.fit else "cut_off"] += 1.0
        return found

    metrics.gauge(
        "deployer_deployments",
        "Stored deployments by status; DEPLOYING are those that wait or are under way.",
        lambda: {status.value: store.count(Deployment, tag=status.value) for status in Status},
        "status",
    )
    metrics.gauge(
        "deployer_queue_limit",
        "How many deployments of a namespace may be DEPLOYING before it is refused more with 429.",
        lambda: settings.queue_limit,
    )
    metrics.gauge(
        "deployer_operations",
        "Operations that this replica runs, and those that wait for their turn, their time or an event.",
        operations,
        "state",
    )
    metrics.gauge(
        "deployer_operations_open",
        "Operations of all replicas that have not ended, by what they do or wait for.",
        lambda: open_operations(store, metrics.namespace),
        "namespace",
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
    metrics.gauge(
        "deployer_replicas",
        "Replicas on the same store, this one included: ready, or cut off from the cluster.",
        members,
        "state",
    )
    metrics.gauge(
        "deployer_replica_operations",
        "Operations that each replica runs, as it said last.",
        lambda: {member.name: member.running for member in replicas.members()},
        "replica",
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

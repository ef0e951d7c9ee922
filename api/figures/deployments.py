"""Counts deployments as they come to their ends. Of several replicas the one counts that tells observers."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from prometheus_client import Counter, Histogram

from deployer.api.figures import labels
from deployer.api.figures.durations import durations
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.records import Event, Status

_WHOLE = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
_PART = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 21_600, 86_400)
_ROLLBACKS: Mapping[str, str] = {Occurrence.ROLLED_BACK: "done", Occurrence.ROLLBACK_FAILED: "failed"}


class DeploymentFigures:
    """Of all deployments, by namespace."""

    def __init__(self, namespaces: labels.Namespaces) -> None:
        self._namespaces = namespaces
        self._ended = Counter(
            "deployer_deployments_ended",
            "Deployments that came to this status since the start of the process; a cancelled one is UNDEPLOYED.",
            ("namespace", "status"),
            registry=None,
        )
        self._failures = Counter(
            "deployer_deployment_failures",
            "Deployments that came to FAILURE since the start of the process, by why.",
            ("namespace", "reason"),
            registry=None,
        )
        self._rollbacks = Counter(
            "deployer_rollbacks",
            "Rollbacks to a version that was warm, since the start of the process, and how they ended: done or failed.",
            ("namespace", "outcome"),
            registry=None,
        )
        self._durations = Histogram(
            "deployer_deployment_duration_seconds",
            "From the request to the end of the deployment, the time in the queue included; in whole seconds.",
            ("namespace", "status"),
            buckets=_WHOLE,
            registry=None,
        )
        self._parts = Histogram(
            "deployer_deployment_part_duration_seconds",
            "How long the parts of deployments, rollbacks and removals took that came to their end.",
            ("namespace", "part"),
            buckets=_PART,
            registry=None,
        )
        self.collected: tuple[Histogram | Counter, ...] = (
            self._ended,
            self._failures,
            self._rollbacks,
            self._durations,
            self._parts,
        )
        """What a registry should show."""

    def label(self, namespace: str) -> str:
        """The label for a namespace, whose counts begin with 0 here: who asks for their increase sees the first one."""
        label = self._namespaces.label(namespace)
        for status in (Status.DEPLOYED, Status.FAILURE, Status.UNDEPLOYED):
            self._ended.labels(label, status.value)
        for outcome in _ROLLBACKS.values():
            self._rollbacks.labels(label, outcome)
        return label

    def told(self, event: Event) -> None:
        """Count a rollback, and a deployment that has come to an end; what else observers are told is no matter."""
        namespace, deployment = self.label(event.namespace), event.deployment
        if (rollback := _ROLLBACKS.get(event.occurrence)) is not None:
            self._rollbacks.labels(namespace, rollback).inc()
        for part, seconds in durations(event.operation).items():
            self._parts.labels(namespace, part).observe(seconds)
        if event.name != "deployment_finished":
            return
        status = deployment["status"]
        self._ended.labels(namespace, status).inc()
        if status == Status.FAILURE:
            self._failures.labels(namespace, labels.reason((deployment.get("failure") or {}).get("reason", ""))).inc()
        if status in (Status.DEPLOYED, Status.FAILURE):
            began, end = (datetime.datetime.fromisoformat(deployment[name]) for name in ("created", "lastModified"))
            self._durations.labels(namespace, status).observe((end - began).total_seconds())

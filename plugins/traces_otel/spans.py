"""What spans an operation that has ended consists of. Ids follow from the deployment's, so that what is told again, or
by another replica, is the same trace and the same span."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field

from deployer.sdk.observer import Notification


@dataclass(frozen=True, slots=True)
class Span:
    """Times in seconds since the epoch; `parent` is 0 for the root; `error` is why it failed, empty when it did not."""

    name: str
    trace: int
    id: int
    parent: int
    began: float
    ended: float
    attributes: dict[str, str] = field(default_factory=dict)
    error: str = ""
    message: str = ""


def spans_of(notification: Notification) -> list[Span]:
    """The operation's, and below it those of its wait and its steps; none when no operation ended.

    The operation that deployed is the root of its deployment's trace; what follows it (a rollback to it, its removal)
    hangs below that.
    """
    operation, deployment = notification.operation, notification.deployment
    steps = operation.get("steps", ())
    times = [step["began"] for step in steps] + [operation.get("asked") or 0.0]
    times = [time for time in times if time]
    if not times:
        return []
    trace = uuid.UUID(deployment["id"]).int
    root = _id(deployment["id"])
    deploys = operation["kind"] == "deploy"
    me = root if deploys else _id(operation["id"])
    descriptor = deployment.get("descriptor", {})
    app, namespace = str(descriptor.get("appName", "")), str(descriptor.get("namespace", ""))
    failure = (deployment.get("failure") or {}) if notification.occurrence in ("failed", "rollbackfailed") else {}
    common = {
        "deployment.id": deployment["id"],
        "deployment.name": app,
        "k8s.namespace.name": namespace,
        "deployer.version": str(deployment.get("version", "")),
        "deployer.operation.id": operation["id"],
        "deployer.operation.kind": operation["kind"],
    }
    outcome = {"deployer.outcome": notification.occurrence, "deployer.request.id": operation.get("request", "")}
    if deploys:
        outcome["deployment.status"] = "failed" if failure else "succeeded"
    whole = Span(
        f"{operation['kind']} {app}",
        trace,
        me,
        0 if deploys else root,
        min(times),
        max([operation["ended"], *times]),
        _given(common | outcome | ({"error.type": failure.get("reason", "")} if failure else {})),
        error=failure.get("reason", ""),
        message=failure.get("message", ""),
    )
    found = [whole]
    began = min((step["began"] for step in steps), default=whole.ended)
    if operation["asked"] and began > operation["asked"]:
        name = "drain" if operation["kind"] == "retire" else "queue"
        found.append(Span(name, trace, _id(operation["id"], name), me, operation["asked"], began, _given(common)))
    for step in steps:
        failed = step["state"] == "failed"
        attributes = common | {
            "deployer.step": step["id"],
            "deployer.phase": step["phase"],
            "deployer.step.state": step["state"],
            "deployer.gate.type": step["gate"],
            "error.type": failure.get("reason", "") if failed else "",
        }
        found.append(
            Span(
                step["id"],
                trace,
                _id(operation["id"], step["id"]),
                me,
                step["began"],
                step["ended"] or whole.ended,
                _given(attributes),
                error=failure.get("reason", "") if failed else "",
            )
        )
    return found


def _id(*parts: str) -> int:
    """64 bits that are not 0, always the same for the same parts."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) or 1


def _given(attributes: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if value}

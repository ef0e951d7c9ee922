"""What is sent: JSON of our own, a text for Slack, or CDEvents in CloudEvents over HTTP. Pure; no values of variables.

CDEvents 0.5.1 with its binding to CloudEvents (cdevents/spec, `schemas/` and `cloudevents-binding.md`); CloudEvents
1.0.2, HTTP protocol binding, 3.1 and 3.2. Artifacts are package URLs of type `oci` (package-url/purl-spec).
"""

from __future__ import annotations

import datetime
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.sdk.observer import Notification, Occurrence
from deployer.sdk.plugin import Document

CDEVENTS = "0.5.1"
PREDICATES: Mapping[str, str] = {
    Occurrence.DEPLOYED: "deployed",
    Occurrence.UPGRADED: "upgraded",
    Occurrence.ROLLED_BACK: "rolledback",
    Occurrence.REMOVED: "removed",
}
"""Those of the subject `service`, all in version 0.3.0; CDEvents has none for what else happens to a deployment."""

PROGRESS = "progress"
"""What settings call a notification that is no occurrence."""

# All of printable ASCII but for space, double quote and per cent (HTTP binding, 3.1.3.2).
_PLAIN = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


@dataclass(frozen=True, slots=True)
class Message:
    """The body of a request, and the headers that belong to it."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def word(notification: Notification) -> str:
    """What settings call it; empty for what an earlier release left."""
    return notification.occurrence or (PROGRESS if notification.hook == "deployment_changed" else "")


def facts(notification: Notification) -> Document:
    """What is told of the deployment, in every format: who, what, when and how it ended; nothing of the environment."""
    deployment = notification.deployment
    descriptor = deployment["descriptor"]
    found = {
        "id": deployment["id"],
        "namespace": descriptor.get("namespace"),
        "appName": descriptor.get("appName"),
        "version": deployment.get("version"),
        "previousVersion": notification.previous,
        "status": deployment.get("status"),
        "failure": deployment.get("failure"),
        "created": deployment.get("created"),
        "createdBy": deployment.get("createdBy"),
        "lastModified": deployment.get("lastModified"),
        "undeployedBy": deployment.get("undeployedBy"),
        "frontend": descriptor.get("frontend"),
        "images": _images(descriptor),
        "operation": deployment.get("operation"),
    }
    return {name: value for name, value in found.items() if value}


def as_json(notification: Notification) -> Message:
    """`{"type", "timestamp", "data"}`, the form that Standard Webhooks recommends."""
    kind = word(notification) or notification.hook.removeprefix("deployment_")
    body = {"type": f"deployment.{kind}", "timestamp": _time(notification), "data": facts(notification)}
    return _message(body, "application/json")


def as_slack(notification: Notification, source: str) -> Message:
    """`{"text"}` for an incoming webhook of Slack, with a link to the deployment where `source` is an address."""
    text = _escape(sentence(notification))
    if source.startswith(("https://", "http://")):
        found = facts(notification)
        query = urllib.parse.urlencode({"namespace": found.get("namespace", "")})
        text += f" (<{source.rstrip('/')}/deployments/{found['id']}/?{query}|deployment>)"
    return _message({"text": text}, "application/json")


def as_cdevent(notification: Notification, source: str, *, structured: bool) -> Message | None:
    """A CDEvent, in the binary or the structured mode; None when CDEvents has no word for it."""
    predicate = PREDICATES.get(notification.occurrence)
    if predicate is None:
        return None
    found = facts(notification)
    kind = f"dev.cdevents.service.{predicate}.0.3.0"
    subject = f"{found['namespace']}/{found['appName']}"
    content: Document = {"environment": {"id": found["namespace"], "source": source}}
    if notification.occurrence != Occurrence.REMOVED:
        content["artifactId"] = _artifact(found)
    context = {
        "specversion": CDEVENTS,
        "id": notification.id,
        "source": source,
        "type": kind,
        "timestamp": _time(notification),
    }
    event = {
        "context": context,
        "subject": {"id": subject, "source": source, "content": content},
        "customData": found,
        "customDataContentType": "application/json",
    }
    attributes = {
        "specversion": "1.0",
        "id": notification.id,
        "source": source,
        "type": kind,
        "subject": subject,
        "time": context["timestamp"],
    }
    if structured:
        body = {**attributes, "datacontenttype": "application/json", "data": event}
        return _message(body, "application/cloudevents+json; charset=utf-8")
    headers = {f"ce-{name}": urllib.parse.quote(value, safe=_PLAIN) for name, value in attributes.items()}
    return _message(event, "application/json", headers)


def sentence(notification: Notification) -> str:
    """What happened, for people."""
    found = facts(notification)
    what = f"{found.get('appName')} {found.get('version', '')}".rstrip()
    by = f" by {found['createdBy']}" if "createdBy" in found else ""
    ended_by = f" by {found['undeployedBy']}" if "undeployedBy" in found else ""
    before = notification.previous
    failure = found.get("failure") or {}
    why = str(failure.get("message", "")) + (f" ({failure['hint']})" if failure.get("hint") else "")
    instead = f" instead of version {before}" if before else ""
    says: Mapping[str, str] = {
        Occurrence.STARTED: f"{what} is being deployed{by}" + (f", to replace version {before}" if before else ""),
        Occurrence.DEPLOYED: f"{what} is live",
        Occurrence.UPGRADED: f"{what} is live{instead}",
        Occurrence.ROLLED_BACK: f"{what} is live again{instead}: rolled back",
        Occurrence.ROLLBACK_FAILED: f"{what} did not become live again: {why}",
        Occurrence.FAILED: f"{what} failed: {why}" + (f"; version {before} stays live" if before else ""),
        Occurrence.CANCELLED: f"{what} was cancelled",
        Occurrence.REPLACED: f"{what} was replaced and is removed",
        Occurrence.REMOVED: f"{what} was undeployed{ended_by}",
        Occurrence.HELD: f"{what} is held and needs a person: {_waits(found)}",
        PROGRESS: f"{what} goes on: {_waits(found)}",
    }
    said = says.get(word(notification), f"{what} is {found.get('status')}")
    return f"[{found.get('namespace')}] {said}"


def _waits(found: Document) -> str:
    operation = found.get("operation") or {}
    steps = [step for step, state in (operation.get("steps") or {}).items() if state == "started"]
    return str(operation.get("waitingFor") or ", ".join(steps) or operation.get("state", ""))


def _images(descriptor: Document) -> list[str]:
    containers = (descriptor.get("podspec") or {}).get("containers") or []
    return [str(container["image"]) for container in containers if container.get("image")]


def _artifact(found: Document) -> str:
    """The first container's image as a package URL; without one, what the app is called."""
    image = next(iter(found.get("images", ())), "")
    if not image:
        return f"pkg:generic/{urllib.parse.quote(found['appName'])}@{urllib.parse.quote(str(found.get('version', '')))}"
    rest, _, digest = image.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # that colon was a port's
        repository, tag = rest, ""
    name = repository.rpartition("/")[2].lower()
    query = {"repository_url": repository.lower()} | ({"tag": tag} if tag else {})
    version = f"@{urllib.parse.quote(digest, safe='')}" if digest else ""
    return f"pkg:oci/{urllib.parse.quote(name)}{version}?{urllib.parse.urlencode(query, safe='/')}"


def _time(notification: Notification) -> str:
    if not notification.at:
        return str(notification.deployment.get("lastModified"))
    moment = datetime.datetime.fromtimestamp(notification.at, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escape(text: str) -> str:
    """For Slack's mrkdwn, whose control characters are these three."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _message(body: Any, content_type: str, headers: Mapping[str, str] | None = None) -> Message:
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Message(data, {"Content-Type": content_type, **(headers or {})})

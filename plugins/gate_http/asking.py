"""One request to a receiver of the settings, or to the new version itself."""

from __future__ import annotations

import json
from collections.abc import Sequence

from deployer.sdk.gate import GateContext, HttpAnswer
from deployer.sdk.plugin import Document
from deployer.sdk.webhook import Receiver

BODY_LIMIT = 64 * 1024
"""Bytes of an answer that are read."""


def target(context: GateContext, receiver: Receiver) -> HttpAnswer:
    """What the receiver answers to what is being deployed. Raises NoAnswer."""
    method = str(context.options.get("method", "POST"))
    body = b""
    headers = {"Accept": "application/json"}
    if method == "POST":
        body = json.dumps(facts(context), ensure_ascii=False, separators=(",", ":")).encode()
        headers["Content-Type"] = "application/json"
    id = f"{context.plan.deployment}.{context.point}.{context.name}"
    found = receiver.send(id, body, headers, method=method, limit=BODY_LIMIT, scope=context.scope)
    return HttpAnswer(found.status, found.headers, found.body, found.truncated or found.cut is not None)


def facts(context: GateContext) -> Document:
    """What a receiver is told: which version of which app; nothing of its environment."""
    plan = context.plan
    containers = plan.objects.podspec.get("containers") or ()
    return {
        "deployment": plan.deployment,
        "namespace": plan.namespace,
        "appName": plan.app,
        "version": plan.version,
        "previousVersion": plan.previous.version if plan.previous else "",
        "images": [container.get("image", "") for container in containers],
        "frontend": plan.descriptor.get("frontend", ""),
        "point": str(context.point),
        "gate": context.name,
    }


def version(context: GateContext) -> Sequence[tuple[str, HttpAnswer]]:
    """What each ready pod answers, or each address of the data plane through the preview, by what it is called. Raises
    VersionUnreachable, and PodUnreachable, when there is one that does not answer."""
    path = str(context.options["path"])
    if context.options["version"] == "preview":
        return [("", answer) for answer in context.version.preview(path)]
    method = str(context.options.get("method", "GET"))
    pods = context.version.pods(context.options.get("port", ""))
    return [(pod.name, pod.http(method, path)) for pod in pods]

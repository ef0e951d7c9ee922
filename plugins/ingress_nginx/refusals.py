"""What the controller says in Events against an Ingress, in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.sdk.errors import KubeForbidden
from deployer.sdk.kube import KubeAccess

# What the controller says when it drops an Ingress or a part of it.
_REFUSALS = frozenset({"AnnotationParsingFailed", "Rejected"})


@dataclass(frozen=True, slots=True)
class Watched:
    """An Ingress whose Events matter, and those (uid to count) that are older than what is being waited for."""

    ingress: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()

    def refusal(self, events: Sequence[Mapping[str, Any]]) -> str:
        """The newest refusal among `events` that is not an old one, in the controller's words; or nothing."""
        old = {event["metadata"]["uid"]: _count(event) for event in self.events}
        for event in reversed(events):
            if event.get("reason") in _REFUSALS and _count(event) > old.get(event["metadata"]["uid"], 0):
                return f"{event['reason']}: {event.get('message', '')}"
        return ""


def events_of(kube: KubeAccess, ingress: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The Events about an Ingress. They are a help: whether the route answers is asked all the same."""
    try:
        return kube.events(ingress["metadata"]["uid"])
    except KubeForbidden:
        return []


def objection(kube: KubeAccess, watched: Sequence[Watched]) -> str:
    """A sentence with the controller's words when it refuses one of the Ingresses; or nothing."""
    for one in watched:
        if refusal := one.refusal(events_of(kube, one.ingress)):
            return f"the ingress controller refuses Ingress {one.ingress['metadata']['name']}: {refusal}"
    return ""


def _count(event: Mapping[str, Any]) -> int:
    series = event.get("series") or {}
    return int(series.get("count") or event.get("count") or 1)

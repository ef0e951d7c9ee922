"""What the Gateway's controller says about an HTTPRoute, in its own words, and where to look when it says nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.sdk.errors import DeadlineExceeded, KubeForbidden, StepFailed
from deployer.sdk.kube import HTTP_ROUTE, Kind, KubeAccess

GATEWAY = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")

SILENCE = 20.0
"""Seconds after which a route that no controller has said anything about has none. Controllers take milliseconds."""

PATIENCE = 3.0
"""Seconds for which a refusal may pass: a controller may hear of a Service after it hears of the route."""

_TYPES = ("Accepted", "ResolvedRefs")


def refusal(route: Mapping[str, Any]) -> str:
    """What the controller has against the route as it is now, as the rest of a sentence; or nothing."""
    for parent in _parents(route):
        for name in _TYPES:
            condition = _condition(route, parent, name)
            if condition and condition.get("status") == "False":
                said = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
                return f"{name} is False for {place(parent)}: {said or 'no reason is given'}"
    return ""


def accepted(route: Mapping[str, Any]) -> bool:
    """True when every listener that the route refers to has taken it as it is now."""
    wanted = route["spec"].get("parentRefs") or ()
    return bool(wanted) and all(
        (condition := _condition(route, parent, name)) is not None and condition.get("status") == "True"
        for parent in wanted
        for name in _TYPES
    )


def place(parent: Mapping[str, Any]) -> str:
    """A Gateway and its listener, in words."""
    section = f", listener {parent['sectionName']}" if parent.get("sectionName") else ""
    return f"Gateway {parent.get('namespace', '')}/{parent.get('name', '')}{section}"


def _parents(route: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return route["spec"].get("parentRefs") or ()


def _condition(route: Mapping[str, Any], parent: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The condition of that name for that listener, unless it is about an earlier state of the route."""
    for status in (route.get("status") or {}).get("parents") or ():
        if not _same(status.get("parentRef") or {}, parent, route["metadata"].get("namespace", "")):
            continue
        for condition in status.get("conditions") or ():
            if condition.get("type") == name and condition.get("observedGeneration") == _generation(route):
                return condition  # type: ignore[no-any-return]
    return None


def _same(one: Mapping[str, Any], other: Mapping[str, Any], namespace: str) -> bool:
    def key(parent: Mapping[str, Any]) -> tuple[Any, ...]:
        return parent.get("namespace") or namespace, parent.get("name"), parent.get("sectionName") or ""

    return key(one) == key(other)


def _generation(route: Mapping[str, Any]) -> int:
    return int(route["metadata"].get("generation") or 0)


@dataclass(slots=True)
class Judgement:
    """One wait for the controller to take HTTPRoutes as they were written, woken by their changes."""

    kube: KubeAccess
    routes: Sequence[Mapping[str, Any]]
    began: float = field(default_factory=time.monotonic)
    refused: dict[str, float] = field(default_factory=dict)
    """Since when each route is refused, by its name."""

    def wait(self) -> None:
        """Return when all are taken. Raises StepFailed: refused (reason `RouteRejected`), or silence."""
        if not self.routes:
            return
        try:
            self.kube.wait(HTTP_ROUTE, self._decided, labels={"app.kubernetes.io/managed-by": "deployer"}, recheck=0.5)
        except DeadlineExceeded:
            raise self._silent() from None

    def _decided(self, found: list[dict[str, Any]]) -> bool:
        by_uid = {route["metadata"]["uid"]: route for route in found}
        now, done = time.monotonic(), True
        for written in self.routes:
            route = by_uid.get(written["metadata"]["uid"])
            if route is None or _generation(route) < _generation(written):
                done = False  # the informer is behind, or somebody deletes it
            elif said := refusal(route):
                done = False
                if now - self.refused.setdefault(route["metadata"]["name"], now) >= PATIENCE:
                    raise rejected(route, said)
            else:
                self.refused.pop(route["metadata"]["name"], None)
                done = accepted(route) and done
        if not done and not self.refused and now - self.began >= SILENCE:
            raise self._silent()
        return done

    def _silent(self) -> StepFailed:
        written = self.routes[0]
        for one in self.routes:
            now = self.kube.get(HTTP_ROUTE, one["metadata"]["name"])
            if now is None:
                return StepFailed(
                    f"HTTPRoute {one['metadata']['name']} was deleted by somebody while it was needed",
                    reason="ObjectGone",
                    hint="deploy again",
                )
            if said := refusal(now):
                return rejected(now, said)
            if not accepted(now):
                written = now
        why, hint = self._explain(written)
        waited = time.monotonic() - self.began
        return StepFailed(
            f"no controller has taken HTTPRoute {written['metadata']['name']} within {waited:.0f} s: {why}",
            reason="RouteNotAccepted",
            hint=hint,
        )

    def _explain(self, route: Mapping[str, Any]) -> tuple[str, str]:
        """Why nobody says anything about a route, and what to do."""
        for parent in _parents(route):
            namespace, name = parent.get("namespace", ""), parent["name"]
            try:
                gateway = self.kube.get(GATEWAY, name, namespace=namespace)
            except KubeForbidden:
                return (
                    f"whether there is a {place(parent)} is not known, as there is no right to look",
                    f"see `kubectl -n {namespace} get gateway {name}`, or correct `gateway` in "
                    "[plugins.ingress_gateway]",
                )
            if gateway is None:
                return (
                    f"there is no Gateway {name} in namespace {namespace}",
                    "create it, or correct `gateway` in [plugins.ingress_gateway]",
                )
            names = [listener["name"] for listener in gateway["spec"].get("listeners") or ()]
            if parent.get("sectionName") and parent["sectionName"] not in names:
                return (
                    f"Gateway {namespace}/{name} has no listener {parent['sectionName']}, only {', '.join(names)}",
                    "correct `section` or `https_section` in [plugins.ingress_gateway]",
                )
            class_ = gateway["spec"].get("gatewayClassName", "")
            if not any(c.get("status") == "True" for c in (gateway.get("status") or {}).get("conditions") or ()):
                return (
                    f"no controller has taken Gateway {namespace}/{name} of class {class_} either",
                    f"check whether the controller of GatewayClass {class_} runs",
                )
        return (
            "its Gateway is there, but the conditions of the route are missing or older than the route",
            "check whether the Gateway's controller runs, and its log",
        )


def rejected(route: Mapping[str, Any], said: str) -> StepFailed:
    """The controller's words as a failure."""
    hint = next((hint for reason, hint in _HINTS.items() if reason in said), "see the Gateway and its listeners")
    return StepFailed(
        f"the Gateway's controller refuses HTTPRoute {route['metadata']['name']}: {said}",
        reason="RouteRejected",
        hint=hint,
    )


_HINTS = {
    "NoMatchingParent": "correct `section` or `https_section` in [plugins.ingress_gateway]: the Gateway has no such "
    "listener",
    "NotAllowedByListeners": "let the listener take routes of this namespace (allowedRoutes)",
    "NoMatchingListenerHostname": "let the listener's hostname cover the frontend, and the preview host",
    "BackendNotFound": "see who deletes the version's Service",
    "RefNotPermitted": "the route refers to its own namespace only; see the controller's log",
}

"""The Ingresses and ConfigMaps of an app in the cluster: made, found, handed over and removed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from deployer.plugins.ingress_nginx import render
from deployer.sdk.errors import KubeRejected, StepFailed
from deployer.sdk.ingress import Backend, Route, backends_behind, redirect_name
from deployer.sdk.kube import (
    CONFIG_MAP,
    INGRESS,
    SERVICE,
    Kind,
    KubeAccess,
    annotation_of,
    deployment_of,
    objects_of_app,
    role_of,
)

HOST_TAKEN = "is already defined in ingress"
"""What the controller's admission webhook (`checkOverlap`) says when another Ingress has the host."""

_WEBHOOK_LATE = 5.0  # seconds for which it may still know, by a cache of its own, an Ingress that was deleted


def create(kube: KubeAccess, body: dict[str, Any], role: str) -> dict[str, Any]:
    """Create a ConfigMap or a helper Ingress of the deployment. Raises StepFailed when another Ingress has its host."""
    metadata = body["metadata"]
    metadata["annotations"] = metadata.get("annotations", {}) | kube.annotations(role)
    kind = CONFIG_MAP if body["kind"] == "ConfigMap" else INGRESS
    end = time.monotonic() + _WEBHOOK_LATE
    while True:
        try:
            return kube.create(kind, body)
        except KubeRejected as error:
            if HOST_TAKEN not in error.said:
                raise
            if time.monotonic() >= end:
                raise host_taken(error) from error
            kube.scope.pause(0.2)


def host_taken(error: KubeRejected) -> StepFailed:
    """What the webhook's refusal means for a user."""
    return StepFailed(
        f"the ingress controller's admission webhook refuses the Ingress: {error.said}",
        reason="HostTaken",
        hint="remove the other Ingress, or choose another frontend",
    )


def put_headers(kube: KubeAccess, route: Route, config: render.RenderConfig, *, stable: bool) -> None:
    """Create the ConfigMap of the headers: the API server shows it before anything refers to it."""
    body = render.headers_config_map(route, config, stable=stable)
    if body is None:
        return
    name = body["metadata"]["name"]
    there = kube.get(CONFIG_MAP, name)
    if there is not None and kube.owned_by(there, kube.owner.deployment):
        return
    if stable:
        role = render.ROLE_STABLE_HEADERS
        body["metadata"]["annotations"] = kube.annotations(role)
        kube.put_shared(CONFIG_MAP, name, lambda found: found or body, role=role)
    else:
        create(kube, body, render.ROLE_HEADERS)
    if kube.get(CONFIG_MAP, name) is None:
        raise StepFailed(f"ConfigMap {name} was deleted by somebody while it was needed")


def divided(kube: KubeAccess, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """The backends of the app's Ingress, and the canary's with what it takes of them."""
    canary = kube.get(INGRESS, render.canary_name(kube.owner.app))
    if canary is None or not kube.is_ours(canary) or len(backends) != 1:
        return backends
    weight = render.canary_weight(canary)
    others = [b for b in render.all_backends_of(canary) if b.service != backends[0].service]
    if not others or not weight:
        return backends
    return (
        dataclasses.replace(backends[0], weight=100 - weight),
        dataclasses.replace(others[0], weight=weight),
    )


def end_division(kube: KubeAccess, route: Route) -> None:
    """Take the traffic from a canary that leads elsewhere than the route will.

    It stays until the version that it leads to has gone, or divides again. As long as it is there, one right answer
    does not prove that all requests are answered so (`confirm`), also after a restart in between.
    """
    found = kube.get(INGRESS, render.canary_name(route.app))
    if found is None or not kube.is_ours(found) or not render.canary_weight(found):
        return
    if route.backend.service in {backend.service for backend in render.all_backends_of(found)}:
        return  # it is the canary's own version that gets the rest now
    kube.for_deployment(deployment_of(found)).put_shared(
        INGRESS,
        render.canary_name(route.app),
        lambda now: now and render.end_canary(now),
        role=render.ROLE_CANARY,
    )


def redirects_www(kube: KubeAccess, main: Mapping[str, Any]) -> bool:
    """Does the app's Ingress redirect the `www.` twin, or that which the original had for it?"""
    if annotation_of(main, render.REDIRECT) == "true":
        return True
    found = kube.get(INGRESS, redirect_name(kube.owner.app))
    return found is not None and (kube.is_ours(found) or kube.is_original(found))


def take_over_redirect(kube: KubeAccess, route: Route, redirects: bool) -> None:
    """The Ingress with which the original redirected `www.`: of no use beside one that `redirects` itself, and in
    its way as long as it has that host; else ours, so that it goes when the version is released."""
    name = redirect_name(route.app)
    found = kube.get(INGRESS, name)
    if redirects:
        kube.delete_shared(INGRESS, name, original_ok=True)
    elif found is not None and kube.is_original(found):

        def mark(found: dict[str, Any] | None) -> dict[str, Any] | None:
            if found is not None:
                found["metadata"]["annotations"] |= kube.annotations(render.ROLE_WWW)
            return found

        kube.put_shared(INGRESS, name, mark, role=render.ROLE_WWW)


def drop_private_hosts(kube: KubeAccess, route: Route) -> None:
    """Take the rules for private hosts off the app's Ingress, which stays the deployment's that it is of."""
    main = kube.get(INGRESS, route.app)
    if main is None or not kube.is_ours(main):
        return
    held = render.held_services(main)
    done = {service for service in held if kube.get(SERVICE, service) is None}
    target = render.target(route).service
    if target in held and route.previous:
        # The way back held on to what failed. A later deployment may hold on to it as well.
        now = backends_behind(kube, route.app, render.backends_of(main))
        if any(backend.service == route.previous.service for backend in now):
            done.add(target)

    def change(found: dict[str, Any] | None) -> dict[str, Any] | None:
        return found and render.released(found, route, done)

    owner = kube.for_deployment(deployment_of(main))
    owner.put_shared(INGRESS, route.app, change, role=render.ROLE_ROUTE)


def free_preview_host(kube: KubeAccess, route: Route) -> None:
    """The oldest Ingress that has a host gets its traffic, so the warm-ups of the app's earlier deployments go,
    although their old versions may still be draining: the app's own Ingress refers to what they warmed up."""
    for helper in objects_of_app(kube, INGRESS, {render.ROLE_WARM_UP}) if route.preview.host else ():
        if deployment_of(helper) != route.deployment and route.preview.host in render.hosts_of(helper):
            delete(kube, INGRESS, helper)


def delete(kube: KubeAccess, kind: Kind, found: Mapping[str, Any]) -> None:
    """Delete an object that `objects_of_app` found."""
    name = found["metadata"]["name"]
    if role_of(found) == render.ROLE_STABLE_HEADERS:
        kube.delete_shared(kind, name)
    else:
        kube.delete(kind, name, deployment=deployment_of(found))

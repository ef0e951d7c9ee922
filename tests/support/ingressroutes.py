"""An ingress provider of a kind that the core does not know, like Traefik's IngressRoute, and the definition of it.

No data plane follows its objects, so `confirm` says nothing. What it reports of hosts is a test's to change.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from deployer.kube.client import KubeClient
from deployer.sdk.errors import KubeNotFound
from deployer.sdk.ingress import Backend, IngressProvider, RouteClaim, RouteContext, RouteReader, RouteState
from deployer.sdk.kube import Kind
from deployer.sdk.plugin import Document

DEFINITION = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)
SECONDS = 20.0


def kind_of(group: str) -> Kind:
    """IngressRoute in that group."""
    return Kind(group, "v1alpha1", "ingressroutes", "IngressRoute")


@contextlib.contextmanager
def defined(client: KubeClient, group: str) -> Iterator[Kind]:
    """The cluster knows the kind as long as this lasts."""
    kind = kind_of(group)
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": kind.version, "served": True, "storage": True, "schema": schema}
    names = {"plural": kind.plural, "kind": kind.kind}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    body = {
        "apiVersion": DEFINITION.api_version,
        "kind": DEFINITION.kind,
        "metadata": {"name": f"{kind.plural}.{group}"},
        "spec": spec,
    }
    made = client.create(DEFINITION, body)
    try:
        end = time.monotonic() + SECONDS
        while True:  # a real server says that a kind is established a moment before it serves it
            with contextlib.suppress(KubeNotFound):
                client.list(kind)
                break
            assert time.monotonic() < end, f"{kind.kind} is not served"
            time.sleep(0.05)
        yield kind
    finally:
        client.delete(DEFINITION, made["metadata"]["name"], uid=made["metadata"]["uid"])


def route(kind: Kind, name: str, host: str, service: str, port: int = 8080) -> Document:
    """An object that leads a host to a Service, as Traefik has it."""
    rule = {"match": f"Host(`{host}`)", "services": [{"name": service, "port": port}]}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name},
        "spec": {"entryPoints": ["web"], "routes": [rule]},
    }


def hosts_of(found: Document) -> list[str]:
    """Those that all requests for are led somewhere."""
    rules = found["spec"].get("routes") or ()
    return [host for rule in rules for host in re.findall(r"^Host\(`([^`]+)`\)$", rule.get("match", ""))]


class IngressRoutes(IngressProvider):
    """One IngressRoute for each app."""

    name = "ingressroutes"
    minimum_hold = 0.1

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def host_claims(self, kube: RouteReader) -> Iterable[RouteClaim]:
        """Every IngressRoute that can be seen."""
        for found in kube.visible(self.kind):
            yield RouteClaim(found, hosts_of(found))

    def state(self, context: RouteContext) -> RouteState | None:
        found = context.kube.get(self.kind, context.route.app)
        if found is None:
            return None
        if not context.kube.is_ours(found):
            raise context.kube.foreign(self.kind, found)
        (rule,), (host,) = found["spec"]["routes"], hosts_of(found)
        (service,) = rule["services"]
        deployment = found["metadata"]["annotations"]["kube-deployer/deployment"]
        return RouteState((Backend(service["name"], service["port"]),), host, deployment)

    def prepare(self, context: RouteContext) -> None:
        """Nothing."""

    def switch(self, context: RouteContext) -> None:
        wanted, kube = context.route, context.kube.for_deployment(context.route.deployment)
        backend = wanted.backend

        def change(found: Any) -> Any:
            new = route(self.kind, wanted.app, wanted.host, backend.service, backend.port)
            body = found or new
            body["spec"] = new["spec"]
            body["metadata"]["annotations"] = {
                **(body["metadata"].get("annotations") or {}),
                **kube.annotations("route"),
            }
            return body

        kube.put_shared(self.kind, wanted.app, change, role="route")

    def confirm(self, context: RouteContext) -> None:
        """Nobody can be asked."""

    def release(self, context: RouteContext) -> None:
        """Nothing."""

    def remove(self, context: RouteContext) -> None:
        context.kube.delete_shared(self.kind, context.route.app)

    def fence(self, context: RouteContext) -> None:
        context.kube.raise_fencing_token(self.kind, context.route.app)

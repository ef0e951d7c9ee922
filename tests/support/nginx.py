"""The ingress provider `nginx` on the sandbox, verb by verb: a namespace with versions of an app, and the provider."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from typing import Any

from deployer import sandbox
from deployer.core.contract.kube import Owner
from deployer.kube import client as kube_client
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.ingress_nginx import render
from deployer.plugins.ingress_nginx.provider import Nginx
from deployer.sdk.ingress import Backend, Route, RouteContext
from deployer.sdk.kube import CONFIG_MAP, CONTROLLER, ENDPOINT_SLICE, INGRESS, NAMESPACE, SERVICE
from deployer.sdk.plugin import CancelScope
from deployer.settings import Settings

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
SANDBOX = {"controller": "ingress-nginx/ingress-nginx-controller", "revision_header": True, "minimum_hold": 0.1}


def nginx(**table: Any) -> Nginx:
    """The provider as the service gets it, with this table of settings."""
    found = load_plugins(Settings(own_namespace="", plugins={"ingress_nginx": table} if table else {})).ingress()
    assert isinstance(found, Nginx)
    return found


class Site:
    """A namespace of the sandbox with versions of an app, and handles on it like those of an operation."""

    def __init__(self, cluster: sandbox.Sandbox, namespace: str) -> None:
        self.cluster, self.namespace, self.host = cluster, namespace, f"{namespace}.example.com"
        self.client = kube_client.connect(Settings(own_namespace="", kubernetes=cluster.api))
        self.informers = Informers(self.client)
        self.client.create(NAMESPACE, {"metadata": {"name": namespace}}, None)
        self.log: list[str] = []

    def close(self) -> None:
        found = self.client.get(NAMESPACE, self.namespace, None)
        self.client.delete(NAMESPACE, self.namespace, None, uid=found["metadata"]["uid"])
        self.informers.close()
        self.client.close()

    def run(self, version: str) -> None:
        """Start a version of the sample app and wait until it is ready."""
        labels = {"name": f"shop-{version}", "app": "shop", "version": version}
        container = {"name": "web", "image": "sample/web:1", "ports": [{"containerPort": 8080}]}
        container["env"] = [{"name": "APP_VERSION", "value": version}]
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        metadata = {"name": f"shop-{version}", "labels": labels}
        controller = {"replicas": 1, "selector": labels, "template": template}
        ports = [{"port": 80, "targetPort": 8080}]
        self.client.create(CONTROLLER, {"metadata": metadata, "spec": controller}, self.namespace)
        self.client.create(
            SERVICE, {"metadata": metadata, "spec": {"selector": labels, "ports": ports}}, self.namespace
        )
        of_service = {"kubernetes.io/service-name": f"shop-{version}"}
        self.kube(ONE, CancelScope(time.monotonic() + 20)).wait(ENDPOINT_SLICE, _some_ready, labels=of_service)

    def kube(self, deployment: str, scope: CancelScope, fencing_token: int = 1) -> OwnedKube:
        owner = Owner("deployer", self.namespace, "shop", deployment, fencing_token)
        return OwnedKube(self.client, self.informers, owner, scope)

    def route(self, version: str, **changes: Any) -> Route:
        """The route to a version; its deployment is ONE or TWO."""
        values: dict[str, Any] = {
            "namespace": self.namespace,
            "app": "shop",
            "host": self.host,
            "version": version,
            "deployment": {"1": ONE, "2": TWO}[version],
            "backend": Backend(f"shop-{version}", 80),
            "previous": Backend("shop-1", 80) if version == "2" else None,
        }
        return Route(**(values | changes))

    def context(self, route: Route, *, scope: CancelScope | None = None, fencing_token: int = 1) -> RouteContext:
        scope = scope or CancelScope(time.monotonic() + 20)
        return RouteContext(route, self.kube(route.deployment, scope, fencing_token), self.log.append, scope)

    def lead(self, version: str) -> None:
        """Move the app's unversioned Service, which is made when there is none, to a version."""
        selector = {"app": "shop", "version": version}
        labels = {"app": "shop", "name": "shop", "persistent": "true"}
        body = {"metadata": {"name": "shop", "labels": labels}, "spec": {"selector": selector}}
        body["spec"]["ports"] = [{"port": 80, "targetPort": 8080}]
        found = self.kube(ONE, CancelScope()).get(SERVICE, "shop")
        if found is None:
            self.client.create(SERVICE, body, self.namespace)
        else:
            self.client.replace(SERVICE, "shop", found | {"spec": found["spec"] | body["spec"]}, self.namespace)

    def expose(self, provider: Nginx, version: str, *, seconds: float = 20.0, **changes: Any) -> RouteContext:
        context = self.context(self.route(version, **changes), scope=CancelScope(time.monotonic() + seconds))
        provider.prepare(context)
        provider.switch(context)
        provider.confirm(context)
        return context

    def hold(self, context: RouteContext) -> str:
        """The private host by which the old version is held on to."""
        return render.private_host(context.route, render.ROLE_HOLD)

    def hosts(self) -> list[str]:
        """Of the app's Ingress."""
        return [rule["host"] for rule in self.client.get(INGRESS, "shop", self.namespace)["spec"]["rules"]]

    def fetch(self, host: str = "") -> tuple[int, str, str]:
        """Status, version and revision of what the ingress answers."""
        connection = http.client.HTTPConnection(self.cluster.ingress.removeprefix("http://"), timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/", headers={"Host": host or self.host})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers.get("X-Version", ""), answer.headers.get("X-Deployer-Revision", "")

    def fetch_until(self, status: int, host: str) -> bool:
        """The ingress follows a little later; whether it does within ten seconds."""
        end = time.monotonic() + 10
        while self.fetch(host)[0] != status:
            if time.monotonic() > end:
                return False
            threading.Event().wait(0.02)
        return True

    def names(self, kind: Any) -> set[str]:
        return {found["metadata"]["name"] for found in self.client.list(kind, self.namespace)[0]}

    def everything(self) -> dict[str, str]:
        """Name to resourceVersion of all that the provider makes, less the ingress' own status writes."""
        found = [o for kind in (INGRESS, CONFIG_MAP) for o in self.client.list(kind, self.namespace)[0]]
        return {f"{o['kind']} {o['metadata']['name']}": json.dumps([o.get("spec"), o.get("data")]) for o in found}


def _some_ready(slices: list[dict[str, Any]]) -> bool:
    return any((e.get("conditions") or {}).get("ready") for s in slices for e in s.get("endpoints") or ())

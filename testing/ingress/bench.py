"""The bench that a provider is tested on: two versions of an app on a cluster, and eyes on objects and answers."""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.ingress import IngressProvider, PodAnswers, RouteContext
from deployer.core.contract.kube import Owner
from deployer.core.errors import KubeConflict, KubeNotFound, Revoked
from deployer.core.model.kind import (
    CONFIG_MAP,
    CONTROLLER,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    INGRESS,
    NAMESPACE,
    SERVICE,
    Kind,
)
from deployer.core.model.plan import Backend, Preview, Route
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient, connect
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube
from deployer.kube.ownership import ANNOTATION_FENCING_TOKEN
from deployer.kube.pods import ready_endpoints, service_slices
from deployer.settings import Settings
from deployer.toolkit.dataplane.probe import Answer, ask, parse_address

APP = "shop"
PORT = 8080
BUDGET = 30.0
"""Seconds for one verb."""

DEPLOYMENTS = {"1": "11111111-1111-4111-8111-111111111111", "2": "22222222-2222-4222-8222-222222222222"}

_fencing_tokens = itertools.count(1)
_hosts = itertools.count(1)


class Exhausted(CancelScope):
    """Lets so many writes through, then none, like a process that died; tells of each before it is made."""

    def __init__(self, writes: int, before: Callable[[int], object] = str) -> None:
        super().__init__(time.monotonic() + BUDGET)
        self.made = 0
        self.refused = False
        self._most = writes
        self._before = before

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Raises Revoked instead of the first write too many."""
        if self.made >= self._most:
            self.refused = True
            self.close(Revoked("died before this write"))
        self.check()
        self._before(self.made)
        self.made += 1
        with super().writing():
            yield


@dataclass
class Bench:
    """One app in two versions, `shop-1` and `shop-2`, and the Service `shop` that selects one of them.

    provider   makes the provider anew, as a restarted process would
    silent     the same with a data plane that takes connections and never answers, or that is not there
    ingress    `address:port` of the data plane, plain HTTP
    kinds      of objects that the provider makes
    crashes    how many places between two writes a crash is tried at; 0: all
    pods       what the pods of every version are said to have answered
    """

    client: KubeClient
    informers: Informers
    namespace: str
    ingress: str
    provider: Callable[[], IngressProvider]
    silent: Callable[[], IngressProvider] | None = None
    kinds: Sequence[Kind] = (INGRESS, CONFIG_MAP, HTTP_ROUTE)
    crashes: int = 0
    pods: PodAnswers = field(default_factory=PodAnswers)
    domain: str = "example.com"
    fencing_token: int = 0
    log: list[str] = field(default_factory=list)

    # --- handles --------------------------------------------------------------------------------------------------

    def next_epoch(self) -> int:
        """That of a process which takes over."""
        return next(_fencing_tokens)

    def fresh_host(self) -> str:
        """One that no data plane has heard of yet."""
        return f"h{next(_hosts)}.{self.namespace}.{self.domain}"

    def kube(self, deployment: str, scope: CancelScope, fencing_token: int = 0, app: str = APP) -> OwnedKube:
        """Handles like those of an operation; `epoch` 0: that of this check."""
        owner = Owner("conformance", self.namespace, app, deployment, fencing_token or self.fencing_token)
        return OwnedKube(self.client, self.informers, owner, scope)

    def route(self, host: str, version: str, **changes: Any) -> Route:
        """The route to version `1`, which is the first, or to `2`, which takes over from it."""
        values: dict[str, Any] = {
            "namespace": self.namespace,
            "app": APP,
            "host": host,
            "version": version,
            "deployment": DEPLOYMENTS[version],
            "backend": Backend(f"{APP}-{version}", PORT),
            "previous": Backend(f"{APP}-1", PORT) if version == "2" else None,
            "preview": Preview(token=f"{self.namespace}{version}"),
            "stable": self.provider().stable,
        }
        return Route(**(values | changes))

    def context(
        self, route: Route, scope: CancelScope | None = None, fencing_token: int = 0, deployment: str = ""
    ) -> RouteContext:
        """What a verb gets. `deployment`: whose operation it is, if not the route's."""
        scope = scope or CancelScope(time.monotonic() + BUDGET)
        kube = self.kube(deployment or route.deployment, scope, fencing_token, route.app)
        return RouteContext(route, kube, self.log.append, scope, self.pods)

    # --- doing ----------------------------------------------------------------------------------------------------

    def carry_out(
        self, provider: IngressProvider, route: Route, scope: CancelScope | None = None, deployment: str = ""
    ) -> None:
        """Everything up to the commit, as the steps of a deployment do it."""
        context = self.context(route, scope, deployment=deployment)
        provider.prepare(context)
        self.switch(provider, context)
        provider.confirm(context)

    def switch(self, provider: IngressProvider, context: RouteContext) -> None:
        """The provider's edit; of a stable route also that of its Service, which is the core's."""
        provider.switch(context)
        if context.route.stable:
            self.lead_service(context.route.app, context.route.version, context.scope)

    def lead_service(self, app: str, version: str, scope: CancelScope | None = None) -> None:
        """Lead the unversioned Service to a version of the shop."""
        patch = {"spec": {"selector": {"app": APP, "version": version}}}
        self.client.patch(SERVICE, app, patch, self.namespace, scope=scope)

    def crash_points(self, writes: int) -> list[int]:
        """Before which of so many writes a crash is tried, evenly spread."""
        tried = min(self.crashes or writes, writes)
        return [(2 * number + 1) * writes // (2 * tried) for number in range(tried)]

    def reset(self) -> None:
        """No route of the app is left, whatever a check did to it. What comes next has a newer epoch."""
        self.fencing_token = next(_fencing_tokens)
        self.lead_service(APP, "1")
        self.provider().remove(self.context(self.route("", "1")))
        for kind in self.kinds:
            for name in list(self.objects((kind,))):
                self.delete(kind, name.partition(" ")[2])

    def delete(self, kind: Kind, name: str) -> None:
        """By hand."""
        with contextlib.suppress(KubeNotFound):
            found = self.client.get(kind, name, self.namespace)
            self.client.delete(kind, name, self.namespace, uid=found["metadata"]["uid"])

    def edit(self, kind: Kind, name: str, change: Callable[[Document], object]) -> None:
        """By hand, against whoever writes it at the same time."""
        for _ in range(20):
            found = self.client.get(kind, name, self.namespace)
            change(found)
            with contextlib.suppress(KubeConflict):
                self.client.replace(kind, name, found, self.namespace)
                return
        raise AssertionError(f"{kind.kind} {name} could not be edited")

    # --- seeing ---------------------------------------------------------------------------------------------------

    def raw(self, kinds: Sequence[Kind] = ()) -> list[tuple[Kind, Document]]:
        """Every object of the provider's kinds in the namespace, but what Kubernetes puts into each."""
        found: list[tuple[Kind, Document]] = []
        for kind in kinds or self.kinds:
            with contextlib.suppress(KubeNotFound):  # a cluster without that kind
                items = self.client.list(kind, self.namespace)[0]
                found += [(kind, o) for o in items if o["metadata"]["name"] != "kube-root-ca.crt"]
        return found

    def objects(self, kinds: Sequence[Kind] = ()) -> dict[str, Document]:
        """`Kind name` to all of it that does not change by itself; the fencing token is left out."""
        return {f"{kind.kind} {o['metadata']['name']}": _content(o) for kind, o in self.raw(kinds)}

    def ask(self, host: str, headers: Mapping[str, str] | None = None) -> Answer:
        """What the data plane answers on a fresh connection."""
        return ask(
            parse_address(self.ingress, tls=False), host, "", CancelScope(time.monotonic() + 5), headers=headers or {}
        )

    def version(self, host: str, headers: Mapping[str, str] | None = None) -> str:
        """The version that answers, or the status of what else does."""
        answer = self.ask(host, headers)
        found = re.match(rb"version (\S+)", answer.body)
        return found[1].decode() if answer.status == 200 and found else f"HTTP {answer.status}"

    def require_version(self, host: str, version: str, times: int = 5) -> None:
        """Raises AssertionError unless only that version answers, at once."""
        answers = [self.version(host) for _ in range(times)]
        assert answers == [version] * times, f"{host} answers {answers} instead of version {version}\n{self.said}"

    def await_answer(self, host: str, wanted: Callable[[str], bool], seconds: float = 10.0) -> None:
        """For what a data plane may do a little later."""
        end = time.monotonic() + seconds
        while not wanted(answer := self.version(host)):
            assert time.monotonic() < end, f"{host} still answers {answer} after {seconds:g} s\n{self.said}"
            threading.Event().wait(0.05)

    def service_of(self, provider: IngressProvider, host: str) -> str:
        """Where the route leads, according to the provider; empty when there is none."""
        state = provider.state(self.context(self.route(host, "1")))
        return "" if state is None else " ".join(b.service for b in state.backends if b.weight)

    @property
    def said(self) -> str:
        """The log so far."""
        return "\n".join(self.log[-20:])


def _content(found: Document) -> Document:
    found = copy.deepcopy(found)
    metadata = found["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != ANNOTATION_FENCING_TOKEN}
    rest = {key: value for key, value in found.items() if key not in ("metadata", "status", "apiVersion", "kind")}
    return {**rest, "labels": metadata.get("labels") or {}, "annotations": annotations}


# --- making one ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_bench(
    namespace: str,
    *,
    provider: Callable[[], IngressProvider],
    ingress: str,
    image: str,
    kubernetes: str = "",
    kubeconfig: str = "",
    **more: Any,
) -> Iterator[Bench]:
    """A bench in a new namespace, which goes with it.

    image       its container listens on port 8080 and answers `version $APP_VERSION ...`, as the sandbox's does
    kubernetes  address of an API server that wants no credentials; else `kubeconfig`
    more        fields of Bench
    """
    client = connect(Settings(kubernetes=kubernetes, kubeconfig=kubeconfig, own_namespace=""))
    informers = Informers(client)
    try:
        space = client.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        try:
            bench = Bench(client, informers, namespace, ingress, provider, **more)
            for version in DEPLOYMENTS:
                _start(bench, version, image)
            labels = {"app": APP, "name": APP, "persistent": "true"}
            for app in (APP, f"{APP}-other"):
                _service(bench, app, labels if app == APP else {}, {"app": APP, "version": "1"})
            for version in DEPLOYMENTS:
                _await_ready(bench, f"{APP}-{version}")
            yield bench
        finally:
            client.delete(NAMESPACE, namespace, uid=space["metadata"]["uid"])
    finally:
        informers.close()
        client.close()


def _start(bench: Bench, version: str, image: str) -> None:
    name = f"{APP}-{version}"
    labels = {"name": name, "app": APP, "version": version}
    container = {
        "name": "web",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": PORT}],
        "env": [{"name": "APP_VERSION", "value": version}],
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    spec = {"replicas": 1, "selector": labels, "template": template}
    controller = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    bench.client.create(CONTROLLER, controller, bench.namespace)
    _service(bench, name, labels, labels)


def _service(bench: Bench, name: str, labels: dict[str, str], selector: dict[str, str]) -> None:
    ports = [{"name": "http", "port": PORT, "targetPort": PORT}]
    body = {"metadata": {"name": name, "labels": labels}, "spec": {"selector": selector, "ports": ports}}
    bench.client.create(SERVICE, body, bench.namespace)


def _await_ready(bench: Bench, service: str) -> None:
    def ready(slices: list[Document]) -> bool:
        return next(ready_endpoints(slices), None) is not None

    kube = bench.kube("", CancelScope(time.monotonic() + 60))
    kube.wait(ENDPOINT_SLICE, ready, labels=service_slices(service))

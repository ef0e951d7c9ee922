"""The new version itself, as gates may ask it: its own pods, and its preview. No other place can be reached with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from deployer.core.contract.gate import VersionAccess, VersionUnreachable
from deployer.core.contract.health import HealthTarget, HttpAnswer, Way
from deployer.core.contract.ingress import Capability, IngressProvider, RouteContext
from deployer.core.contract.kube import KubeAccess, is_active, is_ready
from deployer.core.errors import StepFailed
from deployer.core.model.descriptors import frontend_port, http_ports, ports
from deployer.core.model.kind import POD
from deployer.core.model.names import versioned_name
from deployer.core.model.records import Document, Plan
from deployer.core.ports.cluster import Log

TIMEOUT = 10.0
"""Seconds for one pod."""


@dataclasses.dataclass(frozen=True, slots=True)
class Version(VersionAccess):
    """Of one plan, through handles whose scope may close.

    way       how pods are reached from here
    loopback  pods may be on 127.0.0.0/8, as in a sandbox
    """

    plan: Plan
    kube: KubeAccess
    ingress: IngressProvider | None
    log: Log
    way: Way
    loopback: bool

    def pods(self, port: int | str = "") -> Sequence[HealthTarget]:
        number = self._number(port)
        found = self.kube.items(POD, {"name": versioned_name(self.plan.app, self.plan.version)})
        return [self._target(pod, number) for pod in found if is_active(pod) and is_ready(pod)]

    def _number(self, port: int | str) -> int:
        descriptor = self.plan.descriptor
        if port == "":
            usual = frontend_port(descriptor) or next(iter(http_ports(descriptor)), None)
            if usual is None:
                raise VersionUnreachable("no container has a TCP port that could be asked")
            return int(usual)
        for found in ports(descriptor):
            if port in (int(found["containerPort"]), found.get("name")):
                return int(found["containerPort"])
        raise VersionUnreachable(f"no container has a port {port}")

    def _target(self, pod: Document, port: int) -> HealthTarget:
        return HealthTarget(
            name=pod["metadata"]["name"],
            uid=pod["metadata"]["uid"],
            namespace=self.plan.namespace,
            address=pod.get("status", {}).get("podIP", ""),
            port=port,
            path="/",
            scope=self.kube.scope,
            host_network=bool(pod.get("spec", {}).get("hostNetwork")),
            timeout=TIMEOUT,
            allow_loopback=self.loopback,
            way=self.way,
        )

    def preview(self, path: str) -> Sequence[HttpAnswer]:
        route, ingress = self.plan.route, self.ingress
        if route is None or ingress is None:
            raise VersionUnreachable("there is no preview: the app has no frontend")
        if Capability.PREVIEW not in ingress.capabilities:
            raise VersionUnreachable(f"there is no preview: ingress provider {ingress.name} has none")
        if not (route.preview.host or route.preview.check):
            raise VersionUnreachable("there is no preview: neither preview_host nor previewCheck asks for one")
        context = RouteContext(route, self.kube, self.log, self.kube.scope)
        try:
            return ingress.ask_preview(context, path)
        except StepFailed as error:
            raise VersionUnreachable(str(error)) from None

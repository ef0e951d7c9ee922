"""A real ingress controller for tests: where it listens, and whether it serves Ingresses of our class at all.

`DEPLOYER_TEST_INGRESS` (`address:port`, plain HTTP) and `DEPLOYER_TEST_INGRESS_TLS` say where; without them ports 80
and 443 of the nodes are tried. `DEPLOYER_TEST_REVISION_HEADER` names a response header that the controller allows.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import dataclass
from typing import Any

from deployer.core.model.kind import INGRESS, INGRESS_CLASS, NAMESPACE, Kind
from deployer.kube.client import KubeClient
from deployer.sdk.errors import KubeError
from deployer.sdk.ingress import ask
from deployer.sdk.plugin import CancelScope
from deployer.toolkit.dataplane.probe import parse_address

NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
CLASS = "nginx"
PATIENCE = 15.0
"""Seconds in which a controller must have noticed an Ingress."""


@dataclass(frozen=True)
class Controller:
    """One that answers.

    http, https  `address:port`; `https` is empty when nothing listens there
    """

    http: str
    https: str
    revision_header: str

    def settings(self, **more: Any) -> dict[str, Any]:
        """The table `[plugins.ingress_nginx]`."""
        table: dict[str, Any] = {"addresses": [self.http], "revision_header": self.revision_header}
        if self.https:
            table["https_addresses"] = [self.https]
        return {**table, "minimum_hold": 3.0, **more}


def find(client: KubeClient) -> Controller | str:
    """The controller, or why there is none."""
    with contextlib.suppress(KubeError):
        client.get(INGRESS_CLASS, CLASS)
        http = os.environ.get("DEPLOYER_TEST_INGRESS") or _listening(client, 80)
        if not http:
            return "no node listens on port 80: set DEPLOYER_TEST_INGRESS"
        if not _serves(client, http):
            return f"what listens on {http} serves no Ingress of class {CLASS}"
        https = os.environ.get("DEPLOYER_TEST_INGRESS_TLS") or _listening(client, 443)
        return Controller(http, https, os.environ.get("DEPLOYER_TEST_REVISION_HEADER", "X-Revision"))
    return f"the cluster has no IngressClass {CLASS}"


def _listening(client: KubeClient, port: int) -> str:
    for node in client.list(NODE)[0]:
        for address in node["status"].get("addresses") or ():
            if address["type"] == "InternalIP" and _status(f"{address['address']}:{port}", "nobody.invalid") != 0:
                return f"{address['address']}:{port}"
    return ""


def _serves(client: KubeClient, http: str) -> bool:
    """Does an Ingress of ours change the answer? Its backend is missing, so that is an error instead of a 404."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    space = client.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        backend = {"service": {"name": "nobody", "port": {"number": 80}}}
        rule = {"host": f"{name}.invalid", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        before = _status(http, f"{name}.invalid")
        client.create(
            INGRESS, {"metadata": {"name": "probe"}, "spec": {"ingressClassName": CLASS, "rules": [rule]}}, name
        )
        end = time.monotonic() + PATIENCE
        while _status(http, f"{name}.invalid") == before and time.monotonic() < end:
            CancelScope().pause(0.1)
        return _status(http, f"{name}.invalid") != before
    finally:
        client.delete(NAMESPACE, name, uid=space["metadata"]["uid"])


def _status(address: str, host: str) -> int:
    return ask(parse_address(address, tls=address.endswith(":443")), host, "", CancelScope(time.monotonic() + 3)).status

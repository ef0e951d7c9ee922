"""More addresses of a sandbox's ingress controller: each passes requests on, lags behind, or is dead."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from deployer.core.model.kind import ENDPOINT_SLICE
from deployer.kube.client import KubeClient
from deployer.sandbox import Sandbox

CONTROLLER = "ingress-nginx", "ingress-nginx-controller"
"""Namespace and name of the controller's Service."""


class ProxyAddress:
    """Passes each request on to the sandbox's ingress.

    lags  it answers what it answered last, as a controller does that has not heard of a change
    """

    def __init__(self, ingress: str) -> None:
        self.lags = False
        self._last = b""
        target = (urlsplit(ingress).hostname, urlsplit(ingress).port)
        address = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                head = b""
                while line := self.rfile.readline():
                    head += line
                    if line == b"\r\n":
                        break
                if not address.lags:
                    with socket.create_connection(target, 10) as upstream, upstream.makefile("rb") as answer:
                        upstream.sendall(head)
                        address._last = answer.read()
                self.wfile.write(address._last)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.port: int = self._server.server_address[1]

    def __str__(self) -> str:
        return f"127.0.0.1:{self.port}"

    def die(self) -> None:
        """From now on connections are refused. Can be repeated."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def another_address(cluster: Sandbox, client: KubeClient) -> Iterator[ProxyAddress]:
    """One that belongs to the controller until the end of the block."""
    address = ProxyAddress(cluster.ingress)
    namespace, service = CONTROLLER
    body: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"more-{address.port}", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": address.port, "protocol": "TCP"}],
    }
    try:
        made = client.create(ENDPOINT_SLICE, body, namespace)
        try:
            yield address
        finally:
            client.delete(ENDPOINT_SLICE, made["metadata"]["name"], namespace, uid=made["metadata"]["uid"])
    finally:
        address.die()

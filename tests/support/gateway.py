"""The Gateway of a real cluster that tests use, and where its data plane listens.

`DEPLOYER_TEST_GATEWAY` names it (default `infra/edge`, listeners `http` and `https` on ports 80 and 443), and
`DEPLOYER_TEST_GATEWAY_ADDRESS` the address of its data plane (default `198.19.0.1`).
"""

from __future__ import annotations

import os

import pytest

from deployer.core.errors import KubeError
from deployer.core.model.kind import Kind
from deployer.kube.client import connect
from deployer.settings import Settings

NAME = os.environ.get("DEPLOYER_TEST_GATEWAY", "infra/edge")
ADDRESS = os.environ.get("DEPLOYER_TEST_GATEWAY_ADDRESS", "198.19.0.1")
KIND = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
TABLE = {"gateway": NAME, "section": "http", "addresses": [f"{ADDRESS}:80"]}
"""For `[plugins.ingress_gateway]`."""


def require() -> None:
    """Skip, saying why, when the cluster has no such Gateway."""
    namespace, _, name = NAME.partition("/")
    client = connect(Settings(kubeconfig=os.environ["KUBECONFIG"], own_namespace=""))
    try:
        client.get(KIND, name, namespace)
    except KubeError as error:
        pytest.skip(f"needs the Gateway {NAME}: {error}")
    finally:
        client.close()

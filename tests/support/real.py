"""A Deployer on the real Kubernetes that KUBECONFIG names, whose nodes reach the pods; nothing is mocked here.

`DEPLOYER_TEST_IMAGE` names the application to deploy (default `lab/demo:1`): port 8080 answers with its version and
`/env` with its environment, port 9999 has `/health` in the form of the checker `probe`, and the variable FAIL makes
that unhealthy.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.world import World

IMAGE = os.environ.get("DEPLOYER_TEST_IMAGE", "lab/demo:1")


def require_cluster() -> None:
    """Skip, saying why, when there is no cluster to test on."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a Kubernetes: set KUBECONFIG")


class RealWorld(World):
    """The same eyes and hands, on a real cluster."""

    image = IMAGE

    def deploy(self, app: str = "shop", **fields: Any) -> Any:
        """The image is the cluster's, and is there already: nothing can be pulled where tests run."""
        return super().deploy(app, **{"image": IMAGE, "pull": "IfNotPresent", **fields})

    def names(self) -> dict[str, set[str]]:
        """A namespace of a real cluster has a ConfigMap of its own."""
        found = super().names()
        found.get("configmaps", set()).discard("kube-root-ca.crt")
        return {kind: some for kind, some in found.items() if some}

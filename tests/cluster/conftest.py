"""A Deployer on the real Kubernetes that KUBECONFIG names, whose nodes reach the pods; nothing is mocked here.

`DEPLOYER_TEST_IMAGE` names the application to deploy (default `lab/demo:1`): port 8080 answers with its version, port
9999 has `/health` in the form of the checker `probe`, and the variable FAIL makes that unhealthy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.world import World

IMAGE = os.environ.get("DEPLOYER_TEST_IMAGE", "lab/demo:1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a cluster; without one it is skipped, with the reason."""
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.path).parents:
            item.add_marker(pytest.mark.cluster)
            if not os.environ.get("KUBECONFIG"):
                item.add_marker(pytest.mark.skip(reason="needs a Kubernetes: set KUBECONFIG"))


class RealWorld(World):
    """The same eyes and hands, on a real cluster."""

    def deploy(self, app: str = "shop", **fields: Any) -> Any:
        """The image is the cluster's, and is there already: nothing can be pulled where tests run."""
        return super().deploy(app, **{"image": IMAGE, "pull": "IfNotPresent", **fields})


@pytest.fixture
def real(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """A running Deployer in an empty namespace of the real cluster, without ingress."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={})
    made.start()
    yield made
    made.close()

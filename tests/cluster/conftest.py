"""A Deployer on the real Kubernetes that KUBECONFIG names, whose nodes reach the pods; nothing is mocked here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.model.kind import Kind
from support.real import IMAGE, RealWorld

__all__ = ["IMAGE", "RealWorld"]

ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a cluster; without one it is skipped, with the reason."""
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.path).parents:
            item.add_marker(pytest.mark.cluster)
            if not os.environ.get("KUBECONFIG"):
                item.add_marker(pytest.mark.skip(reason="needs a Kubernetes: set KUBECONFIG"))


@pytest.fixture
def real(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """A running Deployer in an empty namespace of the real cluster, without ingress."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={})
    made.start()
    yield made
    made.close()


@pytest.fixture
def world(real: RealWorld) -> RealWorld:
    """The same once its namespace has the account without which no pod is admitted."""
    end = time.monotonic() + 30
    while not real.eyes.list(ACCOUNT, real.namespace)[0]:
        assert time.monotonic() < end
        time.sleep(0.05)
    return real

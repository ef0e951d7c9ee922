"""Fixtures for all tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer import sandbox
from support.world import World


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """One sandbox for all tests, each of which has a namespace of its own."""
    running = sandbox.start(tmp_path_factory.mktemp("sandbox"), ingress_delay=0.1)
    yield running
    running.stop()


@pytest.fixture
def namespace() -> str:
    """A name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[World]:
    """A running Deployer in an empty namespace."""
    made = World(cluster, tmp_path, namespace).start()
    yield made
    made.close()

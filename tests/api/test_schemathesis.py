"""Schemathesis against the live service: it reads the OpenAPI document and tries to catch the service breaking it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployer.core.model.records import Deployment
from deployer.core.registry import Registry
from deployer.plugin_manager.loader import load_plugins
from deployer.settings import Settings

SUPPORT = Path(__file__).parents[1]
SEED = 20
EXAMPLES = 30  # of each operation, in the phases that make them up


@pytest.fixture
def settings() -> Settings:
    """With the providers that ship, and room for every deployment that the run queues; nothing carries them out."""
    return Settings(own_namespace="deployer", ingress="nginx", queue_limit=100_000)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return load_plugins(settings)


@pytest.mark.timeout(700)
def test_the_service_keeps_to_its_document(served: Any, tmp_path: Path) -> None:
    """Every check that there is: statuses, schemas and headers as documented, good data taken, bad data refused."""
    said = judge(served.port, tmp_path)
    # It did get through to what is behind the checks of a request.
    assert "Tested: 34" in said
    assert served.store.count(Deployment) > 10


def judge(port: int, directory: Path, *more: str) -> str:
    """What Schemathesis says of a service in which it finds no fault. `more` are options."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"),
        *("--checks", "all", "--max-examples", str(EXAMPLES), "--continue-on-failure"),
        *("--seed", str(SEED), "--generation-deterministic"),
        # A WebSocket; `test_stream.py` has its answers to those who do not ask for one.
        *("--exclude-path", "/stream/deployments/{id}/logs"),
        # Hundreds of descriptors are deleted at once, on a machine that does other things meanwhile.
        *("--max-response-time", "25"),
        *("--suppress-health-check", "all", "--request-timeout", "30", "--no-color", *more),
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")]),
        "SCHEMATHESIS_HOOKS": "support.schemathesis_hooks",
    }
    done = subprocess.run(
        command, cwd=directory, env=environment, text=True, capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    return done.stdout

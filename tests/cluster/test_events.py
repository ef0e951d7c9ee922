"""What `kubectl describe` shows of an app's versions on a real Kubernetes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.model.records import Status
from support.real import RealWorld


@pytest.fixture
def real(tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """A Deployer that keeps the old version long enough to look at it."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, proxysleep=600.0)
    made.start()
    yield made
    made.close()


def described(world: RealWorld, version: str) -> list[tuple[str, str, str]]:
    """Type, reason and message of the Deployer's Events, as `kubectl describe rc` prints them."""
    command = ["kubectl", "--namespace", world.namespace, "describe", "rc", f"shop-{version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=4) for line in done.stdout.splitlines()]
    return [(row[0], row[1], row[4]) for row in rows if len(row) == 5 and row[3] == "deployer"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kubectl_describe_tells_the_story(world: RealWorld) -> None:
    world.deployed()
    broken = {"containers": [{"name": "web", "image": "lab/nothing:1", "imagePullPolicy": "Never"}]}
    failed = world.ended(world.deploy(podspec=broken), Status.FAILURE)
    world.deployed()
    first = world.until(lambda: (d := described(world, "1")) and len(d) >= 4 and d, "the old version's Events")
    message = (failed.failure or {})["message"]
    assert sorted(first) == sorted(
        [
            ("Normal", "Started", "version 1 is being deployed"),
            ("Normal", "Switched", "traffic now goes to version 1"),
            ("Warning", "RolledBack", f"version 2 failed and was removed, version 1 is live: {message}"),
            ("Normal", "Switched", "traffic now goes to version 3; version 1 drains and is then removed"),
        ]
    )
    third = world.until(lambda: (d := described(world, "3")) and len(d) >= 2 and d, "the new version's Events")
    assert sorted(third) == [
        ("Normal", "Started", "version 3 is being deployed, to replace version 1"),
        ("Normal", "Switched", "traffic now goes to version 3"),
    ]

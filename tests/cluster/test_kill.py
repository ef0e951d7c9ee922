"""The crash matrix of `deployer serve` on a real Kubernetes with a real ingress controller, if it has one.

A few points of it, drawn by `--seed`; all of them with `--kill=all` (`make test-kill`).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.conftest import ACCOUNT
from deployer.core.cancel_scope import CancelScope
from deployer.kube.client import connect
from deployer.settings import Settings
from support.controller import find
from support.crash_flows import FLOWS, Site
from support.crash_matrix import Stage, chosen, play
from support.forkserver import ForkServer
from support.real import IMAGE, RealWorld

pytestmark = pytest.mark.timeout(14_400)

FEW = 2
"""Flows of which one point each is tried by default."""

CONFIG = """
own_namespace = ""
health_via = "direct"
proxysleep = 0
min_ready = 0
timeout = 5
undo_timeout = 60
watch_interval = 1
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The cluster that KUBECONFIG names."""
    client = connect(Settings(own_namespace=""))
    controller = find(client)
    client.close()
    config = CONFIG
    if isinstance(controller, str):
        config += 'ingress = "none"\n'
    else:
        table = controller.settings(minimum_hold=0.5)
        config += "\n[plugins.ingress_nginx]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
    path = tmp_path_factory.mktemp("serve")
    server = ForkServer("support.serve_child:run", path / "server")
    yield Stage(
        name="a real cluster",
        world=admitted,
        site=Site(
            fields={"image": IMAGE, "pull": "IfNotPresent"},
            frontend=not isinstance(controller, str),
            job={"image": "lab/true:1"},
        ),
        config=config,
        server=server,
        path=path,
    )
    server.close()


def admitted(path: Path, namespace: str) -> RealWorld:
    """The eyes on a namespace that has the account without which no pod is admitted."""
    world = RealWorld(None, path, namespace, ingress="none", plugins={})
    end = time.monotonic() + 30
    while not world.eyes.list(ACCOUNT, namespace)[0]:
        assert time.monotonic() < end
        CancelScope().pause(0.05)
    return world


@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_serve_is_killed_at_any_write_and_all_ends_well(
    stage: Stage, store: str, request: pytest.FixtureRequest
) -> None:
    if store == "etcd":
        stage = stage.in_etcd(request.getfixturevalue("one_etcd"))
    every, seed = request.config.getoption("--kill") == "all", int(request.config.getoption("--seed"))
    keys = [key for key, flow in FLOWS.items() if stage.site.frontend or not flow.divides]
    draw = random.Random(f"{seed} {store}")
    keys = keys if every else draw.sample(keys, FEW)
    matrix = play(stage, keys, chosen(request.config, draw))
    print(f"\n{matrix}")  # noqa: T201
    assert sum(matrix.killed.values()) >= len(keys) // 2

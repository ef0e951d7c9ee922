"""The crash matrix of `deployer serve` on the sandbox: every kind of operation, strategy and store.

A few of its points by default, drawn by `--seed`, all of them with `--kill=all`; the same on a real Kubernetes is
`tests/cluster/test_kill.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from deployer import sandbox
from support.crash_flows import FLOWS, Site
from support.crash_matrix import Stage, chosen, play
from support.forkserver import ForkServer
from support.world import World

FEW = 4
"""Flows of which one point each is tried by default."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]

CONFIG = """
kubernetes = "{api}"
loopback_pods = true
own_namespace = ""
proxysleep = 0
min_ready = 0
timeout = 3
undo_timeout = 20
watch_interval = 1

[plugins.ingress_nginx]
controller = "ingress-nginx/ingress-nginx-controller"
revision_header = true
minimum_hold = 0.2
propagation_seconds = 0.3
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A sandbox of its own."""
    path = tmp_path_factory.mktemp("serve")
    cluster = sandbox.start(path / "sandbox", ingress_delay=0.05, options=("--bookmark-interval", "0.1"))
    server = ForkServer("support.serve_child:run", path / "server")
    yield Stage(
        name="the sandbox",
        world=lambda path, namespace: World(cluster, path, namespace),
        site=Site(fields={}, frontend=True, job={"image": "sample/job:1"}),
        config=CONFIG.format(api=cluster.api),
        server=server,
        path=path,
    )
    server.close()
    cluster.stop()


def single(option: str) -> bool:
    """Does it name one point of one flow?"""
    return ":" in option and not option.startswith("sample:")


@pytest.mark.parametrize("store", ["sqlite", "etcd"])
def test_serve_is_killed_at_any_write_and_all_ends_well(
    stage: Stage, store: str, request: pytest.FixtureRequest
) -> None:
    if single(request.config.getoption("--kill")):
        pytest.skip("the point is one of test_kill.py")
    if store == "etcd":
        stage = stage.in_etcd(request.getfixturevalue("one_etcd"))
    every, seed = request.config.getoption("--kill") == "all", int(request.config.getoption("--seed"))
    draw = random.Random(f"{seed} {store}")
    keys = list(FLOWS) if every else draw.sample(list(FLOWS), FEW)
    matrix = play(stage, keys, chosen(request.config, draw))
    print(f"\n{matrix}")  # noqa: T201
    # The last hits of a clean run need not be there in another: observers' notes share a commit with others or not.
    assert sum(matrix.killed.values()) >= len(keys) // 2

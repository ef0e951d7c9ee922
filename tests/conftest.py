"""Fixtures for all tests."""

from __future__ import annotations

import os
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from support.etcd import Etcd
from support.world import World


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own; see `tests/kill/test_kill.py`."""
    default = "sample" if os.environ.get("CI") else "spread"
    choices = "all, sample, spread, or one like redeploy:kube.after:3"
    parser.addoption("--kill", default=default, help=f"kill points: {choices}")
    parser.addoption("--part", default="1/1", help="which part of all kill points, for instance 3/8")
    parser.addoption("--seed", type=int, default=random.randrange(1_000_000), help="what a sample is drawn by")
    parser.addoption("--steps", type=int, default=0, help="how many the model of the whole service takes (0: as in CI)")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Workers draw by the seed that the header names."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_configure(config: pytest.Config) -> None:
    """See above: a worker has drawn a seed of its own by now."""
    config.option.seed = getattr(config, "workerinput", {}).get("seed", config.option.seed)


# Whoever asks for one of these has a sandbox or a service: see `make test-fast`.
STARTED = frozenset(
    {"cluster", "sandbox", "world", "served", "deployer", "lab", "etcd", "one_etcd", "three_etcds", "playground"}
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as `fast` whatever needs neither sandbox nor service, and is not marked as slow; order the modules."""
    here = Path(__file__).parent
    for item in items:
        room = Path(item.path).relative_to(here).parts[0]
        if (
            room not in ("cluster", "kill", "sandbox")
            and not STARTED & set(getattr(item, "fixturenames", ()))
            and not item.get_closest_marker("slow")
        ):
            item.add_marker(pytest.mark.fast)
    if hasattr(config, "workerinput"):
        order = _order(items)
        items.sort(key=lambda item: order[item.path])


def _order(items: list[pytest.Item]) -> dict[Path, int]:
    """Modules are handed out in this order: none that is long is left for the end, nor are all of them run at once."""
    sizes = Counter(item.path for item in items)
    modules = [path for path, _ in sizes.most_common()]
    marked = {item.path for item in items if item.get_closest_marker("long")}
    others = iter([path for path in modules if path not in marked])
    found = [path for each in modules if each in marked for path in (each, *islice(others, 2))]
    return {path: number for number, path in enumerate([*found, *others])}


def pytest_report_header(config: pytest.Config) -> str:
    """How to draw the same sample again."""
    return f"--kill={config.getoption('--kill')} --seed={config.getoption('--seed')}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """One sandbox for all tests, each of which has a namespace of its own."""
    running = sandbox.start(tmp_path_factory.mktemp("sandbox"), ingress_delay=0.1)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def one_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One member, for all tests: each has a prefix of its own, and nobody stops it."""
    etcd = Etcd(tmp_path_factory.mktemp("etcd"))
    yield etcd
    etcd.close()


@pytest.fixture(scope="session")
def three_etcds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """A cluster of three members, for all tests: each has a prefix of its own, and nobody stops one."""
    etcd = Etcd(tmp_path_factory.mktemp("etcds"), members=3)
    yield etcd
    etcd.close()


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

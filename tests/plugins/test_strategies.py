"""The strategies that ship do what every strategy must; a sample of the crashes by `--seed`, all with `--kill=all`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.testing.strategies import CHECKS, CRASH_CHECKS, Check, StrategyBench

OPTIONS: dict[str, dict[str, Any]] = {
    "blue-green": {},
    "recreate": {},
    # With a second pod, and a pause in which it is parked.
    "canary": {"steps": [{"weight": 60, "pause": 1}]},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every strategy with every check; but those that try single writes each with one strategy, drawn by `--seed`,
    unless all of them are to be tried."""
    every, seed = metafunc.config.getoption("--kill") == "all", metafunc.config.getoption("--seed")
    chosen = [
        (check, strategy)
        for check in CHECKS
        for strategy in OPTIONS
        if every
        or check not in CRASH_CHECKS
        or strategy == random.Random(f"{seed} {check.__name__}").choice(list(OPTIONS))
    ]
    metafunc.parametrize(("check", "strategy"), chosen, ids=[f"{check.__name__}-{name}" for check, name in chosen])


@pytest.mark.timeout(3600)
def test_a_strategy_that_ships(
    check: Check, strategy: str, cluster: sandbox.Sandbox, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    points = 0 if pytestconfig.getoption("--kill") == "all" else 1
    seed = pytestconfig.getoption("--seed")
    check(StrategyBench(cluster, tmp_path, strategy, OPTIONS[strategy], points=points, seed=seed))

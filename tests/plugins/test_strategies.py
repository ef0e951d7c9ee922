"""The strategies that ship do what every strategy must; a sample of the crashes by `--seed`, all with `--kill=all`."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer import sandbox
from deployer.testing.strategies import CHECKS, Check, StrategyBench


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("strategy", ["blue-green", "recreate"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_strategy_that_ships(
    check: Check, strategy: str, cluster: sandbox.Sandbox, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    points = 0 if pytestconfig.getoption("--kill") == "all" else 1
    check(StrategyBench(cluster, tmp_path, strategy, points=points, seed=pytestconfig.getoption("--seed")))

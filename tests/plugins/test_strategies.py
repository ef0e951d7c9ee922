"""The strategies that ship do what every strategy must; a sample of the crashes by `--seed`, all with `--kill=all`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.testing.strategies import CHECKS, Check, StrategyBench

OPTIONS: dict[str, dict[str, Any]] = {
    "blue-green": {},
    "recreate": {},
    # With a second pod, and a pause in which it is parked.
    "canary": {"steps": [{"weight": 60, "pause": 1}]},
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("strategy", OPTIONS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_strategy_that_ships(
    check: Check, strategy: str, cluster: sandbox.Sandbox, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    points = 0 if pytestconfig.getoption("--kill") == "all" else 1
    seed = pytestconfig.getoption("--seed")
    check(StrategyBench(cluster, tmp_path, strategy, OPTIONS[strategy], points=points, seed=seed))

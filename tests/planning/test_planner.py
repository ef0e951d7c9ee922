"""Numbers that a plan pins."""

from __future__ import annotations

from typing import Any

from deployer.planning.planner import Planner
from deployer.settings import Settings


def test_the_descriptor_says_how_long_pods_may_take_to_start_else_the_settings() -> None:
    unused: dict[str, Any] = dict.fromkeys(("store", "registry", "versions", "handles"))
    planner = Planner(settings=Settings(start_timeout=300.0), **unused)
    assert planner.budgets({"timeoutSeconds": 7})["START"] == 7.0
    assert planner.budgets({})["START"] == 300.0

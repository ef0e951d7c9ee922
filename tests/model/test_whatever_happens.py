"""Whatever happens to operations, at whatever moment: what is promised holds, and everything comes to its end.

`support/simulation.py` has the world, `support/simulation_checks.py` the promises. `make test-long` takes a million
decisions of the state machine instead of some ten thousand; a failure prints its story and the bytes that lead there.
"""

from __future__ import annotations

import typing
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deployer.core.operations.actions import Action
from support.simulation import World

DECISIONS = 150
"""Of the state machine, that a string of bytes makes on average, at least."""

SAMPLE = 20_000
"""Decisions that everybody tests; some seconds."""

LONG = 1_000_000
"""Decisions of `make test-long`; some minutes."""


@pytest.mark.timeout(3600)
def test_whatever_happens_all_promises_hold(request: pytest.FixtureRequest) -> None:
    wanted = LONG if request.config.getoption("--kill") == "all" else SAMPLE
    met: Counter[str] = Counter()

    # Bytes of one length: those at the end decide nothing bad once they are zero, which is what shrinking makes them.
    @settings(
        max_examples=wanted // DECISIONS,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(min_size=400, max_size=400))
    def play(data: bytes) -> None:
        world = World(data)
        world.play()
        met.update(world.met)

    play()
    actions = {action.__name__ for action in typing.get_args(Action)}
    assert sum(met[name] for name in actions) > wanted // 2
    rare = {"Condemn", "Rest"} if wanted == SAMPLE else set()
    assert {name for name in [*actions, "parked for an event", "Park", "Failed", "Succeeded"] if not met[name]} <= rare

"""Pauses between attempts grow to their limit and no further."""

from __future__ import annotations

import pytest

from deployer.core.backoff import Backoff


def test_pauses_double_up_to_the_limit() -> None:
    backoff = Backoff(first=0.25, most=5.0)
    assert [backoff.after(failures) for failures in range(1, 8)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_growth_can_be_slower() -> None:
    backoff = Backoff(first=0.1, most=1.0, growth=1.5)
    assert backoff.after(3) == pytest.approx(0.225)


@pytest.mark.parametrize("failures", [-1, 0, 1])
def test_there_is_no_pause_shorter_than_the_first(failures: int) -> None:
    assert Backoff(first=2.0, most=60.0).after(failures) == 2.0


def test_failing_for_ever_is_no_problem() -> None:
    assert Backoff(first=1.0, most=60.0).after(10**9) == 60.0


def test_a_first_pause_above_the_limit_is_cut() -> None:
    assert Backoff(first=9.0, most=5.0).after(1) == 5.0


def test_a_spread_is_around_the_pause_and_differs() -> None:
    backoff = Backoff(first=1.0, most=4.0, spread=(0.8, 1.2))
    drawn = {backoff.after(9) for _ in range(50)}
    assert len(drawn) > 1
    assert all(3.2 <= pause <= 4.8 for pause in drawn)

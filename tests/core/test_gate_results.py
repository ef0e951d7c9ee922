"""What is kept of a gate's measurements: the first, the last and those that failed, within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.core.model.gates import GateResult, GateResults
from deployer.core.model.gates.results import MOST_BYTES
from deployer.core.model.json_codec import dumps


def measured(n: int, verdict: str = "passed", size: int = 1) -> dict[str, Any]:
    return {"time": float(n), "name": "", "value": f"{n}" + "x" * size, "threshold": "", "verdict": verdict}


def kept(*found: dict[str, Any], most: int = MOST_BYTES, at_once: int = 1) -> GateResult:
    result = GateResult(step="s", point="beforeStart", type="t", name="n")
    for n in range(0, len(found), at_once):
        result = result.with_measurements(found[n : n + at_once], most)
    return result


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_first_the_last_and_every_one_that_failed(at_once: int) -> None:
    found = [measured(n, "failed" if n % 50 == 0 else "passed") for n in range(1, 501)]
    result = kept(*found, at_once=at_once)
    times = [int(one["time"]) for one in result.measurements]
    failed = [n for n in range(11, 491) if n % 50 == 0]
    assert times == [*range(1, 11), *failed, *range(491, 501)]
    assert result.measured == 500


def test_the_oldest_in_the_middle_go_when_it_is_too_much() -> None:
    result = kept(*(measured(n, "failed", size=500) for n in range(1, 1001)))
    times = [int(one["time"]) for one in result.measurements]
    assert times[:10] == [*range(1, 11)]
    assert times[10:] == [*range(1001 - len(times[10:]), 1001)]
    assert sum(len(dumps(one)) for one in result.measurements) <= MOST_BYTES


@pytest.mark.parametrize("most", [0, 1, 100, 2000])
def test_with_hardly_any_room_the_last_one_is_left(most: int) -> None:
    result = kept(*(measured(n, "failed", size=500) for n in range(1, 101)), most=most)
    assert result.measurements[-1]["time"] == 100.0
    assert result.measured == 100


def test_all_gates_of_a_deployment_share_the_room() -> None:
    entries = tuple(GateResult(step=f"s{n}", point="beforeStart", type="t", name="n") for n in range(30))
    record = GateResults(namespace="shop", app="cart", deployment="d1", entries=entries)
    for entry in entries:
        for n in range(200):
            filled = record.of(entry.step).with_measurements([measured(n, "failed", size=100)], record.room)
            record = record.with_entry(filled)
    assert sum(len(dumps(one)) for entry in record.entries for one in entry.measurements) <= MOST_BYTES
    assert all(entry.measurements for entry in record.entries)

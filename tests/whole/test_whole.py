"""The service as a whole, whatever its users, its cluster, its disk and its machine do: a model that Hypothesis drives.

Each run is a process of the service on a sandbox, in namespaces of its own and behind a proxy that misbehaves. Rules do
not wait: four apps are deployed, fail, are rolled back and undeployed at once, while the process dies at some write,
the API server refuses, the disk is full, somebody edits objects. From time to time, and at the end, the trouble is
over; then everything comes to rest, and all is checked (`support/whole_model.py`), every state of the cluster in
between included.

Threads and processes are real, so the same steps may go another way. A failure prints what was done, as calls that can
be put into a test of their own, with the service's log. `make model` runs for longer.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from support.whole_machine import play

AT_ONCE = 4
"""Processes that play: most of a run is waiting."""

SAMPLE = 2000
"""Steps that everybody tests."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_whatever_happens_to_it_all_promises_hold(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    wanted = int(request.config.getoption("--steps")) or SAMPLE
    seed = int(request.config.getoption("--seed"))
    # Processes, for Hypothesis draws one machine at a time in each.
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        playing = [pool.submit(play, tmp_path / str(n), seed + n, -(-wanted // AT_ONCE)) for n in range(AT_ONCE)]
        failures = [str(error) for each in playing if (error := each.exception())]
        played = [each.result() for each in playing if not each.exception()]
    if failures:
        pytest.fail(f"--seed={seed}\n\n" + "\n\n".join(failures), pytrace=False)
    steps: Counter[str] = sum((one.steps for one in played), Counter())
    seconds = {name: sum(one.seconds.get(name, 0.0) for one in played) for name in steps}
    told = ", ".join(f"{name} {count} ({seconds[name]:.0f} s)" for name, count in steps.most_common())
    print(f"{steps.total()} steps: {told}")  # noqa: T201
    assert steps.total() >= wanted

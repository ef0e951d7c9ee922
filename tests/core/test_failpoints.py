"""Failpoints count, kill at the chosen hit, and cost nothing when they are not asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core import failpoints
from deployer.core.errors import SettingsError


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    failpoints.configure({})
    yield
    failpoints.configure({})


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from deployer.core import failpoints\n" + code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_is_counted_unless_asked(tmp_path: Path) -> None:
    failpoints.hit("a")
    failpoints.report()
    assert failpoints.counts() == {}
    assert list(tmp_path.iterdir()) == []


def test_hits_are_counted_across_threads_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    failpoints.configure({"DEPLOYER_FAILPOINT_COUNT": str(path)})

    def work() -> None:
        for _ in range(500):
            failpoints.hit("a")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failpoints.hit("b")
    assert failpoints.counts() == {"a": 4000, "b": 1}
    failpoints.report()
    assert json.loads(path.read_text()) == {"a": 4000, "b": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_configuring_again_starts_from_zero(tmp_path: Path) -> None:
    environ = {"DEPLOYER_FAILPOINT_COUNT": str(tmp_path / "counts.json")}
    failpoints.configure(environ)
    failpoints.hit("a")
    failpoints.configure(environ)
    assert failpoints.counts() == {}


def test_the_process_dies_at_the_chosen_hit_without_cleaning_up() -> None:
    code = """
import atexit
atexit.register(print, "cleaned up")
for number in range(5):
    failpoints.hit("b")
    failpoints.hit("a")
    print(number, flush=True)
"""
    died = run(code, DEPLOYER_FAILPOINT="a:3")
    assert died.returncode == 137
    assert died.stdout.split("\n") == ["0", "1", ""]


def test_a_hit_that_is_never_reached_changes_nothing() -> None:
    assert run("failpoints.hit('a')", DEPLOYER_FAILPOINT="a:2").returncode == 0


def test_the_counts_are_written_at_exit_and_at_death(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    code = "for _ in range(5): failpoints.hit('a')"
    assert run(code, DEPLOYER_FAILPOINT_COUNT=str(path)).returncode == 0
    assert json.loads(path.read_text()) == {"a": 5}
    assert run(code, DEPLOYER_FAILPOINT_COUNT=str(path), DEPLOYER_FAILPOINT="a:2").returncode == 137
    assert json.loads(path.read_text()) == {"a": 2}


def test_a_forked_child_can_be_armed_on_its_own() -> None:
    code = """
import os
child = os.fork()
if child == 0:
    failpoints.configure({"DEPLOYER_FAILPOINT": "a:1"})
    failpoints.hit("a")
    os._exit(0)
failpoints.hit("a")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code).stdout == "137\n"


@pytest.mark.parametrize("value", ["a", "a:", ":1", "a:0", "a:-1", "a:x", "a:²"])
def test_a_malformed_failpoint_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="name:N"):
        failpoints.configure({"DEPLOYER_FAILPOINT": value})

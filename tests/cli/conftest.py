"""The command `deployer` as its users run it: a process, with an environment of its own, that is gone afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Deployer, running_in


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As of a new user: nothing of the one who runs the tests."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONWARNINGS": "error"}


@pytest.fixture
def deployer(environment: dict[str, str], tmp_path: Path) -> Iterator[Deployer]:
    """The command. No process of its own may be left in the end, nor one that it started."""
    made = Deployer(environment)
    yield made
    for process in made.processes:
        process.close()
    left = running_in(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "processes are left behind"

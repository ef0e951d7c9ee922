"""What `make soak` measures for thousands of deployments, for a few: that it works, and that nothing grows already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "bench" / "soak.py"


@pytest.mark.slow
def test_a_few_dozen_deployments_leave_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, SOAK, "--deployments", "32", "--apps", "4", "--keep", "2", "--samples", "8"]
    done = subprocess.run([*command, "--dir", tmp_path], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    head, *rows, verdict = done.stdout.splitlines()
    assert verdict == "nothing grows"
    last = dict(zip(head.split(), rows[-1].split(), strict=True))
    assert last["deployments"] == "32"
    # Of each app: itself, what is live with its plan and its operation, two that ended, and what hangs on them.
    assert int(last["records"]) <= 4 * 20
    assert list(tmp_path.iterdir()) == []

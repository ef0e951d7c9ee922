"""The report of measurements: the figures that it has are those that were measured, and what was not is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="needs what `make .venv/.bench` installs")

ROOT = Path(__file__).resolve().parents[2]
RAW = Path(__file__).parent / "raw"
PROGRAM = ROOT / "bench" / "make_report.py"
SVG = "{http://www.w3.org/2000/svg}"


def make(into: Path, *arguments: str, code: int = 0) -> str:
    """The report, made by the program itself on a machine without a cluster."""
    command = [sys.executable, str(PROGRAM), "--into", str(into), *arguments]
    own = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return (into / "report.md").read_text()


def prose(text: str) -> str:
    """Without the ends of its lines."""
    return " ".join(text.split())


def section(report: str, title: str) -> str:
    """One of its sections."""
    return report.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on the few figures beside this file."""
    into = tmp_path_factory.mktemp("drawn")
    shutil.copytree(RAW, into / "report")
    make(into, "--draw")
    return into


def words(plot: Path) -> set[str]:
    """The texts in a plot."""
    return {"".join(text.itertext()) for text in ElementTree.parse(plot).iter(f"{SVG}text")}


def test_overhead_stands_beside_a_bare_switch(drawn: Path) -> None:
    found = section((drawn / "report.md").read_text(), "Overhead of a deployment")
    assert "| 1 | 650 | 980 | 5 | 9 | 12.5 | 83 | 92 |\n" in found
    assert "| 20 | 1900 | 2345 | 20 | 30 | 8.2 | 100 | 102 |\n" in found
    assert "1: create 9.5, get 3.0; 20: create 6.0, get 2.2." in prose(found)
    assert {"Deployer, median", "bare selector switch, most", "20"} <= words(drawn / "report/cluster.svg")


def test_rest_stands_against_what_is_stored_and_viewers_are_told(drawn: Path) -> None:
    found = section((drawn / "report.md").read_text(), "REST and viewers")
    assert "| one deployment | 100 | 4,321 | 1.2 | 4.9 |\n" in found
    assert "| an app's 20 deployments | 100,000 | 1,778 | 3.1 | 11.2 |\n" in found
    assert "| 20 lines a second | 1,000 | 21 | 47 |\n" in found
    assert {"one deployment", "an app's 20 deployments"} <= words(drawn / "report/api.svg")


def test_failed_requests_are_counted_by_switch(drawn: Path) -> None:
    found = section((drawn / "report.md").read_text(), "Failed requests")
    assert "| nginx versioned, calm | 4 | 12,345 | 0 | 0.0 | 0 | 0.35 |\n" in found
    assert "| gateway, hasty | 1 | 900 | 27 | 27.0 | 2 | 0.50 |\n" in found
    assert {"nginx versioned, calm", "27.0"} <= words(drawn / "report/switch.svg")


def test_memory_rollbacks_and_recovery_have_their_figures(drawn: Path) -> None:
    report = (drawn / "report.md").read_text()
    memory = section(report, "Memory over time")
    assert "| 80 | 117 | 41 | 36 | 1.6 |\n" in memory
    assert "the last one: records grew from 208.0 to 408.0." in memory
    assert "| 20 | 3 | 300 | 450 |\n" in section(report, "Rollback")
    recovery = section(report, "Recovery of one process")
    assert "| REST answers | 1.60 | 1.75 | 3 |\n| all 8 deployments have ended | 2.50 | 3.50 | 3 |\n" in recovery
    assert {"1.60", "3.50"} <= words(drawn / "report/recovery.svg")


def test_a_part_says_where_it_comes_from_or_why_it_is_missing(drawn: Path) -> None:
    report = (drawn / "report.md").read_text()
    source = "*`bench/api.py`, 2026-01-02 03:04 UTC, commit 0123456789, 2 cores (x86_64), 8 GiB, Python 3.11.2; 61 s, "
    assert f"{source}load 0.2 before and 1.5 after.*" in prose(section(report, "REST and viewers"))
    assert "1.5 after; a build ran beside it.*" in prose(section(report, "Memory over time"))
    takeover = section(report, "Takeover between replicas")
    assert "Not measured: it needs a Kubernetes, and KUBECONFIG names none.\n" in takeover
    assert "![" not in takeover


def test_every_plot_that_is_named_is_there_and_the_same_each_time(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(RAW, tmp_path / "report")
    again = make(tmp_path, "--draw")
    assert again == (drawn / "report.md").read_text()
    plots = {file.name: file.read_bytes() for file in (drawn / "report").glob("*.svg")}
    assert plots == {file.name: file.read_bytes() for file in (tmp_path / "report").glob("*.svg")}
    named = {line.rpartition("/")[2].rstrip(")") for line in again.splitlines() if line.startswith("![")}
    assert named == set(plots)
    assert len(plots) == 6


def test_old_figures_do_not_outlive_a_run_without_a_cluster(tmp_path: Path) -> None:
    shutil.copytree(RAW, tmp_path / "report")
    make(tmp_path, "--draw")
    report = make(tmp_path, "--only", "cluster")
    assert "Not measured: it needs a Kubernetes, and KUBECONFIG names none." in section(
        report, "Overhead of a deployment"
    )
    assert not (tmp_path / "report/cluster.json").exists()
    assert not (tmp_path / "report/cluster.svg").exists()
    assert "| one deployment | 100 | 4,321 |" in report  # the others are kept


def test_the_report_here_is_made_of_the_figures_beside_it(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bench/report", tmp_path / "report")
    assert make(tmp_path, "--draw") == (ROOT / "bench/report.md").read_text()
    for file in (tmp_path / "report").glob("*.json"):
        assert json.loads(file.read_text())

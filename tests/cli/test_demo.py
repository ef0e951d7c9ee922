"""`deployer demo` as a process: the numbers, the exit code, and that nothing stays behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from deployer.cli.sandbox import demo, sample
from deployer.cli.sandbox.screen import Screen
from deployer.client.configuration import Profile
from deployer.client.connection import Connection
from deployer.client.service import Service
from deployer.sandbox import Report, Sandbox


@pytest.mark.slow
def test_the_demo_loses_nothing(deployer: Any, tmp_path: Path) -> None:
    process = deployer.start("demo")
    said = process.rest("out")
    assert process.child.wait(60) == 0, said + process.rest("err")
    assert process.rest("err") == ""
    found = re.search(r"requests +(\d+) sent, 0 failed", said)
    assert found is not None, said
    counts = dict(re.findall(r"version (\d): (\d+)", said))
    assert set(counts) == {"1", "2"}
    assert sum(map(int, counts.values())) == int(found[1])
    assert "version 2 still serving" in said
    assert re.search(r"version 3 +refused, Unhealthy: .*healthy: false", said)
    assert "\x1b" not in said
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cleans_up(deployer: Any, tmp_path: Path, number: int) -> None:
    process = deployer.start("demo")
    process.line("created shop-1")
    assert process.end(number) == 130
    assert process.rest("err").strip() == ""
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_interrupt_of_the_start_leaves_no_sandbox(deployer: Any, tmp_path: Path) -> None:
    process = deployer.start("demo")
    process.line("Starting the sandbox")
    assert process.end(signal.SIGINT) == 130
    assert list((tmp_path / "tmp").iterdir()) == []


# --- what counts as wrong -----------------------------------------------------------------------------------------


def report(**more: Any) -> Report:
    """A good one, but for what is given."""
    values: dict[str, Any] = {"sent": 30, "answered": 30, "failed": 0, "failures": {}, "by_version": {"1": 10, "2": 20}}
    values |= {"first_seen": {}, "last_seen": {}, "timeline": [], "latency_p50": 0.0, "latency_p99": 0.0, "began": 0.0}
    return Report(**values | more)


@pytest.fixture
def play(cluster: Sandbox) -> demo.Play:
    """One that went well."""
    made = demo.Play(
        Screen(), Service(Connection(Profile(server="http://127.0.0.1:1")), sample.NAMESPACE), cluster, 1.0
    )
    made.ended = [{"status": "UNDEPLOYED"}, {"status": "DEPLOYED"}, {"status": "FAILURE"}]
    made.ended[2]["failure"] = {"reason": "Unhealthy", "message": "no"}
    made.serving = "2"
    made._report = report()
    return made


def test_a_good_play_is_good(play: demo.Play) -> None:
    assert play.wrong() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_report": report(answered=29, failed=1, failures={"HTTP 502": 1})}, "HTTP 502"),
        ({"_report": report(sent=31)}, "of 31 requests 30 were answered"),
        ({"_report": report(by_version={"1": 10, "2": 19, "3": 1})}, "answers came from version 3"),
        ({"ended": [{"status": "DEPLOYED"}] * 3}, "the deployments are DEPLOYED, DEPLOYED, DEPLOYED"),
        ({"serving": "1"}, "version 1 answers in the end"),
    ],
)
def test_whatever_is_wrong_is_said(play: demo.Play, change: dict[str, Any], said: str) -> None:
    for name, value in change.items():
        setattr(play, name, value)
    assert any(said in sentence for sentence in play.wrong())


def test_what_is_left_behind_is_said(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "NAMESPACE", world.namespace)
    first = world.deployed(frontend="left.example.com")
    wrong = demo.left_behind(world.eyes, first.id)
    assert any("shop-1" in sentence for sentence in wrong)
    assert any("pods in the end: of version 1" in sentence for sentence in wrong)

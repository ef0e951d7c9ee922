"""The command in a terminal: a live picture, colours, Ctrl-C, and lines that fit."""

from __future__ import annotations

import re
import signal
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from deployer.client.following.live import LiveView
from support.command import COMMAND, PATIENCE, Rest

from .conftest import Open, Run, shop


def longest(text: str) -> int:
    return max(len(line) for line in re.split(r"[\r\n]+", text))


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_a_deployment_is_a_picture_that_fits_and_a_summary_that_stays(
    terminal: Open, service: Rest, columns: int, rows: int
) -> None:
    gates = "{beforeSwitch: [{type: approval, name: release}]}"
    Path("shop.yaml").write_text(shop(gates=gates))
    shown = terminal("deploy", "shop.yaml", columns=columns, rows=rows)
    shown.until("waits for a decision about gate release")
    assert longest(shown.plain.split("in namespace")[-1]) <= columns
    assert re.search(r"▸ gate:beforeSwitch:release +[0-9.]+ s +[0-9][^\r\n]* left, ", shown.plain)
    assert "✓ await-ready" in shown.plain and "▸ gate:beforeSwitch:release" in shown.plain
    (deployment,) = service.call("GET", "/deployments/")[1]
    assert service.call("POST", f"/deployments/{deployment['id']}/approval/", {"approve": True})[0] == 200
    assert shown.end() == 0
    last = [line for line in re.split(r"[\r\n]+", shown.plain) if line.strip()][-1]
    assert f"shop version 1 is live (deployment {deployment['id']})"[-40:] in last
    assert "\x1b[?25h" in shown.text  # the cursor is back


def test_a_line_of_the_log_is_cut_while_it_is_drawn_and_whole_when_it_stays() -> None:
    console = Console(file=StringIO(), width=40, height=24, color_system=None)
    view = LiveView(console=console)
    view.show({"id": "1", "appName": "shop", "status": "FAILURE", "steps": []}, None)
    reason = "failed: container web was restarted 3 times, it ended with exit code 3"
    view.log(f"2026-01-01T10:00:00.000Z {reason}")
    console.print(view.picture())
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "10:00:00 failed: container web was re…\n" in drawn
    view.__exit__(None, None, None)
    stays = console.file.getvalue()[len(drawn) :]  # type: ignore[attr-defined]
    assert reason in " ".join(stays.replace("10:00:00", "").split())
    assert max(map(len, stays.splitlines())) <= 40


@pytest.mark.slow
def test_ctrl_c_leaves_it_running_and_says_how_to_come_back(terminal: Open, service: Rest) -> None:
    Path("shop.yaml").write_text(shop(gates="{beforeStart: [{type: approval, name: release}]}"))
    shown = terminal("deploy", "shop.yaml", columns=200)
    shown.until("waits for a decision")
    shown.type("\x03")
    assert shown.end() == 130
    (deployment,) = service.call("GET", "/deployments/")[1]
    assert f"deployer wait {deployment['id']} -n {service.namespace}" in shown.plain
    assert deployment["status"] == "DEPLOYING" and "Traceback" not in shown.plain


def test_ctrl_c_in_a_pipe_says_the_same(service: Rest, run: Run) -> None:
    Path("shop.yaml").write_text(shop(gates="{beforeStart: [{type: approval, name: release}]}"))
    assert run("deploy", "shop.yaml").code == 6
    arguments = [COMMAND, "wait", "shop", "--keep-waiting"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None and child.stdout is not None
        for line in child.stderr:
            if "approval by a person" in line:
                break
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stdout.read() == "" and "comes back to it" in child.stderr.read()


def test_tables_fit_and_colours_are_left_out_when_nobody_wants_them(
    terminal: Open, run: Run, service: Rest, environment: pytest.MonkeyPatch
) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("deploy", "shop.yaml").code == 0
    for arguments in (("status",), ("history", "shop"), ("get", "deployments"), ("get", "descriptors")):
        shown = terminal(*arguments)
        assert shown.end() == 0
        assert longest(shown.plain) <= 80 and "\x1b[1m" in shown.text
    environment.setenv("NO_COLOR", "1")
    shown = terminal("status")
    assert shown.end() == 0 and "\x1b" not in shown.text


def test_undeploying_asks_a_person_first(terminal: Open, run: Run, service: Rest) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("deploy", "shop.yaml").code == 0
    shown = terminal("undeploy", "shop")
    shown.until("Remove version 1 of shop?")
    shown.type("n\n")
    assert shown.end() == 130
    assert service.call("GET", "/deployments/")[1][0]["status"] == "DEPLOYED"


def test_a_reader_that_has_seen_enough_is_no_error(service: Rest, run: Run) -> None:
    Path("shop.yaml").write_text(shop())
    assert run("deploy", "shop.yaml").code == 0
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} logs shop | head -n 1"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert "queued: deployment of shop" in done.stdout and done.stderr == ""

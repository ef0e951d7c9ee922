"""What a deployment's document means for somebody who waits."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.client.errors import ExitCode
from deployer.client.following import state
from deployer.client.following.state import Goal


def deployment(status: str = "DEPLOYING", steps: str = "", **more: Any) -> dict[str, Any]:
    """`steps` like `prepare-route+ switch-route>`: done, running, `.` pending."""
    phases = {"await-endpoints": "EXPOSE", "prepare-route": "EXPOSE", "switch-route": "EXPOSE", "await-ready": "START"}
    states = {"+": "done", ">": "running", ".": "pending", "-": "failed"}
    found = [
        {"id": step[:-1], "phase": phases.get(step[:-1], "CONFIRM"), "state": states[step[-1]]}
        for step in steps.split()
    ]
    return {"id": "x", "appName": "shop", "version": "2", "status": status, "steps": found, **more}


LIVE = {"live": {"deployment": "x"}}
WARM = LIVE | {"warm": {"deployment": "w"}}


@pytest.mark.parametrize(
    ("goal", "found", "app", "reached"),
    [
        (Goal.LIVE, deployment(), None, False),
        (Goal.LIVE, deployment("DEPLOYED"), None, True),
        (Goal.RETIRED, deployment("DEPLOYED"), WARM, False),
        (Goal.RETIRED, deployment("DEPLOYED"), LIVE, True),
        (Goal.RETIRED, deployment("DEPLOYED"), None, False),
        (Goal.PREVIEW, deployment(steps="await-ready+ prepare-route> switch-route."), None, False),
        (Goal.PREVIEW, deployment(steps="await-ready+ prepare-route+ switch-route."), None, True),
        (Goal.PREVIEW, deployment(steps="prepare-route+ check-preview> switch-route."), None, False),
        (Goal.PREVIEW, deployment("DEPLOYED"), None, True),
        (Goal.SWITCHED, deployment(steps="await-endpoints+ switch-route> confirm-route. move-service."), None, False),
        (Goal.SWITCHED, deployment(steps="await-endpoints+ switch-route+ confirm-route+ move-service>"), None, False),
        (Goal.SWITCHED, deployment(steps="await-endpoints+ switch-route+ move-service+ soakSeconds>"), None, True),
        (Goal.SWITCHED, deployment(steps="await-ready>"), None, False),
        (Goal.SWITCHED, deployment("FAILURE", "switch-route+ move-service+"), None, False),
    ],
)
def test_goals(goal: Goal, found: dict[str, Any], app: dict[str, Any] | None, reached: bool) -> None:
    assert state.reached(goal, found, app) == reached


@pytest.mark.parametrize(
    ("found", "outcome", "code", "said"),
    [
        (deployment(), "", None, ""),
        (deployment("UNDEPLOYING"), "", None, ""),
        (deployment("UNDEPLOYING"), "rolledback", None, ""),
        (deployment("UNDEPLOYING"), "cancelled", ExitCode.FAILED, "was cancelled"),
        (deployment("UNDEPLOYED", undeployedBy="ann"), "cancelled", ExitCode.FAILED, "was cancelled by ann"),
        (deployment("UNDEPLOYED"), "upgraded", ExitCode.DONE, "was live, and has been replaced or removed since"),
        (
            deployment("FAILURE", failure={"reason": "Unhealthy", "message": "no", "hint": "look"}),
            "",
            ExitCode.FAILED,
            "failed (Unhealthy): no; look",
        ),
        (
            deployment("FAILURE", failure={"reason": "RolledBack", "message": "rolled back to version 1"}),
            "",
            ExitCode.FAILED,
            "was rolled back to version 1",
        ),
        (
            deployment("FAILURE", failure={"reason": "AlreadyLive", "message": "x"}),
            "",
            ExitCode.DONE,
            "is live already",
        ),
        (deployment("FAILURE"), "", ExitCode.FAILED, "failed (failed): see its log"),
    ],
)
def test_ends(found: dict[str, Any], outcome: str, code: ExitCode | None, said: str) -> None:
    over = state.ended(found, outcome)
    assert (over and over.exit_code) == code
    assert over is None or over.sentence == f"shop version 2 {said}"


def test_who_has_to_act() -> None:
    gate = {"name": "a", "waitsForApproval": True, "reason": "approval by a person"}
    assert state.needs_person(deployment(gates=[gate])) == "waits for a decision about gate a: approval by a person"
    assert state.needs_person(deployment(gates=[gate | {"waitsForApproval": False}])) == ""
    assert state.needs_person(deployment("UNDEPLOYING", held="the store disagrees")) == "is held: the store disagrees"

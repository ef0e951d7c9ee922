"""What a deployment's document says: whether a goal is reached, can still be, and what it waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployer.client.errors import ExitCode

Document = Mapping[str, Any]


class Goal(StrEnum):
    """What a deployment can be followed to, in the order in which it comes."""

    PREVIEW = "preview"
    SWITCHED = "switched"
    LIVE = "live"
    RETIRED = "retired"


MEANINGS = {
    Goal.PREVIEW: "the new version answers under its preview host",
    Goal.SWITCHED: "requests go to the new version, which may still be taken back",
    Goal.LIVE: "it is DEPLOYED",
    Goal.RETIRED: "it is live, and the version that it replaced is removed",
}

ALREADY_LIVE = "AlreadyLive"
"""The reason of a deployment that had nothing to do: that version was live, from the same descriptor."""

_PREVIEW_STEPS = ("check-preview", "prepare-route")  # the first of them that there is
_LAST_MOVE = "move-service"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How following ended. `sentence` says it to a person, without the name of the app in front."""

    exit_code: ExitCode
    sentence: str
    deployment: dict[str, Any]
    reached: bool = False


def name(deployment: Document) -> str:
    """`shop version 2`, or `shop` before it has one."""
    app = deployment.get("appName") or deployment.get("descriptor", {}).get("appName", "the app")
    return f"{app} version {deployment['version']}" if deployment.get("version") else str(app)


def reached(goal: Goal, deployment: Document, app: Document | None) -> bool:
    """Is it so? `app` is needed for RETIRED alone."""
    status = deployment["status"]
    if goal is Goal.PREVIEW and _preview_is_there(deployment):
        return True
    if goal in (Goal.PREVIEW, Goal.SWITCHED) and _switched(deployment):
        return True
    if status != "DEPLOYED":
        return False
    if goal is not Goal.RETIRED:
        return True
    return app is not None and "warm" not in app


def impossible(goal: Goal, deployment: Document, app: Document | None) -> str:
    """Why the goal has no meaning for this deployment; empty when it has. `app` is needed for PREVIEW alone."""
    if goal is not Goal.PREVIEW or deployment["status"] != "DEPLOYING":
        return ""
    steps = _steps(deployment)
    without = steps and not any(id in steps for id in _PREVIEW_STEPS)
    if without or (_preview_is_there(deployment) and app is not None and not app.get("previewHosts")):
        return "has no preview: that takes a `frontend`, and a preview host in the service's settings"
    return ""


def ended(deployment: Document, outcome: str) -> Outcome | None:
    """How it ended without being live now; None while it may still come to it.

    outcome   of its deployment in the app's history; empty when that is not known
    """
    status, called = deployment["status"], name(deployment)
    if status == "FAILURE":
        failure = deployment.get("failure") or {}
        hint = f"; {failure['hint']}" if failure.get("hint") else ""
        reason = failure.get("reason", "failed")
        message = failure.get("message", "see its log")
        if reason == ALREADY_LIVE:
            return Outcome(ExitCode.DONE, f"{called} is live already", dict(deployment), reached=True)
        verb = "was" if reason == "RolledBack" else f"failed ({reason}):"  # its message begins with "rolled back"
        sentence = f"{called} {verb} {message}{hint}"
        return Outcome(ExitCode.FAILED, sentence, dict(deployment))
    if (status, outcome) == ("UNDEPLOYING", "rolledback"):
        return None  # the history was read after the document, in which the rollback had not ended yet
    if status in ("UNDEPLOYING", "UNDEPLOYED"):
        if outcome in ("deployed", "upgraded", "rolledback", "replaced", "removed"):
            gone = "was live, and has been replaced or removed since"
            return Outcome(ExitCode.DONE, f"{called} {gone}", dict(deployment), reached=True)
        if status == "UNDEPLOYED" or outcome == "cancelled":
            who = f" by {deployment['undeployedBy']}" if deployment.get("undeployedBy") else ""
            return Outcome(ExitCode.FAILED, f"{called} was cancelled{who}", dict(deployment))
    return None


def outcome_of(history: Iterable[Document], id: str) -> str:
    """How the deployment with that id ended, as its app's history has it; empty when it is not in there."""
    found = [e for e in history if e["deployment"] == id and e["what"] in ("deployment", "rollback")]
    return str(found[0].get("outcome", "")) if found else ""


def needs_person(deployment: Document) -> str:
    """What a person has to do before it can go on; empty when nobody has to."""
    if deployment.get("held"):
        return f"is held: {deployment['held']}"
    if deployment["status"] != "DEPLOYING":
        return ""
    for gate in deployment.get("gates") or ():
        if gate.get("waitsForApproval"):
            return f"waits for a decision about gate {gate['name']}: {gate.get('reason') or 'approval by a person'}"
    return ""


def _steps(deployment: Document) -> dict[str, Document]:
    return {step["id"]: step for step in deployment.get("steps") or ()}


def _done(step: Document | None) -> bool:
    return step is not None and step["state"] == "done"


def _preview_is_there(deployment: Document) -> bool:
    steps = _steps(deployment)
    return _done(next((steps[id] for id in _PREVIEW_STEPS if id in steps), None))


def _switched(deployment: Document) -> bool:
    if deployment["status"] != "DEPLOYING":
        return bool(deployment["status"] == "DEPLOYED")
    steps = _steps(deployment)
    exposing = [step for step in steps.values() if step.get("phase") == "EXPOSE"]
    moved = _LAST_MOVE not in steps or _done(steps[_LAST_MOVE])
    return bool(exposing) and all(map(_done, exposing)) and moved

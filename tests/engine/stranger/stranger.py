"""A stranger's plugin: a strategy of nine steps, a health checker, an injector, an observer, settings of its own.

It knows nothing of the Deployer but `deployer.sdk`. STRANGER_KILL=`step:run:after` (or `undo`, or `before`) ends the
process there, without any clean-up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployer.sdk.environment import EnvContext, EnvInjector
from deployer.sdk.errors import StepFailed
from deployer.sdk.health import HealthChecker, HealthTarget, Verdict
from deployer.sdk.kube import CONFIG_MAP
from deployer.sdk.plugin import Document, PluginSettings, Problem, hookimpl
from deployer.sdk.strategy import (
    AwaitEndpoints,
    AwaitReady,
    Done,
    MoveService,
    Outcome,
    Park,
    Phase,
    Plan,
    StartWorkload,
    Step,
    Strategy,
    VerifyHealth,
    Work,
)

ROLE = "versioned-announcement"


def die(point: str) -> None:
    """End this process if it was told to end here."""
    if os.environ.get("STRANGER_KILL") == point:
        os._exit(137)


class Mortal(Step):
    """Another step, with a chance to die before and after it."""

    def __init__(self, step: Step) -> None:
        self.id = step.id
        self.phase, self.disturbs, self.exposes, self.budget = step.phase, step.disturbs, step.exposes, step.budget
        self.fulfils = step.fulfils
        self._step = step

    def run(self, work: Work) -> Outcome:
        die(f"{self.id}:run:before")
        outcome = self._step.run(work)
        die(f"{self.id}:run:after")
        return outcome

    def undo(self, work: Work) -> None:
        die(f"{self.id}:undo:before")
        self._step.undo(work)
        die(f"{self.id}:undo:after")


class Announce(Step):
    """Tells everybody what is coming, in a ConfigMap."""

    id = "announce"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        metadata = {"name": announcement(work.plan), "annotations": work.kube.annotations(ROLE)}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"version": work.plan.version}}
        made = work.kube.create(CONFIG_MAP, body)
        work.remember("uid", made["metadata"]["uid"])
        return Done()

    def undo(self, work: Work) -> None:
        work.kube.delete(CONFIG_MAP, announcement(work.plan))


class Rest(Step):
    """Lets the new version rest for a while, without a thread."""

    id = "rest"
    phase = Phase.VERIFY

    def run(self, work: Work) -> Outcome:
        left = work.left("rested", work.plan.descriptor["strategyOptions"]["rest"])
        return Park(work.now() + left, "resting") if left else Done()


class Compare(Step):
    """Checks that the announcement is still the one that was made."""

    id = "compare"
    phase = Phase.EXPOSE

    def run(self, work: Work) -> Outcome:
        found = work.kube.get(CONFIG_MAP, announcement(work.plan))
        if found is None or found["data"]["version"] != work.plan.version:
            raise StepFailed("the announcement is not there any more", reason="Unannounced")
        return Done()


class Sign(Step):
    """Signs, waits for a pen, or finds a reason not to, when everything leads to the new version already."""

    id = "sign"
    phase = Phase.CONFIRM

    def run(self, work: Work) -> Outcome:
        end = work.plan.descriptor["strategyOptions"]["end"]
        if end == "fails":
            raise StepFailed("nobody signs this", reason="Unsigned")
        if end == "waits":
            return Park(work.now() + 600, "waiting for a pen")
        work.remember("signed", True)
        return Done()


class Careful(Strategy):
    """Announce, start, verify, rest, compare, move the Service, sign."""

    name = "careful"
    options_schema: Mapping[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["rest", "end"],
        "properties": {
            "rest": {"type": "number", "minimum": 0},
            "end": {"enum": ["signs", "fails", "waits"]},
        },
    }

    def check_descriptor(self, descriptor: Document) -> Sequence[Problem]:
        if not descriptor.get("frontend"):
            return []
        return [Problem("frontend", "the strategy careful has no steps for routes")]

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        steps: list[Step] = [Announce(), StartWorkload(), AwaitReady(), VerifyHealth(), Rest(), AwaitEndpoints()]
        return [Mortal(step) for step in (*steps, Compare(), MoveService(), Sign())]


def announcement(plan: Plan) -> str:
    """Name of the ConfigMap."""
    return f"{plan.app}-{plan.version}-announcement"


class Handshake(HealthChecker):
    """Healthy is who tells the secret word of the settings, or anything at all."""

    name = "handshake"

    def check(self, target: HealthTarget) -> Verdict:
        answer = target.http()
        return Verdict(answer.ok, f"{target.where} answered {answer.status}", f"shook hands: {answer.text}")


class Motto(EnvInjector):
    """Gives every container the motto."""

    name = "motto"

    def __init__(self, motto: str) -> None:
        self._motto = motto

    def environment(self, context: EnvContext) -> Sequence[Document]:
        return [{"name": "MOTTO", "value": f"{self._motto} {context.app} {context.version}"}]


class Diary:
    """Where observers write what they were told."""

    path: Path | None = None


# --- hooks --------------------------------------------------------------------------------------------------------


@hookimpl
def settings_schema() -> Mapping[str, Any]:
    """The table `[plugins.stranger]`."""
    text = {"type": "string"}
    return {"type": "object", "required": ["motto", "diary"], "properties": {"motto": text, "diary": text}}


@hookimpl
def register_strategies() -> Sequence[Strategy]:
    """One strategy."""
    return [Careful()]


@hookimpl
def register_health_checkers() -> Sequence[HealthChecker]:
    """One health checker."""
    return [Handshake()]


@hookimpl
def register_env_injectors(settings: PluginSettings) -> Sequence[EnvInjector]:
    """One injector."""
    Diary.path = Path(settings.table["diary"])
    return [Motto(settings.table["motto"])]


@hookimpl
def deployment_started(deployment: Document) -> None:
    """Note it."""
    note("started", deployment)


@hookimpl
def deployment_finished(deployment: Document) -> None:
    """Note it."""
    note("finished", deployment)


def note(what: str, deployment: Document) -> None:
    """A line in the diary."""
    assert Diary.path is not None
    line = json.dumps([what, deployment["version"], deployment["status"]])
    with Diary.path.open("a") as diary:
        diary.write(line + "\n")

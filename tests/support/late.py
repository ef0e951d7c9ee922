"""Trouble that comes late, for tests: the strategy, the health checker and the gate `late`.

The strategy is blue-green with one more step at the very end, which fails, or waits to be cancelled.

With the option `makes`, it makes a ConfigMap of its own at the very beginning, which the core removes.

By then everything leads to the new version: what follows is the whole way back. To the health checker pods are healthy
until there is a certain file.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.errors import StepFailed
from deployer.sdk.gate import Failed, Gate, GateContext, Measurement, Passed, Pending
from deployer.sdk.gate import Outcome as GateOutcome
from deployer.sdk.gate import Verdict as GateVerdict
from deployer.sdk.health import HealthChecker, HealthTarget, Verdict
from deployer.sdk.kube import CONFIG_MAP
from deployer.sdk.plugin import PluginSettings, hookimpl
from deployer.sdk.strategy import Done, Outcome, Park, Phase, Plan, Step, Strategy, Work, rollback_steps

WAITING = "waiting at the last step"

ENDS = ["fails", "waits", "succeeds", "parks"]

PARKED = 0.3
"""Seconds for which the last step parks."""

ENTRY_POINT = importlib.metadata.EntryPoint("late", "support.late", "deployer.plugins")


class Make(Step):
    """Before everything else: an object that no plan knows of."""

    id = "make"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        name = f"{work.plan.app}-{work.plan.version}-made"
        metadata = {"name": name, "annotations": work.kube.annotations("made")}
        work.kube.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})
        return Done()


class Last(Step):
    """After everything else."""

    id = "last"
    phase = Phase.CONFIRM

    def __init__(self, option: str = "end") -> None:
        self._option = option

    def run(self, work: Work) -> Outcome:
        end = work.plan.descriptor["strategyOptions"][self._option]
        if end == "fails":
            raise StepFailed("the last step fails", reason="Late")
        if end == "parks" and not work.recall("parked", False):
            work.remember("parked", True)
            return Park(work.now() + PARKED)
        if end in ("succeeds", "parks"):
            return Done()
        work.log(WAITING)
        work.scope.wait(threading.Event())
        raise AssertionError("the wait of the last step cannot end by itself")


class Late(Strategy):
    """Options `end` (`fails`, `waits`, `succeeds`, or `parks` before it does), `back`, the same for a rollback to the
    version, and `makes`."""

    name = "late"
    options_schema: Mapping[str, object] = {
        "type": "object",
        "required": ["end"],
        "properties": {"end": {"enum": ENDS}, "back": {"enum": ENDS}, "makes": {"type": "boolean"}},
    }

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """The usual ones, and the last."""
        makes = plan.descriptor["strategyOptions"].get("makes")
        return [*([Make()] if makes else []), *deploy_steps(), Last()]

    def rollback_steps(self, plan: Plan) -> Sequence[Step] | None:
        """The usual ones, and the last where option `back` says how it ends."""
        return [*rollback_steps(plan), Last("back")] if "back" in plan.descriptor["strategyOptions"] else None


class Sick(HealthChecker):
    """Option `sick`: the path of the file with which all pods fall ill; they serve as before."""

    name = "late"
    options_schema: Mapping[str, object] = {
        "type": "object",
        "required": ["sick"],
        "properties": {"sick": {"type": "string"}},
    }

    def check(self, target: HealthTarget) -> Verdict:
        sick = Path(str(target.options["sick"])).exists()
        return Verdict(not sick, "it is ill" if sick else "it is well")


class Looks(Gate):
    """Makes an object, looks twice with a wait in between, says what option `end` says (`passes` or `fails`), and
    removes the object when it is over."""

    name = "late"
    options_schema: Mapping[str, object] = {
        "type": "object",
        "required": ["end"],
        "properties": {"end": {"enum": ["passes", "fails"]}},
    }

    def check(self, context: GateContext) -> GateOutcome:
        name = f"{context.plan.app}-{context.plan.version}-{context.name}"
        metadata = {"name": name, "annotations": context.kube.annotations("versioned-gate")}
        context.kube.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})
        looks = context.recall("looks", 0) + 1
        context.remember("looks", looks)
        measured = [Measurement(looks, ">= 2", GateVerdict.PASSED if looks > 1 else GateVerdict.INCONCLUSIVE)]
        if looks < 2:
            return Pending(context.now(), "a second look", measurements=measured)
        if context.options["end"] == "fails":
            return Failed("the gate fails", measured)
        return Passed("it looked twice", measured)

    def end(self, context: GateContext) -> None:
        context.kube.delete(CONFIG_MAP, f"{context.plan.app}-{context.plan.version}-{context.name}")


@hookimpl
def register_gates() -> Sequence[Gate]:
    """The one gate."""
    return [Looks()]


@hookimpl
def register_health_checkers() -> Sequence[HealthChecker]:
    """The one checker."""
    return [Sick()]


@hookimpl
def register_strategies(settings: PluginSettings) -> Sequence[Strategy]:
    """The one strategy."""
    return [Late()]

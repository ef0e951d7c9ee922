"""A strategy for tests, `late`: blue-green with one more step at the very end, which fails, or waits to be cancelled.

By then everything leads to the new version: what follows is the whole way back.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Mapping, Sequence

from deployer.core import Outcome, Phase, Plan, PluginSettings, Step, StepFailed, Strategy, Work, hookimpl
from deployer.plugins.strategy_bluegreen import deploy_steps

WAITING = "waiting at the last step"

ENTRY_POINT = importlib.metadata.EntryPoint("late", "support.late", "deployer.plugins")


class Last(Step):
    """After everything else."""

    id = "last"
    phase = Phase.CONFIRM

    def run(self, work: Work) -> Outcome:
        if work.plan.descriptor["strategyOptions"]["end"] == "fails":
            raise StepFailed("the last step fails", reason="Late")
        work.log(WAITING)
        work.gate.wait(threading.Event())
        raise AssertionError("the wait of the last step cannot end by itself")


class Late(Strategy):
    """Option `end`: `fails` or `waits`."""

    name = "late"
    options_schema: Mapping[str, object] = {
        "type": "object",
        "required": ["end"],
        "properties": {"end": {"enum": ["fails", "waits"]}},
    }

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """The usual ones, and the last."""
        return [*deploy_steps(), Last()]


@hookimpl
def register_strategies(settings: PluginSettings) -> Sequence[Strategy]:
    """The one strategy."""
    return [Late()]

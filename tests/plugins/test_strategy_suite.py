"""The suite for strategies finds mistakes. Those that ship pass it in `test_strategies.py`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployer import sandbox
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.errors import StepFailed
from deployer.sdk.kube import CONFIG_MAP, CONTROLLER
from deployer.sdk.strategy import (
    AwaitEndpoints,
    AwaitReady,
    Done,
    Duty,
    MoveService,
    Outcome,
    Phase,
    Plan,
    StartWorkload,
    Step,
    Strategy,
    SwitchRoute,
    VerifyHealth,
    Work,
)
from deployer.testing.strategies import CHECKS, StrategyBench

BY_NAME = {check.__name__: check for check in CHECKS}


class Quiet(SwitchRoute):
    disturbs = exposes = False


class Discreet(Strategy):
    """Does not say that the route moves."""

    name = "discreet"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return [Quiet() if step.id == "switch-route" else step for step in deploy_steps(plan)]


class Boastful(MoveService):
    """Says that it moves the route as well."""

    fulfils = (Duty.ROUTE, Duty.SERVICE)


class Idle(Strategy):
    """Moves the Service, and forgets the route."""

    name = "idle"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        usual = [StartWorkload(), AwaitReady(), VerifyHealth(), AwaitEndpoints(), Boastful()]
        return usual if plan.previous else deploy_steps(plan)


class StopOld(Step):
    """Takes the old version's pods away, and never gives them back."""

    id = "stop-old"
    phase = Phase.START
    disturbs = True

    def run(self, work: Work) -> Outcome:
        if before := work.plan.previous:
            work.kube.update(CONTROLLER, before.controller, _to_nothing, deployment=before.deployment)
        return Done()


def _to_nothing(found: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    found["spec"]["replicas"] = 0
    return found


class OneWay(Strategy):
    name = "one-way"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return [StopOld(), *deploy_steps(plan)]


class Once(Step):
    """Cannot be repeated."""

    id = "once"
    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        name = f"{work.plan.app}-{work.plan.version}-once"
        if work.kube.get(CONFIG_MAP, name) is not None:
            raise StepFailed("it is there already")
        about = {"name": name, "annotations": work.kube.annotations("versioned-once")}
        work.kube.create(CONFIG_MAP, {"metadata": about})
        return Done()

    def undo(self, work: Work) -> None:
        work.kube.delete(CONFIG_MAP, f"{work.plan.app}-{work.plan.version}-once")


class OnlyOnce(Strategy):
    name = "only-once"

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return [Once(), *deploy_steps(plan)]


@pytest.mark.parametrize(
    ("strategy", "check", "said"),
    [
        (Discreet(), "a_second_version_replaces_the_first", "none of which exposes"),
        (Idle(), "a_second_version_replaces_the_first", "instead of version 2"),
        (OneWay(), "a_failure_ends_when_the_old_version_serves", "(503, "),
        (OnlyOnce(), "a_crash_before_any_write_is_survived_going_on", "it is there already"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_mistake_is_found(
    strategy: Strategy, check: str, said: str, cluster: sandbox.Sandbox, tmp_path: Path
) -> None:
    bench = StrategyBench(cluster, tmp_path, strategy.name, providers=[strategy])
    bench.drawn = lambda writes: [6]  # type: ignore[method-assign]  # after what is made first
    with pytest.raises(AssertionError, match=re.escape(said)):
        BY_NAME[check](bench)

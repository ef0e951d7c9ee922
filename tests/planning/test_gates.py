"""Where gates stand among the steps of a strategy, whatever its order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from deployer.core.contract.gate import Gate, Outcome, Passed
from deployer.core.errors import StepFailed
from deployer.core.model.plan import PlannedStep
from deployer.core.operations.steps import check_steps, planned
from deployer.core.registry import Entry, Registry
from deployer.planning import gates
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.plugins.strategy_canary import Canary
from deployer.plugins.strategy_recreate import Recreate
from deployer.sdk.strategy import Done, Phase, Plan, Step, Work
from deployer.settings import Settings
from deployer.testing.descriptors import HEALTHY, plan_of

POINTS = ("beforeStart", "beforeSwitch", "afterSwitch")
CANARY = {"strategyOptions": {"steps": [{"weight": 40, "pause": 1}]}, "deploymentType": "canary"}


class Yes(Gate):
    name = "yes"
    default_timeout = 42.0
    options_schema = {"type": "object"}  # noqa: RUF012

    def needs_another_person(self, options: Any) -> bool:
        return bool(options["other"]) if "other" in options else False

    def check(self, context: Any) -> Outcome:
        return Passed("yes")


def registry() -> Registry:
    return dataclasses.replace(load_plugins(Settings(), entry_points=[]), gates={"yes": Entry(Yes(), "d", "1", "p")})


def gate(point: str, name: str = "g", **fields: Any) -> dict[str, Any]:
    return {"point": point, "type": "yes", "name": name, **fields}


def pinned(steps: list[Step]) -> list[PlannedStep]:
    found = gates.planned(registry(), [gate(point) for point in POINTS], {})
    return list(gates.inserted(tuple(map(planned, steps)), found))


def full() -> Plan:
    return plan_of("2", previous="1", frontend="shop.example.com", **HEALTHY, **CANARY)


STRATEGIES: dict[str, Callable[[], list[Step]]] = {
    "blue-green": lambda: deploy_steps(full()),
    "all of blue-green": deploy_steps,
    "without a route": lambda: deploy_steps(plan_of("2", previous="1")),
    "recreate": lambda: list(Recreate().deploy_steps(full())),
    "canary": lambda: list(Canary().deploy_steps(full())),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_before_everything_before_traffic_and_at_the_end(name: str) -> None:
    own = STRATEGIES[name]()
    steps = pinned(own)
    ids = [step.id for step in steps]
    at = [ids.index(f"gate:{point}:forced:g") for point in POINTS]
    assert (at[0], at[2]) == (0, len(steps) - 1)
    assert not any(step.exposes for step in steps[: at[1]])
    assert steps[at[1] + 1].exposes
    health = [n for n, id in enumerate(ids) if id == "verify-health"]
    assert not health or health[0] < at[1]
    assert [step for step in steps if not step.id.startswith("gate:")] == list(map(planned, own))
    phases = [Phase[step.phase] for step in steps]
    assert phases == sorted(phases)


class Plain(Step):
    def __init__(self, id: str, phase: Phase, exposes: bool = False) -> None:
        self.id, self.phase, self.exposes = id, phase, exposes

    def run(self, work: Work) -> Done:
        return Done()


@pytest.mark.parametrize("exposing", [*itertools.product([False, True], repeat=4)])
def test_nothing_exposes_before_the_switch_in_whatever_order(exposing: tuple[bool, ...]) -> None:
    phases = (Phase.START, Phase.VERIFY, Phase.EXPOSE, Phase.CONFIRM)
    steps: list[Step] = [Plain(f"s{n}", phase, exposes) for n, (phase, exposes) in enumerate(zip(phases, exposing))]  # noqa: B905
    found = pinned(steps)
    at = [step.id for step in found].index("gate:beforeSwitch:forced:g")
    assert not any(step.exposes for step in found[:at])
    if not any(exposing):
        assert found[at - 1].id == "s1"  # behind the phase in which health is asked for


def test_what_is_pinned_of_a_gate() -> None:
    descriptor = {"gates": {"afterSwitch": [gate("")], "beforeStart": [gate("", "b", timeoutSeconds=7), gate("", "a")]}}
    for found in descriptor["gates"].values():
        for one in found:
            del one["point"]
    forced = [gate("beforeStart", "a", dryRun=True), gate("afterSwitch", "z", options={"other": True})]
    found = gates.planned(registry(), forced, descriptor)
    assert [(g.point, g.name, g.forced, g.timeout, g.dry_run, g.another_person) for g in found] == [
        ("beforeStart", "a", True, 42.0, True, False),
        ("beforeStart", "b", False, 7.0, False, False),
        ("beforeStart", "a", False, 42.0, False, False),
        ("afterSwitch", "z", True, 42.0, False, True),
        ("afterSwitch", "g", False, 42.0, False, False),
    ]
    assert len({g.step for g in found}) == len(found)
    assert {g.provider.source for g in found} == {"d:p"}


@pytest.mark.parametrize(
    ("fields", "fails"), [({}, True), ({"onMissing": "inconclusive"}, False), ({"dryRun": True}, False)]
)
def test_a_type_that_is_gone_by_the_time_it_is_decided(fields: dict[str, Any], fails: bool) -> None:
    wanted = {**gate("beforeStart"), "type": "gone", **fields}
    if fails:
        with pytest.raises(StepFailed, match="gate g: there is no gate 'gone'; installed: yes") as failed:
            gates.planned(registry(), [wanted], {})
        assert failed.value.reason == "GateMissing"
    else:
        (found,) = gates.planned(registry(), [wanted], {})
        assert not found.provider.name


def test_a_strategy_has_no_steps_called_like_those_of_gates() -> None:
    with pytest.raises(StepFailed, match="whose id begins with 'gate:'"):
        check_steps([Plain("gate:beforeStart:g", Phase.START)], "mine")


def test_the_log_says_what_waiting_costs() -> None:
    said: list[str] = []
    plan = full()
    found = gates.planned(registry(), [gate("beforeSwitch", "g")], {})
    for strategy in (deploy_steps(plan), list(Recreate().deploy_steps(plan))):
        steps = gates.inserted(tuple(map(planned, strategy)), found)
        gates.warn(dataclasses.replace(plan, gates=found, steps=steps), said.append)
    (line,) = said
    assert line.startswith("gate g comes after step stop-others, which takes traffic or capacity")

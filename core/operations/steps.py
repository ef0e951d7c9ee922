"""A strategy's steps: what they must be so that they can be carried out, and what a plan pins of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deployer.core.contract.strategy import Phase, Step
from deployer.core.errors import StepFailed
from deployer.core.model.plan import PlannedStep

LONGEST_ID = 200
"""Characters of a step's id."""

SOAK = "soakSeconds"
"""The id of the core's own last step before a deployment is committed, named like the field that asks for it."""

SOAK_SPARE = 60.0
"""Seconds that it may work beyond those for which it parks."""

RESERVED = ("engine", SOAK)
"""Ids that are the core's own: under the first one it keeps its notes of an operation."""

GATES = "gate:"
"""With this begin the ids of the gates' steps, and of no others."""

GATE_MISSING = "GateMissing"
"""The reason of the failure of a gate of which there is no evidence, or no plugin."""


def check_steps(steps: object, strategy: str, *, removing: bool = False) -> list[Step]:
    """The steps of a strategy, when they can be carried out. Raises StepFailed naming what is wrong."""
    found = list(steps) if isinstance(steps, Sequence) else []
    phases = [getattr(step, "phase", None) for step in found]
    ids = [getattr(step, "id", None) for step in found]
    wrong = ""
    if not isinstance(steps, Sequence) or not all(isinstance(step, Step) for step in found):
        wrong = "gave something that is no list of steps"
    elif not found:
        wrong = "gave no steps"
    elif not all(isinstance(id, str) and id for id in ids):
        wrong = "gave a step without an id"
    elif not all(len(id) <= LONGEST_ID and id not in RESERVED for id in ids if isinstance(id, str)):
        own = ", ".join(RESERVED)
        wrong = f"gave a step whose id is longer than {LONGEST_ID} characters, or one of the core's own: {own}"
    elif any(isinstance(id, str) and id.startswith(GATES) for id in ids):
        wrong = f"gave a step whose id begins with {GATES!r}, as only those of gates do"
    elif len(set(ids)) != len(ids):
        wrong = "gave two steps of the same id"
    elif not all(phase in list(Phase) for phase in phases):
        wrong = "gave a step without a phase"
    elif not all(isinstance(says, bool) for step in found for says in (step.disturbs, step.exposes)):
        wrong = "gave a step whose disturbs or exposes is neither True nor False"
    elif not all(step.budget is None or _is_budget(step.budget) for step in found):
        wrong = "gave a step whose budget is no positive number of seconds"
    elif not removing and (phases != sorted(phases) or Phase.RETIRE in phases):  # type: ignore[type-var]
        wrong = "gave steps whose phases are out of order"
    if wrong:
        raise bad_strategy(strategy, wrong)
    return found


def planned(step: Step) -> PlannedStep:
    """What a plan pins of a step."""
    return PlannedStep(
        id=step.id,
        phase=Phase(step.phase).name,
        disturbs=step.disturbs,
        exposes=step.exposes,
        budget=None if step.budget is None else float(step.budget),
    )


def planned_soak(seconds: float) -> PlannedStep:
    """The core's own step, which comes after the strategy's."""
    return PlannedStep(id=SOAK, phase=Phase.CONFIRM.name, budget=seconds + SOAK_SPARE)


def _is_budget(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def bad_strategy(strategy: str, wrong: str) -> StepFailed:
    """A failure of the strategy of that name; `wrong` is the end of the sentence."""
    return StepFailed(f"strategy {strategy} {wrong}", reason="BadStrategy", hint="ask the plugin's author")

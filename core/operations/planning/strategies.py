"""What a strategy decides of a deployment, checked before it is pinned."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from deployer.core.contract.strategy import Phase, Step, Strategy, WorkloadContext
from deployer.core.errors import DeployerError, StepFailed
from deployer.core.model.plan import PinnedSettings, PlannedStep, Workload
from deployer.core.model.records import Plan
from deployer.core.operations.planning import gates
from deployer.core.ports.versions import Versions

T = TypeVar("T")

logger = logging.getLogger(__name__)

LONGEST_DRAIN = 604_800.0
"""Seconds for which a replaced version may be kept, as with the setting `keep_warm`."""


LONGEST_ID = 200
"""Characters of a step's id."""

RESERVED = "engine"
"""Under this id the core keeps its own notes of an operation."""


def workload(strategy: Strategy, context: WorkloadContext, versions: Versions) -> Workload:
    """The manifests of the new version, the strategy's own or the usual ones. Raises StepFailed."""
    lent = copy.deepcopy(context)
    own = _asked(strategy, "workload", lambda: strategy.workload(lent))
    if own is None:
        return versions.render(context)
    try:
        return versions.checked(own, context)
    except ValueError as error:
        raise _bad(strategy.name, f"gave {error}") from None


def drained(strategy: Strategy, plan: Plan) -> PinnedSettings:
    """The plan's settings, with the time for which the strategy keeps the version that is replaced. Raises StepFailed.

    Never less than the ingress providers ask for.
    """
    drain = _asked(strategy, "drain", lambda: strategy.drain(plan))
    if isinstance(drain, bool) or not isinstance(drain, int | float) or not 0 <= drain <= LONGEST_DRAIN:
        raise _bad(strategy.name, f"gave a drain time that is no number of seconds from 0 to {LONGEST_DRAIN:g}")
    return dataclasses.replace(plan.settings, hold=max(float(drain), plan.settings.minimum_hold))


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
    elif not all(len(id) <= LONGEST_ID and id != RESERVED for id in ids if isinstance(id, str)):
        wrong = f"gave a step whose id is longer than {LONGEST_ID} characters, or {RESERVED!r}, which is the core's own"
    elif any(isinstance(id, str) and id.startswith(gates.STEPS) for id in ids):
        wrong = f"gave a step whose id begins with {gates.STEPS!r}, as only those of gates do"
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
        raise _bad(strategy, wrong)
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


def _is_budget(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _asked(strategy: Strategy, method: str, ask: Callable[[], T]) -> T:
    """What it answers. Raises StepFailed that names it for what it raises, but for errors of the Deployer's own."""
    try:
        return ask()
    except DeployerError:
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        # Its text may hold an injected value.
        logger.error("strategy %s raised %s in %s()", strategy.name, type(error).__name__, method, exc_info=error)
        raise _bad(strategy.name, f"raised {type(error).__name__} in {method}()") from error


def _bad(strategy: str, wrong: str) -> StepFailed:
    return StepFailed(f"strategy {strategy} {wrong}", reason="BadStrategy", hint="ask the plugin's author")

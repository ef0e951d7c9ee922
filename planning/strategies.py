"""What a strategy decides of a deployment, checked before it is pinned."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import TypeVar

from deployer.core.contract.strategy import Strategy, WorkloadContext
from deployer.core.errors import DeployerError
from deployer.core.model.plan import PinnedSettings, Workload
from deployer.core.model.records import Plan
from deployer.core.operations.steps import bad_strategy
from deployer.planning.versions import Versions

T = TypeVar("T")

logger = logging.getLogger(__name__)

LONGEST_DRAIN = 604_800.0
"""Seconds for which a replaced version may be kept, as with the setting `keep_warm`."""


def workload(strategy: Strategy, context: WorkloadContext, versions: Versions) -> Workload:
    """The manifests of the new version, the strategy's own or the usual ones. Raises StepFailed."""
    lent = copy.deepcopy(context)
    own = _asked(strategy, "workload", lambda: strategy.workload(lent))
    if own is None:
        return versions.render(context)
    try:
        return versions.checked(own, context)
    except ValueError as error:
        raise bad_strategy(strategy.name, f"gave {error}") from None


def drained(strategy: Strategy, plan: Plan) -> PinnedSettings:
    """The plan's settings, with the time for which the strategy keeps the version that is replaced. Raises StepFailed.

    Never less than the ingress providers ask for.
    """
    drain = _asked(strategy, "drain", lambda: strategy.drain(plan))
    if isinstance(drain, bool) or not isinstance(drain, int | float) or not 0 <= drain <= LONGEST_DRAIN:
        raise bad_strategy(strategy.name, f"gave a drain time that is no number of seconds from 0 to {LONGEST_DRAIN:g}")
    return dataclasses.replace(plan.settings, hold=max(float(drain), plan.settings.minimum_hold))


def _asked(strategy: Strategy, method: str, ask: Callable[[], T]) -> T:
    """What it answers. Raises StepFailed that names it for what it raises, but for errors of the Deployer's own."""
    try:
        return ask()
    except DeployerError:
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        # Its text may hold an injected value.
        logger.error("strategy %s raised %s in %s()", strategy.name, type(error).__name__, method, exc_info=error)
        raise bad_strategy(strategy.name, f"raised {type(error).__name__} in {method}()") from error

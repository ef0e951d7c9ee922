"""How long a step may take: its phase's seconds or its own, over all attempts and restarts."""

from __future__ import annotations

from deployer.core.contract.strategy import Phase, Step
from deployer.core.model.records import Plan
from deployer.core.ports.cluster import PODS_GONE

FRESH = 10.0
"""The least budget, in seconds, that a phase has after a restart: what was consumed then may not be its fault."""

SHARED = {Phase.CONFIRM: Phase.EXPOSE}
"""Phases without a budget of their own. That traffic has moved is part of moving it, to everybody who waits for it."""


class Budgets:
    """The seconds that an operation's steps have consumed, by account; `undo_timeout` is the setting."""

    def __init__(self, spent: dict[str, float], *, resumed: bool, undo_timeout: float) -> None:
        self.spent = dict(spent)
        self._resumed = resumed
        self._undo_timeout = undo_timeout

    def account(self, step: Step, plan: Plan) -> tuple[str, float | None]:
        """Where the step's time is counted, and the budget of that; a step with a budget of its own has an account of
        its own. None: it is not counted, as those of gates, and of removals, which are tried until they succeed."""
        if plan.gate(step.id) is not None:
            return f"step {step.id}", None  # it has a time of its own, which goes on while it is parked
        phase = (SHARED.get(step.phase) or Phase(step.phase)).name
        planned = plan.planned(step.id)
        if planned is not None and planned.budget is not None:
            return f"step {step.id}", planned.budget
        return phase, plan.budgets.get(phase)

    def left(self, account: str, counted: float | None, whole: float) -> tuple[float, float]:
        """Seconds that are left of a budget, and the budget. After a restart there is always a fresh bit."""
        if counted is None:
            return whole, whole
        if self._resumed:
            self._resumed = False
            left = counted - self.spent.get(account, 0.0)
            self.spent[account] = counted - max(left, min(FRESH, counted))
        return counted - self.spent.get(account, 0.0), counted

    def spend(self, account: str, seconds: float) -> None:
        """Count them."""
        self.spent[account] = self.spent.get(account, 0.0) + seconds

    def undo(self, step: Step, plan: Plan) -> float:
        """Seconds for undoing a step, or for one that removes; never below what the step asks for."""
        return max(self.removal(plan), step.budget or 0.0)

    def removal(self, plan: Plan) -> float:
        """Seconds for removing or undoing: the setting, and the pods' own grace time plus 30 s."""
        return self._undo_timeout + plan.objects.grace_time + PODS_GONE

    def removal_parts(self, plan: Plan) -> str:
        """What `removal` consists of, for those who know only the setting."""
        return (
            f"which are undo_timeout ({self._undo_timeout:g} s), the pods' grace time "
            f"({plan.objects.grace_time:g} s) and {PODS_GONE:g} s more"
        )

"""Deciding a deployment: what is live, what comes next, and all that is pinned before anything starts."""

from deployer.core.operations.planning.live_version import blank_route
from deployer.core.operations.planning.planner import Planner
from deployer.core.operations.planning.strategies import check_steps

__all__ = ["Planner", "blank_route", "check_steps"]

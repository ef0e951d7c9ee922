"""Gate `approval`: passes when a person says so, through REST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployer.sdk.gate import Failed, Gate, GateContext, Outcome, Passed, Pending, Signal
from deployer.sdk.plugin import PluginSettings, Schema, hookimpl

DAY = 86_400.0


class Approval(Gate):
    """Waits for `POST /deployments/{id}/approval`. Who may decide is the business of REST."""

    name = "approval"
    default_timeout = DAY

    @property
    def options_schema(self) -> Schema:
        """`notByRequester`: whoever asked for the deployment may not decide."""
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {"notByRequester": {"type": "boolean", "default": False}},
        }

    def needs_another_person(self, options: Mapping[str, Any]) -> bool:
        """As the option says."""
        return bool(options.get("notByRequester", False))

    def check(self, context: GateContext) -> Outcome:
        """What was said, once something was."""
        decision = context.decision
        if decision is None:
            return Pending(context.deadline, "approval by a person", Signal())
        who = decision.by or "a person"
        words = f": {decision.comment}" if decision.comment else ""
        if decision.approve:
            return Passed(f"approved by {who}{words}")
        return Failed(f"refused by {who}{words}", hint="ask them what is to change, then deploy again")


@hookimpl
def register_gates(settings: PluginSettings) -> Sequence[Gate]:
    """One gate, without settings."""
    return [Approval()]

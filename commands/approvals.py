"""What people say of gates that wait for them, as transactions on the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from deployer.commands.transactions import decide_again
from deployer.core.clock import SteadyClock
from deployer.core.contract.gate.interface import Point
from deployer.core.errors import Conflict, Invalid, NotFound, NotPermitted, Problem
from deployer.core.model.gates import GateDecision, GateResult, GateResults, decision_key
from deployer.core.model.records import Deployment, Document, Plan, Status
from deployer.core.ports.store import Create, Expect, Store, Update
from deployer.descriptor.schema_errors import schema_problems

MOST_COMMENT = 1000
"""Characters of a comment."""

SCHEMA: Document = {
    "type": "object",
    "required": ["approve"],
    "additionalProperties": False,
    "properties": {
        "approve": {"type": "boolean", "description": "Whether the deployment may go on."},
        "comment": {
            "type": "string",
            "maxLength": MOST_COMMENT,
            "description": "Why, in a single line; kept and shown with the decision.",
        },
        "gate": {
            "type": "string",
            "maxLength": 63,
            "minLength": 1,
            "description": "Name of the gate; may be left out as long as nobody has decided about another one.",
        },
        "point": {
            "enum": [str(point) for point in Point],
            "description": "Where the gate is, for one of several of that name.",
        },
        "forced": {
            "type": "boolean",
            "description": "Whether the settings force the gate, for one of several of that name.",
        },
    },
}
"""Of what is sent."""


def results_of(store: Store, deployment: str) -> GateResults | None:
    """What became of a deployment's gates; None when it has none, or is not decided yet."""
    found = store.get(GateResults, deployment)
    for asking in [entry for entry in found.entries if entry.asks] if found else ():
        # What somebody has said is taken up a moment later, and nobody is asked for it any more.
        if found and store.get(GateDecision, decision_key(deployment, asking.step)) is not None:
            found = found.with_entry(dataclasses.replace(asking, asks=False))
    return found


class ApprovalCommands:
    """On the deployments of all namespaces. Authorisation is the caller's business, but for gates that want another
    person than whoever asked for the deployment."""

    def __init__(self, store: Store, clock: Callable[[], float] | None = None) -> None:
        """`clock`: seconds since the epoch."""
        self._store = store
        self._clock = clock or SteadyClock()

    def decide(self, namespace: str, id: str, said: Any, by: str = "") -> GateDecision:
        """Record what somebody says of the gate that waits for it; the same once more is what was recorded.

        `said` is as `SCHEMA` has it. Raises Invalid, NotFound, NotPermitted, and Conflict when nothing waits for it.
        """
        self._deployment(namespace, id)
        problems = schema_problems(said, SCHEMA)
        if not problems and not said.get("comment", "").isprintable():
            problems = [Problem("comment", "must be a single line of printable text")]
        if problems:
            raise Invalid(problems)
        return decide_again(lambda: self._decide(namespace, id, said, by))

    def _decide(self, namespace: str, id: str, said: Document, by: str) -> GateDecision:
        deployment = self._deployment(namespace, id)
        results = self._store.get(GateResults, id)
        known = self._store.find(GateDecision, namespace=namespace, app=deployment.app, tag=id)
        waiting = self._waiting(deployment, results, known)
        entries = {entry.step: entry for entry in results.entries} if results else {}
        decided = [decision for decision in known if _means(said, entries.get(decision.step))]
        if waiting is None or not _means(said, waiting):
            return self._repeated(decided, said, by, waiting)
        if decided:
            earlier = ", ".join(_where(entries[decision.step]) for decision in decided)
            raise Conflict(
                f"gate {_where(waiting)} waits for a decision, but {earlier} was decided about before: name the gate "
                "that is meant in `gate`, and of several with that name its `point`, or whether it is `forced`"
            )
        if said["approve"]:
            self._require_another(deployment, waiting, by)
        decision = GateDecision(
            namespace=namespace,
            app=deployment.app,
            deployment=id,
            step=waiting.step,
            gate=waiting.name,
            approve=said["approve"],
            by=by,
            at=self._clock(),
            comment=str(said.get("comment") or ""),
        )
        assert results is not None
        # Touched, so that the gate notices it, should it come to a verdict at this moment.
        self._store.commit(Create(decision), Update(results), Expect(deployment))
        return decision

    def _deployment(self, namespace: str, id: str) -> Deployment:
        deployment = self._store.get(Deployment, id, namespace=namespace)
        if deployment is None:
            raise NotFound("there is no deployment with this id in this namespace")
        return deployment

    def _waiting(
        self, deployment: Deployment, results: GateResults | None, known: list[GateDecision]
    ) -> GateResult | None:
        """The gate that waits for a person: one at most, as they come one after the other."""
        if results is None or deployment.status is not Status.DEPLOYING:
            return None
        decided = {decision.step for decision in known}
        now = self._clock()
        for result in results.entries:
            if result.asks and result.under_way and result.step not in decided and now < result.deadline:
                return result
        return None

    def _repeated(
        self, decided: list[GateDecision], said: Document, by: str, waiting: GateResult | None
    ) -> GateDecision:
        """What was recorded already, for who says the same again, perhaps as no answer came."""
        for decision in reversed(decided):
            if (decision.approve, decision.by) == (said["approve"], by):
                return decision
            what = "approved" if decision.approve else "refused"
            who = f" by {decision.by}" if decision.by else ""
            raise Conflict(f"gate {decision.gate} was {what}{who} already")
        wanted = said.get("gate") or "that is meant"
        if waiting is not None:
            raise Conflict(f"gate {wanted} does not wait for a decision; {_where(waiting)} does")
        raise Conflict(
            f"gate {wanted} of this deployment does not wait for a decision"
            if "gate" in said
            else "no gate of this deployment waits for a decision"
        )

    def _require_another(self, deployment: Deployment, result: GateResult, by: str) -> None:
        plan = self._store.get(Plan, deployment.id)
        gate = plan.gate(result.step) if plan else None
        if gate is None or not gate.another_person:
            return
        if not by or not deployment.created_by:
            raise NotPermitted(
                f"gate {gate.name} wants another person than the one who asked for the deployment, and it is not known "
                "who is who: turn on authentication"
            )
        if by == deployment.created_by:
            raise NotPermitted(
                f"gate {gate.name} wants another person than {by}, who asked for the deployment: ask somebody else"
            )


def _means(said: Document, result: GateResult | None) -> bool:
    """Can it be that gate that somebody speaks of?"""
    known = {} if result is None else {"gate": result.name, "point": result.point, "forced": result.forced}
    return result is not None and all(said[name] == value for name, value in known.items() if name in said)


def _where(result: GateResult) -> str:
    """A gate, in words that tell it from another one of its name."""
    return f"{result.name} at {result.point}{' of the settings' if result.forced else ''}"

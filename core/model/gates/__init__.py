"""What became of a deployment's gates, and what people said of them."""

from deployer.core.model.gates.decision import GateDecision, decision_key
from deployer.core.model.gates.results import GateResult, GateResults, planned_results

__all__ = ["GateDecision", "GateResult", "GateResults", "decision_key", "planned_results"]

"""Queries with a deployment's names in them, thresholds, and what several looks amount to: pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.plugins.gate_prometheus.server import Answer, Sample, written
from deployer.sdk.gate import Measurement, Verdict
from deployer.sdk.strategy import Plan

PLACEHOLDERS: Mapping[str, Callable[[Plan], str]] = {
    "namespace": lambda plan: plan.namespace,
    "app": lambda plan: plan.app,
    "version": lambda plan: plan.version,
    "deployment": lambda plan: plan.deployment,
    "workload": lambda plan: f"{plan.app}-{plan.version}",
}
"""`workload` is the name of the ReplicationController, with which the names of its pods begin."""

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


def unknown_placeholders(query: str) -> Iterator[str]:
    """Those that nothing stands for."""
    yield from (name for name in _PLACEHOLDER.findall(query) if name not in PLACEHOLDERS)


def filled(query: str, plan: Plan) -> str:
    """The query with its placeholders filled in, in a way that no name can end the string that it stands in."""
    return _PLACEHOLDER.sub(lambda found: escaped(PLACEHOLDERS[found[1]](plan)), query)


def escaped(text: str) -> str:
    """As it stands within quotes of both kinds in PromQL, whose strings are those of Go."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " _.-") else f"\\U{ord(c):08x}" for c in text)


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a value has to be. At least one of both is given."""

    least: float | None
    most: float | None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Threshold:
        """As the options have it."""
        return cls(options.get("min"), options.get("max"))

    def __str__(self) -> str:
        bounds = {">=": self.least, "<=": self.most}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)

    def holds(self, value: float) -> bool:
        """What is infinite is within nothing: it comes of a division by zero."""
        above = self.least is None or value >= self.least
        return math.isfinite(value) and above and (self.most is None or value <= self.most)


def measured(answer: Answer, threshold: Threshold, now: float) -> tuple[Measurement, str]:
    """What one look found, and in words why it is not within the threshold, or says nothing of that.

    Every series has to be within it; the worst is shown. Nothing is said by no series, by NaN, which is 0/0, and by an
    answer that may not be all that there is.
    """
    numbers = [sample for sample in answer.samples if not math.isnan(sample.value)]
    outside = [sample for sample in numbers if not threshold.holds(sample.value)]
    if outside:
        worst = outside[0]
        return _measurement(worst, answer, threshold, Verdict.FAILED, now), f"{_shown(worst)} is not {threshold}"
    if answer.warnings or len(numbers) < len(answer.samples) or not numbers:
        why = answer.warnings[0] if answer.warnings else f"the query gives {'NaN' if answer.samples else 'nothing'}"
        empty = next((sample for sample in answer.samples if math.isnan(sample.value)), None)
        shown = empty or (numbers[0] if numbers else None)
        return _measurement(shown, answer, threshold, Verdict.INCONCLUSIVE, now), why
    worst = max(numbers, key=lambda sample: sample.value if threshold.most is not None else -sample.value)
    return _measurement(worst, answer, threshold, Verdict.PASSED, now), ""


def _measurement(
    sample: Sample | None, answer: Answer, threshold: Threshold, verdict: Verdict, now: float
) -> Measurement:
    name = sample.labels if sample is not None and len(answer.samples) > 1 else ""
    return Measurement(None if sample is None else written(sample.value), str(threshold), verdict, now, name)


def _shown(sample: Sample) -> str:
    value = written(sample.value)
    return value if isinstance(value, str) else f"{value:g}"


@dataclass(frozen=True, slots=True)
class Looks:
    """How many there were, by what they found, and when the next one is due."""

    passed: int
    failed: int
    missing: int
    due: float

    @property
    def taken(self) -> int:
        """All of them."""
        return self.passed + self.failed + self.missing

    def after(self, verdict: Verdict, due: float) -> Looks:
        """With one more."""
        return Looks(
            self.passed + (verdict is Verdict.PASSED),
            self.failed + (verdict is Verdict.FAILED),
            self.missing + (verdict is Verdict.INCONCLUSIVE),
            due,
        )

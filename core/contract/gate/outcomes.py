"""What a gate answers, with what it measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from deployer.core.contract.kube import ClusterEvent
from deployer.core.contract.strategy import Signal


class Verdict(StrEnum):
    """What became of a measurement, or of a gate."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One look at something, as it is shown in the deployment and in its log.

    value      what was found; None: nothing
    threshold  what it was compared with, in words, like `<= 0.05`
    verdict    what this look alone says
    time       when, in seconds since the epoch by `GateContext.now`; 0: when the call returned
    name       of what was measured, where a gate measures several things
    """

    value: float | str | None
    threshold: str = ""
    verdict: Verdict = Verdict.PASSED
    time: float = 0.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Passed:
    """There is evidence that all is well. `measurements`: new ones since the last call; so with all outcomes."""

    reason: str
    measurements: Sequence[Measurement] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """There is evidence against going on. `hint`: what to do about it."""

    reason: str
    measurements: Sequence[Measurement] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """There is evidence, but it does not say which: a person is asked, until the gate's time is up."""

    reason: str
    measurements: Sequence[Measurement] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no evidence, and there will be none: `onMissing` says whether that fails, or a person is asked."""

    reason: str
    measurements: Sequence[Measurement] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """It is not known yet: `check` is called again at `until` (by `GateContext.now`), or as soon as `event` has come;
    after a restart too. Neither a thread nor the app's lease is held until then.

    until   at most a second from now counts as a second, and what is after the gate's deadline as that
    reason  what it waits for, as in "the job to end"; in the log once
    event   `kube.gone(...)`, `Changed`, `NotReady`, or `Signal()`: then `GateContext.decision` has what a person said
    """

    until: float
    reason: str = ""
    event: ClusterEvent | Signal | None = None
    measurements: Sequence[Measurement] = ()


Outcome = Passed | Failed | Inconclusive | Missing | Pending


def wrong_outcome(outcome: object) -> str:
    """What is wrong with something that `check` returned, as the rest of a sentence; empty when it is an outcome."""
    if not isinstance(outcome, Passed | Failed | Inconclusive | Missing | Pending):
        return f"returned {type(outcome).__name__}, which is no outcome"
    texts = [outcome.reason, outcome.hint if isinstance(outcome, Failed) else ""]
    if not all(isinstance(text, str) for text in texts):
        return "gave a reason or a hint that is no text"
    if not isinstance(outcome.measurements, Sequence) or isinstance(outcome.measurements, str | bytes):
        return "gave measurements that are no list"
    if isinstance(outcome, Pending) and not _is_number(outcome.until):
        return f"waits until {outcome.until!r}, which is no time in seconds since the epoch"
    return next((wrong for found in outcome.measurements if (wrong := _wrong_measurement(found))), "")


def _wrong_measurement(found: object) -> str:
    if not isinstance(found, Measurement):
        return f"gave a measurement of type {type(found).__name__}"
    if found.value is not None and not isinstance(found.value, str) and not _is_number(found.value):
        return f"measured {found.value!r}, which is neither a number nor a text"
    if not isinstance(found.threshold, str) or not isinstance(found.name, str):
        return "gave a measurement whose threshold or name is no text"
    if not isinstance(found.verdict, Verdict) or not _is_number(found.time):
        return "gave a measurement without a verdict, or without a time"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""What the log says of an API server that does not answer: once when it begins to matter, once when it is over."""

from __future__ import annotations

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import DeadlineExceeded, KubeForbidden, KubeUnavailable, StepFailed, require_answers
from deployer.core.operations.execution import outage
from deployer.core.operations.execution.outage import OutageNotice

REFUSED = "the API server at https://k8s cannot be reached: Connection refused"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])
    return now


def test_it_says_once_that_it_waits_and_once_that_it_is_over(clock: list[float]) -> None:
    lines: list[str] = []
    notice = OutageNotice(lines.append)
    for second in range(10):
        clock[0] = 100.0 + second
        notice.report("requests", REFUSED, 100.0, 60.0 - second)
    notice.report("requests", "", clock[0], 51.0)
    notice.report("requests", "", clock[0], 51.0)
    assert lines == [f"waiting up to 58 s for the API server: {REFUSED}", "the API server answers again, after 9 s"]


def test_what_passes_at_once_is_not_worth_a_line(clock: list[float]) -> None:
    lines: list[str] = []
    notice = OutageNotice(lines.append)
    for _ in range(5):
        notice.report("requests", REFUSED, clock[0], 60.0)
        clock[0] += 1.0
        notice.report("requests", "", clock[0], 60.0)
    assert lines == []


def test_it_is_over_when_nothing_that_waits_is_left(clock: list[float]) -> None:
    lines: list[str] = []
    notice = OutageNotice(lines.append)
    for _ in range(4):
        for source in ("requests", "pods in shop", "services in shop"):
            notice.report(source, REFUSED, clock[0], 60.0)
        clock[0] += 1.0
    notice.report("requests", "", clock[0], 60.0)
    assert len(lines) == 1, "the pods are still waited for"
    clock[0] += 1.0
    notice.report("pods in shop", REFUSED, clock[0], 60.0)
    clock[0] += 2.5
    notice.report("pods in shop", "", clock[0], 60.0)  # nobody has waited for services for a while
    assert lines[1:] == ["the API server answers again, after 8 s"]
    # Who waits for the services again now has not waited all the time.
    notice.report("services in shop", REFUSED, clock[0], 60.0)
    assert len(lines) == 2


def test_a_scope_that_ends_earlier_tells_the_same_listener() -> None:
    told: list[tuple[str, str, float]] = []
    scope = CancelScope(notice=lambda source, why, since, left: told.append((source, why, left)))
    with scope.earlier(1.0) as early:
        early.report("requests", REFUSED)
    assert told == [("requests", REFUSED, float("inf"))]


def test_a_deadline_that_passed_in_silence_is_not_blamed_on_anything_else() -> None:
    over = DeadlineExceeded("the time for this is used up")
    require_answers(over)
    over.__cause__ = KubeForbidden("no right")
    require_answers(over)
    over.__cause__ = KubeUnavailable(REFUSED)
    with pytest.raises(StepFailed, match=REFUSED) as caught:
        require_answers(over)
    assert caught.value.reason == "ApiServerUnavailable" and "can be reached" in caught.value.hint

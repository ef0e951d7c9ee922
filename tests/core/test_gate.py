"""Gates: deadlines, closing, waiting, and knowing when the last write is over."""

from __future__ import annotations

import threading
import time

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Cancelled, DeadlineExceeded, Revoked


def test_an_open_gate_lets_everything_pass() -> None:
    scope = CancelScope()
    scope.check()
    with scope.writing():
        pass
    assert scope.remaining() == float("inf")
    assert scope.remaining(3.0) == 3.0
    assert scope.settle(0)


def test_a_deadline_closes_it() -> None:
    scope = CancelScope(time.monotonic() - 1)
    assert scope.remaining() == 0.0
    for use in (scope.check, lambda: scope.pause(10), lambda: scope.wait(threading.Event())):
        with pytest.raises(DeadlineExceeded):
            use()
    with pytest.raises(DeadlineExceeded), scope.writing():
        pytest.fail("entered a write after the deadline")


def test_the_first_reason_stays() -> None:
    scope = CancelScope()
    scope.close(Cancelled("first"))
    scope.close(Revoked("second"))
    with pytest.raises(Cancelled, match="first"):
        scope.check()


@pytest.mark.parametrize("how", ["pause", "wait"])
def test_closing_wakes_who_waits(how: str) -> None:
    scope = CancelScope()
    waiting, raised = threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        try:
            if how == "pause":
                scope.pause(60)
            else:
                scope.wait(threading.Event())
        except Cancelled:
            raised.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    scope.close(Cancelled("enough"))
    assert raised.wait(10)
    thread.join(10)


def test_wait_tells_whether_the_event_came() -> None:
    scope, event = CancelScope(), threading.Event()
    assert scope.wait(event, 0.01) is False
    event.set()
    assert scope.wait(event, 0.01) is True


def test_settle_waits_for_the_write_that_was_under_way_when_it_closed() -> None:
    scope = CancelScope()
    inside, finish = threading.Event(), threading.Event()

    def write() -> None:
        with scope.writing():
            inside.set()
            finish.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(10)
    scope.close(Cancelled("enough"))
    assert scope.settle(0.01) is False
    finish.set()
    assert scope.settle(10) is True
    thread.join(10)


def test_on_close_calls_at_once_when_it_is_closed_already_and_never_after_unsubscribing() -> None:
    scope, called = CancelScope(), []
    forget = scope.on_close(lambda: called.append("never"))
    forget()
    scope.close(Cancelled("enough"))
    scope.on_close(lambda: called.append("late"))
    assert called == ["late"]


def test_an_earlier_gate_closes_first_and_with_its_parent() -> None:
    scope = CancelScope(time.monotonic() + 10)
    with scope.earlier(9.99) as early, pytest.raises(DeadlineExceeded):
        early.pause(5)
    scope.check()
    with scope.earlier(1) as early:
        scope.close(Cancelled("enough"))
        with pytest.raises(Cancelled, match="enough"):
            early.check()
    with scope.earlier(1) as late, pytest.raises(Cancelled, match="enough"):
        late.check()


def test_an_earlier_gate_of_one_without_a_deadline_has_none() -> None:
    with CancelScope().earlier(3) as early:
        assert early.deadline is None

"""Gates: deadlines, closing, waiting, and knowing when the last write is over."""

from __future__ import annotations

import threading
import time

import pytest

from deployer.core.errors import Cancelled, DeadlineExceeded, Revoked
from deployer.core.gate import Gate


def test_an_open_gate_lets_everything_pass() -> None:
    gate = Gate()
    gate.check()
    with gate.writing():
        pass
    assert gate.remaining() == float("inf")
    assert gate.remaining(3.0) == 3.0
    assert gate.settle(0)


def test_a_deadline_closes_it() -> None:
    gate = Gate(time.monotonic() - 1)
    assert gate.remaining() == 0.0
    for use in (gate.check, lambda: gate.pause(10), lambda: gate.wait(threading.Event())):
        with pytest.raises(DeadlineExceeded):
            use()
    with pytest.raises(DeadlineExceeded), gate.writing():
        pytest.fail("entered a write after the deadline")


def test_the_first_reason_stays() -> None:
    gate = Gate()
    gate.close(Cancelled("first"))
    gate.close(Revoked("second"))
    with pytest.raises(Cancelled, match="first"):
        gate.check()


@pytest.mark.parametrize("how", ["pause", "wait"])
def test_closing_wakes_who_waits(how: str) -> None:
    gate = Gate()
    waiting, raised = threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        try:
            if how == "pause":
                gate.pause(60)
            else:
                gate.wait(threading.Event())
        except Cancelled:
            raised.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    gate.close(Cancelled("enough"))
    assert raised.wait(10)
    thread.join(10)


def test_wait_tells_whether_the_event_came() -> None:
    gate, event = Gate(), threading.Event()
    assert gate.wait(event, 0.01) is False
    event.set()
    assert gate.wait(event, 0.01) is True


def test_settle_waits_for_the_write_that_was_under_way_when_it_closed() -> None:
    gate = Gate()
    inside, finish = threading.Event(), threading.Event()

    def write() -> None:
        with gate.writing():
            inside.set()
            finish.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(10)
    gate.close(Cancelled("enough"))
    assert gate.settle(0.01) is False
    finish.set()
    assert gate.settle(10) is True
    thread.join(10)


def test_on_close_calls_at_once_when_it_is_closed_already_and_never_after_unsubscribing() -> None:
    gate, called = Gate(), []
    forget = gate.on_close(lambda: called.append("never"))
    forget()
    gate.close(Cancelled("enough"))
    gate.on_close(lambda: called.append("late"))
    assert called == ["late"]


def test_an_earlier_gate_closes_first_and_with_its_parent() -> None:
    gate = Gate(time.monotonic() + 10)
    with gate.earlier(9.99) as early, pytest.raises(DeadlineExceeded):
        early.pause(5)
    gate.check()
    with gate.earlier(1) as early:
        gate.close(Cancelled("enough"))
        with pytest.raises(Cancelled, match="enough"):
            early.check()
    with gate.earlier(1) as late, pytest.raises(Cancelled, match="enough"):
        late.check()


def test_an_earlier_gate_of_one_without_a_deadline_has_none() -> None:
    with Gate().earlier(3) as early:
        assert early.deadline is None

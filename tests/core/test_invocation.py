"""What ends the call of a step from outside, and is no mistake of the step's."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Cancelled, Revoked
from deployer.core.operations.execution.invocation import BoundedInvoker, Hung, StepCrashed


def direct(scope: CancelScope) -> None:
    scope.check()


def waiting(scope: CancelScope) -> None:
    scope.wait(threading.Event(), 0.01)


def pausing(scope: CancelScope) -> None:
    scope.pause(0.01)


def earlier(scope: CancelScope) -> None:
    with scope.earlier(1.0) as child:
        child.check()


def writing(scope: CancelScope) -> None:
    with scope.writing():
        pytest.fail("it may write")


@pytest.mark.parametrize("step", [direct, waiting, pausing, earlier, writing])
def test_a_lease_that_was_not_renewed_in_time_is_no_mistake_of_the_step(step: Callable[[CancelScope], None]) -> None:
    """Also when it was renewed while the step ended: the operation is left as it is, and gone on with."""
    answers = iter([False])
    invoker = BoundedInvoker("shop", Hung(), permit=lambda: next(answers, True))
    with pytest.raises(Revoked, match="could not be renewed in time"):
        invoker.call(20.0, step)


def test_what_was_refused_once_stays_refused_for_the_step() -> None:
    answers = iter([True, False])
    scope = CancelScope(permit=lambda: next(answers, True))
    scope.check()
    with scope.earlier(1.0) as child:
        for _ in range(2):
            with pytest.raises(Revoked):
                child.check()
        with pytest.raises(Revoked):
            scope.check()
        assert scope.closed and child.closed and scope.revoked


def test_an_interruption_that_nobody_asked_for_is_one() -> None:
    def kept(_: CancelScope) -> None:
        raise Revoked("by a handle of an earlier call")

    with pytest.raises(StepCrashed):
        BoundedInvoker("shop", Hung()).call(20.0, kept)


def test_what_was_cancelled_and_has_lost_its_lease_since_is_revoked_too() -> None:
    """What it sent late, after a pause that outlasted both, is not its own any more."""
    allowed = True
    scope = CancelScope(permit=lambda: allowed)
    with scope.earlier(1.0) as child:
        scope.close(Cancelled("cancelled by request"))
        assert (scope.revoked, child.revoked) == (False, False)
        allowed = False
        assert (scope.revoked, child.revoked) == (True, True)
        with pytest.raises(Cancelled):
            child.check()

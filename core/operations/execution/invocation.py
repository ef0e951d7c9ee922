"""Calls into steps: each in a thread of its own with a scope, so that one that hangs can be left behind."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from deployer.core.calls import Invocation
from deployer.core.cancel_scope import CancelScope, Notice
from deployer.core.contract.kube import is_event
from deployer.core.contract.strategy import Done, Outcome, Park, Signal, Step
from deployer.core.errors import (
    Cancelled,
    DeadlineExceeded,
    DeployerError,
    Interrupted,
    OperatorNeeded,
    Revoked,
    StepFailed,
)

T = TypeVar("T")

MOST_SAID = 4000
"""Characters that a failure's message has, and its hint."""

_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")

logger = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds that a step gets to come back once its time is up; then its thread is left alone, without its handles."""

SETTLE = 20.0
"""Seconds to wait for a request that was already sent when the scope closed: connect and read time-out, and some."""


class StepCrashed(DeployerError):
    """A step raised something that is not ours: a mistake in the plugin."""


class Hung:
    """Threads that went on past their deadline. They hold no handle that works; too many make the service unready."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def add(self, thread: threading.Thread) -> None:
        """Count a thread until it ends."""
        with self._lock:
            self._threads.append(thread)

    def count(self) -> int:
        """How many are still there."""
        with self._lock:
            self._threads = [t for t in self._threads if t.is_alive()]
            return len(self._threads)


class BoundedInvoker:
    """Makes an operation's calls, one at a time, and ends the one under way when it is stopped or cancelled."""

    def __init__(
        self, name: str, hung: Hung, notice: Notice | None = None, permit: Callable[[], bool] | None = None
    ) -> None:
        """`name` is for threads and logs; `notice` is told what its calls wait for; `permit` says whether they may do
        anything now."""
        self._name = name
        self._hung = hung
        self._notice = notice
        self._permit = permit
        self._lock = threading.Lock()
        self._scope: CancelScope | None = None
        self._cancellable = False
        self._stop: Interrupted | None = None
        self._cancelled = False

    def stop(self, reason: Interrupted) -> None:
        """End the call under way and refuse every later one."""
        with self._lock:
            self._stop = self._stop or reason
            scope = self._scope
        if scope is not None:
            scope.close(reason)

    def cancel(self) -> None:
        """End the call under way if it can be cancelled, and refuse every later one of that sort."""
        with self._lock:
            self._cancelled = True
            scope = self._scope if self._cancellable else None
        if scope is not None:
            scope.close(Cancelled("cancelled by request"))

    @property
    def cancelled(self) -> bool:
        """True once `cancel` was called."""
        return self._cancelled

    def call(self, seconds: float, function: Callable[[CancelScope], T], *, cancellable: bool = False) -> T:
        """The result of `function`, for at most `seconds`. When this returns, nothing that it sent is under way.

        Raises what it raises (StepCrashed for what is not a DeployerError), DeadlineExceeded, Cancelled, or the reason
        of `stop`. A thread that does not come back is counted and loses its handles: the scope is closed.
        """
        scope = CancelScope(time.monotonic() + seconds, self._notice, self._permit)
        self._enter(scope, cancellable)
        call = Invocation(partial(_bounded, function, scope), f"step-{self._name}")
        forget = scope.on_close(call.wake)
        back = call.wait(seconds)
        forget()
        if not back:
            scope.close(DeadlineExceeded(f"this step did not finish within {seconds:.3g} s"))
            call.done.wait(GRACE)
        if not call.done.is_set():
            scope.settle(SETTLE)
        if not call.done.is_set():
            self._hung.add(call.thread)
            logger.warning("a step of %s hangs past its deadline; it is left behind without its handles", self._name)
            scope.check()
        # Whatever the step left running with its handles is of no use from here on.
        scope.close(Revoked("this step is over"))
        if not scope.settle(SETTLE):
            logger.warning("a request of a step of %s is still under way after %g s", self._name, SETTLE)
        return call.result()

    def pause(self, seconds: float, *, cancellable: bool) -> None:
        """Wait. Raises Cancelled, or the reason of `stop`."""
        scope = CancelScope()
        self._enter(scope, cancellable)
        scope.pause(seconds)

    def _enter(self, scope: CancelScope, cancellable: bool) -> None:
        with self._lock:
            if self._stop is not None:
                raise self._stop
            if cancellable and self._cancelled:
                raise Cancelled("cancelled by request")
            self._scope, self._cancellable = scope, cancellable


def _bounded(function: Callable[[CancelScope], T], scope: CancelScope) -> T:
    """What it returns. Raises what it raises, when that is an error of ours that can be recorded; else StepCrashed. A
    plugin's `sys.exit` ends only this call."""
    try:
        return function(scope)
    except Interrupted as error:
        if scope.closed or isinstance(error, DeadlineExceeded):
            raise
        raise _crashed(error) from None
    except DeployerError as error:
        if (said := _sayable(error)) is error:
            raise
        raise said from None
    except BaseException as error:  # noqa: BLE001 - it is logged there
        raise _crashed(error) from None


def _sayable(error: DeployerError) -> DeployerError:
    """The error, when all that it says is text; what a plugin says at length is cut. Else that is its own mistake: what
    cannot be recorded would be tried for ever."""
    try:
        said = {name: getattr(error, name) for name in ("reason", "pod", "hint") if hasattr(error, name)}
        message = str(error)
    except Exception as wrong:  # noqa: BLE001 - logged there; whatever the plugin made of it
        return _crashed(wrong)
    if not isinstance(message, str) or not all(isinstance(text, str) for text in said.values()):
        return _crashed(error)
    named = _REASON.fullmatch(said.get("reason", "")) is not None
    if isinstance(error, OperatorNeeded) and not named:
        return OperatorNeeded(message)
    if not isinstance(error, StepFailed):
        return error
    reason = said["reason"] if named else "StepFailed"
    cut = {name: text[:MOST_SAID] for name, text in said.items()} | {"reason": reason}
    ours = type(error).__module__ == StepFailed.__module__  # another class may say something else the next time
    return error if ours and (cut, message[:MOST_SAID]) == (said, message) else StepFailed(message[:MOST_SAID], **cut)


def _crashed(error: BaseException) -> StepCrashed:
    """A mistake in the plugin; also an interruption that nobody asked for, as by a handle kept from an earlier call."""
    logger.error("a step raised %s", type(error).__name__, exc_info=error)
    return StepCrashed(f"it raised {type(error).__name__}; the service's log has the details")


def checked(step: Step, outcome: object) -> Outcome:
    """What a step returned, when it is an outcome. Raises StepFailed: nobody guesses whether it reached its goal."""
    if isinstance(outcome, Park) and not (isinstance(outcome.until, int | float) and math.isfinite(outcome.until)):
        wrong = f"parks until {outcome.until!r}, which is no time in seconds since the epoch"
    elif isinstance(outcome, Park) and not (isinstance(outcome.reason, str) and len(outcome.reason) <= MOST_SAID):
        wrong = f"parks for a reason that is no text of at most {MOST_SAID} characters"
    elif isinstance(outcome, Park) and not (outcome.event in (None, Signal()) or is_event(outcome.event)):
        wrong = f"parks for {type(outcome.event).__name__}, which is no event to wait for"
    elif not isinstance(outcome, Done | Park):
        wrong = f"returned {type(outcome).__name__}, neither Done() nor Park(...)"
    else:
        return outcome
    raise StepFailed(f"step {step.id} {wrong}", reason="BadStrategy", hint="ask the plugin's author")

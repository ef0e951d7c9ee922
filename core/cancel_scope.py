"""Revocable permission to act: what a step's handles ask before they do anything that leaves a trace."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from deployer.core.errors import DeadlineExceeded, Interrupted, Revoked

Notice = Callable[[str, str, float, float], None]
"""What keeps something waiting: its name, why (empty: nothing any more), since when, and for how many seconds more."""


class CancelScope:
    """Open until its deadline passes or somebody closes it; then every use raises, and everything that waits wakes up.

    A thread that hangs past its deadline cannot be stopped in Python. Closing the scope makes it harmless: each later
    request through the handles that share the scope is refused before it is sent, and `settle` tells when the last
    one that had already been sent is over, so that undoing does not overtake it.
    """

    def __init__(
        self,
        deadline: float | None = None,
        notice: Notice | None = None,
        permit: Callable[[], bool] | None = None,
        parent: CancelScope | None = None,
    ) -> None:
        """`deadline` is on `time.monotonic()`'s clock; None means no end. `notice` is told what is waited for.

        `permit` is asked at each use, as after a pause of the whole process there is nobody yet who could have closed
        the scope. Once it has said no the scope is closed, whatever it would say later: another process may have gone
        on meanwhile. A scope with a `parent` asks that one.
        """
        self._lock = threading.Condition()
        self._permit = permit
        self._parent = parent
        self._deadline = deadline
        self._notice = notice
        self._reason: Interrupted | None = None
        self._writes = 0
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next = 0

    @property
    def deadline(self) -> float | None:
        """The moment on `time.monotonic()`'s clock at which it closes by itself."""
        return self._deadline

    @property
    def closed(self) -> bool:
        """True once somebody closed it, or its permit was refused; a deadline that merely passed is another matter."""
        with self._lock:
            return self._reason is not None

    @property
    def revoked(self) -> bool:
        """True once whoever uses it has lost the right to."""
        return isinstance(self._ended(), Revoked) or not self._permitted()

    def remaining(self, most: float = float("inf")) -> float:
        """Seconds until the deadline, never negative, never more than `most`; 0.0 once closed."""
        with self._lock:
            if self._reason is not None:
                return 0.0
            if self._deadline is None:
                return most
            return max(0.0, min(most, self._deadline - time.monotonic()))

    def check(self) -> None:
        """Return when open. Raises the reason for which it was closed, or DeadlineExceeded."""
        with self._lock:
            self._check()

    def _ended(self) -> Interrupted | None:
        with self._lock:
            if self._reason is None and self._parent is not None:
                self._reason = self._parent._ended()
            if self._reason is None and not self._permitted():
                self._reason = Revoked("the lease could not be renewed in time")
            return self._reason

    def _permitted(self) -> bool:
        if self._parent is not None:
            return self._parent._permitted()
        return self._permit is None or self._permit()

    def _check(self) -> None:
        if (reason := self._ended()) is not None:
            raise reason
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the time for this is used up")

    def close(self, reason: Interrupted) -> None:
        """Close it for good. The first reason stays."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            self._lock.notify_all()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when it is closed (at once when it is already). Returns the function that unsubscribes.

        A deadline that merely passes calls nobody: who waits passes `remaining()` as the time-out.
        """
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._callbacks[number] = callback
            closed = self._reason is not None
        if closed:
            callback()
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._callbacks.pop(number, None)

    @contextlib.contextmanager
    def earlier(self, seconds: float) -> Iterator[CancelScope]:
        """A scope that closes with this one, and whose deadline comes that many seconds before this one's.

        What is left then is for saying why the time was not enough: once this scope's own deadline has passed, nobody
        waits for the explanation.
        """
        child = CancelScope(None if self._deadline is None else self._deadline - seconds, self._notice, parent=self)
        forget = self.on_close(lambda: child.close(self._reason or Revoked("it was closed")))
        try:
            yield child
        finally:
            forget()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Surround a request that changes something outside. Raises instead of entering when closed."""
        with self._lock:
            self._check()
            self._writes += 1
        try:
            yield
        finally:
            with self._lock:
                self._writes -= 1
                self._lock.notify_all()

    def settle(self, timeout: float) -> bool:
        """Wait until no write is under way; False when one still is after `timeout` seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: self._writes == 0, timeout)

    def report(self, source: str, why: str, since: float | None = None) -> None:
        """Tell whoever opened it what keeps `source` waiting (empty: nothing any more), and since when; now by default.

        `source` is any name for one thing that waits; `since` is on `time.monotonic()`'s clock.
        """
        if self._notice is not None:
            self._notice(source, why, time.monotonic() if since is None else since, self.remaining())

    def pause(self, seconds: float) -> None:
        """Wait, for what no event tells. Raises as soon as the scope closes or the deadline passes."""
        end = time.monotonic() + seconds
        with self._lock:
            while (left := end - time.monotonic()) > 0:
                self._check()
                if self._deadline is not None:
                    left = min(left, self._deadline - time.monotonic())
                self._lock.wait(max(0.0, left))
            self._check()

    def wait(self, event: threading.Event, timeout: float = float("inf")) -> bool:
        """Wait for `event`; True when it is set, False after `timeout`. Raises when the scope closes or its time is up.

        The event is set by a closing scope too, so it must be the caller's own.
        """
        forget = self.on_close(event.set)
        try:
            left = self.remaining(timeout)
            happened = event.wait(None if left == float("inf") else left)
        finally:
            forget()
        self.check()
        return happened

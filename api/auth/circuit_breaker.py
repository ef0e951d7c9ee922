"""Asking a server that may be slow or away, without letting it take the threads away from everybody else."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from deployer.api.auth.principal import Unauthenticated, Unsure

T = TypeVar("T")

SLOTS = 4
"""Threads that may wait for the server at once; REST has eight."""

PATIENCE = 0.5
"""Seconds for which a further one waits for one of them to come back, and after which an answer counts as slow."""

PAUSE = 1.0
"""Seconds between two attempts while the server does not answer; meanwhile everybody is told so at once."""


class _Busy(Unsure):
    """The server was not asked, so nothing new is known about it."""


class CircuitBreaker:
    """A bulkhead and a circuit breaker (Nygard, *Release It!*) around questions to one server. Thread-safe."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(SLOTS)
        self._lock = threading.Lock()
        self._trouble: Unsure | None = None
        self._next = 0.0  # when it may be tried again, on the monotonic clock
        self._trying = False
        self._running: list[float] = []  # when each question under way was asked
        self.answered = False
        """True once any question was answered."""

    @property
    def trouble(self) -> str:
        """Why the last question was not answered; empty when it was."""
        return self._trouble.detail if self._trouble else ""

    def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises Unsure when the question does, or when it should not even be asked now."""
        alone = self._admit()
        try:
            with self._slot(alone):
                answer = question()
        except _Busy:
            raise
        except Unsure as error:
            self._failed(error)
            raise
        except Unauthenticated:
            self._succeeded()
            raise
        finally:
            self._leave(alone)
        self._succeeded()
        return answer

    @contextlib.contextmanager
    def _slot(self, alone: bool) -> Iterator[None]:
        """One of the slots. Where all are taken by questions that are slow already, nobody waits."""
        began = time.monotonic()
        with self._lock:
            slowest = min(self._running, default=began)
        if not self._slots.acquire(timeout=max(0.0, PATIENCE - (began - slowest))):
            raise _Busy("too many credentials are being checked at the moment; try again")
        began = time.monotonic()
        with self._lock:
            self._running.append(began)
            trouble = None if alone else self._trouble
        try:
            if trouble is not None:
                raise _Busy(str(trouble), trouble.detail)
            yield
        finally:
            with self._lock:
                self._running.remove(began)
            self._slots.release()

    def _admit(self) -> bool:
        """True for the only one that tries while there is trouble."""
        with self._lock:
            trouble = self._trouble
            if trouble is None:
                return False
            if self._trying or time.monotonic() < self._next:
                raise Unsure(str(trouble), trouble.detail)
            self._trying = True
            return True

    def _leave(self, alone: bool) -> None:
        if alone:
            with self._lock:
                self._trying = False

    def _succeeded(self) -> None:
        self.answered, self._trouble = True, None

    def _failed(self, trouble: Unsure) -> None:
        with self._lock:
            self._trouble = trouble
            self._next = time.monotonic() + PAUSE

"""Asking a server that may be slow or away, without letting it take the threads away from everybody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from deployer.api.auth.model import Unauthenticated, Unsure

T = TypeVar("T")

SLOTS = 4
"""Threads that may wait for the server at once; REST has eight."""

PATIENCE = 0.5
"""Seconds for which a further one waits for one of them to come back."""

PAUSE = 1.0
"""Seconds between two attempts while the server does not answer; meanwhile everybody is told so at once."""


class Asking:
    """A bulkhead and a circuit breaker (Nygard, *Release It!*) around questions to one server. Thread-safe."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(SLOTS)
        self._lock = threading.Lock()
        self._trouble: Unsure | None = None
        self._next = 0.0  # when it may be tried again, on the monotonic clock
        self._trying = False
        self.answered = False
        """True once any question was answered."""

    @property
    def trouble(self) -> str:
        """Why the last question was not answered; empty when it was."""
        return self._trouble.detail if self._trouble else ""

    def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises Unsure when the question does, or when it should not even be asked now."""
        alone = self._admit()
        if not self._slots.acquire(timeout=PATIENCE):
            self._leave(alone)
            raise Unsure("too many credentials are being checked at the moment; try again")
        try:
            answer = question()
        except Unsure as error:
            self._failed(error)
            raise
        except Unauthenticated:
            self._succeeded()
            raise
        finally:
            self._slots.release()
            self._leave(alone)
        self._succeeded()
        return answer

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

"""What this process does at this moment for operations: for people to read, and in no record."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from deployer.core.model.records import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Of one operation, by the engine's clock.

    operation  as this process has it, which may be ahead of what is durable
    step       that is run or undone at this moment; empty between two
    since      when that began
    deadline   when its time will be used up; 0: nobody can say
    waits      what it waits for, in words without secrets
    held       nobody can go on, for that reason
    """

    operation: Operation
    step: str = ""
    since: float = 0.0
    deadline: float = 0.0
    waits: str = ""
    held: str = ""


class Activities:
    """Of all operations that this process works on. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, Activity] = {}
        self._moved: Counter[str] = Counter()
        self.tell: Callable[[], None] = lambda: None
        """Called after each change; it must only set a flag."""

    def put(self, activity: Activity) -> None:
        """This is how it is now."""
        operation = activity.operation
        with self._lock:
            self._now[operation.id] = activity
            self._moved[operation.namespace] += 1
        self.tell()

    def drop(self, operation: Operation) -> None:
        """This process does nothing for it any more; what is durable says all."""
        with self._lock:
            self._now.pop(operation.id, None)
            self._moved[operation.namespace] += 1
        self.tell()

    def of(self, operation: Operation) -> Activity | None:
        """What is done for it; None when that is nothing."""
        return self._now.get(operation.id)

    def all(self) -> list[Activity]:
        """What is done now."""
        with self._lock:
            return list(self._now.values())

    def moved(self, namespace: str) -> int:
        """A number that grows with every change in that namespace."""
        return self._moved[namespace]

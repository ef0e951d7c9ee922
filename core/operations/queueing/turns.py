"""Whose operation is next when more are due than may run: namespaces take turns, and none of them gets everything.

A new version that is never ready keeps its worker for minutes, and nothing takes that away. So some workers stay free
for what comes next, as memory in switches does (Choudhury and Hahne, *Dynamic Queue Length Thresholds for Shared-Memory
Packet Switches*, 1998): a namespace may have as many as are free, which is half of them for one alone, and a third each
for two.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator

from deployer.core.model.records import Operation, OperationKind


class Turns:
    """Counts who works. Not thread-safe: the dispatcher's lock guards it."""

    def __init__(self, workers: int) -> None:
        """`workers`: operations that may run at once. An eighth of them is for what does not begin a deployment."""
        self._workers = workers
        self._kept = workers // 8
        self._taken: Counter[tuple[str, bool]] = Counter()

    def grant(self, due: Iterable[Operation]) -> Iterator[Operation]:
        """Those that may run now, in order, each counted until `give_back`. What goes on, rollbacks and undeployments
        come before new deployments and have workers of their own; then the namespace that has the fewest."""
        ordered = sorted(due, key=lambda operation: operation.sequence)
        for begins in (False, True):
            waiting: defaultdict[str, deque[Operation]] = defaultdict(deque)
            for operation in ordered:
                if _begins(operation) is begins:
                    waiting[operation.namespace].append(operation)
            while waiting:
                namespace = min(waiting, key=lambda name: (self._taken[name, begins], waiting[name][0].sequence))
                free = self._workers - self._taken.total() - (self._kept if begins else 0)
                if self._taken[namespace, begins] >= free:
                    break
                self._taken[namespace, begins] += 1
                yield waiting[namespace].popleft()
                if not waiting[namespace]:
                    del waiting[namespace]

    def give_back(self, operation: Operation) -> None:
        """It runs no more; as it was when it was granted."""
        self._taken[operation.namespace, _begins(operation)] -= 1
        self._taken += Counter()  # keeps those that have some


def _begins(operation: Operation) -> bool:
    return operation.kind is OperationKind.DEPLOY and not operation.begun

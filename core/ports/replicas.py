"""Who else works on the same store: a port, so that operations are spread over the replicas."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol


class Replicas(Protocol):
    """The processes of which this is one. Thread-safe; only `start` waits for the store."""

    def start(self, moved: Callable[[bool], None], hand_over: Callable[[str], None]) -> None:
        """Be one of them. Raises StoreUnavailable.

        moved      is told when it may be another one's turn; True: one is gone, and has left what it did
        hand_over  is told why others should carry out what this process does
        """

    def stop(self) -> list[threading.Thread]:
        """Be none of them any more, and return the threads that end now."""

    @property
    def alone(self) -> bool:
        """Is there no other one?"""

    def patience(self, namespace: str, app: str) -> float:
        """Seconds for which others may take up what is due of an app before this process does; inf: it does not."""

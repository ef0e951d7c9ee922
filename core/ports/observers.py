"""Those who are told of deployments: a port, so that operations write what happened and wait for nobody."""

from __future__ import annotations

import threading
from typing import Protocol

from deployer.core.model.records import Document


class Observers(Protocol):
    """Each is told in order, from what is in the store. No method waits, and none raises."""

    @property
    def wanted(self) -> frozenset[str]:
        """The hooks that somebody implements."""

    def start(self) -> None:
        """Tell what is waiting, and whatever comes."""

    def stop(self) -> list[threading.Thread]:
        """Tell no more, and return the threads that end now."""

    def wake(self) -> None:
        """There may be something to tell."""

    def changed(self, deployment: Document) -> None:
        """Tell of progress: transient, and of each deployment only the newest, when an observer is slow."""

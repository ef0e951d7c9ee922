"""How many pods the versions of apps have, from the informers: no request for each question."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Mapping

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Interrupted, KubeError
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.records import Document
from deployer.kube.informer import Informer, Informers
from deployer.kube.pods import name_of

FIRST_LIST = 1.0
"""Seconds for which somebody who asks first waits for the first list of a namespace; nobody else does meanwhile."""


class ReplicaCounts:
    """As the ReplicationControllers say, of namespaces that somebody asks about."""

    def __init__(self, informers: Informers) -> None:
        self._informers = informers
        self._asking = threading.Lock()
        self._asked: dict[str, Informer] = {}

    def of(self, namespace: str) -> Mapping[str, tuple[int, int]] | str:
        """By name of the controller how many pods it wants, and how many are ready; or why nobody knows."""
        try:
            informer = self._asked[namespace] = self._informers.get(CONTROLLER, namespace)
            informer.known()
            if not informer.listed and self._asking.acquire(blocking=False):
                try:
                    informer.synced(CancelScope(time.monotonic() + FIRST_LIST))
                finally:
                    self._asking.release()
            if not informer.listed:
                return informer.problem or "the API server has not answered yet"
            return {name_of(found): _count(found) for found in informer.known()}
        except (KubeError, Interrupted) as error:
            return str(error)

    def moved(self, namespace: str) -> Hashable:
        """What differs whenever the answer may."""
        informer = self._asked.get(namespace)
        return None if informer is None else informer.moved


def _count(controller: Document) -> tuple[int, int]:
    wanted = (controller.get("spec") or {}).get("replicas", 1)
    return int(wanted), int((controller.get("status") or {}).get("readyReplicas") or 0)

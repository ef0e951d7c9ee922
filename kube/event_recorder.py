"""Writes Kubernetes Events about versions, so that `kubectl describe` tells the story: best effort, in nobody's way."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import ClusterEvent
from deployer.core.errors import Interrupted, KubeAlreadyExists, KubeError, KubeForbidden, Revoked
from deployer.core.model.kind import CONTROLLER
from deployer.core.model.names import versioned_name
from deployer.core.model.records import Document
from deployer.core.ports.cluster import VersionEvent
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.kube.ownership import ANNOTATION_DEPLOYMENT

PATIENCE = 300.0
"""Seconds for which an Event waits for the ReplicationController that it is about."""

WAITING = 1000
"""Events that wait at once; the oldest is forgotten for another one."""

TIMEOUT = 5.0
"""Seconds that the API server has to take one."""

NOTE = 1024
"""Bytes of a note, the limit of events.k8s.io/v1."""

COMPONENT = "deployer"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Present(ClusterEvent):
    """That there is an object with these labels."""

    def has_come(self, found: Sequence[Document]) -> bool:
        return bool(found)


class EventRecorder:
    """Whatever becomes of an Event, nobody waits for it and nobody is told but the log."""

    def __init__(self, client: KubeClient, informers: Informers) -> None:
        self._client = client
        self._informers = informers
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._new: deque[_Waiting] = deque(maxlen=WAITING)
        self._waiting: deque[_Waiting] = deque()
        self._refused: set[str] = set()
        self._writing = CancelScope()
        self._thread: threading.Thread | None = None

    def record(self, told: VersionEvent) -> None:
        """Write it soon, as soon as its version's ReplicationController is there. Returns at once."""
        with self._lock:
            if self._closing:
                return
            self._new.append(_Waiting(told))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Write no more; what waits is forgotten."""
        with self._lock:
            self._closing = True
            thread, writing = self._thread, self._writing
        writing.close(Revoked("the service is stopping"))
        self._wake.set()
        if thread is not None:
            thread.join(TIMEOUT)

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait(PATIENCE if self._waiting else None)
            self._wake.clear()
            with self._lock:
                if self._closing:
                    break
                new, self._new = self._new, deque(maxlen=WAITING)
            for waiting in new:
                self._await(waiting)
            self._look()
        for waiting in self._waiting:
            waiting.forget()

    def _await(self, waiting: _Waiting) -> None:
        """Be woken when there is something that it may be about."""
        namespace, labels = waiting.told.namespace, waiting.labels
        with contextlib.suppress(Interrupted):  # the service is stopping
            informer = self._informers.get(CONTROLLER, namespace)
            waiting.forget = informer.on_event(_Present(CONTROLLER, namespace, labels), self._wake.set)
            self._waiting.append(waiting)
        if len(self._waiting) > WAITING:
            self._waiting.popleft().forget()

    def _look(self) -> None:
        """Write what can be written by now, and forget what waits in vain."""
        for _ in range(len(self._waiting)):
            waiting = self._waiting.popleft()
            if self._settled(waiting) or time.monotonic() - waiting.since > PATIENCE:
                waiting.forget()
            else:
                self._waiting.append(waiting)

    def _settled(self, waiting: _Waiting) -> bool:
        """Has it been written, or can it not be?"""
        told = waiting.told
        try:
            known = self._informers.get(CONTROLLER, told.namespace).known(waiting.labels)
            about = next((found for found in known if _is_of(found, told.deployment)), None)
            if about is None:
                return False
            with self._lock:
                if self._closing:
                    return True
                self._writing = CancelScope(time.monotonic() + TIMEOUT)
            self._client.record(_event(told, about, waiting.at), told.namespace, scope=self._writing)
        except KubeAlreadyExists:
            pass  # it is one that was told before
        except KubeForbidden as error:
            if told.namespace not in self._refused:
                self._refused.add(told.namespace)
                logger.warning("no Events tell of deployments in namespace %s: %s", told.namespace, error)
            return True
        except (KubeError, Interrupted) as error:
            logger.info("an Event about %s in namespace %s is not written: %s", waiting.name, told.namespace, error)
            return True
        self._refused.discard(told.namespace)
        return True


class _Waiting:
    """An Event that waits for what it is about."""

    def __init__(self, told: VersionEvent) -> None:
        self.told = told
        self.name = versioned_name(told.app, told.version)
        self.labels = {"name": self.name}
        self.since = time.monotonic()
        self.at = datetime.datetime.now(datetime.UTC)
        self.forget: Callable[[], None] = lambda: None


def _is_of(controller: Document, deployment: str) -> bool:
    """Does it belong to that deployment; empty: to one of the original Deployer."""
    notes = controller["metadata"].get("annotations") or {}
    return (notes.get(ANNOTATION_DEPLOYMENT) or "") == deployment


def _event(told: VersionEvent, about: Document, at: datetime.datetime) -> Document:
    """A core/v1 Event. What is told twice has one name, so that the API server refuses the second."""
    metadata = about["metadata"]
    note = told.note.encode()[:NOTE].decode(errors="ignore")
    digest = hashlib.sha256(f"{metadata['uid']}\n{told.reason}\n{note}".encode()).hexdigest()[:16]
    now = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": told.namespace},
        "involvedObject": {
            "apiVersion": CONTROLLER.api_version,
            "kind": CONTROLLER.kind,
            "namespace": told.namespace,
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "type": "Warning" if told.warning else "Normal",
        "reason": told.reason,
        "message": note,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": "",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }

"""What steps and plugins get of the cluster: one namespace, bound to an app's and a deployment's ownership, fenced."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import ForeignObject
from deployer.core.model.kind import POD, Kind
from deployer.core.model.records import Document

T = TypeVar("T")
Documents = list[Document]
Lines = list[str]
Change = Callable[[Document | None], Document | None]

CONTROLLED_BY = "@controlled-by"
"""In an informer's selector: the uid of the controller that owns the object. No label can be called so."""


def is_active(pod: Document) -> bool:
    """True unless the pod is on its way out or over: what a ReplicationController counts."""
    ended = pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
    return not ended and not pod["metadata"].get("deletionTimestamp")


def restarts(pod: Document) -> int:
    """How often containers of the pod were started again."""
    return sum(int(s.get("restartCount", 0)) for s in (pod.get("status") or {}).get("containerStatuses") or ())


def is_event(event: object) -> bool:
    """Is it one of ours, of texts? All apps share the informer under whose lock it is asked: so it must be nothing
    that a plugin made itself, and nothing that could raise."""
    if not isinstance(event, Gone | Changed | NotReady | Unsteady) or type(event) not in EVENTS:
        return False
    if not isinstance(event.kind, Kind) or not isinstance(event.labels, Mapping):
        return False
    texts: list[object] = [event.namespace or "", *event.labels.keys(), *event.labels.values()]
    texts += [event.name, event.resource_version] if isinstance(event, Changed) else []
    if isinstance(event, NotReady):
        texts += event.uids if isinstance(event.uids, frozenset) else [None]
    if isinstance(event, Unsteady):
        pairs = event.known if isinstance(event.known, frozenset) else [(None, 0)]
        texts += [uid for uid, count in pairs if isinstance(count, int)] or ([None] if pairs else [])
    return all(isinstance(text, str) for text in texts)


def is_ready(pod: Document) -> bool:
    """True when the pod is active and its Ready condition holds."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return is_active(pod) and any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """Something that a parked step waits for: it has come, or it comes with a change of objects with these labels."""

    kind: Kind
    namespace: str | None
    labels: Mapping[str, str]

    def has_come(self, found: Sequence[Document]) -> bool:
        """Has it, when these are the objects with the labels?"""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Gone(ClusterEvent):
    """The event that no object with these labels is left; made by `KubeAccess.gone`."""

    def has_come(self, found: Sequence[Document]) -> bool:
        """None is there."""
        return not found


@dataclass(frozen=True, slots=True)
class Changed(ClusterEvent):
    """The event that an object is another one than it was: its resourceVersion moved, or it is gone."""

    name: str
    resource_version: str

    @classmethod
    def since(cls, kind: Kind, found: Document) -> Changed:
        """For an object as it was read."""
        meta = found["metadata"]
        return cls(kind, meta.get("namespace"), meta.get("labels") or {}, meta["name"], meta["resourceVersion"])

    def has_come(self, found: Sequence[Document]) -> bool:
        """The object is not among them as it was."""
        known = ((o["metadata"]["name"], o["metadata"]["resourceVersion"]) for o in found)
        return (self.name, self.resource_version) not in known


@dataclass(frozen=True, slots=True)
class NotReady(ClusterEvent):
    """The event that one of these pods is not ready any more: its condition says so, it is ending, or it is gone."""

    uids: frozenset[str]

    @classmethod
    def among(cls, pods: Sequence[Document], labels: Mapping[str, str]) -> NotReady:
        """For pods of one namespace that have these labels; at least one."""
        uids = frozenset(str(pod["metadata"]["uid"]) for pod in pods)
        return cls(POD, pods[0]["metadata"]["namespace"], dict(labels), uids)

    def has_come(self, found: Sequence[Document]) -> bool:
        """Not all of the pods are among them and ready."""
        return not self.uids <= {str(pod["metadata"]["uid"]) for pod in found if is_ready(pod)}


@dataclass(frozen=True, slots=True)
class Unsteady(ClusterEvent):
    """The event that one of these pods is not ready any more, or that one of their containers was started again.

    known  uid of each, with how often its containers had been started again
    """

    known: frozenset[tuple[str, int]]

    @classmethod
    def among(cls, pods: Sequence[Document], namespace: str, labels: Mapping[str, str]) -> Unsteady:
        """For pods of one namespace that have these labels."""
        return cls(POD, namespace, dict(labels), frozenset((str(p["metadata"]["uid"]), restarts(p)) for p in pods))

    def has_come(self, found: Sequence[Document]) -> bool:
        """Not all of the pods are among them as they were, and ready."""
        return not self.known <= {(str(p["metadata"]["uid"]), restarts(p)) for p in found if is_ready(p)}


@dataclass(frozen=True, slots=True)
class EnoughReady(ClusterEvent):
    """The event that so many pods with these labels are ready. For the core, which waits for a version by it."""

    count: int

    def has_come(self, found: Sequence[Document]) -> bool:
        """There are as many, or more."""
        return sum(map(is_ready, found)) >= self.count


EVENTS = (Gone, Changed, NotReady, Unsteady)
"""All events that a step may park for."""


@dataclass(frozen=True)
class Owner:
    """For whom objects are handled.

    instance    which Deployer (setting)
    deployment  id of the deployment that is being carried out or removed
    fencing_token  of the app's lease
    keep        ids of deployments that are live or held: their objects are never leftovers
    """

    instance: str
    namespace: str
    app: str
    deployment: str
    fencing_token: int
    keep: frozenset[str] = frozenset()


class KubeAccess(Protocol):
    """Reads freely; writes only what belongs to `owner`, only in its namespace, and only while the scope is open.

    Every method raises KubeError and what the scope raises.
    """

    owner: Owner
    scope: CancelScope

    def with_scope(self, scope: CancelScope) -> KubeAccess:
        """The same, bound to another scope."""

    def for_deployment(self, deployment: str) -> KubeAccess:
        """The same for another deployment of the app."""

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Document | None:
        """The object as it is now; None when it is not there."""

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None, namespace: str | None = None) -> Documents:
        """The objects with these labels as they are now."""

    def everywhere(self, kind: Kind) -> Documents:
        """All objects of the kind in all namespaces as they are now. Few may read so much: raises KubeForbidden."""

    def items(self, kind: Kind, labels: Mapping[str, str] | None = None, namespace: str | None = None) -> Documents:
        """Like `list`, from the shared informer: no request, perhaps some milliseconds old. Never change the dicts."""

    def known(self, kind: Kind, labels: Mapping[str, str] | None = None, namespace: str | None = None) -> Documents:
        """Like `items`, but never waits: what an informer that may be out of reach has so far. Only to explain."""

    def wait(
        self,
        kind: Kind,
        condition: Callable[[Documents], T | None],
        *,
        labels: Mapping[str, str] | None = None,
        recheck: float | None = None,
        event: threading.Event | None = None,
        namespace: str | None = None,
    ) -> T:
        """The first truthy answer of `condition` about the objects with these labels, asked again whenever one of
        them changes, every `recheck` seconds, and when `event` is set. No polling. Never change the dicts."""

    def waking(
        self, kind: Kind, event: threading.Event, labels: Mapping[str, str], namespace: str | None = None
    ) -> contextlib.AbstractContextManager[object]:
        """Set `event` whenever one of the objects with these labels changes: for a `wait` that looks at them too."""

    def gone(self, kind: Kind, labels: Mapping[str, str], namespace: str | None = None) -> Gone:
        """The event that no object with these labels is left any more, for `Park`."""

    def pod_log(self, pod: str, container: str, tail_lines: int = 20, previous: bool = False) -> str:
        """The last lines of a container's log; `previous`: of the run before its last restart."""

    def pod_lines(self, pod: str, container: str, since: str = "") -> Lines:
        """What a container wrote since then, in the order in which it was read from it, each line with its time: the
        whole lines among the first 256 KiB, or the beginning of one that is longer than that.

        since   RFC 3339, of which Kubernetes takes whole seconds; empty: all that the node still has
        """

    def events(self, about: str) -> Documents:
        """The Events about an object, oldest first. One attempt, as for a log.

        about   its uid, or `Kind/name` of one that need not be readable
        """

    def annotations(self, role: str) -> dict[str, str]:
        """The ownership annotations of an object of this deployment."""

    def is_ours(self, found: Document) -> bool:
        """True when this instance made it for this app."""

    def is_original(self, found: Document) -> bool:
        """True when the original deployer made it for this app; such an object may be taken over.

        An Ingress has no labels: beside its shape, its backend must be a version of the original that the app's Service
        selects, and its host the one that this version's ReplicationController names. Once that Service is ours, which
        it becomes after the route, it may select a later version.
        """

    def owned_by(self, found: Document, deployment: str) -> bool:
        """True when it is ours and of that deployment."""

    def foreign(self, kind: Kind, found: Document) -> ForeignObject:
        """Whose it is, in one sentence."""

    def create(self, kind: Kind, body: Document) -> Document:
        """Create an object that belongs to this deployment alone; what is there already from it is returned as it is.

        A leftover of another deployment of this app is removed first. Raises ForeignObject, KubeRejected.
        """

    def delete(
        self,
        kind: Kind,
        name: str,
        *,
        deployment: str | None = None,
        propagation: str = "Background",
        wait_gone: bool = True,
        original_ok: bool = False,
    ) -> bool:
        """Delete an object of `deployment` (this one, unless said otherwise); `original_ok`: or of the original.

        True when there is none (any more); False when the name belongs to somebody else, who keeps it.
        """

    def delete_orphan(self, pod: Document) -> None:
        """Delete a pod that a ReplicationController of this app made and that no controller owns any more.

        Whether it is one is the caller's business: pods carry no annotation of ours.
        """

    def update(
        self,
        kind: Kind,
        name: str,
        change: Change,
        *,
        deployment: str | None = None,
        original_ok: bool = False,
    ) -> Document | None:
        """Edit a versioned object of `deployment` (this one, unless said otherwise); `original_ok`: or of the original.

        `change` gets a copy of what is there and returns what should be; it is called again when somebody else wrote
        meanwhile, so it must change our fields only. An object that an earlier holder of the lease may still write is
        written even when nothing differs: from then on that one is fenced. The original's get no mark of ours: they
        are known by having none. Returns the object as it is then, None when there is none. Raises ForeignObject,
        Fenced, KubeRejected.
        """

    def scale(
        self, name: str, replicas: int, *, deployment: str | None = None, original_ok: bool = False
    ) -> Document | None:
        """Have a version's ReplicationController want that many pods; see `update`. Waits for none of them."""

    def put_shared(self, kind: Kind, name: str, change: Change, *, role: str) -> Document | None:
        """Edit an object that outlives a deployment (unversioned Service, route), or create it.

        `change` gets a copy of what is there (None: nothing), and returns what should be; None or no difference means
        no write. It is called again when somebody else wrote meanwhile, so it must change our fields only. Returns
        the object as it is then. Raises ForeignObject, Fenced, KubeRejected.
        """

    def delete_shared(self, kind: Kind, name: str, *, wait_gone: bool = True, original_ok: bool = False) -> bool:
        """Delete the app's own shared object. True when there is none (any more); False when it is somebody else's.

        Raises Fenced.
        """

    def raise_fencing_token(self, kind: Kind, name: str) -> bool:
        """Write our fencing token on a shared object, so that earlier holders of the lease can no longer write it.

        False when there is nothing of ours to write on. Raises Fenced.
        """


class KubeReader:
    """Reads the objects of the app's namespace, and nothing else. Raises KubeError and what the scope raises."""

    def __init__(self, kube: KubeAccess) -> None:
        self._kube = kube

    def get(self, kind: Kind, name: str) -> Document | None:
        """The object as it is now; None when it is not there."""
        return self._kube.get(kind, name)

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None) -> Documents:
        """The objects with these labels as they are now."""
        return self._kube.list(kind, labels)

"""What steps and plugins get of the cluster: one namespace, bound to an app's and a deployment's ownership, fenced."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from deployer.core.backoff import Backoff
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Change, Documents, Gone, KubeAccess, Lines, Owner
from deployer.core.errors import (
    DeadlineExceeded,
    Fenced,
    ForeignObject,
    KubeAlreadyExists,
    KubeConflict,
    KubeForbidden,
    KubeNotFound,
    KubeUnavailable,
    StepFailed,
)
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, EVENT, INGRESS, POD, SERVICE, Kind
from deployer.core.model.names import versioned_name
from deployer.core.model.records import Document
from deployer.core.ports.cluster import Inventory
from deployer.kube.adoption import original_ingress
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.kube.ownership import (
    ANNOTATION_APP,
    ANNOTATION_DEPLOYMENT,
    ANNOTATION_FENCING_TOKEN,
    ANNOTATION_INSTANCE,
    ANNOTATION_ROLE,
    LABEL_MANAGED_BY,
    MANAGED_BY,
    ROLE_CONTROLLER,
    ROLE_VERSIONED_SERVICE,
    is_original,
    was_original,
)
from deployer.kube.pods import event_time, name_of

T = TypeVar("T")

ATTEMPTS = 6
"""How often an edit is made anew when somebody else was quicker."""

LOOK_AGAIN = Backoff(first=0.02, most=1.0)
"""Pauses between two looks at something that goes, while an informer may lag behind."""

VERSIONED_ROLES = frozenset({ROLE_CONTROLLER, ROLE_VERSIONED_SERVICE})
"""Roles of the objects that belong to one deployment. A plugin's own role counts when it begins with `versioned-`."""


class OwnedKube(KubeAccess):
    """`KubeAccess` through the client and the shared informers, with every object that is made in the inventory."""

    def __init__(
        self,
        client: KubeClient,
        informers: Informers,
        owner: Owner,
        scope: CancelScope,
        inventory: Inventory | None = None,
        *,
        late: Callable[[Owner, Kind, str], None] | None = None,
    ) -> None:
        """`late` is told of what may have been made although the right to do so was lost meanwhile."""
        self._late = late
        self.owner = owner
        self.scope = scope
        self._client = client
        self._informers = informers
        self._inventory = inventory

    def with_scope(self, scope: CancelScope) -> OwnedKube:
        return OwnedKube(self._client, self._informers, self.owner, scope, self._inventory, late=self._late)

    def for_deployment(self, deployment: str) -> OwnedKube:
        owner = dataclasses.replace(self.owner, deployment=deployment)
        return OwnedKube(self._client, self._informers, owner, self.scope, self._inventory, late=self._late)

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Document | None:
        try:
            return self._client.get(kind, name, self._place(kind, namespace), scope=self.scope)
        except KubeNotFound:
            return None

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None, namespace: str | None = None) -> Documents:
        return self._client.list(kind, self._place(kind, namespace), labels, scope=self.scope)[0]

    def everywhere(self, kind: Kind) -> Documents:
        return self._client.list(kind, None, scope=self.scope)[0]

    def items(self, kind: Kind, labels: Mapping[str, str] | None = None, namespace: str | None = None) -> Documents:
        return self._informers.get(kind, self._place(kind, namespace)).items(labels, self.scope)

    def known(self, kind: Kind, labels: Mapping[str, str] | None = None, namespace: str | None = None) -> Documents:
        return self._informers.get(kind, self._place(kind, namespace)).known(labels)

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
        informer = self._informers.get(kind, self._place(kind, namespace))
        return informer.wait(condition, self.scope, labels=labels, recheck=recheck, event=event)

    def waking(
        self, kind: Kind, event: threading.Event, labels: Mapping[str, str], namespace: str | None = None
    ) -> contextlib.AbstractContextManager[object]:
        return self._informers.get(kind, self._place(kind, namespace)).waking(event, labels)

    def gone(self, kind: Kind, labels: Mapping[str, str], namespace: str | None = None) -> Gone:
        return Gone(kind, self._place(kind, namespace), dict(labels))

    def pod_log(self, pod: str, container: str, tail_lines: int = 20, previous: bool = False) -> str:
        return self._client.pod_log(self.owner.namespace, pod, container, tail_lines, previous, scope=self.scope)

    def pod_lines(self, pod: str, container: str, since: str = "") -> Lines:
        return self._client.pod_lines(self.owner.namespace, pod, container, since, scope=self.scope)

    def events(self, about: str) -> Documents:
        kind, slash, name = about.partition("/")
        selector = f"involvedObject.kind={kind},involvedObject.name={name}" if slash else f"involvedObject.uid={about}"
        found = self._client.list(EVENT, self.owner.namespace, None, selector, scope=self.scope, retry=False)[0]
        return sorted(found, key=event_time)

    def _place(self, kind: Kind, namespace: str | None) -> str | None:
        return (namespace or self.owner.namespace) if kind.namespaced else None

    # --- ownership ------------------------------------------------------------------------------------------------

    def annotations(self, role: str) -> dict[str, str]:
        return {
            ANNOTATION_INSTANCE: self.owner.instance,
            ANNOTATION_APP: self.owner.app,
            ANNOTATION_DEPLOYMENT: self.owner.deployment,
            ANNOTATION_ROLE: role,
        }

    def is_ours(self, found: Document) -> bool:
        notes = _annotations(found)
        return (notes.get(ANNOTATION_INSTANCE), notes.get(ANNOTATION_APP)) == (self.owner.instance, self.owner.app)

    def is_original(self, found: Document) -> bool:
        if "rules" not in (found.get("spec") or {}):
            return is_original(found, self.owner.app)
        app = self.owner.app
        if (shape := original_ingress(found, app)) is None or (service := self.get(SERVICE, app)) is None:
            return False
        taken = self.is_ours(service)
        if not (taken or is_original(service, app)):
            return False
        selected = versioned_name(app, str((service["spec"].get("selector") or {}).get("version")))
        names = {
            name_of(controller)
            for controller in self.list(CONTROLLER, {"app": app})
            if self._was_original(controller)
            and _annotations(controller).get("frontend") == shape.frontend
            and (taken or name_of(controller) == selected)
        }
        if shape.redirect:
            return bool(names)
        versioned = self.get(SERVICE, shape.service) if shape.service in names else None
        return versioned is not None and self._was_original(versioned)

    def _was_original(self, found: Document) -> bool:
        """The original made it, and nobody else than this Deployer has taken it over."""
        app = self.owner.app
        return is_original(found, app) or (was_original(found, app) and self.is_ours(found))

    def owned_by(self, found: Document, deployment: str) -> bool:
        return self.is_ours(found) and _annotations(found).get(ANNOTATION_DEPLOYMENT) == deployment

    def foreign(self, kind: Kind, found: Document) -> ForeignObject:
        notes = _annotations(found)
        instance, app = notes.get(ANNOTATION_INSTANCE), notes.get(ANNOTATION_APP)
        deployment = notes.get(ANNOTATION_DEPLOYMENT)
        if self.is_original(found):
            whose = f"to app {self.owner.app} as the original deployer left it, and may be live"
        elif not instance:
            whose = "to no known owner: no Deployer made it"
        elif instance != self.owner.instance:
            whose = f"to another deployer, instance {instance}"
        elif app != self.owner.app:
            whose = f"to another app, {app}"
        else:
            whose = f"to deployment {deployment} of this app, which still runs"
        place = f"in namespace {self.owner.namespace}"
        return ForeignObject(f"{kind.kind} {name_of(found)} {place} exists already and belongs {whose}")

    def _check_fencing_token(self, kind: Kind, found: Document) -> None:
        if (fencing_token := fencing_token_of(found)) > self.owner.fencing_token:
            raise Fenced(
                f"{kind.kind} {name_of(found)} in namespace {self.owner.namespace} has fencing token {fencing_token}, "
                f"this process holds {self.owner.fencing_token}: another one carries on with app {self.owner.app}",
                fencing_token,
            )

    # --- versioned objects ----------------------------------------------------------------------------------------

    def create(self, kind: Kind, body: Document) -> Document:
        name = body["metadata"]["name"]
        body = copy.deepcopy(body)
        body["metadata"].setdefault("annotations", {})[ANNOTATION_FENCING_TOKEN] = str(self.owner.fencing_token)
        body["metadata"].setdefault("labels", {})[LABEL_MANAGED_BY] = MANAGED_BY
        if self._inventory is not None:
            with self.scope.writing():
                self._inventory.making(self.owner.deployment, kind, name)
        try:
            return self._create(kind, name, body)
        finally:
            if self._late is not None and self.scope.revoked:
                self._late(self.owner, kind, name)

    def _create(self, kind: Kind, name: str, body: Document) -> Document:
        for attempt in range(ATTEMPTS):
            with self._again_when_lost(attempt), contextlib.suppress(KubeConflict):
                lost: KubeUnavailable | None = None
                try:
                    return self._client.create(kind, body, self.owner.namespace, scope=self.scope)
                except KubeAlreadyExists:
                    pass  # by whom is what the rest is about
                except KubeUnavailable as error:
                    lost = error  # it may be there all the same
                found = self.get(kind, name)
                if found is None:
                    if lost is not None:
                        raise lost
                    continue
                if self.owned_by(found, self.owner.deployment) and not _deleting(found):
                    return found
                if not self.is_ours(found) or _annotations(found).get(ANNOTATION_DEPLOYMENT) in self.owner.keep:
                    raise self.foreign(kind, found)
                self._check_fencing_token(kind, found)
                # Foreground: a leftover's pods have the labels of the new ones, so they must be gone before those.
                if not self._remove(kind, found, "Foreground"):
                    self._await_gone(kind, found)
        raise self._contended(kind, name)

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
        wanted = deployment or self.owner.deployment

        def ours(found: Document) -> bool:
            return self.owned_by(found, wanted) or (original_ok and is_original(found, self.owner.app))

        gone = self._delete(kind, name, ours, propagation, wait_gone, fenced=False)
        if gone and wait_gone and self._inventory is not None:
            self._inventory.removed(wanted, kind, name)
        return gone

    def delete_orphan(self, pod: Document) -> None:
        with contextlib.suppress(KubeConflict):  # the name is another pod's by now
            if not self._remove(POD, pod, "Background"):
                self._await_gone(POD, pod)

    def update(
        self,
        kind: Kind,
        name: str,
        change: Change,
        *,
        deployment: str | None = None,
        original_ok: bool = False,
    ) -> Document | None:
        owner = self.owner if deployment is None else dataclasses.replace(self.owner, deployment=deployment)
        for attempt in range(ATTEMPTS):
            with self._again_when_lost(attempt), contextlib.suppress(KubeConflict, KubeNotFound):
                found = self.get(kind, name)
                if found is None:
                    return None
                original = original_ok and is_original(found, owner.app)
                if not original and not self.owned_by(found, owner.deployment):
                    raise self.foreign(kind, found)
                self._check_fencing_token(kind, found)
                wanted = change(copy.deepcopy(found))
                if wanted is None:
                    return found
                if not original:
                    wanted["metadata"]["annotations"] = {
                        **_annotations(wanted),
                        ANNOTATION_FENCING_TOKEN: str(owner.fencing_token),
                    }
                if wanted == found:
                    return found
                return self._client.replace(kind, name, wanted, owner.namespace, scope=self.scope)
        raise self._contended(kind, name)

    def scale(
        self, name: str, replicas: int, *, deployment: str | None = None, original_ok: bool = False
    ) -> Document | None:
        def change(found: Document | None) -> Document | None:
            return found and {**found, "spec": {**found["spec"], "replicas": replicas}}

        return self.update(CONTROLLER, name, change, deployment=deployment, original_ok=original_ok)

    # --- shared objects -------------------------------------------------------------------------------------------

    def put_shared(self, kind: Kind, name: str, change: Change, *, role: str) -> Document | None:
        for attempt in range(ATTEMPTS):
            with self._again_when_lost(attempt), contextlib.suppress(KubeConflict, KubeAlreadyExists, KubeNotFound):
                found = self.get(kind, name)
                if found is not None:
                    if not self.is_ours(found) and not self.is_original(found):
                        raise self.foreign(kind, found)
                    self._check_fencing_token(kind, found)
                    if _deleting(found):
                        self._await_gone(kind, found)
                        continue
                wanted = change(copy.deepcopy(found))
                if wanted is None or wanted == found:
                    return found
                return self._write_shared(kind, name, found, copy.deepcopy(wanted), role)
        raise self._contended(kind, name)

    def _write_shared(self, kind: Kind, name: str, found: Document | None, wanted: Document, role: str) -> Document:
        metadata = wanted.setdefault("metadata", {})
        metadata["name"], metadata["namespace"] = name, self.owner.namespace
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            **self.annotations(role),
            ANNOTATION_FENCING_TOKEN: str(self.owner.fencing_token),
        }
        metadata["labels"] = {**(metadata.get("labels") or {}), LABEL_MANAGED_BY: MANAGED_BY}
        if found is None:
            return self._client.create(kind, wanted, self.owner.namespace, scope=self.scope)
        metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        metadata["uid"] = found["metadata"]["uid"]
        return self._client.replace(kind, name, wanted, self.owner.namespace, scope=self.scope)

    def delete_shared(self, kind: Kind, name: str, *, wait_gone: bool = True, original_ok: bool = False) -> bool:

        def ours(found: Document) -> bool:
            return self.is_ours(found) or (original_ok and self.is_original(found))

        return self._delete(kind, name, ours, "Background", wait_gone, fenced=True)

    def raise_fencing_token(self, kind: Kind, name: str) -> bool:
        for attempt in range(ATTEMPTS):
            with self._again_when_lost(attempt), contextlib.suppress(KubeConflict, KubeNotFound):
                found = self.get(kind, name)
                if found is None or not self.is_ours(found):
                    return False
                self._check_fencing_token(kind, found)
                if fencing_token_of(found) < self.owner.fencing_token:
                    version = found["metadata"]["resourceVersion"]
                    notes = {ANNOTATION_FENCING_TOKEN: str(self.owner.fencing_token)}
                    patch = {"metadata": {"resourceVersion": version, "annotations": notes}}
                    self._client.patch(kind, name, patch, self.owner.namespace, scope=self.scope)
                return True
        raise self._contended(kind, name)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _delete(
        self,
        kind: Kind,
        name: str,
        ours: Callable[[Document], bool],
        propagation: str,
        wait_gone: bool,
        *,
        fenced: bool,
    ) -> bool:
        for _ in range(ATTEMPTS):
            found = self.get(kind, name)
            if found is None:
                return True
            if not ours(found):
                return False
            if fenced:
                self._check_fencing_token(kind, found)
            with contextlib.suppress(KubeConflict):
                if not self._remove(kind, found, propagation, fenced=fenced) and wait_gone:
                    self._await_gone(kind, found)
                return True
        raise self._contended(kind, name)

    def _remove(self, kind: Kind, found: Document, propagation: str, *, fenced: bool = False) -> bool:
        """Delete exactly what was read; `fenced`: only if nobody has written to it since. True when it is gone already.

        Raises KubeConflict.
        """
        metadata = found["metadata"]
        if _deleting(found):
            return False
        try:
            return self._client.delete(
                kind,
                metadata["name"],
                self.owner.namespace,
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"] if fenced else None,
                propagation=propagation,
                scope=self.scope,
            )
        except KubeNotFound:
            return True

    def _await_gone(self, kind: Kind, found: Document) -> None:
        """Wait until that object is away. Most are at once; the informer, which may lag, is asked for others."""
        name, uid = name_of(found), found["metadata"]["uid"]
        rounds = 0
        while (now := self.get(kind, name)) is not None and now["metadata"]["uid"] == uid:
            try:
                self.wait(kind, lambda items: all(item["metadata"]["uid"] != uid for item in items))
            except DeadlineExceeded as over:
                raise self._stays(kind, now) from over
            rounds += 1
            self.scope.pause(LOOK_AGAIN.after(rounds))

    def _stays(self, kind: Kind, found: Document) -> StepFailed:
        keepers = ", ".join(found["metadata"].get("finalizers") or ()) or "none"
        return StepFailed(
            f"{kind.kind} {name_of(found)} in namespace {self.owner.namespace} has not been deleted, "
            f"finalizers: {keepers}",
            reason="ObjectStays",
            hint="find out why whoever set the finalizers does not take them away",
        )

    @contextlib.contextmanager
    def _again_when_lost(self, attempt: int) -> Iterator[None]:
        """Let the loop go on after a write whose answer was lost: the next round finds out what became of it."""
        try:
            yield
        except KubeUnavailable:
            if attempt == ATTEMPTS - 1:
                raise
            self.scope.pause(min(4.0, 0.2 * 2**attempt))

    def _contended(self, kind: Kind, name: str) -> StepFailed:
        return StepFailed(
            f"{kind.kind} {name} in namespace {self.owner.namespace} was changed by somebody else "
            f"{ATTEMPTS} times while it was being written",
            reason="Conflict",
            hint="find out what else writes it, then deploy again",
        )


def find_owned(client: KubeClient, owner: Owner, scope: CancelScope | None = None) -> list[tuple[Kind, str]]:
    """(kind, name) of what the API server has of exactly `owner.deployment`, in the order of removal; of the kinds that
    ship with the Deployer. For a deployment of which no inventory is left."""
    out: list[tuple[Kind, str]] = []
    notes = {
        ANNOTATION_INSTANCE: owner.instance,
        ANNOTATION_APP: owner.app,
        ANNOTATION_DEPLOYMENT: owner.deployment,
    }.items()
    for kind in (CONTROLLER, INGRESS, SERVICE, CONFIG_MAP):
        try:
            items = client.list(kind, owner.namespace, {LABEL_MANAGED_BY: MANAGED_BY}, scope=scope)[0]
        except (KubeForbidden, KubeNotFound):
            if kind in (CONTROLLER, SERVICE):
                raise
            continue  # no right to see them means none to have made one
        for item in items:
            role = _annotations(item).get(ANNOTATION_ROLE, "")
            versioned = role in VERSIONED_ROLES or role.startswith("versioned-")
            if versioned and notes <= _annotations(item).items():
                out.append((kind, name_of(item)))
    return out


def fencing_token_of(found: Document) -> int:
    """The fencing token under which the object was last written; 0 without one."""
    value = _annotations(found).get(ANNOTATION_FENCING_TOKEN, "")
    return int(value) if value.isascii() and value.isdigit() else 0


def _annotations(found: Document) -> dict[str, str]:
    return found.get("metadata", {}).get("annotations") or {}


def _deleting(found: Document) -> bool:
    return bool(found["metadata"].get("deletionTimestamp"))

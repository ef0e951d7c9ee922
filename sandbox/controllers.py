"""The controllers of a cluster: replication, endpoint slices, garbage collection, namespaces, definitions of kinds.

Each is level-triggered: a change in the store marks keys, and a key is brought to what the objects say now.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from copy import deepcopy
from typing import Any

from deployer.sandbox.kinds import (
    CRD,
    ENDPOINT_SLICE,
    NAMESPACE,
    POD,
    RC,
    SERVICE,
    Key,
    Kind,
    Object,
    condition,
    container_ports,
    controller_of,
    is_deleting,
    is_ready,
    key_of,
    labels_of,
    name_suffix,
    owner_references,
    reference_to,
    selects,
    timestamp,
)
from deployer.sandbox.objects.resources import FINALIZERS, DeleteOptions, Resources
from deployer.sandbox.recorder import Recorder
from deployer.sandbox.status import ApiError
from deployer.sandbox.store import Change

log = logging.getLogger("sandbox")

RETRY = 1.0
"""Seconds until a key is tried again after an error; doubles up to a minute."""
SLICE_NAME = "kubernetes.io/service-name"


class Controller(ABC):
    """A queue of keys and the one task that works it off."""

    def __init__(self, resources: Resources) -> None:
        self.resources, self.store = resources, resources.store
        self._marked: dict[Key, None] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self.store.subscribe(self.changed)

    @abstractmethod
    def changed(self, change: Change) -> None:
        """Marks what a change may concern."""

    @abstractmethod
    def reconcile(self, key: Key) -> None:
        """Brings one key to what the objects say. An ApiError means: again later."""

    def mark(self, key: Key) -> None:
        self._marked[key] = None
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._marked:
                key = next(iter(self._marked))
                del self._marked[key]
                try:
                    self.reconcile(key)
                    self._failures.pop(key, None)
                except ApiError as error:
                    self._retry(key, error)
                except Exception as error:
                    log.exception("%s: %s", type(self).__name__, key)
                    self._retry(key, error)
                await asyncio.sleep(0)

    def _retry(self, key: Key, error: Exception) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        log.info("%s: %s: again later: %s", type(self).__name__, key, error)
        asyncio.get_running_loop().call_later(min(RETRY * 2 ** (count - 1), 60), self.mark, key)


class Replication(Controller):
    """ReplicationController -> as many pods as it wants."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._events = Recorder(self.store, "replication-controller")

    def changed(self, change: Change) -> None:
        if change.kind is RC:
            self.mark(key_of(change.obj))
        elif change.kind is POD:
            namespace = change.obj["metadata"]["namespace"]
            states = [state for state in (change.obj, change.old) if state]
            owners = {ref["name"] for state in states if (ref := controller_of(state)) and ref["kind"] == RC.name}
            for name in owners:
                self.mark((namespace, name))
            if not owners:  # perhaps somebody adopts it
                for rc in self.store.list(RC, namespace):
                    if any(selects(rc["spec"].get("selector"), labels_of(state)) for state in states):
                        self.mark(key_of(rc))

    def reconcile(self, key: Key) -> None:
        rc = self.store.find(RC, *key)
        if rc is None:
            return
        active = self._claim(rc)
        failure: ApiError | None = None
        if not is_deleting(rc):
            try:
                self._scale(rc, active)
            except ApiError as error:
                failure = error
        self.store.change(RC, key, lambda current: self._write_status(current, self._owned(rc), failure))
        if failure:
            raise failure

    def _owned(self, rc: Object) -> list[Object]:
        uid = rc["metadata"]["uid"]
        pods = [obj for kind, obj in self.store.dependents(uid) if kind is POD]
        mine = [pod for pod in pods if (ref := controller_of(pod)) and ref["uid"] == uid]
        return [pod for pod in mine if not is_deleting(pod) and pod["status"]["phase"] not in ("Succeeded", "Failed")]

    def _claim(self, rc: Object) -> list[Object]:
        """Adopts matching pods that nobody controls, lets go of its own that match no more."""
        namespace, uid = rc["metadata"]["namespace"], rc["metadata"]["uid"]

        def adopt(pod: Object) -> None:
            pod["metadata"].setdefault("ownerReferences", []).append(reference_to(RC, rc))

        def release(pod: Object) -> None:
            drop_references(pod, {uid})

        for pod in self.store.list(POD, namespace):
            owner, matches = controller_of(pod), selects(rc["spec"]["selector"], labels_of(pod))
            if owner is None and matches and not is_deleting(pod) and not is_deleting(rc):
                self.store.change(POD, key_of(pod), adopt)
            elif owner and owner["uid"] == uid and not matches:
                self.store.change(POD, key_of(pod), release)
        return self._owned(rc)

    def _scale(self, rc: Object, active: list[Object]) -> None:
        missing = rc["spec"]["replicas"] - len(active)
        for _ in range(missing):
            self._create_pod(rc)
        if missing < 0:
            # The ones that serve least go first, then the youngest.
            active.sort(key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)
            active.sort(key=lambda pod: ("nodeName" in pod["spec"], pod["status"]["phase"] == "Running", is_ready(pod)))
            for pod in active[:-missing]:
                self.resources.delete(POD, key_of(pod), DeleteOptions(uid=pod["metadata"]["uid"]))
                self._events.normal(RC, rc, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    def _create_pod(self, rc: Object) -> None:
        template = deepcopy(rc["spec"]["template"])
        meta = {
            field: template["metadata"][field] for field in ("labels", "annotations") if field in template["metadata"]
        }
        name = f"{rc['metadata']['name'][:57]}-{name_suffix()}"
        meta |= {"name": name, "generateName": f"{rc['metadata']['name']}-", "ownerReferences": [reference_to(RC, rc)]}
        try:
            self.resources.create(POD, rc["metadata"]["namespace"], {"metadata": meta, "spec": template["spec"]})
        except ApiError as error:
            self._events.warning(RC, rc, "FailedCreate", f"Error creating: {error.message}")
            raise
        self._events.normal(RC, rc, "SuccessfulCreate", f"Created pod: {name}")

    def _write_status(self, rc: Object, active: list[Object], failure: ApiError | None) -> None:
        ready = sum(is_ready(pod) for pod in active)
        wanted = rc["spec"]["template"]["metadata"].get("labels") or {}
        labelled = sum(selects(wanted, labels_of(pod)) for pod in active)
        counts = {"fullyLabeledReplicas": labelled, "readyReplicas": ready, "availableReplicas": ready}
        old = condition(rc, "ReplicaFailure")
        found: Object = {"replicas": len(active), **{name: count for name, count in counts.items() if count}}
        found["observedGeneration"] = rc["metadata"]["generation"]
        if failure:
            since = old["lastTransitionTime"] if old else timestamp()
            told = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure.message}
            found["conditions"] = [told | {"lastTransitionTime": since}]
        rc["status"] = found


class EndpointSlices(Controller):
    """Service with a selector -> EndpointSlices, one for each way in which its pods resolve the ports."""

    def changed(self, change: Change) -> None:
        if change.kind is SERVICE:
            self.mark(key_of(change.obj))
        elif change.kind is POD:
            for service in self.store.list(SERVICE, change.obj["metadata"]["namespace"]):
                selector = service["spec"].get("selector")
                if any(selects(selector, labels_of(state)) for state in (change.obj, change.old) if state):
                    self.mark(key_of(service))
        elif change.kind is ENDPOINT_SLICE and (owner := controller_of(change.obj)):
            self.mark((change.obj["metadata"]["namespace"], owner["name"]))

    def reconcile(self, key: Key) -> None:
        service = self.store.find(SERVICE, *key)
        if service is None or is_deleting(service) or not service["spec"].get("selector"):
            return
        wanted = self._wanted(service)
        uid = service["metadata"]["uid"]
        for _, found in list(self.store.dependents(uid)):
            ports = repr(found.get("ports"))
            if ports not in wanted and len(wanted) == 1 and not found.get("ports"):
                ports = next(iter(wanted))  # the placeholder of a Service without pods gets its first ports
            new = wanted.pop(ports, None)
            if new is None:
                self.store.remove(ENDPOINT_SLICE, key_of(found))
                continue

            def replace(current: Object, new: Object = new) -> None:
                if {**current, **new, "metadata": None} != {**current, "metadata": None}:
                    current["metadata"]["generation"] += 1
                current |= new

            self.store.change(ENDPOINT_SLICE, key_of(found), replace)
        for new in wanted.values():
            self._create(service, new)

    def _wanted(self, service: Object) -> dict[str, Object]:
        slices: dict[str, Object] = {}
        for pod in self.store.list(POD, service["metadata"]["namespace"]):
            address = pod["status"].get("podIP")
            ended = pod["status"]["phase"] in ("Succeeded", "Failed")
            if not address or ended or not selects(service["spec"]["selector"], labels_of(pod)):
                continue
            ports = resolve_ports(service, pod)
            part = slices.setdefault(repr(ports), {"endpoints": [], "ports": ports})
            part["endpoints"].append(self._endpoint(service, pod, address))
        # The real controller keeps one empty slice for a Service without pods, with null for its lists.
        return slices or {repr(None): {"endpoints": None, "ports": None}}

    @staticmethod
    def _endpoint(service: Object, pod: Object, address: str) -> Object:
        meta, serving, terminating = pod["metadata"], is_ready(pod), is_deleting(pod)
        ready = service["spec"].get("publishNotReadyAddresses", False) or (serving and not terminating)
        return {
            "addresses": [address],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "nodeName": pod["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
        }

    def _create(self, service: Object, content: Object) -> None:
        meta = service["metadata"]
        labels = labels_of(service) | {
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            SLICE_NAME: meta["name"],
        }
        new: Object = {"addressType": "IPv4", **content}
        new["metadata"] = {
            "generateName": f"{meta['name']}-",
            "labels": labels,
            "ownerReferences": [reference_to(SERVICE, service)],
        }
        self.resources.create(ENDPOINT_SLICE, meta["namespace"], new)


def resolve_ports(service: Object, pod: Object) -> list[Object]:
    """The Service's ports with the numbers that this pod has for them; a name that it does not know is left out."""
    found: list[Object] = []
    for port in service["spec"].get("ports") or ():
        target: Any = port["targetPort"]
        if isinstance(target, str):
            matching = (
                p for p in container_ports(pod) if p.get("name") == target and p["protocol"] == port["protocol"]
            )
            target = next((p["containerPort"] for p in matching), None)
        if target is not None:
            found.append({"name": port.get("name", ""), "port": target, "protocol": port["protocol"]})
    return found


class GarbageCollector(Controller):
    """Dependents of what was deleted: removed, waited for or orphaned. A key is ("", owner's uid)."""

    def changed(self, change: Change) -> None:
        for reference in owner_references(change.obj):
            self.mark(("", reference["uid"]))
        if change.type == "DELETED" or is_deleting(change.obj):
            self.mark(("", change.obj["metadata"]["uid"]))

    def reconcile(self, key: Key) -> None:
        uid = key[1]
        owner = self.store.find_uid(uid)
        if owner is None:
            for kind, dependent in list(self.store.dependents(uid)):
                self._abandon(kind, dependent)
        elif is_deleting(owner[1]):
            self._finish(*owner)

    def _abandon(self, kind: Kind, dependent: Object) -> None:
        gone = {ref["uid"] for ref in owner_references(dependent) if self.store.find_uid(ref["uid"]) is None}
        if any(ref["uid"] not in gone for ref in owner_references(dependent)):
            self.store.change(kind, key_of(dependent), lambda current: drop_references(current, gone))
        elif not is_deleting(dependent):
            self._delete(kind, dependent)

    def _finish(self, kind: Kind, owner: Object) -> None:
        uid, finalizers = owner["metadata"]["uid"], owner["metadata"].get("finalizers") or []
        dependents = list(self.store.dependents(uid))
        done = ""
        if FINALIZERS["Orphan"] in finalizers:
            for kind_of, dependent in dependents:
                self.store.change(kind_of, key_of(dependent), lambda current: drop_references(current, {uid}))
            done = FINALIZERS["Orphan"]
        elif FINALIZERS["Foreground"] in finalizers:
            for kind_of, dependent in dependents:
                if not is_deleting(dependent):
                    self._delete(kind_of, dependent)
            left = [ref for _, obj in self.store.dependents(uid) for ref in owner_references(obj) if ref["uid"] == uid]
            if not any(ref.get("blockOwnerDeletion") for ref in left):
                done = FINALIZERS["Foreground"]
        if done:
            self.store.change(kind, key_of(owner), lambda current: _finalize(current, done))

    def _delete(self, kind: Kind, obj: Object) -> None:
        self.resources.delete(kind, key_of(obj), DeleteOptions(policy="Background", uid=obj["metadata"]["uid"]))


class Namespaces(Controller):
    """A deleted namespace goes when what is in it has gone."""

    def changed(self, change: Change) -> None:
        if change.kind is NAMESPACE:
            self.mark(("", change.obj["metadata"]["name"]))
        elif change.type == "DELETED" and change.kind.namespaced:
            self.mark(("", change.obj["metadata"]["namespace"]))

    def reconcile(self, key: Key) -> None:
        space = self.store.find(NAMESPACE, *key)
        if space is None or not is_deleting(space):
            return
        left = 0
        for kind in self.store.kinds:
            for obj in self.store.list(kind, key[1]) if kind.namespaced else ():
                left += 1
                if not is_deleting(obj):
                    self.resources.delete(kind, key_of(obj), DeleteOptions(policy="Background"))
        if not left:
            self.store.remove(NAMESPACE, key)


class Definitions(Controller):
    """A CustomResourceDefinition that was deleted takes the objects of its kind with it."""

    def changed(self, change: Change) -> None:
        if change.kind is CRD and change.type == "DELETED":
            self.mark(("", change.obj["metadata"]["name"]))

    def reconcile(self, key: Key) -> None:
        for kind in self.store.kinds:
            if kind.custom and kind.resource == key[1]:
                for obj in self.store.list(kind):
                    self.store.remove(kind, key_of(obj))


def drop_references(obj: Object, uids: set[str]) -> None:
    left = [ref for ref in owner_references(obj) if ref["uid"] not in uids]
    if left:
        obj["metadata"]["ownerReferences"] = left
    else:
        obj["metadata"].pop("ownerReferences", None)


def _finalize(obj: Object, name: str) -> None:
    obj["metadata"]["finalizers"] = [f for f in obj["metadata"].get("finalizers") or () if f != name]
    if not obj["metadata"]["finalizers"]:
        del obj["metadata"]["finalizers"]


def controllers(resources: Resources) -> list[Controller]:
    return [kind(resources) for kind in (Replication, EndpointSlices, GarbageCollector, Namespaces, Definitions)]

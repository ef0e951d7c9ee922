"""The verbs that write, with the API server's rules. Used by the HTTP API and by the controllers."""

import random
import time
import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from deployer.sandbox import status
from deployer.sandbox.kinds import (
    CRD,
    NAMESPACE,
    POD,
    SERVICE,
    Key,
    Kind,
    Object,
    is_deleting,
    labels_of,
    name_suffix,
    timestamp,
)
from deployer.sandbox.objects import custom, defaults, patches, podsecurity
from deployer.sandbox.objects.problems import Problems
from deployer.sandbox.objects.validation import validate
from deployer.sandbox.store import Store

POLICIES = ("Foreground", "Background", "Orphan")
OPTIONS = Kind("meta.k8s.io", "", "DeleteOptions")
FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
Decode = Callable[[Any], Object]


@dataclass(frozen=True)
class DeleteOptions:
    """What a DELETE may ask for; None leaves it to the kind."""

    policy: str | None = None
    grace: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False

    @classmethod
    def of(cls, body: Object) -> "DeleteOptions":
        """From a decoded DeleteOptions object; raises a 422."""
        problems, policy = Problems(), body.get("propagationPolicy")
        if policy not in (None, *POLICIES):
            problems.unsupported("propagationPolicy", policy, (*POLICIES, "nil"))
        if policy is not None and "orphanDependents" in body:
            sentence = "orphanDependents and deletionPropagation cannot be both set"
            problems.invalid("propagationPolicy", policy, sentence)
        if body.get("dryRun") not in (None, [], ["All"]):
            problems.unsupported("dryRun", body["dryRun"], ("All",))
        problems.raise_for(OPTIONS, "")
        if policy is None and "orphanDependents" in body:
            policy = "Orphan" if body["orphanDependents"] else "Background"
        given = body.get("preconditions") or {}
        dry_run = body.get("dryRun") == ["All"]
        return cls(policy, body.get("gracePeriodSeconds"), given.get("uid"), given.get("resourceVersion"), dry_run)


class Resources:
    """Reads go to the store directly; every write of a client or a controller comes through here."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(self, kind: Kind, namespace: str, obj: Object, *, dry_run: bool = False) -> Object:
        """Creates a decoded object, which becomes the store's. Raises 400, 403, 404, 409, 422."""
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise status.bad_request("resourceVersion should not be set on objects to be created")
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + name_suffix()
        if not meta.get("name"):
            problems = Problems()
            problems.required("metadata.name", "name or generateName is required")
            problems.raise_for(kind, "")
        name = meta["name"]
        if kind.namespaced:
            self._check_namespace(kind, namespace, name)
            meta["namespace"] = namespace
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields", "selfLink"):
            meta.pop(field, None)
        if kind.generations:
            meta["generation"] = 1
        if not kind.custom:
            obj.pop("status", None)
        defaults.fill(kind, obj)
        self._admit(kind, namespace, obj)
        validate(kind, obj)
        if self.store.find(kind, namespace, name):
            raise status.already_exists(kind, name)
        _begin_status(kind, obj)
        if kind is SERVICE:
            self._allocate_address(obj)
        return obj if dry_run else self.store.write(kind, obj)

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        space = self.store.get(NAMESPACE, "", namespace)
        if is_deleting(space):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated"}
            raise status.forbidden(kind, name, why, causes=[cause | {"field": "metadata.namespace"}])

    def _admit(self, kind: Kind, namespace: str, obj: Object) -> None:
        if kind is not POD or not obj["spec"].get("containers"):
            return
        why = podsecurity.violations(obj, labels_of(self.store.get(NAMESPACE, "", namespace)))
        if why:
            raise status.forbidden(kind, obj["metadata"]["name"], why)

    def _allocate_address(self, service: Object) -> None:
        """A cluster address for show: 198.18.0.0/15 is set aside for tests and nothing routes it here."""
        spec, wanted = service["spec"], service["spec"].get("clusterIP")
        used = {other["spec"].get("clusterIP") for other in self.store.list(SERVICE)}
        why = "provided IP is already allocated" if wanted in used else ""
        if wanted and not wanted.startswith(("198.18.", "198.19.", "None")):
            why = "the provided network does not match the current range"
        if wanted and wanted != "None" and why:
            problems = Problems()
            problems.invalid("spec.clusterIPs", [wanted], f"failed to allocate IP {wanted}: {why}")
            problems.raise_for(SERVICE, service["metadata"]["name"])
        while not wanted or wanted in used - {"None"}:
            wanted = f"198.{random.randint(18, 19)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]

    def update(self, kind: Kind, key: Key, obj: Object, *, dry_run: bool = False) -> Object:
        """Replaces; without a resourceVersion unconditionally, as the real server allows for its own kinds."""
        old = self.store.get(kind, *key)
        meta, had = obj["metadata"], old["metadata"]
        _check_names(kind, key, meta)
        if meta.get("uid", had["uid"]) != had["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {had['uid']}"
            raise status.conflict(kind, key[1], why)
        if kind.custom and not meta.get("resourceVersion"):
            raise status.no_version(kind, key[1])
        if meta.get("resourceVersion", had["resourceVersion"]) != had["resourceVersion"]:
            raise status.stale(kind, key[1])
        meta |= {"name": key[1], "resourceVersion": had["resourceVersion"]}
        for field in ("namespace", "uid", "creationTimestamp", "generation", "generateName"):
            _carry(had, meta, field)
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            _carry(had, meta, field)
        if not kind.custom:
            _carry(old, obj, "status")
        if kind is SERVICE:
            for field in ("clusterIP", "clusterIPs"):
                obj.setdefault("spec", {}).setdefault(field, old["spec"][field])
        if kind is POD and "nodeName" in old["spec"]:
            obj.setdefault("spec", {}).setdefault("nodeName", old["spec"]["nodeName"])
        defaults.fill(kind, obj)
        validate(kind, obj, old)
        if kind.generations and _content(kind, obj) != _content(kind, old):
            meta["generation"] = had.get("generation", 0) + 1
        if obj == old or dry_run:
            return obj
        return self.store.change(kind, key, lambda current: _become(current, obj)) or obj

    def patch(
        self, kind: Kind, key: Key, content_type: str, patch: Any, decode: Decode, *, dry_run: bool = False
    ) -> Object:
        """Applies a patch; one that names a resourceVersion is conditional on it."""
        old = self.store.get(kind, *key)
        patched = decode(patches.apply(content_type, old, patch))
        if patched["metadata"].get("uid") != old["metadata"]["uid"]:
            problems = Problems()
            problems.invalid("metadata.uid", patched["metadata"].get("uid", ""), "field is immutable")
            problems.raise_for(kind, key[1])
        return self.update(kind, key, patched, dry_run=dry_run)

    def delete(self, kind: Kind, key: Key, options: DeleteOptions) -> tuple[Object, bool]:
        """The object as it was last, and whether it is gone already. Raises 403, 404, 409."""
        obj = self.store.get(kind, *key)
        _check_preconditions(kind, obj, options)
        if kind is NAMESPACE and key[1] in ("default", "kube-system", "kube-public"):
            raise status.forbidden(kind, key[1], "this namespace may not be deleted")
        grace = _grace(kind, obj, options.grace)
        finalizers = _finalizers(kind, obj, options.policy or kind.default_delete, explicit=options.policy is not None)
        waits = bool(grace) or bool(finalizers) or kind is NAMESPACE
        if options.dry_run:
            return obj, not waits
        if not waits:
            return self.store.remove(kind, key) or obj, True

        def mark(current: Object) -> None:
            _mark_deleted(kind, current, grace, finalizers)

        return self.store.change(kind, key, mark) or obj, False


def _begin_status(kind: Kind, obj: Object) -> None:
    if kind is NAMESPACE:
        obj["status"] = {"phase": "Active"}
    elif kind is POD:
        obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif kind is SERVICE or kind.plural == "ingresses":
        obj["status"] = {"loadBalancer": {}}
    elif kind.plural == "replicationcontrollers":
        obj["status"] = {"replicas": 0}
    elif kind is CRD:
        obj["status"] = custom.accepted(obj)
    elif kind.plural == "jobs":
        obj["status"] = {}


def _check_names(kind: Kind, key: Key, meta: Object) -> None:
    if not meta.get("name"):
        why = f"the name of the object ({key[1]} based on URL) was undeterminable: name must be provided"
        raise status.bad_request(why)
    if meta["name"] != key[1]:
        raise status.bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({key[1]})"
        )
    if kind.namespaced and meta.get("namespace", key[0]) != key[0]:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _check_preconditions(kind: Kind, obj: Object, options: DeleteOptions) -> None:
    meta = obj["metadata"]
    checks = (
        ("UID", options.uid, meta["uid"], "deleted and then recreated"),
        ("ResourceVersion", options.resource_version, meta["resourceVersion"], "modified"),
    )
    for label, wanted, found, guess in checks:
        if wanted is not None and wanted != found:
            told = f"the {label} in the precondition ({wanted}) does not match the {label} in record ({found})"
            # The real server names the kind here, not the resource as everywhere else.
            named = replace(kind, plural=kind.name)
            raise status.conflict(named, meta["name"], f"{told}. The object might have been {guess}")


def _carry(source: Object, target: Object, field: str) -> None:
    target.pop(field, None)
    if field in source:
        target[field] = source[field]


def _content(kind: Kind, obj: Object) -> Object:
    """What counts for the generation."""
    apart = {"metadata", "apiVersion"} | (set() if kind.custom else {"status"})
    return {key: value for key, value in obj.items() if key not in apart}


def _become(current: Object, obj: Object) -> None:
    current.clear()
    current |= deepcopy(obj)


def _grace(kind: Kind, obj: Object, wanted: int | None) -> int:
    """Seconds that a pod may go on; it goes at once when it never got a node or has ended."""
    if kind is not POD or "nodeName" not in obj["spec"] or obj["status"].get("phase") in ("Succeeded", "Failed"):
        return 0
    grace: int = obj["spec"]["terminationGracePeriodSeconds"] if wanted is None else wanted
    grace = 1 if grace < 0 else grace  # as the real server reads a negative one
    left: int = obj["metadata"].get("deletionGracePeriodSeconds", grace)
    return min(grace, left)  # a later delete can only shorten it


def _finalizers(kind: Kind, obj: Object, policy: str, *, explicit: bool) -> list[str]:
    """The finalizers after a delete with this policy; one that names no policy leaves a deletion under way as it is."""
    found = list(obj["metadata"].get("finalizers") or ())
    if is_deleting(obj) and not explicit:
        return found
    found = [name for name in found if name not in FINALIZERS.values()]
    if policy in FINALIZERS and kind is not NAMESPACE:
        found.append(FINALIZERS[policy])
    return found


def _mark_deleted(kind: Kind, obj: Object, grace: int, finalizers: list[str]) -> None:
    meta = obj["metadata"]
    if not is_deleting(obj) or grace < meta.get("deletionGracePeriodSeconds", 0):
        meta["deletionTimestamp"] = timestamp(time.time() + grace)
        meta["deletionGracePeriodSeconds"] = grace
        if kind.generations:
            meta["generation"] = meta.get("generation", 0) + 1
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    if kind is NAMESPACE:
        obj["status"] = {"phase": "Terminating"}

"""Why a pod has no node yet, and what to do about it: pure functions on pods and Events.

The sentences of the scheduler are those of `pkg/scheduler/framework/plugins` of Kubernetes 1.34, the reasons of a
claim's Events those of its persistent volume controller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deployer.core.model.descriptors import app_containers
from deployer.core.model.records import Document
from deployer.kube.pods import (
    event_time,
    message_of,
    missing_condition,
    name_of,
    newest,
    short,
    uid_of,
    with_reason,
)
from deployer.toolkit.readiness import error_patterns

EventsOf = Callable[[str], Sequence[Document]]

CLAIM = "PersistentVolumeClaim"

_CLAIM_TROUBLE = ("ProvisioningFailed", "FailedBinding", "ExternalProvisioning", "ClaimLost", "VolumeMismatch")
_CLAIM_FAILED = ("ProvisioningFailed", "ClaimLost", "VolumeMismatch")
_SCALE_UP = "TriggeredScaleUp"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a pod from a node. `words` completes "pod x ...", `reason` is one word for machines, `hint` what to do
    about it; `scaling` is true while the cluster gets more nodes for it, `heals` for what passes by itself and may
    take its time, such as a volume that is being made."""

    words: str
    reason: str
    hint: str
    scaling: bool = False
    heals: bool = False


def obstacle(pod: Document, events_of: EventsOf, others: Sequence[Document]) -> Obstacle:
    """What keeps the pod from a node.

    events_of   an object's Events, by uid or as `PersistentVolumeClaim/name`
    others      the active pods of the app's other versions
    """
    if gates := [str(scope.get("name")) for scope in pod.get("spec", {}).get("schedulingGates") or ()]:
        text = f"is held back by its scheduling {_plural('gate', gates)} {', '.join(gates)}"
        hint = "check that the controller that removes them runs, or leave schedulingGates out of the podspec"
        return Obstacle(text, "SchedulingGated", hint)
    events = events_of(uid_of(pod))
    if said := newest(with_reason(events, "FailedResourceClaimCreation")):
        return Obstacle(f"has no resource claim: {short(said)}", "ResourceClaim", _RESOURCE_CLAIM_HINT)
    said = missing_condition(pod, "PodScheduled")
    if not said:
        return _silence(pod, events_of)
    said = error_patterns.unschedulable(said)
    scaling = bool(with_reason(events, _SCALE_UP))
    if blocked := _blocked_by(pod, said, others):
        why, hint = blocked
        return Obstacle(f"cannot be scheduled: {said}; {why}", "Unschedulable", hint, scaling)
    if _ABOUT_CLAIMS.search(said):
        words, hint = _claims(pod, said, events_of)
        return Obstacle(f"cannot be scheduled: {said}{words}", "ClaimNotBound", hint, scaling)
    return Obstacle(f"cannot be scheduled: {said}", "Unschedulable", _NO_ROOM_HINT, scaling)


def _silence(pod: Document, events_of: EventsOf) -> Obstacle:
    """What keeps a pod of which its scheduler has said nothing."""
    # The scheduler does not even look at a pod whose resource claims are not there, and says so nowhere.
    if claims := [str(c.get("resourceClaimName") or c.get("name")) for c in _resource_claims(pod)]:
        text = f"waits for its resource {_plural('claim', claims)} {', '.join(claims)}"
        return Obstacle(text, "ResourceClaim", _RESOURCE_CLAIM_HINT)
    # It has chosen a node, says nothing, and waits up to ten minutes for volumes to be made there.
    made = str(pod["metadata"].get("creationTimestamp") or "")[:_SECONDS]
    for name, said in _told_claims(pod, events_of):
        if event_time(said)[:_SECONDS] < made:
            continue  # of a claim that has been bound since
        failed = said.get("reason") in _CLAIM_FAILED
        words = f"waits for a volume for its claim {name}: {short(message_of(said))}"
        return Obstacle(words, "ClaimNotBound", _claim_hint(message_of(said)), heals=not failed)
    scheduler = pod.get("spec", {}).get("schedulerName") or DEFAULT_SCHEDULER
    words = f"has not been scheduled: nothing was heard of its scheduler, {scheduler}"
    if scheduler == DEFAULT_SCHEDULER:
        return Obstacle(words, "SchedulerSilent", "check that the cluster's scheduler runs", heals=True)
    hint = f"check that a scheduler of the name {scheduler} runs, or correct schedulerName in the podspec"
    return Obstacle(words, "SchedulerSilent", hint)


DEFAULT_SCHEDULER = "default-scheduler"
"""The scheduler of pods that name none. When it is silent, so it is for everybody, and that passes."""

_SECONDS = len("2006-01-02T15:04:05")

_RESOURCE_CLAIM_HINT = (
    "create the ResourceClaim or ResourceClaimTemplate, or correct its name in podspec.resourceClaims"
)


def _resource_claims(pod: Document) -> list[Document]:
    return pod.get("spec", {}).get("resourceClaims") or []


def _plural(noun: str, things: Sequence[object]) -> str:
    return noun if len(things) == 1 else f"{noun}s"


_NO_ROOM_HINT = "free or add nodes, or have the pod ask for less: requests, nodeSelector, affinity, volumes"


# --- claims -------------------------------------------------------------------------------------------------------

_ABOUT_CLAIMS = re.compile(
    r"PersistentVolumeClaims|persistentvolumeclaim \"|persistent volumes to bind|enough free storage|non-existent pv"
)
"""In what the scheduler says of a pod whose claims have no volume, or none on any node (plugin VolumeBinding)."""


def _claims(pod: Document, said: str, events_of: EventsOf) -> tuple[str, str]:
    """What to add to the scheduler's words about claims, which name neither claim nor class, and what to do."""
    if "not found" in said:
        if "storageclass" in said:
            return "", _claim_hint(said)
        return "", "create that PersistentVolumeClaim, or correct claimName in podspec.volumes"
    told = [f"claim {name}: {short(message_of(event))}" for name, event in _told_claims(pod, events_of)]
    names = list(_claim_names(pod))
    words = "; ".join(told) or (f"it has the {_plural('claim', names)} {', '.join(names)}" if names else "")
    return (f"; {words}" if words else ""), _claim_hint(words)


def _told_claims(pod: Document, events_of: EventsOf) -> Iterator[tuple[str, Document]]:
    """The pod's claims that have no volume, by their own Events, each with the newest."""
    for name in _claim_names(pod):
        if trouble := with_reason(events_of(f"{CLAIM}/{name}"), *_CLAIM_TROUBLE):
            yield name, max(trouble, key=event_time)


def _claim_hint(said: str) -> str:
    if "storageclass" in said and "not found" in said:
        return "create that StorageClass, or make the claim anew with one that exists"
    if "no storage class is set" in said:
        return "make the claim anew with a storageClassName, or create a PersistentVolume for it"
    if "external provisioner" in said:
        return "check that the provisioner of the claim's StorageClass runs, or make the claim anew with another class"
    return "find out why the claim is not bound: kubectl describe persistentvolumeclaim tells more"


def _claim_names(pod: Document) -> Iterator[str]:
    for volume in pod.get("spec", {}).get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            yield str(volume["persistentVolumeClaim"].get("claimName"))
        elif volume.get("ephemeral"):
            yield f"{name_of(pod)}-{volume.get('name')}"


# --- the pods of other versions -----------------------------------------------------------------------------------

_BESIDE = "a new version starts beside the one that serves"
_OWN_VERSION = "have the rule count pods of the same version only (matchLabelKeys: [version])"


def _blocked_by(pod: Document, said: str, others: Sequence[Document]) -> tuple[str, str] | None:
    """The pods of other versions that are in the way, and what to do about it."""
    for pattern, rule, blocks, way_out in _RULES:
        if not re.search(pattern, said):
            continue
        versions = sorted({_labels(other).get("version", "") for other in others if blocks(pod, other)})
        if versions:
            why = f"{rule} the pods of version {', '.join(versions)}, which stay until the switch"
            return why, f"{_BESIDE}: {way_out}"
    return None


def _apart(pod: Document, other: Document) -> bool:
    """Does a required anti-affinity of either keep the two apart?"""
    return any(
        _selects(term.get("labelSelector"), _labels(second))
        for first, second in ((pod, other), (other, pod))
        for term in (_at(first, "affinity", "podAntiAffinity").get(_REQUIRED) or ())
    )


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def _spread(pod: Document, other: Document) -> bool:
    return any(
        rule.get("whenUnsatisfiable") == "DoNotSchedule" and _selects(rule.get("labelSelector"), _labels(other))
        for rule in pod.get("spec", {}).get("topologySpreadConstraints") or ()
    )


def _same_host_port(pod: Document, other: Document) -> bool:
    return bool(set(_host_ports(pod)) & set(_host_ports(other)))


def _host_ports(pod: Document) -> Iterator[tuple[int, str]]:
    for container in app_containers(pod.get("spec", {})):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port["hostPort"], port.get("protocol") or "TCP"


def _same_claim(pod: Document, other: Document) -> bool:
    return bool(set(_claim_names(pod)) & set(_claim_names(other)))


_RULES = (
    (
        "anti-affinity rules",
        "its required anti-affinity keeps it apart from",
        _apart,
        f"prefer the anti-affinity instead of requiring it, {_OWN_VERSION}, or add a node",
    ),
    (
        "topology spread constraints",
        "its topology spread constraints count",
        _spread,
        f"set whenUnsatisfiable: ScheduleAnyway, {_OWN_VERSION}, or add a node",
    ),
    (
        "free ports for the requested pod ports",
        "its hostPort is taken by",
        _same_host_port,
        "leave hostPort out, as the app has a Service, or add a node",
    ),
    (
        "ReadWriteOncePod",
        "its ReadWriteOncePod claim is in use by",
        _same_claim,
        "use a claim that several pods may mount (ReadWriteOnce on one node, or ReadWriteMany), or undeploy first",
    ),
)


def _labels(pod: Document) -> Mapping[str, str]:
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return labels


def _at(pod: Document, *path: str) -> Document:
    found: Document = pod.get("spec", {})
    for name in path:
        found = found.get(name) or {}
    return found


def _selects(selector: Document | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector (meta/v1): none selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(rule, labels) for rule in selector.get("matchExpressions") or ())


def _holds(rule: Document, labels: Mapping[str, str]) -> bool:
    key, values = str(rule.get("key")), list(rule.get("values") or ())
    return {
        "In": key in labels and labels[key] in values,
        "NotIn": key not in labels or labels[key] not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }.get(str(rule.get("operator")), False)

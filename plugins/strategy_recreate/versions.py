"""Which versions of an app are there, and which of them run: read from the cluster, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.sdk.errors import StepFailed
from deployer.sdk.kube import CONTROLLER, POD
from deployer.sdk.plugin import Document
from deployer.sdk.strategy import Work, grace_of, has_controller, name_of, workload_labels

LABELS = ("name", "app", "version")
"""The labels by which a version's controller, its pods and nothing else are known."""


def others(work: Work) -> list[Document]:
    """The controllers of all other versions, that of the live one last: what can fail does so before it is touched."""
    found = [c for c in work.kube.list(CONTROLLER, {"app": work.plan.app}) if _is_other(work, c)]
    live = work.plan.previous.controller if work.plan.previous else ""
    return sorted(found, key=lambda controller: name_of(controller) == live)


def running(work: Work) -> list[Document]:
    """The pods of other versions, those included that are being deleted: they run until they are gone."""
    pods = work.kube.list(POD, {"app": work.plan.app})
    return [pod for pod in pods if _is_other(work, pod) and not _is_over(pod)]


def _is_other(work: Work, found: Document) -> bool:
    labels = labels_of(found)
    ours = labels["app"] == work.plan.app and labels["name"] == f"{labels['app']}-{labels['version']}"
    return ours and labels["version"] != work.plan.version


def _is_over(pod: Document) -> bool:
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def require_controllers(pods: Sequence[Document]) -> None:
    """Raise StepFailed when one of the pods was orphaned: it could be ended, but nobody could bring it back."""
    for pod in pods:
        if not has_controller(pod) and not pod["metadata"].get("deletionTimestamp"):
            raise StepFailed(
                f"pod {name_of(pod)} of version {version_of(pod)} has no controller, so nothing would start it again "
                "if this deployment failed",
                reason="PodsLeft",
                hint="delete it if it is not needed, else bring its ReplicationController back; then deploy again",
            )


def labels_of(found: Document) -> dict[str, str]:
    """Its values of `LABELS`, empty ones included."""
    labels = found["metadata"].get("labels") or {}
    return {key: str(labels.get(key, "")) for key in LABELS}


def version_of(found: Document) -> str:
    """The version that a controller or a pod belongs to."""
    return labels_of(found)["version"]


def wants_none(controller: Document) -> bool:
    """Was it scaled to 0, by us or by somebody else?"""
    return not controller["spec"].get("replicas", 1)


def is_stopped(controller: Document) -> bool:
    """True once it wants no pods and knows of none: before that it may be about to make one."""
    status = controller.get("status") or {}
    current = status.get("observedGeneration", 0) >= controller["metadata"].get("generation", 0)
    return wants_none(controller) and current and not status.get("replicas", 0)


def listed(pods: Sequence[Document]) -> str:
    """`2 pods of version 1, like shop-1-abcde`."""
    versions = " and ".join(sorted({version_of(pod) for pod in pods}))
    return f"{len(pods)} pod{'s' * (len(pods) > 1)} of version {versions}, like {name_of(pods[0])}" if pods else ""


def patience(pods: Sequence[Document]) -> float:
    """The longest grace time of these pods, in seconds."""
    return max((grace_of(pod.get("spec", {})) for pod in pods), default=0.0)


def own_name(work: Work) -> str:
    """The name of the new version's controller."""
    return workload_labels(work.plan)["name"]

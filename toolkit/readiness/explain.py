"""Why a workload is not ready, in one sentence: from pods and Events, without I/O."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.core.contract.kube import is_active, is_ready
from deployer.core.model.records import Document
from deployer.kube.pods import (
    container_statuses,
    event_time,
    is_scheduled,
    last_end,
    missing_condition,
    name_of,
    newest,
    running_init,
    short,
    uid_of,
    waiting_for,
    wanted_pods,
    warnings,
    with_reason,
)
from deployer.toolkit.readiness import error_patterns
from deployer.toolkit.readiness.scheduling import EventsOf, obstacle

PODS_EXPLAINED = 5
"""Pods whose states are looked at. What is the same of many is told once."""

IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
"""Reasons for which a container waits, while its image is not there."""

STARTING = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons for which a container waits, while all is well."""


def explain_not_ready(controller: Document, pods: Sequence[Document], events: EventsOf) -> str:
    """One sentence on a workload that is not ready: how far it is, and what its probes and Events say."""
    wanted = wanted_pods(controller)
    active = [p for p in pods if is_active(p)]
    waiting = [p for p in active if not is_ready(p)]
    ready = len(active) - len(waiting)
    parts = [f"{ready} of {wanted} pods are ready"]
    if len(active) < wanted:
        told = newest(warnings(events(uid_of(controller)))) or _refused(controller)
        missing = "no pod was" if not active else f"{wanted - len(active)} more could not be"
        parts.append(f"{missing} created{': ' if told else ''}{short(told)}")
    states: dict[str, list[str]] = {}
    for pod in waiting[:PODS_EXPLAINED]:
        state = _pod_state(pod, events)
        same = without_digits(state.replace(name_of(pod), ""))
        states.setdefault(same, []).append(f"pod {name_of(pod)} {state}")
    for said in states.values():
        parts.append(said[0] + (f" (and {len(said) - 1} more)" if len(said) > 1 else ""))
    if len(waiting) > PODS_EXPLAINED:
        parts.append(f"{len(waiting) - PODS_EXPLAINED} more are not ready either")
    return "; ".join(parts)


def _refused(controller: Document) -> str:
    failing = [c for c in controller.get("status", {}).get("conditions") or () if c.get("type") == "ReplicaFailure"]
    return str(failing[0].get("message") or "") if failing else ""


def _pod_state(pod: Document, events_of: EventsOf) -> str:
    if not is_scheduled(pod):
        return obstacle(pod, events_of, ()).words
    events = events_of(uid_of(pod))
    for status in container_statuses(pod):
        if text := container_state(status):
            return text
    if text := newest(with_reason(events, "Unhealthy")) or newest(warnings(events)):
        return f"is not ready: {short(text)}"
    pulls = with_reason(events, "Pulling", "Pulled")
    if pulls and max(pulls, key=event_time).get("reason") == "Pulling":
        return f"is still {lower(short(newest(pulls)))}"
    if init := running_init(pod):
        return f"waits for init container {init} to end"
    state = missing_condition(pod, "Ready") or pod.get("status", {}).get("phase") or "nothing is known of it"
    return f"is not ready: {short(str(state))}"


def reason_not_ready(pod: Document, events_of: EventsOf, others: Sequence[Document]) -> tuple[str, str]:
    """A word for machines, and what to do about a pod that was not ready when its time was up."""
    if not is_scheduled(pod):
        found = obstacle(pod, events_of, others)
        return found.reason, found.hint
    return "NotReady", _hint_not_ready(pod)


def _hint_not_ready(pod: Document) -> str:
    if init := running_init(pod):
        return f"init container {init} must end before the app starts; timeoutSeconds gives it more time"
    return "see the last lines in the deployment's log, and the probe; timeoutSeconds gives an app more time"


def container_state(status: Document) -> str:
    """What holds a container up, as far as its own status says; empty when that says nothing."""
    name, reason, restarts = status.get("name"), waiting_for(status), int(status.get("restartCount", 0))
    message = str(((status.get("state") or {}).get("waiting") or {}).get("message") or "")
    if reason in IMAGE_TROUBLE:
        error = error_patterns.pull_error(message, status.get("image", ""))
        return f"cannot pull the image of container {name}: {error.words}"
    if restarts and not status.get("ready"):
        return f"had container {name} restarted {times(restarts)}, it ended {how_ended(last_end(status))}"
    if reason and reason not in STARTING:
        return f"waits in container {name}: {reason} {short(message)}".rstrip()
    return ""


def times(number: int) -> str:
    """In words."""
    return "once" if number == 1 else f"{number} times"


def without_digits(text: str) -> str:
    """The same for sentences that only count or measure differently."""
    return "".join(c for c in text if not c.isdigit())


def lower(sentence: str) -> str:
    """As the part of another sentence."""
    return sentence[:1].lower() + sentence[1:]


def how_ended(terminated: Document) -> str:
    """How a container ended, as the end of a sentence."""
    reason = terminated.get("reason") or ""
    code = terminated.get("exitCode")
    if code is None:
        return "for a reason that is not known"
    return f"with exit code {code}" + (f" ({reason})" if reason not in ("", "Error", "Completed") else "")

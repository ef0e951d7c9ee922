"""Facts about pods, their ReplicationController and Events: pure functions on the API server's dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from deployer.core.model.descriptors import app_containers
from deployer.core.model.records import Document

_MOST_LISTED = 8  # kinds of Events


def name_of(found: Document) -> str:
    """The object's name."""
    return str(found["metadata"]["name"])


def uid_of(found: Document) -> str:
    """The object's uid."""
    return str(found["metadata"]["uid"])


def controlled_by(found: Document, uid: str) -> bool:
    """True when the object's controller has that uid."""
    owners = found["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def controller_uid(found: Document) -> str:
    """The uid of the controller that owns the object, be it gone already; empty when none does."""
    owners = found["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("uid")) for owner in owners if owner.get("controller")), "")


def has_controller(found: Document) -> bool:
    """True when some controller owns the object, be it gone already."""
    return any(owner.get("controller") for owner in found["metadata"].get("ownerReferences") or ())


def pods_left(pods: Iterable[Document], controller_uid: str) -> list[Document]:
    """Those that the controller of that uid still owns (empty uid: that any controller does)."""
    return [p for p in pods if (controlled_by(p, controller_uid) if controller_uid else has_controller(p))]


def is_scheduled(pod: Document) -> bool:
    """True once the pod is bound to a node."""
    if pod.get("spec", {}).get("nodeName"):
        return True
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c.get("type") == "PodScheduled" and c.get("status") == "True" for c in conditions)


def is_probed(pod: Document) -> bool:
    """True when every container that runs as long as the pod has a readiness probe."""
    return all(container.get("readinessProbe") for container in app_containers(pod.get("spec", {})))


def wanted_pods(controller: Document) -> int:
    """How many pods there should be; never none, or a deployment that somebody scaled to zero would be switched to."""
    return max(1, int(controller["spec"].get("replicas", 1)))


def container_statuses(pod: Document) -> list[Document]:
    """Init containers first."""
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def app_statuses(pod: Document) -> list[Document]:
    """The statuses of `app_containers`: a pod is Ready when all of these are."""
    names = {container.get("name") for container in app_containers(pod.get("spec", {}))}
    status = pod.get("status", {})
    sidecars = [s for s in status.get("initContainerStatuses") or () if s.get("name") in names]
    return [*(status.get("containerStatuses") or ()), *sidecars]


def running_init(pod: Document) -> str:
    """The name of the init container that must still end before the app starts; empty when none runs."""
    lasting = {container.get("name") for container in app_containers(pod.get("spec", {}))}
    for status in pod.get("status", {}).get("initContainerStatuses") or ():
        if (status.get("state") or {}).get("running") is not None and status.get("name") not in lasting:
            return str(status.get("name"))
    return ""


def waiting_for(status: Document) -> str:
    """Why the container of that status waits, in Kubernetes' word; empty when it does not."""
    return str(((status.get("state") or {}).get("waiting") or {}).get("reason") or "")


def last_end(status: Document) -> Document:
    """How the container of that status ended last (`exitCode`, `reason`, `message`); empty when it never did."""
    return (status.get("lastState") or {}).get("terminated") or (status.get("state") or {}).get("terminated") or {}


def service_slices(service: str) -> dict[str, str]:
    """The label that selects a Service's EndpointSlices."""
    return {"kubernetes.io/service-name": service}


def ready_endpoints(slices: Iterable[Document]) -> Iterator[str]:
    """Uids of the pods that are ready endpoints. A condition that is not there counts as met, says the API."""
    for found in slices:
        for endpoint in found.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("targetRef"):
                yield str(endpoint["targetRef"].get("uid"))


def missing_condition(pod: Document, type_: str) -> str:
    """The message of a condition that does not hold; empty when it holds."""
    for found in pod.get("status", {}).get("conditions") or ():
        if found.get("type") == type_ and found.get("status") != "True":
            return str(found.get("message") or found.get("reason") or type_)
    return ""


# --- Events -------------------------------------------------------------------------------------------------------


def message_of(event: Document) -> str:
    """What it says, without what is put before a message that stands for many."""
    return str(event.get("message") or event.get("reason") or "").removeprefix("(combined from similar events): ")


def newest(events: Iterable[Document]) -> str:
    """The message of the newest Event, empty when there is none."""
    found = max(events, key=event_time, default=None)
    return message_of(found) if found else ""


def warnings(events: Iterable[Document]) -> list[Document]:
    """Those that tell of trouble."""
    return [e for e in events if e.get("type") == "Warning"]


def with_reason(events: Iterable[Document], *reasons: str) -> list[Document]:
    """Those with one of these reasons."""
    return [e for e in events if e.get("reason") in reasons]


def about_container(events: Iterable[Document], container: str) -> list[Document]:
    """Those about that container, and those that name none."""
    mark = f"{{{container}}}"
    return [e for e in events if mark in ((e.get("involvedObject") or {}).get("fieldPath") or mark)]


def count(events: Iterable[Document]) -> int:
    """How often they happened: Events of the same text are one Event with a count."""
    return sum(int((event.get("series") or {}).get("count") or event.get("count") or 1) for event in events)


def listed(events: Sequence[Document]) -> str:
    """The newest Events that tell of trouble, oldest first, a line each; those that begin alike are one."""
    alike: dict[tuple[str, str], list[Document]] = {}
    for event in sorted(warnings(events), key=event_time, reverse=True):
        alike.setdefault((str(event.get("reason")), message_of(event)[:24]), []).append(event)
    lines = []
    for (reason, _), same in list(alike.items())[:_MOST_LISTED]:
        often = f" ({count(same)} times)" if count(same) > 1 else ""
        lines.append(f"{reason}{often}: {short(message_of(same[0]))}")
    return "\n".join(reversed(lines))


# --- text ---------------------------------------------------------------------------------------------------------


def short(text: str, most: int = 500) -> str:
    """On one line, at most that many characters; cut between words, so that no part of a secret is left, which nobody
    would recognise and hide any more."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3].rpartition(" ")[0] + "..."


def event_time(event: Document) -> str:
    """When an Event happened last, in a form that sorts."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    created: str = event.get("metadata", {}).get("creationTimestamp") or ""
    return next((str(time) for time in times if time), created)

"""Why a workload is not ready: what waiting will heal, what it will not, and the waits that say so."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from deployer.core.errors import DeadlineExceeded, KubeError, KubeForbidden, StepFailed
from deployer.core.gate import Gate
from deployer.core.kube.kinds import CONTROLLER, ENDPOINT_SLICE, EVENT, POD
from deployer.core.kube.mirror import CONTROLLED_BY, INVOLVED
from deployer.core.kube.owned import OwnedKube, event_time
from deployer.core.records import Document

Log = Callable[[str], None]
EventsOf = Callable[[str], Sequence[Document]]
Pair = tuple[str, str]

RECHECK = 1.0
"""Seconds between two looks at a workload that is not ready although nothing changed: grace times run out by then."""

AFTERMATH = 5.0
"""Seconds for finding out, after a deadline, why it was missed."""

LOG_LINES = 20
"""Lines of a container's log that go to the deployment's log."""

PODS_EXPLAINED = 3

_AT_ONCE = {
    "InvalidImageName": "correct the image's name",
    "ErrImageNeverPull": "the image is not on the node and imagePullPolicy forbids to pull it",
}
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "ImageInspectError"})

_HEALS = re.compile(
    r"exceeded quota|failed quota|failed calling webhook|timed? ?out|deadline exceeded|connection refused|"
    r"serviceaccount|Internal error|try again|too many requests",
    re.IGNORECASE,
)
_NEVER_HEALS = re.compile(r"PodSecurity|denied the request|is invalid|is forbidden", re.IGNORECASE)


# --- verdicts -----------------------------------------------------------------------------------------------------


class Judgement:
    """What the judge says: Ready, Waiting or Hopeless."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Ready(Judgement):
    """Enough pods are ready."""

    pods: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Waiting(Judgement):
    """Not yet. `progress` says how far it is, `troubles` one sentence for each thing that stands in the way, by a key
    that stays while it is the same thing."""

    progress: str
    troubles: Mapping[str, str] = field(default_factory=dict)
    wants_events: tuple[str, ...] = ()
    """Uids whose Events would help to judge."""


@dataclass(frozen=True, slots=True)
class Hopeless(Judgement):
    """Waiting cannot heal it. `container` (of `failure.pod`) is the one whose log tells more; empty when none does."""

    failure: StepFailed
    container: str = ""
    previous: bool = False


@dataclass(slots=True)
class ReadyJudge:
    """Judges a ReplicationController by its pods and Events. Pure but for what it remembers to measure grace times.

    max_restarts         restarts of one container that are too many
    image_pull_attempts  failed pulls of one container that are too many
    unschedulable_grace  seconds for which a pod may find no node; a scale-up that was triggered lifts the limit
    admission_grace      seconds for which a refusal that may pass (quota, webhook, missing Secret) is borne
    """

    max_restarts: int
    image_pull_attempts: int
    unschedulable_grace: float
    admission_grace: float
    _since: dict[str, float] = field(default_factory=dict)
    _pulls: Counter[str] = field(default_factory=Counter)
    _pulling: dict[str, str] = field(default_factory=dict)

    def judge(self, controller: Document, pods: Sequence[Document], events: EventsOf, now: float) -> Judgement:
        """`pods` are those that the controller owns, `events` gives an object's Events by uid (empty: none known),
        `now` is in seconds on any clock that only goes forward."""
        wanted = wanted_pods(controller)
        active = [p for p in pods if is_active(p)]
        ready = [p for p in active if is_ready(p)]
        if len(ready) >= wanted:
            return Ready(tuple(ready))
        progress = f"{len(ready)} of {wanted} pods ready"
        uid = controller["metadata"]["uid"]
        troubles: dict[str, str] = {}
        wants: list[str] = []
        present: set[str] = set()
        try:
            self._judge_failed(pods)
            for pod in active:
                if is_ready(pod):
                    continue
                for key, trouble in self._pod_troubles(pod, events, now, present):
                    troubles[f"{pod['metadata']['uid']} {key}"] = f"pod {name_of(pod)}: {trouble}"
                    wants.append(pod["metadata"]["uid"])
            if len(active) < wanted:
                if self._lasting("missing", now, present) >= RECHECK:
                    wants.append(uid)
                if refusal := self._admission(events(uid), now, present):
                    troubles["refused"] = refusal
        except _Hopeless as end:
            return end.judgement
        # What has passed starts again at nothing when it comes back.
        self._since = {key: value for key, value in self._since.items() if key in present}
        return Waiting(progress, troubles, tuple(wants))

    def _lasting(self, key: str, now: float, present: set[str]) -> float:
        """Seconds since this was seen first without a break."""
        present.add(key)
        return now - self._since.setdefault(key, now)

    def _judge_failed(self, pods: Sequence[Document]) -> None:
        """A ReplicationController replaces failed pods for ever."""
        failed = [p for p in pods if p.get("status", {}).get("phase") == "Failed"]
        if len(failed) >= max(2, self.max_restarts):
            status = failed[-1]["status"]
            why = status.get("message") or status.get("reason") or "no reason given"
            reason = status.get("reason") or "PodFailed"
            _fail(f"{len(failed)} pods failed one after the other: {_short(why)}", reason, failed[-1])

    def _pod_troubles(self, pod: Document, events: EventsOf, now: float, present: set[str]) -> Iterator[Pair]:
        uid = pod["metadata"]["uid"]
        if text := _condition(pod, "PodScheduled", reason="Unschedulable"):
            scaling = any(e.get("reason") == "TriggeredScaleUp" for e in events(uid))
            lasting = self._lasting(f"unschedulable {uid}", now, present)
            if lasting > self.unschedulable_grace and not scaling:
                hint = "free or add nodes, or ask for less"
                _fail(f"pod {name_of(pod)} finds no node: {_short(text)}", "Unschedulable", pod, hint=hint)
            more = ", the cluster is being scaled up" if scaling else ""
            yield f"node{more}", f"finds no node{more}: {_short(text)}"
        for container in container_statuses(pod):
            yield from self._container_trouble(pod, container, events, now, present)

    def _container_trouble(
        self, pod: Document, status: Document, events: EventsOf, now: float, present: set[str]
    ) -> Iterator[Pair]:
        name, state = status.get("name", ""), status.get("state") or {}
        waiting = state.get("waiting") or {}
        reason, message = waiting.get("reason", ""), _short(waiting.get("message") or "")
        about = f"container {name} of pod {name_of(pod)}"
        key = f"{pod['metadata']['uid']}/{name}"
        if reason in _AT_ONCE:
            _fail(f"{about}: {reason}: {message}", reason, pod, hint=_AT_ONCE[reason])
        if reason in _IMAGE:
            pulls = self._count_pulls(key, name, reason, events(pod["metadata"]["uid"]))
            if pulls >= self.image_pull_attempts:
                text = f"the image {status.get('image', '')} of {about} could not be pulled {pulls} times: {message}"
                _fail(text, "ImagePull", pod, hint="check the image's name and tag, and imagePullSecrets")
            yield f"image {name}", f"{reason} in container {name}: {message}"
        elif reason in _CONFIG:
            if self._lasting(f"config {key}", now, present) > self.admission_grace:
                hint = "create the ConfigMap, Secret or volume that the podspec refers to"
                _fail(f"{about} cannot be created: {message or reason}", reason, pod, hint=hint)
            yield f"config {name}", f"{reason} in container {name}: {message}"
        else:
            self._pulling.pop(key, None)
        restarts = status.get("restartCount", 0)
        if restarts >= self.max_restarts:
            ended = (status.get("lastState") or {}).get("terminated") or state.get("terminated") or {}
            text = f"{about} was restarted {restarts} times, it ended {_how(ended)}"
            _fail(text, "CrashLoop", pod, hint="look at the container's last log lines", container=name)
        if restarts and not status.get("ready"):
            ended = (status.get("lastState") or {}).get("terminated") or {}
            yield (
                f"restart {restarts} {name}",
                f"container {name} was restarted {restarts} times, it ended {_how(ended)}",
            )

    def _count_pulls(self, key: str, container: str, reason: str, events: Iterable[Document]) -> int:
        """Failed pulls: as the Events count them, or as often as the status was seen to change to it."""
        if self._pulling.get(key) != reason and (reason != "ImagePullBackOff" or key not in self._pulling):
            self._pulls[key] += 1
        self._pulling[key] = reason
        told = sum(
            _count(event)
            for event in events
            if event.get("reason") == "Failed"
            and "pull image" in (event.get("message") or "")
            and f"{{{container}}}" in ((event.get("involvedObject") or {}).get("fieldPath") or f"{{{container}}}")
        )
        return max(told, self._pulls[key])

    def _admission(self, events: Sequence[Document], now: float, present: set[str]) -> str:
        """The API server refuses the pods: only the controller's Events say so."""
        refusals = [e for e in events if e.get("reason") == "FailedCreate"]
        if not refusals:
            return ""
        text = _short(max(refusals, key=event_time).get("message") or "no reason given")
        passing = bool(_HEALS.search(text)) or not _NEVER_HEALS.search(text)
        if not passing or self._lasting("admission", now, present) > self.admission_grace:
            hint = "free or raise the quota, or repair the webhook" if passing else "change the podspec"
            raise _Hopeless(
                Hopeless(StepFailed(f"the cluster refuses the pods: {text}", reason="PodsRefused", hint=hint))
            )
        return f"the cluster refuses the pods: {text}"


class _Hopeless(Exception):
    def __init__(self, judgement: Hopeless) -> None:
        super().__init__(str(judgement.failure))
        self.judgement = judgement


def _fail(text: str, reason: str, pod: Document, *, hint: str = "", container: str = "") -> NoReturn:
    failure = StepFailed(text, reason=reason, pod=name_of(pod), hint=hint)
    raise _Hopeless(Hopeless(failure, container, previous=bool(container)))


def explain_not_ready(controller: Document, pods: Sequence[Document], events: EventsOf) -> str:
    """One sentence on a workload that is not ready: how far it is, and what its probes and Events say."""
    active = [p for p in pods if is_active(p)]
    ready = [p for p in active if is_ready(p)]
    parts = [f"{len(ready)} of {wanted_pods(controller)} pods are ready"]
    if not active:
        warning = _warning(events(controller["metadata"]["uid"]))
        parts.append(f"no pod was created{': ' if warning else ''}{warning}")
    for pod in [p for p in active if not is_ready(p)][:PODS_EXPLAINED]:
        parts.append(f"pod {name_of(pod)} {_pod_state(pod, events(pod['metadata']['uid']))}")
    return "; ".join(parts)


def _pod_state(pod: Document, events: Sequence[Document]) -> str:
    if text := _condition(pod, "PodScheduled", reason="Unschedulable"):
        return f"finds no node: {_short(text)}"
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in ("", "ContainerCreating", "PodInitializing"):
            return (
                f"waits in container {status.get('name')}: {waiting['reason']} {_short(waiting.get('message') or '')}"
            )
    if warning := _warning(events):
        return f"is not ready: {warning}"
    return f"is not ready: {_condition(pod, 'Ready') or pod.get('status', {}).get('phase') or 'nothing is known of it'}"


def _warning(events: Sequence[Document]) -> str:
    """The newest warning, empty when there is none."""
    warnings = [e for e in events if e.get("type") == "Warning"]
    return _short(max(warnings, key=event_time).get("message") or "") if warnings else ""


# --- waiting ------------------------------------------------------------------------------------------------------


def await_ready(
    kube: OwnedKube,
    controller_name: str,
    controller_uid: str,
    log: Log,
    *,
    max_restarts: int,
    image_pull_attempts: int,
    unschedulable_grace: float,
    admission_grace: float,
) -> list[Document]:
    """Wait until all pods that the ReplicationController with that uid wants are ready, and return them.

    Raises StepFailed as soon as waiting cannot help, and with reason `NotReady` and an explanation when the gate's
    deadline passes. Costs no request of its own: pods, controller and (once there is trouble) Events are mirrored.
    """
    judge = ReadyJudge(max_restarts, image_pull_attempts, unschedulable_grace, admission_grace)
    watcher = _Watcher(kube, controller_name, controller_uid, log, judge)
    try:
        end = kube.wait(POD, watcher.look, labels={CONTROLLED_BY: controller_uid}, recheck=RECHECK)
    except DeadlineExceeded as over:
        raise _missed(kube, watcher, over, log) from over
    if isinstance(end, Ready):
        return list(end.pods)
    assert isinstance(end, Hopeless)
    if end.container:
        _log_last_lines(kube, end.failure.pod, end.container, log, previous=True)
    raise end.failure


class _Watcher:
    """The condition that `await_ready` waits for; says what changes."""

    def __init__(self, kube: OwnedKube, name: str, uid: str, log: Log, judge: ReadyJudge) -> None:
        self.controller: Document | None = None
        self.pods: list[Document] = []
        self.name = name
        self._kube = kube
        self._uid = uid
        self._log = log
        self._judge = judge
        self._mirrored = False
        self._blind = False
        self._wants: frozenset[str] = frozenset()
        self._progress = ""
        self._said: set[str] = set()

    def look(self, pods: list[Document]) -> Judgement | None:
        """Judge what there is now."""
        self.pods = pods
        self.controller = self._find_controller()
        judgement = self._judge.judge(self.controller, pods, self._events, time.monotonic())
        if isinstance(judgement, Waiting) and not self._wants.issuperset(judgement.wants_events):
            self._wants = frozenset(judgement.wants_events)
            judgement = self._judge.judge(self.controller, pods, self._events, time.monotonic())
        if isinstance(judgement, Waiting):
            self._wants = frozenset(judgement.wants_events)
            self._say(judgement)
            return None
        return judgement

    def _find_controller(self) -> Document:
        """From the mirror; from the server at first and when the mirror no longer has it."""
        for found in self._kube.items(CONTROLLER, {"name": self.name}):
            if found["metadata"]["uid"] == self._uid:
                self._mirrored = True
                return found
        if self.controller is not None and not self._mirrored:
            return self.controller
        found_now = self._kube.get(CONTROLLER, self.name)
        if found_now is not None and found_now["metadata"]["uid"] == self._uid:
            return found_now
        raise StepFailed(
            f"ReplicationController {self.name} was deleted or replaced by somebody else while its pods were starting",
            reason="ControllerGone",
            hint="deploy again",
        )

    def _events(self, uid: str) -> Sequence[Document]:
        """Only of what is in trouble, so that Events are not even mirrored while all goes well."""
        if uid not in self._wants or self._blind:
            return ()
        try:
            return self._kube.known(EVENT, {INVOLVED: uid})
        except KubeForbidden:
            self._blind = True
            self._log("the Deployer may not read Events in this namespace: reasons will be missing")
            return ()

    def _say(self, judgement: Waiting) -> None:
        """What was said once is not said again when it comes and goes, as a failed pull and its back-off do."""
        if judgement.progress != self._progress:
            self._log(judgement.progress)
        self._progress = judgement.progress
        for key, trouble in judgement.troubles.items():
            if key not in self._said:
                self._said.add(key)
                self._log(trouble)


def _missed(kube: OwnedKube, watcher: _Watcher, over: DeadlineExceeded, log: Log) -> StepFailed:
    """Why it was not ready in time. The gate has closed, so this looks around under a short one of its own."""
    hint = "look at the readiness probe and the pod's log; timeoutSeconds gives an app more time"
    if watcher.controller is None:
        return StepFailed(f"the pods of {watcher.name} are not ready: {over}", reason="NotReady", hint=hint)
    late = kube.with_gate(Gate(time.monotonic() + AFTERMATH))

    def events(uid: str) -> Sequence[Document]:
        try:
            return late.events(uid)
        except (KubeError, DeadlineExceeded):
            return ()

    text = explain_not_ready(watcher.controller, watcher.pods, events)
    unready = next((p for p in watcher.pods if is_active(p) and not is_ready(p)), None)
    if unready is not None:
        broken = next((c for c in container_statuses(unready) if not c.get("ready")), {})
        _log_last_lines(late, name_of(unready), str(broken.get("name", "")), log)
    pod = name_of(unready) if unready is not None else ""
    return StepFailed(f"not ready in time: {text}", reason="NotReady", pod=pod, hint=hint)


def _log_last_lines(kube: OwnedKube, pod: str, container: str, log: Log, *, previous: bool = False) -> None:
    """The container's last lines for the deployment's log; that they cannot be had is no failure of its own."""
    if not container:
        return
    lines = ""
    try:
        if previous:
            lines = kube.pod_log(pod, container, LOG_LINES, previous=True).strip()
        # A node may have cleared away the run before the last one, and says so in the log's place.
        if not lines or lines.startswith("unable to retrieve container logs"):
            lines = kube.pod_log(pod, container, LOG_LINES).strip()
    except (KubeError, DeadlineExceeded) as error:
        log(f"the log of container {container} in pod {pod} cannot be read: {error}")
        return
    if lines:
        log(f"last lines of container {container} in pod {pod}:\n{lines}")


def await_endpoints(kube: OwnedKube, service_name: str, pod_uids: Iterable[str], log: Log) -> None:
    """Wait until the Service's EndpointSlices hold every one of these pods, ready.

    Raises StepFailed with reason `EndpointsNotReady` when the gate's deadline passes.
    """
    wanted = frozenset(pod_uids)
    missing = wanted

    def complete(slices: list[Document]) -> bool:
        nonlocal missing
        missing = wanted - frozenset(ready_endpoints(slices))
        return not missing

    try:
        kube.wait(ENDPOINT_SLICE, complete, labels={"kubernetes.io/service-name": service_name})
    except DeadlineExceeded as over:
        raise StepFailed(
            f"{len(missing)} of {len(wanted)} pods are no ready endpoints of Service {service_name}: {over}",
            reason="EndpointsNotReady",
            hint="see whether the Service's selector was changed, or a pod was replaced meanwhile",
        ) from over
    log(f"service {service_name} has {len(wanted)} ready endpoints")


def await_pods_gone(kube: OwnedKube, controller_uid: str, labels: Mapping[str, str], log: Log | None = None) -> None:
    """Wait until there is no pod with these labels that the controller of that uid owns (empty uid: any controller).

    Pods that somebody orphaned by hand have nobody who would remove them, so they are not waited for. Ends with a look
    at the server itself: a mirror that lags must not call pods gone that were just made.
    """

    def left(pods: Iterable[Document]) -> list[Document]:
        return [p for p in pods if (controlled_by(p, controller_uid) if controller_uid else has_controller(p))]

    said = -1

    def gone(pods: list[Document]) -> bool:
        nonlocal said
        count = len(left(pods))
        if log is not None and count and count != said:
            log(f"waiting for {count} pods to end")
        said = count
        return not count

    pause = 0.0
    while left(kube.list(POD, labels)):
        kube.gate.pause(pause)
        kube.wait(POD, gone, labels=labels)
        pause = min(1.0, pause * 2 + 0.02)


# --- parts --------------------------------------------------------------------------------------------------------


def name_of(found: Document) -> str:
    """The object's name."""
    return str(found["metadata"]["name"])


def controlled_by(found: Document, uid: str) -> bool:
    """True when the object's controller has that uid."""
    owners = found["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def has_controller(found: Document) -> bool:
    """True when some controller owns the object, be it gone already."""
    return any(owner.get("controller") for owner in found["metadata"].get("ownerReferences") or ())


def is_active(pod: Document) -> bool:
    """True unless the pod is on its way out or over: what a ReplicationController counts."""
    ended = pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
    return not ended and not pod["metadata"].get("deletionTimestamp")


def is_ready(pod: Document) -> bool:
    """True when the pod is active and its Ready condition holds."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return is_active(pod) and any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def wanted_pods(controller: Document) -> int:
    """How many pods there should be; never none, or a deployment that somebody scaled to zero would be switched to."""
    return max(1, int(controller["spec"].get("replicas", 1)))


def container_statuses(pod: Document) -> list[Document]:
    """Init containers first."""
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def ready_endpoints(slices: Iterable[Document]) -> Iterator[str]:
    """Uids of the pods that are ready endpoints. A condition that is not there counts as met, says the API."""
    for found in slices:
        for endpoint in found.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("targetRef"):
                yield str(endpoint["targetRef"].get("uid"))


def _condition(pod: Document, type_: str, *, reason: str = "") -> str:
    """The message of a condition that does not hold; empty when it holds or has another reason."""
    for found in pod.get("status", {}).get("conditions") or ():
        if found.get("type") == type_ and found.get("status") != "True" and reason in ("", found.get("reason")):
            return str(found.get("message") or found.get("reason") or type_)
    return ""


def _how(terminated: Document) -> str:
    reason = terminated.get("reason") or ""
    code = terminated.get("exitCode")
    if code is None:
        return "for a reason that is not known"
    return f"with exit code {code}" + (f" ({reason})" if reason not in ("", "Error") else "")


def _count(event: Document) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def _short(text: str) -> str:
    """On one line, at most 500 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 500 else line[:497] + "..."

"""The judge: can waiting for a ReplicationController's pods still help? From pods and Events alone, without I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from deployer.core.errors import StepFailed
from deployer.core.kube import words
from deployer.core.kube.owned import event_time
from deployer.core.kube.pods import (
    about_container,
    container_statuses,
    count,
    is_active,
    is_probed,
    is_ready,
    last_end,
    missing_condition,
    name_of,
    newest,
    short,
    uid_of,
    waiting_for,
    wanted_pods,
    warnings,
    with_reason,
)
from deployer.core.records import Document

EventsOf = Callable[[str], Sequence[Document]]
Pair = tuple[str, str]

QUIET = 5.0
"""Seconds for which a pod may be starting before its Events are looked at: most are ready by then."""

MISSING = 1.0
"""Seconds for which a pod may be missing, without a word from the controller, before Events are looked at."""

FINAL_ATTEMPTS = 2
"""How often what waiting cannot heal must be seen of an image pull or a start: the first may have been a hiccup."""

STEADY = 5.0
"""Seconds for which a pod whose containers were restarted must stay ready: without a probe, a crash loop is ready
between one crash and the next."""

NODE_RETRY = 15.0
"""Seconds after which a node, or the controller, has tried again: theirs are back-offs of some 10 s."""

PODS_EXPLAINED = 3

_AT_ONCE = {
    "InvalidImageName": "correct the image's name",
    "ErrImageNeverPull": "bring the image onto the node, or change imagePullPolicy",
}
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "ImageInspectError"})
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
_CANNOT_START = frozenset({"StartError", "ContainerCannotRun"})
_VOLUMES = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")


class Judgement:
    """What the judge says: Ready, Waiting or Hopeless."""

    __slots__ = ()
    wants_events: frozenset[str] = frozenset()
    """Uids whose Events were asked for: with them the judgement may be another."""


@dataclass(frozen=True)
class Ready(Judgement):
    """Enough pods are ready."""

    pods: tuple[Document, ...]


@dataclass(frozen=True)
class Waiting(Judgement):
    """Not yet. `progress` says how far it is, `troubles` one sentence for each thing that stands in the way, by a key
    that stays while it is the same thing."""

    progress: str
    troubles: Mapping[str, str] = field(default_factory=dict)
    wants_events: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Hopeless(Judgement):
    """Waiting cannot heal it. `about` is the uid of the object whose Events tell more, `container` (of `failure.pod`)
    the one whose log does; empty when none does. `previous`: the log of the run before its last restart."""

    failure: StepFailed
    about: str = ""
    container: str = ""
    previous: bool = False
    wants_events: frozenset[str] = frozenset()


@dataclass(slots=True)
class ReadyJudge:
    """Judges a ReplicationController by its pods and Events. Pure but for what it remembers to measure grace times.

    max_restarts         restarts of one container that are too many
    image_pull_attempts  failed pulls of one container that are too many; a refusal for good counts from the second on
    unschedulable_grace  seconds for which a pod may find no node; a scale-up that was triggered lifts the limit
    admission_grace      seconds for which a refusal that may pass (quota, webhook, missing Secret) is borne
    min_ready            seconds for which a pod without a readiness probe must stay ready: it is so as soon as its
                         containers run, before anybody knows whether they work
    """

    max_restarts: int
    image_pull_attempts: int
    unschedulable_grace: float
    admission_grace: float
    min_ready: float = 0.0
    since: dict[str, float] = field(default_factory=dict)
    pulls: Counter[str] = field(default_factory=Counter)
    pulling: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    """What was said last of why an image or a start failed: it is not repeated while the kubelet backs off."""

    def judge(self, controller: Document, pods: Sequence[Document], events: EventsOf, now: float) -> Judgement:
        """`pods` are those that the controller owns, `events` gives an object's Events by uid (empty: none known),
        `now` is in seconds on any clock that only goes forward."""
        wanted = wanted_pods(controller)
        look = _Look(self, events, now)
        ready = [p for p in pods if is_ready(p) and look.is_steady(p)]
        if len(ready) >= wanted:
            return Ready(tuple(ready))
        try:
            troubles = look.troubles(controller, pods, wanted)
        except _Hopeless as end:
            return Hopeless(end.failure, end.about, end.container, end.previous, frozenset(look.asked))
        # What has passed starts again at nothing when it comes back.
        self.since = {key: value for key, value in self.since.items() if key in look.present}
        self.tries = {key: value for key, value in self.tries.items() if key in look.present}
        return Waiting(f"{len(ready)} of {wanted} pods ready", troubles, frozenset(look.asked))


class _Hopeless(Exception):
    def __init__(self, failure: StepFailed, about: str, container: str = "", previous: bool = False) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.about = about
        self.container = container
        self.previous = previous


def _fail(text: str, reason: str, pod: Document, *, hint: str = "", container: str = "") -> NoReturn:
    failure = StepFailed(text, reason=reason, pod=name_of(pod), hint=hint)
    raise _Hopeless(failure, uid_of(pod), container, previous=bool(container))


class _Look:
    """One look at everything."""

    def __init__(self, judge: ReadyJudge, events: EventsOf, now: float) -> None:
        self.asked: set[str] = set()
        self.present: set[str] = set()
        self._judge = judge
        self._events_of = events
        self._now = now

    def troubles(self, controller: Document, pods: Sequence[Document], wanted: int) -> dict[str, str]:
        """What stands in the way, by key. Raises _Hopeless."""
        self._judge_failed(pods)
        found: dict[str, str] = {}
        active = [p for p in pods if is_active(p)]
        for pod in active:
            if not is_ready(pod):
                for key, trouble in self._pod(pod):
                    found[f"{uid_of(pod)} {key}"] = f"pod {name_of(pod)}: {trouble}"
        if len(active) < wanted and (refusal := self._admission(controller, pods)):
            found["refused"] = refusal
        return found

    def _events(self, uid: str) -> Sequence[Document]:
        self.asked.add(uid)
        return self._events_of(uid)

    def _lasting(self, key: str) -> float:
        """Seconds since this was seen first without a break."""
        self.present.add(key)
        return self._now - self._judge.since.setdefault(key, self._now)

    def _in_vain(self, key: str, tries: Sequence[Document]) -> bool:
        """The grace time is over, and it was tried again since: what came in time would have been seen by now."""
        over = self._lasting(key) - self._judge.admission_grace
        if over <= 0:
            return False
        return count(tries) > self._judge.tries.setdefault(key, count(tries)) or over > NODE_RETRY

    def is_steady(self, pod: Document) -> bool:
        """True unless the pod's containers were restarted a moment ago, or have just started and have no probe."""
        restarts = sum(int(s.get("restartCount", 0)) for s in pod.get("status", {}).get("containerStatuses") or ())
        least = STEADY if restarts else 0.0 if is_probed(pod) else self._judge.min_ready
        return not least or self._lasting(f"up {uid_of(pod)} {restarts}") >= least

    # --- the controller -------------------------------------------------------------------------------------------

    def _judge_failed(self, pods: Sequence[Document]) -> None:
        """A ReplicationController replaces failed pods for ever. One that is being deleted ends so too."""
        failed = [
            p
            for p in pods
            if p.get("status", {}).get("phase") == "Failed" and not p["metadata"].get("deletionTimestamp")
        ]
        if len(failed) >= max(2, self._judge.max_restarts):
            status = failed[-1]["status"]
            why = status.get("message") or status.get("reason") or "no reason given"
            reason = status.get("reason") or "PodFailed"
            hint = "see why its node would not have it, or why it ended"
            _fail(f"{len(failed)} pods failed one after the other: {short(why)}", reason, failed[-1], hint=hint)

    def _admission(self, controller: Document, pods: Sequence[Document]) -> str:
        """The API server refuses the pods: only the controller says so, in its status and in Events."""
        message, refusals = self._refusal(controller, pods)
        if not message:
            return ""
        meaning = words.admission_refusal(message)
        text = f"the cluster refuses the pods of {name_of(controller)}: {meaning.words}"
        if meaning.final or self._in_vain("admission", refusals):
            raise _Hopeless(StepFailed(text, reason="PodsRefused", hint=meaning.hint), uid_of(controller))
        return text

    def _refusal(self, controller: Document, pods: Sequence[Document]) -> tuple[str, Sequence[Document]]:
        """The newest refusal that still holds, and the Events of all. The status keeps the words of the first."""
        failing = next((c for c in _conditions(controller) if c.get("type") == "ReplicaFailure"), None)
        if failing is None and self._lasting("missing") < MISSING:
            return "", ()
        if failing is not None:
            since = str(failing.get("lastTransitionTime") or "")
        else:
            # A refusal that is older than a pod was overcome.
            since = max((str(p["metadata"].get("creationTimestamp") or "") for p in pods), default="")
        refusals = with_reason(self._events(uid_of(controller)), "FailedCreate")
        told = newest(e for e in refusals if event_time(e) >= since)
        return told or str((failing or {}).get("message") or ""), refusals

    # --- a pod ----------------------------------------------------------------------------------------------------

    def _pod(self, pod: Document) -> Iterator[Pair]:
        if text := missing_condition(pod, "PodScheduled", reason="Unschedulable"):
            yield self._unschedulable(pod, text)
            return
        statuses = container_statuses(pod)
        for status in statuses:
            yield from self._container(pod, status)
        if self._lasting(f"slow {uid_of(pod)}") >= QUIET:
            yield from self._slow(pod, statuses)

    def _unschedulable(self, pod: Document, text: str) -> Pair:
        uid, text = uid_of(pod), words.unschedulable(text)
        scaling = bool(with_reason(self._events(uid), "TriggeredScaleUp"))
        if self._lasting(f"unschedulable {uid}") > self._judge.unschedulable_grace and not scaling:
            hint = "free or add nodes, or have the pod ask for less: requests, nodeSelector, affinity, volumes"
            _fail(f"pod {name_of(pod)} finds no node: {text}", "Unschedulable", pod, hint=hint)
        more = ", the cluster is being scaled up" if scaling else ""
        return f"node{more}", f"finds no node{more}: {text}"

    def _slow(self, pod: Document, statuses: Sequence[Document]) -> Iterator[Pair]:
        """What the Events say of a pod that takes its time: volumes, a slow pull, a probe."""
        events = self._events(uid_of(pod))
        if any((s.get("state") or {}).get("running") is not None and not s.get("ready") for s in statuses):
            if text := newest(with_reason(events, "Unhealthy")):
                yield "probe " + "".join(c for c in text if not c.isdigit()), f"is not ready: {short(text)}"
            return
        if not all(waiting_for(s) in _STARTING for s in statuses if not s.get("ready")):
            return
        at_containers = [e for e in events if (e.get("involvedObject") or {}).get("fieldPath")]
        if at_containers:  # then its volumes were mounted
            if max(at_containers, key=event_time).get("reason") == "Pulling":
                yield "pulling", _lower(short(newest(at_containers)))
            return
        mounts = with_reason(events, *_VOLUMES)
        if text := newest(mounts):
            meaning = words.mount_error(text)
            if meaning.final and self._in_vain(f"mount {uid_of(pod)}", mounts):
                text = f"pod {name_of(pod)} waits for a volume that cannot be mounted: {meaning.words}"
                _fail(text, "FailedMount", pod, hint=meaning.hint)
            yield "mount", f"waits for a volume: {meaning.words}"
        elif text := newest(with_reason(events, "FailedCreatePodSandBox")):
            yield "sandbox", f"cannot be set up on its node yet: {short(text)}"

    # --- a container ----------------------------------------------------------------------------------------------

    def _container(self, pod: Document, status: Document) -> Iterator[Pair]:
        name, reason = str(status.get("name", "")), waiting_for(status)
        message = str(((status.get("state") or {}).get("waiting") or {}).get("message") or "")
        about = f"container {name} of pod {name_of(pod)}"
        key = f"{uid_of(pod)}/{name}"
        if reason in _AT_ONCE:
            why = words.image_unusable(message) or reason
            text = f'{about} cannot use the image "{status.get("image", "")}": {why}'
            _fail(text, reason, pod, hint=_AT_ONCE[reason])
        if reason in _IMAGE:
            yield self._image(pod, status, about, key, message)
        else:
            self._judge.pulling.pop(key, None)
        if reason in _CONFIG:
            meaning = words.config_error(message or reason)
            tries = about_container(with_reason(self._events(uid_of(pod)), "Failed"), name)
            if meaning.final or self._in_vain(f"config {key}", tries):
                _fail(f"{about} cannot be created: {meaning.words}", reason, pod, hint=meaning.hint)
            yield f"config {name}", f"{reason} in container {name}: {meaning.words}"
        if reason == "PostStartHookError":
            self._judge.told[key] = "its postStart hook failed: " + words.start_error(message).words
        yield from self._restarts(pod, status, about, key)

    def _image(self, pod: Document, status: Document, about: str, key: str, message: str) -> Pair:
        name, reason, image = str(status.get("name", "")), waiting_for(status), str(status.get("image") or "")
        events = self._events(uid_of(pod))
        pulls = self._count_pulls(key, name, reason, events)
        # Older kubelets say only that they back off.
        if words.pull_error(message, image).words:
            self._judge.told[key] = message
        meaning = words.pull_error(self._judge.told.get(key, message), image)
        most = self._judge.image_pull_attempts
        if pulls >= (min(FINAL_ATTEMPTS, most) if meaning.final else most):
            text = f"the image {image} of {about} could not be pulled {pulls} times: {meaning.words}"
            secrets = newest(with_reason(events, "FailedToRetrieveImagePullSecret"))
            _fail(text, "ImagePull", pod, hint=meaning.hint + (f" ({short(secrets)})" if secrets else ""))
        return f"image {name}", f"{reason} in container {name}: {meaning.words}"

    def _count_pulls(self, key: str, container: str, reason: str, events: Sequence[Document]) -> int:
        """Failed pulls: as the Events count them, or as often as the status was seen to change to it."""
        judge = self._judge
        if judge.pulling.get(key) != reason and (reason != "ImagePullBackOff" or key not in judge.pulling):
            judge.pulls[key] += 1
        judge.pulling[key] = reason
        failed = about_container(with_reason(events, "Failed"), container)
        told = [event for event in failed if "pull image" in (event.get("message") or "")]
        return max(count(told), judge.pulls[key])

    def _restarts(self, pod: Document, status: Document, about: str, key: str) -> Iterator[Pair]:
        name, restarts, end = str(status.get("name", "")), int(status.get("restartCount", 0)), last_end(status)
        if end.get("reason") in _CANNOT_START:
            meaning = words.start_error(str(end.get("message") or ""))
            why = meaning.words or str(end["reason"])
            if (meaning.final and restarts + 1 >= FINAL_ATTEMPTS) or restarts >= self._judge.max_restarts:
                _fail(f"{about} cannot be started: {why}", "StartError", pod, hint=meaning.hint)
            yield f"start {name}", f"container {name} cannot be started: {why}"
            return
        if not restarts or status.get("ready"):
            return
        how, hint = self._end(pod, name, key, end)
        text = f"was restarted {_times(restarts)}{how}"
        if restarts >= self._judge.max_restarts:
            _fail(f"{about} {text}", "CrashLoop", pod, hint=hint, container=name)
        yield f"restart {restarts} {name}", f"container {name} {text}"

    def _end(self, pod: Document, name: str, key: str, end: Document) -> Pair:
        """How it ended, as the end of a sentence, and what to do about it."""
        events = about_container(self._events(uid_of(pod)), name)
        for kind, hint in _PROBES.items():
            # Without the kubelet's word that it ended it for that, a failed probe explains no end.
            if any(f"failed {kind} probe" in (e.get("message") or "") for e in with_reason(events, "Killing")):
                failed = [e for e in with_reason(events, "Unhealthy") if _is_probe(e, kind)]
                said = (newest(failed).partition(": ")[2] if failed else "") or "no reason given"
                return f" because its {kind} probe failed: {short(said)}", hint
        if key in self._judge.told and with_reason(events, "FailedPostStartHook"):
            return f" because {self._judge.told[key]}", "correct the container's postStart hook"
        reason = str(end.get("reason") or "")
        return f", it ended {_how(end)}", words.end_hint(end.get("exitCode"), reason)


_PROBES = {
    "liveness": "correct the liveness probe, or give the app time to start with a startupProbe",
    "startup": "correct the startup probe, or give the app more time with its failureThreshold",
}


def _is_probe(event: Document, kind: str) -> bool:
    return str(event.get("message") or "").lower().startswith(f"{kind} probe")


def _how(terminated: Document) -> str:
    reason = terminated.get("reason") or ""
    code = terminated.get("exitCode")
    if code is None:
        return "for a reason that is not known"
    return f"with exit code {code}" + (f" ({reason})" if reason not in ("", "Error", "Completed") else "")


def _conditions(found: Document) -> Sequence[Document]:
    return found.get("status", {}).get("conditions") or ()


# --- explaining ---------------------------------------------------------------------------------------------------


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
    for pod in waiting[:PODS_EXPLAINED]:
        parts.append(f"pod {name_of(pod)} {_pod_state(pod, events(uid_of(pod)))}")
    if len(waiting) > PODS_EXPLAINED:
        parts.append(f"{len(waiting) - PODS_EXPLAINED} more are not ready either")
    return "; ".join(parts)


def _refused(controller: Document) -> str:
    failing = [c for c in _conditions(controller) if c.get("type") == "ReplicaFailure"]
    return str(failing[0].get("message") or "") if failing else ""


def _pod_state(pod: Document, events: Sequence[Document]) -> str:
    if text := missing_condition(pod, "PodScheduled", reason="Unschedulable"):
        return f"finds no node: {words.unschedulable(text)}"
    for status in container_statuses(pod):
        if text := container_state(status):
            return text
    if text := newest(with_reason(events, "Unhealthy")) or newest(warnings(events)):
        return f"is not ready: {short(text)}"
    pulls = with_reason(events, "Pulling", "Pulled")
    if pulls and max(pulls, key=event_time).get("reason") == "Pulling":
        return f"is still {_lower(short(newest(pulls)))}"
    state = missing_condition(pod, "Ready") or pod.get("status", {}).get("phase") or "nothing is known of it"
    return f"is not ready: {short(str(state))}"


def container_state(status: Document) -> str:
    """What holds a container up, as far as its own status says; empty when that says nothing."""
    name, reason, restarts = status.get("name"), waiting_for(status), int(status.get("restartCount", 0))
    message = str(((status.get("state") or {}).get("waiting") or {}).get("message") or "")
    if reason in _IMAGE:
        return f"cannot pull the image of container {name}: {words.pull_error(message, status.get('image', '')).words}"
    if restarts and not status.get("ready"):
        return f"had container {name} restarted {_times(restarts)}, it ended {_how(last_end(status))}"
    if reason and reason not in _STARTING:
        return f"waits in container {name}: {reason} {short(message)}".rstrip()
    return ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]

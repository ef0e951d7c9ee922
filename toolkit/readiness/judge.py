"""The judge: can waiting for a ReplicationController's pods still help? From pods and Events alone, without I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from deployer.core.contract.kube import is_active, is_ready
from deployer.core.errors import StepFailed
from deployer.core.model.records import Document
from deployer.kube.pods import (
    about_container,
    app_statuses,
    container_statuses,
    count,
    event_time,
    is_probed,
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
from deployer.toolkit.readiness.explain import IMAGE_TROUBLE, STARTING, how_ended, lower, times, without_digits
from deployer.toolkit.readiness.scheduling import EventsOf, obstacle

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

_AT_ONCE = {
    "InvalidImageName": "correct the image's name",
    "ErrImageNeverPull": "bring the image onto the node, or change imagePullPolicy",
}
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "ImageInspectError"})
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
    that stays while it is the same thing; `missing`: how many pods of how many are not ready."""

    progress: str
    troubles: Mapping[str, str] = field(default_factory=dict)
    wants_events: frozenset[str] = frozenset()
    missing: tuple[int, int] = (0, 0)


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
    admission_grace      seconds for which a refusal that may pass (quota, webhook, missing Secret) is tolerated
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

    def judge(
        self,
        controller: Document,
        pods: Sequence[Document],
        events: EventsOf,
        now: float,
        others: Callable[[], Sequence[Document]] = tuple,
    ) -> Judgement:
        """`pods` are those that the controller owns, `events` gives an object's Events (empty: none known) by uid or as
        `Kind/name`, `now` is in seconds on any clock that only goes forward, `others` gives the active pods of the
        app's other versions."""
        wanted = wanted_pods(controller)
        look = _Look(self, events, now, others)
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
        missing = (wanted - len(ready), wanted)
        return Waiting(f"{len(ready)} of {wanted} pods ready", troubles, frozenset(look.asked), missing)


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

    def __init__(
        self, judge: ReadyJudge, events: EventsOf, now: float, others: Callable[[], Sequence[Document]]
    ) -> None:
        self.asked: set[str] = set()
        self.present: set[str] = set()
        self._judge = judge
        self._events_of = events
        self._now = now
        self._others = others

    def troubles(self, controller: Document, pods: Sequence[Document], wanted: int) -> dict[str, str]:
        """What stands in the way, by key. Raises _Hopeless."""
        found = dict(self._judge_failed(pods))
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
        restarts = sum(int(status.get("restartCount", 0)) for status in app_statuses(pod))
        least = STEADY if restarts else 0.0 if is_probed(pod) else self._judge.min_ready
        return not least or self._lasting(f"up {uid_of(pod)} {restarts}") >= least

    # --- the controller -------------------------------------------------------------------------------------------

    def _judge_failed(self, pods: Sequence[Document]) -> Iterator[Pair]:
        """A ReplicationController replaces failed pods for ever. One that is being deleted ends so too."""
        failed = [
            p
            for p in pods
            if p.get("status", {}).get("phase") == "Failed" and not p["metadata"].get("deletionTimestamp")
        ]
        if not failed:
            return
        last = max(failed, key=lambda p: str(p["metadata"].get("creationTimestamp") or ""))
        reason = str(last["status"].get("reason") or "PodFailed")
        why = short(last["status"].get("message") or last["status"].get("reason") or "no reason given")
        final = reason in error_patterns.NODE_REFUSES
        most = FINAL_ATTEMPTS if final else max(2, self._judge.max_restarts)
        if len(failed) >= most:
            hint = error_patterns.NODE_REFUSES.get(reason, "see why its node would not have it, or why it ended")
            _fail(f"{len(failed)} pods failed one after the other: {why}", reason, last, hint=hint)
        yield f"failed {reason}", f"pod {name_of(last)} failed: {why}"

    def _admission(self, controller: Document, pods: Sequence[Document]) -> str:
        """The API server refuses the pods: only the controller says so, in its status and in Events."""
        message, refusals = self._refusal(controller, pods)
        if not message:
            return ""
        meaning = error_patterns.admission_refusal(message)
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
        if not is_scheduled(pod):
            yield from self._unscheduled(pod)
            return
        statuses = container_statuses(pod)
        for status in statuses:
            yield from self._container(pod, status)
        if self._lasting(f"slow {uid_of(pod)}") >= QUIET:
            yield from self._slow(pod, statuses)

    def _unscheduled(self, pod: Document) -> Iterator[Pair]:
        uid = uid_of(pod)
        early = self._lasting(f"unscheduled {uid}") < QUIET
        if early and not missing_condition(pod, "PodScheduled"):
            return  # the scheduler has hardly seen it
        found = obstacle(pod, self._events, self._others())
        waited = self._lasting(f"unschedulable {uid}") > self._judge.unschedulable_grace
        if waited and not (found.scaling or found.heals):
            _fail(f"pod {name_of(pod)} {found.words}", found.reason, pod, hint=found.hint)
        more = " (the cluster is being scaled up)" if found.scaling else ""
        yield f"{found.reason}{more} {without_digits(found.words)}", f"{found.words}{more}"

    def _slow(self, pod: Document, statuses: Sequence[Document]) -> Iterator[Pair]:
        """What the Events say of a pod that takes its time: volumes, a slow pull, a probe."""
        events = self._events(uid_of(pod))
        if any((s.get("state") or {}).get("running") is not None and not s.get("ready") for s in statuses):
            if text := newest(with_reason(events, "Unhealthy")):
                yield f"probe {without_digits(text)}", f"is not ready: {short(text)}"
            elif init := running_init(pod):
                yield f"init {init}", f"waits for init container {init} to end"
            return
        if not all(waiting_for(s) in STARTING for s in statuses if not s.get("ready")):
            return
        at_containers = [e for e in events if (e.get("involvedObject") or {}).get("fieldPath")]
        if at_containers:  # then its volumes were mounted
            if max(at_containers, key=event_time).get("reason") == "Pulling":
                yield "pulling", lower(short(newest(at_containers)))
            return
        mounts = with_reason(events, *_VOLUMES)
        if text := newest(mounts):
            meaning = error_patterns.mount_error(text)
            if meaning.final and self._in_vain(f"mount {uid_of(pod)}", mounts):
                text = f"pod {name_of(pod)} waits for a volume that cannot be mounted: {meaning.words}"
                _fail(text, "FailedMount", pod, hint=meaning.hint)
            yield "mount", f"waits for a volume: {meaning.words}"
        elif text := newest(warnings(events)):
            meaning = error_patterns.setup_error(text)
            if meaning.final and self._in_vain(f"setup {uid_of(pod)}", warnings(events)):
                text = f"pod {name_of(pod)} cannot be set up on its node: {meaning.words}"
                _fail(text, "FailedSetup", pod, hint=meaning.hint)
            yield "setup", f"cannot be set up on its node yet: {meaning.words}"
        elif not pod.get("status", {}).get("startTime"):
            yield "node", f"waits for node {pod['spec'].get('nodeName')}, which has not accepted it"

    # --- a container ----------------------------------------------------------------------------------------------

    def _container(self, pod: Document, status: Document) -> Iterator[Pair]:
        name, reason = str(status.get("name", "")), waiting_for(status)
        message = str(((status.get("state") or {}).get("waiting") or {}).get("message") or "")
        about = f"container {name} of pod {name_of(pod)}"
        key = f"{uid_of(pod)}/{name}"
        if reason in _AT_ONCE:
            why = error_patterns.image_unusable(message) or reason
            text = f'{about} cannot use the image "{status.get("image", "")}": {why}'
            _fail(text, reason, pod, hint=_AT_ONCE[reason])
        if reason in IMAGE_TROUBLE:
            yield self._image(pod, status, about, key, message)
        else:
            self._judge.pulling.pop(key, None)
        if reason in _CONFIG:
            meaning = error_patterns.config_error(message or reason)
            tries = about_container(with_reason(self._events(uid_of(pod)), "Failed"), name)
            if meaning.final or self._in_vain(f"config {key}", tries):
                _fail(f"{about} cannot be created: {meaning.words}", reason, pod, hint=meaning.hint)
            yield f"config {name}", f"{reason} in container {name}: {meaning.words}"
        if reason == "PostStartHookError":
            self._judge.told[key] = "its postStart hook failed: " + error_patterns.start_error(message).words
        yield from self._restarts(pod, status, about, key)

    def _image(self, pod: Document, status: Document, about: str, key: str, message: str) -> Pair:
        name, reason, image = str(status.get("name", "")), waiting_for(status), str(status.get("image") or "")
        events = self._events(uid_of(pod))
        pulls = self._count_pulls(key, name, reason, events)
        # Older kubelets say only that they back off.
        if error_patterns.pull_error(message, image).words:
            self._judge.told[key] = message
        meaning = error_patterns.pull_error(self._judge.told.get(key, message), image)
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
            meaning = error_patterns.start_error(str(end.get("message") or ""))
            why = meaning.words or str(end["reason"])
            if (meaning.final and restarts + 1 >= FINAL_ATTEMPTS) or restarts >= self._judge.max_restarts:
                _fail(f"{about} cannot be started: {why}", "StartError", pod, hint=meaning.hint)
            yield f"start {name}", f"container {name} cannot be started: {why}"
            return
        if not restarts or status.get("ready"):
            return
        how, hint = self._end(pod, name, key, end)
        text = f"was restarted {times(restarts)}{how}"
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
        return f", it ended {how_ended(end)}", error_patterns.end_hint(end.get("exitCode"), reason)


_PROBES = {
    "liveness": "correct the liveness probe, or give the app time to start with a startupProbe",
    "startup": "correct the startup probe, or give the app more time with its failureThreshold",
}


def _is_probe(event: Document, kind: str) -> bool:
    return str(event.get("message") or "").lower().startswith(f"{kind} probe")


def _conditions(found: Document) -> Sequence[Document]:
    return found.get("status", {}).get("conditions") or ()

"""Waits for a workload, and what is told when one cannot succeed: the reason, Events, a container's last lines."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import CONTROLLED_BY, KubeAccess, is_active, is_ready
from deployer.core.errors import (
    CHECK_API_SERVER,
    DeadlineExceeded,
    KubeError,
    KubeForbidden,
    StepFailed,
    require_answers,
)
from deployer.core.model.kind import CONTROLLER, ENDPOINT_SLICE, EVENT, POD
from deployer.core.model.records import Document
from deployer.kube.informer import INVOLVED
from deployer.kube.owned import LOOK_AGAIN
from deployer.kube.pods import (
    container_statuses,
    controlled_by,
    has_controller,
    listed,
    name_of,
    pods_left,
    ready_endpoints,
    service_slices,
    short,
    uid_of,
)
from deployer.toolkit.readiness.explain import explain_not_ready, reason_not_ready, without_digits
from deployer.toolkit.readiness.judge import Hopeless, Judgement, Ready, ReadyJudge, Waiting

Log = Callable[[str], None]

RECHECK = 1.0
"""Seconds between two looks at a workload that is not ready although nothing changed: grace times run out by then."""

AFTERMATH = 3.0
"""Seconds at the end of a budget, but never more than a tenth of it, for finding out why it was not enough."""

LOG_LINES = 20
"""Lines of a container's log that go to the deployment's log."""

LOG_PAUSES = (0.0, 0.2, 0.5)
"""Seconds before each attempt at a container's log: one that is just being restarted has none for a moment."""

_NO_LOG = ("unable to retrieve container logs", "failed to try resolving symlinks", "failed to open log file")
"""What a node says in the place of a log that it has cleared away, with status 200."""

TROUBLES_SAID = 50
"""Troubles that one wait puts into the log at most; the explanation at its end comes on top."""


def _nobody(_: str) -> None:
    """Where nobody shows what is waited for."""


def await_ready(
    kube: KubeAccess,
    controller_name: str,
    controller_uid: str,
    log: Log,
    *,
    max_restarts: int,
    image_pull_attempts: int,
    unschedulable_grace: float,
    admission_grace: float,
    min_ready: float = 0.0,
    waiting: Log = _nobody,
) -> list[Document]:
    """Wait until all pods that the ReplicationController with that uid wants are ready, and return them.

    Raises StepFailed as soon as waiting cannot help, and with reason `NotReady` and an explanation shortly before the
    gate's deadline. `waiting` is told what is missing. Costs no request of its own: pods, controller and (once there is
    trouble) Events are mirrored.
    """
    judge = ReadyJudge(max_restarts, image_pull_attempts, unschedulable_grace, admission_grace, min_ready)
    with in_time(kube.scope) as early:
        watcher = _Watcher(kube.with_scope(early), controller_name, controller_uid, judge, log=log, waiting=waiting)
        try:
            end = watcher.wait()
        except DeadlineExceeded as over:
            raise _missed(kube, watcher, over, log) from over
    if isinstance(end, Ready):
        return list(end.pods)
    assert isinstance(end, Hopeless)
    tell(kube, end, log)
    raise end.failure


def in_time(scope: CancelScope) -> contextlib.AbstractContextManager[CancelScope]:
    """A scope for a wait that must explain itself when the time is not enough, which takes requests of its own."""
    return scope.earlier(min(AFTERMATH, scope.remaining(300.0) / 10))


class _Watcher:
    """What `await_ready` waits for; says what changes."""

    def __init__(self, kube: KubeAccess, name: str, uid: str, judge: ReadyJudge, *, log: Log, waiting: Log) -> None:
        self._waiting = waiting
        self.controller: Document | None = None
        self.pods: list[Document] = []
        self.name = name
        self._kube = kube
        self._uid = uid
        self._log = log
        self._judge = judge
        self._changed = threading.Event()
        self._woken_by = contextlib.ExitStack()
        self._mirrored = False
        self._blind = False
        self._wants: set[str] = set()
        self._progress = ""
        self._said: set[str] = set()
        self._lines = 0

    def wait(self) -> Judgement:
        """Ready or Hopeless; looked for whenever a pod, the controller, or an Event about one in trouble changes."""
        with self._woken_by as woken_by:
            woken_by.enter_context(self._kube.waking(CONTROLLER, self._changed, {"name": self.name}))
            return self._kube.wait(
                POD, self.look, labels={CONTROLLED_BY: self._uid}, recheck=RECHECK, event=self._changed
            )

    def look(self, pods: list[Document]) -> Judgement | None:
        """Judge what there is now."""
        self.pods = pods
        self.controller = self._find_controller()
        judgement = self._judge.judge(self.controller, pods, self._events, time.monotonic(), self.others)
        if new := judgement.wants_events - self._wants:
            for uid in new:
                self._woken_by.enter_context(self._kube.waking(EVENT, self._changed, {INVOLVED: uid}))
            self._wants |= new
            judgement = self._judge.judge(self.controller, pods, self._events, time.monotonic(), self.others)
        if isinstance(judgement, Waiting):
            self._say(judgement)
            return None
        return judgement

    def others(self) -> list[Document]:
        """The active pods of the app's other versions, which may be in the way of these."""
        found = self._kube.known(POD, {"app": self._kube.owner.app})
        return [pod for pod in found if is_active(pod) and not controlled_by(pod, self._uid)]

    def _find_controller(self) -> Document:
        """From the informer; from the server at first and when the informer no longer has it."""
        for found in self._kube.items(CONTROLLER, {"name": self.name}):
            if found["metadata"]["uid"] == self._uid and not found["metadata"].get("deletionTimestamp"):
                self._mirrored = True
                return found
        if self.controller is not None and not self._mirrored:
            return self.controller
        found_now = self._kube.get(CONTROLLER, self.name)
        same = found_now is not None and found_now["metadata"]["uid"] == self._uid
        # One that is on its way out makes no pods any more.
        if found_now is not None and same and not found_now["metadata"].get("deletionTimestamp"):
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
        except KubeForbidden as error:
            self._blind = True
            self._log(f"reasons will be missing: {error}")
            return ()

    def _say(self, judgement: Waiting) -> None:
        """What was said once is not said again when it comes and goes, as a failed pull and its back-off do; nor is it
        said of every pod that it befalls."""
        missing, wanted = judgement.missing
        trouble = next(iter(judgement.troubles.values()), "")
        self._waiting(f"{missing} more of {wanted} pods to be ready{': ' if trouble else ''}{trouble}")
        if judgement.progress != self._progress:
            self._log(judgement.progress)
        self._progress = judgement.progress
        new: dict[str, list[str]] = {}
        for key, trouble in judgement.troubles.items():
            if key not in self._said:
                self._said.add(key)
                new.setdefault(key.partition(" ")[2] + _without_pod(trouble), []).append(trouble)
        for words, troubles in new.items():
            if words not in self._said and self._lines < TROUBLES_SAID:
                self._said.add(words)
                self._lines += 1
                self._log(troubles[0] if len(troubles) == 1 else f"{len(troubles)} pods, such as {troubles[0]}")


def _without_pod(trouble: str) -> str:
    """The same for every pod that is in that trouble: without its name, and numbers such as its address."""
    pod, colon, words = trouble.partition(": ")
    name = pod.removeprefix("pod ")
    return without_digits(words.replace(name, "") if colon and name != pod else trouble)


# --- telling ------------------------------------------------------------------------------------------------------


def tell(kube: KubeAccess, end: Hopeless, log: Log) -> None:
    """Put into the log what the Events and the container's last lines say of a judgement."""
    if end.about:
        _tell_events(kube, end.failure.pod or "the ReplicationController", end.about, log)
    if end.container:
        tell_last_lines(kube, end.failure.pod, end.container, log, previous=end.previous)


def _missed(kube: KubeAccess, watcher: _Watcher, over: DeadlineExceeded, log: Log) -> StepFailed:
    """Why it was not ready in time."""
    require_answers(over)
    if watcher.controller is None:
        text = f"the pods of {watcher.name} are not ready: {over}"
        return StepFailed(text, reason="NotReady", hint=CHECK_API_SERVER)

    def events_of(about: str) -> Sequence[Document]:
        return events_now(kube, about)

    text = explain_not_ready(watcher.controller, watcher.pods, events_of)
    unready = next((p for p in watcher.pods if is_active(p) and not is_ready(p)), None)
    if unready is None:
        hint = "see why its pods are not created or do not stay; timeoutSeconds gives an app more time"
        return StepFailed(f"not ready in time: {text}", reason="NotReady", hint=hint)
    reason, hint = reason_not_ready(unready, events_of, watcher.others())
    _tell_events(kube, name_of(unready), uid_of(unready), log)
    broken = next((c for c in container_statuses(unready) if not c.get("ready")), {})
    if broken.get("restartCount") or (broken.get("state") or {}).get("waiting") is None:
        previous = bool(broken.get("restartCount")) and not (broken.get("state") or {}).get("running")
        tell_last_lines(kube, name_of(unready), str(broken.get("name", "")), log, previous=previous)
    return StepFailed(f"not ready in time: {text}", reason=reason, pod=name_of(unready), hint=hint)


def events_now(kube: KubeAccess, uid: str) -> Sequence[Document]:
    """Straight from the server, and none when it does not give them: they only explain."""
    try:
        return kube.events(uid)
    except (KubeError, DeadlineExceeded):
        return ()


def _tell_events(kube: KubeAccess, whose: str, uid: str, log: Log) -> None:
    if lines := listed(events_now(kube, uid)):
        log(f"events of {whose}:\n{lines}")


def tell_last_lines(kube: KubeAccess, pod: str, container: str, log: Log, *, previous: bool = False) -> None:
    """The container's last lines for the deployment's log; that they cannot be had is no failure of its own."""
    if not container:
        return
    problem = ""
    for pause in LOG_PAUSES:
        with contextlib.suppress(DeadlineExceeded):
            kube.scope.pause(pause)
        for before in (True, False) if previous else (False,):
            try:
                lines = kube.pod_log(pod, container, LOG_LINES, previous=before).strip()
            except (KubeError, DeadlineExceeded) as error:
                problem = str(error)
                continue
            if lines.startswith(_NO_LOG):
                problem = short(lines)
            elif lines:
                log(f"last lines of container {container} in pod {pod}:\n{lines}")
                return
        if not problem:
            return  # it wrote nothing
    log(f"the log of container {container} in pod {pod} cannot be read: {problem}")


# --- more waits ---------------------------------------------------------------------------------------------------


def await_endpoints(
    kube: KubeAccess, service_name: str, pod_uids: Iterable[str], log: Log, waiting: Log = _nobody
) -> None:
    """Wait until the Service's EndpointSlices hold every one of these pods, ready.

    Raises StepFailed with reason `EndpointsNotReady` when the scope's deadline passes.
    """
    wanted = frozenset(pod_uids)
    missing = wanted

    def complete(slices: list[Document]) -> bool:
        nonlocal missing
        missing = wanted - frozenset(ready_endpoints(slices))
        if missing:
            waiting(f"{len(missing)} more of {len(wanted)} pods to be ready endpoints of Service {service_name}")
        return not missing

    try:
        kube.wait(ENDPOINT_SLICE, complete, labels=service_slices(service_name))
    except DeadlineExceeded as over:
        require_answers(over)
        raise StepFailed(
            f"{len(missing)} of {len(wanted)} pods are no ready endpoints of Service {service_name}: {over}",
            reason="EndpointsNotReady",
            hint="check whether the Service's selector was changed, or a pod was replaced meanwhile",
        ) from over
    log(f"service {service_name} has {len(wanted)} ready endpoints")


def await_pods_gone(
    kube: KubeAccess, controller_uid: str, labels: Mapping[str, str], log: Log | None = None
) -> list[Document]:
    """Wait until there is no pod with these labels that the controller of that uid owns (empty uid: any controller).

    Pods that somebody orphaned by hand have nobody who would remove them, so they are not waited for; those that no
    controller owns are returned. Ends with a look at the server itself: an informer that lags must not call pods gone
    that were just made.
    """

    said = -1

    def gone(pods: list[Document]) -> bool:
        nonlocal said
        count = len(pods_left(pods, controller_uid))
        if log is not None and count and count != said:
            log(f"waiting for {count} pods to end")
        said = count
        return not count

    rounds = 0
    while True:
        kube.wait(POD, gone, labels=labels)
        found = kube.list(POD, labels)
        if not pods_left(found, controller_uid):
            return [pod for pod in found if not has_controller(pod)]
        rounds += 1
        kube.scope.pause(LOOK_AGAIN.after(rounds))


def pods_after(kube: KubeAccess, labels: Mapping[str, str], patience: float) -> list[Document]:
    """The pods with these labels once no controller owns any of them, or that many seconds have passed, as the server
    itself has them then."""
    end = time.monotonic() + patience
    rounds = 0
    while True:
        kube.wait(
            POD,
            lambda pods: not pods_left(pods, "") or time.monotonic() >= end,
            labels=labels,
            recheck=max(0.01, end - time.monotonic()),
        )
        found = kube.list(POD, labels)
        if not pods_left(found, "") or time.monotonic() >= end:
            return found
        rounds += 1
        kube.scope.pause(LOOK_AGAIN.after(rounds))

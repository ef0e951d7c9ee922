"""Looking after a version that has just taken over, while the one before could take over again."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from deployer.core.contract.kube import Changed, Unsteady, is_active, is_ready
from deployer.core.contract.strategy import Done, Outcome, Park, Phase, Step, Work
from deployer.core.errors import StepFailed
from deployer.core.model.kind import CONTROLLER, POD
from deployer.core.model.records import Document
from deployer.kube.pods import container_statuses, controlled_by, last_end, name_of
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.readiness.explain import container_state, how_ended, times
from deployer.toolkit.workload import own_controller, workload_labels

CONFIRMED = 2
"""How often a version goes down, a container crashes, or a round of health checks fails, until it counts."""

LASTING = 3.0
"""Seconds after which a version that is down counts as failing the first time."""

LATE = 1.0
"""Seconds after the end of the watch from which a look is not the one that was due then."""

FORGIVEN = 600.0
"""Seconds without another one after which a crash, or having been down, does not count any more. After so long the
kubelet starts a container without a pause again, too: twice its `MaxContainerBackOff`, as `flowcontrol.Backoff` has
it."""

RECENT = 10.0
"""Seconds before the watch began of which it knows nothing, as the switch was being confirmed."""

SHORT = 10.0
"""Seconds after its start within which a container that crashes is not likely to stay up the next time."""

RECOVERED = 60.0
"""Seconds without a restart, and with every pod ready, after which a container that was restarted too often is well
again: for a version that nobody could roll back."""


class WatchVersion(Step):
    """Park as long as the version is well; fail when it is not, confirmed.

    It is down while fewer than half of its pods are ready: of those that are wanted, but for pods that came later and
    were never ready, as when somebody scales it up. Of a version that is scaled to 0 nothing is expected. A pod that is
    started again once and comes back is no failure.
    """

    id = "watch"
    phase = Phase.RETIRE

    def __init__(self, until: float, interval: float) -> None:
        """until     seconds since the epoch, by `work.now()`
        interval  seconds between two rounds of health checks, where they count
        """
        self._until = until
        self._interval = interval

    def run(self, work: Work) -> Outcome:
        name = workload_labels(work.plan)["name"]
        controller = next(iter(work.kube.items(CONTROLLER, {"name": name})), None)
        if controller is None or not work.kube.owned_by(controller, work.plan.deployment):
            return Done()  # somebody has removed it: there is nothing left to look after
        until, hold = self._until, work.plan.settings.hold
        if until > work.now() + hold:  # the system's clock was set back before this start
            until = work.now() + work.left("began", hold)
        return self.look(work, controller, until)

    def look(self, work: Work, controller: Document, until: float, reason: str = "") -> Outcome:
        """Done when it is well and the time is over. Raises StepFailed. `reason`: with which it parks."""
        uid, labels = controller["metadata"]["uid"], workload_labels(work.plan)
        wanted = int(controller["spec"].get("replicas", 1))
        # Nobody has looked for a while: one look may find it up between two crashes.
        was_down = work.now() if work.now() > until + LATE else -LASTING
        while True:
            pods = [p for p in work.kube.items(POD, labels) if controlled_by(p, uid) and is_active(p)]
            self._check_crashes(work, pods)
            ready = [p for p in pods if is_ready(p)]
            down = self._down_for(work, pods, len(ready), _expected(work, wanted, len(ready)))
            if down is None and work.now() >= was_down + LASTING:
                break
            if down is not None:
                was_down = work.now()
                if was_down + LASTING < until:
                    return Park(was_down + min(1.0, LASTING - down), reason)
            work.scope.pause(0.2)  # not parked: the version before is removed when this is over
        if work.now() >= until:
            return Done()
        if not wanted:
            return Park(until, reason, event=Changed.since(CONTROLLER, controller))
        self._check_health(work, ready)
        checks = work.health is not None and not work.plan.descriptor.get("ignoreHealthCheck")
        next_look = min(until, work.now() + self._interval) if checks else until
        return Park(next_look, reason, event=Unsteady.among(ready, work.plan.namespace, labels))

    def _check_crashes(self, work: Work, pods: Sequence[Document]) -> None:
        """Raise StepFailed for a container that crashed too often since the switch, or when all pods did together."""
        counted = _crashes(work, pods)
        for pod, status in _containers(pods):
            if (often := counted.get(container_key(pod, status), 0)) >= CONFIRMED:
                raise self._crashed(work, pod, status, f"container {status['name']} crashed {times(often)}")
        if (last := all_crashed(pods, counted)) is not None:
            raise self._crashed(work, *last, all_crashed_text(pods))

    def _crashed(self, work: Work, pod: Document, status: Document, what: str) -> StepFailed:
        up = "terminated" not in (status.get("state") or {})
        diagnose.tell_last_lines(work.kube, name_of(pod), status["name"], work.log, previous=up)
        message = f"{what} since the switch, the last one ended {how_ended(last_end(status))}"
        return StepFailed(message, reason="CrashLoop", pod=name_of(pod))

    def _down_for(self, work: Work, pods: Sequence[Document], ready: int, expected: int) -> float | None:
        """Seconds since the version is down; None when it is not. Raises StepFailed when that is confirmed."""
        since, often, *last = work.recall("down", [None, 0])
        now = work.now()
        if 2 * ready >= expected:
            if since is not None:
                work.remember("down", [None, often, now])
            return None
        if since is None or since > now:
            often = often if last and now - last[0] <= FORGIVEN else 0
            since, often = now, often + 1
            work.log(f"{ready} of {expected} pods are ready")
            work.remember("down", [since, often])
        if often >= CONFIRMED or now - since >= LASTING:
            how = "went down " + times(often) if often > 1 else f"has been down for {now - since:.0f} s"
            raise StepFailed(f"it {how}, {ready} of {expected} pods are ready{_why(work, pods)}", reason="NotReady")
        return float(now - since)

    def _check_health(self, work: Work, pods: Sequence[Document]) -> None:
        """One round, where health checks count. Raises StepFailed when a second one in a row fails for most pods."""
        if work.health is None or work.plan.descriptor.get("ignoreHealthCheck") or not pods:
            return
        verdicts = work.health.check_all(pods, work.scope)
        sick = [p for p in pods if not ((v := verdicts.get(p["metadata"]["uid"])) and v.healthy)]
        failed = int(work.recall("unhealthy", 0))
        if 2 * len(sick) <= len(pods):
            if failed:
                work.remember("unhealthy", 0)
            return
        verdict = verdicts.get(sick[0]["metadata"]["uid"])
        why = verdict.message if verdict else "it did not answer"
        if failed + 1 >= CONFIRMED:
            work.health.keep(pods, verdicts)
            raise StepFailed(
                f"{len(sick)} of {len(pods)} pods are not healthy any more: {why}",
                reason="Unhealthy",
                pod=name_of(sick[0]),
            )
        work.log(f"{len(sick)} of {len(pods)} pods are not healthy: {why}")
        work.remember("unhealthy", failed + 1)


class SoakVersion(WatchVersion):
    """The same before the deployment is committed: the last step, with nothing to undo."""

    id = "soakSeconds"
    phase = Phase.CONFIRM

    def __init__(self, seconds: float, interval: float) -> None:
        """`seconds`: for which it must serve, from when this step begins."""
        super().__init__(0.0, interval)
        self._seconds = seconds

    def run(self, work: Work) -> Outcome:
        work.left("serving", self._seconds)
        until = float(work.recall("serving", work.now())) + self._seconds
        reason = f"version {work.plan.version} has to serve for {self._seconds:g} s before it counts as deployed"
        return self.look(work, own_controller(work), until, reason)


def _crashes(work: Work, pods: Sequence[Document]) -> dict[str, int]:
    """How often each container crashed, or was started again, as far as that counts."""
    known: dict[str, list[float]] | None = work.recall("crashes", None)
    all_ready, now = all(map(is_ready, pods)), work.now()
    seen: dict[str, list[float]] = {}
    for pod, status in _containers(pods):
        count, container = crashes(status), container_key(pod, status)
        if known is None:
            # The one that came before the watch began counts, when that was after the switch.
            ignored, before, when = float(count - _is_recent(status, now)), float(count), now
        else:
            ignored, before, when = known.get(container, [0.0, 0.0, now])  # of a pod that comes later every one counts
        if count > before:
            ignored = before if now - when > FORGIVEN else ignored
            before, when = float(count), now
        elif before - ignored >= CONFIRMED and all_ready and now - when > RECOVERED:
            ignored = before
        if count:
            seen[container] = [ignored, before, when]
    if seen != known:
        work.remember("crashes", seen)
    return {container: int(before - ignored) for container, (ignored, before, _) in seen.items()}


def all_crashed(pods: Sequence[Document], counted: Mapping[str, int]) -> tuple[Document, Document] | None:
    """A container that crashed, with its pod, when no pod is ready and each has one. Of a version with one pod only
    when that was soon after it began: it does not look as if it would ever stay up."""
    crashed = {name_of(p): (p, s) for p, s in _containers(pods) if counted.get(container_key(p, s))}
    if not crashed or len(crashed) < len(pods) or any(map(is_ready, pods)):
        return None
    last = next(iter(crashed.values()))
    return last if len(pods) >= CONFIRMED or _was_short(last[1]) else None


def all_crashed_text(pods: Sequence[Document]) -> str:
    """What that is, as the beginning of a sentence."""
    return f"all {len(pods)} pods crashed" if len(pods) > 1 else "its only pod crashed right after it began"


def crashes(status: Document) -> int:
    """How often the container of that status was started again, and whether it has just ended badly, too: the kubelet
    counts it when it starts it again."""
    state = status.get("state") or {}
    ended = (state.get("terminated") or {}).get("exitCode", 0) != 0
    waits = (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff"
    return int(status.get("restartCount", 0)) + (ended or waits)


def _was_short(status: Document) -> bool:
    """Did its last run last only for a moment?"""
    began, ended = (_seconds(last_end(status).get(name)) for name in ("startedAt", "finishedAt"))
    return began is not None and ended is not None and ended - began <= SHORT


def _is_recent(status: Document, now: float) -> bool:
    """Did it end within the last seconds? By the node's clock."""
    ended = _seconds(last_end(status).get("finishedAt"))
    return ended is not None and abs(now - ended) <= RECENT


def _seconds(time: object) -> float | None:
    """Since the epoch, as Kubernetes has it; None when there is none."""
    try:
        return datetime.datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return None


def _expected(work: Work, wanted: int, ready: int) -> int:
    """How many pods should be ready: as many as are wanted, but no more than there were before, since the switch."""
    before = int(work.recall("expected", work.plan.replicas))
    expected = min(wanted, max(before, ready))
    if expected != before:
        work.remember("expected", expected)
    return expected


def _why(work: Work, pods: Sequence[Document]) -> str:
    """What holds one of the pods up, as the rest of a sentence; its last lines go to the log."""
    for pod, status in _containers(p for p in pods if not is_ready(p)):
        if state := container_state(status):
            diagnose.tell_last_lines(work.kube, name_of(pod), status["name"], work.log, previous=True)
            return f"; pod {name_of(pod)} {state}"
    return ""


def container_key(pod: Document, status: Document) -> str:
    return f"{pod['metadata']['uid']}/{status['name']}"


def _containers(pods: Iterable[Document]) -> list[tuple[Document, Document]]:
    return [(pod, status) for pod in pods for status in container_statuses(pod)]

"""Looking after a version that has just taken over, while the one before is still warm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deployer.core.contract.kube import Unsteady, is_active, is_ready
from deployer.core.contract.strategy import Done, Outcome, Park, Phase, Step, Work
from deployer.core.errors import StepFailed
from deployer.core.model.kind import CONTROLLER, POD
from deployer.core.model.records import Document
from deployer.kube.pods import container_statuses, controlled_by, last_end, name_of, wanted_pods
from deployer.toolkit.readiness import diagnose
from deployer.toolkit.readiness.explain import container_state, how_ended, times
from deployer.toolkit.workload import workload_labels

CONFIRMED = 2
"""How often a version goes down, a container is started again, or a round of health checks fails, until it counts."""

LASTING = 3.0
"""Seconds after which a version that is down counts as failing the first time."""

LATE = 1.0
"""Seconds after the end of the watch from which a look is not the one that was due then."""


class WatchVersion(Step):
    """Park as long as the version is well; fail when it is not, confirmed.

    It is down while fewer than half of the pods that are wanted are ready. A pod that is started again once and comes
    back is no failure.
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
        labels = workload_labels(work.plan)
        controller = next(iter(work.kube.items(CONTROLLER, {"name": labels["name"]})), None)
        if controller is None or not work.kube.owned_by(controller, work.plan.deployment):
            return Done()  # somebody has removed it: there is nothing left to look after
        uid = controller["metadata"]["uid"]
        # Nobody has looked for a while: one look may find it up between two crashes.
        was_down = work.now() if work.now() > self._until + LATE else -LASTING
        while True:
            pods = [p for p in work.kube.items(POD, labels) if controlled_by(p, uid) and is_active(p)]
            self._check_restarts(work, pods)
            ready = [p for p in pods if is_ready(p)]
            down = self._down_for(work, pods, len(ready), wanted_pods(controller))
            if down is None and work.now() >= was_down + LASTING:
                break
            if down is not None:
                was_down = work.now()
                if was_down + LASTING < self._until:
                    return Park(was_down + min(1.0, LASTING - down))
            work.scope.pause(0.2)  # not parked: the version before is removed when this is over
        if work.now() >= self._until:
            return Done()
        self._check_health(work, ready)
        checks = work.health is not None and not work.plan.descriptor.get("ignoreHealthCheck")
        until = min(self._until, work.now() + self._interval) if checks else self._until
        return Park(until, event=Unsteady.among(ready, work.plan.namespace, labels))

    def _check_restarts(self, work: Work, pods: Sequence[Document]) -> None:
        """Raise StepFailed for a container that was started again too often since the watch began."""
        counts = {f"{p['metadata']['uid']}/{s['name']}": int(s.get("restartCount", 0)) for p, s in _containers(pods)}
        known = work.recall("restarts", None)
        if known is None:
            # Of all others, and of a pod that comes later, every restart counts.
            known = {container: count for container, count in counts.items() if count}
            work.remember("restarts", known)
        for pod, status in _containers(pods):
            container = f"{pod['metadata']['uid']}/{status['name']}"
            again = counts[container] - known.get(container, 0)
            if again >= CONFIRMED:
                diagnose.tell_last_lines(work.kube, name_of(pod), status["name"], work.log, previous=True)
                raise StepFailed(
                    f"container {status['name']} was restarted {times(again)} since the switch, it ended "
                    f"{how_ended(last_end(status))}",
                    reason="CrashLoop",
                    pod=name_of(pod),
                )

    def _down_for(self, work: Work, pods: Sequence[Document], ready: int, wanted: int) -> float | None:
        """Seconds since the version is down; None when it is not. Raises StepFailed when that is confirmed."""
        since, often = work.recall("down", [None, 0])
        if 2 * ready >= wanted:
            if since is not None:
                work.remember("down", [None, often])
            return None
        now = work.now()
        if since is None or since > now:
            since, often = now, often + 1
            work.log(f"{ready} of {wanted} pods are ready")
            work.remember("down", [since, often])
        if often >= CONFIRMED or now - since >= LASTING:
            how = "went down " + times(often) if often > 1 else f"has been down for {now - since:.0f} s"
            raise StepFailed(f"it {how}, {ready} of {wanted} pods are ready{_why(work, pods)}", reason="NotReady")
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


def _why(work: Work, pods: Sequence[Document]) -> str:
    """What holds one of the pods up, as the rest of a sentence; its last lines go to the log."""
    for pod, status in _containers(p for p in pods if not is_ready(p)):
        if state := container_state(status):
            diagnose.tell_last_lines(work.kube, name_of(pod), status["name"], work.log, previous=True)
            return f"; pod {name_of(pod)} {state}"
    return ""


def _containers(pods: Iterable[Document]) -> list[tuple[Document, Document]]:
    return [(pod, status) for pod in pods for status in container_statuses(pod)]

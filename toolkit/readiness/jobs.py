"""The pods of a Job, for whoever waits for it and parks: what stands in their way, and how one of them ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from deployer.core.contract.kube import KubeAccess, is_active
from deployer.core.model.plan import PinnedSettings
from deployer.core.model.records import Document
from deployer.kube.pods import container_statuses, last_end, name_of, short
from deployer.toolkit.readiness import diagnose, error_patterns
from deployer.toolkit.readiness.explain import how_ended
from deployer.toolkit.readiness.judge import Hopeless, ReadyJudge, Waiting


class JobPods:
    """Remembers, between one look and the next, since when something is wrong: one for each Job, in memory only."""

    def __init__(self, pinned: PinnedSettings) -> None:
        self._judge = ReadyJudge(
            max_restarts=pinned.max_restarts,
            image_pull_attempts=pinned.image_pull_attempts,
            unschedulable_grace=pinned.unschedulable_grace,
            admission_grace=pinned.admission_grace,
        )

    def trouble(self, kube: KubeAccess, job: Document, pods: Sequence[Document], log: Callable[[str], None]) -> str:
        """What keeps them from running, in words; empty when they run or are about to.

        Raises StepFailed for what waiting cannot heal; `log` is told what the Events say of that.
        """
        running = [pod for pod in pods if is_active(pod)]
        judged = self._judge.judge(job, running, lambda uid: diagnose.events_now(kube, uid), time.monotonic())
        if isinstance(judged, Hopeless):
            diagnose.tell(kube, judged, log)
            raise judged.failure
        return "; ".join(judged.troubles.values()) if isinstance(judged, Waiting) else ""


def failed_pod(pods: Sequence[Document]) -> Document | None:
    """The one that failed last; None when none did."""
    failed = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    return max(failed, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), default=None)


def how_it_failed(pod: Document) -> tuple[str, str, str]:
    """Of a failed pod: how it ended, as a sentence, what to do about it, and the container whose log tells more."""
    status = pod.get("status", {})
    why = short(str(status.get("message") or status.get("reason") or ""))
    for found in container_statuses(pod):
        end = last_end(found)
        if end.get("exitCode"):
            words = f"container {found['name']} ended {how_ended(end)}"
            hint = error_patterns.end_hint(end.get("exitCode"), str(end.get("reason") or ""))
            return f"{words}{': ' if why else ''}{why}", hint, str(found["name"])
    return f"pod {name_of(pod)} failed: {why or 'no reason given'}", "see why its node ended it, then deploy again", ""

"""Looking after a new version that has traffic, while something is waited for before the commit."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import is_active, is_ready
from deployer.core.contract.strategy import Work
from deployer.core.errors import Interrupted, KubeError, Revoked, StepFailed
from deployer.core.model.kind import POD
from deployer.core.model.records import Document
from deployer.kube.pods import container_statuses, controlled_by, wanted_pods
from deployer.toolkit.readiness.explain import times
from deployer.toolkit.steps.watch import (
    CONFIRMED,
    LASTING,
    all_crashed,
    all_crashed_text,
    container_key,
    crashes,
)
from deployer.toolkit.workload import own_controller, workload_labels

RECHECK = 0.5
"""Seconds between two looks at a version that is down, which nothing else tells."""


@contextlib.contextmanager
def while_it_serves(work: Work) -> Iterator[CancelScope]:
    """A scope for waiting, which closes when the version fails. Raises StepFailed then, whatever was raised within.

    By what makes it fail once it is live: fewer than half of its pods are ready for 3 s or for the second time, a
    container crashes twice, or all pods do. Waiting does no good to its users then.
    """
    with work.scope.earlier(0.0) as waits, work.scope.earlier(0.0) as looks:
        found: list[str] = []

        def look() -> None:
            with contextlib.suppress(Interrupted, KubeError, StepFailed):  # whoever waits meets it, too
                found.append(_fails(work, looks))
                waits.close(Revoked("the version fails"))

        thread = threading.Thread(target=look, name="guard", daemon=True)
        thread.start()
        try:
            yield waits
        except Exception:
            if not found:
                raise
        finally:
            looks.close(Revoked("what was waited for has come"))
            thread.join()
        if found:
            hint = "see in its pods' logs why they do not stay up once they have traffic"
            raise StepFailed(f"version {work.plan.version} failed right after the switch: {found[0]}", hint=hint)


def _fails(work: Work, scope: CancelScope) -> str:
    """How it does, once it does. Raises what the scope raises."""
    kube = work.kube.with_scope(scope)
    controller = own_controller(work)
    uid, wanted = controller["metadata"]["uid"], wanted_pods(controller)
    before: dict[str, int] = {}
    down = _Down()

    def failing(found: list[Document]) -> str | None:
        pods = [pod for pod in found if controlled_by(pod, uid) and is_active(pod)]
        counted = {key: count - before.setdefault(key, count) for key, count in _counts(pods).items()}
        if (worst := max(counted, key=counted.__getitem__, default="")) and counted[worst] >= CONFIRMED:
            return f"container {worst.rsplit('/', 1)[1]} crashed {times(counted[worst])}"
        if all_crashed(pods, counted):
            return all_crashed_text(pods)
        ready = sum(map(is_ready, pods))
        return f"{ready} of {wanted} pods are ready" if down.counts(2 * ready < wanted) else None

    return kube.wait(POD, failing, labels=workload_labels(work.plan), recheck=RECHECK)


class _Down:
    """How long, and how often, a version is down."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._often = 0

    def counts(self, is_down: bool) -> bool:
        """Is that enough by now?"""
        now = time.monotonic()
        if not is_down:
            self._since = None
            return False
        if self._since is None:
            self._since, self._often = now, self._often + 1
        return self._often >= CONFIRMED or now - self._since >= LASTING


def _counts(pods: Sequence[Document]) -> dict[str, int]:
    """How often each container crashed."""
    return {container_key(p, s): crashes(s) for p in pods for s in container_statuses(p)}

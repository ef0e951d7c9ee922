"""One look at a gate's Job: made once, started once, and passed only by its own word."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.plugins.gate_job import manifest
from deployer.plugins.gate_job.log import LogCopy
from deployer.sdk.errors import ForeignObject, KubeError, KubeForbidden, KubeRejected, StepFailed
from deployer.sdk.gate import Failed, GateContext, JobPods, Outcome, Passed, Pending, failed_pod, how_it_failed
from deployer.sdk.kube import JOB, POD, Changed, controlled_by, name_of, objects_of_app, uid_of
from deployer.sdk.plugin import Document

FIRST_LOOK, LONGEST_LOOK = 2.0, 10.0
"""Seconds between two looks at a Job that runs, for its log: few at first, then more. Its end is an event."""

SPARE = 5.0
"""Seconds before the gate's time is up at which Kubernetes ends the Job, so that what it says is still seen."""

RIGHTS = "see what refuses that; the Deployer needs the rights of deploy/rbac/app-jobs.yaml in the namespace"


class JobRun:
    """The Job of one gate, for one call. What is done to it follows from what was remembered before:

    nothing      no Job of this gate has ever run: it may be made, suspended
    its uid      that Job, and no other, is what may be started, once
    `started`    it may have run: from now on it is not there, or another one, or suspended again: it is lost
    """

    def __init__(self, context: GateContext, pods: JobPods) -> None:
        self._context = context
        self._kube = context.kube
        self._judged = pods
        self._options: Mapping[str, Any] = context.options
        self._log = LogCopy(context)
        self.name = manifest.job_name(context.plan, context.point, context.name, context.options)

    def look(self) -> Outcome:
        """Make or start it when it is time for that, and say how it is."""
        try:
            return self._look()
        except KubeForbidden as error:
            return Failed(str(error), hint=RIGHTS)
        except ForeignObject as error:
            return Failed(str(error), hint="remove that Job by hand, then deploy again")
        except KubeRejected as error:
            return Failed(str(error), hint="correct the gate's options, or the podspec")
        except StepFailed as error:
            return Failed(str(error), hint=error.hint)

    def end(self) -> None:
        """Remove it with its pods, for which nobody waits here, and say what these still wrote."""
        self._kube.delete(JOB, self.name, propagation="Foreground", wait_gone=False)
        if uid := self._context.recall("uid", ""):
            with contextlib.suppress(KubeError):
                self._copy_log(self._pods(uid))

    @property
    def _container(self) -> str:
        """Which one runs; it was looked at before anything was made."""
        return manifest.chosen(self._context.plan.objects.podspec, self._options.get("container", ""))

    # --- making and starting it ----------------------------------------------------------------------------------

    def _look(self) -> Outcome:
        uid = str(self._context.recall("uid", ""))
        if not uid:
            made = self._make()
            if isinstance(made, Pending | Failed):
                return made
            uid = made
        found = self._kube.get(JOB, self.name)
        if (lost := self._lost(found, uid)) or found is None:
            return Failed(f"{lost}: whether it did its work is not known", hint=_AFTER_LOSS)
        if not self._context.recall("started", False):
            found = self._start(uid)
            if found is None:
                return Failed(f"{self._lost(None, uid)} before it was started", hint="deploy again")
        return self._judge(found, uid)

    def _make(self) -> str | Pending | Failed:
        """The uid of the Job, which is remembered before it may run."""
        for other in objects_of_app(self._kube, JOB, [manifest.ROLE]):
            if name_of(other) != self.name and _is_running(other):
                reason = f"job {name_of(other)} of this app to end"
                return Pending(self._context.now() + FIRST_LOOK, reason, Changed.since(JOB, other))
        plan = self._context.plan
        annotations = self._kube.annotations(manifest.ROLE)
        body = manifest.job(self.name, plan.namespace, plan.objects.podspec, self._options, annotations)
        self._kube.get(JOB, self.name)  # whoever may not look at it could not remove it
        made = self._kube.create(JOB, body)
        if not made["spec"].get("suspend"):
            return Failed(f"job {self.name} is there already, and was not made by this gate", hint=_REMOVE)
        uid = uid_of(made)
        self._context.remember("uid", uid)
        self._context.log(f"made job {self.name}")
        return uid

    def _start(self, uid: str) -> Document | None:
        """Lift its suspension, once. None when it is not there any more."""
        seconds = max(1, int(self._context.deadline - self._context.now() - SPARE))

        def change(found: Document | None) -> Document | None:
            if found is None or uid_of(found) != uid or not _may_start(found):
                return None
            return {**found, "spec": {**found["spec"], "suspend": False, "activeDeadlineSeconds": seconds}}

        found = self._kube.update(JOB, self.name, change)
        if found is None or uid_of(found) != uid:
            return None
        self._context.remember("started", True)
        return found

    def _lost(self, found: Document | None, uid: str) -> str:
        """What became of the Job that was made; empty when it is there."""
        if found is None:
            return f"job {self.name} was deleted"
        if uid_of(found) != uid:
            return f"job {self.name} was deleted, and somebody made another one of that name"
        if found["metadata"].get("deletionTimestamp"):
            return f"job {self.name} is being deleted"
        if found["spec"].get("suspend") and (self._context.recall("started", False) or not _may_start(found)):
            return f"job {self.name} was suspended by somebody, which ends its pods"
        return ""

    # --- how it is -----------------------------------------------------------------------------------------------

    def _judge(self, found: Document, uid: str) -> Outcome:
        pods = self._pods(uid)
        self._copy_log(pods)
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions") or () if c["status"] == "True"}
        if "Complete" in conditions and found["status"].get("succeeded"):
            return Passed(f"job {self.name} succeeded")
        failed = conditions.get("Failed") or conditions.get("FailureTarget")
        if failed is not None:
            return self._failed(failed, pods)
        trouble = self._judged.trouble(self._kube, found, pods, self._context.log)
        now = self._context.now()
        pause = min(LONGEST_LOOK, max(FIRST_LOOK, (now - self._context.began) / 10))
        reason = f"job {self.name} to end"
        return Pending(now + pause, f"{reason}: {trouble}" if trouble else reason, Changed.since(JOB, found))

    def _failed(self, condition: Document, pods: Sequence[Document]) -> Failed:
        pod = failed_pod(pods)
        if condition.get("reason") == "DeadlineExceeded":
            text, hint = "it did not end in time", "give the gate more timeoutSeconds, or the job less to do"
        elif pod is None:
            text = f"{condition.get('message') or condition.get('reason')}, and nothing is left of its pods"
            hint = "see why its pods were deleted, then deploy again"
        else:
            text, hint, container = how_it_failed(pod)
            if container and (container != self._container or self._log.full):
                self._log.last_lines(name_of(pod), container)
        return Failed(f"job {self.name} failed: {text}", hint=hint)

    def _pods(self, uid: str) -> list[Document]:
        """Those of that Job, the oldest first."""
        found = self._kube.list(POD, {manifest.LABEL: self.name})
        mine = [pod for pod in found if controlled_by(pod, uid)]
        return sorted(mine, key=lambda pod: (str(pod["metadata"].get("creationTimestamp")), name_of(pod)))

    def _copy_log(self, pods: Sequence[Document]) -> None:
        self._log.copy([pod for pod in pods if _has_begun(pod, self._container)], self._container)


_REMOVE = "remove that Job by hand, then deploy again"
_AFTER_LOSS = "find out who did that, and how far the job came; deploying again runs it once more"


def _may_start(found: Document) -> bool:
    """Was it never started? Its generation counts the changes of its spec, of which the start is the first."""
    return bool(found["spec"].get("suspend")) and found["metadata"].get("generation", 1) == 1


def _is_running(found: Document) -> bool:
    """May pods of it still run?"""
    status = found.get("status") or {}
    return bool(status.get("active") or status.get("terminating") or found["metadata"].get("deletionTimestamp"))


def _has_begun(pod: Document, container: str) -> bool:
    """Is there a log of that container?"""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return any(s.get("name") == container and not (s.get("state") or {}).get("waiting") for s in statuses)

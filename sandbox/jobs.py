"""The controller of Jobs: a pod after the other until one succeeds, or too many failed, or its time is up.

As `pkg/controller/job` of Kubernetes 1.34 does it for Jobs of one completion at a time: suspended and resumed, with
backoffLimit, activeDeadlineSeconds and podReplacementPolicy. A pod counts once, when its finalizer is taken away.
"""

import asyncio
import time
from copy import deepcopy
from datetime import datetime

from deployer.sandbox.controllers import Controller
from deployer.sandbox.kinds import (
    JOB,
    POD,
    Key,
    Object,
    condition,
    controller_of,
    is_deleting,
    is_ready,
    key_of,
    name_suffix,
    reference_to,
    timestamp,
)
from deployer.sandbox.objects.resources import DeleteOptions, Resources
from deployer.sandbox.recorder import Recorder
from deployer.sandbox.status import ApiError
from deployer.sandbox.store import Change

FINALIZER = "batch.kubernetes.io/job-tracking"
BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 10.0
"""Of the 10 s to 10 min that a cluster waits before the next pod; short, so that a test sees the states in seconds."""


class Jobs(Controller):
    """Job -> pods."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._events = Recorder(self.store, "job-controller")

    def changed(self, change: Change) -> None:
        if change.kind is JOB:
            self.mark(key_of(change.obj))
        elif change.kind is POD:
            for state in (change.obj, change.old):
                if state and (owner := controller_of(state)) and owner["kind"] == JOB.name:
                    self.mark((state["metadata"]["namespace"], owner["name"]))

    def reconcile(self, key: Key) -> None:
        job = self.store.find(JOB, *key)
        self._release_orphans(key, job)
        if job is None or _is_finished(job):
            for pod in self._pods(job) if job else ():
                self._release(pod)
            return
        status = deepcopy(job.get("status") or {})
        pods = self._pods(job)
        self._count(job, status, pods)
        try:
            self._go_on(job, status, pods)
        finally:
            self._write(job, key, status)

    # --- pods ----------------------------------------------------------------------------------------------------

    def _pods(self, job: Object) -> list[Object]:
        uid = job["metadata"]["uid"]
        found = [obj for kind, obj in self.store.dependents(uid) if kind is POD]
        return [pod for pod in found if (ref := controller_of(pod)) and ref["uid"] == uid]

    def _release(self, pod: Object) -> None:
        def edit(current: Object) -> None:
            left = [name for name in current["metadata"].get("finalizers") or () if name != FINALIZER]
            current["metadata"].pop("finalizers", None)
            current["metadata"] |= {"finalizers": left} if left else {}

        self.store.change(POD, key_of(pod), edit)

    def _release_orphans(self, key: Key, job: Object | None) -> None:
        """Pods whose Job is gone."""
        for pod in self.store.list(POD, key[0]):
            owner = controller_of(pod)
            if owner is None or (owner["kind"], owner["name"]) != (JOB.name, key[1]):
                continue
            if (
                FINALIZER in (pod["metadata"].get("finalizers") or ())
                and owner["uid"] != (job or pod)["metadata"]["uid"]
            ):
                self._release(pod)

    def _count(self, job: Object, status: Object, pods: list[Object]) -> None:
        """Count those that have ended since, once each."""
        for pod in pods:
            if FINALIZER not in (pod["metadata"].get("finalizers") or ()):
                continue
            if pod["status"]["phase"] == "Succeeded":
                status["succeeded"] = status.get("succeeded", 0) + 1
            elif _has_failed(pod, job):
                status["failed"] = status.get("failed", 0) + 1
            else:
                continue
            self._release(pod)

    def _create(self, job: Object) -> None:
        template, name = deepcopy(job["spec"]["template"]), job["metadata"]["name"]
        meta = {key: value for key, value in template["metadata"].items() if key in ("labels", "annotations")}
        meta |= {"name": f"{name[:57]}-{name_suffix()}", "generateName": f"{name}-", "finalizers": [FINALIZER]}
        meta["ownerReferences"] = [reference_to(JOB, job)]
        try:
            self.resources.create(POD, job["metadata"]["namespace"], {"metadata": meta, "spec": template["spec"]})
        except ApiError as error:
            self._events.warning(JOB, job, "FailedCreate", f"Error creating: {error.message}")
            raise
        self._events.normal(JOB, job, "SuccessfulCreate", f"Created pod: {meta['name']}")

    def _delete(self, job: Object, pod: Object) -> None:
        self.resources.delete(POD, key_of(pod), DeleteOptions(uid=pod["metadata"]["uid"]))
        self._events.normal(JOB, job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    # --- the Job -------------------------------------------------------------------------------------------------

    def _go_on(self, job: Object, status: Object, pods: list[Object]) -> None:
        spec, suspended = job["spec"], job["spec"]["suspend"]
        if not suspended:
            status.setdefault("startTime", timestamp())
        target = condition({"status": status}, "FailureTarget")
        if target is None and (why := self._failure(job, status)):
            target = _set(status, "FailureTarget", True, *why)
        active = [pod for pod in pods if not is_deleting(pod) and pod["status"]["phase"] in ("Pending", "Running")]
        if target is not None or suspended:
            for pod in active:
                self._delete(job, pod)
            active = []
        if target is None and not is_deleting(job):
            self._resume(job, status, suspended)
            if not suspended and status.get("succeeded", 0) < spec["completions"]:
                active += self._replace(job, status, pods, active)
        self._finish(job, status, target, active)

    def _failure(self, job: Object, status: Object) -> tuple[str, str] | None:
        spec = job["spec"]
        if status.get("failed", 0) > spec["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if "activeDeadlineSeconds" in spec and "startTime" in status and not spec["suspend"]:
            began = datetime.fromisoformat(status["startTime"]).timestamp()
            left = began + spec["activeDeadlineSeconds"] - time.time()
            if left <= 0:
                return "DeadlineExceeded", "Job was active longer than specified deadline"
            asyncio.get_running_loop().call_later(left + 0.01, self.mark, key_of(job))
        return None

    def _resume(self, job: Object, status: Object, suspended: bool) -> None:
        old = condition({"status": status}, "Suspended")
        if suspended and (old is None or old["status"] == "False"):
            _set(status, "Suspended", True, "JobSuspended", "Job suspended")
            self._events.normal(JOB, job, "Suspended", "Job suspended")
        elif not suspended and old is not None and old["status"] == "True":
            _set(status, "Suspended", False, "JobResumed", "Job resumed")
            status["startTime"] = timestamp()
            self._events.normal(JOB, job, "Resumed", "Job resumed")

    def _replace(self, job: Object, status: Object, pods: list[Object], active: list[Object]) -> list[Object]:
        """Make the next pod when there is none."""
        ending = [pod for pod in pods if is_deleting(pod) and pod["status"]["phase"] in ("Pending", "Running")]
        if active or (ending and job["spec"].get("podReplacementPolicy") == "Failed"):
            return []
        if failed := status.get("failed", 0):
            pause = min(BACKOFF_FIRST * 2 ** (failed - 1), BACKOFF_LONGEST)
            last = max((_ended_at(pod) for pod in pods), default=0.0)
            if (left := last + pause - time.time()) > 0:
                asyncio.get_running_loop().call_later(left + 0.01, self.mark, key_of(job))
                return []
        self._create(job)
        return [pod for pod in self._pods(job) if pod["status"]["phase"] == "Pending"]

    def _finish(self, job: Object, status: Object, target: Object | None, active: list[Object]) -> None:
        pods = self._pods(job)
        ending = [pod for pod in pods if is_deleting(pod) and pod["status"]["phase"] in ("Pending", "Running")]
        counts = {"active": len(active), "terminating": len(ending), "ready": sum(is_ready(pod) for pod in active)}
        for name, count in counts.items():
            status.pop(name, None)
            status |= {name: count} if count or name != "active" else {}
        status["uncountedTerminatedPods"] = {}
        if active or ending:
            return
        if target is not None:
            _set(status, "Failed", True, target["reason"], target["message"])
            self._events.warning(JOB, job, target["reason"], target["message"])
        elif status.get("succeeded", 0) >= job["spec"]["completions"]:
            for name in ("SuccessCriteriaMet", "Complete"):
                _set(status, name, True, "CompletionsReached", "Reached expected number of succeeded pods")
            status["completionTime"] = timestamp()
            self._events.normal(JOB, job, "Completed", "Job completed")

    def _write(self, job: Object, key: Key, status: Object) -> None:
        uid = job["metadata"]["uid"]

        def edit(current: Object) -> None:
            if current["metadata"]["uid"] == uid:
                current["status"] = status

        self.store.change(JOB, key, edit)


def _is_finished(job: Object) -> bool:
    return any((found := condition(job, name)) and found["status"] == "True" for name in ("Complete", "Failed"))


def _has_failed(pod: Object, job: Object) -> bool:
    if pod["status"]["phase"] == "Failed":
        return True
    return is_deleting(pod) and job["spec"].get("podReplacementPolicy") != "Failed"


def _ended_at(pod: Object) -> float:
    """When its last container ended; 0 for one that has not, or never began."""
    states = (found["state"].get("terminated") for found in pod["status"].get("containerStatuses") or ())
    return max((datetime.fromisoformat(end["finishedAt"]).timestamp() for end in states if end), default=0.0)


def _set(status: Object, name: str, value: bool, reason: str, message: str) -> Object:
    now, conditions = timestamp(), status.setdefault("conditions", [])
    new = {"type": name, "status": str(value), "lastProbeTime": now, "lastTransitionTime": now}
    new |= {"reason": reason, "message": message}
    status["conditions"] = [*(found for found in conditions if found["type"] != name), new]
    return new

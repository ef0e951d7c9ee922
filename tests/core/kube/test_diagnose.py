"""Why a workload is not ready: the judge on hand-made objects, the waits on the sandbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from deployer.core.errors import Cancelled, StepFailed
from deployer.core.gate import Gate
from deployer.core.kube.client import KubeClient
from deployer.core.kube.diagnose import (
    Hopeless,
    Judgement,
    Ready,
    ReadyJudge,
    Waiting,
    await_endpoints,
    await_pods_gone,
    await_ready,
    explain_not_ready,
)
from deployer.core.kube.kinds import CONTROLLER, NAMESPACE, POD, SERVICE
from deployer.core.kube.owned import OwnedKube
from deployer.core.manifests import LABEL_MANAGED_BY

Document = dict[str, Any]


# --- the judge ----------------------------------------------------------------------------------------------------


def controller(replicas: int = 2) -> Document:
    return {"metadata": {"name": "shop-1", "uid": "rc"}, "spec": {"replicas": replicas}}


def pod(name: str = "a", *, ready: bool = False, phase: str = "Running", **more: Any) -> Document:
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "message": "containers not ready"}]
    status = {"phase": phase, "conditions": conditions, **more}
    return {"metadata": {"name": name, "uid": name}, "status": status}


def container(restarts: int = 0, last: Document | None = None, **state: Document) -> list[Document]:
    status = {"name": "web", "image": "img:1", "ready": False, "restartCount": restarts, "state": state}
    return [{**status, "lastState": {"terminated": last} if last else {}}]


def waiting(reason: str, message: str = "because") -> list[Document]:
    return container(waiting={"reason": reason, "message": message})


def told(reason: str, message: str, count: int = 1, at: str = "1", uid: str = "a") -> Document:
    about = {"uid": uid, "fieldPath": "spec.containers{web}"}
    document = {"reason": reason, "message": message, "count": count, "lastTimestamp": at, "involvedObject": about}
    return {**document, "type": "Warning", "metadata": {}}


class Case:
    """A judge with the limits 3 restarts, 3 pulls, 30 s unschedulable, 10 s admission, and a clock."""

    def __init__(self) -> None:
        self.judge = ReadyJudge(3, 3, 30.0, 10.0)

    def at(self, now: float, *pods: Document, events: Sequence[Document] = (), replicas: int = 1) -> Judgement:
        return self.judge.judge(
            controller(replicas), pods, lambda uid: [e for e in events if e["involvedObject"]["uid"] == uid], now
        )


def hopeless(judgement: Judgement) -> StepFailed:
    assert isinstance(judgement, Hopeless), judgement
    return judgement.failure


def troubles(judgement: Judgement) -> str:
    assert isinstance(judgement, Waiting), judgement
    return "; ".join(judgement.troubles.values())


def test_ready_counts_only_pods_that_stay() -> None:
    going = pod("c", ready=True)
    going["metadata"]["deletionTimestamp"] = "now"
    case = Case()
    found = case.at(0, pod("a", ready=True), pod("b"), going, replicas=2)
    assert isinstance(found, Waiting) and found.progress == "1 of 2 pods ready"
    found = case.at(0, pod("a", ready=True), pod("b", ready=True), replicas=2)
    assert isinstance(found, Ready) and [p["metadata"]["name"] for p in found.pods] == ["a", "b"]


def test_no_pod_is_never_enough() -> None:
    assert isinstance(Case().at(0, replicas=0), Waiting)


def test_an_image_name_that_cannot_be_one_fails_at_once() -> None:
    failure = hopeless(Case().at(0, pod(containerStatuses=waiting("InvalidImageName"))))
    assert failure.reason == "InvalidImageName" and failure.pod == "a" and failure.hint


def test_pulls_are_counted_by_the_events() -> None:
    case, pulling = Case(), pod(containerStatuses=waiting("ImagePullBackOff", "not found"))
    two = [told("Failed", 'Failed to pull image "img:1": x', count=2), told("Failed", "Error: ErrImagePull", count=9)]
    assert "ImagePullBackOff in container web: not found" in troubles(case.at(0, pulling, events=two))
    three = [told("Failed", 'Failed to pull image "img:1": x', count=3)]
    failure = hopeless(case.at(1, pulling, events=three))
    assert failure.reason == "ImagePull" and "img:1" in str(failure) and "3 times" in str(failure)


def test_pulls_are_counted_by_what_is_seen_when_there_are_no_events() -> None:
    case = Case()
    for round_ in range(2):
        assert isinstance(case.at(round_, pod(containerStatuses=waiting("ErrImagePull"))), Waiting)
        assert isinstance(case.at(round_, pod(containerStatuses=waiting("ErrImagePull"))), Waiting)
        assert isinstance(case.at(round_, pod(containerStatuses=waiting("ImagePullBackOff"))), Waiting)
    assert hopeless(case.at(3, pod(containerStatuses=waiting("ErrImagePull")))).reason == "ImagePull"


@pytest.mark.parametrize("where", ["containerStatuses", "initContainerStatuses"])
def test_three_restarts(where: str) -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    case = Case()
    assert "restarted 2 times" in troubles(case.at(0, pod(**{where: container(2, ended, running={})})))
    judgement = case.at(1, pod(**{where: container(3, ended, waiting={"reason": "CrashLoopBackOff"})}))
    failure = hopeless(judgement)
    assert failure.reason == "CrashLoop" and "exit code 137 (OOMKilled)" in str(failure)
    assert isinstance(judgement, Hopeless) and (judgement.container, judgement.previous) == ("web", True)


def test_restarts_of_a_pod_that_is_ready_after_all_do_not_count() -> None:
    assert isinstance(Case().at(0, pod(ready=True, containerStatuses=container(5, running={}))), Ready)


def test_a_missing_secret_gets_a_grace_time() -> None:
    case, stuck = Case(), pod(containerStatuses=waiting("CreateContainerConfigError", 'secret "x" not found'))
    assert 'secret "x" not found' in troubles(case.at(0, stuck))
    assert isinstance(case.at(9, stuck), Waiting)
    assert 'secret "x" not found' in str(hopeless(case.at(11, stuck)))


def test_a_grace_time_begins_anew_after_a_break() -> None:
    case, stuck = Case(), pod(containerStatuses=waiting("CreateContainerConfigError"))
    case.at(0, stuck)
    case.at(9, pod(containerStatuses=waiting("ContainerCreating")))
    assert isinstance(case.at(12, stuck), Waiting)
    assert isinstance(case.at(23, stuck), Hopeless)


def unschedulable() -> Document:
    found = pod(phase="Pending")
    why = {"reason": "Unschedulable", "message": "0/1 nodes: Insufficient cpu"}
    found["status"]["conditions"].append({"type": "PodScheduled", "status": "False", **why})
    return found


def test_unschedulable_past_the_grace_time() -> None:
    case = Case()
    assert "Insufficient cpu" in troubles(case.at(0, unschedulable()))
    assert isinstance(case.at(29, unschedulable()), Waiting)
    assert hopeless(case.at(31, unschedulable())).reason == "Unschedulable"


def test_a_scale_up_lifts_the_limit() -> None:
    case, scaling = Case(), [told("TriggeredScaleUp", "pod triggered scale-up")]
    case.at(0, unschedulable())
    assert "being scaled up" in troubles(case.at(31, unschedulable(), events=scaling))
    assert isinstance(case.at(200, unschedulable(), events=scaling), Waiting)


@pytest.mark.parametrize(
    "message",
    [
        'Error creating: pods "x" is forbidden: violates PodSecurity "baseline:latest": privileged',
        'Error creating: admission webhook "policy" denied the request: no',
        'Error creating: Pod "x" is invalid: spec.containers[0].name: Required value',
    ],
)
def test_a_refusal_for_good_fails_at_once(message: str) -> None:
    failure = hopeless(Case().at(0, events=[told("FailedCreate", message, uid="rc")]))
    assert failure.reason == "PodsRefused" and message in str(failure)


@pytest.mark.parametrize(
    "message",
    [
        'Error creating: pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1',
        'Error creating: Internal error occurred: failed calling webhook "x": context deadline exceeded',
        'Error creating: pods "x" is forbidden: error looking up service account ns/x: serviceaccount "x" not found',
        "Error creating: something nobody has seen before",
    ],
)
def test_a_refusal_that_may_pass_gets_a_grace_time(message: str) -> None:
    case, events = Case(), [told("FailedCreate", message, uid="rc")]
    assert message in troubles(case.at(0, events=events))
    assert isinstance(case.at(9, events=events), Waiting)
    assert hopeless(case.at(11, events=events)).reason == "PodsRefused"


def test_a_refusal_that_has_passed_does_not_count() -> None:
    case, events = Case(), [told("FailedCreate", "exceeded quota", uid="rc")]
    case.at(0, events=events)
    assert troubles(case.at(20, pod(), events=events)) == ""


def test_pods_that_fail_one_after_the_other() -> None:
    failed = [pod(str(n), phase="Failed", reason="OutOfcpu", message="Node didn't have enough") for n in range(3)]
    assert hopeless(Case().at(0, *failed)).reason == "OutOfcpu"
    assert isinstance(Case().at(0, failed[0], pod("x")), Waiting)


def test_events_are_asked_for_only_when_they_matter() -> None:
    case = Case()
    calm = case.at(0, pod(containerStatuses=waiting("ContainerCreating")))
    missing_for_a_moment = case.at(0)
    missing = case.at(1.5)
    stuck = case.at(2, pod(containerStatuses=waiting("ErrImagePull")))
    assert all(isinstance(j, Waiting) for j in (calm, missing_for_a_moment, missing, stuck))
    wants = [j.wants_events for j in (calm, missing_for_a_moment, missing, stuck) if isinstance(j, Waiting)]
    assert wants == [(), (), ("rc",), ("a",)]


def test_the_explanation_quotes_the_probe() -> None:
    events = [
        told("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", at="2"),
        told("Pulled", "older", at="1"),
    ]
    text = explain_not_ready(controller(), [pod("a"), pod("b", ready=True)], lambda uid: events if uid == "a" else [])
    assert text == (
        "1 of 2 pods are ready; pod a is not ready: Readiness probe failed: HTTP probe failed with statuscode: 503"
    )


def test_the_explanation_without_pods_and_without_events() -> None:
    refused = [told("FailedCreate", "exceeded quota", uid="rc")]
    assert explain_not_ready(controller(), [], lambda uid: refused).endswith("no pod was created: exceeded quota")
    assert explain_not_ready(controller(), [], lambda uid: []).endswith("no pod was created")
    assert "containers not ready" in explain_not_ready(controller(), [pod()], lambda uid: [])
    assert "Insufficient cpu" in explain_not_ready(controller(), [unschedulable()], lambda uid: [])
    stuck = pod(containerStatuses=waiting("CreateContainerError", "x"))
    assert "CreateContainerError x" in explain_not_ready(controller(), [stuck], lambda uid: [])


# --- the waits ----------------------------------------------------------------------------------------------------

LIMITS = {"max_restarts": 2, "image_pull_attempts": 2, "unschedulable_grace": 5.0, "admission_grace": 5.0}


def workload(
    kube: OwnedKube, *, image: str = "sample/web:1", replicas: int = 2, probe: str = "/healthy", **env: str
) -> Document:
    labels = {"name": "shop-1", "app": "shop", "version": "1"}
    web = {
        "name": "web",
        "image": image,
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": probe, "port": 9999}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [web]}}
    about = {"name": "shop-1", "labels": {**labels, LABEL_MANAGED_BY: "deployer"}}
    about["annotations"] = kube.annotations("controller")
    spec = {"replicas": replicas, "selector": labels, "template": template}
    return {"apiVersion": "v1", "kind": "ReplicationController", "metadata": about, "spec": spec}


def start(kube: OwnedKube, **how: Any) -> str:
    return str(kube.create(CONTROLLER, workload(kube, **how))["metadata"]["uid"])


def test_await_ready_endpoints_and_gone(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    lines: list[str] = []
    before = sandbox_client.requests
    uid = start(kube)
    pods = await_ready(kube, "shop-1", uid, lines.append, **LIMITS)  # type: ignore[arg-type]
    assert len(pods) == 2
    spent = sandbox_client.requests - before
    assert spent["list"] <= 2 and spent["watch"] <= 2 and spent["get"] <= 1  # no Events, no polling
    assert lines[0] == "0 of 2 pods ready" and set(lines) <= {"0 of 2 pods ready", "1 of 2 pods ready"}
    about = {"name": "shop-1", "annotations": kube.annotations("versioned-service")}
    spec = {"selector": {"name": "shop-1"}, "ports": [{"name": "http", "port": 8080}]}
    kube.create(SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec})
    await_endpoints(kube, "shop-1", [p["metadata"]["uid"] for p in pods], lines.append)
    assert lines[-1] == "service shop-1 has 2 ready endpoints"
    assert kube.delete(CONTROLLER, "shop-1")
    await_pods_gone(kube, uid, {"name": "shop-1"}, lines.append)
    assert kube.list(POD, {"name": "shop-1"}) == []


def test_endpoints_that_never_come(kube: OwnedKube) -> None:
    late = kube.with_gate(Gate(time.monotonic() + 0.2))
    with pytest.raises(StepFailed, match="2 of 2 pods are no ready endpoints of Service none") as caught:
        await_endpoints(late, "none", ["a", "b"], print)
    assert caught.value.reason == "EndpointsNotReady"


def test_an_image_that_is_not_there(kube: OwnedKube) -> None:
    lines: list[str] = []
    uid = start(kube, image="sample/web:missing", replicas=1)
    with pytest.raises(StepFailed, match="could not be pulled 2 times") as caught:
        await_ready(kube, "shop-1", uid, lines.append, **LIMITS)  # type: ignore[arg-type]
    assert caught.value.reason == "ImagePull" and caught.value.pod.startswith("shop-1-")
    assert len([line for line in lines if "ImagePull" in line]) == 1  # said once, not at every back-off


def test_a_crash_loop_shows_the_last_lines(kube: OwnedKube) -> None:
    lines: list[str] = []
    uid = start(kube, replicas=1, probe="/error", CRASH_AFTER="0.05")
    with pytest.raises(StepFailed, match="restarted 2 times, it ended with exit code 3") as caught:
        await_ready(kube, "shop-1", uid, lines.append, **LIMITS)  # type: ignore[arg-type]
    assert caught.value.reason == "CrashLoop"
    assert "crashing on purpose" in lines[-1] and lines[-1].startswith("last lines of container web")


def test_never_ready_is_explained_by_the_probe(kube: OwnedKube) -> None:
    lines: list[str] = []
    uid = start(kube, replicas=1, probe="/error")
    late = kube.with_gate(Gate(time.monotonic() + 2.5))
    with pytest.raises(
        StepFailed, match=r"not ready in time: 0 of 1 pods are ready; .*Readiness probe failed"
    ) as caught:
        await_ready(late, "shop-1", uid, lines.append, **LIMITS)  # type: ignore[arg-type]
    assert caught.value.reason == "NotReady" and caught.value.pod and "timeoutSeconds" in caught.value.hint
    assert "starting version" in lines[-1]


def test_refused_by_pod_security(kube: OwnedKube, sandbox_client: KubeClient) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    sandbox_client.patch(NAMESPACE, kube.owner.namespace, {"metadata": {"labels": label}})
    uid = start(kube, replicas=1)
    began = time.monotonic()
    with pytest.raises(StepFailed, match="PodSecurity") as caught:
        await_ready(kube, "shop-1", uid, print, **LIMITS)  # type: ignore[arg-type]
    assert caught.value.reason == "PodsRefused" and time.monotonic() - began < 4.5


def test_a_controller_that_somebody_deletes(kube: OwnedKube) -> None:
    uid = start(kube, replicas=1, probe="/error")
    lines: list[str] = []
    started = threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        started.set()

    def delete() -> None:
        started.wait(10)
        kube.delete(CONTROLLER, "shop-1")

    thread = threading.Thread(target=delete)
    thread.start()
    with pytest.raises(StepFailed, match="deleted or replaced by somebody else") as caught:
        await_ready(kube, "shop-1", uid, log, **LIMITS)  # type: ignore[arg-type]
    thread.join()
    assert caught.value.reason == "ControllerGone"


def test_a_cancelled_wait_passes_through(kube: OwnedKube) -> None:
    gate = Gate(time.monotonic() + 20)
    late = kube.with_gate(gate)
    uid = start(kube, replicas=1, probe="/error")
    began = time.monotonic()
    with pytest.raises(Cancelled):
        await_ready(late, "shop-1", uid, lambda line: gate.close(Cancelled("stop")), **LIMITS)  # type: ignore[arg-type]
    with pytest.raises(Cancelled):
        await_pods_gone(late, uid, {"name": "shop-1"})
    assert time.monotonic() - began < 2

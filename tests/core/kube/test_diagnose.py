"""Why a workload is not ready: the judge on hand-made objects, the waits on the sandbox."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Owner
from deployer.core.contract.strategy import unheard
from deployer.core.errors import Cancelled, StepFailed
from deployer.core.model.kind import CONTROLLER, NAMESPACE, POD, SERVICE
from deployer.core.model.plan import Workload
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube
from deployer.kube.ownership import LABEL_MANAGED_BY
from deployer.kube.pods import listed, short
from deployer.toolkit.readiness.diagnose import await_endpoints, await_pods_gone, await_ready, tell_last_lines
from deployer.toolkit.readiness.error_patterns import pull_error
from deployer.toolkit.readiness.explain import explain_not_ready
from deployer.toolkit.readiness.judge import Hopeless, Judgement, Ready, ReadyJudge, Waiting
from deployer.toolkit.workload import await_serving

Document = dict[str, Any]


# --- the judge ----------------------------------------------------------------------------------------------------


def controller(replicas: int = 2, refused: str = "", since: str = "1") -> Document:
    """`refused`: what its status says of the pods that could not be created."""
    told = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "lastTransitionTime": since}
    status = {"conditions": [{**told, "message": refused}]} if refused else {}
    return {"metadata": {"name": "shop-1", "uid": "rc"}, "spec": {"replicas": replicas}, "status": status}


def pod(name: str = "a", *, ready: bool = False, phase: str = "Running", **more: Any) -> Document:
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "message": "containers not ready"}]
    status = {"phase": phase, "conditions": conditions, **more}
    return {"metadata": {"name": name, "uid": name}, "spec": {"nodeName": "node1"}, "status": status}


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

    def at(
        self, now: float, *pods: Document, events: Sequence[Document] = (), replicas: int = 1, refused: str = ""
    ) -> Judgement:
        def events_of(uid: str) -> Sequence[Document]:
            return [e for e in events if e["involvedObject"]["uid"] == uid]

        return self.judge.judge(controller(replicas, refused), pods, events_of, now)


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


def test_a_pod_without_a_probe_must_stay_ready_for_a_while() -> None:
    case = Case()
    case.judge.min_ready = 2.0
    found = pod("a", ready=True)
    bare, probe = {"name": "web"}, {"name": "side", "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}
    found["spec"] = {"containers": [probe, bare]}
    assert isinstance(case.at(0, found), Waiting)
    assert isinstance(case.at(1.9, found), Waiting)
    # It ended in between: the time begins anew.
    ended = {**found, "status": pod("a")["status"]}
    assert isinstance(case.at(1.95, ended), Waiting)
    assert isinstance(case.at(2.1, found), Waiting)
    assert isinstance(case.at(4.2, found), Ready)
    found["spec"] = {"containers": [probe]}
    assert isinstance(Case().at(0, found), Ready)


def test_no_pod_is_never_enough() -> None:
    assert isinstance(Case().at(0, replicas=0), Waiting)


def test_an_image_name_that_cannot_be_one_fails_at_once() -> None:
    why = "invalid reference format: repository name (library/UPPER) must be lowercase"
    message = f'Failed to apply default image tag "UPPER:::": couldn\'t parse image name "UPPER:::": {why}'
    failure = hopeless(Case().at(0, pod(containerStatuses=waiting("InvalidImageName", message))))
    assert failure.reason == "InvalidImageName" and failure.pod == "a" and failure.hint
    assert str(failure) == f'container web of pod a cannot use the image "img:1": {why}'


def test_a_long_text_is_cut_without_leaving_a_part_of_a_secret() -> None:
    secret = "s3cr3t-canary-value"
    for begin in range(470, 500):
        text = short("x" * begin + f" {secret} " + "y" * 100)
        assert secret in text or "s3c" not in text
    assert short("a \n b") == "a b" and len(short("word " * 1000)) <= 500


def test_events_that_are_alike_are_told_once() -> None:
    events = [told("FailedCreate", f'Error creating: pods "shop-2-{n}" is forbidden: quota', at=str(n)) for n in "abc"]
    events.append(told("FailedCreate", "(combined from similar events): " + events[0]["message"], count=5, at="d"))
    events.append({**told("Started", "Started container"), "type": "Normal"})
    events.append(told("BackOff", "Back-off", at="z"))
    assert listed(events) == (
        'FailedCreate (8 times): Error creating: pods "shop-2-a" is forbidden: quota\nBackOff: Back-off'
    )


LOST = 'failed to pull and unpack image "img:1": failed to do request: dial tcp 10.0.0.9:443: i/o timeout'


def test_pulls_are_counted_by_the_events() -> None:
    case, pulling = Case(), pod(containerStatuses=waiting("ImagePullBackOff", LOST))
    two = [told("Failed", 'Failed to pull image "img:1": x', count=2), told("Failed", "Error: ErrImagePull", count=9)]
    assert "ImagePullBackOff in container web: dial tcp" in troubles(case.at(0, pulling, events=two))
    three = [told("Failed", 'Failed to pull image "img:1": x', count=3)]
    failure = hopeless(case.at(1, pulling, events=three))
    assert (failure.reason, failure.pod) == ("ImagePull", "a")
    assert str(failure) == (
        "the image img:1 of container web of pod a could not be pulled 3 times: dial tcp 10.0.0.9:443: i/o timeout"
    )


def test_pulls_are_counted_by_what_is_seen_when_there_are_no_events() -> None:
    case = Case()
    for round_ in range(2):
        assert isinstance(case.at(round_, pod(containerStatuses=waiting("ErrImagePull", LOST))), Waiting)
        assert isinstance(case.at(round_, pod(containerStatuses=waiting("ErrImagePull", LOST))), Waiting)
        assert isinstance(case.at(round_, pod(containerStatuses=waiting("ImagePullBackOff", LOST))), Waiting)
    assert hopeless(case.at(3, pod(containerStatuses=waiting("ErrImagePull", LOST)))).reason == "ImagePull"


def test_an_image_that_is_not_there_fails_at_the_second_refusal() -> None:
    case, refused = Case(), pod(containerStatuses=waiting("ErrImagePull", "img:1: not found"))
    assert isinstance(case.at(0, refused), Waiting)
    # An older kubelet's back-off does not repeat why.
    backing_off = pod(containerStatuses=waiting("ImagePullBackOff", 'Back-off pulling image "img:1"'))
    assert "img:1: not found" in troubles(case.at(1, backing_off))
    assert "img:1: not found" in str(hopeless(case.at(10, refused)))


def test_pulls_of_another_pod_do_not_count() -> None:
    case = Case()
    for name in "abc":
        assert isinstance(case.at(0, pod(name, containerStatuses=waiting("ErrImagePull", "img:1: not found"))), Waiting)


def test_a_pull_secret_that_is_not_there_is_named() -> None:
    case, refused = Case(), pod(containerStatuses=waiting("ErrImagePull", "401 Unauthorized: unauthorized"))
    events = [
        told("FailedToRetrieveImagePullSecret", "Unable to retrieve some image pull secrets (regcred)"),
        told("Failed", 'Failed to pull image "img:1": unauthorized', count=2),
    ]
    failure = hopeless(case.at(0, refused, events=events))
    assert "imagePullSecrets" in failure.hint and "(regcred)" in failure.hint


FRAME = 'failed to pull and unpack image "{0}": failed to resolve reference "{0}": '
FAILED_WITH = "pulling from host reg.example:5000 failed with status code [manifests 500]: "
PULLS = [  # as containerd 2, containerd 1.7, CRI-O, the Docker engine and Docker Hub put it
    ("rpc error: code = NotFound desc = " + FRAME + "{0}: not found", True, "pushed"),
    ("rpc error: code = NotFound desc = " + FRAME + "unexpected status: 404 Not Found", True, "pushed"),
    (FRAME + FAILED_WITH + "401 Unauthorized", True, "imagePullSecrets"),
    (FRAME + FAILED_WITH + "403 Forbidden", True, "imagePullSecrets"),
    (
        FRAME + "pull access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed",
        True,
        "imagePullSecrets",
    ),
    ("reading manifest 500 in {0}: manifest unknown", True, "pushed"),
    ("Error response from daemon: manifest for {0} not found: manifest unknown", True, "pushed"),
    ("no match for platform in manifest: not found", True, "pushed"),
    (FRAME + FAILED_WITH + "429 Too Many Requests", False, "reach the registry"),
    (FRAME + FAILED_WITH + "500 Internal Server Error", False, "reach the registry"),
    (FRAME + FAILED_WITH + "503 Service Unavailable", False, "reach the registry"),
    (
        FRAME + 'failed to do request: Head "http://reg/v2/denied/manifests/404": dial tcp 10.0.0.9:404: '
        "connect: connection refused",
        False,
        "reach the registry",
    ),
    (
        FRAME + 'failed to do request: Head "https://reg/v2/x": dial tcp: lookup reg on 10.0.0.10:53: no such host',
        False,
        "reach the registry",
    ),
    ("toomanyrequests: You have reached your unauthenticated pull rate limit.", False, "reach the registry"),
    ("something nobody has seen before", False, "name and tag"),
]


@pytest.mark.parametrize("image", ["reg.example:5000/shop:500", "timeout/not-found:denied", ""])
@pytest.mark.parametrize(("message", "final", "hint"), PULLS, ids=range(len(PULLS)))
def test_the_words_of_registries(message: str, final: bool, hint: str, image: str) -> None:
    for back_off in ("", f'Back-off pulling image "{image}": ErrImagePull: '):
        meaning = pull_error(back_off + message.format(image), image)
        assert (meaning.final, hint in meaning.hint) == (final, True), meaning
        assert meaning.words and "failed to pull and unpack" not in meaning.words and "Back-off" not in meaning.words


def test_a_command_that_is_not_there_fails_at_the_second_start() -> None:
    message = (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
        'unable to start container process: exec: "/nope": stat /nope: no such file or directory: unknown'
    )
    end = {"exitCode": 128, "reason": "StartError", "message": message}
    case, why = Case(), {"reason": "RunContainerError", "message": message}
    assert "cannot be started" in troubles(case.at(0, pod(containerStatuses=container(0, end, waiting=why))))
    judgement = case.at(1, pod(containerStatuses=container(1, end, waiting=why)))
    failure = hopeless(judgement)
    assert failure.reason == "StartError" and "command" in failure.hint
    assert str(failure) == (
        'container web of pod a cannot be started: exec: "/nope": stat /nope: no such file or directory'
    )
    assert isinstance(judgement, Hopeless) and not judgement.container  # it never ran, so it wrote nothing


def test_a_start_that_may_succeed_next_time_gets_three_restarts() -> None:
    end = {"exitCode": 128, "reason": "StartError", "message": "fork/exec: resource temporarily unavailable"}
    case = Case()
    assert isinstance(case.at(0, pod(containerStatuses=container(2, end, running={}))), Waiting)
    assert hopeless(case.at(1, pod(containerStatuses=container(3, end, running={})))).reason == "StartError"


@pytest.mark.parametrize("where", ["containerStatuses", "initContainerStatuses"])
def test_three_restarts(where: str) -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    case = Case()
    assert "restarted 2 times" in troubles(case.at(0, pod(**{where: container(2, ended, running={})})))
    judgement = case.at(1, pod(**{where: container(3, ended, waiting={"reason": "CrashLoopBackOff"})}))
    failure = hopeless(judgement)
    assert failure.reason == "CrashLoop" and "exit code 137 (OOMKilled)" in str(failure)
    assert isinstance(judgement, Hopeless) and (judgement.container, judgement.previous) == ("web", True)


def test_the_container_that_crashes_is_named() -> None:
    proxy, web = container(0, None, running={})[0], container(3, {"exitCode": 1}, running={})[0]
    judgement = Case().at(0, pod(containerStatuses=[{**proxy, "name": "proxy", "ready": True}, web]))
    assert isinstance(judgement, Hopeless) and judgement.container == "web"
    assert str(judgement.failure) == "container web of pod a was restarted 3 times, it ended with exit code 1"


def test_a_liveness_probe_that_kills_is_named() -> None:
    events = [
        told("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500", at="2"),
        told("Unhealthy", "Readiness probe failed: something else", at="3"),
        told("Killing", "Container web failed liveness probe, will be restarted", at="2"),
    ]
    stuck = pod(containerStatuses=container(3, {"exitCode": 0, "reason": "Completed"}, running={}))
    failure = hopeless(Case().at(0, stuck, events=events))
    assert failure.reason == "CrashLoop" and "liveness probe" in failure.hint
    assert str(failure).endswith(
        "was restarted 3 times because its liveness probe failed: HTTP probe failed with statuscode: 500"
    )


def test_a_hook_that_fails_is_named() -> None:
    message = (
        'Exec lifecycle hook ([/nope]) for Container "web" in Pod "x" failed - error: rpc error: code = Unknown desc = '
        "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start "
        'container process: exec: "/nope": stat /nope: no such file or directory: unknown, message: ""'
    )
    case, end = Case(), {"exitCode": 0, "reason": "Completed"}
    failed = container(2, end, waiting={"reason": "PostStartHookError", "message": message})
    events = [told("FailedPostStartHook", "PostStartHook failed")]
    case.at(0, pod(containerStatuses=failed), events=events)
    backing_off = container(3, end, waiting={"reason": "CrashLoopBackOff", "message": "back-off 20s"})
    failure = hopeless(case.at(1, pod(containerStatuses=backing_off), events=events))
    assert (
        "because its postStart hook failed" in str(failure)
        and '"/nope"' in str(failure)
        and "postStart" in failure.hint
    )


@pytest.mark.parametrize(
    ("end", "hint"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, "memory limit"),
        ({"exitCode": 137, "reason": "Error"}, "killed it"),
        ({"exitCode": 127, "reason": "Error"}, "command was not found"),
        ({"exitCode": 3, "reason": "Error"}, "last lines"),
        (None, "last lines"),
    ],
)
def test_hints_for_an_end(end: Document | None, hint: str) -> None:
    assert hint in hopeless(Case().at(0, pod(containerStatuses=container(3, end, running={})))).hint


def test_restarts_of_a_pod_that_is_ready_after_all_do_not_count() -> None:
    case, back = Case(), pod(ready=True, containerStatuses=container(5, running={}))
    back["status"]["containerStatuses"][0]["ready"] = True
    assert troubles(case.at(0, back)) == ""
    # A crash loop without a probe is ready between one crash and the next.
    assert isinstance(case.at(4, pod(containerStatuses=container(2, running={}))), Waiting)
    assert isinstance(case.at(6, back), Waiting)
    assert isinstance(case.at(11, back), Ready)


def test_an_end_of_a_grace_time_waits_for_one_more_try() -> None:
    stuck = pod(containerStatuses=waiting("CreateContainerConfigError", 'secret "x" not found'))
    for tries, ends in ((2, False), (3, True)):
        case = Case()
        for now, seen in ((0, 1), (2, 2), (11, 2)):  # what comes at 9 s is seen by the try after that
            assert isinstance(case.at(now, stuck, events=[told("Failed", "Error: secret", count=seen)]), Waiting)
        end = case.at(14, stuck, events=[told("Failed", "Error: secret", count=tries)])
        assert isinstance(end, Hopeless) == ends
        assert isinstance(case.at(26, stuck, events=[told("Failed", "Error: secret", count=2)]), Hopeless)


def test_a_missing_secret_gets_a_grace_time() -> None:
    case, stuck = Case(), pod(containerStatuses=waiting("CreateContainerConfigError", 'secret "x" not found'))
    assert 'secret "x" not found' in troubles(case.at(0, stuck))
    assert isinstance(case.at(9, stuck), Waiting)
    assert 'secret "x" not found' in str(hopeless(case.at(26, stuck)))


def test_a_grace_time_begins_anew_after_a_break() -> None:
    case, stuck = Case(), pod(containerStatuses=waiting("CreateContainerConfigError"))
    case.at(0, stuck)
    case.at(9, pod(containerStatuses=waiting("ContainerCreating")))
    assert isinstance(case.at(12, stuck), Waiting)
    assert isinstance(case.at(36, stuck), Waiting)
    assert isinstance(case.at(38, stuck), Hopeless)


def test_what_no_grace_time_heals_gets_none() -> None:
    stuck = pod(
        containerStatuses=waiting(
            "CreateContainerConfigError",
            'container has runAsNonRoot and image will run as root (pod: "a_ns(1-2)", container: web)',
        )
    )
    failure = hopeless(Case().at(0, stuck))
    assert str(failure) == (
        "container web of pod a cannot be created: container has runAsNonRoot and image will run as root"
    )
    assert "securityContext" in failure.hint


MISSING = 'MountVolume.SetUp failed for volume "v" : configmap "none" not found'


def mounting(message: str = MISSING, at: str = "1") -> Document:
    """The Event of a volume that cannot be mounted: unlike others it is about no container."""
    event = told("FailedMount", message, at=at)
    return {**event, "involvedObject": {"uid": "a"}}


def creating() -> Document:
    return pod(phase="Pending", containerStatuses=container(waiting={"reason": "ContainerCreating"}))


def test_a_volume_that_is_not_there_gets_a_grace_time() -> None:
    case, events = Case(), [mounting()]
    assert case.at(0, creating(), events=events).wants_events == set()
    assert "waits for a volume" in troubles(case.at(5, creating(), events=events))
    assert isinstance(case.at(14, creating(), events=events), Waiting)
    assert isinstance(case.at(16, creating(), events=events), Waiting)
    failure = hopeless(case.at(17, creating(), events=[*events, mounting()]))
    assert failure.reason == "FailedMount" and 'configmap "none" not found' in str(failure)


def test_a_volume_that_takes_long_is_waited_for() -> None:
    case, events = Case(), [mounting("AttachVolume.Attach failed: volume is attached to another node")]
    case.at(0, creating(), events=events)
    case.at(5, creating(), events=events)
    assert "attached to another node" in troubles(case.at(200, creating(), events=events))


def test_a_volume_that_was_mounted_after_all_and_a_slow_pull() -> None:
    case, events = Case(), [mounting(), {**told("Pulling", 'Pulling image "img:1"'), "type": "Normal"}]
    case.at(0, creating(), events=events)
    case.at(5, creating(), events=events)
    assert troubles(case.at(200, creating(), events=events)) == 'pod a: pulling image "img:1"'
    assert 'is still pulling image "img:1"' in explain_not_ready(controller(1), [creating()], lambda _: events[1:])


def test_the_probes_words_are_said_while_it_is_waited() -> None:
    case, running = Case(), pod(containerStatuses=container(running={}))
    events = [told("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")]
    assert troubles(case.at(0, running, events=events)) == ""
    assert "statuscode: 503" in troubles(case.at(5, running, events=events))
    assert isinstance(case.at(1000, running, events=events), Waiting)


SCHEDULER = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: "
    "1 Preemption is not helpful for scheduling."
)


def unschedulable() -> Document:
    found = {**pod(phase="Pending"), "spec": {}}
    why = {"reason": "Unschedulable", "message": SCHEDULER}
    found["status"]["conditions"].append({"type": "PodScheduled", "status": "False", **why})
    return found


def test_unschedulable_past_the_grace_time() -> None:
    case = Case()
    assert "Insufficient cpu" in troubles(case.at(0, unschedulable()))
    assert isinstance(case.at(29, unschedulable()), Waiting)
    failure = hopeless(case.at(31, unschedulable()))
    assert failure.reason == "Unschedulable"
    assert str(failure) == "pod a cannot be scheduled: 0/1 nodes are available: 1 Insufficient cpu"


def test_a_scale_up_lifts_the_limit() -> None:
    case, scaling = Case(), [told("TriggeredScaleUp", "pod triggered scale-up")]
    case.at(0, unschedulable())
    assert "being scaled up" in troubles(case.at(31, unschedulable(), events=scaling))
    assert isinstance(case.at(200, unschedulable(), events=scaling), Waiting)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('pods "x" is forbidden: violates PodSecurity "baseline:latest": privileged', "securityContext"),
        ('admission webhook "policy" denied the request: quota service timed out', "policy"),
        ("pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "policy"),
        ('pods "x" is forbidden: failed quota: q: must specify limits.cpu for: web', "requests and limits"),
        ('pods "x" is forbidden: maximum cpu usage per Container is 100m, but limit is 1', "LimitRange"),
        ('pods "x" is forbidden: [maximum memory usage per Pod is 1Gi, but limit is 2Gi]', "LimitRange"),
        ('pods "exceeded quota" is forbidden: no such thing', "podspec"),
        ('Pod "x" is invalid: spec.containers[0].name: Required value', "podspec"),
        (
            'pods "x" is forbidden: unable to create new content in namespace n because it is being terminated',
            "another",
        ),
    ],
)
def test_a_refusal_for_good_fails_at_once(message: str, hint: str) -> None:
    for how in ({"refused": message}, {"refused": "y", "events": [told("FailedCreate", message, uid="rc")]}):
        failure = hopeless(Case().at(0, **how))  # type: ignore[arg-type]
        assert failure.reason == "PodsRefused" and hint in failure.hint
        assert str(failure) == f"the cluster refuses the pods of shop-1: {message}"


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1', "quota"),
        ('Internal error occurred: failed calling webhook "x": context deadline exceeded', "webhook"),
        (
            'pods "quota" is forbidden: error looking up service account quota/x: serviceaccount "x" not found',
            "account",
        ),
        ("something nobody has seen before", "podspec"),
    ],
)
def test_a_refusal_that_may_pass_gets_a_grace_time(message: str, hint: str) -> None:
    case = Case()
    assert message in troubles(case.at(0, refused=message))
    assert isinstance(case.at(9, refused=message), Waiting)
    assert isinstance(case.at(11, refused=message), Waiting)
    failure = hopeless(case.at(12, refused=message, events=[told("FailedCreate", message, uid="rc")]))
    assert failure.reason == "PodsRefused" and hint in failure.hint


def test_a_refusal_that_has_passed_does_not_count() -> None:
    case = Case()
    case.at(0, refused="exceeded quota")
    assert troubles(case.at(20, pod(), refused="exceeded quota")) == ""


def test_a_refusal_from_before_there_was_a_pod_does_not_count() -> None:
    case, going = Case(), pod("gone")
    going["metadata"].update(deletionTimestamp="6", creationTimestamp="5")
    for now in (0, 2):  # no pod for a moment, because somebody deleted it
        found = case.at(now, going, events=[told("FailedCreate", "violates PodSecurity", at="4", uid="rc")])
        assert troubles(found) == ""
    assert isinstance(
        case.at(3, going, events=[told("FailedCreate", "denied the request", at="7", uid="rc")]), Hopeless
    )


def test_the_newest_refusal_counts_though_the_status_keeps_the_first() -> None:
    events = [told("FailedCreate", "Error creating: exceeded quota: now", at="3", uid="rc")]
    old = told("FailedCreate", "violates PodSecurity", at="0", uid="rc")
    assert "exceeded quota: now" in troubles(Case().at(0, refused="exceeded quota: first", events=[*events, old]))


def test_pods_that_fail_one_after_the_other() -> None:
    failed = [pod(str(n), phase="Failed", reason="OutOfcpu", message="Node didn't have enough") for n in range(3)]
    assert hopeless(Case().at(0, *failed)).reason == "OutOfcpu"
    assert isinstance(Case().at(0, failed[0], pod("x")), Waiting)
    for one in failed:  # a pod that somebody deletes may end as failed too
        one["metadata"]["deletionTimestamp"] = "now"
    assert isinstance(Case().at(0, *failed), Waiting)


def test_events_are_asked_for_only_when_they_matter() -> None:
    case = Case()
    calm = case.at(0, pod(containerStatuses=waiting("ContainerCreating")))
    missing_for_a_moment = case.at(0)
    missing = case.at(1.5)
    stuck = case.at(2, pod(containerStatuses=waiting("ErrImagePull")))
    assert all(isinstance(j, Waiting) for j in (calm, missing_for_a_moment, missing, stuck))
    wants = [set(j.wants_events) for j in (calm, missing_for_a_moment, missing, stuck)]
    assert wants == [set(), set(), {"rc"}, {"a"}]


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
    late = kube.with_scope(CancelScope(time.monotonic() + 0.2))
    with pytest.raises(StepFailed, match="2 of 2 pods are no ready endpoints of Service none") as caught:
        await_endpoints(late, "none", ["a", "b"], print)
    assert caught.value.reason == "EndpointsNotReady"


def test_an_image_that_is_not_there(kube: OwnedKube) -> None:
    lines: list[str] = []
    uid = start(kube, image="sample/web:missing", replicas=1)
    with pytest.raises(StepFailed, match="could not be pulled 2 times") as caught:
        await_ready(kube, "shop-1", uid, lines.append, **LIMITS)  # type: ignore[arg-type]
    assert caught.value.reason == "ImagePull" and caught.value.pod.startswith("shop-1-")
    said = [line for line in lines if "ImagePull" in line]
    assert len(said) == 2 and said[1].startswith("events of shop-1-")  # said once, not at every back-off


def test_what_befalls_all_pods_is_said_once(kube: OwnedKube) -> None:
    lines: list[str] = []
    uid = start(kube, replicas=3, probe="/error")
    late = kube.with_scope(CancelScope(time.monotonic() + 7.0))
    with pytest.raises(StepFailed) as caught:
        await_ready(late, "shop-1", uid, lines.append, **LIMITS)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.startswith("not ready in time: 0 of 3 pods are ready; pod shop-1-") and text.endswith(" (and 2 more)")
    assert text.count("Readiness probe failed") == 1
    said = [line for line in lines if "Readiness probe failed" in line and not line.startswith("events of ")]
    assert len(said) == 1 and re.match(
        r"(3 pods, such as )?pod shop-1-\w+: is not ready: Readiness probe failed", said[0]
    )


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
    late = kube.with_scope(CancelScope(time.monotonic() + 2.5))
    with pytest.raises(
        StepFailed, match=r"not ready in time: 0 of 1 pods are ready; .*Readiness probe failed"
    ) as caught:
        await_ready(late, "shop-1", uid, lines.append, **LIMITS)  # type: ignore[arg-type]
    assert caught.value.reason == "NotReady" and caught.value.pod and "timeoutSeconds" in caught.value.hint
    late.scope.check()  # nobody waits any more for what is explained after the deadline
    assert "starting version" in lines[-1]


def test_last_lines_of_a_container_that_is_just_being_restarted(server: Any, client: KubeClient) -> None:
    gone = 'failed to try resolving symlinks in path "/var/log/pods/x/web/0.log": no such file or directory'
    answers = {"true": [gone, gone, "crashing on purpose\n"], None: ["unable to retrieve container logs for x", ""]}

    def answer(request: Any) -> None:
        request.json(answers[request.query.get("previous")].pop(0).encode())

    server.answer = answer
    informers = Informers(client)
    kube = OwnedKube(client, informers, Owner("test", "ns", "shop", "d1", 3), CancelScope(time.monotonic() + 20))
    lines: list[str] = []
    tell_last_lines(kube, "shop-1-x", "web", lines.append, previous=True)
    assert lines == ["last lines of container web in pod shop-1-x:\ncrashing on purpose"]
    server.answer = lambda request: request.json(b"unable to retrieve container logs for x")
    tell_last_lines(kube, "shop-1-x", "web", lines.append)
    assert lines[1].startswith("the log of container web in pod shop-1-x cannot be read: unable to retrieve")
    server.answer = lambda request: request.json(b"")
    tell_last_lines(kube, "shop-1-x", "web", lines.append)
    assert len(lines) == 2  # it wrote nothing
    informers.close()


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


def test_pods_that_do_not_stay_ready(kube: OwnedKube) -> None:
    start(kube, replicas=1, probe="/error")
    late = kube.with_scope(CancelScope(time.monotonic() + 1.5))
    service = {"metadata": {"name": "shop-1"}}
    plan = SimpleNamespace(
        objects=Workload(versioned_service=service, controller={"metadata": {"name": "shop-1"}}), deployment="d1"
    )
    with pytest.raises(StepFailed, match="did not stay ready: 0 of 1 pods are ready; pod shop-1-") as caught:
        await_serving(SimpleNamespace(kube=late, plan=plan, waiting=unheard))  # type: ignore[arg-type]
    assert caught.value.reason == "NotReady" and caught.value.hint


def test_a_cancelled_wait_passes_through(kube: OwnedKube) -> None:
    scope = CancelScope(time.monotonic() + 20)
    late = kube.with_scope(scope)
    uid = start(kube, replicas=1, probe="/error")
    began = time.monotonic()
    with pytest.raises(Cancelled):
        await_ready(late, "shop-1", uid, lambda line: scope.close(Cancelled("stop")), **LIMITS)  # type: ignore[arg-type]
    with pytest.raises(Cancelled):
        await_pods_gone(late, uid, {"name": "shop-1"})
    assert time.monotonic() - began < 2

"""Pods that get no node, or that their node cannot set up: what is said of them, when, and what is to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deployer.core.errors import StepFailed
from deployer.toolkit.readiness.explain import explain_not_ready, reason_not_ready
from deployer.toolkit.readiness.judge import Hopeless, Judgement, Ready, ReadyJudge, Waiting

Document = dict[str, Any]

GRACE = 30.0
CONTROLLER = {"metadata": {"name": "shop-2", "uid": "rc"}, "spec": {"replicas": 1}, "status": {}}


def pod(name: str = "a", version: str = "2", said: str = "", reason: str = "Unschedulable", **spec: Any) -> Document:
    """A pod without a node. `said`: what the scheduler says of it; empty: nothing."""
    found = {"type": "PodScheduled", "status": "False", "reason": reason, "message": said}
    labels = {"app": "shop", "version": version, "name": f"shop-{version}"}
    status = {"phase": "Pending", "conditions": [found] if said else []}
    return {"metadata": {"name": name, "uid": name, "labels": labels}, "spec": spec, "status": status}


def on_node(name: str = "a", **status: Any) -> Document:
    found = pod(name, nodeName="node1", containers=[{"name": "web"}])
    return {**found, "status": {"phase": "Running", "startTime": "1", "conditions": [], **status}}


def event(reason: str, message: str, count: int = 1, kind: str = "Warning") -> Document:
    return {"reason": reason, "message": message, "type": kind, "count": count, "lastTimestamp": "1", "metadata": {}}


class Case:
    """A judge and its clock."""

    def __init__(self) -> None:
        self.judge = ReadyJudge(3, 3, GRACE, 10.0)

    def at(
        self,
        now: float,
        *pods: Document,
        events: Mapping[str, Sequence[Document]] = {},
        others: Sequence[Document] = (),
    ) -> Judgement:
        return self.judge.judge(CONTROLLER, pods, lambda about: events.get(about, ()), now, lambda: others)

    def fails(self, found: Document, **around: Any) -> StepFailed:
        """It is said at once, and fails after the grace time, not before."""
        self.at(0, found, **around)
        early = self.at(6, found, **around)
        assert isinstance(early, Waiting)
        assert isinstance(self.at(GRACE - 1, found, **around), Waiting)
        end = self.at(GRACE + 7, found, **around)
        assert isinstance(end, Hopeless), end
        sentence = str(end.failure)
        assert any(sentence.endswith(trouble.partition(": ")[2]) for trouble in early.troubles.values()), early
        return end.failure


def test_scheduling_gates_are_named() -> None:
    said = "Scheduling is blocked due to non-empty scheduling gates"
    found = pod(said=said, reason="SchedulingGated", schedulingGates=[{"name": "example.com/foo"}, {"name": "b/c"}])
    failure = Case().fails(found)
    assert (failure.reason, failure.pod) == ("SchedulingGated", "a")
    assert str(failure) == "pod a is held back by its scheduling gates example.com/foo, b/c"
    assert "schedulingGates" in failure.hint


TEMPLATE = 'PodResourceClaim gpu: resource claim template "x": resourceclaimtemplate.resource.k8s.io "x" not found'


def test_a_resource_claim_that_cannot_be_made() -> None:
    found = pod(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "x"}])
    failure = Case().fails(found, events={"a": [event("FailedResourceClaimCreation", TEMPLATE)]})
    assert failure.reason == "ResourceClaim" and str(failure) == f"pod a has no resource claim: {TEMPLATE}"
    assert "podspec.resourceClaims" in failure.hint


def test_a_resource_claim_of_which_nobody_says_anything() -> None:
    failure = Case().fails(pod(resourceClaims=[{"name": "gpu", "resourceClaimName": "mine"}]))
    assert str(failure) == "pod a waits for its resource claim mine"


def test_a_scheduler_that_does_not_exist_is_named_and_given_up_after_the_grace_time() -> None:
    case, found = Case(), pod(schedulerName="nobody")
    assert isinstance(early := case.at(0, found), Waiting) and not early.troubles
    failure = Case().fails(found)
    assert str(failure) == "pod a has not been scheduled: nothing was heard of its scheduler, nobody"
    assert failure.reason == "SchedulerSilent" and "schedulerName" in failure.hint
    assert reason_not_ready(found, lambda _: (), ()) == (failure.reason, failure.hint)


def test_the_cluster_s_own_scheduler_is_waited_for_and_named_in_the_end() -> None:
    """It is away while it is upgraded, and nobody's podspec can change that."""
    case, found = Case(), pod()
    case.at(0, found)
    late = case.at(500, found)
    assert isinstance(late, Waiting)
    assert "nothing was heard of its scheduler, default-scheduler" in "".join(late.troubles.values())
    text = explain_not_ready(CONTROLLER, [found], lambda _: ())
    assert "pod a has not been scheduled: nothing was heard of its scheduler, default-scheduler" in text
    assert reason_not_ready(found, lambda _: (), ()) == ("SchedulerSilent", "check that the cluster's scheduler runs")


PROVISIONING = (
    "Waiting for a volume to be created either by the external provisioner 'x' or manually by the system administrator."
)
"""`pkg/controller/volume/persistentvolume/pv_controller.go`, event ExternalProvisioning."""


def test_a_volume_that_is_being_made_is_waited_for_and_named() -> None:
    """With volumeBindingMode WaitForFirstConsumer the scheduler says nothing meanwhile."""
    found = pod(**claim("data"))
    found["metadata"]["creationTimestamp"] = "2026-01-01T00:00:10Z"
    told = {**event("ExternalProvisioning", PROVISIONING, kind="Normal"), "lastTimestamp": "2026-01-01T00:00:11Z"}
    events = {"PersistentVolumeClaim/data": [told]}
    case = Case()
    case.at(0, found, events=events)
    late = case.at(500, found, events=events)
    words = f"pod a waits for a volume for its claim data: {PROVISIONING}"
    assert isinstance(late, Waiting) and words.replace("pod a ", "pod a: ") in late.troubles.values()
    assert words in explain_not_ready(CONTROLLER, [found], lambda about: events.get(about, ()))
    reason, hint = reason_not_ready(found, lambda about: events.get(about, ()), ())
    assert reason == "ClaimNotBound" and "provisioner" in hint
    # What a provisioner could not do is no matter of patience.
    failed = {**told, "reason": "ProvisioningFailed", "message": "quota exceeded"}
    failure = Case().fails(found, events={"PersistentVolumeClaim/data": [failed]})
    assert (failure.reason, str(failure)) == (
        "ClaimNotBound",
        "pod a waits for a volume for its claim data: quota exceeded",
    )
    # Of a claim that has been bound since, there may still be Events.
    old = {"PersistentVolumeClaim/data": [{**told, "lastTimestamp": "2026-01-01T00:00:09Z"}]}
    assert reason_not_ready(found, lambda about: old.get(about, ()), ())[0] == "SchedulerSilent"


def test_a_claim_for_which_no_node_has_a_volume_is_named() -> None:
    said = "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind"
    failure = Case().fails(pod(said=said, **claim("data")))
    assert (failure.reason, str(failure)) == (
        "ClaimNotBound",
        f"pod a cannot be scheduled: {said}; it has the claim data",
    )


UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"


def test_the_claim_s_own_words_name_claim_and_class() -> None:
    found = pod(said=UNBOUND, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
    why = 'storageclass.storage.k8s.io "fast-ssd" not found'
    events = {"PersistentVolumeClaim/data": [event("ProvisioningFailed", why)]}
    failure = Case().fails(found, events=events)
    assert str(failure) == f"pod a cannot be scheduled: {UNBOUND[:-11]}; claim data: {why}"
    assert "StorageClass" in failure.hint
    judgement = Case().at(0, found)
    assert {"a", "PersistentVolumeClaim/data"} <= judgement.wants_events


def test_a_claim_without_a_volume_and_a_claim_that_is_not_there() -> None:
    found = pod(said=UNBOUND, volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}])
    why = "no persistent volumes available for this claim and no storage class is set"
    failure = Case().fails(found, events={"PersistentVolumeClaim/a-v": [event("FailedBinding", why, kind="Normal")]})
    assert str(failure).endswith(f"claim a-v: {why}") and "storageClassName" in failure.hint
    assert failure.reason == "ClaimNotBound"
    missing = 'persistentvolumeclaim "data" not found. not found'
    failure = Case().fails(pod(said=f"0/1 nodes are available: {missing}"))
    assert str(failure).endswith('persistentvolumeclaim "data" not found') and "claimName" in failure.hint


# --- the live version's own pods ----------------------------------------------------------------------------------


def required(**term: Any) -> Document:
    terms = [{"topologyKey": "kubernetes.io/hostname", **term}]
    return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def claim(name: str) -> Document:
    return {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}


def rule(operator: str, key: str, *values: str) -> Document:
    return {"labelSelector": {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}}


HOST_PORT = {"containers": [{"name": "web", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}
SPREAD = {"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]}
APART = "1 node(s) didn't match pod anti-affinity rules"
BUSY = "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
PORTS = "1 node(s) didn't have free ports for the requested pod ports"
UNEVEN = "1 node(s) didn't match pod topology spread constraints"


@pytest.mark.parametrize(
    ("said", "spec", "words", "hint"),
    [
        (APART, required(labelSelector={"matchLabels": {"app": "shop"}}), "required anti-affinity", "matchLabelKeys"),
        (APART, required(**rule("In", "app", "shop", "b")), "required anti-affinity", "matchLabelKeys"),
        (APART, required(**rule("Exists", "app")), "required anti-affinity", "matchLabelKeys"),
        (APART, required(**rule("NotIn", "app", "b")), "required anti-affinity", "matchLabelKeys"),
        (UNEVEN, SPREAD, "topology spread constraints count", "ScheduleAnyway"),
        (PORTS, HOST_PORT, "hostPort is taken by", "leave hostPort out"),
        (BUSY, claim("data"), "claim is in use by", "ReadWriteMany"),
    ],
)
def test_the_pods_of_the_live_version_are_named_as_the_reason(said: str, spec: Any, words: str, hint: str) -> None:
    said = f"0/1 nodes are available: {said}. preemption: 0/1 nodes are available: 1 No preemption victims found."
    failure = Case().fails(pod(said=said, **spec), others=[pod("old", "1", **spec)])
    assert words in str(failure) and str(failure).endswith("the pods of version 1, which stay until the switch")
    assert "starts beside the one that serves" in failure.hint and hint in failure.hint


@pytest.mark.parametrize(
    ("said", "spec", "other"),
    [
        (APART, required(labelSelector={"matchLabels": {"app": "shop", "version": "2"}}), {}),
        (APART, required(**rule("DoesNotExist", "app")), {}),
        (APART, required(**rule("In", "version", "2")), {}),
        (APART, required(), {}),
        (BUSY, claim("data"), claim("cache")),
        (PORTS, HOST_PORT, {"containers": [{"name": "web", "ports": [{"containerPort": 80}]}]}),
        ("1 Insufficient cpu", HOST_PORT, HOST_PORT),
    ],
)
def test_pods_that_are_not_in_the_way_are_not_blamed(said: str, spec: Any, other: Any) -> None:
    found = pod(said=f"0/1 nodes are available: {said}.", **spec)
    failure = Case().fails(found, others=[pod("old", "1", **other)])
    assert "version" not in str(failure) and failure.hint.startswith("free or add nodes")


# --- on the node --------------------------------------------------------------------------------------------------


def refused(name: str, reason: str, message: str, at: str = "1") -> Document:
    found = on_node(name, phase="Failed", reason=reason, message=message)
    found["metadata"]["creationTimestamp"] = at
    return found


def test_what_no_node_of_the_kind_admits_fails_at_the_second_pod() -> None:
    why = "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS"
    case, first = Case(), refused("a", "PodOSNotSupported", why)
    early = case.at(0, first)
    assert isinstance(early, Waiting) and f"pod a failed: {why}" in early.troubles.values()
    end = case.at(1, first, refused("b", "PodOSNotSupported", why, "2"))
    assert isinstance(end, Hopeless) and (end.failure.reason, end.failure.pod) == ("PodOSNotSupported", "b")
    assert why in str(end.failure) and "kubernetes.io/os" in end.failure.hint
    # A full node may be another one the next time.
    full = [refused(name, "OutOfcpu", "Node didn't have enough resource: cpu") for name in "ab"]
    assert isinstance(Case().at(0, *full), Waiting)


STARTING = {"name": "web", "ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("failed to construct FQDN from pod hostname and cluster domain, FQDN aa.bb is too long (64 ...)", "hostname"),
        (
            'rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "gvisor" is configured',
            "Class",
        ),
        ('rpc error: code = Unknown desc = open /proc/sys/net/core/x: sysctl "net.core.x" is not known', "sysctls"),
    ],
)
def test_a_pod_that_its_node_can_never_set_up_fails_after_a_grace_time(message: str, hint: str) -> None:
    case, found = Case(), on_node(containerStatuses=[STARTING])
    told = {"a": [event("FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")]}
    more = {"a": [event("FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}", count=2)]}
    case.at(0, found, events=told)
    early = case.at(6, found, events=told)
    words = message.rpartition("desc = ")[2]
    assert isinstance(early, Waiting) and words in "".join(early.troubles.values())
    case.at(17, found, events=told)
    end = case.at(18, found, events=more)
    assert isinstance(end, Hopeless) and end.failure.reason == "FailedSetup" and words in str(end.failure)
    assert hint in end.failure.hint


def test_a_network_that_is_not_ready_yet_is_waited_for() -> None:
    case, found = Case(), on_node(containerStatuses=[STARTING])
    told = {"a": [event("NetworkNotReady", "network is not ready: cni plugin not initialized", count=9)]}
    case.at(0, found, events=told)
    late = case.at(200, found, events=told)
    assert isinstance(late, Waiting) and "cni plugin not initialized" in "".join(late.troubles.values())


def test_a_node_that_does_not_accept_a_pod_is_named() -> None:
    found = on_node()
    found["status"] = {"phase": "Pending"}
    case = Case()
    case.at(0, found)
    late = case.at(6, found)
    assert isinstance(late, Waiting) and "waits for node node1" in "".join(late.troubles.values())


# --- init containers and native sidecars --------------------------------------------------------------------------


def status(name: str, restarts: int = 0, ready: bool = True, **state: Any) -> Document:
    return {"name": name, "restartCount": restarts, "ready": ready, "state": state or {"running": {}}, "lastState": {}}


def with_sidecar(restarts: int = 0, probe: Any = None) -> Document:
    """Ready, with a native sidecar that was restarted so often."""
    statuses = {"containerStatuses": [status("web")], "initContainerStatuses": [status("proxy", restarts)]}
    found = on_node(**statuses, conditions=[{"type": "Ready", "status": "True"}])
    probed = {"readinessProbe": {"httpGet": {"path": "/", "port": 80}}}
    found["spec"]["containers"] = [{"name": "web", **probed}]
    found["spec"]["initContainers"] = [{"name": "proxy", "restartPolicy": "Always", **(probe or {})}]
    return found


def test_a_native_sidecar_that_was_restarted_must_stay_up_like_any_container() -> None:
    case = Case()
    assert isinstance(case.at(0, with_sidecar(1)), Waiting)
    assert isinstance(case.at(4.9, with_sidecar(1)), Waiting)
    assert isinstance(case.at(5, with_sidecar(2)), Waiting)  # it crashed again: the time begins anew
    assert isinstance(case.at(9.9, with_sidecar(2)), Waiting)
    assert isinstance(case.at(10, with_sidecar(2)), Ready)


def test_a_native_sidecar_without_a_probe_must_stay_ready_for_a_while() -> None:
    case = Case()
    case.judge.min_ready = 2.0
    assert isinstance(case.at(0, with_sidecar()), Waiting)
    assert isinstance(case.at(2, with_sidecar()), Ready)
    probed = with_sidecar(probe={"readinessProbe": {"tcpSocket": {"port": 1}}})
    case = Case()
    case.judge.min_ready = 2.0
    assert isinstance(case.at(0, probed), Ready)


def test_restarts_of_an_init_container_that_has_ended_are_no_matter() -> None:
    found = with_sidecar()
    done = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    found["spec"]["initContainers"] = [{"name": "setup"}]
    found["status"]["initContainerStatuses"] = [status("setup", 2, **done)]
    assert isinstance(Case().at(0, found), Ready)


def test_an_init_container_that_does_not_end_is_named() -> None:
    waiting = status("web", ready=False, waiting={"reason": "PodInitializing"})
    found = on_node(containerStatuses=[waiting], initContainerStatuses=[status("setup", ready=False)])
    found["spec"]["initContainers"] = [{"name": "setup"}]
    case = Case()
    case.at(0, found)
    late = case.at(6, found)
    assert isinstance(late, Waiting) and list(late.troubles.values()) == [
        "pod a: waits for init container setup to end"
    ]
    said = explain_not_ready(CONTROLLER, [found], lambda _: ())
    assert said == "0 of 1 pods are ready; pod a waits for init container setup to end"
    assert "init container setup must end" in reason_not_ready(found, lambda _: (), ())[1]

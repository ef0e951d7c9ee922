"""Jobs of one completion: the same tests for the sandbox and for a real Kubernetes (v1.34).

Where they differ the sandbox is wrong. The real one is the cluster that KUBECONFIG names, with image lab/cases:1.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client, config

JOB, POD = "job", "pod"


@pytest.fixture(scope="session", params=["sandbox", pytest.param("real", marks=pytest.mark.cluster)])
def api(request):
    """A connection to the sandbox, then to the real cluster."""
    if request.param == "sandbox":
        kubeconfig = request.getfixturevalue("sandbox").kubeconfig
    elif not (kubeconfig := os.environ.get("KUBECONFIG")):
        pytest.skip("KUBECONFIG names no cluster")
    with config.new_client_from_config(kubeconfig) as connected:
        yield connected
        connected.rest_client.pool_manager.clear()


@pytest.fixture
def is_sandbox(cluster) -> bool:
    return "sandbox" in client.VersionApi(cluster.api).get_code().git_version


@pytest.fixture(autouse=True)
def image(cluster, is_sandbox) -> str:
    """A program that ends by itself. A real cluster refuses pods until the namespace has its account."""
    if is_sandbox:
        return "sample/job:1"
    cluster.wait("service_account", bool)
    return "lab/cases:1"


@pytest.fixture
def job(image) -> Callable[..., Any]:
    """Makes Jobs: `seconds` before the container ends, and its exit `code`."""

    def make(*, seconds: int = 0, code: int = 0, image: str = image, **spec: Any) -> Any:
        env = {"JOB_SECONDS": seconds, "JOB_EXIT": code}
        env |= {"SLEEP_THEN_EXIT": seconds} if seconds else {"EXIT": code} if code else {"EXIT0": 1}
        variables = [{"name": name, "value": str(value)} for name, value in env.items()]
        container = {"name": "main", "image": image, "env": variables}
        template = {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}}
        return {"metadata": {"name": "migrate"}, "spec": {"backoffLimit": 0, "template": template, **spec}}

    return make


def conditions(found: Any) -> dict[str, str]:
    """Those that hold, with their reasons."""
    return {c["type"]: c["reason"] for c in found["status"].get("conditions", ()) if c["status"] == "True"}


def has(name: str) -> Callable[[list[Any]], bool]:
    return lambda found: any(name in conditions(one) for one in found)


def test_a_job_succeeds(cluster, job):
    made = cluster.create(JOB, job())
    assert (made["spec"]["completions"], made["spec"]["parallelism"]) == (1, 1)
    (found,) = cluster.wait(JOB, has("Complete"))
    reached = "CompletionsReached"
    assert conditions(found) == {"SuccessCriteriaMet": reached, "Complete": reached}
    assert (found["status"]["succeeded"], found["status"].get("active")) == (1, None)
    assert found["status"]["startTime"] <= found["status"]["completionTime"]
    (pod,) = cluster.items(POD)
    uid = found["metadata"]["uid"]
    assert pod["metadata"]["labels"] == {
        "job-name": "migrate",
        "batch.kubernetes.io/job-name": "migrate",
        "controller-uid": uid,
        "batch.kubernetes.io/controller-uid": uid,
    }
    assert found["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert pod["status"]["phase"] == "Succeeded" and "finalizers" not in pod["metadata"]
    written = cluster.core.read_namespaced_pod_log(pod["metadata"]["name"], cluster.namespace)
    assert written.splitlines() in (["line 1"], ["done"])


def test_a_job_whose_pod_fails_has_failed(cluster, job):
    cluster.create(JOB, job(code=3))
    (found,) = cluster.wait(JOB, has("Failed"))
    exceeded = "BackoffLimitExceeded"
    assert conditions(found) == {"FailureTarget": exceeded, "Failed": exceeded}
    assert found["status"]["failed"] == 1 and "completionTime" not in found["status"]
    (pod,) = cluster.items(POD)
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_another_pod_is_tried_as_often_as_it_says(cluster, job, is_sandbox):
    if not is_sandbox:
        pytest.skip("a real cluster waits for half a minute in between")
    cluster.create(JOB, job(code=1, backoffLimit=2))
    (found,) = cluster.wait(JOB, has("Failed"))
    assert found["status"]["failed"] == 3 and len(cluster.items(POD)) == 3


def test_a_job_ends_when_its_time_is_up(cluster, job):
    cluster.create(JOB, job(seconds=600, activeDeadlineSeconds=1))
    (found,) = cluster.wait(JOB, has("Failed"))
    assert conditions(found)["Failed"] == "DeadlineExceeded"
    cluster.wait(POD, lambda pods: not pods)


def test_a_suspended_job_has_no_pods_until_it_is_resumed(cluster, job):
    made = cluster.create(JOB, job(seconds=600, suspend=True))
    (found,) = cluster.wait(JOB, has("Suspended"))
    assert not cluster.items(POD) and "startTime" not in found["status"]
    assert (made["metadata"]["generation"], found["metadata"]["generation"]) == (1, 1)
    found["spec"] |= {"suspend": False, "activeDeadlineSeconds": 60}
    assert cluster.replace(JOB, found)["metadata"]["generation"] == 2
    (found,) = cluster.wait(JOB, lambda jobs: jobs[0]["status"].get("active"))
    assert conditions(found) == {} and found["status"]["startTime"]
    cluster.patch(JOB, "migrate", {"spec": {"suspend": True}})
    cluster.wait(POD, lambda pods: not pods)
    (again,) = cluster.wait(JOB, has("Suspended"))
    assert again["status"]["startTime"] == found["status"]["startTime"]


@pytest.mark.parametrize("limit", [0, 1])
def test_a_pod_that_somebody_deletes_has_failed(cluster, job, limit, is_sandbox):
    if limit and not is_sandbox:
        pytest.skip("a real cluster waits for ten seconds in between")
    cluster.create(JOB, job(seconds=600, backoffLimit=limit))
    (pod,) = cluster.wait(POD, lambda pods: pods and pods[0]["status"]["phase"] == "Running")
    cluster.delete(POD, pod["metadata"]["name"])
    if not limit:
        cluster.wait(JOB, has("Failed"))
        return
    cluster.wait(POD, lambda pods: any(p["metadata"]["uid"] != pod["metadata"]["uid"] for p in pods))


@pytest.mark.parametrize("policy", ["Foreground", "Background"])
def test_a_deleted_job_takes_its_pods_with_it(cluster, job, policy):
    cluster.create(JOB, job(seconds=600))
    cluster.wait(POD, lambda pods: pods and pods[0]["status"]["phase"] == "Running")
    cluster.delete(JOB, "migrate", propagation_policy=policy)
    if policy == "Foreground":
        assert "foregroundDeletion" in cluster.read(JOB, "migrate")["metadata"]["finalizers"]
    cluster.wait(POD, lambda pods: not pods)
    cluster.wait(JOB, lambda jobs: not jobs)


def test_without_a_policy_its_pods_stay(cluster, job):
    cluster.create(JOB, job())
    cluster.wait(JOB, has("Complete"))
    cluster.delete(JOB, "migrate")
    cluster.wait(JOB, lambda jobs: not jobs)
    (pod,) = cluster.wait(POD, lambda pods: pods and not pods[0]["metadata"].get("ownerReferences"))
    assert "finalizers" not in pod["metadata"]


def test_an_image_that_cannot_be_pulled_is_waited_for(cluster, job):
    cluster.create(JOB, job(image="localhost:1/job:missing"))
    cluster.event("Failed", "Error: ErrImagePull")
    assert conditions(cluster.read(JOB, "migrate")) == {}


def test_pods_that_are_refused_are_said(cluster, job):
    made = job()
    made["spec"]["template"]["spec"]["volumes"] = [{"name": "x", "hostPath": {"path": "/"}}]
    cluster.request(
        "PATCH",
        f"api/v1/namespaces/{cluster.namespace}",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
        "application/merge-patch+json",
    )
    cluster.create(JOB, made)
    assert "violates PodSecurity" in cluster.event("FailedCreate")["message"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template": {"spec": {"restartPolicy": "Always"}}}, 'Required value: valid values: "OnFailure", "Never"'),
        ({"backoffLimit": -1}, "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
    ],
)
def test_jobs_that_cannot_be_are_refused(cluster, job, refused, change, said):
    made = job()
    template = change.pop("template", {}).get("spec", {})
    made["spec"]["template"]["spec"] |= template
    made["spec"] |= change
    assert said in refused(422, lambda: cluster.create(JOB, made))["message"]


def test_unknown_fields_are_refused(cluster, job, refused):
    made = job(bakcoffLimit=1)
    assert (
        'unknown field "spec.bakcoffLimit"'
        in refused(400, lambda: cluster.create(JOB, made, field_validation="Strict"))["message"]
    )


def test_what_a_job_runs_cannot_be_changed(cluster, job, refused):
    cluster.create(JOB, job(suspend=True))
    (found,) = cluster.wait(JOB, has("Suspended"))
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "sample/job:2"
    assert "spec.template" in refused(422, lambda: cluster.replace(JOB, found))["message"]


def test_a_log_is_read_from_a_time_on(cluster, job):
    cluster.create(JOB, job())
    cluster.wait(JOB, has("Complete"))
    (pod,) = cluster.items(POD)
    path = f"{cluster.path(POD, pod['metadata']['name'])}/log"

    def lines(**query: str) -> list[str]:
        pool = cluster.api.rest_client.pool_manager
        answer = pool.request("GET", f"{cluster.api.configuration.host}/{path}", fields=query)
        assert answer.status == 200, json.loads(answer.data)
        return answer.data.decode().splitlines()

    stamped = lines(timestamps="true")
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"
    assert all(re.fullmatch(f"{time} (line 1|done)", line) for line in stamped)
    assert lines(sinceTime=stamped[0].partition(" ")[0], timestamps="true") == stamped
    assert lines(sinceTime="2100-01-01T00:00:00Z") == []
    assert len(stamped) == 1 and lines(tailLines="1") == [stamped[0].partition(" ")[2]]


def test_what_the_sandbox_cannot_do_is_refused(cluster, job, refused, is_sandbox):
    if is_sandbox:
        assert "more than one completion" in refused(501, lambda: cluster.create(JOB, job(completions=2)))["message"]

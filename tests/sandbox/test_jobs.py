"""Jobs as the controller of Kubernetes 1.34 carries them out, for Jobs of one completion."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

JOB, POD = "job", "pod"


def job(name: str = "migrate", *, image: str = "sample/job:1", env: dict[str, str] | None = None, **spec: Any) -> Any:
    variables = [{"name": key, "value": value} for key, value in (env or {}).items()]
    container = {"name": "main", "image": image, "env": variables}
    template = {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": [container]}}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template, **spec}}


def conditions(found: Any) -> dict[str, str]:
    """Those that hold, with their reasons."""
    return {c["type"]: c["reason"] for c in found["status"].get("conditions", ()) if c["status"] == "True"}


def has(name: str) -> Callable[[list[Any]], bool]:
    return lambda found: any(name in conditions(one) for one in found)


def test_a_job_succeeds(cluster):
    made = cluster.create(JOB, job(env={"JOB_TEXT": "hello"}))
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
    assert cluster.core.read_namespaced_pod_log(pod["metadata"]["name"], cluster.namespace) == "line 1 hello\n"


def test_a_job_whose_pod_fails_has_failed(cluster):
    cluster.create(JOB, job(env={"JOB_EXIT": "3"}))
    (found,) = cluster.wait(JOB, has("Failed"))
    exceeded = "BackoffLimitExceeded"
    assert conditions(found) == {"FailureTarget": exceeded, "Failed": exceeded}
    assert found["status"]["failed"] == 1 and "completionTime" not in found["status"]
    (pod,) = cluster.items(POD)
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_another_pod_is_tried_as_often_as_it_says(cluster):
    cluster.create(JOB, job(env={"JOB_EXIT": "1"}, backoffLimit=2))
    (found,) = cluster.wait(JOB, has("Failed"))
    assert found["status"]["failed"] == 3 and len(cluster.items(POD)) == 3


def test_a_job_ends_when_its_time_is_up(cluster):
    cluster.create(JOB, job(env={"JOB_SECONDS": "600"}, activeDeadlineSeconds=1))
    (found,) = cluster.wait(JOB, has("Failed"))
    assert conditions(found)["Failed"] == "DeadlineExceeded"
    cluster.wait(POD, lambda pods: not pods)


def test_a_suspended_job_has_no_pods_until_it_is_resumed(cluster):
    made = cluster.create(JOB, job(env={"JOB_SECONDS": "600"}, suspend=True))
    (found,) = cluster.wait(JOB, has("Suspended"))
    assert not cluster.items(POD) and "startTime" not in found["status"]
    assert (made["metadata"]["generation"], found["metadata"]["generation"]) == (1, 1)
    found["spec"] |= {"suspend": False, "activeDeadlineSeconds": 60}
    assert cluster.replace(JOB, found)["metadata"]["generation"] == 2
    (found,) = cluster.wait(JOB, lambda jobs: jobs[0]["status"].get("active"))
    assert conditions(found) == {} and found["status"]["startTime"]
    cluster.patch(JOB, "migrate", {"spec": {"suspend": True}})
    cluster.wait(POD, lambda pods: not pods)
    (found,) = cluster.wait(JOB, has("Suspended"))
    assert "startTime" not in found["status"]


@pytest.mark.parametrize("limit", [0, 1])
def test_a_pod_that_somebody_deletes_has_failed(cluster, limit):
    cluster.create(JOB, job(env={"JOB_SECONDS": "600"}, backoffLimit=limit))
    (pod,) = cluster.wait(POD, lambda pods: pods and pods[0]["status"]["phase"] == "Running")
    cluster.delete(POD, pod["metadata"]["name"])
    if not limit:
        cluster.wait(JOB, has("Failed"))
        return
    cluster.wait(POD, lambda pods: any(p["metadata"]["uid"] != pod["metadata"]["uid"] for p in pods))


@pytest.mark.parametrize("policy", ["Foreground", "Background"])
def test_a_deleted_job_takes_its_pods_with_it(cluster, policy):
    cluster.create(JOB, job(env={"JOB_SECONDS": "600"}))
    cluster.wait(POD, lambda pods: pods and pods[0]["status"]["phase"] == "Running")
    cluster.delete(JOB, "migrate", propagation_policy=policy)
    if policy == "Foreground":
        assert "foregroundDeletion" in cluster.read(JOB, "migrate")["metadata"]["finalizers"]
    cluster.wait(POD, lambda pods: not pods)
    cluster.wait(JOB, lambda jobs: not jobs)


def test_without_a_policy_its_pods_stay(cluster):
    cluster.create(JOB, job())
    cluster.wait(JOB, has("Complete"))
    cluster.delete(JOB, "migrate")
    cluster.wait(JOB, lambda jobs: not jobs)
    (pod,) = cluster.wait(POD, lambda pods: pods and not pods[0]["metadata"].get("ownerReferences"))
    assert "finalizers" not in pod["metadata"]


def test_an_image_that_cannot_be_pulled_is_waited_for(cluster):
    cluster.create(JOB, job(image="sample/job:missing"))
    cluster.event("Failed", "Error: ErrImagePull")
    assert conditions(cluster.read(JOB, "migrate")) == {}


def test_pods_that_are_refused_are_said(cluster):
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
def test_jobs_that_cannot_be_are_refused(cluster, refused, change, said):
    made = job()
    template = change.pop("template", {}).get("spec", {})
    made["spec"]["template"]["spec"] |= template
    made["spec"] |= change
    assert said in refused(422, lambda: cluster.create(JOB, made))["message"]


def test_unknown_fields_and_other_jobs_are_refused(cluster, refused):
    made = job(bakcoffLimit=1)
    assert (
        'unknown field "spec.bakcoffLimit"'
        in refused(400, lambda: cluster.create(JOB, made, field_validation="Strict"))["message"]
    )
    assert "more than one completion" in refused(501, lambda: cluster.create(JOB, job(completions=2)))["message"]


def test_what_a_job_runs_cannot_be_changed(cluster, refused):
    cluster.create(JOB, job(suspend=True))
    (found,) = cluster.wait(JOB, has("Suspended"))
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "sample/job:2"
    assert "spec.template" in refused(422, lambda: cluster.replace(JOB, found))["message"]


def test_a_log_is_read_from_a_time_on(cluster):
    cluster.create(JOB, job(env={"JOB_LINES": "3"}))
    cluster.wait(JOB, has("Complete"))
    (pod,) = cluster.items(POD)
    path = f"{cluster.path(POD, pod['metadata']['name'])}/log"

    def lines(**query: str) -> list[str]:
        pool = cluster.api.rest_client.pool_manager
        answer = pool.request("GET", f"{cluster.api.configuration.host}/{path}", fields=query)
        assert answer.status == 200, json.loads(answer.data)
        return answer.data.decode().splitlines()

    stamped = lines(timestamps="true")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line \d", line) for line in stamped)
    assert lines(sinceTime=stamped[0].partition(" ")[0], timestamps="true") == stamped
    assert lines(sinceTime="2100-01-01T00:00:00Z") == [] and lines(tailLines="1") == ["line 3"]

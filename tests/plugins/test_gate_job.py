"""Gate `job`, look by look, on fakes: what becomes of the Job, of its log, and of a deployment when one is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from deployer.core.model.plan import Workload
from deployer.descriptor.schema_errors import schema_problems
from deployer.plugins.gate_job import JobGate, log, manifest
from deployer.sdk.gate import Failed, Outcome, Passed, Pending, Point
from deployer.sdk.kube import JOB, POD, Changed
from deployer.sdk.plugin import Document
from deployer.sdk.strategy import Plan
from deployer.testing.gates import CHECKS, Check, FakeGate, GateBench

DEPLOYMENT = "0c5f6c1e-5b1a-4b7e-9f57-0a0e9d5c0001"
PODSPEC = {
    "serviceAccountName": "shop",
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "affinity": {"podAntiAffinity": {}, "nodeAffinity": {"kept": True}},
    "containers": [
        {
            "name": "web",
            "image": "shop:2",
            "command": ["serve"],
            "args": ["--port", "8080"],
            "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": 8080}},
            "lifecycle": {"preStop": {}},
            "env": [{"name": "APP_NAME", "value": "shop"}, {"name": "MODE", "value": "serve"}],
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        }
    ],
    "volumes": [{"name": "cache", "emptyDir": {}}],
}


def planned(podspec: Document = PODSPEC, **more: Any) -> Plan:
    controller = {"spec": {"template": {"spec": podspec}}}
    about = {"namespace": "default", "app": "shop", "deployment": DEPLOYMENT, "version": "2", **more}
    return Plan(**about, objects=Workload(controller=controller))


class Bench(FakeGate):
    """A gate whose Job a test plays the controller of."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Point.BEFORE_START, options, "migrate", planned(), 600.0)
        self.gate = JobGate()

    def check(self) -> Outcome:
        """One look."""
        return self.gate.check(self.context)

    @property
    def job(self) -> Document:
        """The one Job that is there."""
        (found,) = [obj for (kind, _), obj in self.kube.objects.items() if kind == JOB]
        return found

    def status(self, *conditions: str, reason: str = "", **status: Any) -> None:
        """What the Job's controller writes."""
        said = [{"type": name, "status": "True", "reason": reason} for name in conditions]
        self.job["status"] = {"conditions": said, **status}

    def pod(self, name: str = "p1", phase: str = "Running", **state: Any) -> Document:
        """A pod of the Job."""
        owner = {"controller": True, "uid": self.job["metadata"]["uid"]}
        about = {"name": name, "uid": name, "labels": self.job["spec"]["template"]["metadata"]["labels"]}
        about |= {"ownerReferences": [owner], "creationTimestamp": f"2026-01-01T00:00:0{name[-1]}Z"}
        running = state or {"running": {}}
        status = {"phase": phase, "containerStatuses": [{"name": "web", "state": running}]}
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
        return self.kube.put(POD, {"metadata": about, "spec": {"nodeName": "n", "containers": []}, "status": status})


@pytest.fixture
def bench() -> Bench:
    return Bench(command=["migrate"])


# --- once --------------------------------------------------------------------------------------------------------


def test_a_job_that_succeeds_lets_the_deployment_on(bench: Bench) -> None:
    outcome = bench.check()
    assert isinstance(outcome, Pending) and outcome.event == Changed.since(JOB, bench.job)
    assert [write.partition(" ")[0] for write in bench.kube.writes] == ["create", "update"]
    assert bench.job["spec"]["suspend"] is False and bench.job["spec"]["activeDeadlineSeconds"] == 595
    bench.status(active=1)
    assert isinstance(bench.check(), Pending)
    bench.status("Complete", succeeded=1)
    assert isinstance(bench.check(), Passed)
    assert len(bench.kube.writes) == 2
    bench.gate.end(bench.context)
    assert not bench.kube.objects


@pytest.mark.parametrize("conditions", [(), ("SuccessCriteriaMet",), ("Suspended",)])
def test_only_completion_is_success(bench: Bench, conditions: tuple[str, ...]) -> None:
    bench.check()
    bench.status(*conditions, succeeded=1)
    assert isinstance(bench.check(), Pending)
    bench.status("Complete", succeeded=0)
    assert isinstance(bench.check(), Pending)


class Died(Exception):
    """Of kill -9."""


def killed_at(bench: Bench, at: int, after: bool) -> None:
    """Look until the process dies before or after that write, to the cluster or to the store."""
    count = 0

    def write(action: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        if count == at and not after:
            raise Died
        result = action()
        if count == at:
            raise Died
        return result

    server: Any = bench.kube._server
    create, replace = server.create, server.replace
    server.create = lambda *args, **more: write(lambda: create(*args, **more))
    server.replace = lambda *args, **more: write(lambda: replace(*args, **more))
    memory = bench.memory

    class Memory(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            write(lambda: memory.__setitem__(key, value))

        def get(self, key: str, default: Any = None) -> Any:
            return memory.get(key, default)

    bench.memory = Memory()
    try:
        with pytest.raises(Died):
            bench.check()
    finally:
        server.create, server.replace, bench.memory = create, replace, memory


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_killed_at_any_write_there_is_one_job_that_was_started_once(bench: Bench, at: int, after: bool) -> None:
    killed_at(bench, at, after)
    assert isinstance(bench.check(), Pending)
    starts = [write for write in bench.kube.writes if write.startswith("update")]
    makes = [write for write in bench.kube.writes if write.startswith("create")]
    assert (len(makes), len(starts)) == (1, 1)
    assert bench.memory["uid"] == bench.job["metadata"]["uid"] and bench.memory["started"] is True


@pytest.mark.parametrize("at", [2, 3, 4])
def test_one_that_is_lost_while_nobody_looks_is_never_run_again(bench: Bench, at: int) -> None:
    """From the moment on in which its uid is durable; before that it was suspended, and cannot have run."""
    killed_at(bench, at, after=True)
    bench.kube.objects.clear()
    outcome = bench.check()
    assert isinstance(outcome, Failed) and "was deleted" in outcome.reason
    assert not bench.kube.objects
    assert isinstance(bench.check(), Failed)


def test_one_that_was_never_started_may_be_made_again(bench: Bench) -> None:
    killed_at(bench, 1, after=True)
    bench.kube.objects.clear()
    assert isinstance(bench.check(), Pending)
    assert bench.memory["uid"] == bench.job["metadata"]["uid"]


# --- lost ---------------------------------------------------------------------------------------------------------


def delete(bench: Bench) -> None:
    del bench.kube.objects[JOB, bench.job["metadata"]["name"]]


def replace(bench: Bench) -> None:
    found = bench.job
    delete(bench)
    bench.kube.put(JOB, {**found, "metadata": {**found["metadata"], "uid": "another"}})
    bench.status("Complete", succeeded=1)


def deleting(bench: Bench) -> None:
    bench.status("Complete", succeeded=1)
    bench.job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def suspend(bench: Bench) -> None:
    bench.job["spec"]["suspend"] = True


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (delete, r"job shop-2-migrate-[0-9a-f]{16} was deleted"),
        (replace, "somebody made another one of that name"),
        (deleting, "is being deleted"),
        (suspend, "was suspended by somebody, which ends its pods"),
    ],
)
def test_a_job_that_is_lost_has_not_passed(bench: Bench, harm: Callable[[Bench], None], said: str) -> None:
    bench.check()
    harm(bench)
    outcome = bench.check()
    assert isinstance(outcome, Failed) and re.search(said, outcome.reason), outcome
    assert outcome.reason.endswith("whether it did its work is not known")
    assert "deploying again runs it once more" in outcome.hint


def test_a_job_that_somebody_changed_before_its_start_is_not_started(bench: Bench) -> None:
    killed_at(bench, 2, after=True)
    bench.job["metadata"]["generation"] = 2
    assert isinstance(bench.check(), Failed)
    assert bench.job["spec"]["suspend"] is True


def test_a_job_of_that_name_that_is_not_ours_stays_as_it_is(bench: Bench) -> None:
    bench.check()
    foreign = {"metadata": {"name": bench.job["metadata"]["name"]}, "spec": {"suspend": True}}
    bench.memory.clear()
    bench.kube.objects.clear()
    bench.kube.put(JOB, foreign)
    outcome = bench.check()
    assert isinstance(outcome, Failed) and "belongs to no known owner" in outcome.reason
    bench.gate.end(bench.context)
    assert bench.job["spec"] == {"suspend": True}


def test_a_job_that_looks_like_ours_and_ran_already_proves_nothing(bench: Bench) -> None:
    """Whoever may make Jobs in the namespace can write our annotations on one."""
    bench.check()
    bench.memory.clear()
    bench.status("Complete", succeeded=1)
    outcome = bench.check()
    assert isinstance(outcome, Failed) and "was not made by this gate" in outcome.reason


def test_a_job_of_an_earlier_deployment_that_still_runs_is_waited_for(bench: Bench) -> None:
    before = bench.kube.for_deployment("earlier").annotations(manifest.ROLE)
    labels = {"app.kubernetes.io/managed-by": "deployer"}
    meta = {"name": "shop-1-migrate-0", "annotations": before, "labels": labels}
    bench.kube.put(JOB, {"metadata": meta, "spec": {}, "status": {"active": 1}})
    outcome = bench.check()
    assert isinstance(outcome, Pending) and outcome.reason == "job shop-1-migrate-0 of this app to end"
    bench.status(active=0)
    assert isinstance(bench.check(), Pending) and "uid" in bench.memory


# --- failed -------------------------------------------------------------------------------------------------------


def test_a_container_that_fails_is_told_with_its_exit_code(bench: Bench) -> None:
    bench.check()
    bench.pod(phase="Failed", terminated={"exitCode": 3, "reason": "Error"})
    bench.status("Failed", reason="BackoffLimitExceeded", failed=1)
    outcome = bench.check()
    assert isinstance(outcome, Failed)
    assert re.fullmatch(r"job \S+ failed: container web ended with exit code 3", outcome.reason)


def test_as_soon_as_it_will_fail_it_has_failed(bench: Bench) -> None:
    """Kubernetes says so before its pods have ended."""
    bench.check()
    bench.status("FailureTarget", reason="DeadlineExceeded")
    outcome = bench.check()
    assert isinstance(outcome, Failed) and outcome.reason.endswith("failed: it did not end in time")
    assert outcome.hint.startswith("give the gate more timeoutSeconds")


def test_of_another_container_that_failed_the_last_lines_are_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an init container, whose log is not copied."""
    monkeypatch.setattr(bench.kube._server, "pod_log", lambda *_, **__: "no such host\n")
    bench.check()
    pod = bench.pod(phase="Failed", waiting={"reason": "PodInitializing"})
    pod["status"]["initContainerStatuses"] = [{"name": "init", "state": {"terminated": {"exitCode": 7}}}]
    bench.kube.put(POD, pod)
    bench.status("Failed", reason="BackoffLimitExceeded")
    outcome = bench.check()
    assert isinstance(outcome, Failed) and "container init ended with exit code 7" in outcome.reason
    assert bench.log[-1] == "last lines of container init in pod p1:\nno such host"


def test_pods_that_were_evicted_are_a_failure(bench: Bench) -> None:
    bench.check()
    pod = bench.pod(phase="Failed", terminated={"exitCode": 0})
    pod["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory.", "containerStatuses": []}
    bench.kube.put(POD, pod)
    bench.status("Failed", reason="BackoffLimitExceeded")
    outcome = bench.check()
    assert isinstance(outcome, Failed) and "The node was low on resource" in outcome.reason


def test_an_image_that_cannot_be_used_fails_before_the_time_is_up(bench: Bench) -> None:
    bench.check()
    bench.pod(phase="Pending", waiting={"reason": "InvalidImageName", "message": "couldn't parse image"})
    pod = bench.kube.objects[POD, "p1"]
    pod["status"]["conditions"] = pod["status"]["conditions"][:1]
    outcome = bench.check()
    assert isinstance(outcome, Failed) and "cannot use the image" in outcome.reason


# --- what the Job is ----------------------------------------------------------------------------------------------


def test_its_pod_is_the_versions_without_what_serves(bench: Bench) -> None:
    bench.check()
    template = bench.job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container == {
        "name": "web",
        "image": "shop:2",
        "command": ["migrate"],
        "env": PODSPEC["containers"][0]["env"],  # type: ignore[index]
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    assert template["spec"]["restartPolicy"] == "Never" and template["spec"]["serviceAccountName"] == "shop"
    assert template["spec"]["affinity"] == {"nodeAffinity": {"kept": True}}
    assert "topologySpreadConstraints" not in template["spec"]
    assert template["metadata"]["labels"] == {manifest.LABEL: bench.job["metadata"]["name"]}
    assert (bench.job["spec"]["backoffLimit"], bench.job["spec"]["completions"]) == (0, 1)


@pytest.mark.parametrize(
    ("options", "command", "args"),
    [
        ({}, ["serve"], ["--port", "8080"]),
        ({"args": ["--once"]}, ["serve"], ["--once"]),
        ({"command": ["migrate"]}, ["migrate"], None),
        ({"command": ["migrate"], "args": ["up"]}, ["migrate"], ["up"]),
        ({"image": "flyway:10"}, None, None),
        ({"image": "flyway:10", "args": ["migrate"]}, None, ["migrate"]),
    ],
)
def test_a_command_of_its_own_has_no_arguments_of_another(options: Document, command: object, args: object) -> None:
    bench = Bench(**options)
    bench.check()
    (container,) = bench.job["spec"]["template"]["spec"]["containers"]
    assert (container.get("command"), container.get("args")) == (command, args)
    assert container["image"] == options.get("image", "shop:2")


def test_variables_of_its_own_come_in_the_place_of_the_versions() -> None:
    secret = {"name": "DB", "valueFrom": {"secretKeyRef": {"name": "db", "key": "admin"}}}
    bench = Bench(env=[secret, {"name": "MODE", "value": "migrate"}])
    bench.check()
    (container,) = bench.job["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "APP_NAME", "value": "shop"}, {"name": "MODE", "value": "migrate"}, secret]


def test_of_several_containers_one_must_be_named() -> None:
    podspec = {"containers": [{"name": "web", "image": "a"}, {"name": "proxy", "image": "b"}]}
    assert manifest.chosen(podspec, "proxy") == "proxy"
    descriptor = {"podspec": podspec, "gates": {"beforeStart": [{"type": "job", "name": "x"}]}}
    (problem,) = JobGate().check_descriptor(descriptor)
    assert problem.path == "gates.beforeStart[0].options.container"
    assert problem.message == "is required: the podspec has several containers, web, proxy"
    descriptor["gates"]["beforeStart"][0]["options"] = {"container": "wbe"}  # type: ignore[index]
    (problem,) = JobGate().check_descriptor(descriptor)
    assert problem.message == "wbe is no container of the podspec; it has web, proxy"


@pytest.mark.parametrize("options", [{"container": "nothing"}, {"labels": {"app": "shop"}}])
def test_one_that_the_settings_force_is_looked_at_when_it_is_asked(options: Document) -> None:
    bench = Bench(**options)
    outcome = bench.check()
    assert isinstance(outcome, Failed) and outcome.reason.startswith(f"options.{next(iter(options))} ")
    assert not bench.kube.writes


def test_names_fit_whatever_the_app_and_the_gate_are_called() -> None:
    names = set()
    for app, version, gate, point in [
        ("a" * 40, "1." + "b" * 20, "c" * 63, "beforeStart"),
        ("a" * 40, "1." + "b" * 20, "c" * 63, "beforeSwitch"),
        ("a" * 40, "1." + "b" * 20, "c" * 62 + "d", "beforeStart"),
        ("shop", "1_2.A", "x", "beforeStart"),
    ]:
        name = manifest.job_name(planned(app=app, version=version), point, gate, {})
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
        names.add(name)
    assert len(names) == 4
    one, other = ({"args": [text]} for text in "ab")
    assert manifest.job_name(planned(), "beforeStart", "x", one) != manifest.job_name(
        planned(), "beforeStart", "x", other
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": {"app": "shop"}}, "app may not be set"),
        ({"labels": {"version": "2"}}, "version may not be set"),
        ({"labels": {"batch.kubernetes.io/job-name": "x"}}, "may not be set"),
        ({"labels": {"kube-deployer/gate-job": "x"}}, "may not be set"),
        ({"annotations": {"container.apparmor.security.beta.kubernetes.io/web": "unconfined"}}, "may not be set"),
        ({"annotations": {"kube-deployer/deployment": "x"}}, "may not be set"),
        ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "A is there twice"),
    ],
)
def test_what_would_make_it_another_ones_is_refused(options: Document, said: str) -> None:
    gates = {"afterSwitch": [{"type": "http", "name": "a"}, {"type": "job", "name": "b", "options": options}]}
    (problem,) = JobGate().check_descriptor({"podspec": PODSPEC, "gates": gates})
    assert said in problem.message and problem.path.startswith("gates.afterSwitch[1].options.")


@pytest.mark.parametrize(
    "options",
    [
        {"podspec": {}},
        {"env": {"A": "1"}},
        {"env": [{"name": "A", "value": 1}]},
        {"env": [{"name": "A=B", "value": "1"}]},
        {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
        {"env": [{"name": "A", "valueFrom": {}}]},
        {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"path": "/etc/shadow"}}}]},
        {"command": []},
        {"command": "migrate"},
        {"image": "a b"},
        {"image": ""},
        {"backoffLimit": 11},
        {"backoffLimit": -1},
        {"backoffLimit": True},
        {"labels": {"a b": "c"}},
        {"labels": {"a": "b c"}},
        {"labels": {"a": "b\n"}},
        {"securityContext": {"privileged": True}},
        {"hostNetwork": True},
    ],
)
def test_options_that_cannot_be_are_refused(options: Document) -> None:
    assert list(schema_problems(options, JobGate().options_schema))


def test_options_that_can_be_are_taken() -> None:
    options = {
        "container": "web",
        "image": "registry:5000/shop/migrate@sha256:0",
        "command": ["sh", "-c", "migrate"],
        "args": [],
        "env": [
            {"name": "A"},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}},
        ],
        "backoffLimit": 3,
        "labels": {"sidecar.istio.io/inject": "false", "x": ""},
        "annotations": {"linkerd.io/inject": "disabled"},
    }
    assert not list(schema_problems(options, JobGate().options_schema))
    bench = Bench(**options)
    bench.check()
    assert bench.job["spec"]["podReplacementPolicy"] == "Failed"
    assert bench.job["spec"]["template"]["metadata"]["annotations"] == {"linkerd.io/inject": "disabled"}


# --- its log ------------------------------------------------------------------------------------------------------


def stamped(text: str, second: int = 0, nanos: int = 0) -> str:
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.{nanos:09}Z {text}"


def copied(bench: Bench) -> list[str]:
    """The lines of the Job's log that the deployment's has."""
    found = [entry.split("\n") for entry in bench.log if " writes:\n" in entry]
    return [line for lines in found for line in lines[1:]]


def test_each_line_is_there_once(bench: Bench) -> None:
    bench.check()
    bench.pod()
    lines = bench.kube.logs["p1", "web"] = [stamped("one"), stamped("two"), stamped("two", 0, 5)]
    bench.check()
    bench.check()
    assert copied(bench) == ["one", "two", "two"]
    lines += [stamped("two", 0, 5), stamped("", 1), stamped("  three", 1), stamped("four", 2)]
    bench.check()
    bench.gate = JobGate()  # as after a restart
    bench.check()
    assert copied(bench) == ["one", "two", "two", "two", "", "  three", "four"]
    assert bench.log.count("container web of pod p1 writes:\none\ntwo\ntwo") == 1


def test_lines_that_the_node_has_no_more_are_no_trouble(bench: Bench) -> None:
    """It keeps 10 MiB, and the rest is rotated away."""
    bench.check()
    bench.pod()
    bench.kube.logs["p1", "web"] = [stamped(str(n), n) for n in range(5)]
    bench.check()
    bench.kube.logs["p1", "web"] = ["unable to retrieve container logs", *(stamped(str(n), n) for n in range(4, 8))]
    bench.check()
    assert copied(bench) == [str(n) for n in range(8)]


def test_the_log_of_a_second_attempt_follows_the_first() -> None:
    bench = Bench(backoffLimit=1)
    bench.check()
    bench.pod("p1", "Failed", terminated={"exitCode": 1})
    bench.kube.logs["p1", "web"] = [stamped("a", 5)]
    bench.check()
    bench.kube.logs["p1", "web"].append(stamped("b", 6))
    bench.pod("p2")
    bench.kube.logs["p2", "web"] = [stamped("c", 1)]
    bench.check()
    bench.check()
    assert copied(bench) == ["a", "b", "c"]
    del bench.kube.objects[POD, "p2"]
    bench.check()
    assert copied(bench) == ["a", "b", "c"]


def test_a_flood_is_cut_and_its_end_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.check()
    bench.pod(phase="Failed", terminated={"exitCode": 1})
    bench.kube.logs["p1", "web"] = [stamped("x" * 300, n) for n in range(10_000 // 60 * 60)]
    monkeypatch.setattr(bench.kube._server, "pod_log", lambda *_, **__: "the last words\n")
    bench.status("Failed", reason="BackoffLimitExceeded")
    bench.check()
    assert sum(map(len, copied(bench))) <= log.MOST_BYTES and len(copied(bench)) <= log.MOST_LINES
    assert max(len(entry) for entry in bench.log) < 64 * 1024
    assert len([entry for entry in bench.log if "writes more than is copied here" in entry]) == 1
    assert bench.log[-1] == "last lines of container web in pod p1:\nthe last words"


def test_a_flood_within_one_second_ends(bench: Bench) -> None:
    """Kubernetes cannot be asked for what comes after a part of a second."""
    bench.check()
    bench.pod()
    bench.kube.logs["p1", "web"] = [stamped("x" * 1000) for _ in range(256)]
    bench.check()
    bench.check()
    assert len(copied(bench)) == 256
    assert len([entry for entry in bench.log if "writes more than is copied here" in entry]) == 1


def test_a_line_that_is_too_long_is_left_out_as_a_whole(bench: Bench) -> None:
    bench.check()
    bench.pod()
    bench.kube.logs["p1", "web"] = [stamped("x" * 16_385), stamped("y", 1)]
    bench.check()
    assert copied(bench) == ["(a line of 16385 characters is left out)", "y"]


def test_what_it_wrote_before_a_cancellation_is_copied(bench: Bench) -> None:
    bench.check()
    bench.pod()
    bench.kube.logs["p1", "web"] = [stamped("half way")]
    bench.gate.end(bench.context)
    assert copied(bench) == ["half way"]
    assert not [name for kind, name in bench.kube.objects if kind == JOB]
    bench.gate.end(bench.context)


def test_every_point_has_its_own_job() -> None:
    first, second = Bench(), Bench()
    second.point = Point.AFTER_SWITCH
    first.check(), second.check()
    assert first.job["metadata"]["name"] != second.job["metadata"]["name"]


# --- what every gate must do --------------------------------------------------------------------------------------


def ends_as(condition: str, **status: Any) -> Callable[[FakeGate], None]:
    """The Job's controller says so of one that was started."""

    def world(fake: FakeGate) -> None:
        for (kind, _), found in fake.kube.objects.items():
            if kind == JOB and not found["spec"]["suspend"]:
                found["status"] = {"conditions": [{"type": condition, "status": "True"}], **status}

    world.__name__ = condition
    return world


def lost(fake: FakeGate) -> None:
    fake.kube.objects.clear()


def never_ends(fake: FakeGate) -> None:
    pass


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: getattr(check, "__name__", ""))
def test_it_does_what_every_gate_must(check: Check) -> None:
    passes, fails = ends_as("Complete", succeeded=1), ends_as("Failed", failed=1)
    wrong = [{"container": "nothing"}, {"env": {"A": "1"}}, {"labels": {"app": "shop"}}]
    options = {"command": ["migrate"], "env": [{"name": "A", "value": "1"}]}
    check(GateBench(JobGate, passes, [fails], [lost, never_ends], options, wrong, Point.BEFORE_START))

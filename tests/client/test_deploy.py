"""`deployer deploy` as a pipeline has it: one command, and an exit code that says how it ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import Rest

from .conftest import Run, shop


def write(text: str, name: str = "shop.yaml") -> str:
    Path(name).write_text(text)
    return name


def deployments(service: Rest, app: str = "shop") -> list[dict]:
    status, found = service.call("GET", "/deployments/", query=f"&appname={app}")
    assert status == 200
    return found


def test_one_command_stores_deploys_follows_and_ends_with_zero(run: Run, service: Rest) -> None:
    done = run("deploy", write(shop()))
    assert done.code == 0, done.err
    [deployment] = deployments(service)
    assert deployment["status"] == "DEPLOYED"
    assert done.out == f"shop version 1 is live (deployment {deployment['id']})\n"
    assert "DEPLOYED: version 1 is live" in done.err.splitlines()[-1]


def test_the_same_descriptor_is_updated_and_not_stored_again(run: Run, service: Rest) -> None:
    for image in ("sample/web:1", "sample/web:2", "sample/web:2"):
        assert run("deploy", write(shop(image))).code == 0
    status, stored = service.call("GET", "/descriptors/")
    assert status == 200 and len(stored) == 1
    assert stored[0]["podspec"]["containers"][0]["image"] == "sample/web:2"
    assert [d["version"] for d in deployments(service)] == ["3", "2", "1"]


def test_a_version_that_crashes_is_told_with_its_last_words(run: Run, service: Rest) -> None:
    done = run("deploy", write(shop("sample/web:crash")))
    assert done.code == 1
    assert "failed (CrashLoop)" in done.out and "crashing on purpose" in done.err
    assert deployments(service)[0]["status"] == "FAILURE"


def test_a_version_that_is_live_already_is_a_success_that_says_so(run: Run, service: Rest) -> None:
    file = write(shop(newVersion="1.4"))
    assert run("deploy", file).code == 0
    done = run("deploy", file)
    assert done.code == 0 and "version 1-4 is live already" in done.err
    assert len(deployments(service)) == 1
    done = run("deploy", file, "--set", "image=sample/web:2")
    assert done.code == 7 and "choose another newVersion" in done.err and "podspec" in done.err
    assert len(deployments(service)) == 1


def test_everything_that_is_wrong_is_told_with_its_line(run: Run, service: Rest) -> None:
    text = shop().replace("readinessProbe", "readinesProbe").replace("8080", "'8080'") + "image: sample/web:2\n"
    done = run("deploy", write(text))
    assert done.code == 7 and done.out == ""
    assert "shop.yaml:9:11: podspec.containers[0].ports[0].containerPort: must be a whole number" in done.err
    assert "        - containerPort: '8080'\n" in done.err
    assert "readinesProbe: is not a field that Kubernetes knows here; did you mean readinessProbe?" in done.err
    assert "image: is not a known field; it belongs to a container: podspec.containers[0].image" in done.err
    assert "shop.yaml: 3 problems" in done.err
    assert service.call("GET", "/descriptors/") == (200, [])


def test_it_gives_up_following_and_the_deployment_goes_on(run: Run, service: Rest) -> None:
    done = run("deploy", write(shop("sample/web:1", timeoutSeconds=60).replace("/health", "/never")), "--timeout", "2")
    assert done.code == 3, done.err
    [deployment] = deployments(service)
    assert deployment["status"] == "DEPLOYING"
    assert f"deployer wait {deployment['id']}" in done.err
    done = run("cancel", deployment["id"])
    assert done.code == 0 and "is removed" in done.out
    assert deployments(service)[0]["status"] == "UNDEPLOYED"
    assert run("wait", deployment["id"]).code == 1


def test_a_gate_that_waits_for_a_person_ends_a_pipeline_with_six(run: Run, service: Rest) -> None:
    gates = "{beforeStart: [{type: approval, name: release}]}"
    done = run("deploy", write(shop(gates=gates)))
    assert done.code == 6, done.err
    [deployment] = deployments(service)
    assert "waits for a decision about gate release" in done.out
    assert f"deployer approve {deployment['id']}" in done.err
    assert run("approve", deployment["id"], "--comment", "fine").code == 0
    done = run("wait", "shop", "-o", "jsonpath={.status} {.gates[0].decision.comment}")
    assert (done.code, done.out) == (0, "DEPLOYED fine")


def test_the_app_whose_gate_waits_is_approved_though_a_newer_deployment_is_queued(run: Run, service: Rest) -> None:
    file = write(shop(gates="{beforeStart: [{type: approval, name: release}]}"))
    assert run("deploy", file).code == 6
    assert run("deploy", file, "--no-follow").code == 0
    newer, older = deployments(service)
    done = run("approve", "shop")
    assert done.code == 0 and older["id"] in done.out, done.err
    assert run("cancel", newer["id"]).code == 0
    assert run("wait", older["id"]).code == 0
    done = run("approve", "shop")
    assert done.code == 7 and "no deployment of shop in namespace" in done.err


@pytest.mark.parametrize("flag", ["--junit", "--report"])
def test_a_report_that_cannot_be_written_is_told_before_anything_is_sent(run: Run, service: Rest, flag: str) -> None:
    done = run("deploy", write(shop()), flag, "nowhere/report")
    assert done.code == 2 and "nowhere/report cannot be written" in done.err
    assert deployments(service) == []


def test_an_app_that_is_not_there_is_named(run: Run, service: Rest) -> None:
    for verb in (("history", "shop"), ("undeploy", "shop", "--yes"), ("rollback", "shop"), ("status", "shop")):
        done = run(*verb)
        assert done.code == 7 and f"there is no app shop in namespace {service.namespace}" in done.err, done.err


def test_a_rejected_gate_is_a_failure(run: Run, service: Rest) -> None:
    file = write(shop(gates="{beforeStart: [{type: approval, name: release}]}"))
    assert run("deploy", file, "--no-follow").code == 0
    assert run("wait", "shop", "--timeout", "30").code == 6
    assert run("reject", "shop").code == 0
    assert run("wait", "shop").code == 1


def test_until_retired_is_when_the_old_version_is_gone(run: Run, service: Rest) -> None:
    assert run("deploy", write(shop())).code == 0
    done = run("deploy", "shop", "--set", "image=sample/web:2", "--until", "retired")
    assert done.code == 0, done.err
    assert [d["status"] for d in deployments(service)] == ["DEPLOYED", "UNDEPLOYED"]


def test_until_preview_ends_while_the_old_version_still_serves(run: Run, service: Rest) -> None:
    host = f"{service.namespace}.example.com"
    assert run("deploy", write(shop(frontend=host))).code == 0
    gates = "{beforeSwitch: [{type: approval, name: look}]}"
    done = run("deploy", write(shop(frontend=host, gates=gates)), "--until", "preview")
    assert done.code == 0 and "answers under its preview host" in done.out, done.err
    newest = deployments(service)[0]
    assert newest["status"] == "DEPLOYING"
    assert run("cancel", "shop").code == 0
    done = run("deploy", write(shop(app="inside")), "--until", "preview")
    assert done.code == 7 and "has no preview" in done.err


def test_an_app_without_a_file_is_deployed_by_its_name(run: Run, service: Rest) -> None:
    assert run("deploy", "shop").code == 7
    assert run("apply", "-f", write(shop())).code == 0
    assert deployments(service) == []
    assert run("deploy", "shop", "--set", "replicas=2").code == 0
    assert service.call("GET", "/descriptors/")[1][0]["replicas"] == 2


def test_a_file_that_is_not_there_is_no_app(run: Run, service: Rest) -> None:
    done = run("deploy", "shpo.yaml")
    assert done.code == 2 and "shpo.yaml cannot be read" in done.err


@pytest.mark.parametrize(
    ("output", "expected"), [("json", None), ("name", "deployment/{id}\n"), ("jsonpath={.status}", "DEPLOYED")]
)
def test_data_goes_to_standard_output_and_nothing_else(run: Run, service: Rest, output: str, expected: str) -> None:
    done = run("deploy", write(shop()), "-o", output)
    assert done.code == 0
    [deployment] = deployments(service)
    if expected is None:
        assert json.loads(done.out)["id"] == deployment["id"]
    else:
        assert done.out == expected.format(**deployment)


def test_a_frozen_namespace_refuses_until_it_is_lifted(run: Run, service: Rest) -> None:
    assert run("freeze", "--reason", "stocktaking").code == 0
    done = run("deploy", write(shop()))
    assert done.code == 7 and "stocktaking" in done.err
    assert "stocktaking" in run("get", "freezes").out
    assert run("unfreeze").code == 0
    assert run("deploy", "shop").code == 0


def test_rollback_follows_to_its_end_and_shows_only_what_is_new(run: Run, service: Rest) -> None:
    file = write(shop(keepWarm=60))
    for _ in range(2):
        assert run("deploy", file).code == 0
    done = run("rollback", "shop")
    assert done.code == 0 and done.out.startswith("shop version 1 is live"), done.err
    assert "still warm: one switch" in done.err and "queued: deployment" not in done.err
    done = run("history", "shop")
    assert [line.split()[:3] for line in done.out.splitlines()[1:]][:1] == [["1", "rollback", "rolledback"]]
    assert run("rollback", "shop", "--to", "9").code == 7


def test_undeploying_removes_it_and_is_repeatable(run: Run, service: Rest) -> None:
    assert run("deploy", write(shop())).code == 0
    done = run("undeploy", "shop")
    assert done.code == 0 and done.out.startswith("shop version 1 is removed")
    assert run("undeploy", "shop").code == 0
    assert deployments(service)[0]["status"] == "UNDEPLOYED"

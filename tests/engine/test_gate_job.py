"""Gate `job` with a service and a cluster around it: what becomes of the Job, of its pods and of the deployment."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from deployer.core.model.records import Deployment, Status
from deployer.plugins.gate_job import manifest
from deployer.sdk.kube import CONTROLLER, JOB, POD, SERVICE, Kind
from deployer.sdk.plugin import Document
from support.gates import gated, results
from support.world import World

SECRET = "hunter2-of-the-admin"


def migration(
    point: str = "beforeStart", *, timeout: int = 60, image: str = "sample/job:1", **env: str
) -> dict[str, Any]:
    """A descriptor's gate whose Job behaves as its variables say."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    options = {"image": image, "env": variables}
    return gated(point, type="job", name="migrate", timeoutSeconds=timeout, options=options)


def labelled(world: World, kind: Kind) -> list[Document]:
    """What belongs to Jobs of gates."""
    own = {"app.kubernetes.io/managed-by": "deployer"} if kind == JOB else None
    return world.eyes.list(kind, world.namespace, own)[0]


def pods(world: World) -> list[Document]:
    return [pod for pod in labelled(world, POD) if manifest.LABEL in (pod["metadata"].get("labels") or {})]


def running(world: World) -> Document:
    """The pod of the one Job, once it runs."""
    found = lambda: next((pod for pod in pods(world) if pod["status"]["phase"] == "Running"), None)  # noqa: E731
    return world.until(found, "the job's pod to run")


def nothing_left(world: World) -> None:
    """Wait until the Job and its pods are gone."""
    world.until(lambda: not labelled(world, JOB) and not pods(world), "the job to be gone")


def delete(world: World, kind: Kind, found: Document) -> None:
    """As somebody else would."""
    meta = found["metadata"]
    world.eyes.delete(kind, meta["name"], world.namespace, uid=meta["uid"])


def lines(world: World, deployment: Deployment) -> list[str]:
    """What the Job wrote, as the deployment's log has it."""
    return re.findall(r"^ *(line \d+.*)$", world.log(deployment.id), re.MULTILINE)


def reason(world: World, deployment: Deployment) -> str:
    """Why it failed."""
    failed = world.ended(deployment, Status.FAILURE)
    assert failed.failure is not None
    return str(failed.failure["message"])


def test_it_runs_before_anything_of_the_version_is_there_and_is_ended_by_a_cancellation(world: World) -> None:
    deployment = world.deploy(**migration(JOB_SECONDS="600", JOB_LINES="3"))
    pod = running(world)
    assert not world.objects(CONTROLLER) and not world.objects(SERVICE)
    env = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
    assert (env["APP_NAME"], env["APP_VERSION"]) == ("shop", "1")
    assert not {"app", "name", "version"} & pod["metadata"]["labels"].keys()
    world.until(lambda: len(lines(world, deployment)) == 3, "its log to be copied")
    world.undeploy(deployment.id)
    world.ended(deployment, Status.UNDEPLOYED)
    nothing_left(world)
    assert lines(world, deployment) == ["line 1", "line 2", "line 3"]


@pytest.mark.parametrize("point", ["beforeStart", "beforeSwitch", "afterSwitch"])
def test_one_that_succeeds_lets_the_deployment_on_at_every_point(world: World, point: str) -> None:
    deployment = world.deploy(**migration(point, JOB_LINES="2"))
    world.ended(deployment, Status.DEPLOYED)
    (result,) = results(world, deployment)
    assert result["verdict"] == "passed" and re.fullmatch(r"job shop-1-migrate-\w+ succeeded", result["reason"])
    assert lines(world, deployment) == ["line 1", "line 2"]
    nothing_left(world)


def test_one_that_fails_keeps_the_old_version(world: World) -> None:
    world.deployed()
    deployment = world.deploy(**migration(JOB_EXIT="3", JOB_LINES="2"))
    assert "container web ended with exit code 3" in reason(world, deployment)
    assert lines(world, deployment) == ["line 1", "line 2"]
    assert world.live_version() == "1" and set(world.objects(CONTROLLER)) == {"shop-1"}
    nothing_left(world)


def test_one_that_fails_after_the_switch_switches_back(world: World) -> None:
    world.deployed()
    assert "exit code 1" in reason(world, world.deploy(**migration("afterSwitch", JOB_EXIT="1")))
    assert world.live_version() == "1"
    nothing_left(world)


@pytest.mark.parametrize("kind", [JOB, POD])
def test_one_that_somebody_deletes_has_not_passed_and_is_not_run_again(world: World, kind: Kind) -> None:
    deployment = world.deploy(**migration(JOB_SECONDS="600"))
    pod = running(world)
    (job,) = labelled(world, JOB)
    delete(world, kind, job if kind == JOB else pod)
    said = reason(world, deployment)
    assert ("was deleted" if kind == JOB else "failed: ") in said, said
    assert "made job" in world.log(deployment.id) and world.log(deployment.id).count("made job") == 1
    nothing_left(world)


def test_an_image_that_cannot_be_pulled_is_told(world: World) -> None:
    said = reason(world, world.deploy(**migration(image="sample/job:missing")))
    assert "the image sample/job:missing of container web" in said and "could not be pulled" in said
    nothing_left(world)


def test_one_that_takes_too_long_is_ended(world: World) -> None:
    said = reason(world, world.deploy(**migration(JOB_SECONDS="600", timeout=8)))
    assert "it did not end in time" in said
    nothing_left(world)


@pytest.mark.parametrize("meanwhile", ["", "deleted", "ended"])
def test_a_restart_goes_on_with_the_same_one(world: World, meanwhile: str) -> None:
    deployment = world.deploy(**migration(JOB_SECONDS="3" if meanwhile == "ended" else "8", JOB_LINES="2"))
    pod = running(world)
    (job,) = labelled(world, JOB)
    world.until(lambda: len(lines(world, deployment)) == 2, "its log to be copied")
    world.kill()
    if meanwhile == "deleted":
        delete(world, JOB, job)
    if meanwhile == "ended":
        world.until(lambda: "completionTime" in labelled(world, JOB)[0]["status"], "the job to end")
    world.restart()
    if meanwhile == "deleted":
        assert "was deleted" in reason(world, deployment)
    else:
        world.ended(deployment, Status.DEPLOYED)
    assert lines(world, deployment) == ["line 1", "line 2"]
    assert world.log(deployment.id).count("made job") == 1
    assert pod["metadata"]["labels"][manifest.LABEL] == job["metadata"]["name"]
    nothing_left(world)


def test_it_is_removed_without_the_plugin(world: World) -> None:
    deployment = world.deploy(**migration(JOB_SECONDS="600"))
    running(world)
    world.stop()
    registry = world._load()
    world.start(dataclasses.replace(registry, gates={}))
    assert "no plugin provides gates of type job" in reason(world, deployment)
    nothing_left(world)


def test_secrets_in_what_it_writes_are_hidden(world: World) -> None:
    deployment = world.deploy(**migration(JOB_TEXT=f"password={SECRET}", ADMIN_PASSWORD=SECRET, JOB_EXIT="1"))
    reason(world, deployment)
    assert "line 1 ***" in world.log(deployment.id) and SECRET not in world.log(deployment.id)


def test_neither_services_nor_the_version_count_its_pods(world: World) -> None:
    """While it runs beside both versions."""
    world.deployed()
    world.deploy(**migration("beforeSwitch", JOB_SECONDS="600"))
    pod = running(world)
    for service in world.objects(SERVICE).values():
        selector = service["spec"]["selector"]
        assert not selector.items() <= pod["metadata"]["labels"].items()
    assert world.objects(CONTROLLER)["shop-2"]["status"]["replicas"] == 1


def test_a_container_that_the_podspec_has_not_is_refused_with_the_descriptor(world: World) -> None:
    with pytest.raises(Exception, match="wbe is no container of the podspec; it has web"):
        world.descriptor(**gated("beforeStart", type="job", name="x", options={"container": "wbe"}))


def test_a_flood_in_its_log_holds_up_nothing(world: World) -> None:
    """Some 5 MB within a second: what is copied is bounded, and the deployment goes on."""
    deployment = world.deploy(**migration(JOB_LINES="100000", JOB_TEXT="x" * 40, JOB_EXIT="1"))
    assert "exit code 1" in reason(world, deployment)
    log = world.log(deployment.id)
    assert "line 1 " in log and "writes more than is copied here" in log and len(log) < 1024 * 1024
    assert re.search(r"last lines of container web in pod .*\n( *line 999\d\d .*\n)*? *line 100000 ", log)

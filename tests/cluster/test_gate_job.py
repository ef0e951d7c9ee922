"""Gate `job` on a real Kubernetes, as an account with the rights of `deploy/rbac/` and no more."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import RealWorld
from deployer.core.model.records import Deployment, Status
from deployer.kube.client import connect
from deployer.plugins.gate_job import manifest
from deployer.sdk.kube import CONTROLLER, JOB, POD, Kind
from deployer.sdk.plugin import Document
from deployer.settings import Settings
from support.gates import gated, results
from support.rights import Account, Right

CASES = "lab/cases:1"
"""Does what its environment says: EXIT ends with that code, SLEEP_THEN_EXIT after so many seconds."""

FILES = ("app.yaml", "app-jobs.yaml")


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account, its token and CA files."""
    admin = connect(Settings())
    made = Account(admin, tmp_path_factory.mktemp("account"))
    yield made
    made.close()
    admin.close()


@pytest.fixture
def world(account: Account, tmp_path: Path, namespace: str) -> Iterator[RealWorld]:
    """A Deployer as that account; its eyes are an administrator's."""
    made = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, image_pull_attempts=1)
    made.settings = dataclasses.replace(made.settings, **account.settings())
    account.grant(namespace, *FILES)
    made.start()
    yield made
    made.close()


def migration(*, timeout: int = 60, image: str = CASES, **env: str) -> dict[str, Any]:
    """A descriptor's gate whose Job behaves as its variables say."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    options = {"image": image, "env": variables}
    return gated("beforeStart", type="job", name="migrate", timeoutSeconds=timeout, options=options)


def labelled(world: RealWorld, kind: Kind) -> list[Document]:
    """What belongs to Jobs of gates."""
    found = world.eyes.list(kind, world.namespace)[0]
    return [o for o in found if manifest.LABEL in (o["metadata"].get("labels") or {})]


def running(world: RealWorld) -> Document:
    """The pod of the one Job, once it runs."""
    found = lambda: next((pod for pod in labelled(world, POD) if pod["status"]["phase"] == "Running"), None)  # noqa: E731
    return world.until(found, "the job's pod to run")


def nothing_left(world: RealWorld) -> None:
    """Wait until the Job and its pods are gone."""
    world.until(lambda: not labelled(world, JOB) and not labelled(world, POD), "the job to be gone", 60.0)


def delete(world: RealWorld, kind: Kind, found: Document) -> None:
    """As somebody else would."""
    world.eyes.delete(kind, found["metadata"]["name"], world.namespace, uid=found["metadata"]["uid"])


def reason(world: RealWorld, deployment: Deployment) -> str:
    """Why it failed."""
    failed = world.ended(deployment, Status.FAILURE)
    assert failed.failure is not None
    assert not world.objects(CONTROLLER), "something of the version was made"
    return str(failed.failure["message"])


def test_one_that_succeeds_lets_the_deployment_on(world: RealWorld) -> None:
    deployment = world.deploy(**migration(EXIT0="1"))
    world.ended(deployment, Status.DEPLOYED)
    (result,) = results(world, deployment)
    assert result["verdict"] == "passed", result
    assert len(re.findall(r"^ *done$", world.log(deployment.id), re.MULTILINE)) == 1
    nothing_left(world)


def test_one_that_fails_says_its_last_words(world: RealWorld) -> None:
    deployment = world.deploy(**migration(EXIT="3"))
    assert "container web ended with exit code 3" in reason(world, deployment)
    assert len(re.findall(r"^ *exiting with 3$", world.log(deployment.id), re.MULTILINE)) == 1
    nothing_left(world)


@pytest.mark.parametrize("kind", [JOB, POD])
def test_one_that_somebody_deletes_has_not_passed_and_is_not_run_again(world: RealWorld, kind: Kind) -> None:
    deployment = world.deploy(**migration(SLEEP_THEN_EXIT="600"))
    pod = running(world)
    (job,) = labelled(world, JOB)
    delete(world, kind, job if kind == JOB else pod)
    said = reason(world, deployment)
    assert ("deleted" if kind == JOB else "failed: ") in said, said
    assert {found["metadata"]["uid"] for found in labelled(world, POD)} <= {pod["metadata"]["uid"]}
    nothing_left(world)


def test_an_image_that_cannot_be_pulled_is_told(world: RealWorld) -> None:
    said = reason(world, world.deploy(**migration(image="localhost:1/nothing:1")))
    assert "the image localhost:1/nothing:1 of container web" in said and "could not be pulled" in said
    nothing_left(world)


def test_a_cancellation_ends_it(world: RealWorld) -> None:
    deployment = world.deploy(**migration(SLEEP_THEN_EXIT="600"))
    running(world)
    world.undeploy(deployment.id)
    world.ended(deployment, Status.UNDEPLOYED)
    nothing_left(world)


def test_one_that_takes_too_long_is_ended(world: RealWorld) -> None:
    assert "did not end in time" in reason(world, world.deploy(**migration(SLEEP_THEN_EXIT="600", timeout=10)))
    nothing_left(world)


def test_after_a_crash_it_goes_on_with_the_same_one(world: RealWorld) -> None:
    deployment = world.deploy(**migration(SLEEP_THEN_EXIT="3"))
    pod = running(world)
    world.kill()
    world.until(lambda: labelled(world, JOB)[0]["status"].get("completionTime"), "the job to end")
    world.restart()
    world.ended(deployment, Status.DEPLOYED)
    assert "slept, leaving" in world.log(deployment.id)
    assert world.log(deployment.id).count("made job") == 1 and pod["metadata"]["name"] in world.log(deployment.id)
    nothing_left(world)


@pytest.mark.parametrize("verb", ["get", "list", "create", "update"])
def test_without_a_right_it_fails_and_says_which(account: Account, world: RealWorld, verb: str) -> None:
    account.grant(world.namespace, "app-jobs.yaml", missing=Right("batch:jobs", verb))
    deployment = world.deploy(**migration(EXIT0="1"))
    assert f"refused to {verb} jobs" in reason(world, deployment)
    nothing_left(world)

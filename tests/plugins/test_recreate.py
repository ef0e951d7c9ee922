"""Single steps of recreate, on fakes: what a sandbox would take long to come to."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.core.model.plan import PinnedSettings, Previous
from deployer.plugins.strategy_recreate.steps import REPLICAS, StartPods, StopOthers
from deployer.sdk.errors import OperatorNeeded, StepFailed
from deployer.sdk.kube import CONTROLLER, POD
from deployer.sdk.plugin import Document
from deployer.sdk.strategy import Done, Park, Plan
from deployer.testing.fakes import FakeWork

LABELS = {"name": "shop-1", "app": "shop", "version": "1"}


@pytest.fixture
def fake() -> FakeWork:
    """Version 2 of the shop is to replace version 1."""
    previous = Previous(deployment="d1", version="1", controller="shop-1", service="shop-1")
    settings = PinnedSettings(proxysleep=0.0)
    plan = Plan(namespace="default", app="shop", deployment="d2", version="2", previous=previous, settings=settings)
    made = FakeWork(plan)
    made.kube.put(CONTROLLER, controller(replicas=3), deployment="d1")
    return made


def controller(replicas: int, **annotations: str) -> Document:
    about = {"name": "shop-1", "labels": LABELS, "annotations": annotations}
    return {"metadata": about, "spec": {"replicas": replicas}}


def pod(**metadata: Any) -> Document:
    owner = {"controller": True, "uid": "u1"}
    about = {"name": "shop-1-abcde", "labels": LABELS, "ownerReferences": [owner], **metadata}
    return {"metadata": about, "spec": {"terminationGracePeriodSeconds": 5}, "status": {"phase": "Running"}}


def wanted(fake: FakeWork) -> tuple[int, str | None]:
    """How many pods version 1 wants, and how many it is noted to have had."""
    found = fake.kube.objects[CONTROLLER, "shop-1"]
    return found["spec"]["replicas"], found["metadata"]["annotations"].get(REPLICAS)


def test_how_many_there_were_is_noted_in_the_edit_that_takes_them_away(fake: FakeWork) -> None:
    fake.kube.put(POD, pod())
    step = StopOthers(fake.plan)
    assert isinstance(step.run(fake.work), Park)
    assert isinstance(step.run(fake.work), Park)
    assert (wanted(fake), fake.kube.writes) == ((0, "3"), ["update ReplicationController shop-1"])
    del fake.kube.objects[POD, "shop-1-abcde"]
    assert step.run(fake.work) == Done()


def test_a_controller_that_still_knows_of_pods_is_not_stopped_yet(fake: FakeWork) -> None:
    step = StopOthers(fake.plan)
    step.run(fake.work)
    found = fake.kube.objects[CONTROLLER, "shop-1"]
    found["status"] = {"replicas": 1, "observedGeneration": 2}
    assert isinstance(step.run(fake.work), Park)
    found["metadata"]["generation"], found["status"]["replicas"] = 3, 0
    assert isinstance(step.run(fake.work), Park)
    found["status"]["observedGeneration"] = 3
    assert step.run(fake.work) == Done()


def test_pods_that_do_not_end_fail_it_after_their_grace_time_and_some(fake: FakeWork) -> None:
    fake.kube.put(POD, pod())
    step = StopOthers(fake.plan)
    step.run(fake.work)
    fake.now += 34.9
    assert isinstance(step.run(fake.work), Park)
    fake.now += 0.2
    with pytest.raises(StepFailed, match="1 pod of version 1, like shop-1-abcde did not end within 35 s"):
        step.run(fake.work)


def test_an_old_version_that_does_not_become_ready_is_waited_for(fake: FakeWork) -> None:
    """FAILURE would claim that it serves."""
    fake.kube.put(CONTROLLER, controller(0, **{REPLICAS: "3"}), deployment="d1")
    with pytest.raises(OperatorNeeded, match="version 1 was started again and is not ready"):
        StopOthers(fake.plan).undo(fake.work)
    assert wanted(fake) == (3, None)


def test_what_somebody_scaled_up_meanwhile_is_not_scaled_again(fake: FakeWork) -> None:
    fake.kube.put(CONTROLLER, controller(1, **{REPLICAS: "3"}), deployment="d1")
    with pytest.raises(OperatorNeeded):
        StopOthers(fake.plan).undo(fake.work)
    assert wanted(fake) == (1, None)


def test_a_version_that_somebody_starts_in_between_fails_it(fake: FakeWork) -> None:
    fake.kube.put(POD, pod())
    with pytest.raises(StepFailed, match="was started while version 2 was being deployed"):
        StartPods().run(fake.work)
    assert fake.kube.writes == []

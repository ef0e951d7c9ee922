"""Kubernetes Events on the versions of an app: what `kubectl describe` of their ReplicationControllers shows."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployer import sandbox
from deployer.core.errors import KubeForbidden, KubeUnavailable, OperatorNeeded
from deployer.core.model.kind import CONTROLLER, EVENT
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.records import Event, Operation, OperationKind, OperationState, Status
from deployer.core.operations import machine
from deployer.core.operations.actions import Cause, Failed, Progress, Run
from deployer.kube.client import KubeClient
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.strategy import Done, Outcome, Phase, Plan, Step, Strategy, Work
from support.receiver import Receiver
from support.world import NGINX, PATIENCE, World

BROKEN = {"containers": [{"name": "web", "image": "sample/nothing:1"}]}


QUESTION = "which of the two is it? look, and restart the service"


class Puzzle(Step):
    """Needs a person. `looks` is set after three of them."""

    id = "puzzle"
    phase = Phase.VERIFY

    def __init__(self) -> None:
        self.left = 3
        self.looks = threading.Event()
        self.solved = threading.Event()

    def run(self, work: Work) -> Outcome:
        if self.solved.is_set():
            return Done()
        self.left -= 1
        if not self.left:
            self.looks.set()
        raise OperatorNeeded(QUESTION)


class Puzzling(Strategy):
    """Blue-green, with a puzzle before the switch."""

    name = "puzzling"

    def __init__(self, puzzle: Puzzle) -> None:
        self._puzzle = puzzle

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        steps = list(deploy_steps(plan))
        at = next(i for i, step in enumerate(steps) if step.phase is not Phase.START)
        return [*steps[:at], self._puzzle, *steps[at:]]


def told(world: World, version: str, app: str = "shop") -> list[tuple[str, str, str]]:
    """Type, reason and message of our Events about a version's ReplicationController, in order."""
    events, _ = world.eyes.list(EVENT, world.namespace)
    about = [
        e
        for e in events
        if e["source"]["component"] == "deployer"
        and (e["involvedObject"]["kind"], e["involvedObject"]["name"]) == ("ReplicationController", f"{app}-{version}")
    ]
    about.sort(key=lambda e: int(e["metadata"]["resourceVersion"]))
    return [(e["type"], e["reason"], e["message"]) for e in about]


def await_told(world: World, version: str, *reasons: str) -> list[tuple[str, str, str]]:
    found = world.until(
        lambda: (t := told(world, version)) and len(t) >= len(reasons) and t, f"Events {reasons} on version {version}"
    )
    assert [reason for _, reason, _ in found] == list(reasons)
    return found


def test_the_versions_tell_the_story(world: World) -> None:
    world.deployed()
    [started, switched] = await_told(world, "1", "Started", "Switched")
    assert started == ("Normal", "Started", "version 1 is being deployed")
    assert switched == ("Normal", "Switched", "traffic now goes to version 1")
    failed = world.ended(world.deploy(podspec=BROKEN), Status.FAILURE)
    message = (failed.failure or {})["message"]
    assert await_told(world, "2", "Started", "Failed")[1] == ("Warning", "Failed", message)
    assert await_told(world, "1", "Started", "Switched", "RolledBack")[2] == (
        "Warning",
        "RolledBack",
        f"version 2 failed and was removed, version 1 is live: {message}",
    )
    world.deployed()
    assert await_told(world, "3", "Started", "Switched")[0][2] == "version 3 is being deployed, to replace version 1"
    last = "traffic now goes to version 3; version 1 drains and is then removed"
    assert await_told(world, "1", "Started", "Switched", "RolledBack", "Switched")[3] == ("Normal", "Switched", last)


def test_each_is_about_the_very_object_and_is_told_once(world: World) -> None:
    """`kubectl describe` asks for Events of the object's uid."""
    world.deployed()
    await_told(world, "1", "Started", "Switched")
    uid = world.eyes.get(CONTROLLER, "shop-1", world.namespace)["metadata"]["uid"]
    events, _ = world.eyes.list(EVENT, world.namespace, None, f"involvedObject.uid={uid}")
    ours = [event for event in events if event["source"]["component"] == "deployer"]
    assert [event["count"] for event in ours] == [1, 1]
    assert all(event["firstTimestamp"] and event["reportingComponent"] == "deployer" for event in ours)


def test_what_is_held_is_said_once_on_both_versions_and_to_observers(
    cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "HOLD_INTERVAL", 0.05)
    puzzle = Puzzle()
    with contextlib.closing(Receiver()) as receiver:
        world = World(
            cluster,
            tmp_path,
            namespace,
            providers=[Puzzling(puzzle)],
            plugins={
                "ingress_nginx": NGINX,
                "notify_webhook": {"targets": {"ops": {"url": receiver.origin, "events": ["held"]}}},
            },
        )
        with contextlib.closing(world.start()):
            world.deployed()
            deployment = world.deploy(deploymentType="puzzling")
            assert puzzle.looks.wait(PATIENCE)  # again and again
            world.stop()  # also over a restart
            puzzle.left, _ = 3, puzzle.looks.clear()
            world.start()
            assert puzzle.looks.wait(PATIENCE)
            assert await_told(world, "2", "Started", "Held")[1] == ("Warning", "Held", QUESTION)
            assert await_told(world, "1", "Started", "Switched", "Held")[2] == (
                "Warning",
                "Held",
                f"the deployment of version 2 is held: {QUESTION}",
            )
            [request] = receiver.await_requests(lambda found: len(found) == 1)
            assert request.json["type"] == "deployment.held"
            assert request.json["data"]["operation"]["waitingFor"] == QUESTION
            assert world.log(deployment.id).count(QUESTION) == 1
            puzzle.solved.set()
            world.ended(deployment, Status.DEPLOYED)
            world.quiet()
        assert len(receiver.requests) == 1


@pytest.mark.parametrize("error", [KubeForbidden("no", status=403), KubeUnavailable("away")])
def test_without_the_right_or_a_server_deployments_lack_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(KubeClient, "record", refuse)
    caplog.set_level(logging.WARNING)
    world.deployed()
    world.deployed()
    world.quiet()
    assert told(world, "1") == told(world, "2") == []
    said = [r.getMessage() for r in caplog.records if "no Events tell of deployments" in r.getMessage()]
    assert len(said) == isinstance(error, KubeForbidden)
    assert not world.store.count(Event)


@pytest.mark.parametrize(
    ("cause", "tells"), [(Cause.OPERATOR, Occurrence.HELD), (Cause.CLUSTER, None), (Cause.OTHER, None)]
)
@pytest.mark.parametrize("kind", [OperationKind.RETIRE, OperationKind.UNDEPLOY])
def test_a_removal_is_held_only_when_a_person_has_to_look(
    kind: OperationKind, cause: Cause, tells: Occurrence | None
) -> None:
    """What the cluster refuses for a while is tried again, and wakes nobody."""
    operation = Operation(namespace="n", app="shop", id="1", kind=kind, deployment="d", state=OperationState.RUNNING)
    transition = machine.settle(operation, Run("x"), Failed(cause, "why"), Progress(), 0.0)
    assert transition.tells == tells
    assert transition.until is not None

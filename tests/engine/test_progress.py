"""How far deployments are, as REST shows it: what they wait for and until when, and what became of each step."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from deployer import sandbox
from deployer.api.app import create_app
from deployer.commands.progress import Progress
from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.contract.strategy import Done, Outcome, Park, Phase, Step, Work
from deployer.core.errors import OperatorNeeded, Revoked, StepFailed
from deployer.core.model.operation.timeline import NO_TIMELINE
from deployer.core.model.records import Deployment, Operation, Status
from deployer.core.ports.store import Update
from deployer.store.sqlite import SqliteStore
from support.strategies import Steps
from support.world import HEALTHY, PATIENCE, World


class Rest:
    """What people see."""

    def __init__(self, world: World) -> None:
        self.world = world

    def get(self, path: str, **headers: str) -> testing.Result:
        app = create_app(self.world.service, list, list, apps=self.world.apps)
        client = testing.TestClient(app, headers={"Host": "localhost", **headers})
        separator = "&" if "?" in path else "?"
        return client.simulate_get(f"{path}{separator}namespace={self.world.namespace}")

    def deployment(self, deployment: Deployment | str) -> dict[str, Any]:
        id = deployment if isinstance(deployment, str) else deployment.id
        found: dict[str, Any] = self.get(f"/deployments/{id}/").json
        return found

    def until(self, deployment: Deployment, **fields: Any) -> dict[str, Any]:
        """Once it shows these."""

        def shown() -> dict[str, Any] | None:
            found = self.deployment(deployment)
            return found if {name: found.get(name) for name in fields} == fields else None

        return self.world.until(shown, f"deployment {deployment.id} to show {fields}")


def moment(text: str) -> float:
    """RFC 3339 in UTC."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text).timestamp()


def states(shown: dict[str, Any]) -> dict[str, str]:
    return {step["id"]: step["state"] for step in shown["steps"]}


class Stage:
    """What the second step does, as a test decides. Each call of a step takes what it finds there."""

    def __init__(self) -> None:
        self.run: Callable[[Work], Outcome] = lambda _: Done()
        self.undo: Callable[[Work], None] = lambda _: None
        self.go = threading.Event()

    def wait(self, work: Work) -> Outcome:
        work.scope.wait(self.go)
        return Done()


class First(Step):
    """One that changes something."""

    id, phase = "first", Phase.START

    def run(self, work: Work) -> Outcome:
        return Done()

    def undo(self, work: Work) -> None:
        return


class Second(Step):
    """The stage."""

    id, phase, budget = "second", Phase.EXPOSE, 50.0
    fulfils = ("service",)

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def run(self, work: Work) -> Outcome:
        return self.stage.run(work)

    def undo(self, work: Work) -> None:
        self.stage.undo(work)


class Third(Step):
    """One that only looks."""

    id, phase = "third", Phase.CONFIRM

    def run(self, work: Work) -> Outcome:
        return Done()


STAGED = {"deploymentType": "staged"}


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str, stage: Stage) -> Iterator[World]:
    staged = Steps("staged", lambda _: [First(), Second(stage), Third()])
    made = World(cluster, tmp_path, namespace, providers=[staged]).start()
    yield made
    stage.go.set()
    made.close()


@pytest.fixture
def rest(world: World) -> Rest:
    return Rest(world)


# --- steps ----------------------------------------------------------------------------------------------------------


def test_a_step_under_way_says_what_it_waits_for_and_until_when(rest: Rest, stage: Stage) -> None:
    told = threading.Event()

    def run(work: Work) -> Outcome:
        work.waiting("a friend to say yes", work.now() + 40)
        told.set()
        return stage.wait(work)

    stage.run = run
    before = time.time()
    deployment = rest.world.deploy(**STAGED)
    assert told.wait(PATIENCE)
    shown = rest.until(deployment, waitingFor="a friend to say yes")
    assert (shown["phase"], shown["step"], shown["status"]) == ("EXPOSE", "second", "DEPLOYING")
    assert states(shown) == {"first": "done", "second": "running", "third": "pending"}
    assert [step["phase"] for step in shown["steps"]] == ["START", "EXPOSE", "CONFIRM"]
    first, second, third = shown["steps"]
    assert before <= moment(first["began"]) + 0.001 <= moment(first["ended"]) + 0.001 <= moment(second["began"]) + 0.002
    assert shown["since"] == second["began"] and "ended" not in second and "began" not in third
    assert 30 < moment(shown["deadline"]) - moment(shown["since"]) <= 41
    assert "held" not in shown
    stage.go.set()
    rest.world.ended(deployment, Status.DEPLOYED)
    rest.world.quiet()
    shown = rest.deployment(deployment)
    assert states(shown) == {"first": "done", "second": "done", "third": "done"}
    assert not {"phase", "step", "since", "deadline", "waitingFor", "held"} & shown.keys()


def test_a_step_that_says_nothing_has_its_budget_as_its_deadline(rest: Rest, stage: Stage) -> None:
    stage.run = stage.wait
    deployment = rest.world.deploy(**STAGED)
    rest.until(deployment, step="second")
    rest.world.until(lambda: "deadline" in rest.deployment(deployment), "the step to be run")
    shown = rest.deployment(deployment)
    assert 45 < moment(shown["deadline"]) - moment(shown["since"]) < 52
    assert "waitingFor" not in shown


def test_what_a_parked_step_waits_for_is_there_after_a_restart(rest: Rest, stage: Stage) -> None:
    stage.run = lambda work: Park(work.now() + 500, "approval by a person")
    deployment = rest.world.deploy(**STAGED)
    shown = rest.until(deployment, waitingFor="approval by a person")
    rest.world.stop()
    stage.run = stage.wait  # so that nothing is written about it by the next process
    rest.world.start()
    again = rest.until(deployment, step="second")
    assert again["waitingFor"] == "approval by a person"
    assert again["since"] == shown["since"]
    assert states(again) == states(shown) == {"first": "done", "second": "running", "third": "pending"}


def test_a_step_that_parks_without_a_word_waits_for_what_it_said_last(rest: Rest, stage: Stage) -> None:
    def run(work: Work) -> Outcome:
        work.waiting("the moon to rise", work.now() + 300)
        return Park(work.now() + 1000)

    stage.run = run
    deployment = rest.world.deploy(**STAGED)
    rest.world.until(lambda: parked(rest.world, deployment), "it to be parked")
    shown = rest.until(deployment, waitingFor="the moon to rise")
    assert 290 < moment(shown["deadline"]) - moment(shown["since"]) < 310
    assert "the moon" not in rest.world.log(deployment.id)


def parked(world: World, deployment: Deployment) -> bool:
    found = [o for o in world.store.find(Operation, tag="open") if o.deployment == deployment.id]
    return bool(found) and found[0].due > 0 and world.engine.running == 0


def test_a_step_that_is_over_has_nothing_to_say(rest: Rest, stage: Stage) -> None:
    kept: list[Work] = []

    def run(work: Work) -> Outcome:
        kept.append(work)
        return Park(work.now() + 500, "approval by a person")

    stage.run = run
    deployment = rest.world.deploy(**STAGED)
    rest.until(deployment, waitingFor="approval by a person")
    rest.world.until(lambda: parked(rest.world, deployment), "it to be parked")
    with pytest.raises(Revoked):
        kept[0].waiting("something else")
    assert rest.deployment(deployment)["waitingFor"] == "approval by a person"


@pytest.mark.parametrize("wrong", [(3,), ("x", float("nan")), ("x", "soon"), (None,)])
def test_a_step_that_says_rubbish_has_made_a_mistake(rest: Rest, stage: Stage, wrong: tuple[Any, ...]) -> None:
    def run(work: Work) -> Outcome:
        work.waiting(*wrong)
        return Done()

    stage.run = run
    failed = rest.world.ended(rest.world.deploy(**STAGED), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "StepCrashed"


def test_what_is_waited_for_is_short_clean_and_without_secrets(rest: Rest, stage: Stage) -> None:
    secret = "S3cr3t-and-long-enough"

    def run(work: Work) -> Outcome:
        work.waiting(f"{secret} \x1b[2J\u202e\udc80{'x' * 10_000}", 1e300)
        return Park(1e300, f"also {secret} \x1b[2J \ud800")

    stage.run = run
    deployment = rest.world.deploy(**STAGED, env={"PASSWORD": secret})
    rest.world.until(lambda: parked(rest.world, deployment), "it to be parked")
    for _ in range(2):
        answer = rest.get(f"/deployments/{deployment.id}/")
        assert answer.status_code == 200
        shown = answer.json
        assert secret not in shown["waitingFor"] and len(shown["waitingFor"]) < 1000
        assert shown["waitingFor"].isprintable()
        assert shown["deadline"].startswith("9999-12-31")
        rest.world.restart()
        rest.world.until(lambda: parked(rest.world, deployment), "it to be parked")


def test_a_failed_step_is_known_after_everything_was_undone(rest: Rest, stage: Stage) -> None:
    stage.run = lambda _: (_ for _ in ()).throw(StepFailed("it does not fit"))
    failed = rest.world.ended(rest.world.deploy(**STAGED), Status.FAILURE)
    shown = rest.deployment(failed)
    assert states(shown) == {"first": "undone", "second": "failed"}
    assert all(step["began"] <= step["ended"] for step in shown["steps"])


def test_undoing_says_which_step_is_undone(rest: Rest, stage: Stage) -> None:
    stage.run = lambda _: (_ for _ in ()).throw(StepFailed("it does not fit"))
    stage.undo = lambda work: work.scope.wait(stage.go) and None
    deployment = rest.world.deploy(**STAGED)
    shown = rest.until(deployment, phase="UNDO", step="second")
    assert states(shown) == {"first": "done", "second": "failed", "third": "pending"}
    assert moment(shown["since"]) <= moment(shown["deadline"])
    stage.go.set()
    rest.world.ended(deployment, Status.FAILURE)


def test_a_cancelled_step_says_so(rest: Rest, stage: Stage) -> None:
    stage.run = stage.wait
    deployment = rest.world.deploy(**STAGED)
    rest.until(deployment, step="second")
    rest.world.service.undeploy(rest.world.namespace, deployment.id)
    rest.world.ended(deployment, Status.UNDEPLOYED)
    assert states(rest.deployment(deployment)) == {"first": "undone", "second": "cancelled"}


def test_held_says_why_and_goes_when_it_goes_on(rest: Rest, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.core.operations.machine.HOLD_INTERVAL", 0.2)
    why = "both versions are broken: repair one"

    def run(work: Work) -> Outcome:
        if not stage.go.is_set():
            raise OperatorNeeded(why)
        return Done()

    stage.run = run
    deployment = rest.world.deploy(**STAGED)
    shown = rest.until(deployment, held=why)
    assert shown["step"] == "second" and not {"waitingFor", "deadline"} & shown.keys()
    rest.world.stop()
    assert rest_without_engine(rest, deployment)["held"] == why
    rest.world.start()
    assert rest.until(deployment, held=why)
    assert rest.world.log(deployment.id).count(why) == 1
    stage.go.set()
    rest.world.ended(deployment, Status.DEPLOYED)
    assert "held" not in rest.deployment(deployment)


def rest_without_engine(rest: Rest, deployment: Deployment) -> dict[str, Any]:
    """What a service shows that has just been started, and has not taken up anything yet."""
    store = SqliteStore(rest.world.settings.data_dir / "deployer.db")
    try:
        found = store.get(Deployment, deployment.id)
        assert found
        return Progress(store).of(found)
    finally:
        store.close()


def test_what_an_earlier_release_began_is_told_of_as_far_as_it_is_known(rest: Rest, stage: Stage) -> None:
    stage.run = lambda work: Park(work.now() + 500, "approval by a person")
    deployment = rest.world.deploy(**STAGED)
    rest.until(deployment, waitingFor="approval by a person")
    rest.world.until(lambda: parked(rest.world, deployment), "it to be parked")
    (operation,) = rest.world.store.find(Operation, tag="open")
    rest.world.stop()
    store = SqliteStore(rest.world.settings.data_dir / "deployer.db")
    store.commit(Update(dataclasses.replace(operation, timeline=NO_TIMELINE, due=0.0, period=0.0)))
    store.close()
    assert rest_without_engine(rest, deployment)["phase"] == "START"
    rest.world.start()
    shown = rest.until(deployment, step="second", phase="EXPOSE", waitingFor="approval by a person")
    assert states(shown) == {"first": "done", "second": "running", "third": "pending"}
    assert "began" not in shown["steps"][0]


# --- queues ---------------------------------------------------------------------------------------------------------


def test_who_is_queued_says_behind_whom(rest: Rest, stage: Stage) -> None:
    stage.run = stage.wait
    first, second, third = (rest.world.deploy(**STAGED) for _ in range(3))
    rest.until(first, step="second")
    shown = rest.deployment(second)
    assert (shown["phase"], shown["waitingFor"]) == ("QUEUED", f"the deployment {first.id} of this app")
    assert abs(moment(shown["since"]) - time.time()) < PATIENCE
    behind = f"the deployment {first.id} of this app, and 1 more that came before it"
    assert rest.deployment(third)["waitingFor"] == behind
    other = rest.world.deploy("other", **STAGED)
    rest.until(other, step="second")
    stage.go.set()
    for deployment in (first, second, third):
        rest.world.ended(deployment, Status.DEPLOYED)


def test_a_queued_undeployment_says_behind_whom(rest: Rest, stage: Stage) -> None:
    live = rest.world.deployed(**STAGED)
    rest.world.quiet()
    stage.run = stage.wait
    running = rest.world.deploy(**STAGED)
    rest.until(running, step="second")
    rest.world.service.undeploy(rest.world.namespace, live.id)
    shown = rest.deployment(live)
    behind = f"the deployment {running.id} of this app"
    assert (shown["phase"], shown["status"], shown["waitingFor"]) == ("QUEUED", "UNDEPLOYING", behind)
    assert states(shown) == {"first": "done", "second": "done", "third": "done"}


# --- pods -----------------------------------------------------------------------------------------------------------


def test_pods_that_are_not_ready_are_counted(rest: Rest) -> None:
    never = {"httpGet": {"path": "/error", "port": 9999}, "periodSeconds": 1}
    deployment = rest.world.deploy(replicas=3, probe=never)
    shown = rest.until(deployment, step="await-ready", phase="START")
    rest.world.until(
        lambda: rest.deployment(deployment).get("waitingFor", "").startswith("3 more of 3 pods to be ready") or None,
        "the pods to be counted",
    )
    assert moment(shown["deadline"]) > moment(shown["since"])
    rest.world.service.undeploy(rest.world.namespace, deployment.id)


def test_health_checks_that_do_not_pass_are_counted_and_said_once(rest: Rest) -> None:
    deployment = rest.world.deploy(replicas=2, env={"FAIL": "1"}, **HEALTHY)
    waits = "2 of 2 pods to pass 2 rounds of health checks"
    shown = rest.until(deployment, step="verify-health", waitingFor=waits)
    assert shown["phase"] == "VERIFY"
    failed = rest.world.ended(deployment, Status.FAILURE)
    assert states(rest.deployment(failed))["verify-health"] == "failed"
    said = [line.partition(" ")[2] for line in rest.world.log(deployment.id).splitlines()]
    assert sorted(said) == sorted(set(said))


# --- after the switch -----------------------------------------------------------------------------------------------


@pytest.fixture
def kept(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[Rest]:
    """A service in which replaced versions are kept."""
    made = World(cluster, tmp_path, namespace, keep_warm=600.0).start()
    yield Rest(made)
    made.close()


def test_a_live_version_says_until_when_the_one_before_is_warm(kept: Rest) -> None:
    first = kept.world.deployed(**HEALTHY)
    second = kept.world.deployed(**HEALTHY)
    watched, drained = kept.until(second, phase="WATCH"), kept.until(first, phase="DRAIN")
    assert (watched["status"], drained["status"]) == ("DEPLOYED", "UNDEPLOYING")
    assert watched["waitingFor"] == (
        "version 2 to prove itself; until then version 1 is kept warm, and a rollback to it is one switch"
    )
    assert drained["waitingFor"] == (
        "the end of the time for which version 1 is kept; until then a rollback to it is one switch"
    )
    assert abs(moment(watched["deadline"]) - moment(drained["deadline"])) < 2
    assert 590 < moment(watched["deadline"]) - time.time() < 610
    kept.until(second, step="watch")
    listed = {shown["id"]: shown for shown in kept.get("/deployments/").json}
    assert listed[first.id] == kept.deployment(first) and listed[second.id] == kept.deployment(second)
    RollbackCommands(kept.world.service).roll_back(kept.world.namespace, "shop")
    kept.until(second, status="FAILURE")
    back = kept.deployment(first)
    assert back["status"] == "DEPLOYED"
    assert [step["id"] for step in back["steps"]].count("move-service") == 2
    going = kept.until(second, phase="DRAIN")
    assert going["failure"]["reason"] == "RolledBack"
    assert going["waitingFor"] == "the end of the time for which version 2 is kept"


# --- entity tags ----------------------------------------------------------------------------------------------------


def test_the_tag_moves_with_what_is_shown_and_with_nothing_else(rest: Rest, stage: Stage) -> None:
    told = threading.Event()

    def run(work: Work) -> Outcome:
        work.waiting("one thing")
        work.scope.wait(told)
        work.waiting("another thing")
        return stage.wait(work)

    stage.run = run
    deployment = rest.world.deploy(**STAGED)
    path = f"/deployments/{deployment.id}/"
    rest.until(deployment, waitingFor="one thing")
    first = rest.get(path)
    for _ in range(2):
        same = rest.get(path, **{"If-None-Match": first.headers["ETag"]})
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    told.set()
    rest.until(deployment, waitingFor="another thing")
    second = rest.get(path, **{"If-None-Match": first.headers["ETag"]})
    assert second.status_code == 200 and second.headers["ETag"] != first.headers["ETag"]
    stage.go.set()
    rest.world.ended(deployment, Status.DEPLOYED)
    rest.world.quiet()
    last = rest.get(path, **{"If-None-Match": second.headers["ETag"]})
    assert last.status_code == 200
    found = rest.world.store.get(Deployment, deployment.id)
    assert found and last.headers["ETag"] == f'"{found.revision}"'


def test_a_restart_does_not_change_the_tag_of_what_did_not_change(rest: Rest) -> None:
    deployment = rest.world.deployed(**HEALTHY)
    rest.world.quiet()
    path = f"/deployments/{deployment.id}/"
    tag = rest.get(path).headers["ETag"]
    rest.world.restart()
    assert rest.get(path, **{"If-None-Match": tag}).status_code == 304


def test_if_match_goes_by_the_revision_and_not_by_how_far_it_is(rest: Rest, stage: Stage) -> None:
    stage.run = stage.wait
    deployment = rest.world.deploy(**STAGED)
    rest.until(deployment, step="second")
    tag = rest.get(f"/deployments/{deployment.id}/").headers["ETag"]
    assert "." in tag
    client = testing.TestClient(create_app(rest.world.service, list, list), headers={"Host": "localhost"})
    query = f"?namespace={rest.world.namespace}"
    stale = client.simulate_delete(f"/deployments/{deployment.id}/{query}", headers={"If-Match": '"1.abcdef"'})
    assert stale.status_code == 412
    done = client.simulate_delete(f"/deployments/{deployment.id}/{query}", headers={"If-Match": tag})
    assert done.status_code == 202
    rest.world.ended(deployment, Status.UNDEPLOYED)


# --- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_times_are_shown_by_the_clock_as_it_is_now(rest: Rest, stage: Stage, jump: float) -> None:
    """Somebody sets the system's clock while a step waits: its deadline is as far away as it was."""
    stage.run = lambda work: Park(work.now() + 500, "approval by a person")
    deployment = rest.world.deploy(**STAGED)
    rest.until(deployment, waitingFor="approval by a person")
    rest.world.until(lambda: parked(rest.world, deployment), "it to be parked")
    shown = rest.deployment(deployment)
    progress = rest.world.apps.progress
    progress._wall = lambda: time.time() + jump
    later = rest.deployment(deployment)
    for name in ("since", "deadline"):
        assert abs(moment(later[name]) - moment(shown[name]) - jump) < 2
    assert moment(later["deadline"]) - moment(later["since"]) == pytest.approx(
        moment(shown["deadline"]) - moment(shown["since"]), abs=0.01
    )


# --- the log says each thing once -----------------------------------------------------------------------------------


def said_once(world: World, deployment: Deployment) -> list[str]:
    """What the log says, none of it twice."""
    said = [line.partition(" ")[2] for line in world.log(deployment.id).splitlines()]
    assert sorted(said) == sorted(set(said))
    return said


def test_a_parked_poll_stands_in_the_log_once(rest: Rest, stage: Stage) -> None:
    calls: list[float] = []
    enough = threading.Event()

    def run(work: Work) -> Outcome:
        work.log("the answer is no")
        calls.append(work.now())
        if len(calls) >= 4:
            enough.set()
        return Done() if stage.go.is_set() else Park(work.now() + 1, "a better answer")

    stage.run = run
    deployment = rest.world.deploy(**STAGED)
    assert enough.wait(PATIENCE)
    shown = rest.until(deployment, waitingFor="a better answer")
    rest.world.restart()
    enough.clear()
    assert enough.wait(PATIENCE)
    assert rest.until(deployment, waitingFor="a better answer")["since"] == shown["since"]
    stage.go.set()
    rest.world.ended(deployment, Status.DEPLOYED)
    said = said_once(rest.world, deployment)
    assert {"a better answer", "the answer is no"} <= set(said)


def test_what_waits_for_its_own_version_to_drain_says_so_once(kept: Rest) -> None:
    first = kept.world.deployed(newVersion="1", **HEALTHY)
    kept.world.deployed(newVersion="2", **HEALTHY)
    again = kept.world.deploy(newVersion="1", **HEALTHY)
    waits = f"version 1 to be removed, which is still draining (deployment {first.id})"
    shown = kept.until(again, phase="QUEUED", waitingFor=waits)
    assert 590 < moment(shown["deadline"]) - time.time() < 900
    for _ in range(2):
        kept.world.restart()
        kept.until(again, phase="QUEUED", waitingFor=waits)
        kept.world.engine._wake.set()
    said = said_once(kept.world, again)
    assert sum("still draining" in line for line in said) == 1


def test_a_held_undoing_stands_in_the_log_once(rest: Rest, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.core.operations.machine.HOLD_INTERVAL", 0.2)
    looks: list[int] = []

    def undo(work: Work) -> None:
        looks.append(1)
        if not stage.go.is_set():
            raise OperatorNeeded("nothing is ready to go back to")

    stage.run = lambda _: (_ for _ in ()).throw(StepFailed("it does not fit"))
    stage.undo = undo
    deployment = rest.world.deploy(**STAGED)
    shown = rest.until(deployment, phase="UNDO", held="nothing is ready to go back to")
    assert states(shown)["second"] == "failed"
    for _ in range(2):
        before = len(looks)
        rest.world.until(lambda before=before: len(looks) > before + 3 or None, "it to be looked at again")
        rest.world.restart()
    rest.until(deployment, held="nothing is ready to go back to")
    stage.go.set()
    rest.world.ended(deployment, Status.FAILURE)
    said_once(rest.world, deployment)


# --- costs ----------------------------------------------------------------------------------------------------------


def test_looking_writes_nothing(rest: Rest, stage: Stage) -> None:
    stage.run = lambda work: Park(work.now() + 500, "approval by a person")
    deployment = rest.world.deploy(**STAGED)
    rest.until(deployment, waitingFor="approval by a person")
    rest.world.until(lambda: parked(rest.world, deployment), "it to be parked")
    rest.world.engine._wake.set()
    before = rest.world.writes
    for _ in range(20):
        for path in (f"/deployments/{deployment.id}/", "/deployments/", "/apps/", "/apps/shop/", "/apps/shop/history"):
            assert rest.get(path).status_code == 200
    assert rest.world.writes == before


def test_saying_what_is_waited_for_writes_nothing(rest: Rest, stage: Stage) -> None:
    counted: list[int] = []

    def run(work: Work) -> Outcome:
        before = rest.world.writes
        for n in range(1000):
            work.waiting(f"{n} sheep")
        counted.append(rest.world.writes - before)
        return Done()

    stage.run = run
    rest.world.deployed(**STAGED)
    assert counted == [0]

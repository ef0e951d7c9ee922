"""Plugins that misbehave: they hang, raise, exit, return rubbish, in `run`, in `undo`, and as a whole strategy."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from deployer.core.errors import Invalid, Problem
from deployer.core.model.records import Deployment, Document, Operation, Status, StoredDescriptor
from deployer.core.operations import dispatcher, machine
from deployer.core.operations.execution import budgets
from deployer.core.registry import Entry
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.errors import Cancelled, Interrupted, OperatorNeeded, PluginError, Revoked, StepFailed
from deployer.sdk.health import HealthChecker, HealthTarget, Verdict
from deployer.sdk.kube import CONFIG_MAP, CONTROLLER, POD, NotReady
from deployer.sdk.strategy import (
    AwaitReady,
    CheckUnused,
    Done,
    MoveService,
    Outcome,
    Park,
    Phase,
    Plan,
    StartWorkload,
    Step,
    Strategy,
    Work,
)
from deployer.toolkit.health import runner as health_runner
from support.strategies import Steps, restart_with
from support.world import HEALTHY, PATIENCE, World

OLD = {"replicationcontrollers": {"shop-1"}, "services": {"shop", "shop-1"}}


class Odd(Step):
    """A step of the phase VERIFY that does what a test wants."""

    id = "odd"
    phase = Phase.VERIFY

    def __init__(self, run: Callable[[Work], Any], undo: Callable[[Work], None] = lambda work: None) -> None:
        self._run = run
        self._undo = undo

    def run(self, work: Work) -> Outcome:
        outcome: Outcome = self._run(work)
        return outcome

    def undo(self, work: Work) -> None:
        self._undo(work)


class Hanging:
    """Hangs deaf to its gate until the test lets it go, then tries to write; `refused` is what it ran into."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.over = threading.Event()
        self.refused: list[BaseException] = []

    def __call__(self, work: Work) -> Outcome:
        self.go.wait(PATIENCE)
        for write in (
            lambda: work.kube.create(CONFIG_MAP, config_map(work)),
            lambda: work.remember("key", 1),
            lambda: work.kube.delete_shared(CONFIG_MAP, "shop"),
        ):
            try:
                write()
            except BaseException as error:  # noqa: BLE001
                self.refused.append(error)
        self.over.set()
        return Done()

    def let_go(self) -> list[type[BaseException]]:
        """Let it try, and say what that raised."""
        self.go.set()
        assert self.over.wait(PATIENCE)
        return [type(error) for error in self.refused]


def config_map(work: Work) -> Document:
    """An object of a plugin's own, that belongs to the deployment."""
    metadata = {
        "name": f"{work.plan.app}-odd-{work.plan.version}",
        "labels": {"app.kubernetes.io/managed-by": "deployer"},
        "annotations": work.kube.annotations("versioned-odd"),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}


def odd(run: Callable[[Work], Any], undo: Callable[[Work], None] = lambda work: None) -> Strategy:
    """Starts the workload, then does what a test wants."""
    return Steps("odd", lambda plan: [StartWorkload(), AwaitReady(), Odd(run, undo), MoveService()])


def fail(work: Work) -> Outcome:
    raise StepFailed("it fails", reason="Odd")


def failed(world: World, reason: str = "", **fields: Any) -> Deployment:
    """Deploy with the odd strategy, which fails; version 1 serves on, and nothing of the failed one is left."""
    found = world.ended(world.deploy(**{"deploymentType": "odd", **fields}), Status.FAILURE)
    assert found.failure
    assert not reason or found.failure["reason"] == reason, found.failure
    world.quiet()
    assert (world.names(), world.live_version()) == (OLD, "1")
    assert all(name.startswith("shop-1-") for name in world.pods())
    return found


def impatient(world: World) -> None:
    """One second for health checks, which is what the odd step may take; little more for undoing."""
    world.settings = dataclasses.replace(world.settings, timeout=1.0, undo_timeout=1.0)


# --- hanging ------------------------------------------------------------------------------------------------------


def test_a_step_that_hangs_is_undone_and_writes_nothing_later(world: World) -> None:
    impatient(world)
    hanging, undone = Hanging(), threading.Event()
    restart_with(world, odd(hanging, lambda work: undone.set()))
    world.deployed()
    found = failed(world, "DeadlineExceeded")
    assert found.failure and "step odd did not finish within the 1 s that it may take" in found.failure["message"]
    assert undone.is_set()
    assert world.engine.hung.count() == 1
    thread = next(t for t in threading.enumerate() if t.name == "step-shop")
    refused = hanging.let_go()
    assert len(refused) == 3 and all(issubclass(error, Interrupted) for error in refused), hanging.refused
    thread.join(PATIENCE)
    assert (world.engine.hung.count(), world.names()) == (0, OLD)


def test_a_step_that_hangs_is_left_behind_when_it_is_cancelled(world: World) -> None:
    hanging, there = Hanging(), threading.Event()

    def run(work: Work) -> Outcome:
        there.set()
        return hanging(work)

    restart_with(world, odd(run))
    world.deployed()
    deployment = world.deploy(deploymentType="odd")
    assert there.wait(PATIENCE)
    world.service.undeploy(world.namespace, deployment.id)
    world.ended(deployment, Status.UNDEPLOYED)
    refused = hanging.let_go()
    assert refused and all(issubclass(error, Cancelled | Revoked) for error in refused)
    assert world.names() == OLD


def test_an_undo_that_hangs_is_tried_again_and_then_the_core_removes_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(world)
    monkeypatch.setattr(machine, "UNDO_ATTEMPTS", 1)
    monkeypatch.setattr(budgets, "PODS_GONE", 0.0)
    hanging = Hanging()

    def run(work: Work) -> Outcome:
        work.kube.create(CONFIG_MAP, config_map(work))
        return fail(work)

    def undo(work: Work) -> None:
        hanging(work)

    restart_with(world, odd(run, undo))
    world.deployed()
    found = failed(world, "Odd")
    log = world.log(found.id)
    assert "undoing step odd keeps failing" in log
    assert re.search(
        r"within \d+ s, which are undo_timeout \(1 s\), the pods' grace time \(\d+ s\) and 0 s more", log
    ), log
    assert world.engine.hung.count() == 2
    assert all(issubclass(error, Interrupted) for error in hanging.let_go())
    assert world.names() == OLD


def test_too_many_that_hang_are_a_problem_of_the_service(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(world)
    monkeypatch.setattr(dispatcher, "TOO_MANY_HUNG", 2)
    hanging = Hanging()
    restart_with(world, odd(hanging))
    assert world.engine.problem == ""
    for deployment in [world.deploy(app, deploymentType="odd") for app in ("shop", "other")]:
        world.ended(deployment, Status.FAILURE)
    assert "2 steps hang" in world.engine.problem
    hanging.go.set()
    for thread in threading.enumerate():
        if thread.name in ("step-shop", "step-other"):
            thread.join(PATIENCE)
    assert world.engine.problem == ""


# --- raising and rubbish ------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[Work], Any]:
    def run(work: Work) -> Any:
        raise error

    return run


class Unspeakable(StepFailed):
    """Cannot say what went wrong."""

    def __str__(self) -> str:
        return str(1 // 0)


class Never(NotReady):
    """An event that cannot be asked."""

    def has_come(self, found: Sequence[Document]) -> bool:
        raise ValueError("of the plugin")


RUNS: dict[str, tuple[Callable[[Work], Any], str]] = {
    "raises": (raising(ValueError("of the plugin")), "it raised ValueError"),
    "exits": (raising(SystemExit(3)), "it raised SystemExit"),
    "interrupts": (raising(KeyboardInterrupt()), "it raised KeyboardInterrupt"),
    "stops iterating": (raising(StopIteration()), "it raised StopIteration"),
    "claims to be cancelled": (raising(Cancelled("no")), "it raised Cancelled"),
    "claims to be revoked": (raising(Revoked("no")), "it raised Revoked"),
    "claims to be interrupted": (raising(Interrupted("no")), "it raised Interrupted"),
    "returns nothing": (lambda work: None, "step odd returned NoneType"),
    "returns true": (lambda work: True, "step odd returned bool"),
    "returns the class": (lambda work: Done, "step odd returned type"),
    "parks for ever": (lambda work: Park(float("inf")), "step odd parks until inf"),
    "parks until nobody knows": (lambda work: Park("tomorrow"), "step odd parks until 'tomorrow'"),  # type: ignore[arg-type]
    "parks until no number": (lambda work: Park(float("nan")), "step odd parks until nan"),
    "parks for no reason": (lambda work: Park(0.0, reason=3), "step odd parks for a reason that is no text"),  # type: ignore[arg-type]
    "parks for words": (lambda work: Park(0.0, event="later"), "step odd parks for str, which is no event"),  # type: ignore[arg-type]
    "parks for nonsense": (
        lambda work: Park(0.0, event=NotReady("pods", None, {}, frozenset())),  # type: ignore[arg-type]
        "step odd parks for NotReady, which is no event",
    ),
    "parks for an event of its own": (
        lambda work: Park(0.0, event=Never(POD, work.plan.namespace, {}, frozenset())),
        "step odd parks for Never, which is no event",
    ),
    "fails without words": (raising(StepFailed(None, reason=None)), "it raised StepFailed"),  # type: ignore[arg-type]
    "fails for something": (raising(StepFailed("a", hint=object())), "it raised StepFailed"),  # type: ignore[arg-type]
    "fails with a mistake": (raising(Unspeakable("a")), "it raised ZeroDivisionError"),
    "fails at length": (raising(StepFailed("a" * 1_000_000, reason="b c", hint="d" * 1_000_000)), "a" * 4000),
    "remembers too much": (lambda work: work.remember("key", "a" * 70_000), "wants to remember 70005 bytes under one"),
    "remembers too many": (
        lambda work: [work.remember(str(n), n) for n in range(1001)],
        "step odd wants to remember more than 1000 keys",
    ),
    "remembers no json": (lambda work: work.remember("key", object()), "it raised TypeError"),
}


def each(cases: Mapping[str, Any]) -> dict[str, str]:
    """An app for each case, by case: they are deployed at the same time."""
    return {case: f"app-{number}" for number, case in enumerate(cases)}


def test_a_step_that_misbehaves_fails_its_deployment_alone(world: World) -> None:
    apps = each(RUNS)
    runs = {apps[case]: run for case, (run, _) in RUNS.items()}
    restart_with(world, odd(lambda work: runs[work.plan.app](work)))
    world.deployed()
    asked = {case: world.deploy(app, deploymentType="odd") for case, app in apps.items()}
    ended = {case: world.ended(deployment, Status.FAILURE) for case, deployment in asked.items()}
    wrong = {case: d.failure for case, d in ended.items() if RUNS[case][1] not in (d.failure or {})["message"]}
    assert not wrong
    world.quiet()
    assert world.names() == OLD
    assert world.deployed(apps["exits"]).version == "2"


def test_an_undo_that_raises_is_tried_again_and_then_the_core_removes_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "UNDO_ATTEMPTS", 1)
    errors = (ValueError("of the plugin"), SystemExit(3), Cancelled("no"), Revoked("no"))
    apps = {f"app-{number}": error for number, error in enumerate(errors)}
    tried: list[str] = []

    def run(work: Work) -> Outcome:
        work.kube.create(CONFIG_MAP, config_map(work))
        return fail(work)

    def undo(work: Work) -> None:
        tried.append(work.plan.app)
        raise apps[work.plan.app]

    restart_with(world, odd(run, undo))
    world.deployed()
    for deployment in [world.deploy(app, deploymentType="odd") for app in apps]:
        found = world.ended(deployment, Status.FAILURE)
        assert found.failure and found.failure["reason"] == "Odd"
        log = world.log(found.id)
        assert "undoing is not finished: step odd" in log
        assert "undoing step odd keeps failing" in log
    assert sorted(tried) == sorted([*apps, *apps])
    world.quiet()
    assert (world.names(), world.live_version()) == (OLD, "1")


def test_an_undo_that_recovers_is_undone_once(world: World) -> None:
    tried: list[str] = []

    def undo(work: Work) -> None:
        tried.append("")
        if len(tried) == 1:
            raise ValueError("the first time")

    restart_with(world, odd(fail, undo))
    world.deployed()
    found = failed(world, "Odd")
    assert len(tried) == 2
    assert "keeps failing" not in world.log(found.id)


def test_a_step_that_can_neither_go_on_nor_back_is_held_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "HOLD_INTERVAL", 0.1)
    tried: list[str] = []

    def run(work: Work) -> Outcome:
        tried.append("")
        if len(tried) < 3:
            raise OperatorNeeded("the moon is in the wrong house")
        return Done()

    restart_with(world, odd(run))
    found = world.ended(world.deploy(deploymentType="odd"), Status.DEPLOYED)
    assert world.log(found.id).count("the moon is in the wrong house") == 1


def test_a_held_deployment_can_be_cancelled(world: World) -> None:
    restart_with(world, odd(raising(OperatorNeeded("the moon is in the wrong house"))))
    world.deployed()
    deployment = world.deploy(deploymentType="odd")
    world.until(lambda: "the moon" in world.log(deployment.id), "the hold")
    world.service.undeploy(world.namespace, deployment.id)
    world.ended(deployment, Status.UNDEPLOYED)
    assert world.names() == OLD


# --- a whole strategy ---------------------------------------------------------------------------------------------


class Saying(Step):
    """Says something of itself."""

    id = "saying"
    phase = Phase.START

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def run(self, work: Work) -> Outcome:
        return Done()


class Silent(AwaitReady):
    """Does not say what it does."""

    @property
    def frees_app(self) -> bool:  # type: ignore[override]
        return bool(1 // 0)


class Nameless(Step):
    """Has no id."""

    phase = Phase.START

    def run(self, work: Work) -> Outcome:
        return Done()


def _raise(error: BaseException) -> Sequence[Step]:
    raise error


STRATEGIES: dict[str, tuple[Callable[[Plan], Any], str]] = {
    "twice the same": (lambda plan: [StartWorkload(), StartWorkload()], "strategy odd gave two steps of the same id"),
    "out of order": (
        lambda plan: [Odd(fail), StartWorkload()],
        "strategy odd gave steps whose phases are out of order",
    ),
    "retires": (lambda plan: [*deploy_steps(), CheckUnused()], "strategy odd gave steps whose phases are out of order"),
    "nothing": (lambda plan: [], "strategy odd gave no steps"),
    "none": (lambda plan: None, "strategy odd gave something that is no list of steps"),
    "a number": (lambda plan: 7, "strategy odd gave something that is no list of steps"),
    "words": (lambda plan: ["start-workload"], "strategy odd gave something that is no list of steps"),
    "classes": (lambda plan: [StartWorkload], "strategy odd gave something that is no list of steps"),
    "half disturbing": (lambda plan: [Saying(disturbs="yes")], "gave a step whose disturbs or exposes is neither"),
    "half exposing": (lambda plan: [Saying(exposes=None)], "gave a step whose disturbs or exposes is neither"),
    "no time": (lambda plan: [Saying(budget=0)], "gave a step whose budget is no positive number of seconds"),
    "endless": (lambda plan: [Saying(budget=float("inf"))], "gave a step whose budget is no positive number"),
    "a word of time": (lambda plan: [Saying(budget="60s")], "gave a step whose budget is no positive number"),
    "an endless id": (lambda plan: [Saying(id="a" * 201)], "gave a step whose id is longer than 200 characters"),
    "an id of the core": (lambda plan: [Saying(id="engine")], "or one of the core's own: engine, soakSeconds"),
    "the id of the core's step": (
        lambda plan: [Saying(id="soakSeconds")],
        "one of the core's own: engine, soakSeconds",
    ),
    "cannot say what it frees": (
        lambda plan: [StartWorkload(), Silent(), MoveService()],
        "a step raised ZeroDivisionError when it was asked what it does",
    ),
    "without id": (lambda plan: [Nameless()], "strategy odd gave a step without an id"),
    "raises": (lambda plan: _raise(ValueError("of the plugin")), "it raised ValueError"),
    "exits": (lambda plan: _raise(SystemExit(3)), "it raised SystemExit"),
}


def test_a_strategy_that_cannot_be_carried_out_fails_before_anything_is_written(world: World) -> None:
    apps = each(STRATEGIES)
    given = {apps[case]: give for case, (give, _) in STRATEGIES.items()}
    restart_with(world, Steps("odd", lambda plan: given[plan.app](plan)))
    asked = {case: world.deploy(app, deploymentType="odd") for case, app in apps.items()}
    ended = {case: world.ended(deployment, Status.FAILURE) for case, deployment in asked.items()}
    wrong = {case: d.failure for case, d in ended.items() if STRATEGIES[case][1] not in (d.failure or {})["message"]}
    assert not wrong
    assert world.names() == {}


def test_a_strategy_that_breaks_while_it_deploys_ends_in_failure(world: World) -> None:
    """A new release of the plugin, say, that came with a restart of the service."""
    go = threading.Event()
    changed: dict[str, Callable[[Plan], Any]] = {
        "other steps": lambda plan: deploy_steps(),
        "hangs": lambda plan: go.wait(PATIENCE),
        **{case: STRATEGIES[case][0] for case in ("raises", "exits", "none", "twice the same")},
    }
    apps = each(changed)

    def wait(work: Work) -> Outcome:
        work.log("waiting")
        work.scope.wait(threading.Event())
        return Done()

    restart_with(world, odd(wait))
    world.deployed()
    asked = {case: world.deploy(app, deploymentType="odd") for case, app in apps.items()}
    for deployment in asked.values():
        world.until(lambda id=deployment.id: "waiting" in world.log(id), "the step")  # type: ignore[misc]
    world.stop()
    world.settings = dataclasses.replace(world.settings, expose_timeout=1.0)
    given = {app: changed[case] for case, app in apps.items()}
    restart_with(world, Steps("odd", lambda plan: given[plan.app](plan)))
    for deployment in asked.values():
        found = world.ended(deployment, Status.FAILURE)
        assert "undoing without the plugin" in world.log(found.id)
    go.set()
    world.quiet()
    assert (world.names(), world.live_version()) == (OLD, "1")
    assert world.deployed(apps["hangs"]).version == "2"


class Untidy(Strategy):
    """Blue-green, whose steps for removing are broken."""

    name = "untidy"

    def __init__(self, give: Callable[[Plan], Any]) -> None:
        self._give = give

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return deploy_steps()

    def retire_steps(self, plan: Plan) -> Sequence[Step] | None:
        steps: Sequence[Step] | None = self._give(plan)
        return steps

    undeploy_steps = retire_steps


def test_a_strategy_that_cannot_remove_is_replaced_by_the_usual_steps(world: World) -> None:
    cases = {case: STRATEGIES[case][0] for case in ("raises", "exits", "words", "twice the same")}
    given = {app: cases[case] for case, app in each(cases).items()}
    restart_with(world, Untidy(lambda plan: given[plan.app](plan)))
    first = [world.deploy(app, deploymentType="untidy") for app in given]
    second = [world.deploy(app, deploymentType="untidy") for app in given]
    for deployment in second:
        world.ended(deployment, Status.DEPLOYED)
    for deployment in first:
        world.ended(deployment, Status.UNDEPLOYED)
        assert "the usual steps are taken" in world.log(deployment.id)
    for deployment in second:
        world.service.undeploy(world.namespace, deployment.id)
        world.ended(deployment, Status.UNDEPLOYED)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_an_object_of_a_plugin_goes_with_its_deployment(world: World) -> None:
    """Although no step of the plugin removes it: its annotations say whose it is."""

    def run(work: Work) -> Outcome:
        work.kube.create(CONFIG_MAP, config_map(work))
        return Done()

    restart_with(world, Steps("odd", lambda plan: [*deploy_steps()[:3], Odd(run), *deploy_steps()[3:]]))
    world.deployed(deploymentType="odd")
    second = world.deployed(deploymentType="odd")
    world.quiet()
    assert set(world.objects(CONFIG_MAP)) == {"shop-odd-2"}
    world.service.undeploy(world.namespace, second.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


class Unsure(Steps):
    """Cannot say what it thinks of a descriptor."""

    def __init__(self, check: Callable[[Document], Any]) -> None:
        super().__init__("unsure", lambda plan: deploy_steps())
        self._check = check

    def check_descriptor(self, descriptor: Document) -> Any:
        return self._check(descriptor)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (
            lambda descriptor: descriptor["nosuchfield"],
            "strategy unsure of tests 1 raised KeyError in check_descriptor",
        ),
        (lambda descriptor: _raise(SystemExit(3)), "strategy unsure of tests 1 raised SystemExit in check_descriptor"),
        (
            lambda descriptor: None,
            r"check_descriptor\(\) of strategy unsure of tests 1 returned None, not a list; did you forget `return`\?",
        ),
        (
            lambda descriptor: True,
            r"check_descriptor\(\) of strategy unsure of tests 1 returned something of type bool, not a list",
        ),
        (
            lambda descriptor: ["wrong"],
            r"check_descriptor\(\) of strategy unsure of tests 1 gave something that is no P",
        ),
        (lambda descriptor: [Problem("", 3)], r"check_descriptor\(\) of strategy unsure of tests 1 gave something"),  # type: ignore[arg-type]
    ],
)
def test_a_provider_that_cannot_check_a_descriptor_is_named_and_nothing_is_stored(
    world: World, check: Callable[[Document], Any], words: str
) -> None:
    restart_with(world, Unsure(check))
    with pytest.raises(PluginError, match=f"^{words}"):
        world.descriptor(deploymentType="unsure")
    assert not world.store.find(StoredDescriptor, namespace=world.namespace)


def test_a_provider_cannot_change_the_descriptor_that_it_checks(world: World) -> None:
    restart_with(world, Unsure(lambda descriptor: descriptor.clear() or []))
    assert world.descriptor(deploymentType="unsure").document["deploymentType"] == "unsure"


# --- health checkers ----------------------------------------------------------------------------------------------


class Moody(HealthChecker):
    """Likes the first pod that it sees, and raises for all others."""

    name = "moody"

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._lock = threading.Lock()
        self._liked = ""

    def check(self, target: HealthTarget) -> Verdict:
        with self._lock:
            self._liked = self._liked or target.uid
        if target.uid == self._liked:
            return Verdict(True, "well")
        raise self._error


@pytest.mark.parametrize("error", [ValueError("of the plugin"), SystemExit(0)], ids=repr)
def test_a_pod_whose_check_raises_is_not_healthy(world: World, error: BaseException) -> None:
    impatient(world)
    restart_with(world, Moody(error), kind="health_checkers")
    descriptor = {**HEALTHY, "healthCheckType": "moody", "replicas": 2}
    found = world.ended(world.deploy(**descriptor), Status.FAILURE)
    assert found.failure and found.failure["reason"] == "Unhealthy"
    assert f"failed with {type(error).__name__}" in found.failure["message"]
    assert not world.store.find(Operation, tag="open")


class Deaf(HealthChecker):
    """Hangs for the first pod of all, and takes no notice of its deadline."""

    name = "deaf"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def check(self, target: HealthTarget) -> Verdict:
        self.calls += 1
        self.go.wait(PATIENCE)
        return Verdict(True, "well")


def test_a_health_checker_that_hangs_is_named_and_called_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_runner, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(health_runner, "LATE", 0.1)
    deaf = Deaf()
    world.stop()
    world.settings = dataclasses.replace(world.settings, timeout=2.0)
    registry = load_plugins(world.settings)
    world.start(dataclasses.replace(registry, health_checkers={"deaf": Entry(deaf, "tests", "1", "deaf")}))
    found = world.ended(world.deploy(**{**HEALTHY, "healthCheckType": "deaf"}), Status.FAILURE)
    deaf.go.set()
    assert "health checker deaf" in world.log(found.id)
    assert deaf.calls == 1
    assert world.engine.hung.count() == 0


class Picky(HealthChecker):
    """Needs an option, and no path."""

    name = "picky"
    options_schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}  # noqa: RUF012
    needs_path = False

    def __init__(self) -> None:
        self.seen: list[tuple[str, Mapping[str, Any]]] = []

    def check(self, target: HealthTarget) -> Verdict:
        self.seen.append((target.path, target.options))
        return Verdict(True, "well")


def test_a_health_checker_gets_the_descriptors_options_and_may_do_without_a_path(world: World) -> None:
    picky = Picky()
    world.stop()
    registry = load_plugins(world.settings)
    world.start(dataclasses.replace(registry, health_checkers={"picky": Entry(picky, "tests", "1", "picky")}))
    fields = {**HEALTHY, "healthCheckType": "picky", "healthCheckPath": None}
    with pytest.raises(Invalid, match=r"healthCheckOptions\.word"):
        world.deploy(**fields)
    world.deployed(**fields, healthCheckOptions={"word": "please"})
    assert picky.seen[0] == ("/", {"word": "please"})
    annotations = world.objects(CONTROLLER)["shop-1"]["metadata"]["annotations"]
    assert annotations["healthCheckType"] == "picky" and "healthCheckPath" not in annotations

"""Gates: at every point, with every strategy, whatever they answer; waiting, deciding, and after a restart."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from deployer.commands.rollback_commands import RollbackCommands
from deployer.core.errors import Conflict, DeployerError, NotFound, NotPermitted
from deployer.core.model.gates import GateDecision, GateResults
from deployer.core.model.records import Deployment, Operation, Plan, Status
from deployer.core.operations import machine
from deployer.core.ports.store import Create
from deployer.core.registry import Entry
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.errors import KubeUnavailable, StepFailed
from deployer.sdk.gate import (
    Failed,
    Inconclusive,
    Measurement,
    Missing,
    Passed,
    Pending,
    Signal,
    Verdict,
    VersionUnreachable,
)
from deployer.sdk.kube import CONFIG_MAP
from deployer.store.sqlite import SqliteStore
from support.gates import POINTS, Scripted, awaited, decide, gated, results, verdicts
from support.strategies import Steps, restart_with
from support.world import HEALTHY, World

HOST = "gates.example.com"
ROUTED = {"frontend": HOST, **HEALTHY}
CANARY = {"deploymentType": "canary", "strategyOptions": {"steps": [{"weight": 50, "pause": 0.1}]}, "replicas": 2}
STRATEGIES = {
    "blue-green": {},
    "recreate": {"deploymentType": "recreate"},
    "canary": CANARY,
    "strangers": {"deploymentType": "strangers"},
}
STRANGERS = Steps("strangers", lambda plan: deploy_steps())


def gates_at(*points: str, **fields: Any) -> dict[str, Any]:
    """One gate at each of these points, each called like it."""
    return {"gates": {point: [{"type": "scripted", "name": point.lower(), **fields}] for point in points}}


def version(text: str) -> str:
    """Which one answered."""
    return " ".join(text.split()[:2])


def restart_with_strangers(world: World, give: Any) -> Scripted:
    """Start the service anew, with a gate that a test scripts, and a strategy of somebody else."""
    gate = Scripted(give)
    world.stop()
    registry = load_plugins(world.settings, entry_points=world.entry_points)
    gates = {**registry.gates, gate.name: Entry(gate, "tests", "1", gate.name)}
    strategies = {**registry.strategies, STRANGERS.name: Entry(STRANGERS, "tests", "1", STRANGERS.name)}
    world.start(dataclasses.replace(registry, gates=gates, strategies=strategies))
    return gate


def alone(world: World, give: Any, **fields: Any) -> tuple[Scripted, Deployment]:
    """A first deployment with one gate before its start, which is quick."""
    gate = Scripted(give)
    restart_with(world, gate, kind="gates")
    return gate, world.deploy(**gated("beforeStart", **fields))


# --- where they stand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gates_look_at_their_points_of_every_strategy(world: World, strategy: str) -> None:
    seen: dict[str, tuple[Any, ...]] = {}

    def look(context: Any, _: int) -> Passed:
        pods = [p for p in world.pods().values() if p["metadata"]["labels"].get("version") == "2"]
        answers = "" if context.point == "beforeStart" else version(context.version.pods()[0].http().text)
        seen[context.point] = (bool(pods), answers, world.live_version(), version(world.answer(HOST)[1]))
        return Passed("seen")

    world.deployed(**ROUTED)
    restart_with_strangers(world, look)
    second = world.deployed(**ROUTED, **STRATEGIES[strategy], **gates_at(*POINTS))
    old = "" if strategy == "recreate" else "version 1"
    assert list(seen) == list(POINTS)
    assert seen["beforeStart"] == (False, "", "1", "version 1")
    pods, answers, live, public = seen["beforeSwitch"]
    assert (pods, answers, live) == (True, "version 2", "1")
    assert old in public and "version 2" not in public
    assert seen["afterSwitch"] == (True, "version 2", "2", "version 2")
    assert verdicts(world, second) == ["passed"] * 3
    assert [(found["point"], found["name"]) for found in results(world, second)] == [(p, p.lower()) for p in POINTS]
    for found in results(world, second):
        assert found["began"] <= found["ended"] <= found["deadline"]


@pytest.mark.parametrize(
    ("strategy", "point"),
    [("blue-green", "beforeStart"), *itertools.product(STRATEGIES, POINTS[1:])],
)
def test_a_gate_that_fails_takes_every_strategy_back(world: World, strategy: str, point: str) -> None:
    world.deployed(**ROUTED)
    restart_with_strangers(world, lambda *_: Failed("3 tests are red", hint="mend them"))
    second = world.ended(world.deploy(**ROUTED, **STRATEGIES[strategy], **gated(point)), Status.FAILURE)
    world.quiet()
    assert second.failure == {
        "reason": "GateFailed",
        "message": "gate g failed: 3 tests are red",
        "hint": "mend them",
    }
    assert world.live_version() == "1"
    assert version(world.answer(HOST)[1]) == "version 1"
    assert world.names()["replicationcontrollers"] == {"shop-1"}
    assert verdicts(world, second) == ["failed"]
    assert world.log(second.id).count("3 tests are red") == 1


def test_gates_come_in_the_order_of_the_descriptor(world: World) -> None:
    order: list[str] = []

    def look(context: Any, _: int) -> Passed:
        order.append(context.name)
        return Passed("fine")

    restart_with(world, Scripted(look), kind="gates")
    gates = {
        point: [{"type": "scripted", "name": f"{point.lower()}-{n}"} for n in (2, 1)] for point in reversed(POINTS)
    }
    first = world.deployed(gates=gates)
    expected = [f"{point.lower()}-{n}" for point in POINTS for n in (2, 1)]
    assert order == expected == [found["name"] for found in results(world, first)]


def test_an_app_without_route_and_service_has_its_gates_behind_its_health(world: World) -> None:
    ready: list[int] = []

    def look(context: Any, _: int) -> Passed:
        ready.append(len(context.version.pods(8080)) if context.point != "beforeStart" else 0)
        return Passed("fine")

    restart_with(world, Scripted(look), kind="gates")
    world.deployed(**gates_at(*POINTS), replicas=2)
    assert ready == [0, 2, 2]


# --- what they answer -------------------------------------------------------------------------------------------------


def test_a_pass_needs_evidence(world: World) -> None:
    gate, first = alone(world, lambda *_: Passed("all well", [Measurement(1, ">= 1", Verdict.PASSED, name="up")]))
    world.ended(first, Status.DEPLOYED)
    (found,) = results(world, first)
    (measured,) = found["measurements"]
    assert (found["verdict"], found["reason"], found["measured"]) == ("passed", "all well", 1)
    assert measured == {**measured, "name": "up", "value": 1.0, "threshold": ">= 1", "verdict": "passed"}
    assert "gate g measured up 1 against >= 1: passed" in world.log(first.id)
    assert "gate g passed: all well" in world.log(first.id)
    assert (gate.calls, gate.ended) == (1, 1)


def crash(*_: Any) -> Any:
    """What a plugin may do."""
    raise ZeroDivisionError("secret detail")


WRONG = [
    (crash, "GateBroken", "raised ZeroDivisionError"),
    (lambda *_: None, "GateBroken", "returned NoneType, which is no outcome"),
    (lambda *_: True, "GateBroken", "returned bool, which is no outcome"),
    (lambda *_: Passed, "GateBroken", "returned type, which is no outcome"),
    (lambda *_: Passed("ok", [1]), "GateBroken", "gave a measurement of type int"),  # type: ignore[list-item]
    (lambda *_: Passed(3), "GateBroken", "gave a reason or a hint that is no text"),  # type: ignore[arg-type]
    (lambda *_: Passed("ok", [Measurement(float("nan"))]), "GateBroken", "measured nan"),
    (lambda *_: Pending(float("nan")), "GateBroken", "waits until nan"),
    (lambda *_: Pending(0.0, event="soon"), "GateBroken", "waits for str"),  # type: ignore[arg-type]
    (lambda *_: Missing("no series"), "GateMissing", "no series"),
    (lambda *_: (_ for _ in ()).throw(StepFailed("no database")), "GateFailed", "no database"),
    (lambda *_: (_ for _ in ()).throw(SystemExit(0)), "GateBroken", "raised SystemExit"),
]


@pytest.mark.parametrize(("give", "reason", "words"), WRONG)
def test_whatever_is_no_pass_fails(world: World, give: Any, reason: str, words: str) -> None:
    gate, first = alone(world, give)
    first = world.ended(first, Status.FAILURE)
    assert first.failure and first.failure["reason"] == reason
    assert words in first.failure["message"]
    assert "secret detail" not in str(first.failure) + world.log(first.id)
    assert verdicts(world, first) == ["failed"]
    assert world.names() == {}
    assert gate.ended == 1


@pytest.mark.parametrize(("give", "reason", "words"), [WRONG[n] for n in (0, 1, 9, 10)])
def test_a_dry_run_stops_nothing(world: World, give: Any, reason: str, words: str) -> None:
    _, first = alone(world, give, dryRun=True)
    world.ended(first, Status.DEPLOYED)
    (found,) = results(world, first)
    assert (found["verdict"], found["dryRun"]) == ("failed", True)
    assert words in found["reason"]
    assert world.log(first.id).count("a dry run, so the deployment goes on") == 1


def test_a_dry_run_asks_nobody(world: World) -> None:
    _, first = alone(world, lambda context, _: Pending(context.deadline, "a person", Signal()), dryRun=True)
    world.ended(first, Status.DEPLOYED)
    assert verdicts(world, first) == ["inconclusive"]
    inconclusive = Scripted(lambda *_: Inconclusive("who knows"))
    restart_with(world, inconclusive, kind="gates")
    second = world.deployed(**gated("beforeStart", dryRun=True))
    assert verdicts(world, second) == ["inconclusive"]


def test_a_gate_that_hangs_fails_and_can_do_nothing_any_more(world: World) -> None:
    go, late = threading.Event(), []

    def hang(context: Any, _: int) -> Passed:
        go.wait(30)
        try:
            context.kube.create(CONFIG_MAP, {"metadata": {"name": "late"}})
            context.remember("late", True)
        except DeployerError as error:
            late.append(error)
        return Passed("at last")

    gate = Scripted(hang, check_seconds=1.0)
    restart_with(world, gate, kind="gates")
    first = world.ended(world.deploy(**gated("beforeStart")), Status.FAILURE)
    assert first.failure and first.failure["reason"] == "GateBroken"
    assert "did not come back from check() within 1 s" in first.failure["message"]
    assert world.engine.hung.count() == 1
    go.set()
    world.until(lambda: world.engine.hung.count() == 0, "the thread to end")
    assert len(late) == 1
    assert "late" not in world.objects(CONFIG_MAP)


def test_a_pass_after_the_deadline_is_none(world: World) -> None:
    def slow(context: Any, _: int) -> Passed:
        context.scope.pause(0.9)
        while context.now() < context.deadline:
            time.sleep(0.01)
        return Passed("too late")

    _, first = alone(world, slow, timeoutSeconds=1)
    first = world.ended(first, Status.FAILURE)
    assert first.failure and first.failure["reason"] in ("GateTimedOut", "GateBroken")
    assert verdicts(world, first) == ["failed"]


def test_waiting_ends_with_the_gates_own_time(world: World) -> None:
    gate, first = alone(world, lambda context, _: Pending(context.now() + 3600, "the moon"), timeoutSeconds=1)
    first = world.ended(first, Status.FAILURE)
    assert first.failure == {
        **first.failure,
        "reason": "GateTimedOut",
        "message": "gate g was not passed: did not pass within 1 s; it waited for: the moon",
    }
    assert gate.calls == 1


@pytest.mark.parametrize("error", [KubeUnavailable("the API server is away"), VersionUnreachable("no pod answers")])
def test_errors_that_pass_are_tried_again(world: World, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.core.operations.gates.step.AGAIN", 0.1)

    def give(_: Any, n: int) -> Passed:
        if n == 1:
            raise error
        return Passed("it is back")

    gate, first = alone(world, give)
    world.ended(first, Status.DEPLOYED)
    assert gate.calls == 2
    assert world.log(first.id).count(str(error)) == 1


def test_a_gate_of_a_plugin_that_is_gone_fails_or_asks(world: World) -> None:
    def hold(context: Any, _: int) -> Pending:
        return Pending(context.now() + 1, "nothing")

    for on_missing, status in (("fail", Status.FAILURE), ("inconclusive", Status.DEPLOYED)):
        gate = Scripted(hold)
        restart_with(world, gate, kind="gates")
        deployment = world.deploy(**gated("beforeStart", onMissing=on_missing))
        parked(world, deployment)
        world.stop()
        world.start()  # without the plugin
        if on_missing == "inconclusive":
            awaited(world, deployment)
            decide(world, deployment, by="anna")
        found = world.ended(deployment, status)
        if status is Status.FAILURE:
            assert found.failure and found.failure["reason"] == "GateMissing"
            assert "no plugin provides gates of type scripted" in found.failure["message"]


def parked(world: World, deployment: Deployment) -> None:
    """Wait until nobody works on it."""

    def waits() -> bool:
        (operation,) = [o for o in world.store.find(Operation, tag="open") if o.deployment == deployment.id]
        return bool(operation.due) and not world.engine.running

    world.until(waits, "the deployment to wait")


def test_measurements_are_kept_within_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def give(context: Any, n: int) -> Passed | Pending:
        one = Measurement(f"{n} " + "x" * 10_000, "t" * 1000, Verdict.FAILED if n == 15 else Verdict.PASSED)
        return Passed("all", [one]) if n == 30 else Pending(context.now(), measurements=[one] * (100 if n == 20 else 1))

    gate = Scripted(give)
    restart_with(world, gate, kind="gates")
    monkeypatch.setattr(machine, "PARK_LEAST", 0.01)
    first = world.deployed(**gated("beforeStart"))
    (found,) = results(world, first)
    assert found["measured"] == 129
    kept = [int(measured["value"].split()[0]) for measured in found["measurements"]]
    assert kept == [*range(1, 11), 15, *range(21, 31)]
    record = world.store.get(GateResults, first.id)
    assert record and len(str(record.to_document())) < 70_000


# --- people -----------------------------------------------------------------------------------------------------------


APPROVAL = {"type": "approval", "name": "g"}


def waiting(world: World, by: str = "anna", **options: Any) -> Deployment:
    """A deployment that waits for an approval, asked for by somebody."""
    stored = world.descriptor(gates={"beforeStart": [{**APPROVAL, "options": options}]})
    deployment = world.service.deploy(world.namespace, stored.id, by)
    awaited(world, deployment)
    return deployment


def test_an_approval_lets_the_deployment_on(world: World) -> None:
    deployment = waiting(world)
    assert world.names() == {}
    assert world.engine.running == 0
    decide(world, deployment, by="otto", comment="go")
    world.ended(deployment, Status.DEPLOYED)
    (found,) = results(world, deployment)
    assert found["decision"] == {**found["decision"], "approve": True, "by": "otto", "comment": "go"}
    assert (found["verdict"], found["reason"]) == ("passed", "approved by otto: go")
    assert not found["waitsForApproval"]
    log = world.log(deployment.id)
    assert (log.count("approval by a person"), log.count("approved by otto")) == (1, 1)


def test_a_refusal_fails_it(world: World) -> None:
    deployment = waiting(world)
    decide(world, deployment, approve=False, by="otto", comment="not today")
    found = world.ended(deployment, Status.FAILURE)
    assert found.failure and found.failure["reason"] == "GateFailed"
    assert found.failure["message"] == "gate g failed: refused by otto: not today"
    assert world.log(deployment.id).count("not today") == 1
    assert world.names() == {}


def test_an_inconclusive_gate_asks_a_person(world: World) -> None:
    gate = Scripted(lambda *_: Inconclusive("0.049 is near 0.05"))
    restart_with(world, gate, kind="gates")
    deployment = world.deploy(**gated("beforeStart"))
    awaited(world, deployment)
    (found,) = results(world, deployment)
    assert (found["verdict"], found["ended"], found["waitsForApproval"]) == ("inconclusive", None, True)
    decide(world, deployment, by="otto")
    world.ended(deployment, Status.DEPLOYED)
    (found,) = results(world, deployment)
    assert found["reason"] == "approved by otto (it was inconclusive: 0.049 is near 0.05)"
    assert gate.calls == 1


def test_an_inconclusive_gate_that_nobody_approves_fails(world: World) -> None:
    _, deployment = alone(world, lambda *_: Inconclusive("who knows"), timeoutSeconds=1)
    found = world.ended(deployment, Status.FAILURE)
    assert found.failure and found.failure["reason"] == "GateTimedOut"
    assert "nobody approved it; it was inconclusive: who knows" in found.failure["message"]


def test_not_by_whoever_asked_for_it(world: World) -> None:
    deployment = waiting(world, notByRequester=True)
    with pytest.raises(NotPermitted, match="another person than anna"):
        decide(world, deployment, by="anna")
    with pytest.raises(NotPermitted, match="authentication"):
        decide(world, deployment, by="")
    assert world.store.find(GateDecision) == []
    decide(world, deployment, by="otto")
    world.ended(deployment, Status.DEPLOYED)


def test_whoever_asked_for_it_may_stop_it(world: World) -> None:
    deployment = waiting(world, notByRequester=True)
    decide(world, deployment, approve=False, by="anna")
    world.ended(deployment, Status.FAILURE)


def test_nobody_is_known_without_authentication(world: World) -> None:
    deployment = waiting(world, by="", notByRequester=True)
    with pytest.raises(NotPermitted):
        decide(world, deployment, by="otto")


def test_a_decision_counts_once(world: World) -> None:
    deployment = waiting(world)
    first = decide(world, deployment, by="otto", comment="go")
    world.ended(deployment, Status.DEPLOYED)
    assert decide(world, deployment, by="otto", comment="again").comment == first.comment
    with pytest.raises(Conflict, match="was approved by otto already"):
        decide(world, deployment, approve=False, by="otto")
    with pytest.raises(Conflict, match="was approved by otto already"):
        decide(world, deployment, by="eve")
    assert len(world.store.find(GateDecision)) == 1


def test_a_repeated_approval_never_approves_the_next_gate(world: World) -> None:
    gates = {"beforeStart": [APPROVAL, {**APPROVAL, "name": "h"}]}
    deployment = world.deploy(gates=gates)
    awaited(world, deployment)
    decide(world, deployment, by="otto")
    awaited(world, deployment, "h")
    with pytest.raises(Conflict, match="name the gate"):
        decide(world, deployment, by="otto")
    with pytest.raises(Conflict, match="was approved by otto already"):
        decide(world, deployment, by="eve", gate="g")
    with pytest.raises(Conflict, match="gate x does not wait for a decision; h at beforeStart does"):
        decide(world, deployment, by="otto", gate="x")
    decide(world, deployment, by="otto", gate="h")
    world.ended(deployment, Status.DEPLOYED)


def second_waits(world: World, deployment: Deployment) -> None:
    """Wait until the second of its two gates asks a person."""
    waiting = [False, True]
    world.until(
        lambda: [found["waitsForApproval"] for found in results(world, deployment)] == waiting or None,
        "the second gate to ask a person",
    )


def test_a_repeated_approval_never_approves_another_gate_of_that_name(world: World) -> None:
    deployment = world.deploy(gates={"beforeStart": [APPROVAL], "beforeSwitch": [APPROVAL]})
    awaited(world, deployment)
    first = decide(world, deployment, by="otto", gate="g")
    second_waits(world, deployment)
    with pytest.raises(Conflict, match="gate g at beforeSwitch waits for a decision, but g at beforeStart was decided"):
        decide(world, deployment, by="otto", gate="g")
    assert decide(world, deployment, by="otto", gate="g", point="beforeStart").at == first.at
    with pytest.raises(Conflict, match="does not wait for a decision; g at beforeSwitch does"):
        decide(world, deployment, by="otto", gate="g", point="afterSwitch")
    assert len(world.store.find(GateDecision)) == 1
    decide(world, deployment, by="otto", gate="g", point="beforeSwitch")
    world.ended(deployment, Status.DEPLOYED)


def test_a_repeated_approval_never_approves_a_forced_gate_of_that_name(world: World) -> None:
    forced = {"point": "beforeStart", **APPROVAL}
    forcing(world, forced, give=lambda *_: Passed("fine"))
    deployment = world.deploy(gates={"beforeStart": [APPROVAL]})
    awaited(world, deployment)
    decide(world, deployment, by="otto", gate="g")
    second_waits(world, deployment)
    with pytest.raises(Conflict, match="but g at beforeStart of the settings was decided about before"):
        decide(world, deployment, by="otto", gate="g")
    decide(world, deployment, by="otto", gate="g", forced=False)
    world.ended(deployment, Status.DEPLOYED)


def test_nothing_waits(world: World) -> None:
    deployment = world.deployed()
    with pytest.raises(Conflict, match="no gate of this deployment waits"):
        decide(world, deployment)
    with pytest.raises(NotFound):
        decide(world, Deployment(**{**fields(deployment), "id": "nowhere"}))


def fields(record: Any) -> dict[str, Any]:
    """Of a record."""
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def test_approving_what_was_cancelled(world: World) -> None:
    deployment = waiting(world)
    world.service.undeploy(world.namespace, deployment.id)
    with pytest.raises(Conflict):
        decide(world, deployment, by="otto")
    world.ended(deployment, Status.UNDEPLOYED)
    (found,) = results(world, deployment)
    assert (found["verdict"], found["waitsForApproval"]) == (None, False)
    assert found["ended"]
    assert world.names() == {}


def test_a_wait_survives_a_restart_and_a_decision_meanwhile_counts(world: World) -> None:
    deployment = waiting(world)
    before = results(world, deployment)
    world.stop()
    world.start()
    parked(world, deployment)
    assert results(world, deployment) == before
    decide(world, deployment, by="otto")
    world.ended(deployment, Status.DEPLOYED)

    second = waiting(world)
    at = world.store.get(GateResults, second.id)
    assert at
    world.stop()
    store = SqliteStore(world.settings.data_dir / "deployer.db")
    decision = GateDecision(
        namespace=second.namespace,
        app=second.app,
        deployment=second.id,
        step=at.entries[0].step,
        gate="g",
        approve=True,
        by="otto",
        at=time.time(),
    )
    store.commit(Create(decision))
    store.close()
    world.start()
    world.ended(second, Status.DEPLOYED)


def test_a_refusal_counts_although_the_gate_is_passing_at_that_moment(world: World) -> None:
    go, inside = threading.Event(), threading.Event()

    def give(context: Any, n: int) -> Any:
        if context.decision is not None:
            return Passed("yes") if context.decision.approve else Failed("refused")
        if n == 1:
            return Pending(context.now() + 1, "a person, or a second", Signal())
        inside.set()
        go.wait(20)
        return Passed("a second is over")

    restart_with(world, Scripted(give), kind="gates")
    deployment = world.deploy(**gated("beforeStart"))
    assert inside.wait(20)
    decide(world, deployment, approve=False, by="otto")
    go.set()
    found = world.ended(deployment, Status.FAILURE)
    assert found.failure and found.failure["message"] == "gate g failed: refused"


def test_nobody_decides_after_the_deadline(world: World) -> None:
    stored = world.descriptor(gates={"beforeStart": [{**APPROVAL, "timeoutSeconds": 1}]})
    deployment = world.service.deploy(world.namespace, stored.id)
    found = world.ended(deployment, Status.FAILURE)
    assert found.failure and found.failure["reason"] == "GateTimedOut"
    with pytest.raises(Conflict):
        decide(world, deployment)


# --- gates of the settings --------------------------------------------------------------------------------------------


def forcing(world: World, *gates: Any, give: Any = lambda *_: Passed("fine")) -> Scripted:
    """Start the service anew with these gates in its settings."""
    gate = Scripted(give)
    restart_with(world, gate, kind="gates")  # whose type is not installed when settings are checked
    registry = world.registry
    world.stop()
    world.settings = dataclasses.replace(world.settings, gates=gates)
    world.start(registry)
    return gate


def test_forced_gates_come_first_whatever_a_descriptor_says(world: World) -> None:
    order: list[tuple[str, Any]] = []

    def look(context: Any, _: int) -> Passed:
        order.append((context.name, context.options.get("whose")))
        return Passed("fine")

    forced = {"namespaces": ["t-*"], "point": "beforeSwitch", "type": "scripted"}
    forcing(
        world,
        {**forced, "name": "g", "options": {"whose": "settings"}},
        {**forced, "name": "other", "namespaces": ["prod-*"]},
        give=look,
    )
    deployment = world.deployed(**gated("beforeSwitch", options={"whose": "team"}, dryRun=True))
    assert order == [("g", "settings"), ("g", "team")]
    assert [(f["forced"], f["dryRun"], f["verdict"]) for f in results(world, deployment)] == [
        (True, False, "passed"),
        (False, True, "passed"),
    ]
    world.deployed()
    assert order[2:] == [("g", "settings")]


def test_a_forced_gate_fails_a_descriptor_without_any(world: World) -> None:
    forcing(world, {"point": "beforeStart", "type": "scripted", "name": "policy"}, give=lambda *_: Failed("no"))
    found = world.ended(world.deploy(), Status.FAILURE)
    assert found.failure and found.failure["message"] == "gate policy failed: no"
    assert world.names() == {}


@pytest.mark.parametrize("on_missing", ["fail", "inconclusive"])
def test_a_forced_gate_whose_plugin_is_gone(world: World, on_missing: str) -> None:
    forcing(world, {"point": "beforeStart", "type": "scripted", "name": "policy", "onMissing": on_missing})
    registry = world.registry
    world.stop()
    world.start(dataclasses.replace(registry, gates={}))
    deployment = world.deploy()
    if on_missing == "fail":
        found = world.ended(deployment, Status.FAILURE)
        assert found.failure and found.failure["reason"] == "GateMissing"
    else:
        awaited(world, deployment, "policy")
        decide(world, deployment, by="otto")
        world.ended(deployment, Status.DEPLOYED)
    assert world.names() == ({} if on_missing == "fail" else world.names())


# --- what else there is -----------------------------------------------------------------------------------------------


def test_an_unreachable_preview_is_no_evidence(world: World) -> None:
    asked: list[str] = []

    def give(context: Any, _: int) -> Passed:
        try:
            context.version.preview("/health")
        except VersionUnreachable as error:
            asked.append(str(error))
        return Passed("fine")

    restart_with(world, Scripted(give), kind="gates")
    world.deployed(**gates_at("beforeSwitch"))
    world.deployed(frontend=HOST, **gates_at("beforeSwitch"))
    assert ["no frontend" in asked[0], "previewCheck" in asked[1]] == [True, True]


def test_the_preview_answers_as_the_new_version(world: World) -> None:
    asked: list[Sequence[str]] = []

    def give(context: Any, _: int) -> Passed:
        asked.append([version(answer.text) for answer in context.version.preview("/")])
        return Passed("fine")

    restart_with(world, Scripted(give), kind="gates")
    for _ in range(2):
        world.deployed(frontend=HOST, ingressOptions={"previewCheck": "/"}, **gates_at("beforeSwitch"))
    assert asked == [["version 1"], ["version 2"]]


def test_rollbacks_are_not_gated(world: World) -> None:
    gate = Scripted(lambda *_: Passed("fine"))
    restart_with(world, gate, kind="gates")
    first = world.deployed(**gates_at(*POINTS), newVersion="1")
    world.deployed(newVersion="2", keepWarm=3600)
    calls = gate.calls
    RollbackCommands(world.service).roll_back(world.namespace, "shop", first.id)
    world.until(lambda: world.store.get(Deployment, first.id).status is Status.DEPLOYED, "the rollback")  # type: ignore[union-attr]
    assert gate.calls == calls
    world.deployed(newVersion="3")
    world.quiet()
    back = RollbackCommands(world.service).roll_back(world.namespace, "shop", first.id).deployment
    world.ended(back, Status.DEPLOYED)
    assert gate.calls == calls
    assert results(world, back) == []


def test_what_a_gate_makes_goes_with_the_version(world: World) -> None:
    def give(context: Any, n: int) -> Passed | Pending:
        metadata = {"name": "made-by-gate", "annotations": context.kube.annotations("versioned-gate")}
        context.kube.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        context.remember("n", n)
        return Passed("made") if context.recall("n", 0) == 2 else Pending(context.now())

    restart_with(world, Scripted(give), kind="gates")
    first = world.deployed(**gated("beforeStart"))
    assert "made-by-gate" in world.objects(CONFIG_MAP)
    world.service.undeploy(world.namespace, first.id)
    world.stop()
    world.start()  # without the plugin
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert world.names() == {}


@pytest.mark.parametrize("moment", [1e300, -1e300, 1e12, 253_402_300_800.0])
def test_times_that_cannot_be_are_shown_as_now(world: World, moment: float) -> None:
    _, first = alone(world, lambda *_: Passed("fine", [Measurement(1, time=moment)]))
    world.ended(first, Status.DEPLOYED)
    (found,) = results(world, first)
    assert found["began"] <= found["measurements"][0]["time"] <= found["ended"]


def test_an_end_that_hangs_does_not_keep_traffic_from_going_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.core.operations.gates.step.END_SECONDS", 0.3)
    go = threading.Event()
    world.deployed(frontend=HOST)
    restart_with(world, Scripted(lambda *_: Failed("red"), end=lambda _: go.wait(30) and None), kind="gates")
    second = world.ended(world.deploy(frontend=HOST, **gated("afterSwitch")), Status.FAILURE)
    go.set()
    assert "could not be ended" in world.log(second.id)
    assert version(world.answer(HOST)[1]) == "version 1"


def test_an_end_that_raises_harms_nobody(world: World) -> None:
    gate = Scripted(lambda *_: Passed("fine"), end=crash)  # type: ignore[arg-type]
    restart_with(world, gate, kind="gates")
    first = world.deployed(**gated("beforeStart"))
    assert gate.ended == 1
    assert "gate g could not be ended" in world.log(first.id)


def test_a_deleted_record_takes_its_gates_along(world: World) -> None:
    deployment = waiting(world)
    decide(world, deployment, by="otto")
    world.ended(deployment, Status.DEPLOYED)
    world.service.undeploy(world.namespace, deployment.id, purge=True)
    world.until(lambda: world.store.get(Deployment, deployment.id) is None, "the record to go")
    assert (world.store.find(GateResults), world.store.find(GateDecision), world.store.find(Plan)) == ([], [], [])

"""What an older service left when it died, at any moment of any operation, is brought to its end by this one.

The databases in `tests/engine/databases/` were written by an older release, with what it had made in the cluster
(`support/snapshots.py`). Each moment is put back on a sandbox, this service is started on it, and what a kill test
demands must hold in the end; all the while the app is served.

By default a few moments of each flow are tried, drawn by `--seed`; with `--kill=all` (`make test-long`) all of them,
with `--kill=snapshot:redeploy` those of one flow, and with `--kill='snapshot:redeploy:12 kube.after'` only that one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from falcon import testing

from deployer import sandbox
from deployer.api.app import create_app
from deployer.core.model.kind import CONTROLLER, INGRESS
from deployer.core.model.records import Deployment, Operation
from deployer.core.operations.execution import clearing
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from support import flows, late, snapshots
from support.aftermath import APP, check_end
from support.flows import Flow
from support.history import History, backend_of, broken
from support.snapshots import Moment
from support.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

AT_ONCE = 6
"""Moments at a time: most of each is waiting."""

SAMPLED = 2
"""Moments of a flow that are tried by default, the first third and the rest having one each."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sandbox.Sandbox]:
    """A sandbox of its own, whose watches tell often how far they are."""
    options = ("--bookmark-interval", "0.1")
    cluster = sandbox.start(tmp_path_factory.mktemp("sandbox"), ingress_delay=0.05, options=options)
    yield cluster
    cluster.stop()


def chosen(request: pytest.FixtureRequest) -> list[list[Moment]]:
    """The moments that are to be tried, by flow."""
    which, seed = str(request.config.getoption("--kill")), request.config.getoption("--seed")
    found = {flow: snapshots.load(flow) for flow in snapshots.ALL}
    if which == "all":
        return list(found.values())
    if which.startswith("snapshot:"):
        flow, _, at = which.removeprefix("snapshot:").partition(":")
        return [[moment for moment in found[flow] if at in ("", moment.at)]]
    drawn = []
    for flow, moments in found.items():
        # One of each part, so that no seed leaves out all of what comes early, or late.
        parts = [moments[n * len(moments) // SAMPLED : (n + 1) * len(moments) // SAMPLED] for n in range(SAMPLED)]
        drawn.append([random.Random(f"{seed} {flow} {n}").choice(part) for n, part in enumerate(parts)])
    return drawn


def test_every_moment_of_an_older_service_is_brought_to_its_end(
    lab: sandbox.Sandbox, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing, "PODS_PATIENCE", 0.0)  # as it was then
    flows_of = chosen(request)
    assert all(flows_of), "no such moment"

    def told(moments: Sequence[Moment]) -> list[str]:
        """What is wrong with those of one flow, one after the other, as they share a namespace."""
        found = [(moment, problems(lab, tmp_path / f"{moment.flow} {moment.at}", moment)) for moment in moments]
        return ["\n  ".join([f"{moment.flow}:{moment.at}", *wrong]) for moment, wrong in found if wrong]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [text for texts in pool.map(told, flows_of) for text in texts]
    assert not failed, f"{len(failed)} of {sum(map(len, flows_of))} moments\n" + "\n".join(failed)


@contextlib.contextmanager
def put_back(cluster: sandbox.Sandbox, path: Path, moment: Moment) -> Iterator[World]:
    """A world as it was then, whose service is not started yet."""
    path.mkdir()
    world = World(
        cluster, path, snapshots.namespace(moment.flow), **flows.settings(snapshots.ALL[moment.flow], "recover")
    )
    world.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    try:
        snapshots.restore(world, moment)
        yield world
    finally:
        snapshots.clear(world)


def problems(cluster: sandbox.Sandbox, path: Path, moment: Moment) -> Sequence[str]:
    """Put it back, start the service, and say what is wrong when nothing is left to do."""
    try:
        with put_back(cluster, path, moment) as world, closing(History(world.eyes, world.namespace)) as history:
            return _resumed(world, snapshots.ALL[moment.flow], moment, history)
    except AssertionError as error:
        return [str(error)]


def _resumed(world: World, flow: Flow, moment: Moment, history: History) -> Sequence[str]:
    start = history.now()
    world.start()
    wrong = read_by_rest(world)
    if "undeployment" not in moment.acknowledged:
        flow.again(world, lambda what, id: None)
    world.quiet()
    end = history.now() if flow.stays else 0
    wrong += [f"in the end {problem}" for problem in read_by_rest(world)]
    wrong += check_end(world, flow, moment.acknowledged, flows.report(world))
    if not flow.original:  # whose Service gets other ports, hence another EndpointSlice
        wrong += [problem for problem in broken(history, APP, end) if int(problem.partition(":")[0]) > start]
    if wrong:
        wrong += [f"log of version {d.version}: {world.log(d.id)}" for d in world.store.find(Deployment)]
    return wrong


def read_by_rest(world: World) -> list[str]:
    """What REST does not show of all that is stored."""
    client = testing.TestClient(create_app(world.service, list, list), headers={"Host": "localhost"})
    query = {"namespace": world.namespace}
    wrong = []

    def got(path: str) -> Any:
        answer = client.simulate_get(path, params=query)
        if answer.status_code not in (200, 204):
            wrong.append(f"GET {path}: {answer.status} {answer.text}")
        return answer.json if answer.text and "json" in answer.headers.get("Content-Type", "") else None

    listed = got("/deployments") or []
    stored = {d.id for d in world.store.find(Deployment)}
    if {d["id"] for d in listed} != stored:
        wrong.append(f"GET /deployments shows {listed}, not {stored}")
    for deployment in listed:
        got(f"/deployments/{deployment['id']}/logs")
        if (shown := got(f"/deployments/{deployment['id']}")) is not None and shown["id"] != deployment["id"]:
            wrong.append(f"GET of one deployment shows {shown}")
    for descriptor in got("/descriptors") or []:
        got(f"/descriptors/{descriptor['id']}")
    return wrong


def test_the_snapshots_show_whatever_an_operation_can_have_left() -> None:
    """So that files which are made anew, or a flow that is no longer there, leave nothing out unnoticed."""
    moments = [moment for flow in snapshots.ALL for moment in snapshots.load(flow)]
    operations = [document for moment in moments for document in snapshots.records(moment, "operation")]
    plans = [document for moment in moments for document in snapshots.records(moment, "plan")]
    steps = {(operation["state"], *step) for operation in operations for step in operation["steps"].items()}
    for step in {step for plan in plans for step in plan["steps"]}:
        assert {("running", step, "done"), ("undoing", step, "undone")} <= steps or step == "last"
    removing = ("release-route", "remove-route", "remove-service", "check-unused", "remove-workload", "await-pods-end")
    assert {("running", step, "started") for step in removing} <= steps
    targets = {(o["kind"], o["state"], name) for o in operations for name in o["target"]}
    for state in ("queued", "running"):
        names = [("retire", name) for name in ("by", "previous", "drop", "ending")] + [("undeploy", "released")]
        assert {(kind, state, name) for kind, name in names} <= targets
    assert ("deploy", "queued", "awaits") in targets
    assert any(operation["memory"].get("engine/awaits") for operation in operations)
    assert any(operation["kind"] == "deploy" and operation["steps"] and operation["due"] for operation in operations)
    assert any(plan["made"] for plan in plans)
    previous = [plan["previous"] for plan in plans if plan["previous"]]
    assert any(document["original"] for document in previous)
    providers = {(p["previous"]["ingress"]["name"], p["ingress"]["name"]) for p in plans if p["previous"]}
    assert {("nginx", "gateway"), ("gateway", "nginx"), ("gateway", "gateway"), ("nginx", "nginx")} <= providers


# --- the plugin that planned it is gone ---------------------------------------------------------------------------

PLANNED = dataclasses.replace(snapshots.ALL["fail-late"], reason="PluginError")


def started(step: str) -> Moment:
    """The first moment of a deployment by strategy `late` at which that step has started."""
    return next(m for m in snapshots.load("fail-late") if step in snapshots.started(m))


def without_late(world: World) -> World:
    """Start the service as if the strategy's plugin were not installed."""
    installed, world.entry_points = world.entry_points, list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
    world.start()
    world.entry_points = installed
    return world


def test_without_its_plugin_an_older_deployment_that_has_no_traffic_is_undone(
    lab: sandbox.Sandbox, tmp_path: Path
) -> None:
    moment = started("prepare-route")
    with put_back(lab, tmp_path / "world", moment) as world:
        without_late(world).quiet()
        assert check_end(world, PLANNED, moment.acknowledged, flows.report(world)) == []


def test_without_its_plugin_an_older_deployment_that_has_traffic_is_kept_until_it_is_back(
    lab: sandbox.Sandbox, tmp_path: Path
) -> None:
    moment = started("confirm-route")
    with put_back(lab, tmp_path / "world", moment) as world:
        without_late(world)

        def waits() -> bool:
            """Tried, and waiting for better times."""
            (operation,) = world.store.find(Operation, tag="open")
            return operation.due > 0 and world.engine.running == 0

        world.until(waits, "the deployment to be held")
        assert backend_of(world.objects(INGRESS)[APP]) == f"{APP}-2"
        assert set(world.objects(CONTROLLER)) == {f"{APP}-1", f"{APP}-2"}
        world.stop()
        world.start().quiet()
        assert check_end(world, PLANNED, moment.acknowledged, flows.report(world)) == []

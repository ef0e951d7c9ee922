"""Whose objects are whose: colliding names, leftovers, foreign objects, objects of the original, hands in between."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Sequence

import pytest

from deployer.core import (
    CONTROLLER,
    INGRESS,
    SERVICE,
    Done,
    Kind,
    Outcome,
    Phase,
    Plan,
    Step,
    Strategy,
    Work,
    deploy_steps,
    plugins,
)
from deployer.core.plugins import Entry
from deployer.core.records import App, Document, Status
from support.world import HEALTHY, World

HOST = "shop.example.com"


def foreign(kind: Kind, name: str, **annotations: str) -> Document:
    """An object of ours by name only."""
    labels = {"made": "by-hand"}
    metadata = {"name": name, "labels": labels, "annotations": {k.replace("_", "/"): v for k, v in annotations.items()}}
    backend = {"service": {"name": "somewhere", "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    spec: dict[str, Document] = {
        "Service": {"selector": labels, "ports": [{"port": 80}]},
        "ReplicationController": {
            "replicas": 0,
            "selector": labels,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "a", "image": "sample/web"}]},
            },
        },
        "Ingress": {
            "ingressClassName": "nginx",
            "rules": [{"host": "elsewhere.example.com", "http": {"paths": paths}}],
        },
    }
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec[kind.kind]}


def specs(objects: dict[str, Document]) -> dict[str, Document]:
    """What the objects are to be, by name."""
    return {name: found["spec"] for name, found in objects.items()}


# --- names that collide ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [(("shop", "api-1"), ("shop-api", "1")), (("shop-api", "1"), ("shop", "api-1")), (("shop-1", "7"), ("shop", "1"))],
)
def test_apps_whose_names_collide_leave_each_other_alone(
    world: World, first: tuple[str, str], second: tuple[str, str]
) -> None:
    world.deployed(first[0], newVersion=first[1], **HEALTHY)
    before = {kind: world.objects(kind) for kind in (CONTROLLER, SERVICE)}
    deployment = world.ended(world.deploy(second[0], newVersion=second[1], **HEALTHY), Status.FAILURE)
    assert deployment.failure
    assert deployment.failure["reason"] == "ForeignObject"
    assert f"belongs to another app, {first[0]}" in deployment.failure["message"]
    for kind, objects in before.items():
        assert {name: o["spec"] for name, o in world.objects(kind).items()} == {
            n: o["spec"] for n, o in objects.items()
        }
    assert world.live_version(first[0]) == first[1]


def test_an_app_named_like_anothers_version_is_refused_while_that_one_is_there(world: World) -> None:
    """The unversioned Service of `shop-1` is the versioned one of `shop` version `1`."""
    world.deployed("shop", newVersion="1", **HEALTHY)
    taken = world.objects(SERVICE)["shop-1"]
    deployment = world.ended(world.deploy("shop-1", newVersion="7", **HEALTHY), Status.FAILURE)
    assert deployment.failure
    assert "Service shop-1" in deployment.failure["message"]
    assert world.objects(SERVICE)["shop-1"] == taken
    assert set(world.objects(CONTROLLER)) == {"shop-1"}


# --- foreign objects and leftovers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"), [(SERVICE, "shop"), (SERVICE, "shop-1"), (CONTROLLER, "shop-1"), (INGRESS, "shop")]
)
@pytest.mark.parametrize("annotations", [{}, {"kube-deployer_instance": "another", "kube-deployer_app": "shop"}])
def test_foreign_objects_are_named_and_never_touched(
    world: World, kind: Kind, name: str, annotations: dict[str, str]
) -> None:
    world.eyes.create(kind, foreign(kind, name, **annotations), world.namespace)
    before = world.objects(kind)[name]
    deployment = world.ended(world.deploy(frontend=HOST, **HEALTHY), Status.FAILURE)
    assert deployment.failure
    assert deployment.failure["reason"] == "ForeignObject"
    assert f"{kind.kind} {name}" in deployment.failure["message"]
    after = world.objects(kind)[name]
    # The sandbox's ingress writes the status of what it serves.
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    assert after["metadata"].get("annotations") == before["metadata"].get("annotations")
    world.quiet()
    assert world.names() == {kind.plural: {name}}
    if kind is CONTROLLER:
        assert f"removed {name}" not in world.log(deployment.id)


def test_leftovers_of_an_earlier_deployment_are_replaced(world: World) -> None:
    gone = world.deployed(newVersion="7")
    leftover = {kind: world.objects(kind)["shop-7"] for kind in (CONTROLLER, SERVICE)}
    world.service.undeploy(world.namespace, gone.id)
    world.quiet()
    for kind, found in leftover.items():
        body = copy.deepcopy(found)
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            body["metadata"].pop(field, None)
        body.pop("status", None)
        body["spec"].pop("clusterIP", None)
        body["spec"].pop("clusterIPs", None)
        world.eyes.create(kind, body, world.namespace)
    deployment = world.deployed(newVersion="7", **HEALTHY)
    owner = world.objects(CONTROLLER)["shop-7"]["metadata"]["annotations"]["kube-deployer/deployment"]
    assert owner == deployment.id
    assert world.live_version() == "7"


# --- the original, and a store that knows less than the cluster ---------------------------------------------------


def original(world: World, version: str) -> None:
    """What the original deployer leaves: labels in its exact shape, and no annotation of ours."""
    name = f"shop-{version}"
    labels = {"name": name, "app": "shop", "version": version}
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "sample/web:1"}]}}
    for kind, called, own, spec in (
        (CONTROLLER, name, labels, {"replicas": 1, "selector": labels, "template": template}),
        (SERVICE, name, labels, {"selector": labels, "ports": ports}),
        (
            SERVICE,
            "shop",
            {"app": "shop", "name": "shop", "persistent": "true"},
            {"selector": {"app": "shop", "version": version}, "ports": ports},
        ),
    ):
        body = {"apiVersion": "v1", "kind": kind.kind, "metadata": {"name": called, "labels": own}, "spec": spec}
        world.eyes.create(kind, body, world.namespace)


def test_a_version_of_the_original_is_adopted_counted_on_from_and_retired(world: World) -> None:
    original(world, "41")
    deployment = world.deployed(**HEALTHY)
    assert deployment.version == "42"
    assert "adopting version 41" in world.log(deployment.id)
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-42"}, "services": {"shop", "shop-42"}}
    assert world.live_version() == "42"


def test_a_failing_deployment_leaves_the_originals_version_as_it_was(world: World) -> None:
    original(world, "41")
    before = {kind: world.objects(kind) for kind in (CONTROLLER, SERVICE)}
    world.ended(world.deploy(image="sample/web:missing"), Status.FAILURE)
    for kind, objects in before.items():
        assert specs(world.objects(kind)) == specs(objects)
    assert world.deployed(**HEALTHY).version == "43"


def test_an_empty_store_never_reverts_what_the_cluster_serves(world: World) -> None:
    world.deployed(**HEALTHY)
    world.quiet()
    before = {kind: world.objects(kind) for kind in (CONTROLLER, SERVICE)}
    world.stop()
    for path in world.settings.data_dir.glob("deployer.db*"):
        path.unlink()
    world.start()
    deployment = world.ended(world.deploy(**HEALTHY), Status.FAILURE)
    assert deployment.failure
    assert deployment.failure["reason"] == "StoreDisagrees"
    assert {kind: world.objects(kind) for kind in before} == before


# --- hands in between -------------------------------------------------------------------------------------------------


class Wait(Step):
    """Lets a test do something in the middle of a deployment."""

    id = "wait-for-the-test"
    phase = Phase.EXPOSE

    def __init__(self) -> None:
        self.there, self.go_on = threading.Event(), threading.Event()

    def run(self, work: Work) -> Outcome:
        self.there.set()
        work.gate.wait(self.go_on)
        return Done()


class Interrupted(Strategy):
    """Blue-green with a pause for the test before traffic moves."""

    name = "interrupted"

    def __init__(self) -> None:
        self.wait = Wait()

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        steps = deploy_steps()
        return [*steps[:4], self.wait, *steps[4:]]


@pytest.fixture
def interrupted(world: World) -> Interrupted:
    """The world with that strategy."""
    world.stop()
    strategy = Interrupted()
    registry = plugins.load(world.settings)
    strategies = {**registry.strategies, strategy.name: Entry(strategy, "tests", "1", strategy.name)}
    world.start(dataclasses.replace(registry, strategies=strategies))
    return strategy


def test_what_somebody_else_adds_to_the_service_stays(world: World, interrupted: Interrupted) -> None:
    world.deployed(**HEALTHY)
    deployment = world.deploy(**HEALTHY, deploymentType="interrupted")
    assert interrupted.wait.there.wait(20)
    patch = {"metadata": {"annotations": {"example.com/team": "checkout"}}, "spec": {"sessionAffinity": "ClientIP"}}
    world.eyes.patch(SERVICE, "shop", patch, world.namespace)
    interrupted.wait.go_on.set()
    world.ended(deployment, Status.DEPLOYED)
    service = world.objects(SERVICE)["shop"]
    assert service["metadata"]["annotations"]["example.com/team"] == "checkout"
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    assert service["spec"]["selector"]["version"] == "2"


@pytest.mark.parametrize("propagation", ["Background", "Orphan"])
def test_a_controller_that_somebody_deletes_midway_fails_the_deployment(
    world: World, interrupted: Interrupted, propagation: str
) -> None:
    world.deployed(**HEALTHY)
    deployment = world.deploy(**HEALTHY, frontend=HOST, deploymentType="interrupted")
    assert interrupted.wait.there.wait(20)
    uid = world.objects(CONTROLLER)["shop-2"]["metadata"]["uid"]
    world.eyes.delete(CONTROLLER, "shop-2", world.namespace, uid=uid, propagation=propagation)
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure
    assert ended.failure["reason"] in ("ObjectGone", "ControllerGone")
    assert world.live_version() == "1"
    assert world.names() == {"replicationcontrollers": {"shop-1"}, "services": {"shop", "shop-1"}}


def test_a_selector_that_somebody_moves_between_two_deployments_is_not_overwritten_blindly(world: World) -> None:
    world.deployed(**HEALTHY)
    world.quiet()
    world.eyes.patch(SERVICE, "shop", {"spec": {"selector": {"version": "by-hand"}}}, world.namespace)
    deployment = world.ended(world.deploy(**HEALTHY), Status.FAILURE)
    assert deployment.failure
    assert deployment.failure["reason"] == "StoreDisagrees"
    assert "selects version by-hand" in deployment.failure["message"]
    assert world.live_version() == "by-hand"
    app = world.store.get(App, f"{world.namespace}/shop")
    assert app
    assert app.live_version == "1"

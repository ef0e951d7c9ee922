"""Whose objects are whose: colliding names, leftovers, foreign objects, objects of the original, hands in between.

All of it on the sandbox and on the real Kubernetes that KUBECONFIG names.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Owner
from deployer.core.errors import Invalid, KubeConflict, StepFailed
from deployer.core.model.kind import NAMESPACE, POD
from deployer.core.model.records import App, Deployment, Document, Status
from deployer.core.registry import Entry
from deployer.kube.client import KubeClient
from deployer.kube.owned import OwnedKube
from deployer.plugin_manager.loader import load_plugins
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.kube import CONTROLLER, INGRESS, SERVICE, Kind
from deployer.sdk.strategy import Done, Outcome, Phase, Plan, Step, Strategy, Work
from support.contract import Contract, Running
from support.late import Late
from support.real import RealWorld, require_cluster
from support.strategies import restart_with
from support.world import HEALTHY, PATIENCE, World

HOST = "shop.example.com"

UNASKED = {"propagation_seconds": 0.1, "minimum_hold": 0.1}
"""For a cluster without an ingress controller: nobody is asked where the route leads."""


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.cluster)])
def world(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[World]:
    """A running Deployer in an empty namespace of the one and of the other."""
    settings: dict[str, Any] = {"plugins": {"ingress_nginx": UNASKED}, "undo_timeout": 20.0}
    if request.param == "sandbox":
        made = World(request.getfixturevalue("cluster"), tmp_path, namespace, **settings)
    else:
        require_cluster()
        made = RealWorld(None, tmp_path, namespace, **settings)
    yield made.start()
    made.close()


def contract(world: World, *besides: tuple[str, str]) -> Contract:
    """Compares all that is in the namespace."""
    return Contract(
        world.eyes, world.namespace, routes=True, besides=frozenset({("configmaps", "kube-root-ca.crt"), *besides})
    )


def running(deployment: Deployment, **more: Any) -> Running:
    """For the comparison."""
    return Running(deployment.descriptor, deployment.public(), **more)


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


def stripped(objects: dict[str, Document]) -> dict[str, Document]:
    """The objects without what their own controllers write."""
    out = copy.deepcopy(objects)
    for found in out.values():
        found.pop("status", None)
        for key in ("resourceVersion", "managedFields"):
            found["metadata"].pop(key, None)
    return out


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
    world.until(lambda: any(is_ready(pod) for pod in world.pods().values()), "the leftover's pods")
    deployment = world.deployed(newVersion="7", **HEALTHY)
    # Pods of the leftover, which the new Service would select as well, are gone by then.
    contract(world).check(running(deployment))


# --- the original, and a store that knows less than the cluster ---------------------------------------------------


def original(world: World, version: str) -> None:
    """What the original deployer leaves: labels in its exact shape, and no annotation of ours."""
    name = f"shop-{version}"
    labels = {"name": name, "app": "shop", "version": version}
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    container = {"name": "web", "image": world.image, "imagePullPolicy": "IfNotPresent"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    template = {"metadata": {"labels": labels}, "spec": spec}
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
    contract(world).check(running(deployment))


def test_a_failing_deployment_leaves_the_originals_version_as_it_was(world: World) -> None:
    original(world, "41")
    before = {kind: world.objects(kind) for kind in (CONTROLLER, SERVICE)}
    world.ended(world.deploy(image="sample/web:missing", pull="Never"), Status.FAILURE)
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
    assert {kind: stripped(world.objects(kind)) for kind in before} == {k: stripped(o) for k, o in before.items()}


# --- hands in between -------------------------------------------------------------------------------------------------


class Wait(Step):
    """Lets a test do something in the middle of a deployment."""

    id = "wait-for-the-test"
    phase = Phase.EXPOSE

    def __init__(self) -> None:
        self.there, self.go_on = threading.Event(), threading.Event()

    def run(self, work: Work) -> Outcome:
        self.there.set()
        work.scope.wait(self.go_on)
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
    return interrupt(world)


def interrupt(world: World, **settings: Any) -> Interrupted:
    """Start the service anew with that strategy and these settings."""
    world.stop()
    world.settings = dataclasses.replace(world.settings, **settings)
    strategy = Interrupted()
    registry = load_plugins(world.settings)
    strategies = {**registry.strategies, strategy.name: Entry(strategy, "tests", "1", strategy.name)}
    world.start(dataclasses.replace(registry, strategies=strategies))
    return strategy


def midway(world: World, interrupted: Interrupted, **fields: Any) -> Deployment:
    """A deployment that has come to the pause."""
    deployment = world.deploy(**HEALTHY, deploymentType="interrupted", **fields)
    assert interrupted.wait.there.wait(PATIENCE), world.log(deployment.id)
    return deployment


def own_pods(world: World, controller: str) -> set[str]:
    """Names of a ReplicationController's pods."""
    pods = world.pods().values()
    owned = [p for p in pods if any(o["name"] == controller for o in p["metadata"].get("ownerReferences") or ())]
    return {pod["metadata"]["name"] for pod in owned}


def is_ready(pod: Document) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or ())


def swapped_before_deletion(world: World, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch) -> list[KubeConflict]:
    """Somebody removes the object and makes another one of its name, at the moment at which it is to be deleted.

    Returns what the API server says of the deletion.
    """
    refused: list[KubeConflict] = []
    swapped: list[str] = []
    delete: Any = KubeClient.delete

    def swap(client: KubeClient, what: Kind, called: str, *args: Any, **more: Any) -> Any:
        if client is world.client and (what, called) == (kind, name) and not swapped:
            swapped.append(more["uid"])
            delete(world.eyes, kind, name, world.namespace, uid=more["uid"])
            world.eyes.create(kind, foreign(kind, name), world.namespace)
        try:
            return delete(client, what, called, *args, **more)
        except KubeConflict as error:
            refused.append(error)
            raise

    monkeypatch.setattr(KubeClient, "delete", swap)
    return refused


def test_what_somebody_else_adds_to_the_service_stays(world: World, interrupted: Interrupted) -> None:
    world.deployed(**HEALTHY)
    deployment = midway(world, interrupted)
    patch = {"metadata": {"annotations": {"example.com/team": "checkout"}}, "spec": {"sessionAffinity": "ClientIP"}}
    world.eyes.patch(SERVICE, "shop", patch, world.namespace)
    interrupted.wait.go_on.set()
    world.ended(deployment, Status.DEPLOYED)
    service = world.objects(SERVICE)["shop"]
    assert service["metadata"]["annotations"]["example.com/team"] == "checkout"
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    assert service["spec"]["selector"]["version"] == "2"


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_a_controller_that_somebody_deletes_midway_fails_the_deployment(
    world: World, interrupted: Interrupted, propagation: str
) -> None:
    first = world.deployed(**HEALTHY)
    deployment = midway(world, interrupted, frontend=HOST)
    uid = world.objects(CONTROLLER)["shop-2"]["metadata"]["uid"]
    world.eyes.delete(CONTROLLER, "shop-2", world.namespace, uid=uid, propagation=propagation)
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure
    assert ended.failure["reason"] in ("ObjectGone", "ControllerGone")
    # Nothing that nobody owns is left, the pods of an orphaning deletion included.
    contract(world).check(running(first))


@pytest.mark.parametrize("selector", [{"version": "by-hand"}, {"name": None, "version": None}], ids=["none", "all"])
def test_a_versioned_service_whose_selector_somebody_edits_midway_gets_no_traffic(
    world: World, interrupted: Interrupted, selector: Document
) -> None:
    first = world.deployed(**HEALTHY)
    deployment = midway(world, interrupted, frontend=HOST)
    world.eyes.patch(SERVICE, "shop-2", {"spec": {"selector": selector}}, world.namespace)
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure and ended.failure["reason"] == "ObjectChanged"
    assert ended.failure["message"].startswith("service shop-2 selects ")
    contract(world).check(running(first))


def test_a_selector_that_somebody_moves_midway_is_not_overwritten_blindly(
    world: World, interrupted: Interrupted
) -> None:
    first = world.deployed(**HEALTHY)
    deployment = midway(world, interrupted)
    world.eyes.patch(SERVICE, "shop", {"spec": {"selector": {"version": "by-hand"}}}, world.namespace)
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure and ended.failure["reason"] == "ObjectChanged"
    assert "service shop selects app=shop,version=by-hand" in ended.failure["message"]
    assert world.live_version() == "by-hand"
    assert world.names() == {"replicationcontrollers": {"shop-1"}, "services": {"shop", "shop-1"}}
    # Put right by hand, all goes on from there.
    world.eyes.patch(SERVICE, "shop", {"spec": {"selector": {"version": "1"}}}, world.namespace)
    contract(world).check(running(first))
    third = world.deployed(**HEALTHY)
    world.quiet()
    contract(world).check(running(third))


def test_a_first_deployment_does_not_take_a_service_that_came_meanwhile(world: World, interrupted: Interrupted) -> None:
    deployment = midway(world, interrupted)
    world.eyes.create(SERVICE, foreign(SERVICE, "shop"), world.namespace)
    before = world.objects(SERVICE)["shop"]
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure and ended.failure["reason"] == "ForeignObject"
    assert "Service shop " in ended.failure["message"]
    assert world.objects(SERVICE)["shop"] == before
    world.quiet()  # its pods end beside it
    contract(world, ("services", "shop")).nothing_left()


def test_replicas_that_somebody_adds_midway_are_waited_for(world: World, interrupted: Interrupted) -> None:
    deployment = midway(world, interrupted)
    world.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": 2}}, world.namespace)
    interrupted.wait.go_on.set()
    contract(world).check(running(world.ended(deployment, Status.DEPLOYED), replicas=2))


def test_a_version_that_somebody_scales_to_nothing_midway_is_not_switched_to(world: World) -> None:
    interrupted = interrupt(world, expose_timeout=4.0)
    first = world.deployed(**HEALTHY)
    deployment = midway(world, interrupted)
    world.eyes.patch(CONTROLLER, "shop-2", {"spec": {"replicas": 0}}, world.namespace)
    world.until(lambda: not own_pods(world, "shop-2"), "the pods to go")
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure and ended.failure["reason"] == "NotReady"
    assert "0 of 1 pods" in ended.failure["message"]
    contract(world).check(running(first))


@pytest.mark.parametrize("how", ["deleted", "taken out of the selector"])
def test_a_pod_that_goes_midway_is_replaced_and_not_counted(world: World, interrupted: Interrupted, how: str) -> None:
    deployment = midway(world, interrupted, frontend=HOST)
    [name] = own_pods(world, "shop-1")
    besides = []
    if how == "deleted":
        world.eyes.delete(POD, name, world.namespace, uid=world.pods()[name]["metadata"]["uid"])
        world.until(lambda: name not in world.pods(), "the pod to go")
    else:
        # Whoever does that wants to look at the pod: it is theirs from then on, nobody counts it, and it stays.
        labels = {"name": "being-looked-at", "app": None, "version": None}
        world.eyes.patch(POD, name, {"metadata": {"labels": labels}}, world.namespace)
        besides = [("pods", name)]
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.DEPLOYED)
    contract(world, *besides).check(running(ended))
    world.service.undeploy(world.namespace, ended.id)
    world.quiet()
    contract(world, *besides).nothing_left()
    assert set(world.pods()) == {name for _, name in besides}


def test_pods_that_an_orphaning_deletion_left_are_no_part_of_the_next_deployment(world: World) -> None:
    """A ReplicationController adopts whatever it selects and nobody owns, so nothing of that sort may be left."""
    first = world.deployed(newVersion="blue", env={"MARK": "old"}, **HEALTHY)
    uid = world.objects(CONTROLLER)["shop-blue"]["metadata"]["uid"]
    world.eyes.delete(CONTROLLER, "shop-blue", world.namespace, uid=uid, propagation="Orphan")
    world.until(lambda: not world.objects(CONTROLLER) or None, "the controller to go")
    assert world.pods()
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    contract(world).nothing_left()
    second = world.deployed(newVersion="blue", env={"MARK": "new"}, **HEALTHY)
    contract(world).check(running(second))


def test_a_finalizer_of_somebody_else_holds_up_the_end_and_nothing_else(world: World) -> None:
    first = world.deployed()
    held = {"metadata": {"finalizers": ["example.com/hold"]}}
    world.eyes.patch(CONTROLLER, "shop-1", held, world.namespace)
    world.service.undeploy(world.namespace, first.id)
    world.until(lambda: not world.objects(CONTROLLER) or None, "the deletion to begin")
    found = world.store.get(Deployment, first.id)
    assert found and found.status is Status.UNDEPLOYING
    # What is said when the time is up.
    owner = Owner(world.settings.instance, world.namespace, "shop", first.id, fencing_token=1)
    kube = OwnedKube(world.client, world.informers, owner, CancelScope(time.monotonic() + 1.0))
    with pytest.raises(StepFailed, match=r"ReplicationController shop-1 .* finalizers: .*example\.com/hold"):
        kube.delete(CONTROLLER, "shop-1")
    world.eyes.patch(CONTROLLER, "shop-1", {"metadata": {"finalizers": None}}, world.namespace)
    world.ended(first, Status.UNDEPLOYED)
    contract(world).nothing_left()


def test_a_controller_that_is_on_its_way_out_is_not_waited_for(world: World) -> None:
    """Somebody's finalizer may keep it there for long; it makes no pods any more."""
    never = {"httpGet": {"path": "/error", "port": 9999}, "periodSeconds": 1}
    container = {"name": "web", "image": world.image, "imagePullPolicy": "IfNotPresent", "readinessProbe": never}
    deployment = world.deploy(podspec={"terminationGracePeriodSeconds": 1, "containers": [container]})
    world.until(lambda: "0 of 1 pods ready" in world.log(deployment.id), "the pods to be waited for")
    held = {"metadata": {"finalizers": ["example.com/hold"]}}
    uid = world.eyes.patch(CONTROLLER, "shop-1", held, world.namespace)["metadata"]["uid"]
    world.eyes.delete(CONTROLLER, "shop-1", world.namespace, uid=uid)
    world.until(lambda: "failed: " in world.log(deployment.id), "the deployment to fail")
    world.eyes.patch(CONTROLLER, "shop-1", {"metadata": {"finalizers": None}}, world.namespace)
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure and ended.failure["reason"] == "ControllerGone"
    contract(world).nothing_left()


@pytest.mark.parametrize("kind", [CONTROLLER, SERVICE])
def test_what_takes_the_name_between_look_and_deletion_stays(
    world: World, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server refuses to delete an object of another uid; the second look finds it foreign."""
    first = world.deployed()
    refused = swapped_before_deletion(world, kind, "shop-1", monkeypatch)
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)
    assert len(refused) == 1
    there = world.objects(kind)["shop-1"]
    assert there["metadata"]["labels"] == {"made": "by-hand"}
    contract(world, (kind.plural, "shop-1")).nothing_left()


def test_a_shared_object_that_somebody_edits_between_look_and_deletion_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.deployed()
    edits: list[str] = []
    delete: Any = KubeClient.delete

    def meddle(client: KubeClient, kind: Kind, name: str, *args: Any, **more: Any) -> Any:
        if (kind, name) == (SERVICE, "shop") and not edits:
            world.eyes.patch(SERVICE, "shop", {"metadata": {"annotations": {"kube-deployer/app": "another"}}}, *args)
            edits.append(name)
        return delete(client, kind, name, *args, **more)

    monkeypatch.setattr(KubeClient, "delete", meddle)
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)
    assert edits
    assert world.objects(SERVICE)["shop"]["metadata"]["annotations"]["kube-deployer/app"] == "another"
    contract(world, ("services", "shop")).nothing_left()


def test_a_namespace_that_goes_midway_ends_the_deployment_and_all_that_follows(
    world: World, interrupted: Interrupted
) -> None:
    first = world.deployed()
    deployment = midway(world, interrupted)
    uid = world.eyes.get(NAMESPACE, world.namespace)["metadata"]["uid"]
    world.eyes.delete(NAMESPACE, world.namespace, uid=uid)
    world.until(lambda: not world.objects(CONTROLLER) or None, "the namespace to be emptied")
    interrupted.wait.go_on.set()
    ended = world.ended(deployment, Status.FAILURE)
    assert ended.failure and ended.failure["reason"] == "ObjectGone"
    late = world.ended(world.deploy("other"), Status.FAILURE)
    assert late.failure
    assert "because it is being terminated" in late.failure["message"] or "not found" in late.failure["message"]
    world.service.undeploy(world.namespace, first.id)
    world.ended(first, Status.UNDEPLOYED)


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


# --- podspecs that no API server takes --------------------------------------------------------------------------------

WEB = {"name": "web", "ports": [{"containerPort": 8080}]}
AT = "podspec.containers"
WRONG: dict[str, tuple[list[Document], str]] = {
    "unknown field": ([{**WEB, "imagee": "x"}], f"{AT}[0].imagee: is not a field that Kubernetes knows"),
    "unknown nested field": (
        [{**WEB, "readinessProbe": {"httpGet": {"port": 80, "pth": "/"}}}],
        f"{AT}[0].readinessProbe.httpGet.pth: is not a field that Kubernetes knows",
    ),
    "two containers of one name": (
        [WEB, {"name": "web"}],
        "podspec.containers[1].name: is the same as that of another",
    ),
    "two ports of one name": (
        [{**WEB, "ports": [{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]}],
        "podspec.containers[0].ports[1].name: is the same as that of another port",
    ),
    "no quantity": ([{**WEB, "resources": {"limits": {"memory": "lots"}}}], "must be a quantity"),
    "a limit below the request": (
        [{**WEB, "resources": {"requests": {"memory": "2Mi"}, "limits": {"memory": "1Mi"}}}],
        f'{AT}[0].resources.requests: Invalid value: "2Mi": must be less than or equal to memory limit of 1Mi',
    ),
    "a text for a number": ([{**WEB, "ports": [{"containerPort": "http"}]}], "containerPort"),
    "a name in capitals": ([{**WEB, "name": "Web"}], "podspec.containers[0].name: must be a container name"),
    "a volume that is not there": (
        [{**WEB, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "podspec.containers[0].volumeMounts[0].name: is not the name of a volume",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_podspec_gets_the_api_servers_own_words_at_once(world: World, what: str) -> None:
    """In the answer to the descriptor, before anything is written; at most asked about by dry runs."""
    containers, words = WRONG[what]
    filled = [{"image": world.image, "imagePullPolicy": "IfNotPresent", **container} for container in containers]
    began, before = time.monotonic(), world.client.requests
    with pytest.raises(Invalid) as refused:
        world.deploy(podspec={"containers": filled})
    assert words in str(refused.value)
    assert time.monotonic() - began < PATIENCE / 2
    assert set(world.client.requests - before) <= {"create"}
    contract(world).nothing_left()


def test_a_variable_that_comes_twice_is_taken_and_the_last_one_counts(world: World) -> None:
    """As the API server has it; so it is not ours to refuse."""
    twice = [{"name": "COLOUR", "value": "blue"}, {"name": "COLOUR", "value": "green"}]
    container = {**WEB, "image": world.image, "imagePullPolicy": "IfNotPresent", "env": twice}
    deployment = world.deployed(podspec={"terminationGracePeriodSeconds": 1, "containers": [container]})
    contract(world).check(running(deployment))


def test_the_way_back_leads_to_pods_whose_controller_somebody_removed(world: World) -> None:
    world.deployed(**HEALTHY)
    pods = set(world.pods())
    uid = world.objects(CONTROLLER)["shop-1"]["metadata"]["uid"]
    world.eyes.delete(CONTROLLER, "shop-1", world.namespace, uid=uid, propagation="Orphan")
    restart_with(world, Late())
    failing = world.deploy(**HEALTHY, deploymentType="late", strategyOptions={"end": "fails"})
    assert (world.ended(failing, Status.FAILURE).failure or {})["reason"] == "Late"
    assert (world.live_version(), set(world.pods())) == ("1", pods)

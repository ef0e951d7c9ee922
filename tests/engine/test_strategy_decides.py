"""A strategy decides of what a version consists, and for how long the one that it replaced is kept."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.plan import Previous
from deployer.core.model.records import Plan, Status
from deployer.plugins.strategy_bluegreen import deploy_steps
from deployer.sdk.errors import StepFailed
from deployer.sdk.kube import CONTROLLER, SERVICE
from deployer.sdk.plugin import Document
from deployer.sdk.strategy import Step, Strategy, Workload, WorkloadContext, render_workload
from support.strategies import restart_with
from support.world import HEALTHY, World

FOREVER = 3600.0
"""Seconds for which a replaced version is kept, when its strategy does not know better: no test waits for that."""

SECRET = "s3cr3t-of-a-strategy"


class Strange(Strategy):
    """A stranger's: blue-green's steps, with manifests and a drain time that a test gives."""

    name = "strange"

    def __init__(
        self,
        workload: Callable[[WorkloadContext], Workload | None] = lambda _: None,
        drain: Callable[[Plan], Any] = lambda plan: plan.settings.hold,
    ) -> None:
        self._workload = workload
        self._drain = drain

    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        return deploy_steps(plan)

    def workload(self, context: WorkloadContext) -> Workload | None:
        return self._workload(context)

    def drain(self, plan: Plan) -> Any:
        return self._drain(plan)


@pytest.fixture
def world(cluster: sandbox.Sandbox, tmp_path: Path, namespace: str) -> Iterator[World]:
    made = World(cluster, tmp_path, namespace, proxysleep=FOREVER).start()
    yield made
    made.close()


def labelled(context: WorkloadContext) -> Workload:
    """The usual manifests, with a label of the pods, a mark on the Service, and a second container more."""
    made = render_workload(context)
    template = made.controller["spec"]["template"]
    template["metadata"]["labels"]["team"] = "blue"
    ports = [{"name": name, "value": port} for name, port in (("PORT", "8081"), ("HEALTH_PORT", "9998"))]
    template["spec"]["containers"].append({"name": "beside", "image": "sample/web:1", "env": ports})
    assert made.service is not None
    made.service["metadata"]["annotations"]["example.com/scrape"] = "true"
    return made


def use(world: World, strategy: Strategy) -> dict[str, str]:
    restart_with(world, strategy)
    return {"deploymentType": strategy.name}


# --- workload ---------------------------------------------------------------------------------------------------------


def test_a_strategy_adds_to_the_manifests_and_keeps_the_old_version_for_no_time(world: World) -> None:
    chosen = use(world, Strange(labelled, lambda _: 0))
    world.deployed(**HEALTHY, **chosen)
    second = world.deployed(**HEALTHY, **chosen)
    # Only a drain time of 0 lets this come to an end.
    world.quiet()
    assert world.names() == {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}
    assert world.live_version() == "2"
    pods = [pod for pod in world.pods().values() if not pod["metadata"].get("deletionTimestamp")]
    assert [pod["metadata"]["labels"]["team"] for pod in pods] == ["blue"]
    assert [[c["name"] for c in pod["spec"]["containers"]] for pod in pods] == [["web", "beside"]]
    assert world.objects(SERVICE)["shop"]["metadata"]["annotations"]["example.com/scrape"] == "true"
    assert "team" not in world.objects(CONTROLLER)["shop-2"]["spec"]["selector"]
    world.service.undeploy(world.namespace, second.id)
    world.ended(second, Status.UNDEPLOYED)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_what_was_decided_is_pinned_and_not_asked_for_again(world: World) -> None:
    asked: list[WorkloadContext] = []

    def once(context: WorkloadContext) -> Workload:
        assert not asked
        asked.append(context)
        made = labelled(context)
        context.descriptor.clear()  # what it was lent is its own
        return made

    made = world.deploy(**HEALTHY, **use(world, Strange(once, lambda _: 7)))
    world.ended(made, Status.DEPLOYED)
    asked[0].environment.append({"name": "LATE"})  # type: ignore[attr-defined]
    world.stop()
    world.start()  # without the strategy
    plan = world.store.get(Plan, made.id)
    assert plan and plan.settings.hold == 7.0
    assert plan.objects.controller["spec"]["template"]["metadata"]["labels"]["team"] == "blue"
    assert plan.descriptor["appName"] == "shop" and plan.environment == []
    world.service.undeploy(world.namespace, made.id)
    world.ended(made, Status.UNDEPLOYED)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_the_context_says_what_is_replaced(world: World) -> None:
    seen: list[Previous | None] = []

    def look(context: WorkloadContext) -> None:
        seen.append(context.previous)

    chosen = use(world, Strange(look, lambda _: 0))
    first = world.deployed(**chosen)
    world.deployed(**chosen)
    assert seen[0] is None
    assert seen[1] and (seen[1].deployment, seen[1].version) == (first.id, "1")


def changed(name: str, change: Callable[[Document], object]) -> Callable[[WorkloadContext], Workload]:
    """The usual manifests, one of which a test changes."""

    def workload(context: WorkloadContext) -> Workload:
        made = render_workload(context)
        change(getattr(made, name))
        return made

    return workload


def renamed(body: Document) -> None:
    body["metadata"]["name"] = "shop"


def disowned(body: Document) -> None:
    body["metadata"]["annotations"]["kube-deployer/deployment"] = "another"


WRONG: dict[str, tuple[Callable[[WorkloadContext], Any], str]] = {
    "type": (lambda _: {"controller": {}}, "gave a dict, no Workload"),
    "no json": (changed("controller", lambda o: o.update(more={1, 2})), "gave a controller that is no JSON"),
    "not a number": (changed("controller", lambda o: o.update(more=float("nan"))), "gave a controller that is no JSON"),
    "name": (changed("controller", renamed), 'gave a controller whose metadata.name is not "shop-1"'),
    "namespace": (
        changed("service", lambda o: o["metadata"].update(namespace="kube-system")),
        "gave a service whose metadata.namespace is not",
    ),
    "kind": (changed("controller", lambda o: o.update(kind="Deployment")), "gave a controller whose kind is not"),
    "owner": (changed("versioned_service", disowned), "gave a versioned_service without the annotations kube-deployer"),
    "labels": (
        changed("controller", lambda o: o["metadata"]["labels"].pop("version")),
        "gave a controller without the labels by which it is found",
    ),
    "selector": (
        changed("controller", lambda o: o["spec"]["selector"].update(version="0")),
        "gave a controller whose spec.selector is not",
    ),
    "selector of the service": (
        changed("service", lambda o: o["spec"]["selector"].pop("version")),
        "gave a service whose spec.selector is not",
    ),
    "labels of pods": (
        changed("controller", lambda o: o["spec"]["template"]["metadata"].update(labels={"app": "shop"})),
        "gave a controller whose pods do not have the labels by which they are found",
    ),
    "containers": (
        changed("controller", lambda o: o["spec"]["template"]["spec"].update(containers=[])),
        "gave a controller whose pods have no containers",
    ),
    "spec": (changed("controller", lambda o: o.update(spec=None)), "gave a controller whose spec.selector is not"),
    "ports": (changed("service", lambda o: o["spec"].update(ports=[])), "gave a service without port 8080/TCP"),
    "no service": (
        lambda context: dataclasses.replace(render_workload(context), service=None),
        "gave a workload without service",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_manifests_that_the_engine_could_not_work_with_fail_before_anything_is_written(
    world: World, wrong: str
) -> None:
    workload, words = WRONG[wrong]
    failed = world.ended(world.deploy(**HEALTHY, **use(world, Strange(workload))), Status.FAILURE)
    assert failed.failure
    assert failed.failure["reason"] == "BadStrategy"
    assert f"strategy strange {words}" in failed.failure["message"]
    assert (world.names(), world.pods()) == ({}, {})


def test_services_for_an_app_without_ports_are_refused_too(world: World) -> None:
    def with_a_service(context: WorkloadContext) -> Workload:
        made = render_workload(context)
        return dataclasses.replace(made, service=made.controller)

    chosen = use(world, Strange(with_a_service))
    failed = world.ended(world.deploy(ports=[], **chosen), Status.FAILURE)
    assert failed.failure and "strategy strange gave a service for an app without container ports" in str(
        failed.failure["message"]
    )


def test_a_strategy_may_refuse_and_what_else_it_raises_names_it_and_hides_the_text(world: World) -> None:
    def refuse(context: WorkloadContext) -> Workload:
        raise StepFailed("no two at once here", reason="NotHere", hint="wait")

    def break_down(context: WorkloadContext) -> Workload:
        raise ValueError(SECRET)

    def leave(plan: Plan) -> float:
        sys.exit(3)

    failed = world.ended(world.deploy(**use(world, Strange(drain=leave))), Status.FAILURE)
    assert failed.failure and failed.failure["message"] == "strategy strange raised SystemExit in drain()"
    failed = world.ended(world.deploy(**use(world, Strange(refuse))), Status.FAILURE)
    assert failed.failure and (failed.failure["reason"], failed.failure["hint"]) == ("NotHere", "wait")
    failed = world.ended(world.deploy(**use(world, Strange(break_down))), Status.FAILURE)
    assert failed.failure and failed.failure["message"] == "strategy strange raised ValueError in workload()"
    assert SECRET not in json.dumps(failed.failure) + world.log(failed.id)
    assert (world.names(), world.pods()) == ({}, {})


def test_a_value_that_a_strategy_gives_to_the_containers_is_secret_at_once(world: World) -> None:
    def with_a_token(context: WorkloadContext) -> Workload:
        made = render_workload(context)
        made.controller["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "TOKEN", "value": SECRET})
        return made

    # An image of that name cannot be pulled, and the kubelet's message repeats it.
    chosen = use(world, Strange(with_a_token))
    failed = world.ended(world.deploy(image=f"nowhere/{SECRET}:1", **chosen), Status.FAILURE)
    assert "ImagePull" in world.log(failed.id)
    assert SECRET not in json.dumps(failed.failure) + world.log(failed.id)


# --- drain ------------------------------------------------------------------------------------------------------------


def test_the_old_version_is_kept_for_as_long_as_the_ingress_provider_asks_for(world: World) -> None:
    host = f"{world.namespace}.example.com"
    chosen = use(world, Strange(drain=lambda _: 0))
    first = world.deployed(**HEALTHY, **chosen, frontend=host)
    second = world.deployed(**HEALTHY, **chosen, frontend=host)
    assert "replaced by version 2; will be removed in 0.2 s" in world.log(first.id)
    plan = world.store.get(Plan, second.id)
    assert plan and plan.settings.hold == plan.settings.minimum_hold == 0.2
    world.quiet()
    assert world.names()["replicationcontrollers"] == {"shop-2"}


@pytest.mark.parametrize("drain", [-1, float("nan"), float("inf"), 604_801, "20", None, True])
def test_a_drain_time_that_is_none_fails_before_anything_is_written(world: World, drain: object) -> None:
    failed = world.ended(world.deploy(**use(world, Strange(drain=lambda _: drain))), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "BadStrategy"
    assert "strategy strange gave a drain time that is no number of seconds" in failed.failure["message"]
    assert (world.names(), world.pods()) == ({}, {})


@pytest.mark.parametrize("frontend", [True, False])
def test_recreate_waits_for_nothing_but_the_ingress_provider(world: World, frontend: bool) -> None:
    fields: dict[str, Any] = {"frontend": f"{world.namespace}.example.com"} if frontend else {}
    first = world.deployed(**HEALTHY, **fields)
    world.deployed(**HEALTHY, **fields, deploymentType="recreate")
    world.ended(first, Status.UNDEPLOYED)
    world.quiet()
    assert world.names()["replicationcontrollers"] == {"shop-2"}


def test_blue_green_keeps_it_for_as_long_as_the_settings_say(world: World) -> None:
    first = world.deployed(**HEALTHY)
    made = world.deployed(**HEALTHY)
    plan = world.store.get(Plan, made.id)
    assert plan and plan.settings.hold == FOREVER
    assert world.record(first.id).status is Status.UNDEPLOYING
    assert world.names()["replicationcontrollers"] == {"shop-1", "shop-2"}

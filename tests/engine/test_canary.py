"""The strategy `canary` on the sandbox: parts of the requests, pauses, and the way back to the old version."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import urllib3

from deployer.core.errors import Invalid
from deployer.core.model.records import Deployment, Status
from deployer.plugins.ingress_nginx.provider import Nginx
from deployer.sdk.kube import CONTROLLER, HTTP_ROUTE, INGRESS
from support.world import GATEWAY, HEALTHY, NGINX, World

HOST = "shop.example.com"
PLUGINS = {"ingress_nginx": NGINX, "ingress_gateway": GATEWAY}


every_mode = pytest.mark.parametrize("canary_world", ["nginx", "nginx-stable", "gateway"], indirect=True)


@pytest.fixture(params=["nginx", "gateway"])
def canary_world(request: pytest.FixtureRequest, world: World) -> World:
    """With version 1 live, three pods, under each ingress provider."""
    provider, _, mode = request.param.partition("-")
    tables: dict[str, Any] = {**PLUGINS}
    if mode:
        tables["ingress_nginx"] = {**PLUGINS["ingress_nginx"], "mode": "stable-service"}
    world.stop()
    world.settings = dataclasses.replace(world.settings, ingress=provider, plugins=tables)
    world.start()
    world.deployed(**HEALTHY, frontend=HOST, replicas=3)
    world.quiet()
    return world


def canary(world: World, *steps: tuple[int, float], **more: Any) -> Deployment:
    """Queue version 2."""
    options = {"steps": [{"weight": weight, "pause": pause} for weight, pause in steps]}
    options |= {name: more.pop(name) for name in ("match", "startReplicas") if name in more}
    fields = {**HEALTHY, "frontend": HOST, "replicas": 3, "deploymentType": "canary", "strategyOptions": options}
    return world.deploy(**{**fields, **more})


class Client:
    """Asks the ingress, over one connection."""

    def __init__(self, world: World) -> None:
        assert world.cluster
        self._url = world.cluster.ingress
        self._pool = urllib3.PoolManager(retries=False)

    def version(self, **headers: str) -> str:
        answer = self._pool.request("GET", self._url, headers={"Host": HOST, **headers}, timeout=10)
        return answer.headers.get("X-Version", f"HTTP {answer.status}")

    def versions(self, times: int, **headers: str) -> Counter[str]:
        return Counter(self.version(**headers) for _ in range(times))


def parked(world: World, deployment: Deployment, line: str) -> None:
    """Wait until the deployment has logged that line and stands in a pause."""
    world.until(lambda: line in world.log(deployment.id) and "next step in" in world.log(deployment.id), line)


def test_a_canary_gets_its_part_of_the_requests(canary_world: World) -> None:
    world, client = canary_world, Client(canary_world)
    deployment = canary(world, (5, 600.0))
    parked(world, deployment, "5 % of the requests of shop.example.com now go to version 2")
    assert world.objects(CONTROLLER)["shop-2"]["spec"]["replicas"] == 1
    asked = 1000  # three points are more than four standard deviations then
    got = client.versions(asked)
    assert set(got) == {"1", "2"}
    assert abs(100 * got["2"] / asked - 5) < 3, got
    assert world.live_version() == "1"
    world.service.undeploy(world.namespace, deployment.id)
    world.ended(deployment, Status.UNDEPLOYED)


@every_mode
def test_a_canary_scales_up_with_its_weight_and_leaves_nothing_but_the_new_version(canary_world: World) -> None:
    world, client = canary_world, Client(canary_world)
    kinds = (INGRESS, HTTP_ROUTE)
    before = {kind.plural: set(world.objects(kind)) for kind in kinds}
    deployment = canary(world, (20, 0.2), (60, 0.2))
    world.ended(deployment, Status.DEPLOYED)
    log = world.log(deployment.id)
    assert "scaling shop-2 up from 1 to 2 pods" in log and "scaling shop-2 up from 2 to 3 pods" in log
    assert client.versions(30) == {"2": 30}
    world.quiet()
    assert client.versions(30) == {"2": 30}
    assert {kind.plural: set(world.objects(kind)) for kind in kinds} == before
    assert world.objects(CONTROLLER)["shop-2"]["spec"]["replicas"] == 3
    assert world.live_version() == "2"


@every_mode
@pytest.mark.parametrize("end", ["not ready", "restarted, then cancelled"])
def test_whatever_ends_a_canary_everybody_gets_the_old_version_again(canary_world: World, end: str) -> None:
    world, client = canary_world, Client(canary_world)
    kinds = (INGRESS, HTTP_ROUTE, CONTROLLER)
    before = {kind.plural: set(world.objects(kind)) for kind in kinds}
    deployment = canary(world, (20, 0.2), (60, 600.0))
    parked(world, deployment, "60 % of the requests of shop.example.com now go to version 2")
    if end == "restarted, then cancelled":
        world.stop()
        assert set(client.versions(60)) == {"1", "2"}
        world.start()
    if end == "not ready":
        found = world.objects(CONTROLLER)["shop-2"]
        world.eyes.delete(CONTROLLER, "shop-2", world.namespace, uid=found["metadata"]["uid"], propagation="Background")
        ended = world.ended(deployment, Status.FAILURE)
        # It is looked at while its pods go, or when they have gone.
        assert ended.failure and ended.failure["reason"] in ("NotReady", "ObjectGone")
    else:
        world.service.undeploy(world.namespace, deployment.id)
        world.ended(deployment, Status.UNDEPLOYED)
    assert client.versions(60) == {"1": 60}
    world.quiet()
    assert client.versions(60) == {"1": 60}
    assert {kind.plural: set(world.objects(kind)) for kind in kinds} == before
    assert world.live_version() == "1"


@every_mode
def test_a_canary_may_follow_another_one_whose_predecessor_still_drains(canary_world: World) -> None:
    world, client = canary_world, Client(canary_world)
    match = {"header": "X-Try", "value": "new"}
    queued = [canary(world, (30, 0.1), match=match) for _ in range(3)]
    for deployment in queued:
        world.ended(deployment, Status.DEPLOYED)
    assert client.versions(60) == {"4": 60} == client.versions(60, **{"X-Try": "new"})
    world.quiet()
    assert client.versions(60) == {"4": 60}


def test_a_pause_goes_on_after_a_restart(world: World) -> None:
    world.deployed(**HEALTHY, frontend=HOST, replicas=3)
    deployment = canary(world, (20, 3.0))
    parked(world, deployment, "20 % of")
    world.stop()
    began = time.monotonic()
    world.start()
    world.ended(deployment, Status.DEPLOYED)
    assert time.monotonic() - began < 20


def test_requests_with_the_header_get_the_new_version_first(canary_world: World) -> None:
    world, client = canary_world, Client(canary_world)
    deployment = canary(world, (0, 600.0), match={"header": "X-Try", "value": "new"})
    parked(world, deployment, "the requests that match of shop.example.com now go to version 2")
    assert client.versions(20, **{"X-Try": "new"}) == {"2": 20}
    assert client.versions(20, **{"X-Try": "old"}) == client.versions(20) == {"1": 20}
    world.service.undeploy(world.namespace, deployment.id)
    world.ended(deployment, Status.UNDEPLOYED)
    assert client.versions(20, **{"X-Try": "new"}) == {"1": 20}


def test_the_first_version_goes_live_at_once(world: World) -> None:
    deployment = canary(world, (20, 600.0))
    world.ended(deployment, Status.DEPLOYED)
    assert "now go to" not in world.log(deployment.id)


def problems(world: World, **fields: Any) -> Mapping[str, str]:
    with pytest.raises(Invalid) as caught:
        world.descriptor(**{**HEALTHY, "frontend": HOST, "deploymentType": "canary", **fields})
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"frontend": None}, "frontend", "what a canary divides"),
        ({"strategyOptions": {"steps": [{"weight": 0}]}}, "strategyOptions.steps[0].weight", "nobody would get"),
        (
            {"strategyOptions": {"steps": [{"weight": 50}, {"weight": 20}]}},
            "strategyOptions.steps[1].weight",
            "must be more than that of the step before, which is 50",
        ),
        ({"strategyOptions": {"steps": [{"weight": 100}]}}, "strategyOptions.steps[0].weight", "99"),
        ({"strategyOptions": {"startReplicas": "0%"}}, "strategyOptions.startReplicas", 'like "20%"'),
        ({"strategyOptions": {"match": {"header": "X"}}}, "strategyOptions.match", "must be {"),
        ({"strategyOptions": {"step": []}}, "strategyOptions", "steps"),
    ],
)
def test_what_a_canary_cannot_do_is_refused_when_it_is_posted(world: World, fields: Any, path: str, said: str) -> None:
    found = problems(world, **fields)
    assert any(where.startswith(path) and said in message for where, message in found.items()), found


def test_what_the_ingress_provider_cannot_do_is_refused_when_it_is_posted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.stop()
    monkeypatch.setattr(Nginx, "capabilities", Nginx.capabilities - {"match"})
    world.start()
    found = problems(world, strategyOptions={"match": {"cookie": "try"}})
    assert found == {
        "strategyOptions.match": "needs an ingress provider with the capability match: ingress provider nginx does not "
        "have it; available: gateway"
    }
    world.stop()
    world.settings = dataclasses.replace(world.settings, ingress="none")
    world.start()
    assert problems(world)["deploymentType"] == (
        "needs an ingress provider with the capability weights: no ingress provider is configured; available: gateway, "
        "nginx"
    )


def test_a_host_that_moves_is_not_divided(world: World) -> None:
    world.deployed(**HEALTHY, frontend=HOST)
    deployment = canary(world, (20, 0.2), frontend="other.example.com")
    failure = world.ended(deployment, Status.FAILURE).failure
    assert failure and "frontend changes from shop.example.com to other.example.com" in failure["message"]
    assert Client(world).versions(5) == {"1": 5}

"""Mode `stable-service`: the Ingress follows the unversioned Service, and changing the mode loses nothing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import Any

import pytest

from deployer.core.model.records import Deployment, Document, Status
from deployer.plugin_manager.hookspecs import ENTRY_POINT_GROUP
from deployer.sandbox import Load
from deployer.sdk.kube import CONFIG_MAP, INGRESS, SERVICE
from support import late
from support.world import HEALTHY, NGINX, World

STABLE = {**NGINX, "mode": "stable-service", "version_header": "X-Version"}


@pytest.fixture
def host(namespace: str) -> str:
    return f"{namespace}.example.com"


@pytest.fixture
def stable(world: World) -> World:
    """A Deployer in that mode, with a strategy that fails late."""
    world.entry_points = [*importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), late.ENTRY_POINT]
    restart(world, STABLE)
    return world


def restart(world: World, table: dict[str, Any], **settings: Any) -> None:
    """With another table `[plugins.ingress_nginx]`."""
    world.stop()
    world.settings = dataclasses.replace(world.settings, plugins={"ingress_nginx": table}, **settings)
    world.start()


def backends(ingress: Document) -> list[str]:
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    return [path["backend"]["service"]["name"] for path in paths]


def loaded(world: World, host: str, version: str) -> Load:
    """Constant load, once `version` answers."""
    load = Load(world.cluster.ingress, host=host, rate=100).start()
    load.wait_for(lambda report: report.by_version.get(version, 0) > 0, 20)
    return load


def lost_nothing(load: Load, version: str, *versions: str) -> None:
    report = load.wait_for(lambda report: report.by_version.get(version, 0) > 20, 20)
    load.stop()
    assert (report.failed, set(report.by_version)) == (0, {version, *versions})


def test_the_ingress_is_not_written_and_its_service_moves(stable: World, host: str) -> None:
    headers = [{"Header": "X-Demo", "Value": "yes"}]
    stable.deployed(**HEALTHY, frontend=host, additionHttpHeaders=headers)
    stable.quiet()
    before, config_maps = stable.objects(INGRESS)["shop"], set(stable.objects(CONFIG_MAP))
    assert backends(before) == ["shop"]
    load = loaded(stable, host, "1")
    second = stable.deployed(**HEALTHY, frontend=host, additionHttpHeaders=headers)
    assert f"{host} answers with version 2 after" in stable.log(second.id)
    stable.quiet()
    lost_nothing(load, "2", "1")
    after = stable.objects(INGRESS)
    assert set(after) == {"shop"}  # and no helper ever was needed
    assert (after["shop"]["spec"], after["shop"]["metadata"]["generation"]) == (
        before["spec"],
        before["metadata"]["generation"],
    )
    assert after["shop"]["metadata"]["annotations"]["kube-deployer/deployment"] != second.id
    assert set(stable.objects(CONFIG_MAP)) == config_maps and len(config_maps) == 1
    stable.service.undeploy(stable.namespace, second.id)
    stable.quiet()
    assert (stable.names(), stable.pods()) == ({}, {})


def test_a_late_failure_moves_the_service_back(stable: World, host: str) -> None:
    stable.deployed(**HEALTHY, frontend=host)
    stable.quiet()
    load = loaded(stable, host, "1")
    fails: dict[str, Any] = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}
    failed = stable.ended(stable.deploy(**HEALTHY, frontend=f"new-{host}", **fails), Status.FAILURE)
    stable.quiet()
    assert failed.failure and failed.failure["reason"] == "Late"
    assert "service shop selects version 1 again" in stable.log(failed.id)
    (rule,) = stable.objects(INGRESS)["shop"]["spec"]["rules"]
    assert (rule["host"], stable.live_version()) == (host, "1")
    assert stable.names()["services"] == {"shop", "shop-1"}
    load.stop()
    # The host itself was another one for a while, so it is only the end that counts.
    lost_nothing(loaded(stable, host, "1"), "1")


def test_a_first_deployment_that_fails_leaves_nothing(stable: World, host: str) -> None:
    fails: dict[str, Any] = {"deploymentType": "late", "strategyOptions": {"end": "fails"}}
    stable.ended(stable.deploy(**HEALTHY, frontend=host, **fails), Status.FAILURE)
    stable.quiet()
    assert (stable.names(), stable.pods()) == ({}, {})


@pytest.mark.parametrize(
    "modes", [(NGINX, STABLE, "shop"), (STABLE, NGINX, "shop-2")], ids=["to-stable", "from-stable"]
)
@pytest.mark.parametrize("late_failure", [False, True], ids=["succeeds", "fails"])
def test_changing_the_mode_loses_nothing(
    stable: World, host: str, modes: tuple[dict[str, Any], dict[str, Any], str], late_failure: bool
) -> None:
    first, then, leads = modes
    restart(stable, first)
    stable.deployed(**HEALTHY, frontend=host)
    stable.quiet()
    before = backends(stable.objects(INGRESS)["shop"])
    restart(stable, then)
    load = loaded(stable, host, "1")
    fields: dict[str, Any] = {"deploymentType": "late", "strategyOptions": {"end": "fails"}} if late_failure else {}
    made: Deployment = stable.ended(stable.deploy(**HEALTHY, frontend=host, **fields))
    stable.quiet()
    assert made.status is (Status.FAILURE if late_failure else Status.DEPLOYED), stable.log(made.id)
    if late_failure:
        assert load.stop().failed == 0
    else:
        lost_nothing(load, "2", "1")
    assert {name: backends(found) for name, found in stable.objects(INGRESS).items()} == {
        "shop": before if late_failure else [leads]
    }
    assert stable.live_version() == ("1" if late_failure else "2")
    assert set(stable.objects(SERVICE)) == {"shop", f"shop-{stable.live_version()}"}


@pytest.mark.parametrize("mode", ["stable-service", "versioned"])
def test_health_is_asked_through_the_preview_before_anything_moves(world: World, host: str, mode: str) -> None:
    """The route leads to the port where the sample app may answer 503."""
    table = {"controller": NGINX["controller"], "mode": mode, "minimum_hold": 0.2, "propagation_seconds": 0.2}
    restart(world, table, preview_host="{app}-{namespace}.preview.example", preview_check="/simple", expose_timeout=4.0)
    fields: dict[str, Any] = {"frontend": host, "ports": [{"containerPort": 9999}]}
    first = world.deployed(**fields)
    world.quiet()
    assert "preview check passed: /simple" in world.log(first.id)
    assert set(world.objects(INGRESS)) == {"shop"}
    generation = world.objects(INGRESS)["shop"]["metadata"]["generation"]
    failed = world.ended(world.deploy(**fields, env={"FAIL": "1"}), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "RouteNotConfirmed"
    assert f"{host}: the preview to port 9999 of shop-2 was not confirmed in time" in world.log(failed.id)
    assert "answered HTTP 503" in world.log(failed.id)
    world.quiet()
    ingresses = world.objects(INGRESS)
    assert (set(ingresses), ingresses["shop"]["metadata"]["generation"]) == ({"shop"}, generation)
    # What the descriptor says counts more.
    world.deployed(**fields, env={"FAIL": "1"}, ingressOptions={"previewCheck": "/health"})
    world.quiet()
    assert set(world.objects(INGRESS)) == {"shop"}

"""The variables of an app's own Service, as a real kubelet makes them, and an app that stumbles over one."""

from __future__ import annotations

from typing import Any

from cluster.conftest import RealWorld
from deployer.core.model.records import Deployment, Status
from deployer.toolkit import service_links
from support.contract import environment_of
from support.world import describe


def podspec(world: RealWorld, *ports: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The application, ready when its health port answers."""
    spec = describe(world.namespace, image=world.image, pull="IfNotPresent", ports=list(ports))["podspec"]
    probe = {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1}
    spec["containers"][0] |= {"readinessProbe": probe}
    return {**spec, **more}


def test_the_names_are_those_of_kubernetes(real: RealWorld) -> None:
    ports = (
        {"containerPort": 8080},
        {"name": "web-2", "containerPort": 8081},
        {"containerPort": 53, "protocol": "UDP"},
    )
    for _ in range(2):
        live = real.deployed("my-shop", podspec=podspec(real, *ports))
    [pod] = [pod for pod in real.pods().values() if pod["metadata"]["labels"]["version"] == live.version]
    found = {name for name in environment_of(pod["status"]["podIP"], 8080) if name.startswith("MY_SHOP_")}
    versioned = {name for name in found if name.startswith(("MY_SHOP_1_", "MY_SHOP_2_"))}
    assert found - versioned == set(service_links.variables(live.descriptor))


def test_an_app_that_reads_the_variable_of_its_own_service(real: RealWorld) -> None:
    http = {"name": "http", "containerPort": 8080}

    def deploy(**more: Any) -> Deployment:
        return real.ended(real.deploy("health", podspec=podspec(real, http, **more), timeoutSeconds=10))

    assert deploy().status is Status.DEPLOYED
    failed = deploy()
    assert failed.status is Status.FAILURE and failed.failure is not None
    assert failed.failure["hint"].startswith("if the app reads HEALTH_PORT as a setting, put enableServiceLinks: false")
    assert deploy(enableServiceLinks=False).status is Status.DEPLOYED

"""The life of an app on a real Kubernetes, with real pods."""

from __future__ import annotations

from cluster.conftest import RealWorld
from deployer.core.kube.kinds import CONTROLLER, SERVICE
from deployer.core.records import HealthData, Status
from support.world import HEALTHY


def test_first_second_failing_and_undeployment(real: RealWorld) -> None:
    first = real.deployed(**HEALTHY, replicas=2)
    assert real.live_version() == "1"
    second = real.deployed(**HEALTHY, replicas=2)
    assert real.live_version() == "2"
    real.quiet()
    left = {"replicationcontrollers": {"shop-2"}, "services": {"shop", "shop-2"}}
    assert (real.ended(first).status, names(real)) == (Status.UNDEPLOYED, left)

    third = real.ended(real.deploy(**HEALTHY, replicas=2, env={"FAIL": "1"}), Status.FAILURE)
    assert third.failure and third.failure["reason"] == "Unhealthy"
    assert (real.live_version(), names(real)) == ("2", left)

    data = real.store.get(HealthData, second.id)
    assert data and len(data.entries) == 2
    assert all('"healthy": true' in entry["value"] for entry in data.entries)

    real.service.undeploy(real.namespace, second.id)
    real.quiet()
    assert real.ended(second).status is Status.UNDEPLOYED
    assert (names(real), real.pods()) == ({}, {})


def test_objects_as_the_contract_has_them(real: RealWorld) -> None:
    deployment = real.deployed(**HEALTHY)
    controller = real.objects(CONTROLLER)["shop-1"]
    labels = {"name": "shop-1", "app": "shop", "version": "1"}
    assert controller["spec"]["selector"] == controller["spec"]["template"]["metadata"]["labels"] == labels
    assert controller["metadata"]["annotations"]["kube-deployer/deployment"] == deployment.id
    versioned, service = real.objects(SERVICE)["shop-1"], real.objects(SERVICE)["shop"]
    assert versioned["spec"]["selector"] == labels
    assert service["spec"]["selector"] == {"app": "shop", "version": "1"}
    assert service["metadata"]["labels"]["persistent"] == "true"
    assert [p["port"] for p in versioned["spec"]["ports"]] == [8080]


def test_a_podspec_with_a_typing_error_gets_the_api_servers_words(real: RealWorld) -> None:
    container = {"name": "web", "image": "lab/demo:1", "imagee": "typo"}
    deployment = real.ended(real.deploy(podspec={"containers": [container]}), Status.FAILURE)
    assert (
        deployment.failure
        and 'unknown field "spec.template.spec.containers[0].imagee"' in deployment.failure["message"]
    )
    assert (names(real), real.pods()) == ({}, {})


def test_an_image_that_is_not_there_fails_early(real: RealWorld) -> None:
    deployment = real.ended(real.deploy(image="lab/nothing:1", pull="Never"), Status.FAILURE)
    assert deployment.failure and deployment.failure["reason"] == "ErrImageNeverPull"
    assert "lab/nothing:1" in deployment.failure["message"]
    assert (names(real), real.pods()) == ({}, {})


def test_three_apps_at_once(real: RealWorld) -> None:
    deployments = [real.deploy(app, **HEALTHY) for app in ("one", "two", "three")]
    for deployment in deployments:
        real.ended(deployment, Status.DEPLOYED)
    assert {real.live_version(app) for app in ("one", "two", "three")} == {"1"}


def names(real: RealWorld) -> dict[str, set[str]]:
    """What a Deployer made; a namespace of a real cluster has a ConfigMap of its own."""
    found = real.names()
    found.get("configmaps", set()).discard("kube-root-ca.crt")
    return {kind: some for kind, some in found.items() if some}

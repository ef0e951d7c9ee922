"""What must never reach the cluster is refused before anything is written: no record, no request."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.errors import Invalid
from deployer.core.model.records import App, Deployment, HostClaim, Operation, StoredDescriptor
from deployer.toolkit import dry_run
from support.world import HEALTHY, World, describe

RESERVED = {"kube-deployer/instance": "other", "app.kubernetes.io/managed-by": "deployer"}


def claim(**metadata: Any) -> dict[str, Any]:
    return {"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": metadata, "spec": {}}}}


POD = {
    "podspec.hostNetwork": {"hostNetwork": True},
    "podspec.hostPID": {"hostPID": True},
    "podspec.hostIPC": {"hostIPC": True},
    "podspec.volumes[0].hostPath": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
    "podspec.securityContext.sysctls[0].name": {"securityContext": {"sysctls": [{"name": "kernel.x", "value": "1"}]}},
    "podspec.securityContext.seccompProfile.type": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    "podspec.volumes[0].ephemeral.volumeClaimTemplate.metadata.labels": {"volumes": [claim(labels=RESERVED)]},
    "podspec.volumes[0].ephemeral.volumeClaimTemplate.metadata.annotations": {"volumes": [claim(annotations=RESERVED)]},
    "podspec.metadata": {"metadata": {"labels": RESERVED}},
    "podspec.initContainers[0].securityContext.privileged": {
        "initContainers": [{"name": "i", "image": "i", "securityContext": {"privileged": True}}]
    },
}
CONTAINER = {
    "securityContext.privileged": {"securityContext": {"privileged": True}},
    "securityContext.capabilities.add[0]": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
    "securityContext.procMount": {"securityContext": {"procMount": "Unmasked"}},
    "ports[0].hostPort": {"ports": [{"containerPort": 80, "hostPort": 80}]},
    "livenessProbe.httpGet.host": {"livenessProbe": {"httpGet": {"host": "169.254.169.254", "port": 80}}},
}
CASES = {
    **{path: ("pod", change) for path, change in POD.items()},
    **{f"podspec.containers[0].{path}": ("container", change) for path, change in CONTAINER.items()},
}


def untouched(world: World, requests: int) -> None:
    for kind in (StoredDescriptor, Deployment, Operation, App, HostClaim):
        assert not world.store.find(kind), kind
    assert world.client.requests.total() - requests <= dry_run.ROUNDS  # nothing but dry runs
    assert not world.names()
    assert not world.pods()


def dangerous(world: World, path: str) -> dict[str, Any]:
    where, change = CASES[path]
    document = describe(world.namespace, frontend="shop.example.com")
    (document["podspec"] if where == "pod" else document["podspec"]["containers"][0]).update(change)
    return document


@pytest.mark.parametrize("path", CASES)
def test_dangerous_pods_and_reserved_labels(world: World, path: str) -> None:
    document = dangerous(world, path)
    requests = world.client.requests.total()
    with pytest.raises(Invalid) as caught:
        world.service.descriptors.create(world.namespace, json.dumps(document).encode())
    assert path in {problem.path for problem in caught.value.problems}
    untouched(world, requests)


def test_what_was_stored_under_laxer_settings_is_not_deployed(world: World) -> None:
    lax = dataclasses.replace(world.settings, pod_security="privileged")
    service = DeploymentCommands(world.store, world.deployment_log, world.registry, lax)
    body = json.dumps(dangerous(world, "podspec.hostNetwork")).encode()
    stored = service.descriptors.create(world.namespace, body)
    requests = world.client.requests.total()
    with pytest.raises(Invalid, match="hostNetwork"):
        world.service.deploy(world.namespace, stored.id)
    assert not world.store.find(Deployment)
    assert not world.store.find(Operation)
    assert world.client.requests.total() - requests <= dry_run.ROUNDS  # nothing but dry runs
    assert not world.names()


FIELDS = ("frontend", "healthCheckPath", "Header", "Value", "appName", "newVersion")
HARMLESS = "';{}`"
"""In the value of a header, which is rendered between double quotes (see the golden files)."""


@pytest.mark.parametrize(
    ("field", "character"),
    [(field, c) for field in FIELDS for c in "\"';{}$\n\r\\`" if field != "Value" or c not in HARMLESS],
)
def test_what_means_something_to_a_proxy_is_never_rendered(world: World, field: str, character: str) -> None:
    header = {"Header": "X-A", "Value": "b"}
    document = describe(world.namespace, frontend="shop.example.com", additionHttpHeaders=[header], **HEALTHY)
    target = header if field in header else document
    target[field] = f"{target[field]}{character}x"
    requests = world.client.requests.total()
    with pytest.raises(Invalid) as caught:
        world.service.descriptors.create(world.namespace, json.dumps(document).encode())
    path = f"additionHttpHeaders[0].{field}" if field in header else field
    assert [problem.path for problem in caught.value.problems] == [path]
    untouched(world, requests)

"""Manifests: what is rendered equals the golden files; ports, environment, names, objects of the original.

`GOLDEN=write pytest tests/core/test_manifests.py` writes the files anew; read the difference before committing it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from deployer.core.contract.strategy import WorkloadContext
from deployer.core.errors import StepFailed
from deployer.core.model.descriptors import frontend_port
from deployer.core.model.names import versioned_name
from deployer.core.model.plan import Workload
from deployer.descriptor import Rules, normalise
from deployer.kube import ownership
from deployer.settings import Settings
from deployer.toolkit import manifests

GOLDEN = Path(__file__).parent / "golden"
RULES = Rules(
    settings=Settings(own_namespace="deployer"),
    strategies={"blue-green": None},
    health_checkers={"probe", "simple"},
    ingress=("nginx", None),
)
FULL = {
    "namespace": "default",
    "appName": "My_Shop",
    "newVersion": "#",
    "replicas": 2,
    "frontend": "Shop.example.com",
    "redirectWww": "true",
    "useHealthCheck": True,
    "healthCheckPort": 9999,
    "healthCheckPath": "health",
    "healthCheckType": "probe",
    "imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}],
    "podspec": {
        "initContainers": [{"name": "migrate", "image": "shop/migrate:3", "imagePullPolicy": "Never"}],
        "containers": [
            {
                "name": "shop",
                "image": "shop:stable",
                "ports": [{"name": "healthcheck", "containerPort": 9999}, {"containerPort": 8080}],
                "env": [
                    {"name": "APP_NAME", "value": "mine"},
                    {"name": "GREETING", "value": "from $(POD_NAME) with $(DB_URL)"},
                ],
            },
            {
                "name": "dns",
                "image": "dns:1",
                "imagePullPolicy": "",
                "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}],
            },
        ],
        "imagePullSecrets": [{"name": "mirror"}],
        "terminationGracePeriodSeconds": 5,
    },
}
SMALL = {
    "namespace": "default",
    "appName": "worker",
    "newVersion": "v1.2",
    "podspec": {"containers": [{"name": "worker", "image": "worker:1", "env": None, "ports": None}]},
}


def descriptor(document: dict[str, Any]) -> dict[str, Any]:
    return normalise(document, namespace=None, rules=RULES)


def render(document: dict[str, Any], **changes: Any) -> Workload:
    given: dict[str, Any] = {
        "descriptor": descriptor(document),
        "version": "7",
        "deployment": "6f1c1c0e-0a4b-4a43-9a55-3d6a8a1e6f10",
        "created": "2026-01-02T03:04:05Z",
        "instance": "deployer",
        "replicas": 3,
        "environment": [
            {"name": "DB_URL", "value": "postgres://db"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_NAME", "value": "an injector's"},
        ],
        "image_pull_policy": "Always",
        "fencing_token": 12,
    }
    return manifests.render(WorkloadContext(**(given | changes)))


def with_ports(*ports: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(SMALL)
    document["podspec"]["containers"][0]["ports"] = list(ports)
    return document


@pytest.mark.parametrize(
    ("name", "document", "changes"),
    [
        ("full", FULL, {}),
        ("small", SMALL, {"version": "v1-2", "environment": [], "replicas": 1, "instance": "other"}),
        ("policy-left-alone", SMALL | {"newVersion": "1"}, {"version": "1", "image_pull_policy": ""}),
    ],
)
def test_golden(name, document, changes):
    path = GOLDEN / f"{name}.json"
    text = json.dumps(dataclasses.asdict(render(document, **changes)), indent=2) + "\n"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_labels_are_selector_and_template_labels_and_nothing_else():
    objects = render(FULL)
    expected = {"name": "my-shop-7", "app": "my-shop", "version": "7"}
    spec = objects.controller["spec"]
    assert spec["selector"] == spec["template"]["metadata"]["labels"] == expected
    assert objects.versioned_service is not None and objects.service is not None
    assert objects.versioned_service["spec"]["selector"] == expected
    assert objects.service["spec"]["selector"] == {"app": "my-shop", "version": "7"}
    for found, role in (
        (objects.controller, "controller"),
        (objects.versioned_service, "versioned-service"),
        (objects.service, "service"),
    ):
        metadata = found["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "deployer"
        assert metadata["annotations"]["kube-deployer/role"] == role
        assert all(isinstance(v, str) for v in [*metadata["annotations"].values(), *metadata["labels"].values()])
        assert ("kube-deployer/epoch" in metadata["annotations"]) == (role == "service")


def test_nothing_is_shared_with_the_descriptor_or_between_objects():
    document = descriptor(FULL)
    before = copy.deepcopy(document)
    environment = [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    objects = render(FULL, descriptor=document, environment=environment)
    kept = copy.deepcopy(objects.service)
    objects.controller["spec"]["template"]["spec"]["containers"][0]["env"][-1]["value"] = "changed"
    objects.controller["spec"]["template"]["spec"]["containers"][1]["env"][4]["valueFrom"]["fieldRef"] = None
    objects.controller["spec"]["selector"]["name"] = "changed"
    assert objects.versioned_service is not None
    objects.versioned_service["spec"]["ports"][0]["port"] = 1
    assert document == before and objects.service == kept
    assert environment[0]["valueFrom"]["fieldRef"] == {"fieldPath": "spec.nodeName"}


def test_the_descriptor_wins_and_ours_come_first():
    env = render(FULL).controller["spec"]["template"]["spec"]["containers"][0]["env"]
    names = [variable["name"] for variable in env]
    assert names == ["APP_VERSION", "POD_NAMESPACE", "POD_NAME", "DB_URL", "NODE", "APP_NAME", "GREETING"]
    assert env[5] == {"name": "APP_NAME", "value": "mine"}
    assert env[2]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_overridden_names():
    document = descriptor(FULL)
    assert manifests.overridden_names(document, []) == ["APP_NAME"]
    assert manifests.overridden_names(document, [{"name": "GREETING", "value": "x"}]) == ["APP_NAME", "GREETING"]
    assert manifests.overridden_names(document, [{"name": "greeting", "value": "x"}]) == ["APP_NAME"]
    assert manifests.overridden_names(descriptor(SMALL), [{"name": "X", "value": "x"}]) == []


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([{"containerPort": 80}], [("port-80", 80, "TCP")]),
        ([{"containerPort": 80, "name": "http"}], [("http", 80, "TCP")]),
        (
            [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}],
            [("port-53", 53, "TCP"), ("port-53-udp", 53, "UDP")],
        ),
        (
            [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "name": ""}],
            [("port-53", 53, "UDP"), ("port-53-tcp", 53, "TCP")],
        ),
        (
            [{"containerPort": 1, "name": "web"}, {"containerPort": 2, "name": "web"}],
            [("web", 1, "TCP"), ("web-tcp", 2, "TCP")],
        ),
        (
            [
                {"containerPort": 1, "name": "port-2"},
                {"containerPort": 3, "name": "port-2-tcp"},
                {"containerPort": 2},
                {"containerPort": 2, "protocol": "SCTP"},
            ],
            [
                ("port-2", 1, "TCP"),
                ("port-2-tcp", 3, "TCP"),
                ("container-port-2-tcp", 2, "TCP"),
                ("port-2-sctp", 2, "SCTP"),
            ],
        ),
        ([{"containerPort": 80, "name": "a"}, {"containerPort": 80, "name": "b"}], [("a", 80, "TCP")]),
    ],
)
def test_service_ports_have_unique_names_and_numbers(ports, expected):
    # A container of its own for each, as no two ports of one container may have the same name.
    document = with_ports()
    document["podspec"]["containers"] = [{"name": f"c{n}", "image": "x", "ports": [p]} for n, p in enumerate(ports)]
    found = manifests.service_ports(descriptor(document))
    assert [(p["name"], p["port"], p["protocol"]) for p in found] == expected
    assert all(p["targetPort"] == p["port"] and len(p["name"]) <= 63 for p in found)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], None),
        ([{"containerPort": 9, "name": "healthcheck"}], None),
        ([{"containerPort": 9, "name": "healthcheck"}, {"containerPort": 80}], 80),
        ([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 81}], 81),
        ([{"containerPort": 53, "protocol": "UDP"}], None),
    ],
)
def test_frontend_port(ports, expected):
    assert frontend_port(descriptor(with_ports(*ports))) == expected


SIDECAR = {
    "name": "proxy",
    "image": "x",
    "restartPolicy": "Always",
    "ports": [{"containerPort": 15000, "name": "mesh"}],
}


@pytest.mark.parametrize(
    ("wanted", "expected"), [(None, 9090), (8080, 8080), ("http", 8080), ("mesh", 15000), ("53", 53), ("dns", 53)]
)
def test_the_frontend_leads_to_the_port_that_was_chosen(wanted, expected):
    """By name or number, of a native sidecar too; one number may be UDP and TCP."""
    dns = [{"containerPort": 53, "name": "dns-udp", "protocol": "UDP"}, {"containerPort": 53, "name": "dns"}]
    document = with_ports({"containerPort": 9090, "name": "metrics"}, {"containerPort": 8080, "name": "http"}, *dns)
    document["podspec"]["initContainers"] = [{**SIDECAR}, {"name": "setup", "image": "x", "ports": PORT_OF_SETUP}]
    made = descriptor(document | ({} if wanted is None else {"frontendPort": wanted}))
    assert frontend_port(made) == expected
    assert [port["port"] for port in manifests.service_ports(made)] == [9090, 8080, 53, 53, 15000]


def test_a_native_sidecar_serves_when_no_container_does():
    document = with_ports()
    document["podspec"]["initContainers"] = [SIDECAR]
    assert frontend_port(descriptor(document)) == 15000


PORT_OF_SETUP = [{"containerPort": 7}]


def test_names():
    assert versioned_name("shop", "api-1") == versioned_name("shop-api", "1")
    manifests.check_name("a" * 60, "12")
    with pytest.raises(StepFailed, match="at most 63"):
        manifests.check_name("a" * 60, "123")
    with pytest.raises(StepFailed, match="not a name"):
        manifests.check_name("shop", "1-")


def original(kind: str, **labels: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": labels["name"], "labels": labels, "annotations": {"deploymentId": "x"}}}


def test_objects_of_the_original_are_known_by_their_exact_labels():
    service = original("Service", app="shop", name="shop", persistent="true")
    versioned = original("Service", app="shop", name="shop-1", version="1")
    controller = original("ReplicationController", app="shop", name="shop-1", version="1")
    for found in (service, versioned, controller):
        assert ownership.is_original(found, "shop")
        assert not ownership.is_original(found, "other")
        owned = copy.deepcopy(found)
        owned["metadata"]["annotations"]["kube-deployer/instance"] = "deployer"
        assert not ownership.is_original(owned, "shop")
        more = copy.deepcopy(found)
        more["metadata"]["labels"]["team"] = "web"
        assert not ownership.is_original(more, "shop")
    # app shop-api version 1 is not app shop version api-1
    assert not ownership.is_original(original("Service", app="shop-api", name="shop-api-1", version="1"), "shop")
    assert not ownership.is_original(
        original("ReplicationController", app="shop", name="shop", persistent="true"), "shop"
    )
    assert not ownership.is_original({"metadata": {"name": "shop"}}, "shop")
    rendered = render(FULL)
    for ours in dataclasses.asdict(rendered).values():
        assert not ownership.is_original(ours, "my-shop")

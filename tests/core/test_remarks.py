"""What a valid descriptor says that means something else, or nothing: one remark with the path of it, or none."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.descriptor import Rules, normalise
from deployer.settings import Settings
from deployer.toolkit.remarks import MAX_REMARKS, remarks

SETTINGS = Settings(own_namespace="")
RULES = Rules(settings=SETTINGS, strategies={"blue-green": None}, health_checkers={"probe"}, ingress=("nginx", {}))
HEALTH = {"useHealthCheck": True, "healthCheckPort": 9999, "healthCheckPath": "health", "healthCheckType": "probe"}


def document(**fields: Any) -> dict[str, Any]:
    """A descriptor without anything to remark, with these fields; `container` and `pod` go into its podspec."""
    ports = [{"containerPort": 8080}, {"name": "healthcheck", "containerPort": 9999}]
    container = {"name": "web", "image": "registry.example.com:5000/team/shop:1.4", "ports": ports}
    container |= fields.pop("container", {})
    podspec = {"containers": [container], **fields.pop("pod", {})}
    return {"namespace": "default", "appName": "shop", "newVersion": "1", "podspec": podspec, **fields}


def found(settings: Settings = SETTINGS, **fields: Any) -> dict[str, str]:
    """Message by path."""
    sent = document(**fields)
    normal = normalise(sent, namespace="default", rules=RULES)
    out = {remark.path: remark.message for remark in remarks(sent, normal, settings)}
    # What is stored means the same, and says nothing new.
    again = remarks(normal, normal, settings)
    assert {remark.path for remark in again} <= out.keys()
    return out


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"newVersion": "1.0"}, "newVersion", "becomes 1-0:"),
        ({"newVersion": "RC_1"}, "newVersion", "becomes rc-1:"),
        ({"appName": "My.Shop"}, "appName", "becomes my-shop:"),
        ({"replicas": 0}, "replicas", "0 means 1"),
        (
            {**HEALTH, "healthCheckPort": 80},
            "healthCheckPort",
            "no container names port 80 in its ports (they name 8080",
        ),
        ({**HEALTH, "container": {"ports": []}}, "healthCheckPort", "they name none"),
        ({"container": {"image": "registry.example.com/my shop:1"}}, "podspec.containers[0].image", "InvalidImageName"),
        ({"container": {"image": "Shop:1"}}, "podspec.containers[0].image", "lower case"),
        ({"container": {"image": "shop:${TAG}"}}, "podspec.containers[0].image", "no name of an image"),
        ({"container": {"image": "shop:1:2"}}, "podspec.containers[0].image", "no name of an image"),
        (
            {"container": {"env": [{"name": "A", "value": "1"}, {"name": "B"}, {"name": "A", "value": "2"}]}},
            "podspec.containers[0].env[2].name",
            "set in env[0] already; the last value counts",
        ),
        ({"useCompression": True}, "useCompression", "no effect without frontend"),
        ({"tlsSecretName": "tls"}, "tlsSecretName", "no effect without frontend"),
        ({"healthCheckPath": "/health"}, "healthCheckPath", "no effect without useHealthCheck"),
        ({"useExternalHealthCheck": True}, "useExternalHealthCheck", "no effect"),
    ],
)
def test_it_is_remarked(fields: dict[str, Any], path: str, said: str) -> None:
    remarked = found(**fields)
    assert list(remarked) == [path]
    assert said in remarked[path]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"newVersion": "#"},
        {"replicas": 1},
        {"frontend": "Shop.Example.com", "useCompression": True},
        {**HEALTH},
        # What clients of the original send of themselves.
        {"healthCheckPort": 0, "healthCheckType": "", "useExternalHealthCheck": False, "email": "a@b.example"},
        {"ignoreHealthCheck": "true", "environment": "production", "webhooks": [{"key": "k"}]},
        {"container": {"image": "localhost/shop"}},
        {"container": {"image": "shop__a--b.c/d_e@sha256:" + "0af" * 22}},
        {"container": {"image": "[fd00::1]:5000/shop:v1.2_3-rc"}},
        {"container": {"image": "REGISTRY.example.com/shop"}},
        {"container": {"env": [{"name": "A"}, {"name": "a"}]}},
        # The same name in two containers is no matter.
        {"pod": {"initContainers": [{"name": "i", "image": "i", "env": [{"name": "A"}]}]}},
    ],
)
def test_there_is_nothing_to_remark(fields: dict[str, Any]) -> None:
    assert found(**fields) == {}


def test_there_are_not_more_than_an_answer_can_have() -> None:
    sent = document(container={"env": [{"name": "A"}] * 5000})
    assert len(remarks(sent, normalise(sent, namespace="default", rules=RULES), SETTINGS)) == MAX_REMARKS


# --- service links ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["health", "server", "n8n", "schema-registry", "Flask.Run"])
def test_a_name_whose_variable_is_commonly_read_as_a_port(app: str) -> None:
    said = found(appName=app)["appName"]
    name = app.upper().replace("-", "_").replace(".", "_") + "_PORT"
    assert f"{name}=tcp://..." in said
    assert found(appName=app, pod={"enableServiceLinks": False}).get("appName", "becomes").startswith("becomes")


def test_it_matters_only_where_kubernetes_makes_the_variable() -> None:
    assert found(appName="shop") == {}  # SHOP_PORT is nobody's setting that we know of
    assert found(appName="health", container={"ports": []}) == {}  # no Service
    off = Settings(own_namespace="", enable_service_links=False)
    assert found(off, appName="health") == {}
    assert "appName" in found(off, appName="health", pod={"enableServiceLinks": True})


@pytest.mark.parametrize(
    "name",
    [
        *("SHOP_PORT", "SHOP_SERVICE_HOST", "SHOP_SERVICE_PORT", "SHOP_SERVICE_PORT_HEALTHCHECK"),
        *("SHOP_SERVICE_PORT_PORT_8080", "SHOP_PORT_8080_TCP", "SHOP_PORT_9999_TCP_ADDR"),
    ],
)
def test_a_variable_that_the_podspec_sets_too(name: str) -> None:
    assert (
        "this value wins"
        in found(container={"env": [{"name": name, "value": "8080"}]})["podspec.containers[0].env[0].name"]
    )
    assert found(pod={"enableServiceLinks": False}, container={"env": [{"name": name, "value": "8080"}]}) == {}


def test_a_value_of_its_own_in_every_container_is_safe() -> None:
    remarked = found(appName="health", container={"env": [{"name": "HEALTH_PORT", "value": "9999"}]})
    assert list(remarked) == ["podspec.containers[0].env[0].name"]

"""The hint of a version that did not start although it may only have stumbled over its own Service's variable."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.core.errors import StepFailed
from deployer.toolkit import service_links


def descriptor(app: str = "health", *env: dict[str, Any], **podspec: Any) -> dict[str, Any]:
    container = {"name": "web", "image": "i", "ports": [{"name": "http", "containerPort": 8080}], "env": list(env)}
    return {"appName": app, "podspec": {"containers": [container], **podspec}}


def hint(given: dict[str, Any], log: str = "", reason: str = "NotReady") -> str:
    failed = StepFailed("not ready in time", reason=reason, pod="p", hint="see the log")
    explained = service_links.explained(failed, given, given["podspec"], log)
    assert (str(explained), explained.reason, explained.pod) == ("not ready in time", reason, "p")
    assert explained.hint.endswith("see the log")
    return explained.hint.removesuffix("see the log")


def test_the_variables_are_those_of_kubernetes() -> None:
    """As `FromServices` of pkg/kubelet/envvars names them for a Service with one named and one unnamed port."""
    given = descriptor("my-health")
    given["podspec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 80}]
    assert service_links.variables(given) == [
        "MY_HEALTH_PORT",
        "MY_HEALTH_SERVICE_HOST",
        "MY_HEALTH_SERVICE_PORT",
        "MY_HEALTH_SERVICE_PORT_HTTP",
        "MY_HEALTH_PORT_80_TCP",
        "MY_HEALTH_PORT_80_TCP_PROTO",
        "MY_HEALTH_PORT_80_TCP_PORT",
        "MY_HEALTH_PORT_80_TCP_ADDR",
    ]


@pytest.mark.parametrize("reason", ["NotReady", "CrashLoop", "Unhealthy"])
def test_a_name_that_is_known_for_it(reason: str) -> None:
    said = hint(descriptor(), reason=reason)
    assert "HEALTH_PORT=tcp://..." in said and "enableServiceLinks: false" in said


@pytest.mark.parametrize(
    "log",
    [
        "invalid number value for SHOP_PORT",
        "listen tcp: address tcp://10.96.0.7:8080: too many colons",
        "Error: 'tcp' is not a valid port number.",  # gunicorn
    ],
)
def test_an_app_whose_log_shows_that_it_stumbled(log: str) -> None:
    assert "SHOP_PORT=tcp://..." in hint(descriptor("shop"), log)


def test_a_container_that_lacks_what_another_one_sets() -> None:
    given = descriptor("shop", {"name": "SHOP_SERVICE_HOST", "value": "x"})
    assert hint(given) == ""
    given["podspec"]["containers"].append({"name": "side", "image": "i"})
    assert "if the app reads SHOP_SERVICE_HOST as a setting" in hint(given)


@pytest.mark.parametrize(
    ("given", "log", "reason"),
    [
        (descriptor("shop"), "tcp://10.96.0.7:9999 of another Service", "NotReady"),
        (descriptor(enableServiceLinks=False), "", "NotReady"),
        (descriptor("health", {"name": "HEALTH_PORT", "value": "9999"}), "", "NotReady"),
        (descriptor(), "", "ImagePullFailed"),
    ],
)
def test_otherwise_nothing_is_added(given: dict[str, Any], log: str, reason: str) -> None:
    assert hint(given, log, reason) == ""

"""Services for a browser to look at: a sandbox that runs, or answers that a test makes up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.browsing import Screen, browser, pictures, screens
from support.command import Rest, awaited
from support.playground import Playground, playing

__all__ = ["Playground", "Screen", "browser", "pictures", "screens"]


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A `deployer sandbox`, the process."""
    with playing(tmp_path_factory.mktemp("playground"), "--proxysleep=120", "--timeout=3") as found:
        yield found


@pytest.fixture
def rest(playground: Playground, request: pytest.FixtureRequest) -> Rest:
    """A client of it, in a namespace of the test's own."""
    return Rest(playground.url, playground.namespace())


def shop(
    app: str = "shop", *, image: str = "sample/web:1", env: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """A descriptor of the sample app, without its namespace."""
    container: dict[str, Any] = {
        "name": "web",
        "image": image,
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "healthcheck", "containerPort": 9999}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 9999}, "periodSeconds": 1},
    }
    if env:
        container["env"] = [{"name": name, "value": value} for name, value in env.items()]
    return {
        "appName": app,
        "newVersion": "#",
        "useHealthCheck": True,
        "healthCheckType": "probe",
        "healthCheckPort": 9999,
        "healthCheckPath": "health",
        "podspec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        **more,
    }


def stored(rest: Rest, descriptor: dict[str, Any]) -> str:
    """Store it; its id."""
    status, answer = rest.call("POST", "/descriptors/", {**descriptor, "namespace": rest.namespace})
    assert status == 201, answer
    return str(answer["id"])


def deployed(rest: Rest, descriptor: dict[str, Any], status: str = "DEPLOYED") -> str:
    """Store and deploy it, and wait for that end; the deployment's id."""
    code, answer = rest.call("POST", "/deployments/", query=f"&descriptorId={stored(rest, descriptor)}")
    assert code == 202, answer
    if status:
        reached = awaited(lambda: (found := rest.status(answer["id"])) != "DEPLOYING" and found, "the end")
        assert reached == status, rest.call("GET", f"/deployments/{answer['id']}/")
    return str(answer["id"])

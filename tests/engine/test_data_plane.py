"""Which address of the data plane answers with which version, as REST shows it: while a version is live, while another
one takes over, and when an address is dead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from falcon import testing

from deployer.api.app import create_app
from deployer.core.model.records import Status
from deployer.toolkit.dataplane import shared_answers
from support.proxies import ProxyAddress, another_address
from support.world import HEALTHY, NGINX, World


@pytest.fixture(autouse=True)
def always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets an answer of a moment ago."""
    monkeypatch.setattr(shared_answers, "FRESH", 0.0)


@pytest.fixture
def second(world: World) -> Iterator[ProxyAddress]:
    assert world.cluster is not None
    with another_address(world.cluster, world.eyes) as address:
        yield address


def looked(world: World, app: str = "shop") -> testing.Result:
    client = testing.TestClient(create_app(world.service, list, list, apps=world.apps), headers={"Host": "localhost"})
    return client.simulate_get(f"/apps/{app}/dataplane?namespace={world.namespace}")


def answers(world: World) -> dict[str, dict[str, Any]]:
    """By address, without the times."""
    found = looked(world).json["addresses"]
    assert all(answer.pop("milliseconds") >= 0 for answer in found)
    return {answer.pop("address"): answer for answer in found}


def restart(world: World, **table: Any) -> None:
    world.stop()
    world.settings = dataclasses.replace(world.settings, plugins={"ingress_nginx": {**NGINX, **table}})
    world.start()


def test_addresses_that_disagree_during_a_switch_and_one_that_is_dead(world: World, second: ProxyAddress) -> None:
    assert world.cluster is not None
    first_address = world.cluster.ingress.removeprefix("http://")
    host = f"{world.namespace}.example.com"
    one = world.deployed(frontend=host, **HEALTHY)
    world.quiet()
    version_1 = {"tls": False, "status": 200, "deployment": one.id, "version": "1", "live": True}
    writes = world.writes
    assert answers(world) == {first_address: version_1, str(second): version_1}
    whole = looked(world).json
    assert (whole["host"], whole["path"], whole["provider"]) == (host, "/", "nginx")
    assert world.writes == writes, "whoever looks writes"

    second.lags = True
    two = world.deploy(frontend=host, **HEALTHY)
    version_2 = {**version_1, "deployment": two.id, "version": "2", "live": False}
    split = {first_address: version_2, str(second): version_1}
    world.until(lambda: answers(world) == split or None, "the switch to reach one of two addresses")
    assert world.record(two.id).status is Status.DEPLOYING
    second.lags = False
    world.ended(two, Status.DEPLOYED)
    version_2["live"] = True
    assert answers(world) == {first_address: version_2, str(second): version_2}

    second.die()
    assert answers(world)[str(second)] == {"tls": False, "unknown": "gave no answer (ConnectionRefusedError)"}
    assert answers(world)[first_address]["version"] == "2"
    world.service.undeploy(world.namespace, two.id)
    world.quiet()
    assert looked(world).json == {"addresses": [], "unknown": "no version is live, so no host leads to the app"}


def test_without_a_header_no_version_is_told_and_it_is_said_why(world: World) -> None:
    restart(world, revision_header=False, propagation_seconds=0.3)
    world.deployed(frontend=f"{world.namespace}.example.com", **HEALTHY)
    (answer,) = answers(world).values()
    why = "no response header names the version (set revision_header in [plugins.ingress_nginx])"
    assert answer == {"tls": False, "status": 200, "unknown": why}


def test_the_app_of_a_stable_route_names_its_version(world: World) -> None:
    restart(world, mode="stable-service", version_header="X-Version")
    made = world.deployed(frontend=f"{world.namespace}.example.com", **HEALTHY)
    (answer,) = answers(world).values()
    assert answer == {"tls": False, "status": 200, "deployment": made.id, "version": "1", "live": True}
    options = {"ingressOptions": {"versionHeader": ""}}
    world.deployed(frontend=f"{world.namespace}.example.com", **HEALTHY, **options)
    (answer,) = answers(world).values()
    assert answer["unknown"].startswith("no response header names the version (set version_header in [plugins.")


def test_an_app_without_a_host_has_nothing_to_ask(world: World) -> None:
    world.deployed(**HEALTHY)
    found = looked(world).json
    assert found == {"addresses": [], "unknown": "no host leads to the live version: its descriptor has no frontend"}
    assert looked(world, "nobody").status_code == 404

"""What no cluster takes is refused when it is sent: the API server is asked, quickly, whenever it can be."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import pytest

from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.errors import Invalid
from deployer.core.model.records import Document, Status, StoredDescriptor
from deployer.kube import client as kube_client
from deployer.toolkit import dry_run
from deployer.toolkit.dry_run import DryRun
from deployer.toolkit.remarks import remarks
from support.world import World, describe


def sent(world: World, pod: Any = None, **container: Any) -> bytes:
    document = describe(world.namespace)
    document["podspec"] |= pod or {}
    document["podspec"]["containers"][0] |= container
    return json.dumps(document).encode()


def refused(world: World, body: bytes) -> dict[str, str]:
    """The problems by path; POST and PUT say the same, and nothing is stored."""
    stored = world.descriptor("other")
    before = world.store.find(StoredDescriptor)
    with pytest.raises(Invalid) as posted:
        world.service.descriptors.create(world.namespace, body)
    with pytest.raises(Invalid) as put:
        world.service.descriptors.update(world.namespace, stored.id, body)
    assert posted.value.problems == put.value.problems
    assert world.store.find(StoredDescriptor) == before
    return {problem.path: problem.message for problem in posted.value.problems}


def test_what_only_the_api_server_knows_is_refused_with_every_path(world: World) -> None:
    body = sent(
        world,
        {"futureField": 1, "restartPolicy": "Never", "hostNetwork": True},
        imagePullSecrets=[{"name": "regcred"}],
        readinessProbe={"periodSeconds": 5},
        env=[{"name": "A", "value": 1}],
    )
    found = refused(world, body)
    assert found.keys() >= {
        "podspec.futureField",
        "podspec.restartPolicy",
        "podspec.hostNetwork",
        "podspec.containers[0].imagePullSecrets",
        "podspec.containers[0].readinessProbe",
        "podspec.containers[0].env[0].value",
    }
    assert "is not a field that Kubernetes knows here" in found["podspec.futureField"]
    assert "handler" in found["podspec.containers[0].readinessProbe"]


def test_it_costs_one_question(world: World) -> None:
    before = world.client.requests
    world.service.descriptors.create(world.namespace, sent(world))
    assert world.client.requests - before == {"create": 1}
    assert not world.names()


def test_what_may_be_otherwise_tomorrow_refuses_nothing(world: World) -> None:
    """A namespace that is not there yet."""
    document = describe("tomorrow")
    assert world.service.descriptors.create("tomorrow", json.dumps(document).encode()).document["appName"] == "shop"


def elsewhere(world: World, address: str) -> DeploymentCommands:
    """A service whose API server has that address."""
    settings = dataclasses.replace(world.settings, kubernetes=address)
    client = kube_client.connect(settings)
    world._parts.append(client.close)
    dry_run = DryRun(client, settings)
    return DeploymentCommands(
        world.store, world.deployment_log, world.registry, settings, dry_run=dry_run, remarks=remarks
    )


def test_without_an_answer_types_are_checked_and_unknown_fields_are_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deployer.commands.descriptor_commands")
    service = elsewhere(world, "http://127.0.0.1:9")
    with pytest.raises(Invalid, match=r"env\[0\].value: must be text, not a number: put it in quotes"):
        service.descriptors.create(world.namespace, sent(world, env=[{"name": "A", "value": 1}]))
    stored = service.descriptors.create(world.namespace, sent(world, {"futureField": 1}))
    assert "has fields that Kubernetes 1.34 does not know: podspec.futureField" in caplog.text
    remarks = service.descriptors.validate(world.namespace, sent(world, {"futureField": 1}))["validation"]["remarks"]
    assert remarks == [{"path": "podspec.futureField", "message": "is not a field that Kubernetes 1.34 knows"}]
    # The cluster decides, and the log has named the field before.
    failed = world.ended(world.service.deploy(world.namespace, stored.id), Status.FAILURE)
    assert "the podspec has fields that Kubernetes 1.34 does not know: podspec.futureField" in world.log(failed.id)
    assert failed.failure and "futureField" in failed.failure["message"]


class Silent:
    """An API server that takes connections and never answers."""

    def __init__(self) -> None:
        import socket

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"


def test_one_that_does_not_answer_is_waited_for_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "QUICK_PATIENCE", 0.3)
    silent = Silent()
    service = elsewhere(world, silent.address)
    asked: list[Document] = []
    ask = service.descriptors._dry_run.ask_quickly  # type: ignore[union-attr]

    def noted(descriptor: Any, version: str) -> Any:
        found = ask(descriptor, version)
        asked.append(found.not_checked)
        return found

    monkeypatch.setattr(service.descriptors._dry_run, "ask_quickly", noted)
    for _ in range(2):
        service.descriptors.create(world.namespace, sent(world))
    silent.socket.close()
    reasons = [found["ReplicationController"] for found in asked]
    assert "did not answer within 0.3 s" in reasons[0] and reasons[1] == "the API server did not answer a moment ago"


def test_whole_floats_are_taken_as_what_they_mean(world: World) -> None:
    body = sent(world, {"terminationGracePeriodSeconds": 1.0}, ports=[{"containerPort": 8080.0}])
    stored = world.service.descriptors.create(world.namespace, body)
    assert "8080.0" not in json.dumps(stored.document) and "1.0" not in json.dumps(stored.document)
    world.ended(world.service.deploy(world.namespace, stored.id), Status.DEPLOYED)

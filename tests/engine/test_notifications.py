"""What receivers of webhooks hear of deployments, of a service on the sandbox."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer import sandbox
from deployer.core.model.records import Event
from deployer.plugin_manager import observers
from support.receiver import Receiver, reply
from support.world import NGINX, World

NEVER_READY = {"name": "web", "image": "sample/web:1", "readinessProbe": {"exec": {"command": ["false"]}}}
LIFE = ["deployment.started", "deployment.deployed", "deployment.started", "deployment.upgraded", "deployment.replaced"]


@pytest.fixture
def receivers() -> Iterator[dict[str, Receiver]]:
    with contextlib.ExitStack() as stack:
        made = {name: Receiver() for name in ("quick", "away", "stuck", "metrics")}
        for receiver in made.values():
            stack.callback(receiver.close)
        yield made


@pytest.fixture
def world(
    cluster: sandbox.Sandbox,
    tmp_path: Path,
    namespace: str,
    receivers: dict[str, Receiver],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.setattr(observers, "PAUSE", 0.05)
    targets: dict[str, Any] = {name: {"url": receiver.origin} for name, receiver in receivers.items()}
    targets["metrics"]["format"] = "cdevents"
    made = World(
        cluster,
        tmp_path,
        namespace,
        plugins={"ingress_nginx": NGINX, "notify_webhook": {"targets": targets}},
    ).start()
    yield made
    made.close()


def types(receiver: Receiver) -> list[str]:
    return [request.json["type"] for request in receiver.requests]


def test_each_receiver_hears_everything_in_order_however_the_others_are(
    world: World, receivers: dict[str, Receiver]
) -> None:
    go = threading.Event()
    receivers["away"].answer = lambda handler: reply(handler, 503)
    receivers["stuck"].answer = lambda handler: (go.wait(20), reply(handler, 204))[0] and None
    one = world.deployed()
    two = world.deployed()
    # Deployments go on, and so does whoever listens.
    heard = receivers["quick"].await_requests(lambda found: len(found) == len(LIFE))
    assert [request.json["type"] for request in heard] == LIFE
    assert [request.json["data"]["id"] for request in heard] == [one.id, one.id, two.id, two.id, one.id]
    assert [request.json["data"].get("previousVersion") for request in heard] == [None, None, "1", "1", None]
    assert types(receivers["stuck"]) == LIFE[:1]
    assert set(types(receivers["away"])) == set(LIFE[:1])
    # A restart loses nothing of what waits; and who has it all hears nothing twice.
    key = "kube-deployer:notify_webhook/quick"
    world.until(lambda: all(key in event.told for event in world.store.find(Event)), "that to be recorded")
    world.stop()
    go.set()
    world.start()
    receivers["away"].answer = lambda handler: reply(handler, 204)
    world.until(lambda: not world.store.count(Event), "everybody to be told")
    assert types(receivers["quick"]) == LIFE
    for name in ("away", "stuck"):
        ids = [request.headers["webhook-id"] for request in receivers[name].requests]
        assert list(dict.fromkeys(ids)) == [request.headers["webhook-id"] for request in heard]
    assert [request.headers["ce-type"] for request in receivers["metrics"].requests] == [
        "dev.cdevents.service.deployed.0.3.0",
        "dev.cdevents.service.upgraded.0.3.0",
    ]


def test_what_ends_otherwise_is_told_as_what_it_is(world: World, receivers: dict[str, Receiver]) -> None:
    live = world.deployed()
    world.ended(world.deploy(podspec={"containers": [{"name": "web", "image": "sample/nothing:1"}]}))
    cancelled = world.deploy(podspec={"containers": [NEVER_READY]})
    world.until(lambda: "version 3" in world.log(cancelled.id), "it to begin")
    world.service.undeploy(world.namespace, cancelled.id, by="carol")
    world.ended(cancelled)
    world.service.undeploy(world.namespace, live.id, by="dave")
    world.quiet()
    heard = receivers["quick"].await_requests(lambda found: len(found) == 7)
    ends = [request.json for request in heard if request.json["type"] != "deployment.started"]
    assert [end["type"] for end in ends] == [f"deployment.{t}" for t in ("deployed", "failed", "cancelled", "removed")]
    assert ends[1]["data"]["failure"]["reason"] == "ImagePull"
    assert ends[1]["data"]["previousVersion"] == "1"
    assert [end["data"].get("undeployedBy") for end in ends] == [None, None, "carol", "dave"]
    last = receivers["metrics"].await_requests(lambda found: len(found) == 2)[-1]
    assert last.headers["ce-type"] == "dev.cdevents.service.removed.0.3.0"

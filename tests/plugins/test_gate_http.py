"""Gate `http`: which answers pass, whom it can ask, and what it tells a receiver."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer.core.errors import Invalid
from deployer.core.model.records import Status
from deployer.plugins.gate_http.expectation import Expectation
from deployer.sdk import webhook
from deployer.sdk.gate import HttpAnswer, Verdict
from support.gates import gated, results
from support.receiver import Receiver, reply
from support.world import HEALTHY, World

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOST = "http-gate.example.com"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that pass are tried again sooner."""
    monkeypatch.setattr("deployer.core.operations.gates.step.AGAIN", 0.2)


def served(world: World, **targets: Any) -> World:
    """The service with these targets in its settings."""
    world.stop()
    plugins = {**world.settings.plugins, "gate_http": {"targets": targets}}
    world.settings = dataclasses.replace(world.settings, plugins=plugins)
    return world.start()


def http(point: str = "beforeStart", timeout: int = 20, **options: Any) -> dict[str, Any]:
    """A descriptor's gate."""
    return gated(point, type="http", timeoutSeconds=timeout, options={"interval": 1, **options})


# --- judging ----------------------------------------------------------------------------------------------------------

NESTED = b'{"tests": {"red": 0, "done": true}, "a.b": "x", "none": null, "list": [1]}'


@pytest.mark.parametrize(
    ("expect", "status", "body", "passes"),
    [
        ({}, 200, b"", True),
        ({}, 204, b"", True),
        ({}, 302, b"", False),
        ({}, 404, b"", False),
        ({"status": [404, 410]}, 404, b"", True),
        ({"status": [200]}, 201, b"", False),
        ({"field": "tests.red", "value": 0}, 200, NESTED, True),
        ({"field": "tests.red", "value": 0.0}, 200, NESTED, True),
        ({"field": "tests.red", "value": False}, 200, NESTED, False),
        ({"field": "tests.red", "value": "0"}, 200, NESTED, False),
        ({"field": "tests.done", "value": True}, 200, NESTED, True),
        ({"field": "tests.done", "value": 1}, 200, NESTED, False),
        ({"field": "a.b", "value": "x"}, 200, NESTED, True),
        ({"field": "none", "value": None}, 200, NESTED, True),
        ({"field": "nothing", "value": None}, 200, NESTED, False),
        ({"field": "tests", "value": None}, 200, NESTED, False),
        ({"field": "list.0", "value": 1}, 200, NESTED, False),
        ({"field": "tests.red", "value": 0}, 500, NESTED, False),
        ({"field": "a", "value": 1}, 200, b"<html>", False),
        ({"field": "a", "value": 1}, 200, b"\xff\xfe", False),
        ({"field": "a", "value": 1}, 200, b"[" * 100_000, False),
        ({"field": "a", "value": 1}, 200, b'{"a": NaN}', False),
    ],
)
def test_an_answer_is_as_described_or_not(expect: Any, status: int, body: bytes, passes: bool) -> None:
    found = Expectation.of(expect).judge(HttpAnswer(status, {}, body))
    assert (found.verdict is Verdict.PASSED) is passes
    assert bool(found.wrong) is not passes


def test_a_body_that_is_cut_is_no_evidence() -> None:
    answer = HttpAnswer(200, {}, b'{"a": 1}', truncated=True)
    assert Expectation.of({"field": "a", "value": 1}).judge(answer).wrong == "answered more than is read"


# --- a receiver -------------------------------------------------------------------------------------------------------


def answering(*answers: tuple[int, bytes]) -> Callable[[Any], None]:
    """Gives one after the other, the last again and again."""
    left = list(answers)

    def answer(handler: Any) -> None:
        status, body = left.pop(0) if len(left) > 1 else left[0]
        reply(handler, status, body)

    return answer


def test_a_receiver_is_asked_until_it_says_yes(world: World, receiver: Receiver) -> None:
    receiver.answer = answering((500, b""), (200, b'{"green": false}'), (200, b'{"green": true}'))
    served(world, qa={"url": f"{receiver.origin}/check", "secret": SECRET})
    deployment = world.deployed(**http(target="qa", expect={"field": "green", "value": True}))
    (found,) = results(world, deployment)
    assert found["verdict"] == "passed"
    values = [(m["value"], m["threshold"], m["verdict"]) for m in found["measurements"]]
    threshold = "HTTP 200 to 299, green = true"
    assert values == [
        ("HTTP 500", threshold, "failed"),
        ("HTTP 200, green = false", threshold, "failed"),
        ("HTTP 200, green = true", threshold, "passed"),
    ]
    assert len(receiver.requests) == 3
    for request in receiver.requests:
        told = request.json
        assert (request.path, told["appName"], told["version"], told["gate"]) == ("/check", "shop", "1", "g")
        assert (told["deployment"], told["point"]) == (deployment.id, "beforeStart")
        signed = int(request.headers["webhook-timestamp"])
        assert abs(signed - time.time()) < 30
        expected = webhook.signature(webhook.parse_keys(SECRET), request.headers["webhook-id"], signed, request.body)
        assert request.headers["webhook-signature"] == expected
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert SECRET not in json.dumps(found) + world.log(deployment.id)


def test_a_redirect_is_not_followed(world: World, receiver: Receiver) -> None:
    elsewhere = Receiver()
    receiver.answer = lambda handler: reply(handler, 302, Location=f"{elsewhere.origin}/metadata")
    served(world, qa={"url": receiver.origin})
    deployment = world.ended(world.deploy(**http(target="qa", timeout=2)), Status.FAILURE)
    elsewhere.close()
    assert elsewhere.requests == []
    assert deployment.failure and deployment.failure["reason"] == "GateTimedOut"
    assert "redirects are not followed" in deployment.failure["message"]


@pytest.mark.parametrize("body", [b'{"ok": true, "filler": "' + b"x" * 100_000 + b'"}'])
def test_a_large_answer_is_not_read(world: World, receiver: Receiver, body: bytes) -> None:
    receiver.answer = answering((200, body))
    served(world, qa={"url": receiver.origin})
    options = {"target": "qa", "expect": {"field": "ok", "value": True}}
    deployment = world.ended(world.deploy(**http(timeout=2, **options)), Status.FAILURE)
    assert deployment.failure and "answered more than is read" in deployment.failure["message"]


def test_nobody_answers(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        served(world, qa={"url": f"http://127.0.0.1:{port}/secret-path", "timeout": 0.5})
        deployment = world.ended(world.deploy(**http(target="qa", timeout=2)), Status.FAILURE)
    assert deployment.failure and deployment.failure["reason"] == "GateTimedOut"
    assert "does not answer within 0.5 s" in deployment.failure["message"]
    assert "secret-path" not in deployment.failure["message"] + world.log(deployment.id)
    (found,) = results(world, deployment)
    assert {m["verdict"] for m in found["measurements"]} == {"inconclusive"}


def test_secrets_of_the_deployment_are_hidden_in_what_it_answers(world: World, receiver: Receiver) -> None:
    receiver.answer = answering((200, b'{"said": "the password is hunter2-hunter2"}'))
    served(world, qa={"url": receiver.origin})
    fields = http(target="qa", timeout=2, expect={"field": "said", "value": "nothing"})
    deployment = world.ended(world.deploy(env={"PASSWORD": "hunter2-hunter2"}, **fields), Status.FAILURE)
    shown = json.dumps(results(world, deployment)) + str(deployment.failure) + world.log(deployment.id)
    assert "hunter2" not in shown
    assert "the password is ***" in shown


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"target": "other"}, "options.target", "is not the name of a target in the settings"),
        ({}, "options", "needs a target of the settings"),
        ({"target": "qa", "version": "pods", "path": "/"}, "options", "needs a target of the settings"),
        ({"version": "pods"}, "options.path", "is required where version is given"),
        ({"version": "pods", "path": "http://169.254.169.254/"}, "options.path", "must be a path like"),
        ({"version": "pods", "path": "//evil.example"}, "options.path", "must be a path like"),
        ({"version": "pods", "path": "/"}, "options.version", "is not there yet"),
        ({"target": "qa", "path": "/x"}, "options.path", "is for version only"),
        ({"target": "closed"}, "options.target", "may not be asked by gates of this namespace"),
        ({"target": "qa", "url": "http://x"}, "options.url", "is not a known field"),
        ({"target": "qa", "expect": {"field": "a"}}, "options.expect.value", "is required where field is given"),
    ],
)
def test_options_that_cannot_be(world: World, options: Any, path: str, words: str) -> None:
    served(world, qa={"url": "http://127.0.0.1:9"}, closed={"url": "http://127.0.0.1:9", "namespaces": ["prod-*"]})
    with pytest.raises(Invalid) as refused:
        world.descriptor(**gated("beforeStart", type="http", options=options))
    problems = [p for p in refused.value.problems if p.path == f"gates.beforeStart[0].{path}"]
    assert problems, refused.value.problems
    assert words in problems[0].message


# --- the new version --------------------------------------------------------------------------------------------------


def test_every_pod_of_the_new_version_is_asked(world: World) -> None:
    world.deployed(frontend=HOST, **HEALTHY)
    options = {"version": "pods", "path": "/health", "port": 8080}
    second = world.deployed(frontend=HOST, replicas=2, **HEALTHY, **http("beforeSwitch", **options))
    (found,) = results(world, second)
    assert found["verdict"] == "passed"
    assert len({m["name"] for m in found["measurements"]}) == 2
    assert all(m["name"].startswith("shop-2-") for m in found["measurements"])


def test_the_preview_is_asked(world: World) -> None:
    fields = {"frontend": HOST, "ingressOptions": {"previewCheck": "/"}}
    deployment = world.deployed(**fields, **http("beforeSwitch", version="preview", path="/"))
    assert [found["verdict"] for found in results(world, deployment)] == ["passed"]


def test_a_port_that_no_container_has_is_no_way_to_others(world: World) -> None:
    fields = http("beforeSwitch", timeout=2, version="pods", path="/", port=9)
    deployment = world.ended(world.deploy(**fields), Status.FAILURE)
    assert deployment.failure and "no container has a port 9" in deployment.failure["message"]


def test_a_version_that_answers_otherwise_goes(world: World) -> None:
    world.deployed(frontend=HOST)
    fields = http("afterSwitch", timeout=2, version="pods", path="/", expect={"status": [418]})
    second = world.ended(world.deploy(frontend=HOST, **fields), Status.FAILURE)
    assert second.failure and "answered HTTP 200" in second.failure["message"]
    assert world.live_version() == "1"
    assert world.answer(HOST)[1].startswith("version 1")

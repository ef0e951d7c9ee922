"""What `validate` says of a descriptor: everything at once, the API server's word included, and nothing is written."""

from __future__ import annotations

import copy
import dataclasses
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.contract.environment import EnvContext, EnvInjector
from deployer.core.contract.health import HealthChecker
from deployer.core.errors import Invalid
from deployer.core.model.kind import CONTROLLER, NAMESPACE
from deployer.core.model.records import Deployment, Document, Status, StoredDescriptor
from deployer.core.registry import Entry
from deployer.kube import client as kube_client
from deployer.plugin_manager.loader import load_plugins
from deployer.toolkit import dry_run
from deployer.toolkit.dry_run import DryRun
from deployer.toolkit.remarks import remarks
from support.world import HEALTHY, World, describe

CANARY = "Kanari-7/enV"
KINDS = ["ReplicationController", "Pod"]


def validate(world: World, document: Document) -> Document:
    return world.service.descriptors.validate(world.namespace, json.dumps(document).encode())


def refusal(world: World, document: Document) -> tuple[dict[str, str], Document]:
    """Messages by path, and what was checked."""
    with pytest.raises(Invalid) as caught:
        validate(world, document)
    assert caught.value.validation is not None
    assert len({(p.path, p.message) for p in caught.value.problems}) == len(caught.value.problems), "said twice"
    return {p.path: p.message for p in caught.value.problems}, dict(caught.value.validation)


def container(document: Document) -> Document:
    found: Document = document["podspec"]["containers"][0]
    return found


def test_unknown_fields_are_dropped_and_named_where_the_settings_say_so(world: World) -> None:
    """The original dropped them without a word. Otherwise they are refused, with what to do."""
    document = describe(world.namespace, image=world.image, pull="IfNotPresent")
    document["podspec"]["colour"] = "blue"
    container(document).update({"imagee": "x", "readinessProbe": {"tcpSocket": {"port": 8080, "prot": "TCP"}}})
    names = ["colour", "containers[0].imagee", "containers[0].readinessProbe.tcpSocket.prot"]
    assert refusal(world, document)[0].keys() == {f"podspec.{name}" for name in names}
    with pytest.raises(Invalid, match=r"podspec\.colour: is not a field"):
        world.service.descriptors.create(world.namespace, json.dumps(document).encode())
    asking, world.service.descriptors._dry_run = (
        world.service.descriptors._dry_run,
        None,
    )  # stored while the cluster could not be asked
    stored = world.service.descriptors.create(world.namespace, json.dumps(document).encode())
    world.service.descriptors._dry_run = asking
    failed = world.ended(world.service.deploy(world.namespace, stored.id), Status.FAILURE)
    assert failed.failure and all(f"spec.template.spec.{name}" in failed.failure["message"] for name in names)
    world.stop()
    world.settings = dataclasses.replace(world.settings, lenient_podspec=True)
    world.start()
    warned = " ".join(validate(world, document)["validation"]["warnings"])
    again = world.service.descriptors.create(world.namespace, json.dumps(document).encode())
    made = world.ended(world.service.deploy(world.namespace, again.id), Status.DEPLOYED)
    for name in names:
        assert f"podspec.{name}" in warned and f"podspec.{name}" in world.log(made.id)
    assert world.log(made.id).count("dropped, as this cluster does not know it: ") == 1
    template = world.objects(CONTROLLER)["shop-2"]["spec"]["template"]["spec"]
    assert "colour" not in template and template["containers"][0]["readinessProbe"]["tcpSocket"] == {"port": 8080}
    # What is wrong in another way is refused all the same.
    container(document)["env"] = [{"name": "A", "value": "1"}, {"name": "B", "valeu": "2"}]
    container(document)["readinessProbe"]["tcpSocket"]["port"] = -1
    with pytest.raises(Invalid, match=r"readinessProbe\.tcpSocket\.port"):
        world.service.descriptors.create(world.namespace, json.dumps(document).encode())
    world.service.undeploy(world.namespace, made.id)
    world.quiet()
    assert (world.names(), world.pods()) == ({}, {})


def test_a_good_one_is_shown_as_it_would_be_stored_and_nothing_is_written(world: World) -> None:
    before = world.client.requests
    ports = [{"name": "http", "containerPort": 8080}, {"name": "healthcheck", "containerPort": 9999}]
    found = validate(world, describe(world.namespace, ports=ports, **HEALTHY))
    assert found.pop("validation") == {"checked": ["descriptor", *KINDS], "notChecked": [], "warnings": []}
    assert world.client.requests - before == {"create": 2}
    assert not world.names()
    assert not world.pods()
    assert not world.store.find(StoredDescriptor)
    assert not world.store.find(Deployment)
    # It can be sent back as it came.
    again = world.service.descriptors.create(world.namespace, json.dumps({**found, "validation": {}}).encode())
    assert again.document == found


def test_a_version_that_is_live_is_no_error(world: World) -> None:
    world.deployed(newVersion="1")
    assert validate(world, describe(world.namespace, newVersion="1"))["validation"]["checked"][1:] == KINDS
    # "#" stands for the next one.
    assert validate(world, describe(world.namespace))["validation"]["checked"][1:] == KINDS


def test_everything_that_is_wrong_comes_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    document = describe(world.namespace, frontend="shop.example.com", bogus=1, replicas=-1, **HEALTHY)
    document["additionHttpHeaders"] = [{"Header": "X-A", "Value": 'a"b'}]
    document["podspec"] |= {"hostNetwork": True, "nonsense": 1, "terminationGracePeriodSeconds": "long"}
    container(document).update(
        resources={"limits": {"cpu": "a lot"}},
        ports=[{"containerPort": 8080, "name": "http"}, {"containerPort": 9999, "name": "http"}],
        env=[
            {"name": "A", "value": CANARY},
            {"name": "B", "value": 5},
            {"name": "C=D", "value": CANARY},
            {"name": "E", "value": CANARY, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        volumeMounts=[{"name": "nowhere", "mountPath": "/x"}],
        livenesProbe={},
    )
    problems, validation = refusal(world, document)
    assert set(problems) == {
        "bogus",
        "replicas",
        "additionHttpHeaders[0].Value",
        "podspec.hostNetwork",
        "podspec.nonsense",
        "podspec.terminationGracePeriodSeconds",
        "podspec.containers[0].resources.limits.cpu",
        "podspec.containers[0].ports[1].name",
        "podspec.containers[0].env[1].value",
        "podspec.containers[0].env[2].name",
        "podspec.containers[0].env[3].valueFrom",
        "podspec.containers[0].volumeMounts[0].name",
        "podspec.containers[0].livenesProbe",
    }, problems
    assert problems["podspec.terminationGracePeriodSeconds"] == "must be a whole number, not text: leave the quotes out"
    assert problems["podspec.containers[0].env[1].value"] == "must be text, not a number: put it in quotes"
    assert validation["checked"] == ["descriptor", *KINDS]
    assert CANARY not in json.dumps([problems, validation])


class Picky(HealthChecker):
    """Finds fault with every descriptor."""

    name = "picky"

    def check(self, target: Any) -> Any:
        raise AssertionError

    def check_descriptor(self, descriptor: Document) -> Any:
        yield from (dry_run.Problem(path, "is not to my taste") for path in ("healthCheckPath", "replicas"))


def test_providers_are_asked_although_something_else_is_wrong(world: World) -> None:
    world.stop()
    registry = load_plugins(world.settings)
    checkers = {**registry.health_checkers, "picky": Entry(Picky(), "tests", "1", "picky")}
    world.start(dataclasses.replace(registry, health_checkers=checkers))
    document = describe(world.namespace, **{**HEALTHY, "healthCheckType": "picky"}, replicas="many")
    problems, _ = refusal(world, document)
    # Of what is replaced for the provider's sake it cannot say anything.
    assert problems == {"replicas": "must be a whole number, not text", "healthCheckPath": "is not to my taste"}


def test_a_host_that_is_taken_is_a_problem(world: World) -> None:
    world.descriptor("other", frontend="shop.example.com")
    problems, _ = refusal(world, describe(world.namespace, frontend="shop.example.com"))
    assert list(problems) == ["frontend"]
    assert "belongs to another app" in problems["frontend"]


@pytest.mark.parametrize(
    ("podspec", "why"),
    [
        (None, "correct the other problems first"),
        ("x", "there are no containers in podspec"),
        ({"containers": []}, "there are no containers in podspec"),
        ({"containers": [1]}, "correct the containers and their environment first"),
        ({"containers": [{"env": [{"name": ["A"]}]}]}, "correct the containers and their environment first"),
        (
            {"containers": [{"name": "a", "image": "a"}], "imagePullSecrets": 1},
            "correct podspec.imagePullSecrets first",
        ),
    ],
)
def test_a_podspec_of_which_nothing_can_be_made_is_not_shown_to_anybody(world: World, podspec: Any, why: str) -> None:
    document = describe(world.namespace)
    document["podspec"] = podspec
    _, validation = refusal(world, document)
    assert validation["notChecked"] == [{"what": kind, "reason": why} for kind in KINDS]


def test_pod_security_of_the_namespace_is_seen_in_the_pod(world: World) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    world.eyes.patch(NAMESPACE, world.namespace, label, None)
    problems, validation = refusal(world, describe(world.namespace))
    assert list(problems) == ["podspec"]
    assert problems["podspec"].startswith('violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false')
    assert validation["checked"] == ["descriptor", *KINDS]


def test_a_namespace_that_is_not_there_is_a_problem(world: World) -> None:
    namespace = f"{world.namespace}-not"
    with pytest.raises(Invalid) as caught:
        world.service.descriptors.validate(namespace, json.dumps(describe(namespace)).encode())
    assert [(p.path, p.message) for p in caught.value.problems] == [
        ("namespace", "does not exist in the cluster; create it before deploying to it")
    ]


class Gives(EnvInjector):
    """Gives one variable."""

    name = "gives"

    def environment(self, context: EnvContext) -> list[Document]:
        return [{"name": "A", "value": CANARY}]


def test_injectors_are_not_asked_and_that_is_said(world: World) -> None:
    world.stop()
    registry = load_plugins(world.settings)
    world.start(dataclasses.replace(registry, env_injectors={"gives": Entry(Gives(), "tests", "1", "gives")}))
    found = validate(world, describe(world.namespace))["validation"]
    assert found["notChecked"] == [
        {"what": "injected environment", "reason": "the injectors are asked when it is deployed"}
    ]
    assert found["checked"] == ["descriptor", *KINDS]


# --- API servers that do not help ---------------------------------------------------------------------------------


class Scripted:
    """An API server that answers every POST in the same way, and keeps what was asked of it."""

    def __init__(self, status: int, body: Document, headers: list[tuple[str, str]]) -> None:
        self.asked: list[tuple[str, Document]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, json.loads(content)))
                if status == 0:
                    outer.released.wait(30)
                    self.close_connection = True
                    return
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.released = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def scripted(world: World) -> Iterator[Any]:
    servers: list[Scripted] = []

    def start(status: int, message: str = "", headers: Any = (), **more: Any) -> tuple[Scripted, DeploymentCommands]:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status, **more}
        servers.append(Scripted(status, body, list(headers)))
        settings = dataclasses.replace(
            world.settings, kubernetes=f"http://127.0.0.1:{servers[-1].server.server_address[1]}"
        )
        client = kube_client.connect(settings)
        world._parts.append(client.close)
        dry_run = DryRun(client, settings)
        return servers[-1], DeploymentCommands(
            world.store, world.deployment_log, world.registry, settings, dry_run=dry_run, remarks=remarks
        )

    yield start
    for server in servers:
        server.close()


def ask(world: World, service: DeploymentCommands, namespace: str = "", **fields: Any) -> Document:
    namespace = namespace or world.namespace
    document = describe(namespace, **fields)
    found: Document = service.descriptors.validate(namespace, json.dumps(document).encode())["validation"]
    return found


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (
            403,
            'pods is forbidden: User "system:serviceaccount:a:b" cannot create resource "pods"',
            "cannot create resource",
        ),
        (401, "Unauthorized", "Unauthorized"),
        (
            500,
            'Internal error occurred: failed calling webhook "w": context deadline exceeded',
            "failed calling webhook",
        ),
        (429, "too many requests", "too many requests"),
        (400, 'admission webhook "w" does not support dry run', "does not support dry run"),
        (409, "Operation cannot be fulfilled on resourcequotas", "Operation cannot be fulfilled"),
        (404, "the server could not find the requested resource", "could not find"),
    ],
)
def test_what_cannot_be_asked_is_not_checked(
    world: World, scripted: Any, status: int, message: str, reason: str
) -> None:
    server, service = scripted(status, message, reason="Conflict" if status == 409 else "")
    found = ask(world, service)
    assert found["checked"] == ["descriptor"]
    assert [entry["what"] for entry in found["notChecked"]] == KINDS
    assert all(reason in entry["reason"] for entry in found["notChecked"])
    assert {path.partition("?")[2] for path, _ in server.asked} == {"fieldValidation=Strict&dryRun=All"}


def test_a_denial_of_a_policy_is_a_problem(world: World, scripted: Any) -> None:
    _, service = scripted(403, 'admission webhook "p" denied the request: no', reason="Forbidden")
    with pytest.raises(Invalid, match=r'^podspec: admission webhook "p" denied the request: no$'):
        ask(world, service)


def test_an_api_server_that_does_not_answer_costs_little(
    world: World, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "PATIENCE", 0.5)
    server, service = scripted(0)
    found = ask(world, service)
    assert found["checked"] == ["descriptor"]
    assert all("did not answer within 0.5 s" in entry["reason"] for entry in found["notChecked"])
    assert len(server.asked) == 1


def test_an_api_server_that_is_not_there_costs_nothing(world: World) -> None:
    settings = dataclasses.replace(world.settings, kubernetes="http://127.0.0.1:9")
    client = kube_client.connect(settings)
    world._parts.append(client.close)
    service = DeploymentCommands(
        world.store, world.deployment_log, world.registry, settings, dry_run=DryRun(client, settings), remarks=remarks
    )
    found = ask(world, service)
    assert [entry["what"] for entry in found["notChecked"]] == KINDS
    assert "cannot be reached" in found["notChecked"][0]["reason"]
    assert client.requests["create"] == 4  # each is tried again once


def test_no_more_than_a_few_ask_at_once(world: World, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "AT_ONCE", 1)
    server, service = scripted(0)
    results: list[Document] = []
    thread = threading.Thread(target=lambda: results.append(ask(world, service)))
    thread.start()
    world.until(lambda: bool(server.asked) or None, "the first to ask")
    assert "being checked already" in ask(world, service)["notChecked"][0]["reason"]
    server.released.set()
    thread.join()
    assert results


def test_no_namespace_keeps_others_from_asking(world: World, scripted: Any) -> None:
    """It has half of what may ask at once, however often it tries; another one still gets its turn."""
    server, service = scripted(0)
    threads = []

    def begin(namespace: str) -> None:
        threads.append(threading.Thread(target=lambda: ask(world, service, namespace)))
        threads[-1].start()
        world.until(lambda: len(server.asked) >= len(threads) or None, f"{namespace} to ask")

    begin("busy")
    begin("busy")
    for _ in range(3):
        assert "being checked already" in ask(world, service, "busy")["notChecked"][0]["reason"]
    begin("other")
    server.released.set()
    for thread in threads:
        thread.join()
    server.asked.clear()
    threads.clear()
    begin("busy")
    for thread in threads:
        thread.join()


def test_every_object_that_is_sent_is_a_dry_run_without_secrets_of_others(world: World, scripted: Any) -> None:
    """Nothing that injectors give is sent, and the names are those of a deployment."""
    server, service = scripted(201, headers=[("Warning", '299 - "spec.containers[0].env[5]: hides \\"A\\""')])
    found = ask(world, service, env={"A": "1", "B": CANARY})
    assert 'podspec.containers[0].env[1]: hides "A"' in found["warnings"]
    (first, controller), (second, pod) = server.asked
    assert all(path.endswith("?fieldValidation=Strict&dryRun=All") for path in (first, second))
    assert controller["metadata"]["name"] == "shop-1"
    assert pod["metadata"]["name"] == "shop-1-check"
    assert pod["spec"] == controller["spec"]["template"]["spec"]
    assert pod["metadata"]["labels"] == controller["spec"]["selector"]


def test_a_value_of_the_environment_is_not_repeated(world: World, scripted: Any) -> None:
    at = "spec.template.spec.containers[0].env[4]"
    causes = [
        {"field": f"{at}.value", "message": 'Invalid value: "abc": is bad'},
        {"field": at, "message": f'Invalid value: "{CANARY}": is worse'},
    ]
    details = {"causes": causes}
    _, service = scripted(422, f"is invalid {CANARY}", details=copy.deepcopy(details), reason="Invalid")
    with pytest.raises(Invalid) as caught:
        ask(world, service, env={"A": "abc", "B": CANARY})
    said = {p.path: p.message for p in caught.value.problems}
    assert said["podspec.containers[0].env[0].value"] == "Invalid value: is bad"
    assert said["podspec.containers[0].env[0]"] == 'Invalid value: "***": is worse'
    assert CANARY not in str(caught.value)


def test_the_answer_over_rest(cluster: Any, tmp_path: Path) -> None:
    """200 with the document, 400 as a problem with what was checked."""
    from deployer.cli import wiring
    from deployer.settings import Settings
    from support.command import Rest

    settings = Settings(
        kubernetes=cluster.api, loopback_pods=True, data_dir=tmp_path, own_namespace="", deployport=0, ingress="none"
    )
    running = wiring.start(settings)
    try:
        rest = Rest(running.url)
        status, found = rest.call("POST", "/descriptors/validate", describe("default"))
        assert (status, found["validation"]["checked"]) == (200, ["descriptor", *KINDS])
        document = describe("default")
        container(document)["nonsense"] = 1
        status, found = rest.call("POST", "/descriptors/validate", document)
        assert (status, found["validation"]["checked"]) == (400, ["descriptor", *KINDS])
        assert [error["path"] for error in found["errors"]] == ["podspec.containers[0].nonsense"]
    finally:
        running.stop()

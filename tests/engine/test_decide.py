"""What is decided before anything starts: environment, TLS, host claims."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from deployer.core.contract.observer import Notification
from deployer.core.errors import Conflict, Invalid, KubeForbidden, KubeUnavailable
from deployer.core.model.records import Deployment, HostClaim, Status
from deployer.core.registry import Entry
from deployer.planning import injection
from deployer.plugin_manager.loader import load_plugins
from deployer.sdk.environment import EnvContext, EnvInjector
from deployer.sdk.kube import CONTROLLER, INGRESS, SECRET, SERVICE
from deployer.sdk.plugin import Document
from support import originals
from support.world import World

SECRET_VALUE = "s3cr3t-canary-value"
HOST = "shop.example.com"


class Gives(EnvInjector):
    """Gives what it is told to, or raises it."""

    def __init__(self, name: str, given: Sequence[Document] | Exception) -> None:
        self.name = name
        self._given = given

    def environment(self, context: EnvContext) -> Sequence[Document]:
        if isinstance(self._given, Exception):
            raise self._given
        return self._given


def with_injectors(world: World, *injectors: EnvInjector) -> World:
    world.stop()
    registry = load_plugins(world.settings)
    entries = {str(i.name): Entry(i, "tests", "1", str(i.name)) for i in injectors}
    return world.start(dataclasses.replace(registry, env_injectors=entries))


def environment(world: World, name: str) -> dict[str, str]:
    container = world.objects(CONTROLLER)[name]["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def test_injected_variables_reach_every_container_and_only_their_names_the_log(world: World) -> None:
    given = [{"name": "TOKEN", "value": SECRET_VALUE}, {"name": "MODE", "value": "theirs"}]
    with_injectors(world, Gives("one", given), Gives("same", given[:1]))
    deployment = world.deployed(env={"MODE": "own"})
    assert environment(world, "shop-1") | {"TOKEN": SECRET_VALUE, "MODE": "own"} == environment(world, "shop-1")
    log = world.log(deployment.id)
    assert "injected environment: MODE, TOKEN" in log
    assert "the descriptor overrides: MODE" in log
    assert SECRET_VALUE not in log
    assert SECRET_VALUE not in json.dumps(deployment.public())


def test_secrets_are_known_again_before_the_first_line_after_a_restart(world: World) -> None:
    with_injectors(world, Gives("one", [{"name": "TOKEN", "value": SECRET_VALUE}]))
    deployment = world.deployed(env={"OWN": "a value of the team"})
    world.quiet()
    world.stop()
    world.start()  # without the injector
    world.deployment_log.append(deployment.id, f"said {SECRET_VALUE} and a value of the team")
    assert world.log(deployment.id).endswith(" said *** and ***\n")
    world.service.undeploy(world.namespace, deployment.id)
    world.ended(deployment, Status.UNDEPLOYED)
    world.quiet()
    world.deployment_log.append(deployment.id, f"late {SECRET_VALUE}")
    assert world.log(deployment.id).endswith(" late ***\n")


def test_an_injected_secret_that_a_container_prints_is_hidden_in_the_log(world: World) -> None:
    with_injectors(world, Gives("one", [{"name": "TOKEN", "value": SECRET_VALUE}]))
    # An image of that name cannot be pulled, and the kubelet's message repeats it.
    deployment = world.ended(world.deploy(image=f"nowhere/{SECRET_VALUE}:1"), Status.FAILURE)
    assert "ImagePull" in world.log(deployment.id)
    assert SECRET_VALUE not in world.log(deployment.id)
    assert SECRET_VALUE not in json.dumps(deployment.failure)


@pytest.mark.parametrize(
    ("injectors", "reason", "words"),
    [
        (
            [Gives("one", [{"name": "A", "value": "1"}]), Gives("two", [{"name": "A", "value": "2"}])],
            "EnvironmentConflict",
            "A is given differently by one and two",
        ),
        (
            [Gives("one", ValueError(SECRET_VALUE))],
            "EnvironmentFailed",
            "environment injector one of tests 1 raised ValueError in environment()",
        ),
        ([Gives("one", [{"value": "nameless"}])], "EnvironmentFailed", "no environment variable"),
        *(
            (
                [Gives("one", cast(Any, given))],
                "EnvironmentFailed",
                f"environment() of environment injector one of tests 1 {words}",
            )
            for given, words in (
                (None, "returned None, not a list; did you forget `return`?"),
                ({"A": SECRET_VALUE}, "returned something of type dict, not a list"),
                (3, "returned something of type int, not a list"),
            )
        ),
        (
            [Gives("one", [{"name": "A" * 200_000, "value": 3}])],
            "EnvironmentFailed",
            f"gave environment variable {'A' * 80} with a value of type int, not str",
        ),
        *(
            ([Gives("one", [given])], "EnvironmentFailed", f"environment injector one of tests 1 gave {words}")
            for given, words in (
                ({"name": "A", "value": 3}, "environment variable A with a value of type int, not str"),
                ({"name": "A", "value": None}, "environment variable A with a value of type NoneType, not str"),
                ({"name": "A"}, "environment variable A with neither value nor valueFrom"),
                ({"name": "A", "value": "", "valueFrom": {}}, "environment variable A with both value and valueFrom"),
                ({"name": "A", "value": "", "secret": 1}, "environment variable A with the unknown key secret"),
                ({"name": 3, "value": SECRET_VALUE}, "something that is no environment variable: it has no valid"),
                (["A"], "a list instead of an environment variable"),
                ({"name": "A", "valueFrom": {"fieldRef": 3}}, "environment variable A with a valueFrom.fieldRef that"),
                (
                    {"name": "A", "valueFrom": {"field": {}}},
                    "environment variable A with the unknown field valueFrom",
                ),
            )
        ),
    ],
)
def test_injectors_that_fail_or_disagree_fail_the_deployment_before_anything_is_written(
    world: World, injectors: list[EnvInjector], reason: str, words: str
) -> None:
    with_injectors(world, *injectors)
    deployment = world.ended(world.deploy(), Status.FAILURE)
    assert deployment.failure
    assert deployment.failure["reason"] == reason
    assert words in deployment.failure["message"]
    assert SECRET_VALUE not in json.dumps(deployment.failure) + world.log(deployment.id)
    assert (world.names(), world.pods()) == ({}, {})


def test_an_injector_is_told_of_the_descriptor_its_options_and_the_namespace(world: World) -> None:
    seen: list[object] = []

    class Looks(EnvInjector):
        name = "looks"
        options_schema = {"type": "object", "properties": {"path": {"type": "string"}}}  # noqa: RUF012

        def environment(self, context: EnvContext) -> Sequence[Document]:
            service = context.kube.get(SERVICE, "shop")
            seen.extend((service and service["metadata"]["name"], context.descriptor["replicas"], context.options))
            context.descriptor.clear()
            assert not hasattr(context.kube, "create")
            return [{"name": "SERVICES", "value": str(len(context.kube.list(SERVICE, {"app": "shop"})))}]

    with_injectors(world, Looks())
    world.deployed()
    deployment = world.deployed(replicas=2, extensions={"looks": {"path": "secret/shop"}})
    assert seen == [None, 1, {}, "shop", 2, {"path": "secret/shop"}]
    assert environment(world, "shop-2")["SERVICES"] == "2"
    assert deployment.descriptor["extensions"] == {"looks": {"path": "secret/shop"}}
    with pytest.raises(Invalid) as refused:
        world.deploy(extensions={"looks": {"path": 3}, "lookz": {}})
    assert [(p.path, p.message) for p in refused.value.problems] == [
        ("extensions.looks.path", "must be text, not a number: put it in quotes"),
        ("extensions.lookz", "no plugin of this name takes options; did you mean looks?"),
    ]


def test_an_injector_that_hangs_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injection, "DEADLINE", 0.2)
    go = threading.Event()

    class Hangs(EnvInjector):
        name = "hangs"

        def environment(self, context: EnvContext) -> Sequence[Document]:
            go.wait(30)
            return []

    with_injectors(world, Hangs())
    deployment = world.ended(world.deploy(), Status.FAILURE)
    go.set()
    assert deployment.failure and deployment.failure["message"] == (
        "environment injector hangs of tests 1 did not come back from environment() within 0.2 s"
    )


def test_the_service_log_says_where_an_injector_failed_but_not_what_it_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with_injectors(world, Gives("one", ValueError(SECRET_VALUE)))
    world.ended(world.deploy(), Status.FAILURE)
    assert "environment injector one of tests 1 raised ValueError" in caplog.text
    assert "in environment" in caplog.text
    assert SECRET_VALUE not in caplog.text


@pytest.mark.parametrize(
    ("given", "secrets", "expected"),
    [
        ({"tlsSecretName": "mine"}, [HOST], "mine"),
        ({}, [HOST, "example.com"], HOST),
        ({}, ["example.com"], "example.com"),
        ({}, [], None),
    ],
)
def test_the_tls_secret_is_the_descriptors_or_named_like_the_host(
    world: World, given: Document, secrets: list[str], expected: str | None
) -> None:
    for name in secrets:
        body = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name}}
        body["data"] = {"tls.crt": "eA==", "tls.key": "eA=="}
        world.eyes.create(SECRET, body, world.namespace)
    deployment = world.deployed(frontend=HOST, **given)
    tls = world.objects(INGRESS)["shop"]["spec"].get("tls")
    assert tls == ([{"hosts": [HOST], "secretName": expected}] if expected else None)
    assert ("no TLS for" in world.log(deployment.id)) is (expected is None)


@pytest.mark.parametrize("secret_type", ["kubernetes.io/tls", "Opaque"])
@pytest.mark.parametrize(
    "refusal",
    [
        KubeUnavailable("the API server does not answer", status=503),
        KubeForbidden("may not get secrets", status=403),
        None,
    ],
)
def test_a_live_route_keeps_its_tls_whatever_becomes_of_a_look_up(
    world: World, monkeypatch: pytest.MonkeyPatch, refusal: Exception | None, secret_type: str
) -> None:
    """One of the original's too, of which nothing is known but what the cluster has; it took Secrets of any type."""
    originals.leave(world.eyes, world.namespace, HOST, world.image, secret="example.com")
    body = {"apiVersion": "v1", "kind": "Secret", "type": secret_type, "metadata": {"name": "example.com"}}
    body["data"] = {"tls.crt": "eA==", "tls.key": "eA=="}
    world.eyes.create(SECRET, body, world.namespace)
    get = world.client.get

    def refused(kind: Any, *rest: Any, **more: Any) -> Any:
        if kind == SECRET and refusal:
            raise refusal
        return get(kind, *rest, **more)

    monkeypatch.setattr(world.client, "get", refused)
    for number in (42, 43):
        deployment = world.deployed(frontend=HOST)
        assert deployment.version == str(number)
        tls = world.objects(INGRESS)["shop"]["spec"].get("tls")
        assert tls == [{"hosts": [HOST], "secretName": "example.com"}]
        assert ("TLS secret example.com is kept: " in world.log(deployment.id)) is (refusal is not None)


def test_one_app_owns_a_host_until_nothing_of_it_uses_it(world: World) -> None:
    mine = world.descriptor("shop", frontend=HOST)
    with pytest.raises(Conflict, match="belongs to another app"):
        world.descriptor("other", frontend=HOST)
    deployment = world.ended(world.service.deploy(world.namespace, mine.id), Status.DEPLOYED)
    world.service.descriptors.delete(world.namespace, mine.id)
    # What is said is what has to be done: that app is live.
    with pytest.raises(Conflict, match="undeploy that app and delete its descriptors"):
        world.descriptor("other", frontend=HOST)
    world.service.undeploy(world.namespace, deployment.id)
    world.quiet()
    assert world.store.get(HostClaim, HOST) is None
    world.descriptor("other", frontend=HOST)


def test_observers_are_told_of_start_progress_and_end(world: World) -> None:
    told: list[tuple[str, str, str, str]] = []
    progress: list[Document] = []

    class Tell:
        key = "tests:tell"
        hooks = frozenset({"deployment_started", "deployment_changed", "deployment_finished"})

        def tell(self, notification: Notification) -> None:
            deployment = notification.deployment
            if notification.hook == "deployment_changed":
                progress.append(deployment["operation"])
            else:
                told.append((notification.hook, deployment["status"], notification.occurrence, notification.previous))

    class Watched:
        observers = (Tell(),)

        def __getattr__(self, name: str) -> object:
            return getattr(registry, name)

    world.stop()
    registry = load_plugins(world.settings)
    world.start(Watched())  # type: ignore[arg-type]
    world.deployed()
    deployment = world.deployed()
    world.quiet()
    world.service.undeploy(world.namespace, deployment.id, purge=True)
    world.quiet()
    assert told == [
        ("deployment_started", "DEPLOYING", "started", ""),
        ("deployment_finished", "DEPLOYED", "deployed", ""),
        ("deployment_started", "DEPLOYING", "started", "1"),
        ("deployment_finished", "DEPLOYED", "upgraded", "1"),
        ("deployment_finished", "UNDEPLOYED", "replaced", ""),
        ("deployment_finished", "UNDEPLOYED", "removed", ""),
    ]
    assert {"deploy"} <= {found["kind"] for found in progress}
    assert any("start-workload" in found["steps"] for found in progress)
    assert world.store.get(Deployment, deployment.id) is None


@pytest.mark.parametrize("hold", [float("inf"), float("nan"), -1, "10", None, True], ids=repr)
def test_a_minimum_hold_that_is_no_time_is_the_ingress_providers_mistake(
    world: World, monkeypatch: pytest.MonkeyPatch, hold: Any
) -> None:
    provider = world.registry.ingress()
    monkeypatch.setattr(type(provider), "minimum_hold", hold)
    failed = world.ended(world.deploy(frontend=f"{world.namespace}.{HOST}"), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "BadProvider"
    said = "minimum_hold of ingress provider nginx of kube-deployer "
    assert failed.failure["message"].startswith(said) and "is no number of seconds" in failed.failure["message"]

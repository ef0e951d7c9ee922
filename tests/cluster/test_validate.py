"""`validate` against a real API server: its words on paths of the descriptor, and what only a Pod shows."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import IMAGE, RealWorld
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.errors import Invalid
from deployer.core.model.kind import CONTROLLER, NAMESPACE, POD, SECRET, Kind
from deployer.core.model.records import Document, Status
from deployer.kube.client import connect
from deployer.settings import Settings
from deployer.toolkit import dry_run
from deployer.toolkit.dry_run import DryRun
from deployer.toolkit.remarks import remarks
from support.rights import Account
from support.world import HEALTHY, describe

pytestmark = pytest.mark.timeout(120)

QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
LIMITS = Kind("", "v1", "limitranges", "LimitRange")
WEBHOOK = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)
KINDS = ["ReplicationController", "Pod"]
CANARY = "Kanari-7/enV"


def _await(condition: Any) -> None:
    """Wait for another controller of the cluster."""
    import time

    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def descriptor(namespace: str, **fields: Any) -> Document:
    return describe(namespace, **{"image": IMAGE, "pull": "IfNotPresent", **fields})


def validate(world: RealWorld, document: Document, service: DeploymentCommands | None = None) -> Document:
    found = (service or world.service).descriptors.validate(world.namespace, json.dumps(document).encode())
    return dict(found["validation"])


def refusal(world: RealWorld, document: Document) -> tuple[dict[str, str], Document]:
    with pytest.raises(Invalid) as caught:
        validate(world, document)
    assert not world.names(), "something was written"
    assert not world.pods(), "something was written"
    return {p.path: p.message for p in caught.value.problems}, dict(caught.value.validation or {})


def put(world: RealWorld, kind: Kind, spec: Document) -> None:
    body = {"apiVersion": "v1", "kind": kind.kind, "metadata": {"name": "test"}, "spec": spec}
    world.eyes.create(kind, body, world.namespace)


def test_a_good_one(world: RealWorld) -> None:
    ports = [{"containerPort": 8080}, {"name": "healthcheck", "containerPort": 9999}]
    document = descriptor(world.namespace, ports=ports, **HEALTHY)
    assert validate(world, document) == {"checked": ["descriptor", *KINDS], "notChecked": [], "warnings": []}
    assert not world.names()
    assert not world.pods()
    live = world.deployed(newVersion="7")
    for version in ("7", "#"):
        assert validate(world, descriptor(world.namespace, newVersion=version))["checked"][1:] == KINDS
    assert world.live_version() == live.version


def test_what_the_api_server_would_refuse(world: RealWorld) -> None:
    document = descriptor(world.namespace)
    document["podspec"] |= {
        "nonsense": 1,
        "terminationGracePeriodSeconds": "long",
        "activeDeadlineSeconds": 1.5,
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "much"}}, {"name": "v", "emptyDir": {}}],
    }
    document["podspec"]["containers"][0].update(
        ports=[{"containerPort": 8080, "name": "http"}, {"containerPort": 9999, "name": "http"}],
        env=[
            {"name": "A", "value": CANARY},
            {"name": "B", "value": 5},
            {"name": "C=D", "value": CANARY},
            {"name": "E", "value": CANARY, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        livenesProbe={},
        readinessProbe={"httpGet": {"port": 9999}, "timeoutSeconds": "1"},
    )
    problems, validation = refusal(world, document)
    at = "podspec.containers[0]"
    assert problems.keys() == {
        "podspec.nonsense",
        "podspec.terminationGracePeriodSeconds",
        "podspec.activeDeadlineSeconds",
        "podspec.volumes[0].emptyDir.sizeLimit",
        "podspec.volumes[1].name",
        f"{at}.ports[1].name",
        f"{at}.env[1].value",
        f"{at}.env[2].name",
        f"{at}.env[3].valueFrom",
        f"{at}.livenesProbe",
        f"{at}.readinessProbe.timeoutSeconds",
    }, problems
    assert problems[f"{at}.ports[1].name"] == "is the same as that of another port of the container"
    assert validation["checked"] == ["descriptor", *KINDS]
    assert CANARY not in json.dumps([problems, validation])


@pytest.mark.parametrize("level", ["enforce", "warn"])
def test_pod_security_of_the_namespace(world: RealWorld, level: str) -> None:
    labels = {f"pod-security.kubernetes.io/{level}": "restricted"}
    world.eyes.patch(NAMESPACE, world.namespace, {"metadata": {"labels": labels}}, None)
    if level == "warn":
        warnings = validate(world, descriptor(world.namespace))["warnings"]
        assert len(warnings) == 1
        assert warnings[0].startswith('would violate PodSecurity "restricted:latest"')
    else:
        problems, _ = refusal(world, descriptor(world.namespace))
        assert problems["podspec"].startswith('violates PodSecurity "restricted:latest"')


def test_quota(world: RealWorld) -> None:
    put(world, QUOTA, {"hard": {"pods": "0"}})
    _await(lambda: "hard" in world.eyes.get(QUOTA, "test", world.namespace).get("status", {}))
    problems, _ = refusal(world, descriptor(world.namespace))
    assert problems == {"podspec": "exceeded quota: test, requested: pods=1, used: pods=0, limited: pods=0"}


def test_limit_range(world: RealWorld) -> None:
    put(world, LIMITS, {"limits": [{"type": "Container", "max": {"memory": "10Mi"}}]})
    document = descriptor(world.namespace)
    document["podspec"]["containers"][0]["resources"] = {"limits": {"memory": "20Mi"}}

    def refused() -> bool:  # the API server knows of it a moment later
        try:
            validate(world, document)
        except Invalid:
            return True
        return False

    _await(refused)
    problems, _ = refusal(world, document)
    assert problems == {"podspec": "maximum memory usage per Container is 10Mi, but limit is 20Mi"}


def test_a_service_account_or_a_namespace_that_is_not_there(world: RealWorld) -> None:
    document = descriptor(world.namespace)
    document["podspec"]["serviceAccountName"] = "nobody"
    problems, _ = refusal(world, document)
    assert list(problems) == ["podspec"]
    assert 'serviceaccount "nobody" not found' in problems["podspec"]
    namespace = f"{world.namespace}-not"
    with pytest.raises(Invalid, match=r"^namespace: does not exist in the cluster; create it before"):
        world.service.descriptors.validate(namespace, json.dumps(descriptor(namespace)).encode())


def test_warnings_are_shown(world: RealWorld) -> None:
    document = descriptor(world.namespace)
    document["podspec"]["nodeSelector"] = {"beta.kubernetes.io/os": "linux"}
    document["podspec"]["containers"][0]["env"] = [{"name": "A", "value": CANARY}, {"name": "A", "value": "x"}]
    found = validate(world, document)
    assert found["checked"] == ["descriptor", *KINDS]
    assert sorted(found["warnings"]) == [
        'podspec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply',
        'podspec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead',
    ]


@pytest.fixture
def hanging(world: RealWorld) -> Iterator[None]:
    """A webhook for the pods of the namespace that takes connections and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    labels = {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}
    webhook = {
        "name": "hangs.example.com",
        "clientConfig": {
            "url": f"https://127.0.0.1:{listener.getsockname()[1]}/",
        },
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": labels,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10,
        "failurePolicy": "Fail",
    }
    name = f"hangs-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": WEBHOOK.kind, "metadata": {"name": name}}
    made = world.eyes.create(WEBHOOK, {**body, "webhooks": [webhook]}, None)
    yield
    world.eyes.delete(WEBHOOK, name, uid=made["metadata"]["uid"])
    listener.close()


@pytest.mark.usefixtures("hanging")
def test_a_webhook_that_hangs_is_not_waited_for(world: RealWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "PATIENCE", 1.0)

    def not_checked() -> bool:  # the API server knows of it a moment later
        return bool(validate(world, descriptor(world.namespace))["notChecked"])

    _await(not_checked)
    found = validate(world, descriptor(world.namespace))
    assert found["checked"] == ["descriptor", "ReplicationController"]
    assert [entry["what"] for entry in found["notChecked"]] == ["Pod"]
    assert found["notChecked"][0]["reason"].startswith("the API server did not answer within 1 s")


@pytest.fixture
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account, its token and CA files."""
    admin = connect(Settings())
    made = Account(admin, tmp_path_factory.mktemp("account"))
    yield made
    made.close()
    admin.close()


def test_a_right_that_is_missing_is_no_error(world: RealWorld, account: Account, tmp_path: Path) -> None:
    settings = dataclasses.replace(world.settings, **account.settings())
    client = connect(settings)
    dry_run = DryRun(client, settings)
    service = DeploymentCommands(
        world.store, world.deployment_log, world.registry, settings, dry_run=dry_run, remarks=remarks
    )
    document = descriptor(world.namespace)
    try:
        found = validate(world, document, service)
        assert found["checked"] == ["descriptor"]
        assert [entry["what"] for entry in found["notChecked"]] == KINDS
        assert "cannot create resource" in found["notChecked"][0]["reason"]
        account.grant(world.namespace, "app.yaml")
        _await(lambda: validate(world, document, service)["checked"] == ["descriptor", "ReplicationController"])
        found = validate(world, document, service)
        assert [entry["what"] for entry in found["notChecked"]] == ["Pod"]
        account.grant(world.namespace, "app-validate.yaml")
        _await(lambda: validate(world, document, service)["checked"] == ["descriptor", *KINDS])
        # With a fault found, it is a fault and nothing else.
        document["podspec"]["nonsense"] = 1
        with pytest.raises(Invalid, match=r"^podspec\.nonsense: is not a field that Kubernetes knows here$"):
            validate(world, document, service)
    finally:
        client.close()


def test_nothing_of_a_pull_secret_is_ever_read(world: RealWorld) -> None:
    """It is only named; whether it exists is the kubelet's business."""
    password = base64.b64encode(CANARY.encode()).decode()
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "registry"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {
            ".dockerconfigjson": base64.b64encode(json.dumps({"auths": {"r": {"auth": password}}}).encode()).decode()
        },
    }
    world.eyes.create(SECRET, body, world.namespace)
    before = world.client.requests
    assert validate(world, descriptor(world.namespace, imagePullSecrets=[{"name": "registry"}]))["checked"][1:] == KINDS
    assert world.client.requests - before == {"create": 2}
    assert not world.eyes.list(POD, world.namespace)[0]


def test_unknown_fields_are_dropped_where_the_settings_say_so(tmp_path: Path, namespace: str) -> None:
    world = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, lenient_podspec=True).start()
    try:
        document = describe(namespace, image=IMAGE, pull="IfNotPresent")
        document["podspec"]["colour"] = "blue"
        document["podspec"]["containers"][0].update({f"unknown{n}": n for n in range(150)})
        stored = world.service.descriptors.create(namespace, json.dumps(document).encode())
        made = world.ended(world.service.deploy(namespace, stored.id), Status.DEPLOYED)
        for name in ("podspec.colour", "podspec.containers[0].unknown0", "podspec.containers[0].unknown149"):
            assert name in world.log(made.id)
        assert "unknown" not in json.dumps(world.objects(CONTROLLER)["shop-1"]["spec"])
    finally:
        world.close()

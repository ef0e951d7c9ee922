"""What a namespace may ask for: hosts, accounts, Secrets, priority, nodes and volumes, as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import SettingsError
from deployer.descriptor import policy
from deployer.settings import Settings, load

HOSTS = Settings(
    own_namespace="",
    namespace_hosts={
        "a": ("shop.example.com", "*.apps.example.com"),
        "b": ("own.apps.example.com", "Mixed.Example.COM."),
        "both": ("shop.example.com",),
        "none": (),
    },
    preview_host="{app}-preview.{namespace}.example.com",
)


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("shop.example.com", {"a", "both"}),
        ("SHOP.example.com.", {"a", "both"}),
        ("www.shop.example.com", set()),
        ("x.apps.example.com", {"a"}),
        ("y.x.apps.example.com", {"a"}),
        ("apps.example.com", {"free"}),
        ("evilapps.example.com", {"free"}),
        ("own.apps.example.com", {"b"}),
        ("mixed.example.com", {"b"}),
        ("www.mixed.example.com", set()),
        ("free.example.com", {"free"}),
        ("shop-preview.free.example.com", set()),
        ("Shop-Preview.a.example.com", set()),
        ("preview.a.example.com", {"free"}),
    ],
)
def test_a_host_that_is_listed_for_one_namespace_is_closed_to_all_others(host: str, may: set[str]) -> None:
    allowed = {n for n in ("a", "b", "both", "none", "free") if HOSTS.allows_host(n, host)}
    assert allowed == may
    for namespace in ("a", "b", "both", "none", "free"):
        found = [p.path for p in policy.host_problems({"namespace": namespace, "frontend": host}, HOSTS)]
        assert found == ([] if namespace in may else ["frontend"])


def test_a_redirect_of_www_needs_the_twin_too() -> None:
    descriptor = {"namespace": "a", "frontend": "shop.example.com", "redirectWww": True}
    assert [p.path for p in policy.host_problems(descriptor, HOSTS)] == ["redirectWww"]
    free = Settings(own_namespace="", namespace_hosts={"a": ("shop.example.com", "www.shop.example.com")})
    assert list(policy.host_problems(descriptor, free)) == []


@pytest.mark.parametrize("namespace", ["none", "b", "free"])
def test_a_refusal_does_not_say_whose_a_host_is(namespace: str) -> None:
    (problem,) = policy.host_problems({"namespace": namespace, "frontend": "shop.example.com"}, HOSTS)
    assert (
        "both" not in problem.message
        and '"a"' not in problem.message
        and "apps.example.com" not in (problem.message if namespace != "b" else "")
    )
    assert namespace in problem.message


def test_a_listed_host_that_could_be_a_preview_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text('preview_host = "{app}.example.com"\n[namespace_hosts]\nshop = ["Web.example.com"]\n')
    with pytest.raises(SettingsError, match=r"lists web\.example\.com for shop, but it could be the preview of an app"):
        load({}, {"HOME": str(tmp_path)}, file)


# --- podspecs ---------------------------------------------------------------------------------------------------------

STRICT = Settings(
    own_namespace="",
    allowed_service_accounts={"shop": ("shop-*",), "plain": ("default",), "*": ()},
    allowed_secrets={"shop": ("shop-*",)},
    allowed_priority_classes={"*": ("normal",)},
    allowed_tolerations={"shop": ("dedicated", "example.com/*"), "*": ()},
    forbid_node_name=True,
    allowed_volume_types=("configMap", "emptyDir", "secret", "projected", "csi"),
)


def wrong(podspec: dict[str, Any], namespace: str = "shop", settings: Settings = STRICT, **fields: Any) -> list[str]:
    pod = {"serviceAccountName": "shop-web", **podspec} if namespace == "shop" else podspec
    found = policy.problems({"namespace": namespace, "podspec": pod, **fields}, settings)
    assert all(p.message for p in found)
    return [p.path for p in found]


def container(kind: str = "containers", **fields: Any) -> dict[str, Any]:
    return {kind: [{"name": "one", "image": "one"}, {"name": "web", "image": "web", **fields}]}


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "first", "emptyDir": {}}, {"name": "it", **source}]}


SECRETS: dict[str, tuple[Any, str]] = {
    "env": (
        lambda name: container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]),
        "podspec.containers[1].env[0].valueFrom.secretKeyRef.name",
    ),
    "envFrom": (
        lambda name: container("initContainers", envFrom=[{"secretRef": {"name": name}}]),
        "podspec.initContainers[1].envFrom[0].secretRef.name",
    ),
    "ephemeral containers": (
        lambda name: container("ephemeralContainers", envFrom=[{"secretRef": {"name": name}}]),
        "podspec.ephemeralContainers[1].envFrom[0].secretRef.name",
    ),
    "volume": (lambda name: volume(secret={"secretName": name}), "podspec.volumes[1].secret.secretName"),
    "projected": (
        lambda name: volume(projected={"sources": [{"secret": {"name": name}}]}),
        "podspec.volumes[1].projected.sources[0].secret.name",
    ),
    "csi": (
        lambda name: volume(csi={"driver": "d", "nodePublishSecretRef": {"name": name}}),
        "podspec.volumes[1].csi.nodePublishSecretRef.name",
    ),
    "csi attributes": (
        lambda name: volume(csi={"driver": "file.csi.azure.com", "volumeAttributes": {"secretName": name}}),
        "podspec.volumes[1].csi.volumeAttributes.secretName",
    ),
    # Drivers do not mind the case of their attributes.
    "attribute of a driver in lower case": (
        lambda name: volume(csi={"driver": "file.csi.azure.com", "volumeAttributes": {"secretname": name}}),
        "podspec.volumes[1].csi.volumeAttributes.secretname",
    ),
    "pull secret": (lambda name: {"imagePullSecrets": [{"name": name}]}, "podspec.imagePullSecrets[0].name"),
}


@pytest.mark.parametrize("way", SECRETS)
def test_every_way_to_a_secret_is_known(way: str) -> None:
    make, path = SECRETS[way]
    assert wrong(make("payroll")) == [path]
    assert wrong(make("shop-db")) == []
    assert wrong(make("payroll"), settings=Settings(own_namespace="")) == []
    # A namespace that is not listed, where nothing is said of all others.
    assert wrong(make("payroll"), "free", settings=Settings(allowed_secrets={"shop": ()}, own_namespace="")) == []


@pytest.mark.parametrize("driver", ["azureFile", "cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"])
def test_so_is_every_driver_that_reads_one(driver: str) -> None:
    reference = {"secretName": "payroll"} if driver == "azureFile" else {"secretRef": {"name": "payroll"}}
    any_volume = Settings(own_namespace="", allowed_secrets={"*": ()})
    (path,) = wrong(volume(**{driver: reference}), settings=any_volume)
    assert path.startswith(f"podspec.volumes[1].{driver}.secret")


def test_secrets_that_gates_name() -> None:
    reference = {"secretKeyRef": {"name": "admin", "key": "k"}}
    gate = {"type": "job", "name": "m", "options": {"env": [{"name": "X", "valueFrom": reference}]}}
    path = "gates.beforeStart[0].options.env[0].valueFrom.secretKeyRef.name"
    assert wrong({}, gates={"beforeStart": [gate]}) == [path]
    assert wrong({}, gates={"beforeStart": [{**gate, "options": {}}]}) == []


def test_secrets_that_the_descriptor_itself_names() -> None:
    assert wrong({}, tlsSecretName="payroll") == ["tlsSecretName"]
    assert wrong({}, imagePullSecrets=[{"name": "shop-pull"}, {"name": "payroll"}]) == ["imagePullSecrets[1].name"]


@pytest.mark.parametrize(
    ("podspec", "namespace", "paths"),
    [
        ({"serviceAccountName": "shop-api"}, "shop", []),
        ({"serviceAccountName": "admin"}, "shop", ["podspec.serviceAccountName"]),
        ({"serviceAccountName": "", "serviceAccount": "admin"}, "shop", ["podspec.serviceAccount"]),
        ({"serviceAccountName": None, "serviceAccount": "shop-api"}, "shop", []),
        # The new field counts when both are there.
        ({"serviceAccountName": "shop-api", "serviceAccount": "admin"}, "shop", []),
        ({"serviceAccountName": "admin", "serviceAccount": "shop-api"}, "shop", ["podspec.serviceAccountName"]),
        # None named is the account default, with or without its token.
        ({"serviceAccountName": None}, "shop", ["podspec.serviceAccountName"]),
        ({"serviceAccountName": None, "automountServiceAccountToken": False}, "shop", ["podspec.serviceAccountName"]),
        ({}, "plain", []),
        ({}, "elsewhere", ["podspec.serviceAccountName"]),
        ({"serviceAccountName": "default"}, "elsewhere", ["podspec.serviceAccountName"]),
    ],
)
def test_service_accounts(podspec: dict[str, Any], namespace: str, paths: list[str]) -> None:
    assert wrong(podspec, namespace) == paths


@pytest.mark.parametrize(
    ("podspec", "paths"),
    [
        ({"priorityClassName": "normal"}, []),
        ({"priorityClassName": ""}, []),
        ({"priorityClassName": "system-node-critical"}, ["podspec.priorityClassName"]),
        ({"nodeName": ""}, []),
        ({"nodeName": "control-plane-1"}, ["podspec.nodeName"]),
        ({"tolerations": [{"key": "dedicated"}, {"key": "example.com/gpu", "operator": "Exists"}]}, []),
        ({"tolerations": [{"key": "dedicated"}, {"operator": "Exists"}]}, ["podspec.tolerations[1].key"]),
        ({"tolerations": [{"key": "", "operator": "Exists"}]}, ["podspec.tolerations[0].key"]),
        (
            {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
            ["podspec.tolerations[0].key"],
        ),
        ({"volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}]}, []),
        ({"volumes": [{"name": "a", "nfs": {"server": "s", "path": "/"}}]}, ["podspec.volumes[0]"]),
        ({"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]}, ["podspec.volumes[0]"]),
        ({"volumes": [{"name": "a", "nfs": None}]}, []),
    ],
)
def test_what_else_is_shared_in_a_cluster(podspec: dict[str, Any], paths: list[str]) -> None:
    assert wrong(podspec) == paths
    assert wrong(podspec, settings=Settings(own_namespace="")) == []


@pytest.mark.parametrize("odd", [5, "x", [], {"a": 1}, [5, None], [[{}]], {"secretName": 5}, None])
def test_whatever_a_podspec_is_the_rules_bear_it(odd: Any) -> None:
    for field in ("serviceAccountName", "volumes", "tolerations", "nodeName", "containers", "priorityClassName"):
        wrong({field: odd})
    policy.problems({"namespace": "shop", "podspec": odd}, STRICT)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[allowed_secrets]\nShop = []", "'Shop' is neither a namespace nor '*'"),
        ('[allowed_secrets]\nshop = "a"', "shop: is not a list of names"),
        ('[allowed_secrets]\nshop = ["a b"]', "shop: 'a b' is not a name or a pattern like shop-*"),
        ('[allowed_tolerations]\nshop = ["a[b]"]', "is not a name or a pattern"),
        (
            'allowed_volume_types = ["configmap"]',
            "'configmap' is not a type of volume in core/v1 (did you mean configMap",
        ),
    ],
)
def test_settings_that_make_no_sense(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "deployer.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load({}, {"HOME": str(tmp_path)}, file)
    assert sentence in str(raised.value)

"""The cluster door on a real API server: what the sandbox and the fault server only claim about it."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import Owner
from deployer.core.errors import (
    Fenced,
    ForeignObject,
    KubeAlreadyExists,
    KubeConflict,
    KubeExpired,
    KubeForbidden,
    KubeNotFound,
    KubeRejected,
    KubeUnavailable,
    StepFailed,
)
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, NAMESPACE, POD, SERVICE, Kind
from deployer.kube.client import KubeClient, connect
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube, fencing_token_of, find_owned
from deployer.kube.ownership import LABEL_MANAGED_BY
from deployer.settings import Settings
from deployer.toolkit.readiness.diagnose import await_endpoints, await_pods_gone, await_ready

pytestmark = pytest.mark.cluster

Document = dict[str, Any]
LIMITS: dict[str, Any] = {
    "max_restarts": 1,
    "image_pull_attempts": 2,
    "unschedulable_grace": 2.0,
    "admission_grace": 2.0,
}
LABELS = {"name": "shop-1", "app": "shop", "version": "1"}
QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubeClient]:
    """A client for the cluster; skips when there is none."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a Kubernetes: set KUBECONFIG")
    client = connect(Settings(kubeconfig=os.environ["KUBECONFIG"]))
    yield client
    client.close()


@pytest.fixture
def image() -> str:
    """An image with the endpoints of the sandbox's sample program."""
    return os.environ.get("DEPLOYER_TEST_IMAGE", "lab/demo:1")


@pytest.fixture
def namespace(cluster: KubeClient) -> Iterator[str]:
    """A fresh namespace; its deletion begins at the end of the test."""
    name = f"deployer-test-{uuid.uuid4().hex[:8]}"
    made = cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete(NAMESPACE, name, uid=made["metadata"]["uid"])


@pytest.fixture
def informers(cluster: KubeClient) -> Iterator[Informers]:
    made = Informers(cluster)
    yield made
    made.close()


@pytest.fixture
def kube(cluster: KubeClient, informers: Informers, namespace: str) -> OwnedKube:
    """For app shop, deployment d1, fencing token 3."""
    return OwnedKube(cluster, informers, Owner("test", namespace, "shop", "d1", 3), CancelScope(time.monotonic() + 60))


def as_owner(kube: OwnedKube, **changes: Any) -> OwnedKube:
    return OwnedKube(kube._client, kube._informers, dataclasses.replace(kube.owner, **changes), kube.scope)


def config(kube: OwnedKube, name: str = "shop-1", **data: str) -> Document:
    about = {
        "name": name,
        "labels": {LABEL_MANAGED_BY: "deployer"},
        "annotations": kube.annotations("versioned-config"),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}


def workload(kube: OwnedKube, image: str, *, replicas: int = 2, probe: str = "/healthy", **more: Any) -> Document:
    web = {
        "name": "web",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": probe, "port": 9999}, "periodSeconds": 1},
        **more,
    }
    template = {"metadata": {"labels": LABELS}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [web]}}
    about = {"name": "shop-1", "labels": {**LABELS, LABEL_MANAGED_BY: "deployer"}}
    about["annotations"] = kube.annotations("controller")
    spec = {"replicas": replicas, "selector": LABELS, "template": template}
    return {"apiVersion": "v1", "kind": "ReplicationController", "metadata": about, "spec": spec}


def fails(kube: OwnedKube, body: Document, log: list[str] | None = None) -> StepFailed:
    """What `await_ready` raises for that controller."""
    lines: list[str] = [] if log is None else log
    uid = kube.create(CONTROLLER, body)["metadata"]["uid"]
    with pytest.raises(StepFailed) as caught:
        await_ready(kube, "shop-1", uid, lines.append, **LIMITS)
    return caught.value


# --- verbs and errors ---------------------------------------------------------------------------------------------


def test_errors_are_ours(cluster: KubeClient, namespace: str, kube: OwnedKube) -> None:
    with pytest.raises(KubeNotFound):
        cluster.get(POD, "none", namespace)
    with pytest.raises(KubeNotFound):
        cluster.list(Kind("nowhere.example", "v1", "things", "Thing"), namespace)
    made = cluster.create(CONFIG_MAP, config(kube, a="1"), namespace)
    with pytest.raises(KubeAlreadyExists):
        cluster.create(CONFIG_MAP, config(kube), namespace)
    cluster.patch(CONFIG_MAP, "shop-1", {"data": {"a": "2"}}, namespace)
    with pytest.raises(KubeConflict):
        cluster.replace(CONFIG_MAP, "shop-1", made, namespace)
    with pytest.raises(KubeConflict):
        cluster.delete(CONFIG_MAP, "shop-1", namespace, uid="00000000-0000-4000-8000-000000000000")
    with pytest.raises(KubeConflict):
        uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
        cluster.delete(CONFIG_MAP, "shop-1", namespace, uid=uid, resource_version=version)
    with pytest.raises(KubeRejected, match="unknown field"):
        cluster.create(CONFIG_MAP, {**config(kube, "b"), "tata": {}}, namespace)
    with pytest.raises(KubeRejected, match="Invalid value"):
        cluster.create(CONFIG_MAP, config(kube, "_"), namespace)
    dry = cluster.create(CONFIG_MAP, config(kube, "dry"), namespace, dry_run=True)
    assert dry["metadata"]["uid"]
    with pytest.raises(KubeNotFound):
        cluster.get(CONFIG_MAP, "dry", namespace)


def test_quota_is_a_403_in_the_servers_own_words(cluster: KubeClient, namespace: str, kube: OwnedKube) -> None:
    spec = {"hard": {"configmaps": "0"}}
    cluster.create(
        QUOTA, {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec}, namespace
    )
    scope = CancelScope(time.monotonic() + 20)
    while not cluster.get(QUOTA, "q", namespace).get("status", {}).get("hard"):
        scope.pause(0.1)
    with pytest.raises(KubeForbidden, match=r"create configmaps in namespace .*exceeded quota"):
        while True:  # what admits requests may learn of the quota a little later than its status says so
            made = cluster.create(CONFIG_MAP, config(kube), namespace)
            cluster.delete(CONFIG_MAP, made["metadata"]["name"], namespace, uid=made["metadata"]["uid"])
            scope.pause(0.1)


def test_a_watch_from_long_ago_has_expired(cluster: KubeClient, namespace: str) -> None:
    """A server that has not forgotten that much yet goes on from there until it is silent; both are right."""
    with pytest.raises((KubeExpired, KubeUnavailable)):
        for type_, _ in cluster.watch(POD, namespace, "1", silence=1.0):
            assert type_ in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")


# --- informers ------------------------------------------------------------------------------------------------------


def test_a_mirror_follows_and_ends_promptly(cluster: KubeClient, informers: Informers, kube: OwnedKube) -> None:
    kube.create(CONFIG_MAP, config(kube, a="1"))
    seen = threading.Event()

    def changed(found: list[Document]) -> bool:
        seen.set()
        return any(item["data"] == {"a": "2"} for item in found)

    def write() -> None:
        seen.wait(10)
        cluster.patch(CONFIG_MAP, "shop-1", {"data": {"a": "2"}}, kube.owner.namespace)

    writer = threading.Thread(target=write)
    writer.start()
    assert kube.wait(CONFIG_MAP, changed, labels={LABEL_MANAGED_BY: "deployer"})
    writer.join()
    assert kube.items(CONFIG_MAP, {LABEL_MANAGED_BY: "deployer"}) == kube.list(
        CONFIG_MAP, {LABEL_MANAGED_BY: "deployer"}
    )
    began = time.monotonic()
    informers.close()
    assert time.monotonic() - began < 2
    assert not [t for t in threading.enumerate() if t.name.startswith("mirror-")]


# --- ownership ----------------------------------------------------------------------------------------------------


def test_versioned_objects(kube: OwnedKube, cluster: KubeClient) -> None:
    old = as_owner(kube, deployment="d0", fencing_token=2)
    leftover = old.create(CONFIG_MAP, config(old))
    kept = as_owner(kube, keep=frozenset({"d0"}))
    with pytest.raises(ForeignObject, match="deployment d0 of this app, which still runs"):
        kept.create(CONFIG_MAP, config(kept))
    mine = kube.create(CONFIG_MAP, config(kube))
    assert mine["metadata"]["uid"] != leftover["metadata"]["uid"] and kube.owned_by(mine, "d1")
    assert kube.create(CONFIG_MAP, config(kube)) == mine
    other = as_owner(kube, app="shop-api")
    with pytest.raises(ForeignObject, match="another app, shop"):
        other.create(CONFIG_MAP, config(other))
    assert other.delete(CONFIG_MAP, "shop-1") is False
    assert find_owned(cluster, kube.owner) == [(CONFIG_MAP, "shop-1")]
    assert kube.delete(CONFIG_MAP, "shop-1") is True
    assert kube.get(CONFIG_MAP, "shop-1") is None


def test_shared_objects_and_epochs(kube: OwnedKube) -> None:
    body = {"selector": {"app": "shop", "version": "1"}, "ports": [{"name": "http", "port": 80}]}
    about = {"name": "shop"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": body}
    first = kube.put_shared(SERVICE, "shop", lambda found: service, role="service")
    assert first is not None and fencing_token_of(first) == 3
    successor = as_owner(kube, deployment="d2", fencing_token=4)

    def move(found: Document | None) -> Document | None:
        assert found is not None
        assert successor.raise_fencing_token(SERVICE, "shop")
        found["spec"]["selector"]["version"] = "late"
        return found

    with pytest.raises(Fenced):
        kube.put_shared(SERVICE, "shop", move, role="service")
    with pytest.raises(Fenced):
        kube.delete_shared(SERVICE, "shop")
    found = successor.get(SERVICE, "shop")
    assert (
        found is not None
        and found["spec"]["selector"] == {"app": "shop", "version": "1"}
        and fencing_token_of(found) == 4
    )
    assert found["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    assert successor.delete_shared(SERVICE, "shop") is True
    assert kube.get(SERVICE, "shop") is None


# --- workloads ----------------------------------------------------------------------------------------------------


def test_a_workload_from_start_to_end(kube: OwnedKube, cluster: KubeClient, image: str) -> None:
    lines: list[str] = []
    before = cluster.requests
    uid = kube.create(CONTROLLER, workload(kube, image))["metadata"]["uid"]
    pods = await_ready(kube, "shop-1", uid, lines.append, **LIMITS)
    assert len(pods) == 2 and lines[0] == "0 of 2 pods ready"
    spent = cluster.requests - before
    assert spent["list"] <= 3 and spent["watch"] <= 3 and spent["get"] <= 1
    about = {"name": "shop-1", "annotations": kube.annotations("versioned-service")}
    spec = {"selector": LABELS, "ports": [{"name": "http", "port": 8080}]}
    kube.create(SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec})
    await_endpoints(kube, "shop-1", [p["metadata"]["uid"] for p in pods], lines.append)
    assert "starting version" in kube.pod_log(pods[0]["metadata"]["name"], "web")
    assert kube.events(pods[0]["metadata"]["uid"])
    assert kube.delete(CONTROLLER, "shop-1")
    await_pods_gone(kube, uid, {"name": "shop-1"}, lines.append)
    assert kube.list(POD, {"name": "shop-1"}) == []


def test_crash_loop(kube: OwnedKube, image: str) -> None:
    lines: list[str] = []
    crash = {"env": [{"name": "CRASH_AFTER", "value": "0.1"}]}
    failure = fails(kube, workload(kube, image, replicas=1, probe="/error", **crash), lines)
    assert failure.reason == "CrashLoop" and "exit code 3" in str(failure)
    assert "crashing on purpose" in lines[-1]


def test_image_name(kube: OwnedKube) -> None:
    assert fails(kube, workload(kube, "UPPER:::", replicas=1)).reason == "InvalidImageName"


def test_unschedulable(kube: OwnedKube, image: str) -> None:
    failure = fails(kube, workload(kube, image, replicas=1, resources={"requests": {"cpu": "9999"}}))
    assert failure.reason == "Unschedulable" and "Insufficient cpu" in str(failure)


def test_pod_security_refuses_at_once(kube: OwnedKube, cluster: KubeClient, image: str) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.patch(NAMESPACE, kube.owner.namespace, {"metadata": {"labels": label}})
    failure = fails(kube, workload(kube, image, replicas=1))
    assert failure.reason == "PodsRefused" and "PodSecurity" in str(failure)


def test_quota_refuses_after_a_grace_time(kube: OwnedKube, cluster: KubeClient, image: str) -> None:
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    cluster.create(QUOTA, body, kube.owner.namespace)
    while not cluster.get(QUOTA, "q", kube.owner.namespace).get("status", {}).get("hard"):
        kube.scope.pause(0.1)
    failure = fails(kube, workload(kube, image, replicas=1))
    assert failure.reason == "PodsRefused" and "exceeded quota" in str(failure) and "quota" in failure.hint


def test_never_ready(kube: OwnedKube, image: str) -> None:
    late = kube.with_scope(CancelScope(time.monotonic() + 5))
    failure = fails(late, workload(kube, image, replicas=1, probe="/error"))
    assert failure.reason == "NotReady" and "statuscode: 500" in str(failure)

"""Health checks through the real API server's pod proxy, of real pods and of ones that say what a test wants."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as official
from kubernetes import config

from cluster.conftest import IMAGE, RealWorld
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import BODY_LIMIT, HealthTarget, PodUnreachable
from deployer.core.errors import Cancelled
from deployer.core.model.kind import NAMESPACE, POD, Kind
from deployer.core.model.records import HealthData, Status
from deployer.kube.client import KubeClient, connect
from deployer.plugins.health_probe import Probe
from deployer.plugins.health_simple import Simple
from deployer.settings import Settings
from deployer.testing.pods import FakePod, Talk, answer, drip, drip_headers, hang, replying
from deployer.toolkit.health.transport import Direct, ThroughApiServer
from support.world import HEALTHY

ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False)


# --- deployments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["auto", "direct"])
def test_deployments(tmp_path: Path, namespace: str, via: str) -> None:
    """Outside of the cluster `auto` goes through the API server; both ways come to the same verdicts."""
    world = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}, health_via=via, timeout=20.0).start()
    try:
        probe = world.deployed(**HEALTHY, replicas=2)
        data = world.store.get(HealthData, probe.id)
        assert data and ['"healthy": true' in entry["value"] for entry in data.entries] == [True, True]
        world.deployed(**{**HEALTHY, "healthCheckType": "simple", "healthCheckPath": "simple"})
        assert (world.client.requests["proxy"] >= 4) is (via == "auto")
        refused = world.deploy(**{**HEALTHY, "healthCheckPort": 9998}, newVersion="3")
        world.until(lambda: "not healthy yet" in world.log(refused.id), "the first round", patience=90)
        world.service.undeploy(namespace, refused.id)
        world.ended(refused, Status.UNDEPLOYED)
        said = r"not healthy yet: pod shop-3-\w+ at [0-9.]+:9998 refused the connection: does the app listen"
        assert re.search(said, world.log(refused.id))
        assert world.live_version() == "2"
    finally:
        world.close()


# --- checks of one real pod ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def admin() -> Iterator[KubeClient]:
    client = connect(Settings(kubeconfig=os.environ["KUBECONFIG"]))
    yield client
    client.close()


@pytest.fixture(scope="module")
def space(admin: KubeClient) -> Iterator[str]:
    """A namespace for all checks, in which pods may be made."""
    name = f"deployer-test-{uuid.uuid4().hex[:8]}"
    made = admin.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    scope = CancelScope(time.monotonic() + 30)
    while not admin.list(ACCOUNT, name, field_selector="metadata.name=default")[0]:
        scope.pause(0.05)
    yield name
    admin.delete(NAMESPACE, name, uid=made["metadata"]["uid"])


@pytest.fixture(scope="module")
def demo(admin: KubeClient, space: str) -> dict[str, Any]:
    """A pod of the demo application that is ready."""
    container = {"name": "web", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}
    container["readinessProbe"] = {"tcpSocket": {"port": 9999}, "periodSeconds": 1}  # type: ignore[assignment]
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    made = admin.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "demo"}, "spec": spec}, space)
    scope = CancelScope(time.monotonic() + 60)
    for _, pod in admin.watch(POD, space, made["metadata"]["resourceVersion"], scope=scope):
        conditions = pod.get("status", {}).get("conditions", ())
        if any((c["type"], c["status"]) == ("Ready", "True") for c in conditions):
            return pod
    raise AssertionError("the watch ended before the pod was ready")


def through(client: KubeClient, pod: dict[str, Any], port: int, path: str, **changes: Any) -> HealthTarget:
    values = {
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
        "namespace": pod["metadata"]["namespace"],
        "address": pod["status"]["podIP"],
        "port": port,
        "path": path,
        "scope": CancelScope(),
        "way": ThroughApiServer(client),
    }
    return HealthTarget(**{**values, **changes})


def test_verdicts(admin: KubeClient, demo: dict[str, Any]) -> None:
    assert Probe().check(through(admin, demo, 9999, "/health")).healthy
    assert Simple().check(through(admin, demo, 9999, "/simple")).healthy
    for port, path, said in (
        (9999, "/unhealthy", "reports healthy: false"),
        (9999, "/error", "answered HTTP 500"),
        (9999, "/nothing", "answered HTTP 404"),
        (8080, "/", "not JSON"),
    ):
        verdict = Probe().check(through(admin, demo, port, path))
        assert not verdict.healthy and said in verdict.message
    with pytest.raises(PodUnreachable, match=r"^pod demo at [0-9.]+:9997 refused the connection"):
        Probe().check(through(admin, demo, 9997, "/health"))
    with pytest.raises(PodUnreachable, match=r"gave no complete answer within 0\.5 s"):
        Simple().check(through(admin, demo, 8080, "/slow", timeout=0.5))
    with pytest.raises(PodUnreachable, match=r'is not asked: .*pods "gone" not found'):
        Simple().check(through(admin, demo, 9999, "/simple", name="gone"))
    with pytest.raises(PodUnreachable, match="only HTTP goes that way"):
        through(admin, demo, 9999, "/").connect()


@pytest.fixture
def account(admin: KubeClient, space: str, tmp_path: Path) -> Iterator[Callable[..., KubeClient]]:
    """Clients with bearer tokens, of accounts that have these verbs on pods/proxy and no other right."""
    with contextlib.ExitStack() as opened:
        api = opened.enter_context(config.new_client_from_config(os.environ["KUBECONFIG"]))
        opened.callback(api.rest_client.pool_manager.clear)

        def make(name: str, *verbs: str) -> KubeClient:
            about, rbac = {"name": name}, "rbac.authorization.k8s.io"
            admin.create(ACCOUNT, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about}, space)
            rule = {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": list(verbs)}
            role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": about, "rules": [rule] if verbs else []}
            admin.create(ROLE, role, space)
            binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": about}
            binding["subjects"] = [{"kind": "ServiceAccount", "name": name, "namespace": space}]
            admin.create(BINDING, {**binding, "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name}}, space)
            token = official.CoreV1Api(api).create_namespaced_service_account_token(name, space, {"spec": {}})
            path = tmp_path / name
            path.write_text(token.status.token)
            where = api.configuration
            client = connect(
                Settings(
                    kubernetes=where.host,
                    kubernetes_ca_file=where.ssl_ca_cert or "",
                    kubernetes_token_file=str(path),
                    skip_server_cert_validation=not where.verify_ssl,
                )
            )
            opened.callback(client.close)
            attributes = {"namespace": space, "resource": "pods", "subresource": "proxy", "verb": (*verbs, "none")[0]}
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": REVIEW.kind, "spec": {}}
            review["spec"] = {"resourceAttributes": attributes}
            scope = CancelScope(time.monotonic() + 30)  # the API server learns of the role a moment later
            while bool(verbs) is not client.create(REVIEW, review)["status"]["allowed"]:
                scope.pause(0.05)
            return client

        yield make


def test_a_missing_right_is_named(account: Any, demo: dict[str, Any], space: str) -> None:
    said = f"^pod demo at .* is not asked, as the Deployer lacks the right to {{}} pods/proxy in namespace {space}: "
    said += r'.*User "system:serviceaccount:.*:{}" cannot {} resource "pods/proxy"'
    nobody, reader = account("nobody"), account("reader", "get")
    for client, method, right in ((nobody, "GET", "get"), (nobody, "POST", "create"), (reader, "POST", "create")):
        name = "nobody" if client is nobody else "reader"
        with pytest.raises(PodUnreachable, match=said.format(right, name, right)):
            through(client, demo, 9999, "/health").http(method)


# --- checks of a pod that says what it is told --------------------------------------------------------------------


@pytest.fixture
def talking(admin: KubeClient, space: str, demo: dict[str, Any]) -> Iterator[Callable[[Talk], tuple[Any, FakePod]]]:
    """A pod that no node runs: its address is the one at which this machine is reached from the pods' network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((demo["status"]["podIP"], 9))
        address = probe.getsockname()[0]
    spec = {
        "schedulerName": "nobody",
        "automountServiceAccountToken": False,
        "containers": [{"name": "c", "image": "x"}],
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talk"}, "spec": spec}
    made = admin.create(POD, body, space)
    with config.new_client_from_config(os.environ["KUBECONFIG"]) as api:
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
        official.CoreV1Api(api).patch_namespaced_pod_status("talk", space, status)
        api.rest_client.pool_manager.clear()
    with contextlib.ExitStack() as opened:

        def start(talk: Talk) -> tuple[Any, FakePod]:
            listener = FakePod(talk, address)
            opened.callback(listener.close)
            return admin.get(POD, "talk", space), listener

        yield start
    admin.delete(POD, "talk", space, uid=made["metadata"]["uid"], grace_seconds=0)


def test_what_the_pod_gets_to_see(account: Any, talking: Any, tmp_path: Path) -> None:
    """The Deployer's credentials, here a bearer token, end at the API server."""
    client = account("seen", "get")
    pod, listener = talking(replying(answer("200 OK", b"fine", "Connection: close")))
    ask = through(client, pod, listener.port, "/a/b/?x=%20y").http
    assert ask(headers={"X-Mine": "1", "Accept-Encoding": "gzip"}).text == "fine"
    line, *headers = listener.requests[0].decode().strip().split("\r\n")
    assert line == "GET /a/b/?x=%20y HTTP/1.1"
    names = {name.lower(): value for name, _, value in (header.partition(": ") for header in headers)}
    assert names["accept-encoding"] == "identity" and names["x-mine"] == "1"
    assert set(names) <= {"host", "user-agent", "accept", "accept-encoding", "x-mine"} | {
        "x-forwarded-for",
        "x-forwarded-uri",
        "x-forwarded-host",
        "x-forwarded-proto",
    }
    assert (tmp_path / "seen").read_text() not in listener.requests[0].decode()


def test_the_host_of_the_descriptor_reaches_the_pod(admin: KubeClient, talking: Any) -> None:
    pod, listener = talking(replying(answer("200 OK", b"fine", "Connection: close")))
    for target in (through(admin, pod, listener.port, "/"), through(admin, pod, listener.port, "/", way=Direct())):
        target.host = "shop.example.com:8443"
        assert target.ask().ok
        assert b"\r\nHost: shop.example.com:8443\r\n" in listener.requests[-1]


def test_an_app_that_only_takes_post(admin: KubeClient, talking: Any) -> None:
    replies = [answer("405 Method Not Allowed", b"", "Connection: close")]
    replies += [answer("200 OK", b'{"healthy": true}', "Connection: close")]
    pod, listener = talking(replying(*replies))
    assert Probe().check(through(admin, pod, listener.port, "/health")).healthy
    assert [request.split()[0] for request in listener.requests] == [b"GET", b"POST"]


@pytest.mark.parametrize("talk", [hang, drip, drip_headers])
def test_neither_silence_nor_dripping_bytes_hold_a_check(admin: KubeClient, talking: Any, talk: Talk) -> None:
    pod, listener = talking(talk)
    began = time.monotonic()
    with pytest.raises(PodUnreachable, match=r"gave no complete answer within 1\.5 s"):
        through(admin, pod, listener.port, "/", timeout=1.5).ask()
    assert time.monotonic() - began < 5
    assert listener.over.wait(20)  # the API server has let go of the pod, too


def test_a_closing_gate_ends_a_check_at_once(admin: KubeClient, talking: Any) -> None:
    scope = CancelScope()
    pod, listener = talking(lambda connection, _: (scope.close(Cancelled("stop")), connection.recv(1)))
    began = time.monotonic()
    with pytest.raises(Cancelled):
        through(admin, pod, listener.port, "/", scope=scope, timeout=60).ask()
    assert time.monotonic() - began < 5


def test_of_an_endless_body_only_the_first_64_kib_are_read(admin: KubeClient, talking: Any) -> None:
    sent = 0

    def talk(connection: socket.socket, _: bytes) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1_000_000_000 // 65_536):
            sent += connection.send(b"x" * 65_536)

    pod, listener = talking(talk)
    got = through(admin, pod, listener.port, "/").ask()
    assert (len(got.body), got.truncated) == (BODY_LIMIT, True)
    assert listener.over.wait(20)
    assert sent < 100_000_000


def test_answers_that_lead_elsewhere_or_unpack_to_more(admin: KubeClient, talking: Any) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    pod, listener = talking(
        replying(
            answer("302 Found", b"", "Location: http://169.254.169.254/latest/", "Connection: close"),
            answer("302 Found", b"", "Location: /elsewhere", "Connection: close"),
            answer("200 OK", bomb, "Content-Encoding: gzip", "Connection: close"),
            b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + answer("200 OK", b"late", "Connection: close"),
        )
    )
    ask = through(admin, pod, listener.port, "/").http
    got = ask()
    assert (got.status, got.headers["location"]) == (302, "http://169.254.169.254/latest/")
    got = ask()
    assert (got.status, got.headers["location"]) == (302, "/elsewhere")
    assert got.said == "HTTP 302 (a redirect to /elsewhere)"
    assert ask().body == bomb
    assert not ask().ok
    assert len(listener.requests) == 4


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "gave no answer through the API server"),
        (b"SSH-2.0-OpenSSH\r\n", "gave the API server no answer: .*malformed HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "gave no answer through the API server"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "gave no answer through the API server"),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "gave no answer through the API server",
        ),
    ],
)
def test_an_answer_that_is_none_is_a_sentence(admin: KubeClient, talking: Any, raw: bytes, said: str) -> None:
    pod, listener = talking(replying(raw))
    with pytest.raises(PodUnreachable, match=rf"^pod talk at [0-9.]+:{listener.port} {said}"):
        through(admin, pod, listener.port, "/").ask()


def test_a_pod_that_imitates_the_api_server_is_never_healthy(admin: KubeClient, talking: Any) -> None:
    body = (
        b'{"kind":"Status","apiVersion":"v1","status":"Failure","healthy":true,"message":"pods not found","code":404}'
    )
    pod, listener = talking(replying(answer("404 Not Found", body, "Connection: close")))
    for checker in (Probe(), Simple()):
        with pytest.raises(PodUnreachable, match="pods not found"):
            checker.check(through(admin, pod, listener.port, "/"))


def test_paths_stay_with_the_pod(admin: KubeClient, talking: Any) -> None:
    pod, listener = talking(replying(answer("200 OK", b"fine", "Connection: close")))
    for path in ("/../../../../secrets", "/%2e%2e/%2e%2e/secrets", "//host/", "/a\\..\\b"):
        with pytest.raises(PodUnreachable, match="is not asked"):
            through(admin, pod, listener.port, path).http()
    assert listener.requests == []


def test_many_at_once(admin: KubeClient, demo: dict[str, Any]) -> None:
    """As many as a round asks at the same time."""
    verdicts: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: verdicts.append(Probe().check(through(admin, demo, 9999, "/health", timeout=30)).healthy)
        )
        for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 32

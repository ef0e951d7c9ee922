"""The API server beyond the contract: what has no counterpart in a real cluster, and what is refused."""

import json

import pytest
import urllib3
from kubernetes import client

CONFIG_MAP = "config_map"


@pytest.fixture
def http(sandbox):
    pool = urllib3.PoolManager(retries=False)
    yield lambda method, path, **more: pool.request(method, sandbox.api + path, timeout=10, **more)
    pool.clear()


def test_discovery(api, http):
    assert client.VersionApi(api).get_code().minor == "34"
    kinds = {resource.name for resource in client.CoreV1Api(api).get_api_resources().resources}
    assert {"pods", "services", "replicationcontrollers", "pods/log"} <= kinds
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert groups == {"discovery.k8s.io", "networking.k8s.io", "batch"} | {
        f"{name}.k8s.io" for name in ("gateway.networking", "apiextensions")
    }
    assert client.NetworkingV1Api(api).read_ingress_class("nginx").spec.controller == "k8s.io/ingress-nginx"
    assert [http("GET", path).data for path in ("/readyz", "/healthz")] == [b"ok", b"ok"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/apis/apps/v1/namespaces/default/deployments", 404),
        ("GET", "/api/v1/secretz", 404),
        ("GET", "/api/v1/pods/web", 404),
        ("GET", "/nothing", 404),
        ("POST", "/api/v1/namespaces/default/pods/web", 405),
        ("DELETE", "/api/v1/namespaces/default/pods", 405),
        ("POST", "/api/v1/nodes", 405),
        ("GET", "/api/v1/namespaces/default/replicationcontrollers/web/scale", 501),
        ("GET", "/api/v1/namespaces/default/pods/web/exec/more", 501),
        ("GET", "/api/v1/pods?labelSelector=a%20b", 400),
        ("GET", "/api/v1/pods?continue=abc", 400),
        ("GET", "/api/v1/pods?watch=true&resourceVersion=x", 400),
        ("GET", "/api/v1/pods?resourceVersion=9999999999999999", 504),
        ("GET", "/api/v1/pods?watch=true&sendInitialEvents=true", 422),
        ("POST", "/api/v1/namespaces/default/configmaps?dryRun=Some", 422),
        ("POST", "/api/v1/namespaces/default/configmaps?fieldValidation=Most", 422),
    ],
)
def test_what_is_not_there_is_a_clear_status(http, method, path, code):
    answer = http(method, path, body=b'{"metadata": {"name": "x"}}' if method == "POST" else None)
    status = json.loads(answer.data)
    assert (answer.status, status["kind"], status["code"]) == (code, "Status", code)
    assert status["message"]
    assert status["reason"]


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example:80"}, {"Host": ""}])
def test_no_web_page_may_ask(http, headers):
    """Also none whose own name resolves to this machine, whatever its browser sends."""
    path = "/api/v1/namespaces/default/configmaps"
    answer = http("POST", path, body=b'{"metadata": {"name": "of-a-page"}}', headers=headers)
    assert (answer.status, json.loads(answer.data)["reason"]) == (403, "Forbidden")
    assert http("GET", "/version", headers=headers).status == 403
    assert http("GET", f"{path}/of-a-page").status == 404
    assert http("GET", "/version", headers={"Host": "LocalHost:1"}).status == 200


def test_bodies_that_are_refused(http):
    path = "/api/v1/namespaces/default/configmaps"
    assert http("POST", path, body=b"{").status == 400
    assert http("POST", path, body=b"[]").status == 400
    assert http("POST", path, body=b"a: b", headers={"Content-Type": "application/yaml"}).status == 415
    assert http("POST", path, body=b'{"kind": "Secret", "metadata": {"name": "x"}}').status == 400
    assert http("POST", path, body=b'{"metadata": {"name": "x", "namespace": "other"}}').status == 400
    assert http("POST", path, body=b'{"metadata": {}}').status == 422
    assert http("POST", path, body=b" " * 4 * 1024 * 1024).status == 413
    assert (
        http("PATCH", path + "/x", body=b"{}", headers={"Content-Type": "application/apply-patch+yaml"}).status == 415
    )
    assert http("GET", path, headers={"Accept": "application/vnd.kubernetes.protobuf"}).status == 406
    twice = b'{"metadata": {"name": "x"}, "data": {"a": "1"}, "data": {"a": "2"}}'
    answer = http("POST", path + "?fieldValidation=Strict", body=twice)
    assert 'duplicate field "data"' in json.loads(answer.data)["message"]


def test_unknown_fields_are_dropped_with_a_warning(http, cluster):
    path = "/" + cluster.path(CONFIG_MAP)
    answer = http("POST", path, body=b'{"metadata": {"name": "x"}, "colour": "blue"}')
    assert answer.status == 201
    assert answer.headers["Warning"] == '299 - "unknown field \\"colour\\""'
    assert "colour" not in json.loads(answer.data)


def test_unsupported_service_types_are_refused(cluster, objects, refused):
    status = refused(501, lambda: cluster.create("service", objects.service("web", type="LoadBalancer")))
    assert "only ClusterIP" in status["message"]


def watch(http, cluster, version):
    path = f"/{cluster.path(CONFIG_MAP)}?watch=true&timeoutSeconds=1&resourceVersion={version}"
    return http("GET", path)


def test_a_version_from_before_a_compaction_is_gone(http, cluster):
    version = cluster.listing(CONFIG_MAP)["metadata"]["resourceVersion"]
    cluster.create(CONFIG_MAP, {"metadata": {"name": "a"}})
    assert http("POST", "/sandbox/compact").status == 200
    answer = watch(http, cluster, version)
    events = [json.loads(line) for line in answer.data.splitlines()]
    assert answer.status == 200
    assert [(event["type"], event["object"]["code"], event["object"]["reason"]) for event in events] == [
        ("ERROR", 410, "Expired")
    ]
    fresh = cluster.listing(CONFIG_MAP)["metadata"]["resourceVersion"]
    assert watch(http, cluster, fresh).data == b""


def test_it_can_be_gone_as_a_status_too(http, cluster):
    version = cluster.listing(CONFIG_MAP)["metadata"]["resourceVersion"]
    cluster.create(CONFIG_MAP, {"metadata": {"name": "a"}})
    http("POST", "/sandbox/compact?as=status")
    try:
        answer = watch(http, cluster, version)
        assert (answer.status, json.loads(answer.data)["reason"]) == (410, "Expired")
    finally:
        http("POST", "/sandbox/compact")


def test_a_version_from_an_earlier_sandbox_is_gone(http, cluster):
    events = [json.loads(line) for line in watch(http, cluster, 17).data.splitlines()]
    assert events[0]["object"]["code"] == 410


def test_a_watch_under_way_survives_a_compaction(http, cluster):
    version = cluster.listing(CONFIG_MAP)["metadata"]["resourceVersion"]
    path = f"/{cluster.path(CONFIG_MAP)}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={version}"
    answer = http("GET", path, preload_content=False)
    lines = iter(answer)
    assert json.loads(next(lines))["type"] == "BOOKMARK"
    http("POST", "/sandbox/compact")
    cluster.create(CONFIG_MAP, {"metadata": {"name": "a"}})
    assert "ADDED" in {json.loads(line)["type"] for line in lines}
    answer.release_conn()


@pytest.mark.parametrize("spec", [None, [], {"names": [], "versions": {}}, {"versions": ["v1"]}])
def test_a_definition_of_a_kind_that_is_nonsense_is_refused(http, spec):
    body = json.dumps({"metadata": {"name": "a.example"}, "spec": spec})
    answer = http("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=body)
    assert (answer.status, json.loads(answer.data)["reason"]) == (422, "Invalid")

"""What plugins that own a kind rely on in an API server: the same tests for the sandbox and for a real Kubernetes.

Each test has a kind of its own, in a group that nobody else uses.
"""

import json
import os
import time
import uuid

import pytest
from kubernetes import config

DEFINITIONS = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CLOSED = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@pytest.fixture(scope="session", params=["sandbox", pytest.param("real", marks=pytest.mark.cluster)])
def api(request):
    """A connection to the sandbox, then to the real cluster."""
    if request.param == "sandbox":
        kubeconfig = request.getfixturevalue("sandbox").kubeconfig
    elif not (kubeconfig := os.environ.get("KUBECONFIG")):
        pytest.skip("KUBECONFIG names no cluster")
    with config.new_client_from_config(kubeconfig) as connected:
        yield connected
        connected.rest_client.pool_manager.clear()


def definition(group, scope="Namespaced"):
    versions = [
        {"name": name, "served": True, "storage": name == "v1alpha1", "schema": {"openAPIV3Schema": CLOSED}}
        for name in ("v1alpha1", "v1")
    ]
    names = {"plural": "ingressroutes", "kind": "IngressRoute"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"ingressroutes.{group}"},
        "spec": {"group": group, "scope": scope, "names": names, "versions": versions},
    }


@pytest.fixture
def group(cluster):
    """The group of a kind IngressRoute that is served in two versions."""
    name = f"{uuid.uuid4().hex[:8]}.routes.example"
    cluster.request("POST", DEFINITIONS, definition(name))
    established(cluster, name)
    yield name
    cluster.request("DELETE", f"{DEFINITIONS}/ingressroutes.{name}")


def established(cluster, group):
    def served():
        found = cluster.request("GET", f"{DEFINITIONS}/ingressroutes.{group}")
        states = {c["type"]: c["status"] for c in found.get("status", {}).get("conditions") or ()}
        return states.get("Established") == "True"

    eventually(served, "the definition to be established")
    # The real server serves a kind a moment after it says so.
    eventually(lambda: answers(cluster, path(cluster, group)), "the kind to be served")


def eventually(wanted, what):
    end = time.monotonic() + 15
    while not wanted():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def answers(cluster, where):
    """Whether anything is there: what the real server says of a path that it does not serve at all is no JSON."""
    url = f"{cluster.api.configuration.host}/{where}"
    return cluster.api.rest_client.pool_manager.request("GET", url, timeout=20).status == 200


def path(cluster, group, name="", version="v1alpha1"):
    return f"apis/{group}/{version}/namespaces/{cluster.namespace}/ingressroutes" + (f"/{name}" if name else "")


def route(group, **more):
    return {
        "apiVersion": f"{group}/v1alpha1",
        "kind": "IngressRoute",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"routes": [{"match": "Host(`a.example.com`)"}], "nothing": None},
        **more,
    }


def test_objects_are_stored_as_they_are_and_read_in_every_version(cluster, group):
    made = cluster.request("POST", path(cluster, group), route(group, status={"a": 1}), field_validation="Strict")
    assert made["spec"] == route(group)["spec"]
    assert made["status"] == {"a": 1}
    assert made["metadata"]["generation"] == 1
    for version in ("v1alpha1", "v1"):
        api_version = f"{group}/{version}"
        found = cluster.request("GET", path(cluster, group, "web", version))
        assert (found["apiVersion"], found["spec"]) == (api_version, made["spec"])
        everywhere = cluster.request("GET", f"apis/{api_version}/ingressroutes", label_selector="app=web")
        assert (everywhere["kind"], everywhere["apiVersion"]) == ("IngressRouteList", api_version)
        assert [(o["kind"], o["apiVersion"]) for o in everywhere["items"]] == [("IngressRoute", api_version)]
        kinds = cluster.request("GET", f"apis/{api_version}")["resources"]
        assert [(k["name"], k["kind"], k["namespaced"]) for k in kinds] == [("ingressroutes", "IngressRoute", True)]
    assert group in [one["name"] for one in cluster.request("GET", "apis")["groups"]]


def test_a_replace_names_what_it_replaces(cluster, group, refused):
    made = cluster.request("POST", path(cluster, group), route(group))
    status = refused(422, lambda: cluster.request("PUT", path(cluster, group, "web"), route(group)))
    assert status["message"].endswith("metadata.resourceVersion: Invalid value: 0: must be specified for an update")
    made["spec"]["more"] = 1
    changed = cluster.request("PUT", path(cluster, group, "web"), made)
    assert (changed["spec"]["more"], changed["metadata"]["generation"]) == (1, 2)
    assert refused(409, lambda: cluster.request("PUT", path(cluster, group, "web"), made))["reason"] == "Conflict"


def test_patches(cluster, group, refused):
    cluster.request("POST", path(cluster, group), route(group))
    where = path(cluster, group, "web")
    merge, strategic = (f"application/{kind}merge-patch+json" for kind in ("", "strategic-"))
    assert cluster.request("PATCH", where, {"spec": {"nothing": None}}, merge)["metadata"]["generation"] == 2
    assert "nothing" not in cluster.request("GET", where)["spec"]
    assert refused(415, lambda: cluster.request("PATCH", where, {}, strategic))["reason"] == "UnsupportedMediaType"


def test_a_watch_follows_in_the_version_that_is_asked_for(cluster, group):
    before = cluster.request("GET", path(cluster, group))["metadata"]["resourceVersion"]
    cluster.request("POST", path(cluster, group), route(group))
    cluster.request("DELETE", path(cluster, group, "web"))
    url = f"{cluster.api.configuration.host}/{path(cluster, group, version='v1')}"
    query = f"watch=true&timeoutSeconds=2&resourceVersion={before}"
    answer = cluster.api.rest_client.pool_manager.request("GET", f"{url}?{query}", timeout=20)
    events = [json.loads(line) for line in answer.data.splitlines()]
    assert [(e["type"], e["object"]["apiVersion"]) for e in events] == [
        ("ADDED", f"{group}/v1"),
        ("DELETED", f"{group}/v1"),
    ]


def test_a_definition_that_goes_takes_its_objects_with_it(cluster):
    group = f"{uuid.uuid4().hex[:8]}.routes.example"
    for _ in range(2):
        cluster.request("POST", DEFINITIONS, definition(group))
        established(cluster, group)
        assert cluster.request("GET", path(cluster, group))["items"] == []
        cluster.request("POST", path(cluster, group), route(group))
        cluster.request("DELETE", f"{DEFINITIONS}/ingressroutes.{group}")
        gone = f"{DEFINITIONS}/ingressroutes.{group}"
        eventually(lambda gone=gone: not answers(cluster, gone), "the definition to go")
        eventually(lambda: not answers(cluster, path(cluster, group)), "the kind to go")


def test_what_is_wrong_with_a_definition(cluster, refused):
    body = definition("wrong.example", scope="Namespace")
    body["metadata"]["name"] = "things.wrong.example"
    body["spec"]["names"]["kind"] = ""
    for version in body["spec"]["versions"]:
        version["storage"] = False
    del body["spec"]["versions"][0]["schema"]
    status = refused(422, lambda: cluster.request("POST", DEFINITIONS, body))
    fields = {cause["field"] for cause in status["details"]["causes"]}
    assert {
        "metadata.name",
        "spec.scope",
        "spec.names.kind",
        "spec.versions[0].schema.openAPIV3Schema",
        "spec.versions",
    } <= fields

"""One sandbox for the whole session, a namespace for each test, and ways to wait for what objects say."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from kubernetes import client, config
from kubernetes.watch import Watch

from deployer.sandbox import Sandbox, start

Object = dict[str, Any]
INGRESS_DELAY = 0.4
PATIENCE = 20


PATHS = {
    "pod": "api/v1/{}/pods",
    "service": "api/v1/{}/services",
    "replication_controller": "api/v1/{}/replicationcontrollers",
    "config_map": "api/v1/{}/configmaps",
    "secret": "api/v1/{}/secrets",
    "service_account": "api/v1/{}/serviceaccounts",
    "event": "api/v1/{}/events",
    "endpoint_slice": "apis/discovery.k8s.io/v1/{}/endpointslices",
    "job": "apis/batch/v1/{}/jobs",
    "ingress": "apis/networking.k8s.io/v1/{}/ingresses",
    "gateway": "apis/gateway.networking.k8s.io/v1/{}/gateways",
    "http_route": "apis/gateway.networking.k8s.io/v1/{}/httproutes",
}


class Refused(Exception):
    """An answer of status 400 and above; carries its Status."""

    def __init__(self, code: int, status: Object) -> None:
        super().__init__(f"{code} {status.get('message')}")
        self.code, self.status = code, status


class Cluster:
    """A cluster and a namespace in it. Nothing here is the sandbox's own, so that the tests can run against others.

    Objects go over the official client's connection as they are: its models would check and change them on the way.
    """

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.api, self.namespace, self.core = api, namespace, client.CoreV1Api(api)

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: Any
    ) -> Object:
        """One request; `query` in snake case. Raises Refused."""
        words = {name: name.split("_") for name in query}
        names = {name: parts[0] + "".join(part.title() for part in parts[1:]) for name, parts in words.items()}
        url = f"{self.api.configuration.host}/{path}"
        token = self.api.configuration.auth_settings().get("BearerToken")
        headers = {"Content-Type": content_type, **({"Authorization": token["value"]} if token else {})}
        fields = urlencode({names[name]: value for name, value in query.items()})
        data = None if body is None else json.dumps(body)
        pool = self.api.rest_client.pool_manager
        answer = pool.request(
            method, f"{url}?{fields}" if fields else url, body=data, headers=headers, timeout=PATIENCE
        )
        found = json.loads(answer.data)
        if answer.status >= 400:
            raise Refused(answer.status, found)
        return found

    def path(self, what: str, name: str = "") -> str:
        path = PATHS[what].format(f"namespaces/{self.namespace}")
        return f"{path}/{name}" if name else path

    def read(self, what: str, name: str) -> Object:
        return self.request("GET", self.path(what, name))

    def create(self, what: str, obj: Object, **options: Any) -> Object:
        return self.request("POST", self.path(what), obj, **options)

    def replace(self, what: str, obj: Object, **options: Any) -> Object:
        return self.request("PUT", self.path(what, obj["metadata"]["name"]), obj, **options)

    def patch(self, what: str, name: str, body: Any, content_type: str = "application/merge-patch+json") -> Object:
        return self.request("PATCH", self.path(what, name), body, content_type)

    def delete(self, what: str, name: str, body: Object | None = None, **options: Any) -> Object:
        return self.request("DELETE", self.path(what, name), body, **options)

    def listing(self, what: str, **options: Any) -> Object:
        return self.request("GET", self.path(what), **options)

    def items(self, what: str, **options: Any) -> list[Object]:
        return self.listing(what, **options)["items"]

    def wait(
        self, what: str, predicate: Callable[[list[Object]], Any], timeout: int = PATIENCE, **options: Any
    ) -> list[Object]:
        """Follows a kind with list and watch until the objects satisfy the predicate."""
        found = self.listing(what, **options)
        objects = {item["metadata"]["uid"]: item for item in found["items"]}
        if predicate(list(objects.values())):
            return list(objects.values())
        groups = {"ingress": client.NetworkingV1Api, "endpoint_slice": client.DiscoveryV1Api, "job": client.BatchV1Api}
        group = groups.get(what, client.CoreV1Api)
        if what == "http_route":
            custom = client.CustomObjectsApi(self.api)

            def lister(namespace: str, **options: Any) -> Any:
                group = "gateway.networking.k8s.io"
                return custom.list_namespaced_custom_object(group, "v1", namespace, "httproutes", **options)
        else:
            lister = getattr(group(self.api), f"list_namespaced_{what}")
        limits = {"timeout_seconds": timeout, "_request_timeout": timeout + 5}
        watch, version = Watch(), found["metadata"]["resourceVersion"]
        for event in watch.stream(lister, self.namespace, resource_version=version, **limits, **options):
            item = event["raw_object"]
            objects[item["metadata"]["uid"]] = item
            if event["type"] == "DELETED":
                del objects[item["metadata"]["uid"]]
            if predicate(list(objects.values())):
                watch.stop()
                return list(objects.values())
        raise AssertionError(f"{what} did not get there within {timeout} s: {list(objects.values())}")

    def ready(self, name: str, count: int = 1) -> Object:
        """Waits until a ReplicationController has that many ready pods."""
        field = f"metadata.name={name}"
        wanted = lambda found: found and found[0]["status"].get("readyReplicas", 0) == count  # noqa: E731
        return self.wait("replication_controller", wanted, field_selector=field)[0]

    def event(self, reason: str, text: str = "") -> Object:
        """Waits for an event."""
        chosen = lambda found: [e for e in found if e["reason"] == reason and text in e["message"]]  # noqa: E731
        return chosen(self.wait("event", chosen))[0]


def refusal(code: int, call: Callable[[], Any]) -> Object:
    """Makes the call, which is to fail with this code; the Status."""
    with pytest.raises(Refused) as caught:
        call()
    status = caught.value.status
    assert caught.value.code == code, status
    assert (status["kind"], status["code"], status["status"]) == ("Status", code, "Failure")
    return status


class Objects:
    """Small objects to create."""

    @staticmethod
    def container(**more: Any) -> Object:
        name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        port = {"name": "http", "containerPort": 8080}
        probe = {"httpGet": {"path": "/simple", "port": 9999}, "periodSeconds": 1}
        made = {"name": "web", "image": "lab/demo:1", "ports": [port], "env": [name], "readinessProbe": probe}
        return {**made, **more}

    @classmethod
    def rc(cls, name: str, replicas: int = 1, *, env: dict[str, str] | None = None, **more: Any) -> Object:
        """A ReplicationController; `more` goes to the container."""
        labels, container = {"name": name}, cls.container(**more)
        container["env"] = [*container["env"], *({"name": key, "value": value} for key, value in (env or {}).items())]
        spec = {"containers": [container], "terminationGracePeriodSeconds": 5}
        template = {"metadata": {"labels": labels}, "spec": spec}
        meta = {"name": name, "labels": labels}
        return {"metadata": meta, "spec": {"replicas": replicas, "selector": labels, "template": template}}

    @classmethod
    def pod(cls, name: str, *, labels: dict[str, str] | None = None, spec: Object | None = None, **more: Any) -> Object:
        spec = {"containers": [cls.container(**more)], "terminationGracePeriodSeconds": 5, **(spec or {})}
        return {"metadata": {"name": name, "labels": labels or {"name": name}}, "spec": spec}

    @staticmethod
    def service(name: str, **more: Any) -> Object:
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        return {"metadata": {"name": name}, "spec": {"selector": {"name": name}, "ports": ports, **more}}

    @staticmethod
    def ingress(name: str, host: str, service: str, annotations: dict[str, str] | None = None) -> Object:
        backend = {"service": {"name": service, "port": {"number": 80}}}
        rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        meta = {"name": name, "annotations": annotations or {}}
        return {"metadata": meta, "spec": {"ingressClassName": "nginx", "rules": [rule]}}

    @staticmethod
    def http_route(
        name: str, host: str, *rules: Object, section: str = "http", gateway: str = "edge", namespace: str = "infra"
    ) -> Object:
        parent = {"name": gateway, "namespace": namespace, "sectionName": section}
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": name},
            "spec": {"parentRefs": [parent], "hostnames": [host], "rules": list(rules)},
        }


@pytest.fixture(scope="session")
def objects() -> type[Objects]:
    return Objects


@pytest.fixture(scope="session")
def refused() -> Callable[[int, Callable[[], Any]], Object]:
    return refusal


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    state: Path = tmp_path_factory.mktemp("sandbox")
    running = start(state, ingress_delay=INGRESS_DELAY, options=("--bookmark-interval", "0.2", "--probe-factor", "0.1"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def api(sandbox: Sandbox) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(sandbox.kubeconfig) as connected:
        yield connected
        connected.rest_client.pool_manager.clear()


@pytest.fixture
def cluster(api: client.ApiClient) -> Iterator[Cluster]:
    name, core = f"test-{uuid.uuid4().hex[:8]}", client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    yield Cluster(api, name)
    core.delete_namespace(name)

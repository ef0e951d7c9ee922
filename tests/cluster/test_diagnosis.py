"""Why deployments fail on a real Kubernetes, in its own words; and what heals by waiting and must not fail.

All the deployments that fail run at once, so that the back-offs of the node overlap, and each test looks at one of
them. Each is the second version of an app whose first one is live. So do those that must not fail.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.conftest import IMAGE, RealWorld
from deployer.api.app import create_app
from deployer.api.server import Server
from deployer.api.stream.server import LogStream
from deployer.core.errors import KubeError, KubeNotFound
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, EVENT, NAMESPACE, POD, SECRET, SERVICE, Kind
from deployer.core.model.records import Deployment, HealthData, Status
from deployer.toolkit.health import runner as rounds
from support.world import describe

Document = dict[str, Any]

PATIENCE = 150.0
"""Seconds for any of these deployments to end: the third pull or restart comes after 40 s, and the machine is slow."""

START_TIMEOUT = 300.0
"""As in production: what cannot heal must fail long before."""

QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
WEBHOOKS = Kind(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False
)
POLICY = Kind("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False)
BINDING = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    False,
)
REGISTRY_PORT = random.randint(20_000, 29_000)
"""Where something answers 404 to every pull, on the node itself: what a registry says of an image that it has not."""


# --- what is deployed ---------------------------------------------------------------------------------------------


def spec(container: Document | None = None, **pod: Any) -> Document:
    """A podspec of the demo with these changes."""
    web = {
        "name": "web",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080}],
        **(container or {}),
    }
    return {"terminationGracePeriodSeconds": 1, "containers": [web], **pod}


def env(**values: str) -> list[Document]:
    return [{"name": name, "value": value} for name, value in values.items()]


def probe(path: str = "/healthy", **more: Any) -> Document:
    return {"httpGet": {"path": path, "port": 9999}, "periodSeconds": 1, **more}


def health(path: str, port: int = 9999, checker: str = "probe", **more: Any) -> Document:
    asked = {"healthCheckPath": path, "healthCheckPort": port, "healthCheckType": checker}
    return {"podspec": spec(), "useHealthCheck": True, **asked, **more}


VOLUME = [{"name": "v", "mountPath": "/v"}]


@dataclass
class Case:
    """A deployment that fails. `says` is what the sentence is, `log` what else the log has; both are expressions.

    pod     does `failure` name one? None: perhaps
    within  seconds from the creation of the objects on; the kubelet's back-offs, our grace times and a slow machine are
            in them
    """

    reason: str
    says: str
    hint: str
    log: str
    fields: Document
    within: float = 60.0
    pod: bool | None = True
    obstacle: Callable[[RealWorld, str], None] | None = None


def pods_are_refused(world: RealWorld, namespace: str) -> None:
    """Wait until an obstacle to pods has come into effect, which takes the API server a moment."""
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try"}, "spec": spec()}

    def refused() -> bool:
        try:
            world.eyes.create(POD, body, namespace, dry_run=True)
        except KubeError:
            return True
        return False

    world.until(refused, f"pods to be refused in {namespace}")


def quota(hard: Document) -> Callable[[RealWorld, str], None]:
    def put(world: RealWorld, namespace: str) -> None:
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}
        world.eyes.create(QUOTA, body, namespace)
        world.until(lambda: world.eyes.get(QUOTA, "q", namespace).get("status", {}).get("used"), "the quota to count")

    return put


def pod_security(world: RealWorld, namespace: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    world.eyes.patch(NAMESPACE, namespace, {"metadata": {"labels": labels}}, None)


def just(namespace: str) -> Document:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


PODS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def webhook(world: RealWorld, namespace: str) -> None:
    """One that nobody answers."""
    hook = {
        "name": "closed.deployer.test",
        "clientConfig": {"url": "https://127.0.0.1:9/"},
        "rules": [PODS],
        "namespaceSelector": just(namespace),
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    about = {"apiVersion": WEBHOOKS.api_version, "kind": WEBHOOKS.kind, "metadata": {"name": namespace}}
    world.eyes.create(WEBHOOKS, {**about, "webhooks": [hook]}, None)
    pods_are_refused(world, namespace)


def policy(world: RealWorld, namespace: str) -> None:
    """One that denies every pod."""
    rule = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [PODS]},
        "validations": [{"expression": "false", "message": "only on Fridays"}],
    }
    about = {"apiVersion": POLICY.api_version, "metadata": {"name": namespace}}
    world.eyes.create(POLICY, {**about, "kind": POLICY.kind, "spec": rule}, None)
    bound = {
        "policyName": namespace,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": just(namespace)},
    }
    world.eyes.create(BINDING, {**about, "kind": BINDING.kind, "spec": bound}, None)
    pods_are_refused(world, namespace)


def remove_cluster_scoped(world: RealWorld, namespace: str) -> None:
    for kind in (WEBHOOKS, BINDING, POLICY):
        with contextlib.suppress(KubeNotFound):
            found = world.eyes.get(kind, namespace, None)
            world.eyes.delete(kind, namespace, None, uid=found["metadata"]["uid"])


ABSENT = f"127.0.0.1:{REGISTRY_PORT}/none:1"
SECRET_ENV = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]
CRASHING = {"name": "side", "image": IMAGE, "imagePullPolicy": "IfNotPresent"}
CRASHING["env"] = env(CRASH_AFTER="0.2", PORT="8181", HEALTH_PORT="9191")  # type: ignore[assignment]

STORM: dict[str, Case] = {
    "image-absent": Case(
        "ImagePull",
        rf"the image {ABSENT} of container web of pod image-absent-2-\w+ could not be pulled 2 times: .*not found",
        "name and tag",
        rf'Failed( \(2 times\))?: Failed to pull image "{ABSENT}": .*not found',
        {"podspec": spec({"image": ABSENT})},
        30.0,
    ),
    "image-refused": Case(
        "ImagePull",
        r"the image 127.0.0.1:9/none:1 of container web of pod \S+ could not be pulled 3 times: .*connection refused",
        "reach the registry",
        "ErrImagePull in container web: .*connection refused",
        {"podspec": spec({"image": "127.0.0.1:9/none:1"})},
        75.0,
    ),
    "image-name": Case(
        "InvalidImageName",
        r'container web of pod \S+ cannot use the image "UPPER:::": invalid reference format: .*must be lowercase$',
        "correct the image's name",
        "InspectFailed",
        {"podspec": spec({"image": "UPPER:::"})},
        20.0,
    ),
    "image-never": Case(
        "ErrImageNeverPull",
        r'container web of pod \S+ cannot use the image "lab/none:1": .*not present with pull policy of Never',
        "imagePullPolicy",
        "ErrImageNeverPull",
        {"podspec": spec({"image": "lab/none:1", "imagePullPolicy": "Never"})},
        20.0,
    ),
    "crash": Case(
        "CrashLoop",
        r"container web of pod crash-2-\w+ was restarted 3 times, it ended with exit code 3",
        "last lines",
        r"last lines of container web in pod crash-2-\w+:\n  starting version 2\n  crashing on purpose",
        {"podspec": spec({"env": env(CRASH_AFTER="0.1"), "readinessProbe": probe("/error")})},
        75.0,
    ),
    "crash-beside": Case(
        "CrashLoop",
        r"container side of pod crash-beside-2-\w+ was restarted 3 times, it ended with exit code 3",
        "last lines",
        r"last lines of container side in pod \S+:\n  starting version 2\n  crashing on purpose",
        {
            "podspec": {
                **(two := spec({"readinessProbe": probe(initialDelaySeconds=3)})),
                "containers": [*two["containers"], CRASHING],
            }
        },
        75.0,
    ),
    "crash-init": Case(
        "CrashLoop",
        r"container setup of pod crash-init-2-\w+ was restarted 3 times, it ended with exit code 3",
        "last lines",
        r"last lines of container setup in pod \S+:\n  starting version 2\n  crashing on purpose",
        {"podspec": spec(initContainers=[{**CRASHING, "name": "setup"}])},
        75.0,
    ),
    "liveness": Case(
        "CrashLoop",
        r"container web of pod \S+ was restarted 3 times because its liveness probe failed: .*code: 500",
        "correct the liveness probe",
        r"Unhealthy \(\d+ times\): Liveness probe failed",
        {"podspec": spec({"livenessProbe": probe("/error", failureThreshold=1), "readinessProbe": probe("/error")})},
        75.0,
    ),
    "out-of-memory": Case(
        "CrashLoop",
        r"container web of pod \S+ was restarted 3 times, it ended with exit code 137 \(OOMKilled\)$",
        "raise the container's memory limit",
        "last lines of container web",
        {
            "podspec": spec(
                {
                    "env": env(GOGC="off"),
                    "resources": {"limits": {"memory": "16Mi"}, "requests": {"cpu": "1m"}},
                    "readinessProbe": probe("/error"),
                }
            )
        },
        75.0,
    ),
    "memory": Case(
        "StartError",
        r"container web of pod \S+ cannot be started: .*memory limit",
        "raise the container's memory limit",
        "Failed",
        {"podspec": spec({"resources": {"limits": {"memory": "1Mi"}, "requests": {"cpu": "1m"}}})},
        30.0,
    ),
    "command": Case(
        "StartError",
        r'container web of pod \S+ cannot be started: exec: "/nope": stat /nope: no such file or directory',
        "correct the container's command",
        r"Failed( \(\d+ times\))?: Error: failed to create containerd task",
        {"podspec": spec({"command": ["/nope"]})},
        30.0,
    ),
    "hook": Case(
        "CrashLoop",
        r'container web of pod \S+ was restarted 3 times because its postStart hook failed: exec: "/nope": stat /nope',
        "postStart",
        "FailedPostStartHook",
        {"podspec": spec({"lifecycle": {"postStart": {"exec": {"command": ["/nope"]}}}})},
        75.0,
    ),
    "cpu": Case(
        "Unschedulable",
        r"pod \S+ cannot be scheduled: 0/\d+ nodes are available: .*Insufficient cpu$",
        "add nodes",
        r"cannot be scheduled: .*Insufficient cpu",
        {"podspec": spec({"resources": {"requests": {"cpu": "9999"}}})},
        50.0,
    ),
    "selector": Case(
        "Unschedulable",
        r"pod \S+ cannot be scheduled: .*node affinity/selector",
        "nodeSelector",
        "FailedScheduling",
        {"podspec": spec(nodeSelector={"nobody": "has"})},
        50.0,
    ),
    "secret": Case(
        "CreateContainerConfigError",
        r'container web of pod \S+ cannot be created: secret "none" not found',
        "create that Secret",
        r'Failed( \(\d+ times\))?: Error: secret "none" not found',
        {"podspec": spec({"env": SECRET_ENV})},
        45.0,
    ),
    "root": Case(
        "CreateContainerConfigError",
        r"container web of pod \S+ cannot be created: container has runAsNonRoot and image will run as root$",
        "securityContext",
        "runAsNonRoot",
        {"podspec": spec({"securityContext": {"runAsNonRoot": True}})},
        20.0,
    ),
    "volume": Case(
        "FailedMount",
        r'pod \S+ waits for a volume that cannot be mounted: .*configmap "none" not found',
        "ConfigMap",
        "FailedMount",
        {"podspec": spec({"volumeMounts": VOLUME}, volumes=[{"name": "v", "configMap": {"name": "none"}}])},
        50.0,
    ),
    "account": Case(
        "PodsRefused",
        r'the cluster refuses the pods of account-2: .*serviceaccount "nobody" not found',
        "serviceAccountName",
        "FailedCreate",
        {"podspec": spec(serviceAccountName="nobody")},
        45.0,
        pod=False,
    ),
    "quota": Case(
        "PodsRefused",
        r"the cluster refuses the pods of quota-2: .*exceeded quota: q, requested: pods=1, used: pods=1",
        "free or raise the quota",
        "FailedCreate",
        {"podspec": spec()},
        45.0,
        pod=False,
        obstacle=quota({"pods": "1"}),
    ),
    "limits": Case(
        "PodsRefused",
        r"the cluster refuses the pods of limits-2: .*must specify limits.cpu",
        "requests and limits",
        "failed: the cluster refuses the pods of limits-2: ",
        {"podspec": spec()},
        15.0,
        pod=False,
        obstacle=quota({"limits.cpu": "1"}),
    ),
    "security": Case(
        "PodsRefused",
        r'the cluster refuses the pods of security-2: .*violates PodSecurity "restricted:latest"',
        "securityContext",
        "failed: the cluster refuses the pods of security-2: ",
        {"podspec": spec()},
        15.0,
        pod=False,
        obstacle=pod_security,
    ),
    "webhook": Case(
        "PodsRefused",
        r"the cluster refuses the pods of webhook-2: .*failed calling webhook .*connection refused",
        "webhook",
        "FailedCreate",
        {"podspec": spec()},
        45.0,
        pod=False,
        obstacle=webhook,
    ),
    "policy": Case(
        "PodsRefused",
        r"the cluster refuses the pods of policy-2: .*denied request: only on Fridays",
        "as the policy demands",
        "failed: the cluster refuses the pods of policy-2: ",
        {"podspec": spec()},
        15.0,
        pod=False,
        obstacle=policy,
    ),
    "never-http": Case(
        "NotReady",
        r"not ready in time: 0 of 1 pods are ready; pod \S+ is not ready: Readiness probe failed: .*statuscode: 500",
        "timeoutSeconds",
        r"pod \S+: is not ready: Readiness probe failed",
        {"podspec": spec({"readinessProbe": probe("/error")}), "timeoutSeconds": 15},
        25.0,
    ),
    "never-tcp": Case(
        "NotReady",
        r"not ready in time: 0 of 1 pods are ready; pod \S+ is not ready: Readiness probe failed: dial tcp .*refused",
        "timeoutSeconds",
        "last lines of container web",
        {"podspec": spec({"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1}}), "timeoutSeconds": 15},
        25.0,
    ),
    "late": Case(
        "NotReady",
        r"not ready in time: [01] of 2 pods are ready; 1 more could not be created: .*exceeded quota",
        "timeoutSeconds",
        "0 of 2 pods ready",
        {"podspec": spec(), "replicas": 2, "timeoutSeconds": 9},
        25.0,
        pod=None,
        obstacle=quota({"pods": "2"}),
    ),
}

LIVE = {"podspec": spec()}

# Checks are given little time, so these come after the storm, when the node is calm again.
CHECKED: dict[str, Case] = {
    "unhealthy": Case("Unhealthy", r'reports healthy: false', "answer to /unhealthy", "answer of", health("unhealthy")),
    "hanging": Case(
        "Unhealthy", r"gave no complete answer within 1\.8 s", "port 8080", "last lines", health("slow", 8080)
    ),
    "refused": Case(
        "Unhealthy", r"refused the connection", "(healthCheckPort)", "last lines of container web", health("x", 7)
    ),
    "no-json": Case("Unhealthy", r"not JSON", "own answer", r"answer of \S+: version 2 on", health("/", 8080)),
    "error": Case("Unhealthy", r"answered HTTP 500", "why it answers HTTP 500", "not healthy yet", health("error")),
    "crashing": Case(  # ready between one crash and the next, as there is no probe
        "Unhealthy", r"refused the connection.*; it had container web restarted once, it ended with exit code 3",
        "readinessProbe", "crashing on purpose",
        {**health("health"), "podspec": spec({"env": env(CRASH_AFTER="2.5", HEALTH_PORT="9998")})},
    ),
    "simple": Case(
        "Unhealthy", r"answered HTTP 503 to its health check, not 2xx", "HTTP 503", r"answer of \S+: ok",
        {**health("simple", checker="simple"), "podspec": spec({"env": env(FAIL="1")})},
    ),
}  # fmt: skip


# --- carrying them out --------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """All deployments of a kind, begun together."""

    world: RealWorld
    places: dict[str, str] = field(default_factory=dict)
    first: dict[str, Deployment] = field(default_factory=dict)
    second: dict[str, Deployment] = field(default_factory=dict)

    def deploy(self, app: str, **fields: Any) -> Deployment:
        """In the app's namespace."""
        body = describe(self.places[app], app, **fields)
        service = self.world.service
        descriptor = service.descriptors.create(self.places[app], json.dumps(body).encode())
        return service.deploy(self.places[app], descriptor.id)

    def ended(self, deployment: Deployment, status: Status) -> Deployment:
        """The deployment at its end."""

        def end() -> Deployment | None:
            found = self.world.store.get(Deployment, deployment.id)
            return found if found and not found.status.moving else None

        found = self.world.until(end, f"{deployment.app} to end", PATIENCE)
        assert found.status is status, f"{found.status}: {found.failure}\n{self.world.log(found.id)}"
        return found

    def all_live(self) -> None:
        """A first version of every app."""
        for app in self.places:
            self.first[app] = self.deploy(app, **LIVE)
        for deployment in self.first.values():
            self.ended(deployment, Status.DEPLOYED)

    def names(self, kind: Kind, app: str) -> set[str]:
        """The app's objects."""
        found = self.world.eyes.list(kind, self.places[app], {"app": app})[0]
        return {o["metadata"]["name"] for o in found if not o["metadata"].get("deletionTimestamp")}


def own_namespace(world: RealWorld) -> str:
    name = f"{world.namespace}-{uuid.uuid4().hex[:6]}"
    world.eyes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, None)
    return name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorld]:
    """A Deployer with the settings of production, but for the time that health checks may take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "CHECK_TIMEOUT", 1.8)
        path, name = tmp_path_factory.mktemp("diagnosis"), f"t-{uuid.uuid4().hex[:8]}"
        made = RealWorld(None, path, name, ingress="none", plugins={}, timeout=8.0, start_timeout=START_TIMEOUT)
        made.start()
        yield made
        made.close()


@contextlib.contextmanager
def staged(world: RealWorld, apart: set[str], together: set[str]) -> Iterator[Stage]:
    """A namespace of its own for those apart, and the world's for the others; all gone at the end."""
    stage = Stage(world, dict.fromkeys(sorted(together), world.namespace))
    try:
        for app in sorted(apart):
            stage.places[app] = own_namespace(world)
        yield stage
    finally:
        for app in apart & stage.places.keys():
            remove_cluster_scoped(world, stage.places[app])
            found = world.eyes.get(NAMESPACE, stage.places[app], None)
            world.eyes.delete(NAMESPACE, stage.places[app], None, uid=found["metadata"]["uid"])


@pytest.fixture(scope="module")
def storm(world: RealWorld) -> Iterator[Stage]:
    """Everything that fails while it starts, at once."""
    apart = {app for app, case in STORM.items() if case.obstacle}
    with staged(world, apart, set(STORM) - apart) as stage, something_that_answers_404(world):
        stage.all_live()
        for app, case in sorted(STORM.items(), key=lambda item: bool(item[1].obstacle)):
            if case.obstacle:
                case.obstacle(world, stage.places[app])
            stage.second[app] = stage.deploy(app, **case.fields)
        feeder = threading.Thread(target=feed, args=(stage, "out-of-memory"))
        feeder.start()
        yield stage
        feeder.join()


def feed(stage: Stage, app: str) -> None:
    """Requests with headers of 900 KB, until the app has died often enough: it never gives memory back."""

    def address() -> str:
        found = stage.world.eyes.list(POD, stage.places[app], {"app": app, "version": "2"})[0]
        return next((p["status"]["podIP"] for p in found if p["status"].get("podIP")), "")

    def over() -> bool:
        found = stage.world.store.get(Deployment, stage.second[app].id)
        return found is None or not found.status.moving

    def fed() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if (at := address()) == "":
                return over()
            connection = http.client.HTTPConnection(at, 8080, timeout=5)
            with contextlib.closing(connection):
                for _ in range(40):
                    connection.request("GET", "/", headers={"X-Food": "x" * 900_000})
                    connection.getresponse().read()
        return over()

    stage.world.until(fed, f"{app} to be killed", PATIENCE)


@contextlib.contextmanager
def something_that_answers_404(world: RealWorld) -> Iterator[None]:
    ports = env(HEALTH_PORT=str(REGISTRY_PORT), PORT=str(REGISTRY_PORT + 1))
    podspec = spec({"env": ports, "ports": [], "readinessProbe": {"tcpSocket": {"port": REGISTRY_PORT}}})
    about = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "registry"}}
    made = world.eyes.create(POD, {**about, "spec": {**podspec, "hostNetwork": True}}, world.namespace)

    def ready() -> bool:
        found = world.eyes.get(POD, "registry", world.namespace)
        return any(c.get("ready") for c in found["status"].get("containerStatuses", ()))

    world.until(ready, "the registry to answer")
    yield
    world.eyes.delete(POD, "registry", world.namespace, uid=made["metadata"]["uid"])


# --- what a failure looks like ------------------------------------------------------------------------------------


def seconds_between(log: str, first: str, last: str) -> float:
    """Seconds between two lines of a log, each found by what it begins with."""

    def at(begin: str) -> datetime.datetime:
        found = re.search(rf"^(\S+) {begin}", log, re.MULTILINE)
        assert found, f"no line begins with {begin}:\n{log}"
        return datetime.datetime.fromisoformat(found[1])

    return (at(last) - at(first)).total_seconds()


def is_told_in_full(stage: Stage, app: str, case: Case) -> Deployment:
    """The failure of an app's second version, in the record and the log, and nothing of it left."""
    ended = stage.ended(stage.second[app], Status.FAILURE)
    log, failure = stage.world.log(ended.id), ended.failure
    assert failure, log
    told = f"{failure}\n{log}"
    print(told)  # noqa: T201 - pytest shows it when the test fails, or on demand: read it as a newcomer would
    assert failure["reason"] == case.reason, told
    assert re.search(case.says, failure["message"]), told
    assert "\n" not in failure["message"] and len(failure["message"]) < 1200, told
    assert case.hint in failure["hint"] and "\n" not in failure["hint"], told
    assert case.pod is None or bool(re.fullmatch(rf"{app}-2-\w+", failure.get("pod", ""))) == case.pod, told
    assert re.search(case.log, log), told
    assert log.count(f"failed: {failure['message']} ({failure['hint']})\n") == 1, told
    ends = (f"FAILURE: {case.reason}, as said above\n", "its pods have ended\n")  # which may take them a moment
    assert log.endswith(ends) or "waiting for its pods to end" in log, told
    assert seconds_between(log, "created ", "failed: ") < case.within, told
    # The old version is live, as it was, and nothing of the new one is left.
    assert stage.names(CONTROLLER, app) == {f"{app}-1"}, told
    assert stage.names(SERVICE, app) == {app, f"{app}-1"}, told

    def only_the_old() -> list[Document]:
        found = stage.world.eyes.list(POD, stage.places[app], {"app": app})[0]
        return found if [p["metadata"]["labels"]["version"] for p in found] == ["1"] else []

    pods = stage.world.until(only_the_old, f"the pods of {app} to end")
    assert all(s["ready"] and not s["restartCount"] for p in pods for s in p["status"]["containerStatuses"]), told
    service = stage.world.eyes.get(SERVICE, app, stage.places[app])
    assert service["spec"]["selector"] == {"app": app, "version": "1"}, told
    assert stage.ended(stage.first[app], Status.DEPLOYED)
    return ended


@pytest.mark.parametrize("app", STORM)
def test_it_fails_and_says_why(storm: Stage, app: str) -> None:
    is_told_in_full(storm, app, STORM[app])


def test_rest_tells_it_too(storm: Stage) -> None:
    ended = is_told_in_full(storm, "crash", STORM["crash"])
    service = storm.world.service
    server = Server(create_app(service, list, list), LogStream(service), "127.0.0.1", 0)
    server.start()
    try:

        def get(path: str) -> str:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            with contextlib.closing(connection):
                connection.request("GET", f"/deployments/{ended.id}/{path}?namespace={ended.namespace}")
                answer = connection.getresponse()
                assert answer.status == 200
                return answer.read().decode()

        deployment = json.loads(get(""))
        assert deployment["status"] == "FAILURE"
        assert deployment["failure"].keys() == {"reason", "message", "pod", "hint"}
        assert deployment["failure"]["reason"] == "CrashLoop" and "exit code 3" in deployment["failure"]["message"]
        lines = get("logs")
        assert "\n  crashing on purpose\n" in lines and "failed: container web of pod crash-2-" in lines
    finally:
        server.stop(5)


@pytest.mark.parametrize("app", CHECKED)
def test_a_health_check_stops_it_and_says_why(calm: Stage, app: str) -> None:
    case = CHECKED[app]
    ended = is_told_in_full(calm, app, case)
    assert ended.failure and ended.failure["message"].startswith("the health checks did not pass in time: pod ")
    kept = calm.world.store.get(HealthData, ended.id)
    assert kept and [entry["podName"] for entry in kept.entries] == [ended.failure["pod"]]
    (entry,) = kept.entries  # also of a pod that hung, or answered without a word
    assert not entry["healthy"] and entry["message"] in ended.failure["message"], entry
    assert entry.get("status") == {"unhealthy": 200, "no-json": 200, "error": 500, "simple": 503}.get(app), entry


# --- what heals ---------------------------------------------------------------------------------------------------


def late_secret(world: RealWorld, namespace: str, app: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"k": "v"}}
    world.eyes.create(SECRET, body, namespace)


def late_config(world: RealWorld, namespace: str, app: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"k": "v"}}
    world.eyes.create(CONFIG_MAP, body, namespace)


def crash_no_more(world: RealWorld, namespace: str, app: str) -> None:
    world.eyes.patch(CONFIG_MAP, "crash", {"data": {"after": "0"}}, namespace)


def more_quota(world: RealWorld, namespace: str, app: str) -> None:
    world.eyes.patch(QUOTA, "q", {"spec": {"hard": {"pods": "9"}}}, namespace)


def new_pod(world: RealWorld, namespace: str, app: str) -> Document:
    """The one of the second version."""

    def find() -> Document | None:
        found = world.eyes.list(POD, namespace, {"app": app, "version": "2"})[0]
        return found[0] if found else None

    return world.until(find, f"a pod of {app}")


def image_appears(world: RealWorld, namespace: str, app: str) -> None:
    """As if somebody had pushed it: nothing can be pushed here, but a pod's image can be changed."""

    def failed_twice() -> bool:
        uid = new_pod(world, namespace, app)["metadata"]["uid"]
        events = world.eyes.list(EVENT, namespace, None, f"involvedObject.uid={uid}")[0]
        return sum(e.get("count") or 1 for e in events if "Failed to pull image" in e["message"]) >= 2

    world.until(failed_twice, "two failed pulls")
    name = new_pod(world, namespace, app)["metadata"]["name"]
    (container,) = new_pod(world, namespace, app)["spec"]["containers"]
    world.eyes.patch(POD, name, {"spec": {"containers": [{**container, "image": IMAGE}]}}, namespace)


def pod_goes(world: RealWorld, namespace: str, app: str) -> None:
    found = new_pod(world, namespace, app)["metadata"]
    world.eyes.delete(POD, found["name"], namespace, uid=found["uid"])


@dataclass
class Healing:
    """A deployment that meets `trouble` (the log says so), which `heals` puts right, and which then succeeds."""

    trouble: str
    fields: Document
    heals: Callable[[RealWorld, str, str], None] | None = None
    obstacle: Callable[[RealWorld, str], None] | None = None


LATE_ENV = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]
AFTER = [{"name": "CRASH_AFTER", "valueFrom": {"configMapKeyRef": {"name": "crash", "key": "after"}}}]

HEALING: dict[str, Healing] = {
    "one-restart": Healing(
        "was restarted once, it ended with exit code 3",
        {"podspec": spec({"env": AFTER, "readinessProbe": probe(initialDelaySeconds=3)})},
        crash_no_more,
    ),
    "secret-comes": Healing(
        'CreateContainerConfigError in container web: secret "late" not found',
        {"podspec": spec({"env": LATE_ENV})},
        late_secret,
    ),
    "volume-comes": Healing(
        "waits for a volume: ",
        {"podspec": spec({"volumeMounts": VOLUME}, volumes=[{"name": "v", "configMap": {"name": "late"}}])},
        late_config,
    ),
    "slow": Healing(
        "is not ready: Readiness probe failed",
        {"podspec": spec({"env": env(SLOW_START="10"), "readinessProbe": probe()})},
    ),
    "quota-freed": Healing(
        "the cluster refuses the pods of quota-freed-2: ",
        {"podspec": spec()},
        more_quota,
        quota({"pods": "1"}),
    ),
    "pushed-late": Healing(
        "ErrImagePull in container web",
        {"podspec": spec({"image": "127.0.0.1:9/none:1"})},
        image_appears,
    ),
    "pod-goes": Healing(
        "0 of 1 pods ready",
        {"podspec": spec({"env": env(SLOW_START="3"), "readinessProbe": probe()})},
        pod_goes,
    ),
}


@pytest.fixture(scope="module")
def calm(world: RealWorld, storm: Stage) -> Iterator[Stage]:
    """Everything that a health check stops and everything that heals, at once, after the storm."""
    for deployment in storm.second.values():
        storm.ended(deployment, Status.FAILURE)
    cases = {**CHECKED, **HEALING}
    apart = {app for app, case in cases.items() if case.obstacle}
    crash = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "crash"}, "data": {"after": "0.2"}}
    world.eyes.create(CONFIG_MAP, crash, world.namespace)
    helpers = []
    with staged(world, apart, cases.keys() - apart) as stage:
        stage.all_live()
        for app, case in cases.items():
            if case.obstacle:
                case.obstacle(world, stage.places[app])
            stage.second[app] = stage.deploy(app, **case.fields)
            if app in HEALING:
                helpers.append(threading.Thread(target=heal, args=(stage, app)))
                helpers[-1].start()
        yield stage
        for helper in helpers:
            helper.join()


def heal(stage: Stage, app: str) -> None:
    case, id = HEALING[app], stage.second[app].id
    stage.world.until(lambda: case.trouble in stage.world.log(id), f"{app} to be in trouble", PATIENCE)
    if case.heals:
        case.heals(stage.world, stage.places[app], app)


@pytest.mark.parametrize("app", HEALING)
def test_what_heals_is_waited_for(calm: Stage, app: str) -> None:
    ended = calm.ended(calm.second[app], Status.DEPLOYED)
    log = calm.world.log(ended.id)
    assert HEALING[app].trouble in log and "1 of 1 pods ready" in log and "Z failed: " not in log
    service = calm.world.eyes.get(SERVICE, app, calm.places[app])
    assert service["spec"]["selector"] == {"app": app, "version": "2"}

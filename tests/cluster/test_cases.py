"""Podspecs and situations that people really have, on a real Kubernetes.

All apps are deployed at once by one Deployer, so that their waits overlap: what runs is deployed twice and undeployed
with nothing left, what fails leaves the version before serving and says why long before its time to start is up.

`DEPLOYER_TEST_END_IMAGE` names an image whose program ends well at once, for init containers (default `lab/true:1`).
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes
import pytest

from cluster.conftest import IMAGE, RealWorld
from deployer.core.errors import Invalid
from deployer.core.model.kind import CONTROLLER, POD, SECRET, SERVICE, Kind
from deployer.core.model.records import Deployment, Status
from support.world import HEALTHY, describe

pytestmark = pytest.mark.timeout(240)

Document = dict[str, Any]

END_IMAGE = os.environ.get("DEPLOYER_TEST_END_IMAGE", "lab/true:1")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CLASS = Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
VOLUME = Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)

START_TIMEOUT = 300.0
UNSCHEDULABLE_GRACE = 8.0
ADMISSION_GRACE = 5.0
PATIENCE = 120.0
"""Seconds for any of these deployments to end, all of them at once on a slow machine."""


# --- what is deployed ---------------------------------------------------------------------------------------------


def web(**more: Any) -> Document:
    """The app's container."""
    return {
        "name": "web",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        **more,
    }


def env(**values: str) -> list[Document]:
    return [{"name": name, "value": value} for name, value in values.items()]


def helper(name: str, image: str = IMAGE, **more: Any) -> Document:
    """An init container."""
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", **more}


def spec(container: Document | None = None, **pod: Any) -> Document:
    return {"terminationGracePeriodSeconds": 1, "containers": [web(**(container or {}))], **pod}


SMALL = {"medium": "Memory", "sizeLimit": "16Mi"}
TOKEN = {"serviceAccountToken": {"path": "token", "audience": "db", "expirationSeconds": 3600}}
LABELS = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
SPREAD = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
OF_APP = {"labelSelector": {"matchLabels": {"app": "spread"}}}
APART = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}}

SECRET_KEY = {"secretKeyRef": {"name": "db", "key": "host"}}
SIDECAR = {"restartPolicy": "Always", "env": env(PORT="8181", HEALTH_PORT="9191"), "ports": [{"containerPort": 8181}]}

RUNS: dict[str, Document] = {
    "bound": spec(
        {"volumeMounts": [{"name": "binding", "mountPath": "/bindings", "readOnly": True}]},
        volumes=[{"name": "binding", "projected": {"sources": [{"secret": {"name": "db"}}, LABELS, TOKEN]}}],
    ),
    "management-port": spec(
        {
            "env": [
                *env(HEALTH_PORT="9000"),
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                *env(OPTIONS="-Dbind=$(POD_IP) $$(NO_REFERENCE)"),
            ],
            "args": ["start"],
            "startupProbe": {"httpGet": {"path": "/health", "port": 9000}, "periodSeconds": 1, "failureThreshold": 600},
            "livenessProbe": {"httpGet": {"path": "/health", "port": 9000}},
        }
    ),
    "claimed": spec(
        {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        securityContext={"fsGroup": 472, "supplementalGroups": [0], "fsGroupChangePolicy": "OnRootMismatch"},
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    ),
    "cache": spec(
        {
            "env": env(PORT="6379"),
            "ports": [{"containerPort": 6379}, {"name": "grpc", "containerPort": 9999}],
            "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        },
        securityContext={"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
        volumes=[{"name": "data", "emptyDir": SMALL}],
    ),
    "spread": spec(
        topologySpreadConstraints=[{**SPREAD, **OF_APP, "matchLabelKeys": ["version"], "nodeTaintsPolicy": "Honor"}],
        affinity={
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", **OF_APP}}
                ]
            }
        },
        tolerations=[{"key": "dedicated", "operator": "Equal", "value": "web", "effect": "NoSchedule"}],
    ),
    "prepared": spec(
        initContainers=[
            helper("wait", END_IMAGE),
            helper(
                "migrate", END_IMAGE, env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "host"}}}]
            ),
        ],
    ),
    "restricted": spec(
        {
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        },
        automountServiceAccountToken=False,
        enableServiceLinks=False,
        securityContext={"runAsNonRoot": True, "runAsUser": 101, "seccompProfile": {"type": "RuntimeDefault"}},
    ),
    "names": spec(
        hostname="web-0",
        subdomain="headless",
        dnsPolicy="None",
        dnsConfig={"nameservers": ["198.18.0.10"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]},
        hostAliases=[{"ip": "10.1.2.3", "hostnames": ["legacy-db"]}, {"ip": "fd00::10", "hostnames": ["v6.example"]}],
    ),
    "secrets": spec(imagePullSecrets=[{"name": "registry"}, {"name": "not-there"}]),
    "sidecar": spec(initContainers=[helper("proxy", **SIDECAR)]),
    "floats": {
        "terminationGracePeriodSeconds": 1.0,
        "containers": [
            web(
                ports=[{"containerPort": 8080.0}],
                readinessProbe={"httpGet": {"path": "/", "port": 8080.0}, "periodSeconds": 1.0},
            )
        ],
    },
}


@dataclass(frozen=True)
class Fails:
    """A second version that fails. `says` and `log` are expressions; `within` seconds from its first object on."""

    podspec: Document
    reason: str
    says: str
    hint: str
    within: float
    first: Document = field(default_factory=spec)
    timeout: int | None = None
    log: str = ""


FAILS: dict[str, Fails] = {
    "apart": Fails(
        spec(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [APART]}}),
        "Unschedulable",
        "anti-affinity keeps it apart from the pods of version 1, which stay until the switch",
        "matchLabelKeys",
        UNSCHEDULABLE_GRACE + 12,
        first=spec(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [APART]}}),
    ),
    "crashing-sidecar": Fails(
        spec(initContainers=[helper("proxy", restartPolicy="Always", env=env(CRASH_AFTER="1", PORT="8181"))]),
        "CrashLoop",
        r"container proxy of pod \S+ was restarted 2 times, it ended with exit code 3",
        "last lines",
        75,
        log="container proxy was restarted once",
    ),
    "long-name": Fails(
        spec(hostname="h" * 60, subdomain="members-of-a-cluster", setHostnameAsFQDN=True),
        "FailedSetup",
        "is too long",
        "setHostnameAsFQDN",
        ADMISSION_GRACE + 40,
    ),
    "gated": Fails(
        spec(schedulingGates=[{"name": "example.com/foo"}]),
        "SchedulingGated",
        "is held back by its scheduling gate example.com/foo",
        "schedulingGates",
        UNSCHEDULABLE_GRACE + 12,
    ),
    "accelerated": Fails(
        spec(
            {"resources": {"claims": [{"name": "gpu"}]}},
            resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "gpu.example.com"}],
        ),
        "ResourceClaim",
        'resource claim template "gpu.example.com"',
        "resourceClaims",
        UNSCHEDULABLE_GRACE + 15,
    ),
    "windows": Fails(
        spec(os={"name": "windows"}, securityContext={"windowsOptions": {"runAsUserName": "ContainerUser"}}),
        "PodOSNotSupported",
        "2 pods failed one after the other: .*doesn't match node OS",
        "kubernetes.io/os",
        20,
    ),
    "runtime": Fails(
        spec(runtimeClassName="none.example.com"),
        "PodsRefused",
        'RuntimeClass "none.example.com" not found',
        "runtimeClassName",
        20,
    ),
    "late-secret": Fails(
        spec({"envFrom": [{"secretRef": {"name": "late"}}]}),
        "CreateContainerConfigError",
        'secret "late" not found',
        "create that Secret",
        ADMISSION_GRACE + 40,
    ),
    "slow-claim": Fails(
        spec(
            {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "fast"}}],
        ),
        "ClaimNotBound",
        'claim fast: storageclass.storage.k8s.io "none.example.com" not found',
        "StorageClass",
        UNSCHEDULABLE_GRACE + 15,
    ),
    "no-provisioner": Fails(
        spec(
            {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "later"}}],
        ),
        "ClaimNotBound",
        "waits for a volume for its claim later: .*external provisioner 'none.example.com'",
        "provisioner",
        40,
        timeout=20,
        log="waits for a volume for its claim later(.|\n)*failed: ",
    ),
    "no-scheduler": Fails(
        spec(schedulerName="nobody"),
        "SchedulerSilent",
        "nothing was heard of its scheduler, nobody",
        "schedulerName",
        UNSCHEDULABLE_GRACE + 15,
    ),
    "no-grpc": Fails(
        spec({"readinessProbe": {"grpc": {"port": 8080, "service": "readiness"}, "periodSeconds": 1}}),
        "NotReady",
        "Readiness probe failed: .*connect",
        "the probe",
        40,
        timeout=20,
        log="is not ready: Readiness probe failed",
    ),
    "endless-init": Fails(
        spec(initContainers=[helper("setup")]),
        "NotReady",
        "waits for init container setup to end",
        "init container setup must end",
        40,
        timeout=20,
        log=r"waits for init container setup to end(.|\n)*last lines of container setup",
    ),
}


def drains(**more: str) -> Document:
    """Its program takes its time to end."""
    return spec({"env": env(DRAIN="12", **more)}, terminationGracePeriodSeconds=60)


# --- the stage ----------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """What was deployed: by app its first and its second version."""

    world: RealWorld
    first: dict[str, Deployment] = field(default_factory=dict)
    second: dict[str, Deployment] = field(default_factory=dict)
    third: Deployment | None = None
    """Of the app whose second version takes long to end."""

    def deploy(self, app: str, podspec: Document, **fields: Any) -> Deployment:
        document = {**describe(self.world.namespace, app), "podspec": podspec, **fields}
        stored = self.world.service.descriptors.create(self.world.namespace, json.dumps(document).encode())
        return self.world.service.deploy(self.world.namespace, stored.id)

    def ended(self, deployment: Deployment, *statuses: Status) -> Deployment:
        def end() -> Deployment | None:
            found = self.world.store.get(Deployment, deployment.id)
            return found if found and not found.status.moving else None

        found = self.world.until(end, f"{deployment.app} to end", PATIENCE)
        assert not statuses or found.status in statuses, f"{found.failure}\n{self.world.log(found.id)}"
        return found

    def versions(self, app: str) -> set[str]:
        """The versions of the app that have pods."""
        found = self.world.eyes.list(POD, self.world.namespace, {"app": app})[0]
        return {pod["metadata"]["labels"]["version"] for pod in found}


def create(world: RealWorld, kind: Kind, name: str, **body: Any) -> Document:
    made = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **body}
    return world.eyes.create(kind, made, world.namespace if kind.namespaced else None)


def claim(class_name: str) -> Document:
    storage = {"requests": {"storage": "1Mi"}}
    return {"accessModes": ["ReadWriteOnce"], "storageClassName": class_name, "resources": storage}


@contextlib.contextmanager
def surroundings(world: RealWorld) -> Iterator[None]:
    """What the apps refer to."""
    create(world, SECRET, "db", stringData={"host": "db"})
    config = {".dockerconfigjson": '{"auths": {"registry.example.com": {"auth": "dTpw"}}}'}
    create(world, SECRET, "registry", type="kubernetes.io/dockerconfigjson", stringData=config)
    volume = {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": world.namespace}
    volume |= {"hostPath": {"path": f"/tmp/{world.namespace}", "type": "DirectoryOrCreate"}}
    made = create(world, VOLUME, world.namespace, spec={**volume, "persistentVolumeReclaimPolicy": "Retain"})
    # By the volume's name, so that nobody looks for a StorageClass before the two have found each other.
    data = create(world, CLAIM, "data", spec={**claim(world.namespace), "volumeName": world.namespace})
    create(world, CLAIM, "fast", spec=claim("none.example.com"))
    # The scheduler says nothing of a pod whose volume it waits for.
    late = create(
        world,
        CLASS,
        f"{world.namespace}-late",
        provisioner="none.example.com",
        volumeBindingMode="WaitForFirstConsumer",
    )
    create(world, CLAIM, "later", spec=claim(late["metadata"]["name"]))
    try:
        changes = world.eyes.watch(CLAIM, world.namespace, data["metadata"]["resourceVersion"], silence=30.0)
        with contextlib.closing(changes):
            bound = (
                found["status"].get("phase") == "Bound" for _, found in changes if found["metadata"]["name"] == "data"
            )
            assert any(bound), "the claim was not bound"
        yield
    finally:
        world.eyes.delete(VOLUME, world.namespace, None, uid=made["metadata"]["uid"])
        world.eyes.delete(CLASS, late["metadata"]["name"], None, uid=late["metadata"]["uid"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorld]:
    """A Deployer with graces that are shorter than in production, and as long a time to start."""
    settings = {"start_timeout": START_TIMEOUT, "timeout": 3.0, "min_ready": 2.0, "max_restarts": 2}
    settings |= {"unschedulable_grace": UNSCHEDULABLE_GRACE, "admission_grace": ADMISSION_GRACE}
    path, name = tmp_path_factory.mktemp("cases"), f"t-{uuid.uuid4().hex[:8]}"
    made = RealWorld(None, path, name, ingress="none", plugins={}, **settings)
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def stage(world: RealWorld) -> Iterator[Stage]:
    """Everything at once, then everything again."""
    found = Stage(world)
    images = [image for node in world.eyes.list(NODE, None)[0] for image in node["status"].get("images", ())]
    there = {name for image in images for name in image.get("names") or ()}
    runs = dict(RUNS)
    if not any(name.endswith(END_IMAGE) for name in there):
        del runs["prepared"]
    firsts = {**runs, **{app: case.first for app, case in FAILS.items()}}
    with surroundings(world):
        for app, podspec in firsts.items():
            found.first[app] = found.deploy(app, podspec)
        drain = found.first["drain"] = found.deploy("drain", drains(), **HEALTHY)
        for app, deployment in found.first.items():
            found.ended(deployment)
            if deployment is drain:
                found.second[app] = found.deploy(app, drains(FAIL="1"), **HEALTHY)
                found.third = found.deploy(app, drains(), **HEALTHY)
                continue
            case = FAILS.get(app)
            more = {"timeoutSeconds": case.timeout} if case and case.timeout else {}
            found.second[app] = found.deploy(app, case.podspec if case else runs[app], **more)
        yield found


# --- what must hold -----------------------------------------------------------------------------------------------


def seconds_between(log: str, first: str, last: str) -> float:
    """Seconds between two lines of a log, each found by what it begins with."""

    def at(begin: str) -> datetime.datetime:
        found = re.search(rf"^(\S+) {begin}", log, re.MULTILINE)
        assert found, f"no line begins with {begin}:\n{log}"
        return datetime.datetime.fromisoformat(found[1])

    return (at(last) - at(first)).total_seconds()


def test_a_failed_version_that_drains_for_long_holds_nobody_up(stage: Stage) -> None:
    first, third = stage.first["drain"], stage.third
    assert third
    failed = stage.ended(stage.second["drain"], Status.FAILURE)
    log = stage.world.log(failed.id)
    assert seconds_between(log, "failed: ", "FAILURE: ") < 8, log
    assert stage.ended(third, Status.DEPLOYED) and "2" in stage.versions("drain"), log
    stage.world.until(lambda: "waiting for its pods to end, 1 left" in stage.world.log(failed.id), "the log to say so")
    # Neither is an undeployed one waited for.
    stage.world.service.undeploy(stage.world.namespace, third.id)
    fourth = stage.ended(stage.deploy("drain", drains(), **HEALTHY), Status.DEPLOYED)
    assert "3" in stage.versions("drain")
    for deployment in (first, third):
        stage.ended(deployment, Status.UNDEPLOYED)
    stage.world.until(lambda: stage.versions("drain") == {fourth.version}, "the old pods to end", PATIENCE)
    assert stage.world.log(failed.id).endswith("its pods have ended\n")


@pytest.mark.parametrize("app", RUNS)
def test_it_is_deployed_twice_and_undeployed_with_nothing_left(stage: Stage, app: str) -> None:
    if app not in stage.first:
        pytest.skip(f"no node has the image {END_IMAGE}: set DEPLOYER_TEST_END_IMAGE")
    first, second = stage.first[app], stage.ended(stage.second[app], Status.DEPLOYED)
    stage.ended(first, Status.UNDEPLOYED)
    assert stage.world.live_version(app) == second.version == "2"
    assert "was restarted" not in stage.world.log(second.id)
    stage.world.service.undeploy(stage.world.namespace, second.id)
    stage.ended(second, Status.UNDEPLOYED)
    left = [stage.world.eyes.list(kind, stage.world.namespace, {"app": app})[0] for kind in (POD, CONTROLLER, SERVICE)]
    assert left == [[], [], []]


@pytest.mark.parametrize("app", FAILS)
def test_it_fails_with_the_cluster_s_words_as_soon_as_it_can_be_known(stage: Stage, app: str) -> None:
    case, ended = FAILS[app], stage.ended(stage.second[app], Status.FAILURE)
    log, failure = stage.world.log(ended.id), ended.failure or {}
    told = f"{failure}\n{log}"
    assert failure["reason"] == case.reason, told
    assert re.search(case.says, failure["message"]), told
    assert case.hint in failure["hint"], told
    assert re.search(case.log, log), told
    assert seconds_between(log, "created ", "failed: ") < case.within, told
    assert stage.world.live_version(app) == "1", told
    assert stage.ended(stage.first[app], Status.DEPLOYED)
    stage.world.until(lambda: stage.versions(app) == {"1"}, f"the pods of {app} to end")
    assert set(stage.world.objects(CONTROLLER)) & {f"{app}-1", f"{app}-2"} == {f"{app}-1"}


# --- what no cluster takes ----------------------------------------------------------------------------------------

REFUSED: list[tuple[Document, dict[str, str]]] = [
    (spec({"env": [{"name": "A", "value": 8080}, {"name": "B", "value": True}, {"name": "C", "value": 0.5}]}),
     {"env[0].value": "text, not a number", "env[1].value": "text, not true", "env[2].value": "put it in quotes"}),
    (spec({"ports": [{"name": "http", "containerPort": "8080"}]}), {"ports[0].containerPort": "not text"}),
    (spec({"imagePullSecrets": [{"name": "a"}]}), {"imagePullSecrets": "is not a field that Kubernetes knows here"}),
    (spec({"volumeMounts": [{"name": "w", "mountPath": "/w"}, {"name": "v", "mountPath": "/w"}]}),
     {"volumeMounts[0].name": "volume", "volumeMounts[1].name": "volume", "volumeMounts[1].mountPath": "another"}),
    (spec({"readinessProbe": {"periodSeconds": 1}}), {"readinessProbe": "handler"}),
    (spec({"readinessProbe": {"httpGet": {"port": "not a name"}}}), {"readinessProbe.httpGet.port": ""}),
    (spec({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}), {"resources.requests": "limit"}),
    (spec({"resources": {"limits": {"memory": "64 MB"}}}), {"resources.limits.memory": "quantity"}),
    (spec({"lifecycle": {"preStop": {}}}), {"lifecycle.preStop": "handler"}),
    (spec({"securityContext": {"privileged": True}}), {"securityContext.privileged": "must not be true"}),
]  # fmt: skip


@pytest.mark.parametrize(("podspec", "wrong"), REFUSED)
def test_what_no_cluster_takes_is_refused_when_it_is_sent(world: RealWorld, podspec: Document, wrong: Any) -> None:
    body = json.dumps({**describe(world.namespace, "refused"), "podspec": podspec}).encode()
    with pytest.raises(Invalid) as caught:
        world.service.descriptors.create(world.namespace, body)
    found = {problem.path: problem.message for problem in caught.value.problems}
    for path, words in wrong.items():
        assert words in found.get(f"podspec.containers[0].{path}", "nothing is said of it"), found


@pytest.mark.parametrize(
    ("pod", "paths"),
    [
        ({"restartPolicy": "OnFailure", "activeDeadlineSeconds": 600}, {"restartPolicy", "activeDeadlineSeconds"}),
        ({"securityContext": {"sysctls": [{"name": "net.core.x", "value": "1"}]}}, {"securityContext.sysctls[0].name"}),
        ({"hostNetwork": True, "hostPID": True}, {"hostNetwork", "hostPID"}),
        ({"dnsPolicy": "Never"}, {"dnsPolicy"}),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, {"tolerations[0].operator"}),
        ({"nodeSelector": {"a b": "c"}}, {"nodeSelector"}),
        ({"volumes": [{"name": "v", "secret": {"secretName": "s"}, "emptyDir": {}}]}, {"volumes[0].secret"}),
    ],
)  # fmt: skip
def test_so_is_what_concerns_the_pod(world: RealWorld, pod: Document, paths: set[str]) -> None:
    body = json.dumps({**describe(world.namespace, "refused"), "podspec": spec(**pod)}).encode()
    with pytest.raises(Invalid) as caught:
        world.service.descriptors.create(world.namespace, body)
    found = {problem.path.removeprefix("podspec.") for problem in caught.value.problems}
    assert paths <= found, caught.value.problems


def test_the_types_of_podspecs_are_those_of_the_api_server() -> None:
    place = Path(__file__).parents[1] / "descriptor" / "podspec_types_generator.py"
    found = importlib.util.spec_from_file_location("podspec_types_generator", place)
    assert found and found.loader
    generator = importlib.util.module_from_spec(found)
    found.loader.exec_module(generator)
    ours = json.loads(generator.FILE.read_text())
    document = openapi()
    if document["info"]["version"].removeprefix("v") != ours["version"]:
        pytest.skip(f"podspec.types.json is that of {ours['version']}, this is {document['info']['version']}")
    assert generator.FILE.read_text() == generator.text(document)


def openapi() -> Document:
    """The API server's OpenAPI document of core/v1."""
    with kubernetes.config.new_client_from_config(os.environ["KUBECONFIG"]) as client:
        address = f"{client.configuration.host}/openapi/v3/api/v1"
        found: Document = json.loads(client.rest_client.pool_manager.request("GET", address).data)
        return found

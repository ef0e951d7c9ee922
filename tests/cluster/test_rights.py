"""An account that may do exactly what `deploy/rbac/` says: the Deployer gets by with it, and needs every verb."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cluster.conftest import IMAGE, RealWorld
from deployer.core.errors import KubeForbidden
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, EVENT, INGRESS, SECRET, SERVICE, Kind
from deployer.core.model.records import Deployment, Document, HealthData, Status
from deployer.kube.client import connect
from deployer.kube.ownership import LABEL_MANAGED_BY
from deployer.settings import Settings
from support import originals
from support.original_import import bring
from support.original_records import Records, deployment, descriptor
from support.rights import FILES, ROLE, Account, Recorder, Right, allowed, await_allowed, documents, rights
from support.world import HEALTHY, describe

pytestmark = pytest.mark.timeout(300)  # the first one waits for an app in each of some thirty namespaces

T = TypeVar("T")
APP = ("app.yaml", "app-ingress-nginx.yaml")
HEADERS = [{"Header": "X-Frame-Options", "Value": "DENY"}]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account, its token and CA files."""
    admin = connect(Settings())
    made = Account(admin, tmp_path_factory.mktemp("account"))
    yield made
    made.close()
    admin.close()


@pytest.fixture(scope="module")
def controller(account: Account) -> str:
    """`namespace/service` of what stands in for an ingress controller: a pod that answers to every host."""
    space = account.space(f"t-controller-{uuid.uuid4().hex[:8]}")
    labels = {"name": "controller"}
    web = {"name": "web", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [web]}}
    body: Document = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "controller"}}
    account.admin.create(CONTROLLER, {**body, "spec": {"replicas": 1, "selector": labels, "template": template}}, space)
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "controller"}}
    account.admin.create(SERVICE, {**body, "spec": {"selector": labels, "ports": ports}}, space)
    account.grant(space, "controller-ingress-nginx.yaml")
    return f"{space}/controller"


def world_of(account: Account, path: Path, namespace: str, controller: str) -> RealWorld:
    """A Deployer as that account, not started yet; its eyes are an administrator's."""
    nginx = {"controller": controller, "propagation_seconds": 0, "minimum_hold": 0, "warm_up": "always"}
    made = RealWorld(None, path, namespace, plugins={"ingress_nginx": nginx}, max_restarts=1, unschedulable_grace=1.0)
    made.settings = dataclasses.replace(made.settings, **account.settings())
    return made


def app(namespace: str, **more: Any) -> dict[str, Any]:
    """What makes use of everything that an app can have."""
    more = {"frontend": f"{namespace}.example", "redirectWww": True, "additionHttpHeaders": HEADERS, **HEALTHY, **more}
    return {"image": IMAGE, "pull": "IfNotPresent", **more}


def crashing(namespace: str) -> Document:
    """A podspec whose container ends before it is ever ready."""
    podspec = describe(namespace, **app(namespace, env={"CRASH_AFTER": "0.1"}))["podspec"]
    podspec["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/error", "port": 9999}}
    return {"podspec": podspec}


def too_big(namespace: str) -> Document:
    """A podspec for which there is no node; Events could tell that one is on its way."""
    podspec = describe(namespace, **app(namespace))["podspec"]
    podspec["containers"][0]["resources"] = {"requests": {"cpu": "9999"}}
    return {"podspec": podspec}


# --- the files ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kubectl_takes_the_files(account: Account) -> None:
    for file in FILES.glob("*.yaml"):
        command = ["kubectl", "apply", "--dry-run=server", "-f", str(file)]
        if file.name == "account.yaml":
            command[2] = "--dry-run=client"  # its account goes into a namespace that a dry run does not make
        else:
            command += ["--namespace", account.namespace]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done


def test_the_health_proxy_file_allows_to_ask_pods_through_the_api_server(account: Account, namespace: str) -> None:
    client = account.client
    account.space(namespace)
    wanted = {Right("pods/proxy", "get"), Right("pods/proxy", "create")}
    assert rights("app-health-proxy.yaml") == wanted
    assert not any(allowed(client, namespace, right) for right in wanted)
    account.grant(namespace, "app-health-proxy.yaml")
    assert all(allowed(client, namespace, right) for right in wanted)
    assert not any(allowed(client, account.namespace, right) for right in wanted)


def test_a_deployment_whose_health_is_asked_through_the_api_server(
    account: Account, tmp_path: Path, namespace: str, controller: str
) -> None:
    world = world_of(account, tmp_path, namespace, controller)
    world.settings = dataclasses.replace(world.settings, health_via="auto", ingress="none")
    account.grant(namespace, "app.yaml", "app-health-proxy.yaml")
    world.start()
    try:
        live = world.deployed(**HEALTHY, image=IMAGE, pull="IfNotPresent", replicas=2)
        assert world.client.requests["proxy"] >= 4
        data = world.store.get(HealthData, live.id)
        assert data and ['"healthy": true' in entry["value"] for entry in data.entries] == [True, True]
    finally:
        world.close()


def test_an_import_from_the_original(account: Account, tmp_path: Path, namespace: str, controller: str) -> None:
    account.space(namespace)
    account.grant(namespace, *APP)
    world = world_of(account, tmp_path, namespace, controller)
    world.start()
    world.stop()
    originals.leave(world.eyes, namespace, f"{namespace}.example", IMAGE, deployment="d41")
    of = descriptor(namespace, image=IMAGE, frontend=f"{namespace}.example")
    records = Records().descriptor(of).deployment(deployment("d41", "41", "DEPLOYED", of))
    try:
        with pytest.raises(KubeForbidden, match=r"cannot patch resource .*replicationcontrollers"):
            bring(world, records)
        account.grant(namespace, "app-import.yaml")
        assert f"{namespace}/shop: version 41 is live (deployment d41)" in bring(world, records).lines
    finally:
        world.close()


# --- a whole life with exactly these rights -----------------------------------------------------------------------


@pytest.fixture
def life(account: Account, tmp_path: Path, namespace: str, controller: str) -> Iterator[RealWorld]:
    """A Deployer with the rights of the files in an empty namespace, TLS included."""
    made = world_of(account, tmp_path, namespace, controller)
    account.grant(namespace, *APP)
    role, binding = documents("app-tls.yaml", namespace, account.namespace)
    role["rules"][0]["resourceNames"] = ["apps.example"]
    account.apply(role)
    account.apply(binding)
    await_allowed(account.client, namespace, Right("secrets", "get"), "apps.example")
    made.start()
    yield made
    made.close()


def test_a_whole_life_needs_every_right_and_no_other(account: Account, life: RealWorld, controller: str) -> None:
    recorder = Recorder(life.client)
    fields = app(life.namespace, frontend="shop.apps.example")
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "apps.example"}}
    life.eyes.create(SECRET, {**secret, "data": {"tls.crt": "eA==", "tls.key": "eA=="}}, life.namespace)

    first = life.deployed(**fields, replicas=2)
    (tls,) = life.objects(INGRESS)["shop"]["spec"]["tls"]
    assert tls == {"hosts": ["shop.apps.example"], "secretName": "apps.example"}
    life.stop()
    account.delete(ROLE, "deployer-tls", life.namespace)
    await_allowed(account.client, life.namespace, Right("secrets", "get"), "apps.example", wanted=False)
    life.start()  # only another process than the one before marks the shared objects anew
    recorder_after = Recorder(life.client)
    second = life.deployed(**fields)
    assert life.objects(INGRESS)["shop"]["spec"]["tls"] == [tls]
    assert "TLS secret apps.example is kept: " in life.log(second.id)
    life.quiet()
    assert life.ended(first).status is Status.UNDEPLOYED

    crashed = life.ended(life.deploy(**{**fields, **crashing(life.namespace)}), Status.FAILURE)
    assert crashed.failure and crashed.failure["reason"] == "CrashLoop"
    failed = life.ended(life.deploy(**{**fields, **too_big(life.namespace)}), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "Unschedulable"
    assert (life.live_version(), led_to(life)) == ("2", "shop-2")

    life.service.undeploy(life.namespace, crashed.id)  # looks for what it may have left

    held = shared(life)
    for kind, name in held:
        hold(life, kind, name)
    life.service.undeploy(life.namespace, second.id)
    for kind, name in held:
        recorder_after.await_use(life.namespace, Right(resource(kind), "watch"))
        let_go(life, kind, name)
    life.quiet()
    assert life.ended(second).status is Status.UNDEPLOYED
    life.service.delete_deployments(life.namespace, "shop")
    assert life.service.deployments(life.namespace, "shop") == []
    assert (ours(life), life.pods()) == ({}, {})

    space = controller.partition("/")[0]
    for place, files in ((life.namespace, (*APP, "app-tls.yaml")), (space, ("controller-ingress-nginx.yaml",))):
        assert recorder.used(place) | recorder_after.used(place) == rights(*files)
    # Who else has the host is asked of the whole cluster, and done without where that may not be asked.
    hosts = {"/apis/networking.k8s.io/v1/ingresses", "/apis/gateway.networking.k8s.io/v1/httproutes"}
    assert {right.resource for right in recorder.used("") | recorder_after.used("")} == hosts
    assert recorder.spaces() | recorder_after.spaces() == {life.namespace, space, ""}


# --- one right less -----------------------------------------------------------------------------------------------

FAILS = "the deployment fails and says so; some can be undone only when the right is there again"
REMOVAL = "the undeployment waits for the right, and says so"
REMAINS = "so does looking for what an earlier version may have left"
UNTOLD = "the deployment succeeds; only `kubectl describe` has nothing to show of it"
TOLERATED = "the deployment fails for a reason of its own; only words are missing"

WITHOUT: dict[tuple[str, str], str] = {
    ("replicationcontrollers", "get"): FAILS,
    ("replicationcontrollers", "list"): FAILS,
    ("replicationcontrollers", "watch"): FAILS,
    ("replicationcontrollers", "create"): FAILS,
    ("replicationcontrollers", "delete"): REMOVAL,
    ("services", "get"): FAILS,
    ("services", "list"): REMAINS,
    ("services", "watch"): REMOVAL,
    ("services", "create"): FAILS,
    ("services", "update"): FAILS,
    ("services", "patch"): FAILS,
    ("services", "delete"): REMOVAL,
    ("pods", "list"): FAILS,
    ("pods", "watch"): FAILS,
    ("pods/log", "get"): TOLERATED,
    ("events", "list"): TOLERATED,
    ("events", "watch"): TOLERATED,
    ("events", "create"): UNTOLD,
    ("endpointslices", "list"): FAILS,
    ("endpointslices", "watch"): FAILS,
    ("ingresses", "get"): FAILS,
    ("ingresses", "list"): REMOVAL,
    ("ingresses", "watch"): REMOVAL,
    ("ingresses", "create"): FAILS,
    ("ingresses", "update"): FAILS,
    ("ingresses", "patch"): FAILS,
    ("ingresses", "delete"): REMOVAL,
    ("configmaps", "get"): FAILS,
    ("configmaps", "list"): REMOVAL,
    ("configmaps", "watch"): REMOVAL,
    ("configmaps", "create"): FAILS,
    ("configmaps", "delete"): REMOVAL,
}
CASES = [(file, right) for file in APP for right in sorted(rights(file))]


class Case:
    """A namespace in which an app is live, and one right is missing since."""

    def __init__(self, world: RealWorld, account: Account, file: str, right: Right) -> None:
        self.world = world
        self.account = account
        self.file = file
        self.right = right
        self.namespace = account.space(f"t-without-{uuid.uuid4().hex[:8]}")
        self.what = WITHOUT[right.plural, right.verb]
        account.grant(self.namespace, *APP)
        self.live = self.deploy()
        self.before: Any = None
        self.led: Any = None
        self.second: Deployment | None = None

    def deploy(self, **fields: Any) -> Deployment:
        """Queue a deployment."""
        self.world.namespace = self.namespace
        return self.world.deploy(**{**app(self.namespace), "tlsSecretName": "tls", **fields})

    def take(self) -> None:
        """Take the right away."""
        self.account.grant(self.namespace, self.file, missing=self.right)
        self.before = self.look()

    def begin(self) -> None:
        """Queue the second deployment, unless the case is about a removal."""
        if self.what is TOLERATED:
            self.second = self.deploy(**(crashing if self.right.plural == "pods/log" else too_big)(self.namespace))
        elif self.what is FAILS:
            self.second = self.deploy()

    def settle(self) -> None:
        """Wait until it has failed; give the right back when undoing needs it."""
        second = self.second
        if second is None:
            return
        stuck = "undoing is not finished"
        self.world.until(
            lambda: (
                not self.world.service.deployment(self.namespace, second.id).status.moving
                or self._line(second.id, stuck)
            ),
            "the deployment to fail",
        )
        self.led = self.look()[:2]
        if stuck in self.world.log(second.id):
            self.give()

    def give(self) -> None:
        """Give it back, while the service runs."""
        self.account.grant(self.namespace, self.file)
        await_allowed(self.account.client, self.namespace, self.right)

    def look(self) -> Any:
        """All that the live version consists of."""
        self.world.namespace = self.namespace
        pods = {name for name, pod in self.world.pods().items() if not pod["metadata"].get("deletionTimestamp")}
        return self.world.live_version(), led_to(self.world), ours(self.world), pods

    @property
    def refused(self) -> str:
        """What is said."""
        return f"the API server refused to {self.right} "

    def says(self, id: str, text: str) -> None:
        """Wait for a line of the log that says this and what was refused where."""
        self.world.until(lambda: self._line(id, text), f"{text!r} and {self.refused!r} in the log")

    def _line(self, id: str, text: str) -> bool:
        lines = [line for line in self.world.log(id).splitlines() if text in line and self.refused in line]
        return any(f"in namespace {self.namespace}" in line for line in lines)


@pytest.fixture(scope="module")
def cases(account: Account, controller: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Right, Case]]:
    """An app for every right, all live; then a service that is started anew without these rights."""
    world = world_of(account, tmp_path_factory.mktemp("matrix"), f"t-{uuid.uuid4().hex[:8]}", controller)
    world.start()
    with contextlib.closing(world):
        made: dict[Right, Case] = {}
        for some in batches(CASES):
            made |= {right: Case(world, account, file, right) for file, right in some}
            for _, right in some:
                world.ended(made[right].live, Status.DEPLOYED)
        world.quiet()
        world.stop()
        world.start()
        for some in batches(made.values()):
            for case in some:
                case.take()
                case.begin()
            for case in some:
                case.settle()
        yield made


def batches(things: Iterable[T]) -> Iterator[list[T]]:
    """A few at once, so that the node is not flooded with pods."""
    left = list(things)
    while left:
        yield left[:8]
        del left[:8]


def of_kind(*kinds: str) -> Any:
    chosen = [right for _, right in CASES if WITHOUT[right.plural, right.verb] in kinds]
    return pytest.mark.parametrize("right", chosen, ids=str)


def test_every_right_is_tried() -> None:
    assert {(right.plural, right.verb) for _, right in CASES} == set(WITHOUT)


@of_kind(FAILS)
def test_a_deployment_without_a_right_fails_naming_it(cases: dict[Right, Case], right: Right) -> None:
    case = cases[right]
    assert case.second is not None
    ended = case.world.ended(case.second, Status.FAILURE)
    assert ended.failure and ended.failure["reason"] == "Forbidden", ended.failure
    message = ended.failure["message"]
    assert case.refused in message and f"in namespace {case.namespace}" in message
    assert f": {message} (grant the right" in case.world.log(ended.id)
    assert case.led == case.before[:2] == ("1", "shop-1")
    assert case.look() == case.before


@of_kind(TOLERATED)
def test_without_a_right_to_explain_only_words_are_missing(cases: dict[Right, Case], right: Right) -> None:
    case = cases[right]
    assert case.second is not None
    ended = case.world.ended(case.second, Status.FAILURE)
    reason = "CrashLoop" if right.plural == "pods/log" else "Unschedulable"
    assert ended.failure and ended.failure["reason"] == reason
    case.says(ended.id, "cannot be read" if right.plural == "pods/log" else "reasons will be missing")
    assert case.look() == case.before


@of_kind(UNTOLD)
def test_without_the_right_to_tell_of_it_deployments_lack_nothing(cases: dict[Right, Case], right: Right) -> None:
    case = cases[right]
    case.world.ended(case.deploy(), Status.DEPLOYED)
    case.world.ended(case.live)
    assert case.look()[0] == "2"
    events, _ = case.world.eyes.list(EVENT, case.namespace)
    about = [event["involvedObject"]["name"] for event in events if event["source"].get("component") == "deployer"]
    assert "shop-1" in about  # as long as it had the right
    assert "shop-2" not in about


@of_kind(REMOVAL)
def test_an_undeployment_without_a_right_waits_and_says_why(cases: dict[Right, Case], right: Right) -> None:
    case = cases[right]
    world = case.world
    world.namespace = case.namespace
    held = [some for some in shared(world) if some[0].plural == right.plural and right.verb == "watch"]
    for kind, name in held:
        hold(world, kind, name)
    world.service.undeploy(case.namespace, case.live.id)
    case.says(case.live.id, "undeploying is not finished")
    assert world.service.deployment(case.namespace, case.live.id).status is Status.UNDEPLOYING
    case.give()
    for kind, name in held:
        let_go(world, kind, name)
    assert world.ended(case.live).status is Status.UNDEPLOYED
    assert (ours(world), world.pods()) == ({}, {})


@of_kind(REMAINS)
def test_cleaning_up_without_a_right_waits_and_says_why(cases: dict[Right, Case], right: Right) -> None:
    case = cases[right]
    case.give()
    case.world.ended(case.deploy(), Status.DEPLOYED)
    assert case.world.ended(case.live).status is Status.UNDEPLOYED
    case.take()
    case.world.service.undeploy(case.namespace, case.live.id)
    case.says(case.live.id, "undeploying is not finished")
    case.give()
    case.world.quiet()
    assert case.look()[0] == "2"


@pytest.mark.parametrize("right", [Right("pods", "watch"), Right("replicationcontrollers", "list")], ids=str)
def test_a_right_that_is_given_later_needs_no_restart(cases: dict[Right, Case], right: Right) -> None:
    case = cases[right]
    assert case.second is not None
    case.world.ended(case.second, Status.FAILURE)
    case.give()
    case.world.ended(case.deploy(), Status.DEPLOYED)


def test_without_the_right_in_the_controllers_namespace(
    cases: dict[Right, Case], account: Account, controller: str
) -> None:
    """For an app that has all rights in its own, and needs no warm-up: traffic has not moved yet."""
    case = cases[Right("pods/log", "get")]
    assert case.second is not None
    case.world.ended(case.second)
    case.world.stop()
    plugins = {"ingress_nginx": {**case.world.settings.plugins["ingress_nginx"], "warm_up": "changes"}}
    case.world.settings = dataclasses.replace(case.world.settings, plugins=plugins)
    case.world.start()
    space, right = controller.partition("/")[0], Right("discovery.k8s.io:endpointslices", "list")
    try:
        account.grant(space, "controller-ingress-nginx.yaml", missing=right)
        ended = case.world.ended(case.deploy(), Status.FAILURE)
    finally:
        account.grant(space, "controller-ingress-nginx.yaml")
    assert ended.failure and f"refused to list endpointslices in namespace {space}" in ended.failure["message"]
    assert "switching" not in case.world.log(ended.id)
    assert case.look() == case.before


# --- parts --------------------------------------------------------------------------------------------------------


def hold(world: RealWorld, kind: Kind, name: str) -> None:
    """Somebody's finalizer: the object stays for a while after it was deleted."""
    world.eyes.patch(kind, name, {"metadata": {"finalizers": ["deployer.example/held"]}}, world.namespace)


def shared(world: RealWorld) -> list[tuple[Kind, str]]:
    """What is removed one after the other when the live version is undeployed."""
    headers = next(name for name in world.objects(CONFIG_MAP) if name.startswith("shop-headers-"))
    return [(INGRESS, "shop"), (CONFIG_MAP, headers), (SERVICE, "shop")]


def let_go(world: RealWorld, kind: Kind, name: str) -> None:
    world.eyes.patch(kind, name, {"metadata": {"finalizers": None}}, world.namespace)


def resource(kind: Kind) -> str:
    return f"{kind.group}:{kind.plural}" if kind.group else kind.plural


def led_to(world: RealWorld) -> str:
    """The Service to which the app's Ingress leads."""
    rule, *_held = world.objects(INGRESS)["shop"]["spec"]["rules"]
    return str(rule["http"]["paths"][0]["backend"]["service"]["name"])


def ours(world: RealWorld) -> dict[str, set[str]]:
    """What a Deployer made."""
    kinds = (CONTROLLER, SERVICE, INGRESS, CONFIG_MAP)
    found = {kind.plural: world.eyes.list(kind, world.namespace, {LABEL_MANAGED_BY: "deployer"})[0] for kind in kinds}
    return {plural: {o["metadata"]["name"] for o in some} for plural, some in found.items() if some}

"""The whole life of apps on a real Kubernetes: `deployer serve`, real pods, and users who talk HTTP to it.

After each stage all objects of the namespace are compared with what the contract says, field by field.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import KubeNotFound
from deployer.core.model.kind import CONTROLLER, INGRESS, NAMESPACE, SERVICE, Kind
from deployer.core.model.records import Status
from deployer.kube.client import KubeClient, connect
from deployer.settings import Settings
from support.command import of_a_new_user, running
from support.contract import Contract, Document, Running
from support.history import History, broken
from support.real import IMAGE, RealWorld
from support.user import User
from support.world import HEALTHY, describe

ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
PROBE = {"httpGet": {"path": "/healthy", "port": 9999}, "periodSeconds": 1}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the one service answers that all tests here use, each in namespaces of its own."""
    home = tmp_path_factory.mktemp("serve")
    budgets = ["--timeout=3", "--start-timeout=60", "--proxysleep=0.5"]
    environment = of_a_new_user(home) | {"KUBECONFIG": os.environ["KUBECONFIG"]}
    with running(environment, home) as deployer:
        process, rest = deployer.serve("serve", "--data-dir", str(home / "data"), *budgets)
        yield rest.url
        assert process.end(signal.SIGTERM) == 0
        said = process.rest("err")
        assert not any(word in said for word in ("ERROR", "WARNING", "Traceback")), said


@pytest.fixture(scope="module")
def eyes() -> Iterator[KubeClient]:
    """A look at the cluster beside the service."""
    client = connect(Settings(kubeconfig=os.environ["KUBECONFIG"]))
    yield client
    client.close()


class Site(User):
    """A user in a namespace, with eyes on what is in there."""

    def __init__(self, url: str, eyes: KubeClient, namespace: str) -> None:
        super().__init__(url, namespace)
        self.eyes = eyes
        self.contract = Contract(eyes, namespace)
        made = eyes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        self._uid = made["metadata"]["uid"]

    def close(self) -> None:
        self.eyes.delete(NAMESPACE, self.namespace, uid=self._uid)

    def app(self, app: str = "shop", **fields: Any) -> Document:
        """A descriptor."""
        return describe(self.namespace, app, **{"image": IMAGE, "pull": "IfNotPresent", **fields})

    def replaced(self, running: Running, by: Running) -> None:
        """Wait for the end of the one, and look at what is left."""
        self.ended(running.deployment["id"], "UNDEPLOYED")
        self.contract.check(by)

    def gone(self, running: Running) -> None:
        """Undeploy the only one that there is."""
        self.undeploy(running.deployment["id"])
        self.ended(running.deployment["id"], "UNDEPLOYED")
        self.contract.nothing_left()


@pytest.fixture
def sites(url: str, eyes: KubeClient, namespace: str) -> Iterator[Callable[[], Site]]:
    """Makes as many as a test wants."""
    made: list[Site] = []

    def make() -> Site:
        made.append(Site(url, eyes, f"{namespace}-{len(made)}"))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(sites: Callable[[], Site]) -> Site:
    """One."""
    return sites()


def in_order(log: str, *patterns: str) -> None:
    """The log has these lines, in this order; each begins with the time."""
    lines = iter(log.splitlines())
    for pattern in patterns:
        wanted = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z {pattern}")
        assert any(wanted.fullmatch(line) for line in lines), f"no line like {pattern!r}, at that place, in:\n{log}"


# --- one app ----------------------------------------------------------------------------------------------------------


def test_from_the_first_deployment_to_the_last(site: Site) -> None:
    """First, second, a failing third, redeployment of the first, undeployment, and once more from there."""
    marked = site.app(**HEALTHY, replicas=2, env={"MARK": "first"})
    first = site.deployed(marked)
    assert first.version == "1"
    site.contract.check(first)
    in_order(
        site.log(first.deployment["id"]),
        f"queued: deployment of shop in namespace {site.namespace}",
        f"deploying shop in namespace {site.namespace}",
        "version 1",
        "created shop-1, replicas: 2",
        "2 of 2 pods ready",
        "healthy: 2 of 2 pods",
        "service shop-1 has 2 ready endpoints",
        "service shop selects version 1",
        "DEPLOYED: version 1 is live",
    )
    status, data = site.rest.call("GET", f"/deployments/{first.deployment['id']}/healthcheckdata")
    assert status == 200 and len({entry["podName"] for entry in data}) == 2
    assert {entry["value"] for entry in data} == {'{"healthy": true, "version": "1"}'}
    status, text = site.rest.call("GET", f"/deployments/{first.deployment['id']}/logs")
    assert (status, text.splitlines()) == (200, site.log(first.deployment["id"]).splitlines())

    second = site.deployed(site.app(**HEALTHY))
    assert second.version == "2"
    in_order(site.log(second.deployment["id"]), "version 2, replacing version 1", "DEPLOYED: version 2 is live")
    site.replaced(first, by=second)
    in_order(
        site.log(first.deployment["id"]),
        "replaced by version 2; will be removed in 0.5 s",
        "removed shop-1",
        "UNDEPLOYED: version 1 is removed",
    )

    third = site.failed(site.app(**HEALTHY, env={"FAIL": "1"}))
    assert third["version"] == "3" and third["failure"]["reason"] == "Unhealthy"
    assert re.search(r"pod shop-3-\w+", third["failure"]["message"])
    in_order(
        site.log(third["id"]), "failed: the health checks did not pass in time: .*", "removed shop-3", "FAILURE: .*"
    )
    site.contract.check(second)

    # The number counts on after the failure, and what is deployed is the older podspec.
    back = Running(marked, site.ended(site.redeploy(first.deployment["id"]), "DEPLOYED"))
    assert back.version == "4"
    site.replaced(second, by=back)
    site.gone(back)
    in_order(
        site.log(back.deployment["id"]),
        "queued: undeployment",
        "removed service shop",
        "removed shop-4",
        "UNDEPLOYED: version 4 is removed",
    )
    # ... and after the undeployment.
    fifth = site.deployed(site.app(**HEALTHY))
    assert fifth.version == "5"
    site.contract.check(fifth)
    assert [(d["version"], d["status"]) for d in site.all()] == [
        ("5", "DEPLOYED"),
        ("4", "UNDEPLOYED"),
        ("3", "FAILURE"),
        ("2", "UNDEPLOYED"),
        ("1", "UNDEPLOYED"),
    ]
    status, answer = site.rest.call("DELETE", "/deployments/", query="&appname=shop")
    assert (status, answer) == (202, {"deleted": 4})
    assert [d["id"] for d in site.all()] == [fifth.deployment["id"]]
    site.contract.check(fifth)
    site.undeploy(fifth.deployment["id"], "&deleteDeployment=true")
    assert site.follow(fifth.deployment["id"]) == "DELETED"
    assert site.all() == []
    site.contract.nothing_left()


def test_a_version_that_is_named(site: Site) -> None:
    """Its name is refused while it is live, in one sentence; once it was replaced it comes back when it has drained."""
    blue = site.deployed(site.app(newVersion="Blue"))
    assert blue.version == "blue"
    before = site.eyes.get(CONTROLLER, "shop-blue", site.namespace)
    for again in (lambda: site.deploy(site.app(newVersion="blue")), lambda: site.redeploy(blue.deployment["id"])):
        refused = site.ended(again(), "FAILURE")
        assert refused["failure"] == {
            "reason": "AlreadyLive",
            "message": "version blue of shop is live already, from the same descriptor "
            f"(deployment {blue.deployment['id']})",
            "hint": "nothing is left to do; choose another newVersion, or '#' to count on, to start it anew",
        }
        site.contract.check(blue)
    assert site.eyes.get(CONTROLLER, "shop-blue", site.namespace) == before
    refused = site.failed(site.app())
    assert refused["failure"]["reason"] == "VersionNotANumber"
    green = site.deployed(site.app(newVersion="green"))
    back = Running(blue.descriptor, site.ended(site.deploy(site.app(newVersion="blue")), "DEPLOYED"))
    assert back.version == "blue" and back.deployment["id"] != blue.deployment["id"]
    site.replaced(green, by=back)
    site.gone(back)


def test_ports_pull_secrets_and_containers(site: Site) -> None:
    """Several ports, TCP and UDP of one number, pull secrets from both places, two containers; then without ports."""
    many = site.app(
        ports=[
            {"containerPort": 8080, "name": "http"},
            {"containerPort": 8080, "protocol": "UDP"},
            {"containerPort": 8443},
            {"containerPort": 8443, "protocol": "UDP"},
            {"containerPort": 9999, "name": "healthcheck"},
        ],
        imagePullSecrets=[{"name": "team"}, {"name": "company"}],
        env={"POD_NAME": "chosen-by-the-descriptor"},
    )
    many["podspec"]["imagePullSecrets"] = [{"name": "company"}]
    side = {"PORT": "7070", "HEALTH_PORT": "7071"}
    many["podspec"]["containers"].append(
        {
            "name": "side",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 7070, "name": "http"}],
            "env": [{"name": name, "value": value} for name, value in side.items()],
            "readinessProbe": {"httpGet": {"path": "/healthy", "port": 7071}, "periodSeconds": 1},
        }
    )
    first = site.deployed(many)
    site.contract.check(first)
    in_order(site.log(first.deployment["id"]), "the descriptor overrides: POD_NAME", "created shop-1, replicas: 1")

    # No port, no Service: readiness alone decides, and a second version of that sort replaces the first.
    without = site.app(ports=[])
    without["podspec"]["containers"][0]["readinessProbe"] = PROBE
    second = site.deployed(without)
    site.replaced(first, by=second)
    assert "service" not in site.log(second.deployment["id"]).replace("queued", "").split("DEPLOYED")[0]
    third = site.deployed(without)
    site.replaced(second, by=third)
    fourth = site.deployed(site.app(ports=[{"containerPort": 9999, "name": "healthcheck"}, {"containerPort": 8080}]))
    site.replaced(third, by=fourth)
    # A port comes, another goes.
    fifth = site.deployed(site.app(ports=[{"containerPort": 8081, "name": "more"}, {"containerPort": 8080}]))
    site.replaced(fourth, by=fifth)
    site.gone(fifth)


def test_replicas_scaled_by_hand_are_carried_over(site: Site) -> None:
    first = site.deployed(site.app())
    site.eyes.patch(CONTROLLER, "shop-1", {"spec": {"replicas": 3}}, site.namespace)
    second = site.deployed(site.app(), replicas=3)
    in_order(
        site.log(second.deployment["id"]),
        "carrying over 3 replicas from version 1, which was scaled to that",
        "created shop-2, replicas: 3",
    )
    site.replaced(first, by=second)
    # The descriptor says something new: that counts.
    third = site.deployed(site.app(replicas=2))
    site.replaced(second, by=third)
    site.gone(third)


def test_cancelling(site: Site) -> None:
    """A first deployment, then one beside a live version, whose record is to go as well."""
    never = site.app(timeoutSeconds=120)
    never["podspec"]["containers"][0]["readinessProbe"] = {**PROBE, "httpGet": {"path": "/error", "port": 9999}}
    for live, more, end in ((False, "", "UNDEPLOYED"), (True, "&deleteDeployment=true", "DELETED")):
        running = [site.deployed(site.app())] if live else []
        id = site.deploy(never)
        site.follow(id, until="0 of 1 pods ready")
        site.undeploy(id, more)
        assert site.follow(id) == end
        site.contract.check(*running)
        if end == "DELETED":
            assert site.rest.call("GET", f"/deployments/{id}/")[0] == 404
        else:
            in_order(
                site.log(id),
                "cancelled by request",
                "stopping, and removing what was started",
                "removed shop-1",
                "UNDEPLOYED: the deployment was cancelled",
            )
    # Everything of the app at once, what is live included.
    assert site.rest.call("DELETE", "/deployments/", query="&appname=shop&undeploy=true") == (202, {"deleted": 2})
    assert site.follow(running[0].deployment["id"]) == "DELETED"
    assert site.all() == []
    site.contract.nothing_left()


# --- several at once --------------------------------------------------------------------------------------------------


def test_a_burst_of_one_app_is_carried_out_in_order(site: Site) -> None:
    history = History(site.eyes, site.namespace)
    try:
        stored = site.store(site.app(**HEALTHY))
        target = f"/deployments/?namespace={site.namespace}&descriptorId={stored}"
        asked = [site.accepted("POST", target) for _ in range(3)]
        done = [site.ended(asked[2], "DEPLOYED")]
        for id in reversed(asked[:2]):
            done.insert(0, site.ended(id, "UNDEPLOYED"))
        assert [d["version"] for d in done] == ["1", "2", "3"]
        site.contract.check(Running(done[2]["descriptor"], done[2]))
        for id in asked:
            site.follow(id)
        times = [
            [line.split()[0] for line in site.logs[id] if re.search(f" ({what})", line)]
            for id in asked
            for what in ("deploying shop", "DEPLOYED: ")
        ]
        assert all(len(found) == 1 for found in times)
        # No deployment began before the one before it had ended.
        assert all(one <= other for one, other in itertools.pairwise(time for found in times for time in found))
        history.settled()
        assert broken(history, "shop", stays_until=2**63) == []
    finally:
        history.close()
    site.gone(Running(done[2]["descriptor"], done[2]))


def test_one_name_in_two_namespaces(sites: Callable[[], Site]) -> None:
    two = [sites(), sites()]
    with ThreadPoolExecutor(2) as pool:
        first, other = pool.map(lambda site: site.deployed(site.app(**HEALTHY)), two)
    two[0].contract.check(first)
    two[1].contract.check(other)
    assert first.version == other.version == "1"
    two[0].gone(first)
    two[1].contract.check(other)
    status, problem = two[0].rest.call("GET", f"/deployments/{other.deployment['id']}/")
    assert status == 404 and problem["detail"] == "there is no deployment with this id in this namespace"
    two[1].gone(other)


def test_twenty_apps_at_once(site: Site) -> None:
    names = [f"app-{number}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        running = list(pool.map(lambda name: site.deployed(site.app(name)), names))
        site.contract.check(*running)
        list(pool.map(lambda each: site.undeploy(each.deployment["id"]), running))
        list(pool.map(lambda each: site.ended(each.deployment["id"], "UNDEPLOYED"), running))
    site.contract.nothing_left()


# --- what REST alone does not show ------------------------------------------------------------------------------------


def test_a_held_version_and_a_route(tmp_path: Path, namespace: str) -> None:
    """Objects of an Ingress and of a version that is held. No controller is needed for that: nobody is asked."""
    table = {"propagation_seconds": 0.1, "minimum_hold": 0.1}
    real = RealWorld(None, tmp_path, namespace, proxysleep=600.0, plugins={"ingress_nginx": table})
    real.start()
    try:
        contract = Contract(real.eyes, namespace, routes=True)
        first = real.deployed(**HEALTHY, frontend="shop.example.com", newVersion="1")
        contract.check(Running(first.descriptor, first.public()))
        before = {kind: real.objects(kind)["shop-1"] for kind in (CONTROLLER, SERVICE)}
        second = real.deployed(
            **HEALTHY, ports=[{"containerPort": 9999, "name": "healthcheck"}, {"containerPort": 8080}]
        )
        real.until(lambda: not real.objects(INGRESS) or None, "the route that was dropped to go")
        contract.check(
            Running(first.descriptor, first.public(), live=False), Running(second.descriptor, second.public())
        )
        # Its version is awaited, in order.
        again = [real.deploy(newVersion="1"), real.service.redeploy(namespace, first.id)]
        real.until(lambda: "version 1 is still draining" in real.log(again[0].id), "it to be waited for")
        for waiting in again:
            real.service.undeploy(namespace, waiting.id)
            real.ended(waiting, Status.UNDEPLOYED)
        # What is held is as it was: neither replacing it nor waiting for its name has written anything to it.
        assert {kind: real.objects(kind)["shop-1"] for kind in before} == before
        real.service.undeploy(namespace, second.id)
        real.quiet()
        assert real.ended(first).status is Status.UNDEPLOYED
        contract.nothing_left()
    finally:
        real.close()


def test_an_app_of_a_namespace_that_was_made_again_starts_anew(tmp_path: Path, namespace: str) -> None:
    real = RealWorld(None, tmp_path, namespace, ingress="none", plugins={}).start()
    try:
        first = real.deployed(**HEALTHY)
        uid = real.eyes.get(NAMESPACE, namespace)["metadata"]["uid"]
        real.eyes.delete(NAMESPACE, namespace, uid=uid)
        scope = CancelScope(time.monotonic() + 90)
        while real.eyes.list(NAMESPACE, None, field_selector=f"metadata.name={namespace}")[0]:
            scope.pause(0.2)
        real.eyes.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, None)
        while not real.eyes.list(ACCOUNT, namespace, field_selector="metadata.name=default")[0]:
            scope.pause(0.2)
        second = real.deployed(**HEALTHY)
        assert second.version == "2"
        real.ended(first, Status.UNDEPLOYED)
        real.quiet()
        Contract(real.eyes, namespace).check(Running(second.descriptor, second.public()))
    finally:
        real.close()


def test_a_namespace_that_does_not_exist(url: str, namespace: str, eyes: KubeClient) -> None:
    user = User(url, f"{namespace}-nowhere")
    failed = user.failed(describe(user.namespace, image=IMAGE))
    told = f'create services in namespace {user.namespace}: namespaces "{user.namespace}" not found'
    hint = "check that the namespace exists; then deploy again"
    assert failed["failure"] == {"reason": "NotFound", "message": told, "hint": hint}
    with pytest.raises(KubeNotFound):
        eyes.get(NAMESPACE, user.namespace)

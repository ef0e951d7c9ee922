"""The whole Deployer behind a proxy that misbehaves, on a real API server with real pods.

Whatever happens, `Faulty.check` must hold in the end: every deployment came to exactly one end, the live Service
selected a ready pod at every moment, and nothing is there that nobody owns, nothing lost, nothing of others changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import IMAGE, RealWorld
from deployer.commands.deployment_commands import DeploymentCommands
from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.kube import is_ready
from deployer.core.errors import KubeError, KubeForbidden
from deployer.core.model.kind import CONTROLLER, POD, SECRET, SERVICE, Kind
from deployer.core.model.records import Deployment, Document, Status, StoredDescriptor
from deployer.core.operations.execution import budgets
from deployer.kube import client as client_module
from deployer.kube import informer
from deployer.kube.client import WATCH_SILENCE, KubeClient, connect
from support import faultproxy as faults
from support.faultproxy import Exchange, FaultProxy
from support.history import History, broken, foreign_versions, make_foreign
from support.world import HEALTHY

pytestmark = pytest.mark.timeout(300)

EVER = 2**63
"""A revision that never comes."""


class Faulty(RealWorld):
    """A Deployer behind a proxy; the eyes see past it."""

    def __init__(self, path: Path, namespace: str, **settings: Any) -> None:
        self.proxy = FaultProxy()
        self.read_timeout = 2.0
        self.accepted: dict[str, list[str]] = {}
        defaults = {"ingress": "none", "plugins": {}, "kubernetes": self.proxy.url, "proxysleep": 0.2}
        super().__init__(None, path, namespace, **{**defaults, **settings})
        self.eyes.close()
        self.eyes = connect(dataclasses.replace(self.settings, kubernetes="", kubernetes_token_file=""))
        self.foreign = make_foreign(self)
        self.history = History(self.eyes, namespace)

    def start(self, *args: Any) -> Faulty:
        super().start(*args)
        # Faults are for deployments: what is stored is not tried on the cluster before.
        self.service = DeploymentCommands(self.store, self.deployment_log, self.registry, self.settings)
        self.client._transport.read_timeout = self.read_timeout
        return self

    def restart(self) -> None:
        """A new process on the same store: it fences, lists and watches anew."""
        self.stop()
        self.start()

    def deploy(self, app: str = "shop", **fields: Any) -> Deployment:
        made = super().deploy(app, **fields)
        self.accepted.setdefault(app, []).append(made.id)
        return made

    def until(self, condition: Callable[[], Any], what: str, patience: float = 90.0) -> Any:
        """Longer than elsewhere: what goes wrong here takes its time."""
        return super().until(condition, what, patience)

    def close(self) -> None:
        self.history.close()
        super().close()
        self.proxy.close()

    # --- what must hold -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Wait until nothing is left to do, and look for what is wrong."""
        self.quiet()
        self.history.settled()
        live = {app: self._check_ends(app) for app in self.accepted}
        problems = [line for app in self.accepted for line in broken(self.history, app, EVER if live[app] else 0)]
        versioned = {f"{app}-{d.version}" for app, d in live.items() if d}
        shared = {app for app, d in live.items() if d}
        for kind, names in ((CONTROLLER, versioned), (SERVICE, versioned | shared | {"foreign"})):
            if set(self.objects(kind)) != names:
                problems.append(f"{kind.plural} are {sorted(self.objects(kind))}, not {sorted(names)}")
        for app, deployment in live.items():
            if deployment and self.live_version(app) != deployment.version:
                problems.append(f"service {app} selects {self.live_version(app)}, not {deployment.version}")
        for name, pod in self.pods().items():
            if name.rpartition("-")[0] not in versioned or not is_ready(pod):
                problems.append(f"there is a pod {name}, {pod['status']}")
        if foreign_versions(self) != self.foreign:
            problems.append(f"foreign objects are {foreign_versions(self)}, not {self.foreign}")
        logs = "".join(f"--- {id}\n{self.log(id)}" for ids in self.accepted.values() for id in ids)
        assert not problems, "\n  ".join(["", *problems, logs])

    def _check_ends(self, app: str) -> Deployment | None:
        """Each came to one end, under a version of its own. Returns the live one."""
        live: list[Deployment] = []
        versions = []
        for id in self.accepted[app]:
            found = self.store.get(Deployment, id)
            assert found and not found.status.moving, f"{id}: {found}"
            assert self.store.get(StoredDescriptor, found.descriptor["id"])
            lines = [line.partition(" ")[2] for line in self.log(id).splitlines()]
            ends = [line for line in lines if line.startswith(("DEPLOYED:", "FAILURE:", "UNDEPLOYED: the deployment"))]
            assert len(ends) == 1, f"{id} ended {ends}"
            live += [found] * (found.status is Status.DEPLOYED)
            versions += [found.version] * bool(found.version)
        assert len(set(versions)) == len(versions), f"{app} has {versions}"
        assert len(live) <= 1, live
        return live[0] if live else None


Worlds = Callable[..., Faulty]


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Worlds]:
    """Makes Deployers with these settings, each behind a proxy of its own that does nothing wrong yet."""
    made: list[Faulty] = []

    def make(*, silence: float = WATCH_SILENCE, read_timeout: float = 2.0, started: bool = True, **more: Any) -> Faulty:
        name = f"t-{uuid.uuid4().hex[:12]}"
        (tmp_path / name).mkdir()
        world = Faulty(tmp_path / name, name, **more)
        made.append(world)
        world.silence, world.read_timeout = silence, read_timeout
        if started:
            world.start()
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def faulty(worlds: Worlds) -> Faulty:
    """One of them."""
    return worlds()


def together(*actions: Callable[[], None]) -> None:
    """All at the same time; most of it is waiting."""
    with ThreadPoolExecutor(len(actions)) as pool:
        for outcome in [pool.submit(action) for action in actions]:
            outcome.result()


# --- 11: lost answers ---------------------------------------------------------------------------------------------

WRITES = {"create", "replace", "patch", "delete"}
Case = tuple[int, faults.Fault]


def test_every_request_of_a_deployment_fails_once(faulty: Faulty, worlds: Worlds) -> None:
    """The requests of a clean deployment are counted; then each of them is the one that goes wrong in another one."""
    faulty.deployed(**HEALTHY)
    faulty.quiet()
    before = len(faulty.proxy.seen)
    faulty.deployed(**HEALTHY)
    faulty.quiet()
    clean = faulty.proxy.seen[before:]
    assert {e.verb for e in clean} >= {"get", "list", "create", "replace", "delete"}
    cases: list[Case] = [(number, faults.drop) for number in range(len(clean))]
    # What the Deployer sees of these differs by verb, hardly by the request.
    first_of = {e.verb: number for number, e in reversed(list(enumerate(clean)))}
    more = {number for number, e in enumerate(clean) if e.verb in WRITES} | set(first_of.values())
    cases += [(number, fault) for number in sorted(more) for fault in (faults.reset, faults.truncate)]
    four = [faulty, *(worlds() for _ in range(3))]
    together(*(lambda world=world, n=n: deploy_all(world, cases[n::4]) for n, world in enumerate(four)))  # type: ignore[misc]
    # The last ones of a clean run need not be there in every other.
    befell = sum(rule.hits for world in four for rule in world.proxy.rules)
    assert befell >= 0.8 * len(cases), (befell, len(cases))


def deploy_all(world: Faulty, cases: list[Case]) -> None:
    """One deployment after the other, each with a fault at that request."""
    world.deployed(**HEALTHY)
    world.quiet()
    for number, fault in cases:
        rule = world.proxy.on(fault, skip=number, times=1)
        world.deployed(**HEALTHY)
        world.quiet()
        rule.lift()
    world.check()


def test_a_lost_create_adopts_only_what_is_its_own(faulty: Faulty) -> None:
    faulty.deployed()
    faulty.quiet()
    theirs = {"app": "theirs"}
    template = {"metadata": {"labels": theirs}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    body = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "shop-2"},
        "spec": {"replicas": 0, "selector": theirs, "template": template},
    }

    def overtake(exchange: Exchange) -> None:
        faulty.eyes.create(CONTROLLER, body, faulty.namespace)
        exchange.reset()

    rule = faulty.proxy.on(overtake, "create", "replicationcontrollers/shop-2", times=1)
    failed = faulty.ended(faulty.deploy(), Status.FAILURE)
    assert rule.hits == 1 and failed.failure and failed.failure["reason"] == "ForeignObject"
    kept = faulty.objects(CONTROLLER)["shop-2"]
    assert kept["spec"]["selector"] == theirs and (faulty.live_version(), set(faulty.objects(SERVICE))) == (
        "1",
        {"shop", "shop-1", "foreign"},
    )
    faulty.eyes.delete(CONTROLLER, "shop-2", faulty.namespace, uid=kept["metadata"]["uid"])
    faulty.check()


# --- 6: conflicts -------------------------------------------------------------------------------------------------


def test_conflicts_in_a_row(faulty: Faulty) -> None:
    """Somebody else is quicker: every time, then five times on every verb that edits."""
    faulty.deployed()
    numbers = itertools.count(1)

    def edit() -> None:
        notes = {f"theirs-{next(numbers)}": "stays"}
        faulty.eyes.patch(SERVICE, "shop", {"metadata": {"annotations": notes}}, faulty.namespace)

    replaced = faulty.proxy.on(faults.first(edit), "replace", "^services/shop[?]")
    failed = faulty.ended(faulty.deploy(), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "Conflict"
    assert (faulty.live_version(), 5 <= replaced.hits <= 12) == ("1", True)
    replaced.lift()
    faulty.quiet()
    faulty.restart()
    rules = [faulty.proxy.on(faults.first(edit), v, "^services/shop[?]", times=5) for v in ("patch", "replace")]
    faulty.deployed()
    faulty.check()
    notes = faulty.objects(SERVICE)["shop"]["metadata"]["annotations"]
    assert {f"theirs-{n}" for n in range(1, next(numbers))} <= notes.keys()
    rules.append(faulty.proxy.on(faults.first(edit), "delete", "^services/shop$", times=5))
    live = next(d for d in faulty.service.deployments(faulty.namespace, "shop") if d.status is Status.DEPLOYED)
    faulty.service.undeploy(faulty.namespace, live.id)
    faulty.quiet()
    assert [rule.hits for rule in rules] == [5, 5, 5]
    assert set(faulty.objects(SERVICE)) == {"foreign"} and not faulty.pods()


# --- 7: throttled and drained -------------------------------------------------------------------------------------

VERBS = ("get", "list", "watch", "create", "replace", "patch", "delete")


def plural(exchange: Exchange) -> str:
    return exchange.place.partition("/")[0]


def test_a_second_is_waited_for_on_every_verb(faulty: Faulty) -> None:
    faulty.deployed()
    faulty.quiet()
    faulty.restart()
    before = len(faulty.proxy.seen)
    codes = zip(VERBS, itertools.cycle((429, 503)))
    rules = {v: faulty.proxy.on(faults.status(code, retry_after=1), v, times=1) for v, code in codes}
    faulty.deployed()
    faulty.quiet()
    assert {verb: rule.hits for verb, rule in rules.items()} == dict.fromkeys(VERBS, 1)
    seen = faulty.proxy.seen[before:]
    for verb in VERBS:
        asked = next(e for e in seen if e.verb == verb)
        again = next(e for e in seen if e.verb == verb and e is not asked and plural(e) == plural(asked))
        assert again.at - asked.at >= 1.0, (asked, again)
    faulty.check()


def test_an_hour_is_waited_for_only_until_the_deadline(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each verb is refused in another app; nothing is asked again before that app's deadline."""
    monkeypatch.setattr(budgets, "PODS_GONE", 0.0)
    world = worlds()
    places = {
        "get": "^services/get$",
        "list": "^pods/.labelSelector=app=list,",
        "create": "^replicationcontrollers/create-2",
        "replace": "^services/replace[?]",
        "patch": "^services/patch",
        "delete": "^replicationcontrollers/delete-1",
    }
    for made in [world.deploy(app) for app in places]:
        world.ended(made, Status.DEPLOYED)
    world.quiet()
    world.settings = dataclasses.replace(world.settings, expose_timeout=5.0, undo_timeout=5.0)
    world.restart()
    codes = zip(places, itertools.cycle((503, 429)))
    drained = {v: world.proxy.on(faults.status(code, retry_after=3600), v, places[v], times=1) for v, code in codes}
    began = time.monotonic()

    def budget(app: str) -> dict[str, int]:
        return {"timeoutSeconds": 5} if app == "create" else {}

    ended = {app: world.ended(made) for app, made in {app: world.deploy(app, **budget(app)) for app in places}.items()}
    for app, deployment in ended.items():
        if app in ("list", "delete"):  # of the old version, which is another operation's business
            assert deployment.status is Status.DEPLOYED
            continue
        assert (deployment.status, world.live_version(app)) == (Status.FAILURE, "1")
        assert deployment.failure and deployment.failure["reason"] == "ApiServerUnavailable"
        assert "on purpose" in deployment.failure["message"]
    assert time.monotonic() - began < 40 and all(rule.hits == 1 for rule in drained.values())
    world.check()
    for app, verb in zip(places, places, strict=True):
        times = [
            e.at for e in world.proxy.seen if e.at >= began and e.verb == verb and re.search(places[verb], e.place)
        ]
        assert len(times) == 1 or times[1] - times[0] >= 4.9, (app, times)


def test_mirrors_wait_too_but_not_for_an_hour(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer, "RETRY_AFTER_MOST", 2.0)
    rules = [
        faulty.proxy.on(faults.status(503, retry_after=3600), verb, "^pods", times=1) for verb in ("list", "watch")
    ]
    for _ in range(2):
        faulty.deployed()
    assert [rule.hits for rule in rules] == [1, 1]
    for verb in ("list", "watch"):
        asked, again, *_ = [e.at for e in faulty.proxy.seen if e.verb == verb and plural(e) == "pods"]
        assert again - asked >= 2.0
    faulty.check()


# --- 8, 9, 14: watches --------------------------------------------------------------------------------------------


def test_a_watch_that_falls_silent(worlds: Worlds) -> None:
    """First the open ones; then every new one is as silent, as with an API server that is cut off from its store."""
    world = worlds(silence=2.0)
    world.deployed(**HEALTHY)
    for stream in world.proxy.watches():
        stream.silence()
    world.deployed(**HEALTHY)
    rule = world.proxy.on(lambda exchange: (exchange.stream(), exchange.hang()), "watch")
    for stream in world.proxy.watches():
        stream.silence()
    before = world.proxy.count()
    world.deployed(**HEALTHY)
    after = world.proxy.count() - before
    assert rule.hits >= 1 and after["list"] >= 2
    rule.lift()
    world.check()


@pytest.mark.parametrize("form", [faults.expired, faults.status(410, "Expired")], ids=["event", "status"])
def test_410_again_and_again(faulty: Faulty, form: faults.Fault) -> None:
    rule = faulty.proxy.on(form, "watch")
    began = time.monotonic()
    for _ in range(2):
        faulty.deployed(**HEALTHY)
    faulty.quiet()
    # Four informers at most, each of which lists again after 0.1, 0.2, 0.4 ... 5 s.
    most = 4 * (8 + (time.monotonic() - began) / 4)
    assert 6 <= rule.hits <= most, (rule.hits, most)
    rule.lift()
    faulty.check()


RUBBISH = (b"\xff not json\n", faults.event("MODIFIED", {"metadata": {}}))


def test_undecodable_events_are_skipped_and_counted(faulty: Faulty) -> None:
    faulty.deployed(**HEALTHY)
    pods = faulty.informers.get(POD, faulty.namespace)

    def spoil(line: bytes) -> None:
        for stream in faulty.proxy.watches():
            stream.send(line)

    for number, line in enumerate(RUBBISH, 1):
        rule = faulty.proxy.on(
            faults.first(lambda line=line: spoil(line)),
            "create",
            "replicationcontrollers",
            times=1,  # type: ignore[misc]
        )
        faulty.deployed(**HEALTHY)
        assert (rule.hits, pods.skipped) == (1, number)
    faulty.check()


def test_a_watch_that_ends_within_a_line(faulty: Faulty) -> None:
    """The open ones, and then those that take up where they ended."""
    faulty.deployed(**HEALTHY)
    for stream in faulty.proxy.watches():
        stream.cut()
    rule = faulty.proxy.on(faults.truncate, "watch", times=4)
    faulty.deployed(**HEALTHY)
    faulty.check()
    assert rule.hits == 4


# --- 10: refused, and black holes ---------------------------------------------------------------------------------


def test_refused_for_a_while(faulty: Faulty) -> None:
    """About one request a second from each caller, then it goes on; a shorter budget than that is a failure."""
    faulty.deployed(**HEALTHY)
    faulty.quiet()
    down = 10.0
    faulty.proxy.on(lambda exchange: (exchange.forward(), gone.set()), "create", "replicationcontrollers", times=1)
    gone = threading.Event()
    deployment = faulty.deploy(**HEALTHY)
    assert gone.wait(90)
    faulty.proxy.refuse()
    before = faulty.client.requests
    threading.Event().wait(down)
    spent = faulty.client.requests - before
    faulty.proxy.accept()
    # One step and three informers; the first five attempts are quicker.
    assert 4 <= spent.total() <= 4 * (down + 5), spent
    faulty.ended(deployment, Status.DEPLOYED)
    faulty.check()


def test_refused_until_the_budget_is_used_up(worlds: Worlds) -> None:
    world = worlds()
    world.deployed(**HEALTHY)
    world.quiet()
    gone = threading.Event()
    world.proxy.on(lambda exchange: (exchange.forward(), gone.set()), "create", "replicationcontrollers", times=1)
    deployment = world.deploy(**HEALTHY, timeoutSeconds=3, env={"SLOW_START": "60"})
    assert gone.wait(90)
    world.proxy.refuse()
    world.until(lambda: "failed:" in world.log(deployment.id), "the failure")
    world.proxy.accept()
    world.ended(deployment, Status.FAILURE)
    assert world.live_version() == "1"
    world.check()


PHASES = {
    "decide": ("get", "^services/shop$"),
    "start": ("create", "^replicationcontrollers"),
    "expose": ("replace", "^services/shop[?]"),
    "retire": ("delete", "^replicationcontrollers/shop-2"),
}
UNHEALTHY = {"env": {"FAIL": "1"}}


def test_a_black_hole_in_each_phase(worlds: Worlds) -> None:
    """For some seconds nothing is answered, from the middle of a phase on; then all goes on where it was."""

    def case(phase: str) -> None:
        world = worlds(silence=3.0, expose_timeout=30.0, timeout=6.0)
        world.deployed(**HEALTHY)
        world.deployed(**HEALTHY)
        world.quiet()
        swallowed = threading.Event()

        def swallow(exchange: Exchange) -> None:
            swallowed.set()
            exchange.hang()

        if phase in PHASES:
            world.proxy.on(swallow, *PHASES[phase], times=1)
        deployment = world.deploy(**HEALTHY, **(UNHEALTHY if phase == "verify" else {}))
        if phase == "verify":
            world.until(lambda: "not healthy yet" in world.log(deployment.id), "the health checks")
        else:
            assert swallowed.wait(90), phase
        with world.proxy.dark():
            threading.Event().wait(3.0)
        world.ended(deployment, Status.FAILURE if phase == "verify" else Status.DEPLOYED)
        world.check()

    together(*(lambda phase=phase: case(phase) for phase in (*PHASES, "verify")))  # type: ignore[misc]


def test_a_request_that_arrives_late(faulty: Faulty) -> None:
    """It was given up, repeated and done long ago when the API server gets to see it."""
    faulty.deployed()
    faulty.read_timeout = 0.5
    faulty.quiet()
    faulty.restart()
    rules = [faulty.proxy.on(faults.delay(1.5), verb, times=2) for verb in WRITES]
    faulty.deployed()
    faulty.quiet()
    assert all(rule.hits for rule in rules)
    late = [e for e in faulty.proxy.seen if e.verb in WRITES]
    faulty.until(lambda: all(e.status for e in late), "the late requests")
    faulty.check()


# --- 12: tokens ---------------------------------------------------------------------------------------------------

ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
REVIEW = Kind("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
READ, WRITE = ("get", "list", "watch"), ("create", "update", "patch", "delete")
RIGHTS = {
    "replicationcontrollers": ("", *READ, *WRITE),
    "services": ("", *READ, *WRITE),
    "pods": ("", *READ),
    "pods/log": ("", "get"),
    "events": ("", *READ),
    "endpointslices": ("discovery.k8s.io", *READ),
}
"""What deploying takes: resource -> API group and verbs."""


class Account:
    """A ServiceAccount that may do what deploying takes, and tokens of it that can be made invalid."""

    def __init__(self, admin: KubeClient, namespace: str) -> None:
        self._admin, self._namespace = admin, namespace
        self._numbers = itertools.count(1)
        self.create(ACCOUNT, "deployer")
        self.create(ROLE, "deployer", rules=self._rules())
        subject = {"kind": "ServiceAccount", "name": "deployer", "namespace": namespace}
        reference = {"apiGroup": ROLE.group, "kind": "Role", "name": "deployer"}
        self.create(BINDING, "deployer", subjects=[subject], roleRef=reference)

    def create(self, kind: Kind, name: str, **fields: Any) -> Document:
        return self._admin.create(kind, _object(kind, name, **fields), self._namespace)

    def _rules(self, but: tuple[str, str] = ("", "")) -> list[Document]:
        return [
            {"apiGroups": [group], "resources": [plural], "verbs": [v for v in verbs if (v, plural) != but]}
            for plural, (group, *verbs) in RIGHTS.items()
        ]

    def grant(self, verb: str, plural: str, allowed: bool) -> None:
        """Take that right away, or give all; returns when the API server has taken notice."""
        rules = self._rules() if allowed else self._rules((verb, plural))
        self._admin.patch(ROLE, "deployer", {"rules": rules}, self._namespace)
        asked = {"namespace": self._namespace, "verb": verb, "group": RIGHTS[plural][0], "resource": plural}
        spec = {"user": f"system:serviceaccount:{self._namespace}:deployer", "resourceAttributes": asked}
        scope = CancelScope(time.monotonic() + 60)
        while self._admin.create(REVIEW, _object(REVIEW, "", spec=spec), scope=scope)["status"]["allowed"] != allowed:
            scope.pause(0.02)

    def token(self) -> tuple[str, Callable[[], None]]:
        """A new token, and what makes it invalid."""
        name = f"token-{next(self._numbers)}"
        uid = self.create(SECRET, name)["metadata"]["uid"]
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}
        requests = Kind("", "v1", "serviceaccounts/deployer/token", "TokenRequest")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": bound}}
        answer = self._admin.create(requests, body, self._namespace)

        def revoke() -> None:
            self._admin.delete(SECRET, name, self._namespace, uid=uid)

        return answer["status"]["token"], revoke


def with_token(world: Faulty, file: Path, account: Account) -> Callable[[], None]:
    """Start it with a token from that file instead of the administrator's certificate; returns what revokes it."""
    token, revoke = account.token()
    file.write_text(token)
    world.settings = dataclasses.replace(world.settings, kubernetes_token_file=str(file))
    world.start()
    return revoke


def await_refused(world: Faulty) -> None:
    """The API server remembers for some seconds that a token was good."""
    scope = CancelScope(time.monotonic() + 60)
    while True:
        try:
            world.client.list(SERVICE, world.namespace, scope=scope, retry=False)
            scope.pause(0.2)
        except KubeForbidden as error:
            assert error.status == 401
            return


def test_a_token_that_changes_hands(worlds: Worlds, tmp_path: Path) -> None:
    """Empty for a moment, away, and refused for some seconds in the middle of a deployment: no restart is needed."""
    world, file = worlds(started=False), tmp_path / "token"
    account = Account(world.eyes, world.namespace)
    revoke = with_token(world, file, account)
    world.deployed(**HEALTHY)
    file.write_text("")
    world.deployed(**HEALTHY)
    world.quiet()
    file.unlink()
    revoke()
    await_refused(world)
    began = time.monotonic()
    deployment = world.deploy(**HEALTHY)

    def refused() -> bool:
        assert not world.log(deployment.id).count("FAILURE"), world.log(deployment.id)
        return sum(e.status == 401 for e in world.proxy.seen if e.at > began) >= 6

    world.until(refused, "some refusals")
    token, _ = account.token()
    file.write_text(token)
    world.ended(deployment, Status.DEPLOYED)
    world.check()


def test_a_token_that_is_refused_for_good(worlds: Worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployment fails, and is undone as soon as there is a token that works."""
    monkeypatch.setattr(client_module, "REFUSED_BORNE", 1.0)
    world, file = worlds(started=False), tmp_path / "token"
    account = Account(world.eyes, world.namespace)
    with_token(world, file, account)
    world.deployed(**HEALTHY)
    world.quiet()

    def spoil(exchange: Exchange) -> None:
        exchange.forward()
        file.write_text("no.real.token")

    world.proxy.on(spoil, "create", "^services/shop-2", times=1)
    deployment = world.deploy(**HEALTHY)
    world.until(lambda: "undoing is not finished" in world.log(deployment.id), "the failure")
    token, _ = account.token()
    file.write_text(token)
    failed = world.ended(deployment, Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "Unauthorized"
    assert world.live_version() == "1"
    world.deployed(**HEALTHY)
    world.check()


# --- 13: refused by the API server itself -------------------------------------------------------------------------

QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
POLICY = Kind("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False)
POLICY_BINDING = dataclasses.replace(
    POLICY, plural="validatingadmissionpolicybindings", kind="ValidatingAdmissionPolicyBinding"
)


def test_a_right_that_is_missing(worlds: Worlds, tmp_path: Path) -> None:
    world = worlds(started=False)
    account = Account(world.eyes, world.namespace)
    with_token(world, tmp_path / "token", account)
    world.deployed(**HEALTHY)

    for verb, plural in (("create", "services"), ("update", "services"), ("list", "endpointslices")):
        world.quiet()
        account.grant(verb, plural, False)
        world.restart()
        failed = world.ended(world.deploy(**HEALTHY), Status.FAILURE)
        assert failed.failure and failed.failure["reason"] == "Forbidden"
        assert plural in failed.failure["message"] and world.namespace in failed.failure["message"]
        assert world.live_version() == "1"
        account.grant(verb, plural, True)
    # What retires tries again until it may; what deploys meanwhile is live. An old refusal is not held against it.
    account.grant("delete", "replicationcontrollers", False)
    world.deployed(**HEALTHY)
    old = world.accepted["shop"][0]
    world.until(lambda: "retiring is not finished" in world.log(old), "the retirement to be refused")
    account.grant("delete", "replicationcontrollers", True)
    world.check()


def test_refusals_of_admission(faulty: Faulty) -> None:
    faulty.deployed(**HEALTHY)
    name = f"deployer-test-{faulty.namespace}"
    kube = faulty.eyes

    def fails(reason: str, words: str, **fields: Any) -> None:
        failed = faulty.ended(faulty.deploy(**{**HEALTHY, **fields}), Status.FAILURE)
        assert failed.failure and failed.failure["reason"] == reason and words in failed.failure["message"], failed
        assert (faulty.live_version(), set(faulty.objects(CONTROLLER))) == ("1", {"shop-1"})

    volumes = [{"name": "both", "emptyDir": {}, "secret": {"secretName": "a"}}]
    container = {"name": "web", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 8080}]}
    more_than_one = "may not specify more than 1 volume type"
    fails("Invalid", more_than_one, podspec={"containers": [container], "volumes": volumes})

    hard = {"count/replicationcontrollers": "1"}
    quota = kube.create(QUOTA, _object(QUOTA, "q", spec={"hard": hard}), faulty.namespace)
    scope = CancelScope(time.monotonic() + 60)
    while kube.get(QUOTA, "q", faulty.namespace, scope=scope).get("status", {}).get("used") != hard:
        scope.pause(0.1)
    fails("Forbidden", "exceeded quota")
    kube.delete(QUOTA, "q", faulty.namespace, uid=quota["metadata"]["uid"])

    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["replicationcontrollers"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "not on a Friday"}],
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": faulty.namespace}}}
    bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
    made = [(k, kube.create(k, _object(k, name, spec=s))) for k, s in ((POLICY, spec), (POLICY_BINDING, bound))]
    try:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
        probe = _object(CONTROLLER, "probe", spec={"replicas": 0, "selector": {"a": "b"}, "template": template})
        with pytest.raises(KubeError, match="not on a Friday"):
            while True:
                kube.create(CONTROLLER, probe, faulty.namespace, dry_run=True, scope=scope)
                scope.pause(0.1)
        fails("Invalid", "not on a Friday")
    finally:
        for kind, found in made:
            kube.delete(kind, name, uid=found["metadata"]["uid"])
    faulty.check()


def _object(kind: Kind, name: str, **fields: Any) -> Document:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, **fields}


# --- 15, and everything at once -----------------------------------------------------------------------------------


def test_a_diagnosis_when_not_even_its_sources_answer(worlds: Worlds) -> None:
    """Events and logs are out of reach: the failure has its reason all the same, and the new version goes."""
    world = worlds(max_restarts=1)
    world.deployed(**HEALTHY)
    lost = [
        world.proxy.on(faults.status(500, "InternalError"), "list", "^events"),
        world.proxy.on(faults.reset, "log"),
    ]
    failed = world.ended(world.deploy(**HEALTHY, env={"CRASH_AFTER": "0.1"}), Status.FAILURE)
    assert failed.failure and failed.failure["reason"] == "CrashLoop" and "exit code 3" in failed.failure["message"]
    for rule in lost:
        rule.lift()
    assert world.live_version() == "1"
    world.check()


def test_everything_goes_wrong_at_times(worlds: Worlds) -> None:
    """One request in six, of any verb, for three apps at once; which ones is decided by a seed that is told."""
    seed = random.randrange(1000)
    dice = random.Random(seed)
    world = worlds(silence=3.0, read_timeout=1.0)
    kinds = [faults.drop, faults.reset, faults.truncate, faults.blackhole, faults.status(503, retry_after=0.2)]
    kinds += [faults.status(500), faults.status(429, retry_after=0.5), faults.delay(1.3)]

    def befall(exchange: Exchange) -> None:
        dice.choice([Exchange.forward] * 5 * len(kinds) + kinds)(exchange)

    rule = world.proxy.on(befall)
    try:
        for _ in range(3):
            for made in [world.deploy(app, **HEALTHY) for app in ("one", "two", "three")]:
                world.ended(made, Status.DEPLOYED)
        world.quiet()
        rule.lift()
        world.check()
    except AssertionError as error:
        raise AssertionError(f"with seed {seed}: {error}") from error

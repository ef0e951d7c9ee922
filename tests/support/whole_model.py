"""What the model of the whole service knows and checks: apps, what was acknowledged, what must hold at any moment.

A `Run` is one service from its first start to its end: a process that is killed and started again, on the sandbox
behind a proxy that misbehaves. It gives no order twice and waits for nothing but in `settle`, which checks everything.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.core.errors import KubeConflict, KubeNotFound
from deployer.core.model.kind import CONFIG_MAP, CONTROLLER, INGRESS, JOB, NAMESPACE, SERVICE, Kind
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient
from support import faultproxy
from support.aftermath import FOREIGN, all_objects
from support.command import Rest
from support.faultproxy import FaultProxy
from support.flows import CANARY, UNHEALTHY, migrating
from support.forkserver import ForkServer
from support.history import History, backend_of, document, foreign_versions, make_foreign, ready_pods
from support.whole_service import Died, WholeService
from support.world import HEALTHY, NGINX, World, describe

KILLED = (137, -9)
"""How the process ends when it is killed at a failpoint, and by a signal."""

ENDS = ("FAILURE", "UNDEPLOYED")
PATIENCE = 60.0
"""Seconds in which some operation ends, once there is no trouble any more."""

ALL = 900.0
"""Seconds in which all do."""

SETTINGS: dict[str, Any] = {
    "own_namespace": "",
    "loopback_pods": True,
    "deployport": 0,
    "ingress": "nginx",
    "proxysleep": 0.0,
    "min_ready": 0.0,
    "timeout": 1.0,
    "start_timeout": 4.0,
    "expose_timeout": 6.0,
    "undo_timeout": 10.0,
    "watch_interval": 0.5,
    "admission_grace": 1.0,
    "unschedulable_grace": 1.0,
    "image_pull_attempts": 2,
    "plugins": {"ingress_nginx": {**NGINX, "propagation_seconds": 0.2, "minimum_hold": 0.1}},
}

LIVE = re.compile(r"^\S+ DEPLOYED: ", re.MULTILINE)
ENDED = re.compile(r"^\S+ (FAILURE|UNDEPLOYED)\b", re.MULTILINE)


ASKS = {"type": "approval", "name": "ask"}
DESCRIPTORS: Mapping[str, dict[str, Any]] = {
    "well": {},
    "canary": CANARY,
    "recreate": {"deploymentType": "recreate"},
    "warm": {"keepWarm": 60.0},
    "soaks": {"soakSeconds": 1},
    "asks": {"gates": {"beforeSwitch": [ASKS]}},
    "asks late": {"gates": {"beforeStart": [ASKS], "afterSwitch": [{**ASKS, "name": "then"}]}},
    "migrates": migrating(),
    "fails to migrate": migrating(3),
    "recreate unhealthy": {"deploymentType": "recreate", **UNHEALTHY},
    "canary unhealthy": {**CANARY, **UNHEALTHY},
    "unhealthy": UNHEALTHY,
    "no image": {"image": "nobody/knows:1"},
    "crashes": {"image": "sample/web:crash"},
    "dies": {"keepWarm": 60.0, "env": {"CRASH_AFTER": "1"}},
    "named": {"newVersion": "blue"},
}
"""What is deployed, by name: fields of the descriptor."""

FAULTS: Mapping[str, faultproxy.Fault] = {
    "conflict": faultproxy.status(409, "Conflict"),
    "too many": faultproxy.status(429, "TooManyRequests", retry_after=0.2),
    "unavailable": faultproxy.status(503, "ServiceUnavailable", retry_after=0.2),
    "unavailable for long": faultproxy.status(503, "ServiceUnavailable", retry_after=3600),
    "broken": faultproxy.status(500, "InternalError"),
    "lost answer": faultproxy.drop,
    "reset": faultproxy.reset,
    "half an answer": faultproxy.truncate,
    "late": faultproxy.delay(0.4),
    "expired": faultproxy.status(410, "Expired"),
}
"""What the API server does wrong, by name."""

STORE_FAULTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "refuses": ("lose_commits", {"times": 3, "written": False}),
    "loses the answer": ("lose_commits", {"times": 2, "written": True}),
    "full disk": ("fill_disk", {}),
    "broken disk": ("break_disk", {}),
}
"""What the store does wrong, by name: an order."""


@dataclass
class Lab:
    """What all runs share. `steps` and their `seconds` are counted by name; `failures` are told in the end."""

    api: str
    server: ForkServer
    path: Path
    steps: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    failures: list[str] = field(default_factory=list)


@dataclass
class App:
    """One application, as its team knows it.

    excused    why it may be without a ready pod until it is looked at again; empty: it may not
    disturbed  why deploying it once more may take it from its users: it has a version that does
    tampered   what somebody changed behind the Deployer's back and nobody has put right yet
    undeployed ids of deployments that somebody wanted to be rid of since it was looked at last
    """

    namespace: str
    name: str
    excused: str = ""
    disturbed: str = ""
    tampered: str = ""
    undeployed: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def host(self) -> str:
        return f"{self.name}.{self.namespace}.example"


class Run:
    """See above. Raises AssertionError for whatever must not be."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._proxy = FaultProxy(lab.api)
        self._path = lab.path / uuid.uuid4().hex[:8]
        self._path.mkdir()
        self._jump = 0.0
        self.trace: list[str] = []
        first, second = (f"w-{uuid.uuid4().hex[:8]}" for _ in range(2))
        self.apps = [App(first, "shop"), App(first, "shop-api"), App(second, "shop"), App(second, "till")]
        self.worlds = {n: World(None, self._path, n, kubernetes=lab.api) for n in (first, second)}
        self._put_right: list[Callable[[], None]] = []
        self._foreign = {n: make_foreign(world) for n, world in self.worlds.items()}
        self._histories = {n: History(world.eyes, n) for n, world in self.worlds.items()}
        self._looked = dict.fromkeys(self.worlds, 0)
        self._frozen: set[str] = set()
        self._deleted: set[str] = set()
        self._service = self._start()

    # --- the process ----------------------------------------------------------------------------------------------

    def _start(self, kill: str = "") -> WholeService:
        settings = {**SETTINGS, "kubernetes": self._proxy.url}
        while True:
            try:
                return WholeService(self._lab.server, self._path, settings, jump=self._jump, kill=kill)
            except Died as death:
                assert death.args[0] in KILLED, f"the service ended with {death.args[0]} while it started"
                kill = ""

    def order(self, what: str, **arguments: Any) -> Any:
        """Give the process an order; one that has died is started again first."""
        while True:
            try:
                return self._service.ask(what, **arguments)
            except Died:
                self._buried()

    def _buried(self) -> None:
        """It has died, or is about to; start another one. No other end than that of a kill is good."""
        code = self._service.exit()
        assert code in KILLED, f"the service ended with {code}"
        self._service = self._start()

    def crash(self, kill: str = "") -> None:
        """SIGKILL now; the next one dies at the failpoint `kill`."""
        self._service.kill()
        self._service = self._start(kill)

    def restart(self) -> None:
        """An orderly end, and the next start."""
        try:
            self._service.ask("stop")
            code = self._service.exit(30)
            assert code == 0, f"an orderly stop ended with {code}"
            self._service = self._start()
        except Died:
            self._buried()

    def jump(self, seconds: float) -> None:
        """Somebody sets the system's clock."""
        self._jump += seconds
        self.order("jump", seconds=seconds)

    # --- REST -----------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, namespace: str, body: Any = None, query: str = "") -> tuple[int, Any]:
        """Status and body; (0, None) when the process died meanwhile, and nobody knows."""
        try:
            status, content = Rest(self._service.url, namespace).call(method, path, body, query)
        except (OSError, http.client.HTTPException):
            self._buried()
            return 0, None
        assert status < 500 or status == 503, f"{method} {path} was answered with {status}: {content}"
        return status, content

    # --- what users do --------------------------------------------------------------------------------------------

    def deploy(self, which: int, what: str) -> None:
        """Store a descriptor and deploy it."""
        app = self.apps[which]
        fields: dict[str, Any] = {"frontend": app.host, **HEALTHY, **DESCRIPTORS[what]}
        status, stored = self.call("POST", "/descriptors/", app.namespace, describe(app.namespace, app.name, **fields))
        assert status in (0, 201, 503), (status, stored)
        if status == 201:
            self._excuse(app, fields, what)
            query = f"&descriptorId={stored['id']}"
            answer = self.call("POST", "/deployments/", app.namespace, query=query)
            self._accepted(app, answer, 202, *self._or_frozen(app))

    def redeploy(self, which: int, newest: int) -> None:
        """Deploy the descriptor copy of one of the app's newest deployments once more."""
        app = self.apps[which]
        if id := self._one_of(app, newest):
            answer = self.call("PUT", f"/deployments/{id}/", app.namespace)
            self._accepted(app, answer, 202, 404, 409, *self._or_frozen(app))

    def roll_back(self, which: int) -> None:
        """Go back to the version before."""
        app = self.apps[which]
        answer = self.call("POST", "/rollbacks/", app.namespace, query=f"&appname={app.name}")
        self._accepted(app, answer, 202, 404, 409)

    def decide(self, which: int, *, approve: bool) -> None:
        """Say that the deployment that waits for it may go on, or not."""
        app = self.apps[which]
        for deployment in self._listed(app, "&status=DEPLOYING"):
            self._decide(app.namespace, deployment["id"], approve=approve)

    def _decide(self, namespace: str, id: str, *, approve: bool) -> bool:
        """About each gate that waits for a person. False: none does."""
        status, found = self.call("GET", f"/deployments/{id}/", namespace)
        assert status in (0, 200, 404, 503), (status, found)
        answered = False
        for gate in found.get("gates", ()) if status == 200 else ():
            if gate["waitsForApproval"]:
                said = {"approve": approve, "gate": gate["name"], "point": gate["point"]}
                status, content = self.call("POST", f"/deployments/{id}/approval", namespace, said)
                assert status in (0, 200, 404, 409, 503), (status, content)
                answered |= status == 200
        return answered

    def undeploy(self, which: int, newest: int, *, delete: bool) -> None:
        """Undeploy, or cancel, one of the app's newest deployments; perhaps its record is to go, too."""
        app = self.apps[which]
        if id := self._one_of(app, newest):
            app.undeployed.append(id)
            if delete:
                self._deleted.add(id)
            query = "&deleteDeployment=true" if delete else ""
            status, content = self.call("DELETE", f"/deployments/{id}/", app.namespace, query=query)
            assert status in (0, 202, 404, 503), (status, content)

    def freeze(self, which: int, *, freeze: bool) -> None:
        """Freeze the app's namespace, or lift that."""
        namespace = self.apps[which].namespace
        self._frozen.add(namespace)  # for all that is known, until it is
        if freeze:
            status, content = self.call("PUT", f"/freezes/{namespace}", namespace, {"reason": "because"})
            assert status in (0, 200, 201, 503), (status, content)
        else:
            status, content = self.call("DELETE", f"/freezes/{namespace}", namespace)
            assert status in (0, 200, 202, 204, 404, 503), (status, content)
            if status not in (0, 503):
                self._frozen.discard(namespace)

    def ask_around(self, which: int) -> None:
        """Look at whatever there is to be seen: it is answered, whatever happens."""
        app = self.apps[which]
        about = ("/apps/", ""), (f"/apps/{app.name}/", ""), (f"/apps/{app.name}/history/", "")
        for path, query in (*about, ("/deployments/", "&limit=2"), ("/descriptors/", f"&appname={app.name}")):
            status, content = self.call("GET", path, app.namespace, query=query)
            assert status in (0, 200, 404, 503), (path, status, content)
        status, content = self.call("GET", "/healthz", app.namespace)
        assert status in (0, 200), (status, content)

    def _or_frozen(self, app: App) -> tuple[int, ...]:
        return (423,) if app.namespace in self._frozen else ()

    def _listed(self, app: App, query: str = "") -> list[Document]:
        status, found = self.call("GET", "/deployments/", app.namespace, query=f"&appname={app.name}{query}")
        assert status in (0, 200, 503), (status, found)
        return list(found) if status == 200 else []

    def _one_of(self, app: App, newest: int) -> str:
        found = self._listed(app)
        return str(found[newest % len(found)]["id"]) if found else ""

    def _accepted(self, app: App, answer: tuple[int, Any], *expected: int) -> None:
        """What was acknowledged must not be lost from now on."""
        status, content = answer
        assert status in (0, 503, *expected), f"{app.key}: {status} {content}"
        if status == 202:
            app.ids.append(str(content["id"]))
        if status == 202 or app.disturbed:
            self._excuse(app, content["descriptor"] if status == 202 else {}, "deployed once more")

    @staticmethod
    def _excuse(app: App, descriptor: Mapping[str, Any], why: str) -> None:
        """Some have an outage, as their users know."""
        dies = _dies(descriptor)
        if descriptor.get("deploymentType") == "recreate" or dies:
            app.disturbed = why
        if app.disturbed:
            app.excused = app.excused or why
        if dies:
            app.tampered = why

    # --- what goes wrong ------------------------------------------------------------------------------------------

    def break_store(self, what: str) -> None:
        """The store does not record what it is given."""
        order, arguments = STORE_FAULTS[what]
        self.order(order, **arguments)

    def break_api(self, what: str, verb: str, times: int) -> None:
        """The API server, or what is before it, does something wrong so many times."""
        self._proxy.on(FAULTS[what], verb, times=times)

    def cut_off(self, what: str) -> None:
        """Open watches go silent; or nobody listens any more; or somebody does again."""
        if what == "silence":
            for stream in self._proxy.watches():
                stream.silence()
        elif what == "refuse":
            self._proxy.refuse()
        else:
            self._proxy.refuse()
            self._proxy.accept()

    def tamper(self, which: int, what: str) -> None:
        """Somebody changes an object of the app behind the Deployer's back."""
        app = self.apps[which]
        world = self.worlds[app.namespace]
        controllers = self._own(world, app, CONTROLLER)
        with contextlib.suppress(KubeNotFound, KubeConflict):
            if what == "selector" and app.name in self._own(world, app, SERVICE):
                self._tampered(app, what)
                self._edit_selector(world, app)
            elif what == "route" and app.name in self._own(world, app, INGRESS):
                self._tampered(app, what)
                uid = world.objects(INGRESS)[app.name]["metadata"]["uid"]
                world.eyes.delete(INGRESS, app.name, app.namespace, uid=uid)
            elif what == "controller" and controllers:
                self._tampered(app, what)
                name, found = sorted(controllers.items())[-1]
                world.eyes.delete(CONTROLLER, name, app.namespace, uid=found["metadata"]["uid"])
            elif what in ("up", "down") and controllers:
                if what == "down":
                    self._tampered(app, what)
                name = sorted(controllers)[0]
                patch = {"spec": {"replicas": 2 if what == "up" else 0}}
                world.eyes.patch(CONTROLLER, name, patch, app.namespace)

    def _tampered(self, app: App, what: str) -> None:
        app.excused = app.excused or what
        app.tampered = what

    def _edit_selector(self, world: World, app: App) -> None:
        """The Service leads nowhere, until everything settles."""
        found = world.objects(SERVICE)[app.name]
        before = found["spec"]["selector"]
        astray = {"selector": {**before, "version": "nobody"}}
        world.eyes.patch(SERVICE, app.name, {"spec": astray}, app.namespace)

        def put_right() -> None:
            now = world.objects(SERVICE).get(app.name)
            if now and now["spec"]["selector"] == astray["selector"]:
                world.eyes.patch(SERVICE, app.name, {"spec": {"selector": before}}, app.namespace)

        if before["version"] != "nobody":
            self._put_right.append(put_right)

    # --- checking -------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Put an end to all trouble, wait until nothing moves any more, and check everything."""
        self._calm()
        self._answer_gates()
        found = self.order("rest", patience=ALL, within=PATIENCE)
        while self._answer_gates():
            found = self.order("rest", patience=ALL, within=PATIENCE)
        problems = [*self._of_the_service(found), *self._of_the_time_since()]
        for app in self.apps:
            problems += self._of_the_app(app, found)
        assert not problems, "\n  ".join(["", *problems])

    def _calm(self) -> None:
        for rule in self._proxy.rules:
            rule.lift()
        self.cut_off("accept")
        self.order("arm", kill="")
        self.order("mend_store")
        for put_right in self._put_right:
            put_right()
        self._put_right.clear()

    def _answer_gates(self) -> bool:
        """Approve whatever waits for that. False: nothing does."""
        waiting = False
        for namespace in self.worlds:
            status, found = self.call("GET", "/deployments/", namespace, query="&status=DEPLOYING")
            assert status == 200, (status, found)
            for deployment in found:
                waiting |= self._decide(namespace, deployment["id"], approve=True)
        return waiting

    def _of_the_service(self, found: Document) -> list[str]:
        """What is wrong with what it says: REST, records and logs agree, and nothing acknowledged is lost."""
        problems = [found["hung"]] if found["hung"] else []
        status, content = self.call("GET", "/readyz", next(iter(self.worlds)))
        if status != 200:
            problems.append(f"it is not ready: {content}")
        records = {d["id"]: d for d in found["deployments"]}
        shown: dict[str, Document] = {}
        for namespace in self.worlds:
            status, listed = self.call("GET", "/deployments/", namespace)
            assert status == 200, (status, listed)
            shown |= {d["id"]: d for d in listed}
        lost = {id for app in self.apps for id in app.ids} - self._deleted - records.keys()
        problems += [f"acknowledged, but lost: {id}" for id in lost]
        for id, record in records.items():
            rest = shown.get(id, {})
            if (rest.get("status"), rest.get("version")) != (record["status"], record["version"]):
                problems.append(f"REST says {rest.get('status')} of deployment {id}, which is {record['status']}")
            problems += self._of_the_log(record)
        held = {(o["namespace"], o["app"]) for o in found["open"] if o["held"]}
        if problems and held:  # what waits for a person is looked at again and again, so it may go on meanwhile
            now = self.order("report")
            if now["deployments"] != found["deployments"]:
                return self._of_the_service(found | {"deployments": now["deployments"]})
        return problems

    def _of_the_log(self, record: Document) -> list[str]:
        id, status = record["id"], record["status"]
        code, log = self.call("GET", f"/deployments/{id}/logs", record["namespace"])
        assert code == 200, (code, log)
        ends = ENDED.findall(log)
        problems = []
        if status in ENDS and ends[-1:] != [status]:
            problems.append(f"deployment {id} is {status}, but the log ends it as {ends}")
        if status not in ENDS and ends:
            problems.append(f"deployment {id} is {status}, but the log ended it as {ends}")
        if len(ends) > 1:
            problems.append(f"deployment {id} came to several ends: {ends}")
        if status == "DEPLOYED" and not LIVE.search(log):
            problems.append(f"deployment {id} is DEPLOYED, and the log does not say so")
        return [f"{problem}\n{log}" for problem in problems]

    def _of_the_time_since(self) -> list[str]:
        """What was wrong in any state of the cluster since the last look."""
        problems = []
        for namespace, history in self._histories.items():
            now = history.now()
            for app in (app for app in self.apps if app.namespace == namespace):
                app.excused = app.excused or self._undeployed(app)
                if not app.excused:
                    found = outages(history, app, self._looked[namespace])
                    problems += [problem for owner, problem in found if self._was_live(app, owner)]
            self._looked[namespace] = now
            if (left := foreign_versions(self.worlds[namespace])) != self._foreign[namespace]:
                problems.append(f"what is foreign in {namespace} was changed: {left}")
        return problems

    def _undeployed(self, app: App) -> str:
        """Was something that had been live undeployed?"""
        return next((f"{id} was undeployed" for id in app.undeployed if self._was_live(app, id)), "")

    def _was_live(self, app: App, id: str) -> bool:
        """Was the deployment ever live, or is there nobody left to know?"""
        status, log = self.call("GET", f"/deployments/{id}/logs", app.namespace)
        return status == 404 or bool(LIVE.search(log))

    def _of_the_app(self, app: App, found: Document) -> list[str]:
        """What is wrong with it now that nothing moves."""
        app.undeployed.clear()
        mine = [d for d in found["deployments"] if (d["namespace"], d["app"]) == (app.namespace, app.name)]
        open_ = [o for o in found["open"] if (o["namespace"], o["app"]) == (app.namespace, app.name)]
        held = [o["held"] for o in open_ if o["held"]]
        problems = []
        if held and not app.tampered:
            problems.append(f"{app.key} is held, although nobody did anything: {held}")
        live = [d for d in mine if d["status"] == "DEPLOYED"]
        if len(live) > 1:
            problems.append(f"{app.key} has several live deployments")
        if any(_dies(d["descriptor"]) for d in live):
            app.excused = app.tampered = "its pods end again and again"
        wrong = self._objects(app, live, {o["deployment"] for o in open_}, mine) if not held else []
        if not wrong and not held and not any(_dies(d["descriptor"]) for d in live):
            app.excused = app.tampered = ""
        elif not app.tampered:
            problems += [f"{app.key}: {what}" for what in wrong]
        if not held:
            moving = [d for d in mine if d["status"] in ("DEPLOYING", "UNDEPLOYING")]
            waits = {o["deployment"] for o in open_}
            problems += [f"{d['id']} is {d['status']} for ever" for d in moving if d["id"] not in waits]
        if (found["live"].get(app.key) or "") != (live[0]["id"] if live else ""):
            problems.append(f"the record of {app.key} says live {found['live'].get(app.key)!r}, not {live}")
        return problems

    def _objects(self, app: App, live: list[Document], kept: set[str], mine: list[Document]) -> list[str]:
        """What there is of the app beyond, or short of, what its live version and those that are kept warm have."""
        world = self.worlds[app.namespace]
        version = f"{app.name}-{live[0]['version']}" if live else ""
        others = {f"{app.name}-{d['version']}" for d in mine if d["id"] in kept and d["version"]}
        objects = {kind: self._own(world, app, kind) for kind in (CONTROLLER, SERVICE, INGRESS, CONFIG_MAP, JOB)}
        wanted = {version} - {""}
        problems = []
        for kind, least, most in (
            (CONTROLLER, wanted, wanted | others),
            (SERVICE, wanted | {app.name} if live else set(), wanted | others | {app.name} if live else others),
            (INGRESS, {app.name} if live else set(), {app.name} if live else set()),
        ):
            names = set(objects[kind])
            if not least <= names <= most:
                problems.append(f"{kind.plural} are {sorted(names)}, not {sorted(least)}, or {sorted(most)} at most")
        problems += [f"jobs are left: {sorted(objects[JOB])}"] if objects[JOB] else []
        if not live or problems:
            return problems
        pods = world.pods()
        for name in (app.name, version):
            if not ready_pods({"pods": pods}, objects[SERVICE][name]):
                problems.append(f"service {name} selects no ready pod")
        if backend_of(objects[INGRESS][app.name]) != version:
            problems.append(f"the route leads to {backend_of(objects[INGRESS][app.name])}, not to {version}")
        return problems

    @staticmethod
    def _own(world: World, app: App, kind: Kind) -> dict[str, Document]:
        notes = lambda found: found["metadata"].get("annotations") or {}  # noqa: E731
        found = world.objects(kind)
        return {n: o for n, o in found.items() if notes(o).get("kube-deployer/app") == app.name}

    # --- the end --------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Undeploy everything: nothing may be left but what is foreign."""
        self.settle()
        for app in self.apps:
            status, content = self.call(
                "DELETE", "/deployments/", app.namespace, query=f"&appname={app.name}&undeploy=true"
            )
            assert status in (0, 202, 404), (status, content)
            query = f"&appname={app.name}&keepLatest=false"
            status, content = self.call("DELETE", "/descriptors/", app.namespace, query=query)
            assert status in (0, 200), (status, content)
        found = self.order("rest", patience=ALL, within=PATIENCE, idle=True)
        problems = [f"{what} are left: {found[what]}" for what in ("deployments", "plans", "hosts") if found[what]]
        problems += [f"{app} is said to be live" for app in found["live"].values() if app]
        problems += self.order("leases", apps=[[app.namespace, app.name] for app in self.apps])
        for world in self.worlds.values():
            left = [o for o in all_objects(world) if o["metadata"]["name"] not in FOREIGN and not self._edited(o)]
            problems += [f"left after undeploying everything: {document(left)}"] if left else []
        assert not problems, "\n  ".join(["", *problems])
        self.restart()

    def _edited(self, found: Document) -> bool:
        """Is it the Service of an app whose version failed while somebody edited that? It is left as it was edited."""
        of = (found["metadata"]["namespace"], found["metadata"]["name"])
        return found["kind"] == "Service" and any(app.tampered and of == (app.namespace, app.name) for app in self.apps)

    def story(self) -> str:
        """What was done, the objects that there are, and the end of the service's log."""
        parts = ["=== what was done", *self.trace]
        with contextlib.suppress(Exception):
            for namespace, world in self.worlds.items():
                objects = document(o for o in all_objects(world) if o["metadata"]["name"] not in FOREIGN)
                parts += [f"=== objects of {namespace}", *(line[:200] for line in objects.splitlines())]
        log = self._path / "service.log"
        lines = log.read_text().splitlines() if log.exists() else []
        parts += ["=== the service's log", *[line for line in lines if ":deployer.audit:" not in line][-100:]]
        return "\n".join([*parts, self._lab.server.log.read_text()[-4000:]])

    def close(self) -> None:
        """End the process, and remove the namespaces."""
        self._service.kill()
        for history in self._histories.values():
            history.close()
        for namespace, world in self.worlds.items():
            remove(world.eyes, namespace)
            world.eyes.close()
        self._proxy.close()


def _dies(descriptor: Mapping[str, Any]) -> bool:
    """Does its container end again and again, once it was ready?"""
    return any("CRASH_AFTER" in str(descriptor.get(name)) for name in ("env", "podspec"))


def remove(eyes: KubeClient, namespace: str) -> None:
    """A namespace, if it is there."""
    with contextlib.suppress(KubeNotFound, KubeConflict):
        eyes.delete(NAMESPACE, namespace, uid=eyes.get(NAMESPACE, namespace)["metadata"]["uid"])


def outages(history: History, app: App, since: int) -> Iterator[tuple[str, str]]:
    """Each change after revision `since` that left the app's Service or route, which had one, without a ready pod, and
    the id of the deployment whose it was."""
    owner: dict[str, str] = {}
    for revision, change, state in history.states():
        service, route = state["services"].get(app.name), state["ingresses"].get(app.name)
        behind = {
            "service": (service, service),
            "route": (route, state["services"].get(backend_of(route), {}) if route else None),
        }
        for what, (found, selects) in behind.items():
            if found and selects and ready_pods(state, selects):
                owner[what] = (found["metadata"].get("annotations") or {}).get("kube-deployer/deployment", "")
            elif what in owner:
                whose = owner.pop(what)
                if revision > since:
                    yield whose, f"{change}: the {what} of {app.key} leads to no ready pod any more"

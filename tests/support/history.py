"""Every state that a namespace went through: all changes, by watches, and what must hold in each of them."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from deployer.core.cancel_scope import CancelScope
from deployer.core.errors import Interrupted, KubeError, KubeNotFound, KubeUnavailable, Revoked
from deployer.core.model.kind import CONFIG_MAP, ENDPOINT_SLICE, HTTP_ROUTE, INGRESS, JOB, POD, SERVICE, Kind
from deployer.core.model.records import Document
from deployer.kube.client import KubeClient
from support.world import World

KINDS = (POD, SERVICE, ENDPOINT_SLICE, INGRESS, HTTP_ROUTE, JOB)
ROUTES = (INGRESS, HTTP_ROUTE)
State = dict[str, dict[str, Document]]
"""Objects by plural and name."""

PATIENCE = 20.0
"""Seconds for the watches to catch up."""


class History:
    """Follows the namespace from an empty start on, a watch for each kind in a thread of its own."""

    def __init__(self, eyes: KubeClient, namespace: str) -> None:
        self._eyes = eyes
        self._namespace = namespace
        self._scope = CancelScope()
        self._changed = threading.Condition()
        self._changes: list[tuple[int, Kind, str, Document]] = []
        self._seen: dict[Kind, int] = {}
        self._problem = ""
        for kind in KINDS:
            with contextlib.suppress(KubeNotFound):  # a cluster without the Gateway API
                found, version = eyes.list(kind, namespace)
                self._seen[kind] = int(version)
                self._changes += [(int(o["metadata"]["resourceVersion"]), kind, "ADDED", o) for o in found]
        self._kinds = tuple(self._seen)
        self._threads = [threading.Thread(target=self._follow, args=(kind,), daemon=True) for kind in self._kinds]
        for thread in self._threads:
            thread.start()

    def _follow(self, kind: Kind) -> None:
        try:
            while True:
                # A real server has nothing to say for a minute of what does not change: then it is asked again for
                # what came after the last that was seen, so nothing is missed.
                with contextlib.suppress(KubeUnavailable):
                    self._follow_once(kind)
                self._scope.pause(0.05)
        except Interrupted:
            return
        except (KubeError, KeyError) as error:
            with self._changed:
                self._problem = f"the watch of {kind.plural} broke off: {error!r}"
                self._changed.notify_all()

    def _follow_once(self, kind: Kind) -> None:
        start = str(self._seen[kind])
        for what, found in self._eyes.watch(kind, self._namespace, start, scope=self._scope):
            revision = int(found["metadata"]["resourceVersion"])
            with self._changed:
                self._seen[kind] = revision
                if what != "BOOKMARK":
                    self._changes.append((revision, kind, what, found))
                self._changed.notify_all()

    def close(self) -> None:
        """End the watches."""
        self._scope.close(Revoked("the test is over"))
        for thread in self._threads:
            thread.join()

    def now(self) -> int:
        """The revision as it is now, once all watches have come so far."""
        revision = max(int(self._eyes.list(kind, self._namespace)[1]) for kind in self._kinds)
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._problem or all(seen >= revision for seen in self._seen.values()), PATIENCE
            )
        assert done, "the watches did not catch up"
        assert not self._problem, self._problem
        return revision

    def settled(self) -> None:
        """Wait until the watches have come to what the lists say, for a server whose bookmarks take a minute."""

        def reached() -> bool:
            *_, (_, _, state) = [(0, "", {kind.plural: {} for kind in KINDS}), *self.states()]
            return all(_versions(state[kind.plural].values()) == wanted[kind] for kind in self._kinds)

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            wanted = {kind: _versions(self._eyes.list(kind, self._namespace)[0]) for kind in self._kinds}
            with self._changed:
                if self._changed.wait_for(lambda: self._problem or reached(), 1.0):
                    break
        assert not self._problem, self._problem
        assert reached(), "the watches did not catch up"

    def states(self) -> Iterator[tuple[int, str, State]]:
        """(revision, what changed, all objects then) after each change, in order. Never change the state."""
        with self._changed:
            changes = sorted(self._changes, key=lambda change: change[0])
        state: State = {kind.plural: {} for kind in KINDS}
        for revision, kind, what, found in changes:
            name = found["metadata"]["name"]
            if what == "DELETED":
                state[kind.plural].pop(name, None)
            else:
                state[kind.plural][name] = found
            yield revision, f"{revision}: {what} {kind.plural} {name}", state


def broken(history: History, app: str, stays_until: int) -> list[str]:
    """What was ever wrong with the app's Service and route: each selects a ready pod for as long as it exists, and,
    once there, does not go away before revision `stays_until` (0: it may). A route of one kind may replace another."""
    problems = []
    served: set[str] = set()
    for revision, change, state in history.states():
        services = {app} & state["services"].keys()
        routes = {
            kind: backend
            for kind in ROUTES
            if app in state[kind.plural] and (backend := backend_of(state[kind.plural][app]))
        }
        for what, there in (("service", bool(services)), ("route", bool(routes))):
            if there:
                served.add(what)
            elif what in served:
                served.discard(what)
                if revision <= stays_until:
                    problems.append(f"{change}: the {what} of {app} is gone")
        for name in {*services, *routes.values()}:
            if not ready_pods(state, state["services"].get(name, {})):
                problems.append(f"{change}: service {name}, which has traffic, selects no ready pod")
        slices = [s for s in state["endpointslices"].values() if _service_of(s) == app]
        if not services:
            served.discard("endpoints")  # one that is made anew has none at first
        elif any(e["conditions"].get("ready") for s in slices for e in s.get("endpoints") or ()):
            served.add("endpoints")
        elif "endpoints" in served:
            problems.append(f"{change}: no endpoint of service {app} is ready")
    return problems


def run_twice(history: History) -> list[str]:
    """What Jobs ever did more than once: of each, which may be one for each deployment and gate, one pod may run."""
    pods: dict[str, set[str]] = {}
    for _, _, state in history.states():
        for pod in state["pods"].values():
            if name := (pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name"):
                pods.setdefault(name, set()).add(pod["metadata"]["uid"])
    return [f"job {name} had {len(uids)} pods" for name, uids in pods.items() if len(uids) > 1]


def ready_pods(state: State, service: Document) -> list[str]:
    """Names of the ready pods that a Service selects, in that state."""
    selector = service.get("spec", {}).get("selector") or {}
    return [
        name
        for name, pod in state["pods"].items()
        if selector
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and not pod["metadata"].get("deletionTimestamp")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or ())
    ]


def backend_of(route: Document) -> str:
    """The Service that an Ingress or an HTTPRoute leads the public to; empty: none yet."""
    rules = route["spec"]["rules"]
    if "parentRefs" not in route["spec"]:
        return str(rules[0]["http"]["paths"][0]["backend"]["service"]["name"])
    public = [rule for rule in rules if not any(match.get("headers") for match in rule["matches"])]
    references = [reference for rule in public for reference in rule["backendRefs"]]
    return next((str(reference["name"]) for reference in references if reference["weight"]), "")


def _versions(items: Iterable[Document]) -> set[tuple[str, str]]:
    return {(o["metadata"]["name"], o["metadata"]["resourceVersion"]) for o in items}


def _service_of(found: Document) -> str:
    return str((found["metadata"].get("labels") or {}).get("kubernetes.io/service-name"))


def make_foreign(world: World) -> list[str]:
    """A Service and a ConfigMap of somebody else, with labels that an app of ours could have."""
    metadata = {
        "name": "foreign",
        "labels": {"app": "shop", "version": "1", "app.kubernetes.io/managed-by": "deployer"},
    }
    service = {"selector": {"app": "foreign"}, "ports": [{"port": 80}]}
    world.eyes.create(
        SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}, world.namespace
    )
    world.eyes.create(
        CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}, world.namespace
    )
    return foreign_versions(world)


def foreign_versions(world: World) -> list[str]:
    """Kind and resourceVersion of each."""
    found = [(kind, world.objects(kind).get("foreign")) for kind in (SERVICE, CONFIG_MAP)]
    return [f"{kind.kind} {o['metadata']['resourceVersion']}" for kind, o in found if o]


class Visitor:
    """Asks for the app's page through the ingress, again and again; from the first answer on none may fail."""

    def __init__(self, ingress: str, host: str, interval: float = 0.03) -> None:
        """`ingress`: URL of the proxy. `interval`: seconds between two requests."""
        self._place = urlsplit(ingress).netloc
        self._host = host
        self._interval = interval
        self._stop = threading.Event()
        self.served = 0
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self._thread.start()

    def _visit(self) -> None:
        while not self._stop.wait(self._interval):
            wrong = self._ask()
            if not wrong:
                self.served += 1
            elif self.served:
                self.failed.append(f"{time.strftime('%T')} {wrong}")

    def _ask(self) -> str:
        connection = http.client.HTTPConnection(self._place, timeout=10)
        try:
            connection.request("GET", "/", headers={"Host": self._host})
            answer = connection.getresponse()
            body = answer.read()
            return "" if answer.status == 200 else f"{answer.status} {body[:80]!r}"
        except OSError as error:
            return repr(error)
        finally:
            connection.close()

    def stop(self) -> list[str]:
        """End it, and return what failed."""
        self._stop.set()
        self._thread.join()
        return self.failed


def document(state: Any) -> str:
    """Objects in short, for a failing test."""
    lines = []
    for found in state:
        metadata = found["metadata"]
        notes = {k.rpartition("/")[2]: v for k, v in (metadata.get("annotations") or {}).items()}
        spec = {k: found.get("spec", {}).get(k) for k in ("selector", "rules") if k in found.get("spec", {})}
        lines.append(f"{found.get('kind', '?')} {metadata['name']} {notes} {spec}")
    return "\n".join(lines)

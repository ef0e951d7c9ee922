"""A step's `Work` and an injector's context without a cluster, for unit tests: objects in memory, a clock that a test
moves. Whose an object is, and who may write it, is decided by the code that decides it in the service."""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from deployer.core.contract.health import HealthRounds
from deployer.core.contract.kube import CONTROLLED_BY, Lines, Owner
from deployer.core.errors import DeadlineExceeded
from deployer.core.model.records import Document, Json
from deployer.kube.client import KubeClient
from deployer.kube.informer import Informers
from deployer.kube.owned import OwnedKube
from deployer.kube.pods import controlled_by
from deployer.sdk.environment import EnvContext, KubeReader
from deployer.sdk.errors import KubeAlreadyExists, KubeConflict, KubeNotFound
from deployer.sdk.ingress import IngressProvider
from deployer.sdk.kube import Kind
from deployer.sdk.plugin import CancelScope
from deployer.sdk.strategy import Plan, Work

T = TypeVar("T")

Objects = dict[tuple[Kind, str], Document]


class FakeKube(OwnedKube):
    """What `work.kube` is, on a dictionary. Writes ask the scope, and `writes` tells of them: `create Service shop`.

    `objects` are those that are there, by kind and name: put in what is to be found, and look at what is left. Nothing
    happens by itself: no controller makes pods, and nobody else writes. What waits for that needs a sandbox. `logs` are
    the lines of containers, by pod and container, each with its time in UTC (RFC 3339) and a space before it.
    """

    def __init__(self, scope: CancelScope, deployment: str, namespace: str = "default", app: str = "shop") -> None:
        self._server = _Server(namespace)
        self.objects = self._server.objects
        self.writes = self._server.writes
        self.logs = self._server.logs
        client, informers = cast(KubeClient, self._server), cast(Informers, _Informers(self._server))
        super().__init__(client, informers, Owner("deployer", namespace, app, deployment, 1), scope)

    def put(self, kind: Kind, body: Document, *, deployment: str = "") -> Document:
        """Make or replace an object, as it would be in the cluster: that deployment's, else somebody else's."""
        made = copy.deepcopy(body)
        if deployment:
            ours = self.for_deployment(deployment).annotations("versioned-object")
            made["metadata"]["annotations"] = {**ours, **(made["metadata"].get("annotations") or {})}
        return self._server.store(kind, made)


class _Server:
    """The requests of a `KubeClient` that its users make, answered from a dictionary."""

    def __init__(self, namespace: str) -> None:
        self.objects: Objects = {}
        self.writes: list[str] = []
        self.logs: dict[tuple[str, str], list[str]] = {}
        self._namespace = namespace
        self._revisions = itertools.count(1)

    def store(self, kind: Kind, body: Document) -> Document:
        metadata = body.setdefault("metadata", {})
        metadata.setdefault("namespace", self._namespace)
        metadata.setdefault("uid", f"uid-{next(self._revisions)}")
        metadata["resourceVersion"] = str(next(self._revisions))
        self.objects[kind, metadata["name"]] = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
        return copy.deepcopy(self.objects[kind, metadata["name"]])

    def get(self, kind: Kind, name: str, namespace: str | None = None, *, scope: CancelScope) -> Document:
        scope.check()
        if (kind, name) not in self.objects:
            raise KubeNotFound(f"{kind.kind} {name} is not there", status=404)
        return copy.deepcopy(self.objects[kind, name])

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        field_selector: str | None = None,
        *,
        scope: CancelScope,
        retry: bool = True,
    ) -> tuple[list[Document], str]:
        scope.check()
        found = [o for (k, _), o in self.objects.items() if k == kind and _has(o, labels or {})]
        return copy.deepcopy(found), ""

    def pod_log(self, *_: object, scope: CancelScope) -> str:
        scope.check()
        return ""

    def pod_lines(self, namespace: str, pod: str, container: str, since: str = "", *, scope: CancelScope) -> Lines:
        scope.check()
        lines = self.logs.get((pod, container), [])
        second = len("2026-01-02T03:04:05")
        return [line for line in lines if line[:second] >= since[:second]]

    def create(self, kind: Kind, body: Document, namespace: str | None = None, *, scope: CancelScope) -> Document:
        with self._writing("create", kind, body["metadata"]["name"], scope):
            if (kind, body["metadata"]["name"]) in self.objects:
                raise KubeAlreadyExists(f"{kind.kind} {body['metadata']['name']} is there already", status=409)
            return self.store(kind, copy.deepcopy(body))

    def replace(
        self, kind: Kind, name: str, body: Document, namespace: str | None = None, *, scope: CancelScope
    ) -> Document:
        with self._writing("update", kind, name, scope):
            self._require(kind, name, body["metadata"])
            return self.store(kind, copy.deepcopy(body))

    def patch(
        self, kind: Kind, name: str, patch: Document, namespace: str | None = None, *, scope: CancelScope
    ) -> Document:
        with self._writing("update", kind, name, scope):
            return self.store(kind, _merged(self._require(kind, name, patch["metadata"]), patch))

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: str = "Background",
        scope: CancelScope,
    ) -> bool:
        with self._writing("delete", kind, name, scope):
            self._require(kind, name, {"uid": uid, "resourceVersion": resource_version})
            del self.objects[kind, name]
        return True

    def _require(self, kind: Kind, name: str, read: Document) -> Document:
        """The object, if it is the one that was read. Raises KubeNotFound, KubeConflict."""
        if (found := self.objects.get((kind, name))) is None:
            raise KubeNotFound(f"{kind.kind} {name} is not there", status=404)
        if any(read.get(key) not in (None, found["metadata"][key]) for key in ("uid", "resourceVersion")):
            raise KubeConflict(f"{kind.kind} {name} is not the one that was read", status=409)
        return copy.deepcopy(found)

    @contextlib.contextmanager
    def _writing(self, verb: str, kind: Kind, name: str, scope: CancelScope) -> Any:
        with scope.writing():
            yield
            self.writes.append(f"{verb} {kind.kind} {name}")


class _Informers:
    """Informers that know everything at once, and in which nothing ever changes."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    def get(self, kind: Kind, namespace: str | None) -> _Informer:
        return _Informer(self._server, kind)


class _Informer:
    def __init__(self, server: _Server, kind: Kind) -> None:
        self._server = server
        self._kind = kind

    def known(self, labels: Mapping[str, str] | None = None) -> list[Document]:
        return self._server.list(self._kind, None, labels, scope=CancelScope())[0]

    def items(self, labels: Mapping[str, str] | None = None, scope: CancelScope | None = None) -> list[Document]:
        return self._server.list(self._kind, None, labels, scope=scope or CancelScope())[0]

    def wait(
        self, condition: Callable[[list[Document]], T | None], scope: CancelScope, *, labels: Any = None, **_: object
    ) -> T:
        """The answer now. Raises DeadlineExceeded when there is none: it would never come."""
        if not (found := condition(self.items(labels, scope))):
            raise DeadlineExceeded("nothing changes in a fake")
        return found

    def waking(self, event: threading.Event, labels: Mapping[str, str] | None = None) -> Any:
        return contextlib.nullcontext()


def _has(found: Document, labels: Mapping[str, str]) -> bool:
    """Has it these labels? An informer also selects by the uid of the controller."""
    wanted = dict(labels)
    uid = wanted.pop(CONTROLLED_BY, "")
    return wanted.items() <= (found["metadata"].get("labels") or {}).items() and (not uid or controlled_by(found, uid))


def _merged(found: Document, patch: Document) -> Document:
    """RFC 7396."""
    for key, value in patch.items():
        if isinstance(value, dict):
            found[key] = _merged(found.get(key) or {}, value)
        elif value is None:
            found.pop(key, None)
        else:
            found[key] = value
    return found


class FakeWork:
    """What a step gets: `step.run(fake.work)`. Memory, log, objects and clock stay with the fake, so that a step can be
    run again as after a crash.

    plan     what was pinned
    waits    what `work.waiting` was told
    seconds  for each call, until its scope closes
    """

    def __init__(self, plan: Plan, *, seconds: float = 5.0, ingress: IngressProvider | None = None) -> None:
        self.plan = plan
        self.log: list[str] = []
        self.memory: dict[str, Json] = {}
        self.waits: list[str] = []
        self.now = 1_000_000.0
        self.seconds = seconds
        self.ingress = ingress
        self.health: HealthRounds | None = None
        self.kube = FakeKube(CancelScope(), plan.deployment, plan.namespace, plan.app)

    @property
    def work(self) -> Work:
        """A fresh one, with a scope of its own: `work.scope.close(Cancelled("stop"))` is how somebody cancels."""
        self.kube.scope = CancelScope(time.monotonic() + self.seconds)
        return Work(
            plan=self.plan,
            kube=self.kube,
            log=self.log.append,
            health=self.health,
            ingress=self.ingress,
            remember=self.memory.__setitem__,
            recall=self.memory.get,
            scope=self.kube.scope,
            now=lambda: self.now,
            waiting=self._waiting,
        )

    def _waiting(self, reason: str, until: float | None = None) -> None:
        self.waits.append(reason)


class FakeEnvironment:
    """What an injector gets: `injector.environment(fake.context)`. Log and objects stay with the fake.

    options     what the descriptor has for it in `extensions`
    descriptor  in its normal form, as far as the injector looks at it
    seconds     until the scope of each context closes
    """

    def __init__(
        self,
        app: str = "shop",
        *,
        options: Mapping[str, Any] | None = None,
        descriptor: Document | None = None,
        seconds: float = 5.0,
    ) -> None:
        self.app = app
        self.options = dict(options or {})
        self.descriptor = descriptor or {}
        self.seconds = seconds
        self.log: list[str] = []
        self.kube = FakeKube(CancelScope(), "d1", app=app)

    @property
    def context(self) -> EnvContext:
        """A fresh one, with a scope of its own."""
        return self.within(CancelScope(time.monotonic() + self.seconds))

    def within(self, scope: CancelScope) -> EnvContext:
        """One with that scope."""
        self.kube.scope = scope
        return EnvContext(
            namespace=self.kube.owner.namespace,
            app=self.app,
            version="1",
            log=self.log.append,
            scope=scope,
            kube=KubeReader(self.kube),
            descriptor=copy.deepcopy(self.descriptor),
            options=copy.deepcopy(self.options),
        )


__all__ = ["FakeEnvironment", "FakeKube", "FakeWork"]

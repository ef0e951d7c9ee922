"""A step's `Work` without a cluster, for unit tests of one step: objects in memory, a clock that a test moves."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from deployer.core.contract.health import HealthRounds
from deployer.core.contract.kube import Gone
from deployer.core.errors import DeadlineExceeded
from deployer.core.model.records import Document, Json
from deployer.sdk.errors import ForeignObject
from deployer.sdk.ingress import IngressProvider
from deployer.sdk.kube import CONTROLLER, Kind, KubeAccess
from deployer.sdk.plugin import CancelScope
from deployer.sdk.strategy import Plan, Work

T = TypeVar("T")

OWNER = "kube-deployer/deployment"
"""The annotation that says to which deployment an object belongs."""


class FakeKube:
    """What `work.kube` is, on a dictionary. Writes ask the scope, and `writes` tells of them: `create Service shop`.

    `objects` are those that are there, by kind and name; put in what a step is to find, and look at what it leaves.
    Nothing happens by itself: no controller makes pods, nobody else writes. What waits for that needs a sandbox.
    """

    def __init__(self, scope: CancelScope, deployment: str, namespace: str = "default") -> None:
        self.scope = scope
        self.objects: dict[tuple[Kind, str], Document] = {}
        self.writes: list[str] = []
        self._deployment = deployment
        self._namespace = namespace
        self._revisions = itertools.count(1)

    def put(self, kind: Kind, body: Document) -> Document:
        """Somebody's object, as the API server would have it."""
        made = copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        metadata.setdefault("namespace", self._namespace)
        metadata.setdefault("uid", f"uid-{next(self._revisions)}")
        metadata["resourceVersion"] = str(next(self._revisions))
        self.objects[kind, metadata["name"]] = made
        return copy.deepcopy(made)

    # --- reading --------------------------------------------------------------------------------------------------

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Document | None:
        """As `KubeAccess.get`."""
        self.scope.check()
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(self, kind: Kind, labels: Mapping[str, str] | None = None, namespace: str | None = None) -> list[Document]:
        """As `KubeAccess.list`; labels only, no selectors of an informer's own."""
        self.scope.check()
        wanted = (labels or {}).items()
        found = [o for (k, _), o in self.objects.items() if k == kind]
        return [copy.deepcopy(o) for o in found if wanted <= (o["metadata"].get("labels") or {}).items()]

    items = list
    known = list

    def wait(self, kind: Kind, condition: Callable[[Any], T | None], *, labels: Any = None, **_: object) -> T:
        """As nothing changes by itself: the answer now, else DeadlineExceeded."""
        found = condition(self.list(kind, labels))
        if not found:
            raise DeadlineExceeded("nothing changes in a fake")
        return found

    def gone(self, kind: Kind, labels: Mapping[str, str], namespace: str | None = None) -> Gone:
        """As `KubeAccess.gone`."""
        return Gone(kind, namespace or self._namespace, dict(labels))

    # --- ownership ------------------------------------------------------------------------------------------------

    def with_scope(self, scope: CancelScope) -> FakeKube:
        """The same objects, bound to another scope."""
        return self._also(scope, self._deployment)

    def for_deployment(self, deployment: str) -> FakeKube:
        """The same objects for another deployment of the app."""
        return self._also(self.scope, deployment)

    def _also(self, scope: CancelScope, deployment: str) -> FakeKube:
        made = copy.copy(self)
        made.scope, made._deployment = scope, deployment
        return made

    def annotations(self, role: str) -> dict[str, str]:
        """Less than `KubeAccess.annotations` gives: enough to tell deployments apart."""
        return {OWNER: self._deployment, "kube-deployer/role": role}

    def is_ours(self, found: Document) -> bool:
        """True when any deployment made it."""
        return OWNER in (found["metadata"].get("annotations") or {})

    def owned_by(self, found: Document, deployment: str) -> bool:
        """True when that deployment made it."""
        return (found["metadata"].get("annotations") or {}).get(OWNER) == deployment

    # --- writing --------------------------------------------------------------------------------------------------

    def create(self, kind: Kind, body: Document) -> Document:
        """As `KubeAccess.create`: what this deployment has made already is returned as it is. Raises ForeignObject."""
        found = self.get(kind, body["metadata"]["name"])
        if found is not None and not self.owned_by(found, self._deployment):
            raise ForeignObject(f"{kind.kind} {body['metadata']['name']} belongs to somebody else")
        return found or self._write("create", kind, body)

    def update(
        self, kind: Kind, name: str, change: Callable[[Any], Any], *, deployment: str | None = None, **_: object
    ) -> Document | None:
        """As `KubeAccess.update`. Raises ForeignObject."""
        found = self.get(kind, name)
        if found is None:
            return None
        if not self.owned_by(found, self._deployment if deployment is None else deployment):
            raise ForeignObject(f"{kind.kind} {name} belongs to somebody else")
        wanted = change(copy.deepcopy(found))
        return found if wanted is None or wanted == found else self._write("update", kind, wanted)

    def scale(self, name: str, replicas: int, **more: Any) -> Document | None:
        """As `KubeAccess.scale`."""
        return self.update(CONTROLLER, name, lambda o: {**o, "spec": {**o["spec"], "replicas": replicas}}, **more)

    def put_shared(self, kind: Kind, name: str, change: Callable[[Any], Any], *, role: str) -> Document | None:
        """As `KubeAccess.put_shared`."""
        found = self.get(kind, name)
        wanted = change(copy.deepcopy(found))
        if wanted is None or wanted == found:
            return found
        notes = {**(wanted["metadata"].get("annotations") or {}), **self.annotations(role)}
        wanted["metadata"] = {**wanted["metadata"], "name": name, "annotations": notes}
        return self._write("update" if found else "create", kind, wanted)

    def delete(self, kind: Kind, name: str, *, deployment: str | None = None, **_: object) -> bool:
        """As `KubeAccess.delete`."""
        found = self.get(kind, name)
        if found is not None and not self.owned_by(found, deployment or self._deployment):
            return False
        return found is None or self._delete(kind, name)

    def delete_shared(self, kind: Kind, name: str, **_: object) -> bool:
        """As `KubeAccess.delete_shared`."""
        found = self.get(kind, name)
        return found is None or (self.is_ours(found) and self._delete(kind, name))

    def _write(self, verb: str, kind: Kind, body: Document) -> Document:
        with self.scope.writing():
            self.writes.append(f"{verb} {kind.kind} {body['metadata']['name']}")
            return self.put(kind, body)

    def _delete(self, kind: Kind, name: str) -> bool:
        with self.scope.writing():
            self.writes.append(f"delete {kind.kind} {name}")
            del self.objects[kind, name]
        return True


class FakeWork:
    """What a step gets: `step.run(fake.work)`. Memory, log, objects and clock stay with the fake, so that a step can be
    run again as after a crash.

    plan     what was pinned
    seconds  for each call, until its gate closes
    """

    def __init__(self, plan: Plan, *, seconds: float = 5.0, ingress: IngressProvider | None = None) -> None:
        self.plan = plan
        self.log: list[str] = []
        self.memory: dict[str, Json] = {}
        self.now = 1_000_000.0
        self.seconds = seconds
        self.ingress = ingress
        self.health: HealthRounds | None = None
        self.kube = FakeKube(CancelScope(), plan.deployment, plan.namespace)

    @property
    def work(self) -> Work:
        """A fresh one, with a scope of its own: `fake.kube.gate.close(...)` is how somebody cancels."""
        self.kube.scope = CancelScope(time.monotonic() + self.seconds)
        return Work(
            plan=self.plan,
            kube=cast(KubeAccess, self.kube),
            log=self.log.append,
            health=self.health,
            ingress=self.ingress,
            remember=self.memory.__setitem__,
            recall=self.memory.get,
            scope=self.kube.scope,
            now=lambda: self.now,
        )


__all__: Sequence[str] = ("FakeKube", "FakeWork")

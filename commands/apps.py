"""Apps as people see them: what is live, warm and to come, and what has happened to them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from deployer.commands.progress import Progress
from deployer.core.errors import NotFound
from deployer.core.model.names import versioned_name
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.operation import timeline
from deployer.core.model.records import (
    App,
    Deployment,
    Document,
    HostClaim,
    Operation,
    OperationKind,
    Status,
    StoredDescriptor,
)
from deployer.core.ports.store import Store

R = TypeVar("R", Operation, HostClaim)

HISTORY = 20
"""Entries of a history, when nobody says how many."""

LONGEST_HISTORY = 1000
"""Entries that it has at most."""

_WHAT = {
    OperationKind.DEPLOY: "deployment",
    OperationKind.ROLLBACK: "rollback",
    OperationKind.UNDEPLOY: "undeployment",
}


Counts = Mapping[str, tuple[int, int]]
"""By name of a controller: how many pods it wants, and how many are ready."""


class Replicas(Protocol):
    """Says how many pods there are, without a request for each question. Raises nothing."""

    def of(self, namespace: str) -> Counts | str:
        """Of a whole namespace; or why nobody knows."""

    def moved(self, namespace: str) -> Hashable:
        """What differs whenever the answer may."""


class UnknownReplicas(Replicas):
    """Where there is no cluster to ask."""

    def of(self, namespace: str) -> Counts | str:
        return "nobody counts them here"

    def moved(self, namespace: str) -> Hashable:
        return 0


Freezing = Callable[[str], list[Document]]
"""What freezes a namespace at this moment, as REST shows it."""


def never(_namespace: str) -> list[Document]:
    """Nothing does."""
    return []


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller gets to see besides deployments.

    descriptors  hosts too, which come from them
    """

    descriptors: bool = True
    freezes: bool = True


_ALL = Shown()


class AppViews:
    """Of all namespaces. Authorisation is the caller's business. Every method raises StoreUnavailable."""

    def __init__(
        self, store: Store, progress: Progress, replicas: Replicas | None = None, frozen: Freezing = never
    ) -> None:
        self._store = store
        self._replicas = replicas or UnknownReplicas()
        self._frozen = frozen
        self.progress = progress

    def moved(self, namespace: str) -> Hashable:
        """What differs whenever anything in the namespace may be shown differently."""
        return self.progress.moved(namespace), self._replicas.moved(namespace), str(self._frozen(namespace))

    def apps(
        self, namespace: str, *, after: str = "", limit: int | None = None, shown: Shown = _ALL
    ) -> tuple[list[Document], str]:
        """By name, those that come `after` a name; and the last one's name, when there are more than `limit`."""
        most = None if limit is None else limit + 1
        kinds = (Deployment, StoredDescriptor)
        merged = heapq.merge(*(self._store.apps(kind, namespace, after=after, limit=most) for kind in kinds))
        names = list(dict.fromkeys(merged))
        page = names if limit is None else names[:limit]
        known = _Known(self._store, namespace)
        counts = self._replicas.of(namespace) if known.any_live(page) else {}
        found = [self._app(known, name, counts, shown) for name in page]
        return found, page[-1] if len(page) < len(names) else ""

    def app(self, namespace: str, name: str, *, shown: Shown = _ALL) -> Document:
        """One app, with its queue and more. Raises NotFound."""
        self._require(namespace, name)
        known = _Known(self._store, namespace, name)
        counts = self._replicas.of(namespace) if known.any_live([name]) else {}
        found = self._app(known, name, counts, shown)
        app = known.apps.get(name)
        if app is not None and app.highest:
            found["highestVersion"] = app.highest
        found["queue"] = [self._member(d, known, _asked(o, d)) for o, d in known.upcoming(name)]
        if shown.descriptors:
            found["previewHosts"] = sorted(claim.host for claim in known.claims.get(name, ()) if claim.preview)
            stored = self._store.find(StoredDescriptor, namespace=namespace, app=name)
            found["descriptors"] = [{"id": d.id, "lastModified": d.last_modified} for d in stored]
        return found

    def history(self, namespace: str, name: str, limit: int = HISTORY) -> list[Document]:
        """What was done to an app, newest first: deployments, rollbacks, undeployments. Raises NotFound.

        What was done to a deployment whose record is deleted is not in it.
        """
        self._require(namespace, name)
        deployments = {
            d.id: d
            for d in self._store.find(Deployment, namespace=namespace, app=name, newest_first=True, limit_per_app=limit)
        }
        waiting = self._store.find(Operation, tag="open", namespace=namespace, app=name)
        done: list[Operation] = []
        reach, more = limit, True
        while more and len(done) < limit:
            reach *= 2
            found = self._store.find(
                Operation, tag="ended", namespace=namespace, app=name, newest_first=True, limit_per_app=reach
            )
            more = len(found) == reach
            done = [o for o in found if self._learn(deployments, namespace, o.deployment)]
        known = [o for o in waiting if o.kind in _WHAT and self._learn(deployments, namespace, o.deployment)]
        entries = [(o.sequence, self._entry(o, deployments[o.deployment])) for o in [*known, *done]]
        # Of what releases before this one did, no more is known than what became of it.
        noted = {o.deployment for o in [*known, *done] if o.kind is OperationKind.DEPLOY}
        entries += [(d.sequence, _unnoted(d)) for d in deployments.values() if d.id not in noted]
        entries.sort(key=lambda entry: -entry[0])
        return [entry for _, entry in entries[:limit]]

    # --- parts ---------------------------------------------------------------------------------------------------

    def _require(self, namespace: str, name: str) -> None:
        kinds = (Deployment, StoredDescriptor)
        if not any(self._store.find(kind, namespace=namespace, app=name, limit_per_app=1) for kind in kinds):
            raise NotFound("there is no app of this name in this namespace")

    def _learn(self, deployments: dict[str, Deployment], namespace: str, id: str) -> bool:
        """Is there still a record of the deployment?"""
        if id not in deployments:
            found = self._store.get(Deployment, id, namespace=namespace)
            if found is None:
                return False
            deployments[id] = found
        return True

    def _app(self, known: _Known, name: str, counts: Counts | str, shown: Shown) -> Document:
        out: Document = {"namespace": known.namespace, "appName": name}
        app = known.apps.get(name)
        if app is not None and app.live:
            out["live"] = self._held(known, app.live, app.live_version, app.live)
            out["replicas"] = _replicas(counts, versioned_name(name, app.live_version))
        if app is not None and app.held:
            out["warm"] = self._held(known, app.held, app.held_version, app.live)
        if upcoming := known.upcoming(name)[:1]:
            out["upcoming"] = self._member(upcoming[0][1], known, _asked(*upcoming[0]))
        if shown.descriptors:
            out["hosts"] = sorted(claim.host for claim in known.claims.get(name, ()) if not claim.preview)
        if (failed := known.failures.get(name)) is not None:
            out["lastFailure"] = _failure(failed)
        if shown.freezes and (frozen := self._frozen(known.namespace)):
            out["freezes"] = frozen
        return out

    def _held(self, known: _Known, id: str, version: str, live: str) -> Document:
        """The live version, or the one before it, since what is `live` took over."""
        deployment = self._store.get(Deployment, id, namespace=known.namespace)
        if deployment is None:
            return {"deployment": id, "version": version}
        took_over = deployment if live == id else self._store.get(Deployment, live, namespace=known.namespace)
        since = took_over.went_live if took_over is not None else ""
        return self._member(deployment, known, since or deployment.last_modified)

    def _member(self, deployment: Deployment, known: _Known, since: str) -> Document:
        progress = self.progress.among(deployment, known.waiting)
        shown = {name: progress[name] for name in _PROGRESS if name in progress}
        out: Document = {"deployment": deployment.id, "version": deployment.version}
        return out | ({"since": since} if since else {}) | shown

    def _entry(self, operation: Operation, deployment: Deployment) -> Document:
        again = bool(deployment.rollback_of) and operation.kind is OperationKind.DEPLOY
        what = "rollback" if again else _WHAT[operation.kind]
        out: Document = {"what": what, "deployment": deployment.id, "version": deployment.version}
        times = operation.timeline
        by = {
            OperationKind.DEPLOY: deployment.created_by,
            OperationKind.ROLLBACK: "" if operation.target.cause else operation.target.by,
            OperationKind.UNDEPLOY: deployment.undeployed_by,
        }[operation.kind]
        said = {
            "by": by,
            "cause": operation.target.cause,
            "asked": timeline.written(times.asked) if times.asked else deployment.created,
            "began": timeline.written(times.began) if times.began else "",
            "ended": timeline.written(times.ended) if times.ended else "",
            "outcome": times.outcome,
        }
        out |= {name: value for name, value in said.items() if value}
        if times.ended:
            out["seconds"] = round(times.ended - (times.began or times.ended), 3)
        if times.outcome == Occurrence.FAILED and (failure := operation.failure or deployment.failure):
            out["failure"] = failure
        return out


_PROGRESS = ("phase", "step", "deadline", "waitingFor", "held")


class _Known:
    """What several apps of a namespace (or one of them) are shown from, read at once."""

    def __init__(self, store: Store, namespace: str, name: str | None = None) -> None:
        self.namespace = namespace
        self.apps = {app.app: app for app in store.find(App, namespace=namespace, app=name)}
        find = partial(store.find, namespace=namespace, app=name)
        self.waiting: dict[str, list[Operation]] = _by_app(find(Operation, tag="open"))
        self.claims: dict[str, list[HostClaim]] = _by_app(find(HostClaim))
        failed = find(Deployment, tag=Status.FAILURE.value, newest_first=True, limit_per_app=1)
        self.failures = {deployment.app: deployment for deployment in failed}
        moving = [d for status in _MOVING for d in find(Deployment, tag=status.value)]
        self._moving = {deployment.id: deployment for deployment in moving}

    def any_live(self, names: Iterable[str]) -> bool:
        """Is there anything to count?"""
        return any(app.live for name in names if (app := self.apps.get(name)))

    def upcoming(self, name: str) -> list[tuple[Operation, Deployment]]:
        """What is to be live, in the order in which that is tried."""
        comes = [o for o in self.waiting.get(name, ()) if o.kind in (OperationKind.DEPLOY, OperationKind.ROLLBACK)]
        comes.sort(key=lambda o: (not o.begun, o.sequence))
        found = [(o, self._moving.get(o.deployment)) for o in comes]
        back = OperationKind.ROLLBACK
        return [(o, d) for o, d in found if d is not None and (o.kind is back or d.status is Status.DEPLOYING)]


_MOVING = (Status.DEPLOYING, Status.UNDEPLOYING)


def _by_app(records: Sequence[R]) -> dict[str, list[R]]:
    found: dict[str, list[R]] = {}
    for record in records:
        found.setdefault(record.app, []).append(record)
    return found


def _asked(operation: Operation, deployment: Deployment) -> str:
    """When it was asked for."""
    asked = operation.timeline.asked
    return timeline.timestamp_of(asked) if asked else deployment.created


def _replicas(counts: Counts | str, controller: str) -> Document:
    if isinstance(counts, str):
        return {"unknown": counts}
    if controller not in counts:
        return {"unknown": f"ReplicationController {controller} is not there"}
    wanted, ready = counts[controller]
    return {"wanted": wanted, "ready": ready}


def _failure(deployment: Deployment) -> Document:
    failure = deployment.failure or {}
    return {
        "deployment": deployment.id,
        "version": deployment.version,
        "reason": failure.get("reason", ""),
        "message": failure.get("message", ""),
        "at": deployment.last_modified,
    }


def _unnoted(deployment: Deployment) -> Document:
    """The entry of a deployment of which no operation was kept."""
    out: Document = {
        "what": "rollback" if deployment.rollback_of else "deployment",
        "deployment": deployment.id,
        "version": deployment.version,
        "asked": deployment.created,
    }
    if deployment.created_by:
        out["by"] = deployment.created_by
    if deployment.status is Status.FAILURE:
        out |= {"outcome": Occurrence.FAILED.value} | ({"failure": deployment.failure} if deployment.failure else {})
    return out

"""Apps as people see them: what is live, warm and to come, and what has happened to them."""

from __future__ import annotations

import dataclasses
import heapq
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from deployer.commands.approvals import results_of
from deployer.commands.limits.paging import RecordList
from deployer.commands.progress import Progress
from deployer.core.contract.ingress import AddressAnswer, RouteAnswers
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
    Plan,
    Status,
    StoredDescriptor,
)
from deployer.core.ports.store import Place, Store

R = TypeVar("R", Operation, HostClaim)

HISTORY = 20
"""Entries of a history, when nobody says how many."""

LONGEST_HISTORY = 1000
"""Entries that it has at most."""

_UNNOTED = "!"
"""Before the id of a deployment that no operation tells of: its place is behind all operations of the same moment."""

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


class DataPlane(Protocol):
    """Asks the proxies that carry users' requests."""

    def ask(self, plan: Plan) -> tuple[float, RouteAnswers]:
        """What every address answers for the plan's route, and when they were asked, in seconds since the epoch.
        Raises KubeUnavailable and PluginBusy."""


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
        self,
        store: Store,
        progress: Progress,
        replicas: Replicas | None = None,
        frozen: Freezing = never,
        data_plane: DataPlane | None = None,
    ) -> None:
        self._store = store
        self._data_plane = data_plane
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
        counts = self._replicas.of(namespace) if known.any_pods(page) else {}
        found = [self._app(known, name, counts, shown) for name in page]
        return found, page[-1] if len(page) < len(names) else ""

    def app(self, namespace: str, name: str, *, shown: Shown = _ALL) -> Document:
        """One app, with its queue and more. Raises NotFound."""
        self._require(namespace, name)
        known = _Known(self._store, namespace, name)
        counts = self._replicas.of(namespace) if known.any_pods([name]) else {}
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

    def history(
        self, namespace: str, name: str, limit: int = HISTORY, *, before: Place | None = None
    ) -> tuple[list[Document], Place | None]:
        """What was done to an app, newest first: deployments, rollbacks, undeployments. Raises NotFound.

        What was done to a deployment whose record is deleted is not in it. `before`: only the entries after that place.
        With them comes the place at which the others go on, if there are any.
        """
        self._require(namespace, name)
        begin = before or (2**62, "")
        # With all of the same moment: what was done is known to be noted by an operation that is shown already, too.
        place, shown = (begin[0] + 1, ""), begin[1].startswith(_UNNOTED)
        find = partial(self._store.find, namespace=namespace, app=name, newest_first=True)
        since = (begin[0], begin[1][1:]) if shown else place
        listed = RecordList(self._store, Deployment, namespace, app=name)
        deployments: dict[str, Deployment] = {d.id: _without_copy(d) for d in listed.first(limit + 1, since)}
        waiting = find(Operation, tag="open", after=place)
        done: list[Operation] = []
        reach, more = limit, True
        while more and sum((o.sequence, o.id) < begin for o in done) <= limit:
            reach *= 2
            found = find(Operation, tag="ended", limit=reach, after=place)
            more = len(found) == reach
            done = [o for o in found if self._learn(deployments, namespace, o.deployment)]
        if before_page := sum((o.sequence, o.id) >= begin for o in [*waiting, *done]):
            deployments |= {d.id: _without_copy(d) for d in listed.first(limit + 1 + before_page, since)}
        known = [o for o in waiting if o.kind in _WHAT and self._learn(deployments, namespace, o.deployment)]
        entries = {(o.sequence, o.id): self._entry(o, deployments[o.deployment]) for o in [*known, *done]}
        # Of what releases before this one did, no more is known than what became of it.
        noted = {o.deployment for o in [*known, *done] if o.kind is OperationKind.DEPLOY}
        entries |= {(d.sequence, _UNNOTED + d.id): _unnoted(d) for d in deployments.values() if d.id not in noted}
        places = sorted((place for place in entries if place < begin), reverse=True)
        return [entries[place] for place in places[:limit]], places[limit - 1] if len(places) > limit else None

    def data_plane(self, namespace: str, name: str, *, shown: Shown = _ALL) -> Document:
        """Which address of the data plane answers with which version for the host of the live one. Raises NotFound,
        KubeUnavailable, and PluginBusy."""
        self._require(namespace, name)
        app = self._store.get(App, f"{namespace}/{name}")
        if app is None or not app.live:
            return {"addresses": [], "unknown": "no version is live, so no host leads to the app"}
        plan = self._store.get(Plan, app.live)
        if plan is None or plan.route is None or plan.ingress is None:
            return {"addresses": [], "unknown": "no host leads to the live version: its descriptor has no frontend"}
        if self._data_plane is None:
            return {"addresses": [], "unknown": "the data plane cannot be asked from here"}
        asked, found = self._data_plane.ask(plan)
        out: Document = {"askedAt": timeline.written(asked), "provider": plan.ingress.name}
        if shown.descriptors:
            out |= {"host": plan.route.host, "path": plan.route.path}
        who = _Versions(self._store, app)
        out["addresses"] = [_answer(answer, who) for answer in found.addresses]
        out |= {"leftOut": found.left_out} if found.left_out else {}
        return out | ({"unknown": found.unknown} if found.unknown else {})

    # --- parts ---------------------------------------------------------------------------------------------------

    def _require(self, namespace: str, name: str) -> None:
        kinds = (Deployment, StoredDescriptor)
        if not any(self._store.find(kind, namespace=namespace, app=name, limit_per_app=1) for kind in kinds):
            raise NotFound(f"there is no app {name} in namespace {namespace}")

    def _learn(self, deployments: dict[str, Deployment], namespace: str, id: str) -> bool:
        """Is there still a record of the deployment?"""
        if id not in deployments:
            found = self._store.get(Deployment, id, namespace=namespace)
            if found is None:
                return False
            deployments[id] = _without_copy(found)
        return True

    def _app(self, known: _Known, name: str, counts: Counts | str, shown: Shown) -> Document:
        out: Document = {"namespace": known.namespace, "appName": name}
        app = known.apps.get(name)
        if app is not None and app.live:
            out["live"] = self._held(known, app.live, app.live_version, app.live)
            out["replicas"] = _replicas(counts, versioned_name(name, app.live_version))
        if app is not None and app.held:
            out["warm"] = self._held(known, app.held, app.held_version, app.live)
            out["warm"] |= _pods(counts, name, app.held_version)
        if upcoming := known.upcoming(name)[:1]:
            comes = upcoming[0][1]
            out["upcoming"] = self._member(comes, known, _asked(*upcoming[0])) | _pods(counts, name, comes.version)
            results = results_of(self._store, comes.id)
            if results and (asking := next((entry for entry in results.entries if entry.asks), None)):
                out["upcoming"]["waitsForApproval"] = asking.name
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
        out |= {"since": since} if since else {}
        return out | ({"by": deployment.created_by} if deployment.created_by else {}) | shown

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
        failed = times.outcome in (Occurrence.FAILED, Occurrence.ROLLBACK_FAILED)
        if failed and (failure := operation.failure or deployment.failure):
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
        deployments = partial(RecordList, store, Deployment, namespace, app=name)
        failed = deployments(tag=Status.FAILURE.value, per_app=1)
        self.failures = {deployment.app: _without_copy(deployment) for deployment in failed}
        moving = (d for status in _MOVING for d in deployments(tag=status.value))
        self._moving = {deployment.id: _without_copy(deployment) for deployment in moving}

    def any_pods(self, names: Iterable[str]) -> bool:
        """Is there anything to count?"""
        return any(name in self.waiting or ((app := self.apps.get(name)) and app.live) for name in names)

    def upcoming(self, name: str) -> list[tuple[Operation, Deployment]]:
        """What is to be live, in the order in which that is tried."""
        comes = [o for o in self.waiting.get(name, ()) if o.kind in (OperationKind.DEPLOY, OperationKind.ROLLBACK)]
        comes.sort(key=lambda o: (not o.begun, o.sequence))
        found = [(o, self._moving.get(o.deployment)) for o in comes]
        back = OperationKind.ROLLBACK
        return [(o, d) for o, d in found if d is not None and (o.kind is back or d.status is Status.DEPLOYING)]


class _Versions:
    """Which of an app's versions an answer is from. What an answer says may be anybody's words."""

    def __init__(self, store: Store, app: App) -> None:
        self._store = store
        self._app = app
        self._read = {app.live: app.live_version, app.held: app.held_version}

    def named(self, answer: AddressAnswer) -> Document:
        """The deployment and its version, as far as they are this app's; or why it is not known."""
        if answer.deployment:
            version = self._version_of(answer.deployment)
            if version is None:
                return {"unknown": "the answer names a deployment that is none of this app's"}
            return {"deployment": answer.deployment, "version": version, "live": answer.deployment == self._app.live}
        if answer.version and not _VERSION.fullmatch(answer.version):
            return {"unknown": "what the answer names as its version cannot be one"}
        if answer.version:
            live = answer.version == self._app.live_version
            return {"version": answer.version, "live": live} | self._deployment_of(answer.version)
        return {"unknown": answer.unknown}

    def _version_of(self, deployment: str) -> str | None:
        if deployment not in self._read:
            found = self._store.get(Deployment, deployment, namespace=self._app.namespace)
            if found is None or found.app != self._app.app:
                return None
            self._read[deployment] = found.version
        return self._read[deployment]

    def _deployment_of(self, version: str) -> Document:
        """That which runs as this version now. Earlier ones may have had it too."""
        ids = {self._app.held_version: self._app.held, self._app.live_version: self._app.live}
        if version in ids:
            return {"deployment": ids[version]}
        namespace, name = self._app.namespace, self._app.app
        moving = self._store.find(Deployment, namespace=namespace, app=name, tag=Status.DEPLOYING.value)
        return next(({"deployment": d.id} for d in moving if d.version == version), {})


_VERSION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def _answer(answer: AddressAnswer, versions: _Versions) -> Document:
    out: Document = {"address": answer.address, "tls": answer.tls, "milliseconds": round(answer.seconds * 1000, 1)}
    return out | ({"status": answer.status} if answer.status else {}) | versions.named(answer)


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


def _pods(counts: Counts | str, name: str, version: str) -> Document:
    """`replicas` of a version that is not live, as far as it has a controller by now."""
    controller = versioned_name(name, version)
    return {"replicas": _replicas(counts, controller)} if not isinstance(counts, str) and controller in counts else {}


def _failure(deployment: Deployment) -> Document:
    failure = deployment.failure or {}
    return {
        "deployment": deployment.id,
        "version": deployment.version,
        "reason": failure.get("reason", ""),
        "message": failure.get("message", ""),
        "at": deployment.last_modified,
    }


def _without_copy(deployment: Deployment) -> Deployment:
    """The deployment without its copy of the descriptor, which nothing here shows and which may be large."""
    return dataclasses.replace(deployment, descriptor={})


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

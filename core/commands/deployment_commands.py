"""What users ask for, as transactions on the store. The API translates HTTP into these calls and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from deployer.core import descriptor as descriptors
from deployer.core.commands import capabilities
from deployer.core.commands.host_claims import claim_hosts, hosts_of, purge_changes, release_hosts
from deployer.core.contract.store import Change, Create, Delete, Store, Update
from deployer.core.deployment_log import DeploymentLog
from deployer.core.errors import (
    Conflict,
    HostProblem,
    HostTaken,
    Invalid,
    NotFound,
    PluginError,
    PreconditionFailed,
    Problem,
    QueueFull,
    StaleRevision,
)
from deployer.core.model.records import (
    App,
    Deployment,
    Document,
    HealthData,
    Operation,
    OperationKind,
    Status,
    StoredDescriptor,
    new_id,
    timestamp,
)
from deployer.core.plugin_manager.provider_calls import ProviderCalls
from deployer.core.plugin_manager.registry import NO_INGRESS, Registry
from deployer.core.podspec import types as podtypes
from deployer.core.redaction import clean_credentials, environment_values
from deployer.core.schema_errors import MAX_UNKNOWN
from deployer.core.secret_matching import Matcher
from deployer.core.settings import DNS_SUBDOMAIN, Settings
from deployer.toolkit.dry_run import DryRun, Findings
from deployer.toolkit.remarks import remarks

UNKNOWN_NAMED = 10
"""Unknown fields of a podspec that one sentence names."""

T = TypeVar("T")

logger = logging.getLogger(__name__)

_DRY_RUN = ("ReplicationController", "Pod")

ATTEMPTS = 20
"""How often a transaction is decided again when somebody else's came first."""


class DeploymentCommands:
    """Descriptors and deployments of all namespaces. Authorisation is the caller's business; existence is ours."""

    def __init__(
        self,
        store: Store,
        deployment_log: DeploymentLog,
        registry: Registry,
        settings: Settings,
        *,
        dry_run: DryRun | None = None,
    ) -> None:
        """`dry_run` asks the API server about descriptors that are to be validated."""
        self._dry_run = dry_run
        self.store = store
        self.deployment_log = deployment_log
        self._registry = registry
        self._settings = settings
        self._calls = ProviderCalls(registry)
        self._ingress = registry.ingress()
        self.rules = rules(registry, settings)

    # --- descriptors ---------------------------------------------------------------------------------------------

    def check(self, namespace: str, document: Document, *, stored: bool = False) -> Document:
        """The normalised descriptor. Raises Invalid with every problem, the providers' own included.

        `stored`: it was accepted before, perhaps by the original, whose rules were fewer.
        """
        normal, problems, _ = self._examine(namespace, document, stored=stored)
        if problems:
            raise Invalid(descriptors.bounded(problems))
        return normal

    def _examine(
        self, namespace: str, document: Document, *, stored: bool = False
    ) -> tuple[Document, list[Problem], Document | None]:
        """The descriptor, everything that is wrong with it, and what of it is sound (None: nothing)."""
        normal, problems = descriptors.examine(document, namespace=namespace, rules=self.rules, stored=stored)
        if not problems:
            return normal, self._provider_problems(normal), normal
        sound = descriptors.repaired(normal, problems, namespace=namespace, rules=self.rules)
        if sound is not None:
            broken = descriptors.broken_fields(problems)
            with contextlib.suppress(PluginError):  # the problems so far are an answer already
                found = self._provider_problems(sound)
                problems += [p for p in found if not broken & descriptors.broken_fields([p])]
        return normal, _without_values(problems, normal), sound

    def _provider_problems(self, normal: Document) -> list[Problem]:
        """What the providers say, who may repeat what they like, but no value of the environment."""
        found = self._calls.problems(self._chosen(normal), normal)
        if normal.get("frontend"):
            if ingress := self._ingress:
                found += capabilities.problems(normal, ingress.name, ingress.capabilities, found)
            needs = self._registry.strategy(normal["deploymentType"]).needs
            found += capabilities.missing(needs, normal, self._ingress, self._registry.ingress_providers.values())
        return [*_without_values(found, normal), *self._wrong_preview(normal)]

    def _wrong_preview(self, normal: Document) -> list[Problem]:
        """What is wrong with the preview host that comes with the frontend."""
        preview = self._settings.preview(normal["namespace"], normal["appName"]) if normal.get("frontend") else ""
        if not preview or DNS_SUBDOMAIN.fullmatch(preview):
            return []
        return [Problem("appName", f"is too long for a preview host: {preview} is no name of a host")]

    def _chosen(self, descriptor: Document) -> list[tuple[str, str]]:
        """Kind and name of the providers that the descriptor will be deployed with."""
        chosen = [("strategy", str(descriptor["deploymentType"]))]
        if descriptor["useHealthCheck"]:
            chosen.append(("health", str(descriptor["healthCheckType"])))
        if descriptor.get("frontend") and self._registry.ingress_name != NO_INGRESS:
            chosen.append(("ingress", self._registry.ingress_name))
        return chosen

    def validate(self, namespace: str, body: bytes) -> Document:
        """The normalised descriptor and, in `validation`, what was checked; or Invalid. Stores and writes nothing.

        `validation` has `remarks` when something in the descriptor means something else than it seems, or nothing.

        The API server is asked as well, if it can be.
        """
        document = descriptors.parse(body)
        normal, problems, sound = self._examine(namespace, document)
        validation: Document = {"checked": ["descriptor"], "notChecked": [], "warnings": []}
        if sound is not None:
            problems += self._host_problems(sound)
        found = self._ask(namespace, normal, sound)
        paths = {problem.path for problem in problems}
        problems += [p for p in found.problems if p.path not in paths]
        validation["checked"] += found.checked
        validation["warnings"] += found.warnings
        missing = dict(found.not_checked)
        if self._registry.injectors:
            missing["injected environment"] = "the injectors are asked when it is deployed"
        validation["notChecked"] += [{"what": what, "reason": why} for what, why in missing.items()]
        if problems:
            raise Invalid(descriptors.bounded(problems), validation)
        asked = "ReplicationController" in found.checked
        if found_remarks := self._remarks(document, normal, cluster_asked=asked):
            validation["remarks"] = found_remarks
        return {**normal, "validation": validation}

    def _accept(self, namespace: str, body: bytes) -> Document:
        """The normalised descriptor that is to be stored. Raises Invalid with everything that no cluster takes, as far
        as it can be known: the API server is asked as well, quickly, if it can be."""
        normal, problems, sound = self._examine(namespace, descriptors.parse(body))
        if self._dry_run is not None and sound is not None and "podspec" in normal:
            version = self._next_version(namespace, sound)
            found = self._dry_run.ask_quickly({**sound, "podspec": normal["podspec"]}, version)
            known = {problem.path for problem in problems}
            problems += [p for p in found.problems if p.path not in known and p.path != "namespace"]
            if found.not_checked and (unknown := list(podtypes.unknown_fields(normal["podspec"]))):
                logger.info("a descriptor of %s/%s %s", namespace, sound["appName"], _unknown_text(unknown))
        if problems:
            raise Invalid(descriptors.bounded(problems))
        return normal

    def _next_version(self, namespace: str, sound: Document) -> str:
        app = self.store.get(App, f"{namespace}/{sound['appName']}")
        return descriptors.version_of(sound) or str((app.highest if app else 0) + 1)

    def _host_problems(self, sound: Document) -> list[Problem]:
        try:
            self._claim(sound)
        except HostTaken as error:
            return [HostProblem("frontend", str(error), error)]
        return []

    def _ask(self, namespace: str, normal: Document, sound: Document | None) -> Findings:
        """What the API server says. The podspec is shown to it as it is, whatever else is wrong."""
        if self._dry_run is None or sound is None or "podspec" not in normal:
            why = "there is no cluster to ask" if self._dry_run is None else "correct the other problems first"
            return Findings(not_checked=dict.fromkeys(_DRY_RUN, why))
        return self._dry_run.ask({**sound, "podspec": normal["podspec"]}, self._next_version(namespace, sound))

    def _remarks(self, sent: Document, normal: Document, *, cluster_asked: bool) -> list[Document]:
        """What there is to say about a valid descriptor, the providers' word included, and no reason to refuse it."""
        said = f"is not a field that Kubernetes {podtypes.VERSION} knows"
        paths = () if cluster_asked else podtypes.unknown_fields(normal["podspec"])
        unknown = [Problem(path, said) for path in itertools.islice(paths, MAX_UNKNOWN)]
        chosen = self._calls.remarks(self._chosen(normal), normal)
        if (ingress := self._ingress) and normal.get("frontend"):
            chosen += capabilities.remarks(normal, ingress.name, ingress.capabilities, chosen)
        found = [*unknown, *remarks(sent, normal, self._settings), *_without_values(chosen, normal)]
        return [{"path": remark.path, "message": remark.message} for remark in found]

    def remarked(self, body: bytes, stored: StoredDescriptor) -> Document:
        """The `validation` of a descriptor that was stored just now, empty when there is nothing to remark.

        It has the shape of that of `validate`. A provider that fails to look is logged: the descriptor is stored.
        """
        found: list[Document] = []
        with contextlib.suppress(PluginError):
            # What the cluster does not know was refused, if it could be asked.
            found = self._remarks(descriptors.parse(body), stored.document, cluster_asked=False)
        if not found:
            return {}
        not_checked = [{"what": "Pod", "reason": "only /descriptors/validate asks the cluster about it"}]
        return {"checked": ["descriptor"], "notChecked": not_checked, "warnings": [], "remarks": found}

    def create_descriptor(self, namespace: str, body: bytes) -> StoredDescriptor:
        """Store a new descriptor. Raises Invalid, or Conflict when another app owns its host."""
        document = self._accept(namespace, body)
        now = timestamp()
        record = StoredDescriptor(
            namespace=namespace,
            app=document["appName"],
            id=new_id(),
            document=document,
            created=now,
            last_modified=now,
        )

        def attempt() -> StoredDescriptor:
            revision = self.store.commit(Create(record), *self._claim(document))
            return dataclasses.replace(record, revision=revision, sequence=revision)

        return _decide_again(attempt)

    def descriptors(self, namespace: str, app: str | None = None) -> list[StoredDescriptor]:
        """All of a namespace or of an app, in order of arrival."""
        return self.store.find(StoredDescriptor, namespace=namespace, app=app)

    def descriptor(self, namespace: str, id: str) -> StoredDescriptor:
        """One descriptor. Raises NotFound, also for one of another namespace."""
        found = self.store.get(StoredDescriptor, id, namespace=namespace)
        if found is None:
            raise NotFound("there is no descriptor with this id in this namespace")
        return found

    def update_descriptor(
        self, namespace: str, id: str, body: bytes, if_match: Collection[int] | None = None
    ) -> StoredDescriptor:
        """Replace a descriptor. Raises NotFound, Invalid, Conflict, PreconditionFailed.

        if_match   the revisions that it may have; None: any
        """
        self.descriptor(namespace, id)
        document = self._accept(namespace, body)

        def attempt() -> StoredDescriptor:
            old = self.descriptor(namespace, id)
            if document["appName"] != old.app:
                # Whose it is stays unsaid: who may replace a descriptor may not therefore read it.
                message = "is not that of the stored descriptor, and cannot change; create another descriptor instead"
                raise Invalid([Problem("appName", message)])
            # Last, since it counts only when everything else is right (RFC 9110, 13.2.1).
            _expect(f"descriptor {id}", old.revision, if_match)
            new = dataclasses.replace(old, document=document, last_modified=timestamp())
            changes: list[Change] = [Update(new), *self._claim(document)]
            if hosts_of(old.document).keys() - hosts_of(document).keys():
                changes += self._unclaimed(namespace, old, document)
            return dataclasses.replace(new, revision=self.store.commit(*changes))

        return _decide_again(attempt)

    def delete_descriptor(
        self, namespace: str, id: str, *, if_match: Collection[int] | None = None
    ) -> StoredDescriptor:
        """Delete a descriptor, and return what it was; what it deployed stays. Raises NotFound, PreconditionFailed."""

        def attempt() -> StoredDescriptor:
            old = self.descriptor(namespace, id)
            _expect(f"descriptor {id}", old.revision, if_match)
            self.store.commit(Delete(old), *release_hosts(self.store, namespace, old.app, without_descriptor=id))
            return old

        return _decide_again(attempt)

    def delete_descriptors(self, namespace: str, app: str, keep_latest: bool = True) -> int:
        """Delete an app's descriptors, by default all but the one that was modified last; returns how many."""
        # The revision decides within a second, which is as exactly as the time is kept.
        doomed = sorted(self.descriptors(namespace, app), key=lambda d: (d.last_modified, d.revision))
        if keep_latest:
            doomed = doomed[:-1]
        for record in doomed:
            self.delete_descriptor(namespace, record.id)
        return len(doomed)

    def _unclaimed(self, namespace: str, old: StoredDescriptor, document: Document) -> list[Change]:
        """What a descriptor that changes gives back, less what it claims in the same transaction."""
        kept = {*hosts_of(document), self._settings.preview(namespace, old.app) if hosts_of(document) else ""}
        changes = release_hosts(self.store, namespace, old.app, without_descriptor=old.id)
        return [c for c in changes if not (isinstance(c, Delete) and c.record.key in kept)]

    def _claim(self, document: Document) -> list[Change]:
        """The changes that make the descriptor's hosts the app's; touched anew so that no `_unclaim` misses them."""
        return claim_hosts(self.store, self._settings, document)

    # --- deployments ---------------------------------------------------------------------------------------------

    def deploy(self, namespace: str, descriptor_id: str, by: str = "") -> Deployment:
        """Queue a deployment of a stored descriptor. Raises NotFound, Invalid, QueueFull, StoreUnavailable."""
        stored = self.descriptor(namespace, descriptor_id)
        return self._queue(self.check(namespace, stored.document, stored=True), stored.public(), by)

    def redeploy(self, namespace: str, id: str, by: str = "", *, if_match: Collection[int] | None = None) -> Deployment:
        """Queue a new deployment of the descriptor copy of an earlier one. Raises what `deploy` does."""
        earlier = self.deployment(namespace, id)
        _expect(f"deployment {id}", earlier.revision, if_match)
        return self._queue(self.check(namespace, earlier.descriptor, stored=True), earlier.descriptor, by)

    def _queue(self, document: Document, source: Document, by: str) -> Deployment:
        """`source` is the descriptor as it is shown, whose identity goes with the copy of it."""
        waiting = self.store.count(Deployment, tag=Status.DEPLOYING.value)
        if waiting >= self._settings.queue_limit:
            raise QueueFull(f"{waiting} deployments are waiting or running already; try again in a while", 5)
        now = timestamp()
        namespace = document["namespace"]
        identity: Document = {name: source[name] for name in ("id", "created", "lastModified") if name in source}
        deployment = Deployment(
            namespace=namespace,
            app=document["appName"],
            id=new_id(),
            descriptor={**identity, **document},
            created=now,
            last_modified=now,
            version=descriptors.version_of(document),
            descriptor_id=str(source.get("id", "")),
            created_by=by,
        )
        operation = Operation(
            namespace=namespace,
            app=deployment.app,
            id=new_id(),
            kind=OperationKind.DEPLOY,
            deployment=deployment.id,
        )
        said = self.deployment_log.line(
            deployment.id, f"queued: deployment of {deployment.app} in namespace {namespace}{_by(by)}"
        )
        changes: list[Change] = [Create(deployment), Create(operation), said]
        if unknown := list(podtypes.unknown_fields(document["podspec"])):
            changes.append(self.deployment_log.line(deployment.id, f"the podspec {_unknown_text(unknown)}"))
        revision = self.store.commit(*changes)
        return dataclasses.replace(deployment, revision=revision, sequence=revision)

    def deployments(
        self, namespace: str, app: str | None = None, limit: int | None = None, status: Status | None = None
    ) -> list[Deployment]:
        """Newest first; `limit` counts per app."""
        return self.store.find(
            Deployment,
            namespace=namespace,
            app=app,
            tag=status.value if status else None,
            newest_first=True,
            limit_per_app=limit,
        )

    def deployment(self, namespace: str, id: str) -> Deployment:
        """One deployment. Raises NotFound, also for one of another namespace."""
        found = self.store.get(Deployment, id, namespace=namespace)
        if found is None:
            raise NotFound("there is no deployment with this id in this namespace")
        return found

    def undeploy(
        self, namespace: str, id: str, purge: bool = False, by: str = "", *, if_match: Collection[int] | None = None
    ) -> Deployment:
        """Undeploy a live deployment, cancel one under way, clean up after an ended one; then delete it if `purge`.

        `by` is who asked for it.
        """

        def attempt() -> Deployment:
            old = self.deployment(namespace, id)
            _expect(f"deployment {id}", old.revision, if_match)
            status = Status.UNDEPLOYING if old.status in (Status.DEPLOYING, Status.DEPLOYED) else old.status
            new = old.to(status, purge=old.purge or purge)
            if status is not old.status:
                new = dataclasses.replace(new, undeployed_by=by)
            changes: list[Change] = [Update(new)]
            if not old.status.moving:
                # A deployment under way is finished by the operation that it has; any other needs one.
                changes.append(
                    Create(
                        Operation(
                            namespace=namespace,
                            app=old.app,
                            id=new_id(),
                            kind=OperationKind.UNDEPLOY,
                            deployment=id,
                        )
                    )
                )
            said = {Status.DEPLOYING: "cancelled by request", Status.DEPLOYED: "queued: undeployment"}.get(old.status)
            if said:
                changes.append(self.deployment_log.line(id, said + _by(by)))
            revision = self.store.commit(*changes)
            return dataclasses.replace(new, revision=revision)

        return _decide_again(attempt)

    def delete_deployments(
        self, namespace: str, app: str, undeploy: bool = False, by: str = ""
    ) -> tuple[int, Deployment | None]:
        """Delete the records of an app's ended deployments; with `undeploy` end and delete the others too.

        Returns how many are or will be deleted, and the one of them that was live.
        """
        count, live = 0, None
        for deployment in self.deployments(namespace, app):
            if deployment.status in (Status.FAILURE, Status.UNDEPLOYED):
                _decide_again(lambda id=deployment.id: self._purge(id))  # type: ignore[misc]
            elif undeploy:
                ending = self.undeploy(namespace, deployment.id, purge=True, by=by)
                live = ending if deployment.status is Status.DEPLOYED else live
            else:
                continue
            count += 1
        return count, live

    def _purge(self, id: str) -> None:
        deployment = self.store.get(Deployment, id)
        if deployment is not None and not deployment.status.moving:
            self.store.commit(*purge_changes(self.store, deployment))

    def health_data(self, namespace: str, id: str) -> list[Document]:
        """`[{"podName", "value"}]`, empty before the checks have ended."""
        self.deployment(namespace, id)
        found = self.store.get(HealthData, id)
        return found.entries if found else []

    def log(self, namespace: str, id: str, after: int = 0) -> tuple[Iterator[str], int]:
        """The log so far as text, piece by piece, and the number of its last line. Raises NotFound at once."""
        self.deployment(namespace, id)
        last = self.deployment_log.last(id)
        return self.deployment_log.text(id, after, last), last


def _unknown_text(paths: Sequence[str]) -> str:
    """What is said of fields that the cluster may or may not know."""
    more = f" and {len(paths) - UNKNOWN_NAMED} more" if len(paths) > UNKNOWN_NAMED else ""
    return f"has fields that Kubernetes {podtypes.VERSION} does not know: {', '.join(paths[:UNKNOWN_NAMED])}{more}"


def _by(name: str) -> str:
    """The end of a log line that says who asked for it."""
    return f", asked for by {name}" if name else ""


def rules(registry: Registry, settings: Settings) -> descriptors.Rules:
    """What descriptors are checked against: the settings and what is installed."""
    ingress = registry.ingress()
    return descriptors.Rules(
        settings=settings,
        strategies={name: entry.provider.options_schema for name, entry in registry.strategies.items()},
        health_checkers=list(registry.health_checkers),
        ingress=(settings.ingress, ingress.options_schema if ingress else None),
        health_options={name: entry.provider.options_schema for name, entry in registry.health_checkers.items()},
        without_path={name for name, entry in registry.health_checkers.items() if not entry.provider.needs_path},
        extensions=registry.extensions,
    )


def _without_values(problems: list[Problem], descriptor: Document) -> list[Problem]:
    """The same, without the values of the descriptor's environment: they are said nowhere but in the descriptor."""
    if not problems:
        return problems
    own = Matcher(environment_values(descriptor.get("podspec")))
    return [Problem(own.clean(p.path), clean_credentials(own.clean(p.message))) for p in problems]


def _expect(what: str, revision: int, if_match: Collection[int] | None) -> None:
    """Raise PreconditionFailed when it has none of the revisions that it should have."""
    if if_match is not None and revision not in if_match:
        expected = " or ".join(map(str, sorted(if_match))) or "what If-Match says"
        raise PreconditionFailed(f"{what} has revision {revision} by now, not {expected}; read it again")


def _decide_again(attempt: Callable[[], T]) -> T:
    """Run a read-decide-commit until nobody else came first. Raises Conflict when that never happens."""
    for _ in range(ATTEMPTS):
        try:
            return attempt()
        except StaleRevision:
            continue
    raise Conflict("too many changes at once; try again")

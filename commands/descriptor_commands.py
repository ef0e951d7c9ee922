"""Descriptors: checked, validated, stored. The API translates HTTP into these calls and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Collection, Sequence

from deployer import descriptor as descriptors
from deployer.commands import capabilities
from deployer.commands.idempotency import Claim, Idempotency, RequestKey, result_of
from deployer.commands.limits.paging import RecordList
from deployer.commands.limits.quotas import Quotas
from deployer.commands.provider_calls import ProviderCalls
from deployer.commands.transactions import decide_again, expect
from deployer.core.errors import HostProblem, HostTaken, Invalid, NotFound, PluginError, Problem
from deployer.core.model.descriptors import version_of
from deployer.core.model.hosts import DNS_SUBDOMAIN
from deployer.core.model.kind import CONTROLLER, POD
from deployer.core.model.records import App, Document, StoredDescriptor, new_id, timestamp
from deployer.core.model.secrets import environment_values
from deployer.core.operations.host_claims import claim_hosts, hosts_of, release_hosts
from deployer.core.ports.store import Change, Create, Delete, Store, Update
from deployer.core.registry import NO_INGRESS, Registry
from deployer.descriptor.podspec import types as podtypes
from deployer.descriptor.schema_errors import MAX_UNKNOWN
from deployer.descriptor.validation import KINDS, DescriptorDryRun, Findings, Remarks, no_remarks
from deployer.redaction.matching import Matcher
from deployer.redaction.redactor import clean_credentials
from deployer.settings import Settings

UNKNOWN_NAMED = 10
"""Unknown fields of a podspec that one sentence names."""

logger = logging.getLogger(__name__)


class DescriptorCommands:
    """Descriptors of all namespaces. Authorisation is the caller's business; existence is ours."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        *,
        dry_run: DescriptorDryRun | None = None,
        remarks: Remarks = no_remarks,
        idempotency: Idempotency | None = None,
    ) -> None:
        """`dry_run` asks the cluster about descriptors; without one nobody does. `idempotency` has the keys of
        requests."""
        self._store = store
        self._idempotency = idempotency or Idempotency(store, settings.idempotency_ttl)
        self._dry_run = dry_run
        self._remarks_of = remarks
        self._registry = registry
        self._settings = settings
        self._calls = ProviderCalls(registry)
        self._ingress = registry.ingress_entry()
        self.rules = rules(registry, settings)
        self.quotas = Quotas(store, settings.limit)

    # --- checking ------------------------------------------------------------------------------------------------

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
                found += capabilities.problems(normal, ingress.provider.name, ingress.declared.capabilities, found)
            needs = self._registry.entry("strategy", normal["deploymentType"]).declared.needs
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
        named = {str(gate["type"]) for gates in descriptor.get("gates", {}).values() for gate in gates}
        chosen += [("gate", name) for name in sorted(named)]
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
        asked = CONTROLLER.kind in found.checked
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
                logger.info("a descriptor of %s/%s %s", namespace, sound["appName"], unknown_text(unknown))
        if problems:
            raise Invalid(descriptors.bounded(problems))
        return normal

    def _next_version(self, namespace: str, sound: Document) -> str:
        app = self._store.get(App, f"{namespace}/{sound['appName']}")
        return version_of(sound) or str((app.highest if app else 0) + 1)

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
            return Findings(not_checked=dict.fromkeys(KINDS, why))
        return self._dry_run.ask({**sound, "podspec": normal["podspec"]}, self._next_version(namespace, sound))

    def _remarks(self, sent: Document, normal: Document, *, cluster_asked: bool) -> list[Document]:
        """What there is to say about a valid descriptor, the providers' word included, and no reason to refuse it."""
        said = f"is not a field that Kubernetes {podtypes.VERSION} knows"
        paths = () if cluster_asked else podtypes.unknown_fields(normal["podspec"])
        unknown = [Problem(path, said + podtypes.advice(path)) for path in itertools.islice(paths, MAX_UNKNOWN)]
        chosen = self._calls.remarks(self._chosen(normal), normal)
        if (ingress := self._ingress) and normal.get("frontend"):
            chosen += capabilities.remarks(normal, ingress.provider.name, ingress.declared.capabilities, chosen)
        found = [*unknown, *self._remarks_of(sent, normal, self._settings), *_without_values(chosen, normal)]
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
        not_checked = [{"what": POD.kind, "reason": "only /descriptors/validate asks the cluster about it"}]
        return {"checked": ["descriptor"], "notChecked": not_checked, "warnings": [], "remarks": found}

    # --- storing -------------------------------------------------------------------------------------------------

    def create(self, namespace: str, body: bytes, *, key: RequestKey | None = None) -> StoredDescriptor:
        """Store a new one. Raises Invalid, QuotaExceeded, KeyReused, or HostTaken when another app owns its host."""

        @functools.cache  # the cluster is asked once, however often the transaction is decided
        def checked() -> StoredDescriptor:
            document, now = self._accept(namespace, body), timestamp()
            return StoredDescriptor(
                namespace=namespace,
                app=document["appName"],
                id=new_id(),
                document=document,
                created=now,
                last_modified=now,
            )

        def perform(claim: Claim) -> StoredDescriptor:
            record = checked()
            self.quotas.descriptor(namespace, record.document)
            changes = [*self._claim(record.document), *claim(record.app, record.id)]
            revision = self._store.commit(Create(record), *changes)
            return dataclasses.replace(record, revision=revision, sequence=revision)

        return self._idempotency.once(key, perform, lambda known: result_of(self._store, StoredDescriptor, known))

    def listed(self, namespace: str, app: str | None = None) -> RecordList[StoredDescriptor]:
        """All of a namespace or of an app, newest first."""
        return RecordList(self._store, StoredDescriptor, namespace, app=app)

    def moved(self, namespace: str) -> int:
        """What differs whenever anything of a namespace's list may, in this process."""
        return self._store.changed(namespace)

    def get(self, namespace: str, id: str) -> StoredDescriptor:
        """One descriptor. Raises NotFound, also for one of another namespace."""
        found = self._store.get(StoredDescriptor, id, namespace=namespace)
        if found is None:
            raise NotFound("there is no descriptor with this id in this namespace")
        return found

    def update(self, namespace: str, id: str, body: bytes, if_match: Collection[int] | None = None) -> StoredDescriptor:
        """Replace a descriptor. Raises NotFound, Invalid, HostTaken, PreconditionFailed, QuotaExceeded.

        if_match   the revisions that it may have; None: any
        """
        self.get(namespace, id)
        document = self._accept(namespace, body)

        def attempt() -> StoredDescriptor:
            old = self.get(namespace, id)
            if document["appName"] != old.app:
                # Whose it is stays unsaid: who may replace a descriptor may not therefore read it.
                message = "is not that of the stored descriptor, and cannot change; create another descriptor instead"
                raise Invalid([Problem("appName", message)])
            # Last, since it counts only when everything else is right (RFC 9110, 13.2.1).
            expect(f"descriptor {id}", old.revision, if_match)
            self.quotas.descriptor(namespace, document, instead_of=old.document)
            new = dataclasses.replace(old, document=document, last_modified=timestamp())
            changes: list[Change] = [Update(new), *self._claim(document)]
            if hosts_of(old.document).keys() - hosts_of(document).keys():
                changes += self._unclaimed(namespace, old, document)
            return dataclasses.replace(new, revision=self._store.commit(*changes))

        return decide_again(attempt)

    def delete(self, namespace: str, id: str, *, if_match: Collection[int] | None = None) -> StoredDescriptor:
        """Delete a descriptor, and return what it was; what it deployed stays. Raises NotFound, PreconditionFailed."""

        def attempt() -> StoredDescriptor:
            old = self.get(namespace, id)
            expect(f"descriptor {id}", old.revision, if_match)
            self._store.commit(Delete(old), *release_hosts(self._store, namespace, old.app, without_descriptor=id))
            return old

        return decide_again(attempt)

    def delete_all(self, namespace: str, app: str, keep_latest: bool = True) -> int:
        """Delete an app's descriptors, by default all but the one that was modified last; returns how many."""
        # The revision decides within a second, which is as exactly as the time is kept.
        doomed = sorted((d.last_modified, d.revision, d.id) for d in self.listed(namespace, app))
        if keep_latest:
            doomed = doomed[:-1]
        deleted = 0
        for *_, id in doomed:
            with contextlib.suppress(NotFound):  # somebody else deletes them at the same time
                self.delete(namespace, id)
                deleted += 1
        return deleted

    def _unclaimed(self, namespace: str, old: StoredDescriptor, document: Document) -> list[Change]:
        """What a descriptor that changes gives back, less what it claims in the same transaction."""
        kept = {*hosts_of(document), self._settings.preview(namespace, old.app) if hosts_of(document) else ""}
        changes = release_hosts(self._store, namespace, old.app, without_descriptor=old.id)
        return [c for c in changes if not (isinstance(c, Delete) and c.record.key in kept)]

    def _claim(self, document: Document) -> list[Change]:
        """The changes that make the descriptor's hosts the app's; touched anew so that no `_unclaim` misses them."""
        return claim_hosts(self._store, self._settings, document)


def unknown_text(paths: Sequence[str]) -> str:
    """What is said of fields that the cluster may or may not know."""
    more = f" and {len(paths) - UNKNOWN_NAMED} more" if len(paths) > UNKNOWN_NAMED else ""
    return f"has fields that Kubernetes {podtypes.VERSION} does not know: {', '.join(paths[:UNKNOWN_NAMED])}{more}"


def rules(registry: Registry, settings: Settings) -> descriptors.Rules:
    """What descriptors are checked against: the settings and what is installed."""
    ingress = registry.ingress_entry()
    return descriptors.Rules(
        settings=settings,
        strategies={name: entry.declared.options_schema for name, entry in registry.strategies.items()},
        health_checkers=list(registry.health_checkers),
        ingress=(settings.ingress, ingress.declared.options_schema if ingress else None),
        health_options={name: entry.declared.options_schema for name, entry in registry.health_checkers.items()},
        without_path={name for name, entry in registry.health_checkers.items() if not entry.declared.needs_path},
        gates={
            name: descriptors.GateType(entry.declared.options_schema, entry.declared.points)
            for name, entry in registry.gates.items()
        },
        extensions=registry.extensions,
    )


def _without_values(problems: list[Problem], descriptor: Document) -> list[Problem]:
    """The same, without the values of the descriptor's environment: they are said nowhere but in the descriptor."""
    if not problems:
        return problems
    own = Matcher(environment_values(descriptor.get("podspec")))
    return [Problem(own.clean(p.path), clean_credentials(own.clean(p.message))) for p in problems]

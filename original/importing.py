"""The import as a whole: what comes from the original, where it goes, and what is said of it.

What is there already stays as it is, so that a second run changes nothing, and one that was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deployer import descriptor as descriptors
from deployer.core.cancel_scope import CancelScope
from deployer.core.model.records import App, Deployment, HostClaim, Status, StoredDescriptor
from deployer.core.operations.host_claims import hosts_of
from deployer.core.ports.store import Append, Change, Create, LogLine, Store
from deployer.core.registry import Registry
from deployer.original.cluster import AppInCluster, LiveVersion, OriginalCluster
from deployer.original.records import Check, Converter, Imported, plan_of
from deployer.original.source import Source
from deployer.store.transfer.port import LINES_AT_ONCE, SIZE_AT_ONCE

Names = tuple[str, str]
"""Namespace and app."""

_CALLED = {StoredDescriptor.KIND: "descriptor", App.KIND: "app", HostClaim.KIND: "host claim"}


class TakesEnvironment(Protocol):
    """An environment injector with a place of its own for what it injects."""

    def take_over(
        self, variables: Mapping[str, str], scope: CancelScope, *, write: bool
    ) -> tuple[list[str], list[str]]:
        """Store what is not there yet; `write` False: only look. The keys that were (or would be) stored, and those
        that are there with another value, which stays. Raises StepFailed."""


@dataclass(slots=True)
class Report:
    """What there is to say, line by line, and how many records of a kind are new."""

    lines: list[str] = field(default_factory=list)
    new: Counter[str] = field(default_factory=Counter)

    def remark(self, whose: str, what: str) -> None:
        """Something that was dropped, changed or left."""
        self.lines.append(f"{whose}: {what}")


@dataclass(slots=True)
class _AppRecords:
    descriptors: list[StoredDescriptor] = field(default_factory=list)
    deployments: list[Imported] = field(default_factory=list)
    cluster: AppInCluster = field(default_factory=AppInCluster)
    live: LiveVersion | None = None


class OriginalImport:
    """One import into a store that nobody else uses. Raises DeployerError; what was written by then is completed by the
    next run."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        cluster: OriginalCluster,
        check: Check,
        rules: descriptors.Rules,
        *,
        environment: TakesEnvironment | None,
        write: bool,
    ) -> None:
        """`write` False: nothing is written to the cluster, nor to where the environment is; `store` is a copy then."""
        self._store = store
        self._registry = registry
        self._cluster = cluster
        self._check = check
        self._rules = rules
        self._environment = environment
        self._write = write
        self.report = Report()

    def run(self, source: Source) -> Report:
        """Bring it over."""
        report = self.report
        for sentence in source.left_out:
            report.remark("left out", sentence)
        make = Converter(source, self._check, self._rules, report.remark)
        stored = [descriptor for entry in source.descriptors if (descriptor := make.descriptor(entry)) is not None]
        deployed = [made for entry in source.deployments if (made := make.deployment(entry)) is not None]
        known = {(made.deployment.namespace, made.deployment.id) for made in deployed}
        for namespace, id in sorted((source.logs.keys() | source.health.keys()) - known):
            report.remark("left out", f"log or health data of deployment {id} in {namespace}, which has no record")
        apps = _by_app(stored, deployed)
        for names, records in apps.items():
            # All of the cluster is looked at before anything is written.
            records.cluster = self._cluster.look(*names)
            for sentence in records.cluster.remarks:
                report.remark("/".join(names), sentence)
            self._settle(names, records)
        # Marks first: what is marked and not recorded yet is recorded by the next run.
        for names, records in apps.items():
            self._mark(names, records)
        # All of a kind in their order of arrival, whosever they are, as lists show them.
        self._create(stored)
        for made in deployed:
            self._create_deployment(made, apps[made.deployment.namespace, made.deployment.app].live)
        for names, records in apps.items():
            self._create_app(names, records)
        self._claim_hosts(apps)
        self._take_environment(source)
        return report

    def _settle(self, names: Names, records: _AppRecords) -> None:
        """Only what the cluster has is live; every other deployment that says so is not any more."""
        whose, found = "/".join(names), records.cluster.live
        for imported in records.deployments:
            deployment = imported.deployment
            serves = found is not None and (found.deployment, found.version) == (deployment.id, deployment.version)
            if serves and deployment.status is Status.DEPLOYED:
                records.live = found
            elif deployment.status is Status.DEPLOYED:
                imported.deployment = dataclasses.replace(deployment, status=Status.UNDEPLOYED)
                self.report.remark(
                    f"deployment {deployment.id} of {whose}",
                    f"DEPLOYED: becomes UNDEPLOYED, since version {deployment.version} does not serve",
                )
        if found is not None and records.live is None:
            said = f"version {found.version} serves, and no deployment says that it is DEPLOYED"
            self.report.remark(whose, f"{said}: the next deployment takes it over")
        app = self._store.get(App, whose)
        if records.live is not None and app is not None and app.live != records.live.deployment:
            self.report.remark(whose, f"version {app.live_version or '(none)'} stays what is live in the store")
            records.live = None

    def _mark(self, names: Names, records: _AppRecords) -> None:
        live = records.live
        if live is not None:
            self.report.remark("/".join(names), f"version {live.version} is live (deployment {live.deployment})")
            self._new("mark on an object in the cluster", len(live.unmarked))
            if self._write:
                self._cluster.mark(*names, live)

    def _create_app(self, names: Names, records: _AppRecords) -> None:
        namespace, name = names
        live = records.live
        if records.deployments:
            made = App(
                namespace=namespace,
                app=name,
                live=live.deployment if live else "",
                live_version=live.version if live else "",
                highest=max([records.cluster.highest, *_numbers(records.deployments)]),
            )
            self._create([made])

    def _create_deployment(self, imported: Imported, live: LiveVersion | None) -> None:
        deployment = imported.deployment
        if self._store.get(Deployment, deployment.id) is None:
            self._create_record(imported, live)
        # A log may be larger than a transaction of etcd: what is missing of it comes after.
        while part := _part(imported.lines[self._store.last_line(deployment.id) :]):
            self._store.commit(*(Append(deployment.id, line.time, line.text) for line in part))

    def _create_record(self, imported: Imported, live: LiveVersion | None) -> None:
        deployment = imported.deployment
        changes: list[Change] = [Create(deployment)]
        if imported.health is not None:
            changes.append(Create(imported.health))
        if live is not None and live.deployment == deployment.id:
            changes.append(Create(plan_of(imported, live, self._registry)))
        self._store.commit(*changes)
        self._new("deployment")

    def _create(self, records: Iterable[StoredDescriptor | App | HostClaim]) -> None:
        for record in records:
            if self._store.get(type(record), record.key) is None:
                self._store.commit(Create(record))
                self._new(_CALLED[record.KIND])

    def _claim_hosts(self, apps: Mapping[Names, _AppRecords]) -> None:
        """The app that is live with a host has it; of others, the one whose descriptor came first."""
        wanted: list[tuple[bool, Names, str]] = []
        for names, records in apps.items():
            deployed = [d.deployment.descriptor for d in records.deployments if d.deployment.status is Status.DEPLOYED]
            wanted += [(records.live is None, names, host) for document in deployed for host in hosts_of(document)]
            stored = [descriptor.document for descriptor in records.descriptors]
            wanted += [(True, names, host) for document in stored for host in hosts_of(document)]
        told = set()
        for _, (namespace, app), host in sorted(wanted, key=lambda claim: claim[0]):
            claim = self._store.get(HostClaim, host)
            if claim is None:
                self._create([HostClaim(namespace=namespace, app=app, host=host)])
            elif (claim.namespace, claim.app) != (namespace, app) and (host, namespace, app) not in told:
                told.add((host, namespace, app))
                self.report.remark(
                    f"{namespace}/{app}",
                    f"host {host} belongs to {claim.namespace}/{claim.app}: its deployments are refused until that app "
                    "gives it back, or it chooses another frontend",
                )

    def _take_environment(self, source: Source) -> None:
        if not source.environment:
            return
        names = ", ".join(sorted(source.environment))
        if self._environment is None:
            self.report.remark("environment", f"not copied, as --etcd does not say where it goes: {names}")
            return
        copied, kept = self._environment.take_over(source.environment, CancelScope(), write=self._write)
        self._new("variable of the environment", len(copied))
        for name in kept:
            self.report.remark("environment", f"{name}: has another value in etcd's v3 store, which stays")

    def _new(self, what: str, number: int = 1) -> None:
        if number:
            self.report.new[what] += number


def _by_app(stored: Sequence[StoredDescriptor], deployed: Sequence[Imported]) -> dict[Names, _AppRecords]:
    apps: dict[Names, _AppRecords] = defaultdict(_AppRecords)
    for descriptor in stored:
        apps[descriptor.namespace, descriptor.app].descriptors.append(descriptor)
    for made in deployed:
        apps[made.deployment.namespace, made.deployment.app].deployments.append(made)
    return dict(sorted(apps.items()))


def _part(lines: Sequence[LogLine]) -> list[LogLine]:
    """The first of them, as many as go into one transaction."""
    taken: list[LogLine] = []
    size = 0
    for line in lines[:LINES_AT_ONCE]:
        taken.append(line)
        size += len(line.text)
        if size >= SIZE_AT_ONCE:
            break
    return taken


def _numbers(deployments: Sequence[Imported]) -> list[int]:
    return [int(d.deployment.version) for d in deployments if d.deployment.version.isdigit()]

"""What an operation's steps are given: the cluster, bound to the app's ownership, the plugins, the log."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Callable, Collection
from typing import cast

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import HealthRounds
from deployer.core.contract.ingress import IngressProvider, RouteContext
from deployer.core.contract.kube import KubeAccess, Owner
from deployer.core.contract.strategy import Outcome, Step, Waiting, Work, unheard
from deployer.core.errors import Fenced, PluginError, StepFailed
from deployer.core.model.json_codec import dumps
from deployer.core.model.operation.timeline import Requests
from deployer.core.model.plan import blank_route
from deployer.core.model.records import App, Deployment, Json, Operation, Plan, Status
from deployer.core.operations.dependencies import Dependencies
from deployer.core.operations.host_claims import released
from deployer.core.operations.inventory import PlanInventory
from deployer.core.operations.journal import Journal
from deployer.core.operations.machine import LINES, TOLD
from deployer.core.ports.store import Append, Lease

logger = logging.getLogger(__name__)

LINES_MOST = 50
"""Lines of a step that parks which are not said again."""

TOLD_MOST = 10
"""Lines that an operation remembers to have said."""

MOST_REMEMBERED = 65_536
"""Bytes, as JSON, that a step may keep under one key."""

MOST_KEYS = 1_000
"""Keys under which the steps of one operation may keep something."""


class Handles:
    """Of one operation under its lease. What it hands out stops working with the scope that it was made for."""

    def __init__(self, dependencies: Dependencies, journal: Journal, lease: Lease, inventory: PlanInventory) -> None:
        self._dependencies = dependencies
        self._store = dependencies.store
        self._journal = journal
        self._lease = lease
        self._inventory = inventory
        self._kept: frozenset[str] | None = None
        self.lines: list[str] = []
        """Digests of what the step that was begun last put into its log, whether that was said already or not."""
        self._earlier = frozenset(journal.operation.steps)
        self.waiting: Waiting = unheard
        """What `Work.waiting` is."""
        self.count: Callable[[Requests], None] | None = None
        """What `Work.count` is."""

    @property
    def _operation(self) -> Operation:
        return self._journal.operation

    def kube(self, deployment: str, scope: CancelScope) -> KubeAccess:
        """The app's namespace, for that deployment."""
        owner = Owner(
            instance=self._dependencies.settings.instance,
            namespace=self._operation.namespace,
            app=self._operation.app,
            deployment=deployment,
            fencing_token=self._lease.token,
            keep=self._keep() - {deployment, ""},
        )
        return self._dependencies.cluster.access(owner, scope, self._inventory)

    def _keep(self) -> frozenset[str]:
        """Ids of the deployments whose objects are no leftovers. Read once: under the lease no other one becomes live,
        and none begins to drain."""
        if self._kept is None:
            namespace, name = self._operation.namespace, self._operation.app
            app = self._store.get(App, f"{namespace}/{name}")
            keep = {app.live, app.held} if app else set()
            for status in (Status.DEPLOYED, Status.UNDEPLOYING):
                keep |= {d.id for d in self._store.find(Deployment, namespace=namespace, app=name, tag=status.value)}
            self._kept = frozenset(keep - released(self._store, namespace, name))
        return self._kept

    def work(self, step: Step, plan: Plan, scope: CancelScope, said: Collection[str] = ()) -> Work:
        """What a step gets; `said`: see `lines`. A provider that is gone is None there; deploying does not begin a step
        without it."""
        ingress = displaced = health = None
        with contextlib.suppress(PluginError):
            ingress = self.ingress(plan) if plan.route else None
        with contextlib.suppress(PluginError):
            displaced = self.provider(plan.displaced) if plan.displaced else None
        with contextlib.suppress(PluginError):
            health = self.health(plan)

        def waiting(reason: str, until: float | None = None) -> None:
            scope.check()
            self.waiting(reason, until)

        return Work(
            plan=plan,
            kube=self.kube(plan.deployment, scope),
            log=self._once(said),
            health=health,
            ingress=ingress,
            remember=lambda key, value: self._remember(step.id, key, value, scope),
            recall=lambda key, default: self._journal.recall(step.id, key, default),
            scope=scope,
            now=self._dependencies.clock,
            displaced=displaced,
            ask_pods=self._dependencies.cluster.ask_pods if plan.route else None,
            waiting=waiting,
            count=self.count,
            earlier=self._earlier,
        )

    def _remember(self, step: str, key: str, value: Json, scope: CancelScope) -> None:
        """All of an operation's memory is written each time, by the writer that all apps share: so it stays small."""
        size, known = len(key) + len(dumps(value)), self._operation.memory
        if size > MOST_REMEMBERED or (len(known) >= MOST_KEYS and f"{step}/{key}" not in known):
            what = f"{size} bytes under one key" if size > MOST_REMEMBERED else f"more than {MOST_KEYS} keys"
            hint = f"ask the plugin's author; up to {MOST_REMEMBERED} bytes can be remembered under a key"
            raise StepFailed(f"step {step[:80]} wants to remember {what}", reason="BadStrategy", hint=hint)
        self._journal.remember(step, key, value, scope)

    # --- plugins -------------------------------------------------------------------------------------------------

    def health(self, plan: Plan) -> HealthRounds | None:
        """The pinned health checker's rounds. Raises PluginError when it is not there."""
        if not plan.health:
            return None
        checker = self._dependencies.registry.health_checker(plan.health.name)
        return self._dependencies.cluster.health_rounds(checker, plan, self.clean)

    def ingress(self, plan: Plan) -> IngressProvider | None:
        """The pinned provider. Raises PluginError when it is not there."""
        return self.provider(plan.ingress.name) if plan.ingress else None

    def provider(self, name: str) -> IngressProvider:
        """The ingress provider of that name. Raises PluginError."""
        return cast(IngressProvider, self._dependencies.registry.entry("ingress", name).provider)

    def missing(self, plan: Plan) -> str:
        """The plugins of the plan that are not installed any more, or that of the strategy when all are."""
        pinned = {"strategy": plan.strategy, "ingress": plan.ingress if plan.route else None, "health": plan.health}
        gone = [ref.source or ref.name for kind, ref in pinned.items() if ref and not self._installed(kind, ref.name)]
        return ", ".join(dict.fromkeys(gone)) or plan.strategy.source or plan.strategy.name

    def _installed(self, kind: str, name: str) -> bool:
        with contextlib.suppress(PluginError):
            self._dependencies.registry.entry(kind, name)
            return True
        return False

    # --- fencing -------------------------------------------------------------------------------------------------

    def fence(self, scope: CancelScope) -> None:
        """From here on an earlier holder of the lease can no longer write the app's shared objects. Raises Fenced."""
        try:
            self._fence(scope)
        except Fenced as error:
            # Who holds the lease and meets a higher token has a store that was restored; else this does nothing.
            self._store.release(self._lease, above=error.token)
            raise

    def _fence(self, scope: CancelScope) -> None:
        kube = self.kube(self._operation.deployment, scope)
        self._dependencies.cluster.fence(kube, self._operation.app)
        route = blank_route(self._operation.namespace, self._operation.app)
        for provider in self._exposing():
            provider.fence(RouteContext(route, kube, self.log, scope))

    def _exposing(self) -> list[IngressProvider]:
        """Every ingress provider that has, or may get, a route of the app: that of the settings, and those of plans
        that were made when the settings named another one. One that is not installed any more writes nothing."""
        app = self._store.get(App, f"{self._operation.namespace}/{self._operation.app}")
        ids = {self._operation.deployment, *((app.live, app.held) if app else ())} - {""}
        plans = [plan for id in sorted(ids) if (plan := self._store.get(Plan, id)) and plan.route]
        names = {name for plan in plans for name in (plan.ingress.name if plan.ingress else "", plan.displaced) if name}
        current = self._dependencies.registry.ingress()
        found = [current] if current is not None else []
        for name in sorted(names - {current.name if current else ""}):
            with contextlib.suppress(PluginError):
                found.append(self.provider(name))
        return found

    # --- the log -------------------------------------------------------------------------------------------------

    def clean(self, text: str) -> str:
        """The text as it may be shown to those who may read the deployment."""
        return self._dependencies.redactor.clean_of(self._operation.deployment, text)

    def line(self, message: str) -> Append:
        """A log line for the transaction that makes it true."""
        return self._dependencies.deployment_log.line(self._operation.deployment, message)

    def run(self, step: Step, plan: Plan, said: Collection[str], scope: CancelScope) -> Outcome:
        """Run it; `said`: see `lines`."""
        return step.run(self.work(step, plan, scope, said))

    def keep_lines(self) -> None:
        """Remember `lines` with what is written next: the step parks, and may say them again when it is taken up."""
        memory = {**self._operation.memory, LINES: self.lines[-LINES_MOST:]}
        self._journal.operation = dataclasses.replace(self._operation, memory=memory)

    def _once(self, said: Collection[str]) -> Callable[[str], None]:
        """A step's log, without the lines that it has `said` (as digests): one that is tried again, or polls and parks
        in between, says the same each time."""
        self.lines = lines = []

        def log(message: str) -> None:
            lines.append(digest := hashlib.sha256(message.encode("utf-8", "replace")).hexdigest()[:16])
            if digest not in said:
                self.log(message)

        return log

    def log_once(self, message: str) -> None:
        """The same, but not at each attempt of the operation."""
        told = self._operation.memory.get(TOLD, [])
        if message not in told:
            self.log(message)
            memory = {**self._operation.memory, TOLD: [*told, message][-TOLD_MOST:]}
            self._journal.operation = dataclasses.replace(self._operation, memory=memory)

    def log(self, message: str) -> None:
        """A line of the deployment's log; of the service's, for an operation without one."""
        if self._operation.deployment:
            self._dependencies.deployment_log.append(self._operation.deployment, message)
        else:
            logger.info("%s/%s: %s", self._operation.namespace, self._operation.app, message)

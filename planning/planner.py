"""Deciding a deployment: what is live, which version comes next, and all that is pinned before anything starts."""

from __future__ import annotations

import copy
import dataclasses
import logging
import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from deployer.core.contract.environment import EnvContext
from deployer.core.contract.ingress import IngressProvider
from deployer.core.contract.kube import KubeReader
from deployer.core.contract.strategy import Phase, WorkloadContext
from deployer.core.errors import StepFailed
from deployer.core.model.descriptors import AUTOINCREMENT, frontend_port
from deployer.core.model.hosts import DNS_SUBDOMAIN
from deployer.core.model.names import versioned_name
from deployer.core.model.plan import Backend, PinnedSettings, PlannedGate, PlannedStep, Preview, ProviderRef, Route
from deployer.core.model.records import App, Deployment, Document, HostClaim, Plan, Release, Status
from deployer.core.model.secrets import public_names, secrets_of, values_of
from deployer.core.operations.host_claims import released
from deployer.core.operations.steps import check_steps, planned, planned_soak
from deployer.core.ports.planning import Handles
from deployer.core.ports.store import Store
from deployer.core.registry import Registry
from deployer.descriptor import policy
from deployer.planning import duties, gates, injection, strategies
from deployer.planning.live_version import LiveVersion, LiveVersions
from deployer.planning.versions import Versions
from deployer.settings import Settings

logger = logging.getLogger(__name__)

MOST_SAID = 10
"""Problems that a failure names."""

ALREADY_LIVE = "AlreadyLive"
"""The reason when exactly what is asked for is live: clients may take that for a success."""

_ENDED = (Status.UNDEPLOYED, Status.FAILURE)


@dataclass(frozen=True, slots=True)
class Planner:
    """Decides deployments of one app. Reads the cluster and the store; writes nothing."""

    store: Store
    registry: Registry
    settings: Settings
    versions: Versions
    handles: Handles

    def decide(self, deployment: Deployment, app: App) -> tuple[Plan, App]:
        """The pinned plan, and the app with the version counted. Raises StepFailed with the reason in one sentence."""
        descriptor = deployment.descriptor
        self._check_policy(descriptor)
        strategy = self.registry.strategy(descriptor["deploymentType"])
        ingress = self.registry.ingress()
        live = self.live(app, ingress)
        previous = live.pinned() if live else None
        version = self._version(deployment, app, live)
        release = self.store.get(Release, deployment.rollback_of) if deployment.rollback_of else None
        replicas = release.replicas if release else self._replicas(descriptor, live)
        environment = self._kept(deployment, release) if release else self._environment(deployment, version)
        context = WorkloadContext(
            descriptor=descriptor,
            version=version,
            deployment=deployment.id,
            created=deployment.created,
            instance=self.settings.instance,
            replicas=replicas,
            environment=environment,
            image_pull_policy=self.settings.image_pull_policy,
            service_links=self.settings.enable_service_links,
            fencing_token=self.handles.kube.owner.fencing_token,
            previous=previous,
        )
        plan = Plan(
            namespace=deployment.namespace,
            app=deployment.app,
            deployment=deployment.id,
            version=version,
            previous=previous,
            descriptor=descriptor,
            strategy=self.reference("strategy", strategy.name),
            ingress=self.reference("ingress", ingress.name) if ingress else None,
            health=self._health(descriptor),
            objects=strategies.workload(strategy, context, self.versions),
            route=self._route(deployment, version, ingress, live),
            replicas=replicas,
            environment=environment,
            budgets=self.budgets(descriptor),
        )
        self.handles.conceal(secrets_of(descriptor, plan))  # what a strategy gives to the containers, too
        plan = dataclasses.replace(plan, settings=self.pinned_settings(plan))
        plan = dataclasses.replace(plan, settings=strategies.drained(strategy, plan))
        steps = check_steps(strategy.deploy_steps(plan), strategy.name)
        duties.require_fulfilled(steps, plan)
        highest = max(app.highest, int(version) if version.isdigit() else 0)
        own = tuple(map(planned, steps))
        plan = dataclasses.replace(plan, gates=self._gates(deployment))
        plan = dataclasses.replace(plan, steps=(*gates.inserted(own, plan.gates), *self._soak(deployment)))
        gates.warn(plan, self.handles.log)
        return plan, dataclasses.replace(app, highest=highest)

    def live(self, app: App, ingress: IngressProvider | None) -> LiveVersion | None:
        plan = self.store.get(Plan, app.live) if app.live else None
        lent = self.handles
        found = LiveVersions(self.registry, self.versions, lent.kube, lent.log, lent.scope)
        return found.find(app, plan, ingress)

    def _check_policy(self, descriptor: Document) -> None:
        """Refuse what was accepted and queued before the settings changed."""
        found = policy.problems(descriptor, self.settings)
        if found:
            raise StepFailed(
                "the settings of this Deployer no longer allow this descriptor: "
                + "; ".join(f"{p.path}: {p.message}" for p in found[:MOST_SAID]),
                reason="NotAllowed",
                hint="correct the descriptor, then deploy again",
            )

    # --- providers -----------------------------------------------------------------------------------------------

    def reference(self, kind: str, name: str) -> ProviderRef:
        return ProviderRef(**self.registry.ref(kind, name))

    def _health(self, descriptor: Document) -> ProviderRef | None:
        if not descriptor.get("useHealthCheck"):
            return None
        checker = self.registry.health_checker(descriptor["healthCheckType"])
        return self.reference("health", checker.name)

    def _gates(self, deployment: Deployment) -> tuple[PlannedGate, ...]:
        """None for a rollback, which has to get through: that version passed its gates when it was deployed."""
        if deployment.rollback_of:
            return ()
        return gates.planned(self.registry, self.settings.forced_gates(deployment.namespace), deployment.descriptor)

    def _soak(self, deployment: Deployment) -> list[PlannedStep]:
        """The core's own last step, after gates: see `soakSeconds`. A rollback has to get through."""
        seconds = float(deployment.descriptor.get("soakSeconds", 0))
        return [planned_soak(seconds)] if seconds and not deployment.rollback_of else []

    # --- what comes next -----------------------------------------------------------------------------------------

    def _version(self, deployment: Deployment, app: App, live: LiveVersion | None) -> str:
        wanted = str(deployment.descriptor["newVersion"])
        if wanted == AUTOINCREMENT:
            if live is not None and not live.version.isdigit():
                raise StepFailed(
                    f"the live version {live.version} is not a number, so '#' cannot count on from it",
                    reason="VersionNotANumber",
                    hint="name the new version in newVersion",
                )
            numbers = (app.highest, self.versions.highest(self.handles.kube, app.app), int(live.version) if live else 0)
            version = str(max(numbers) + 1)
            self.versions.check_name(app.app, version)
            return version
        going = released(self.store, app.namespace, app.app)
        # Those that have ended are in nobody's way, and there may be very many.
        find = partial(self.store.find, Deployment, namespace=app.namespace, app=app.app)
        for other in (one for status in Status if status not in _ENDED for one in find(tag=status.value)):
            gone = other.id in going or (other.id == app.live and live is None)
            if other.id == deployment.id or other.version != wanted or gone:
                continue
            if other.status is Status.DEPLOYING and other.sequence > deployment.sequence:
                continue  # it waits for this one
            if other.status is Status.DEPLOYED:
                raise self._is_live(deployment, other.descriptor, f" (deployment {other.id})")
            if other.status.moving:
                what = "still held or being removed" if other.status is Status.UNDEPLOYING else "being deployed"
                raise StepFailed(
                    f"version {wanted} of {app.app} is {what} (deployment {other.id})",
                    reason="VersionInUse",
                    hint="choose another newVersion, or '#' to count on",
                )
        if live is not None and live.version == wanted:
            raise self._is_live(deployment, live.plan.descriptor if live.plan else {})
        return wanted

    @staticmethod
    def _is_live(deployment: Deployment, descriptor: Document, who: str = "") -> StepFailed:
        """The failure of a deployment whose version is live already, with that descriptor."""
        version = f"version {deployment.descriptor['newVersion']} of {deployment.app}"
        if _content(descriptor) == _content(deployment.descriptor):
            return StepFailed(
                f"{version} is live already, from the same descriptor{who}",
                reason=ALREADY_LIVE,
                hint="nothing is left to do; choose another newVersion, or '#' to count on, to start it anew",
            )
        return StepFailed(
            f"{version} is live{who}", reason="VersionInUse", hint="choose another newVersion, or '#' to count on"
        )

    def _replicas(self, descriptor: Document, live: LiveVersion | None) -> int:
        """The live number is carried over when the descriptor's did not change since: somebody scaled by hand."""
        wanted = int(descriptor["replicas"])
        if live is None or live.plan is None or live.running is None:
            return wanted
        if live.plan.descriptor["replicas"] != descriptor["replicas"]:
            return wanted
        running = max(1, live.running.replicas)
        if running != wanted:
            self.handles.log(f"carrying over {running} replicas from version {live.version}, which was scaled to that")
        return running

    def _kept(self, deployment: Deployment, release: Release) -> list[Document]:
        """The variables that the injectors gave when that version was deployed first."""
        environment = release.environment
        self.handles.conceal(set(values_of(environment)) - public_names(deployment.descriptor, release.version))
        if environment:
            names = ", ".join(sorted(variable["name"] for variable in environment))
            self.handles.log(f"environment as it was: {names}")
        return environment

    # --- environment ---------------------------------------------------------------------------------------------

    def _environment(self, deployment: Deployment, version: str) -> list[Document]:
        given: dict[str, tuple[Document, str]] = {}
        descriptor = deployment.descriptor
        for entry in self.registry.env_injectors.values():
            injector = entry.provider
            context = EnvContext(
                namespace=deployment.namespace,
                app=deployment.app,
                version=version,
                log=self.handles.log,
                scope=self.handles.scope,
                descriptor=copy.deepcopy(descriptor),
                kube=KubeReader(self.handles.kube),
                options=copy.deepcopy(descriptor.get("extensions", {}).get(entry.plugin, {})),
            )
            variables = injection.ask(injector, self.registry.title("env", injector.name), context)
            self.handles.conceal(set(values_of(variables)) - public_names(deployment.descriptor, version))
            for variable in variables:
                name = variable["name"]
                if name in given and given[name][0] != variable:
                    raise StepFailed(
                        f"environment variable {name} is given differently by {given[name][1]} and {injector.name}",
                        reason="EnvironmentConflict",
                        hint="let only one of them give it",
                    )
                given[name] = (variable, str(injector.name))
        environment = [variable for variable, _ in given.values()]
        if environment:
            self.handles.log("injected environment: " + ", ".join(sorted(given)))
        overridden = self.versions.overridden_names(deployment.descriptor, environment)
        if overridden:
            self.handles.log("the descriptor overrides: " + ", ".join(overridden))
        return environment

    # --- route ---------------------------------------------------------------------------------------------------

    def _route(
        self, deployment: Deployment, version: str, ingress: IngressProvider | None, live: LiveVersion | None
    ) -> Route | None:
        descriptor = deployment.descriptor
        host = descriptor.get("frontend")
        if not host:
            return None
        if ingress is None:
            self.handles.log(f"no ingress provider is configured: {host} is not routed anywhere")
            return None
        port = frontend_port(descriptor)
        if port is None:
            raise StepFailed(f"there is no container port that {host} could lead to", reason="NoPort")
        previous = live.route.backends[0] if live and live.route and live.route.backends else None
        return Route(
            namespace=deployment.namespace,
            app=deployment.app,
            host=host,
            version=version,
            deployment=deployment.id,
            backend=Backend(versioned_name(deployment.app, version), port),
            previous=previous,
            tls_secret=self._tls_secret(host, descriptor, live, ingress),
            redirect_www=bool(descriptor.get("redirectWww")),
            compression=bool(descriptor.get("useCompression")),
            sticky=bool(descriptor.get("useStickySessions")),
            headers=tuple((h["Header"], h["Value"]) for h in descriptor.get("additionHttpHeaders") or ()),
            options=descriptor.get("ingressOptions") or {},
            preview=self._preview(deployment, ingress),
            stable=bool(ingress.stable),
            displaces=self.displaced(ingress, live),
            path=descriptor.get("frontendPath") or "/",
        )

    def displaced(self, ingress: IngressProvider, live: LiveVersion | None) -> str:
        name = live.ingress.name if live and live.route and live.ingress else ""
        if not name or name == ingress.name:
            return ""
        self.handles.log(f"ingress provider {ingress.name} will take over from {name}")
        return name

    def _preview(self, deployment: Deployment, ingress: IngressProvider) -> Preview:
        host = self.settings.preview(deployment.namespace, deployment.app)
        options = deployment.descriptor.get("ingressOptions") or {}
        check = str(options.get("previewCheck") or self.settings.preview_check)
        if "preview" not in ingress.capabilities:
            if host or check:
                self.handles.log(f"no preview: ingress provider {ingress.name} has none")
            return Preview()
        if host and not DNS_SUBDOMAIN.fullmatch(host):
            self.handles.log(f"no preview host: {host} is not the name of a host")
            host = ""
        claim = self.store.get(HostClaim, host) if host else None
        if claim and (claim.namespace, claim.app) != (deployment.namespace, deployment.app):
            self.handles.log(f"no preview host: {host} belongs to another app")  # since before the setting was there
            host = ""
        return Preview(host, secrets.token_hex(16), check, self.settings.tls_secret(host) if host else "")

    def _tls_secret(self, host: str, descriptor: Document, live: LiveVersion | None, ingress: IngressProvider) -> str:
        """The descriptor's, else the settings', else a TLS Secret named like the host or its domain, else none."""
        chosen = descriptor.get("tlsSecretName") or self.settings.tls_secret(host)
        if chosen or "tls" not in ingress.capabilities:
            return str(chosen or "")
        domains = [host, *parent_domains(host)]
        # As the cluster has it, which is all that is known of a route of the original's.
        before = live.route.tls_secret if live and live.route and live.route.host == host else ""
        found = self.versions.tls_secret(self.handles.kube, domains, before)
        if found.name:
            return found.name
        failed = found.failed
        if before and (failed or (live and (live.plan is None or not live.plan.steps))):  # imported, or not even that
            self.handles.log(f"TLS secret {before} is kept: {failed or 'the original deployer chose it'}")
            return before
        if failed:
            self.handles.log(f"no TLS for {host}: {failed}")
            return ""
        self.handles.log(f"no TLS for {host}: there is no TLS secret named {' or '.join(domains)}")
        return ""

    # --- pinned numbers ------------------------------------------------------------------------------------------

    def budgets(self, descriptor: Document) -> dict[str, float]:
        return {
            Phase.START.name: float(descriptor.get("timeoutSeconds") or self.settings.start_timeout),
            Phase.VERIFY.name: self.settings.timeout,
            Phase.EXPOSE.name: self.settings.expose_timeout,
        }

    def _minimum_hold(self, name: str) -> float:
        """An ingress provider's. Raises StepFailed that names it."""
        found: Any = cast(IngressProvider, self.registry.entry("ingress", name).provider).minimum_hold
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= strategies.LONGEST_DRAIN:
            wrong = f"minimum_hold of {self.registry.title('ingress', name)} is no number of seconds from 0 to "
            hint = "ask the plugin's author"
            raise StepFailed(f"{wrong}{strategies.LONGEST_DRAIN:g}", reason="BadProvider", hint=hint)
        return float(found)

    def pinned_settings(self, plan: Plan) -> PinnedSettings:
        """`hold`: seconds for which the old version goes on serving, or is kept warm, never below `minimum_hold` of the
        providers."""
        names = (
            "proxysleep",
            "max_restarts",
            "image_pull_attempts",
            "unschedulable_grace",
            "admission_grace",
            "min_ready",
            "lenient_podspec",
        )
        providers = {plan.ingress.name if plan.ingress else "", plan.displaced} - {""} if plan.route else set()
        least = max(map(self._minimum_hold, providers), default=0.0)
        warm = float(plan.descriptor.get("keepWarm", self.settings.keep_warm))
        hold = max(self.settings.proxysleep, warm, least)
        return PinnedSettings(hold=hold, minimum_hold=least, **{name: getattr(self.settings, name) for name in names})


def _content(descriptor: Document) -> Document:
    """A descriptor without the identity of the record that it was stored in."""
    return {name: value for name, value in descriptor.items() if name not in ("id", "created", "lastModified")}


def parent_domains(host: str) -> list[str]:
    """The domains above a host, nearest first, without the top-level one: `a.b.example.com` has two."""
    parts = host.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts) - 1)]

"""Deciding a deployment: what is live, which version comes next, and all that is pinned before anything starts."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from deployer.core.cancel_scope import CancelScope
from deployer.core.commands.host_claims import released
from deployer.core.contract.environment import EnvContext
from deployer.core.contract.ingress import IngressProvider, RouteContext, RouteState
from deployer.core.contract.kinds import CONTROLLER, SECRET, SERVICE
from deployer.core.contract.kube import KubeAccess, KubeReader
from deployer.core.contract.store import Store
from deployer.core.contract.strategy import Phase, Step
from deployer.core.descriptor import AUTOINCREMENT, frontend_port, policy, start_timeout
from deployer.core.errors import ForeignObject, KubeError, KubeForbidden, PluginError, StepFailed
from deployer.core.model.names import service_name, versioned_name
from deployer.core.model.plan import Backend, PinnedSettings, PlannedStep, Preview, Previous, ProviderRef, Route
from deployer.core.model.records import App, Deployment, Document, HostClaim, Plan, Status
from deployer.core.operations import injection
from deployer.core.plugin_manager.registry import Registry
from deployer.core.redaction import public_names, values_of
from deployer.core.settings import DNS_SUBDOMAIN, Settings
from deployer.kube import ownership
from deployer.toolkit import manifests

logger = logging.getLogger(__name__)

MOST_SAID = 10
"""Problems that a failure names."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Decides deployments of one app. Reads the cluster and the store; writes nothing.

    conceal   is told the injected values, before anything else is done with them
    """

    store: Store
    registry: Registry
    settings: Settings
    kube: KubeAccess
    log: Callable[[str], None]
    conceal: Callable[[Iterable[str]], None]
    scope: CancelScope

    def decide(self, deployment: Deployment, app: App) -> tuple[Plan, App]:
        """The pinned plan, and the app with the version counted. Raises StepFailed with the reason in one sentence."""
        descriptor = deployment.descriptor
        self._check_policy(descriptor)
        strategy = self.registry.strategy(descriptor["deploymentType"])
        ingress = self.registry.ingress()
        live = self._live(app, ingress)
        version = self._version(deployment, app, live)
        replicas = self._replicas(descriptor, live)
        environment = self._environment(deployment, version)
        objects = manifests.render(
            descriptor=descriptor,
            version=version,
            deployment_id=deployment.id,
            deployment_ts=deployment.created,
            instance=self.settings.instance,
            replicas=replicas,
            environment=environment,
            image_pull_policy=self.settings.image_pull_policy,
            service_links=self.settings.enable_service_links,
            fencing_token=self.kube.owner.fencing_token,
        )
        plan = Plan(
            namespace=deployment.namespace,
            app=deployment.app,
            deployment=deployment.id,
            version=version,
            previous=live.pinned() if live else None,
            descriptor=descriptor,
            strategy=self._ref("strategy", strategy.name),
            ingress=self._ref("ingress", ingress.name) if ingress else None,
            health=self._health(descriptor),
            objects=objects,
            route=self._route(deployment, version, ingress, live),
            replicas=replicas,
            environment=environment,
            budgets=self._budgets(descriptor),
        )
        plan = dataclasses.replace(plan, settings=self._pinned_settings(plan))
        steps = check_steps(strategy.deploy_steps(plan), strategy.name)
        highest = max(app.highest, int(version) if version.isdigit() else 0)
        plan = dataclasses.replace(plan, steps=tuple(map(_planned, steps)))
        return plan, dataclasses.replace(app, highest=highest)

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

    def _ref(self, kind: str, name: str) -> ProviderRef:
        return ProviderRef(**self.registry.ref(kind, name))

    def _health(self, descriptor: Document) -> ProviderRef | None:
        if not descriptor.get("useHealthCheck"):
            return None
        checker = self.registry.health_checker(descriptor["healthCheckType"])
        return self._ref("health", checker.name)

    # --- what is live --------------------------------------------------------------------------------------------

    def _live(self, app: App, ingress: IngressProvider | None) -> Live | None:
        """What the Service and the route select now. The cluster is the judge; a store that disagrees stops here."""
        plan = self.store.get(Plan, app.live) if app.live else None
        service = self.kube.get(SERVICE, service_name(app.app))
        if service is not None and not (self.kube.is_ours(service) or ownership.is_original(service, app.app)):
            raise self.kube.foreign(SERVICE, service)
        selected = ((service or {}).get("spec", {}).get("selector") or {}).get("version", "")
        holder, reference = self._holder(plan, ingress)
        state = self._route_state(app, holder)
        if state is None and ingress is not None and not app.live and selected:
            state, reference = self._found_elsewhere(app, ingress)
        routed = self._routed_version(app, state)
        version = app.live_version or selected
        if not version:
            return None
        name = versioned_name(app.app, version)
        # Not from the informer: a script may have scaled it right before it deploys.
        controller = self.kube.get(CONTROLLER, name)
        if app.live:
            had_route = plan is not None and plan.route is not None and reference is not None
            if service is None and controller is None and state is None:
                self.log(
                    f"version {version} was live and has no controller, service or route any more, as when its "
                    f"namespace was deleted: starting anew"
                )
                return None
            wrong = _wrong_service(app, plan, service, selected) or _wrong_route(app, had_route, routed)
            if wrong:
                raise StepFailed(
                    f"{wrong}, but version {version} was deployed last: somebody changed it, or the store is old",
                    reason="StoreDisagrees",
                    hint=_way_out(version, controller, selected, routed),
                )
        if not app.live:
            self._adopt(app, version, service, controller)
        return Live(
            deployment=app.live,
            version=version,
            name=name,
            plan=plan,
            controller=controller,
            service=service,
            route=state,
            ingress=reference if state is not None else None,
        )

    def _holder(
        self, plan: Plan | None, ingress: IngressProvider | None
    ) -> tuple[IngressProvider | None, ProviderRef | None]:
        """The provider that leads the host to the live version, and what plans pin of it. Raises StepFailed."""
        pinned = plan.ingress if plan is not None and plan.route else None
        if plan is None or pinned is None or (ingress is not None and pinned.name == ingress.name):
            return ingress, self._ref("ingress", ingress.name) if ingress else None
        name = pinned.name
        try:
            return cast(IngressProvider, self.registry.entry("ingress", name).provider), pinned
        except PluginError as error:
            raise StepFailed(
                f"the host of {plan.app} is routed to version {plan.version} by ingress provider {name}, which is not "
                f"there any more, so nobody can take it over: {error}",
                reason="ProviderGone",
                hint=f"install it again ({pinned.source or name}) until every app has moved, or undeploy "
                "the app and remove its route by hand",
            ) from error

    def _found_elsewhere(self, app: App, ingress: IngressProvider) -> tuple[RouteState | None, ProviderRef | None]:
        """The route of a version that the original made, when it is not of the kind that `ingress` makes: what another
        provider takes for its own, to be displaced."""
        for name in sorted(self.registry.ingress_providers.keys() - {ingress.name}):
            other = cast(IngressProvider, self.registry.entry("ingress", name).provider)
            # Somebody else's object is no route of this app, and what may not be read cannot be one.
            with contextlib.suppress(ForeignObject, KubeError):
                if (state := self._route_state(app, other)) is not None:
                    return state, self._ref("ingress", name)
        return None, None

    def _adopt(self, app: App, version: str, service: Document | None, controller: Document | None) -> None:
        """The original's live version is taken over. Ours, unknown to the store, is a mistake that stops here.

        The Service may be marked as ours already when an earlier takeover failed; then the controller decides.
        """
        originals = [o for o in (service, controller) if o is not None and ownership.is_original(o, app.app)]
        if not originals:
            raise StepFailed(
                f"service {app.app} selects version {version}, but this deployer's store knows of no live version: it "
                f"may have been restored from an old backup, or be another instance's",
                reason="StoreDisagrees",
                hint=f"restore the newest copy of the store; without one, have version {version} taken over as "
                "docs/operations.md says under StoreDisagrees, which interrupts nothing",
            )
        self.log(f"adopting version {version}, which the original deployer made")

    def _route_state(self, app: App, ingress: IngressProvider | None) -> RouteState | None:
        if ingress is None:
            return None
        return ingress.state(RouteContext(blank_route(app.namespace, app.app), self.kube, self.log, self.scope))

    def _routed_version(self, app: App, state: RouteState | None) -> str:
        used = [b.service for b in state.backends if b.weight > 0] if state else []
        return used[0].removeprefix(f"{app.app}-") if used else ""

    # --- what comes next -----------------------------------------------------------------------------------------

    def _version(self, deployment: Deployment, app: App, live: Live | None) -> str:
        wanted = str(deployment.descriptor["newVersion"])
        if wanted == AUTOINCREMENT:
            if live is not None and not live.version.isdigit():
                raise StepFailed(
                    f"the live version {live.version} is not a number, so '#' cannot count on from it",
                    reason="VersionNotANumber",
                    hint="name the new version in newVersion",
                )
            version = str(max([app.highest, *self._numbers(app), int(live.version) if live else 0]) + 1)
            manifests.check_name(app.app, version)
            return version
        going = released(self.store, app.namespace, app.app)
        for other in self.store.find(Deployment, namespace=app.namespace, app=app.app):
            gone = other.id in going or (other.id == app.live and live is None)
            if other.id == deployment.id or other.version != wanted or gone:
                continue
            if other.status is Status.DEPLOYING and other.sequence > deployment.sequence:
                continue  # it waits for this one
            if other.status.moving or other.status is Status.DEPLOYED:
                what = {Status.DEPLOYED: "is live", Status.UNDEPLOYING: "is still held or being removed"}.get(
                    other.status, "is being deployed"
                )
                raise StepFailed(
                    f"version {wanted} of {app.app} {what} (deployment {other.id})",
                    reason="VersionInUse",
                    hint="choose another newVersion, or '#' to count on",
                )
        if live is not None and live.version == wanted:
            raise StepFailed(
                f"version {wanted} of {app.app} is live", reason="VersionInUse", hint="choose another newVersion"
            )
        return wanted

    def _numbers(self, app: App) -> Iterable[int]:
        """Version numbers that the cluster knows for this app. From the informer: those of a moment ago are our own,
        and in the store; should one be missed, the POST that finds the name taken is the test."""
        for controller in self.kube.items(CONTROLLER, {"app": app.app}):
            version = (controller["metadata"].get("labels") or {}).get("version", "")
            if version.isdigit():
                yield int(version)

    def _replicas(self, descriptor: Document, live: Live | None) -> int:
        """The live number is carried over when the descriptor's did not change since: somebody scaled by hand."""
        wanted = int(descriptor["replicas"])
        if live is None or live.plan is None or live.controller is None:
            return wanted
        if live.plan.descriptor["replicas"] != descriptor["replicas"]:
            return wanted
        running = max(1, int(live.controller["spec"].get("replicas", 1)))
        if running != wanted:
            self.log(f"carrying over {running} replicas from version {live.version}, which was scaled to that")
        return running

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
                log=self.log,
                scope=self.scope,
                descriptor=copy.deepcopy(descriptor),
                kube=KubeReader(self.kube),
                options=copy.deepcopy(descriptor.get("extensions", {}).get(entry.plugin, {})),
            )
            variables = injection.ask(injector, self.registry.title("env", injector.name), context)
            self.conceal(set(values_of(variables)) - public_names(deployment.descriptor, version))
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
            self.log("injected environment: " + ", ".join(sorted(given)))
        overridden = manifests.overridden_names(deployment.descriptor, environment)
        if overridden:
            self.log("the descriptor overrides: " + ", ".join(overridden))
        return environment

    # --- route ---------------------------------------------------------------------------------------------------

    def _route(
        self, deployment: Deployment, version: str, ingress: IngressProvider | None, live: Live | None
    ) -> Route | None:
        descriptor = deployment.descriptor
        host = descriptor.get("frontend")
        if not host:
            return None
        if ingress is None:
            self.log(f"no ingress provider is configured: {host} is not routed anywhere")
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
            displaces=self._displaced(ingress, live),
            path=descriptor.get("frontendPath") or "/",
        )

    def _displaced(self, ingress: IngressProvider, live: Live | None) -> str:
        name = live.ingress.name if live and live.route and live.ingress else ""
        if not name or name == ingress.name:
            return ""
        self.log(f"ingress provider {ingress.name} will take over from {name}")
        return name

    def _preview(self, deployment: Deployment, ingress: IngressProvider) -> Preview:
        host = self.settings.preview(deployment.namespace, deployment.app)
        options = deployment.descriptor.get("ingressOptions") or {}
        check = str(options.get("previewCheck") or self.settings.preview_check)
        if "preview" not in ingress.capabilities:
            if host or check:
                self.log(f"no preview: ingress provider {ingress.name} has none")
            return Preview()
        if host and not DNS_SUBDOMAIN.fullmatch(host):
            self.log(f"no preview host: {host} is not the name of a host")
            host = ""
        claim = self.store.get(HostClaim, host) if host else None
        if claim and (claim.namespace, claim.app) != (deployment.namespace, deployment.app):
            self.log(f"no preview host: {host} belongs to another app")  # since before the setting was there
            host = ""
        return Preview(host, secrets.token_hex(16), check, self.settings.tls_secret(host) if host else "")

    def _tls_secret(self, host: str, descriptor: Document, live: Live | None, ingress: IngressProvider) -> str:
        """The descriptor's, else the settings', else a TLS Secret named like the host or its domain, else none."""
        chosen = descriptor.get("tlsSecretName") or self.settings.tls_secret(host)
        if chosen or "tls" not in ingress.capabilities:
            return str(chosen or "")
        domains = [host, *parent_domains(host)]
        # As the cluster has it, which is all that is known of a route of the original's.
        before = live.route.tls_secret if live and live.route and live.route.host == host else ""
        failed = ""
        for name in domains:
            try:
                secret = self.kube.get(SECRET, name)
            except KubeError as error:
                failed = f"looking for a secret named {name} failed: {error}"
                if isinstance(error, KubeForbidden) and name != before:
                    continue  # the right may be given for other names
                break
            if secret is not None and (name == before or secret.get("type") == "kubernetes.io/tls"):
                return name
        if before and (failed or (live and live.plan is None)):
            self.log(f"TLS secret {before} is kept: {failed or 'the original deployer chose it'}")
            return before
        if failed:
            self.log(f"no TLS for {host}: {failed}")
            return ""
        self.log(f"no TLS for {host}: there is no TLS secret named {' or '.join(domains)}")
        return ""

    # --- pinned numbers ------------------------------------------------------------------------------------------

    def _budgets(self, descriptor: Document) -> dict[str, float]:
        return {
            Phase.START.name: start_timeout(descriptor, self.settings),
            Phase.VERIFY.name: self.settings.timeout,
            Phase.EXPOSE.name: self.settings.expose_timeout,
        }

    def _pinned_settings(self, plan: Plan) -> PinnedSettings:
        """`hold`: seconds for which the old version goes on serving, never below `minimum_hold` of the providers."""
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
        minimum = [cast(IngressProvider, self.registry.entry("ingress", n).provider).minimum_hold for n in providers]
        least = max(map(float, minimum), default=0.0)
        hold = max(self.settings.proxysleep, least)
        return PinnedSettings(hold=hold, minimum_hold=least, **{name: getattr(self.settings, name) for name in names})


@dataclass(frozen=True, slots=True)
class Live:
    """The live version as the cluster has it. `deployment` and `plan` are unknown for one that the original made.

    name     of its ReplicationController, which somebody may have removed, and of its Service
    ingress  what is pinned of the provider that `route` is of; None without one
    """

    deployment: str
    version: str
    name: str
    plan: Plan | None
    controller: Document | None
    service: Document | None
    route: RouteState | None
    ingress: ProviderRef | None

    def pinned(self) -> Previous:
        """What the plan pins of it."""
        return Previous(
            deployment=self.deployment,
            version=self.version,
            controller=self.name if self.controller else "",
            service=self.name,
            route=self.plan.route if self.plan else None,
            ingress=self.ingress,
            service_object=_our_fields(self.service) if self.service else None,
            original_route=self._original_route(),
        )

    def _original_route(self) -> Route | None:
        """The route of a version that the original made, as far as can be seen: to remove it, or to go back to it."""
        state = self.route
        if self.deployment or state is None or not state.backends or self.service is None:
            return None
        app = self.service["metadata"]["name"]
        namespace = self.service["metadata"]["namespace"]
        return Route(
            namespace=namespace,
            app=app,
            host=state.host,
            version=self.version,
            deployment="",
            backend=state.backends[0],
            tls_secret=state.tls_secret,
            redirect_www=state.redirect_www,
        )


def _wrong_service(app: App, plan: Plan | None, service: Document | None, selected: str) -> str:
    """What is wrong with the Service, when it does not select the store's live version; else nothing."""
    expected = plan is not None and plan.objects.service is not None
    if service is None:
        return f"service {app.app} is missing" if expected else ""
    return f"service {app.app} selects version {selected or '(none)'}" if selected != app.live_version else ""


def _wrong_route(app: App, expected: bool, routed: str) -> str:
    """The same for the route."""
    if not routed:
        return f"the route of {app.app} is missing" if expected else ""
    return f"the route of {app.app} leads to version {routed}" if routed != app.live_version else ""


def _way_out(version: str, controller: Document | None, selected: str, routed: str) -> str:
    """What to do when Service or route go elsewhere than to the store's live version: nothing that ends what serves."""
    ways = [f"have service and route go to version {version} again"] if controller is not None else []
    if version not in (selected, routed) and (selected or routed):
        ways.append(f"undeploy version {version}, which leaves alone what goes to another version")
    ways = ways or [f"bring back the rest of version {version}"]
    return f"restore the newest copy of the store, or {', or '.join(ways)}"


def _our_fields(service: Document) -> Document:
    """What moving the unversioned Service back needs."""
    metadata = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": metadata["name"], "labels": dict(metadata.get("labels") or {})},
        "spec": {"selector": service["spec"].get("selector"), "ports": service["spec"].get("ports")},
    }


def blank_route(namespace: str, app: str) -> Route:
    """A route that only names the app, for a provider's verbs that ask no more: `state` and `fence`."""
    return Route(namespace=namespace, app=app, host="", version="", deployment="", backend=Backend("", 0))


def parent_domains(host: str) -> list[str]:
    """The domains above a host, nearest first, without the top-level one: `a.b.example.com` has two."""
    parts = host.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts) - 1)]


def _planned(step: Step) -> PlannedStep:
    """What a plan pins of a step."""
    return PlannedStep(
        id=step.id,
        phase=Phase(step.phase).name,
        disturbs=step.disturbs,
        exposes=step.exposes,
        budget=None if step.budget is None else float(step.budget),
    )


def check_steps(steps: object, strategy: str, *, removing: bool = False) -> list[Step]:
    """The steps of a strategy, when they can be carried out. Raises StepFailed naming what is wrong."""
    found = list(steps) if isinstance(steps, Sequence) else []
    phases = [getattr(step, "phase", None) for step in found]
    ids = [getattr(step, "id", None) for step in found]
    wrong = ""
    if not isinstance(steps, Sequence) or not all(isinstance(step, Step) for step in found):
        wrong = "gave something that is no list of steps"
    elif not found:
        wrong = "gave no steps"
    elif not all(isinstance(id, str) and id for id in ids):
        wrong = "gave a step without an id"
    elif len(set(ids)) != len(ids):
        wrong = "gave two steps of the same id"
    elif not all(phase in list(Phase) for phase in phases):
        wrong = "gave a step without a phase"
    elif not all(isinstance(says, bool) for step in found for says in (step.disturbs, step.exposes)):
        wrong = "gave a step whose disturbs or exposes is neither True nor False"
    elif not all(step.budget is None or _is_budget(step.budget) for step in found):
        wrong = "gave a step whose budget is no positive number of seconds"
    elif not removing and (phases != sorted(phases) or Phase.RETIRE in phases):  # type: ignore[type-var]
        wrong = "gave steps whose phases are out of order"
    if wrong:
        raise StepFailed(f"strategy {strategy} {wrong}", reason="BadStrategy", hint="ask the plugin's author")
    return found


def _is_budget(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0

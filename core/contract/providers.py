"""The classes that a plugin implements: Strategy with its Steps, HealthChecker, IngressProvider, EnvInjector.

Every method takes one context object, so that contexts can grow without breaking anybody. A new method always comes
with a default.
"""

from __future__ import annotations

import dataclasses
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import HealthTarget, Verdict
from deployer.core.contract.hosts import RouteClaim, RouteReader
from deployer.core.contract.kinds import SERVICE
from deployer.core.contract.kube import ClusterEvent, KubeAccess, KubeReader
from deployer.core.errors import Problem, StepFailed
from deployer.core.model.plan import Backend as Backend  # noqa: PLC0414 (others know it from here)
from deployer.core.model.plan import Preview as Preview  # noqa: PLC0414 (others know it from here)
from deployer.core.model.plan import Route as Route  # noqa: PLC0414 (others know it from here)
from deployer.core.model.records import Document, Json, Plan
from deployer.core.settings import PATH, Settings

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """What a register hook gets: the plugin's own `[plugins.<name>]` table, checked, and the service's settings."""

    table: Mapping[str, Any]
    core: Settings


class Provider(ABC):
    """Base of everything that a plugin hands in."""

    name: str
    """What descriptors and settings call it. Unique among its kind."""

    @property
    def options_schema(self) -> Schema | None:
        """JSON Schema (2020-12) for this provider's options in a descriptor; None: it takes none."""
        return None

    def check_descriptor(self, descriptor: Document) -> Sequence[Problem]:
        """What this provider cannot do for that (normalised) descriptor. Asked before anything is stored."""
        return ()

    def remarks(self, descriptor: Document) -> Sequence[Problem]:
        """What will have no effect in that (normalised) descriptor, although it is no mistake: shown, never refused."""
        return ()


# --- strategies ---------------------------------------------------------------------------------------------------


class Phase(IntEnum):
    """The part of a deployment that a step belongs to, in order. Budgets and gates are given by phase."""

    START = 1
    VERIFY = 2
    EXPOSE = 3
    CONFIRM = 4
    RETIRE = 5


class Duty(StrEnum):
    """What has to be done before a deployment is committed, for an app that has it. A strategy without a step for it is
    refused when the deployment is decided: nobody could finish or remove what it leaves.

    ROUTE    the app's host leads to the new version (`plan.route`)
    SERVICE  the unversioned Service selects it (`plan.objects.service`)
    HEALTH   the health checker was asked about it, and a verdict that counts was heeded (`plan.health`)
    """

    ROUTE = "route"
    SERVICE = "service"
    HEALTH = "health"


@dataclass(frozen=True, slots=True)
class Done:
    """The step reached its goal."""


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing to do before `until` (by `work.now()`): the thread and the lease are freed, then `run` is called
    again; with an `event` (`work.kube.gone(...)`, `Changed`, `NotReady`) as soon as that has come, and after a restart.
    A time that is over, or less than a second away, counts as a second. `reason` goes to the log, once."""

    until: float
    reason: str = ""
    event: ClusterEvent | None = None


Outcome = Done | Park


@dataclass(frozen=True, slots=True)
class Work:
    """The one object that a step gets. Its handles stop working when the step's time is up or it is cancelled.

    plan         what was pinned when the operation was decided (`records.Plan`)
    kube         the namespace's objects, bound to this app's and deployment's ownership
    log          one line (or several) for the deployment's log
    health       asks the pinned health checker about every pod of the version; keeps the raw answers
    ingress      the pinned ingress provider, None when there is none
    ask_pods     asks some of these pods for the route's path on its port, without the data plane; None: nobody can
    displaced    the one that has the host until `ingress` takes over, when it is another one (`Plan.displaced`)
    remember     keep a JSON value; durable when it returns
    recall       what was remembered under that key by this step, or the default
    gate         `scope.check()`, `scope.pause(seconds)`, `scope.remaining()`: cancellation and the deadline
    now          seconds since the epoch, which go on evenly when the system's clock is set: what `Park` counts by
    """

    plan: Plan
    kube: KubeAccess
    log: Callable[[str], None]
    health: HealthRounds | None
    ingress: IngressProvider | None
    remember: Callable[[str, Json], None]
    recall: Callable[[str, Json], Json]
    scope: CancelScope
    now: Callable[[], float]
    displaced: IngressProvider | None = None
    ask_pods: Callable[[Sequence[Document], Route, CancelScope], Sequence[ProbeResponse]] | None = None

    def left(self, key: str, seconds: float) -> float:
        """How much is left of a period that begins when the step first asks under `key`; 0 when it is over.

        Durable. It goes on over a restart; when the system's clock was set back before, it begins anew.
        """
        now, began = self.now(), self.recall(key, None)
        if began is None or began > now:
            began = now
            self.remember(key, began)
        return max(0.0, float(began) + seconds - now)

    def check_cancelled(self) -> None:
        """Raises Cancelled, DeadlineExceeded or Revoked when this step has to stop."""
        self.scope.check()

    def route(self, route: Route | None = None) -> RouteContext:
        """The context for the ingress provider, for the plan's own route or for another one."""
        chosen = route or self.plan.route
        if chosen is None:
            raise ValueError("this plan has no route")
        context = RouteContext(chosen, self.kube, self.log, self.scope)
        hint = self.ingress.backend_tls_hint if self.ingress else context.tls_hint
        return dataclasses.replace(context, tls_hint=hint)


class Step(ABC):
    """One step. `run` and `undo` look at the cluster, not at memory, and can be run any number of times.

    The engine records that a step is started before it calls `run`; a step that was started is undone even when `run`
    never returned. A step without an `undo` of its own only looks, and begins anew after a crash. Raise StepFailed when
    the goal cannot be reached.

    When the plugin is gone, or an `undo` keeps failing, the core removes the new version by itself only where no step
    that was started, and not undone, `disturbs` or `exposes`; else it keeps everything until the plugin is back.
    """

    id: str
    """Stable across releases of the plugin: a resumed operation finds its steps by it."""
    phase: Phase
    disturbs: bool = False
    """It takes traffic or capacity away from the version that is live, from the moment when it starts."""

    exposes: bool = False
    """It may give the new version public traffic, from the moment when it starts."""

    fulfils: Collection[str] = ()
    """Those of `Duty`, as such or by their names, that are done once it is: like `SwitchRoute`, `MoveService` and
    `VerifyHealth`, or instead of them."""

    budget: float | None = None
    """Seconds that it may take, at most, if not what is left of its phase's; parking does not count."""

    @abstractmethod
    def run(self, work: Work) -> Outcome:
        """Reach the goal, or return at once when it is reached."""

    def undo(self, work: Work) -> None:
        """Take back what `run` may have done. The default is for steps that only look."""
        return


class Strategy(Provider):
    """How a new version takes over from the old one: a list of steps."""

    needs: Mapping[str, str] = MappingProxyType({})
    """What a descriptor asks of the ingress provider: where it has a field of that path, like `strategyOptions.match`,
    the provider must list the capability. The core refuses it otherwise, when it is posted."""

    @abstractmethod
    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """Steps up to the commit point, phases in order; none of phase RETIRE."""

    def retire_steps(self, plan: Plan) -> Sequence[Step] | None:
        """Steps that remove the replaced version; None: the usual ones (`steps.retire_steps`)."""
        return None

    def undeploy_steps(self, plan: Plan) -> Sequence[Step] | None:
        """Steps that remove a live version; None: the usual ones (`steps.undeploy_steps`)."""
        return None


# --- health -------------------------------------------------------------------------------------------------------


class HealthChecker(Provider):
    """Says of one pod whether it is healthy. Its options are `healthCheckOptions`, which `target.options` has."""

    needs_path: bool = True
    """Must a descriptor have `healthCheckPath`? Not for TCP or gRPC; without one `target.path` is `/`."""

    @abstractmethod
    def check(self, target: HealthTarget) -> Verdict:
        """Ask the pod once, within `target`'s deadline. An exception counts as unhealthy, with its text."""


class HealthRounds(ABC):
    """What `work.health` is: rounds of checks over all pods of the version, concurrently, by uid."""

    @abstractmethod
    def check_all(self, pods: Sequence[Document], scope: CancelScope) -> Mapping[str, Verdict]:
        """One round: pod uid -> verdict. Raises what the scope raises."""

    @abstractmethod
    def keep(self, pods: Sequence[Document], verdicts: Mapping[str, Verdict]) -> None:
        """Make the raw answers of the last round the deployment's health check data."""


# --- ingress ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbeResponse:
    """Of one pod. `status` 0: no HTTP answer; `refused`: nothing listens on the port; `tls`: it speaks TLS."""

    status: int = 0
    refused: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """Requests that go to the new version whatever the weights: those with this header of exactly this value, or those
    with this cookie whose value is `always`. One of the two."""

    header: str = ""
    value: str = ""
    cookie: str = ""

    def as_headers(self) -> Mapping[str, str]:
        """Of a request that matches."""
        return {"Cookie": f"{self.cookie}=always"} if self.cookie else {self.header: self.value}


@dataclass(frozen=True, slots=True)
class Share:
    """Part of a host's traffic, for `IngressProvider.split`.

    service  a versioned Service
    port     of the Service
    weight   per cent of the requests, 0 to 100
    match    requests that go there whatever the weights; None: none do
    """

    service: str
    port: int
    weight: int
    match: RequestMatch | None = None


PREVIEW_OPTIONS: Schema = {
    "previewCheck": {
        "type": "string",
        "maxLength": 1024,
        "pattern": f"^{PATH}$",
        "x-rule": "must be a path like /health",
    }
}
"""Properties for the `options_schema` of every ingress provider with the capability `preview`."""


@dataclass(frozen=True, slots=True)
class PodAnswers:
    """What pods of the route's version answered to plain HTTP on the route's port and path, without the data plane.

    statuses    the HTTP statuses
    answered    every pod that was asked gave one
    serving     an answer must come from the app: 502 to 504 count only when the pods answer that themselves
    any_status  whatever the app answers is right: on the way back to a version that served before
    why         what else was found, as the rest of a sentence; empty: nothing
    """

    statuses: frozenset[int] = frozenset()
    answered: bool = False
    any_status: bool = False
    why: str = ""
    serving: bool = False


@dataclass(frozen=True, slots=True)
class RouteContext:
    """What an ingress provider's verbs get. `pods`: what is known from asking the pods themselves; `tls_hint`: what a
    user can do about an app whose port speaks TLS."""

    route: Route
    kube: KubeAccess
    log: Callable[[str], None]
    scope: CancelScope
    pods: PodAnswers = PodAnswers()
    tls_hint: str = "choose a port that speaks plain HTTP with frontendPort"

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for an event; False after `timeout` seconds. Raises when the scope closes."""
        return self.scope.wait(event, timeout)


@dataclass(frozen=True, slots=True)
class RouteState:
    """Where a route leads now, according to the API server.

    deployment  whose it is; empty when the original made it
    tls_secret  with which it serves TLS; empty without, and when that is not the route's business
    redirect_www  it redirects the `www.` twin of its host
    """

    backends: tuple[Backend, ...]
    host: str
    deployment: str = ""
    tls_secret: str = ""
    redirect_www: bool = False


def shares_of(route: Route, shares: Sequence[Share]) -> tuple[Share, Share]:
    """The old version's share and the new one's. Raises ValueError unless they are what `split` asks for."""
    by_service = {share.service: share for share in shares}
    wanted = [route.previous.service if route.previous else "", route.backend.service]
    if len(shares) != len(by_service) or sorted(by_service) != sorted(wanted):
        raise ValueError(f"the shares of {route.host} are not those of its old version and its new one")
    old, new = (by_service[service] for service in wanted)
    if old.weight + new.weight != 100 or min(old.weight, new.weight) < 0 or old.match is not None:
        raise ValueError(f"the shares of {route.host} do not add up to 100, or the old version has a match")
    return old, new


def backends_behind(kube: KubeAccess, app: str, backends: Sequence[Backend]) -> tuple[Backend, ...]:
    """The same backends, with the versioned Service that the unversioned one stands for now in place of that; without
    it when it is not there or selects no version."""
    found: list[Backend] = []
    for backend in backends:
        if backend.service != app:
            found.append(backend)
            continue
        service = kube.get(SERVICE, app)
        selector = (service or {}).get("spec", {}).get("selector") or {}
        if version := selector.get("version"):
            found.append(dataclasses.replace(backend, service=f"{app}-{version}"))
    return tuple(dict.fromkeys(found))


class Capability(StrEnum):
    """What an ingress provider may be able to do. A descriptor that asks for what its provider does not list is
    refused, but for TLS, which is left to others then.

    TLS            serves a host with the certificate of a Secret (`tlsSecretName` and what takes its place)
    REDIRECT_WWW   redirects the `www.` twin of a host (`redirectWww`)
    COMPRESSION    compresses answers (`useCompression`), or says itself when it does not
    STICKY         keeps a client with its pod (`useStickySessions`)
    HEADERS        adds headers to responses (`additionHttpHeaders`)
    WEIGHTS        gives each of several versions its share of the requests
    MATCH          gives a version the requests with a header or a cookie
    PREVIEW        shows the new version before the switch (`previewCheck`)
    """

    TLS = "tls"
    REDIRECT_WWW = "redirect-www"
    COMPRESSION = "compression"
    STICKY = "sticky"
    HEADERS = "headers"
    WEIGHTS = "weights"
    MATCH = "match"
    PREVIEW = "preview"


class IngressProvider(Provider):
    """Leads a public host to a version. All verbs can be repeated, and stop when the context's scope closes."""

    capabilities: frozenset[str] = frozenset()
    """Those of `Capability` that it has, as such or by their names."""

    backend_tls_hint: str = "choose a port that speaks plain HTTP with frontendPort"
    """What a user can do about an app whose port speaks TLS, while the data plane speaks plain HTTP to it."""

    @property
    def minimum_hold(self) -> float:
        """Seconds for which the old version must go on serving after the switch, whatever the settings say."""
        return 10.0

    @property
    def stable(self) -> bool:
        """Should routes refer to the unversioned Service? Asked when a deployment is decided; see `Route.stable`."""
        return False

    @abstractmethod
    def state(self, context: RouteContext) -> RouteState | None:
        """Where the app's route leads now, with `backends` that are versioned Services even if it refers to the
        unversioned one (`backends_behind`); None when there is no route. Only reads. Raises ForeignObject when an
        object of the route's name belongs to somebody else."""

    def backend_protocol(self, route: Route) -> str:
        """What the data plane speaks to the app's pods: `HTTP`, which the pods themselves can be asked as well, or
        another name."""
        return "HTTP"

    def announce(self, context: RouteContext) -> None:
        """Write what the route will need and costs the data plane nothing, long before it is needed: called when the
        pods begin to start. What it makes goes with the deployment whatever happens to that (roles `versioned-...`).
        """
        return

    @abstractmethod
    def prepare(self, context: RouteContext) -> None:
        """Make the new backend known to the data plane, without public traffic; hold on to the old one.

        When `context.pods.answered`, the pods were asked instead of the data plane: a provider may leave out what would
        only find out the same.
        """

    def contends(self, found: Document) -> bool:
        """Would this foreign Ingress or HTTPRoute be served by the same data plane, if it had the host of a route?"""
        return True

    def host_claims(self, kube: RouteReader) -> Iterable[RouteClaim]:
        """The hosts of objects of other kinds than Ingress and HTTPRoute, like IngressRoutes, as far as the same data
        plane serves them: `kube.visible(kind)` gives all that may be read. The app's own among them do no harm.

        Asked before `prepare`; a deployment whose host is somebody else's fails (HostTaken). The default is for
        providers of the two kinds, which are looked at anyway.
        """
        return ()

    def check_preview(self, context: RouteContext) -> None:
        """Return when `route.preview.check` answers well through the preview that `prepare` made, at every address of
        the data plane; only asked when it is set. Raises StepFailed. The default is for those without a preview."""
        raise StepFailed(
            f"ingress provider {self.name} has no preview through which {context.route.preview.check} can be asked",
            reason="NoPreview",
            hint="leave preview_check and previewCheck out",
        )

    @abstractmethod
    def switch(self, context: RouteContext) -> None:
        """One edit that leads the host to `route.backend`. Creates the route when there is none."""

    @abstractmethod
    def confirm(self, context: RouteContext) -> bool | None:
        """Return only when every address of the data plane answers with `route.deployment`; of a stable route, with
        `route.version`, as the Service was moved right before. True: that is proven; False: nothing could be asked, so
        that time was waited instead; None: the provider does not say."""

    def split(self, context: RouteContext, shares: Sequence[Share]) -> None:
        """Divide the host's traffic between `route.previous` and `route.backend`, between `prepare` and `switch`.

        `shares` has one Share for each of the two, with weights that add up to 100; only the new version's has a
        `match`. 100 for the old version without a match ends the split. The route stays the old version's: whatever
        else the new one's descriptor changes comes with `switch`, which ends the split as well. Raises StepFailed when
        the route leads elsewhere by now. The default is for providers without the capability `weights`.
        """
        raise StepFailed(
            f"ingress provider {self.name} cannot divide the traffic of {context.route.host}",
            reason="NotSupported",
            hint="choose another deploymentType, or configure an ingress provider with the capability weights",
        )

    def confirm_split(self, context: RouteContext, shares: Sequence[Share]) -> bool | None:
        """Return when the data plane divides the traffic as `split` was told, and nobody gets an earlier division any
        more. Returns and raises as `confirm` does."""
        raise StepFailed(f"ingress provider {self.name} cannot divide the traffic of {context.route.host}")

    def await_loaded(self, context: RouteContext) -> None:
        """Return when the data plane knows the route that `switch` made, although another provider (`route.displaces`)
        may still win the host: that one's objects are taken away next. The default waits `minimum_hold` seconds."""
        context.log(f"waiting {self.minimum_hold:g} s until the data plane knows the route of {context.route.host}")
        context.scope.pause(self.minimum_hold)

    @abstractmethod
    def release(self, context: RouteContext) -> None:
        """Drop what `prepare` left, after the hold time or on the way back."""

    @abstractmethod
    def remove(self, context: RouteContext) -> None:
        """Remove the app's route and everything that belongs to it."""

    @abstractmethod
    def fence(self, context: RouteContext) -> None:
        """Raise the fencing token of the route's objects to `kube.owner.epoch`, so that an earlier holder of the
        app's lease can no longer write them."""


# --- environment --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EnvContext:
    """What an injector may know.

    version      of the deployment, as it was decided
    log          one line for the deployment's log
    gate         cancellation and the deadline
    descriptor   a copy of the descriptor, in its normal form
    kube         reads objects of the app's namespace, as far as the Deployer may
    options      what the descriptor has in `extensions` for the plugin; empty when it has nothing
    """

    namespace: str
    app: str
    version: str
    log: Callable[[str], None]
    scope: CancelScope
    kube: KubeReader
    descriptor: Document = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class EnvInjector(Provider):
    """Adds environment variables to every container. An error of an injector fails the deployment."""

    @abstractmethod
    def environment(self, context: EnvContext) -> Sequence[Document]:
        """core/v1 EnvVar dicts: `{"name", "value"}` or `{"name", "valueFrom"}`, values being strings. Raise StepFailed
        with a sentence that may be shown; of other errors only the class is."""

    def warnings(self, scope: CancelScope) -> Sequence[str]:
        """What an operator should know, in sentences without values. Asked once, when the service has started, and in
        nobody's way; keep to the scope all the same."""
        return ()

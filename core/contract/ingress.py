"""What an ingress provider implements, and what it gets: a route in its context, shares, and who else has a host."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import HttpAnswer
from deployer.core.contract.kube import Documents, KubeAccess, KubeReader
from deployer.core.contract.provider import Provider, Schema
from deployer.core.errors import KubeForbidden, KubeNotFound, StepFailed
from deployer.core.model.hosts import PATH
from deployer.core.model.kind import Kind
from deployer.core.model.operation.timeline import Requests
from deployer.core.model.plan import Backend, Route
from deployer.core.model.records import Document


@dataclass(frozen=True, slots=True)
class ProbeResponse:
    """Of one pod. `status` 0: no HTTP answer; `refused`: nothing listens on the port; `tls`: it speaks TLS."""

    status: int = 0
    refused: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True)
class RouteClaim:
    """An object that leads the path `/` of hosts somewhere; whose it is, is not the provider's business.

    found  the object, as it was read
    hosts  those that it has, in lower case, exactly as they are asked for: no wildcards
    """

    found: Document
    hosts: Collection[str]


class RouteReader(KubeReader):
    """Reads the objects of the app's namespace, and routes of all others as far as the Deployer may."""

    def __init__(self, kube: KubeAccess, log: Callable[[str], None]) -> None:
        """`log` is told what could not be read."""
        super().__init__(kube)
        self._log = log

    def visible(self, kind: Kind, *, here: bool = True) -> Documents:
        """The objects of all namespaces; where no more may be read, those of the app's own, unless `here` is False.

        None where not even that may be read, or where the cluster does not know the kind. The log says what was not
        looked at. Raises KubeError for anything else, and what the scope raises.
        """
        try:
            return self._kube.everywhere(kind)
        except KubeNotFound:
            return []
        except KubeForbidden:
            self._log(f"{kind.kind} objects of other namespaces are not checked for the host: no right to list them")
        try:
            return self._kube.list(kind) if here else []
        except KubeNotFound:
            return []
        except KubeForbidden:
            self._log(f"nor are those of namespace {self._kube.owner.namespace}")
            return []


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
    """What an ingress provider's verbs get.

    pods      what is known from asking the pods themselves
    tls_hint  what a user can do about an app whose port speaks TLS
    count     is told how requests fared that `confirm` sent, also before that raises, and adds up; `DataPlane` does so.
              None: nobody wants to know
    """

    route: Route
    kube: KubeAccess
    log: Callable[[str], None]
    scope: CancelScope
    pods: PodAnswers = PodAnswers()
    tls_hint: str = "choose a port that speaks plain HTTP with frontendPort"
    count: Callable[[Requests], None] | None = None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressAnswer:
    """What one address of the data plane answered.

    address     `10.0.0.7:80`
    tls         it was asked over TLS
    seconds     until the answer was there, or nobody waited for it any longer
    status      of HTTP; 0: there was no answer
    deployment  id of the one whose route the answer says it took, or
    version     the version that the answer says it is from; both empty: it tells neither
    unknown     why it tells neither, as the rest of a sentence
    """

    address: str
    tls: bool = False
    seconds: float = 0.0
    status: int = 0
    deployment: str = ""
    version: str = ""
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class RouteAnswers:
    """What the data plane answered for a host.

    addresses  one answer from each address that was asked
    left_out   addresses that were not asked, as there are so many
    unknown    why there are no addresses, as a sentence
    """

    addresses: Sequence[AddressAnswer] = ()
    left_out: int = 0
    unknown: str = ""


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

    def ask_preview(self, context: RouteContext, path: str) -> Sequence[HttpAnswer]:
        """What GET `path` gets through the preview that `prepare` made, one answer from each address of the data plane;
        only asked where there is a preview (`route.preview.host` or `check`). Raises StepFailed when an address gives
        none, or another version's. The default is for those without a preview."""
        raise StepFailed(f"ingress provider {self.name} has no preview", reason="NoPreview")

    @abstractmethod
    def switch(self, context: RouteContext) -> None:
        """One edit that leads the host to `route.backend`. Creates the route when there is none.

        Whatever a split left for another version ends before: a rollback may come while the canary that went live still
        has its part of the route, until `release`.
        """

    @abstractmethod
    def confirm(self, context: RouteContext) -> bool | None:
        """Return only when every address of the data plane answers with `route.deployment`; of a stable route, with
        `route.version`, as the Service was moved right before. True: that is proven; False: nothing could be asked, so
        that time was waited instead; None: the provider does not say."""

    def ask_route(self, context: RouteContext) -> RouteAnswers | None:
        """What GET `route.path` of `route.host` gets at this moment from every address of the data plane, for people
        who look; None: the provider does not say.

        The route is that of the live version, but another one may answer: an answer is told as it is, and never
        guessed from the route. Only reads; asks each address once, all of them at the same time, and is over within
        the scope's time, 3 s. Raises what reading the cluster raises, and nothing for an address that is silent."""
        return None

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

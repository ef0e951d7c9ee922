"""The parts of a plan. Each is frozen; what Kubernetes reads (manifests, variables) stays as its own JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.core.model.kind import Kind

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service and its port, with its share of the traffic."""

    service: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Preview:
    """How the new version can be looked at before the switch, from `prepare` to `release`.

    host    the host under which it answers; empty when the settings name none
    token   letters and digits that nobody can guess, for a data plane that can match a header
    check   a path that must answer well through the preview before the switch; empty: none is asked
    tls_secret  of the preview host, when the settings name one
    """

    host: str = ""
    token: str = ""
    check: str = ""
    tls_secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a host should do. `backend` is where it should lead, `previous` where it leads before the switch.

    `stable`: the route refers to the unversioned Service, which is named like the app, and follows it: moving that
    Service to `backend`, which is not the provider's business, is the switch then. `displaces`: the ingress provider of
    that name has the host until its route is taken away, after the switch, and may win it as long as both have it.
    `path`: what confirmation and warm-up ask for.
    """

    namespace: str
    app: str
    host: str
    version: str
    deployment: str
    backend: Backend
    previous: Backend | None = None
    tls_secret: str = ""
    redirect_www: bool = False
    compression: bool = False
    sticky: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    preview: Preview = Preview()
    stable: bool = False
    displaces: str = ""
    path: str = "/"


def blank_route(namespace: str, app: str) -> Route:
    """A route that only names the app, for a provider's verbs that ask no more: `state` and `fence`."""
    return Route(namespace=namespace, app=app, host="", version="", deployment="", backend=Backend("", 0))


@dataclass(frozen=True, slots=True)
class ProviderRef:
    """A provider that was chosen: its name, the `distribution:plugin` that gave it, and the distribution's version."""

    name: str = ""
    source: str = ""
    version: str = ""


def grace_of(podspec: Document) -> float:
    """Seconds that pods of this spec may take to end; Kubernetes' default is 30."""
    grace = podspec.get("terminationGracePeriodSeconds", 30)
    return float(grace if isinstance(grace, int | float) else 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The manifests of one version, as they are sent. No container port means no Services.

    controller         the ReplicationController
    versioned_service  the Service of this version alone
    service            the unversioned Service as it is once it selects this version
    """

    controller: Document = field(default_factory=dict)
    versioned_service: Document | None = None
    service: Document | None = None

    @property
    def podspec(self) -> Document:
        """Of the controller's template; empty when nothing is known of it."""
        found: Document = self.controller.get("spec", {}).get("template", {}).get("spec", {})
        return found

    @property
    def grace_time(self) -> float:
        """Seconds that the version's pods may take to end once they are asked to."""
        return grace_of(self.podspec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """What was live when a deployment was decided.

    deployment      its id; empty for a version that the original deployer made
    controller      name of its ReplicationController; empty when somebody removed it
    service         name of its versioned Service
    route           the route that its plan had
    ingress         the provider of its route
    service_object  the unversioned Service as it was, as far as moving it back needs
    original_route  what could be seen of the route of a version that the original deployer made
    """

    deployment: str
    version: str
    controller: str = ""
    service: str = ""
    route: Route | None = None
    ingress: ProviderRef | None = None
    service_object: Document | None = None
    original_route: Route | None = None

    @property
    def last_route(self) -> Route | None:
        """Its route, whoever made it."""
        return self.route or self.original_route


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedSettings:
    """The settings that matter to the steps; the defaults are those of `Settings`.

    hold          seconds for which the old version goes on serving after the switch, as the strategy has it
    minimum_hold  seconds of that which the ingress providers ask for
    """

    hold: float = 20.0
    minimum_hold: float = 0.0
    proxysleep: float = 20.0
    max_restarts: int = 3
    image_pull_attempts: int = 3
    unschedulable_grace: float = 30.0
    admission_grace: float = 10.0
    min_ready: float = 2.0
    lenient_podspec: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step as it was when the deployment was decided; see `Step` for what the fields mean.

    phase   name of a `Phase`
    budget  seconds; None: its phase's
    """

    id: str
    phase: str
    disturbs: bool = False
    exposes: bool = False
    budget: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGate:
    """A gate as it was when the deployment was decided.

    step      id of its step
    point     before or after what it stands, as descriptors call it
    type      name of its provider, `name` its own
    provider  where that came from; empty when there was none of that type
    timeout   seconds that it may take
    on_missing  `fail` or `inconclusive`: what becomes of it without evidence
    dry_run   it stops nothing
    forced    it is from the settings
    another_person  whoever asked for the deployment may not decide about it
    """

    step: str
    point: str
    type: str
    name: str
    provider: ProviderRef = ProviderRef()
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 300.0
    on_missing: str = "fail"
    dry_run: bool = False
    forced: bool = False
    another_person: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """An object that a step made besides the workload, noted before it was made."""

    kind: Kind
    name: str

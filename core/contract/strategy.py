"""What a strategy implements: the order of a deployment as Steps, each of which gets one `Work`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Protocol

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.health import HealthRounds
from deployer.core.contract.ingress import IngressProvider, ProbeResponse, RouteContext
from deployer.core.contract.kube import ClusterEvent, KubeAccess
from deployer.core.contract.provider import Provider
from deployer.core.model.operation.timeline import Requests
from deployer.core.model.plan import Previous, Route, Workload
from deployer.core.model.records import Document, Json, Plan


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
class Signal:
    """The event that somebody said something of the deployment through REST, like whether a gate may be passed."""


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing to do before `until` (by `work.now()`): the thread and the lease are freed, then `run` is called
    again; with an `event` (`work.kube.gone(...)`, `Changed`, `NotReady`, `Signal`) as soon as that has come, and after
    a restart. A time that is over, or less than a second away, counts as a second. `reason` goes to the log, once, and
    is shown as `waitingFor`; without one that is what `work.waiting` said last."""

    until: float
    reason: str = ""
    event: ClusterEvent | Signal | None = None


Outcome = Done | Park


class Waiting(Protocol):
    """Says what a step waits for, for people to read: `waitingFor` in REST. It costs nothing that is durable."""

    def __call__(self, reason: str, until: float | None = None) -> None:
        """`reason` as it follows "waiting for", empty: nothing any more; `until`: the end of that, by `work.now()`."""


def unheard(reason: str, until: float | None = None) -> None:
    """Where nobody shows it."""


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
    waiting      `work.waiting("approval by a person", until)`: what the step waits for, until it says otherwise or ends
    count        keeps with the step how requests fared while traffic moved, and adds up (`RouteContext.count`)
    earlier      ids of the steps that had begun when the operation was taken up: after a crash, or when it had parked
    remember     keep a JSON value; durable when it returns
    recall       what was remembered under that key by this step, or the default
    scope        `scope.check()`, `scope.pause(seconds)`, `scope.remaining()`: cancellation and the deadline
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
    waiting: Waiting = unheard
    count: Callable[[Requests], None] | None = None
    earlier: Collection[str] = ()

    def left(self, key: str, seconds: float) -> float:
        """How much is left of a period that begins when the step first asks under `key`; 0 when it is over.

        Durable. It goes on over a restart; when the system's clock was set back before, it begins anew.
        """
        now, began = self.now(), self.recall(key, None)
        if began is None or began > now:
            began = now
            self.remember(key, began)
        return max(0.0, float(began) + seconds - now)

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

    frees_app: bool = False
    """While it is parked, as the last one of an undeployment, nothing is left of the version but pods that end: what
    comes next for the app need not wait for them."""

    @abstractmethod
    def run(self, work: Work) -> Outcome:
        """Reach the goal, or return at once when it is reached."""

    def undo(self, work: Work) -> None:
        """Take back what `run` may have done. The default is for steps that only look."""
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadContext:
    """What the manifests of a version are made from.

    descriptor         in its normal form; not to be changed
    version            as resolved, never `#`
    deployment         id of the deployment
    created            of the deployment, RFC 3339
    instance           which Deployer (setting)
    replicas           pods that it gets
    environment        core/v1 EnvVar dicts of the injectors
    image_pull_policy  for containers that name none; empty leaves it to Kubernetes
    service_links      for a podspec that does not say; true leaves it to Kubernetes, whose default it is
    fencing_token      of the app's lease
    previous           what is live now; None for a first deployment
    """

    descriptor: Document
    version: str
    deployment: str
    created: str
    instance: str
    replicas: int
    environment: Sequence[Document] = ()
    image_pull_policy: str = ""
    service_links: bool = True
    fencing_token: int = 0
    previous: Previous | None = None


class Strategy(Provider):
    """How a new version takes over from the old one: a list of steps."""

    needs: Mapping[str, str] = MappingProxyType({})
    """What a descriptor asks of the ingress provider: where it has a field of that path, like `strategyOptions.match`,
    the provider must list the capability. The core refuses it otherwise, when it is posted."""

    @abstractmethod
    def deploy_steps(self, plan: Plan) -> Sequence[Step]:
        """Steps up to the commit point, phases in order; none of phase RETIRE."""

    def workload(self, context: WorkloadContext) -> Workload | None:
        """The manifests of the new version; None: the usual ones, those of `render_workload(context)`.

        Asked once, when the deployment is decided. They may have more than the usual ones, and other pods; names,
        selectors, labels, ports and the annotations `kube-deployer/...` must be there as they are in these. Raise
        StepFailed when there can be none.
        """
        return None

    def drain(self, plan: Plan) -> float:
        """Seconds for which the version that was replaced serves on after the commit, until it is removed.

        Asked once, when the deployment is decided; `plan.settings.hold` is what the settings say. The core makes it no
        less than the ingress providers ask for (`plan.settings.minimum_hold`).
        """
        return plan.settings.hold

    def rollback_steps(self, plan: Plan) -> Sequence[Step] | None:
        """Steps that bring traffic back to a version whose workload is still there; None: the usual ones, which switch
        as a deployment does.

        `plan` is that version's own, but for what takes it back: `plan.previous` is the version that goes.
        """
        return None

    def retire_steps(self, plan: Plan) -> Sequence[Step] | None:
        """Steps that remove the replaced version; None: the usual ones (`steps.retire_steps`)."""
        return None

    def undeploy_steps(self, plan: Plan) -> Sequence[Step] | None:
        """Steps that remove a live version; None: the usual ones (`steps.undeploy_steps`)."""
        return None

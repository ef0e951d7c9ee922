"""What a gate implements, and what it gets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from deployer.core.cancel_scope import CancelScope
from deployer.core.contract.gate.outcomes import Outcome
from deployer.core.contract.health import HealthTarget, HttpAnswer
from deployer.core.contract.kube import KubeAccess
from deployer.core.contract.provider import Provider
from deployer.core.errors import DeployerError
from deployer.core.model.records import Json, Plan

CHECK_SECONDS = 30.0
"""Seconds that one call of `Gate.check` has, unless the gate asks for others. What takes longer is `Pending`."""

LONGEST = 604_800.0
"""Seconds that a gate may take at most, all its calls and all its waiting together: a week."""


class Point(StrEnum):
    """Where a gate stands, as descriptors call it.

    BEFORE_START   before anything of the new version is made
    BEFORE_SWITCH  the new version is ready, and healthy where that counts; nothing has given it traffic yet
    AFTER_SWITCH   it has its traffic, and is not committed; when the gate fails, the old version gets it back
    """

    BEFORE_START = "beforeStart"
    BEFORE_SWITCH = "beforeSwitch"
    AFTER_SWITCH = "afterSwitch"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person said. `by` is empty where nobody proves who they are; `at` is seconds since the epoch."""

    approve: bool
    by: str
    at: float
    comment: str = ""


class VersionUnreachable(DeployerError):
    """The new version cannot be asked, or gave no complete answer: no evidence."""


class VersionAccess(Protocol):
    """The new version itself, which a gate may ask from `beforeSwitch` on. Raises what the scope raises."""

    def pods(self, port: int | str = "") -> Sequence[HealthTarget]:
        """Its ready pods, each to be asked with `http(method, path, headers)`: no other place can be reached with it.

        port   number or name of a container port; default: the one that its host leads to, else the first. Raises
               VersionUnreachable for one that no container has.
        """

    def preview(self, path: str) -> Sequence[HttpAnswer]:
        """What GET `path` gets through the preview, from every address of the data plane. Raises VersionUnreachable
        when there is no preview, which is so at `beforeStart`, or when an address does not answer as this version."""


@dataclass(frozen=True, slots=True)
class GateContext:
    """What a call of a gate gets. Its handles stop working when the call's time is up, or it is cancelled.

    name, point    of this gate in the descriptor or in the settings
    plan           what is being deployed; `plan.previous` is what is live
    options        of this gate, as its schema allows
    kube           the objects of the app's namespace, bound to this deployment's ownership: what is made under a role
                   of the gate's own (`versioned-...`) is removed with the version, without the plugin
    version        the new version itself
    log            one line for the deployment's log; not said again in later calls
    remember       keep a JSON value under a key, for this gate of this deployment alone; durable when it returns
    recall         what was remembered under that key, or the default
    scope          `scope.check()`, `scope.pause(seconds)`, `scope.remaining()`: of this call
    now            seconds since the epoch, which go on evenly when the system's clock is set
    began          when the gate was reached, and `deadline` when its time is up, by `now`; the same after a restart
    decision       what a person said of this gate; None: nobody has
    """

    name: str
    point: Point
    plan: Plan
    options: Mapping[str, Any]
    kube: KubeAccess
    version: VersionAccess
    log: Callable[[str], None]
    remember: Callable[[str, Json], None]
    recall: Callable[[str, Json], Json]
    scope: CancelScope
    now: Callable[[], float]
    began: float
    deadline: float
    decision: Decision | None = None


class Gate(Provider):
    """A check. Its options are `options` of the gate in `gates` of a descriptor, or in `[[gates]]` of the settings.
    `check_descriptor` is asked about descriptors that name it, once for each, whatever their number of such gates."""

    default_timeout: float = 300.0
    """Seconds that it may take where `timeoutSeconds` is not given."""

    check_seconds: float = CHECK_SECONDS
    """Seconds that one call may take; one that takes longer counts as an error, and its thread is left behind."""

    points: Sequence[Point] = tuple(Point)
    """Where it makes sense."""

    def needs_another_person(self, options: Mapping[str, Any]) -> bool:
        """May whoever asked for the deployment not decide about it? Asked once, when the deployment is decided."""
        return False

    @abstractmethod
    def check(self, context: GateContext) -> Outcome:
        """Look once and say what is known, within `check_seconds`.

        It may be called any number of times, also once more for the same after a crash: what must be there only once
        is looked for first. Errors that pass (`KubeUnavailable`, `KubeConflict`, `VersionUnreachable`,
        `PodUnreachable`) are tried again until the gate's time is up; any other error fails the gate.
        """

    def end(self, context: GateContext) -> None:
        """The gate is over: it has its verdict, its time is up, or the deployment is cancelled or taken back. End what
        may go on outside of the cluster; objects that were made through `context.kube` are removed by the core later.

        Called at least once after `check` was, whatever that said, also after a restart. It has 5 s, since traffic may
        be waiting to go back. Errors are logged, no more.
        """
        return

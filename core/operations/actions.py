"""What the state machine knows of an operation, and what it can have done: data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from deployer.core.contract.strategy import Park
from deployer.core.model.occurrence import Occurrence
from deployer.core.model.records import Failure, Json

# --- what is known ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What decisions depend on, of a step.

    only_looks  it changes nothing, so nothing of it need be undone
    frees_app   while it is parked, nothing is left of the deployment but pods that end
    phase       name of its `Phase`
    """

    id: str
    only_looks: bool = False
    frees_app: bool = False
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Blocker:
    """The same version of an earlier deployment, which is still draining.

    retirement  id of the operation that will remove it
    due         when that may begin, in seconds since the epoch
    limit       seconds for which it is waited for
    """

    deployment: str
    version: str
    retirement: str
    due: float
    limit: float


class Cause(StrEnum):
    """Why something failed, as far as it decides what comes next."""

    CANCELLED = "cancelled"
    OPERATOR = "only a person can decide"
    CLUSTER = "the cluster refuses, or does not answer"
    CHANGED = "another client has changed the object, and decides about it"
    OTHER = "it failed for reasons of its own"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The action reached its goal.

    steps   of `LoadSteps`, in order; None when there is nothing to do
    ending  of `Clear`: uids of controllers whose pods still end
    """

    steps: tuple[StepFacts, ...] | None = None
    ending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not. `why` is a sentence without secrets; `failure` what REST shows when the deployment fails of it."""

    cause: Cause
    why: str
    failure: Failure | None = None


Result = Succeeded | Park | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What only this process knows of the operation: a crash forgets it, and it is found out again.

    fenced      the lease's token is on what the app's versions share
    cancelled   somebody wants to be rid of the deployment
    resumed     an earlier process had begun it, and the log does not say yet that it goes on
    blocker     what a queued deployment must wait for
    verdict     why a queued deployment cannot begin
    steps       those to be taken, in order; None: not loaded yet
    idle        there are none, and nothing is to be done
    unloadable  why the plugin's steps cannot be had for undoing
    abandoned   nothing of what they did need be undone by them
    broken      the undo that keeps failing
    unrecorded  a step that changed something has ended, which is not durable yet
    cleared     what no step removed is gone; `ending`: but for the pods of these controllers
    """

    fenced: bool = False
    cancelled: bool = False
    resumed: bool = False
    blocker: Blocker | None = None
    verdict: Failed | None = None
    steps: tuple[StepFacts, ...] | None = None
    idle: bool = False
    unloadable: str = ""
    abandoned: bool = False
    broken: Failed | None = None
    unrecorded: bool = False
    cleared: bool = False
    ending: tuple[str, ...] = ()


# --- what can be done ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Close:
    """End the operation without touching any deployment."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Leave it until then."""

    until: float


@dataclass(frozen=True, slots=True)
class Await:
    """Let an earlier deployment of the same version be removed first."""

    blocker: Blocker


@dataclass(frozen=True, slots=True)
class Begin:
    """Take up a removal, durably."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Write the lease's fencing token on what the app's versions share."""


@dataclass(frozen=True, slots=True)
class Decide:
    """Pin the plan, in the transaction that begins the deployment."""


@dataclass(frozen=True, slots=True)
class LoadSteps:
    """Ask the strategy, once, for the steps."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Say that it goes on after a restart."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run this step."""

    step: str


@dataclass(frozen=True, slots=True)
class TurnBack:
    """Begin to undo, as the deployment is cancelled."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Undo this step."""

    step: str


@dataclass(frozen=True, slots=True)
class GiveUpUndo:
    """Go on without the undo of this step (empty: of any), which the core need not do.

    check  a step may have moved traffic although it says that it does not: look whether anything leads to the version
    """

    step: str
    why: str
    check: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep everything as it is until the plugin is back: what is to be undone could be an outage."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Remove what no step removed."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The commit point: the deployment becomes the live one."""


@dataclass(frozen=True, slots=True)
class End:
    """The deployment did not come to be live. None: it was cancelled. `ending`: see `Progress`."""

    failure: Failure | None
    ending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conclude:
    """The transaction that ends a removal."""


@dataclass(frozen=True, slots=True)
class Condemn:
    """The version that is watched fails: have it rolled back."""

    failure: Failure


Action = (
    Close
    | Rest
    | Await
    | Begin
    | Fence
    | Decide
    | LoadSteps
    | Resume
    | Run
    | TurnBack
    | Undo
    | GiveUpUndo
    | Hold
    | Clear
    | Commit
    | End
    | Conclude
    | Condemn
)


# --- what follows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What follows from a result.

    progress  from now on
    fields    of the operation that change
    durable   they are written before anything else happens
    say       a line of the log before that, once for each text
    line      a line of the log in the same transaction
    until     the operation is left until then; None: it goes on
    frees     the app is free for what comes next, in the same transaction
    tells     what is told of it, beside the log and whenever that says it
    """

    progress: Progress
    fields: Mapping[str, Json] = field(default_factory=dict)
    durable: bool = False
    say: str = ""
    line: str = ""
    until: float | None = None
    frees: bool = False
    tells: Occurrence | None = None

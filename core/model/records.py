"""What the store holds: descriptors, deployments, apps, operations and what hangs on them; and the legal transitions.

Records are frozen. `revision` and `sequence` are the store's: the global revision at which a record was last written
and first created (0 = not stored yet). Sequence gives the order of arrival.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

import msgspec

from deployer.core.errors import Conflict, StoreError
from deployer.core.model import migrations
from deployer.core.model.occurrence import ROLLBACK_TRANSITIONS, TRANSITIONS
from deployer.core.model.occurrence import OperationKind as OperationKind  # noqa: PLC0414
from deployer.core.model.occurrence import OperationState as OperationState  # noqa: PLC0414
from deployer.core.model.occurrence import Status as Status  # noqa: PLC0414
from deployer.core.model.operation.target import NOTHING, Target
from deployer.core.model.operation.timeline import NO_TIMELINE, Timeline
from deployer.core.model.plan import Document as Document  # noqa: PLC0414 (others know it from here)
from deployer.core.model.plan import (
    Made,
    PinnedSettings,
    PlannedGate,
    PlannedStep,
    Previous,
    ProviderRef,
    Route,
    Workload,
)

Json = Any


def new_id() -> str:
    """A UUID4 in its usual spelling."""
    return str(uuid.uuid4())


def timestamp(now: datetime.datetime | None = None) -> str:
    """RFC 3339 in UTC with `Z`, whole seconds, as the original wrote it."""
    moment = now or datetime.datetime.now(datetime.UTC)
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp_of(seconds: float) -> str:
    """The same for seconds since the epoch."""
    return timestamp(datetime.datetime.fromtimestamp(seconds, datetime.UTC))


_ASIDE = frozenset({OperationKind.RETIRE, OperationKind.WATCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of all records. `KIND` and `key` name it in the store; namespace, app and tag are what lists filter by.

    `ENUMS` are the fields that are more than the text by which JSON has them, `PARTS` those that are more than its
    objects.
    """

    KIND: ClassVar[str]
    ENUMS: ClassVar[Mapping[str, type[StrEnum]]] = {}
    PARTS: ClassVar[Mapping[str, type[Target | Timeline]]] = {}
    namespace: str
    app: str
    revision: int = 0
    sequence: int = 0

    @property
    def key(self) -> str:
        """The record's name among its kind."""
        raise NotImplementedError

    @property
    def tag(self) -> str:
        """What lists of this kind can be narrowed to; empty when there is nothing."""
        return ""

    def to_document(self) -> Document:
        """The record as JSON, without the store's own numbers."""
        out: Document = {}
        for f in dataclasses.fields(self):
            if f.name not in ("revision", "sequence"):
                out[f.name] = getattr(self, f.name)
        for name in self.PARTS:
            out[name] = out[name].to_document()
        return out

    @classmethod
    def from_document(cls, document: Mapping[str, Json], *, revision: int, sequence: int) -> Self:
        """The inverse of `to_document`. Unknown fields, written by a newer release, are ignored."""
        known = cls.__dataclass_fields__  # `dataclasses.fields` takes longer than all the rest
        values = {k: v for k, v in document.items() if k in known}
        for name, enum in cls.ENUMS.items():
            values[name] = enum(values[name])
        for name, part in cls.PARTS.items():
            values[name] = part.from_document(values.get(name) or {})
        return cls(**values, revision=revision, sequence=sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDescriptor(Record):
    """A team's descriptor, normalised (`descriptor.py`), with the identity that the service gave it."""

    KIND: ClassVar[str] = "descriptor"
    id: str
    document: Document
    created: str
    last_modified: str

    @property
    def key(self) -> str:
        return self.id

    def public(self) -> Document:
        """What REST shows."""
        return {
            "id": self.id,
            "created": self.created,
            "lastModified": self.last_modified,
            **self.document,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a deployment failed, in the deployment resource. `message` is one sentence."""

    reason: str
    message: str
    pod: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """What happened and what to do, for a line of the log."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_document(self) -> Document:
        """As REST shows it; empty fields are left out."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment(Record):
    """What REST shows of one deployment; `descriptor` is a copy.

    purge        delete the record when it has ended
    went_live    when it was committed, or came back, as RFC 3339; empty when it never was
    rollback_of  id of the deployment whose pinned plan it deploys once more; empty for one of a descriptor
    unwanted     somebody wants to be rid of it while it is being rolled back to
    steps        of its operations that have ended, as REST shows them
    override     of freezes: the `reason`, and the `freezes`; None when nothing was frozen
    """

    KIND: ClassVar[str] = "deployment"
    ENUMS: ClassVar[Mapping[str, type[StrEnum]]] = {"status": Status}
    id: str
    descriptor: Document
    created: str
    last_modified: str
    version: str = ""
    status: Status = Status.DEPLOYING
    descriptor_id: str = ""
    failure: Document | None = None
    created_by: str = ""
    undeployed_by: str = ""
    purge: bool = False
    went_live: str = ""
    rollback_of: str = ""
    unwanted: bool = False
    steps: list[Document] = field(default_factory=list)
    override: Document | None = None

    @property
    def key(self) -> str:
        return self.id

    @property
    def tag(self) -> str:
        return self.status.value

    def to(self, status: Status, *, rollback: bool = False, **changes: Json) -> Deployment:
        """The same deployment in another status. Raises Conflict when that transition is not legal.

        `rollback`: in the transaction in which one takes effect.
        """
        legal = TRANSITIONS[self.status] | (ROLLBACK_TRANSITIONS.get(self.status, frozenset()) if rollback else set())
        if status is not self.status and status not in legal:
            raise Conflict(f"deployment {self.id} is {self.status} and cannot become {status}")
        return dataclasses.replace(self, status=status, last_modified=timestamp(), **changes)

    def public(self) -> Document:
        """What REST shows: the original's fields, then ours."""
        out: Document = {
            "id": self.id,
            "created": self.created,
            "lastModified": self.last_modified,
            "version": self.version,
            "status": self.status.value,
            "descriptor": self.descriptor,
        }
        if self.failure:
            out["failure"] = self.failure
        if self.created_by:
            out["createdBy"] = self.created_by
        if self.undeployed_by:
            out["undeployedBy"] = self.undeployed_by
        if self.rollback_of:
            out["rollbackOf"] = self.rollback_of
        if self.override:
            out["freezeOverride"] = self.override
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class App(Record):
    """One application: which deployment is live, which is held until it retires, and the highest version number used.

    `live_version` is kept beside `live` because the record of a deployment may be deleted while it is live in name
    only. `highest` counts every number that `#` ever gave or that was asked for, failures included.
    """

    KIND: ClassVar[str] = "app"
    live: str = ""
    live_version: str = ""
    held: str = ""
    held_version: str = ""
    highest: int = 0

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.app}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClaim(Record):
    """`host` belongs to one app, service-wide. The unique key of the store is what makes it a claim.

    preview  the app's preview host, whatever its frontends are
    """

    KIND: ClassVar[str] = "host"
    host: str
    preview: bool = False

    @property
    def key(self) -> str:
        return self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthData(Record):
    """The answers of a deployment's last health checks: `entries` is `[{"podName", "value", ...}]`, with what
    `toolkit.health.runner.kept_answer` adds to it; those of older services have no more than the two."""

    KIND: ClassVar[str] = "health"
    deployment: str
    entries: list[Document] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Record):
    """What a deployment that was live had pinned, for deploying it once more when its plan is gone.

    environment   what the injectors gave, as core/v1 EnvVar
    """

    KIND: ClassVar[str] = "release"
    deployment: str
    version: str
    replicas: int
    environment: list[Document] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Record):
    """A change of status that observers have yet to be told; written in the transaction of that change.

    name         the hook that tells it
    at           seconds since the epoch when it was written; 0 for one of an earlier release
    told         the observers that need it no more, as `distribution:plugin`
    occurrence   what happened, an `Occurrence`; empty for one of an earlier release
    previous     version that was live before, or takes over again; empty when there is none
    operation    the operation that ended with it, as in a `Notification`; empty when none did
    """

    KIND: ClassVar[str] = "event"
    id: str
    name: str
    deployment: Document
    at: float = 0.0
    told: list[str] = field(default_factory=list)
    occurrence: str = ""
    previous: str = ""
    operation: Document = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Record):
    """Everything that a deployment's operations will need, pinned once and never rendered again.

    It lives from the decision until the deployment has ended: deploying, undeploying and retiring read the same plan.

    deployment    id of the deployment
    version       its version
    previous      what was live when it was decided; None for a first deployment
    descriptor    normalised copy
    strategy, ingress, health   the pinned providers
    steps         in order, those of gates included; empty while the strategy is asked for them the first time
    gates         in order
    objects       the rendered manifests
    environment   what the injectors gave, as core/v1 EnvVar
    budgets       seconds by phase name
    settings      the settings that matter to the steps
    made          what steps made besides `objects`
    """

    KIND: ClassVar[str] = "plan"
    deployment: str
    version: str
    previous: Previous | None = None
    descriptor: Document = field(default_factory=dict)
    strategy: ProviderRef = field(default_factory=ProviderRef)
    ingress: ProviderRef | None = None
    health: ProviderRef | None = None
    steps: tuple[PlannedStep, ...] = ()
    gates: tuple[PlannedGate, ...] = ()
    objects: Workload = field(default_factory=Workload)
    route: Route | None = None
    replicas: int = 1
    environment: list[Document] = field(default_factory=list)
    budgets: dict[str, float] = field(default_factory=dict)
    settings: PinnedSettings = field(default_factory=PinnedSettings)
    made: tuple[Made, ...] = ()

    @property
    def key(self) -> str:
        return self.deployment

    @property
    def displaced(self) -> str:
        """The name of another ingress provider that has the host until this plan's takes over; empty: there is none."""
        before = self.previous.ingress if self.previous else None
        if before is None or not self.route:
            return ""
        return before.name if self.ingress is None or before.name != self.ingress.name else ""

    def planned(self, step: str) -> PlannedStep | None:
        """The step of that id, as it was pinned; None for one that was not."""
        return next((planned for planned in self.steps if planned.id == step), None)

    def gate(self, step: str) -> PlannedGate | None:
        """The gate whose step has that id; None for a step of the strategy."""
        return next((gate for gate in self.gates if gate.step == step), None)

    @property
    def without_gates(self) -> Plan:
        """The same as the strategy knows it."""
        own = tuple(step for step in self.steps if self.gate(step.id) is None)
        return dataclasses.replace(self, steps=own, gates=())

    def to_document(self) -> Document:
        """The plan as JSON in the present format."""
        return {"format": migrations.PLAN_FORMAT, **msgspec.to_builtins(Record.to_document(self), enc_hook=_plain)}

    @classmethod
    def from_document(cls, document: Mapping[str, Json], *, revision: int, sequence: int) -> Self:
        """Reads every format up to the present one. Raises UnknownFormat, and StoreError for what is no plan."""
        values = {**migrations.migrated(document), "revision": revision, "sequence": sequence}
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise StoreError(
                f"the plan of deployment {document.get('deployment')} cannot be read ({error}): restore the newest "
                "copy of the store"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Record):
    """One thing to do for an app, and its journal. Only the engine writes it once it exists.

    due         seconds since the epoch (`clock.SteadyClock`) before which it is not taken up (retire, retries, parking)
    period      seconds from when `due` was set until then: no restart makes it wait longer; 0 for records without
    least       seconds that it waits in any case after a restart, since nobody knows how long the service was down
    steps       step id -> "started" | "done" | "undone"
    memory      what steps asked to be remembered, by `step id/key`
    spent       seconds consumed by phase; undo counts as the phase "undo"
    failure     why it is being undone, once it is
    attempts    how often it was retried since it last got further
    target      what it is for, besides the deployment
    request     id of the request from which it follows, for the log; empty for none
    """

    KIND: ClassVar[str] = "operation"
    ENUMS: ClassVar[Mapping[str, type[StrEnum]]] = {"kind": OperationKind, "state": OperationState}
    PARTS: ClassVar[Mapping[str, type[Target | Timeline]]] = {"target": Target, "timeline": Timeline}
    id: str
    kind: OperationKind
    deployment: str
    state: OperationState = OperationState.QUEUED
    due: float = 0.0
    period: float = 0.0
    least: float = 0.0
    steps: dict[str, str] = field(default_factory=dict)
    memory: dict[str, Json] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    failure: Document | None = None
    attempts: int = 0
    target: Target = NOTHING
    timeline: Timeline = NO_TIMELINE
    request: str = ""

    @property
    def key(self) -> str:
        return self.id

    @property
    def tag(self) -> str:
        if self.state is not OperationState.DONE:
            return "open"
        return "closed" if self.kind in _ASIDE else "ended"

    def progress(self) -> Document:
        """What observers are told of it."""
        told: Document = {"kind": self.kind.value, "state": self.state.value}
        return told | {"steps": dict(self.steps), "until": self.due or None}

    @property
    def begun(self) -> bool:
        """True once it may have changed something and must be brought to its end before another one starts."""
        return self.state in (OperationState.RUNNING, OperationState.UNDOING)

    @property
    def aside(self) -> bool:
        """Does it stand in nobody's way while it waits? An undeployment does not once only pods are left that end."""
        return self.kind in _ASIDE or self.target.released


RECORDS: tuple[type[Record], ...] = (
    StoredDescriptor,
    Deployment,
    App,
    HostClaim,
    HealthData,
    Release,
    Event,
    Plan,
    Operation,
)


def _plain(value: Any) -> Any:
    """What libraries make of texts and numbers (a YAML reader's own texts, for one) as these. Raises TypeError."""
    for plain in (str, bool, int, float):
        if isinstance(value, plain):
            return plain(value)
    raise TypeError(f"a {type(value).__name__} cannot be recorded")


# msgspec learns what it reads at the first use, and two threads that come to that at once can end the process; here
# there is one.
msgspec.json.Decoder(Plan)

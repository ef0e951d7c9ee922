"""What became of a deployment's gates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import msgspec

from deployer.core.model.json_codec import dumps
from deployer.core.model.plan import PlannedGate
from deployer.core.model.records import Document, Json, Record, timestamp_of

MOST_BYTES = 64 * 1024
"""Bytes of JSON that the measurements of all gates of one deployment take."""

FIRST, LAST = 10, 10
"""Measurements of a gate that are kept in any case, as far as there is room: the first ones and the last."""

FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Of one gate; times are seconds since the epoch, 0 for what has not happened.

    step      id of its step
    verdict   `passed`, `failed` or `inconclusive`; empty as long as nothing is known
    code      the reason of the failure, in one word
    ended     when it was over: then nothing of it changes any more
    asks      a person is to decide about it now
    closed    its plugin was told that it is over
    measured  how many measurements there were; `measurements` are those that are kept
    decision  what a person said: `approve`, `by`, `at`, `comment`
    """

    step: str
    point: str
    type: str
    name: str
    forced: bool = False
    dry_run: bool = False
    verdict: str = ""
    reason: str = ""
    hint: str = ""
    code: str = ""
    began: float = 0.0
    deadline: float = 0.0
    ended: float = 0.0
    asks: bool = False
    closed: bool = False
    measured: int = 0
    measurements: tuple[Document, ...] = ()
    decision: Document | None = None

    @classmethod
    def planned(cls, gate: PlannedGate) -> Self:
        """Of one that was not reached yet."""
        return cls(
            step=gate.step,
            point=gate.point,
            type=gate.type,
            name=gate.name,
            forced=gate.forced,
            dry_run=gate.dry_run,
        )

    @property
    def under_way(self) -> bool:
        """It was reached, and is not over."""
        return bool(self.began and not self.ended)

    def with_measurements(self, new: Sequence[Document], most: int) -> Self:
        """The same with these after the others, and no more kept than `most` bytes of JSON."""
        if not new:
            return self
        kept = _kept([*self.measurements, *new], first=FIRST, most=most)
        return dataclasses.replace(self, measured=self.measured + len(new), measurements=tuple(kept))

    def public(self) -> Document:
        """As REST shows it."""
        shown: Document = {"point": self.point, "type": self.type, "name": self.name, "forced": self.forced}
        shown |= {"dryRun": self.dry_run, "verdict": self.verdict or None, "reason": self.reason}
        shown |= {"hint": self.hint} if self.hint else {}
        for name in ("began", "deadline", "ended"):
            shown[name] = shown_time(getattr(self, name))
        shown["waitsForApproval"] = self.asks
        if self.decision:
            shown["decision"] = {**self.decision, "at": shown_time(self.decision["at"])}
        shown["measured"] = self.measured
        shown["measurements"] = [{**found, "time": shown_time(found["time"])} for found in self.measurements]
        return shown


def _kept(measurements: list[Document], *, first: int, most: int) -> list[Document]:
    """The first ones, the last ones, and every one that failed, but of those in the middle the oldest go when it is too
    much."""
    middle = range(first, len(measurements) - LAST)
    kept = [found for n, found in enumerate(measurements) if n not in middle or found["verdict"] == FAILED]
    sizes = [len(dumps(found)) for found in kept]
    while sum(sizes) > most and len(kept) > 1:
        oldest = min(first, len(kept) - 2)
        del kept[oldest], sizes[oldest]
    return kept


def shown_time(seconds: float) -> str | None:
    """RFC 3339; None for what has not happened."""
    return timestamp_of(seconds) if seconds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResults(Record):
    """Of all gates of a deployment, in their order, from when it was decided on."""

    KIND: ClassVar[str] = "gates"
    deployment: str
    entries: tuple[GateResult, ...] = ()

    @property
    def key(self) -> str:
        return self.deployment

    def of(self, step: str) -> GateResult:
        """That of one step."""
        return next(entry for entry in self.entries if entry.step == step)

    def with_entry(self, new: GateResult) -> Self:
        """The same with another result of that step."""
        entries = tuple(new if entry.step == new.step else entry for entry in self.entries)
        return dataclasses.replace(self, entries=entries)

    @property
    def room(self) -> int:
        """Bytes that each gate may take for its measurements."""
        return MOST_BYTES // max(1, len(self.entries))

    def public(self) -> list[Document]:
        """As REST shows them."""
        return [entry.public() for entry in self.entries]

    def to_document(self) -> Document:
        """As JSON."""
        return dict(msgspec.to_builtins(Record.to_document(self)))

    @classmethod
    def from_document(cls, document: Mapping[str, Json], *, revision: int, sequence: int) -> Self:
        """The inverse of `to_document`."""
        return msgspec.convert({**document, "revision": revision, "sequence": sequence}, cls)


def planned_results(namespace: str, app: str, deployment: str, gates: Iterable[PlannedGate]) -> GateResults | None:
    """The record with which they begin; None for a deployment without gates."""
    entries = tuple(map(GateResult.planned, gates))
    return GateResults(namespace=namespace, app=app, deployment=deployment, entries=entries) if entries else None


# As in `records.py`: learnt here, by one thread, and not by two at the first use.
msgspec.json.Decoder(GateResults)

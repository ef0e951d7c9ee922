"""Freezes: what keeps a namespace from new deployments now, and the requests that put and lift one."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from deployer.commands.transactions import decide_again, expect
from deployer.core.clock import SteadyClock
from deployer.core.errors import Frozen, Invalid, NotFound, PreconditionFailed, Problem
from deployer.core.model.operation.timeline import timestamp_of
from deployer.core.model.records import Document, Record, timestamp
from deployer.core.ports.store import Change, Create, Delete, Store, Update
from deployer.descriptor import parse
from deployer.descriptor.schema_errors import schema_problems
from deployer.settings.freeze_windows import REASON_MOST, FreezeWindow, wrong_reason

EVERYWHERE = "*"
"""In the place of a namespace: all of them."""

SCHEMA: Mapping[str, Any] = MappingProxyType(
    {
        "type": "object",
        "required": ["reason"],
        "additionalProperties": False,
        "properties": {
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": REASON_MOST,
                "description": "Why, in a single line: whoever is refused reads it.",
            },
            "until": {
                "description": "When it ends (RFC 3339, with a time zone). Without it somebody has to lift it.",
                "anyOf": [{"type": "string", "format": "date-time"}, {"enum": ["", None]}],
                "x-rule": "must be a time like 2026-12-24T17:00:00+01:00",
            },
        },
    }
)
"""What is sent to put one."""

# RFC 3339, 5.6. The zone is not optional: a time without one is another time for everybody who reads it.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?)?")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze(Record):
    """A freeze as it is stored: of one namespace, or of all (`EVERYWHERE`); there is at most one of each.

    reason   why, in a line
    until    seconds since the epoch at which it ends; 0 for one that somebody has to lift
    by       who asked for it; empty when that is not known
    created  RFC 3339
    """

    KIND: ClassVar[str] = "freeze"
    reason: str
    created: str
    until: float = 0.0
    by: str = ""

    @property
    def key(self) -> str:
        return self.namespace

    def ended(self, now: float) -> bool:
        """Is it over at `now`, in seconds since the epoch?"""
        return 0 < self.until <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeInForce:
    """What freezes a namespace now.

    namespace  the frozen namespace, or `*` for all; of a window its patterns, with commas, where all freezes are listed
    source     `request` when somebody put it, `window` when the settings have it
    until      RFC 3339; empty when nobody knows yet
    by         who put it; empty when that is not known
    created    when it was put, RFC 3339; empty for a window
    """

    namespace: str
    reason: str
    source: str
    until: str = ""
    by: str = ""
    created: str = ""

    def document(self) -> Document:
        """As REST shows it; what is not known is left out."""
        fields = ("namespace", "reason", "source", "until", "by", "created")
        return {name: value for name in fields if (value := getattr(self, name))}

    def __str__(self) -> str:
        """In words: what is frozen, until when, by whom, and why."""
        what = {EVERYWHERE: "every namespace"}.get(self.namespace, f"namespace {self.namespace}")
        until = f" until {self.until}" if self.until else ""
        by = " by the settings" if self.source == "window" else f" by {self.by}" if self.by else ""
        return f"{what} is frozen{until}{by}: {self.reason}"


class Freezes:
    """Of all namespaces. Authorisation is the caller's business.

    Time is a `SteadyClock`'s, so that nobody who sets the system's clock ends a freeze.
    """

    def __init__(
        self, store: Store, windows: Sequence[FreezeWindow] = (), clock: Callable[[], float] | None = None
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._windows = tuple(windows)
        self._clock = clock or SteadyClock()

    # --- what is frozen ---------------------------------------------------------------------------------------------

    def of(self, namespace: str) -> list[FreezeInForce]:
        """What freezes the namespace now: its own freeze, that of all namespaces, windows. Raises StoreUnavailable."""
        found = [self._store.get(Freeze, name) for name in dict.fromkeys((namespace, EVERYWHERE))]
        now = self._clock()
        put = [self.shown(freeze) for freeze in found if freeze is not None and not freeze.ended(now)]
        return [*put, *self._in_windows(now, namespace)]

    def shown_for(self, namespace: str) -> list[Document]:
        """The same as REST shows it."""
        return [freeze.document() for freeze in self.of(namespace)]

    def everywhere(self) -> list[FreezeInForce]:
        """All that are in force now, whatever they freeze. Raises StoreUnavailable."""
        now = self._clock()
        put = [self.shown(freeze) for freeze in self._store.find(Freeze) if not freeze.ended(now)]
        return [*put, *self._in_windows(now)]

    def count(self) -> dict[str, float]:
        """How many are in force, by what they freeze: `namespace`, `service` (all of them) or `window`."""
        counts = {"namespace": 0.0, "service": 0.0, "window": 0.0}
        for freeze in self.everywhere():
            put = "service" if freeze.namespace == EVERYWHERE else "namespace"
            counts["window" if freeze.source == "window" else put] += 1
        return counts

    def admit(self, namespace: str, override: str = "") -> Document | None:
        """Let a new deployment pass; returns what its record says of the freezes that it was let through in spite of.

        `override` is the reason for that, of somebody who may. Raises Frozen, and Invalid for a reason that is none.
        """
        if override and (wrong := wrong_reason(override)):
            raise Invalid([Problem("override", wrong)])
        # Asked last before it is queued: a deployment that was asked for while a freeze was being put may still come
        # before it, one that is asked for once the freeze was answered cannot.
        frozen = self.of(namespace)
        if not frozen:
            return None
        if not override:
            raise Frozen(_refusal(frozen), [freeze.document() for freeze in frozen])
        return {"reason": override.strip(), "freezes": [freeze.document() for freeze in frozen]}

    def _in_windows(self, now: float, namespace: str | None = None) -> Iterator[FreezeInForce]:
        for window in self._windows:
            if namespace is not None and not window.covers(namespace):
                continue
            until = window.until(now)
            if until is not None:
                # Whoever asks about one namespace is not told which others a window has.
                names = window.namespaces if namespace is None or EVERYWHERE in window.namespaces else (namespace,)
                yield FreezeInForce(
                    namespace=", ".join(names),
                    reason=window.reason,
                    source="window",
                    until="" if math.isinf(until) else timestamp_of(until),
                )

    # --- requests ---------------------------------------------------------------------------------------------------

    @staticmethod
    def shown(freeze: Freeze) -> FreezeInForce:
        """One that somebody put, as it is shown."""
        return FreezeInForce(
            namespace=freeze.namespace,
            reason=freeze.reason,
            source="request",
            until=timestamp_of(freeze.until) if freeze.until else "",
            by=freeze.by,
            created=freeze.created,
        )

    def get(self, namespace: str) -> Freeze:
        """The freeze that somebody put on this namespace, or on all (`*`). Raises NotFound."""
        found = self._store.get(Freeze, namespace)
        if found is None or found.ended(self._clock()):
            raise NotFound(
                "nobody has put a freeze on all namespaces"
                if namespace == EVERYWHERE
                else f"nobody has put a freeze on namespace {namespace}; its list of freezes has all that freezes it"
            )
        return found

    def put(
        self,
        namespace: str,
        body: bytes,
        by: str = "",
        *,
        if_match: Collection[int] | None = None,
        replaces: bool = False,
    ) -> tuple[Freeze, bool]:
        """Freeze a namespace, or all of them (`*`); one that is there is replaced. True when there was none.

        With `replaces` there must be one.

        Raises Invalid, PreconditionFailed, Conflict, StoreUnavailable.
        """
        reason, until = self._read(body)

        def attempt() -> tuple[Freeze, bool]:
            now = self._clock()
            stored = {freeze.namespace: freeze for freeze in self._store.find(Freeze)}
            old = stored.pop(namespace, None)
            known = old is not None and not old.ended(now)
            if old is None or not known:
                if replaces:
                    raise PreconditionFailed(f"there is no freeze of {namespace} by now; leave If-Match out to put one")
            else:
                expect(f"the freeze of {namespace}", old.revision, if_match)
            new = Freeze(
                namespace=namespace,
                app="",
                reason=reason,
                until=until,
                by=by,
                created=old.created if old and known else timestamp(),
                revision=old.revision if old else 0,
                sequence=old.sequence if old else 0,
            )
            # What is over goes when the next one comes, so that there are never more than namespaces.
            over: list[Change] = [Delete(freeze) for freeze in stored.values() if freeze.ended(now)]
            revision = self._store.commit(Update(new) if old else Create(new), *over)
            return self._stored(new, revision), not known

        freeze, created = decide_again(attempt)
        _log.info("%s", self.shown(freeze))
        return freeze, created

    def lift(self, namespace: str, by: str = "", *, if_match: Collection[int] | None = None) -> None:
        """End the freeze that somebody put. Raises NotFound, PreconditionFailed, Conflict, StoreUnavailable."""

        def attempt() -> None:
            found = self.get(namespace)
            expect(f"the freeze of {namespace}", found.revision, if_match)
            self._store.commit(Delete(found))

        decide_again(attempt)
        _log.info("the freeze of %s was lifted%s", namespace, f" by {by}" if by else "")

    def _read(self, body: bytes) -> tuple[str, float]:
        """Reason and end of what was sent."""
        document = parse(body)
        problems = schema_problems(document, SCHEMA)
        reason, until = document.get("reason"), 0.0
        if isinstance(reason, str) and (wrong := wrong_reason(reason)):
            problems = [p for p in problems if p.path != "reason"] + [Problem("reason", wrong)]
        if isinstance(document.get("until"), str) and document["until"]:
            try:
                until = _moment(document["until"], self._clock())
            except ValueError as error:
                problems.append(Problem("until", str(error)))
        if problems:
            raise Invalid(problems)
        return str(reason).strip(), until

    @staticmethod
    def _stored(freeze: Freeze, revision: int) -> Freeze:
        return dataclasses.replace(freeze, revision=revision, sequence=freeze.sequence or revision)


def _moment(text: str, now: float) -> float:
    """Seconds since the epoch of an RFC 3339 time in the future, in whole ones. Raises ValueError in words."""
    if _WITHOUT_ZONE.fullmatch(text):
        raise ValueError("has no time, or no time zone; write 2026-12-24T17:00:00+01:00, or Z for UTC")
    if not _MOMENT.fullmatch(text):
        raise ValueError("is not a time like 2026-12-24T17:00:00+01:00")
    try:
        moment = math.ceil(datetime.datetime.fromisoformat(text.upper()).timestamp())
        timestamp_of(moment)
    except (ValueError, OverflowError, OSError):
        raise ValueError("is a time that does not exist") from None
    if moment <= now:
        raise ValueError(f"is over: it is {timestamp_of(now)} now")
    return float(moment)


def _refusal(frozen: Sequence[FreezeInForce]) -> str:
    said = "; ".join(map(str, frozen))
    return (
        f"{said} (rollbacks and undeployments go through; whoever may override a freeze deploys with "
        "a reason as `override`)"
    )

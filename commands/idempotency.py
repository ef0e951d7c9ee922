"""`Idempotency-Key`: a request that is sent again is carried out once (draft-ietf-httpapi-idempotency-key-header-07).

The record of a key is written in the transaction that does what was asked for, so that no crash and no other replica
comes between the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

import msgspec

from deployer.commands.transactions import decide_again
from deployer.core.clock import SteadyClock
from deployer.core.errors import DeployerError, NotFound
from deployer.core.model.records import Document, Record
from deployer.core.ports.store import Change, Create, Store, Update

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class KeyReused(DeployerError):
    """The key came before, with another request."""


@dataclass(slots=True)
class RequestKey:
    """The key of one request, as `of` makes it.

    namespace  of the request
    digest     of the caller, the namespace and the key: what one caller sends tells nothing about another's keys
    request    digest of what is asked for
    replayed   becomes true when the request had been carried out before
    """

    namespace: str
    digest: str
    request: str
    replayed: bool = False

    @classmethod
    def of(cls, caller: str, namespace: str, key: str, request: Sequence[object]) -> RequestKey:
        """`caller` is the name of who sends it, empty for nobody in particular; `request` anything that JSON has."""
        return cls(namespace, _digest([caller, namespace, key]), _digest(request))


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey(Record):
    """What became of the first request with a key.

    digest, request  see `RequestKey`
    result           id of the deployment or descriptor that was answered
    details          what else the answer had that the result does not say
    expires          seconds since the epoch, after which the key is as good as new
    """

    KIND: ClassVar[str] = "idempotency"
    digest: str
    request: str
    result: str
    expires: float
    details: Document = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.digest

    def expired(self, now: float) -> bool:
        """Is it as good as new at `now`, in seconds since the epoch?"""
        return self.expires <= now


class Claim(Protocol):
    """Gives the changes that belong into the transaction that does what was asked for; none without a key."""

    def __call__(self, app: str, result: str, details: Document | None = None) -> list[Change]:
        """`result` is the id of the deployment or descriptor that is answered."""


def without_key(*_: object, **__: object) -> list[Change]:
    """The claim of a request that has no key."""
    return []


class Idempotency:
    """The keys of all namespaces. Thread-safe. Expired ones are replaced here when they come again; deleting the others
    is the store's business (`store/retention.py`)."""

    def __init__(self, store: Store, ttl: float, clock: Callable[[], float] | None = None) -> None:
        """`ttl` is how many seconds a key is kept; `clock` gives seconds since the epoch."""
        self._store = store
        self._ttl = ttl
        self._clock = clock or SteadyClock()

    def once(self, key: RequestKey | None, perform: Callable[[Claim], T], replay: Callable[[IdempotencyKey], T]) -> T:
        """Carry out a request, or say again what became of it. Raises KeyReused, Conflict, and what the two raise.

        perform  reads, decides, and commits together with what the claim gives; again when somebody else came first
        replay   the answer for a key that is known
        """

        def attempt() -> T:
            if key is None:
                return perform(without_key)
            known = self._store.get(IdempotencyKey, key.digest, namespace=key.namespace)
            if known is None or known.expired(self._clock()):
                return perform(lambda app, result, details=None: self._changes(key, known, app, result, details or {}))
            if known.request != key.request:
                raise KeyReused(
                    "this Idempotency-Key was sent before with another request: repeat that one, or send another key"
                )
            key.replayed = True
            return replay(known)

        return decide_again(attempt)

    def _changes(
        self, key: RequestKey, expired: IdempotencyKey | None, app: str, result: str, details: Document
    ) -> list[Change]:
        record = IdempotencyKey(
            namespace=key.namespace,
            app=app,
            digest=key.digest,
            request=key.request,
            result=result,
            details=details,
            expires=self._clock() + self._ttl,
            revision=expired.revision if expired else 0,
        )
        return [Update(record) if expired else Create(record)]


def result_of(store: Store, kind: type[R], known: IdempotencyKey) -> R:
    """What the first request made, as it is now. Raises NotFound when that was deleted since."""
    found = store.get(kind, known.result, namespace=known.namespace)
    if found is None:
        raise NotFound(
            f"{kind.KIND} {known.result}, which the first request with this Idempotency-Key was about, has been deleted"
            "; send another key to ask for a new one"
        )
    return found


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()

"""What etcd's v3 API answers, as far as it is read. Fields have etcd's names; in JSON bytes are base64, int64 text."""

from __future__ import annotations

import msgspec


class Header(msgspec.Struct):
    """`revision` is that of the store when it answered."""

    revision: int = 0


class KeyValue(msgspec.Struct):
    """One key. `lease` is 0 when none is attached."""

    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    lease: int = 0


class Range(msgspec.Struct):
    """Answer to a range. `count` is that of all keys in it, whatever the limit; `more`: the limit cut it."""

    header: Header = msgspec.field(default_factory=Header)
    kvs: list[KeyValue] = []
    more: bool = False
    count: int = 0


class Response(msgspec.Struct):
    """Answer to one operation of a transaction; None for those that give nothing."""

    response_range: Range | None = None


class Txn(msgspec.Struct):
    """Answer to a transaction: which branch was taken, and its operations' answers."""

    header: Header
    succeeded: bool = False
    responses: list[Response] = []

    def ranges(self) -> list[list[KeyValue]]:
        """What each range of the branch found."""
        return [response.response_range.kvs for response in self.responses if response.response_range is not None]


class Granted(msgspec.Struct):
    """Answer to the grant of a lease."""

    ID: int = 0
    TTL: int = 0


class KeptAlive(msgspec.Struct):
    """Answer to a keep-alive: `TTL` 0 when there is no such lease any more."""

    TTL: int = 0


class StreamedKeptAlive(msgspec.Struct):
    """The one message of its stream."""

    result: KeptAlive


class Authenticated(msgspec.Struct):
    """Answer to a login."""

    token: str = ""


class Failure(msgspec.Struct):
    """An error. etcd 3.6 leaves `error` out; in streams of 3.4 and 3.5 the code is `grpc_code`."""

    code: int = 0
    message: str = ""
    error: str = ""
    grpc_code: int = 0


class WatchEvent(msgspec.Struct):
    """A change; `type` is `PUT` (which JSON leaves out) or `DELETE`."""

    kv: KeyValue
    type: str = "PUT"


class Watched(msgspec.Struct):
    """A message of a watch. compact_revision: it was asked for what is compacted, up to that revision."""

    header: Header = msgspec.field(default_factory=Header)
    created: bool = False
    canceled: bool = False
    cancel_reason: str = ""
    compact_revision: int = 0
    events: list[WatchEvent] = []


class Nothing(msgspec.Struct):
    """An answer that nobody reads."""

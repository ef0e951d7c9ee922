"""Lists of records, newest first, read from the store a piece at a time: none is ever in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from deployer.core.model.records import Record
from deployer.core.ports.store import Place, R, Store

PIECE = 512 * 1024
"""Bytes of JSON after which a piece ends; a single record may have more."""

_RECORDS = 500
"""Of a piece at most."""


class RecordList(Generic[R]):
    """The records of a namespace; of one app, with one tag, the newest `per_app` of each app, where these are given."""

    def __init__(
        self,
        store: Store,
        kind: type[R],
        namespace: str,
        *,
        app: str | None = None,
        tag: str | None = None,
        per_app: int | None = None,
    ) -> None:
        self._store = store
        self._kind = kind
        self.namespace, self.app, self.tag, self.per_app = namespace, app, tag, per_app

    def read(self, limit: int, after: Place | None = None) -> list[R]:
        """At most `limit` of those that come after that place; fewer, but one at least, when they are large."""
        return self._store.find(
            self._kind,
            namespace=self.namespace,
            app=self.app,
            tag=self.tag,
            newest_first=True,
            limit_per_app=self.per_app,
            limit=min(limit, _RECORDS),
            after=after,
            size=PIECE,
        )

    def __iter__(self) -> Iterator[R]:
        """All of them."""
        return self.first(None)

    def first(self, most: int | None, after: Place | None = None) -> Iterator[R]:
        """At most so many of those that come after that place."""
        while (most is None or most > 0) and (found := self.read(_RECORDS if most is None else most, after)):
            after = place_of(found[-1])
            most = None if most is None else most - len(found)
            yield from found

    def end(self, most: int) -> Place | None:
        """Where the first `most` of them end, if there are more."""
        if self._store.count(self._kind, namespace=self.namespace, app=self.app, tag=self.tag) <= most:
            return None
        after, left = None, most
        while left and (found := self.read(left, after)):
            after, left = place_of(found[-1]), left - len(found)
        return after if after is not None and self.read(1, after) else None


def place_of(record: Record) -> Place:
    """Where the record stands in the order of arrival."""
    return record.sequence, record.key

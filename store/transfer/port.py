"""What a store offers to those who move everything that it holds, besides what services ask of it."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

from deployer.core.model import json_codec
from deployer.core.model.records import Document, Record
from deployer.core.ports.store import LogLine, Store

LINES_AT_ONCE = 500
"""Log lines of one item, at most."""
SIZE_AT_ONCE = 256 * 1024
"""Characters of text after which no line is added to an item."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record as a store has it, of whatever kind and format: who moves it need not understand it.

    sequence  its place in the order of arrival; records of one transaction share it, and are in the order of their keys
    text      its document, as `json_codec.dumps` wrote it
    """

    kind: str
    key: str
    namespace: str
    app: str
    tag: str
    sequence: int
    text: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """The row of a stored record."""
        text = json_codec.dumps(record.to_document())
        return cls(record.KIND, record.key, record.namespace, record.app, record.tag, record.sequence, text)

    @property
    def document(self) -> Document:
        """Of the record."""
        found: Document = json_codec.loads(self.text)
        return found


@dataclass(frozen=True, slots=True)
class Lines:
    """Consecutive lines of a deployment's log."""

    deployment: str
    lines: tuple[LogLine, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """The highest fencing token that an app's leases had: it is on the app's objects in the cluster."""

    namespace: str
    app: str
    token: int


Item = Row | Lines | Token


class Transferable(Store):
    """A store that can be moved."""

    @abstractmethod
    def dump(self) -> AbstractContextManager[Iterator[Item]]:
        """Everything that the store holds at one moment, while others go on writing: tokens, then rows in order of
        arrival, then logs, line after line. What belongs to an import (`ImportState`) is left out.

        Raises StoreUnavailable, also from the iterator.
        """

    @abstractmethod
    def load(self, items: Sequence[Item]) -> None:
        """Write items durably, in their order, which becomes the order of arrival of their rows.

        Items that are there already stay as they are, lines by their number, so that whoever does not know whether a
        call came through repeats it. A token never goes down, and the next lease of its app has a higher one. Calls
        come in the order of `dump`, and each row has a higher `sequence` than the one before (`numbered`). Raises
        StoreUnavailable.
        """


def numbered(items: Iterable[Item]) -> Iterator[Item]:
    """A dump for `load`: stores of different kinds do not agree on the order of rows that share a place."""
    for place, item in enumerate(items, 1):
        yield dataclasses.replace(item, sequence=place) if isinstance(item, Row) else item


class Grouped:
    """Puts log lines together to `Lines` of a good size; iterate over it."""

    def __init__(self, deployment: str, lines: Iterator[LogLine]) -> None:
        self._deployment = deployment
        self._lines = lines

    def __iter__(self) -> Iterator[Lines]:
        taken: list[LogLine] = []
        size = 0
        for line in self._lines:
            taken.append(line)
            size += len(line.text)
            if len(taken) >= LINES_AT_ONCE or size >= SIZE_AT_ONCE:
                yield Lines(self._deployment, tuple(taken))
                taken, size = [], 0
        if taken:
            yield Lines(self._deployment, tuple(taken))

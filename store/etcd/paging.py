"""Pages of long indexes, for which etcd walks no more of its keys than it has to.

etcd walks over all keys of a range, whatever the limit, because it counts them (`Revisions` in its `mvcc/index.go`;
about a microsecond for each). So a range of a long index ends where a page is likely to end, by how close together
records arrived that were found before; when that was too early, the next range is longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from deployer.store.etcd.client.messages import Range
from deployer.store.etcd.layout import MOST, Index

WHOLE = 1_000
"""Keys of an index that is read as one range."""

_MARGIN = 2  # pages in the first range
_LONGER = 16  # times that each further range is longer
_KNOWN = 2_000  # indexes of which it is remembered

_ORDER = 16  # digits


class _Pace(NamedTuple):
    """What was found in a long index. first: the order of its first entry; step: from one entry to the next."""

    first: int
    step: int


class Pages:
    """Reads pages by `read(begin, end, limit, revision)`. Thread-safe."""

    def __init__(self, read: Callable[[bytes, bytes, int, int], Range]) -> None:
        self._read = read
        self._paces: dict[bytes, _Pace] = {}

    def keys(self, index: Index, begin: bytes, end: bytes, limit: int) -> tuple[list[bytes], int]:
        """The first keys of an index from `begin` to before `end`, all at one revision, and that revision."""
        pace = self._paces.get(index.prefix)
        keys: list[bytes] = []
        revision = walked = order = reach = 0
        at, first = begin, begin == index.prefix
        if pace is not None:
            order, reach = (pace.first if first else _order(index, begin)), pace.step * limit * _MARGIN
        while True:
            stop = order + reach
            last = pace is None or stop > MOST
            until = end if last else min(end, b"%s%016d" % (index.prefix, stop))
            answer = self._read(at, until, limit - len(keys), revision)
            revision = revision or answer.header.revision
            keys += [found.key for found in answer.kvs]
            walked += answer.count
            if len(keys) >= limit or until == end:
                break
            at, reach = until, reach * _LONGER
        self._learn(index, keys, pace, begin, long=walked > WHOLE or until != end)
        return keys, revision

    def _learn(self, index: Index, keys: list[bytes], pace: _Pace | None, begin: bytes, *, long: bool) -> None:
        first = begin == index.prefix
        if not long:
            if first:
                self._paces.pop(index.prefix, None)
        elif len(keys) > 1:
            nearest, farthest = _order(index, keys[0]), _order(index, keys[-1])
            step = (farthest - (nearest if first else _order(index, begin))) // (len(keys) - 1) + 1
            if pace is not None:  # records arrive in heaps: where there was a gap, another one is near
                step = max(step, pace.step // _LONGER)
            if len(self._paces) >= _KNOWN:
                self._paces.clear()
            self._paces[index.prefix] = _Pace(nearest if first or pace is None else min(nearest, pace.first), step)


def _order(index: Index, key: bytes) -> int:
    return int(key[len(index.prefix) : len(index.prefix) + _ORDER])

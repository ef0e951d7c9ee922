"""The SQLite store's readers: read-only connections beside the one that writes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from deployer.core.errors import StoreUnavailable
from deployer.store.writer import closed

_IDLE_READERS = 16  # connections kept open, one for each thread of REST; two file descriptors each
_CACHE = 256  # KiB that each keeps of the file; the next COMMIT voids it, and the kernel has the file's pages anyway
_GOING = 5.0  # seconds that reads under way get when the store is closed


class Readers:
    """Read-only connections: one in use per reading thread, a few kept idle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._idle: deque[sqlite3.Connection] = deque()  # its append and pop are atomic
        self._changed = threading.Condition()
        self._reading = 0
        self._closed = False

    def fetch(self, sql: str, values: Sequence[Any], take: Callable[[Iterable[Any]], list[Any]] = list) -> list[Any]:
        """All rows, or those that `take` takes. Raises StoreUnavailable."""
        with self._changed:
            if self._closed:
                raise closed(self._path)
            self._reading += 1
        try:
            return self._fetch(sql, values, take)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store {self._path} cannot be read now ({error})") from error
        finally:
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()

    def _fetch(self, sql: str, values: Sequence[Any], take: Callable[[Iterable[Any]], list[Any]]) -> list[Any]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = sqlite3.connect(self._uri, uri=True, isolation_level=None, check_same_thread=False)
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
        try:
            cursor = connection.execute(sql, values)
            rows = take(cursor)
            # Rows that nobody takes would keep the read transaction open, and the WAL from being reset.
            cursor.close()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        self._drop(keep=_IDLE_READERS)
        return rows

    def close(self) -> None:
        """Read no more, and return when nobody reads: the last connection to be closed must be one that writes, which
        brings everything from the WAL into the database (https://sqlite.org/wal.html#the_wal_file)."""
        end = time.monotonic() + _GOING
        with self._changed:
            self._closed = True
            while self._reading and self._changed.wait(max(0.0, end - time.monotonic())):
                pass
        self._drop(keep=0)

    def _drop(self, keep: int) -> None:
        with contextlib.suppress(IndexError):
            while len(self._idle) > keep:
                self._idle.popleft().close()

"""Room for a full disk: a file beside the database that is given up when there is no other space left.

With it gone, what ends or deletes something can still be recorded, and nothing new is taken until it is back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

SIZE = 8 * 1024 * 1024
"""Bytes that are kept: twice as many as SQLite lets the WAL grow to before it brings it into the database, which may
have to grow by as much first. The largest transaction that ends something rewrites a deployment of about 1 MiB."""

_SHARE = 8  # of the file system at most, for small ones
_PROBE = 64 * 1024  # bytes; when there is no room for so many the disk is full
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Reserve:
    """Of one database. Used by one thread at a time.

    held   the room is there, in the file or, where no such file can be had, because nobody knows better
    """

    def __init__(self, database: Path, size: int = SIZE) -> None:
        """`size` in bytes; 0 keeps nothing."""
        self._file = database.with_name(f"{database.name}.reserve")
        self._folder = database.parent
        self._wanted = size
        self.held = not size

    @property
    def size(self) -> int:
        """In bytes, never more than an eighth of the file system."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return self._wanted
        return min(self._wanted, found.f_blocks * found.f_frsize // _SHARE)

    def take(self) -> bool:
        """Have it there, if the disk has twice as much: what is on the brink would come and go. True when it is."""
        if self.held:
            return True
        try:
            size = self.size
            if not self._there(size):
                found = os.statvfs(self._folder)
                if found.f_bavail * found.f_frsize < 2 * size:
                    return False
                self._allocate(self._file, size)
            self.held = True
        except OSError as error:
            # Whatever else is wrong with the disk shows when something is recorded.
            self.held = error.errno not in _FULL
        return self.held

    def _there(self, size: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._file.stat().st_blocks * 512 >= size
        return False

    def give_up(self) -> bool:
        """Free its space; False when there was nothing to free."""
        if not self._wanted:
            return False
        self.held = False
        try:
            self._file.unlink()
        except OSError:
            return False
        return True

    def missed_by(self, error: Exception) -> bool:
        """Is it for want of space that SQLite failed? What a quota or the index of the WAL meets has other names."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return True
        return code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and self._disk_is_full()

    def _disk_is_full(self) -> bool:
        probe = self._file.with_suffix(".probe")
        try:
            self._allocate(probe, _PROBE)
        except OSError as error:
            return error.errno in _FULL
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
        return False

    @staticmethod
    def _allocate(file: Path, size: int) -> None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            file.unlink()
            raise
        finally:
            os.close(descriptor)

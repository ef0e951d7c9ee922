"""What to do about an error of SQLite or of the file system, as the end of a sentence."""

from __future__ import annotations

import errno
import sqlite3

_BY_CODE = {
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_READONLY: "make the file, its directory and its disk writable for this user",
    sqlite3.SQLITE_PERM: "make the file and its directory writable for this user",
    sqlite3.SQLITE_CANTOPEN: "check that this user may write the file and its directory, and that the disk has room",
    sqlite3.SQLITE_CORRUPT: "it is damaged: stop the service and restore the newest backup",
    sqlite3.SQLITE_NOTADB: "it is no database, or a damaged one: name another data directory, or restore a backup",
    sqlite3.SQLITE_BUSY: "another program keeps it locked: end that",
    sqlite3.SQLITE_LOCKED: "another program keeps it locked: end that",
}
_BY_ERRNO = {
    errno.ENOSPC: "free space on its disk",
    errno.EDQUOT: "free space: the quota of this user is used up",
    errno.EROFS: "its disk is mounted read-only: choose a directory that this user may write",
    errno.ENOLCK: "put the store on a local disk, as network file systems lock in ways of their own",
    errno.EOPNOTSUPP: "put the store on a local disk, as network file systems lock in ways of their own",
    errno.EIO: "check its disk",
}


def advice(error: Exception) -> str:
    """What would help."""
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0, "choose a directory that this user may write")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return _BY_CODE.get(code, "check its disk, then try again")

"""What can be wrong with the event log, as one true line each."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from crykit.errors import CrykitError

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class StoreError(CrykitError):
    """The event log cannot be opened or written; listening can go on without it.

    `replaced`: another file has to take this one's place before writing can go on (it is damaged,
    or somebody moved it away).
    """

    exit_code = 3

    def __init__(self, message: str, *, replaced: bool = False) -> None:
        super().__init__(message)
        self.replaced = replaced


def is_damaged(error: Exception) -> bool:
    """Whether `error` says that the file is no sound database."""
    return _code(error) in _DAMAGED


def is_read_only(error: Exception) -> bool:
    """Whether `error` may come of a place where no file can be made."""
    return _code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def reason(error: Exception) -> str:
    """What `error` means, in words."""
    code = _code(error)
    number = error.errno if isinstance(error, OSError) else None
    if code in _DAMAGED:
        return "it is damaged"
    if code in _LOCKED:
        return "another program has locked it"
    if code == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if code == sqlite3.SQLITE_READONLY or number == errno.EROFS:
        return "the file or its disk is read-only"
    if code == sqlite3.SQLITE_CANTOPEN or number in (errno.EACCES, errno.EPERM):
        return "this user may not write there, or the disk is read-only"
    if code == sqlite3.SQLITE_IOERR:
        return f"the disk fails: {error}"
    return str(error)


def cannot_open(path: Path, error: Exception) -> StoreError:
    """The error for a log that does not open."""
    why = "it is a folder" if path.is_dir() else reason(error)
    return StoreError(
        f"cannot open the event log {path} ({why}); free or repair it, choose another "
        "folder with --data-dir, or go without it with --no-store"
    )


def cannot_write(path: Path, error: Exception) -> StoreError:
    """The error for a log that was open and takes nothing more."""
    return StoreError(
        f"cannot write the event log {path} ({reason(error)})", replaced=is_damaged(error)
    )


def _code(error: Exception) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF

"""What is forgotten: events older than some days, or the oldest of a log that has grown too large.

Nothing is forgotten unless somebody asks. Backups and damaged logs that were set aside stay.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from crykit.errors import InputError
from crykit_app.faults import StoreError, cannot_write
from crykit_app.store import EventStore, connect

SHARE_AT_ONCE = 0.05
"""How much of the events goes at a time until the log is small enough."""

_OLD = """
DELETE FROM event WHERE julianday(coalesce(start, logged)) < julianday(:before);
DELETE FROM listening WHERE julianday(until) < julianday(:before);
DELETE FROM lost_audio WHERE julianday(coalesce(
  at, (SELECT coalesce(ended, began) FROM session WHERE id = session_id)
)) < julianday(:before);
DELETE FROM session WHERE julianday(ended) < julianday(:before)
  AND id NOT IN (SELECT session_id FROM event)
  AND id NOT IN (SELECT session_id FROM listening)
  AND id NOT IN (SELECT session_id FROM lost_audio)
"""

# The first moment after that of the nth oldest: several events may share one.
_AFTER_NTH_OLDEST = """
WITH moment AS (
  SELECT coalesce(start, logged) AS text, julianday(coalesce(start, logged)) AS day FROM event
)
SELECT text FROM moment
WHERE day > (SELECT day FROM moment ORDER BY day LIMIT 1 OFFSET ?) ORDER BY day LIMIT 1
"""


@dataclass(frozen=True)
class Pruned:
    """What went, and what is left."""

    events: int
    events_left: int
    size_bytes: int


def prune(path: Path, *, before: datetime | None = None, max_bytes: int | None = None) -> Pruned:
    """Forget what is older than `before`, then the oldest until `max_bytes` are enough.

    A listener may be writing meanwhile; what it has open is never forgotten.
    Raises `InputError` if there is no log, `StoreError` if it cannot be written.
    """
    if not path.is_file():
        raise InputError(f"no event log at {path}; nothing to prune")
    store = EventStore(path)
    store.close()
    if store.set_aside is not None:
        raise StoreError(f"the event log {path} was damaged; it is set aside as {store.set_aside}")
    try:
        with contextlib.closing(connect(path)) as db:
            db.execute("PRAGMA synchronous = FULL")
            found = _count(db)
            if before is not None:
                _forget(db, before.isoformat(timespec="milliseconds"))
            while max_bytes is not None and _used_bytes(db) > max_bytes and _forget_some(db):
                pass
            left = _count(db)
            if left < found:
                db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return Pruned(found - left, left, _used_bytes(db))
    except sqlite3.Error as error:
        raise cannot_write(path, error) from error


def _forget(db: sqlite3.Connection, before: str) -> None:
    """One transaction: a kill leaves all of it or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _OLD.split(";\n"):
            db.execute(statement, {"before": before})
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _forget_some(db: sqlite3.Connection) -> bool:
    """Forget the oldest events; False if only the newest moment is left."""
    nth = int(_count(db) * SHARE_AT_ONCE)
    row = db.execute(_AFTER_NTH_OLDEST, (nth,)).fetchone()
    if row is None:
        return False
    _forget(db, row[0])
    return True


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM event").fetchone()[0])


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size

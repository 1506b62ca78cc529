"""The event log's tables, and how a log of an older version becomes one of this version.

Every step only adds, so that an older listener that is still running can go on writing. A copy is
put beside the log before the first step (SQLite's backup API, so that it is whole).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from crykit_app.faults import StoreError

KEPT_BACKUPS = 3

VERSION_1 = """
CREATE TABLE session (
  id TEXT PRIMARY KEY,
  began TEXT NOT NULL,            -- wall clock, ISO 8601 with offset
  ended TEXT,                     -- null while running, or for ever after a crash
  source TEXT NOT NULL,
  model TEXT NOT NULL,
  lost_samples INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE event (
  id TEXT PRIMARY KEY,            -- ULID
  session_id TEXT NOT NULL REFERENCES session (id),
  logged TEXT NOT NULL,           -- wall clock when the gate opened
  start TEXT,                     -- wall clock of the onset; null where a file has no known start
  onset_s REAL NOT NULL,          -- seconds from the start of the source
  offset_s REAL,                  -- null while the cry goes on, or for ever after a crash
  peak_probability REAL,
  mean_probability REAL,
  level_dbfs REAL
);
CREATE INDEX event_logged ON event (logged);
"""

# What version 1 knew of listening is one stretch a session, to its last sign of life. It did not
# note when sound was lost: that moment stays null. Its models all ran at 16 kHz.
_VERSION_2 = """
ALTER TABLE session ADD COLUMN kind TEXT;
CREATE TABLE listening (          -- stretches in which sound was scored
  session_id TEXT NOT NULL REFERENCES session (id),
  began TEXT NOT NULL,            -- wall clock
  until TEXT NOT NULL,            -- moved on about once a minute, and at the end
  PRIMARY KEY (session_id, began)
);
CREATE TABLE lost_audio (         -- sound that never reached the engine
  session_id TEXT NOT NULL REFERENCES session (id),
  position_s REAL NOT NULL,       -- seconds from the start of the source
  at TEXT,                        -- wall clock; null where it is not known
  lost_s REAL NOT NULL,
  PRIMARY KEY (session_id, position_s)
);
INSERT INTO listening (session_id, began, until)
  SELECT id, began, coalesce(
    ended, (SELECT max(logged) FROM event WHERE session_id = session.id), began
  ) FROM session;
INSERT INTO lost_audio (session_id, position_s, lost_s)
  SELECT id, 0, lost_samples / 16000.0 FROM session WHERE lost_samples > 0;
"""

_STEPS = (VERSION_1, _VERSION_2)
SCHEMA_VERSION = len(_STEPS)


def check_version(db: sqlite3.Connection, path: Path) -> int:
    """The log's version, 0 for an empty file. Raises `StoreError` if it is newer, or no log."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{path} is the database of another program; choose another file")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}, this crykit reads up to {SCHEMA_VERSION}; upgrade crykit"
        )
    return version


def migrate(db: sqlite3.Connection, path: Path) -> Path | None:
    """Bring the log to `SCHEMA_VERSION`; returns the backup, if one was made.

    Raises `StoreError` (see `check_version`), `OSError` or `sqlite3.Error`; then nothing has
    changed.
    """
    found = check_version(db, path)
    if found == SCHEMA_VERSION:
        return None
    backup = _back_up(db, path, found) if found else None
    upgrade(db, path)
    return backup


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """The steps themselves: one transaction, the version read inside it.

    Two listeners may start at once, and a crash leaves either the old schema or the whole new one.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in _STEPS[check_version(db, path) :]:
            for statement in step.split(";\n"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def stamp() -> str:
    """This moment for a file name, in UTC: it sorts, and no clock change repeats it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def backups(path: Path) -> list[Path]:
    """The copies made before migrations, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}.backup-*{path.suffix}"), key=_taken)


def _taken(backup: Path) -> str:
    return backup.name.rpartition("-")[2]


def _back_up(db: sqlite3.Connection, path: Path, version: int) -> Path:
    target = path.with_name(f"{path.stem}.backup-v{version}-{stamp()}{path.suffix}")
    for torn in path.parent.glob(f".{path.stem}.backup-*.part"):
        torn.unlink(missing_ok=True)  # of one who was killed at this: the opener's lock is ours
    aside = target.with_name(f".{target.name}.part")
    try:
        with contextlib.closing(sqlite3.connect(aside)) as copy:
            db.backup(copy)
        with open(aside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    for old in backups(path)[:-KEPT_BACKUPS]:
        old.unlink(missing_ok=True)
    return target

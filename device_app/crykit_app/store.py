"""The event log: SQLite, written so that a crash or a power cut keeps every cry that had begun.

An event is written when the gate opens and completed when it closes; each write is its own
transaction with `synchronous=FULL`. WAL lets `crykit events` read while the listener writes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import platformdirs

from crykit.errors import CrykitError, InputError

SCHEMA_VERSION = 1
FILE_NAME = "events.db"
BUSY_TIMEOUT_MS = 5000

_SCHEMA = """
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

_SELECT = """
SELECT event.id, source, model, logged, start, onset_s, offset_s, peak_probability,
  mean_probability, level_dbfs
FROM event JOIN session ON session.id = session_id ORDER BY logged, event.id
"""


class StoreError(CrykitError):
    """The event log cannot be opened or written; listening can go on without it."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row of the log; `offset_s` and what follows are None for a cry that never closed."""

    id: str
    source: str
    model: str
    logged: datetime
    start: datetime | None
    onset_s: float
    offset_s: float | None
    peak_probability: float | None
    mean_probability: float | None
    level_dbfs: float | None


def default_data_dir(override: str | Path | None = None) -> Path:
    """Where the log lives: the argument, else CRYKIT_DATA_DIR, else the user's data folder."""
    chosen = override or os.environ.get("CRYKIT_DATA_DIR")
    return Path(chosen) if chosen else platformdirs.user_data_path("crykit", appauthor=False)


def default_path(data_dir: str | Path | None = None) -> Path:
    """The log's file under `default_data_dir`."""
    return default_data_dir(data_dir) / FILE_NAME


class EventStore:
    """The log, open for writing by one session. Any thread may use it, but only one at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`. Raises `StoreError` if that cannot be done."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _connect(path)
            _migrate(self._db, path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot open the event log {path} ({error}); free or repair it, choose another "
                "folder with --data-dir, or go without it with --no-store"
            ) from error

    def begin_session(self, session_id: str, source: str, model: str, now: datetime) -> None:
        """Note who listens to what; events refer to it."""
        self._write(
            "INSERT INTO session (id, began, source, model) VALUES (?, ?, ?, ?)",
            (session_id, _text(now), source, model),
        )

    def open_event(
        self, session_id: str, event_id: str, onset_s: float, start: datetime | None, now: datetime
    ) -> None:
        """Log a cry that has begun."""
        self._write(
            "INSERT INTO event (id, session_id, logged, start, onset_s) VALUES (?, ?, ?, ?, ?)",
            (event_id, session_id, _text(now), _text(start), onset_s),
        )

    def close_event(
        self,
        event_id: str,
        *,
        onset_s: float,
        offset_s: float,
        peak_probability: float,
        mean_probability: float,
        level_dbfs: float,
    ) -> None:
        """Complete a cry that `open_event` logged. Raises `StoreError` if there is no such one."""
        changed = self._write(
            "UPDATE event SET onset_s = ?, offset_s = ?, peak_probability = ?, "
            "mean_probability = ?, level_dbfs = ? WHERE id = ?",
            (onset_s, offset_s, peak_probability, mean_probability, level_dbfs, event_id),
        )
        if changed != 1:
            raise StoreError(f"the event log {self.path} has lost the event {event_id}")

    def count_lost(self, session_id: str, lost_samples: int) -> None:
        """Set how many samples the session has lost so far."""
        self._write("UPDATE session SET lost_samples = ? WHERE id = ?", (lost_samples, session_id))

    def end_session(self, session_id: str, now: datetime) -> None:
        """Note that the session ended in good order."""
        self._write("UPDATE session SET ended = ? WHERE id = ?", (_text(now), session_id))

    def probe(self) -> None:
        """Raise `StoreError` if the log cannot be written; changes nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"cannot write the event log {self.path} ({error})") from error

    def close(self) -> None:
        """Fold the write-ahead log in and close the file."""
        self._db.close()

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write the event log {self.path} ({error}); events are still reported, "
                "but not kept"
            ) from error


def read_events(path: Path, since: datetime | None = None) -> Iterator[StoredEvent]:
    """Every logged event, oldest first; with `since`, those whose time is not before it.

    The time of an event is its `start`, or when it was logged where that is unknown.
    Raises `InputError` if there is no log or it is not one.
    """
    if not path.is_file():
        raise InputError(
            f"no event log at {path}; run crykit listen first, or name another with --db"
        )
    try:
        with contextlib.closing(_connect(path)) as db:
            if _check_version(db, path) == 0:
                return  # a listener is just creating it
            for row in db.execute(_SELECT):
                event = _stored(row)
                if since is None or (event.start or event.logged) >= since:
                    yield event
    except (sqlite3.Error, StoreError) as error:
        raise InputError(f"cannot read the event log {path} ({error})") from error


def _stored(row: Any) -> StoredEvent:
    (ident, source, model, logged, start, *numbers) = row
    return StoredEvent(
        ident,
        source,
        model,
        datetime.fromisoformat(logged),
        None if start is None else datetime.fromisoformat(start),
        *numbers,
    )


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(f"{path} is the database of another program; choose another file")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}, this crykit reads up to {SCHEMA_VERSION}; upgrade crykit"
        )
    return version


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    _check_version(db, path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    # One transaction, the version read inside it: two listeners may start at once, and a crash
    # leaves either no schema or the whole one.
    db.execute("BEGIN IMMEDIATE")
    try:
        if _check_version(db, path) == 0:
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="milliseconds")

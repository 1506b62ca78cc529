"""The event log: SQLite, written so that a crash or a power cut keeps every cry that had begun.

An event is written when the gate opens and completed when it closes; each write is its own
transaction with `synchronous=FULL`. WAL lets others read while the listener writes. Every write
can be repeated: a second time it changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path

import platformdirs

from crykit_app.faults import StoreError, cannot_open, cannot_write, is_damaged
from crykit_app.schema import SCHEMA_VERSION, migrate, stamp

if sys.platform != "win32":
    import fcntl

FILE_NAME = "events.db"

OPENING_PATIENCE_S = 5.0
WRITING_PATIENCE_S = 2.0
"""How long a write waits for another program's lock: the ring holds ten seconds of sound."""


def default_data_dir(override: str | Path | None = None) -> Path:
    """Where the log lives: the argument, else CRYKIT_DATA_DIR, else the user's data folder."""
    chosen = override or os.environ.get("CRYKIT_DATA_DIR")
    return Path(chosen) if chosen else platformdirs.user_data_path("crykit", appauthor=False)


def default_path(data_dir: str | Path | None = None) -> Path:
    """The log's file under `default_data_dir`."""
    return default_data_dir(data_dir) / FILE_NAME


class EventStore:
    """The log, open for writing. Any thread may use it, but only one at a time.

    A log that is damaged is renamed to `set_aside`, never deleted, and a new one begun; `backup` is
    the copy that was made if the log had to be migrated. Both are None otherwise.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `path`. Raises `StoreError` if that cannot be done."""
        self.path = path
        self.set_aside: Path | None = None
        self.backup: Path | None = None
        self._db = self._open()

    def reopen(self) -> None:
        """Let go of a file that is damaged or was moved away, and open what is in its place.

        A damaged one is set aside. Raises `StoreError` if nothing can be opened.
        """
        self._db.close()
        self.set_aside = self.backup = None
        self._db = self._open()

    def be_patient(self, seconds: float) -> None:
        """Set how long a write waits for another program's lock."""
        self._db.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    def begin_session(
        self, session_id: str, source: str, model: str, now: datetime, kind: str | None = None
    ) -> None:
        """Note who listens to what; all else refers to it. `kind` is the source's."""
        self._write(
            "INSERT INTO session (id, began, source, model, kind) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (session_id, _text(now), source, model, kind),
        )

    def open_event(
        self, session_id: str, event_id: str, onset_s: float, start: datetime | None, now: datetime
    ) -> None:
        """Log a cry that has begun."""
        self._write(
            "INSERT INTO event (id, session_id, logged, start, onset_s) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
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

    def listened(self, session_id: str, began: datetime, until: datetime) -> None:
        """Note a stretch that was listened to, or move the end of one that is known."""
        self._write(
            "INSERT INTO listening (session_id, began, until) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET until = excluded.until",
            (session_id, _text(began), _text(until)),
        )

    def lost(self, session_id: str, position_s: float, at: datetime | None, lost_s: float) -> None:
        """Note that `lost_s` of sound went missing at `position_s`, or more of it than before."""
        self._write(
            "INSERT INTO lost_audio (session_id, position_s, at, lost_s) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET lost_s = excluded.lost_s",
            (session_id, position_s, _text(at), lost_s),
        )

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
            self._roll_back()
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Fold the write-ahead log in and close the file."""
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One at a time looks at the file, migrates it or sets it aside.
            with _alone(self.path):
                try:
                    db = self._open_sound()
                except sqlite3.DatabaseError as error:
                    if not is_damaged(error):
                        raise
                    self.set_aside = _set_aside(self.path)
                    db = self._open_sound()
            self._inode = self.path.stat().st_ino
            db.execute(f"PRAGMA busy_timeout = {round(1000 * WRITING_PATIENCE_S)}")
            return db
        except (OSError, sqlite3.Error) as error:
            raise cannot_open(self.path, error) from error

    def _open_sound(self) -> sqlite3.Connection:
        """Open and migrate; raises what `is_damaged` knows if the file is no sound log."""
        db = connect(self.path)
        try:
            check_sound(db)
            self.backup = migrate(db, self.path)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
        return db

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        fault: sqlite3.Error | None = None
        changed = 0
        try:
            changed = self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            self._roll_back()
            fault = error
        # Looked at after the write: what went into a file that is no longer the log is not kept.
        if self._moved_away():
            raise StoreError(
                f"the event log {self.path} was moved or deleted while it was open", replaced=True
            ) from fault
        if fault is not None:
            raise cannot_write(self.path, fault) from fault
        return changed

    def _moved_away(self) -> bool:
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")


def connect(path: Path | str, *, uri: bool = False) -> sqlite3.Connection:
    """A connection without implicit transactions."""
    db = sqlite3.connect(
        path, timeout=OPENING_PATIENCE_S, isolation_level=None, check_same_thread=False, uri=uri
    )
    db.execute("PRAGMA foreign_keys = ON")
    return db


def check_sound(db: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` with SQLITE_CORRUPT if a quick check finds a fault."""
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _set_aside(path: Path) -> Path:
    """Rename a damaged log, with what belongs to it; the last step is the log itself."""
    target = path.with_name(f"{path.stem}.damaged-{stamp()}{path.suffix}")
    for ending in ("-wal", "-shm", "-journal", ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{target}{ending}")
    return target


@contextlib.contextmanager
def _alone(path: Path) -> Generator[None]:
    """Hold a lock beside `path` that every opener takes; the system frees it if we die."""
    if sys.platform == "win32":
        yield
        return
    give_up = time.monotonic() + OPENING_PATIENCE_S
    with open(path.with_name(f".{path.name}.lock"), "ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise OSError("another crykit has been opening it for seconds") from None
                time.sleep(0.02)
        yield


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="milliseconds")

"""What the event log says, read while a listener may be writing it, or from a read-only disk."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from crykit.errors import InputError
from crykit_app.faults import StoreError, is_read_only, reason
from crykit_app.schema import SCHEMA_VERSION, check_version, upgrade
from crykit_app.store import connect

_EVENTS = """
SELECT event.id, session_id, source, kind, model, logged, start, onset_s, offset_s,
  peak_probability, mean_probability, level_dbfs
FROM event JOIN session ON session.id = session_id ORDER BY logged, event.id
"""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row of the log; `offset_s` and what follows are None for a cry that never closed."""

    id: str
    session_id: str
    source: str
    kind: str | None
    model: str
    logged: datetime
    start: datetime | None
    onset_s: float
    offset_s: float | None
    peak_probability: float | None
    mean_probability: float | None
    level_dbfs: float | None


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a listener. `ended` is None while it runs, and for ever if it broke off."""

    id: str
    began: datetime
    ended: datetime | None
    source: str
    kind: str | None
    model: str


@dataclass(frozen=True, slots=True)
class Listening:
    """A stretch in which sound was scored, on the wall clock."""

    session_id: str
    began: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class LostAudio:
    """Sound that never reached the engine; `at` is None where the moment is not known."""

    session_id: str
    at: datetime | None
    lost_s: float


@dataclass(frozen=True, slots=True)
class Logbook:
    """Everything in the log, as it stood at one moment."""

    sessions: dict[str, Session]
    events: list[StoredEvent]
    listening: list[Listening]
    lost: list[LostAudio]


def read_events(path: Path, since: datetime | None = None) -> Iterator[StoredEvent]:
    """Every logged event, oldest first; with `since`, those whose time is not before it.

    The time of an event is its `start`, or when it was logged where that is unknown.
    Raises `InputError` if there is no log or it is not one.
    """
    with _opened(path) as db:
        for event in _events(db):
            if since is None or (event.start or event.logged) >= since:
                yield event


def read_logbook(path: Path) -> Logbook:
    """All of the log at once. Raises `InputError` if there is none or it is not one."""
    with _opened(path) as db:
        db.execute("BEGIN")
        sessions = db.execute("SELECT id, began, ended, source, kind, model FROM session")
        listening = db.execute("SELECT session_id, began, until FROM listening ORDER BY rowid")
        lost = db.execute("SELECT session_id, at, lost_s FROM lost_audio ORDER BY rowid")
        return Logbook(
            {
                ident: Session(ident, _moment(began), _maybe_moment(ended), source, kind, model)
                for ident, began, ended, source, kind, model in sessions
            },
            list(_events(db)),
            [Listening(ident, _moment(began), _moment(until)) for ident, began, until in listening],
            [LostAudio(ident, _maybe_moment(at), lost_s) for ident, at, lost_s in lost],
        )


@contextlib.contextmanager
def _opened(path: Path) -> Generator[sqlite3.Connection]:
    """The log in this version's shape; one of an older version is upgraded in a copy in memory."""
    if not path.is_file():
        raise InputError(
            f"no event log at {path}; run crykit listen first, or name another with --db"
        )
    try:
        with contextlib.closing(_connect_to_read(path)) as db:
            version = check_version(db, path)
            if version == SCHEMA_VERSION:
                yield db
                return
            with contextlib.closing(connect(":memory:")) as copy:
                if version > 0:  # at 0, a listener is just creating it
                    db.backup(copy)
                upgrade(copy, path)
                yield copy
    except sqlite3.Error as error:
        raise InputError(f"cannot read the event log {path} ({reason(error)})") from error
    except StoreError as error:
        raise InputError(f"cannot read the event log {path} ({error})") from error


def _connect_to_read(path: Path) -> sqlite3.Connection:
    db = connect(path)
    try:
        check_version(db, path)
        return db
    except sqlite3.OperationalError as error:
        db.close()
        wal = path.with_name(f"{path.name}-wal")
        if not is_read_only(error) or (wal.exists() and wal.stat().st_size):
            raise
    # A disk that takes no shared-memory file: nobody can be writing there either.
    return connect(f"file:{quote(str(path.resolve()))}?immutable=1", uri=True)


def _events(db: sqlite3.Connection) -> Iterator[StoredEvent]:
    for row in db.execute(_EVENTS):
        (ident, session_id, source, kind, model, logged, start, *numbers) = row
        yield StoredEvent(
            ident,
            session_id,
            source,
            kind,
            model,
            _moment(logged),
            _maybe_moment(start),
            *numbers,
        )


def _moment(text: Any) -> datetime:
    return datetime.fromisoformat(text)


def _maybe_moment(text: Any) -> datetime | None:
    return None if text is None else _moment(text)

"""The event log: what is written survives, and what is read is what was written."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from crykit.errors import InputError
from crykit_app.store import (
    SCHEMA_VERSION,
    EventStore,
    StoreError,
    default_path,
    read_events,
)

NOW = datetime(2026, 11, 20, 3, 12, 44, 120_000, timezone(timedelta(hours=1)))
CLOSING = {
    "onset_s": 12.34,
    "offset_s": 20.1,
    "peak_probability": 0.98,
    "mean_probability": 0.91,
    "level_dbfs": -31.2,
}

WRITER = """
import sys
from datetime import datetime
from pathlib import Path
from crykit_app.store import EventStore

store = EventStore(Path(sys.argv[1]))
now = datetime.now().astimezone()
store.begin_session("session", "mic", "model", now)
number = 0
while True:
    store.open_event("session", f"{number:06}", float(number), now, now)
    print(f"opened {number}", flush=True)
    store.close_event(f"{number:06}", onset_s=float(number), offset_s=number + 1.0,
                      peak_probability=0.9, mean_probability=0.8, level_dbfs=-30.0)
    print(f"closed {number}", flush=True)
    number += 1
"""


def logged(path: Path, *starts: datetime | None) -> None:
    """A log with one finished event for each of `starts`, logged an hour apart."""
    store = EventStore(path)
    store.begin_session("s", "mic", "cry-student@sha256:ab", NOW)
    for index, start in enumerate(starts):
        now = NOW + timedelta(hours=index)
        store.open_event("s", f"e{index}", 12.0, start, now)
        store.close_event(f"e{index}", **CLOSING)
    store.end_session("s", NOW)
    store.close()


def test_an_event_is_in_the_log_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.db"
    store = EventStore(path)
    store.begin_session("s", "mic", "model", NOW)
    store.open_event("s", "e", 12.0, NOW, NOW)
    # Read by a second connection while the writer is still there.
    (event,) = read_events(path)
    assert (event.start, event.onset_s, event.offset_s) == (NOW, 12.0, None)
    store.close_event("e", **CLOSING)
    (event,) = read_events(path)
    assert (event.onset_s, event.offset_s, event.level_dbfs) == (12.34, 20.1, -31.2)
    assert event.start is not None and event.start.utcoffset() == timedelta(hours=1)


def test_the_log_is_a_wal_that_reaches_the_disk(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events.db")
    database = store._db
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


@pytest.mark.parametrize("lines_before_kill", [1, 2, 9, 40])
def test_kill_9_loses_nothing_that_was_reported(tmp_path: Path, lines_before_kill: int) -> None:
    path = tmp_path / "events.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    seen = [writer.stdout.readline() for _ in range(lines_before_kill)]
    writer.send_signal(signal.SIGKILL)
    seen += writer.stdout.readlines()
    assert writer.wait() == -signal.SIGKILL

    EventStore(path).close()  # a new listener opens what the dead one left
    found = {event.id: event for event in read_events(path)}
    for line in seen:
        what, number = line.split()
        event = found[f"{int(number):06}"]
        assert event.onset_s == int(number)
        if what == "closed":
            assert event.offset_s == int(number) + 1
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_listeners_may_start_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    script = (
        "import sys; from pathlib import Path; from crykit_app.store import EventStore;"
        "EventStore(Path(sys.argv[1])).close()"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(3)]
    assert [process.wait() for process in both] == [0, 0, 0]


def test_since_goes_by_the_start_or_by_when_it_was_logged(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    logged(path, NOW, None, NOW + timedelta(hours=2))
    assert [event.id for event in read_events(path)] == ["e0", "e1", "e2"]
    later = NOW + timedelta(minutes=30)
    assert [event.id for event in read_events(path, later)] == ["e1", "e2"]
    assert list(read_events(path, NOW + timedelta(hours=3))) == []


def test_a_newer_log_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    logged(path, NOW)
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(StoreError, match="upgrade crykit"):
        EventStore(path)
    with pytest.raises(InputError, match="upgrade crykit"):
        list(read_events(path))


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE photos (id)")
    other.commit()
    with pytest.raises(StoreError, match="another program"):
        EventStore(path)
    with pytest.raises(InputError, match="another program"):
        list(read_events(path))
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("photos",)]


def test_what_is_no_log_is_said(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(b"not a database, but long enough to look at" * 40)
    with pytest.raises(StoreError, match="cannot open the event log"):
        EventStore(path)
    with pytest.raises(InputError, match="cannot read"):
        list(read_events(path))
    with pytest.raises(InputError, match="no event log"):
        list(read_events(tmp_path / "absent.db"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot open"):
        EventStore(tmp_path / "file" / "events.db")


def test_closing_an_unknown_event_is_an_error(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events.db")
    with pytest.raises(StoreError, match="has lost the event"):
        store.close_event("never", **CLOSING)


def test_the_folder_is_the_argument_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYKIT_DATA_DIR", str(tmp_path / "env"))
    assert default_path() == tmp_path / "env" / "events.db"
    assert default_path(tmp_path / "given") == tmp_path / "given" / "events.db"
    monkeypatch.delenv("CRYKIT_DATA_DIR")
    assert default_path().parent.name == "crykit"


def test_events_command_prints_lines_csv_and_a_table(tmp_path: Path, run_cli) -> None:
    path = tmp_path / "events.db"
    logged(path, NOW, None)
    lines = run_cli("events", "--db", path).stdout.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first == {
        "schema_version": 1,
        "type": "cry",
        "id": "e0",
        "source": "mic",
        "start": "2026-11-20T03:12:44.120+01:00",
        **CLOSING,
        "reasons": {"evidence": "none", "probabilities": None},
        "model": "cry-student@sha256:ab",
    }
    assert second["start"] is None
    rows = run_cli("events", "--db", path, "--format", "csv").stdout.decode().splitlines()
    assert rows[0].startswith("source,start,onset_s") and len(rows) == 3
    table = run_cli("events", "--db", path, "--format", "table").stdout.decode()
    assert "0:07" in table and "-31 dBFS" in table
    since = run_cli("events", "--db", path, "--since", "2026-11-20T04:00:00+01:00")
    assert [json.loads(line)["id"] for line in since.stdout.splitlines()] == ["e1"]


def test_events_command_with_bad_input(tmp_path: Path, run_cli) -> None:
    missing = run_cli("events", "--db", tmp_path / "none.db")
    assert missing.returncode == 3 and b"no event log" in missing.stderr
    assert run_cli("events", "--since", "soon").returncode == 2

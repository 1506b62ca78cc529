"""The event log: what is written survives, and what is read is what was written."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from crykit.errors import InputError
from crykit_app import store as store_module
from crykit_app.faults import StoreError
from crykit_app.logbook import read_events, read_logbook
from crykit_app.retention import prune
from crykit_app.schema import KEPT_BACKUPS, SCHEMA_VERSION, backups
from crykit_app.store import EventStore, default_path

NOW = datetime(2026, 11, 20, 3, 12, 44, 120_000, timezone(timedelta(hours=1)))
IN = NOW.isoformat(timespec="milliseconds")
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


@pytest.mark.parametrize("found", ["nothing", "a log of the first version", "a damaged log"])
def test_several_listeners_may_start_at_once(tmp_path: Path, found: str) -> None:
    path = tmp_path / "events.db"
    if found != "nothing":
        (version_1 if "version" in found else no_database)(path)
    script = (
        "import sys; from pathlib import Path; from crykit_app.store import EventStore;"
        "store = EventStore(Path(sys.argv[1]));"
        "print(bool(store.set_aside), bool(store.backup))"
    )
    command = [sys.executable, "-c", script, str(path)]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = sorted(process.communicate()[0].strip() for process in starts)
    one = {"nothing": "False False", "a damaged log": "True False"}.get(found, "False True")
    assert told == sorted([one, "False False", "False False"])


def test_an_opener_that_hangs_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "OPENING_PATIENCE_S", 0.1)
    with open(tmp_path / ".events.db.lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another crykit has been opening it"):
            EventStore(tmp_path / "events.db")
    EventStore(tmp_path / "events.db").close()


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


def test_a_missing_or_misplaced_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no event log"):
        list(read_events(tmp_path / "absent.db"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot open"):
        EventStore(tmp_path / "file" / "events.db")


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to look at" * 40)


def zeros_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 4 * 4096] = bytes(3 * 4096)
    path.write_bytes(data)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 3 * 4096 + 100])


@pytest.mark.parametrize("damage", [no_database, zeros_in_the_middle, torn])
def test_a_damaged_log_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "events.db"
    logged(path, *[NOW] * 200)
    damage(path)
    broken = path.read_bytes()
    store = EventStore(path)
    assert store.set_aside is not None and store.set_aside.read_bytes() == broken
    assert store.set_aside.name.startswith("events.damaged-20")
    store.begin_session("new", "mic", "model", NOW)
    store.open_event("new", "first", 1.0, NOW, NOW)
    store.close()
    assert [event.id for event in read_events(path)] == ["first"]
    assert EventStore(path).set_aside is None
    no_database(path)
    EventStore(path).close()
    assert len(list(tmp_path.glob("events.damaged-*.db"))) == 2  # neither is ever deleted


def test_reading_a_damaged_log_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    no_database(path)
    with pytest.raises(InputError, match="it is damaged"):
        list(read_events(path))
    assert [file.name for file in tmp_path.iterdir()] == ["events.db"]


# The log's tables as the first release made them.
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
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
INSERT INTO session VALUES ('good', '2026-11-19T20:00:00.000+01:00',
  '2026-11-20T06:00:00.000+01:00', 'mic', 'cry-student@sha256:ab', 24000);
INSERT INTO session VALUES ('cut', '2026-11-20T20:00:00.000+01:00', NULL, 'mic', 'm', 0);
INSERT INTO event VALUES ('e1', 'good', '2026-11-20T03:12:45.000+01:00',
  '2026-11-20T03:12:44.120+01:00', 25964.12, 25970.0, 0.98, 0.91, -31.2);
INSERT INTO event VALUES ('e2', 'cut', '2026-11-20T23:00:00.000+01:00',
  '2026-11-20T22:59:59.000+01:00', 10799.0, NULL, NULL, NULL, NULL);
"""


def version_1(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)


def schema_of(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        query = "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name"
        return db.execute(query).fetchall()


def test_a_log_of_the_first_version_is_backed_up_and_migrated(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    version_1(path)
    before = list(read_events(path))  # reading needs no migration, and makes none
    assert [event.offset_s for event in before] == [25970.0, None]
    assert read_logbook(path).listening[1].until == before[1].logged
    assert [file.name for file in tmp_path.iterdir()] == ["events.db"]

    store = EventStore(path)
    store.close()
    assert list(read_events(path)) == before
    book = read_logbook(path)
    assert [(stretch.session_id, stretch.until - stretch.began) for stretch in book.listening] == [
        ("good", timedelta(hours=10)),
        ("cut", timedelta(hours=3)),
    ]
    assert [(loss.at, loss.lost_s) for loss in book.lost] == [(None, 1.5)]
    EventStore(tmp_path / "fresh.db").close()
    assert schema_of(path) == schema_of(tmp_path / "fresh.db")

    assert store.backup is not None and store.backup.name.startswith("events.backup-v1-")
    with contextlib.closing(sqlite3.connect(store.backup)) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert copy.execute("SELECT count(*) FROM event").fetchone() == (2,)
    assert EventStore(path).backup is None  # once is enough


def test_an_older_listener_may_go_on_writing_a_migrated_log(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    version_1(path)
    older = sqlite3.connect(path, isolation_level=None)
    EventStore(path).close()
    session = "INSERT INTO session (id, began, source, model) VALUES ('o', ?, 'mic', 'm')"
    older.execute(session, (IN,))
    event = "INSERT INTO event (id, session_id, logged, onset_s) VALUES ('e', 'o', ?, 1)"
    older.execute(event, (IN,))
    older.close()
    assert {event.id for event in read_events(path)} == {"e1", "e2", "e"}


def test_only_the_last_backups_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    made = []
    for _ in range(KEPT_BACKUPS + 2):
        for file in tmp_path.glob("events.db*"):
            file.unlink()
        version_1(path)
        store = EventStore(path)
        store.close()
        made.append(store.backup)
    assert backups(path) == made[-KEPT_BACKUPS:]


def test_a_migration_that_has_no_room_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    version_1(path)
    before = path.read_bytes()
    # No file may grow over 4 kB: what a full disk does to the backup.
    script = (
        "import resource, signal, sys; from pathlib import Path;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from crykit_app.store import EventStore; EventStore(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert "cannot open the event log" in done.stderr
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*backup*")) and not list(tmp_path.glob("*.part"))
    assert [event.id for event in read_events(path)] == ["e1", "e2"]


def lock(store: EventStore) -> Callable[[], object]:
    other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    store.be_patient(0.05)
    return other.close


def fill(store: EventStore) -> Callable[[], object]:
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: store._db.execute("PRAGMA max_page_count = 1000000")


def forbid(store: EventStore) -> Callable[[], object]:
    store._db.execute("PRAGMA query_only = ON")
    return lambda: store._db.execute("PRAGMA query_only = OFF")


TROUBLES = [
    (lock, "another program has locked it"),
    (fill, "the disk is full"),
    (forbid, "read-only"),
]


@pytest.mark.parametrize(("trouble", "words"), TROUBLES)
def test_each_trouble_is_called_by_its_name_and_costs_nothing_that_was_written(
    tmp_path: Path, trouble: Callable[[EventStore], Callable[[], object]], words: str
) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path)
    store.begin_session("s", "mic", "m", NOW)
    written = 0

    def write() -> None:
        nonlocal written
        store.open_event("s", f"e{written:04}", 1.0, NOW, NOW)
        written += 1

    write()
    heal = trouble(store)
    with pytest.raises(StoreError, match=words) as caught:
        for _ in range(500):
            write()
    assert str(caught.value).count("\n") == 0 and not caught.value.replaced
    assert len(list(read_events(path))) == written
    heal()
    write()
    assert len(list(read_events(path))) == written


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_log_that_was_taken_away_is_noticed_at_the_next_write(tmp_path: Path, how: str) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path)
    if how == "moved":
        path.rename(tmp_path / "elsewhere.db")
    else:
        path.unlink()
    with pytest.raises(StoreError, match="moved or deleted") as caught:
        store.begin_session("s", "mic", "m", NOW)
    assert caught.value.replaced
    store.reopen()
    store.begin_session("s", "mic", "m", NOW)
    assert list(read_logbook(path).sessions) == ["s"]


def test_a_write_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path)
    for _ in range(2):
        store.begin_session("s", "mic", "m", NOW, "microphone")
        store.open_event("s", "e", 12.0, NOW, NOW)
        store.close_event("e", **CLOSING)
        store.listened("s", NOW, NOW + timedelta(minutes=1))
        store.lost("s", 5.0, NOW, 0.5)
    store.listened("s", NOW, NOW + timedelta(minutes=2))
    store.lost("s", 5.0, NOW, 0.75)
    book = read_logbook(path)
    assert [event.offset_s for event in book.events] == [20.1]
    assert [(stretch.began, stretch.until) for stretch in book.listening] == [
        (NOW, NOW + timedelta(minutes=2))
    ]
    assert [loss.lost_s for loss in book.lost] == [0.75]
    assert book.sessions["s"].kind == "microphone"


def without_override() -> None:
    """Give up what lets root write to files that nobody may write."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    logged(folder / "events.db", NOW)
    for file in folder.glob("events.db-*"):
        file.unlink()
    for file in (*folder.iterdir(), folder):
        file.chmod(0o555 if file.is_dir() else 0o444)
    crykit = Path(sys.executable).with_name("crykit")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [crykit, *words, "--data-dir", folder],
            capture_output=True,
            text=True,
            preexec_fn=without_override,
        )

    read = run("events", "--format", "jsonl")
    assert read.returncode == 0 and json.loads(read.stdout)["id"] == "e0", read.stderr
    write = run("doctor", "--format", "json")
    (finding,) = (c for c in json.loads(write.stdout)["checks"] if c["check"] == "event log")
    assert not finding["ok"] and "read-only" in finding["detail"]
    folder.chmod(0o755)


def test_a_locked_log_is_not_read_past_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.db"
    logged(path, NOW)
    monkeypatch.setattr(store_module, "OPENING_PATIENCE_S", 0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="another program has locked it"):
            list(read_events(path))
    assert len(list(read_events(path))) == 1


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


def long_log(path: Path, days: int, a_day: int) -> datetime:
    """Finished events, the newest an hour ago; returns the moment of the oldest."""
    store = EventStore(path)
    store.close()
    newest = datetime.now().astimezone() - timedelta(hours=1)
    with contextlib.closing(sqlite3.connect(path)) as db:
        for day in range(days):
            when = newest - timedelta(days=day)
            text = when.isoformat(timespec="milliseconds")
            session = "INSERT INTO session VALUES (?, ?, ?, 'mic', 'm', 0, NULL)"
            db.execute(session, (f"s{day}", text, text))
            db.execute("INSERT INTO listening VALUES (?, ?, ?)", (f"s{day}", text, text))
            db.execute("INSERT INTO lost_audio VALUES (?, 0, ?, 0.5)", (f"s{day}", text))
            rows = [(f"{day}-{n}", f"s{day}", text, text) for n in range(a_day)]
            insert = "INSERT INTO event VALUES (?, ?, ?, ?, 1.0, 2.0, 0.9, 0.8, -30.0)"
            db.executemany(insert, rows)
        db.commit()
    return newest - timedelta(days=days - 1)


def test_prune_by_age_forgets_all_of_a_day_and_nothing_younger(tmp_path: Path, run_cli) -> None:
    path = tmp_path / "events.db"
    long_log(path, 30, 4)
    done = run_cli("events", "--db", path, "--prune", "--keep-days", "10")
    assert done.returncode == 0 and done.stdout == b""
    assert b"forgot 80 events, kept 40" in done.stderr and done.stderr.count(b"\n") == 1
    book = read_logbook(path)
    assert {event.session_id for event in book.events} == {f"s{day}" for day in range(10)}
    assert len(book.sessions) == len(book.listening) == len(book.lost) == 10
    again = run_cli("events", "--db", path, "--prune", "--keep-days", "10")
    assert b"forgot 0 events, kept 40" in again.stderr


def test_prune_by_size_forgets_the_oldest_while_a_listener_writes(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    long_log(path, 40, 500)
    before = path.stat().st_size
    assert before > 2_000_000
    listener = EventStore(path)
    listener.begin_session("now", "mic", "m", NOW)
    listener.open_event("now", "open", 1.0, None, datetime.now().astimezone())
    pruned = prune(path, max_bytes=1_000_000)
    assert 0.8e6 < pruned.size_bytes <= 1e6 and path.stat().st_size <= 1e6
    listener.close_event("open", **CLOSING)
    days = {event.session_id for event in read_events(path)}
    assert days == {"now", *(f"s{day}" for day in range(len(days) - 1))}
    assert pruned.events + pruned.events_left == 20_001


@pytest.mark.parametrize(
    "words", [["--prune"], ["--keep-days", "3"], ["--prune", "--keep-days", "0"]]
)
def test_prune_must_be_told_what_to_keep(tmp_path: Path, run_cli, words: list[str]) -> None:
    path = tmp_path / "events.db"
    logged(path, NOW)
    assert run_cli("events", "--db", path, *words).returncode == 2
    assert len(list(read_events(path))) == 1
    missing = run_cli("events", "--db", tmp_path / "no.db", "--prune", "--keep-days", "3")
    assert missing.returncode == 3

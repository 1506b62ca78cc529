"""What a session leaves in the event log while the log fails, and while nothing is heard."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from crykit.events import CryEvent, CryStarted
from crykit_app import ledger as ledger_module
from crykit_app.ledger import Ledger
from crykit_app.logbook import Logbook, read_logbook
from crykit_app.messages import CryBegan, CryEnded, Message, StoreRecovered, StoreTrouble
from crykit_app.sources import GeneratedSource
from crykit_app.store import EventStore
from crykit_app.stretches import Stretches

EVENING = datetime(2026, 11, 20, 20, 0, tzinfo=timezone(timedelta(hours=1)))


def later(seconds: float) -> datetime:
    return EVENING + timedelta(seconds=seconds)


class Night:
    """A microphone's session, with both clocks in the test's hand."""

    def __init__(self, path: Path, kind: str = "microphone", started_at=None) -> None:
        self.path = path
        self.store = EventStore(path)
        self.wall = EVENING
        self.position_s = 0.0
        self.told: list[Message] = []
        source = GeneratedSource(
            "mic", lambda _: [np.zeros(1, np.float32)], kind=kind, started_at=started_at
        )
        self.ledger = Ledger(self.store, source, "model", self.told.append, lambda: self.wall)
        self.ledger.begin()
        self._cries = 0

    def listen(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.wall += timedelta(seconds=1)
            self.position_s += 1
            self.ledger.heard(self.position_s)

    def cry(self) -> None:
        name, onset = f"cry{self._cries}", self.position_s
        self._cries += 1
        self.ledger.cry_began(CryBegan(CryStarted(name, onset, onset + 0.5, 0.9), self.wall))
        self.ledger.cry_ended(
            CryEnded(CryEvent(name, onset, onset + 3, 0.9, 0.8, -30.0), self.wall)
        )

    def book(self) -> Logbook:
        return read_logbook(self.path)

    def whole_cries(self) -> list[str]:
        return [event.id for event in self.book().events if event.offset_s is not None]

    @property
    def states(self) -> list[str]:
        return [m.state for m in self.told if isinstance(m, StoreTrouble | StoreRecovered)]


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    # The test's clock runs fast: every look at the log is one that is due.
    monkeypatch.setattr(ledger_module, "SIGN_OF_LIFE_S", 0.0)
    monkeypatch.setattr(ledger_module, "RETRY_S", 0.0)
    return Night(tmp_path / "events.db")


def lock(night: Night) -> Callable[[], object]:
    other = sqlite3.connect(night.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    night.store.be_patient(0.05)
    return other.close


def fill(night: Night) -> Callable[[], object]:
    database = night.store._db
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: database.execute("PRAGMA max_page_count = 1000000")


def forbid(night: Night) -> Callable[[], object]:
    night.store._db.execute("PRAGMA query_only = ON")
    return lambda: night.store._db.execute("PRAGMA query_only = OFF")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [(lock, "locked"), (fill, "the disk is full"), (forbid, "read-only")],
)
def test_what_the_log_refuses_is_told_once_and_written_later(
    night: Night, trouble: Callable[[Night], Callable[[], object]], words: str
) -> None:
    night.listen(10)
    night.cry()
    heal = trouble(night)
    for _ in range(150 if trouble is fill else 3):
        night.listen(2)
        night.cry()
    (told,) = (m for m in night.told if isinstance(m, StoreTrouble))
    assert words in told.reason and "kept in memory" in told.reason
    heal()
    night.listen(2)
    assert night.states == ["log_failing", "log_recovered"]
    night.listen(10)
    night.ledger.end()
    assert night.whole_cries() == [f"cry{n}" for n in range(night._cries)]
    (stretch,) = night.book().listening
    assert (stretch.began, stretch.until) == (EVENING, night.wall)


def test_a_log_that_never_comes_back_is_owned_up_to(night: Night) -> None:
    night.cry()
    forbid(night)
    night.cry()
    night.cry()
    night.ledger.end()
    assert night.states == ["log_failing", "log_failing"]
    assert "read-only" in str(night.told[-1]) and "2 cries are not kept" in str(night.told[-1])
    assert night.whole_cries() == ["cry0"]


def test_what_waits_is_bounded_and_what_was_too_much_is_told(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_WAITING", 6)
    heal = forbid(night)
    for _ in range(5):
        night.cry()
    heal()
    night.cry()
    assert "4 writes were too many" in str(night.told[-1])
    assert night.whole_cries() == ["cry0", "cry1", "cry2", "cry5"]


@pytest.mark.parametrize("how", ["damaged", "moved", "deleted"])
def test_a_log_that_is_spoilt_in_mid_session_is_replaced(night: Night, how: str) -> None:
    night.listen(60)
    night.cry()
    night.ledger.cry_began(CryBegan(CryStarted("long", 60.0, 60.5, 0.9), night.wall))
    if how == "damaged":
        night.store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        night.store._db.execute("PRAGMA cache_size = 0")
        with open(night.path, "r+b") as file:
            file.write(b"\xa5" * night.path.stat().st_size)
        night.store._db.execute("PRAGMA shrink_memory")
    elif how == "moved":
        night.path.rename(night.path.with_name("elsewhere.db"))
    else:
        night.path.unlink()
    night.listen(60)
    night.ledger.cry_ended(
        CryEnded(CryEvent("long", 60.0, 100.0, 0.9, 0.8, -30.0), EVENING + timedelta(seconds=60))
    )
    night.cry()
    night.ledger.end()
    # What was in the old file is still there; the session, its stretch and the open cry go on.
    assert night.states == ["log_set_aside"]
    assert night.whole_cries() == ["long", "cry1"]
    book = night.book()
    (session,) = book.sessions.values()
    assert session.ended == night.wall
    assert [(s.began, s.until) for s in book.listening] == [(EVENING, night.wall)]
    assert len(list(night.path.parent.glob("events.damaged-*.db"))) == (how == "damaged")


def test_a_disk_that_spoils_every_log_is_not_filled_with_them(night: Night) -> None:
    for _ in range(4):
        night.path.unlink(missing_ok=True)
        night.listen(2)
    assert night.states == ["log_set_aside", "log_failing"]


def test_losses_within_a_minute_are_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(tmp_path / "events.db")
    total = 0
    for _ in range(90):
        night.listen(1)
        total += 1600
        night.ledger.lost(night.position_s, 0.1, total)
    night.ledger.end()
    losses = night.book().lost
    assert [round(loss.lost_s, 3) for loss in losses] == [6.0, 3.0]
    assert [loss.at for loss in losses] == [later(1), later(61)]
    with sqlite3.connect(night.path) as database:
        assert database.execute("SELECT lost_samples FROM session").fetchone() == (total,)


def test_a_pause_of_the_machine_is_a_gap_in_what_was_listened_to(night: Night) -> None:
    night.listen(100)
    night.wall += timedelta(hours=2)  # it slept
    night.listen(100)
    night.wall -= timedelta(hours=1)  # the clock was set back
    night.listen(100)
    night.ledger.end()
    spans = [(s.began, s.until) for s in night.book().listening]
    assert spans == [
        (later(0), later(100)),
        (later(7300), later(7400)),
        (later(3800), later(3900)),
    ]


def test_the_two_clocks_may_differ_by_a_little() -> None:
    stretches = Stretches(EVENING)
    for second in range(1, 1000):
        assert stretches.heard(later(second + second % 3), float(second)) is None
    stretch = stretches.current
    assert stretch is not None and stretch.began == later(1)


def test_a_sound_card_may_be_slow_for_months_but_not_starved() -> None:
    slow = Stretches(EVENING)
    assert not [n for n in range(1, 50_000) if slow.heard(later(n), n * 0.9995)]
    starved = Stretches(EVENING)
    over = [stretch for n in range(1, 500) if (stretch := starved.heard(later(n), n * 0.5))]
    heard_s = sum((stretch.until - stretch.began).total_seconds() for stretch in over)
    assert heard_s == pytest.approx(250, rel=0.05)


def test_a_pipe_that_is_read_faster_than_time_began_no_earlier_than_the_session() -> None:
    stretches = Stretches(EVENING)
    stretches.heard(later(1), 3600.0)
    assert stretches.current is not None and stretches.current.began == EVENING


def test_a_recording_is_listened_to_when_it_was_made_or_never(tmp_path: Path) -> None:
    recorded = EVENING - timedelta(days=3)
    known = Night(tmp_path / "known.db", kind="file", started_at=recorded)
    known.listen(50)
    known.ledger.end()
    (stretch,) = known.book().listening
    assert (stretch.began, stretch.until) == (recorded, recorded + timedelta(seconds=50))
    unknown = Night(tmp_path / "unknown.db", kind="file")
    unknown.listen(50)
    unknown.ledger.end()
    assert unknown.book().listening == []


def test_a_damaged_log_is_one_line_and_a_status(
    bundle_path: Path, sound_file: Path, tmp_path: Path, run_cli
) -> None:
    (tmp_path / "events.db").write_bytes(b"something else, and long enough" * 400)
    done = run_cli(
        *("listen", "--headless", "--model", bundle_path, "--data-dir", tmp_path),
        *("--input", sound_file, "--speed", "max", "--start", "2026-11-20T03:00:00+01:00"),
        *("--on-threshold", "1e-9", "--off-threshold", "1e-9"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"\n") == 1 and b"set aside as" in done.stderr
    first = json.loads(done.stdout.splitlines()[0])
    assert (first["type"], first["state"]) == ("status", "log_set_aside")
    book = read_logbook(tmp_path / "events.db")
    assert len(book.events) == 1
    (stretch,) = book.listening
    assert (stretch.until - stretch.began).total_seconds() == pytest.approx(12, abs=0.2)

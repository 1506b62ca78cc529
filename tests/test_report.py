"""The night report: true to the log, whatever the night was, and readable without anything else."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Cli

from crykit.errors import UsageError
from crykit_app.logbook import read_logbook
from crykit_app.report import tables, words
from crykit_app.report.chronicle import Chronicle
from crykit_app.report.facts import Night
from crykit_app.report.page import as_html
from crykit_app.report.period import chosen_period, last_night, night_at, night_of
from crykit_app.report.spans import Span, joined, without
from crykit_app.report.trends import month_to, week_change
from crykit_app.store import EventStore

MODEL = "cry-student@sha256:ab12cd34ef56"


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch):
    """Local time is Berlin's: clocks go back on 25 October and forward on 29 March 2026."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> datetime:
    """`20 23:15` of November 2026, or any whole ISO time, on the local clock."""
    return datetime.fromisoformat(text if "-" in text else f"2026-11-{text}:00").astimezone()


NOON_AFTER = at("2026-11-21T12:00:00")


class Log:
    """An event log by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = EventStore(path)
        self.store._db.execute("PRAGMA synchronous = OFF")
        self._count = 0

    def session(
        self, *stretches: tuple[str, str], ended: bool = True, kind: str = "microphone"
    ) -> str:
        """One run of the listener over these stretches."""
        name = f"s{self._count}"
        self._count += 1
        began = at(stretches[0][0]) if stretches else at("20 19:00")
        self.store.begin_session(name, "USB <mic> & co", MODEL, began, kind)
        for begin, end in stretches:
            self.store.listened(name, at(begin), at(end))
        if ended and stretches:
            self.store.end_session(name, at(stretches[-1][1]))
        return name

    def cry(self, session: str, begin: datetime, seconds: float | None, level=-30.0, **kw) -> None:
        """A cry; without a length, its end was never written."""
        name = f"e{self._count:06}"
        self._count += 1
        start = kw.get("start", begin)
        self.store.open_event(session, name, 100.0, start, begin + timedelta(seconds=1))
        if seconds is not None:
            self.store.close_event(
                name,
                onset_s=100.0,
                offset_s=100.0 + seconds,
                peak_probability=0.9,
                mean_probability=0.8,
                level_dbfs=level,
            )

    def chronicle(self, now: datetime = NOON_AFTER) -> Chronicle:
        return Chronicle(read_logbook(self.path), now)

    def night(self, day: str = "2026-11-20", now: datetime = NOON_AFTER) -> Night:
        return self.chronicle(now).night(night_of(date.fromisoformat(day)))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "events.db")


def page(log: Log, day: str = "2026-11-20", now: datetime = NOON_AFTER) -> str:
    chronicle = log.chronicle(now)
    night = date.fromisoformat(day)
    text = as_html(chronicle.night(night_of(night)), month_to(chronicle, night)).decode()
    check_page(text)
    return text


def check_page(text: str) -> None:
    """Well-formed, and nothing in it runs or asks for anything."""
    ElementTree.fromstring(re.sub(r"<!doctype html>|<meta [^>]*>", "", text))
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)| on\w+=|javascript:", text)
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text
    assert "NaN" not in text and "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", text)
    assert words.NO_DEVICE in text and words.NO_REASON in text
    idents = re.findall(r'id="([^"]+)"', text)
    assert len(idents) == len(set(idents)), "each picture has patterns of its own"


def ordinary(log: Log) -> Log:
    """Three bouts, twenty minutes in which the machine slept, and some lost audio."""
    session = log.session(("20 19:30", "21 03:00"), ("21 03:20", "21 06:45"))
    for begin, seconds in (("20 22:00", 60), ("20 22:03", 30), ("21 01:30", 120), ("21 04:00", 45)):
        log.cry(session, at(begin), seconds, level=-40.0 if seconds == 45 else -25.5)
    log.store.lost(session, 20_000.0, at("21 01:00"), 2.4)
    return log


def test_the_figures_of_an_ordinary_night(log: Log) -> None:
    night = ordinary(log).night()
    assert (len(night.cries), len(night.bouts), night.crying_s) == (4, 3, 255.0)
    assert night.bouts[0].span == Span(at("20 22:00"), at("20 22:03") + timedelta(seconds=30))
    assert (night.bouts[0].cries, night.bouts[0].crying_s) == (2, 90.0)
    assert night.longest_quiet == Span(at("20 22:03") + timedelta(seconds=30), at("21 01:30"))
    assert night.listened_s == 7.5 * 3600 + 3 * 3600 + 25 * 60
    (gap,) = night.gaps
    assert gap.span == Span(at("21 03:00"), at("21 03:20")) and "the machine slept" in gap.why
    assert (night.lost_s, night.loudest_dbfs, night.median_dbfs) == (2.4, -25.5, -25.5)
    assert not (night.clock_set_back or night.still_listening or night.open_cries)
    assert night.models == [MODEL]


def test_the_page_of_an_ordinary_night(log: Log) -> None:
    text = page(ordinary(log))
    for expected in (
        "Night of Friday 20 to Saturday 21 November 2026",
        "4 cries in 3 bouts, 4 min 15 s of crying.",
        "For 20 min nothing listened.",
        "2 s of audio was lost",
        "22:03 to 01:30",
        "03:00 to 03:20 (20 min): no sound came in",
        MODEL,
        "USB &lt;mic&gt; &amp; co",
        "-26 dBFS",
    ):
        assert expected in text, expected
    assert text.count('class="cry"') == 2 * 4 + 1  # narrow, wide, and the legend
    assert len(text) < 60_000


def test_json_and_csv_hold_the_same(log: Log) -> None:
    chronicle = ordinary(log).chronicle()
    night, month = (
        chronicle.night(night_of(date(2026, 11, 20))),
        month_to(chronicle, date(2026, 11, 20)),
    )
    document = json.loads(tables.as_json(night, month))
    assert document["totals"]["crying_s"] == 255.0 and document["totals"]["bouts"] == 3
    assert document["totals"]["longest_quiet"]["length_s"] == 12390.0
    assert document["start"] == "2026-11-20T12:00:00+01:00"
    assert document["lost_audio"] == [{"at": "2026-11-21T01:00:00+01:00", "lost_s": 2.4}]
    assert len(document["nights"]) == 30 and document["nights"][-1]["night"] == "2026-11-20"
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(night, month).decode())))
    kinds = [row["kind"] for row in rows]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {
        **{"cry": 4, "bout": 3, "listening": 2, "not_listening": 1, "lost_audio": 1},
        "night": 30,
    }
    assert rows[0]["start"] == document["cries"][0]["start"] == "2026-11-20T22:00:00+01:00"
    assert sum(float(row["length_s"]) for row in rows if row["kind"] == "cry") == 255.0


def test_a_night_with_nothing_in_it_claims_nothing(log: Log) -> None:
    text = page(log)
    assert "Nothing listened. That no cry is shown here says nothing about the night." in text
    assert "<svg" not in text and "Longest quiet" not in text
    night = log.night()
    assert night.longest_quiet is None and night.gaps == [] and night.listened_s == 0


def test_a_quiet_night(log: Log) -> None:
    log.session(("20 20:00", "21 06:00"))
    assert "No cry was heard in 10 h of listening." in page(log)
    assert log.night().longest_quiet == Span(at("20 20:00"), at("21 06:00"))


def test_one_cry_without_end_over_all_the_night(log: Log) -> None:
    session = log.session(("20 11:00", "21 13:00"))
    log.cry(session, at("20 11:30"), 25 * 3600)
    night = log.night(now=at("21 14:00"))
    assert night.crying_s == night.listened_s == night.period.seconds == 24 * 3600
    assert night.longest_quiet is None and len(night.bouts) == 1
    page(log)
    # The same cry is in the nights before and after, with what of it was theirs.
    assert log.night("2026-11-19", now=at("21 14:00")).crying_s == 1800
    assert log.night("2026-11-21", now=at("21 14:00")).crying_s == 1800


def test_cries_over_midnight_and_over_noon(log: Log) -> None:
    session = log.session(("20 11:00", "21 13:00"))
    log.cry(session, at("20 23:59"), 120)
    log.cry(session, at("21 11:59"), 120)
    now = at("22 00:00")
    assert log.night(now=now).crying_s == 120 + 60
    assert log.night("2026-11-21", now=now).crying_s == 60


@pytest.mark.parametrize(
    ("day", "hours", "words_said"),
    [
        ("2026-10-24", 25, "back: one hour came twice. Noon to noon, this night had 25 hours"),
        ("2026-03-28", 23, "forward: one hour was skipped. Noon to noon, this night had 23 hours"),
        ("2026-11-20", 24, None),
    ],
)
def test_nights_in_which_the_clocks_change(
    log: Log, day: str, hours: int, words_said: str | None
) -> None:
    evening = date.fromisoformat(day)
    period = night_of(evening)
    assert period.seconds == hours * 3600
    session = log.session((f"{day}T20:00:00", f"{evening + timedelta(days=1)}T07:00:00"))
    # Half an hour before and after the clocks change, at 01:00 UTC.
    change = datetime.fromisoformat(f"{evening + timedelta(days=1)}T01:00:00+00:00")
    log.cry(session, change - timedelta(minutes=30), 60)
    log.cry(session, change + timedelta(minutes=30), 60)
    now = period.end + timedelta(hours=1)
    night = log.night(day, now)
    assert night.listened_s == (hours - 13) * 3600
    text = page(log, day, now)
    labels = re.findall(
        r'<text class="hour[^"]*"[^>]*>(\d\d:\d\d)<', text.split("timeline wide")[1]
    )
    assert labels.count("02:00") == {25: 2, 23: 0, 24: 1}[hours]
    if words_said:
        assert words_said in text
        zones = {25: ("02:30 CEST", "02:30 CET"), 23: ("01:30 CET", "03:30 CEST")}[hours]
        assert all(zone in text for zone in zones)
    else:
        assert "The clocks went" not in text and "CET<" not in text


def test_a_clock_that_was_set_back_is_said(log: Log) -> None:
    session = log.session(("20 22:00", "21 02:00"), ("21 01:00", "21 05:00"))
    # Its start is still reckoned by the old clock; when it was logged is the new one's.
    log.cry(session, at("21 03:30"), 60, start=at("21 04:30"))
    night = log.night()
    assert night.clock_set_back and night.cries[0].begin == at("21 03:30") + timedelta(seconds=1)
    assert night.listened_s == 7 * 3600 and night.gaps == []
    assert "The clock was set back" in page(log)


def test_a_listener_that_broke_off_is_missed_until_morning(log: Log) -> None:
    session = log.session(("20 20:00", "21 02:00"), ended=False)
    log.cry(session, at("21 01:59"), None)
    night = log.night()
    (gap,) = night.gaps
    assert gap.span == Span(at("21 02:00"), at("21 08:00")) and "broke off" in gap.why
    assert night.open_cries == 1 and night.crying_s == 0
    text = page(log)
    assert "at least" in text and "was never written" in text and "not known" in text
    # While the night goes on, the future is not a gap.
    assert log.night(now=at("21 04:00")).gaps[0].span.end == at("21 04:00")


@pytest.mark.parametrize(("broke_off", "missed_h"), [("20 22:30", 9.5), ("21 09:00", 0)])
def test_it_is_missed_from_the_evening_on_but_not_after_the_morning(
    log: Log, broke_off: str, missed_h: float
) -> None:
    log.session(("20 20:00", broke_off), ended=False)
    assert log.night().not_listening_s == missed_h * 3600


def test_a_listener_that_was_stopped_or_came_back(log: Log) -> None:
    log.session(("20 20:00", "20 22:00"))
    log.session(("20 23:00", "21 01:00"), ended=False)
    log.session(("21 01:30", "21 06:00"))
    gaps = log.night().gaps
    assert [gap.span.seconds for gap in gaps] == [3600, 1800]
    assert gaps[0].why == "it was stopped" and "broke off" in gaps[1].why


def test_a_night_that_goes_on(log: Log) -> None:
    session = log.session(("20 20:00", "21 03:00"), ended=False)
    log.cry(session, at("21 02:50"), None)
    night = log.night(now=at("21 03:01"))
    assert night.still_listening and night.cries[0].goes_on and night.crying_s == 11 * 60
    assert night.gaps == [] and night.listening[-1].end == at("21 03:01")
    assert "it goes on" in page(log, now=at("21 03:01"))


def test_recordings_count_when_they_were_made_or_are_left_out(log: Log) -> None:
    known = log.session(("20 20:00", "20 21:00"), kind="file")
    log.cry(known, at("20 20:30"), 10)
    unknown = log.session(kind="file")
    log.cry(unknown, at("20 22:00"), 10, start=None)
    piped = log.session(("20 23:00", "20 23:30"), kind="stdin")
    log.cry(piped, at("20 23:10"), 10, start=None)
    night = log.night()
    assert [cry.begin.hour for cry in night.cries] == [20, 23] and night.unplaced == 1
    assert "made nobody knows when" in page(log)


def test_losses_end_a_quiet_stretch_only_if_a_cry_could_hide_in_them(log: Log) -> None:
    session = log.session(("20 20:00", "21 04:00"))
    log.store.lost(session, 1.0, at("20 22:00"), 0.5)
    log.store.lost(session, 2.0, at("21 00:00"), 60.0)
    quiet = log.night().longest_quiet
    assert quiet is not None and quiet.seconds == pytest.approx(4 * 3600, abs=61)


def test_thousands_of_cries_stay_a_small_page_soon(log: Log) -> None:
    session = log.session(("20 18:00", "21 08:00"))
    log.store._db.execute("BEGIN")
    for index in range(6000):
        log.cry(session, at("20 18:00") + timedelta(seconds=8.3 * index), 3.0)
    log.store._db.execute("COMMIT")
    began = time.perf_counter()
    text = page(log)
    assert time.perf_counter() - began < 5
    assert "6 000 cries in 1 bout" in text and len(text) < 400_000


def test_a_pause_for_breath_is_no_quiet_stretch(log: Log) -> None:
    session = log.session(("20 20:00", "20 20:10"))
    for second in range(0, 600, 50):
        log.cry(session, at("20 20:00") + timedelta(seconds=second), 20)
    assert log.night().longest_quiet is None


def test_many_bouts_are_folded_away(log: Log) -> None:
    session = log.session(("20 18:00", "21 08:00"))
    for index in range(60):
        log.cry(session, at("20 18:00") + timedelta(minutes=12 * index), 20)
    assert "<summary>30 more</summary>" in page(log)


def test_trends_leave_out_nights_that_were_hardly_listened_to(log: Log) -> None:
    for back in range(14):
        evening = date(2026, 11, 20) - timedelta(days=back)
        morning = evening + timedelta(days=1)
        end = f"{evening}T21:00:00" if back == 3 else f"{morning}T06:00:00"
        session = log.session((f"{evening}T20:00:00", end))
        log.cry(session, at(f"{evening}T20:30:00"), 600 if back < 7 else 1200)
    chronicle = log.chronicle()
    month = month_to(chronicle, date(2026, 11, 20))
    week = week_change(month)
    assert week is not None
    assert (week.this_s, week.this_nights, week.before_s, week.before_nights) == (600, 6, 1200, 7)
    assert not month[0].counts and month[-1].counts and not month[-4].counts
    text = page(log)
    assert "10 min of crying a night on average (over 6 nights)" in text
    assert text.count('class="bars') == 3 and "less than four hours" in text


def test_which_night_is_meant() -> None:
    assert last_night(at("21 07:30")) == date(2026, 11, 20)
    assert last_night(at("21 23:30")) == date(2026, 11, 20)
    assert last_night(at("22 01:00")) == date(2026, 11, 21)
    assert night_at(at("21 11:59")) == date(2026, 11, 20)
    assert night_at(at("21 12:00")) == date(2026, 11, 21)
    now = at("21 09:00")
    chosen = chosen_period(at("20 21:00"), None, now)
    assert (chosen.begin, chosen.end) == (at("20 21:00"), now)
    assert chosen_period(None, at("20 21:00"), now).begin == at("19 21:00")
    for begin, end in (("20 21:00", "20 20:00"), ("01 00:00", "20 00:00")):
        with pytest.raises(UsageError):
            chosen_period(at(begin), at(end), now)
    with pytest.raises(UsageError, match="no night of the year"):
        night_of(date(1, 1, 1))


def test_a_chosen_period_is_shown_whole_with_all_its_gaps(log: Log) -> None:
    log.session(("20 20:00", "20 21:00"))
    night = log.chronicle().night(chosen_period(at("20 19:00"), at("20 22:00"), NOON_AFTER))
    assert night.shown == Span(at("20 19:00"), at("20 22:00"))
    assert [gap.span.seconds for gap in night.gaps] == [3600, 3600]
    assert [gap.why for gap in night.gaps] == ["not started yet", "it was stopped"]


def test_spans() -> None:
    def span(begin: float, end: float) -> Span:
        return Span(
            at("20 20:00") + timedelta(seconds=begin), at("20 20:00") + timedelta(seconds=end)
        )

    assert joined([span(5, 6), span(0, 2), span(1, 3)]) == [span(0, 3), span(5, 6)]
    assert joined([span(0, 2), span(4, 5)], gap_s=2) == [span(0, 5)]
    left = without([span(0, 10), span(20, 30)], [span(2, 3), span(8, 22), span(29, 40)])
    assert left == [span(0, 2), span(3, 8), span(22, 29)]
    assert without([span(0, 10)], [span(-5, 15)]) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (90, "1 min 30 s"),
        (600, "10 min"),
        (3599, "1 h"),
        (15_000, "4 h 10 min"),
    ],
)
def test_lengths_in_words(seconds: float, text: str) -> None:
    assert words.length(seconds) == text


def test_the_command_writes_a_file_or_to_stdout(
    log: Log, run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary(log).store.close()
    monkeypatch.chdir(tmp_path)
    done = run_cli("report", "--db", log.path, "--night", "2026-11-20")
    assert done.returncode == 0 and done.stdout == b""
    assert done.stderr == b"wrote crykit-night-2026-11-20.html\n"
    check_page((tmp_path / "crykit-night-2026-11-20.html").read_text())
    piped = run_cli("report", "--db", log.path, "--night", "2026-11-20", "--format", "json")
    assert json.loads(piped.stdout)["totals"]["cries"] == 4 and piped.stderr == b""
    chosen = run_cli(
        *("report", "--db", log.path, "--from", "2026-11-20T21:00", "--to", "2026-11-20T23:00"),
        *("--format", "csv", "-o", tmp_path / "night.csv"),
    )
    assert chosen.returncode == 0
    rows = list(csv.DictReader((tmp_path / "night.csv").open()))
    assert [row["kind"] for row in rows][:2] == ["cry", "cry"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--night", "yesterday"], 2, "such as 2026-11-20"),
        (["--night", "2026-02-30"], 2, "such as 2026-11-20"),
        (["--night", "0001-01-01"], 2, "no night of the year 1"),
        (["--from", "noon"], 2, "such as 2026-11-20T21:00"),
        (["--from", "2026-11-20", "--to", "2026-11-19"], 2, "is not before"),
        (["--from", "2026-01-01", "--to", "2026-11-19"], 2, "7 at most"),
        (["--night", "2026-11-20", "--from", "2026-11-20"], 2, "leave out --from"),
        (["--out", "/dev/full"], 3, "No space left"),
        (["--out", "/absent/night.html"], 3, "cannot write the report"),
        (["--db", "/absent/events.db"], 3, "no event log at /absent/events.db"),
    ],
)
def test_bad_input_is_one_line(
    log: Log, run_cli: Cli, options: list[str], code: int, said: str
) -> None:
    done = run_cli("report", "--db", log.path, *options)
    message = done.stderr.decode()
    assert done.returncode == code and done.stdout == b"", message
    assert said in message and message.count("\n") == 1

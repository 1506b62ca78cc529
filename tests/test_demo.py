"""`crykit demo`, run as a user runs it: piped, saved, broken off, on a terminal; and its report."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit.events import CryEvent, CryStarted
from crykit.synth import Night, NightEvent, compose_night
from crykit_app.commands.demo import Report, night_source
from crykit_app.messages import CryBegan, CryEnded, Summary

CRYKIT = Path(sys.executable).with_name("crykit")


def lines_of(stdout: bytes) -> list[dict]:
    """Every line must be a JSON object."""
    return [json.loads(line) for line in stdout.splitlines()]


def cries_of(stdout: bytes) -> list[tuple[float, float]]:
    return [(x["onset_s"], x["offset_s"]) for x in lines_of(stdout) if x["type"] == "cry"]


@pytest.fixture(scope="module")
def piped(run_cli, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """One demo of two minutes, saved, with a data folder of its own: (process, folder)."""
    folder = tmp_path_factory.mktemp("demo")
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "data")}
    done = run_cli(
        *("demo", "--seed", "3", "--duration", "120", "--model", bundle_path),
        *("--save", folder / "kept"),
        env=home,
    )
    return done, folder


def test_piped_demo_prints_json_lines_only(piped) -> None:
    done, _ = piped
    assert done.returncode == 0, done.stderr.decode()
    lines = lines_of(done.stdout)
    assert all(line["schema_version"] == 1 for line in lines)
    assert {line["source"] for line in lines} == {"synthetic-night-seed-3"}
    assert {line["type"] for line in lines} <= {"status", "cry_started", "cry"}
    assert lines[0]["type"] == lines[-1]["type"] == "status"
    assert lines[-1]["position_s"] == 120.0
    cries = cries_of(done.stdout)
    assert cries == sorted(cries) and all(0 <= a < b <= 120 for a, b in cries)
    assert lines[-1]["cries"] == len(cries)


def test_piped_demo_sums_up_on_stderr(piped) -> None:
    done, _ = piped
    text = done.stderr.decode()
    truth = compose_night(3, 120.0)
    assert "synthetic-night-seed-3: made-up sound" in text
    found = re.search(r"heard (\d+) of (\d+) cr(?:y|ies), missed (\d+), false alarms (\d+)", text)
    assert found is not None
    heard, cries, missed = (int(found[i]) for i in (1, 2, 3))
    assert cries == len(truth.cries) and heard + missed == cries
    assert "listened to 2:00.0 in " in text
    assert len(re.findall(r"^  cry \d", text, re.M)) == cries


def test_demo_leaves_the_event_log_alone(piped) -> None:
    _, folder = piped
    left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert left == {"kept/night.flac", "kept/night.csv"}


def test_saved_night_is_what_was_played(piped) -> None:
    _, folder = piped
    night = compose_night(3, 120.0)
    sound, rate = soundfile.read(folder / "kept" / "night.flac", dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(sound, night.samples, atol=1 / 32768)
    with (folder / "kept" / "night.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["onset_s"]) for r in rows] == [e.onset_s for e in night.events]
    assert all(r["orig_label"].startswith("synthetic_") for r in rows)


def test_demo_repeats_itself(piped, run_cli, bundle_path: Path) -> None:
    first, _ = piped
    again = run_cli(
        "demo", "--seed", "3", "--duration", "120", "--headless", "--model", bundle_path
    )
    assert cries_of(again.stdout) == cries_of(first.stdout)


def test_analyze_hears_the_same_in_the_saved_file(piped, run_cli, bundle_path: Path) -> None:
    done, folder = piped
    file = run_cli("analyze", folder / "kept" / "night.flac", "--model", bundle_path)
    played, filed = cries_of(done.stdout), cries_of(file.stdout)
    # 16 bits in the file may tip a frame that lies on a threshold.
    assert len(played) == len(filed)
    np.testing.assert_allclose(filed, played, atol=0.2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--seed", "-1"], "--seed"),
        (["--seed", "seven"], "seven"),
        (["--duration", "5"], "30 to 3600 s"),
        (["--duration", "nan"], "30 to 3600 s"),
        (["--duration", "1e9"], "30 to 3600 s"),
        (["--speed", "0"], "or max"),
        (["--speed", "-2"], "or max"),
        (["--speed", "nan"], "or max"),
        (["--speed", "fast"], "or max"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--save", __file__], "--save"),
        (["--loud"], "--loud"),
        (["extra"], "extra"),
    ],
)
def test_bad_options_are_one_line(run_cli, options: list[str], says: str) -> None:
    done = run_cli("demo", *options)
    text = done.stderr.decode()
    assert done.returncode == 2 and done.stdout == b""
    assert text.startswith("crykit: ") and text.count("\n") == 1 and says in text


def test_a_place_that_cannot_be_written_to(run_cli, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_cli(
        *("demo", "--duration", "30", "--model", bundle_path, "--save", tmp_path / "file" / "sub")
    )
    assert done.returncode == 3 and done.stdout == b""
    assert b"crykit: cannot save the night in" in done.stderr


def start(bundle_path: Path, *options: str) -> subprocess.Popen[bytes]:
    """A demo that would take a minute, and has begun."""
    process = subprocess.Popen(
        [CRYKIT, "demo", "--speed", "10", "--model", bundle_path, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert b'"listening"' in process.stdout.readline()
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_broken_off_it_sums_up_what_it_heard(
    bundle_path: Path, number: signal.Signals, code: int
) -> None:
    process = start(bundle_path)
    time.sleep(1.0)
    process.send_signal(number)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert b"Traceback" not in errors
    lines = lines_of(out)
    assert lines[-1]["state"] == "stopped" and lines[-1]["position_s"] < 300
    assert re.search(rb"listened to \d:\d\d\.\d of 10:00\.0", errors)


def test_a_reader_that_leaves_ends_it_quietly(bundle_path: Path) -> None:
    process = start(bundle_path, "--speed", "200")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in process.stderr.read()


def test_speed_is_kept(run_cli, bundle_path: Path) -> None:
    began = time.monotonic()
    done = run_cli("demo", "--duration", "30", "--speed", "10", "--model", bundle_path)
    assert done.returncode == 0
    assert time.monotonic() - began >= 2.9


def test_on_a_terminal_it_shows_the_app_and_then_sums_up(bundle_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="110", LINES="34")
        arguments = ["demo", "--duration", "30", "--speed", "30", "--model", str(bundle_path)]
        os.execv(CRYKIT, [str(CRYKIT), *arguments])
    try:
        screen = read_until(terminal, rb"press q to close", 60)
        assert b"SYNTHETIC NIGHT" in screen and b'"type":"cry"' not in screen
        os.write(terminal, b"q")
        after = read_until(terminal, rb"heard \d of \d", 20)
        # The alternate screen has been left before the summary is printed.
        left = after.rindex(b"\x1b[?1049l")
        assert b"made-up sound" in after[left:]
        drain(terminal)
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


def read_until(terminal: int, pattern: bytes, timeout_s: float) -> bytes:
    """Output up to `pattern`, escape sequences between its letters being no hindrance."""
    seen = b""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
        if re.search(pattern, re.sub(rb"\x1b\[[0-9;:?]*[a-zA-Z]", b"", seen)):
            return seen
    raise AssertionError(f"{pattern!r} was not seen in {seen[-2000:]!r}")


def drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return  # what Linux says when the other side is closed


def test_another_rate_is_resampled() -> None:
    import threading

    night = compose_night(3, 30.0)
    source = night_source(night, float("inf"))
    source.open(8_000)
    blocks = list(source.blocks(threading.Event()))
    assert sum(len(b.samples) for b in blocks) == pytest.approx(240_000, abs=2)


def handmade() -> Night:
    rows = [(10.0, 20.0, "cry"), (40.0, 45.0, "speech"), (60.0, 70.0, "cry"), (90.0, 96.0, "cry")]
    events = tuple(
        NightEvent(a, b, e, "", f"synthetic_{e}", "synthetic:x", "synthetic:y", 15.0, 0)
        for a, b, e in rows
    )
    return Night(1, np.zeros(120 * 16_000, np.float32), events)


def summary_of(spans: list[tuple[float, float]], heard_s: float, early: bool) -> Summary:
    began = tuple(CryBegan(CryStarted("x", a, a + 0.7, 0.9), None) for a, _ in spans)
    ended = tuple(CryEnded(CryEvent("x", a, b, 0.9, 0.8, -30.0), None) for a, b in spans)
    return Summary("night", ended, began, heard_s, 0, 1.0, early, None)


def test_report_counts_hits_misses_and_false_alarms() -> None:
    spans = [(10.4, 14.0), (15.0, 20.1), (41.0, 43.0), (60.5, 63.0), (100.0, 101.0)]
    text = Report(handmade(), summary_of(spans, 120.0, False), 4.0).text()
    assert "heard 1 of 3 cries, missed 2, false alarms 2" in text
    assert "listened to 2:00.0 in 4.0 s, 30 x real time" in text
    assert "median onset delay 0.40 s, told 1.20 s after the onset" in text
    assert "cry 0:10.0-0:20.0,  15 dB over the room: heard  0:10.4-0:20.1" in text
    assert "cry 1:00.0-1:10.0,  15 dB over the room: missed (in part: 1:00.5-1:03.0)" in text
    assert "cry 1:30.0-1:36.0,  15 dB over the room: missed\n" in text
    assert "false alarm 0:41.0-0:43.0: speech" in text
    assert "false alarm 1:40.0-1:41.0: nothing but the room" in text


def test_report_judges_only_what_was_played() -> None:
    text = Report(handmade(), summary_of([(10.1, 19.0)], 65.0, True), 2.0).text()
    assert "listened to 1:05.0 of 2:00.0" in text
    assert "heard 1 of 2 cries, missed 1, false alarms 0" in text
    assert "1:00.0-1:05.0" in text and "1:30.0" not in text


def test_report_of_nothing_heard() -> None:
    text = Report(handmade(), summary_of([], 120.0, False), 2.0).text()
    assert "heard 0 of 3 cries, missed 3, false alarms 0" in text
    assert "onset delay" not in text


def test_the_shipped_model_hears_the_default_night(run_cli, bundle) -> None:
    """Made of formulas, heard by a model that was trained on real cries only."""
    if bundle.manifest.name != "cry-student":
        pytest.skip(f"{bundle.manifest.name} is not the shipped model")
    done = run_cli("demo")
    found = re.search(rb"heard (\d+) of (\d+) cries, missed \d+, false alarms (\d+)", done.stderr)
    assert found is not None, done.stderr.decode()
    heard, cries, alarms = (int(found[i]) for i in (1, 2, 3))
    assert cries == 6 and heard >= 5 and alarms <= 2

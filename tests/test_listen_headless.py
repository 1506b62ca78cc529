"""`crykit listen --headless`, the installed command: lines, signals, pipes, bad input, memory."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit_app.logbook import read_events

CRYKIT = str(Path(sys.executable).with_name("crykit"))
# Whatever the model thinks of it, every frame counts as a cry: the model is not tested here.
ALWAYS = ["--on-threshold", "1e-9", "--off-threshold", "1e-9", "--min-on-ms", "100"]
MAX_PEAK_MB = 150

# A process of its own: a child's peak starts at that of the process which spawned it.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr)
"""


@pytest.fixture
def listen(bundle_path: Path, tmp_path: Path):
    """Starts the command with a log of its own and the given options."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str | Path, **more) -> subprocess.Popen[bytes]:
        words = [CRYKIT, "listen", "--headless", "--model", bundle_path, "--data-dir", tmp_path]
        process = subprocess.Popen(
            [str(word) for word in (*words, *options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what a buffered reader holds back would be invisible to select
            **{"stdin": subprocess.DEVNULL, **more},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[bytes], kind: str, timeout_s: float = 30) -> list[dict]:
    """Lines as they come, up to the first of type `kind`."""
    assert process.stdout is not None
    lines: list[dict] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.1)[0]:
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            lines.append(json.loads(line))
            if lines[-1]["type"] == kind:
                return lines
    raise AssertionError(f"no {kind} line; got {lines}")


def finish(process: subprocess.Popen[bytes]) -> tuple[int, list[dict]]:
    out, err = process.communicate(timeout=30)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def test_a_file_at_full_speed_equals_analyze(
    listen, run_cli, bundle_path: Path, sound_file: Path, tmp_path: Path
) -> None:
    options = ["--on-threshold", "1e-9", "--off-threshold", "1e-9"]
    code, lines = finish(listen("--input", sound_file, "--speed", "max", *options))
    assert code == 0
    assert lines[0]["type"] == "status" and lines[0]["state"] == "listening"
    assert lines[-1]["type"] == "status" and lines[-1]["state"] == "stopped"
    assert lines[-1]["position_s"] == 12.0 and lines[-1]["lost_samples"] == 0
    done = run_cli("analyze", "--model", bundle_path, *options, sound_file)
    analysed = [json.loads(line) for line in done.stdout.splitlines()]
    changing = {"id", "source"}
    heard = [line for line in lines if line["type"].startswith("cry")]
    assert heard and len(heard) == len(analysed)
    for one, other in zip(heard, analysed, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - changing:
            assert one[name] == other[name], name
    (stored,) = read_events(tmp_path / "events.db")
    assert (stored.id, stored.offset_s) == (heard[-1]["id"], heard[-1]["offset_s"])


def test_a_known_start_gives_wall_clock_times(listen, sound_file: Path) -> None:
    start = "2026-11-20T03:12:44.120+01:00"
    code, lines = finish(
        listen("--input", sound_file, "--speed", "max", "--start", start, "--no-store", *ALWAYS)
    )
    assert code == 0
    assert [line["start"] for line in lines if line["type"] == "cry"] == [start]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 0), ("SIGHUP", 0)])
def test_a_signal_in_mid_cry_closes_and_keeps_it(
    listen, sound_file: Path, tmp_path: Path, name: str, code: int
) -> None:
    process = listen("--input", sound_file, "--speed", "1", *ALWAYS)
    began = read_until(process, "cry_started")[-1]
    (open_event,) = read_events(tmp_path / "events.db")
    assert (open_event.id, open_event.offset_s) == (began["id"], None)
    process.send_signal(getattr(signal, name))
    got, lines = finish(process)
    assert got == code
    assert [line["type"] for line in lines] == ["cry", "status"]
    assert lines[0]["id"] == began["id"]
    (event,) = read_events(tmp_path / "events.db")
    assert event.offset_s == lines[0]["offset_s"]
    assert 0 < event.offset_s < 12


def test_kill_9_in_mid_cry_leaves_the_open_event(listen, sound_file: Path, tmp_path: Path) -> None:
    process = listen("--input", sound_file, "--speed", "1", *ALWAYS)
    began = read_until(process, "cry_started")[-1]
    process.kill()
    process.wait()
    (event,) = read_events(tmp_path / "events.db")
    assert (event.id, event.offset_s) == (began["id"], None)


def test_raw_samples_on_stdin_are_heard_as_they_come(listen, tmp_path: Path) -> None:
    process = listen(
        *("--input", "-", "--rate", "48000", "--channels", "2", *ALWAYS), stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    second = np.zeros((48_000, 2), "<i2").tobytes()
    process.stdin.write(second)
    process.stdin.flush()
    read_until(process, "cry_started")  # the writer has not closed: nothing waits for the end
    process.stdin.write(second[:100_001])  # ends in the middle of a frame
    process.stdin.close()
    process.stdin = None
    code, lines = finish(process)
    assert code == 0
    (cry,) = (line for line in lines if line["type"] == "cry")
    assert cry["source"] == "-"
    assert lines[-1]["position_s"] == pytest.approx(1 + 25_000 / 48_000, abs=0.001)


def test_a_silent_pipe_does_not_hold_up_the_end(listen) -> None:
    reader, writer = os.pipe()
    process = listen("--input", "-", "--no-store", stdin=reader)
    os.close(reader)
    os.write(writer, bytes(32_000))
    read_until(process, "status")
    process.send_signal(signal.SIGTERM)
    code, lines = finish(process)
    os.close(writer)
    assert code == 0 and lines[-1]["state"] == "stopped"


def test_a_reader_that_leaves_ends_it_quietly_and_the_log_is_whole(
    listen, sound_file: Path, tmp_path: Path
) -> None:
    process = listen("--input", sound_file, "--speed", "4", *ALWAYS)
    read_until(process, "cry_started")
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == b""
    (event,) = read_events(tmp_path / "events.db")
    # It could not be told, but it was kept, up to where the next line found no reader.
    assert event.offset_s is not None and 0.1 < event.offset_s <= 12.0


def test_a_full_disk_is_one_line(bundle_path: Path, sound_file: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [CRYKIT, "listen", "--headless", "--no-store", "--model", str(bundle_path)]
            + ["--input", str(sound_file), "--speed", "max"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.returncode == 3
    assert b"No space left" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_log_that_cannot_be_opened_is_said_before_listening(
    bundle_path: Path, sound_file: Path, tmp_path: Path, run_cli
) -> None:
    (tmp_path / "events.db").mkdir()
    done = run_cli(
        *("listen", "--headless", "--model", bundle_path, "--data-dir", tmp_path),
        *("--input", sound_file, "--speed", "max"),
    )
    assert done.returncode == 3 and done.stdout == b""
    assert b"it is a folder" in done.stderr and b"--no-store" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--input", "absent.wav"], 3, b"absent.wav"),
        (["--input", __file__], 3, b"sound file"),
        (["--speed", "2"], 2, b"--input"),
        (["--input", "a.wav", "--speed", "0"], 2, b"'max' or a number over 0"),
        (["--input", "a.wav", "--device", "1"], 2, b"--device"),
        (["--input", "a.wav", "--start", "soon"], 2, b"--start"),
        (["--input", "a.wav", "--on-threshold", "0.1", "--off-threshold", "0.9"], 2, b"off"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], code: int, words: bytes, run_cli, bundle_path: Path
) -> None:
    done = run_cli("listen", "--headless", "--no-store", "--model", bundle_path, *options)
    assert done.returncode == code and done.stdout == b""
    assert words in done.stderr and done.stderr.count(b"\n") == 1


def test_a_bad_sample_ends_it_after_what_was_heard(listen, tmp_path: Path) -> None:
    samples = np.zeros(48_000, np.float32)
    samples[40_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    process = listen("--input", tmp_path / "nan.wav", "--speed", "max", *ALWAYS)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3 and b"2.500 s" in err and err.count(b"\n") == 1
    kinds = [json.loads(line)["type"] for line in out.splitlines()]
    assert kinds[-2:] == ["cry", "status"]


def test_peak_memory(bundle_path: Path, tmp_path: Path) -> None:
    # Ten minutes at full speed: more would show a leak, less would not fill the buffers.
    rng = np.random.default_rng(1)
    noise = (0.01 * rng.standard_normal(600 * 16_000)).astype(np.float32)
    soundfile.write(tmp_path / "noise.flac", noise, 16_000)
    words = [CRYKIT, "listen", "--headless", "--model", bundle_path, "--data-dir", tmp_path]
    words += ["--input", tmp_path / "noise.flac", "--speed", "max"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *(str(word) for word in words)],
        capture_output=True,
        timeout=120,
    )
    peak, cpu_s = done.stderr.split()
    peak_mb = int(peak) / (1024 if sys.platform == "linux" else 1024**2)
    print(f"peak {peak_mb:.0f} MB, {float(cpu_s):.1f} s of CPU")
    assert peak_mb <= MAX_PEAK_MB

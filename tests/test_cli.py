"""The installed `crykit` command: outputs, exit codes, one line for every fault."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from conftest import RATE_HZ, Cli

COMMANDS = ("analyze", "classify", "embed", "verify", "listen", "train", "export", "bench")


@pytest.fixture
def model(bundle_path: Path) -> tuple[str, str]:
    return "--model", str(bundle_path)


@pytest.fixture
def eager(model: tuple[str, str], run_cli: Cli, sound_file: Path) -> tuple[str, ...]:
    """Options under which `sound_file` holds events, whatever the model says of it."""
    done = run_cli("classify", *model, sound_file)
    on = json.loads(done.stdout)["cry_probability"] * 0.98
    thresholds = ("--on-threshold", f"{on:.6f}", "--off-threshold", f"{on * 0.9:.6f}")
    return (*model, *thresholds, "--min-on-ms", "40", "--smoothing-ms", "0")


def lines(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def one_line(done: subprocess.CompletedProcess[bytes], code: int, *words: str) -> str:
    """The command failed with `code` and one line that holds the words."""
    message = done.stderr.decode()
    assert done.returncode == code, (done.returncode, message)
    assert message.startswith("crykit: ") and message.count("\n") == 1, message
    for word in words:
        assert word in message
    return message


def test_help_and_version(run_cli: Cli) -> None:
    done = run_cli("--help")
    assert done.returncode == 0 and done.stderr == b""
    for name in COMMANDS:
        assert name in done.stdout.decode()
    assert run_cli("--version").stdout.decode().startswith("crykit, version 0.")


def test_start_is_quick(run_cli: Cli, model: tuple[str, str], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", np.zeros(RATE_HZ, np.float32), RATE_HZ)
    for arguments, limit_s in ((["--help"], 0.4), (["analyze", *model, tmp_path / "one.wav"], 1.2)):
        spent: list[float] = []
        for _ in range(3):
            before = os.times()
            assert run_cli(*arguments).returncode == 0
            after = os.times()
            # Time on the processor, so that another program does not fail the test; nothing here
            # waits for anything else.
            spent.append(after.children_user + after.children_system)
            spent[-1] -= before.children_user + before.children_system
        assert min(spent) < limit_s


def test_usage_errors(run_cli: Cli, model: tuple[str, str], sound_file: Path) -> None:
    one_line(run_cli("bogus"), 2, "bogus", "--help")
    one_line(run_cli("analyze"), 2, "FILE", "crykit analyze --help")
    one_line(run_cli("analyze", "--format", "xml", sound_file), 2, "xml", "audacity")
    one_line(run_cli("analyze", "--model", "nothing", sound_file), 2, "no model 'nothing'")
    bad = run_cli("analyze", *model, "--on-threshold", "0.2", "--off-threshold", "0.4", sound_file)
    one_line(bad, 2, "off <= on")
    one_line(run_cli("analyze", *model, "--start", "noon", sound_file), 2, "2026-11-20T03:12:44")
    two = run_cli("analyze", *model, "--start", "2026-01-01", sound_file, sound_file)
    one_line(two, 2, "several files")


def test_analyze_writes_event_lines(run_cli: Cli, eager: tuple[str, ...], sound_file: Path) -> None:
    start = ("--start", "2026-11-20T03:00:00+01:00")
    done = run_cli("analyze", *eager, *start, sound_file)
    assert done.returncode == 0 and done.stderr == b""
    found = lines(done.stdout)
    started = [line for line in found if line["type"] == "cry_started"]
    cries = [line for line in found if line["type"] == "cry"]
    assert cries and [c["id"] for c in cries] == [s["id"] for s in started]
    for line in cries:
        assert line["schema_version"] == 1 and line["source"] == str(sound_file)
        assert 0 <= line["onset_s"] < line["offset_s"] <= 12.0
        assert line["start"].startswith("2026-11-20T03:00:") and line["start"].endswith("+01:00")
        assert 0 < line["mean_probability"] <= line["peak_probability"] <= 1
        assert line["reasons"] == {"evidence": "none", "probabilities": None}
        assert "@sha256:" in line["model"]


def test_formats_and_output_agree(
    run_cli: Cli, eager: tuple[str, ...], sound_file: Path, tmp_path: Path
) -> None:
    cries = [c for c in lines(run_cli("analyze", *eager, sound_file).stdout) if c["type"] == "cry"]
    spans = [(c["onset_s"], c["offset_s"]) for c in cries]
    table = run_cli("analyze", *eager, "--format", "csv", sound_file).stdout.decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(float(r["onset_s"]), float(r["offset_s"])) for r in rows] == spans
    out = tmp_path / "labels.txt"
    done = run_cli("analyze", *eager, "--format", "audacity", "-o", out, sound_file)
    assert done.returncode == 0 and done.stdout == b""
    labels = [line.split("\t") for line in out.read_text().splitlines()]
    assert [(float(a), float(b)) for a, b, _ in labels] == spans
    assert all(text.startswith("cry ") for _, _, text in labels)


def test_raw_pcm_and_odd_files_give_the_same_events(
    run_cli: Cli, eager: tuple[str, ...], sound_file: Path, cry: np.ndarray, tmp_path: Path
) -> None:
    def spans(*arguments: str | Path, stdin: bytes = b"") -> list[tuple[float, float]]:
        done = run_cli("analyze", *eager, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        found = lines(done.stdout)
        return [(c["onset_s"], c["offset_s"]) for c in found if c["type"] == "cry"]

    expected = spans(sound_file)
    pcm = np.round(cry * 32768).astype("<i2")
    assert spans("-", stdin=pcm.tobytes()) == expected
    eight = tmp_path / "eight.flac"
    soundfile.write(eight, np.repeat(cry[:, np.newaxis], 8, axis=1), RATE_HZ)
    assert spans(eight) == expected


def test_lines_come_while_the_sound_goes_on(eager: tuple[str, ...], cry: np.ndarray) -> None:
    command = [str(Path(sys.executable).with_name("crykit")), "analyze", *eager, "-"]
    pcm = np.round(cry * 32768).astype("<i2").tobytes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(pcm)
        process.stdin.flush()
        # Standard input is still open: this line was not waited for.
        assert json.loads(process.stdout.readline())["type"] == "cry_started"
        process.stdin.close()
        assert process.stdout.read() and process.wait() == 0


def test_bad_files_are_named_and_the_others_done(
    run_cli: Cli, eager: tuple[str, ...], sound_file: Path, tmp_path: Path
) -> None:
    alone = run_cli("analyze", *eager, sound_file)
    text = tmp_path / "notes.txt"
    text.write_text("no sound\n" * 50)
    done = run_cli("analyze", *eager, text, sound_file, tmp_path / "absent.wav")
    assert done.returncode == 3
    assert len(lines(done.stdout)) == len(lines(alone.stdout))
    messages = done.stderr.decode().splitlines()
    assert len(messages) == 2
    assert "notes.txt" in messages[0] and "No such file" in messages[1]


@pytest.mark.parametrize("command", ["analyze", "classify"])
def test_input_that_cannot_be(
    run_cli: Cli, model: tuple[str, str], tmp_path: Path, command: str
) -> None:
    def write(name: str, samples: np.ndarray) -> Path:
        soundfile.write(tmp_path / name, samples, RATE_HZ, subtype="FLOAT")
        return tmp_path / name

    nan = np.zeros(RATE_HZ, np.float32)
    nan[8000] = np.nan
    (tmp_path / "empty.wav").touch()
    for path, words in (
        (write("nan.wav", nan), "NaN or infinite sample at 0.500 s"),
        (write("huge.wav", np.full(RATE_HZ, 1e30, np.float32)), "between -1 and 1"),
        (write("none.wav", nan[:0]), "holds no sound"),
        (tmp_path / "empty.wav", "empty"),
        (tmp_path, "folder"),
        (tmp_path / "absent.wav", "No such file"),
    ):
        done = run_cli(command, *model, path)
        one_line(done, 3, words)
        assert done.stdout == b""
    one_line(run_cli(command, *model, "-"), 3, "holds no sound")


def test_extreme_rates_are_heard(run_cli: Cli, model: tuple[str, str], tmp_path: Path) -> None:
    for rate_hz in (4_000, 200_000):
        path = tmp_path / f"{rate_hz}.wav"
        soundfile.write(path, np.zeros(3 * rate_hz, np.float32), rate_hz)
        (line,) = lines(run_cli("classify", *model, path).stdout)
        assert line["duration_s"] == 3.0


def test_a_truncated_recording_yields_what_it_holds(
    run_cli: Cli, eager: tuple[str, ...], cry: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.tile(cry, 4), RATE_HZ)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = run_cli("analyze", *eager, path)
    one_line(done, 3, "damaged after", "what came before was read")
    types = [line["type"] for line in lines(done.stdout)]
    assert types and types.count("cry") == types.count("cry_started")


def test_output_is_whole_or_absent(
    run_cli: Cli, eager: tuple[str, ...], sound_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    assert run_cli("analyze", *eager, "-o", out, tmp_path / "absent.wav").returncode == 3
    assert out.read_text() == "before"
    one_line(run_cli("analyze", *eager, "-o", tmp_path / "no" / "out", sound_file), 3, "No such")
    assert run_cli("analyze", *eager, "-o", out, sound_file).returncode == 0
    assert lines(out.read_bytes())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cry.wav", "out.jsonl"]
    assert lines(run_cli("analyze", *eager, "-o", "/dev/stdout", sound_file).stdout)
    one_line(run_cli("analyze", *eager, "-o", "/dev/full", sound_file), 3, "No space left")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_is_quiet_and_leaves_nothing(
    eager: tuple[str, ...], cry: np.ndarray, tmp_path: Path, sign: signal.Signals, code: int
) -> None:
    out = tmp_path / "out.jsonl"
    program = str(Path(sys.executable).with_name("crykit"))
    command = [program, "analyze", *eager, "-o", str(out), "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(np.round(cry * 32768).astype("<i2").tobytes())
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(sign)
        assert process.wait(30) == code
        assert process.stderr.read() == b""
    assert not [p.name for p in tmp_path.iterdir() if "out" in p.name]


def test_a_reader_that_leaves_is_no_fault(eager: tuple[str, ...], sound_file: Path) -> None:
    program = str(Path(sys.executable).with_name("crykit"))
    command = [program, "analyze", *eager, "--merge-gap-ms", "0", *[str(sound_file)] * 20]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_classify(run_cli: Cli, model: tuple[str, str], sound_file: Path) -> None:
    (line,) = lines(run_cli("classify", *model, sound_file).stdout)
    probability = line.pop("cry_probability")
    assert 0 <= probability <= 1
    assert "@sha256:" in line.pop("model")
    assert line == {
        "schema_version": 1,
        "path": str(sound_file),
        "duration_s": 12.0,
        "reasons": {"evidence": "none", "probabilities": None},
    }
    int8 = run_cli("classify", *model, "--precision", "int8", sound_file)
    assert lines(int8.stdout)[0]["cry_probability"] == pytest.approx(probability, abs=0.05)


def test_embed(run_cli: Cli, model: tuple[str, str], sound_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert run_cli("embed", *model, sound_file, sound_file, "-o", out).returncode == 0
    arrays = np.load(out, allow_pickle=False)
    frames, size = arrays["embedding"].shape
    assert frames == 2 * 12 * 25
    assert arrays["scene"].shape == (2, 2 * size)
    first = arrays["embedding"][arrays["file_index"] == 0]
    np.testing.assert_allclose(arrays["scene"][0, :size], first.mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(arrays["scene"][1, size:], first.max(axis=0))
    assert arrays["timestamps_ms"][:2].tolist() == [40.0, 80.0]
    assert arrays["timestamps_ms"][300] == 40.0
    assert arrays["paths"].tolist() == [str(sound_file)] * 2


def test_verify(run_cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    done = run_cli("verify", bundle_path, timeout_s=200)
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"] is True
    checked = {(c.get("runtime"), c.get("precision")) for c in report["checks"] if c["ok"]}
    assert {(None, None), ("onnx", "fp32"), ("onnx", "int8")} <= checked
    copy = tmp_path / "copy.cry"
    shutil.copytree(bundle_path, copy)
    with open(copy / "model.onnx", "r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    one_line(run_cli("verify", copy), 1, "model.onnx was altered")
    one_line(run_cli("analyze", "--model", copy, "x.wav"), 3, "model.onnx was altered")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    one_line(run_cli("verify", copy), 3, "bundle format 99", "upgrade")
    one_line(run_cli("verify", tmp_path / "none"), 2, "no model")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["analyze", "--runtime", "torch", "x.wav"], "train"),
        (["analyze", "--runtime", "executorch", "x.wav"], "export"),
    ],
)
def test_a_missing_extra_is_named(
    run_cli: Cli, model: tuple[str, str], tmp_path: Path, arguments: list[str], extra: str
) -> None:
    # An installation without torch: its finder is told that there is none.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'executorch', 'crykit_executorch'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    done = run_cli(arguments[0], *model, *arguments[1:], env=env)
    one_line(done, 2, f"pip install 'crykit[{extra}]'")


def test_memory_is_flat(model: tuple[str, str], tmp_path: Path) -> None:
    """Five and forty minutes peak alike, under the 150 MB that a device is promised."""

    def peak_mb(minutes: int) -> float:
        path = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(np.zeros(60 * 8_000, np.int16))
        program = str(Path(sys.executable).with_name("crykit"))
        with subprocess.Popen([program, "analyze", *model, str(path)]) as process:
            watched, peak = psutil.Process(process.pid), 0
            while process.poll() is None:
                try:
                    peak = max(peak, watched.memory_info().rss)
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.05)
            assert process.wait() == 0
        return peak / 1e6

    short, long = peak_mb(5), peak_mb(40)
    assert long < 150
    assert long < short + 5


@pytest.mark.data
def test_ten_minutes_cost_little(run_cli: Cli, model: tuple[str, str], data_root: Path) -> None:
    before = os.times()
    done = run_cli("analyze", *model, data_root / "streams" / "mixed_a.flac")
    after = os.times()
    assert done.returncode == 0
    used_s = after.children_user + after.children_system
    assert used_s - before.children_user - before.children_system <= 4.0

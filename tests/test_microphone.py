"""A real sound stream: PulseAudio's virtual microphone through PortAudio into the engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit_app.logbook import read_events, read_logbook

pytestmark = pytest.mark.microphone

CRYKIT = str(Path(sys.executable).with_name("crykit"))
RATE_HZ = 16_000
ASOUNDRC = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"

RECORDER = """
import sys, threading
import numpy as np
from crykit_app.sources import MicrophoneSource

source = MicrophoneSource("default")
source.open(16000)
stop = threading.Event()
threading.Timer(float(sys.argv[2]), stop.set).start()
print("recording", source.sample_rate_hz, flush=True)
blocks = list(source.blocks(stop))
source.close()
np.savez(sys.argv[1], samples=np.concatenate([block.samples for block in blocks]),
         lost=sum(block.lost_samples for block in blocks))
"""


@pytest.fixture(scope="module")
def virtual_microphone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which the default microphone hears what `paplay` plays."""
    for tool in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    home = tmp_path_factory.mktemp("home")
    runtime = tmp_path_factory.mktemp("runtime")
    home.chmod(0o700)
    runtime.chmod(0o700)
    (home / ".asoundrc").write_text(ASOUNDRC)
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
    environment.pop("PULSE_SERVER", None)
    server = subprocess.Popen(
        ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        + ["-L", "module-native-protocol-unix", "-L", "module-always-sink"]
        + ["-L", f"module-null-sink sink_name=ci rate={RATE_HZ} channels=1 format=s16le"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until_ready(server, environment)
        subprocess.run(["pactl", "set-default-sink", "ci"], env=environment, check=True)
        subprocess.run(["pactl", "set-default-source", "ci.monitor"], env=environment, check=True)
        yield environment
    finally:
        server.terminate()
        server.wait(timeout=10)


def _until_ready(server: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
    for _ in range(100):
        if server.poll() is not None:
            pytest.skip("the PulseAudio server does not start here")
        info = subprocess.run(["pactl", "info"], env=environment, capture_output=True)
        if info.returncode == 0:
            return
        time.sleep(0.1)
    pytest.skip("the PulseAudio server does not answer")


def play(path: Path, environment: dict[str, str]) -> None:
    subprocess.run(["paplay", str(path)], env=environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def chirps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Half a second of silence, then two seconds that correlate with nothing but themselves."""
    seconds = np.arange(2 * RATE_HZ) / RATE_HZ
    sweep = 0.4 * np.sin(2 * np.pi * (300 + 1200 * seconds) * seconds)
    samples = np.concatenate([np.zeros(RATE_HZ // 2), sweep, np.zeros(RATE_HZ)])
    path = tmp_path_factory.mktemp("sound") / "chirps.wav"
    soundfile.write(path, samples, RATE_HZ)
    return path, sweep


def test_what_is_played_is_what_the_engine_gets(
    virtual_microphone: dict[str, str], chirps: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, sweep = chirps
    recorder = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(tmp_path / "heard.npz"), "6"],
        env=virtual_microphone,
        stdout=subprocess.PIPE,
    )
    assert recorder.stdout is not None
    # The device's own rate is not the model's: what follows went through the resampler.
    assert int(recorder.stdout.readline().split()[1]) != RATE_HZ
    play(path, virtual_microphone)
    assert recorder.wait(timeout=30) == 0
    heard = np.load(tmp_path / "heard.npz")
    samples = heard["samples"].astype(np.float64)
    assert heard["lost"] == 0
    at = int(np.argmax(np.correlate(samples, sweep, "valid")))
    piece = samples[at : at + len(sweep)]
    correlation = piece @ sweep / np.linalg.norm(piece) / np.linalg.norm(sweep)
    print(f"correlation {correlation:.4f} at {at / RATE_HZ:.2f} s of {len(samples) / RATE_HZ:.2f}")
    assert correlation > 0.99


def test_listening_to_it_ends_in_good_order(
    virtual_microphone: dict[str, str],
    chirps: tuple[Path, np.ndarray],
    bundle_path: Path,
    tmp_path: Path,
) -> None:
    always = ["--on-threshold", "1e-9", "--off-threshold", "1e-9", "--min-on-ms", "100"]
    process = subprocess.Popen(
        [CRYKIT, "listen", "--headless", "--model", str(bundle_path), "--data-dir", str(tmp_path)]
        + always,
        env=virtual_microphone,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    began = time.time() - first["position_s"]
    assert (first["type"], first["source"]) == ("status", "default")
    play(chirps[0], virtual_microphone)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["type"] for line in lines] == ["cry_started", "cry", "status"]
    assert lines[-1]["lost_samples"] == 0
    start = datetime.fromisoformat(lines[1]["start"]).timestamp()
    assert start == pytest.approx(began, abs=0.7)
    # A live stream is as long as it was listened to.
    assert lines[-1]["position_s"] == pytest.approx(time.time() - began, abs=1.5)
    (event,) = read_events(tmp_path / "events.db")
    assert (event.id, event.offset_s) == (lines[1]["id"], lines[1]["offset_s"])
    (stretch,) = read_logbook(tmp_path / "events.db").listening
    assert stretch.began.timestamp() == pytest.approx(began, abs=0.7)
    listened_s = (stretch.until - stretch.began).total_seconds()
    assert listened_s == pytest.approx(lines[-1]["position_s"], abs=1.5)


def test_doctor_finds_it_well_or_says_what_is_wrong(
    virtual_microphone: dict[str, str],
    chirps: tuple[Path, np.ndarray],
    bundle_path: Path,
    tmp_path: Path,
) -> None:
    command = [CRYKIT, "doctor", "--model", str(bundle_path), "--data-dir", str(tmp_path)]

    def examine(seconds: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--seconds", seconds], env=virtual_microphone, stdout=subprocess.PIPE
        )

    def findings(process: subprocess.Popen[bytes]) -> dict[str, dict]:
        out, _ = process.communicate(timeout=60)
        return {check["check"]: check for check in json.loads(out)["checks"]}

    silent = examine("1")
    found = findings(silent)
    assert silent.returncode == 1
    assert found["microphone"]["ok"] and found["rate"]["ok"] and found["losses"]["ok"]
    assert found["level"]["detail"] == "digital silence" and found["level"]["fix"]

    well = examine("4")
    for _ in range(3):
        play(chirps[0], virtual_microphone)
    found = findings(well)
    assert well.returncode == 0, found
    assert found["level"]["ok"]


def test_devices_and_unknown_names(virtual_microphone: dict[str, str], bundle_path: Path) -> None:
    done = subprocess.run([CRYKIT, "devices"], env=virtual_microphone, capture_output=True)
    names = [device["name"] for device in json.loads(done.stdout)]
    assert done.returncode == 0 and "default" in names
    done = subprocess.run(
        [CRYKIT, "listen", "--headless", "--no-store", "--model", str(bundle_path)]
        + ["--device", "no such thing"],
        env=virtual_microphone,
        capture_output=True,
    )
    assert done.returncode == 3 and done.stdout == b""
    assert done.stderr.startswith(b"crykit: no microphone called 'no such thing'; there are: ")
    assert done.stderr.count(b"\n") == 1

"""`crykit doctor` without sound hardware: each fault has its fix, and none stops the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from crykit_app.capture import InputDevice
from crykit_app.checks import Finding, _level, _rate


def report(done) -> dict[str, dict]:
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    checks = {check["check"]: check for check in document["checks"]}
    assert document["ok"] == all(check["ok"] is not False for check in checks.values())
    assert done.returncode == (0 if document["ok"] else 1)
    for check in checks.values():
        assert (check["ok"] is False) == bool(check["fix"]), check
    return checks


def test_without_portaudio_the_model_is_still_checked(
    run_cli, bundle_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    done = run_cli(
        *("doctor", "--model", bundle_path, "--data-dir", tmp_path / "data"),
        env={"PYTHONPATH": str(tmp_path)},
    )
    checks = report(done)
    assert done.returncode == 1 and done.stderr == b""
    assert checks["microphone"]["ok"] is False
    assert "libportaudio2" in checks["microphone"]["fix"]
    assert checks["rate"]["ok"] is None and checks["level"]["ok"] is None
    for name in ("model", "golden clip", "speed", "event log"):
        assert checks[name]["ok"] is True, checks[name]
    assert "real-time factor" in checks["speed"]["detail"]


def test_a_tampered_model_and_a_broken_log_are_faults(
    run_cli, bundle_path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.cry"
    shutil.copytree(bundle_path, copy)
    with open(copy / "model.onnx", "r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    (tmp_path / "events.db").write_bytes(b"something else, and long enough" * 40)
    done = run_cli("doctor", "--model", copy, "--data-dir", tmp_path, "--seconds", "0.5")
    checks = report(done)
    assert checks["model"]["ok"] is False and "model.onnx" in checks["model"]["detail"]
    assert checks["golden clip"]["ok"] is None
    assert checks["event log"]["ok"] is False


def test_the_table_shows_faults_with_their_fix(run_cli, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    done = run_cli(
        *("doctor", "--model", bundle_path, "--data-dir", tmp_path, "--format", "table"),
        env={"PYTHONPATH": str(tmp_path)},
    )
    text = done.stdout.decode()
    assert "FAULT  microphone" in text and "fix: " in text and "ok     model" in text


def level(samples: np.ndarray) -> Finding:
    return _level(samples.astype(np.float32))


def test_levels() -> None:
    tone = np.sin(np.arange(16_000) / 5)
    assert level(0.1 * tone).ok is True
    assert level(np.zeros(16_000)).detail == "digital silence"
    assert level(1e-5 * tone).ok is False
    assert "full scale" in level(np.clip(3 * tone, -1, 1)).detail
    assert level(np.zeros(0)).ok is None


def test_rates() -> None:
    device = InputDevice(0, "mic", "ALSA", 1, 48_000, True)
    assert _rate(device, 144_000, 3.0).ok is True
    assert _rate(device, 132_300, 3.0).ok is False
    assert _rate(device, 0, 3.0).ok is False
    telephone = InputDevice(0, "headset", "ALSA", 1, 8_000, True)
    assert "highs" in _rate(telephone, 24_000, 3.0).detail

"""Shared fixtures: the shipped model, the recordings where they are, the installed command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import crykit
from crykit.bundle import Bundle

Float32 = NDArray[np.float32]
Cli = Callable[..., "subprocess.CompletedProcess[bytes]"]

RATE_HZ = 16_000


@pytest.fixture(scope="session", autouse=True)
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test runs what `crykit bench --choose` chose for this user."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real recordings: CRYKIT_DATA, or the one beside the checkout."""
    named = os.environ.get("CRYKIT_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "manifest.csv").is_file():
        pytest.skip("no recordings: set CRYKIT_DATA to a folder with manifest.csv")
    return folder


@pytest.fixture(scope="session")
def bundle_path() -> Path:
    """The shipped model; CRYKIT_TEST_BUNDLE names another."""
    named = os.environ.get("CRYKIT_TEST_BUNDLE")
    folder = Path(named) if named else Path(crykit.__file__).parent / "models" / "cry-student.cry"
    if not folder.is_dir():
        pytest.skip("the shipped model is not in this checkout")
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    """The shipped model, verified and opened."""
    return Bundle.open(bundle_path)


@pytest.fixture(scope="session")
def cry() -> Float32:
    """Twelve seconds at 16 kHz: quiet noise with a harmonic, cry-like wail in the middle."""
    rng = np.random.default_rng(7)
    seconds = np.arange(12 * RATE_HZ) / RATE_HZ
    pitch_hz = 430 + 60 * np.sin(2 * np.pi * 0.9 * seconds)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    wail = sum(np.sin(k * phase) / k for k in range(1, 9))
    breaths = (np.sin(2 * np.pi * 0.9 * seconds) > -0.6) & (seconds > 3) & (seconds < 9)
    return (0.15 * wail * breaths + 0.001 * rng.standard_normal(len(seconds))).astype(np.float32)


@pytest.fixture
def sound_file(tmp_path: Path, cry: Float32) -> Path:
    """`cry` as a WAV file."""
    path = tmp_path / "cry.wav"
    soundfile.write(path, cry, RATE_HZ)
    return path


@pytest.fixture(scope="session")
def run_cli() -> Cli:
    """Runs the installed `crykit` command; nothing it prints may be a traceback."""
    command = Path(sys.executable).with_name("crykit")

    def run(
        *arguments: str | Path,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            _words(command, arguments),
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **(env or {})},
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    return run


def _words(command: Path, arguments: Sequence[str | Path]) -> list[str]:
    return [str(command), *(str(argument) for argument in arguments)]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random weights for ONNX, fp32 and int8, made in seconds."""
    for module in ("torch", "onnxscript"):
        pytest.importorskip(module)
    from tiny_model import write_manifest_csv, write_run, write_streams

    from crykit_export.assemble import ExportPlan, export_bundle
    from crykit_export.source import load_model

    folder = tmp_path_factory.mktemp("tiny-bundle")
    run = write_run(folder / "run")
    plan = ExportPlan(
        folder / "tiny.cry",
        runtimes=("onnx",),
        precisions=("fp32", "fp16", "int8"),
        calibration=write_manifest_csv(folder / "data"),
        streams=write_streams(folder / "streams"),
    )
    return export_bundle(load_model(run), plan)

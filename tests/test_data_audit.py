"""The audit: made duplicates are found however treated, real leaks and shortcuts are told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

pytest.importorskip("scipy", reason="needs the train extra")
pytest.importorskip("sklearn", reason="needs the train extra")

import scipy.signal  # noqa: E402

from crykit.dataset import Clip, read_clip, read_manifest  # noqa: E402
from crykit.errors import InputError  # noqa: E402
from crykit.synth import synthetic_cry  # noqa: E402
from crykit_train.data.audit import audit_manifest  # noqa: E402
from crykit_train.data.fingerprint import (  # noqa: E402
    FingerprintIndex,
    correlate,
    fingerprint_all,
)
from crykit_train.data.shortcuts import (  # noqa: E402
    shortcut_table,
    traits,
    verdict_of,
    zero_share,
)

RATE_HZ = 16_000
Audio = NDArray[np.float32]


def low_pass(samples: Audio, hz: float) -> Audio:
    return scipy.signal.sosfilt(scipy.signal.butter(8, hz, fs=RATE_HZ, output="sos"), samples)


def coded(
    samples: Audio, fmt: str, subtype: str, rate_hz: int = RATE_HZ, **quality: float
) -> Audio:
    """Through a codec and back."""
    low = scipy.signal.resample_poly(samples, rate_hz, RATE_HZ)
    data = io.BytesIO()
    soundfile.write(data, low, rate_hz, format=fmt, subtype=subtype, **quality)  # pyright: ignore
    data.seek(0)
    return scipy.signal.resample_poly(soundfile.read(data)[0], RATE_HZ, rate_hz)


def noisy(samples: Audio, snr_db: float) -> Audio:
    noise = np.random.default_rng(3).standard_normal(len(samples))
    rms = np.sqrt(np.square(samples).mean())
    return samples + noise * rms * 10 ** (-snr_db / 20)


TREATMENTS: dict[str, tuple[Callable[[Audio], Audio], float]] = {
    "26 dB quieter, 16 bit": (lambda x: np.round(0.05 * x * 32768) / 32768, 0.99),
    "turned in polarity": (lambda x: -x, 0.99),
    "2 s from within": (lambda x: x[len(x) // 4 + 37 : len(x) // 4 + 37 + 32_000], 0.9),
    "low-passed at 3.8 kHz": (lambda x: low_pass(x, 3800), 0.95),
    "low-passed at 2 kHz": (lambda x: low_pass(x, 2000), 0.95),
    "Vorbis, lowest quality": (lambda x: coded(x, "OGG", "VORBIS", compression_level=1.0), 0.95),
    "MP3": (lambda x: coded(x, "MP3", "MPEG_LAYER_III", compression_level=0.9), 0.95),
    "GSM telephone": (lambda x: coded(x, "WAV", "GSM610", 8000), 0.85),
    "noise at 10 dB": (lambda x: noisy(x, 10), 0.85),
    "shifted, quieter, low-passed, Vorbis": (
        lambda x: coded(low_pass(0.2 * x[len(x) // 3 + 91 :], 3800), "OGG", "VORBIS"),
        0.9,
    ),
}
"""Treatment of a copy, and the least share of copies that must be found."""


def recall(sounds: list[Audio], treat: Callable[[Audio], Audio]) -> tuple[float, int]:
    """Share of treated copies found among the originals, and pairs found that are none."""
    n = len(sounds)
    copies = [np.ascontiguousarray(treat(sound), np.float32) for sound in sounds]
    found = fingerprint_all([*sounds, *copies]).duplicates(["original"] * n + ["copy"] * n)
    true = {pair.a for pair in found if pair.b == pair.a + n}
    return len(true) / n, sum(pair.b != pair.a + n for pair in found)


@pytest.fixture(scope="module")
def made() -> list[Audio]:
    """Twelve sounds of 4 s: cries, and noise bursts with a moving tone."""
    rng = np.random.default_rng(2)
    sounds = [synthetic_cry(4.0, seed=k).astype(np.float32) for k in range(6)]
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    for _ in range(6):
        steps = np.repeat(rng.uniform(300, 3000, 20), len(t) // 20)
        tone = np.sin(2 * np.pi * np.cumsum(steps) / RATE_HZ)
        sounds.append((0.2 * tone + 0.02 * rng.standard_normal(len(t))).astype(np.float32))
    return sounds


@pytest.mark.parametrize("name", TREATMENTS)
def test_made_copies_are_found(made: list[Audio], name: str) -> None:
    treat, _ = TREATMENTS[name]
    share, wrong = recall(made, treat)
    assert share >= 11 / 12 and wrong == 0


def test_where_a_copy_lies_is_told(made: list[Audio]) -> None:
    (pair,) = fingerprint_all([made[7], made[7][8000:40_000]]).duplicates()
    assert pair.offset_s == pytest.approx(0.5, abs=1e-3) and pair.overlap_s == pytest.approx(2.0)
    assert pair.correlation > 0.9


def test_tones_noise_and_silence_are_no_copies() -> None:
    t = np.arange(3 * RATE_HZ) / RATE_HZ
    rng = np.random.default_rng(0)
    beeps = [(0.3 * np.sin(2 * np.pi * 1000 * t + k)).astype(np.float32) for k in range(3)]
    noise = [(0.1 * rng.standard_normal(len(t))).astype(np.float32) for _ in range(3)]
    still = [np.zeros(RATE_HZ, np.float32), np.zeros(100, np.float32)]
    assert fingerprint_all([*beeps, *noise, *still]).duplicates() == []
    assert FingerprintIndex().duplicates() == []


def test_correlation_against_the_plain_sum() -> None:
    rng = np.random.default_rng(4)
    a = rng.standard_normal(9000).astype(np.float32)
    b = np.concatenate([a[1000:], rng.standard_normal(500)]).astype(np.float32)
    found = correlate(a, b, 990)
    assert found is not None
    lag, value, overlap, elsewhere = found
    x, y = a[990:9000], b[:8010]
    plain = abs((x[10:] * y[:-10]).sum()) / np.sqrt((x * x).sum() * (y * y).sum())
    assert lag == 1000 and overlap == 8010 and value == pytest.approx(plain, abs=1e-5)
    assert elsewhere < 0.1
    assert correlate(a, b, 8000) is None  # hardly any overlap


@pytest.fixture(scope="module")
def recorded(data_root: Path) -> list[Audio]:
    """Thirty recordings of more than two seconds."""
    clips = read_manifest(data_root / "manifest.csv")
    order = np.random.default_rng(0).permutation(len(clips))
    sounds = (read_clip(clips[i]) for i in order[:80])
    return [sound for sound in sounds if len(sound) > 2 * RATE_HZ][:30]


@pytest.mark.data
@pytest.mark.parametrize("name", TREATMENTS)
def test_copies_of_recordings_are_found(recorded: list[Audio], name: str) -> None:
    treat, least = TREATMENTS[name]
    share, wrong = recall(recorded, treat)
    assert share >= least and wrong == 0


# --- shortcuts -------------------------------------------------------------------------------


def test_zero_share_has_a_closed_form() -> None:
    samples = np.full(1000, 0.1, np.float32)
    samples[100:400] = 0
    samples[500:550] = 0  # too short a run to be padding
    assert zero_share(samples) == 0.3
    assert zero_share(np.zeros(1000, np.float32)) == 1.0


def test_traits_of_known_sounds(tmp_path: Path) -> None:
    t = np.arange(RATE_HZ) / RATE_HZ
    tone = (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", tone, RATE_HZ, subtype="PCM_16")
    found = traits(read_clip(_clip(tmp_path / "a.wav", "cry", "g")), tmp_path / "a.wav")
    assert found.bandwidth_hz == pytest.approx(1000, abs=40)
    assert found.above_4khz_db < -50 and found.duration_s == 1.0
    assert found.level_dbfs == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert found.file_rate == pytest.approx(256, rel=0.01)
    assert found.codec == "WAV/PCM_16 16000 Hz 1 ch"


@pytest.mark.parametrize(("low", "word"), [(0.81, "strong"), (0.7, "weak"), (0.5, "none")])
def test_verdicts(low: float, word: str) -> None:
    assert verdict_of(low) == word


def _clip(path: Path, event: str, group: str, split: str = "train") -> Clip:
    return Clip(path, event, group, split, "s", "CC0", event, "", {})


def write(folder: Path, rows: list[tuple[Audio, str, str, str]]) -> Path:
    """A manifest of (samples, event, group, split)."""
    lines = ["path,event,group,split"]
    for k, (samples, event, group, split) in enumerate(rows):
        soundfile.write(folder / f"{k}.flac", np.clip(samples, -1, 1), RATE_HZ)
        lines.append(f"{k}.flac,{event},{group},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def world(n: int = 30, *, narrow_cries: bool = False) -> list[tuple[Audio, str, str, str]]:
    """Clips of noise; ``cry`` is a name alone, unless its clips are low-passed."""
    rng = np.random.default_rng(8)
    rows: list[tuple[Audio, str, str, str]] = []
    for k in range(n):
        event = "cry" if k % 2 else "noise"
        samples = 0.1 * rng.standard_normal(int(RATE_HZ * rng.uniform(0.8, 1.2)))
        samples *= rng.uniform(0.2, 1)
        if narrow_cries and event == "cry":
            samples = low_pass(samples, 3500)
        split = ("train", "train", "val", "test")[k // 2 % 4]
        rows.append((samples.astype(np.float32), event, f"g{k}", split))
    return rows


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    report = audit_manifest(write(tmp_path, world()), bootstrap=50)
    assert not report["leak"] and not report["duplicates"] and not report["alike"]
    assert {row["verdict"] for row in report["shortcuts"]} == {"none"}


def test_a_missing_band_is_told(tmp_path: Path) -> None:
    report = audit_manifest(write(tmp_path, world(60, narrow_cries=True)), bootstrap=50)
    verdicts = {row["name"]: row["verdict"] for row in report["shortcuts"]}
    assert verdicts["bandwidth_hz"] == verdicts["above_4khz_db"] == "strong"
    assert verdicts["all_together"] == "strong"
    assert verdicts["level_dbfs"] == verdicts["duration_s"] == verdicts["zero_share"] == "none"
    (row,) = [row for row in report["shortcuts"] if row["name"] == "bandwidth_hz"]
    assert row["auc"] == 1.0 and row["direction"] == "lower in cries" and row["groups"] == 60


def test_codecs_are_scored_on_other_groups() -> None:
    # Every group has a codec of its own, so other groups tell nothing about it.
    from crykit_train.data.shortcuts import Traits

    def made_up(codec: str) -> Traits:
        return Traits(*([0.0] * 8), codec=codec)

    clips = [_clip(Path("a"), "cry" if k < 20 else "noise", f"g{k}") for k in range(40)]
    own = shortcut_table([made_up(f"c{k}") for k in range(40)], clips, bootstrap=20)
    assert {row["name"]: row["verdict"] for row in own}["codec"] == "none"
    shared = [made_up("WAV" if k < 20 else "OGG") for k in range(40)]
    table = {row["name"]: row for row in shortcut_table(shared, clips, bootstrap=20)}
    assert table["codec"]["auc"] == 1.0 and table["level_dbfs"]["auc"] == 0.5


def test_leaks_end_in_exit_code_1(tmp_path: Path, run_cli: Any, made: list[Audio]) -> None:
    (tmp_path / "clean").mkdir()
    clean = run_cli("data", "audit", write(tmp_path / "clean", world()), "--bootstrap", "20")
    assert clean.returncode == 0 and b"no leak found" in clean.stdout
    rows = world()
    rows += [(made[7], "cry", "one", "train"), (0.3 * made[7][8000:], "cry", "other", "test")]
    rows += [(made[8], "cry", "torn", "train"), (made[9], "cry", "torn", "val")]
    rows += [(made[10], "cry", "x", "train"), (made[10][4000:], "cry", "y", "train")]
    (tmp_path / "leaky").mkdir()
    done = run_cli("data", "audit", write(tmp_path / "leaky", rows), "--json", "--bootstrap", "20")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["leak"]
    assert report["groups"] == [{"group": "torn", "clips": {"train": 1, "val": 1}}]
    (pair,) = report["duplicates"]
    assert (pair["a_group"], pair["b_group"], pair["offset_s"]) == ("one", "other", 0.5)
    (alike,) = report["alike"]
    assert {alike["a_group"], alike["b_group"]} == {"x", "y"}


def test_a_manifest_without_cries_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, [row for row in world() if row[1] != "cry"])
    with pytest.raises(InputError, match="shortcuts need cries"):
        audit_manifest(path)

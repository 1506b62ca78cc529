"""ComParE 2016 features: their size, what they measure, the cache, and bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit.dataset import Clip
from crykit.errors import InputError, MissingPart

RATE_HZ = 16_000


def tone(hz: float, seconds: float, level: float = 0.3) -> np.ndarray:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    wave = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 6))
    return (level * wave).astype(np.float32)


def clip_of(path: Path, samples: np.ndarray) -> Clip:
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
    return Clip(path, "cry", path.stem, "train", "s", "l", "cry", "", {})


@pytest.fixture
def compare():
    pytest.importorskip("opensmile")
    from crykit_train import compare

    return compare


def test_the_mean_pitch_is_that_of_the_tone(compare) -> None:
    names = list(compare._smile().feature_names)
    # amean is of the voiced frames, in Hz; linregc1 of a steady tone would be 0.
    pitch = names.index("F0final_sma_amean")
    for hz in (220.0, 400.0):
        row = compare.compare_features(tone(hz, 2.0))
        assert row.shape == (6373,)
        assert row.dtype == np.float32
        assert np.isfinite(row).all()
        assert row[pitch] == pytest.approx(hz, rel=0.02)


@pytest.mark.parametrize("n", [1, 100, 400, 1599, 1600])
def test_short_and_silent_audio_gives_finite_numbers(compare, n: int) -> None:
    assert np.isfinite(compare.compare_features(tone(300, 1)[:n])).all()
    assert np.isfinite(compare.compare_features(np.zeros(n, np.float32))).all()


def test_the_sample_rate_is_heeded(compare) -> None:
    pitch = list(compare._smile().feature_names).index("F0final_sma_amean")
    row = compare.compare_features(tone(400, 2.0)[::2], rate_hz=8000)
    assert row[pitch] == pytest.approx(400, rel=0.02)


@pytest.mark.parametrize(
    "samples", [np.zeros(0), np.zeros((2, 400)), np.array([0.0, np.nan] * 4000)]
)
def test_what_is_no_recording_is_refused(compare, samples: np.ndarray) -> None:
    with pytest.raises(InputError, match="one channel of finite samples"):
        compare.compare_features(samples)


def test_the_cache_gives_the_same_and_mends_itself(compare, tmp_path: Path, monkeypatch) -> None:
    clips = [clip_of(tmp_path / f"{hz}.wav", tone(hz, 0.5)) for hz in (250, 500)]
    plain = compare.compare_of(clips)
    folder = tmp_path / "cache"
    steps: list[tuple[int, int]] = []
    cached = compare.compare_of(clips, folder, lambda done, of: steps.append((done, of)))
    assert np.array_equal(plain, cached)
    assert steps == [(1, 2), (2, 2)]
    kept = sorted(folder.glob("*.npy"))
    assert len(kept) == 2 == len(list(folder.iterdir()))
    kept[0].write_bytes(kept[0].read_bytes()[:200])  # a kill while copying
    counted = []
    real = compare.compare_features
    monkeypatch.setattr(compare, "compare_features", lambda s: counted.append(1) or real(s))
    assert np.array_equal(plain, compare.compare_of(clips, folder))
    assert len(counted) == 1  # the broken one alone


def test_without_opensmile_the_extra_is_named(monkeypatch) -> None:
    from crykit_train import compare

    compare._smile.cache_clear()
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(MissingPart, match=r"crykit\[compare\]"):
        compare.compare_features(tone(300, 1))
    monkeypatch.undo()
    compare._smile.cache_clear()

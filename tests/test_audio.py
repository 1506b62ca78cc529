"""Reading sound: formats, rates, channels, damage; and memory that does not grow."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit.audio import StreamResampler, open_audio
from crykit.errors import InputError, UsageError

RATE_HZ = 16_000


def read(path, **options) -> np.ndarray:
    with open_audio(path, **options) as source:
        blocks = list(source)
    assert all(b.dtype == np.float32 and b.ndim == 1 for b in blocks)
    return np.concatenate(blocks)


def tone(rate_hz: int, seconds: float = 2.0, hz: float = 440.0) -> np.ndarray:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def loudest_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * RATE_HZ / len(samples)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24"), ("ogg", "VORBIS"), ("mp3", None)],
)
def test_formats(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(44_100), 44_100, subtype=subtype)
    samples = read(path)
    assert abs(len(samples) - 2 * RATE_HZ) <= (2500 if suffix == "mp3" else 1)
    assert loudest_hz(samples) == pytest.approx(440, abs=1)
    assert np.abs(samples[8000:24_000]).max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 48_000, 96_000, 200_000])
def test_rates_keep_length_and_pitch(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(rate_hz), rate_hz)
    with open_audio(path) as source:
        samples = np.concatenate(list(source))
        assert source.duration_s == pytest.approx(2.0)
        assert source.source_rate_hz == rate_hz
    assert abs(len(samples) - 2 * RATE_HZ) <= 1
    assert loudest_hz(samples) == pytest.approx(440, abs=1)


def test_eight_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.stack([np.full(1600, k / 10, np.float32) for k in range(8)], axis=1)
    path = tmp_path / "eight.wav"
    soundfile.write(path, channels, RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(read(path), 0.35, atol=1e-6)


def test_at_the_same_rate_samples_pass_untouched(tmp_path: Path, cry: np.ndarray) -> None:
    path = tmp_path / "cry.wav"
    soundfile.write(path, cry, RATE_HZ, subtype="FLOAT")
    np.testing.assert_array_equal(read(path), cry)


def test_resampling_in_chunks_is_resampling_whole() -> None:
    samples = tone(44_100, 1.5)
    whole = StreamResampler(44_100, RATE_HZ)
    expected = np.concatenate([whole.feed(samples), whole.flush()])
    chunked, rng, parts, start = StreamResampler(44_100, RATE_HZ), np.random.default_rng(1), [], 0
    while start < len(samples):
        stop = start + int(rng.integers(1, 5000))
        parts.append(chunked.feed(samples[start:stop]))
        start = stop
    np.testing.assert_array_equal(np.concatenate([*parts, chunked.flush()]), expected)
    assert abs(len(expected) - 24_000) <= 1


@pytest.mark.parametrize(
    ("kind", "dtype", "gain"), [("s16le", "<i2", 32768.0), ("f32le", "<f4", 1.0)]
)
def test_raw_pcm_on_standard_input(kind: str, dtype: str, gain: float) -> None:
    left, right = tone(8_000), np.zeros(16_000, np.float32)
    raw = (np.stack([left, right], axis=1) * gain).astype(dtype).tobytes()
    stdin = io.BytesIO(raw + b"\x01")  # half a sample at the end
    samples = read("-", rate_hz=8_000, channels=2, pcm_format=kind, stdin=stdin)
    assert len(samples) == 2 * RATE_HZ
    assert np.abs(samples[8000:24_000]).max() == pytest.approx(0.15, abs=0.005)


def test_raw_pcm_is_passed_on_as_it_arrives() -> None:
    readable, writable = os.pipe()
    with os.fdopen(readable, "rb") as stdin, os.fdopen(writable, "wb") as feeder:
        feeder.write(np.full(160, 3276, "<i2").tobytes())
        feeder.flush()
        with open_audio("-", stdin=stdin) as source:
            # The pipe stays open: a reader that waited for a full block would hang here.
            assert len(next(iter(source))) == 160


def test_a_file_on_standard_input_is_told_from_raw_pcm() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(RATE_HZ), RATE_HZ, format="FLAC")
    buffer.seek(0)
    with pytest.raises(InputError, match="expected raw PCM, got a FLAC file"):
        read("-", stdin=buffer)


@pytest.mark.parametrize(
    "options", [{"rate_hz": 0}, {"channels": 0}, {"pcm_format": "u8"}, {"rate_hz": 10**9}]
)
def test_impossible_pcm_is_refused(options: dict) -> None:
    with pytest.raises(UsageError):
        read("-", stdin=io.BytesIO(b"\0" * 100), **options)


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_bytes(b"this is no sound at all\n" * 100)
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), RATE_HZ)
    for name, words in {
        "empty.wav": "empty",
        "text.wav": "expected a sound file",
        "none.wav": "holds no sound",
        "absent.wav": "No such file",
        ".": "got a folder",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read(tmp_path / name)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="holds no sound"):
        read("-", stdin=io.BytesIO())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_placed(tmp_path: Path, bad: float) -> None:
    samples = tone(RATE_HZ, 3.0)
    samples[40_000] = bad
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN or infinite sample at 2.500 s"):
        read(path)


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg"])
def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, 0.1 * rng.standard_normal(10 * RATE_HZ), RATE_HZ)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    heard = 0
    with open_audio(path) as source:
        try:
            for block in source:
                heard += len(block)
        except InputError as error:
            assert "damaged" in str(error)
        else:
            # WAV and Ogg have no length that outlives the cut: all that is there was read.
            assert suffix != "flac"
    assert 3 * RATE_HZ < heard < 7 * RATE_HZ


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
        for _ in range(20):
            file.write(np.zeros(60 * 8_000, np.int16))
    with open_audio(path) as source:
        blocks = iter(source)
        next(blocks)
        tracemalloc.start()
        seconds = sum(len(block) for block in blocks) / RATE_HZ
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert seconds > 1190
    assert peak < 4_000_000  # twenty minutes whole would be 77 MB

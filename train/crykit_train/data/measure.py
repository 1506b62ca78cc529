"""Numbers that a manifest holds about a clip: level, clipping, silence, share of voiced frames."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from crykit.dataset import SAMPLE_RATE_HZ, Clip, read_clip

SILENT_DBFS = -65.0
SILENT_FRAME_SAMPLES = 320  # 20 ms
VOICED_DBFS = -50.0
VOICED_FRAME_SAMPLES = 640  # 40 ms, three periods of the lowest pitch
VOICED_HOP_SAMPLES = 320
PITCH_HZ = (180.0, 800.0)
PERIODIC = 0.5
HIGH_PASS_HZ = 150.0  # rumble is periodic too


def measure(path: Path) -> dict[str, Any]:
    """The measured columns of one file, and the SHA-256 of its bytes.

    Levels are in dB against full scale, of the clip mixed to mono at 16 kHz; ``clipped_frac`` is
    of the original samples.

    Raises:
        InputError: the file cannot be read, is empty, or holds samples that are not finite.
    """
    samples = read_clip(_as_clip(path))
    info = soundfile.info(str(path))
    original = soundfile.read(path, dtype="float32")[0]
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "duration_s": round(len(samples) / SAMPLE_RATE_HZ, 3),
        "rms_dbfs": _decibels(rms),
        "peak_dbfs": _decibels(float(np.abs(samples).max())),
        "clipped_frac": round(float((np.abs(original) >= 0.999).mean()), 5),
        "silent_frac": round(silent_fraction(samples), 3),
        "tonal_frac": round(tonal_fraction(samples), 3),
        "orig_rate": info.samplerate,
        "orig_ch": info.channels,
        "orig_format": f"{info.format}/{info.subtype}",
    }


def silent_fraction(samples: NDArray[np.float32]) -> float:
    """Share of 20 ms frames under -65 dBFS RMS; 1 for less than a frame."""
    n = len(samples) // SILENT_FRAME_SAMPLES * SILENT_FRAME_SAMPLES
    power = np.square(samples[:n], dtype=np.float64).reshape(-1, SILENT_FRAME_SAMPLES).mean(axis=1)
    return float((power < 10 ** (SILENT_DBFS / 10)).mean()) if len(power) else 1.0


def tonal_fraction(samples: NDArray[np.float32]) -> float:
    """Share of 40 ms frames over -50 dBFS in which a pitch from 180 to 800 Hz shows.

    The normalised autocorrelation of the windowed frame, divided by that of the window (Boersma,
    IFA Proceedings 17, 1993), exceeds 0.5 at a lag of that range. A rough sign of a voice, no
    label. The clip is high-passed at 150 Hz first.
    """
    if len(samples) < VOICED_FRAME_SAMPLES:
        return 0.0
    clean = _high_pass(samples)
    frames = np.lib.stride_tricks.sliding_window_view(clean, VOICED_FRAME_SAMPLES)
    voiced = n = 0
    for first in range(0, len(frames), 4096 * VOICED_HOP_SAMPLES):  # a bounded piece at a time
        piece = frames[first : first + 4096 * VOICED_HOP_SAMPLES : VOICED_HOP_SAMPLES]
        loud = np.square(piece, dtype=np.float64).mean(axis=1) > 10 ** (VOICED_DBFS / 10)
        voiced += int((loud & (periodicity(piece) > PERIODIC)).sum())
        n += len(piece)
    return voiced / n


def periodicity(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    """Largest normalised autocorrelation at a lag of the pitch range; (n, samples) -> (n,)."""
    n = frames.shape[1]
    window = np.hanning(n)
    correlation = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window)
    of_window = _autocorrelation(window[None, :])
    low, high = int(SAMPLE_RATE_HZ / PITCH_HZ[1]), int(SAMPLE_RATE_HZ / PITCH_HZ[0])
    normalised = correlation / (correlation[:, :1] + 1e-12) / (of_window / of_window[:, :1] + 1e-3)
    return normalised[:, low : high + 1].max(axis=1)


def _autocorrelation(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    n = frames.shape[1]
    spectrum = np.fft.rfft(frames, 2 ** int(np.ceil(np.log2(2 * n))), axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n]


def _high_pass(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """An eighth-order slope at 150 Hz, without a change of phase."""
    n = 2 ** int(np.ceil(np.log2(len(samples))))
    hz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    hz[0] = 1e-3
    gain = 1 / np.sqrt(1 + (HIGH_PASS_HZ / hz) ** 8)
    return np.fft.irfft(np.fft.rfft(samples, n) * gain, n)[: len(samples)].astype(np.float32)


def _decibels(amplitude: float) -> float:
    return round(20 * float(np.log10(max(amplitude, 1e-6))), 2)


def _as_clip(path: Path) -> Clip:
    return Clip(path, "", "", "", "", "", "", "", {})

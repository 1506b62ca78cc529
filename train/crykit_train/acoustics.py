"""Rooms and microphones for composed sequences, all in one pass over the spectrum.

A sound is transformed once: its spectrum is multiplied by an equaliser, a low-pass and a room,
and comes back at another length, which is a change of speed. Arrays are float32, mono, 16 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 320  # 20 ms, for levels

Audio = NDArray[np.float32]

# Its annotations are those of its dispatcher, not of the arrays that come back.
fft: Any = scipy.fft


@dataclass(frozen=True)
class Treatment:
    """What is done to one sound; ``None`` or 1.0 leaves it as it is.

    ``equaliser_db`` are gains at six frequencies from 60 Hz to 8 kHz, evenly spaced in octaves.
    """

    equaliser_db: NDArray[np.float64] | None = None
    low_pass_hz: float | None = None
    room: Audio | None = None
    speed: float = 1.0


def treat(samples: Audio, treatment: Treatment) -> Audio:
    """Apply a treatment; the result is shorter or longer by the speed, plus the room's tail."""
    room = treatment.room
    wanted = len(samples) + (0 if room is None else len(room) - 1)
    n = fft.next_fast_len(wanted, real=True)
    spectrum = fft.rfft(samples, n)
    hz = np.arange(len(spectrum), dtype=np.float32) * (SAMPLE_RATE_HZ / n)
    if treatment.equaliser_db is not None:
        spectrum *= equaliser(hz, treatment.equaliser_db)
    if treatment.low_pass_hz is not None:
        spectrum *= low_pass(hz, treatment.low_pass_hz)
    if room is not None:
        spectrum *= fft.rfft(room, n)
    # The nearest length that transforms fast; the speed it stands for differs by under a percent.
    m = n if treatment.speed == 1.0 else fft.next_fast_len(round(n / treatment.speed), real=True)
    kept = min(len(spectrum), m // 2 + 1)
    out = fft.irfft(spectrum[:kept], m).astype(np.float32) * np.float32(m / n)
    return out[: wanted * m // n]


def equaliser(hz: NDArray[np.float32], gains_db: NDArray[np.float64]) -> NDArray[np.float32]:
    """Smooth gain over frequency through anchors evenly spaced in octaves."""
    anchors = np.linspace(np.log2(60.0), np.log2(8000.0), len(gains_db))
    # The curve is smooth, so it is drawn at 64 points and spread linearly over the bins.
    points_hz = np.geomspace(40.0, 8000.0, 64)
    curve = 10 ** (np.interp(np.log2(points_hz), anchors, gains_db) / 20)
    return np.interp(hz, points_hz, curve).astype(np.float32)


def low_pass(hz: NDArray[np.float32], corner_hz: float) -> NDArray[np.float32]:
    """Magnitude of a steep telephone-like low-pass, 96 dB an octave."""
    return (1.0 / np.sqrt(1.0 + (hz / corner_hz) ** 32)).astype(np.float32)


def tilt(hz: NDArray[np.float32], corner_hz: float, db_per_octave: float) -> NDArray[np.float32]:
    """A quiet room: high-passed at 60 Hz, falling above a corner."""
    fall = (1.0 + (hz / corner_hz) ** 2) ** (db_per_octave / 12.04)
    return ((hz / (hz + 60.0)) ** 2 * fall).astype(np.float32)


def room_response(rng: np.random.Generator) -> Audio:
    """A synthetic room: a direct path, a few early echoes, an exponentially decaying tail.

    Reverberation time 0.1 to 0.7 s, direct-to-reverberant ratio -3 to 15 dB.
    """
    decay_s = rng.uniform(0.1, 0.7)
    n = int(decay_s * SAMPLE_RATE_HZ)
    t = np.arange(n, dtype=np.float32) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(n, dtype=np.float32) * np.exp(-6.9 * t / decay_s)
    start = int(rng.uniform(0.002, 0.015) * SAMPLE_RATE_HZ)
    tail[:start] = 0.0
    for _ in range(4):
        tail[int(rng.integers(start, max(start + 1, n // 4)))] += 3.0 * rng.standard_normal()
    ratio_db = rng.uniform(-3.0, 15.0)
    tail *= np.float32(10 ** (-ratio_db / 20)) / np.sqrt(np.square(tail).sum() + 1e-12)
    tail[0] = 1.0
    return tail.astype(np.float32)


def frame_rms(samples: Audio, frame_samples: int = FRAME_SAMPLES) -> NDArray[np.float32]:
    """RMS of whole frames, (n // frame_samples,)."""
    n = len(samples) // frame_samples * frame_samples
    return np.sqrt(np.square(samples[:n].reshape(-1, frame_samples)).mean(axis=1) + 1e-14)


def active_part(samples: Audio) -> tuple[Audio, float] | None:
    """Trim to the frames within 30 dB of the loud level, and the RMS of the active frames.

    None where hardly anything sounds.
    """
    rms = frame_rms(samples)
    if len(rms) < 5:
        return None
    on = np.flatnonzero(rms > max(float(np.percentile(rms, 95)) * 10 ** (-30 / 20), 1e-4))
    if len(on) < 5:
        return None
    part = samples[on[0] * FRAME_SAMPLES : (on[-1] + 1) * FRAME_SAMPLES].copy()
    return part, active_rms(part)


def active_rms(samples: Audio) -> float:
    """RMS over the frames within 20 dB of the loud level."""
    rms = frame_rms(samples)
    if not len(rms):
        return float(np.sqrt(np.square(samples).mean() + 1e-14))
    loud = rms[rms > np.percentile(rms, 95) * 10 ** (-20 / 20)]
    return float(np.sqrt(np.square(loud).mean())) if len(loud) else float(rms.mean())


def fade_edges(samples: Audio, fade_samples: int = 160) -> Audio:
    """Fade both ends in place, 10 ms by default, so that no click marks them."""
    n = min(fade_samples, len(samples) // 4)
    if n:
        ramp = np.linspace(0.0, 1.0, n, dtype=np.float32)
        samples[:n] *= ramp
        samples[-n:] *= ramp[::-1]
    return samples

"""Numpy building blocks of the synthetic sounds: seeded noise, filters, envelopes, levels.

Everything works on mono float arrays at `SAMPLE_RATE_HZ`; nothing here knows what a cry is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
# 10 ms frames: short enough to see a tick, long enough to hold one period of any voice here.
LEVEL_FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
# Everything is band-limited below this, so that a resampler's transition band stays empty.
BAND_LIMIT_HZ = 7_700.0

Samples = NDArray[np.float32]
Floats = NDArray[np.float64]


def to_samples(duration_s: float) -> int:
    """Return the number of samples in `duration_s` seconds."""
    return int(round(duration_s * SAMPLE_RATE_HZ))


def band_limit(frequency_hz: Floats, top_hz: float = BAND_LIMIT_HZ) -> Floats:
    """Gain of a soft upper edge: one until 500 Hz below `top_hz`, a raised cosine to zero there."""
    edge = np.clip((top_hz - frequency_hz) / 500.0, 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * edge)


def bins_hz(n_fft: int) -> Floats:
    """Frequencies (n_fft // 2 + 1,) of the bins of a real transform."""
    return np.fft.rfftfreq(n_fft, 1.0 / SAMPLE_RATE_HZ).astype(np.float64)


def fir(gain: Callable[[Floats], Floats], n_taps: int = 1024) -> Samples:
    """Design a linear-phase FIR (n_taps,) whose magnitude follows `gain(frequency_hz)`."""
    frequency_hz = bins_hz(n_taps)
    magnitude = gain(frequency_hz) * band_limit(frequency_hz)
    taps = np.roll(np.fft.irfft(magnitude, n_taps), n_taps // 2) * np.hanning(n_taps)
    return taps.astype(np.float32)


def convolve(x: Samples, taps: Samples, block: int = 8192) -> Samples:
    """Filter `x` (n,) by `taps` by overlap-add in blocks, delay kept; returns (n,)."""
    n_fft = 1 << int(np.ceil(np.log2(block + len(taps) - 1)))
    hop = n_fft - len(taps) + 1
    spectrum = np.fft.rfft(taps, n_fft).astype(np.complex64)
    out = np.zeros(len(x) + n_fft, np.float32)
    per_batch = 32  # bounds the scratch memory of a long night to a few megabytes
    for start in range(0, len(x), hop * per_batch):
        chunk = x[start : start + hop * per_batch]
        rows = -(-len(chunk) // hop)
        padded = np.zeros(rows * hop, np.float32)
        padded[: len(chunk)] = chunk
        frames = np.fft.irfft(np.fft.rfft(padded.reshape(rows, hop), n_fft) * spectrum, n_fft)
        for row in range(rows):
            at = start + row * hop
            out[at : at + n_fft] += frames[row]
    return out[: len(x)]


def shaped_noise(
    rng: np.random.Generator, n: int, gain: Callable[[Floats], Floats], n_taps: int = 1024
) -> Samples:
    """Return (n,) noise with the magnitude spectrum `gain(frequency_hz)`, unit RMS."""
    white = rng.standard_normal(n + n_taps, dtype=np.float32)
    noise = convolve(white, fir(gain, n_taps))[n_taps:]  # drops the filter's start-up
    noise /= np.float32(rms(noise) + 1e-12)
    return noise


def band(low_hz: float, high_hz: float, order: float = 2.0) -> Callable[[Floats], Floats]:
    """Gain of a smooth band-pass between two corner frequencies."""

    def gain(frequency_hz: Floats) -> Floats:
        f = np.maximum(frequency_hz, 1.0)
        return 1.0 / np.sqrt((1 + (low_hz / f) ** (2 * order)) * (1 + (f / high_hz) ** (2 * order)))

    return gain


def smooth_random(rng: np.random.Generator, n: int, step: float) -> Floats:
    """Return (n,) zero-mean unit-variance random curve with about one free value per `step`."""
    n_knots = int(np.ceil(n / step)) + 2
    knots = rng.standard_normal(n_knots)
    return np.interp(np.arange(n), (np.arange(n_knots) - rng.uniform(0.0, 1.0)) * step, knots)


def decay(n: int, time_s: float) -> Floats:
    """Return (n,) exponential falling by 60 dB in `time_s` seconds."""
    return np.exp(-6.908 * np.arange(n) / (time_s * SAMPLE_RATE_HZ))


def fade(x: Samples, fade_s: float = 0.01) -> Samples:
    """Return `x` with raised-cosine edges, so that it can be pasted without a click."""
    n = min(to_samples(fade_s), len(x) // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / max(n, 1))).astype(np.float32)
    y = x.copy()
    y[:n] *= ramp
    y[len(y) - n :] *= ramp[::-1]
    return y


def reverberate(x: Samples, rng: np.random.Generator, rt60_s: float, wet: float) -> Samples:
    """Add a diffuse room tail of reverberation time `rt60_s`; the length stays (n,)."""
    n = max(to_samples(rt60_s), 64)
    tail = rng.standard_normal(n) * decay(n, rt60_s)
    tail[: to_samples(0.004)] = 0.0  # the first reflections come back after a metre or so
    # A room swallows its treble first.
    tail = np.convolve(tail, [0.25, 0.5, 0.25])[:n]
    tail *= wet / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return convolve(x, tail.astype(np.float32))


def rms(x: Samples | Floats) -> float:
    """Return the root mean square of `x`, 0.0 of nothing."""
    block = 1 << 20  # a long night squared in double precision at once would double the memory
    energy = sum(
        float(np.sum(np.square(x[i : i + block], dtype=np.float64)))
        for i in range(0, len(x), block)
    )
    return float(np.sqrt(energy / max(len(x), 1)))


def active_rms(x: Samples) -> float:
    """RMS of the 10 ms frames within 20 dB of the loud level.

    That is the 95th percentile of the frames within 40 dB of the loudest, so that the silence
    between two ticks of a clock does not count.
    """
    n_frames = len(x) // LEVEL_FRAME_SAMPLES
    if n_frames < 2:
        return rms(x)
    frames = x[: n_frames * LEVEL_FRAME_SAMPLES].reshape(n_frames, LEVEL_FRAME_SAMPLES)
    power: Floats = np.mean(np.square(frames, dtype=np.float64), axis=1)
    loud = float(np.percentile(power[power >= 1e-4 * power.max()], 95))
    return float(np.sqrt(np.mean(power[power >= 0.01 * loud])))


def at_level(x: Samples, level_dbfs: float, peak: float = 0.9) -> Samples:
    """Scale `x` to an active RMS of `level_dbfs`, lower where the peak would pass `peak`."""
    gain = 10.0 ** (level_dbfs / 20.0) / (active_rms(x) + 1e-12)
    gain = min(gain, peak / (float(np.max(np.abs(x), initial=0.0)) + 1e-12))
    return (x * gain).astype(np.float32)

"""Acoustic descriptors of a clip, to set beside what a model has learnt.

The dimensions of M. Ogg (2025), sections II.D and III: level, energy in bands of equal rectangular
bandwidth (ERB), spectral centroid, variability, pitch; as medians and interquartile ranges over
frames (G. Peeters et al., "The Timbre Toolbox", J. Acoust. Soc. Am. 130, 2011, section II.C).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crykit.errors import InputError
from crykit_train.understand.pitch import yin

Array = NDArray[np.float64]

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES, HOP_SAMPLES, FFT_SIZE = 400, 160, 512  # 25 ms every 10 ms
N_BANDS = 12  # triangles, their centres 2.3 ERB apart
BANDS_FROM_HZ, BANDS_TO_HZ = 60.0, 7800.0
FLOOR_DB = -100.0
# Frames this far under the loudest hold no spectrum of the sound: padding and pauses.
ACTIVE_DB = 50.0
LEAST_VOICED = 0.1  # share of frames; with fewer a clip has no pitch to speak of


def erb_number(hz: ArrayLike) -> Array:
    """Place on the scale of equal rectangular bandwidths, in Cams.

    B. Glasberg and B. Moore, Hearing Research 47, 1990, equation 4.
    """
    return 21.4 * np.log10(1.0 + 0.00437 * np.asarray(hz, np.float64))


def erb_hz(cams: ArrayLike) -> Array:
    """The frequency of a place: the inverse of `erb_number`."""
    return (10.0 ** (np.asarray(cams, np.float64) / 21.4) - 1.0) / 0.00437


@cache
def band_centres_hz(n_bands: int = N_BANDS) -> Array:
    """Centres of the bands, spaced evenly in ERB numbers from 60 Hz to 7.8 kHz: (n_bands,)."""
    ends = float(erb_number(BANDS_FROM_HZ)), float(erb_number(BANDS_TO_HZ))
    return erb_hz(np.linspace(*ends, n_bands))


@cache
def erb_filters(n_bands: int = N_BANDS) -> Array:
    """Weights on the power of each bin, (n_bands, bins): triangles on the ERB scale.

    Between the first and the last centre the bands' weights sum to one at every bin, so that no
    power is counted twice.
    """
    cams = erb_number(np.fft.rfftfreq(FFT_SIZE, 1.0 / SAMPLE_RATE_HZ))
    centres = erb_number(band_centres_hz(n_bands))
    step = centres[1] - centres[0]
    return np.maximum(0.0, 1.0 - np.abs(cams - centres[:, None]) / step)


def describe(samples: NDArray[np.floating]) -> dict[str, float]:
    """Every descriptor of samples (n,) at 16 kHz, by the names of `NAMES`.

    Levels are in dB to full scale, with a floor at -100; centroids in Hz; pitch in octaves to
    1 kHz, nan where less than a tenth of the frames is voiced.

    Raises:
        InputError: no samples, or some that are not finite.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise InputError(
            f"descriptors need one channel of finite samples; got shape {samples.shape}"
        )
    power = _power(samples)
    found = {"level": float(_db((samples**2).mean()))}
    frame_db = _db(power.sum(1))
    active = frame_db >= max(frame_db.max() - ACTIVE_DB, FLOOR_DB + 1.0)
    power = power[active] if active.any() else power[:1]
    found["level variability"] = float(_spread(_db(power.sum(1))))
    bands = power @ erb_filters().T
    for name, level, spread in zip(
        _band_names(), _db(bands.mean(0)), _spread(_db(bands)), strict=True
    ):
        found[name], found[f"{name} variability"] = float(level), float(spread)
    centroid = _centroid_hz(power)
    found["centroid"] = float(np.median(centroid))
    found["centroid variability"] = float(_spread(centroid))
    found["spectral variation"] = _variation(power)
    return {**found, **_pitch(samples)}


def describe_all(recordings: Sequence[NDArray[np.floating]]) -> dict[str, Array]:
    """`describe` of many: each descriptor as (recordings,)."""
    rows = [describe(samples) for samples in recordings]
    return {name: np.array([row[name] for row in rows]) for name in NAMES}


def _band_names() -> list[str]:
    return [f"energy at {hz:.0f} Hz" for hz in band_centres_hz()]


NAMES: tuple[str, ...] = (
    "level",
    "level variability",
    *_band_names(),
    *(f"{name} variability" for name in _band_names()),
    "centroid",
    "centroid variability",
    "spectral variation",
    "pitch",
    "pitch variability",
    "periodicity",
)
PITCHED = ("pitch", "pitch variability")


def _power(samples: Array) -> Array:
    """Power of each bin, (frames, bins), scaled so that a frame's sum is its mean square."""
    if len(samples) < FRAME_SAMPLES:
        samples = np.pad(samples, (0, FRAME_SAMPLES - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME_SAMPLES)[::HOP_SAMPLES]
    window = np.hanning(FRAME_SAMPLES + 1)[:-1]
    power = np.abs(np.fft.rfft(frames * window, FFT_SIZE)) ** 2
    power[:, 1:-1] *= 2.0  # the bins of negative frequencies
    return power / (FFT_SIZE * (window**2).sum())


def _db(power: ArrayLike) -> Array:
    return 10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR_DB / 10.0)))


def _spread(values: Array) -> Array:
    """Interquartile range over frames, the first axis."""
    low, high = np.percentile(values, [25, 75], axis=0)
    return np.asarray(high - low)


def _centroid_hz(power: Array) -> Array:
    hz = np.fft.rfftfreq(FFT_SIZE, 1.0 / SAMPLE_RATE_HZ)
    total = power.sum(1)
    return power @ hz / np.where(total > 0.0, total, 1.0)


def _variation(power: Array) -> float:
    """Median over frames of 1 - the correlation of a frame's magnitudes with the last one's.

    The Timbre Toolbox's spectral variation, section II.B: 0 for a steady spectrum.
    """
    if len(power) < 2:
        return 0.0
    magnitude = np.sqrt(power)
    norms = np.linalg.norm(magnitude, axis=1)
    both = norms[1:] * norms[:-1]
    products = (magnitude[1:] * magnitude[:-1]).sum(1)
    return float(np.median(1.0 - products / np.where(both > 0.0, both, 1.0)))


def _pitch(samples: Array) -> dict[str, float]:
    track = yin(samples)
    octaves = np.log2(track.hz[track.voiced] / 1000.0)
    voiced = track.voiced.mean() >= LEAST_VOICED
    return {
        "pitch": float(np.median(octaves)) if voiced else float("nan"),
        "pitch variability": float(_spread(octaves)) if voiced else float("nan"),
        "periodicity": float(1.0 - np.median(np.minimum(track.aperiodicity, 1.0))),
    }

"""Fundamental frequency by YIN.

A. de Cheveigne and H. Kawahara, "YIN, a fundamental frequency estimator for speech and music",
J. Acoust. Soc. Am. 111, 2002: difference function (their equation 6, over one window per lag),
cumulative mean normalisation (8), absolute threshold (step 4) and parabolic interpolation (step 5).
Cries reach over 1 kHz, adult voices go down to 70 Hz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crykit.errors import InputError

SAMPLE_RATE_HZ = 16_000
LOWEST_HZ, HIGHEST_HZ = 70.0, 1600.0
WINDOW_SAMPLES = 512  # 32 ms are compared at each lag: over two periods of the lowest voice
HOP_SAMPLES = 160
THRESHOLD = 0.15  # the paper's 0.1 suits clean speech; rooms and codecs add aperiodic power
SILENT = 1e-10  # mean square below which a frame has no pitch: -100 dBFS


@dataclass(frozen=True)
class Pitch:
    """One value a frame; ``hz`` is nan where ``aperiodicity`` is over the threshold.

    ``aperiodicity`` is the share of power that does not repeat, 0 to about 1.
    """

    hz: NDArray[np.float64]
    aperiodicity: NDArray[np.float64]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        return np.isfinite(self.hz)


def yin(
    samples: NDArray[np.floating],
    *,
    lowest_hz: float = LOWEST_HZ,
    highest_hz: float = HIGHEST_HZ,
    threshold: float = THRESHOLD,
    hop_samples: int = HOP_SAMPLES,
) -> Pitch:
    """Pitch of samples (n,) at 16 kHz, a frame every ``hop_samples``; shorter audio is padded.

    Raises:
        InputError: a range that the window cannot hold.
    """
    longest = int(np.ceil(SAMPLE_RATE_HZ / lowest_hz)) + 1
    shortest = max(2, int(SAMPLE_RATE_HZ / highest_hz) - 1)
    if not 0 < lowest_hz < highest_hz < SAMPLE_RATE_HZ / 4 or longest > WINDOW_SAMPLES:
        raise InputError(
            f"pitch: expected 32 <= lowest < highest < 4000 Hz, got {lowest_hz} and {highest_hz}"
        )
    frames = _frames(np.asarray(samples, np.float64), WINDOW_SAMPLES + longest, hop_samples)
    difference = _difference(frames, longest)
    normalised = _cumulative_mean_normalise(difference)
    lag, aperiodicity = _pick(normalised, difference, shortest, threshold)
    silent = (frames**2).mean(1) < SILENT
    aperiodicity[silent] = 1.0
    hz = np.where(aperiodicity < threshold, SAMPLE_RATE_HZ / lag, np.nan)
    return Pitch(hz, aperiodicity)


def _frames(samples: NDArray[np.float64], size: int, hop: int) -> NDArray[np.float64]:
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]


def _difference(frames: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    """Sum over a window of (x[j] - x[j + lag])^2, for lags 0 to ``longest``: (frames, lags)."""
    n = frames.shape[1] + WINDOW_SAMPLES
    spectrum = np.fft.rfft(frames, n)
    window = np.fft.rfft(frames[:, :WINDOW_SAMPLES], n)
    cross = np.fft.irfft(spectrum * window.conj(), n)[:, : longest + 1]
    power = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    lags = np.arange(longest + 1)
    shifted = power[:, lags + WINDOW_SAMPLES] - power[:, lags]
    return np.maximum(shifted[:, :1] + shifted - 2.0 * cross, 0.0)


def _cumulative_mean_normalise(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each lag's difference over the mean of those up to it; 1 at lag 0."""
    lags = np.arange(1, difference.shape[1])
    running = np.cumsum(difference[:, 1:], axis=1)
    normalised = np.ones_like(difference)
    np.divide(difference[:, 1:] * lags, running, out=normalised[:, 1:], where=running > 1e-12)
    return normalised


def _pick(
    normalised: NDArray[np.float64],
    difference: NDArray[np.float64],
    shortest: int,
    threshold: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first dip under the threshold, else the deepest; its lag between samples, its depth."""
    inner = normalised[:, shortest:-1]
    dips = (inner <= normalised[:, shortest - 1 : -2]) & (inner < normalised[:, shortest + 1 :])
    good = dips & (inner < threshold)
    first = np.where(good.any(1), good.argmax(1), inner.argmin(1)) + shortest
    rows = np.arange(len(first))
    # The plain difference is interpolated: the normalisation tilts the dip.
    left, middle, right = (difference[rows, first + step] for step in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    shift = np.where(bend > 1e-12, 0.5 * (left - right) / np.where(bend > 1e-12, bend, 1.0), 0.0)
    return first + np.clip(shift, -1.0, 1.0), normalised[rows, first].copy()

"""Source-filter rendering shared by the infant voice and the murmur of grown-ups.

The source is a sum of harmonics, so nothing aliases by construction; the vocal tract is a cascade
of second-order resonances, read off at each harmonic's frequency instead of being run as a filter,
so formants may move as fast as they like without a click. Turbulence is noise shaped by the same
resonances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crykit.synth.dsp import (
    BAND_LIMIT_HZ,
    SAMPLE_RATE_HZ,
    Floats,
    Samples,
    band_limit,
    bins_hz,
)

# Controls are given every 2.5 ms, about once per glottal cycle of an infant.
CONTROL_SAMPLES = 40
CONTROL_HZ = SAMPLE_RATE_HZ // CONTROL_SAMPLES


@dataclass
class Controls:
    """Controls of one stretch of voice, each (n_control,), one value every 2.5 ms.

    `voicing`, `breath` and `subharmonic` are amplitudes (1.0 = full); `tilt` is the fall of the
    source with harmonic number, in 6 dB an octave, the radiation at the lips included.
    """

    f0_hz: Floats
    voicing: Floats
    breath: Floats
    subharmonic: Floats
    tilt: Floats
    formants_hz: Floats  # (n_formants, n_control)
    bandwidths_hz: Floats  # (n_formants,)
    top_hz: float = BAND_LIMIT_HZ  # no harmonic lies above it


def tract(
    frequency_hz: Floats, formants_hz: Floats, bandwidths_hz: Floats
) -> NDArray[np.complex128]:
    """Complex response of the resonance cascade, unit gain at 0 Hz; shapes broadcast."""
    response: NDArray[np.complex128] = np.ones(frequency_hz.shape, np.complex128)
    for formant, bandwidth in zip(formants_hz, bandwidths_hz, strict=True):
        denominator = formant**2 - frequency_hz**2 + 1j * frequency_hz * bandwidth
        response = response * (formant**2 / denominator)
    return response


def stretch(control: NDArray[np.float64], n: int) -> Floats:
    """Interpolate a control (n_control,) linearly to (n,) samples, n = 40 n_control at most."""
    return _interpolate(control)[:n]


def _interpolate(control: NDArray[Any]) -> NDArray[Any]:
    """Linear interpolation between values 40 samples apart, the last one held."""
    following = np.append(control[1:], control[-1:])
    ramp = np.arange(CONTROL_SAMPLES, dtype=np.float32) / np.float32(CONTROL_SAMPLES)
    return (control[:, None] + (following - control)[:, None] * ramp).ravel()


def render(controls: Controls, rng: np.random.Generator) -> Samples:
    """Render (n_control * 40,) samples of voice and turbulence; the level is arbitrary."""
    n = len(controls.f0_hz) * CONTROL_SAMPLES
    return (harmonics(controls, n) + turbulence(controls, n, rng)).astype(np.float32)


def harmonics(controls: Controls, n: int) -> Samples:
    """The voiced part: harmonics of F0 and, where asked for, those of F0 / 2 between them."""
    halves = 2 if np.any(controls.subharmonic > 1e-3) else 1
    base_hz = controls.f0_hz / halves
    cycles = np.cumsum(stretch(base_hz, n)) / SAMPLE_RATE_HZ
    # Single precision is enough from here on: its noise lies 110 dB down, and it is twice as fast.
    rotor = np.exp(2j * np.pi * (cycles % 1.0)).astype(np.complex64)
    turning = np.ones(n, np.complex64)
    out = np.zeros(n, np.float32)
    for k in range(1, int(controls.top_hz / base_hz.min()) + 1):
        turning = turning * rotor
        order = k / halves
        frequency_hz = k * base_hz
        source = controls.voicing * order ** -np.maximum(controls.tilt, 0.0)
        if order != int(order):
            # A subharmonic beneath F0 itself stays faint: the tract hardly passes it on.
            source = source * controls.subharmonic * min(1.0, 0.3 * k)
        source = source * band_limit(frequency_hz, controls.top_hz)
        gain = source * tract(frequency_hz, controls.formants_hz, controls.bandwidths_hz)
        out += (turning * _interpolate(gain.astype(np.complex64))[:n]).real
    return out


def turbulence(controls: Controls, n: int, rng: np.random.Generator) -> Floats:
    """The breathy part: noise in 8 ms windows (half overlapping), shaped by the moving tract."""
    size = 128
    hop = size // 2
    n_frames = n // hop + 2
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size))
    white = rng.standard_normal(n_frames * hop + size)
    frames = np.lib.stride_tricks.sliding_window_view(white, size)[::hop][:n_frames] * window
    # Frame i is centred on sample i * hop of the output.
    at = np.minimum(np.arange(n_frames) * hop // CONTROL_SAMPLES, len(controls.f0_hz) - 1)
    frequency_hz = bins_hz(size)[None, :]
    response = np.abs(
        tract(
            frequency_hz + np.zeros((n_frames, 1)),
            controls.formants_hz[:, at, None],
            controls.bandwidths_hz,
        )
    )
    # Turbulence is white in flow; radiation raises it, so its tilt is that of the lips: +6 dB/oct
    # up to 2 kHz, flat beyond.
    colour = np.minimum(frequency_hz / 2000.0, 1.0) * band_limit(frequency_hz)
    shaped = np.fft.irfft(np.fft.rfft(frames) * response * colour, size) * window
    shaped *= controls.breath[at][:, None]
    out = np.zeros((n_frames + 1) * hop)
    out[: n_frames * hop] += shaped[:, :hop].ravel()
    out[hop:] += shaped[:, hop:].ravel()
    return out[hop : hop + n]

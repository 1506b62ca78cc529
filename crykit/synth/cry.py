"""A synthetic infant cry: glottal source, vocal tract, breath and the rhythm of a bout.

Synthetic, and to be labelled so wherever it is used: it stands in for a cry where no recording
can be shipped (the demo, the golden clips, the tests). No claim about any real baby rests on it.

What the numbers rest on:

- H. L. Golub and M. J. Corwin, "A physioacoustic model of the infant cry", in B. M. Lester and
  C. F. Z. Boukydis (eds), Infant Crying, Plenum, 1985: the source-filter view of the cry and its
  three modes: phonation, dysphonation (turbulent, noisy) and hyperphonation (a sudden shift of F0
  above 1 kHz).
- L. L. LaGasse, A. R. Neal and B. M. Lester, "Assessment of infant cry: acoustic cry analysis and
  parental perception", Mental Retardation and Developmental Disabilities Research Reviews 11,
  2005: the usual ranges of F0 in phonation (some 350-750 Hz) and hyperphonation (1-2 kHz).
- O. Wasz-Hoeckert et al., The Infant Cry: A Spectrographic and Auditory Analysis, 1968: melody
  types, of which the rising-falling one is the commonest here.
- A newborn's vocal tract is about 7.5 cm long; a tube of that length, closed at the glottis,
  resonates at odd multiples of c / 4L: about 1.1, 3.4, 5.7 and 8.0 kHz.

The rest (timing jitter, depth of the modes) was set by comparing spectrograms with recordings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crykit.synth.dsp import (
    Floats,
    Samples,
    at_level,
    fade,
    smooth_random,
    to_samples,
)
from crykit.synth.voice import CONTROL_HZ, Controls, render

FORMANTS_HZ = (1100.0, 3300.0, 5500.0, 7700.0)
BANDWIDTHS_HZ = (320.0, 380.0, 450.0, 600.0)
EXPIRATION_S = (0.5, 1.5)
PAUSE_S = (0.2, 0.4)


@dataclass(frozen=True)
class Voice:
    """What stays the same while one synthetic baby cries."""

    f0_hz: float
    tract_scale: float  # formants are multiplied by it: shorter tracts lie over 1.0
    tilt: float  # fall of the source after radiation, in 6 dB an octave
    vibrato_hz: float
    vibrato_depth: float  # share of F0
    jitter: float  # random share of F0 from cycle to cycle
    shimmer: float  # random share of the amplitude from cycle to cycle
    breath: float
    roughness: float  # how readily phonation turns into dysphonation

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Voice:
        """Draw a voice of a healthy young infant."""
        return cls(
            f0_hz=rng.uniform(370.0, 500.0),
            tract_scale=rng.uniform(0.93, 1.08),
            tilt=rng.uniform(0.2, 0.65),
            vibrato_hz=rng.uniform(4.5, 7.5),
            vibrato_depth=rng.uniform(0.004, 0.015),
            jitter=rng.uniform(0.008, 0.020),
            shimmer=rng.uniform(0.03, 0.10),
            breath=rng.uniform(0.04, 0.09),
            roughness=rng.uniform(0.3, 0.7),
        )


@dataclass(frozen=True)
class Phase:
    """One breath phase: crying out (or gasping in) from `start_s` for `length_s` seconds."""

    start_s: float
    length_s: float
    inspiration: bool


def synthetic_cry(
    duration_s: float,
    seed: int,
    *,
    voice: Voice | None = None,
    level_dbfs: float = -20.0,
) -> Samples:
    """Return a bout of synthetic crying, (round(duration_s * 16000),) float32 at 16 kHz.

    It starts with the first cry and ends with the last. `level_dbfs` is the RMS of its active
    frames, lowered where a peak would pass 0.9. The same arguments give the same samples.
    Raises ValueError for a duration under 0.3 s.
    """
    if not duration_s >= 0.3:
        raise ValueError(f"a synthetic cry lasts at least 0.3 s, got {duration_s}")
    rng = np.random.default_rng([seed, 0xC41])
    voice = Voice.draw(rng) if voice is None else voice
    out = np.zeros(to_samples(duration_s), np.float32)
    phases = breathe(duration_s, rng)
    for phase in phases:
        effort = bout_effort((phase.start_s + phase.length_s / 2) / duration_s)
        controls = (inspire if phase.inspiration else expire)(phase.length_s, effort, voice, rng)
        start = to_samples(phase.start_s)
        sound = fade(render(controls, rng))[: len(out) - start]
        out[start : start + len(sound)] += sound
    return at_level(out, level_dbfs)


def breathe(duration_s: float, rng: np.random.Generator) -> list[Phase]:
    """Fill `duration_s` with cries of 0.5-1.5 s, pauses of 0.2-0.4 s and a gasp in each pause."""
    cries = [rng.uniform(*EXPIRATION_S)]
    pauses: list[float] = []
    while sum(cries) + sum(pauses) < duration_s:
        pauses.append(rng.uniform(*PAUSE_S))
        cries.append(rng.triangular(EXPIRATION_S[0], 0.9, EXPIRATION_S[1]))
    scale = duration_s / (sum(cries) + sum(pauses))
    phases: list[Phase] = []
    at = 0.0
    for i, cry in enumerate(cries):
        phases.append(Phase(at, cry * scale, inspiration=False))
        at += cry * scale
        if i < len(pauses):
            pause = pauses[i] * scale
            gasp = pause * rng.uniform(0.55, 0.75)
            phases.append(Phase(at + 0.6 * (pause - gasp), gasp, inspiration=True))
            at += pause
    return phases


def bout_effort(position: float) -> float:
    """Effort (0-1) at a relative position in the bout: a crescendo, then tiring at the end."""
    return float(np.interp(position, [0.0, 0.35, 0.8, 1.0], [0.55, 0.9, 1.0, 0.7]))


def expire(length_s: float, effort: float, voice: Voice, rng: np.random.Generator) -> Controls:
    """Controls of one cry proper."""
    n = max(int(length_s * CONTROL_HZ), 8)
    x = np.linspace(0.0, 1.0, n)
    mouth = np.clip(np.sin(np.pi * x ** rng.uniform(0.6, 1.0)) ** 0.5, 0.0, 1.0)
    rough = dysphonation(x, voice.roughness * effort, rng)
    subharmonic = 0.7 * segment(x, rng, (0.15, 0.4)) * (rng.random() < 0.3)
    f0_hz = voice.f0_hz * 2 ** (melody(x, rng) / 12) * (0.92 + 0.13 * effort)
    if rng.random() < 0.12 * effort and length_s > 0.6:
        shifted = rng.uniform(1150.0, 1500.0) / f0_hz.max()
        f0_hz = f0_hz * (1.0 + (shifted - 1.0) * segment(x, rng, (0.2, 0.4), 0.02))
    f0_hz = f0_hz * wobble(n, voice, rng) * (1 + 0.05 * rough * smooth_random(rng, n, 1.0))
    envelope = loudness(x, length_s, rng) * (0.55 + 0.45 * mouth) * (0.25 + 0.75 * effort**2)
    shimmer = (voice.shimmer + 0.35 * rough) * smooth_random(rng, n, 1.0)
    return Controls(
        f0_hz=f0_hz,
        voicing=envelope * np.clip(1 + shimmer, 0.1, 2.0) * (1 - 0.35 * rough),
        breath=envelope * (voice.breath + 0.35 * rough),
        subharmonic=np.maximum(subharmonic, 0.6 * rough),
        # Pressed, loud phonation has a flatter source than the breathy start and end of a cry.
        tilt=voice.tilt - 0.3 * effort * mouth + 0.6 * (1 - envelope),
        formants_hz=moving_formants(mouth, voice, rng),
        bandwidths_hz=np.array(BANDWIDTHS_HZ),
    )


def dysphonation(x: Floats, readiness: float, rng: np.random.Generator) -> Floats:
    """Depth (n_control,) of turbulence: none, or an uneven stretch that fades in and out."""
    if rng.random() >= readiness:
        return np.zeros(len(x))
    uneven = np.clip(0.75 + 0.25 * smooth_random(rng, len(x), 0.06 * CONTROL_HZ), 0.0, 1.0)
    return rng.uniform(0.5, 1.0) * uneven * segment(x, rng, (0.25, 0.6), rng.uniform(0.05, 0.2))


def loudness(x: Floats, length_s: float, rng: np.random.Generator) -> Floats:
    """Rise and fall of one cry (n_control,) over relative time `x`, 0 to 1."""
    attack_s, release_s = rng.uniform(0.05, 0.12), rng.uniform(0.12, 0.3)
    seconds = x * length_s
    edges = np.minimum(seconds / attack_s, 1.0) * np.minimum((length_s - seconds) / release_s, 1.0)
    slow = 1 + 0.15 * smooth_random(rng, len(x), 0.12 * CONTROL_HZ)
    return np.sin(0.5 * np.pi * np.clip(edges, 0.0, 1.0)) ** 1.5 * np.clip(slow, 0.5, 1.3)


def inspire(length_s: float, effort: float, voice: Voice, rng: np.random.Generator) -> Controls:
    """Controls of the gasp between two cries: breathy, ingressive, sometimes voiced."""
    n = max(int(length_s * CONTROL_HZ), 8)
    x = np.linspace(0.0, 1.0, n)
    envelope = np.sin(np.pi * x) * (0.3 + 0.7 * effort) * rng.uniform(0.3, 0.8)
    voiced = rng.uniform(0.1, 0.35) * (rng.random() < 0.5)
    arch = 0.85 + 0.25 * np.sin(np.pi * x)
    return Controls(
        f0_hz=voice.f0_hz * rng.uniform(1.2, 1.7) * arch * wobble(n, voice, rng),
        voicing=voiced * envelope,
        breath=0.28 * envelope,
        subharmonic=np.zeros(n),
        tilt=np.full(n, voice.tilt + 0.1),
        formants_hz=moving_formants(0.6 * np.ones(n), voice, rng),
        bandwidths_hz=1.6 * np.array(BANDWIDTHS_HZ),
    )


def melody(x: Floats, rng: np.random.Generator) -> Floats:
    """F0 contour in semitones over relative time (n_control,): one of four melody types."""
    kinds = ("rising-falling", "falling", "plateau", "double")
    kind = rng.choice(kinds, p=[0.55, 0.15, 0.15, 0.15])
    span = rng.uniform(3.0, 8.0)
    # Whatever the type, the pressure under the glottis builds up at first and runs out at last.
    edges = -3.0 * np.clip(1 - x / 0.08, 0, 1) - rng.uniform(1, 5) * np.clip((x - 0.8) / 0.2, 0, 1)
    if kind == "rising-falling":
        peak = rng.uniform(0.2, 0.55)
        rise = np.sin(0.5 * np.pi * np.clip(x / peak, 0, 1))
        fall = np.cos(0.5 * np.pi * np.clip((x - peak) / (1 - peak), 0, 1))
        return span * (np.where(x < peak, rise, fall) - 0.4) + 0.3 * edges
    if kind == "falling":
        return span * (0.6 - x**1.5) + edges
    if kind == "double":
        hills = np.sin(2 * np.pi * x * rng.uniform(0.8, 1.0)) ** 2
        return span * (0.6 * hills - 0.5 * x) + edges
    return 0.2 * span * np.cos(np.pi * x) + edges


def wobble(n: int, voice: Voice, rng: np.random.Generator) -> Floats:
    """Vibrato, slow drift and cycle-to-cycle jitter, as a factor on F0 (n_control,)."""
    t = np.arange(n) / CONTROL_HZ
    vibrato = voice.vibrato_depth * np.sin(2 * np.pi * (voice.vibrato_hz * t + rng.random()))
    drift = 0.01 * smooth_random(rng, n, 0.1 * CONTROL_HZ)
    return 1.0 + vibrato + drift + voice.jitter * smooth_random(rng, n, 1.0)


def segment(
    x: Floats, rng: np.random.Generator, length: tuple[float, float], edge: float = 0.06
) -> Floats:
    """A smooth on-off gate (n_control,) over a random middle part of relative time `x`."""
    span = rng.uniform(*length)
    start = rng.uniform(0.12, 0.92 - span)
    return np.clip(np.minimum((x - start) / edge, (start + span - x) / edge), 0.0, 1.0)


def moving_formants(mouth: Floats, voice: Voice, rng: np.random.Generator) -> Floats:
    """Formants (4, n_control): the first follows the mouth's opening, the others drift."""
    closed = np.array([0.72, 0.85, 0.95, 1.0])[:, None]
    opening = np.array([0.38, 0.15, 0.06, 0.0])[:, None]
    step = 0.15 * CONTROL_HZ
    drift = np.stack([1 + 0.04 * smooth_random(rng, len(mouth), step) for _ in FORMANTS_HZ])
    resting = voice.tract_scale * np.array(FORMANTS_HZ)[:, None]
    return resting * (closed + opening * mouth) * drift

"""Synthetic household sounds: what a bedside microphone hears at night besides a cry.

Each is a seeded function `(duration_s, seed) -> (n,) float32` at an active RMS of about -20 dBFS.
They are sketches with the right rhythm, pitch and colour, not models of any recording.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crykit.synth.dsp import (
    SAMPLE_RATE_HZ,
    Floats,
    Samples,
    at_level,
    band,
    decay,
    fade,
    shaped_noise,
    smooth_random,
    to_samples,
)
from crykit.synth.voice import CONTROL_HZ, Controls, render

LEVEL_DBFS = -20.0
Sound = Callable[[float, int], Samples]


def _tone(frequency_hz: float, n: int, phase: float = 0.0) -> Floats:
    return np.sin(2 * np.pi * (frequency_hz * np.arange(n) / SAMPLE_RATE_HZ + phase))


def _add(out: Floats, at_s: float, sound: Floats | Samples) -> None:
    """Mix `sound` into `out` at `at_s` seconds; what falls off the end is dropped."""
    start = to_samples(at_s)
    sound = sound[: max(len(out) - start, 0)]
    out[start : start + len(sound)] += sound


def _finish(out: Floats | Samples, fade_s: float = 0.01) -> Samples:
    return at_level(fade(np.asarray(out, np.float32), fade_s), LEVEL_DBFS)


def fan(duration_s: float, seed: int) -> Samples:
    """Ventilator or air conditioning: broad low noise, mains hum, blades that beat slowly."""
    rng = np.random.default_rng([seed, 1])
    n = to_samples(duration_s)
    out = shaped_noise(rng, n, band(60.0, rng.uniform(250.0, 700.0), 1.0)).astype(np.float64)
    blades_hz = rng.uniform(85.0, 160.0)
    out *= 1 + 0.15 * _tone(blades_hz / 40, n)
    for k, gain in enumerate((0.5, 0.35, 0.2, 0.1), start=1):
        out += gain * _tone(k * 100.0, n, rng.random()) + gain * _tone(k * blades_hz, n)
    return _finish(out, min(2.0, duration_s / 4))


def thump(duration_s: float, seed: int) -> Samples:
    """A door falls shut: a decaying low knock with a click of the latch before it."""
    rng = np.random.default_rng([seed, 2])
    out = np.zeros(to_samples(duration_s))
    _add(out, 0.0, 0.3 * shaped_noise(rng, 800, band(1500, 4000)) * decay(800, 0.04))
    n = to_samples(0.5)
    knock = 0.8 * shaped_noise(rng, n, band(60, 500)) * decay(n, 0.15)
    for mode_hz, time_s in ((62.0, 0.4), (97.0, 0.3), (158.0, 0.2)):
        knock = knock + _tone(mode_hz, n, rng.random()) * decay(n, time_s)
    _add(out, rng.uniform(0.05, 0.1), knock)
    return _finish(out)


def footsteps(duration_s: float, seed: int) -> Samples:
    """Someone walks by: soft knocks twice a second, heel then sole, nearer and away again."""
    rng = np.random.default_rng([seed, 3])
    out = np.zeros(to_samples(duration_s))
    at, step_s = 0.02, rng.uniform(0.45, 0.6)
    while at < duration_s - 0.15:
        nearness = 0.35 + 0.65 * np.sin(np.pi * at / duration_s)
        n = to_samples(0.15)
        heel = shaped_noise(rng, n, band(50, rng.uniform(200, 350))) * decay(n, 0.09)
        sole = 0.25 * shaped_noise(rng, n, band(400, 2500)) * decay(n, 0.05)
        _add(out, at, nearness * heel)
        _add(out, at + 0.06, nearness * sole)
        at += step_s * rng.uniform(0.92, 1.08)
    return _finish(out)


def dishes(duration_s: float, seed: int) -> Samples:
    """Crockery: struck plates and glasses, each a handful of inharmonic decaying partials."""
    rng = np.random.default_rng([seed, 4])
    out = np.zeros(to_samples(duration_s))
    for at in np.sort(rng.uniform(0.0, duration_s * 0.8, max(2, int(3 * duration_s)))):
        n = to_samples(rng.uniform(0.15, 0.5))
        root_hz = rng.uniform(900.0, 2600.0)
        ring = 0.3 * shaped_noise(rng, n, band(2000, 6000)) * decay(n, 0.02)
        for ratio in (1.0, 1.58, 2.24, 2.92):
            if ratio * root_hz < 7000:
                ring = ring + _tone(ratio * root_hz, n) * decay(n, 0.5 / ratio) / ratio
        _add(out, at, rng.uniform(0.3, 1.0) * ring)
    return _finish(out)


def tap(duration_s: float, seed: int) -> Samples:
    """Running water: bright noise that flutters, with drops that sing as they fall in."""
    rng = np.random.default_rng([seed, 5])
    n = to_samples(duration_s)
    out = shaped_noise(rng, n, band(400, 5000, 1.0)) * (1 + 0.2 * smooth_random(rng, n, 400))
    for at in rng.uniform(0.0, duration_s, int(12 * duration_s)):
        m = to_samples(0.04)
        rise = np.cumsum(np.linspace(rng.uniform(500, 900), rng.uniform(900, 1800), m))
        drop = np.sin(2 * np.pi * rise / SAMPLE_RATE_HZ) * decay(m, 0.05)
        _add(out, at, rng.uniform(0.3, 1.5) * drop)
    return _finish(out, min(0.3, duration_s / 4))


def clock_tick(duration_s: float, seed: int) -> Samples:
    """A clock: a click each second, tick and tock a little different."""
    rng = np.random.default_rng([seed, 6])
    out = np.zeros(to_samples(duration_s))
    n = 600
    pair = [
        shaped_noise(rng, n, band(1200, 5000)) * decay(n, 0.02) + 0.5 * _tone(f, n) * decay(n, 0.03)
        for f in (2300.0, 1900.0)
    ]
    for i, at in enumerate(np.arange(0.02, duration_s, 1.0)):
        _add(out, at, pair[i % 2])
    return _finish(out)


def dog_bark(duration_s: float, seed: int) -> Samples:
    """Something like a dog next door: rough short falling barks in groups, treble lost."""
    rng = np.random.default_rng([seed, 7])
    out = np.zeros(to_samples(duration_s))
    pitch_hz, at = rng.uniform(350.0, 550.0), 0.0
    while at < duration_s - 0.25:
        n = int(rng.uniform(0.14, 0.22) * CONTROL_HZ)
        x = np.linspace(0.0, 1.0, n)
        envelope = np.minimum(x / 0.1, 1.0) * (1 - x) ** 1.2
        bark = Controls(
            f0_hz=pitch_hz * (1.25 - 0.5 * x) * (1 + 0.03 * smooth_random(rng, n, 1.0)),
            voicing=envelope,
            breath=0.3 * envelope,
            subharmonic=np.full(n, 0.4),
            tilt=np.full(n, 0.9),
            formants_hz=np.array([[800.0], [1500.0], [2600.0]]) * np.ones((3, n)),
            bandwidths_hz=np.array([180.0, 250.0, 400.0]),
        )
        _add(out, at, render(bark, rng))
        at += rng.choice([0.3, 0.42, 1.1]) * rng.uniform(0.9, 1.1)
    return _finish(out)


# First three formants of common vowels of a grown-up speaker (Peterson and Barney, 1952, men).
VOWELS_HZ = (
    (270.0, 2290.0, 3010.0),
    (530.0, 1840.0, 2480.0),
    (730.0, 1090.0, 2440.0),
    (570.0, 840.0, 2410.0),
    (300.0, 870.0, 2240.0),
)


def murmur(duration_s: float, seed: int) -> Samples:
    """Speech-like murmur through a wall: syllables on gliding vowels, phrases, a falling voice."""
    rng = np.random.default_rng([seed, 8])
    n = max(int(duration_s * CONTROL_HZ), 40)
    t = np.arange(n) / CONTROL_HZ
    is_low = rng.random() < 0.5
    pitch_hz = rng.uniform(90, 125) if is_low else rng.uniform(160, 200)
    syllable = np.cumsum(rng.uniform(0.13, 0.26, int(duration_s / 0.13) + 3))
    index = np.searchsorted(syllable, t)
    vowels = np.array(VOWELS_HZ)[rng.integers(len(VOWELS_HZ), size=len(syllable) + 1)]
    knots = np.concatenate([[0.0], syllable])
    formants = np.stack([np.interp(t, knots, vowels[: len(knots), k]) for k in range(3)])
    within = (t - knots[index]) / np.diff(knots)[np.minimum(index, len(syllable) - 1)]
    phrase_s = rng.uniform(1.6, 2.8)
    in_phrase = (t % phrase_s) / phrase_s
    envelope = np.sin(np.pi * np.clip(within, 0, 1)) ** 0.7 * (in_phrase < 0.8)
    # Consonants: some syllables start with a hiss, others with the silence of a closed mouth.
    start = rng.random(len(syllable) + 1)[index]
    hiss = (start < 0.3) & (within < 0.35)
    envelope = envelope * ~((start > 0.6) & (within < 0.35))
    voice = Controls(
        f0_hz=pitch_hz * (1.15 - 0.3 * in_phrase) * (1 + 0.03 * smooth_random(rng, n, 60)),
        voicing=envelope * ~hiss,
        breath=0.02 * envelope + 0.2 * hiss * (in_phrase < 0.8),
        subharmonic=np.zeros(n),
        tilt=np.full(n, 1.1),
        formants_hz=formants * (1.0 if is_low else 1.15),
        bandwidths_hz=np.array([90.0, 120.0, 180.0]),
        top_hz=4000.0,  # a wall lets no more through
    )
    return _finish(render(voice, rng))


# Two lines of Brahms' Wiegenlied (1868), as semitones over the tonic and lengths in beats.
LULLABY = ((4, 1), (4, 1), (7, 4), (4, 1), (4, 1), (7, 4), (4, 1), (7, 1), (12, 2), (11, 2), (9, 2))


def music_box(duration_s: float, seed: int) -> Samples:
    """A music box plays a lullaby: plucked tines, a strong fundamental and two odd partials."""
    rng = np.random.default_rng([seed, 9])
    out = np.zeros(to_samples(duration_s))
    tonic_hz, beat_s = rng.uniform(500.0, 720.0), rng.uniform(0.24, 0.34)
    at, i = 0.0, 0
    n = to_samples(1.2)
    while at < duration_s:
        semitones, beats = LULLABY[i % len(LULLABY)]
        note_hz = tonic_hz * 2 ** (semitones / 12)
        pluck = _tone(note_hz, n) * decay(n, 1.2) + 0.25 * _tone(2.76 * note_hz, n) * decay(n, 0.3)
        _add(out, at, rng.uniform(0.8, 1.0) * pluck)
        at += beats * beat_s
        i += 1
    return _finish(out, 0.05)


def cough(duration_s: float, seed: int) -> Samples:
    """Cough-like bursts of a grown-up: an explosion of noise, then a hoarse voiced tail."""
    rng = np.random.default_rng([seed, 10])
    out = np.zeros(to_samples(duration_s))
    at = 0.0
    while at < duration_s - 0.3:
        n = int(0.3 * CONTROL_HZ)
        x = np.linspace(0.0, 1.0, n)
        burst = Controls(
            f0_hz=np.linspace(210.0, 120.0, n) * (1 + 0.06 * smooth_random(rng, n, 1.0)),
            voicing=0.12 * np.clip((x - 0.25) / 0.1, 0, 1) * (1 - x),
            breath=np.minimum(x / 0.04, 1.0) * (1 - x) ** 2,
            subharmonic=np.full(n, 0.5),
            tilt=np.full(n, 1.0),
            formants_hz=np.array([[700.0], [1350.0], [2700.0]]) * np.ones((3, n)),
            bandwidths_hz=np.array([200.0, 250.0, 350.0]),
        )
        _add(out, at, render(burst, rng))
        at += rng.uniform(0.4, 0.7)
    return _finish(out)

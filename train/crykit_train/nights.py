"""Long streams with ground truth, built from held-out clips: what a bedroom hears in a night.

Used to choose thresholds (validation clips) and to count false alarms over many hours (test
clips). A stream is a drifting noise floor with events at a stated signal-to-noise ratio, active
RMS against the floor, both full band; onset and offset are those of the sound itself.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from crykit.dataset import Clip, read_clip
from crykit.errors import InputError
from crykit_train.acoustics import (
    SAMPLE_RATE_HZ,
    Audio,
    active_part,
    fade_edges,
    fft,
    frame_rms,
    tilt,
)

STREAM_S = 600
COLUMNS: tuple[str, ...] = (
    "onset_s",
    "offset_s",
    "event",
    "orig_label",
    "group",
    "source_clip",
    "snr_db",
)
APART_SAMPLES = 6400  # 0.4 s between events
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class NightKind:
    """What one kind of stream holds; ratios in dB, the floor in dBFS."""

    name: str
    n_cries: int
    n_negatives: int
    cry_snr_db: tuple[float, float]
    negative_snr_db: tuple[float, float]
    floor_dbfs: float


KINDS = (
    NightKind("mixed", 12, 28, (2, 28), (0, 32), -57.0),
    NightKind("faint", 12, 12, (0, 9), (0, 14), -56.0),
    NightKind("busy", 8, 40, (5, 25), (5, 35), -53.0),
)
NO_CRY = NightKind("no_cry", 0, 45, (0, 0), (0, 35), -57.0)


def write_nights(
    clips: Sequence[Clip],
    out: Path,
    *,
    hours: float,
    seed: int,
    no_cry: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write ten-minute streams and their truth, NAME.flac and NAME.csv, to a folder.

    Raises:
        InputError: the clips hold no cry, no negative or no noise floor.
    """
    kinds = (NO_CRY,) if no_cry else KINDS
    n = max(1, round(hours * 3600 / STREAM_S))
    out.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        kind = kinds[index % len(kinds)]
        rng = np.random.default_rng([seed, index, 11])
        samples, truth = compose_night(clips, kind, rng)
        stem = f"{kind.name}_{index:03d}"
        aside = out / f"{stem}.partial"
        pcm = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        soundfile.write(aside, pcm, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        with (out / f"{stem}.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(truth)
        os.replace(aside, out / f"{stem}.flac")
        if progress:
            progress(index + 1, n, float("nan"))


def compose_night(
    clips: Sequence[Clip], kind: NightKind, rng: np.random.Generator
) -> tuple[Audio, list[dict[str, object]]]:
    """One stream: audio (n,) and its rows of truth in order of onset."""
    beds = [c for c in clips if c.event in ("noise", "silence")]
    cries = [c for c in clips if c.event == "cry" and c.number("tonal_frac", 1.0) >= 0.15]
    negatives: dict[str, dict[str, list[Clip]]] = {}
    for clip in clips:
        if clip.event not in ("cry", "unverified", "silence"):
            negatives.setdefault(clip.event, {}).setdefault(clip.label, []).append(clip)
    if not beds or not negatives or (kind.n_cries and not cries):
        raise InputError(
            "streams: the split needs clips of cry, of noise or silence, and of other events"
        )
    mix = _floor(beds, rng, STREAM_S * SAMPLE_RATE_HZ, kind.floor_dbfs)
    floor_rms = float(np.sqrt(np.square(mix).mean()))
    taken: list[tuple[int, int]] = []
    truth: list[dict[str, object]] = []

    def place(clip: Clip, snr_db: float) -> bool:
        part = active_part(read_clip(clip))
        if part is None:
            return False
        sound, rms = fade_edges(part[0]), part[1]
        loudest_db = 20 * np.log10(0.7 / np.abs(sound).max() * rms / floor_rms)
        snr_db = float(min(snr_db, loudest_db))  # never clips
        for _ in range(200):
            at = int(rng.integers(2 * SAMPLE_RATE_HZ, len(mix) - len(sound) - SAMPLE_RATE_HZ))
            end = at + len(sound)
            if all(end + APART_SAMPLES < s or at > e + APART_SAMPLES for s, e in taken):
                break
        else:
            return False
        mix[at:end] += sound * np.float32(floor_rms * 10 ** (snr_db / 20) / rms)
        taken.append((at, end))
        truth.append(
            dict(
                onset_s=round(at / SAMPLE_RATE_HZ, 3),
                offset_s=round(end / SAMPLE_RATE_HZ, 3),
                event=clip.event,
                orig_label=clip.label,
                group=clip.group,
                source_clip=clip.path.name,
                snr_db=round(snr_db, 1),
            )
        )
        return True

    groups = sorted({c.group for c in cries})
    for _ in range(kind.n_cries):
        group = groups[rng.integers(len(groups))]
        of_group = [c for c in cries if c.group == group]
        place(of_group[rng.integers(len(of_group))], rng.uniform(*kind.cry_snr_db))
    for _ in range(kind.n_negatives):
        labels = negatives[sorted(negatives)[rng.integers(len(negatives))]]
        members = labels[sorted(labels)[rng.integers(len(labels))]]
        place(members[rng.integers(len(members))], rng.uniform(*kind.negative_snr_db))
    truth.sort(key=lambda row: float(str(row["onset_s"])))
    peak = float(np.abs(mix).max())
    return (mix * np.float32(0.99 / peak) if peak > 0.99 else mix), truth


def _floor(beds: Sequence[Clip], rng: np.random.Generator, n: int, dbfs: float) -> Audio:
    """Noise clips cross-faded end to end, tilted as a quiet room is, drifting by 2 dB."""
    fade = SAMPLE_RATE_HZ
    out = np.zeros(n + 30 * SAMPLE_RATE_HZ, np.float32)
    chosen = [beds[i] for i in rng.choice(len(beds), size=min(4, len(beds)), replace=False)]
    ramp = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    at = 0
    while at < n:
        clip = read_clip(chosen[rng.integers(len(chosen))])
        clip = np.tile(clip, 1 + (2 * fade + 1600) // len(clip))[: len(out) - at]
        quiet = float(np.percentile(frame_rms(clip), 20)) + 1e-6
        clip = np.clip(clip / quiet, -6, 6)
        clip[:fade] *= ramp
        clip[-fade:] *= ramp[::-1]
        out[at : at + len(clip)] += clip
        at += len(clip) - fade
    out = out[:n] + 0.3 * rng.standard_normal(n, dtype=np.float32)
    spectrum = fft.rfft(out)
    hz = np.arange(len(spectrum), dtype=np.float32) * (SAMPLE_RATE_HZ / n)
    out = fft.irfft(spectrum * tilt(hz, 200.0, -6.0), n).astype(np.float32)
    drift_db = np.interp(np.arange(n), np.linspace(0, n, 21), rng.uniform(-2, 2, 21))
    out *= (10 ** (drift_db / 20)).astype(np.float32)
    return out * np.float32(10 ** (dbfs / 20) / np.sqrt(np.square(out).mean()))

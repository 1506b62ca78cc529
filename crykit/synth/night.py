"""Compose a synthetic night: a drifting noise floor, a household, and cries with their truth.

The truth has the columns of the project's public streams, so one scorer reads both. Everything in
it is marked synthetic.
"""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

from crykit.errors import InputError, UsageError
from crykit.files import write_aside
from crykit.synth import household
from crykit.synth.cry import Voice, synthetic_cry
from crykit.synth.dsp import (
    LEVEL_FRAME_SAMPLES,
    SAMPLE_RATE_HZ,
    Floats,
    Samples,
    active_rms,
    reverberate,
    rms,
    shaped_noise,
    to_samples,
)

FLOOR_DBFS = -58.0
FLOOR_DRIFT_DB = 2.0
QUIET_SNR_DB = 8.0
SNR_DB = (10.0, 30.0)
CRY_S = (5.0, 20.0)
MIN_NIGHT_S, MAX_NIGHT_S = 30.0, 3600.0
PEAK = 0.9


@dataclass(frozen=True)
class NightEvent:
    """One row of the truth; `snr_db` is active RMS over the floor's RMS, full band."""

    onset_s: float
    offset_s: float
    event: str
    reason: str
    orig_label: str
    group: str
    source_clip: str
    snr_db: float
    overlap: int


@dataclass(frozen=True)
class Night:
    """A synthetic night: `samples` (n,) float32 mono at 16 kHz, `events` in order of onset."""

    seed: int
    samples: Samples
    events: tuple[NightEvent, ...]

    @property
    def name(self) -> str:
        """What event lines give as their source."""
        return f"synthetic-night-seed-{self.seed}"

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def cries(self) -> list[NightEvent]:
        """The rows of the truth that are cries."""
        return [e for e in self.events if e.event == "cry"]

    def truth_csv(self) -> str:
        """The truth as CSV text, header first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(f.name for f in fields(NightEvent))
        writer.writerows(astuple(e) for e in self.events)
        return text.getvalue()

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write `night.flac` (16 bit) and `night.csv` into `folder`; returns both paths.

        Each is written whole or not at all. Raises InputError where that cannot be done.
        """
        import soundfile  # pyright: ignore[reportMissingTypeStubs]

        sound, truth = folder / "night.flac", folder / "night.csv"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (
                write_aside(sound) as out,
                soundfile.SoundFile(out, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as file,
            ):
                file.comment = f"synthetic: {self.name}"
                file.write(self.samples)
            with write_aside(truth) as out:
                out.write(self.truth_csv().encode())
        except (OSError, soundfile.LibsndfileError) as error:
            raise InputError(
                f"cannot save the night in {folder}: {getattr(error, 'strerror', None) or error}; "
                "name a folder that can be written to"
            ) from error
        return sound, truth


@dataclass(frozen=True)
class Kind:
    """How one household sound occurs: its class, how long it lasts, how loud, how often."""

    sound: household.Sound
    event: str
    length_s: tuple[float, float]
    snr_db: tuple[float, float]
    weight: float
    background: bool = False  # goes on for long and may lie under a cry


KINDS = {
    "fan": Kind(household.fan, "noise", (25.0, 60.0), (0.0, 6.0), 1.0, background=True),
    "clock_tick": Kind(household.clock_tick, "household", (20.0, 45.0), (0.0, 10.0), 1.0, True),
    "door_thump": Kind(household.thump, "household", (0.8, 0.8), (10.0, 30.0), 2.0),
    "footsteps": Kind(household.footsteps, "human", (2.5, 6.0), (6.0, 20.0), 2.0),
    "dishes": Kind(household.dishes, "household", (1.5, 5.0), (6.0, 22.0), 1.5),
    "running_tap": Kind(household.tap, "household", (4.0, 12.0), (4.0, 18.0), 1.0),
    "dog_bark": Kind(household.dog_bark, "animal", (1.0, 4.0), (5.0, 18.0), 1.5),
    "speech_murmur": Kind(household.murmur, "speech", (3.0, 10.0), (5.0, 20.0), 2.0),
    "music_box": Kind(household.music_box, "music", (8.0, 18.0), (5.0, 20.0), 1.0),
    "cough": Kind(household.cough, "human", (0.8, 2.5), (8.0, 25.0), 1.5),
}

BACKGROUND_GROUPS = {f"synthetic:{name}" for name, kind in KINDS.items() if kind.background}


def check_duration(duration_s: float) -> None:
    """Raise UsageError for a night that is too short for a cry or too long for the memory."""
    if not MIN_NIGHT_S <= duration_s <= MAX_NIGHT_S:
        raise UsageError(
            f"a synthetic night lasts {MIN_NIGHT_S:.0f} to {MAX_NIGHT_S:.0f} s, got {duration_s:g}"
        )


def compose_night(seed: int, duration_s: float = 600.0) -> Night:
    """Compose the night of `seed`: 5-8 cries and about 20 other sounds in ten minutes.

    One cry is quiet (SNR 8 dB), the others have 10-30 dB. The same seed and duration give the
    same samples on one machine. Raises UsageError for a duration outside 30-3600 s.
    """
    check_duration(duration_s)
    rng = np.random.default_rng([seed, 0x417])
    mix = noise_floor(rng, to_samples(duration_s))
    night = _Mixer(mix, seed, rng)
    night.place_cries()
    night.place_household()
    # Two loud sounds may meet: the whole night gives way, nothing is clipped.
    mix *= np.float32(min(1.0, PEAK / float(max(mix.max(), -mix.min()))))
    events = sorted(mark_overlaps(night.events), key=lambda e: (e.onset_s, e.offset_s))
    return Night(seed, mix, tuple(events))


def mark_overlaps(events: list[NightEvent]) -> list[NightEvent]:
    """Set `overlap` to 1 on every row that shares time with another."""

    def shared(one: NightEvent) -> bool:
        return any(
            one is not other and one.onset_s < other.offset_s and other.onset_s < one.offset_s
            for other in events
        )

    return [replace(e, overlap=int(shared(e))) for e in events]


def noise_floor(rng: np.random.Generator, n: int) -> Samples:
    """Room noise (n,) at -58 dBFS: high-passed, 6 dB an octave down, drifting by +-2 dB."""

    def tilted(frequency_hz: Floats) -> Floats:
        f = frequency_hz
        return (f / (f + 60.0)) ** 2 / np.sqrt(1 + (f / 200.0) ** 2) + 0.02

    floor = shaped_noise(rng, n, tilted)
    n_knots = max(n // (30 * SAMPLE_RATE_HZ), 1) + 2
    drift_db = rng.uniform(-FLOOR_DRIFT_DB, FLOOR_DRIFT_DB, n_knots)
    # The drift is so slow that a value every 10 ms is smooth enough; it costs a hundredth.
    frames = n // LEVEL_FRAME_SAMPLES
    slow_db = np.interp(np.linspace(0, 1, frames), np.linspace(0, 1, n_knots), drift_db)
    whole = floor[: frames * LEVEL_FRAME_SAMPLES].reshape(frames, LEVEL_FRAME_SAMPLES)
    whole *= (10.0 ** (slow_db / 20)).astype(np.float32)[:, None]
    floor *= np.float32(10.0 ** (FLOOR_DBFS / 20) / rms(floor))
    return floor


class _Mixer:
    """Places sounds on the floor and writes down where they lie."""

    def __init__(self, mix: Samples, seed: int, rng: np.random.Generator) -> None:
        self.mix = mix
        self.seed = seed
        self.rng = rng
        self.floor_rms = rms(mix)
        self.duration_s = len(mix) / SAMPLE_RATE_HZ
        self.events: list[NightEvent] = []

    def place_cries(self) -> None:
        """One cry in each of 5-8 equal slots (fewer in a shorter night), well apart."""
        count = max(1, round(int(self.rng.integers(5, 9)) * self.duration_s / 600.0))
        slot_s = self.duration_s / count
        voices = [Voice.draw(self.rng) for _ in range(2)]
        quiet = int(self.rng.integers(1, count)) if count > 1 else -1
        for i in range(count):
            length_s = float(self.rng.uniform(CRY_S[0], min(CRY_S[1], 0.4 * slot_s)))
            room = slot_s - length_s - 10.0
            # The first comes early: whoever watches the demo should not wait for it.
            late_s = min(room, 20.0) if i == 0 else room
            at_s = i * slot_s + 4.0 + float(self.rng.uniform(0.0, late_s))
            snr_db = QUIET_SNR_DB if i == quiet else float(self.rng.uniform(*SNR_DB))
            voice = int(self.rng.integers(len(voices)))
            cry = synthetic_cry(length_s, self.seed * 1000 + i, voice=voices[voice])
            self._paste(cry, at_s, "cry", "synthetic_cry", f"voice-{voice}", snr_db, dry_s=length_s)

    def place_household(self) -> None:
        """About two other sounds a minute, clear of the cries unless they are a background."""
        names = list(KINDS)
        weights = np.array([KINDS[k].weight for k in names])
        for i in range(max(2, round(self.duration_s / 28.0))):
            # Each sound comes once before chance picks them.
            choice = i if i < len(names) else self.rng.choice(len(names), p=weights / weights.sum())
            name = names[int(choice)]
            kind = KINDS[name]
            length_s = min(float(self.rng.uniform(*kind.length_s)), 0.3 * self.duration_s)
            at_s = self._free_place(length_s, kind.background)
            if at_s is None:
                continue
            sound = kind.sound(length_s, self.seed * 1000 + 500 + i)
            snr_db = float(self.rng.uniform(*kind.snr_db))
            self._paste(sound, at_s, kind.event, f"synthetic_{name}", name, snr_db, dry_s=length_s)

    def _free_place(self, length_s: float, background: bool) -> float | None:
        """A start at which the sound meets no other of its layer, 1.5 s clear, or None."""
        layer = [e for e in self.events if (e.group in BACKGROUND_GROUPS) == background]
        for _ in range(50):
            at_s = float(self.rng.uniform(2.0, self.duration_s - length_s - 1.0))
            end_s = at_s + length_s
            if not any(at_s < e.offset_s + 1.5 and e.onset_s < end_s + 1.5 for e in layer):
                return at_s
        return None

    def _paste(
        self,
        sound: Samples,
        at_s: float,
        event: str,
        label: str,
        group: str,
        snr_db: float,
        dry_s: float,
    ) -> None:
        room = np.random.default_rng([self.seed, len(self.events), 0x600])
        tail = np.zeros(to_samples(0.35), np.float32)
        wet = reverberate(np.concatenate([sound, tail]), room, rt60_s=0.35, wet=0.4)
        wet *= np.float32(self.floor_rms * 10.0 ** (snr_db / 20) / active_rms(wet[: len(sound)]))
        start = to_samples(at_s)
        wet = wet[: len(self.mix) - start]
        self.mix[start : start + len(wet)] += wet
        onset_s, offset_s = start / SAMPLE_RATE_HZ, start / SAMPLE_RATE_HZ + dry_s
        self.events.append(
            NightEvent(
                onset_s=round(onset_s, 3),
                offset_s=round(offset_s, 3),
                event=event,
                reason="",
                orig_label=label,
                group=f"synthetic:{group}",
                source_clip=f"synthetic:seed-{self.seed}/{len(self.events):02d}",
                snr_db=round(snr_db, 1),
                overlap=0,
            )
        )

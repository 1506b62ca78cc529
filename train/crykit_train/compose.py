"""Training sequences, composed on the fly: cries and negatives over a noise floor.

Sequence ``i`` of round ``r`` is a pure function of the recipe, the seed, ``r``, ``i`` and the
hardness of the clips at that round, so a run that is resumed composes what it would have composed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crykit.dataset import Clip, read_clip
from crykit.errors import InputError
from crykit_train.acoustics import (
    SAMPLE_RATE_HZ,
    Audio,
    Treatment,
    active_part,
    active_rms,
    fade_edges,
    fft,
    frame_rms,
    room_response,
    tilt,
    treat,
)
from crykit_train.data.licences import allows_commercial_use
from crykit_train.recipe import ComposeRecipe, DataRecipe, DistilRecipe
from crykit_train.targets import UNVERIFIED, SoftTargets, sharpened

FRAME_SAMPLES = 640  # one output frame of the student, 40 ms
STEP_SAMPLES = 2560

# Loss weights near the edges of a cry: no causal network can know in the first frames, and a
# room rings on after the last.
ONSET_FRAMES, ONSET_WEIGHT = 6, 0.3
OFFSET_FRAMES, OFFSET_WEIGHT = 15, 0.1
PAUSE_WEIGHT = 0.4  # a pause for breath is part of the cry, but nothing in it says so
PAUSE_DB = 25.0
SURE_TARGET = 0.6  # what teachers hear under this in a labelled other sound is left unsaid


@dataclass(frozen=True)
class Placed:
    """A clip in a sequence: index in the bank, first and last + 1 output frame."""

    clip: int
    start_frame: int
    end_frame: int


@dataclass(frozen=True)
class Composition:
    """One composed sequence.

    ``samples`` (n,), ``target`` and ``weight`` (n / 640,), and what was placed where; ``bed`` is
    the clip under it all, or -1.
    """

    samples: Audio
    target: NDArray[np.float32]
    weight: NDArray[np.float32]
    placed: list[Placed]
    bed: int


@dataclass
class ClipBank:
    """The training clips in memory, as int16, trimmed to what sounds.

    ``is_cry`` says what a clip is learned as; ``tracks`` what teachers hear in it, a target every
    40 ms of the whole clip, or None.
    """

    clips: list[Clip]
    whole: list[NDArray[np.int16]] = field(default_factory=list)
    span: list[tuple[int, int]] = field(default_factory=list)
    is_cry: list[bool] = field(default_factory=list)
    tracks: list[NDArray[np.float32] | None] = field(default_factory=list)

    @classmethod
    def load(
        cls,
        clips: Sequence[Clip],
        recipe: DataRecipe,
        distil: DistilRecipe | None = None,
        targets: SoftTargets | None = None,
    ) -> ClipBank:
        """Decode the usable clips.

        With ``targets``, unlabelled clips are taken in as what the teachers are sure of.

        Raises:
            InputError: no cry, no negative or no bed is left.
        """
        bank = cls(clips=[])
        for clip in clips:
            if not usable(clip, recipe):
                continue
            samples = read_clip(clip)
            trimmed = active_part(samples)
            is_bed = clip.event in recipe.bed_events
            if trimmed is None and not is_bed:
                continue
            track = _target_track(clip, distil, targets)
            kind = _learned_as_cry(clip, distil, targets)
            if kind is None:
                continue
            bank.clips.append(clip)
            bank.is_cry.append(kind)
            bank.tracks.append(track)
            bank.whole.append(np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16))
            bank.span.append(_span(samples) if trimmed is not None else (0, len(samples)))
        for what, found in (
            ("cry", bank.cries()),
            ("negative", bank.others()),
            ("noise floor", bank.indices(lambda c: c.event in recipe.bed_events)),
        ):
            if not found:
                raise InputError(f"manifest: no usable {what} clip in the train split; add some")
        return bank

    def indices(self, wanted: Callable[[Clip], bool]) -> list[int]:
        return [i for i, clip in enumerate(self.clips) if wanted(clip)]

    def cries(self) -> list[int]:
        return [i for i, is_cry in enumerate(self.is_cry) if is_cry]

    def others(self) -> list[int]:
        return [i for i, is_cry in enumerate(self.is_cry) if not is_cry]

    def samples(self, index: int) -> Audio:
        return self.whole[index].astype(np.float32) / np.float32(32767)

    def active(self, index: int) -> Audio:
        start, end = self.span[index]
        return fade_edges(self.whole[index][start:end].astype(np.float32) / np.float32(32767))


def usable(clip: Clip, recipe: DataRecipe) -> bool:
    """Whether a clip may be trained on: not excluded, and no suspect cry."""
    if clip.event in recipe.exclude_events:
        return False
    if recipe.licences == "commercial" and not allows_commercial_use(clip.licence):
        return False
    if clip.event != "cry":
        return True
    return (
        clip.number("rms_dbfs", 0.0) >= recipe.suspect_cry_dbfs
        and clip.number("tonal_frac", 1.0) >= recipe.suspect_cry_tonal_fraction
    )


def _learned_as_cry(
    clip: Clip, distil: DistilRecipe | None, targets: SoftTargets | None
) -> bool | None:
    """Whether a clip is a cry; None where nobody knows."""
    if clip.event != UNVERIFIED or distil is None or targets is None:
        return clip.event == "cry"
    score = targets.score(clip)
    if score >= distil.unverified_cry:
        return True
    return False if score <= distil.unverified_other else None


def _target_track(
    clip: Clip, distil: DistilRecipe | None, targets: SoftTargets | None
) -> NDArray[np.float32] | None:
    """The label and the teachers' word, mixed.

    On a labelled other sound the teachers count only where they are sure: a laugh is half a cry to
    a probe, and the label knows better; but a cry far behind playing children has no label.
    """
    if distil is None or targets is None:
        return None
    heard = sharpened(targets.tracks[clip.path], distil.sharpness)
    if clip.event == UNVERIFIED:
        return heard
    share = np.float32(distil.label_share)
    if clip.event == "cry":
        return share + (1 - share) * heard
    return (1 - share) * np.where(heard > SURE_TARGET, heard, np.float32(0.0))


def _span(samples: Audio) -> tuple[int, int]:
    rms = frame_rms(samples)
    on = np.flatnonzero(rms > max(float(np.percentile(rms, 95)) * 10 ** (-30 / 20), 1e-4))
    return int(on[0]) * 320, int(on[-1] + 1) * 320


class Composer:
    """Composes sequences from a bank."""

    def __init__(self, bank: ClipBank, compose: ComposeRecipe, data: DataRecipe, seed: int) -> None:
        self.bank, self.recipe, self.seed = bank, compose, seed
        self.n_samples = int(compose.sequence_s * SAMPLE_RATE_HZ) // STEP_SAMPLES * STEP_SAMPLES
        self.cries = bank.cries()
        self.negatives = bank.others()
        self.beds = bank.indices(
            lambda c: c.event in data.bed_events and c.number("silent_frac", 0.0) < 0.3
        ) or bank.indices(lambda c: c.event in data.bed_events)
        self._cries_of: dict[str, list[int]] = {}
        for i in self.cries:
            self._cries_of.setdefault(bank.clips[i].group, []).append(i)
        self._base = self._base_weights()

    def _base_weights(self) -> NDArray[np.float64]:
        """Every class by its weight, every label of it alike, every clip of a label alike."""
        base = np.zeros(len(self.bank.clips))
        labels: dict[str, dict[str, list[int]]] = {}
        for i in self.negatives:
            clip = self.bank.clips[i]
            labels.setdefault(clip.event, {}).setdefault(clip.label, []).append(i)
        for event, members in labels.items():
            for indices in members.values():
                share = self.recipe.class_weights.get(event, 1.0) / len(members) / len(indices)
                base[indices] = share
        # A baby counts by the square root of its clips, so that no one voice is the class.
        for indices in self._cries_of.values():
            base[indices] = len(indices) ** -0.5
        sources: dict[str, list[int]] = {}
        for i in self.cries:
            sources.setdefault(self.bank.clips[i].source, []).append(i)
        for indices in sources.values():
            base[indices] *= base[indices].sum() ** -0.5
        for i in self.beds:
            base[i] = max(base[i], 1e-6)
        return base

    def sampling(self, hardness: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Probabilities of cries, negatives and beds, given each clip's hardness (0 to 1)."""
        out = {}
        for name, members in (
            ("cries", self.cries),
            ("negatives", self.negatives),
            ("beds", self.beds),
        ):
            hard = hardness[members]
            factor = np.clip(0.4 + 0.6 * hard / max(float(hard.mean()), 1e-3), 0.4, 6.0)
            base = self._base[members] if name != "beds" else np.ones(len(members))
            weights = base * factor
            out[name] = weights / weights.sum()
        return out

    def sequence(
        self, round_: int, index: int, sampling: dict[str, NDArray[np.float64]]
    ) -> Composition:
        """Sequence ``index`` of round ``round_``."""
        rng = np.random.default_rng([self.seed, round_, index])
        r = self.recipe
        n = self.n_samples
        n_frames = n // FRAME_SAMPLES
        target = np.zeros(n_frames, np.float32)
        weight = np.ones(n_frames, np.float32)
        placed: list[Placed] = []
        has_cry = rng.random() < r.cry_share
        if rng.random() < r.whole_clip_share:
            mix = np.zeros(n, np.float32)
            self._whole_clip(rng, mix, has_cry, sampling, target, weight, placed)
            bed = -1
        else:
            mix, floor_rms, bed = self._floor(rng, sampling)
            self._events(rng, mix, floor_rms, has_cry, sampling, target, weight, placed)
        return Composition(self._microphone(rng, mix), target, weight, placed, bed)

    # --- parts -------------------------------------------------------------------------------

    def _floor(self, rng, sampling) -> tuple[Audio, float, int]:
        """A noise floor: real room tone or noise, shaped noise, or both."""
        n = self.n_samples
        kind = rng.random()
        bed = -1
        noise = np.zeros(n, np.float32)
        if kind < 0.65:
            bed = int(rng.choice(self.beds, p=sampling["beds"]))
            clip = self.bank.samples(bed)
            reps = -(-(n + len(clip)) // len(clip))
            start = int(rng.integers(0, len(clip)))
            noise = np.tile(clip, reps)[start : start + n]
            quiet = float(np.percentile(frame_rms(noise), 20)) + 1e-6
            noise = np.clip(noise / quiet, -6, 6)  # knocks held down
        if kind > 0.55 or rng.random() < 0.3:
            noise = noise + rng.uniform(0.2, 1.0) * rng.standard_normal(n, dtype=np.float32)
        spectrum = fft.rfft(noise.astype(np.float32))
        hz = np.arange(len(spectrum), dtype=np.float32) * (SAMPLE_RATE_HZ / n)
        bedroom = rng.random() < self.recipe.bedroom_share
        corner_hz, db_per_octave = (
            ((120, 400), (-8.0, -4.0)) if bedroom else ((80, 1000), (-9.0, 0))
        )
        spectrum *= tilt(hz, float(rng.uniform(*corner_hz)), float(rng.uniform(*db_per_octave)))
        noise = fft.irfft(spectrum, n).astype(np.float32)
        drift_db = np.interp(np.linspace(0, 3, n), np.arange(4), rng.uniform(-2, 2, 4))
        noise *= (10 ** (drift_db / 20)).astype(np.float32)
        low, high = self.recipe.bedroom_dbfs if bedroom else self.recipe.floor_dbfs
        dbfs = rng.uniform(low, high) if rng.random() < 0.85 else rng.uniform(-90, low)
        rms = 10 ** (dbfs / 20)
        noise *= np.float32(rms / (np.sqrt(np.square(noise).mean()) + 1e-12))
        return noise, float(rms), bed

    def _treatment(self, rng, speed_range) -> Treatment:
        r = self.recipe
        return Treatment(
            equaliser_db=(
                rng.uniform(-r.equalise_db, r.equalise_db, 6)
                if rng.random() < r.equalise_share
                else None
            ),
            low_pass_hz=float(rng.uniform(3300, 4300)) if rng.random() < r.low_pass_share else None,
            room=room_response(rng) if rng.random() < r.reverb_share else None,
            speed=float(rng.uniform(*speed_range)) if rng.random() < r.speed_share else 1.0,
        )

    def _events(self, rng, mix, floor_rms, has_cry, sampling, target, weight, placed) -> None:
        r = self.recipe
        n = self.n_samples
        n_negatives = int(rng.poisson(r.negatives_mean * (0.6 if has_cry else 1.0)))
        taken: list[tuple[int, int]] = []
        if has_cry:
            first = int(rng.choice(self.cries, p=sampling["cries"]))
            bout = [first]
            siblings = self._cries_of[self.bank.clips[first].group]
            if rng.random() < 0.3:
                bout.append(int(rng.choice(siblings)))
            faint = rng.random() < r.faint_cry_share
            snr_db = rng.uniform(*(r.faint_cry_snr_db if faint else r.cry_snr_db))
            at = int(rng.integers(-n // 4, int(n * 0.75)))
            for i in bout:
                end = self._place(
                    rng, mix, i, at, floor_rms, snr_db, r.cry_speed, target, weight, placed
                )
                if end is None:
                    break
                taken.append((at, end))
                at = end + int(rng.uniform(0.4, 2.5) * SAMPLE_RATE_HZ)
                snr_db += rng.uniform(-3, 3)
                if at > n - SAMPLE_RATE_HZ:
                    break
        for _ in range(n_negatives):
            i = int(rng.choice(self.negatives, p=sampling["negatives"]))
            length = self.bank.span[i][1] - self.bank.span[i][0]
            for _ in range(4):
                at = int(rng.integers(-n // 8, int(n * 0.9)))
                collides = any(at < e and at + length > s for s, e in taken)
                if not collides:
                    break
            if collides and rng.random() >= r.overlap_share:
                continue
            snr_db = rng.uniform(*r.negative_snr_db)
            if collides:
                # Under a cry a negative stays where the cry can still be heard.
                snr_db = min(snr_db, rng.uniform(-5, 12))
            end = self._place(
                rng, mix, i, at, floor_rms, snr_db, r.negative_speed, target, weight, placed
            )
            if end is not None:
                taken.append((at, end))

    def _place(
        self, rng, mix, index, at, floor_rms, snr_db, speed, target, weight, placed
    ) -> int | None:
        """Mix one clip in at sample ``at`` (may be before the start); gives its end."""
        dry = self.bank.active(index)
        treatment = self._treatment(rng, speed)
        sound = treat(dry, treatment)
        low, high = self.recipe.level_dbfs
        dbfs = float(np.clip(20 * np.log10(floor_rms) + snr_db, low, high))
        sound *= np.float32(10 ** (dbfs / 20) / (active_rms(sound) + 1e-9))
        start, end = max(at, 0), min(at + len(sound), len(mix))
        if end - start < FRAME_SAMPLES * 5:
            return None
        part = sound[start - at : end - at]
        mix[start:end] += part
        heard = self._heard(index, self.bank.span[index][0], start - at, end - at, treatment.speed)
        self._mark(index, start, end, part, heard, target, weight, placed, begins=at >= 0)
        return end

    def _heard(self, index, origin, start, end, speed) -> NDArray[np.float32] | None:
        """A clip's track over samples ``start`` to ``end`` of it as it was placed.

        Args:
            origin: the sample of the clip that was placed first.
            speed: how much faster it plays.
        """
        track = self.bank.tracks[index]
        if track is None:
            return None
        middles = np.arange(start, end, FRAME_SAMPLES) + FRAME_SAMPLES / 2
        frames = ((origin + middles * speed) / FRAME_SAMPLES).astype(np.int64)
        # What rings on after the clip is the room's.
        return np.where(frames < len(track), track[np.minimum(frames, len(track) - 1)], 0.0)

    def _mark(
        self, index, start, end, part, heard, target, weight, placed, *, begins: bool
    ) -> None:
        first, last = start // FRAME_SAMPLES, -(-end // FRAME_SAMPLES)
        placed.append(Placed(index, first, last))
        if not self.bank.is_cry[index]:
            if heard is not None:
                _raise(target, first, heard)
            return
        rms = frame_rms(part, FRAME_SAMPLES)
        if not len(rms):
            return
        sounding = np.flatnonzero(rms > np.percentile(rms, 95) * 10 ** (-PAUSE_DB / 20))
        if not len(sounding):
            return
        last = first + int(sounding[-1]) + 1  # a room's tail is not the cry
        if heard is None:
            target[first:last] = 1.0
        else:
            _raise(target[:last], first, heard)
        quiet = np.setdiff1d(np.arange(last - first), sounding)
        weight[first + quiet] = PAUSE_WEIGHT
        if begins:
            weight[first : min(first + ONSET_FRAMES, last)] = ONSET_WEIGHT
        after = slice(last, last + OFFSET_FRAMES)
        weight[after] = np.where(target[after] > 0.5, weight[after], OFFSET_WEIGHT)

    def _whole_clip(self, rng, mix, has_cry, sampling, target, weight, placed) -> None:
        """A clip as it was recorded, its own background with it, at any level."""
        pool, p = (
            (self.cries, sampling["cries"]) if has_cry else (self.negatives, sampling["negatives"])
        )
        index = int(rng.choice(pool, p=p))
        treatment = self._treatment(rng, (0.9, 1.1))
        sound = treat(self.bank.samples(index), treatment)
        dbfs = rng.uniform(*self.recipe.level_dbfs)
        sound *= np.float32(10 ** (dbfs / 20) / (active_rms(sound) + 1e-9))
        at = 0 if rng.random() < 0.5 else int(rng.integers(0, len(mix) // 2))
        end = min(at + len(sound), len(mix))
        mix[at:end] += sound[: end - at]
        mix += rng.standard_normal(len(mix), dtype=np.float32) * np.float32(
            10 ** (rng.uniform(-100, -75) / 20)
        )
        on = np.flatnonzero(frame_rms(mix) > frame_rms(mix).max() * 10 ** (-30 / 20))
        start = max(at, int(on[0]) * 320)
        stop = min(end, int(on[-1] + 1) * 320)
        if stop - start >= FRAME_SAMPLES:
            heard = self._heard(index, 0, start - at, stop - at, treatment.speed)
            part = mix[start:stop].copy()
            self._mark(index, start, stop, part, heard, target, weight, placed, begins=start > 0)

    def _microphone(self, rng, mix: Audio) -> Audio:
        """What the microphone does to all of it: colour, band limit, clipping, 16 bits."""
        r = self.recipe
        gains = rng.uniform(-6, 6, 6) if rng.random() < 0.3 else None
        corner = float(rng.uniform(3300, 4200)) if rng.random() < r.low_pass_all_share else None
        if gains is not None or corner is not None:
            mix = treat(mix, Treatment(equaliser_db=gains, low_pass_hz=corner))[: self.n_samples]
        peak = float(np.abs(mix).max()) + 1e-9
        if rng.random() < r.clipping_share:
            mix = mix * np.float32(rng.uniform(1.2, 4.0) / peak)
        elif peak > 0.99:
            mix = mix * np.float32(0.99 / peak)
        dither = rng.uniform(-0.5, 0.5, len(mix)).astype(np.float32)
        pcm = np.clip(np.round(mix * 32767 + dither), -32768, 32767)
        return (pcm / 32768).astype(np.float32)


def _raise(target: NDArray[np.float32], first: int, heard: NDArray[np.float32]) -> None:
    """Lift a stretch of the target to what is heard there; the louder claim stands."""
    part = target[first : first + len(heard)]
    np.maximum(part, heard[: len(part)], out=part)

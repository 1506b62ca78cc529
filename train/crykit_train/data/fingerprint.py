"""Near-duplicate audio: the same sound again, at another gain, place, bandwidth or codec.

Two stages. Landmarks (Wang, "An industrial-strength audio search algorithm", ISMIR 2003): peaks of
the spectrogram under 4 kHz, hashed in pairs; two clips that share a sound share many pairs at one
offset. Each candidate is then checked on its waveform: the normalised cross-correlation of the
aligned stretch, spectrally flattened, which for different recordings is near zero however alike
they sound. A duplicate at another speed or pitch is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray

RATE_HZ = 8000  # of the copies that are compared: what a telephone codec leaves
FFT_SAMPLES = 512  # 64 ms
HOP_SAMPLES = 128  # 16 ms
LOWEST_BIN = 10  # 156 Hz: hum is in every recording
PEAK_FRAMES, PEAK_BINS = 11, 15  # a peak is the largest in 0.18 s by 234 Hz
PEAKS_PER_S = 24
FAN_OUT = 6
PAIR_FRAMES = (2, 63)  # apart in time, 32 ms to 1 s
PAIR_BINS = 63  # apart in frequency at most, 984 Hz
FLOOR_DB = -60.0  # of peaks against the clip's largest

MIN_PAIRS = 4  # at one offset, for a candidate
MAX_BUCKET = 400  # a pair of peaks that is this common tells nothing
LAG_SLACK_SAMPLES = 2 * HOP_SAMPLES
MIN_OVERLAP_SAMPLES = RATE_HZ // 2
MIN_CORRELATION = 0.5
SIDE_SAMPLES = RATE_HZ // 10
MIN_SHARPNESS = 1.15  # the peak against the best at another lag: a steady tone fits everywhere

Audio = NDArray[np.float32]
# Its annotations are those of its dispatcher. Unlike numpy's it keeps float32.
fft: Any = scipy.fft
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Duplicate:
    """Clips ``a`` and ``b`` share a sound: ``b`` starts ``offset_s`` after ``a``."""

    a: int
    b: int
    offset_s: float
    correlation: float
    overlap_s: float


class FingerprintIndex:
    """Fingerprints of clips, added in turn; `duplicates` compares all with all."""

    def __init__(self) -> None:
        self._audio: list[NDArray[np.int16]] = []
        self._hashes: list[NDArray[np.int32]] = []
        self._frames: list[NDArray[np.int32]] = []
        self._flat: dict[int, Audio] = {}

    def __len__(self) -> int:
        return len(self._audio)

    def add(self, samples: Audio) -> None:
        """Add a clip (n,) at 16 kHz."""
        low = scipy.signal.resample_poly(samples, 1, 2).astype(np.float32)
        hashes, frames = landmarks(low)
        largest = float(np.abs(low).max()) or 1.0
        self._audio.append((low / largest * 32767).astype(np.int16))
        self._hashes.append(hashes)
        self._frames.append(frames)

    def duplicates(
        self, side: Sequence[str] | None = None, progress: Progress | None = None
    ) -> list[Duplicate]:
        """Pairs that share a sound; with ``side``, only pairs on two sides."""
        pairs = self._candidates(np.unique(side, return_inverse=True)[1] if side else None)
        found: list[Duplicate] = []
        for done, (a, b, offset) in enumerate(pairs, 1):
            checked = self._check(a, b, offset)
            if checked is not None:
                found.append(checked)
            if progress and (done % 64 == 0 or done == len(pairs)):
                progress(done, len(pairs), float("nan"))
        return found

    def _candidates(self, side: NDArray[np.intp] | None) -> list[tuple[int, int, int]]:
        """(a, b, offset in frames) of the best offset of each pair with enough shared hashes."""
        if not self._hashes:
            return []
        clips = np.repeat(np.arange(len(self)), [len(h) for h in self._hashes])
        hashes, frames = np.concatenate(self._hashes), np.concatenate(self._frames)
        order = np.argsort(hashes, kind="stable")
        clips, frames, hashes = clips[order], frames[order], hashes[order]
        counts = np.diff(np.flatnonzero(np.diff(hashes, prepend=-1, append=-2)))
        bucket_end = np.repeat(np.cumsum(counts), counts)
        rare = np.repeat(counts, counts) <= MAX_BUCKET
        keys: list[NDArray[np.int64]] = []
        position = np.arange(len(hashes))
        for step in range(1, min(MAX_BUCKET, int(counts.max(initial=1)))):
            first = position[: len(position) - step][
                rare[: len(position) - step]
                & (position[: len(position) - step] + step < bucket_end[: len(position) - step])
            ]
            if not len(first):
                continue
            a, b = clips[first], clips[first + step]
            keep = a != b
            if side is not None:
                keep &= side[a] != side[b]
            first, a, b = first[keep], a[keep], b[keep]
            # A stable sort leaves clips of a bucket in order, so a < b.
            offset = frames[first].astype(np.int64) - frames[first + step]
            keys.append(((a.astype(np.int64) * len(self) + b) << 16) + offset + (1 << 15))
        if not keys:
            return []
        return _best_offsets(np.concatenate(keys), len(self))

    def _check(self, a: int, b: int, offset_frames: int) -> Duplicate | None:
        """Compare the waveforms around an offset: ``b`` starts that much after ``a`` does."""
        first, second = self._whitened(a), self._whitened(b)
        best = correlate(first, second, offset_frames * HOP_SAMPLES)
        if best is None:
            return None
        lag, value, overlap, elsewhere = best
        if value < MIN_CORRELATION or value < MIN_SHARPNESS * elsewhere:
            return None
        return Duplicate(a, b, lag / RATE_HZ, round(value, 3), round(overlap / RATE_HZ, 2))

    def _whitened(self, clip: int) -> Audio:
        kept = self._flat.get(clip)
        if kept is None:
            if len(self._flat) > 512:  # some 80 MB of 5 s clips
                self._flat.clear()
            kept = self._flat[clip] = flatten_spectrum(self._audio[clip].astype(np.float32))
        return kept


def landmarks(low: Audio) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Hashes of pairs of spectral peaks and the frame of the first; (n,) at 8 kHz -> (k,), (k,)."""
    nothing = np.zeros(0, np.int32)
    if len(low) < FFT_SAMPLES:
        return nothing, nothing
    view = np.lib.stride_tricks.sliding_window_view(low, FFT_SAMPLES)[::HOP_SAMPLES]
    window = np.hanning(FFT_SAMPLES).astype(np.float32)
    power = np.abs(fft.rfft(view * window, axis=1)[:, :256]) ** 2
    largest = float(power.max())
    if largest <= 0:
        return nothing, nothing
    level = np.maximum(power, largest * np.float32(10 ** (FLOOR_DB / 10)))
    around = scipy.ndimage.maximum_filter(level, size=(PEAK_FRAMES, PEAK_BINS))
    peak = (level == around) & (power > largest * 10 ** (FLOOR_DB / 10))
    peak[:, :LOWEST_BIN] = False
    frames, bins = np.nonzero(peak)
    if len(frames) < 2:
        return nothing, nothing
    frames, bins = _strongest(frames, bins, level)
    return _pairs(frames, bins)


def _strongest(
    frames: NDArray[np.intp], bins: NDArray[np.intp], level: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The strongest peaks of each second, in order of time, then frequency."""
    second = frames * HOP_SAMPLES // RATE_HZ
    order = np.lexsort((-level[frames, bins], second))
    place = np.arange(len(order)) - np.searchsorted(second[order], second[order])
    kept = np.sort(order[place < PEAKS_PER_S])
    return frames[kept], bins[kept]


def _pairs(
    frames: NDArray[np.intp], bins: NDArray[np.intp]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Each peak with the next few within reach, as 22-bit hashes."""
    hashes: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.int64]] = []
    taken = np.zeros(len(frames), np.int64)
    for step in range(1, min(len(frames), 60)):
        apart = frames[step:] - frames[:-step]
        rise = bins[step:] - bins[:-step]
        good = (apart >= PAIR_FRAMES[0]) & (apart <= PAIR_FRAMES[1]) & (np.abs(rise) <= PAIR_BINS)
        good &= taken[:-step] < FAN_OUT
        first = np.flatnonzero(good)
        taken[first] += 1
        code = (bins[first] << 13) + ((rise[first] + PAIR_BINS + 1) << 6) + apart[first]
        hashes.append(code)
        starts.append(frames[first])
    return np.concatenate(hashes).astype(np.int32), np.concatenate(starts).astype(np.int32)


def _best_offsets(keys: NDArray[np.int64], n_clips: int) -> list[tuple[int, int, int]]:
    """Of packed (pair, offset) keys: each pair's offset with most hits, where they suffice."""
    packed, counts = np.unique(keys, return_counts=True)
    # A hop's rounding spreads one offset over two neighbours.
    joined = counts.copy()
    neighbours = np.diff(packed) == 1
    joined[:-1][neighbours] += counts[1:][neighbours]
    good = joined >= MIN_PAIRS
    packed, joined = packed[good], joined[good]
    pair = packed >> 16
    order = np.lexsort((-joined, pair))
    first = order[np.unique(pair[order], return_index=True)[1]]
    return [
        (int(p // n_clips), int(p % n_clips), int(key & 0xFFFF) - (1 << 15))
        for p, key in zip(pair[first], packed[first], strict=True)
    ]


def flatten_spectrum(low: Audio) -> Audio:
    """From 200 to 3400 Hz, the magnitude smoothed over about 100 Hz divided out."""
    n = fft.next_fast_len(len(low), real=True)
    spectrum = fft.rfft(low, n)
    hz = np.fft.rfftfreq(n, 1 / RATE_HZ)
    magnitude = np.abs(spectrum)
    width = max(1, int(100 / (RATE_HZ / n)))
    smooth = np.sqrt(scipy.ndimage.uniform_filter1d(magnitude**2, width))
    smooth += 0.03 * float(smooth.max()) + 1e-9  # leaves what a low-pass took away where it is
    band = (hz >= 200) & (hz <= 3400)
    return fft.irfft(np.where(band, spectrum / smooth, 0), n)[: len(low)].astype(np.float32)


def correlate(
    first: Audio, second: Audio, lag: int, slack: int = LAG_SLACK_SAMPLES
) -> tuple[int, float, int, float] | None:
    """Normalised cross-correlation of two sounds near a lag of the second behind the first.

    Returns:
        (lag, value, overlap in samples, largest value 0.1 s or more away), or None where they
        overlap by less than half a second. Values are of magnitudes: polarity may be turned.
    """
    low, high = max(0, lag), min(len(first), lag + len(second))
    overlap = high - low
    if overlap < MIN_OVERLAP_SAMPLES:
        return None
    a, b = first[low:high], second[low - lag : high - lag]
    energy = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    if energy <= 0:
        return None
    n = fft.next_fast_len(2 * overlap, real=True)
    product = fft.irfft(fft.rfft(a, n) * np.conj(fft.rfft(b, n)), n)
    value = np.abs(np.concatenate([product[-overlap:], product[:overlap]])) / energy
    near = slice(overlap - slack, overlap + slack + 1)
    at = int(np.argmax(value[near])) + near.start
    away = np.ones(len(value), bool)
    away[max(0, at - SIDE_SAMPLES) : at + SIDE_SAMPLES + 1] = False
    elsewhere = float(value[away].max()) if away.any() else 0.0
    return lag + at - overlap, float(value[at]), overlap, elsewhere


def fingerprint_all(sounds: Iterable[Audio]) -> FingerprintIndex:
    """An index of sounds, each (n,) at 16 kHz."""
    index = FingerprintIndex()
    for samples in sounds:
        index.add(samples)
    return index

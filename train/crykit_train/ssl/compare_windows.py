"""ComParE 2016 features of a corpus's windows: the target of the hybrid branch.

openSMILE takes some 30 ms a window, far more than a step has, so windows lie on a fixed grid, one
window apart, and their features are computed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.dataset import Clip, read_clip
from crykit.files import write_aside
from crykit_train.compare import FEATURES, compare_features
from crykit_train.ssl.corpus import LogMelCorpus

HOP_SAMPLES = 160
OUTLIER = 5.0  # standard deviations; some functionals have very long tails

Update = Callable[[int, int], None]


class CompareWindows:
    """Features of grid window k of clip i, standardised over the corpus.

    Args:
        corpus: whose clips.
        frames: of a window; grid windows start at multiples of it, and shorter clips are repeated.
        most: windows a clip, evenly spread over its grid; 0 takes all.
        cache: a folder, one file a clip; it may be shared by processes.
        scale: (2, 6373) mean and deviation of an earlier run, instead of this corpus's own.
    """

    def __init__(
        self,
        corpus: LogMelCorpus,
        frames: int,
        *,
        most: int = 0,
        cache: str | Path | None = None,
        scale: Tensor | None = None,
        update: Update | None = None,
    ) -> None:
        self.frames = frames
        grids = [grid(int(length), frames, most) for length in corpus.lengths]
        self.counts = np.array([len(g) for g in grids])
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        self._first_frames = np.concatenate(grids)
        rows: list[NDArray[np.float32]] = []
        for i, clip in enumerate(corpus.clips):
            rows.append(clip_windows(clip, frames, grids[i], cache))
            if update:
                update(i + 1, len(corpus))
        raw = np.concatenate(rows)
        if scale is None:
            mean, std = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, dtype=np.float64)
            # A functional that never varies tells nothing: it becomes 0.
            self.scale = torch.from_numpy(np.stack([mean, std])).float()
        else:
            self.scale = scale
        mean, std = self.scale.numpy()
        steady = std < 1e-6 * np.abs(mean) + 1e-12
        scaled = (raw - mean) / np.where(steady, 1.0, std)
        scaled[:, steady] = 0.0
        self._rows = np.clip(scaled, -OUTLIER, OUTLIER).astype(np.float16)

    def draw(
        self, indices: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Tensor]:
        """For each clip one grid window: its first frame (batch,), features (batch, 6373)."""
        at = self.starts[indices] + rng.integers(0, self.counts[indices])
        return self._first_frames[at], torch.from_numpy(self._rows[at]).float()


def grid(length: int, frames: int, most: int = 0) -> NDArray[np.int64]:
    """First frames of the windows of a clip of ``length`` frames."""
    whole = max(length // frames, 1)
    if most and whole > most:
        return np.linspace(0, whole - 1, most).round().astype(np.int64) * frames
    return np.arange(whole) * frames


def clip_windows(
    clip: Clip, frames: int, first_frames: NDArray[np.int64], cache: str | Path | None
) -> NDArray[np.float32]:
    """(windows, 6373) raw features of a clip's windows of so many centred frames."""
    path = None
    if cache:
        key = hashlib.sha256(clip.path.read_bytes())
        key.update(str((frames, first_frames.tolist())).encode())
        path = Path(cache) / f"{key.hexdigest()}-compare.npy"
        try:
            kept = np.load(path, allow_pickle=False)
            if kept.shape == (len(first_frames), FEATURES):
                return kept
        except (OSError, ValueError, EOFError):
            pass  # not there, or cut short by a kill: computed and written again
    samples = read_clip(clip)
    # A window of n centred frames spans n - 1 hops.
    span = (frames - 1) * HOP_SAMPLES
    rows = []
    for first in first_frames:
        part = samples[first * HOP_SAMPLES :][:span]
        rows.append(compare_features(part if len(part) == span else np.resize(samples, span)))
    values = np.stack(rows)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as file:
            np.save(file, values, allow_pickle=False)
    return values

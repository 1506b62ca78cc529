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
        cache: a folder, one file a clip; it may be shared by processes.
        scale: (2, 6373) mean and deviation of an earlier run, instead of this corpus's own.
    """

    def __init__(
        self,
        corpus: LogMelCorpus,
        frames: int,
        *,
        cache: str | Path | None = None,
        scale: Tensor | None = None,
        update: Update | None = None,
    ) -> None:
        self.frames = frames
        self.counts = np.maximum(corpus.lengths // frames, 1)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        rows: list[NDArray[np.float32]] = []
        for i, clip in enumerate(corpus.clips):
            rows.append(clip_windows(clip, frames, int(self.counts[i]), cache))
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
        k = rng.integers(0, self.counts[indices])
        return k * self.frames, torch.from_numpy(self._rows[self.starts[indices] + k]).float()


def clip_windows(
    clip: Clip, frames: int, count: int, cache: str | Path | None
) -> NDArray[np.float32]:
    """(count, 6373) raw features of a clip's grid windows."""
    path = None
    if cache:
        digest = hashlib.sha256(clip.path.read_bytes()).hexdigest()
        path = Path(cache) / f"{digest}-compare-w{frames}.npy"
        try:
            kept = np.load(path, allow_pickle=False)
            if kept.shape == (count, FEATURES):
                return kept
        except (OSError, ValueError, EOFError):
            pass  # not there, or cut short by a kill: computed and written again
    samples = read_clip(clip)
    # A window of n centred frames spans n - 1 hops; the next one starts n frames on.
    span = (frames - 1) * HOP_SAMPLES
    rows = []
    for k in range(count):
        part = samples[k * frames * HOP_SAMPLES :][:span]
        rows.append(compare_features(part if len(part) == span else np.resize(samples, span)))
    values = np.stack(rows)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as file:
            np.save(file, values, allow_pickle=False)
    return values

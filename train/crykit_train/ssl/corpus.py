"""Log-mels of a manifest's clips in memory, and random windows of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.dataset import Clip, read_clip, without_sources
from crykit.errors import InputError
from crykit.files import write_aside
from crykit.nn.logmel import LogMel
from crykit_train.ssl.recipes import DataRecipe

HOP_S = 0.01
CACHE_FORMAT = 1  # raised whenever LogMel's output changes

Update = Callable[[int, int], None]


def window_frames(window_s: float) -> int:
    """Centred frames of a window, both ends included: 0.95 s are BYOL-A's 96."""
    return round(window_s / HOP_S) + 1


def select_clips(clips: Sequence[Clip], data: DataRecipe) -> list[Clip]:
    """The clips that a recipe's data section names.

    Raises:
        InputError: none is left.
    """
    chosen = [
        clip
        for clip in without_sources(clips, data.exclude_sources)
        if clip.split == data.split
        and (not data.include_events or clip.event in data.include_events)
        and clip.event not in data.exclude_events
    ]
    if not chosen:
        raise InputError(
            f"no {data.split} clip is left of {len(clips)}: events {list(data.include_events)}, "
            f"without events {list(data.exclude_events)} and sources "
            f"{list(data.exclude_sources)}; widen the recipe's [data]"
        )
    return chosen


class LogMelCorpus:
    """Every clip's log-mel, float16, one after the other in one array.

    Args:
        clips: what to hear.
        n_mels: bands.
        cache: a folder where each clip's log-mel is kept under the hash of its file; processes may
            share it.
        update: called with (clips done, clips).
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        n_mels: int = 64,
        *,
        cache: str | Path | None = None,
        update: Update | None = None,
    ) -> None:
        if not clips:
            raise InputError("a corpus needs at least one clip; the selection is empty")
        self.clips, self.n_mels = list(clips), n_mels
        front_end = LogMel(n_mels)
        parts: list[NDArray[np.float16]] = []
        for i, clip in enumerate(self.clips):
            parts.append(_log_mel(clip, front_end, Path(cache) if cache else None))
            if update:
                update(i + 1, len(self.clips))
        self.lengths = np.array([len(part) for part in parts])
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self._frames = np.concatenate(parts)  # (all frames, n_mels)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def hours(self) -> float:
        return float(self.lengths.sum()) * HOP_S / 3600

    def windows(self, batch: int, frames: int, rng: np.random.Generator) -> Tensor:
        """Random windows of random clips, (batch, 1, n_mels, frames) float32."""
        return self.windows_of(rng.integers(0, len(self), batch), frames, rng)

    def windows_of(
        self, indices: NDArray[np.int64], frames: int, rng: np.random.Generator
    ) -> Tensor:
        """One random window of each of these clips; a clip shorter than a window is repeated."""
        room = np.maximum(self.lengths[indices] - frames, 0)
        return self.windows_at(indices, rng.integers(0, room + 1), frames)

    def windows_at(
        self, indices: NDArray[np.int64], starts: NDArray[np.int64], frames: int
    ) -> Tensor:
        """Windows (batch, 1, n_mels, frames) of clips from given frames on."""
        inside = (starts[:, None] + np.arange(frames)) % self.lengths[indices][:, None]
        picked = self._frames[self.starts[indices][:, None] + inside]  # (batch, frames, n_mels)
        return torch.from_numpy(picked).transpose(1, 2)[:, None].float()

    def statistics(
        self, frames: int, n_windows: int = 10_000, seed: int = 1
    ) -> tuple[float, float]:
        """Mean and standard deviation over random windows (BYOL-A's, for pre-normalisation)."""
        rng = np.random.default_rng([seed, 5])
        count, total, square = 0, 0.0, 0.0
        for start in range(0, n_windows, 500):
            windows = self.windows(min(500, n_windows - start), frames, rng).double()
            count += windows.numel()
            total += float(windows.sum())
            square += float(windows.square().sum())
        mean = total / count
        return mean, max(square / count - mean**2, 1e-12) ** 0.5


def _log_mel(clip: Clip, front_end: LogMel, cache: Path | None) -> NDArray[np.float16]:
    """(frames, n_mels) of one clip, from the cache where it is there and whole."""
    path = None
    if cache is not None:
        digest = hashlib.sha256(clip.path.read_bytes()).hexdigest()
        path = cache / f"{digest}-m{front_end.n_mels}-v{CACHE_FORMAT}.npy"
        try:
            kept = np.load(path, allow_pickle=False)
            if kept.ndim == 2 and kept.shape[1] == front_end.n_mels:
                return kept
        except (OSError, ValueError, EOFError):
            pass  # not there, or cut short by a kill: computed and written again
    with torch.inference_mode():
        log_mel = front_end(torch.from_numpy(read_clip(clip))[None])[0, 0]
    values = np.ascontiguousarray(log_mel.T.numpy().astype(np.float16))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as file:
            np.save(file, values, allow_pickle=False)
    return values

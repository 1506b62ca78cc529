"""Where batches come from: log-mels in memory, or waveforms out of shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.errors import InputError, UsageError
from crykit_train.data.shards import INDEX, ShardWindows, read_index
from crykit_train.ssl.compare_windows import CompareWindows
from crykit_train.ssl.corpus import LogMelCorpus
from crykit_train.ssl.recipes import DataRecipe

HOP_SAMPLES = 160


@dataclass(frozen=True)
class Batch:
    """One process's part of a step.

    ``chunks`` is (1 or 2, batch, 1, mels, frames) of log-mel or, with ``is_audio``, (1 or 2, batch,
    samples). ``extra`` is what the objective takes besides the views, (batch, ...). ``position``
    is where the source stands after it.
    """

    chunks: Tensor
    is_audio: bool = False
    extra: Tensor | None = None
    position: tuple[int, int] = (0, 0)


class Source(Protocol):
    steps_per_epoch: int

    def batch(self, step: int) -> Batch: ...


class CorpusSource:
    """Every clip once an epoch in random order, a random window each; it has no state.

    Args:
        batch: clips a step over all processes; at most all clips, so that no clip meets itself.
        chunks: windows of each clip, 1 or 2.
        labels: (clips,) class numbers, for the supervised control.
        compare: ComParE windows, for the hybrid; chunks then lie on its grid.
    """

    def __init__(
        self,
        corpus: LogMelCorpus,
        frames: int,
        batch: int,
        *,
        chunks: int = 1,
        seed: int = 1,
        rank: int = 0,
        world_size: int = 1,
        labels: NDArray[np.int64] | None = None,
        compare: CompareWindows | None = None,
    ) -> None:
        self.corpus, self.frames, self.chunks, self.seed = corpus, frames, chunks, seed
        self.rank, self.labels, self.compare = rank, labels, compare
        self.per_process = min(batch, len(corpus)) // world_size
        if self.per_process < 2:
            raise InputError(
                f"a step needs two clips or more in each process, got {len(corpus)} clips, "
                f"batch {batch}, {world_size} processes; give more clips or a larger batch"
            )
        self._whole = self.per_process * world_size
        self.steps_per_epoch = len(corpus) // self._whole

    def batch(self, step: int) -> Batch:
        indices = self._clips_of(step)
        rng = np.random.default_rng([self.seed, 13, step, self.rank])
        if self.compare is not None:
            starts, features = self.compare.draw(indices, rng)
            window = self.corpus.windows_at(indices, starts, self.frames)
            return Batch(window[None], extra=features)
        windows = [self.corpus.windows_of(indices, self.frames, rng) for _ in range(self.chunks)]
        labels = None if self.labels is None else torch.from_numpy(self.labels[indices])
        return Batch(torch.stack(windows), extra=labels)

    def _clips_of(self, step: int) -> NDArray[np.int64]:
        epoch, k = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, 11, epoch]).permutation(len(self.corpus))
        first = k * self._whole + self.rank * self.per_process
        return order[first : first + self.per_process]


class ShardSource:
    """Windows of audio from sharded tar files, epoch after epoch.

    Args:
        position: (epoch, windows of it that were taken), to go on from.
    """

    def __init__(
        self,
        data: DataRecipe,
        frames: int,
        batch: int,
        *,
        chunks: int = 1,
        seed: int = 1,
        rank: int = 0,
        world_size: int = 1,
        position: tuple[int, int] = (0, 0),
    ) -> None:
        urls, clips, self.leaky = shard_urls(data)
        self._data, self._seed = data, seed
        self._n = (frames - 1) * HOP_SAMPLES
        self._chunks = chunks
        self.per_process = max(2, batch // world_size)
        self.steps_per_epoch = max(1, clips // (self.per_process * world_size))
        # Two chunks are cut from one window twice as long.
        self._shards = ShardWindows(
            urls, self._n * chunks, seed, rank, world_size, padding="repeat"
        )
        self._rank = rank
        self._epoch, self._taken = position
        self._items: Iterator[NDArray[np.float32]] = self._endless()

    def batch(self, step: int) -> Batch:
        """The next batch; steps must be asked for in order."""
        audio = np.stack([next(self._items) for _ in range(self.per_process)])
        rng = np.random.default_rng([self._seed, 19, step, self._rank])
        chunks: list[NDArray[np.float32]] = []
        for _ in range(self._chunks):
            starts = rng.integers(0, audio.shape[1] - self._n + 1, len(audio))
            inside = starts[:, None] + np.arange(self._n)
            chunks.append(np.take_along_axis(audio, inside, axis=1))
        return Batch(
            torch.from_numpy(np.stack(chunks)), is_audio=True, position=(self._epoch, self._taken)
        )

    def _endless(self) -> Iterator[NDArray[np.float32]]:
        while True:
            self._shards.set_epoch(self._epoch, self._taken)
            before, met = self._taken, False
            for window, record in self._shards:
                self._taken += 1
                if self._wanted(record):
                    met = True
                    yield window
            if not met and before == 0:
                raise InputError("shards: no clip in them is what [data] asks for; widen it")
            self._epoch, self._taken = self._epoch + 1, 0

    def _wanted(self, record: dict[str, Any]) -> bool:
        d = self._data
        return (
            (not d.include_events or record["event"] in d.include_events)
            and record["event"] not in d.exclude_events
            and record["source"] not in d.exclude_sources
        )


def shard_urls(data: DataRecipe) -> tuple[list[str], int, bool]:
    """Addresses of the shards, how many clips their indices count (0 unknown), and any leak."""
    urls: list[str] = []
    clips, leaky = 0, False
    for entry in data.shards:
        if not (Path(entry) / INDEX).is_file():
            urls += expand_braces(entry)
            continue
        index = read_index(entry)
        urls += index.urls(data.split)
        clips += sum(int(s["clips"]) for s in index.shards if s["split"] == data.split)
        leaky |= index.leaky
    if not urls:
        raise InputError(f"shards: {list(data.shards)} hold no {data.split} clips; check [data]")
    return urls, clips, leaky


def expand_braces(address: str) -> list[str]:
    """webdataset's notation: ``a-{00..02}.tar`` is three shards."""
    from webdataset.shardlists import expand_urls

    return list(expand_urls(address))


def class_numbers(names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Each clip's class number, and the classes in order.

    Raises:
        UsageError: fewer than two classes.
    """
    classes = sorted(set(names))
    if len(classes) < 2:
        raise UsageError(
            f"the supervised control needs two classes or more, found {classes}; "
            "choose another objective.label or widen [data]"
        )
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in names], np.int64), classes

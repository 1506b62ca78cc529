"""Clips as sharded tar files (webdataset's format), and windows drawn from them.

A shard holds ``NAME.flac`` (16 kHz, mono, 16 bit) and ``NAME.json`` (the clip's manifest row,
its group and split among it) for each clip. Every split is a set of shards of its own, and
``index.json`` beside them lists them with their counts, so that nothing has to be opened to plan
an epoch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import soundfile
from numpy.typing import NDArray

from crykit.dataset import SAMPLE_RATE_HZ, SPLITS, Clip, check_groups, read_clip
from crykit.errors import InputError, UsageError
from crykit.files import write_aside

INDEX = "index.json"
FORMAT = 1
Progress = Callable[[int, int, float], None]
Window = tuple[NDArray[np.float32], dict[str, Any]]


def write_shards(
    clips: Sequence[Clip],
    out: Path,
    *,
    clips_per_shard: int = 256,
    seed: int = 1,
    leaky: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write every split of the clips as shards, and the index.

    Clips are shuffled first, so that one shard is a sample of its split. Audio of 16 bits goes in
    and comes out the same, bit for bit; anything else is rounded to 16 bits.

    Args:
        out: a folder; it must hold no index yet. One that a broken run left is written anew.
        leaky: accept groups on two sides of a split; the index is then stamped.

    Returns:
        What the index holds: the shards of each split with their clips, groups, seconds, digests.

    Raises:
        UsageError: the folder holds shards already, or ``clips_per_shard`` is under one.
        InputError: no clips, a group on two sides of a split, or a clip that cannot be read.
    """
    if clips_per_shard < 1:
        raise UsageError(f"shards: expected one clip or more in each, got {clips_per_shard}")
    if (out / INDEX).exists():
        raise UsageError(f"{out}: holds shards already; choose another folder")
    if not clips:
        raise InputError("shards: there are no clips to write; check the manifest")
    if not leaky:
        check_groups(clips)
    out.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Any]] = []
    done = 0
    for number, split in enumerate(SPLITS):
        members = [clip for clip in clips if clip.split == split]
        order = np.random.default_rng([seed, number]).permutation(len(members))
        for first in range(0, len(members), clips_per_shard):
            chosen = [members[i] for i in order[first : first + clips_per_shard]]
            name = f"{split}-{first // clips_per_shard:06d}.tar"
            shards.append(_write_shard(chosen, out / name, first))
            done += len(chosen)
            if progress:
                progress(done, len(clips), float("nan"))
    index = {
        "format": FORMAT,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "seed": seed,
        "leaky": leaky,
        "shards": shards,
    }
    with write_aside(out / INDEX) as file:
        file.write((json.dumps(index, indent=2) + "\n").encode())
    return index


def _write_shard(clips: Sequence[Clip], path: Path, first: int) -> dict[str, Any]:
    from webdataset.writer import TarWriter

    split = clips[0].split
    samples = 0
    with write_aside(path) as file:
        # A fixed time, owner and mode: the same clips give the same bytes.
        with TarWriter(file, mtime=0.0, encoder=False, compress=False) as writer:
            for position, clip in enumerate(clips, start=first):
                pcm = to_pcm16(read_clip(clip))
                samples += len(pcm)
                flac = io.BytesIO()
                soundfile.write(flac, pcm, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
                writer.write(
                    {
                        "__key__": f"{split}-{position:08d}",
                        "flac": flac.getvalue(),
                        "json": json.dumps(clip_record(clip), sort_keys=True).encode(),
                    }
                )
    return {
        "name": path.name,
        "split": split,
        "clips": len(clips),
        "groups": len({clip.group for clip in clips}),
        "seconds": round(samples / SAMPLE_RATE_HZ, 3),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def clip_record(clip: Clip) -> dict[str, str]:
    """A clip's manifest row, as it stands in a shard; ``path`` is the file's name alone."""
    named = {
        "path": clip.path.name,
        "event": clip.event,
        "group": clip.group,
        "split": clip.split,
        "source": clip.source,
        "licence": clip.licence,
        "orig_label": clip.label,
        "reason": clip.reason,
    }
    return {**clip.attributes, **named}


def to_pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples from -1 to 1 as 16-bit integers; exact for what was read from 16-bit audio."""
    scaled = np.round(np.asarray(samples, np.float64) * 32768.0)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


@dataclass(frozen=True)
class ShardIndex:
    """The shards of a folder. ``leaky``: groups straddle its splits."""

    folder: Path
    shards: tuple[dict[str, Any], ...]
    leaky: bool

    def urls(self, split: str) -> list[str]:
        """The shards of a split, as `ShardWindows` takes them."""
        return [str(self.folder / s["name"]) for s in self.shards if s["split"] == split]


def read_index(folder: str | Path) -> ShardIndex:
    """The index of a folder of shards.

    Raises:
        InputError: no index, one of another format, or a shard that is missing or cut short.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / INDEX).read_bytes())
        shards = tuple(record["shards"])
        if record["format"] != FORMAT:
            raise InputError(f"{folder}: shards of format {record['format']}, expected {FORMAT}")
        for shard in shards:
            size = os.path.getsize(folder / shard["name"])
            if size != shard["bytes"]:
                raise InputError(
                    f"{folder / shard['name']}: {size} bytes, expected {shard['bytes']}; "
                    "write the shards anew"
                )
        return ShardIndex(folder, shards, bool(record["leaky"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: is no folder of shards ({error}); make one with crykit data shard"
        ) from None


class ShardWindows:
    """Windows of clips in shards: every clip once an epoch, cut at a random place.

    What a clip gives in an epoch depends on seed, epoch and clip alone, and so not on how many
    processes share the work. Shards are dealt out to processes where there are enough of them,
    else clips are; either way every clip is met by exactly one process. `torch.utils.data` workers
    divide a rank's part further.

    Args:
        urls: tar files, in an order that all processes share; webdataset opens them, so that
            addresses and ``pipe:`` commands do as well.
        window_samples: length of a window at 16 kHz; a shorter clip is padded.
        seed: of the order and the cuts.
        rank, world_size: this process among how many.
        padding: ``zeros`` at the end, or ``repeat`` the clip.
    """

    def __init__(
        self,
        urls: Sequence[str | Path],
        window_samples: int,
        seed: int = 1,
        rank: int = 0,
        world_size: int = 1,
        *,
        padding: str = "zeros",
    ) -> None:
        if not urls:
            raise InputError("shards: none given; write some with crykit data shard")
        if window_samples < 1 or not 0 <= rank < world_size or padding not in ("zeros", "repeat"):
            raise UsageError(
                "shards: expected a window of one sample or more, a rank under world_size and "
                f'padding "zeros" or "repeat", got {window_samples}, {rank} of {world_size}, '
                f"{padding!r}"
            )
        self.urls = [str(url) for url in urls]
        self.window_samples = window_samples
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.padding = padding
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Go to an epoch, past the first ``start`` windows of this process: how a run resumes."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[Window]:
        """Windows (window_samples,) float32, and the clip's record with its ``key`` and cut."""
        part, parts = self._part()
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.urls))
        by_shard = len(self.urls) >= parts
        taken = seen = 0
        for place, number in enumerate(order):
            if by_shard and place % parts != part:
                continue
            entries = _read_shard(self.urls[number])
            inner = np.random.default_rng([self.seed, self.epoch, int(number)])
            for position in inner.permutation(len(entries)):
                mine = by_shard or seen % parts == part
                seen += 1
                if not mine:
                    continue
                taken += 1
                if taken > self.start:
                    yield self._window(*entries[position])

    def _part(self) -> tuple[int, int]:
        try:
            from torch.utils.data import get_worker_info

            worker = get_worker_info()
        except ImportError:
            worker = None
        if worker is None:
            return self.rank, self.world_size
        return (
            self.rank * worker.num_workers + worker.id,
            self.world_size * worker.num_workers,
        )

    def _window(self, key: str, flac: bytes, record: bytes) -> Window:
        samples = soundfile.read(io.BytesIO(flac), dtype="float32")[0].astype(np.float32)
        rng = np.random.default_rng([self.seed, self.epoch, crc32(key.encode())])
        window, at = cut_window(samples, self.window_samples, rng, self.padding)
        return window, {**json.loads(record), "key": key, "window_start": at}


def cut_window(
    samples: NDArray[np.float32], n: int, rng: np.random.Generator, padding: str = "zeros"
) -> tuple[NDArray[np.float32], int]:
    """A window (n,) at a uniformly random place, and where it starts; padded if the clip is short.

    A short clip is repeated, or set at a random place among zeros, where its start is negative.
    """
    length = len(samples)
    if length >= n:
        at = int(rng.integers(0, length - n + 1))
        return np.ascontiguousarray(samples[at : at + n]), at
    if padding == "repeat":
        return np.resize(samples, n).astype(np.float32), 0
    before = int(rng.integers(0, n - length + 1))
    window = np.zeros(n, np.float32)
    window[before : before + length] = samples
    return window, -before


def _read_shard(url: str) -> list[tuple[str, bytes, bytes]]:
    """Key, FLAC and JSON of every clip of a shard, in the order in which they were written."""
    from webdataset.handlers import reraise_exception
    from webdataset.pipeline import DataPipeline
    from webdataset.shardlists import SimpleShardList
    from webdataset.tariterators import tarfile_to_samples

    pipeline = DataPipeline(SimpleShardList([url]), tarfile_to_samples(handler=reraise_exception))
    try:
        return [(s["__key__"], s["flac"], s["json"]) for s in pipeline]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"shard {url}: cannot be read ({error}); write it anew") from None
    except Exception as error:  # tarfile's own errors share no base with the rest
        if type(error).__module__.startswith(("tarfile", "webdataset")):
            raise InputError(f"shard {url}: is no sound tar ({error}); write it anew") from None
        raise

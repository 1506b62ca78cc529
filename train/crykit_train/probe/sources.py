"""Where embeddings come from: an encoder of ours, hand-made features, or a peer's model."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from crykit.dataset import Clip, read_clip
from crykit.errors import InputError, UsageError
from crykit.files import write_aside
from crykit.nn.frontend import MEL_MAX_HZ, MEL_MIN_HZ, hz_to_mel
from crykit.nn.pretrained import Pretrained, load_pretrained, random_pretrained
from crykit_train.compare import compare_of
from crykit_train.probe.recipes import ModelRecipe, Precision
from crykit_train.ssl.corpus import LogMelCorpus, window_frames

RANDOM = "none:"
COMPARE, YAMNET = "compare", "yamnet"
BATCH_CLIPS = 16

Update = Callable[[int, int], None]


class Body(nn.Module):
    """An encoder and what is kept of its projector: un-normalised log-mel to embedding.

    Gorin et al. (2023), 2.3 transfer from layer 1 of the projection head.

    Args:
        below_hz: bands that reach above it are set to the mean, so that recordings of different
            bandwidth sound alike; 0 keeps all.
    """

    def __init__(self, pretrained: Pretrained, below_hz: float = 0.0) -> None:
        super().__init__()
        n_mels = pretrained.encoder.n_mels
        self.kept = bands_below(n_mels, below_hz) if below_hz else n_mels
        # The same numbers in an order that convolutions on a CPU are 1.5 to 2 times faster with.
        self.encoder = copy.deepcopy(pretrained.encoder).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.head = copy.deepcopy(pretrained.head)
        self.mean, self.std = pretrained.mean, pretrained.std

    def forward(self, log_mel: Tensor) -> Tensor:
        """(batch, 1, n_mels, frames) to (batch, size); what is too short is repeated."""
        x = (log_mel - self.mean) / self.std
        if self.kept < x.shape[2]:
            x = functional.pad(x[:, :, : self.kept], (0, 0, 0, x.shape[2] - self.kept))
        z = self.encoder(self.encoder.pad_to_min(x))
        return z if self.head is None else self.head(z)


def bands_below(n_mels: int, hz: float) -> int:
    """How many bands of `LogMel` end at or below a frequency."""
    mels = np.linspace(hz_to_mel(MEL_MIN_HZ), hz_to_mel(MEL_MAX_HZ), n_mels + 2)
    return int((mels[2:] <= hz_to_mel(hz) + 1e-9).sum())


@dataclass
class Source:
    """A model to probe.

    Attributes:
        record: what is known of its training; empty for what was not trained here.
        trainable: whether its statistics and weights can be trained on.
    """

    name: str
    digest: str
    pretrained: Pretrained | None = None
    peer: Any = None
    record: dict[str, Any] = field(default_factory=dict)
    below_hz: float = 0.0

    @property
    def trainable(self) -> bool:
        return self.pretrained is not None

    def body(self) -> Body:
        """A fresh copy of the encoder, to be trained."""
        if self.pretrained is None:
            raise UsageError(f"{self.name}: has no weights to train; use the linear protocol")
        return Body(self.pretrained, self.below_hz)


def open_source(recipe: ModelRecipe) -> Source:
    """The model that a recipe names, hearing as much of the band as it says.

    Raises:
        InputError: the run folder does not hold an encoder.
        MissingPart: openSMILE or LiteRT is not installed.
        UsageError: a band limit for features that are not ours.
    """
    source = _open(recipe)
    if not recipe.below_hz:
        return source
    if (
        source.pretrained is None
        or bands_below(source.pretrained.encoder.n_mels, 0.99 * recipe.below_hz) < 1
    ):
        raise UsageError(
            f"{source.name}: model.below_hz is for encoders of the kit, over their lowest band"
        )
    digest = hashlib.sha256(f"{source.digest} below {recipe.below_hz:g}".encode()).hexdigest()
    return replace(source, digest=digest, below_hz=recipe.below_hz)


def _open(recipe: ModelRecipe) -> Source:
    if recipe.run == COMPARE:
        return Source("ComParE 2016", "compare2016")
    if recipe.run == YAMNET:
        from crykit_train.peers.yamnet import Yamnet

        peer = Yamnet(recipe.path)
        return Source("YAMNet", _digest([Path(recipe.path)]), peer=peer)
    if recipe.run.startswith(RANDOM):
        torch.manual_seed(recipe.seed)
        name = recipe.run.removeprefix(RANDOM)
        pretrained = random_pretrained(name, **recipe.options)
        facts = f"{recipe.run} {sorted(recipe.options.items())} {recipe.seed}"
        digest = hashlib.sha256(facts.encode()).hexdigest()
        return Source(recipe.run, digest, pretrained, record=dict(pretrained.record))
    folder = Path(recipe.run)
    pretrained = load_pretrained(folder)
    files = [folder / "encoder.safetensors", folder / "encoder.json"]
    return Source(folder.name, _digest(files), pretrained, record=dict(pretrained.record))


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def heard_sources(record: dict[str, Any]) -> set[str]:
    """Sources of the audio that an encoder was trained on, as far as its record tells.

    The record nests: an adapted encoder holds that of the one it started from.
    """
    found: set[str] = set()
    for key, value in record.items():
        if key == "data" and isinstance(value, list):
            found |= {str(e["source"]) for e in value if isinstance(e, dict) and "source" in e}
        elif isinstance(value, dict):
            found |= heard_sources(value)
    return found


class ClipBank:
    """Clips with their log-mels and embeddings, each computed once.

    Args:
        clips: the union of every task's clips.
        cache: folder for log-mels, ComParE features and embeddings; several processes may share it.
        precision: of encoders; with bf16-mixed embeddings are three digits sure, and twice as fast.
    """

    def __init__(
        self, clips: Sequence[Clip], cache: Path | None = None, precision: Precision = "32-true"
    ) -> None:
        self.clips, self.cache, self.precision = list(clips), cache, precision
        self.row = {clip.path: i for i, clip in enumerate(self.clips)}
        self._corpora: dict[int, LogMelCorpus] = {}

    def rows(self, clips: Sequence[Clip]) -> NDArray[np.intp]:
        return np.array([self.row[clip.path] for clip in clips], np.intp)

    def log_mels(self, n_mels: int, update: Update | None = None) -> LogMelCorpus:
        """Of all clips, computed once for every number of bands."""
        if n_mels not in self._corpora:
            folder = self.cache / "log-mel" if self.cache else None
            self._corpora[n_mels] = LogMelCorpus(self.clips, n_mels, cache=folder, update=update)
        return self._corpora[n_mels]

    def embeddings(self, source: Source, update: Update | None = None) -> Tensor:
        """(clips, size) float32, from the cache where the same model saw the same clips."""
        path = self._cached(source)
        if path is not None:
            try:
                values = load_file(path)["embeddings"]
                if len(values) == len(self.clips):
                    return values
            except (OSError, SafetensorError, KeyError):
                pass  # not there, or cut short: computed again
        values = self._embed(source, update)
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"{source.name}: embeds some clips as no numbers; train it again")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(path) as file:
                file.write(save({"embeddings": values.contiguous()}))
        return values

    def _cached(self, source: Source) -> Path | None:
        if self.cache is None:
            return None
        facts = hashlib.sha256(f"{source.digest} {self.precision}".encode())
        for clip in self.clips:
            seen = clip.path.stat()
            facts.update(f"{clip.path} {seen.st_size} {seen.st_mtime_ns}\n".encode())
        return self.cache / "embeddings" / f"{facts.hexdigest()[:32]}.safetensors"

    def _embed(self, source: Source, update: Update | None) -> Tensor:
        if source.pretrained is not None:
            return self._encode(source.body(), update)
        if source.peer is not None:
            rows: list[Tensor] = []
            for i, clip in enumerate(self.clips):
                _, windows = source.peer.run(read_clip(clip))
                rows.append(torch.from_numpy(windows.mean(axis=0)))
                if update:
                    update(i + 1, len(self.clips))
            return torch.stack(rows)
        folder = self.cache / "compare" if self.cache else None
        return torch.from_numpy(compare_of(self.clips, folder, update))

    @torch.inference_mode()
    def _encode(self, body: Body, update: Update | None) -> Tensor:
        body = body.eval()
        corpus = self.log_mels(body.encoder.n_mels)
        out: Tensor | None = None
        done = 0
        for positions, x in whole_clips(corpus, np.arange(len(self.clips))):
            with torch.autocast("cpu", torch.bfloat16, self.precision == "bf16-mixed"):
                z = body(x).float()
            if out is None:
                out = torch.zeros(len(self.clips), z.shape[1])
            out[torch.from_numpy(positions)] = z
            done += len(positions)
            if update:
                update(done, len(self.clips))
        assert out is not None
        return out.clone()


def whole_clips(
    corpus: LogMelCorpus, rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
    """Whole clips in batches of equal length, so that none is padded: positions and log-mels."""
    lengths = corpus.lengths[rows]
    order = np.argsort(lengths, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(lengths[order]) > 0])
    for alike in np.split(order, starts[1:]):
        for at in range(0, len(alike), BATCH_CLIPS):
            positions = alike[at : at + BATCH_CLIPS]
            frames = int(lengths[positions[0]])
            begin = np.zeros(len(positions), np.int64)
            yield positions, corpus.windows_at(rows[positions], begin, frames)


@dataclass(frozen=True)
class LogMelInputs:
    """A task's clips as log-mels, for protocols that run the encoder."""

    corpus: LogMelCorpus
    rows: NDArray[np.intp]
    window_s: float

    def windows(self, picked: NDArray[np.intp], rng: np.random.Generator) -> Tensor:
        """A random window of each; a shorter clip is repeated."""
        return self.corpus.windows_of(self.rows[picked], window_frames(self.window_s), rng)

    def whole(self, picked: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        return whole_clips(self.corpus, self.rows[picked])


def general_clips(clips: Sequence[Clip], left_out: set[str]) -> list[Clip]:
    """Training clips of no source that a task leaves out; of any, if no other are there."""
    training = [c for c in clips if c.split == "train"]
    return [c for c in training if c.source not in left_out] or training


def normalise_untrained(source: Source, bank: ClipBank, clips: Sequence[Clip]) -> Source:
    """An encoder that heard nothing, with the mean and deviation of these clips' log-mels."""
    p = source.pretrained
    if p is None or p.record.get("objective") != "none" or not clips:
        return source
    corpus = bank.log_mels(p.encoder.n_mels)
    values = [x.numpy().ravel() for _, x in whole_clips(corpus, bank.rows(clips))]
    every = np.concatenate(values)
    mean, std = float(every.mean(dtype=np.float64)), float(every.std(dtype=np.float64))
    digest = hashlib.sha256(f"{source.digest} {mean:.6g} {std:.6g}".encode()).hexdigest()
    return replace(source, digest=digest, pretrained=replace(p, mean=mean, std=std))

"""When a baby cries: a linear head on embeddings of chunks, scored as events.

Elbanna et al. (HEAR 2022), 2.4 and 3.5: a recording is cut into windows of fixed size (1 s, or
0.5 s) every hop (50 ms), each is embedded by itself, and a shallow predictor turns every window
into a score at its centre. Frames become events by the gate of the streaming detector, chosen on
streams of validation clips, and are scored as it is: bouts found, false alarms an hour, time F1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from crykit.dataset import SAMPLE_RATE_HZ, Clip, read_manifest
from crykit.errors import InputError, UsageError
from crykit.nn.pretrained import Pretrained
from crykit.nn.student import FRAME_SAMPLES
from crykit.scoring import Span, auc, merge_spans, read_reference
from crykit_train.nights import KINDS, STREAM_S, compose_night
from crykit_train.probe.ledger import Ledger, key_of, write_json
from crykit_train.probe.sources import Body, Source, heard_sources, open_source
from crykit_train.probe.table import Row
from crykit_train.streams import Stream, choose_gate, summarise_streams

Tell = Callable[[str], None]
Float32 = NDArray[np.float32]

BATCH_WINDOWS = 64
HOP_S = 0.01  # of the log-mel


class ChunkRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and hop of the windows, multiples of 10 ms."""

    window_ms: int = 1000
    hop_ms: int = 50

    def __post_init__(self) -> None:
        for name in ("window_ms", "hop_ms"):
            if getattr(self, name) < 10 or getattr(self, name) % 10:
                raise ValueError(f"{name} must be a multiple of 10, got {getattr(self, name)}")


class TimestampsRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models, chunks, and the streams: composed from train and val clips, and given for test."""

    kind: Literal["timestamps"]
    rows: tuple[Row, ...]
    streams: str = ""
    manifest: str = ""
    chunk: ChunkRecipe = ChunkRecipe()
    train_hours: float = 2.0
    val_hours: float = 2.0
    c_grid: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    false_alarms_per_hour: float = 0.5
    seed: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Recording:
    """A stream and its cries: samples (n,), spans in seconds, merged as the scorer merges them."""

    name: str
    samples: Float32
    spans: list[Span]
    reference: list[Span]


@torch.inference_mode()
def chunk_embeddings(
    pretrained: Pretrained, samples: Float32, chunk: ChunkRecipe, below_hz: float = 0.0
) -> tuple[Float32, NDArray[np.float64]]:
    """Embeddings of windows centred on every hop, and the centres in seconds.

    The first window is centred on 0, so there are 1 + duration // hop; at both ends the log-mel is
    reflected.

    Returns:
        (windows, size) and (windows,).
    """
    body = Body(pretrained, below_hz).eval()
    log_mel = pretrained.log_mel(torch.from_numpy(samples)[None])[0, 0].numpy()  # (n_mels, frames)
    window, hop = chunk.window_ms // 10, chunk.hop_ms // 10
    n = 1 + (log_mel.shape[1] - 1) // hop
    before = window // 2
    padded = np.pad(log_mel, ((0, 0), (before, window)), mode="symmetric")
    out: list[Float32] = []
    for start in range(0, n, BATCH_WINDOWS):
        picked = range(start, min(n, start + BATCH_WINDOWS))
        chunks = np.stack([padded[:, i * hop : i * hop + window] for i in picked])
        out.append(body(torch.from_numpy(chunks)[:, None]).numpy())
    return np.concatenate(out), np.arange(n) * hop * HOP_S


def inside(times_s: NDArray[np.float64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Whether each time lies within a span, onset included, offset not."""
    found = np.zeros(len(times_s), np.bool_)
    for onset, offset in spans:
        found |= (times_s >= onset) & (times_s < offset)
    return found


def on_frames(values: NDArray[np.float64], hop_s: float, duration_s: float) -> NDArray[np.float32]:
    """Each 40 ms frame of the detector takes the value of the nearest window centre."""
    step = FRAME_SAMPLES / SAMPLE_RATE_HZ
    centres = (np.arange(math.ceil(duration_s / step - 1e-9)) + 0.5) * step
    nearest = np.clip(np.floor(centres / hop_s + 0.5).astype(np.int64), 0, len(values) - 1)
    return values[nearest].astype(np.float32)


def composed(clips: Sequence[Clip], hours: float, seed: int) -> list[Recording]:
    """Ten-minute streams of a split's clips, with their truth."""
    found: list[Recording] = []
    for index in range(max(1, round(hours * 3600 / STREAM_S))):
        kind = KINDS[index % len(KINDS)]
        samples, truth = compose_night(clips, kind, np.random.default_rng([seed, index, 23]))
        spans = [
            (float(str(row["onset_s"])), float(str(row["offset_s"])))
            for row in truth
            if row["event"] == "cry"
        ]
        found.append(Recording(f"{kind.name}_{index:03d}", samples, spans, merge_spans(spans, 3.0)))
    return found


def recorded(folder: Path) -> list[Recording]:
    """Streams of a folder, each with its truth beside it.

    Raises:
        InputError: none there, one without truth, or one that is not at 16 kHz.
    """
    paths = sorted(p for p in folder.rglob("*.*") if p.suffix in (".flac", ".wav"))
    if not paths:
        raise InputError(f"{folder}: holds no .flac or .wav stream; build some or give another")
    found: list[Recording] = []
    for path in paths:
        truth = path.with_suffix(".csv")
        if not truth.is_file():
            raise InputError(f"{path}: no {truth.name} beside it with the truth; add it")
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        if rate_hz != SAMPLE_RATE_HZ:
            raise InputError(f"{path}: expected {SAMPLE_RATE_HZ} Hz, is {rate_hz}; resample it")
        reference = read_reference(truth)
        found.append(Recording(path.stem, samples.mean(axis=1), reference, reference))
    return found


class FrameHead:
    """Standardised embeddings and logistic regression, C by the frames' AUC on validation."""

    def __init__(
        self,
        train: tuple[Float32, NDArray[np.bool_]],
        val: tuple[Float32, NDArray[np.bool_]],
        c_grid: Sequence[float],
    ) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        self._scaler: Any = StandardScaler().fit(train[0])
        x, held = self._scaler.transform(train[0]), self._scaler.transform(val[0])
        self.val_auc = -1.0
        self._model: Any = None
        for c in sorted(c_grid):
            model = LogisticRegression(C=c, class_weight="balanced", max_iter=200)
            model.fit(x, train[1])
            value = auc(val[1], model.decision_function(held))
            if value > self.val_auc + 1e-9:
                self.val_auc, self.c, self._model = value, c, model

    def probabilities(self, embeddings: Float32) -> NDArray[np.float64]:
        """(windows,)"""
        return self._model.predict_proba(self._scaler.transform(embeddings))[:, 1]


def run_timestamps(
    recipe: TimestampsRecipe,
    manifest: Path,
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Every model of the recipe, also in ``timestamps.json`` of the folder.

    Raises:
        InputError: the manifest or the streams.
        UsageError: a model that gives no frames, or no streams to test on.
    """
    torch.set_num_threads(recipe.threads)
    if not recipe.streams:
        raise UsageError("timestamps: name the folder of test streams in `streams`")
    clips = read_manifest(manifest, leaky=leaky)
    ledger = Ledger(out, recipe, resume=resume, leaky=leaky)
    train = composed([c for c in clips if c.split == "train"], recipe.train_hours, recipe.seed)
    val = composed([c for c in clips if c.split == "val"], recipe.val_hours, recipe.seed)
    test = recorded(Path(recipe.streams))
    found: dict[str, Any] = {"leaky": leaky}
    for row in recipe.rows:
        source = open_source(row.model)
        settings = (recipe.chunk, recipe.train_hours, recipe.val_hours, recipe.c_grid)
        key = key_of(source.digest, *settings, recipe.false_alarms_per_hour, recipe.seed)
        cell = ledger.get(key)
        if cell is None:
            if tell:
                tell(f"{row.label}: {recipe.chunk.window_ms} ms every {recipe.chunk.hop_ms} ms")
            cell = detect_events(source, train, val, test, recipe)
            ledger.put(key, cell)
        found[row.label] = cell
    write_json(out / "timestamps.json", found)
    return found


def detect_events(
    source: Source,
    train: Sequence[Recording],
    val: Sequence[Recording],
    test: Sequence[Recording],
    recipe: TimestampsRecipe,
) -> dict[str, Any]:
    """Train the head, choose the gate on validation, score the test streams."""
    p = source.pretrained
    if p is None:
        raise UsageError(f"{source.name}: timestamps need an encoder of the kit")
    embedded = {
        name: [chunk_embeddings(p, r.samples, recipe.chunk, source.below_hz) for r in of]
        for name, of in (("train", train), ("val", val))
    }
    sets = [
        (
            np.concatenate([x for x, _ in embedded[name]]),
            np.concatenate(
                [inside(t, r.spans) for (_, t), r in zip(embedded[name], of, strict=True)]
            ),
        )
        for name, of in (("train", train), ("val", val))
    ]
    head = FrameHead(sets[0], sets[1], recipe.c_grid)
    hop_s = recipe.chunk.hop_ms / 1000

    def stream(recording: Recording, embeddings: Float32) -> Stream:
        duration_s = len(recording.samples) / SAMPLE_RATE_HZ
        frames = on_frames(head.probabilities(embeddings), hop_s, duration_s)
        return Stream(recording.name, duration_s, frames, recording.reference)

    held = [stream(r, x) for r, (x, _) in zip(val, embedded["val"], strict=True)]
    gate = choose_gate(held, max_false_alarms_per_hour=recipe.false_alarms_per_hour)
    heard = [
        stream(r, chunk_embeddings(p, r.samples, recipe.chunk, source.below_hz)[0]) for r in test
    ]
    return {
        "chunk": msgspec.to_builtins(recipe.chunk),
        "C": head.c,
        "val_frame_auc": round(head.val_auc, 4),
        "gate": msgspec.to_builtins(gate),
        "val": summarise_streams(held, gate),
        "test": summarise_streams(heard, gate),
        "heard": sorted(heard_sources(source.record)),
    }

"""Which block loses what in eight bits: each alone, and all but each, computed in torch.

The runtimes' arithmetic is simulated (`crykit.nn.fake_quant`), so that thirty networks are measured
in minutes, on val clips and on streams.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.dataset import Clip, read_clip
from crykit.gate import EventGate, GateClosed, GateSettings
from crykit.nn.fake_quant import block_names, fake_quantise, set_mode
from crykit.nn.frontend import SAMPLE_RATE_HZ, STEP_SAMPLES, LogMelFrontEnd
from crykit.nn.student import FRAME_HOPS, FRAME_SAMPLES, CryStudent
from crykit.offline import clip_probability, scene_embedding
from crykit.scoring import EventScore, Span, auc
from crykit_export.calibration import Audio, calibration_audio
from crykit_export.held_out import HeldOut
from crykit_export.loss import embedding_agreement, score_spans
from crykit_export.source import TrainedModel

Floats = NDArray[np.float32]
BLOCK_FRAMES = 2000
"""Log-mel frames heard at a time, 20 s."""
DRAWS = 300
LEVEL_DBFS = 0.0
"""A frame's level only describes an event, and here nobody reads it."""


@dataclass(frozen=True)
class Row:
    """One network: some blocks in eight bits, the rest in floating point; losses against fp32.

    Args:
        auc_loss_ci95: over resampled groups.
        probability_error: mean absolute difference of a frame's probability, on the clips.
        sqnr_db: power of the clips' logits over that of their error.
        embedding_cosine: the least that any clip's pooled embedding has with that of fp32.
        false_alarms: on the streams.
    """

    blocks: str
    auc_loss: float
    auc_loss_ci95: tuple[float, float]
    probability_error: float
    sqnr_db: float
    embedding_cosine: float
    time_f1_loss: float
    false_alarms: int


@dataclass(frozen=True)
class Report:
    """All rows, in the order of the blocks, and what they were measured on."""

    model: str
    alone: list[Row]
    all_but: list[Row]
    everything: Row
    clips: int
    groups: int
    auc_fp32: float
    streams: int
    stream_hours: float
    time_f1_fp32: float
    false_alarms_fp32: int


@dataclass(frozen=True)
class _Sound:
    """Features of clips and of streams, (1, 2, mels, frames) each, and the streams' lengths."""

    clips: list[Tensor]
    streams: list[Tensor]
    seconds: list[float]


@dataclass(frozen=True)
class _Heard:
    logits: Floats
    probabilities: Floats
    clip_scores: Floats
    clip_embeddings: Floats
    streams: EventScore


def measure_sensitivity(
    model: TrainedModel, truth: HeldOut, say: Callable[[str], None], seed: int = 0
) -> Report:
    """Measure every block, its ranges calibrated on the manifest's train split as export does."""
    say("calibrating")
    ranges = _observe(model.student, calibration_audio(truth.manifest, seed=seed))
    say(f"reading {len(truth.clips)} clips and {len(truth.streams)} streams")
    sound = _read(truth)
    full = _hear(model.student, model, sound, truth)

    def row(name: str, quantised: Sequence[str]) -> Row:
        keep = [block for block in names if block not in quantised]
        student = fake_quantise(copy.deepcopy(model.student), keep).eval()
        known = student.state_dict()
        student.load_state_dict({key: value for key, value in ranges.items() if key in known})
        set_mode(student, "fixed")
        found = _compare(name, _hear(student, model, sound, truth), full, truth)
        say(f"{name}: probability error {found.probability_error:.5f}")
        return found

    names = block_names(model.student)
    hours = full.streams.duration_s / 3600.0
    return Report(
        model=f"{model.record.name} {model.record.version}",
        everything=row("all", names),
        alone=[row(name, [name]) for name in names],
        all_but=[row(f"all but {name}", [n for n in names if n != name]) for name in names],
        clips=len(truth.clips),
        groups=len(set(truth.groups)),
        auc_fp32=auc(truth.labels, full.clip_scores),
        streams=len(truth.streams),
        stream_hours=hours,
        time_f1_fp32=full.streams.time_f1,
        false_alarms_fp32=full.streams.false_alarms,
    )


@torch.inference_mode()
def _observe(student: CryStudent, sequences: Sequence[Audio]) -> dict[str, Tensor]:
    """Weights and ranges of the student prepared whole."""
    prepared = fake_quantise(copy.deepcopy(student)).eval()
    for audio in sequences:
        features = _features(audio)
        prepared(features, *prepared.initial_state(1))
    return prepared.state_dict()


@torch.inference_mode()
def _features(audio: Audio) -> Tensor:
    padded = np.zeros(-(-len(audio) // STEP_SAMPLES) * STEP_SAMPLES, np.float32)
    padded[: len(audio)] = audio
    front_end = LogMelFrontEnd("fft")
    features = front_end(torch.from_numpy(padded)[None], *front_end.initial_state(1))[0]
    n_frames = -(-len(audio) // FRAME_SAMPLES)
    return features[:, :, :, : n_frames * FRAME_HOPS]


def _read(truth: HeldOut) -> _Sound:
    streams = [read_clip(_clip(stream.audio)) for stream in truth.streams]
    return _Sound(
        [_features(read_clip(clip)) for clip in truth.clips],
        [_features(audio) for audio in streams],
        [len(audio) / SAMPLE_RATE_HZ for audio in streams],
    )


def _clip(path: Path) -> Clip:
    return Clip(path, "", "", "", "", "", "", "", {})


@torch.inference_mode()
def _play(student: CryStudent, features: Tensor) -> tuple[Floats, Floats]:
    """Logits (frames,) and embeddings (frames, size), from a fresh state."""
    state: Sequence[Tensor] = student.initial_state(1)
    logits: list[Tensor] = []
    embeddings: list[Tensor] = []
    for start in range(0, features.shape[3], BLOCK_FRAMES):
        block = features[:, :, :, start : start + BLOCK_FRAMES]
        found, embedding, state = student.logits(block, *state)
        logits.append(found[0])
        embeddings.append(embedding[0])
    return torch.cat(logits).numpy(), torch.cat(embeddings).numpy()


def _hear(student: CryStudent, model: TrainedModel, sound: _Sound, truth: HeldOut) -> _Heard:
    played = [_play(student, features) for features in sound.clips]
    probabilities = [_sigmoid(logits) for logits, _ in played]
    pooling, gate = model.record.clip, model.record.gate
    spans = [_spans(_sigmoid(_play(student, x)[0]), gate) for x in sound.streams]
    return _Heard(
        logits=np.concatenate([logits for logits, _ in played]),
        probabilities=np.concatenate(probabilities),
        clip_scores=np.asarray([clip_probability(p, pooling) for p in probabilities], np.float32),
        clip_embeddings=np.asarray([scene_embedding(embedding) for _, embedding in played]),
        streams=score_spans(spans, sound.seconds, truth),
    )


def _sigmoid(logits: Floats) -> Floats:
    return torch.sigmoid(torch.from_numpy(logits)).numpy()


def _spans(probabilities: Floats, settings: GateSettings) -> list[Span]:
    gate = EventGate(settings, FRAME_SAMPLES, SAMPLE_RATE_HZ)
    found = gate.feed(probabilities.tolist(), [LEVEL_DBFS] * len(probabilities)) + gate.flush()
    closed = [event for event in found if isinstance(event, GateClosed)]
    return [(e.onset_sample / SAMPLE_RATE_HZ, e.offset_sample / SAMPLE_RATE_HZ) for e in closed]


def _compare(name: str, heard: _Heard, full: _Heard, truth: HeldOut) -> Row:
    error = np.square(heard.logits - full.logits, dtype=np.float64).mean()
    power = np.square(full.logits, dtype=np.float64).mean()
    cosine = embedding_agreement(heard.clip_embeddings, full.clip_embeddings)
    before, after = (auc(truth.labels, scores.clip_scores) for scores in (full, heard))
    return Row(
        blocks=name,
        auc_loss=before - after,
        auc_loss_ci95=_interval(heard.clip_scores, full.clip_scores, truth),
        probability_error=float(np.abs(heard.probabilities - full.probabilities).mean()),
        sqnr_db=float(10.0 * np.log10(power / max(error, 1e-20))),
        embedding_cosine=cosine["embedding_cosine_min"],
        time_f1_loss=full.streams.time_f1 - heard.streams.time_f1,
        false_alarms=heard.streams.false_alarms,
    )


def _interval(heard: Floats, full: Floats, truth: HeldOut) -> tuple[float, float]:
    """Of the loss of AUC, 95%: whole groups are drawn, and both sides score the same draw."""
    labels = np.asarray(truth.labels)
    _, group = np.unique(truth.groups, return_inverse=True)
    members = [np.flatnonzero(group == i) for i in range(group.max() + 1)]
    rng = np.random.default_rng(0)
    draws: list[float] = []
    for _ in range(DRAWS):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        if labels[drawn].any() and not labels[drawn].all():
            draws.append(auc(labels[drawn], full[drawn]) - auc(labels[drawn], heard[drawn]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)

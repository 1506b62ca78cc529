"""Audio that shows a quantiser the ranges it will meet, streamed with the states it will meet.

Calibrating a stateful network on zero states, or on single steps, would leave the ranges of the
states to chance: sequences are streamed through the float network and every input of every chosen
step is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.dataset import Clip, read_clip, read_manifest
from crykit.errors import InputError
from crykit_export.graphs import ExportGraph

Audio = NDArray[np.float32]

CLIP_SECONDS = 5
N_CRIES = 32
N_OTHERS = 64
N_ROOMS = 8
ROOM_EVENTS = ("noise", "silence")
ROOM_DBFS = (-68.0, -48.0)
LEVELS_DBFS = (-50.0, -12.0)
"""Range of the level, in RMS, that each clip is brought to."""
MUTED_SECONDS = 2
MUTED_EVERY = 12
"""One clip in so many is heard with a stretch of digital silence in its middle."""
MAX_STEPS = 1500
"""Of longer sequences every second step is kept, or third ...: neighbours share most of it."""


def calibration_audio(manifest: Path, *, seed: int = 0) -> list[Audio]:
    """Sequences of 16 kHz audio to calibrate on, silence and quiet rooms among them.

    Args:
        manifest: only its `train` split is read: what loss is measured on must be new.
        seed: of the choice of clips, their levels and the noise under them.

    Raises:
        InputError: nothing there to calibrate on.
    """
    rng = np.random.default_rng(seed)
    usable = [c for c in read_manifest(manifest) if c.split == "train" and c.event != "unverified"]
    heard = [_placed(audio, rng) for audio in _from_manifest(manifest, usable, rng)]
    rooms = _rooms(usable, rng)
    silence = np.zeros(MUTED_SECONDS * 16_000, np.float32)
    # A microphone that is muted and opened again: the widest swings that the features can make.
    muted = [np.concatenate([a, silence, a]) for a in [*heard[::MUTED_EVERY], *rooms[:1]]]
    return [*heard, *rooms, *muted, silence]


def _from_manifest(path: Path, usable: list[Clip], rng: np.random.Generator) -> list[Audio]:
    cries = [clip for clip in usable if clip.event == "cry"]
    others = [clip for clip in usable if clip.event != "cry"]
    if not cries or not others:
        raise InputError(
            f"{path}: int8 needs cries and other sounds of the train split to calibrate on; "
            f"it has {len(cries)} and {len(others)}"
        )
    return [_heard(c) for c in (*_some(cries, N_CRIES, rng), *_some(others, N_OTHERS, rng))]


def _rooms(usable: list[Clip], rng: np.random.Generator) -> list[Audio]:
    """Recorded rooms as quiet as bedrooms are at night, then one that is noise alone."""
    recorded = [c for c in usable if c.event in ROOM_EVENTS]
    rooms = [_heard(clip) for clip in _some(recorded, N_ROOMS, rng)]
    levelled = [_levelled(audio, rng.uniform(*ROOM_DBFS)) for audio in rooms]
    return [*levelled, _noise(rng, CLIP_SECONDS * 16_000, float(np.mean(ROOM_DBFS)))]


def _heard(clip: Clip) -> Audio:
    return read_clip(clip)[: CLIP_SECONDS * 16_000]


def _some(clips: list[Clip], n: int, rng: np.random.Generator) -> list[Clip]:
    return [clips[i] for i in sorted(rng.permutation(len(clips))[:n])]


def _placed(audio: Audio, rng: np.random.Generator) -> Audio:
    """The clip at a random level over a faint noise floor, as a microphone would give it."""
    placed = _levelled(audio, rng.uniform(*LEVELS_DBFS))
    floor = _noise(rng, len(audio), rng.uniform(-75.0, -50.0))
    return np.clip(placed + floor, -1.0, 1.0).astype(np.float32)


def _levelled(audio: Audio, level_dbfs: float) -> Audio:
    """The clip brought to an RMS level."""
    rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) + 1e-9
    return (audio * (10.0 ** (level_dbfs / 20.0) / rms)).astype(np.float32)


def _noise(rng: np.random.Generator, n_samples: int, level_dbfs: float) -> Audio:
    """Brownish noise, as of a room, at an RMS level."""
    white = rng.standard_normal(n_samples + 64)
    smooth = np.convolve(white, np.exp(-np.arange(32) / 8.0), mode="same")[32 : 32 + n_samples]
    return (smooth / smooth.std() * 10.0 ** (level_dbfs / 20.0)).astype(np.float32)


@torch.no_grad()
def calibration_steps(
    front_end: ExportGraph, network: ExportGraph, sequences: list[Audio]
) -> Iterator[dict[str, Tensor]]:
    """Inputs of the network, states included, at steps spread evenly over every sequence."""
    n_state = len(network.inputs) - 1
    step_samples = front_end.inputs["samples"].shape[1]
    n_steps = sum(len(audio) // step_samples for audio in sequences)
    kept_every = max(1, -(-n_steps // MAX_STEPS))
    for audio in sequences:
        heard = front_end.example[1:]
        state = network.example[1:]
        for step in range(len(audio) // step_samples):
            block = audio[step * step_samples : (step + 1) * step_samples]
            features, *heard = front_end.module(torch.from_numpy(block)[None], *heard)
            if step % kept_every == 0:
                yield dict(zip(network.inputs, (features, *state), strict=True))
            state = network.module(features, *state)[-n_state:]
